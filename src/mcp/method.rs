//! What is known about each method of the protocol, as one table.
//!
//! Everything in the balancer that depends on a method (may it be sent twice, which parameter names
//! the thing it acts on, may it become a metric label) reads this table, so that a new method is a
//! new line and nothing else. A method that is not in the table is forwarded all the same; it only
//! gets the careful defaults.

use super::version::Era;

/// Does the method expect an answer?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has an id and is answered.
    Request,
    /// It has no id and is only accepted.
    Notification,
}

/// Who may send the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client, in a POST.
    Client,
    /// The server, on an event stream.
    Server,
    /// Both sides.
    Either,
}

/// How often and where a call may be sent again by the balancer after a failure.
///
/// A failure is placed by how far the exchange got: *before sending* means no byte of the request
/// reached the server; *after sending* means some did and no response head came back. Once a
/// response head has arrived nothing is ever repeated by us. A call that belongs to a session may
/// only be repeated at the endpoint that owns the session, whatever stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Before and after sending, at any endpoint of the pool: reads, lists, `ping`,
    /// `server/discover`. Also `initialize`, which may leave an unused session behind, and
    /// `subscriptions/listen`, which is opened again even after its stream broke.
    Always,
    /// Before sending, at any endpoint; after sending never, because the work may have been done.
    BeforeSend,
    /// Before sending, at any endpoint; after sending once more, at the same endpoint, because
    /// repeating it there gives the same state.
    SameEndpointOnce,
    /// Not at all: a client has no business sending it.
    Never,
}

/// What is known about one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The method's name on the wire.
    pub name: &'static str,
    /// Whether it is answered.
    pub kind: Kind,
    /// The one era that has it; `None` when both have.
    pub era: Option<Era>,
    /// Who sends it.
    pub sender: Sender,
    /// The member of `params` that names the object acted on: `name`, `uri` or `taskId`. In the
    /// stateless era the same value stands in the `Mcp-Name` header.
    pub name_param: Option<&'static str>,
    /// When it may be sent again.
    pub retry: Retry,
    /// The answer is one page of a list, so answers of several servers can be merged.
    pub listable: bool,
    /// The answer of the stateless era carries `ttlMs` and `cacheScope`.
    pub cacheable: bool,
}

impl Facts {
    /// Must a stateless-era request with this method carry `Mcp-Name`?
    pub fn name_header_required(&self) -> bool {
        self.name_param.is_some() && self.era != Some(Era::Session) && self.kind == Kind::Request
    }
}

/// The facts about a method, or `None` for a method that the protocol does not define.
pub fn facts(method: &str) -> Option<&'static Facts> {
    facts_of(method.as_bytes())
}

/// The same, for a method that nobody has found to be UTF-8.
pub(super) fn facts_of(method: &[u8]) -> Option<&'static Facts> {
    // What most requests are.
    if method == b"tools/call" {
        return Some(&TABLE[TOOLS_CALL]);
    }
    TABLE
        .binary_search_by(|facts| facts.name.as_bytes().cmp(method))
        .ok()
        .map(|index| &TABLE[index])
}

/// Where `tools/call` stands in the table.
const TOOLS_CALL: usize = {
    let mut at = 0;
    while !TABLE[at]
        .name
        .as_bytes()
        .eq_ignore_ascii_case(b"tools/call")
    {
        at += 1;
    }
    at
};

/// When a method may be sent again. Unknown methods are treated like a tool call.
pub fn retry(method: &str) -> Retry {
    facts(method).map_or(Retry::BeforeSend, |facts| facts.retry)
}

/// The method as a metric label: its name if the protocol defines it, else `other`. The set is
/// closed, whatever clients send.
pub fn label(method: &str) -> &'static str {
    facts(method).map_or("other", |facts| facts.name)
}

/// A request of the client that both eras have, may be sent once, and names nothing.
const REQUEST: Facts = Facts {
    name: "",
    kind: Kind::Request,
    era: None,
    sender: Sender::Client,
    name_param: None,
    retry: Retry::BeforeSend,
    listable: false,
    cacheable: false,
};

/// A read: repeating it changes nothing.
const READ: Facts = Facts {
    retry: Retry::Always,
    ..REQUEST
};

/// A change that gives the same state when the same endpoint sees it twice.
const REPLACE: Facts = Facts {
    retry: Retry::SameEndpointOnce,
    ..REQUEST
};

/// A read whose answer is one page of a list and carries cache hints.
const LIST: Facts = Facts {
    listable: true,
    cacheable: true,
    ..READ
};

/// A request that the server sends to the client; gone in the stateless era.
const ASK: Facts = Facts {
    sender: Sender::Server,
    era: Some(Era::Session),
    retry: Retry::Never,
    ..REQUEST
};

/// A notification of the server.
const TOLD: Facts = Facts {
    kind: Kind::Notification,
    retry: Retry::Never,
    ..ASK
};

/// A notification of the client: sent once, and to its own session only.
const TELL: Facts = Facts {
    kind: Kind::Notification,
    ..REQUEST
};

const SESSION: Option<Era> = Some(Era::Session);
const STATELESS: Option<Era> = Some(Era::Stateless);

/// Every method of every revision and of the tasks extension, sorted by name.
#[rustfmt::skip]
static TABLE: [Facts; 36] = [
    Facts { name: "completion/complete", ..READ },
    Facts { name: "elicitation/create", ..ASK },
    Facts { name: "initialize", era: SESSION, ..READ },
    Facts { name: "logging/setLevel", era: SESSION, ..REPLACE },
    Facts { name: "notifications/cancelled", sender: Sender::Either, ..TELL },
    Facts { name: "notifications/elicitation/complete", ..TOLD },
    // Said once too often it changes nothing; lost, it takes the session with it.
    Facts { name: "notifications/initialized", era: SESSION, retry: Retry::SameEndpointOnce, ..TELL },
    Facts { name: "notifications/message", era: None, ..TOLD },
    Facts { name: "notifications/progress", sender: Sender::Either, ..TELL },
    Facts { name: "notifications/prompts/list_changed", era: None, ..TOLD },
    Facts { name: "notifications/resources/list_changed", era: None, ..TOLD },
    Facts { name: "notifications/resources/updated", era: None, ..TOLD },
    Facts { name: "notifications/roots/list_changed", era: SESSION, ..TELL },
    Facts { name: "notifications/subscriptions/acknowledged", era: STATELESS, ..TOLD },
    Facts { name: "notifications/tasks", era: STATELESS, ..TOLD },
    Facts { name: "notifications/tasks/status", sender: Sender::Either, era: SESSION, ..TELL },
    Facts { name: "notifications/tools/list_changed", era: None, ..TOLD },
    Facts { name: "ping", era: SESSION, sender: Sender::Either, ..READ },
    Facts { name: "prompts/get", name_param: Some("name"), ..READ },
    Facts { name: "prompts/list", ..LIST },
    Facts { name: "resources/list", ..LIST },
    Facts { name: "resources/read", name_param: Some("uri"), cacheable: true, ..READ },
    Facts { name: "resources/subscribe", era: SESSION, name_param: Some("uri"), ..REPLACE },
    Facts { name: "resources/templates/list", ..LIST },
    Facts { name: "resources/unsubscribe", era: SESSION, name_param: Some("uri"), ..REPLACE },
    Facts { name: "roots/list", ..ASK },
    Facts { name: "sampling/createMessage", ..ASK },
    Facts { name: "server/discover", era: STATELESS, cacheable: true, ..READ },
    Facts { name: "subscriptions/listen", era: STATELESS, ..READ },
    Facts { name: "tasks/cancel", name_param: Some("taskId"), ..REPLACE },
    Facts { name: "tasks/get", name_param: Some("taskId"), ..READ },
    Facts { name: "tasks/list", era: SESSION, listable: true, ..READ },
    // Waits for the task and may carry questions to the user on the way: not a plain read.
    Facts { name: "tasks/result", era: SESSION, name_param: Some("taskId"), ..REQUEST },
    Facts { name: "tasks/update", era: STATELESS, name_param: Some("taskId"), ..REPLACE },
    Facts { name: "tools/call", name_param: Some("name"), ..REQUEST },
    Facts { name: "tools/list", ..LIST },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_every_method_is_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for entry in &TABLE {
            assert_eq!(facts(entry.name), Some(entry));
            assert_eq!(label(entry.name), entry.name);
        }
    }

    #[test]
    fn unknown_methods_share_one_label_and_are_never_repeated_after_sending() {
        for method in [
            "",
            "tools/cal",
            "tools/call ",
            "Tools/call",
            "x".repeat(4096).as_str(),
        ] {
            assert_eq!(facts(method), None);
            assert_eq!(label(method), "other");
            assert_eq!(retry(method), Retry::BeforeSend);
        }
    }

    #[test]
    fn retry_follows_what_repeating_would_do() {
        let rows = [
            (
                Retry::Always,
                "server/discover tools/list prompts/list resources/list resources/templates/list tasks/list resources/read prompts/get completion/complete ping tasks/get subscriptions/listen initialize",
            ),
            (
                Retry::BeforeSend,
                "tools/call tasks/result notifications/cancelled notifications/progress notifications/roots/list_changed",
            ),
            (
                Retry::SameEndpointOnce,
                "notifications/initialized tasks/update tasks/cancel logging/setLevel resources/subscribe resources/unsubscribe",
            ),
            (
                Retry::Never,
                "sampling/createMessage elicitation/create roots/list notifications/tools/list_changed",
            ),
        ];
        for (expected, methods) in rows {
            for method in methods.split(' ') {
                assert!(facts(method).is_some(), "{method}");
                assert_eq!(retry(method), expected, "{method}");
            }
        }
    }

    #[test]
    fn six_methods_of_the_stateless_era_and_its_tasks_need_the_name_header() {
        let named: Vec<_> = TABLE
            .iter()
            .filter(|facts| facts.name_header_required())
            .map(|facts| facts.name)
            .collect();
        assert_eq!(
            named,
            [
                "prompts/get",
                "resources/read",
                "tasks/cancel",
                "tasks/get",
                "tasks/update",
                "tools/call"
            ]
        );
    }

    #[test]
    fn exactly_six_answers_are_cacheable() {
        assert_eq!(TABLE.iter().filter(|facts| facts.cacheable).count(), 6);
    }
}
