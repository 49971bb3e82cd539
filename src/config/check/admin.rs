//! The admin address and the admin socket.

use crate::config::address;
use crate::config::admin::{Admin, AdminLevel, AdminSocket};
use crate::config::bind::Bind;
use crate::config::fields::{Fields, is_off};
use crate::config::keys::ADMIN_LEVELS;
use crate::config::model::Listener;
use crate::config::node::Span;
use crate::config::problem::{Report, quoted};

/// Longest path of a unix socket, of Linux's 108 bytes with the final NUL, less what a draft of it is
/// named beside it (see `server::admin::socket`).
const SOCKET_PATH_MAX: usize = 90;

pub(super) fn admin(root: &Fields<'_>, listeners: &[(Span, Listener)], report: &Report) -> Admin {
    let mut admin = Admin {
        bind: None,
        level: AdminLevel::Read,
        socket: None,
    };
    let Some(fields) = root.section_or_off("admin") else {
        return admin;
    };
    let level = |name: &str, otherwise| fields.choice(name, &ADMIN_LEVELS).unwrap_or(otherwise);
    admin.level = level("level", AdminLevel::Read);
    let socket_level = level("socket_level", AdminLevel::Operate);
    admin.socket = socket(&fields, socket_level);
    let Some(word) = fields.text("bind").filter(|word| !is_off(word.text)) else {
        return admin;
    };
    let Some(bind) = fields.parsed(word, address::bind) else {
        return admin;
    };
    admin.bind = Some(bind);
    if admin.level == AdminLevel::Operate && !bind.ip().to_canonical().is_loopback() {
        let message = format!(
            "`level: operate` needs a loopback address, and {bind} is none; operate over the socket"
        );
        fields.error(fields.place_of("level"), message);
    }
    for (at, listener) in listeners {
        if !listener.bind.overlaps(&Bind::at(bind)) {
            continue;
        }
        if fields.written("bind").is_some() {
            let line = report.line(*at);
            let message = format!(
                "{bind} is taken already: the listener on line {line} accepts on {}",
                listener.bind
            );
            report.error(word.span, message);
        } else {
            let message = format!(
                "{} is taken already by the admin address, which is {bind} unless `admin` says \
                 another or `off`",
                listener.bind
            );
            report.error(*at, message);
        }
    }
    admin
}

fn socket(fields: &Fields<'_>, level: AdminLevel) -> Option<AdminSocket> {
    let mode = fields.text("socket_mode")?;
    let mode = fields.parsed(mode, mode_bits)?;
    let path = match fields.text("socket") {
        None => None,
        Some(word) if is_off(word.text) => return None,
        Some(word) => {
            let path = fields.parsed(word, address::file_path)?;
            if word.text.len() > SOCKET_PATH_MAX {
                let message =
                    format!("the path of a socket has at most {SOCKET_PATH_MAX} bytes here");
                fields.error(word.span, message);
            }
            Some(path)
        }
    };
    Some(AdminSocket { path, mode, level })
}

/// Permission bits in octal, as `chmod` takes them.
fn mode_bits(text: &str) -> Result<u32, String> {
    let wrong = || {
        format!(
            "{} is no mode; write three octal digits such as 600 or 660, the first of them 6 or 7",
            quoted(text)
        )
    };
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = matches!(digits.len(), 3 | 4) && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    let mode = mode.ok_or_else(wrong)?;
    if mode > 0o777 || mode & 0o600 != 0o600 {
        return Err(wrong());
    }
    Ok(mode)
}
