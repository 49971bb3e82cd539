//! What `serde_json` finds in a message: the slow way to the same result.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::mcp::message::{
    BATCH_ITEMS_MAX, BatchItem, Class, ID_BYTES_MAX, METHOD_BYTES_MAX, Message, NAME_BYTES_MAX,
    RawId, Shape, VERSION_BYTES_MAX,
};
use crate::mcp::method::facts;
use crate::mcp::text::{Text, Word};
use crate::mcp::trace::TraceContext;

pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// An object as written: every member, in order, with its text.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// What a parser finds wrong, by the name of the error.
pub(super) type Wrong = Vec<&'static str>;

impl Members {
    fn of(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or(Self(Vec::new()))
    }

    fn get(&self, key: &str, wrong: &mut Wrong) -> Option<&str> {
        let mut found = self.0.iter().filter(|(name, _)| name == key);
        let first = found.next()?;
        if found.next().is_some() {
            wrong.push("DuplicateKey");
        }
        Some(first.1.get())
    }

    fn last(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().rfind(|(name, _)| name == key)?;
        Some(found.1.get())
    }

    fn text(&self, key: &str, wrong: &mut Wrong) -> Option<String> {
        serde_json::from_str(self.get(key, wrong)?).ok()
    }
}

fn cut(text: String) -> Word {
    Text::new(&text[..text.floor_char_boundary(VERSION_BYTES_MAX)])
}

fn expected_object(json: &str, wrong: &mut Wrong) -> Message {
    let members = Members::of(json);
    let params = Members::of(members.get("params", wrong).unwrap_or("{}"));
    let meta = Members::of(params.get("_meta", wrong).unwrap_or("{}"));
    let result = Members::of(members.get("result", wrong).unwrap_or("{}"));
    let error = Members::of(members.get("error", wrong).unwrap_or("{}"));
    let id = members.get("id", wrong).and_then(|id| {
        let is_odd = id.starts_with(['{', '[', 't', 'f']);
        if is_odd || id.len() > ID_BYTES_MAX {
            wrong.push(if is_odd { "InvalidId" } else { "IdTooLong" });
            return None;
        }
        Some(RawId::checked(id.as_bytes()))
    });
    let method = members.text("method", wrong);
    if method
        .as_ref()
        .is_some_and(|method| method.len() > METHOD_BYTES_MAX)
    {
        wrong.push("MethodTooLong");
    }
    let names = ["name", "uri", "taskId"].map(|key| (key, params.text(key, wrong)));
    let param = method
        .as_deref()
        .and_then(facts)
        .and_then(|facts| facts.name_param);
    let name = names
        .into_iter()
        .find(|(key, _)| Some(*key) == param)
        .and_then(|(_, name)| name);
    let name_too_long = name
        .as_ref()
        .is_some_and(|name| name.len() > NAME_BYTES_MAX);
    Message {
        shape: Shape::Object,
        id,
        has_odd_method: members.get("method", wrong).is_some() && method.is_none(),
        method: method.as_deref().map(Text::new),
        name: name.filter(|_| !name_too_long).as_deref().map(Text::new),
        name_too_long,
        meta_version: meta.text(META_VERSION, wrong).map(cut),
        trace: meta
            .last("traceparent")
            .and_then(|text| serde_json::from_str::<String>(text).ok())
            // A later version may be longer than what is looked at.
            .and_then(|text| TraceContext::parse(&text.as_bytes()[..text.len().min(56)])),
        init_version: params.text("protocolVersion", wrong).map(cut),
        has_result: members.get("result", wrong).is_some(),
        has_error: members.get("error", wrong).is_some(),
        is_tool_error: result.last("isError") == Some("true"),
        error_code: error.last("code").and_then(|code| code.parse().ok()),
        has_request_state: params
            .get("requestState", wrong)
            .is_some_and(|state| state != "null"),
        batch: Vec::new(),
    }
}

/// What a parser makes of a text that it accepts.
pub(super) fn expected(json: &str, wrong: &mut Wrong) -> Message {
    if json.trim_start().starts_with('{') {
        return expected_object(json, wrong);
    }
    let Ok(elements) = serde_json::from_str::<Vec<Box<RawValue>>>(json) else {
        return Message {
            shape: Shape::Scalar,
            ..Message::default()
        };
    };
    if elements.len() > BATCH_ITEMS_MAX {
        wrong.push("BatchTooLong");
    }
    let item = |element: Box<RawValue>| {
        let message = expected_object(element.get(), wrong);
        let is_response = message.class() == Class::Response
            || (message.has_result && message.method.is_none() && !message.has_odd_method);
        BatchItem {
            id: message.id,
            method: message.method,
            name: message.name,
            is_response,
        }
    };
    let batch = elements.into_iter().map(item).collect();
    Message {
        shape: Shape::Batch,
        batch,
        ..Message::default()
    }
}
