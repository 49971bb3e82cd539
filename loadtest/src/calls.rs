//! `calls`: how fast calls are answered at a given rate, and what one costs.

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::caller::{CallStats, Caller, Failures, Plan, add, locked};
use crate::conn::Failure;
use crate::line::Line;
use crate::mcp::{self, Session};
use crate::options::{CONNECTIONS_MAX, Common, RATE_MAX, SECONDS_MAX, bounded};
use crate::report::{self, columns, row};
use crate::resources::{self, cpu, own_cpu};
use crate::schedule::{Schedule, Slots};
use crate::threads;

/// Connections that are opened at a time, per thread.
const OPENING_MAX: usize = 32;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Connections, each with one call at a time, and in session mode each with a session
    #[arg(long, default_value_t = 64, value_parser = bounded(1, CONNECTIONS_MAX))]
    connections: u64,
    /// Calls per second over all connections; or `max`, a closed loop: see README.md
    #[arg(long)]
    rate: Rate,
    #[arg(long, value_enum, default_value = "session")]
    mode: Mode,
    /// Seconds of calls before measuring begins
    #[arg(long, default_value_t = 1, value_parser = bounded(0, SECONDS_MAX))]
    warmup: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Max,
    PerSecond(u32),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if (1..=RATE_MAX).contains(&rate.into()) => Ok(Self::PerSecond(rate)),
            _ => Err(format!("a number from 1 to {RATE_MAX}, or max")),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Revision 2025-11-25, in sessions
    Session,
    /// Revision 2026-07-28, without
    Stateless,
    /// Each call in a session of its own on a new connection: four requests
    Churn,
    /// Revision 2025-11-25, over WebSockets
    Websocket,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Stateless => "stateless",
            Self::Churn => "churn",
            Self::Websocket => "websocket",
        }
    }
}

/// What the threads share.
struct Run {
    plan: Arc<Plan>,
    mode: Mode,
    connections: u64,
    threads: u64,
    barrier: Barrier,
    stats: Vec<Arc<Mutex<CallStats>>>,
    /// Of connections that never came to their first call.
    unopened: Mutex<Failures>,
}

pub(crate) fn run(options: Options) -> Result<(), String> {
    let common = &options.common;
    let threads = common.threads.min(options.connections);
    resources::allow_files(2 * options.connections + 64)?;
    cpu(&common.pid)?;
    let warmup = Duration::from_secs(options.warmup);
    let span = warmup + common.span();
    let slots = match options.rate {
        Rate::Max => None,
        Rate::PerSecond(rate) => Some(Slots::new(Schedule::new(rate, span))),
    };
    let run = Run {
        plan: Arc::new(Plan::new(
            common.speaker(),
            common.timeout(),
            slots,
            warmup,
            span,
        )),
        mode: options.mode,
        connections: options.connections,
        threads,
        barrier: Barrier::new(threads as usize + 1),
        stats: (0..threads)
            .map(|_| Arc::new(Mutex::new(CallStats::new())))
            .collect(),
        unopened: Mutex::new(Failures::new()),
    };
    let tried = threads::run(0, |_| async {}, run.greet()).map_err(|error| error.to_string())?;
    tried.map_err(|failure| {
        format!(
            "{}: first exchange: {}",
            common.url.authority,
            failure.name()
        )
    })?;
    let measured = threads::run(threads as usize, |index| run.shard(index), run.lead(common))
        .map_err(|error| error.to_string())?;
    tell(&options, &run, &measured);
    Ok(())
}

/// The window in which calls counted.
struct Measured {
    wall: Duration,
    /// `None` if the process has gone.
    cpu: Option<Duration>,
    own_cpu: Duration,
}

impl Run {
    /// Finds out whether there is a server of the era asked for, before any load.
    async fn greet(&self) -> Result<(), Failure> {
        let (plan, mut conn) = (&self.plan, self.plan.conn());
        match self.mode {
            Mode::Stateless => {
                let request = plan.speaker.discover();
                mcp::discovered(&conn.exchange(&request, plan.timeout).await?)
            }
            Mode::Session | Mode::Churn => {
                let session = plan.open_session(&mut conn).await?;
                plan.close_session(&mut conn, &session).await
            }
            Mode::Websocket => {
                let mut socket = plan.socket();
                socket.connect(&plan.speaker, plan.timeout).await?;
                socket.close().await;
                Ok(())
            }
        }
    }

    async fn lead(&self, common: &Common) -> Measured {
        self.barrier.wait().await;
        // Everyone is ready; this sets the start.
        let from = self.plan.start() + self.plan.warmup;
        self.barrier.wait().await;
        tokio::time::sleep_until(from.into()).await;
        let before = (cpu(&common.pid).ok(), own_cpu());
        self.barrier.wait().await;
        let after = (cpu(&common.pid).ok(), own_cpu());
        let until = self
            .stats
            .iter()
            .filter_map(|stats| locked(stats).last_done)
            .max();
        Measured {
            wall: until
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(from),
            cpu: before
                .0
                .zip(after.0)
                .map(|(before, after)| after.saturating_sub(before)),
            own_cpu: after.1.saturating_sub(before.1),
        }
    }

    /// One thread's share: open, wait for the others, call, wait again, clean up.
    async fn shard(&self, index: usize) {
        let share = self.connections / self.threads
            + u64::from((index as u64) < self.connections % self.threads);
        let opened = self.open(share).await;
        self.barrier.wait().await;
        self.barrier.wait().await;
        let mut callers = JoinSet::new();
        for (line, session) in opened {
            let sessions: Arc<[Session]> = session.into_iter().collect();
            match Caller::new(
                self.plan.clone(),
                sessions.clone(),
                self.stats[index].clone(),
                line,
            ) {
                Ok(caller) => callers.spawn(async move { (caller.run().await, sessions) }),
                Err(_) => continue,
            };
        }
        let left = callers.join_all().await;
        self.barrier.wait().await;
        self.close(left).await;
    }

    async fn open(&self, share: u64) -> Vec<(Line, Option<Session>)> {
        let gate = Arc::new(Semaphore::new(OPENING_MAX));
        let mut opening = JoinSet::new();
        for _ in 0..share {
            let (plan, gate, mode) = (self.plan.clone(), gate.clone(), self.mode);
            opening.spawn(async move {
                let _permit = gate.acquire().await;
                open_line(&plan, mode).await
            });
        }
        let mut opened = Vec::new();
        for outcome in opening.join_all().await {
            match outcome {
                Ok(pair) => opened.push(pair),
                Err(failure) => add(&mut locked(&self.unopened), &Failures::from([(failure, 1)])),
            }
        }
        opened
    }

    /// Ends the sessions, each on its connection. What fails here was measured already.
    async fn close(&self, left: Vec<(Line, Arc<[Session]>)>) {
        let mut closing = JoinSet::new();
        for (line, sessions) in left {
            let plan = self.plan.clone();
            closing.spawn(async move { line.end(&plan, sessions.first()).await });
        }
        closing.join_all().await;
    }
}

/// Opens what `mode` calls over, with its session if it keeps one.
async fn open_line(plan: &Plan, mode: Mode) -> Result<(Line, Option<Session>), Failure> {
    let mut conn = plan.conn();
    match mode {
        Mode::Session => {
            let session = plan.open_session(&mut conn).await?;
            Ok((Line::Kept(conn), Some(session)))
        }
        Mode::Stateless => {
            conn.connect().await?;
            Ok((Line::Kept(conn), None))
        }
        Mode::Churn => Ok((Line::Fresh(conn), None)),
        Mode::Websocket => {
            let mut socket = plan.socket();
            socket.connect(&plan.speaker, plan.timeout).await?;
            Ok((Line::Socket(socket), None))
        }
    }
}

fn tell(options: &Options, run: &Run, measured: &Measured) {
    let mut stats = CallStats::new();
    for shard in &run.stats {
        stats.merge(&locked(shard));
    }
    let unsent = run.plan.slots.as_ref().map_or(0, Slots::left);
    let unopened = locked(&run.unopened);
    let answered = stats.sent - stats.failed();
    let per_second = answered as f64 / measured.wall.as_secs_f64().max(0.001);
    let cpu_us = measured
        .cpu
        .filter(|_| !options.common.pid.is_empty() && answered > 0);
    let cpu_us = cpu_us.map(|cpu| cpu.as_secs_f64() * 1e6 / answered as f64);
    let mode = options.mode.name();
    let rate = match options.rate {
        Rate::Max => "max, closed loop".to_owned(),
        Rate::PerSecond(rate) => format!("{rate}/s"),
    };
    let url = format!(
        "http://{}{}",
        options.common.url.authority, options.common.url.path
    );
    println!(
        "calls {url}  {mode}, {} connections, {rate}, {} s",
        run.connections, options.common.seconds
    );
    println!("{}", report::calls(&stats, unsent));
    if !unopened.is_empty() {
        println!(
            "connections     {} not opened{}",
            unopened.values().sum::<u64>(),
            report::listed(&unopened)
        );
    }
    println!("answered        {per_second:.1}/s");
    println!("{}", columns());
    println!("{}", row("latency", stats.latency.summary()));
    println!("{}", row("send lag", stats.lag.summary()));
    if let Some(cpu_us) = cpu_us {
        println!("proxy           {cpu_us:.1} us of CPU per call");
    }
    println!(
        "{}",
        report::tool(measured.own_cpu, measured.wall, run.threads)
    );
    let ok = stats.failed() == 0 && unsent == 0 && unopened.is_empty() && answered > 0;
    let rate = match options.rate {
        Rate::Max => json!("max"),
        Rate::PerSecond(rate) => json!(rate),
    };
    let line = json!({
        "command": "calls", "url": url, "mode": mode, "connections": run.connections, "rate": rate,
        "seconds": options.common.seconds, "calls": stats.sent, "failed": stats.failed(),
        "failures": report::failures(&stats.failures), "unsent": unsent,
        "unopened": report::failures(&unopened), "reconnects": stats.reconnects,
        "answered_per_second": per_second, "latency_us": report::percentiles(stats.latency.summary()),
        "lag_us": report::percentiles(stats.lag.summary()), "cpu_us_per_call": cpu_us,
        "tool_cpu_percent": report::share(measured.own_cpu, measured.wall, run.threads), "ok": ok,
    });
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("2000".parse(), Ok(Rate::PerSecond(2000)));
        for text in ["0", "-1", "1000001", "fast", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
