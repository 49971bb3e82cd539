//! What a check learns of a server's tools on the way: their names, which bound a label of the metrics,
//! and which of them say that calling them twice does no harm.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::{McpCheck, ProbeSession};

/// Pages of `tools/list` read to learn names.
const PAGES_MAX: usize = 5;

impl McpCheck {
    pub(super) async fn learn_tools(&self, address: SocketAddr, session: Option<&ProbeSession>) {
        let mut cursor: Option<String> = None;
        let mut repeatable = HashSet::new();
        let name = |tool: &Value| Some(tool.get("name")?.as_str()?.into());
        for _ in 0..PAGES_MAX {
            let params = cursor.as_ref().map_or_else(
                || "{}".to_owned(),
                |c| serde_json::json!({ "cursor": c }).to_string(),
            );
            let answer = match session {
                Some(session) => {
                    let body = format!(
                        r#"{{"jsonrpc":"2.0","id":"tidegate-probe","method":"tools/list","params":{params}}}"#
                    );
                    self.in_session(address, session, &body).await
                }
                None => self.stateless(address, "tools/list", &params).await,
            };
            let Ok(answer) = answer else { return };
            let Some(result) = answer.result() else {
                return;
            };
            let tools = result
                .get("tools")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            repeatable.extend(
                tools
                    .iter()
                    .filter(|tool| is_repeatable(tool))
                    .filter_map(name),
            );
            let names: Vec<&str> = tools
                .iter()
                .filter_map(|tool| tool.get("name")?.as_str())
                .collect();
            self.tools.learn(self.pool.pool.name(), names);
            cursor = result
                .get("nextCursor")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        let retries = self.pool.config.retries.as_ref();
        if retries.is_some_and(|retries| retries.trust_annotations) {
            self.pool.repeatable.store(Some(Arc::new(repeatable)));
        }
    }
}

/// Does a tool say of itself that calling it twice does no harm?
fn is_repeatable(tool: &Value) -> bool {
    ["readOnlyHint", "idempotentHint"]
        .iter()
        .any(|hint| tool.pointer(&format!("/annotations/{hint}")) == Some(&Value::Bool(true)))
}
