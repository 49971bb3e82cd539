//! `hold`: many sessions with their event streams, held open while calls go on.
//!
//! The phases, with everyone waiting for everyone between them: open all streams at a bounded
//! rate; hold and measure; stop; end the sessions; look at the proxy once more.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::caller::{CallStats, Failures, Plan, add, locked};
use crate::hist::Histogram;
use crate::options::{CONNECTIONS_MAX, Common, STREAMS_MAX, bounded};
use crate::report::{self, columns, row};
use crate::resources::{self, cpu, own_cpu, pss_kib};
use crate::schedule::{Schedule, Slots};
use crate::threads;
use crate::track::Tally;

use shard::{OPENERS, Shard, Shared};

mod shard;

/// Between the last stream's opening and the measuring, and between the last session's end and the
/// last look at the memory.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Sessions, each with an open event stream
    #[arg(long, value_parser = bounded(1, STREAMS_MAX))]
    streams: u64,
    /// Calls per second in these sessions while they are held, at a fixed rate; 0 for none
    #[arg(long, default_value_t = 0, value_parser = bounded(0, 100_000))]
    calls_per_second: u64,
    /// Connections for these calls
    #[arg(long, default_value_t = 64, value_parser = bounded(1, CONNECTIONS_MAX))]
    connections: u64,
    /// Streams opened per second, at most
    #[arg(long, default_value_t = 1_000, value_parser = bounded(1, 20_000))]
    open_rate: u64,
}

pub(crate) fn run(options: Options) -> Result<(), String> {
    let common = &options.common;
    let threads = common.threads.min(options.streams);
    // A connection for calls comes with a timer, and so does an opener.
    let files = options.streams + 2 * (options.connections + OPENERS * threads) + 64;
    resources::allow_files(files)?;
    let slots = match options.calls_per_second {
        0 => None,
        rate => Some(Slots::new(Schedule::new(rate as u32, common.span()))),
    };
    let calls = slots.is_some();
    let plan = Plan::new(
        common.speaker(),
        common.timeout(),
        slots,
        Duration::ZERO,
        common.span(),
    );
    let shared = Arc::new(Shared::new(
        plan,
        Slots::new(Schedule::counted(options.open_rate as u32, options.streams)),
        if calls { options.connections } else { 0 },
        threads,
    ));
    let tried = threads::run(0, |_| async {}, shared.greet()).map_err(|error| error.to_string())?;
    tried.map_err(|failure| {
        format!(
            "{}: first exchange: {}",
            common.url.authority,
            failure.name()
        )
    })?;
    let before = (pss_kib(&common.pid)?, cpu(&common.pid)?);
    let totals = Mutex::new(Totals::new());
    let shard = async |index| {
        let done = Shard::new(shared.clone(), index as u64).run().await;
        locked(&totals).merge(&done);
        shared.barrier.wait().await;
    };
    let measured = threads::run(threads as usize, shard, lead(&shared, common, before.0))
        .map_err(|error| error.to_string())?;
    tell(&options, &shared, &locked(&totals), &measured);
    Ok(())
}

/// What came of the streams and calls of a shard, or of all.
pub(crate) struct Totals {
    /// From `initialize` to the head of the event stream's reply, in microseconds.
    opening: Histogram,
    opened: u64,
    open_failures: Failures,
    closed_early: u64,
    silent: u64,
    stalled: u64,
    tally: Tally,
    delay: Histogram,
    calls: CallStats,
    close_failures: Failures,
}

impl Totals {
    fn new() -> Self {
        Self {
            opening: Histogram::new(),
            opened: 0,
            open_failures: Failures::new(),
            closed_early: 0,
            silent: 0,
            stalled: 0,
            tally: Tally::default(),
            delay: Histogram::new(),
            calls: CallStats::new(),
            close_failures: Failures::new(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.opening.merge(&other.opening);
        self.opened += other.opened;
        add(&mut self.open_failures, &other.open_failures);
        self.closed_early += other.closed_early;
        self.silent += other.silent;
        self.stalled += other.stalled;
        self.tally.add(&other.tally);
        self.delay.merge(&other.delay);
        self.calls.merge(&other.calls);
        add(&mut self.close_failures, &other.close_failures);
    }
}

/// What the processes used. A value is `None` once a process has gone.
struct Measured {
    pss_before: u64,
    /// When all streams were open, and just before they were closed.
    pss_opened: Option<u64>,
    pss_held: Option<u64>,
    pss_after: Option<u64>,
    /// While the streams were held.
    cpu: Option<Duration>,
    own_cpu: Duration,
    wall: Duration,
}

async fn lead(shared: &Shared, common: &Common, pss_before: u64) -> Measured {
    let pids = &common.pid;
    shared.barrier.wait().await;
    tokio::time::sleep(SETTLE).await;
    let pss_opened = pss_kib(pids).ok();
    let (cpu_before, own_before, from) = (cpu(pids).ok(), own_cpu(), Instant::now());
    shared.plan.start();
    shared.barrier.wait().await;
    tokio::time::sleep_until((shared.plan.start() + common.span()).into()).await;
    // Streams are still open: the threads wait for this before they close any.
    let pss_held = pss_kib(pids).ok();
    let (cpu_after, own_after, wall) = (cpu(pids).ok(), own_cpu(), from.elapsed());
    shared.barrier.wait().await;
    shared.barrier.wait().await;
    tokio::time::sleep(SETTLE).await;
    Measured {
        pss_before,
        pss_opened,
        pss_held,
        pss_after: pss_kib(pids).ok(),
        cpu: cpu_before
            .zip(cpu_after)
            .map(|(before, after)| after.saturating_sub(before)),
        own_cpu: own_after.saturating_sub(own_before),
        wall,
    }
}

fn tell(options: &Options, shared: &Shared, totals: &Totals, measured: &Measured) {
    let common = &options.common;
    let unsent = shared.plan.slots.as_ref().map_or(0, Slots::left);
    let failed = options.streams - totals.opened;
    let Tally {
        events,
        missing,
        repeated,
        restarts,
        foreign,
        clock_steps,
    } = totals.tally;
    let url = format!("http://{}{}", common.url.authority, common.url.path);
    println!(
        "hold {url}  {} streams, {} calls/s, {} s",
        options.streams, options.calls_per_second, common.seconds
    );
    println!(
        "streams         {} open, {failed} failed{}, {} closed early, {} silent, {} stalled",
        totals.opened,
        report::listed(&totals.open_failures),
        totals.closed_early,
        totals.silent,
        totals.stalled
    );
    println!(
        "events          {events} received, {missing} missing, {repeated} repeated, {restarts} restarts, {foreign} foreign, {clock_steps} clock steps"
    );
    println!("{}", report::calls(&totals.calls, unsent));
    println!("{}", columns());
    for (name, histogram) in [
        ("open", &totals.opening),
        ("event delay", &totals.delay),
        ("call latency", &totals.calls.latency),
        ("call send lag", &totals.calls.lag),
    ] {
        println!("{}", row(name, histogram.summary()));
    }
    let proxy = if common.pid.is_empty() {
        Value::Null
    } else {
        proxy(totals.opened, measured)
    };
    println!(
        "{}",
        report::tool(measured.own_cpu, measured.wall, shared.threads)
    );
    if !totals.close_failures.is_empty() {
        println!(
            "sessions        not all were ended{}",
            report::listed(&totals.close_failures)
        );
    }
    let ok = failed
        + totals.closed_early
        + totals.stalled
        + missing
        + repeated
        + totals.calls.failed()
        + unsent
        == 0;
    let line = json!({
        "command": "hold", "url": url, "seconds": common.seconds,
        "streams": {
            "asked": options.streams, "open": totals.opened, "failed": failed,
            "failures": report::failures(&totals.open_failures), "closed_early": totals.closed_early,
            "silent": totals.silent, "stalled": totals.stalled,
        },
        "events": {
            "received": events, "missing": missing, "repeated": repeated, "restarts": restarts,
            "foreign": foreign, "clock_steps": clock_steps,
        },
        "open_us": report::percentiles(totals.opening.summary()),
        "delay_us": report::percentiles(totals.delay.summary()),
        "calls": {
            "sent": totals.calls.sent, "failed": totals.calls.failed(),
            "failures": report::failures(&totals.calls.failures), "unsent": unsent,
            "reconnects": totals.calls.reconnects,
        },
        "call_latency_us": report::percentiles(totals.calls.latency.summary()),
        "call_lag_us": report::percentiles(totals.calls.lag.summary()),
        "close_failures": report::failures(&totals.close_failures), "proxy": proxy,
        "tool_cpu_percent": report::share(measured.own_cpu, measured.wall, shared.threads), "ok": ok,
    });
    println!("{line}");
}

/// Prints what the watched processes used, and returns it for the line of JSON.
fn proxy(opened: u64, measured: &Measured) -> Value {
    let mib = |kib: Option<u64>| {
        kib.map_or_else(
            || "gone".to_owned(),
            |kib| format!("{:.1}", kib as f64 / 1024.0),
        )
    };
    let per_stream = measured
        .pss_held
        .filter(|_| opened > 0)
        .map(|held| (held as f64 - measured.pss_before as f64) / opened as f64);
    println!(
        "proxy pss       {} MiB before, {} opened, {} held, {} after; {} KiB per stream",
        mib(Some(measured.pss_before)),
        mib(measured.pss_opened),
        mib(measured.pss_held),
        mib(measured.pss_after),
        per_stream.map_or_else(|| "?".to_owned(), |kib| format!("{kib:.2}"))
    );
    let seconds = measured.cpu.map(|cpu| cpu.as_secs_f64());
    let percent = measured.cpu.map(|cpu| report::share(cpu, measured.wall, 1));
    if let (Some(seconds), Some(percent)) = (seconds, percent) {
        println!("proxy cpu       {seconds:.2} s while holding, {percent:.1}% of one core");
    }
    json!({
        "pss_kib": {
            "before": measured.pss_before, "opened": measured.pss_opened, "held": measured.pss_held,
            "after": measured.pss_after,
        },
        "pss_kib_per_stream": per_stream, "cpu_seconds": seconds, "cpu_percent": percent,
    })
}
