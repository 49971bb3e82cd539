//! From the bytes of a file to a tree that remembers where everything stands.
//!
//! This is the only file that names the YAML library. It takes the library's events, not its typed
//! decoding: that stops at the first wrong value, and we want to show all of them. YAML is read
//! strictly: one document, text keys, each key once, no tags. Anchors and aliases work within the
//! bounds below, so that a small file cannot unfold into a huge one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Parser, ScalarStyle, ScanError, Span as Mark, StrInput, StructureStyle,
    options,
};

use super::node::{Entry, Node, Span, Value};
use super::problem::{Problem, Report, Severity, floor_boundary, quoted};

/// Longest file that is read. Ten thousand endpoints need a quarter of it.
const FILE_BYTES_MAX: usize = 4 << 20;

/// The byte order mark, which says nothing in UTF-8.
pub(super) const MARK: char = '\u{feff}';

/// Most values of a configuration, with every alias unfolded.
const NODES_MAX: usize = 500_000;

/// How deep lists and maps may lie in one another, with every alias unfolded. We need seven.
const DEPTH_MAX: usize = 32;

/// Reads a file as text, without the mark that some editors put before it.
///
/// # Errors
/// It cannot be opened, is too long, or is not UTF-8.
pub(super) fn read(path: &Path, name: &str) -> Result<String, Problem> {
    let whole = |message: String| Problem::with_file(name, message);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| whole(format!("this file cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(whole("this file is longer than 4MiB".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let message = "this file is not UTF-8 text; save it as UTF-8".to_owned();
        let span = Span::new(at, at + 1);
        Problem::at(name, &text, span, Severity::Error, message)
    })?;
    Ok(match text.strip_prefix(MARK) {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Parses a text that begins there among the texts of the report. What is wrong goes into the report;
/// `None` means that no tree could be made.
pub(super) fn tree(text: &str, base: usize, room: &mut Room, report: &Report) -> Option<Node> {
    let limits = options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder {
        text,
        parser: Parser::new_from_str_with_options(text, limits),
        report,
        anchors: HashMap::new(),
        open: Vec::new(),
        nodes_left: room.nodes_left,
        last: Span::default(),
        base,
    };
    let root = builder.document();
    room.nodes_left = builder.nodes_left;
    let mut root = root?;
    root.move_by(base);
    Some(root)
}

/// How much may still be read, over all files of a configuration.
#[derive(Debug)]
pub(super) struct Room {
    nodes_left: usize,
}

impl Room {
    /// All of it.
    pub(super) fn new() -> Self {
        Self {
            nodes_left: NODES_MAX,
        }
    }
}

/// Makes nodes from events, depth first.
struct Builder<'a, 'r> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    report: &'r Report,
    /// Finished nodes that an alias may repeat, by the parser's number for the anchor.
    anchors: HashMap<usize, Node>,
    /// Where the brackets that are not closed yet were opened.
    open: Vec<Span>,
    /// How many more nodes may be made; see [`NODES_MAX`].
    nodes_left: usize,
    /// The last event, to tell where a syntax error really began.
    last: Span,
    /// Where the text begins among the texts of the report. Places are of this text alone until the tree
    /// is done.
    base: usize,
}

impl<'a> Builder<'a, '_> {
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "a second YAML document begins here; one file holds one";
                    self.error(span, message);
                    return None;
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                other => root = Some(self.node(other, span, 0)?),
            }
        }
        let nothing = Node {
            span: Span::default(),
            value: Value::Empty,
        };
        Some(root.unwrap_or(nothing))
    }

    fn error(&self, span: Span, message: impl Into<String>) {
        self.report.error(span.moved(self.base), message);
    }

    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        match self.parser.next_event()? {
            Ok((event, mark)) => {
                let span = span_of(&mark);
                if let (Some(_), Some(start)) = (event.tag(), mark.tag_start()) {
                    let at = start.byte_offset().unwrap_or(span.start);
                    let rest = self.text.get(at..).unwrap_or("");
                    let tag = rest.split_whitespace().next().unwrap_or("");
                    let message = "YAML tags are not used here; remove this one";
                    self.error(Span::new(at, at + tag.len()), message);
                }
                self.last = span;
                Some((event, span))
            }
            Err(error) => {
                let (span, message) = self.explain(&error);
                self.error(span, message);
                None
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Node> {
        self.spend(1, depth, span)?;
        let anchor = event.anchor_id();
        let node = match event {
            Event::Scalar(text, style, ..) => Node {
                span,
                value: scalar(&text, style),
            },
            Event::SequenceStart(style, ..) => self.list(span, style, depth)?,
            Event::MappingStart(style, ..) => self.map(span, style, depth)?,
            Event::Alias(id) => self.alias(id, span, depth)?,
            _ => return None,
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, node.clone());
        }
        Some(node)
    }

    fn list(&mut self, start: Span, style: StructureStyle, depth: usize) -> Option<Node> {
        self.enter(start, style);
        let mut items = Vec::new();
        let end = loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break span;
            }
            items.push(self.node(event, span, depth + 1)?);
        };
        self.leave(style);
        let first = items.first().map(|item| item.span);
        Some(Node {
            span: collection_span(style, start, end, first),
            value: Value::List(items),
        })
    }

    fn map(&mut self, start: Span, style: StructureStyle, depth: usize) -> Option<Node> {
        self.enter(start, style);
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut first = None;
        let end = loop {
            let (event, key_span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break key_span;
            }
            first = first.or(Some(key_span));
            let key = self.key(event, key_span, depth)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let Some(key) = key else { continue };
            if let Some(earlier) = seen.get(&key) {
                let line = self.report.line(earlier.moved(self.base));
                let shown = quoted(&key);
                let message = format!("the key {shown} is here twice; the first is on line {line}");
                self.error(key_span, message);
                continue;
            }
            seen.insert(key.clone(), key_span);
            entries.push(Entry {
                key,
                key_span,
                value,
            });
        };
        self.leave(style);
        Some(Node {
            span: collection_span(style, start, end, first),
            value: Value::Map(entries),
        })
    }

    /// The text of a key. The outer `None` ends the parse, the inner one skips the entry.
    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Option<String>> {
        if let Event::Scalar(text, ..) = event {
            return Some(Some(text.into_owned()));
        }
        let node = self.node(event, span, depth + 1)?;
        let what = node.value.describe();
        let message = match node.value {
            Value::Text(text) => return Some(Some(text)),
            Value::List(_) => {
                "a key must be a single word, not a list; an IPv6 address stands in quotes, as in \
                 \"[::1]:8080\""
                    .to_owned()
            }
            Value::Empty | Value::Map(_) => format!("a key must be a single word, not {what}"),
        };
        self.error(node.span, message);
        Some(None)
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Option<Node> {
        let Some(node) = self.anchors.get(&id) else {
            let message = "this alias stands inside of what it repeats";
            self.error(span, message);
            return None;
        };
        let (nodes, height) = extent(node);
        let node = node.clone();
        self.spend(nodes, depth + height, span)?;
        Some(node)
    }

    /// Takes so many nodes from what is left. `None`, with a report, when a bound is passed.
    fn spend(&mut self, nodes: usize, depth: usize, span: Span) -> Option<()> {
        if depth > DEPTH_MAX {
            let message = format!("lists and maps lie more than {DEPTH_MAX} deep here");
            self.error(span, message);
            return None;
        }
        let left = self.nodes_left.checked_sub(nodes);
        if left.is_none() {
            let message = format!("the configuration holds more than {NODES_MAX} values");
            self.error(span, message);
        }
        self.nodes_left = left?;
        Some(())
    }

    fn enter(&mut self, start: Span, style: StructureStyle) {
        if style == StructureStyle::Flow {
            self.open.push(start);
        }
    }

    fn leave(&mut self, style: StructureStyle) {
        if style == StructureStyle::Flow {
            self.open.pop();
        }
    }

    /// The place and the words for a syntax error. The parser says where it lost the thread; an
    /// operator wants to know where he let go of it, which for the commonest slips can be told.
    fn explain(&self, error: &ScanError) -> (Span, String) {
        let at = error.marker().byte_offset().unwrap_or(self.last.end);
        let at = floor_boundary(self.text, at);
        let line_start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or("");
        let (span, reason) = self
            .explain_text(error.kind(), at, line_start, line)
            .unwrap_or_else(|| self.explain_structure(error.kind(), at, line));
        (span, format!("this is not YAML: {reason}"))
    }

    /// Slips within one text: tabs, quotes, and characters that mean something to YAML.
    fn explain_text(
        &self,
        kind: &ErrorKind,
        at: usize,
        line_start: usize,
        line: &str,
    ) -> Option<(Span, String)> {
        let find = |c: char| line_start + line.find(c).unwrap_or(at - line_start);
        let (span, reason) = match kind {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation => {
                let tab = find('\t');
                let reason = "lines are indented with spaces, never with tabs".to_owned();
                (Span::new(tab, tab + 1), reason)
            }
            ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar => {
                let reason = "this quote is not closed".to_owned();
                (self.quote_before(at), reason)
            }
            ErrorKind::UnknownQuotedScalarEscape => {
                let reason =
                    "a backslash between double quotes begins an escape; use single quotes";
                (self.quote_before(self.text.len()), reason.to_owned())
            }
            ErrorKind::UnknownAnchor | ErrorKind::MissingAnchorOrAliasName => {
                let star = find('*');
                let word = self.text[star..].split_whitespace().next().unwrap_or("*");
                let shown = quoted(word);
                let shown = shown.trim_matches('`');
                let reason = format!("a text that begins with `*` stands in quotes: \"{shown}\"");
                (Span::new(star, star + word.len()), reason)
            }
            ErrorKind::UnexpectedCharacter { character } => {
                let shown = quoted(&character.to_string());
                let reason = format!("a text that begins with {shown} stands in quotes");
                (Span::new(at, at + 1), reason)
            }
            _ => return None,
        };
        Some((span, reason))
    }

    /// Slips between texts: colons, brackets, indentation.
    fn explain_structure(&self, kind: &ErrorKind, at: usize, line: &str) -> (Span, String) {
        let here = Span::new(at, at + 1);
        let two_lines = self.text[self.last.start.min(at)..at].contains('\n');
        let reason = match kind {
            ErrorKind::RecursionLimitExceeded => {
                format!("lists and maps lie more than {DEPTH_MAX} deep here")
            }
            _ if line.contains("${") && !self.open.is_empty() => {
                "a text that holds `${…}` stands in quotes between brackets".to_owned()
            }
            _ if has_bare_ipv6(line) => {
                "an IPv6 address stands in quotes, as in \"[::1]:8080\"".to_owned()
            }
            ErrorKind::MappingValueNotAllowed if two_lines => return self.run_on_line(),
            ErrorKind::MappingValueNotAllowed => {
                "this is a second `: ` on one line; put a text that holds one in quotes".to_owned()
            }
            _ if !self.open.is_empty() => {
                // A pair inside of a list is a map without a bracket of its own.
                let bracket = self.open.iter().rfind(|open| open.start < open.end);
                let reason = "this bracket is not closed";
                return (*bracket.unwrap_or(&here), reason.to_owned());
            }
            ErrorKind::MisplacedFlowCollectionEnd => "this bracket closes nothing".to_owned(),
            ErrorKind::ExpectedBlockMappingKey
            | ErrorKind::ExpectedBlockSequenceEntry
            | ErrorKind::InvalidIndentation
            | ErrorKind::BlockSequenceEntryNotAllowed => {
                "this line is indented differently from its neighbours, or has a `- ` that they \
                 do not have"
                    .to_owned()
            }
            ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
                "a key ends with a colon and a space".to_owned()
            }
            other => other.to_string(),
        };
        (here, reason)
    }

    /// Text that was meant as one line each was read as one text over two lines: the colon or the
    /// space after it is missing in the first, or the second is indented too deep.
    fn run_on_line(&self) -> (Span, String) {
        let start = self.last.start;
        let before = self.text[..start].rsplit('\n').next().unwrap_or("");
        let first = self.text[start..].lines().next().unwrap_or("");
        let whole = Span::new(start, start + first.len());
        let is_key = before.chars().all(|c| c == ' ' || c == '-');
        if is_key && let Some(colon) = first.find(':') {
            let at = start + colon;
            let reason = "a space is missing after this colon";
            return (Span::new(at, at + 1), reason.to_owned());
        }
        if is_key {
            return (whole, "this line has no `: `".to_owned());
        }
        let second = start + first.len() + 1;
        let line = self.text.get(second..).unwrap_or("").lines().next();
        let line = line.unwrap_or("");
        let indent = line.len() - line.trim_start().len();
        let span = Span::new(second + indent, second + line.len());
        let reason = "this line is indented deeper than the key above it";
        (span, reason.to_owned())
    }

    /// The first quote after the last event that went well: the one a broken text began with.
    fn quote_before(&self, at: usize) -> Span {
        let from = self.last.end.min(at);
        let quote = self.text[from..at].find(['"', '\'']);
        let start = quote.map_or(from, |offset| from + offset);
        Span::new(start, start + 1)
    }
}

/// The value of a scalar. Only a plain one can be null: `"~"` is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    let null = matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if style == ScalarStyle::Plain && null {
        Value::Empty
    } else {
        Value::Text(text.to_owned())
    }
}

/// Is there an IPv6 address in brackets, with a port, and without quotes? To YAML it is a list.
fn has_bare_ipv6(line: &str) -> bool {
    let Some((before, _)) = line.split_once("]:") else {
        return false;
    };
    let Some((before, address)) = before.rsplit_once('[') else {
        return false;
    };
    address.contains(':') && !before.ends_with(['"', '\''])
}

/// What a caret points at for a list or map; see [`Node::span`].
fn collection_span(style: StructureStyle, start: Span, end: Span, first: Option<Span>) -> Span {
    match style {
        StructureStyle::Flow => Span::new(start.start, end.end),
        StructureStyle::Block => first.unwrap_or(start),
    }
}

/// How many nodes a tree has, and how deep they lie.
fn extent(node: &Node) -> (usize, usize) {
    let below: Vec<(usize, usize)> = match &node.value {
        Value::Empty | Value::Text(_) => return (1, 0),
        Value::List(items) => items.iter().map(extent).collect(),
        Value::Map(entries) => entries.iter().map(|entry| extent(&entry.value)).collect(),
    };
    let nodes = below.iter().map(|(nodes, _)| nodes).sum::<usize>();
    let height = below.iter().map(|(_, height)| *height).max();
    (nodes + 1, height.unwrap_or(0) + 1)
}

fn span_of(mark: &Mark) -> Span {
    let range = mark.byte_range().unwrap_or_default();
    Span::new(range.start, range.end)
}
