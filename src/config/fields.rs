//! Reads a map of the file against a section of the table, and keeps going when something is wrong.
//!
//! Every reader answers with a usable value. When the text was wrong it has reported the problem
//! and answers with the default or with nothing, so that the rest of the file is checked too; the
//! result is thrown away in the end if anything was reported. Rules about more than one key are not
//! known here.

use std::time::Duration;

use super::keys::{Key, Kind, Need, OFF, Section, Words};
use super::log::Share;
use super::node::{Entry, Node, Span, Value, Word};
use super::problem::{Report, quoted};
use super::suggest;
use super::units;
use super::wording::{not_a_list, not_a_map, unknown_key};

/// The keys of one map, ready to be asked for by name.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    section: &'static Section,
    entries: &'a [Entry],
    /// What a caret points at when a key is missing.
    head: Span,
    /// False when there was no map to read, and so nothing in it can be missing.
    whole: bool,
    report: &'a Report,
}

/// An item of a list whose items are maps or single values.
pub(super) enum Item<'a> {
    /// A single value.
    Text(Word<'a>),
    /// A map.
    Fields(Fields<'a>),
}

impl<'a> Fields<'a> {
    /// Opens a value as a section. Reports a value that is no map, and every unknown key.
    pub(super) fn open(
        section: &'static Section,
        node: &'a Node,
        head: Span,
        report: &'a Report,
    ) -> Self {
        let mut fields = Self {
            section,
            entries: &[],
            head,
            whole: true,
            report,
        };
        match &node.value {
            Value::Map(entries) => fields.entries = entries,
            // A section whose lines are all commented out.
            Value::Empty => {}
            Value::Text(_) | Value::List(_) => {
                report.error(node.span, not_a_map(section, &node.value));
                fields.whole = false;
            }
        }
        for entry in fields.entries {
            if section.find(&entry.key).is_none() {
                report.error(entry.key_span, unknown_key(&entry.key, section));
            }
        }
        fields
    }

    /// Where this key was written, if it was.
    pub(super) fn written(&self, name: &str) -> Option<Span> {
        self.entry(name).map(|entry| entry.key_span)
    }

    /// Where this key was written, or else the place of the section.
    pub(super) fn key_place(&self, name: &str) -> Span {
        self.written(name).unwrap_or(self.head)
    }

    /// Where the value of this key was written, or else the place of the section.
    pub(super) fn place_of(&self, name: &str) -> Span {
        self.entry(name).map_or(self.head, |entry| entry.value.span)
    }

    /// Reports that one of these keys must be written and none was.
    pub(super) fn missing_all(&self, names: &[&str], example: &str) {
        if self.whole && names.iter().all(|name| self.written(name).is_none()) {
            let noun = self.section.noun;
            let names: Vec<String> = names.iter().map(|name| format!("no `{name}`")).collect();
            let names = names.join(" and ");
            let message = format!("this {noun} has {names}; write for example `{example}`");
            self.report.error(self.head, message);
        }
    }

    /// A single value: as written, or the default. `None` when there is neither.
    pub(super) fn text(&self, name: &str) -> Option<Word<'a>> {
        let key = self.key(name);
        match self.entry(name) {
            Some(entry) => self.single(key, &entry.value),
            None => self.fallback(key),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.read(name, false, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{} is neither true nor false", quoted(text))),
        })
    }

    /// A whole number within the bounds of the table, which must fit the type asked for.
    pub(super) fn count<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        let Kind::Count(min, max) = self.key(name).kind else {
            return None;
        };
        let read = |text: &str| {
            let number: u64 = text
                .parse()
                .map_err(|_| format!("{} is not a whole number", quoted(text)))?;
            within(
                &number,
                (&min, &max),
                text,
                (&min.to_string(), &max.to_string()),
            )?;
            Ok(T::try_from(number).ok())
        };
        self.read(name, None, read)
    }

    /// A duration within the bounds of the table. Only for keys with a default.
    pub(super) fn duration(&self, name: &str) -> Duration {
        let key = self.key(name);
        self.read(name, Duration::ZERO, |text| duration_within(key, text))
    }

    /// A duration within the bounds of the table, or `None` for `off`.
    pub(super) fn duration_or_off(&self, name: &str) -> Option<Duration> {
        let key = self.key(name);
        self.read(name, None, |text| {
            if is_off(text) {
                return Ok(None);
            }
            duration_within(key, text)
                .map(Some)
                .map_err(|wrong| format!("{wrong}; or `off`"))
        })
    }

    /// Percent within the bounds of the table. Only for keys with a default.
    pub(super) fn percent(&self, name: &str) -> u8 {
        let Kind::Percent(min, max) = self.key(name).kind else {
            return 0;
        };
        self.read(name, 0, |text| {
            let value = units::percent(text)?;
            let bounds = (&*format!("{min}%"), &*format!("{max}%"));
            within(&value, (&min, &max), text, bounds)?;
            u8::try_from(value).map_err(|_| format!("{} is too large", quoted(text)))
        })
    }

    /// A part of all, above 0 and up to 1. Only for keys with a default.
    pub(super) fn share(&self, name: &str) -> Share {
        self.read(name, Share::ALL, units::share)
    }

    /// A size in bytes within the bounds of the table. Only for keys with a default.
    pub(super) fn size(&self, name: &str) -> usize {
        let Kind::Size(min, max) = self.key(name).kind else {
            return 0;
        };
        let read = |text: &str| {
            let bytes = units::size(text)?;
            within(
                &bytes,
                (&units::size(min)?, &units::size(max)?),
                text,
                (min, max),
            )?;
            usize::try_from(bytes).map_err(|_| format!("{} is too large", quoted(text)))
        };
        self.read(name, 0, read)
    }

    /// What a word stands for; `None` when it was not written and has no default, or is wrong.
    pub(super) fn choice<T: Copy, const N: usize>(
        &self,
        name: &str,
        words: &Words<T, N>,
    ) -> Option<T> {
        self.read(name, None, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            if let Some((_, meaning)) = found {
                return Ok(Some(*meaning));
            }
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let wrong = format!("`{name}` takes {}, not {}", all.join(" | "), quoted(text));
            Err(match suggest::nearest(text, all.into_iter()) {
                Some(word) => format!("{wrong}; did you mean `{word}`?"),
                None => wrong,
            })
        })
    }

    /// A list of single values; empty when it was not written.
    pub(super) fn texts(&self, name: &str) -> Vec<Word<'a>> {
        let key = self.key(name);
        let Kind::Texts(max) = key.kind else {
            return Vec::new();
        };
        let nodes = self.list(key, max);
        nodes.filter_map(|node| self.single(key, node)).collect()
    }

    /// Names of the operator's choice with a single value each; empty when it was not written.
    pub(super) fn pairs(&self, name: &str) -> Vec<(Word<'a>, Word<'a>)> {
        let key = self.key(name);
        let (Kind::Pairs(max), Some(entry)) = (&key.kind, self.entry(name)) else {
            return Vec::new();
        };
        let Value::Map(entries) = &entry.value.value else {
            let got = entry.value.value.describe();
            let message = format!("`{name}` takes a map of names to values, not {got}");
            self.report.error(entry.value.span, message);
            return Vec::new();
        };
        self.check_length(key, entries.len(), *max);
        let pair = |entry: &'a Entry| {
            let (text, span) = (entry.key.as_str(), entry.key_span);
            Some((Word { text, span }, self.single(key, &entry.value)?))
        };
        entries.iter().take(*max).filter_map(pair).collect()
    }

    /// The section under a key. One that was not written has all its defaults.
    pub(super) fn section(&self, name: &str) -> Self {
        let key = self.key(name);
        let section = key.kind.section().unwrap_or(self.section);
        let Some(entry) = self.entry(name) else {
            return Fields {
                section,
                entries: &[],
                whole: false,
                ..*self
            };
        };
        Fields::open(section, &entry.value, entry.key_span, self.report)
    }

    /// The section under a key that may also be `off`; `None` then.
    pub(super) fn section_or_off(&self, name: &str) -> Option<Self> {
        match self.entry(name).map(|entry| &entry.value.value) {
            Some(Value::Text(text)) if is_off(text) => None,
            Some(_) | None => Some(self.section(name)),
        }
    }

    /// What stands under a key that takes a section or a single value. Unwritten it is a section that has
    /// all its defaults.
    pub(super) fn text_or_section(&self, name: &str) -> Item<'a> {
        match self.entry(name).map(|entry| &entry.value) {
            Some(Node {
                value: Value::Text(text),
                span,
            }) => Item::Text(Word { text, span: *span }),
            Some(_) | None => Item::Fields(self.section(name)),
        }
    }

    /// The items of a list of sections; those of the wrong type are reported and left out.
    pub(super) fn items(&self, name: &str) -> Vec<Item<'a>> {
        let key = self.key(name);
        let (section, max, text_allowed) = match key.kind {
            Kind::Sections(section, max) => (section, max, false),
            Kind::SectionsOrTexts(section, max) => (section, max, true),
            _ => return Vec::new(),
        };
        let item = |node: &'a Node| match &node.value {
            Value::Text(text) if text_allowed => {
                let span = node.span;
                Some(Item::Text(Word { text, span }))
            }
            Value::Map(_) => Some(Item::Fields(Fields::open(
                section,
                node,
                node.span,
                self.report,
            ))),
            wrong => {
                self.report.error(node.span, not_a_map(section, wrong));
                None
            }
        };
        self.list(key, max).filter_map(item).collect()
    }

    /// The sections of a map whose names the operator chose.
    pub(super) fn named(&self, name: &str) -> Vec<(Word<'a>, Self)> {
        let key = self.key(name);
        let Kind::Named(section, max) = key.kind else {
            return Vec::new();
        };
        let entries = match self.entry(name) {
            Some(entry) => match &entry.value.value {
                Value::Map(entries) => entries.as_slice(),
                Value::Empty => &[],
                wrong @ (Value::Text(_) | Value::List(_)) => {
                    let got = wrong.describe();
                    let message = format!("`{name}` takes a map from names to {name}, not {got}");
                    self.report.error(entry.value.span, message);
                    return Vec::new();
                }
            },
            None => {
                self.missing(key);
                return Vec::new();
            }
        };
        self.check_length(key, entries.len(), max);
        let open = |entry: &'a Entry| {
            let span = entry.key_span;
            let fields = Fields::open(section, &entry.value, span, self.report);
            let text = entry.key.as_str();
            (Word { text, span }, fields)
        };
        entries.iter().take(max).map(open).collect()
    }

    /// Reports a value that `check` found wrong.
    pub(super) fn error(&self, span: Span, message: impl Into<String>) {
        self.report.error(span, message);
    }

    /// Reports what is only odd.
    pub(super) fn warning(&self, span: Span, message: impl Into<String>) {
        self.report.warning(span, message);
    }

    /// Where the `nth` mark of a word stands in the file, with what follows it, so many bytes in all; the
    /// whole word if that cannot be told, because it was written with an escape or is a default.
    pub(super) fn nth_in(&self, word: Word<'_>, mark: char, nth: usize, length: usize) -> Span {
        let wanted = word.text.match_indices(mark).nth(nth);
        let wanted = wanted.and_then(|(at, _)| word.text.get(at..at + length));
        let raw = self.report.piece(word.span);
        let found = raw.match_indices(mark).nth(nth).map(|(at, _)| at);
        match found.zip(wanted) {
            Some((at, wanted)) if raw[at..].starts_with(wanted) => {
                let start = word.span.start + at;
                Span::new(start, start + length)
            }
            _ => word.span,
        }
    }

    /// Runs a parser of [`super::address`] on a word, and reports what it has to say.
    pub(super) fn parsed<T>(
        &self,
        word: Word<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(word.text)
            .map_err(|message| self.report.error(word.span, message))
            .ok()
    }

    fn key(&self, name: &str) -> &'static Key {
        self.section
            .find(name)
            .expect("the table has every key that is asked for")
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// The written text, or else the default, through a parser; `placeholder` after a problem.
    fn read<T>(
        &self,
        name: &str,
        placeholder: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.text(name)
            .and_then(|word| self.parsed(word, parse))
            .unwrap_or(placeholder)
    }

    /// A node that must be a single value.
    fn single(&self, key: &Key, node: &'a Node) -> Option<Word<'a>> {
        let span = node.span;
        let name = key.name;
        let message = match &node.value {
            Value::Text(text) => return Some(Word { text, span }),
            Value::Empty => format!("`{name}` has no value; write one or remove the key"),
            other => format!(
                "`{name}` takes a single value here, not {}",
                other.describe()
            ),
        };
        let span = if span.start == span.end {
            self.written(name).unwrap_or(span)
        } else {
            span
        };
        self.report.error(span, message);
        None
    }

    fn fallback(&self, key: &'static Key) -> Option<Word<'a>> {
        match key.need {
            Need::Default(text) => Some(Word {
                text,
                span: self.head,
            }),
            Need::Optional => None,
            Need::Required(_) => {
                self.missing(key);
                None
            }
        }
    }

    fn missing(&self, key: &Key) {
        if let (true, Need::Required(example)) = (self.whole, key.need) {
            let Section { noun, .. } = self.section;
            let message = format!(
                "this {noun} has no `{}`; write for example `{example}`",
                key.name
            );
            self.report.error(self.head, message);
        }
    }

    /// The nodes of a list under a key, at most `max` of them.
    fn list(&self, key: &'static Key, max: usize) -> impl Iterator<Item = &'a Node> + use<'a> {
        let mut nodes: &'a [Node] = &[];
        match self.entry(key.name) {
            None => self.missing(key),
            Some(entry) => match &entry.value.value {
                Value::List(items) => {
                    nodes = items;
                    self.check_length(key, nodes.len(), max);
                }
                Value::Empty => self.check_length(key, 0, max),
                wrong @ (Value::Text(_) | Value::Map(_)) => {
                    self.report
                        .error(entry.value.span, not_a_list(key.name, wrong));
                }
            },
        }
        nodes.iter().take(max)
    }

    fn check_length(&self, key: &Key, length: usize, max: usize) {
        let name = key.name;
        let span = self.key_place(name);
        if length == 0 {
            let message = format!("`{name}` is empty; it needs at least one entry");
            self.report.error(span, message);
        } else if length > max {
            let message = format!("`{name}` has {length} entries; at most {max} are allowed");
            self.report.error(span, message);
        }
    }
}

/// Does this word mean "not at all"?
pub(super) fn is_off(text: &str) -> bool {
    OFF.iter().any(|off| text.eq_ignore_ascii_case(off))
}

fn duration_within(key: &Key, text: &str) -> Result<Duration, String> {
    let (Kind::Duration(min, max) | Kind::DurationOrOff(min, max)) = key.kind else {
        return units::duration(text);
    };
    let value = units::duration(text)?;
    let bounds = (units::duration(min)?, units::duration(max)?);
    within(&value, (&bounds.0, &bounds.1), text, (min, max))?;
    Ok(value)
}

fn within<T: PartialOrd>(
    value: &T,
    (min, max): (&T, &T),
    written: &str,
    (min_text, max_text): (&str, &str),
) -> Result<(), String> {
    let shown = quoted(written);
    if value < min {
        return Err(format!("{shown} is too small; the least is {min_text}"));
    }
    if value > max {
        return Err(format!("{shown} is too large; the most is {max_text}"));
    }
    Ok(())
}
