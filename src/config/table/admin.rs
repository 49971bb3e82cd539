//! The keys of the admin address and the admin socket.

use crate::config::keys::Kind::{Choice, Text, TextOrOff};
use crate::config::keys::Need::{Default, Optional};
use crate::config::keys::{ADMIN_LEVELS, Section, key, names};

pub(super) static ADMIN: Section = Section {
    noun: "admin section",
    about: "Where health, readiness, metrics and the API for operators are.",
    keys: &[
        key(
            "bind",
            TextOrOff,
            Default("127.0.0.1:9090"),
            "IP address and port, or `off`. The API answers there over loopback alone.",
        ),
        key(
            "level",
            Choice(&names(&ADMIN_LEVELS)),
            Default("read"),
            "What the API at `bind` allows: to look, or to operate as well, which anybody on this host \
             could then do; `operate` needs a loopback address.",
        ),
        key(
            "socket",
            TextOrOff,
            Optional,
            "Absolute path of a unix socket for the API, which `tidegate status` and the like use, or \
             `off`. Unless set: admin.sock in the state directory, if it can be made there.",
        ),
        key(
            "socket_mode",
            Text,
            Default("600"),
            "Permission bits of the socket in octal: who may connect. The owner always may.",
        ),
        key(
            "socket_level",
            Choice(&names(&ADMIN_LEVELS)),
            Default("operate"),
            "What the API on the socket allows.",
        ),
    ],
};
