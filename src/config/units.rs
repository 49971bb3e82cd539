//! Durations, sizes and rates as text: a whole number and its unit, nothing else.
//!
//! A bare number is refused. nginx reads it as seconds, HAProxy as milliseconds; whichever we
//! chose, half of the readers would be wrong by a factor of a thousand.

use std::time::Duration;

use super::log::Share;
use super::problem::quoted;

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a duration such as `250ms`, `10s`, `5m`, `1h` or `1d`.
///
/// # Errors
/// A sentence that says which units there are.
pub fn duration(text: &str) -> Result<Duration, String> {
    measure(text, TIME_UNITS, "a duration", "s").map(Duration::from_millis)
}

/// Reads a size in bytes such as `512B`, `64KiB`, `4MiB` or `1GiB`; `KB`, `MB` and `GB` are
/// decimal.
///
/// # Errors
/// A sentence that says which units there are.
pub(super) fn size(text: &str) -> Result<u64, String> {
    measure(text, SIZE_UNITS, "a size", "KiB")
}

/// The most that a rate may be, in whichever time.
const RATE_MAX: u32 = 1_000_000;

/// Reads a rate such as `50/s`, `10/m` or `100/h`: how many, in which time.
///
/// # Errors
/// A sentence that says how one is written.
pub(super) fn rate(text: &str) -> Result<(u32, Duration), String> {
    let shown = quoted(text);
    let wrong =
        || format!("{shown} is not a rate; write a whole number and a time: 50/s, 10/m or 100/h");
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit.trim_start() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count = number.parse().ok().filter(|count| *count <= RATE_MAX);
    match count {
        Some(0) => Err(format!("{shown} lets nothing pass; the least is 1/h")),
        Some(count) => Ok((count, Duration::from_secs(per))),
        None => Err(format!("{shown} is too large; the most is {RATE_MAX}/s")),
    }
}

/// Reads a part of all such as `0.01`, above 0 and up to 1.
///
/// # Errors
/// A sentence that says how it is written.
pub(super) fn share(text: &str) -> Result<Share, String> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let part = text.bytes().all(plain).then(|| text.parse::<f64>());
    match part.and_then(Result::ok) {
        Some(part) if part > 0.0 && part <= 1.0 => Ok(Share::of(part)),
        _ => {
            let shown = quoted(text);
            Err(format!(
                "{shown} is no part of all; write a number above 0 and up to 1, such as 0.01"
            ))
        }
    }
}

/// The same, where it may be none at all.
///
/// # Errors
/// A sentence that says how it is written.
pub(super) fn share_or_none(text: &str) -> Result<Share, String> {
    let is_none = text.parse() == Ok(0.0) && !text.starts_with(['-', '+']);
    match is_none {
        true => Ok(Share::NONE),
        false => share(text).map_err(|wrong| wrong.replace("above 0 and up to 1", "from 0 to 1")),
    }
}

/// Reads percent such as `50%`.
///
/// # Errors
/// A sentence that says how it is written.
pub(super) fn percent(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| {
            let shown = quoted(text);
            format!("{shown} is not percent; write a whole number and the sign, such as 50%")
        })
}

fn measure(text: &str, units: &[(&str, u64)], what: &str, usual: &str) -> Result<u64, String> {
    let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let known = known.join(", ");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        let shown = quoted(text);
        return Err(format!(
            "{shown} is not {what}; write a whole number and a unit, such as 10{usual}; the units \
             are {known}"
        ));
    }
    if unit.is_empty() {
        let shown = quoted(text);
        return Err(format!(
            "{shown} has no unit; write {number}{usual}, or another of: {known}"
        ));
    }
    let exact = units.iter().find(|(name, _)| *name == unit.trim_start());
    let Some((_, factor)) = exact else {
        return Err(wrong_unit(text, unit.trim_start(), &known));
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| format!("{} is too large for {what}", quoted(text)))
}

fn wrong_unit(text: &str, unit: &str, known: &str) -> String {
    if unit.starts_with(['.', ',']) {
        let shown = quoted(text);
        return format!("{shown} is not a whole number; use a smaller unit (units: {known})");
    }
    if unit.contains(|c: char| c.is_ascii_digit()) {
        let shown = quoted(text);
        return format!("{shown} has more than one number; write one, such as 90s for 1m30s");
    }
    format!("{} is not one of the units: {known}", quoted(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_and_a_time() {
        for (text, count, per) in [
            ("1/s", 1, 1),
            ("50 / m", 50, 60),
            ("1000000/h", 1_000_000, 3600),
        ] {
            assert_eq!(rate(text), Ok((count, Duration::from_secs(per))), "{text}");
        }
        for (text, part) in [
            ("50", "50/s"),
            ("50/d", "50/s, 10/m or 100/h"),
            ("50r/s", "not a rate"),
            ("/s", "not a rate"),
            ("+5/s", "not a rate"),
            ("1.5/s", "not a rate"),
            ("0/s", "lets nothing pass"),
            ("1000001/s", "the most is 1000000/s"),
            ("99999999999999999999/s", "too large"),
        ] {
            let error = rate(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn durations_take_every_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0s", 0),
            ("10 s", 10_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_tell_binary_from_decimal() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("4MiB", 4_194_304),
            ("1GiB", 1_073_741_824),
            ("64KB", 64_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn percent_have_their_sign() {
        assert_eq!(percent("50%"), Ok(50));
        assert_eq!(percent("7 %"), Ok(7));
        for text in [
            "50",
            "%",
            "-1%",
            "1.5%",
            "+5%",
            "50%%",
            "99999999999999999999%",
        ] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_measures_are_refused_with_the_units() {
        for (text, part) in [
            ("10", "has no unit; write 10s"),
            ("", "is not a duration"),
            ("s", "is not a duration"),
            ("-1s", "is not a duration"),
            ("10sec", "`sec` is not one of the units: ms, s, m, h, d"),
            ("10S", "`S` is not one of the units"),
            ("1.5s", "is not a whole number"),
            ("1m30s", "more than one number"),
            ("99999999999999999999s", "too large"),
            ("18446744073709551615d", "too large"),
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(size("64k").expect_err("64k").contains("KiB"));
        assert!(size("64").expect_err("64").contains("write 64KiB"));
    }
}
