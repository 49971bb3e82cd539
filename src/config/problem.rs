//! What is wrong with a configuration, said so that the operator can mend it: the sentence, the
//! place, the line itself and a caret under the offending text.
//!
//! Everything wrong is collected and shown at once; nobody should have to start a server five times
//! to find five typing errors. Text from the file is shown without control characters, because a
//! configuration may be generated and a terminal obeys what it is shown.

use std::cell::RefCell;
use std::fmt;

use super::node::Span;
use super::sources::Sources;

/// Most problems that one check reports. A file with more is of the wrong kind altogether.
const PROBLEMS_MAX: usize = 100;

/// Most columns of a source line that are shown. Longer lines are cropped around the caret.
const SNIPPET_COLUMNS_MAX: usize = 100;

/// What is shown in the place of what is nobody's business.
pub(super) const HIDDEN: &str = "(hidden)";

/// What is said of a value that is wrong and must not be repeated, not even in parts.
const SECRET: &str =
    "this value is not right; why is not told, for by the name of its variable it is a secret";

/// Does a problem keep the configuration from being used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One thing that is wrong, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Is it wrong or only odd?
    pub severity: Severity,
    /// What is wrong and what to write instead; one line.
    pub message: String,
    /// The file, as it was named to [`super::load()`] or [`super::parse`].
    pub file: String,
    /// Line, from 1; 0 when the problem has no place, as with a file that cannot be read.
    pub line: usize,
    /// Column in characters, from 1; 0 when the problem has no place.
    pub column: usize,
    /// The line as shown: cropped, without tabs and control characters.
    pub source: String,
    /// Where the carets begin under [`Self::source`] and how many there are, in terminal columns.
    pub caret: (usize, usize),
}

impl Problem {
    /// A problem with the file as a whole.
    pub(super) fn with_file(file: &str, message: String) -> Self {
        Self {
            severity: Severity::Error,
            message,
            file: file.to_owned(),
            line: 0,
            column: 0,
            source: String::new(),
            caret: (0, 0),
        }
    }

    /// A problem with one piece of the text.
    pub(super) fn at(
        file: &str,
        text: &str,
        span: Span,
        severity: Severity,
        message: String,
    ) -> Self {
        let place = Place::find(text, span);
        let (source, caret) = snippet(place.line_text, place.chars);
        Self {
            severity,
            message,
            file: file.to_owned(),
            line: place.line,
            column: place.chars.0 + 1,
            source,
            caret,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        if self.line == 0 {
            return writeln!(f, "  --> {}", self.file);
        }
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let (start, width) = self.caret;
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source)?;
        writeln!(f, "{margin} | {}{}", " ".repeat(start), "^".repeat(width))
    }
}

/// Everything that is wrong with one configuration, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, in the order of the file.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    /// Every problem with its snippet, and a last line that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut files: Vec<&str> = Vec::new();
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
            if !files.contains(&problem.file.as_str()) {
                files.push(&problem.file);
            }
        }
        let place = match files.as_slice() {
            [file] => (*file).to_owned(),
            files => format!("{} files", files.len()),
        };
        match self.0.len() {
            1 => write!(f, "1 problem in {place}; nothing was started"),
            count if count >= PROBLEMS_MAX => {
                write!(
                    f,
                    "{count} or more problems in {place}; nothing was started"
                )
            }
            count => write!(f, "{count} problems in {place}; nothing was started"),
        }
    }
}

impl std::error::Error for Problems {}

/// Where problems are gathered while a file, and those that it includes, are checked.
///
/// The lists are behind a `RefCell` so that several readers of the same document can hold the
/// report at once; no borrow outlives a call of this type. Each list is bounded by
/// [`PROBLEMS_MAX`]; what comes later is dropped.
#[derive(Default)]
pub(super) struct Report {
    sources: RefCell<Sources>,
    errors: RefCell<Vec<Placed>>,
    warnings: RefCell<Vec<Placed>>,
    /// Values that hold what is not to be shown.
    concealed: RefCell<Vec<Span>>,
    /// Values of which enough is said.
    spoiled: RefCell<Vec<Span>>,
}

/// A problem, and where it stands among all texts.
type Placed = (usize, Problem);

impl Report {
    /// Takes in a text. By what it returns, spans of that text are to be moved.
    pub(super) fn add_source(&self, file: impl Into<String>, text: impl Into<String>) -> usize {
        self.sources.borrow_mut().add(file.into(), text.into())
    }

    /// Records a problem that is made already, in the order of the place that led to it.
    pub(super) fn add_problem(&self, at: Span, problem: Problem) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < PROBLEMS_MAX {
            errors.push((at.start, problem));
        }
    }

    /// Records what keeps the file from being used.
    pub(super) fn error(&self, span: Span, message: impl Into<String>) {
        self.add(&self.errors, span, Severity::Error, message.into());
    }

    /// Records what is only odd.
    pub(super) fn warning(&self, span: Span, message: impl Into<String>) {
        self.add(&self.warnings, span, Severity::Warning, message.into());
    }

    /// Has nothing more be said of this value, which is not what it was meant to be.
    pub(super) fn spoil(&self, value: Span) {
        self.spoiled.borrow_mut().push(value);
    }

    /// Has it not be told what is wrong with this value, since that would repeat it.
    pub(super) fn conceal(&self, value: Span) {
        self.concealed.borrow_mut().push(value);
    }

    /// The values that are not to be shown.
    pub(super) fn concealed(&self) -> Vec<Span> {
        self.concealed.borrow().clone()
    }

    /// What stands in this span of the file.
    pub(super) fn piece(&self, span: Span) -> String {
        let sources = self.sources.borrow();
        let piece = sources.find(span).and_then(|(source, within)| {
            let text = source.text.get(within.start..within.end);
            text.map(str::to_owned)
        });
        piece.unwrap_or_default()
    }

    /// The number of the line on which this span begins, for use in an error, and the file as well where
    /// there are several. Counting lines takes time, so a report that is full, and has no use for the
    /// error, does not.
    pub(super) fn line(&self, span: Span) -> String {
        if self.errors.borrow().len() >= PROBLEMS_MAX {
            return String::new();
        }
        let sources = self.sources.borrow();
        let Some((source, within)) = sources.find(span) else {
            return String::new();
        };
        let line = Place::find(&source.text, within).line;
        match sources.are_several() {
            true => format!("{line} of {}", source.file),
            false => line.to_string(),
        }
    }

    /// The warnings, if nothing is wrong; otherwise what is wrong, without the warnings, which
    /// often only echo an error.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Problems> {
        let alone = |placed: Vec<Placed>| placed.into_iter().map(|(_, problem)| problem).collect();
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return Ok(alone(self.warnings.into_inner()));
        }
        errors.sort_by_key(|(at, _)| *at);
        Err(Problems(alone(errors)))
    }

    fn add(&self, list: &RefCell<Vec<Placed>>, span: Span, severity: Severity, message: String) {
        let mut list = list.borrow_mut();
        if list.len() >= PROBLEMS_MAX {
            return;
        }
        let holds = |value: &Span| value.start <= span.start && span.end <= value.end;
        if self.spoiled.borrow().iter().any(holds) {
            return;
        }
        let message = match self.concealed.borrow().iter().any(holds) {
            true => SECRET.to_owned(),
            false => message,
        };
        if let Some((source, within)) = self.sources.borrow().find(span) {
            let problem = Problem::at(&source.file, &source.text, within, severity, message);
            list.push((span.start, problem));
        }
    }
}

/// Text from the file, fit to stand in a message: between backquotes, cropped, one line.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).map(visible).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// A span seen as a line and a range of its characters.
struct Place<'a> {
    line: usize,
    line_text: &'a str,
    /// First character and one past the last, counted from 0 within the line.
    chars: (usize, usize),
}

impl<'a> Place<'a> {
    fn find(text: &'a str, span: Span) -> Self {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[line_start..];
        let line_text = rest.split('\n').next().unwrap_or(rest);
        let line_text = line_text.strip_suffix('\r').unwrap_or(line_text);
        let line_end = line_start + line_text.len();
        let end = floor_boundary(text, span.end).clamp(start.min(line_end), line_end);
        let first = before[line_start..].chars().count();
        let length = text
            .get(start..end)
            .map_or(0, |piece| piece.chars().count());
        Self {
            line: before.matches('\n').count() + 1,
            line_text,
            chars: (first, first + length.max(1)),
        }
    }
}

/// The nearest character boundary at or before `at`.
pub(super) fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The line as shown, and start and width of the carets under it in terminal columns.
fn snippet(line: &str, (first, last): (usize, usize)) -> (String, (usize, usize)) {
    let mut shown = String::new();
    let long = line.chars().nth(SNIPPET_COLUMNS_MAX).is_some();
    let from = if long {
        first.saturating_sub(SNIPPET_COLUMNS_MAX / 2)
    } else {
        0
    };
    if from > 0 {
        shown.push('…');
    }
    let mut column = usize::from(from > 0);
    let (mut start, mut end) = (None, column);
    for (at, character) in line.chars().enumerate().skip(from) {
        if column >= SNIPPET_COLUMNS_MAX {
            shown.push('…');
            break;
        }
        if at == first {
            start = Some(column);
        }
        match character {
            '\t' => shown.push_str("    "),
            other => shown.push(visible(other)),
        }
        column += columns(character);
        if at < last {
            end = column;
        }
    }
    // A place at the very end of a line lies past its last character.
    let start = start.unwrap_or(column);
    (shown, (start, end.saturating_sub(start).max(1)))
}

/// The character itself, or a stand-in for one that a terminal would act upon.
fn visible(character: char) -> char {
    let turns_text_around = matches!(
        character,
        '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    if character.is_control() || turns_text_around {
        '\u{fffd}'
    } else {
        character
    }
}

/// Columns a character takes on a terminal: near enough to put a caret below it (Unicode UAX #11,
/// the blocks that are wide throughout, and the combining marks of European scripts).
fn columns(character: char) -> usize {
    match character {
        '\t' => 4,
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, piece: &str) -> String {
        let start = text.find(piece).expect("the piece is in the text");
        let span = Span::new(start, start + piece.len());
        Problem::at("f.yaml", text, span, Severity::Error, "wrong".to_owned()).to_string()
    }

    #[test]
    fn caret_lies_under_the_text() {
        let expected =
            "error: wrong\n --> f.yaml:2:9\n  |\n2 |   pool: wether\n  |         ^^^^^^\n";
        assert_eq!(shown("routes:\n  pool: wether\n", "wether"), expected);
    }

    #[test]
    fn column_counts_characters_and_caret_counts_columns() {
        let text = shown("é: 天気 x\n", "x");
        assert!(text.contains("f.yaml:1:7"), "{text}");
        assert!(text.contains("\n  |         ^\n"), "{text}");
    }

    #[test]
    fn tabs_and_control_characters_do_not_move_the_caret() {
        let text = shown("a: \u{1b}\tx\n", "x");
        assert!(text.contains("| a: \u{fffd}    x\n"), "{text}");
        assert!(text.contains("|         ^\n"), "{text}");
    }

    #[test]
    fn long_line_is_cropped_around_the_caret() {
        let text = format!("{}wrong{}", "a".repeat(5000), "b".repeat(5000));
        let shown = shown(&text, "wrong");
        assert!(shown.len() < 400, "{shown}");
        assert!(shown.contains("^^^^^"), "{shown}");
        assert!(shown.contains("f.yaml:1:5001"), "{shown}");
    }

    #[test]
    fn span_beyond_the_end_is_shown_at_the_end() {
        let problem = Problem::at("f", "ab", Span::new(2, 9), Severity::Error, String::new());
        assert_eq!((problem.line, problem.column), (1, 3));
        assert_eq!(problem.caret, (2, 1));
    }
}
