//! The reference of the configuration is made from the JSON Schema, which is made from the table of
//! keys: so it has every key, and says what the check holds.

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::root;

const HEAD: &str = "\
# Configuration

Every key of the configuration file, printed from its JSON Schema by `make reference`;
[conf/full.yaml](../conf/full.yaml) shows the same keys in a file, with their defaults.

- `tidegate -t -c FILE` checks a file: every problem at once, with line, column and caret.
- `tidegate --print-schema` prints the schema. With `# yaml-language-server: $schema=PATH` in the first line
  of a file an editor completes keys and marks slips.
- Unknown keys, doubled keys and values out of bounds are refused, and nothing of such a file is used.
- A key without a default is off, or does what its meaning says of it, unless it is set.
- `${env:NAME}` in a value is a [variable of the environment](operations.md#the-environment-in-the-configuration);
  `listeners`, `routes` and `pools` may stand in [further files](operations.md#several-files).

| type | written as |
|---|---|
| duration | a whole number and a unit: `250ms`, `10s`, `5m`, `1h`, `1d`. A bare number is refused |
| size | likewise: `512B`, `64KiB`, `4MiB`, `1GiB`, or decimal `KB`, `MB`, `GB` |
| rate | a number in a second, minute or hour: `50/s`, `10/m`, `100/h` |
| percent | `20%` |
| text | any single value; in quotes where YAML would read it otherwise, as `\"[::]:8080\"` |
| off | `off`, `false` and `no` are the same |

`NAME` stands for a name of your own, `[]` for each item of a list.
";

/// The order of the sections of the file; their keys are in the order of the alphabet.
const ORDER: &[&str] = &[
    "listeners",
    "routes",
    "pools",
    "sessions",
    "streams",
    "limits",
    "admin",
    "log",
    "tracing",
];

#[test]
fn the_reference_says_what_the_schema_does() {
    let path = root().join("docs/configuration.md");
    let page = page();
    if env::var_os("TIDEGATE_WRITE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "write docs/configuration.md anew: make reference"
    );
}

fn page() -> String {
    let mut schema: Value = serde_json::from_str(&tidegate::config::schema()).unwrap();
    leave_out_variables(&mut schema);
    let mut page = Page {
        text: HEAD.to_owned(),
        seen: HashMap::new(),
    };
    page.text.push_str("\n## The file\n\n");
    page.table("", &schema);
    let properties = schema["properties"].as_object().unwrap();
    for name in properties.keys() {
        let is_section = section(&properties[name]).is_some();
        assert!(
            !is_section || ORDER.contains(&name.as_str()),
            "{name} has no place in the order of the sections"
        );
    }
    for name in ORDER {
        page.section("", name, &properties[*name]);
    }
    page.text
}

/// That a value may be a variable of the environment is said once for all.
fn leave_out_variables(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(leave_out_variables);
            let Some(Value::Array(alternatives)) = keys.get_mut("anyOf") else {
                return;
            };
            alternatives.retain(|one| one["$ref"] != "#/$defs/variable");
            if let [Value::Object(only)] = alternatives.as_mut_slice() {
                let only = std::mem::take(only);
                keys.remove("anyOf");
                keys.extend(only);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_variables),
        _ => {}
    }
}

struct Page {
    text: String,
    /// Where a section was first written down, by its schema: some stand in several places.
    seen: HashMap<String, String>,
}

impl Page {
    /// A key that holds a section, and the sections below it.
    fn section(&mut self, above: &str, name: &str, key: &Value) {
        let Some((below, suffix)) = section(key) else {
            return;
        };
        let path = joined(above, name) + suffix;
        let level = if above.is_empty() { "##" } else { "###" };
        let about = below["description"].as_str().unwrap();
        write!(self.text, "\n{level} `{path}`\n\n{about}").unwrap();
        if let Some(first) = self.seen.get(&below["properties"].to_string()) {
            let anchor = anchor(first);
            writeln!(self.text, " The keys are those of [`{first}`](#{anchor}).").unwrap();
            return;
        }
        self.seen
            .insert(below["properties"].to_string(), path.clone());
        self.text.push_str("\n\n");
        self.table(&path, below);
        for (name, key) in below["properties"].as_object().unwrap() {
            self.section(&path, name, key);
        }
    }

    /// The keys of a section, those that must be there first.
    fn table(&mut self, path: &str, section: &Value) {
        self.text
            .push_str("| key | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
        let required = |name: &str| {
            let names = section["required"].as_array();
            names.is_some_and(|names| names.iter().any(|key| key == name))
        };
        let properties = section["properties"].as_object().unwrap();
        let (first, rest): (Vec<_>, Vec<_>) =
            properties.iter().partition(|(name, _)| required(name));
        for (name, key) in first.into_iter().chain(rest) {
            let (bounds, meaning) = bounds(key);
            let default = match required(name) {
                true => "required".to_owned(),
                false => default(key),
            };
            let row = [
                format!("`{}`", joined(path, name)),
                kind(path, name, key),
                default,
                bounds,
                meaning,
            ];
            let cells = row.map(|cell| cell.replace('|', "\\|"));
            writeln!(self.text, "| {} |", cells.join(" | ")).unwrap();
        }
    }
}

fn joined(above: &str, name: &str) -> String {
    match above {
        "" => name.to_owned(),
        above => format!("{above}.{name}"),
    }
}

/// The link to a heading that is a path in backquotes.
fn anchor(path: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    path.to_lowercase().chars().filter(kept).collect()
}

/// The section that a key holds, and what stands behind the key's name in the path to it.
fn section(key: &Value) -> Option<(&Value, &'static str)> {
    let of = |value: &'static str| move |key| (key, value);
    match key["type"].as_str() {
        Some("array") => first_section(&key["items"]).map(of("[]")),
        Some("object") if !key["properties"].is_object() => {
            first_section(&key["additionalProperties"]).map(of(".NAME"))
        }
        _ => first_section(key).map(of("")),
    }
}

/// The value itself if it is a section, or the first of its alternatives that is one.
fn first_section(value: &Value) -> Option<&Value> {
    if value["properties"].is_object() {
        return Some(value);
    }
    let alternatives = value["anyOf"].as_array()?;
    alternatives
        .iter()
        .find(|value| value["properties"].is_object())
}

/// What may be written, in a word or two, with a link to the section if it is one.
fn kind(above: &str, name: &str, key: &Value) -> String {
    let below = section(key).map(|(_, suffix)| joined(above, name) + suffix);
    let linked = |word: &str| match &below {
        Some(path) => format!("[{word}](#{})", anchor(path)),
        None => word.to_owned(),
    };
    match key["type"].as_str() {
        Some("array") if below.is_none() => "list of texts".to_owned(),
        Some("array") if key["items"]["anyOf"].is_array() => linked("list") + " of texts or maps",
        Some("array") => linked("list"),
        Some("object") if key["properties"].is_object() => linked("section"),
        Some("object") if below.is_some() => linked("map") + " by name",
        Some("object") => "map of texts".to_owned(),
        _ => match key["anyOf"].as_array() {
            None => word(key),
            Some(alternatives) => {
                let words: Vec<String> = alternatives
                    .iter()
                    .map(|one| match one["properties"].is_object() {
                        true => linked("section"),
                        false => word(one),
                    })
                    .collect();
                words.join(" or ")
            }
        },
    }
}

/// The same for what is a single value.
fn word(key: &Value) -> String {
    if let Some(words) = key["enum"].as_array() {
        // `off` may be written in more than one way.
        if words.iter().any(|word| word == &Value::Bool(false)) {
            return "off".to_owned();
        }
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(code).collect();
        return words.join(", ");
    }
    let pattern = key["pattern"].as_str().unwrap_or_default();
    let name = match &key["type"] {
        Value::String(one) => match one.as_str() {
            "integer" => "whole number",
            "number" => "number",
            "boolean" => "`true`, `false`",
            _ if pattern.contains("ms") => "duration",
            _ if pattern.contains("KiB") => "size",
            _ if pattern.contains('%') => "percent",
            _ if pattern.contains("smh") => "rate",
            _ => "text",
        },
        Value::Array(several) if several.iter().any(|one| one == "number") => "text",
        _ => "text or off",
    };
    name.to_owned()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn default(key: &Value) -> String {
    match &key["default"] {
        Value::Null => "-".to_owned(),
        Value::String(text) => code(text),
        other => code(other.to_string().trim_end_matches(".0")),
    }
}

/// The bounds of a value, and its meaning without them.
fn bounds(key: &Value) -> (String, String) {
    let about = key["description"].as_str().unwrap().to_owned();
    let between = |least: &str, most: &str| match (&key[least], &key[most]) {
        (Value::Number(least), Value::Number(most)) => Some(format!("{least} to {most}")),
        _ => None,
    };
    let counted = between("minimum", "maximum")
        .or_else(|| between("exclusiveMinimum", "maximum").map(|range| format!("above {range}")));
    let held = || {
        between("minItems", "maxItems")
            .or_else(|| between("minProperties", "maxProperties"))
            .map(|range| format!("{range} of them"))
    };
    if let Some(bounds) = counted.or_else(held) {
        return (bounds, about);
    }
    // Those of durations, sizes and shares are in the text, for JSON Schema has no word for them.
    let is_unit = key["pattern"].is_string() || key["anyOf"][0]["pattern"].is_string();
    match about.rsplit_once(" From ") {
        Some((meaning, range)) if is_unit && range.contains(" to ") => {
            let range = range.trim_end_matches('.').trim_end_matches(", or off");
            (range.to_owned(), meaning.to_owned())
        }
        _ => ("-".to_owned(), about),
    }
}
