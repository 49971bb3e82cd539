//! When somebody who cannot answer now wants to be asked again.

use std::time::{Duration, SystemTime};

/// What the value of `Retry-After` says: seconds, or a date (RFC 9110 section 10.2.3). `None` if it is
/// neither; no time at all for a date that has passed.
pub(super) fn pause(value: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}
