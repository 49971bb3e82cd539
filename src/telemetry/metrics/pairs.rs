//! Which tools are told apart at which servers.
//!
//! Some hundred tools at some hundred servers are more series than monitoring is glad of, and more than a
//! scrape could show in time. So only so many pairs are told apart, those that come first; whatever comes
//! after them is `other` at its server. Pairs of servers that are no longer there make room.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::telemetry::labels::ToolLabel;

/// Most pairs of a tool and a server that are told apart.
pub const PAIRS_MAX: usize = 2000;
/// Most servers, besides, of which the tools that are not told apart are.
pub const SERVERS_MAX: usize = 4096;
/// The server of a call when even that is not told.
const OTHER: &str = "other";

/// The pairs that have series.
#[derive(Debug, Default)]
pub(super) struct Pairs(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<ToolLabel, HashSet<Box<str>>>,
    /// Pairs with a tool that is told apart.
    told: usize,
}

impl Known {
    fn has(&self, tool: ToolLabel, server: &str) -> bool {
        let servers = self.servers.get(&tool);
        servers.is_some_and(|servers| servers.contains(server))
    }

    fn add(&mut self, tool: ToolLabel, server: &str) {
        self.servers.entry(tool).or_default().insert(server.into());
        self.told += usize::from(tool != ToolLabel::OTHER);
    }

    fn others(&self) -> usize {
        let servers = self.servers.get(&ToolLabel::OTHER);
        servers.map_or(0, HashSet::len)
    }
}

impl Pairs {
    /// The labels for calls of a tool at a server: these, if there is room, else less exact ones.
    pub(super) fn admit<'a>(&self, tool: ToolLabel, server: &'a str) -> (ToolLabel, &'a str) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.has(tool, server) {
            return (tool, server);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if tool != ToolLabel::OTHER && known.told < PAIRS_MAX {
            if !known.has(tool, server) {
                known.add(tool, server);
            }
            return (tool, server);
        }
        if known.has(ToolLabel::OTHER, server) {
            return (ToolLabel::OTHER, server);
        }
        if known.others() < SERVERS_MAX {
            known.add(ToolLabel::OTHER, server);
            return (ToolLabel::OTHER, server);
        }
        (ToolLabel::OTHER, OTHER)
    }

    /// Forgets the pairs of all servers but these, and returns them.
    pub(super) fn retain(&self, servers: &HashSet<&str>) -> Vec<(ToolLabel, Box<str>)> {
        let mut gone = Vec::new();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Known { servers: all, told } = &mut *known;
        for (tool, of_tool) in all.iter_mut() {
            let from = gone.len();
            let left = of_tool.extract_if(|server| !servers.contains(&**server));
            gone.extend(left.map(|server| (*tool, server)));
            if *tool != ToolLabel::OTHER {
                *told -= gone.len() - from;
            }
        }
        all.retain(|_, of_tool| !of_tool.is_empty());
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ToolNames;

    #[test]
    fn pairs_beyond_the_cap_are_other_and_those_of_lost_servers_make_room() {
        let names = ToolNames::new();
        let tools: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
        names.learn("p", tools.iter().map(String::as_str));
        let label = |n: usize| names.label(&tools[n % 500]);
        let pairs = Pairs::default();
        for n in 0..PAIRS_MAX {
            let server = format!("s{}", n / 500);
            assert_eq!(pairs.admit(label(n), &server), (label(n), &*server));
        }
        assert_eq!(pairs.admit(label(0), "new"), (ToolLabel::OTHER, "new"));
        assert_eq!(
            pairs.admit(label(0), "s0"),
            (label(0), "s0"),
            "it was first"
        );

        let gone = pairs.retain(&HashSet::from(["s1", "s2", "s3", "new"]));
        assert_eq!(gone.len(), 500);
        assert!(gone.iter().all(|(_, server)| &**server == "s0"));
        assert_eq!(
            pairs.admit(label(0), "new"),
            (label(0), "new"),
            "there is room"
        );
    }

    #[test]
    fn servers_have_a_bound_too() {
        let pairs = Pairs::default();
        for n in 0..2 * SERVERS_MAX {
            let server = format!("s{n}");
            let (_, shown) = pairs.admit(ToolLabel::OTHER, &server);
            assert_eq!(shown == OTHER, n >= SERVERS_MAX, "{n}");
        }
    }
}
