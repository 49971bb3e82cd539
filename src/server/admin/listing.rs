//! Lists, as far as a query wants them.

use super::api::{Refusal, Reply, shown, unescape};
use super::live::Live;
use super::look::{self, PAGE, PAGE_MAX, Wanted};
use crate::server::operator::Operator;
use crate::session::Key;

/// Tools on a list, unless asked otherwise.
const TOOLS: usize = 50;
/// The longest text that is searched for, in bytes.
const SEARCH_MAX: usize = 200;

pub(super) fn sessions(operator: &Operator, query: Option<&str>) -> Reply {
    listed(
        query,
        &["pool", "endpoint", "limit", "after", "q"],
        |wanted| shown(&look::sessions(operator, wanted)),
    )
}

pub(super) fn streams(operator: &Operator, query: Option<&str>) -> Reply {
    listed(query, &["pool", "endpoint", "limit"], |wanted| {
        shown(&look::streams(operator, wanted))
    })
}

pub(super) fn tools(live: &Live, query: Option<&str>) -> Reply {
    let has_limit = query.is_some_and(|query| query.contains("limit="));
    listed(query, &["limit"], |wanted| {
        shown(&live.tools(if has_limit { wanted.max } else { TOOLS }))
    })
}

/// Lists what a query wants, which has some of these parameters.
fn listed(query: Option<&str>, known: &[&str], list: impl FnOnce(&Wanted<'_>) -> Reply) -> Reply {
    let (mut pool, mut endpoint, mut search) = (None, None, None);
    let (mut max, mut after) = (PAGE, None);
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescape(value).ok_or_else(|| Refusal::Bad("malformed query".to_owned()))?;
        match name {
            _ if !known.contains(&name) => {
                return Err(Refusal::Bad(format!("unknown parameter {name}")));
            }
            "pool" => pool = Some(value),
            "endpoint" => endpoint = Some(value),
            "limit" => max = page_size(&value)?,
            "after" => after = Some(cursor(&value)?),
            _ => search = searched(&value)?,
        }
    }
    list(&Wanted {
        pool: pool.as_deref(),
        endpoint: endpoint.as_deref(),
        search: search.as_deref(),
        max,
        after,
    })
}

fn page_size(text: &str) -> Result<usize, Refusal> {
    let size = text.parse().ok();
    size.filter(|size| (1..=PAGE_MAX).contains(size))
        .ok_or_else(|| Refusal::Bad(format!("limit is a number from 1 to {PAGE_MAX}")))
}

fn cursor(text: &str) -> Result<Key, Refusal> {
    let number = u128::from_str_radix(text, 16);
    let number = number.map_err(|_| Refusal::Bad("after is what next was".to_owned()))?;
    Ok(Key::from_number(number))
}

/// What is searched for; nothing where the text is empty.
fn searched(text: &str) -> Result<Option<String>, Refusal> {
    match text.trim() {
        "" => Ok(None),
        text if text.len() > SEARCH_MAX => {
            Err(Refusal::Bad(format!("q has at most {SEARCH_MAX} bytes")))
        }
        text => Ok(Some(text.to_owned())),
    }
}
