//! The keys of what a route does with heads, and of routes that answer by themselves.

use crate::config::keys::Kind::{Count, Pairs, Text, Texts};
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
            $scheme, $request_id, $path, $query and $request_uri; $$ is a dollar.",
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
