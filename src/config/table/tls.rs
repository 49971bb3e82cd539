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
            "acme",
            Kind::Section(&ACME),
            Optional,
            "A certificate that is ordered from an authority by ACME (RFC 8555), and again before it \
             expires. Beside the others, or alone.",
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

static ACME: Section = Section {
    noun: "acme section",
    about: "A certificate that is ordered from an authority by ACME (RFC 8555). The authority connects to \
            port 443 of each name (TLS-ALPN-01, RFC 8737), which must lead to this listener.",
    keys: &[
        key(
            "names",
            Kind::Texts(100),
            Required("names: [gate.example.com]"),
            "The DNS names that the certificate is for, without wildcards.",
        ),
        key(
            "agree_to_terms",
            Kind::Flag,
            Required("agree_to_terms: true"),
            "That the terms of the authority are agreed to; must be true.",
        ),
        key(
            "contact",
            Kind::Texts(10),
            Optional,
            "Where the authority may write to, such as mailto:ops@example.com.",
        ),
        key(
            "directory",
            Text,
            Optional,
            "The URL of the authority's directory. Unless set: Let's Encrypt, \
             https://acme-v02.api.letsencrypt.org/directory.",
        ),
        key(
            "ca",
            Text,
            Optional,
            "Absolute path of a PEM file: the authorities by which the directory itself proves who it is. \
             Unless set: those of the system.",
        ),
        key(
            "renew_before",
            Kind::Duration("1h", "365d"),
            Optional,
            "How long before its end the certificate is ordered anew; a third of its whole life where that \
             is less. Unless set: 30d.",
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
