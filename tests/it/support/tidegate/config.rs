//! The configuration a test gives the program, and the places it may use.

use std::fmt;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::Socket;
use tempfile::TempDir;

use super::super::Endpoint;
use super::super::endpoint::reserve_port;
use super::{StartFailure, Tidegate};

/// Ports and files of one program, the same over its restarts.
#[derive(Debug)]
pub(crate) struct Places {
    /// Where its listener is.
    pub(crate) listen: SocketAddr,
    /// Where its admin listener is.
    pub(crate) admin: SocketAddr,
    /// More ports, as many as asked for with [`Builder::more_ports`].
    pub(crate) more: Vec<SocketAddr>,
    /// The endpoints in front of which it stands.
    pub(crate) endpoints: Vec<(String, SocketAddr)>,
    dir: TempDir,
    _reservations: Vec<Socket>,
}

impl Places {
    fn new(builder: &Builder) -> Self {
        let mut reservations = Vec::new();
        let mut port = || {
            let (reservation, address) = reserve_port();
            reservations.push(reservation);
            address
        };
        let (listen, admin) = (port(), port());
        let handed = builder
            .handed
            .first()
            .and_then(|socket| socket.local_addr().ok());
        let listen = handed.unwrap_or(listen);
        let more = (0..builder.more_ports).map(|_| port()).collect();
        let places = Self {
            listen,
            admin,
            more,
            endpoints: builder.endpoints.clone(),
            dir: TempDir::with_prefix("tidegate-it-").expect("a directory"),
            _reservations: reservations,
        };
        std::fs::create_dir(places.state_dir()).expect("a directory in our own");
        places
    }

    /// The directory of everything below.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir().join("tidegate.yaml")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// Its admin socket, where nothing else is configured.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.state_dir().join("admin.sock")
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.dir().join("access.log")
    }

    pub(crate) fn stderr_file(&self) -> PathBuf {
        self.dir().join("stderr.log")
    }

    /// What the program has written to its standard error and output.
    pub(crate) fn stderr(&self) -> String {
        let bytes = std::fs::read(self.stderr_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Writes a whole configuration.
type Whole = Arc<dyn Fn(&Places) -> String + Send + Sync>;

/// A program to be started. Without further words: one listener, one route from `/mcp` to the pool
/// `main`, the endpoints by their names, and no health checks, so that an endpoint sees only what
/// the test sends.
#[derive(Clone)]
pub(crate) struct Builder {
    endpoints: Vec<(String, SocketAddr)>,
    endpoint_keys: Vec<(String, String)>,
    top: String,
    listener: String,
    routes: Option<String>,
    route: String,
    pool: String,
    pools: String,
    health: String,
    admin: String,
    log: String,
    more_ports: usize,
    whole: Option<Whole>,
    pub(super) handed: Arc<Vec<TcpListener>>,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(String, String)>,
    pub(super) stderr: Option<Arc<OwnedFd>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(endpoints: &[&Endpoint]) -> Self {
        let named = |endpoint: &&Endpoint| (endpoint.name().to_owned(), endpoint.address());
        Self {
            endpoints: endpoints.iter().map(named).collect(),
            endpoint_keys: Vec::new(),
            top: String::new(),
            listener: String::new(),
            routes: None,
            route: String::new(),
            pool: String::new(),
            pools: String::new(),
            health: "{ check: none }".into(),
            admin: String::new(),
            log: "{ access: @/access.log, level: debug }".into(),
            more_ports: 0,
            whole: None,
            program: env!("CARGO_BIN_EXE_tidegate").into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            stderr: None,
            handed: Arc::default(),
        }
    }

    /// Adds YAML at the top level, for keys that are not listeners, routes, pools, admin, log or
    /// `state_dir`.
    pub(crate) fn config(mut self, yaml: &str) -> Self {
        push(&mut self.top, yaml, 0);
        self
    }

    /// Adds keys to the listener.
    pub(crate) fn listener(mut self, yaml: &str) -> Self {
        push(&mut self.listener, yaml, 4);
        self
    }

    /// Adds keys to the route from `/mcp` to `main`.
    pub(crate) fn route(mut self, yaml: &str) -> Self {
        push(&mut self.route, yaml, 4);
        self
    }

    /// Puts these list items in the place of the one route.
    pub(crate) fn routes(mut self, yaml: &str) -> Self {
        push(self.routes.get_or_insert_default(), yaml, 2);
        self
    }

    /// Adds keys to the pool `main`; its health checks are set with [`Builder::health`].
    pub(crate) fn pool(mut self, yaml: &str) -> Self {
        push(&mut self.pool, yaml, 4);
        self
    }

    /// Adds keys to the endpoint of this name, as they stand inside a YAML map on one line:
    /// `weight: 2, backup: true`.
    pub(crate) fn endpoint(mut self, name: &str, keys: &str) -> Self {
        self.endpoint_keys.push((name.into(), keys.into()));
        self
    }

    /// Adds an endpoint that is none of the scripted ones.
    pub(crate) fn also_at(mut self, name: &str, address: SocketAddr) -> Self {
        self.endpoints.push((name.into(), address));
        self
    }

    /// Sets the health checks of the pool `main`, as a YAML map on one line.
    pub(crate) fn health(mut self, yaml: &str) -> Self {
        self.health = yaml.into();
        self
    }

    /// Adds keys to the admin section, as they stand inside a YAML map on one line.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        self.admin = format!(", {keys}");
        self
    }

    /// Adds pools beside `main`.
    pub(crate) fn pools(mut self, yaml: &str) -> Self {
        push(&mut self.pools, yaml, 2);
        self
    }

    /// Sets where logs go and what they say, as a YAML map on one line; `@` is the program's directory.
    pub(crate) fn log(mut self, yaml: &str) -> Self {
        self.log = yaml.into();
        self
    }

    /// Reserves more ports, for further listeners: [`Places::more`].
    pub(crate) fn more_ports(mut self, count: usize) -> Self {
        self.more_ports = count;
        self
    }

    /// Hands over a socket that listens already, as systemd does, for the listener.
    pub(crate) fn hand_over(mut self, socket: TcpListener) -> Self {
        self.handed = Arc::new(vec![socket]);
        self
    }

    /// Writes the whole configuration instead.
    pub(crate) fn config_with(
        mut self,
        write: impl Fn(&Places) -> String + Send + Sync + 'static,
    ) -> Self {
        self.whole = Some(Arc::new(write));
        self
    }

    /// Runs this file in the place of the binary.
    pub(crate) fn program(mut self, path: PathBuf) -> Self {
        self.program = path;
        self
    }

    /// Adds an argument behind `-c FILE`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable of the child.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Has standard error and output written there, and not to the file that tests look into.
    pub(crate) fn stderr(mut self, to: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(Arc::new(to.into()));
        self
    }

    /// Starts it and waits until it is ready; panics when it ends instead.
    pub(crate) async fn start(self) -> Tidegate {
        match self.try_start().await {
            Ok(gate) => gate,
            Err(e) => panic!("it ended with {}:\n{}", e.status, e.stderr),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    pub(crate) async fn try_start(self) -> Result<Tidegate, StartFailure> {
        let places = Places::new(&self);
        Tidegate::launch(self, places).await
    }

    /// The configuration file's text.
    pub(super) fn render(&self, places: &Places) -> String {
        if let Some(write) = &self.whole {
            return write(places);
        }
        let mut text = String::new();
        self.render_to(&mut text, places)
            .expect("writing to a string");
        text
    }

    fn render_to(&self, text: &mut String, places: &Places) -> fmt::Result {
        let state = places.state_dir();
        writeln!(text, "listeners:\n  - bind: {}", places.listen)?;
        text.push_str(&self.listener);
        writeln!(text, "routes:")?;
        match &self.routes {
            Some(routes) => text.push_str(routes),
            None => write!(text, "  - path: /mcp\n    pool: main\n{}", self.route)?,
        }
        writeln!(text, "pools:\n  main:\n    health: {}", self.health)?;
        text.push_str(&self.pool);
        writeln!(text, "    endpoints:")?;
        for (name, address) in &self.endpoints {
            write!(text, "      - {{ name: {name}, address: \"{address}\"")?;
            for (_, keys) in self.endpoint_keys.iter().filter(|(of, _)| of == name) {
                write!(text, ", {keys}")?;
            }
            writeln!(text, " }}")?;
        }
        text.push_str(&self.pools);
        let admin = &self.admin;
        writeln!(text, "admin: {{ bind: \"{}\"{admin} }}", places.admin)?;
        writeln!(text, "state_dir: {}", state.display())?;
        let log = self.log.replace('@', &places.dir().display().to_string());
        writeln!(text, "log: {log}")?;
        text.push_str(&self.top);
        Ok(())
    }
}

/// Adds YAML lines at an indentation.
fn push(text: &mut String, yaml: &str, indentation: usize) {
    for line in yaml.lines() {
        text.push_str(&" ".repeat(indentation));
        text.push_str(line);
        text.push('\n');
    }
}
