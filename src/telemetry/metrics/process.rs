//! What the kernel knows about this process, read from `/proc/self` at each scrape.
//!
//! A figure that cannot be read, on another system or in a hidden `/proc`, is `None`, and its
//! family is then missing from the exposition: a zero would look like a measurement.

use std::fs;

use once_cell::sync::OnceCell;

/// Ticks per second of the times in `/proc`. `USER_HZ` is 100 on every architecture we build for;
/// asking for it would take a foreign call.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    /// Seconds since the epoch.
    pub(super) start_seconds: Option<f64>,
}

/// Reads all figures; a handful of small files.
pub(super) fn read() -> Figures {
    let stat = text("/proc/self/stat").as_deref().and_then(Stat::parse);
    Figures {
        cpu_seconds: stat.as_ref().map(|stat| stat.cpu_ticks / TICKS_PER_SECOND),
        open_fds: open_fds(),
        max_fds: text("/proc/self/limits").as_deref().and_then(max_fds),
        resident_bytes: text("/proc/self/status")
            .as_deref()
            .and_then(resident_bytes),
        threads: stat.as_ref().map(|stat| stat.threads),
        start_seconds: stat.as_ref().and_then(start_seconds),
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

struct Stat {
    cpu_ticks: f64,
    threads: u64,
    /// Ticks from the boot of the machine to the start of the process.
    start_ticks: f64,
}

impl Stat {
    /// Fields 14, 15, 20 and 22 of proc_pid_stat(5). The second field is the name of the program
    /// in parentheses and may itself hold spaces and parentheses, so counting begins behind it.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: fields.get(20 - 3)?.parse().ok()?,
            start_ticks: field(22)?,
        })
    }
}

/// Since Linux 6.2 the size of the directory is the number of descriptors. Before, it is 0 and they
/// are counted, less the one that reading the directory opens.
fn open_fds() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let count = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

/// The soft limit; `None` when there is none.
fn max_fds(limits: &str) -> Option<u64> {
    let row = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    row.split_ascii_whitespace().next()?.parse().ok()
}

/// `VmRSS`, because `statm` and `stat` count in pages of a size they do not tell.
fn resident_bytes(status: &str) -> Option<u64> {
    let row = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = row.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Read once, since it does not change and `/proc/stat` is long on a large machine.
fn start_seconds(stat: &Stat) -> Option<f64> {
    static BOOT: OnceCell<Option<f64>> = OnceCell::new();
    let boot = *BOOT.get_or_init(|| boot_seconds(&text("/proc/stat")?));
    Some(boot? + stat.start_ticks / TICKS_PER_SECOND)
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 4200 1 2 3";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!(
            (stat.cpu_ticks, stat.threads, stat.start_ticks),
            (200.0, 9, 4200.0)
        );
        assert!(Stat::parse("7 (short) S 1").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn rows_are_found_by_their_names() {
        let limits = "Limit   Soft Limit Hard Limit Units\nMax open files   1024   524288  files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files  unlimited  unlimited  files"), None);
        assert_eq!(
            resident_bytes("VmHWM:\t 9 kB\nVmRSS:\t   2048 kB\n"),
            Some(2_097_152)
        );
        assert_eq!(resident_bytes("VmRSS:\t 2 pages"), None);
        assert_eq!(
            boot_seconds("cpu 1 2\nbtime 1700000000\n"),
            Some(1_700_000_000.0)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_plausible_figures() {
        let figures = read();
        assert!(figures.open_fds.is_some_and(|fds| fds >= 3));
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(figures.threads.is_some_and(|threads| threads >= 1));
        assert!(figures.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let start = figures.start_seconds.unwrap();
        assert!(
            start <= now + 2.0 && start > now - 86_400.0,
            "{start} {now}"
        );
    }
}
