//! What can be called. Each tool answers with exactly one text.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// The most ticks of one call.
const TICKS_MAX: u64 = 1000;
/// The longest time between two ticks, in milliseconds.
const EVERY_MS_MAX: u64 = 60_000;

/// What came of a `tools/call`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The tool's text.
    Text(String),
    /// The tool was called wrongly; the text tells a model how to do better.
    Failed(String),
    /// So many ticks, one after each interval.
    Ticks { count: u32, every: Duration },
    /// There is no such tool, or the request is none: a protocol error.
    Invalid(String),
}

/// Calls the tool that `params` names.
///
/// `copy` is the name of the copy that answers, `calls` the count that `counter` tells and raises.
pub(super) fn call(params: &Map<String, Value>, copy: &str, calls: &mut u64) -> Outcome {
    let Some(name) = params.get("name").and_then(Value::as_str) else {
        return Outcome::Invalid("params.name must be a string".to_owned());
    };
    let nothing = Map::new();
    let arguments = match params.get("arguments") {
        None => &nothing,
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Outcome::Invalid("params.arguments must be an object".to_owned()),
    };
    match name {
        "whoami" => Outcome::Text(copy.to_owned()),
        "counter" => {
            *calls += 1;
            Outcome::Text(calls.to_string())
        }
        "echo" => match arguments.get("text") {
            Some(Value::String(text)) => Outcome::Text(text.clone()),
            _ => Outcome::Failed("text must be a string".to_owned()),
        },
        "ticks" => ticks(arguments),
        _ => Outcome::Invalid(format!("unknown tool: {name}")),
    }
}

fn ticks(arguments: &Map<String, Value>) -> Outcome {
    let count = integer(arguments, "n", 1, TICKS_MAX);
    let every = integer(arguments, "every_ms", 0, EVERY_MS_MAX);
    match (count, every) {
        (Ok(count), Ok(every)) => Outcome::Ticks {
            count: u32::try_from(count).expect("TICKS_MAX fits"),
            every: Duration::from_millis(every),
        },
        (Err(text), _) | (_, Err(text)) => Outcome::Failed(text),
    }
}

/// An integer as JSON Schema has it: `3.0` is one.
fn integer(arguments: &Map<String, Value>, name: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = arguments.get(name).and_then(Value::as_f64);
    value
        .filter(|value| value.fract() == 0.0 && (min as f64..=max as f64).contains(value))
        .map(|value| value as u64)
        .ok_or_else(|| format!("{name} must be an integer from {min} to {max}"))
}

/// The list of tools, as `tools/list` gives it.
pub(super) fn catalog() -> Value {
    json!([
        {
            "name": "whoami",
            "description": "The name of the copy of the server that answers.",
            "inputSchema": {"type": "object", "properties": {}},
        },
        {
            "name": "counter",
            "description": "How often this tool was called in this session, this call included. \
                Without a session: how often at this copy.",
            "inputSchema": {"type": "object", "properties": {}},
        },
        {
            "name": "echo",
            "description": "Gives a text back as it is.",
            "inputSchema": {
                "type": "object",
                "properties": {"text": {"type": "string", "description": "The text."}},
                "required": ["text"],
            },
        },
        {
            "name": "ticks",
            "description": "Tells n ticks, one every every_ms milliseconds, as progress if a \
                progress token is given and else as log messages, and then answers.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "n": {
                        "type": "integer", "minimum": 1, "maximum": TICKS_MAX,
                        "description": "How many ticks.",
                    },
                    "every_ms": {
                        "type": "integer", "minimum": 0, "maximum": EVERY_MS_MAX,
                        "description": "Milliseconds before each tick.",
                    },
                },
                "required": ["n", "every_ms"],
            },
        },
    ])
}
