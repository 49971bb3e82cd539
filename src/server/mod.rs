//! The process: what exists once. Reads top to bottom as what happens at start.
//!
//! Pingora's `Server` runs the services, each on threads of its own: one worker per core with its
//! own sockets, one thread for checks and sweeps, one for the admin address. Signals and the drain
//! are ours, because Pingora's own stop is a fixed sleep after which streams are cut.

mod accept;
mod acme;
pub mod admin;
mod announce;
mod apart;
mod bounds;
mod calm;
mod changes;
mod checks;
pub mod connection;
pub mod demo;
mod dns;
mod drain;
mod handshake;
mod http2;
mod http_check;
mod inherited;
pub mod inproc;
mod linger;
mod listeners;
mod names;
mod notify;
mod on_down;
mod opened;
mod operator;
mod pid_file;
mod probe;
mod pulse;
mod readiness;
pub mod reload;
mod reload_history;
mod retry_after;
mod several;
mod share;
mod socket;
mod state;
mod tasks;
mod traces;
mod unix;
pub mod upgrade;
mod vigil;
mod watchers;
mod way;
mod wish;
pub mod withdraw;
mod worker;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::GenBackgroundService;
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::{self, Config, Level, MessageFormat};
use crate::demo::DemoServer;
use crate::proxy::clients::ClientNames;
use crate::proxy::contexts::Contexts;
use crate::proxy::flight::Flight;
use crate::proxy::limits::Having;
use crate::proxy::open::OpenList;
use crate::proxy::origin::Origins;
use crate::proxy::resume::rings::Rings;
use crate::proxy::state::{Chores, Phases, Shared, Snapshot, phases};
use crate::session::{Caps, KeyError, Table, load_or_create};
use crate::telemetry::{self, AccessLog, ToolNames, Traces, messages};
pub use state::CompileError;

use acme::Certificates;
use admin::service::AdminService;
use apart::Apart;
use connection::Bounds;
use drain::{Replacement, Signals};
use inherited::Inherited;
use listeners::Bound;
use names::Followed;
use operator::Operator;
use readiness::Readiness;
use reload::Reloader;
use several::Several;
use tasks::Tasks;
use upgrade::Program;
use vigil::Vigil;
use worker::WorkerService;

/// How long the first look-up of endpoints' names may hold up the start.
const FIRST_RESOLVE: Duration = Duration::from_secs(2);
/// Connections to the admin address.
const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Crates whose messages are kept down: what they tell is told better in the access log.
const QUIET: [&str; 3] = ["pingora", "h2", "rustls"];

/// Why the process could not start. Nothing was started then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address could not be had.
    #[error("cannot listen on {address} ({what}): {error}")]
    Bind {
        /// The address, or the file of a unix socket.
        address: String,
        /// The listener's name, or `admin.bind`.
        what: String,
        /// The reason.
        error: io::Error,
    },
    /// The admin socket could not be had.
    #[error("cannot listen on {path} (admin.socket): {error}")]
    Socket {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The session keys could not be read or made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    Log(io::Error),
    /// The signals could not be taken hold of.
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    /// A socket's handle could not be had.
    #[error("cannot take another handle of a socket: {0}")]
    Sockets(io::Error),
    /// The configuration could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Runs the gateway until it is told to stop. `path` is where the configuration came from and is read
/// again; `hello` is called once everything is bound, before the first connection is accepted.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(config: Config, path: &Path, hello: impl FnOnce()) -> Result<(), StartError> {
    run_with(config, Some(path.to_owned()), Vec::new(), hello)
}

/// The same, with demo servers beside it.
fn run_with(
    config: Config,
    path: Option<PathBuf>,
    demos: Vec<(Bound, DemoServer)>,
    hello: impl FnOnce(),
) -> Result<(), StartError> {
    let program = Program::of_this_process();
    let mut inherited = Inherited::take();
    let kinds = drain::hold_signals().map_err(StartError::Signals)?;
    raise_file_limit(&config);
    let threads = config.threads.map_or_else(cores, usize::from);
    let bounds = bounds(&config);
    let admin = bind_admin(&config, &mut inherited)?;
    let (phase_sender, phases) = phases();
    let (chores, waiting) = Chores::new();
    let tools = Arc::new(ToolNames::new());
    let several = first_find(config);
    let config = several.config();
    let shared = Arc::new(shared(config, phases, chores, Arc::clone(&tools))?);
    let channels = (0..threads).map(|_| mpsc::channel(1));
    let (workers, orders): (Vec<_>, Vec<_>) = channels.unzip();
    let snapshot = shared.snapshot.load_full();
    let operator = Operator::new(Arc::clone(&shared), &state_dir_of(&snapshot.config));
    let (wishes, asked) = mpsc::channel(1);
    let certificates = Certificates::new(&state_dir_of(&snapshot.config));
    let reloader = Reloader::start(
        (path, several),
        Arc::clone(&operator),
        Arc::clone(&certificates),
        workers,
        wishes,
        &mut inherited,
    )?;
    inherited.tell_unused();
    telemetry::configured(SystemTime::now());
    // In the state directory, which the keys have made.
    let socket = admin::socket::bind(&snapshot.config)
        .map_err(|(path, error)| StartError::Socket { path, error })?;
    first_resolve(&snapshot);
    hello();

    let (shutdown_sender, shutdown) = watch::channel(false);
    let (replaced_sender, replaced) = watch::channel(false);
    let started = watch::Sender::new(0);
    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    server.bootstrap();
    let readiness = Readiness::new(Arc::clone(&shared), started.subscribe(), threads);
    let hands = (Arc::clone(&operator), Arc::clone(&reloader));
    let vigil = Vigil::new(threads, Instant::now());
    let signs = vigil.signs();
    let watched = Arc::clone(&vigil);
    let tasks = Tasks::new(hands, certificates, tools, vigil, waiting, readiness);
    server.add_service(GenBackgroundService::new(
        "tasks".to_owned(),
        Arc::new(tasks),
    ));
    let admin_socket = admin.as_ref().map(|bound| bound.socket.try_clone());
    let admin_socket = admin_socket.transpose().map_err(StartError::Sockets)?;
    let ends = (shutdown.clone(), replaced.clone());
    let address = admin.map(|bound| (bound, snapshot.config.admin.level));
    let hands = (operator, Arc::clone(&reloader), watched);
    if let Some(admin) = AdminService::new(address, socket, hands, bounds, ends) {
        server.add_service(admin);
    }
    if !demos.is_empty() {
        server.add_service(Apart::new(
            "demo",
            demos,
            &shared,
            bounds,
            shutdown.clone(),
            replaced.clone(),
        ));
    }
    for (index, (orders, sign)) in orders.into_iter().zip(signs).enumerate() {
        let name = format!("worker-{index}");
        let shutdown = shutdown.clone();
        server.add_service(WorkerService::new(
            name,
            (orders, sign),
            Arc::clone(&shared),
            shutdown,
            started.clone(),
        ));
    }
    let signals = Signals::new(
        Arc::clone(&shared),
        Replacement {
            program,
            reloader,
            admin: Mutex::new(admin_socket),
            replaced: replaced_sender,
        },
        asked,
        phase_sender,
        shutdown_sender,
        kinds,
    );
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    traces::flush(&shared);
    shared.log.flush(Duration::from_secs(1));
    if let Some(path) = &snapshot.config.pid_file {
        pid_file::remove(path);
    }
    Ok(())
}

/// Begins to write the messages of the process to standard error, where systemd picks them up.
pub fn start_log(level: Level, format: MessageFormat) {
    messages::start(level, format, &QUIET);
}

/// Every held stream takes two files, and shells start programs with 1024: take what the system
/// allows, and say so where it is not enough for the connections that are configured.
fn raise_file_limit(config: &Config) {
    let wanted: u64 = config
        .listeners
        .iter()
        .map(|listener| 2 * listener.max_connections as u64)
        .sum();
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => log::warn!(
            "the limit of open files is {limit}; {wanted} are needed to hold every connection that the listeners allow"
        ),
        Ok(_) => {}
        Err(error) => log::warn!("cannot raise the limit of open files: {error}"),
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        head_timeout: config.limits.head_timeout,
        idle_timeout: config.limits.idle_timeout,
        head_max: config.limits.header_block,
        fields_max: config.limits.headers,
        write_timeout: config.limits.write_timeout,
    }
}

/// Pingora's configuration, from ours alone.
fn server_conf() -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: false,
        max_retries: 1,
        ..ServerConf::default()
    }
}

fn bind_admin(config: &Config, inherited: &mut Inherited) -> Result<Option<Bound>, StartError> {
    let Some(address) = config.admin.bind else {
        return Ok(None);
    };
    let listener = config::Listener {
        name: "admin".to_owned(),
        bind: config::Bind::at(address),
        max_connections: ADMIN_CONNECTIONS_MAX,
        max_connections_per_client: None,
        tls: None,
        proxy_protocol: false,
    };
    let (_, bound) =
        listeners::bind(&listener, 1, None, inherited).map_err(|error| StartError::Bind {
            address: address.to_string(),
            what: "admin.bind; give another address or \"off\"".to_owned(),
            error,
        })?;
    Ok(bound.into_iter().next())
}

fn shared(
    config: Config,
    phases: Phases,
    chores: Chores,
    tools: Arc<ToolNames>,
) -> Result<Shared, StartError> {
    let state_dir = state_dir_of(&config);
    let keys = load_or_create(&config.sessions.key_files, &state_dir)?;
    for warning in &keys.warnings {
        log::warn!("{warning}");
    }
    state::learn_tools(&tools, &config);
    let log = AccessLog::start(&config.log.access.to).map_err(StartError::Log)?;
    Ok(Shared {
        keyring: ArcSwap::from_pointee(keys.keyring),
        sessions: Arc::new(Table::new(caps(&config), Instant::now())),
        memo: Arc::default(),
        origins: Origins::new(config.sessions.recovery_memory),
        contexts: Contexts::default(),
        links: Arc::default(),
        rings: Rings::new(resume_memory(&config)),
        log,
        traces: Traces::default(),
        tools,
        phases,
        chores,
        flight: Arc::new(Flight::default()),
        started: Instant::now(),
        having: Having::new(),
        open: OpenList::default(),
        clients: ClientNames::default(),
        snapshot: ArcSwap::from_pointee(state::compile(config, None)?),
    })
}

fn caps(config: &Config) -> Caps {
    Caps {
        total: config.sessions.max,
        per_pool: config.sessions.max_per_pool,
        // Limited where one begins, those of WebSockets too.
        per_principal: usize::MAX,
    }
}

fn resume_memory(config: &Config) -> usize {
    let resume = config.streams.resume.as_ref();
    resume.map_or(0, |resume| resume.memory)
}

/// Where the admin socket of a process with this configuration is; `None` if it has none.
pub fn admin_socket(config: &Config) -> Option<PathBuf> {
    admin::socket::path_of(config)
}

/// Where the admin socket is of a process that was started with this file, by what stands in it now, though
/// something in it may be wrong; `None` if that cannot be told.
pub fn admin_socket_as_written(path: &Path) -> Option<PathBuf> {
    let (socket, state_dir) = config::socket_as_written(path)?;
    let otherwise = || admin::socket::in_directory(&state_dir.unwrap_or_else(self::state_dir));
    Some(socket.path.unwrap_or_else(otherwise))
}

/// Where the admin socket of a process is of whose configuration nothing is known: where the package
/// has it, if there is one, else where it is unless the configuration says otherwise.
pub fn usual_admin_socket() -> PathBuf {
    let packaged = Path::new("/run/tidegate/admin.sock");
    match packaged.exists() {
        true => packaged.to_owned(),
        false => admin::socket::in_directory(&state_dir()),
    }
}

/// Where what outlives the process is kept.
pub(crate) fn state_dir_of(config: &Config) -> PathBuf {
    config.state_dir.clone().unwrap_or_else(state_dir)
}

/// Where state lives when the configuration does not say: what systemd gives, else where a
/// daemon's state belongs, else the user's own.
fn state_dir() -> PathBuf {
    let from_env = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(given) = from_env("STATE_DIRECTORY") {
        return given;
    }
    let system = Path::new("/var/lib/tidegate");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.uid() == 0
    });
    if is_root {
        return system.to_owned();
    }
    if let Some(state) = from_env("XDG_STATE_HOME") {
        return state.join("tidegate");
    }
    from_env("HOME").map_or_else(
        || system.to_owned(),
        |home| home.join(".local/state/tidegate"),
    )
}

/// Looks up endpoints' names once before the first request, so that it need not fail.
fn first_resolve(snapshot: &Arc<Snapshot>) {
    at_first(resolve_names(snapshot));
}

/// Looks up the names that stand for several endpoints.
fn first_find(config: Config) -> Several {
    let mut several = Several::new(config);
    let unknown = several.unknown();
    if !unknown.is_empty() {
        let unknown = several.questions(unknown);
        let answers = at_first(names::find(unknown, FIRST_RESOLVE));
        for (key, found) in answers.into_iter().flatten() {
            several.learn(&key, &found, Instant::now());
        }
    }
    several
}

/// Waits for something before there are threads.
fn at_first<T>(first: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.ok()?;
    let outcome = runtime.block_on(first);
    runtime.shutdown_background();
    Some(outcome)
}

/// Looks up the names of endpoints that have no address, or none that goes with the name any more.
async fn resolve_names(snapshot: &Snapshot) {
    let mut looking = tokio::task::JoinSet::new();
    for pool in &snapshot.pools {
        for (endpoint, config) in pool.pool.endpoints().iter().zip(&pool.config.endpoints) {
            if config.address.ip().is_none() && !config.stands_for_several() {
                let endpoint = Arc::clone(endpoint);
                let name = Followed {
                    name: config.address.clone(),
                    servers: pool.config.name_servers.clone(),
                };
                looking.spawn(async move { names::resolve_once(&endpoint, &name).await });
            }
        }
    }
    let all = async { while looking.join_next().await.is_some() {} };
    if tokio::time::timeout(FIRST_RESOLVE, all).await.is_err() {
        log::warn!("names of endpoints are still being resolved");
    }
}
