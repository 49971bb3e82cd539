//! "Did you mean": from a word that does not exist to one that does.
//!
//! Three ways to be wrong are told apart: a slip of the fingers, the word another load balancer has
//! for it, and the right key in the wrong place.

use super::keys::Section;

/// Words of nginx, HAProxy, Envoy and Traefik, and ours. Offered only where ours exists.
const SYNONYMS: &[(&str, &str)] = &[
    ("access_log", "access"),
    ("addr", "address"),
    ("backend", "pool"),
    ("backends", "pools"),
    ("backends", "endpoints"),
    ("certificate", "cert"),
    ("client_max_body_size", "body"),
    ("cluster", "pool"),
    ("clusters", "pools"),
    ("connection_limit", "max_connections"),
    ("domain", "host"),
    ("frontends", "listeners"),
    ("hostname", "host"),
    ("lb_policy", "balance"),
    ("limit_conn", "max_connections_per_client"),
    ("limit_req", "rate"),
    ("listen", "bind"),
    ("listen", "listeners"),
    ("location", "path_prefix"),
    ("maxconn", "max_connections"),
    ("maxconn", "max_in_flight"),
    ("maxqueue", "queue_max"),
    ("nodes", "endpoints"),
    ("port", "bind"),
    ("prefix", "path_prefix"),
    ("rate_limit", "rate"),
    ("server", "endpoints"),
    ("server_name", "host"),
    ("servers", "endpoints"),
    ("ssl", "tls"),
    ("ssl_certificate", "cert"),
    ("ssl_certificate_key", "key"),
    ("strategy", "balance"),
    ("targets", "endpoints"),
    ("type", "kind"),
    ("upstream", "pool"),
    ("upstreams", "pools"),
    ("url", "address"),
    ("workers", "threads"),
];

/// What to say after "unknown key": the likeliest key, or the section it belongs to, or all keys.
pub(super) fn for_key(word: &str, section: &'static Section) -> String {
    let names = || section.keys.iter().map(|key| key.name);
    let synonym = SYNONYMS
        .iter()
        .find(|(theirs, ours)| *theirs == word && section.find(ours).is_some())
        .map(|(_, ours)| *ours);
    if let Some(name) = nearest(word, names()).or(synonym) {
        return format!("did you mean `{name}`?");
    }
    let home = section.keys.iter().find(|key| {
        key.kind
            .section()
            .is_some_and(|below| below.find(word).is_some())
    });
    if let Some(home) = home {
        return format!("it belongs under `{}`", home.name);
    }
    let known: Vec<&str> = names().collect();
    format!("its keys are {}", known.join(", "))
}

/// The one of these words that was probably meant, if any is near.
pub(super) fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let plain = fold(word);
    // A slip per three letters, and never so many that any short word would do. A word that goes
    // on where the other ends, as `warning` does, is as near as may be just yet.
    let allowed = (plain.len() / 3).clamp(1, 3);
    let from = |other: &str| {
        let other = fold(other);
        let (short, long) = (plain.len().min(other.len()), plain.len().max(other.len()));
        if short >= 3 && short < long && plain[..short] == other[..short] {
            return allowed;
        }
        distance(&plain, &other)
    };
    words
        .map(|other| (from(other), other))
        .filter(|(distance, other)| *distance <= allowed && *distance < other.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// The letters alone, so that `keepAlive`, `keep-alive` and `keep_alive` are one. Bounded: nothing
/// longer than this is near a key.
fn fold(word: &str) -> Vec<char> {
    let letters = word.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).take(40).collect()
}

/// How many letters must be put in, taken out, changed, or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_spellings_are_near() {
        let words = || ["keep_alive", "pool", "pools", "path", "path_prefix"].into_iter();
        assert_eq!(nearest("keepAlive", words()), Some("keep_alive"));
        assert_eq!(nearest("keep-alive", words()), Some("keep_alive"));
        assert_eq!(nearest("poll", words()), Some("pool"));
        assert_eq!(nearest("paht", words()), Some("path"));
        assert_eq!(nearest("pathprefx", words()), Some("path_prefix"));
        assert_eq!(nearest("weather", words()), None);
        assert_eq!(nearest("", words()), None);
    }

    #[test]
    fn distance_counts_a_swap_once() {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&letters("abcd"), &letters("acbd")), 1);
        assert_eq!(distance(&letters("abc"), &letters("")), 3);
        assert_eq!(distance(&letters("kitten"), &letters("sitting")), 3);
    }
}
