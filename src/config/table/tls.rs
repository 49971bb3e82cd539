//! The keys of TLS, towards clients and towards endpoints.

use crate::config::keys::Kind::{self, Choice, Text};
use crate::config::keys::Need::{Optional, Required};
use crate::config::keys::{CLIENT_AUTHS, Section, VERIFY, key, names};

pub(super) static TLS: Section = Section {
    noun: "tls",
    about: "The certificates that a listener shows, and those that it wants to see.",
    keys: &[
        key(
            "cert",
            Text,
            Optional,
            "Absolute path of a PEM file: the certificate first, then those that lead from it \
             to a root. Shown to everybody for whose name there is no other.",
        ),
        key(
            "key",
            Text,
            Optional,
            "Absolute path of a PEM file with the certificate's private key, not encrypted.",
        ),
        key(
            "certificates",
            Kind::Sections(&CERTIFICATE, 1000),
            Optional,
            "Further certificates, or all of them. A client is shown the one for the name it asks for \
             (SNI), exact names before wildcards, else the first.",
        ),
        key(
            "client_ca",
            Text,
            Optional,
            "Absolute path of a PEM file: the authorities of the clients. Unless set: clients are not \
             asked for certificates.",
        ),
        key(
            "client_auth",
            Choice(&names(&CLIENT_AUTHS)),
            Optional,
            "Whether clients have to show a certificate, may, or are not asked. Unless set: they have \
             to, if there is a `client_ca`.",
        ),
    ],
};

static CERTIFICATE: Section = Section {
    noun: "certificate",
    about: "A certificate that a listener shows.",
    keys: &[
        key(
            "cert",
            Text,
            Required("cert: /etc/tidegate/cert.pem"),
            "Absolute path of a PEM file: the certificate first, then those that lead from it \
             to a root.",
        ),
        key(
            "key",
            Text,
            Required("key: /etc/tidegate/key.pem"),
            "Absolute path of a PEM file with the certificate's private key, not encrypted.",
        ),
    ],
};

pub(super) static ENDPOINT_TLS: Section = Section {
    noun: "tls section",
    about: "How TLS is spoken to an endpoint. What an endpoint does not say itself, its pool says for it.",
    keys: &[
        key(
            "ca",
            Text,
            Optional,
            "Absolute path of a PEM file: the authorities whose certificates are good here, and no \
             others. Unless set: those of the system.",
        ),
        key(
            "server_name",
            Text,
            Optional,
            "The DNS name or IP address that the endpoint is asked by and its certificate must be for. \
             Unless set: the host of its address.",
        ),
        key(
            "cert",
            Text,
            Optional,
            "Absolute path of a PEM file: the certificate that the endpoint is shown when it wants to \
             know who we are, and those that lead from it to a root. Needs `key`.",
        ),
        key(
            "key",
            Text,
            Optional,
            "Absolute path of a PEM file with the private key of `cert`, not encrypted.",
        ),
        key(
            "verify",
            Choice(&names(&VERIFY)),
            Optional,
            "Whether the endpoint's certificate must be good. Unless set: on. With `off` anybody on \
             the way can pretend to be the endpoint.",
        ),
    ],
};
