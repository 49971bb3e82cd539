//! Another configuration for the process that runs.
//!
//! The file is read, checked and compiled as a whole before anything is touched; whatever is wrong
//! leaves all as it was. What the two configurations have in common does not notice: open connections,
//! streams, sessions, what is known of endpoints, and listening sockets. Requests that are on their way
//! end under the configuration that they began with.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::acme::Certificates;
use super::inherited::Inherited;
use super::names::{self, pause};
use super::notify;
use super::opened::Opened;
use super::operator::Operator;
use super::reload_history::History;
use super::several::Several;
use super::socket::Accepting;
use super::watchers::place;
use super::wish::{Haste, Wish};
use super::withdraw::{Terms, withdraw};
use super::worker::Entrances;
use super::{
    CompileError, FIRST_RESOLVE, StartError, caps, resolve_names, resume_memory, state,
    state_dir_of,
};
use crate::config::{self, Config, Problems};
use crate::pool::{Admin, Endpoint};
use crate::proxy::state::{Phase, PoolState, Shared, Snapshot};
use crate::session::{KeyError, load_or_create};
use crate::telemetry::{self, messages};

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(10);
/// How long a reload waits for the workers to accept as it says.
const TURN_TIME: Duration = Duration::from_secs(1);
/// How often it is looked whether there is a name to follow by now.
const IDLE: Duration = Duration::from_secs(1);

/// Why there was no reload. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no file.
    #[error("this process runs without a configuration file")]
    NoFile,
    /// The process is on its way out.
    #[error("this process is draining")]
    Draining,
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A new listener's address could not be had.
    #[error(transparent)]
    Listener(#[from] StartError),
    /// The session keys could not be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The configuration could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The file of the access log could not be opened.
    #[error("cannot open the access log: {0}")]
    Log(io::Error),
}

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// How long it took.
    pub took: Duration,
    /// Listeners that were opened.
    pub opened: usize,
    /// Listeners that were closed.
    pub closed: usize,
    /// Pools that are new or changed.
    pub pools: usize,
    /// Endpoints that begin to be drained because they are no longer configured.
    pub leaving: usize,
    /// Keys of the configuration that have changed and stay as they were until the process is replaced.
    pub kept: Vec<&'static str>,
    /// What is odd about the configuration, as lines.
    pub warnings: Vec<String>,
}

impl Reloaded {
    fn tell(&self) {
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        if !self.kept.is_empty() {
            let keys = self.kept.join(", ");
            log::warn!("{keys}: what has changed here takes effect when the process is replaced");
        }
        log::info!(
            "reloaded in {:?}: {} listeners opened, {} closed; {} pools new or changed; {} endpoints leave",
            self.took,
            self.opened,
            self.closed,
            self.pools,
            self.leaving
        );
    }
}

/// Reloads, one at a time.
pub struct Reloader {
    path: Option<PathBuf>,
    shared: Arc<Shared>,
    operator: Arc<Operator>,
    certificates: Arc<Certificates>,
    workers: Vec<mpsc::Sender<Entrances>>,
    wishes: mpsc::Sender<Wish>,
    /// What came of the last ones.
    pub(super) history: History,
    state: Mutex<State>,
}

struct State {
    opened: Opened,
    /// The configuration as it was written, and what names in it stand for.
    several: Several,
    /// Endpoints that are being withdrawn, by their place in memory, which they keep meanwhile.
    leaving: HashSet<usize>,
}

impl Reloader {
    /// Opens the listeners of the configuration in force, for the workers at the other end of these
    /// channels.
    ///
    /// # Errors
    /// The first address that could not be had.
    pub(super) fn start(
        (path, several): (Option<PathBuf>, Several),
        operator: Arc<Operator>,
        certificates: Arc<Certificates>,
        workers: Vec<mpsc::Sender<Entrances>>,
        wishes: mpsc::Sender<Wish>,
        inherited: &mut Inherited,
    ) -> Result<Arc<Self>, StartError> {
        let shared = Arc::clone(&operator.shared);
        let mut opened = Opened::default();
        let plan = opened.plan(
            &shared.snapshot.load().config,
            workers.len(),
            &certificates,
            inherited,
        )?;
        for (worker, entrances) in workers.iter().zip(opened.apply(plan)) {
            // The first word in each channel, so there is room.
            let _ = worker.try_send(entrances);
        }
        let leaving = HashSet::new();
        Ok(Arc::new(Self {
            path,
            shared,
            operator,
            certificates,
            workers,
            wishes,
            history: History::default(),
            state: Mutex::new(State {
                opened,
                leaving,
                several,
            }),
        }))
    }

    /// Handles to the sockets of all listeners, for a process that replaces this one.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) async fn sockets(&self) -> io::Result<Vec<Accepting>> {
        self.state.lock().await.opened.sockets()
    }

    /// Lets go of the sockets, so that those who accept from them can close them.
    pub(super) async fn let_go(&self) {
        self.state.lock().await.opened.let_go();
    }

    /// Reads the file again and goes by it.
    ///
    /// # Errors
    /// Whatever keeps things as they are.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let mut state = self.state.lock().await;
        let begun = Instant::now();
        if self.shared.phase() != Phase::Running {
            return Err(ReloadError::Draining);
        }
        let config = config::load(self.path.as_ref().ok_or(ReloadError::NoFile)?)?;
        let warnings = config.warnings.iter().map(ToString::to_string).collect();
        let several = found(state.several.with(config)).await;
        let config = several.config();
        let before = self.shared.snapshot.load_full();
        let kept = kept(&before.config, &config);
        let dir = state_dir_of(&before.config);
        let keys = load_or_create(&config.sessions.key_files, &dir)?;
        let plan = state.opened.plan(
            &config,
            self.workers.len(),
            &self.certificates,
            &mut Inherited::default(),
        )?;
        let (opened, closed) = (plan.opened(), plan.closed());
        let after = Arc::new(state::compile(config, Some(&before))?);
        let (log, was) = (&after.config.log.access.to, &before.config.log.access.to);
        if log != was {
            self.shared.log.change(log).map_err(ReloadError::Log)?;
        }
        // From here on nothing fails.
        state::settle(&after, &before);
        self.operator.apply(&after, Some(&before));
        resolve_names(&after).await;
        let keyring = Arc::new(keys.keyring);
        let were = self.shared.keyring.swap(Arc::clone(&keyring));
        if !keyring.holds_all_of(&were) {
            self.shared.memo.keys_changed();
        }
        state.several = several;
        self.turn_to(&after);
        // At once, or what leaves would be given new sessions. And not before: where nothing stays of a
        // pool, requests that run under the snapshot before would have nowhere to go.
        let leaving = self.withdraw_leaving(&mut state, &after);
        if plan.changes() {
            self.order(state.opened.apply(plan)).await;
        }
        let is_new =
            |pool: &&Arc<PoolState>| !before.pools.iter().any(|old| Arc::ptr_eq(old, pool));
        Ok(Reloaded {
            pools: after.pools.iter().filter(is_new).count(),
            leaving,
            opened,
            closed,
            kept,
            warnings,
            took: begun.elapsed(),
        })
    }

    /// Has the workers accept where they are told to, and waits until they do: whoever is told of a reload
    /// meets no certificate from before it.
    async fn order(&self, entrances: Vec<Entrances>) {
        let mut turns = Vec::new();
        for (worker, mut entrances) in self.workers.iter().zip(entrances) {
            let (done, turned) = oneshot::channel();
            entrances.done = Some(done);
            // A worker that is gone has left with the process.
            let _ = worker.send(entrances).await;
            turns.push(turned);
        }
        let all = async {
            for turned in turns {
                let _ = turned.await;
            }
        };
        // One that is stuck is the watchdog's business.
        let _ = tokio::time::timeout(TURN_TIME, all).await;
    }

    /// The same, and says to the log and to systemd what came of it.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(super) async fn reload_and_tell(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        notify::reloading();
        let begun = Instant::now();
        let reloaded = self.reload().await;
        notify::ready();
        self.history.note(&reloaded, begun.elapsed());
        match &reloaded {
            Ok(reloaded) => {
                telemetry::reloaded(SystemTime::now());
                reloaded.tell();
            }
            Err(error) => {
                telemetry::reload_failed();
                log::error!("not reloaded, all goes on as it was: {error}");
            }
        }
        reloaded
    }

    /// Has another process started in the place of this one, as USR2 does. Its id, once it serves.
    ///
    /// # Errors
    /// Why this one goes on.
    pub(super) async fn upgrade(&self) -> Result<u32, String> {
        let (answer, answered) = oneshot::channel();
        self.wish(Wish::Upgrade(answer), answered).await?
    }

    /// Has the files of logs opened anew, as USR1 does.
    ///
    /// # Errors
    /// This process is leaving.
    pub(super) async fn reopen(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.wish(Wish::Reopen(answer), answered).await
    }

    /// Has this process leave.
    ///
    /// # Errors
    /// It is leaving, and can do it no faster.
    pub(super) async fn leave(&self, haste: Haste) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.wish(Wish::Leave(haste, answer), answered).await
    }

    async fn wish<T>(&self, wish: Wish, answered: oneshot::Receiver<T>) -> Result<T, String> {
        let leaving = || "this process is leaving".to_owned();
        if self.shared.phase() == Phase::Ending || self.wishes.send(wish).await.is_err() {
            return Err(leaving());
        }
        answered.await.map_err(|_| leaving())
    }

    /// What is in force.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Is this process neither draining nor ending?
    pub(super) fn is_serving(&self) -> bool {
        self.shared.phase() == Phase::Running
    }

    /// Follows the names that stand for several endpoints, for as long as it is polled.
    pub(super) async fn follow_names(self: Arc<Self>) {
        loop {
            let every = self.state.lock().await.several.every();
            tokio::time::sleep(every.map_or(IDLE, pause)).await;
            if every.is_some() {
                self.look_again().await;
            }
        }
    }

    /// Looks up those names, and adds and takes out endpoints as they come and go.
    async fn look_again(self: &Arc<Self>) {
        let wanted = {
            let several = &self.state.lock().await.several;
            several.questions(several.names())
        };
        let answers = names::find(wanted, LOOK_UP).await;
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let mut changed = false;
        for (key, found) in answers {
            changed |= state.several.learn(&key, &found, now);
        }
        if !changed || self.shared.phase() != Phase::Running {
            return;
        }
        let before = self.shared.snapshot.load_full();
        match state::compile(state.several.config(), Some(&before)) {
            Ok(after) => {
                let after = Arc::new(after);
                state::settle(&after, &before);
                self.operator.apply(&after, Some(&before));
                self.turn_to(&after);
                let leaving = self.withdraw_leaving(&mut state, &after);
                log::info!("names stand for other endpoints than before; {leaving} leave");
            }
            Err(error) => log::error!("cannot use what names stand for: {error}"),
        }
    }

    /// Puts a snapshot in force.
    fn turn_to(&self, snapshot: &Arc<Snapshot>) {
        let config = &snapshot.config;
        messages::set_level(config.log.level);
        messages::set_format(config.log.format);
        self.shared.sessions.set_caps(caps(config));
        self.shared.origins.set_max(config.sessions.recovery_memory);
        self.shared.rings.budget().set_max(resume_memory(config));
        state::learn_tools(&self.shared.tools, config);
        self.shared.snapshot.store(Arc::clone(snapshot));
        self.shared.chores.reloaded();
    }

    /// Takes out the endpoints that are no longer configured, each in its own time. How many begin.
    fn withdraw_leaving(self: &Arc<Self>, state: &mut State, snapshot: &Snapshot) -> usize {
        let terms = Terms {
            timeout: snapshot.config.drain_timeout,
            jitter: snapshot.config.drain_jitter,
        };
        let mut begun = 0;
        for pool in snapshot.all_pools() {
            for endpoint in pool.leaving() {
                if state.leaving.insert(place(endpoint)) {
                    begun += 1;
                    endpoint.set_admin(Admin::Drain);
                    let reloader = Arc::clone(self);
                    let (pool, endpoint) = (Arc::clone(pool), Arc::clone(endpoint));
                    tokio::spawn(async move { reloader.withdraw(&pool, &endpoint, terms).await });
                }
            }
        }
        begun
    }

    async fn withdraw(&self, pool: &Arc<PoolState>, endpoint: &Arc<Endpoint>, terms: Terms) {
        withdraw(&self.shared, pool, endpoint, terms).await;
        let mut state = self.state.lock().await;
        state.leaving.remove(&place(endpoint));
        // The same configuration, without the endpoint that is out by now.
        let before = self.shared.snapshot.load_full();
        match state::compile(before.config.clone(), Some(&before)) {
            Ok(after) => self.turn_to(&Arc::new(after)),
            Err(error) => log::error!("cannot leave an endpoint out that was drained: {error}"),
        }
    }
}

/// Looks up the names of which nothing is known.
async fn found(mut several: Several) -> Several {
    let unknown = several.questions(several.unknown());
    for (key, found) in names::find(unknown, FIRST_RESOLVE).await {
        several.learn(&key, &found, Instant::now());
    }
    several
}

/// What has changed and cannot change in a running process.
fn kept(before: &Config, now: &Config) -> Vec<&'static str> {
    [
        ("threads", before.threads != now.threads),
        ("state_dir", before.state_dir != now.state_dir),
        ("admin", before.admin != now.admin),
        ("pid_file", before.pid_file != now.pid_file),
    ]
    .into_iter()
    .filter_map(|(key, has_changed)| has_changed.then_some(key))
    .collect()
}
