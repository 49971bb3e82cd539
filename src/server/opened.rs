//! The listeners that are open, and how to get from those of one configuration to those of the next.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::acme::Certificates;
use super::connection::Bounds;
use super::inherited::Inherited;
use super::listeners::{self, Bound, Gate, ListenerId};
use super::socket::Accepting;
use super::worker::{Entrance, Entrances, Manner};
use super::{StartError, bounds};
use crate::config::{Config, Listener};
use crate::transport::tls::Acceptor;

/// What is open, on all threads.
#[derive(Default)]
pub(super) struct Opened {
    listeners: Vec<Open>,
    bounds: Option<Bounds>,
    next: u64,
}

/// One listener.
struct Open {
    id: ListenerId,
    config: Listener,
    gate: Arc<Gate>,
    tls: Option<Acceptor>,
    /// Handles to its sockets, for a process that replaces this one.
    sockets: Arc<Vec<Accepting>>,
}

/// What is to be open. Its new listeners are bound, and nobody accepts on them yet.
pub(super) struct Plan {
    listeners: Vec<Open>,
    bounds: Bounds,
    /// The sockets of new listeners, by thread.
    new: HashMap<ListenerId, Vec<Bound>>,
    threads: usize,
    next: u64,
    closed: usize,
    /// Something about those that stay is to be another way for connections that come from now on.
    alters: bool,
}

impl Plan {
    /// Listeners that are new.
    pub(super) fn opened(&self) -> usize {
        self.new.len()
    }

    /// Listeners that are to be closed.
    pub(super) fn closed(&self) -> usize {
        self.closed
    }

    /// Is anything to be another way for the workers?
    pub(super) fn changes(&self) -> bool {
        self.alters || self.closed > 0 || !self.new.is_empty()
    }
}

impl Opened {
    /// Binds what is new in a configuration. A listener is known by its address: all else about it may
    /// change while it is open.
    ///
    /// # Errors
    /// The first address that could not be had; then nothing has been opened.
    pub(super) fn plan(
        &self,
        config: &Config,
        threads: usize,
        certificates: &Certificates,
        inherited: &mut Inherited,
    ) -> Result<Plan, StartError> {
        let mut plan = Plan {
            listeners: Vec::new(),
            bounds: bounds(config),
            new: HashMap::new(),
            threads,
            next: self.next,
            closed: 0,
            alters: self.bounds != Some(bounds(config)),
        };
        let mut free: Vec<&Open> = self.listeners.iter().collect();
        for listener in &config.listeners {
            let known = free
                .iter()
                .position(|open| open.config.bind.is_same(&listener.bind));
            let failed = |error| StartError::Bind {
                address: listener.bind.to_string(),
                what: format!("listener {}", listener.name),
                error,
            };
            let open = match known.map(|at| free.remove(at)) {
                Some(open) => {
                    plan.alters |= open.config != *listener;
                    let tls = match open.config.tls == listener.tls {
                        true => open.tls.clone(),
                        false => listeners::acceptor(listener, open.tls.as_ref(), certificates)
                            .map_err(failed)?,
                    };
                    Open {
                        id: open.id,
                        config: listener.clone(),
                        gate: Arc::clone(&open.gate),
                        tls,
                        sockets: Arc::clone(&open.sockets),
                    }
                }
                None => {
                    let id = ListenerId(plan.next);
                    plan.next += 1;
                    let tls = listeners::acceptor(listener, None, certificates).map_err(failed)?;
                    let bound = listeners::bind(listener, threads, tls.clone(), inherited);
                    let (gate, bound) = bound.map_err(failed)?;
                    let sockets = bound.iter().map(|bound| bound.socket.try_clone());
                    let sockets = sockets.collect::<Result<_, _>>().map_err(failed)?;
                    plan.new.insert(id, bound);
                    Open {
                        id,
                        config: listener.clone(),
                        gate,
                        tls,
                        sockets: Arc::new(sockets),
                    }
                }
            };
            plan.listeners.push(open);
        }
        plan.closed = free.len();
        Ok(plan)
    }

    /// Handles to all sockets.
    ///
    /// # Errors
    /// The operating system's, most likely for want of files.
    pub(super) fn sockets(&self) -> io::Result<Vec<Accepting>> {
        let sockets = self.listeners.iter().flat_map(|open| open.sockets.iter());
        sockets.map(Accepting::try_clone).collect()
    }

    /// Lets go of the handles: a socket is closed with its last one, and must be when nobody accepts
    /// from it any more.
    pub(super) fn let_go(&mut self) {
        self.listeners.clear();
    }

    /// Makes it so: what each thread is to accept on.
    pub(super) fn apply(&mut self, plan: Plan) -> Vec<Entrances> {
        let mut entrances: Vec<Entrances> = (0..plan.threads)
            .map(|_| Entrances {
                bounds: plan.bounds,
                all: Vec::new(),
                done: None,
            })
            .collect();
        let mut new = plan.new;
        for open in &plan.listeners {
            open.gate.limit(&open.config);
            listeners::permit(&open.config);
            match new.remove(&open.id) {
                // A process that had more threads has handed over more sockets.
                Some(bound) => bound.into_iter().enumerate().for_each(|(at, bound)| {
                    let thread = &mut entrances[at % plan.threads];
                    thread.all.push(Entrance::New(open.id, bound));
                }),
                None => entrances.iter_mut().for_each(|thread| {
                    let manner = Manner {
                        name: Arc::from(open.config.name.as_str()),
                        tls: open.tls.clone(),
                        proxy_protocol: open.config.proxy_protocol,
                    };
                    thread.all.push(Entrance::Stays(open.id, manner));
                }),
            }
        }
        self.next = plan.next;
        self.bounds = Some(plan.bounds);
        self.listeners = plan.listeners;
        entrances
    }
}
