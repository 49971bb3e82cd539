//! What operators have set at endpoints, in a file that outlives the process.
//!
//! The file is small, written as a whole beside the old one and put in its place, and read at the
//! start. One that cannot be understood is reported and passed over: a host that serves with the
//! states of its configuration is better than one that does not start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::pool::Admin;
use crate::proxy::state::Snapshot;

/// The file's name in the state directory.
pub(super) const FILE: &str = "endpoints.json";
/// The version of the file's form.
const VERSION: u32 = 1;
/// Longest file that is read.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// What was set at an endpoint that the configuration does not have is kept for so long, in seconds:
/// a week, so that an endpoint that was commented out comes back as it was.
pub(super) const MISSING_MAX: u64 = 7 * 24 * 60 * 60;

/// What was set at one endpoint. What was not set follows the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    /// Its administrative state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<State>,
    /// Until when it drains, in seconds since 1970; nothing where that has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drain_until: Option<u64>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u16>,
    /// Its calls in flight at once; 0 for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_in_flight: Option<u32>,
    /// When it was first found missing in the configuration, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing_since: Option<u64>,
}

/// An administrative state in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// [`Admin::Up`].
    Up,
    /// [`Admin::Drain`].
    Drain,
    /// [`Admin::Maint`].
    Maint,
}

impl From<State> for Admin {
    fn from(state: State) -> Self {
        match state {
            State::Up => Self::Up,
            State::Drain => Self::Drain,
            State::Maint => Self::Maint,
        }
    }
}

/// What was set, by the names of pool and endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Kept(BTreeMap<(String, String), Set>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    version: u32,
    endpoints: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pool: String,
    endpoint: String,
    set: Set,
}

impl Kept {
    /// Reads the file; nothing was set if there is none.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = Vec::new();
        let mut file = file.take(FILE_MAX + 1);
        file.read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        if text.len() as u64 > FILE_MAX {
            return Err("it is too long".to_owned());
        }
        let whole: Whole = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if whole.version != VERSION {
            return Err(format!("its version is {}, not {VERSION}", whole.version));
        }
        let entries = whole.endpoints.into_iter();
        Ok(Self(
            entries
                .map(|entry| ((entry.pool, entry.endpoint), entry.set))
                .collect(),
        ))
    }

    /// Writes the file, so that whoever reads it sees the old one or the new one.
    ///
    /// # Errors
    /// The operating system's; the old file is still there then.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let entries = self.0.iter();
        let whole = Whole {
            version: VERSION,
            endpoints: entries
                .map(|((pool, endpoint), set)| Entry {
                    pool: pool.clone(),
                    endpoint: endpoint.clone(),
                    set: set.clone(),
                })
                .collect(),
        };
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        let text = serde_json::to_vec_pretty(&whole).map_err(io::Error::other)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&draft, path)) {
            // A draft that stays behind is clutter; the error that is told is the one that matters.
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Was nothing set?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was set at an endpoint.
    pub(super) fn at(&self, pool: &str, endpoint: &str) -> Option<&Set> {
        self.0.get(&(pool.to_owned(), endpoint.to_owned()))
    }

    /// Changes what was set at an endpoint.
    pub(super) fn change(&mut self, pool: &str, endpoint: &str, change: impl FnOnce(&mut Set)) {
        let name = (pool.to_owned(), endpoint.to_owned());
        let set = self.0.entry(name.clone()).or_default();
        change(set);
        if *set == Set::default() {
            self.0.remove(&name);
        }
    }

    /// Forgets what was set where the configuration has changed its word.
    pub(super) fn yield_to(&mut self, before: &Config, now: &Config) {
        self.0.retain(|(pool, endpoint), set| {
            let said = |config: &Config| {
                let pool = config.pool(config.pool_named(pool)?);
                let mut endpoints = pool.endpoints.iter();
                let found = endpoints.find(|other| other.name == *endpoint)?;
                Some((found.state, found.weight, found.max_in_flight))
            };
            if let (Some(before), Some(now)) = (said(before), said(now)) {
                if before.0 != now.0 {
                    (set.state, set.drain_until) = (None, None);
                }
                if before.1 != now.1 {
                    set.weight = None;
                }
                if before.2 != now.2 {
                    set.max_in_flight = None;
                }
            }
            *set != Set::default()
        });
    }

    /// Gives the endpoints of a compiled configuration what was set at them, and forgets what was set
    /// at those that it has not had for too long. `now` is in seconds since 1970.
    pub(super) fn apply(&mut self, snapshot: &Snapshot, now: u64) {
        self.0.retain(|(pool, endpoint), set| {
            let found = snapshot.config.pool_named(pool);
            let found = found.and_then(|id| {
                let pool = &snapshot.pool(id).pool;
                let mut endpoints = pool.endpoints().iter();
                Some((pool, endpoints.find(|other| other.name() == endpoint)?))
            });
            let Some((pool, endpoint)) = found else {
                let since = *set.missing_since.get_or_insert(now);
                return now.saturating_sub(since) <= MISSING_MAX;
            };
            set.missing_since = None;
            if let Some(state) = set.state {
                endpoint.set_admin(state.into());
            }
            if let Some(weight) = set.weight {
                endpoint.set_weight(weight.into());
            }
            if let Some(max) = set.max_in_flight {
                pool.limit(endpoint, Some(max).filter(|max| *max > 0));
            }
            true
        });
    }

    /// The endpoints that drain until some time, with that.
    pub(super) fn draining(&self) -> Vec<(String, String, u64)> {
        let drains = |(name, set): (&(String, String), &Set)| {
            let until = set
                .drain_until
                .filter(|_| set.state == Some(State::Drain))?;
            Some((name.0.clone(), name.1.clone(), until))
        };
        self.0.iter().filter_map(drains).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::state::compile;

    fn snapshot(endpoints: &str) -> Snapshot {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: p }}]\n\
             pools: {{ p: {{ endpoints: [{endpoints}] }} }}\n"
        );
        compile(crate::config::parse("test", &text).unwrap(), None).unwrap()
    }

    const A: &str = "{ name: a, address: 127.0.0.1:1, weight: 2 }";

    fn set() -> Kept {
        let mut kept = Kept::default();
        kept.change("p", "a", |set| {
            set.state = Some(State::Drain);
            set.drain_until = Some(50);
            set.weight = Some(7);
            set.max_in_flight = Some(3);
        });
        kept
    }

    #[test]
    fn what_was_set_is_read_back_and_applied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(Kept::read(&path), Ok(Kept::default()), "no file");
        set().write(&path).unwrap();
        let mut kept = Kept::read(&path).unwrap();
        assert_eq!(kept, set());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft");
        let snapshot = snapshot(A);
        kept.apply(&snapshot, 0);
        let endpoint = &snapshot.pools[0].pool.endpoints()[0];
        assert_eq!(endpoint.admin(), Admin::Drain);
        assert_eq!((endpoint.weight(), endpoint.places.max()), (7, Some(3)));
        assert!(snapshot.pools[0].pool.queue().is_some(), "places count");
        assert_eq!(kept.draining(), [("p".to_owned(), "a".to_owned(), 50)]);
    }

    #[test]
    fn an_endpoint_follows_its_configuration_in_what_was_not_set() {
        let snapshot = snapshot(A);
        let mut kept = Kept::default();
        kept.change("p", "a", |set| set.max_in_flight = Some(0));
        kept.apply(&snapshot, 0);
        let endpoint = &snapshot.pools[0].pool.endpoints()[0];
        assert_eq!((endpoint.weight(), endpoint.places.max()), (2, None));
        kept.change("p", "a", |set| set.max_in_flight = None);
        assert!(kept.is_empty());
    }

    #[test]
    fn an_unknown_endpoint_is_forgotten_a_week_after_it_was_first_missed() {
        let (with, without) = (snapshot(A), snapshot("127.0.0.1:9"));
        let mut kept = set();
        kept.apply(&without, 100);
        kept.apply(&without, 100 + MISSING_MAX);
        assert!(!kept.is_empty());
        kept.apply(&with, 101 + MISSING_MAX);
        kept.apply(&without, 102 + MISSING_MAX);
        assert!(!kept.is_empty(), "it was there meanwhile");
        kept.apply(&without, 103 + 2 * MISSING_MAX);
        assert!(kept.is_empty());
    }

    #[test]
    fn a_changed_word_of_the_configuration_takes_the_place_of_what_was_set() {
        let before = snapshot(A);
        let mut kept = set();
        kept.yield_to(&before.config, &snapshot(A).config);
        assert_eq!(kept, set(), "nothing has changed");
        kept.yield_to(&before.config, &snapshot("127.0.0.1:9").config);
        assert_eq!(kept, set(), "it is not there");
        let heavier = snapshot("{ name: a, address: 127.0.0.1:1, weight: 3 }");
        kept.yield_to(&before.config, &heavier.config);
        let left = kept.at("p", "a").unwrap();
        assert_eq!((left.weight, left.max_in_flight), (None, Some(3)));
        assert_eq!(left.state, Some(State::Drain));
    }

    #[test]
    fn a_file_that_is_no_such_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for text in [
            "",
            "{",
            "[]",
            "{\"version\":2,\"endpoints\":[]}",
            "{\"version\":1,\"endpoints\":[{\"pool\":\"p\"}]}",
            "{\"version\":1,\"endpoints\":[{\"pool\":\"p\",\"endpoint\":\"a\",\"set\":{\"state\":\"off\"}}]}",
        ] {
            fs::write(&path, text).unwrap();
            assert!(Kept::read(&path).is_err(), "{text}");
        }
    }
}
