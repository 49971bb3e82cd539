//! Asking an endpoint whether it is well, in its own language, without leaving anything behind.
//!
//! The check `mcp` first finds out what a server speaks: `server/discover` for the stateless era,
//! `initialize` for the session era. From then on it asks `server/discover` where that is known, and
//! else `ping` on one session that is opened once, kept, and deleted in the end. Whatever session id a
//! server shows in any answer, even in an error, is deleted again. On the way the check learns the
//! tools' names, which bound a label of the metrics, and the answer that stands in for servers that
//! are down.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::{Error as PingoraError, ErrorType, Result as PingoraResult};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::checks::in_its_words;
use crate::config::{self, Eras, McpQuestion, Transport};
use crate::mcp::headers::MCP_SESSION_ID;
use crate::pool::{Endpoint, Fact};
use crate::proxy::ask::{Answer, NotWell, Question, SESSION_REVISION, ask, delete_session};
use crate::proxy::state::PoolState;
use crate::telemetry::ToolNames;
use crate::transport::dial::Dialer;

mod tools;

/// How long an answer is waited for that came too late for its check.
const LATE_ANSWER: Duration = Duration::from_secs(30);
const PING: &str = r#"{"jsonrpc":"2.0","id":"tidegate-probe","method":"ping"}"#;
const STATELESS_REVISION: &str = "2026-07-28";

/// The check `mcp` of one endpoint.
pub(super) struct McpCheck {
    pool: Arc<PoolState>,
    endpoint: Arc<Endpoint>,
    dialer: Arc<Dialer>,
    tools: Arc<ToolNames>,
    path: String,
    transport: Transport,
    asks: McpQuestion,
    /// The session that `ping` goes over, once one is open. Only one check runs at a time.
    session: Mutex<Option<ProbeSession>>,
    /// A question that the check gave up on is not over yet.
    late: Arc<AtomicBool>,
}

#[derive(Clone)]
struct ProbeSession {
    id: String,
    revision: String,
}

impl McpCheck {
    /// The check of an endpoint: where, over which transport, and what is asked.
    pub(super) fn new(
        pool: &Arc<PoolState>,
        endpoint: &Arc<Endpoint>,
        dialer: &Arc<Dialer>,
        tools: &Arc<ToolNames>,
        (path, transport, asks): (&str, Transport, McpQuestion),
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            endpoint: Arc::clone(endpoint),
            dialer: Arc::clone(dialer),
            tools: Arc::clone(tools),
            path: path.to_owned(),
            transport,
            asks,
            session: Mutex::new(None),
            late: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Gives back the session that `ping` went over.
    pub(super) async fn close(&self) {
        if let (Some(session), Some(address)) = (self.take_session(), self.endpoint.address()) {
            self.delete(address, &session.id).await;
        }
    }

    fn health(&self) -> &config::Health {
        &self.pool.config.health
    }

    fn take_session(&self) -> Option<ProbeSession> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn keep_session(&self, session: ProbeSession) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }

    /// One check. The error text goes to the log when the endpoint changes its state.
    async fn run(&self, address: SocketAddr) -> Result<(), NotWell> {
        if self.transport == Transport::Sse {
            return self.open_stream(address).await;
        }
        match self.asks {
            McpQuestion::Auto => self.suit(address).await,
            McpQuestion::Discover => self.discover_only(address).await,
            McpQuestion::Ping => match self.take_session() {
                Some(session) => self.ping(address, session).await,
                None => self.handshake(address).await,
            },
            McpQuestion::Initialize => self.handshake(address).await,
        }
    }

    /// What suits the server, as far as it is known.
    async fn suit(&self, address: SocketAddr) -> Result<(), NotWell> {
        let facts = &self.endpoint.facts;
        if facts.speaks_stateless_era.get() == Fact::Unknown
            && self.pool.config.eras != Eras::Session
        {
            return self.explore(address).await;
        }
        if facts.speaks_stateless_era.get() == Fact::Yes {
            if facts.speaks_session_era.get() == Fact::Unknown
                && self.pool.config.eras != Eras::Stateless
            {
                self.handshake(address).await?;
            }
            return self.discover(address).await.map(|_| ());
        }
        match self.take_session() {
            Some(session) => self.ping(address, session).await,
            None => self.handshake(address).await,
        }
    }

    /// HTTP+SSE: a stream that begins is a server that lives; closing it ends its session.
    async fn open_stream(&self, address: SocketAddr) -> Result<(), NotWell> {
        let answer = self.ask(address, "GET", &[], None).await?;
        match answer.status {
            200 | 401 | 403 => Ok(()),
            status => Err(NotWell::told(format!(
                "the stream was answered with status {status}"
            ))),
        }
    }

    /// First contact: what does this server speak?
    async fn explore(&self, address: SocketAddr) -> Result<(), NotWell> {
        let facts = &self.endpoint.facts;
        let stateless = self.discover(address).await?;
        // It answers. What it may still hold from before it was lost is not needed any more.
        if let Some(old) = self.take_session() {
            self.delete(address, &old.id).await;
        }
        if stateless {
            if self.pool.config.eras != Eras::Stateless {
                self.handshake(address).await?;
            } else {
                facts.speaks_session_era.learn(false);
            }
            self.learn_tools(address, None).await;
            return Ok(());
        }
        self.handshake(address).await
    }

    /// `server/discover`, and nothing else will do.
    async fn discover_only(&self, address: SocketAddr) -> Result<(), NotWell> {
        let is_new = self.endpoint.facts.speaks_stateless_era.get() != Fact::Yes;
        if !self.discover(address).await? {
            return Err(NotWell::told(
                "server/discover was not answered with a result",
            ));
        }
        if is_new {
            self.learn_tools(address, None).await;
        }
        Ok(())
    }

    /// Does a session that was opened by a check serve the checks after it?
    fn keeps_sessions(&self) -> bool {
        match self.asks {
            McpQuestion::Auto => self.endpoint.facts.speaks_stateless_era.get() != Fact::Yes,
            McpQuestion::Ping => true,
            McpQuestion::Discover | McpQuestion::Initialize => false,
        }
    }

    /// `server/discover`. True if the server speaks the stateless era.
    async fn discover(&self, address: SocketAddr) -> Result<bool, NotWell> {
        let answer = self.stateless(address, "server/discover", "{}").await?;
        let facts = &self.endpoint.facts;
        if answer.wants_credentials() {
            return Ok(true);
        }
        if let Some(result) = answer.result() {
            facts.speaks_stateless_era.learn(true);
            let text = serde_json::json!({ "result": result }).to_string();
            self.pool.remember_discover(text.as_bytes());
            return Ok(true);
        }
        if answer.status >= 500 {
            let why = format!("server/discover was answered with status {}", answer.status);
            return Err(NotWell::told(why));
        }
        if facts.speaks_stateless_era.get() == Fact::Yes {
            let why = format!("server/discover failed with status {}", answer.status);
            return Err(NotWell::told(why));
        }
        facts.speaks_stateless_era.learn(false);
        Ok(false)
    }

    /// `initialize`, and `ping` sessions from then on where the server issues session ids and
    /// offers no cheaper question.
    async fn handshake(&self, address: SocketAddr) -> Result<(), NotWell> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"tidegate-probe","method":"initialize","params":{{"protocolVersion":"{SESSION_REVISION}","capabilities":{{}},"clientInfo":{{"name":"tidegate-probe","version":"{}"}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let answer = self.ask(address, "POST", &[], Some(body)).await?;
        let facts = &self.endpoint.facts;
        let is_new = facts.speaks_session_era.get() != Fact::Yes;
        let Some(result) = answer.result() else {
            self.delete_stray(address, &answer).await;
            if answer.wants_credentials() {
                return Ok(());
            }
            let is_refusal = answer.status < 500 && self.asks == McpQuestion::Auto;
            if is_refusal && facts.speaks_stateless_era.get() == Fact::Yes {
                facts.speaks_session_era.learn(false);
                return Ok(());
            }
            return Err(NotWell::told(format!(
                "initialize was answered with status {} and no result",
                answer.status
            )));
        };
        facts.speaks_session_era.learn(true);
        facts.issues_sessions.learn(answer.session.is_some());
        let revision = result
            .get("protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or(SESSION_REVISION)
            .to_owned();
        let Some(id) = answer.session else {
            return match self.asks {
                McpQuestion::Ping => self.ping_freely(address, &revision).await,
                _ => Ok(()),
            };
        };
        let session = ProbeSession { id, revision };
        let noted = self
            .in_session(
                address,
                &session,
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            )
            .await;
        let keeps = noted.is_ok() && self.keeps_sessions();
        if keeps || (noted.is_ok() && is_new && self.asks == McpQuestion::Initialize) {
            self.learn_tools(address, Some(&session)).await;
        }
        if keeps {
            self.keep_session(session);
        } else {
            self.delete(address, &session.id).await;
        }
        Ok(())
    }

    /// `ping` at a server that issues no sessions.
    async fn ping_freely(&self, address: SocketAddr, revision: &str) -> Result<(), NotWell> {
        let fields: [(&'static str, &[u8]); 1] = [("mcp-protocol-version", revision.as_bytes())];
        let answer = self
            .ask(address, "POST", &fields, Some(PING.to_owned()))
            .await?;
        self.delete_stray(address, &answer).await;
        match answer.status {
            200 => Ok(()),
            status => Err(NotWell::told(format!(
                "ping was answered with status {status}"
            ))),
        }
    }

    /// `ping` on the session that was opened for it.
    async fn ping(&self, address: SocketAddr, session: ProbeSession) -> Result<(), NotWell> {
        let answer = self.in_session(address, &session, PING).await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.keep_session(session);
                Ok(())
            }
            // It restarted, or let the session expire: it answers, and is asked anew.
            Ok(answer) if answer.status == 404 || answer.status == 400 => {
                self.endpoint.facts.forget();
                match self.asks {
                    McpQuestion::Auto => self.explore(address).await,
                    _ => self.handshake(address).await,
                }
            }
            Ok(answer) => {
                self.keep_session(session);
                let why = format!("ping was answered with status {}", answer.status);
                Err(NotWell::told(why))
            }
            Err(error) => {
                self.keep_session(session);
                Err(error)
            }
        }
    }

    async fn stateless(
        &self,
        address: SocketAddr,
        method: &str,
        params: &str,
    ) -> Result<Answer, NotWell> {
        let meta = format!(
            r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{STATELESS_REVISION}","io.modelcontextprotocol/clientInfo":{{"name":"tidegate-probe","version":"{}"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let rest = params.trim_start_matches('{');
        let comma = if rest == "}" { "" } else { "," };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"tidegate-probe","method":"{method}","params":{{{meta}{comma}{rest}}}"#
        );
        let fields: [(&'static str, &[u8]); 2] = [
            ("mcp-protocol-version", STATELESS_REVISION.as_bytes()),
            ("mcp-method", method.as_bytes()),
        ];
        let answer = self.ask(address, "POST", &fields, Some(body)).await?;
        self.delete_stray(address, &answer).await;
        Ok(answer)
    }

    async fn in_session(
        &self,
        address: SocketAddr,
        session: &ProbeSession,
        body: &str,
    ) -> Result<Answer, NotWell> {
        let fields: [(&'static str, &[u8]); 2] = [
            (MCP_SESSION_ID, session.id.as_bytes()),
            ("mcp-protocol-version", session.revision.as_bytes()),
        ];
        let asked = self.ask(address, "POST", &fields, Some(body.to_owned()));
        let answer = asked.await?;
        if answer.session.as_ref() != Some(&session.id) {
            self.delete_stray(address, &answer).await;
        }
        Ok(answer)
    }

    /// Deletes a session that a server opened over a question that asked for none. Some do so even
    /// with a refusal.
    async fn delete_stray(&self, address: SocketAddr, answer: &Answer) {
        if let Some(id) = &answer.session {
            self.delete(address, id).await;
        }
    }

    async fn delete(&self, address: SocketAddr, id: &str) {
        let fields: [(&'static str, &[u8]); 2] = [
            (MCP_SESSION_ID, id.as_bytes()),
            ("mcp-protocol-version", SESSION_REVISION.as_bytes()),
        ];
        if let Err(error) = self.ask(address, "DELETE", &fields, None).await {
            log::debug!(endpoint = self.endpoint.name(); "cannot delete a probe session: {}", error.why);
        }
    }

    async fn ask(
        &self,
        address: SocketAddr,
        method: &'static str,
        fields: &[(&'static str, &[u8])],
        body: Option<String>,
    ) -> Result<Answer, NotWell> {
        let limit = self.health().timeout;
        if self.late.load(Ordering::Relaxed) {
            return Err(NotWell::silent("an earlier question is still not answered"));
        }
        let in_session = fields.iter().any(|(name, _)| *name == MCP_SESSION_ID);
        let mut asking = tokio::spawn(self.question(address, method, fields, body));
        match timeout(limit, &mut asking).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => return Err("the check came to nothing".to_owned().into()),
            Err(_) if in_session || method != "POST" => asking.abort(),
            Err(_) => self.clean_up_after(asking),
        }
        Err(NotWell::silent(format!("no answer within {limit:?}")))
    }

    /// A question that owns what it needs, so that it can outlive the check that asked it.
    fn question(
        &self,
        address: SocketAddr,
        method: &'static str,
        fields: &[(&'static str, &[u8])],
        body: Option<String>,
    ) -> impl Future<Output = Result<Answer, NotWell>> + Send + use<> {
        let (pool, endpoint) = (Arc::clone(&self.pool), Arc::clone(&self.endpoint));
        let (dialer, path) = (Arc::clone(&self.dialer), self.path.clone());
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.to_vec()))
            .collect();
        async move {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (*name, value.as_slice()))
                .collect();
            let question = Question::own(method, &path, &fields);
            let question = question.with_body(body.as_deref().map(str::as_bytes));
            ask(&pool, &endpoint, &dialer, address, question).await
        }
    }

    /// A server that is too slow for the check may yet open a session for its question. Nobody else
    /// will hear of it, so the answer is waited for a while, and no other question asked meanwhile.
    fn clean_up_after(&self, mut asking: JoinHandle<Result<Answer, NotWell>>) {
        self.late.store(true, Ordering::Relaxed);
        let late = Arc::clone(&self.late);
        let (pool, endpoint) = (Arc::clone(&self.pool), Arc::clone(&self.endpoint));
        let (dialer, path) = (Arc::clone(&self.dialer), self.path.clone());
        tokio::spawn(async move {
            match timeout(LATE_ANSWER, &mut asking).await {
                Ok(Ok(Ok(Answer {
                    session: Some(id), ..
                }))) => {
                    delete_session(&pool, &endpoint, &dialer, &path, &id).await;
                }
                Ok(_) => {}
                Err(_) => asking.abort(),
            }
            late.store(false, Ordering::Relaxed);
        });
    }
}

#[async_trait]
impl HealthCheck for McpCheck {
    async fn check(&self, target: &Backend) -> PingoraResult<()> {
        let Some(address) = target.addr.as_inet() else {
            return PingoraError::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        self.run(*address).await.map_err(in_its_words)
    }

    fn health_threshold(&self, success: bool) -> usize {
        let health = self.health();
        (if success { health.rise } else { health.fall }) as usize
    }
}
