//! What processes use: memory and CPU, from `/proc`, and the limit of open files.

use std::time::Duration;

use rustix::process::{Resource, Rlimit};

/// The memory that is the processes' own, in KiB: proportional set size, in which a page shared by
/// `n` processes counts `1/n`, so that the workers of one server can be added up.
pub(crate) fn pss_kib(pids: &[u32]) -> Result<u64, String> {
    pids.iter()
        .map(|pid| read(*pid, "smaps_rollup", parse_pss))
        .sum()
}

/// CPU time, user and system, of the processes and their threads that have ended; to 10 ms.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration, String> {
    let ticks: u64 = pids
        .iter()
        .map(|pid| read(*pid, "stat", parse_ticks))
        .sum::<Result<_, _>>()?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// As [`cpu`], of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu(&[std::process::id()]).unwrap_or_default()
}

/// Raises the limit of open files as far as it goes; fails if that is less than `needed`.
pub(crate) fn allow_files(needed: u64) -> Result<(), String> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // No limit at all is `None`.
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < needed {
        return Err(format!(
            "{needed} open files are needed, and the hard limit is {allowed} (ulimit -Hn)"
        ));
    }
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, raised)
            .map_err(|error| format!("raising the limit of open files to {needed}: {error}"))?;
    }
    Ok(())
}

/// Raises the limit of open files as far as it goes, whatever that is.
pub(crate) fn allow_all_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // If it cannot be raised, connections past the limit wait in the queue of the listener.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

fn read(pid: u32, file: &str, parse: fn(&str) -> Option<u64>) -> Result<u64, String> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text).ok_or_else(|| format!("{path}: not understood"))
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// `utime` and `stime` are fields 14 and 15. The second field, the name, may hold spaces and
/// parentheses, so counting starts at its last parenthesis.
fn parse_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_proportional_set_size() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:     1234 kB\nPss_Dirty:  7 kB\n";
        assert_eq!(parse_pss(rollup), Some(1234));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn cpu_is_found_behind_any_name() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 10 0 0 0 150 25 0 0 20 0 4 0 100 0 0";
        assert_eq!(parse_ticks(stat), Some(175));
        assert_eq!(parse_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = [std::process::id()];
        assert!(pss_kib(&own).unwrap() > 100);
        assert!(cpu(&own).is_ok());
        assert!(allow_files(8).is_ok() && allow_files(u64::MAX - 1).is_err());
    }
}
