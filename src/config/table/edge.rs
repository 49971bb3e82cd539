//! The keys of what a route does with heads, and of routes that answer by themselves.

use crate::config::keys::Kind::{Count, Duration, Flag, Pairs, Text, Texts};
use crate::config::keys::Need::{Default, Optional, Required};
use crate::config::keys::{Section, key};

pub(super) static RETURN: Section = Section {
    noun: "return section",
    about: "An answer that is always the same, in place of a pool.",
    keys: &[
        key(
            "status",
            Count(200, 599),
            Default("200"),
            "Its status, and none of those that redirect.",
        ),
        key(
            "body",
            Text,
            Optional,
            "Its body, at most 64 KiB of text. Unless set: none.",
        ),
        key(
            "headers",
            Pairs(64),
            Optional,
            "Its fields. `Content-Type` is text/plain in UTF-8 unless set here. Values may have \
             variables.",
        ),
    ],
};

pub(super) static REDIRECT: Section = Section {
    noun: "redirect section",
    about: "Where clients are sent, in place of a pool.",
    keys: &[
        key(
            "to",
            Text,
            Required("to: \"https://$host$request_uri\""),
            "http:// or https:// with a host, or a path here. May have variables; a host is written out \
             or is $host.",
        ),
        key(
            "status",
            Count(301, 308),
            Default("307"),
            "301, 302 or 303, after which a POST may become a GET; 307 or 308, after which it stays one. \
             301 and 308 are remembered by clients.",
        ),
    ],
};

pub(super) static HEADERS: Section = Section {
    noun: "headers section",
    about: "Changes to the fields of heads. Values may have the variables $remote_addr, $host, $http_host, \
            $scheme, $request_id, $path, $query and $request_uri, and of a client's certificate \
            $ssl_client_verify, $ssl_client_s_dn, $ssl_client_i_dn, $client_name, $client_fingerprint and \
            $principal; $$ is a dollar.",
    keys: &[
        key(
            "set",
            Pairs(64),
            Optional,
            "Fields that take the place of all of that name.",
        ),
        key(
            "add",
            Pairs(64),
            Optional,
            "Fields that stand beside those of that name.",
        ),
        key("remove", Texts(64), Optional, "Names that are left out."),
    ],
};

pub(super) static REWRITE: Section = Section {
    noun: "rewrite section",
    about: "What the path becomes on its way to a server. Either `prefix`, or `regex` and `to`.",
    keys: &[
        key(
            "prefix",
            Text,
            Optional,
            "What the route's `path` or `path_prefix` becomes; / leaves it out.",
        ),
        key(
            "regex",
            Text,
            Optional,
            "A regular expression, of which the first match in the path is replaced.",
        ),
        key(
            "to",
            Text,
            Optional,
            "What it is replaced by; $1 or ${name} is a group of it, $$ a dollar.",
        ),
    ],
};

pub(super) static CORS: Section = Section {
    noun: "cors section",
    about: "CORS in the servers' place: preflights are answered here, and what servers say of it is left out.",
    keys: &[
        key(
            "origins",
            Texts(1000),
            Required("origins: [\"https://app.example.com\"]"),
            "Pages that may read the answers, each scheme://host[:port], or \"*\" alone for any. They \
             are let in as with the route's own `origins`.",
        ),
        key(
            "methods",
            Texts(32),
            Optional,
            "Methods that they may use; in MCP beside GET, POST and DELETE. Unless set for plain HTTP: \
             all usual ones.",
        ),
        key(
            "headers",
            Texts(64),
            Optional,
            "Fields that they may send beside Content-Type, Authorization and those of MCP, or \"*\" for \
             any.",
        ),
        key(
            "expose",
            Texts(64),
            Optional,
            "Fields of answers that they may read beside those of MCP, or \"*\" for any.",
        ),
        key(
            "credentials",
            Flag,
            Default("false"),
            "Whether they may send cookies.",
        ),
        key(
            "max_age",
            Duration("0s", "1d"),
            Default("1h"),
            "How long a browser remembers the answer to a preflight.",
        ),
    ],
};
