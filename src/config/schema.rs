//! The JSON Schema (draft 2020-12) of the configuration file, printed from the table of keys.
//!
//! Editors complete keys and mark slips with it. It says what a schema can say; rules about more
//! than one key are left to the check.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, Need, OFF, Section};
use super::table::ROOT;

const DURATION: &str = "^[0-9]+ ?(ms|s|m|h|d)$";
const PERCENT: &str = "^[0-9]+ ?%$";
const RATE: &str = "^[0-9]+ ?/ ?[smh]$";
const SIZE: &str = "^[0-9]+ ?(B|KiB|MiB|GiB|KB|MB|GB)$";
/// A variable of the environment, whose value nobody knows yet.
const VARIABLE: &str = "\\$\\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}";

/// The JSON Schema of the configuration file, as text that ends with a newline.
pub fn schema() -> String {
    let mut root = section(&ROOT);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate configuration",
        "$defs": { "variable": { "type": "string", "pattern": VARIABLE } },
    });
    if let (Value::Object(root), Value::Object(head)) = (&mut root, head) {
        root.extend(head);
    }
    format!("{root:#}\n")
}

fn section(section: &Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys {
        properties.insert(key.name.to_owned(), property(key));
    }
    let required = section.keys.iter();
    let required = required.filter(|key| matches!(key.need, Need::Required(_)));
    let required: Vec<&str> = required.map(|key| key.name).collect();
    let mut object = json!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &Key) -> Value {
    let mut value = kind(&key.kind);
    value["description"] = json!(describe(key));
    if let Need::Default(text) = key.need {
        value["default"] = match key.kind {
            Kind::Count(..) => json!(text.parse::<u64>().unwrap_or_default()),
            Kind::Flag => json!(text == "true"),
            Kind::Share | Kind::ShareOrNone => json!(text.parse::<f64>().unwrap_or_default()),
            _ => json!(text),
        };
    }
    value
}

/// What a key means, with the bounds that JSON Schema cannot express for texts.
fn describe(key: &Key) -> String {
    match key.kind {
        Kind::Duration(min, max) => format!("{} From {min} to {max}.", key.about),
        Kind::DurationOrOff(min, max) => format!("{} From {min} to {max}, or off.", key.about),
        Kind::Percent(min, max) => format!("{} From {min}% to {max}%.", key.about),
        Kind::Size(min, max) => format!("{} From {min} to {max}.", key.about),
        Kind::Rate => format!(
            "{} A number in a second, minute or hour: 50/s, 10/m, 100/h.",
            key.about
        ),
        _ => key.about.to_owned(),
    }
}

fn kind(kind: &Kind) -> Value {
    match kind {
        // `off` is a text to YAML 1.2 and false to YAML 1.1, which some editors speak.
        Kind::TextOrOff => json!({ "type": ["string", "boolean"] }),
        // A name that looks like a number is one to an editor.
        Kind::Text => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Flag => or_variable(json!({ "type": "boolean" })),
        Kind::Count(min, max) => {
            or_variable(json!({ "type": "integer", "minimum": min, "maximum": max }))
        }
        Kind::Duration(..) => or_variable(json!({ "type": "string", "pattern": DURATION })),
        Kind::DurationOrOff(..) => json!({
            "anyOf": [{ "type": "string", "pattern": DURATION }, off(), variable()],
        }),
        Kind::Percent(..) => or_variable(json!({ "type": "string", "pattern": PERCENT })),
        Kind::Rate => or_variable(json!({ "type": "string", "pattern": RATE })),
        Kind::Size(..) => or_variable(json!({ "type": "string", "pattern": SIZE })),
        Kind::Share => {
            or_variable(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }))
        }
        Kind::ShareOrNone => or_variable(json!({ "type": "number", "minimum": 0, "maximum": 1 })),
        Kind::Choice(words) => or_variable(json!({ "enum": words })),
        Kind::Texts(max) => json!({
            "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": max,
        }),
        Kind::Pairs(max) => json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
            "minProperties": 1,
            "maxProperties": max,
        }),
        Kind::Section(below) => section(below),
        Kind::SectionOrOff(below) => json!({ "anyOf": [section(below), off(), variable()] }),
        // `off` is a text to YAML 1.2 and false to YAML 1.1, which some editors speak.
        Kind::SectionOrText(below) => json!({
            "anyOf": [section(below), { "type": ["string", "boolean"] }],
        }),
        Kind::Sections(below, max) => json!({
            "type": "array", "items": section(below), "minItems": 1, "maxItems": max,
        }),
        Kind::SectionsOrTexts(below, max) => json!({
            "type": "array",
            "items": { "anyOf": [{ "type": "string" }, section(below)] },
            "minItems": 1,
            "maxItems": max,
        }),
        Kind::Named(below, max) => json!({
            "type": "object",
            "additionalProperties": section(below),
            "minProperties": 1,
            "maxProperties": max,
        }),
    }
}

fn or_variable(value: Value) -> Value {
    json!({ "anyOf": [value, variable()] })
}

fn variable() -> Value {
    json!({ "$ref": "#/$defs/variable" })
}

fn off() -> Value {
    let words = OFF.iter().map(|word| json!(word));
    json!({ "enum": words.chain([json!(false)]).collect::<Vec<_>>() })
}
