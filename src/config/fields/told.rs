//! What an operator is told of a value of the wrong kind, or of a key that nobody knows.

use super::super::keys::{Need, Section};
use super::super::node::Value;
use super::super::problem::quoted;
use super::super::suggest;

pub(super) fn unknown_key(key: &str, section: &'static Section) -> String {
    if key == "<<" {
        return "merge keys are not used here; repeat a whole value with an alias instead"
            .to_owned();
    }
    let hint = suggest::for_key(key, section);
    format!(
        "unknown key {} in this {}; {hint}",
        quoted(key),
        section.noun
    )
}

pub(super) fn not_a_map(section: &Section, value: &Value) -> String {
    let noun = section.noun;
    let example = section.keys.iter().find_map(|key| match key.need {
        Need::Required(example) => Some(example.to_owned()),
        Need::Default(text) => Some(format!("{}: {text}", key.name)),
        Need::Optional => None,
    });
    // One without needs and defaults begins with the key that is written most.
    let first = || section.keys.first().map(|key| format!("{}: …", key.name));
    let example = example.or_else(first).unwrap_or_default();
    let wrong = format!("this {noun} must be a map such as `{example}`");
    let Value::Text(text) = value else {
        return format!("{wrong}, not {}", value.describe());
    };
    // `interval:2s` is one text to YAML; the operator sees a key and a value.
    let run_on = text.split_once(':');
    if run_on.is_some_and(|(key, _)| section.find(key).is_some()) {
        return format!("a space is missing after the colon in {}", quoted(text));
    }
    format!("{wrong}, not the single value {}", quoted(text))
}

pub(super) fn not_a_list(name: &str, value: &Value) -> String {
    match value {
        Value::Text(text) => {
            let shown = quoted(text);
            let shown = shown.trim_matches('`');
            format!("`{name}` takes a list; write [{shown}]")
        }
        other => format!(
            "`{name}` takes a list, not {}; begin each entry with `- `",
            other.describe()
        ),
    }
}
