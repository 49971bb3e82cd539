//! The table page by page, for whoever looks at it.

use super::{Key, Live, SHARDS, Table, lock};

impl<T: Send> Table<T> {
    /// What `look` makes of up to `max` sessions behind `after`, in an order that stays the same while
    /// sessions come and go. `look` runs under the lock of a shard and does not call the table; those
    /// of which it makes nothing are passed over.
    ///
    /// Holds one shard's lock at a time, for as long as it takes to sort a 64th of the table.
    pub fn page<R>(
        &self,
        after: Option<Key>,
        max: usize,
        mut look: impl FnMut(&Live<T>) -> Option<R>,
    ) -> Vec<R> {
        let mut page = Vec::new();
        let from = after.map_or(0, Key::shard);
        for shard in from..SHARDS {
            let shard_of = lock(&self.shards[shard]);
            let is_behind = |key: &&Key| after.is_none_or(|after| shard > from || **key > after);
            let mut keys: Vec<Key> = shard_of.keys().filter(is_behind).copied().collect();
            keys.sort_unstable();
            for live in keys.iter().filter_map(|key| shard_of.get(key)) {
                if page.len() == max {
                    return page;
                }
                page.extend(look(live));
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::session::{Caps, NameHash, NewSession, PrincipalHash, Revision};

    fn table(count: usize) -> Table<usize> {
        let caps = Caps {
            total: count,
            per_pool: count,
            per_principal: count,
        };
        let now = Instant::now();
        let table = Table::new(caps, now);
        for guard in 0..count {
            let (pool, endpoint) = (NameHash::of("p"), NameHash::of("e"));
            let server_id = guard.to_string();
            let key = Key::of(pool, endpoint, &server_id);
            let new = NewSession {
                pool,
                endpoint,
                server_id: server_id.into(),
                principal: PrincipalHash::ANONYMOUS,
                revision: Revision::UNKNOWN,
                guard,
            };
            table.open(key, new, now).unwrap();
        }
        table
    }

    #[test]
    fn pages_show_every_session_once() {
        let table = table(1000);
        for size in [1, 7, 1000, 2000] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = table.page(after, size, |live| Some((live.key, live.guard)));
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                seen.extend(page.into_iter().map(|(_, guard)| guard));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..1000).collect::<Vec<_>>(), "{size}");
        }
    }

    #[test]
    fn what_is_passed_over_takes_no_room() {
        let table = table(100);
        let even = table.page(None, 10, |live| (live.guard % 2 == 0).then_some(live.guard));
        assert_eq!(even.len(), 10);
        assert!(even.iter().all(|guard| guard % 2 == 0));
    }
}
