//! Threads with a single-threaded runtime each. Nothing moves between them, so a wake-up costs no
//! lock and no signal to another core, which on a small machine would be the proxy's.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};

/// Runs `shard(index)` on `count` new threads and `lead` on this one, to their ends.
pub(crate) fn run<S, F, L>(count: usize, shard: S, lead: L) -> io::Result<L::Output>
where
    S: Fn(usize) -> F + Sync,
    F: Future<Output = ()>,
    L: Future,
{
    let leading = runtime()?;
    let runtimes = (0..count)
        .map(|_| runtime())
        .collect::<io::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        for (index, runtime) in runtimes.into_iter().enumerate() {
            let shard = &shard;
            scope.spawn(move || {
                let _alarm = Alarm;
                runtime.block_on(shard(index));
            });
        }
        Ok(leading.block_on(lead))
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Ends the process when a thread panics: the others would wait for it for ever.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(101);
        }
    }
}
