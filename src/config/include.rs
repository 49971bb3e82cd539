//! One tree out of several files: those that a file includes, or those of a directory.
//!
//! Listeners, routes and pools may stand in every file, and are joined in the order in which the files are
//! read. All else is said once for the whole process: in the file that is named on the command line, or
//! in any one file of a directory. Files that are included include nothing themselves, so that there is
//! nothing to follow in circles, and one file tells which others there are.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};

use super::env::{self, Lookup};
use super::load::{self, Room};
use super::node::{Entry, Node, Span, Value};
use super::problem::{Problem, Report, quoted};
use super::suggest;
use super::table;
use super::wording::{not_a_list, not_a_map};

/// The only key with a map that is joined.
const POOLS: &str = "pools";
/// Keys whose values are joined.
const SHARED: [&str; 3] = ["listeners", "routes", POOLS];
/// Names further files.
const INCLUDE: &str = "include";
/// Which files of a directory are read.
const EXTENSION: &str = "yaml";
/// Most files of a configuration.
const FILES_MAX: usize = 1000;
/// Most bytes of all files together.
const BYTES_MAX: usize = 16 << 20;
/// As a shell does: a hidden file, such as one that an editor keeps, is none of those that are meant.
const SHELL: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// What the files of a configuration say together.
#[derive(Debug)]
pub(super) struct Joined {
    /// As if it stood in one file.
    pub(super) root: Node,
    /// What was read, in that order.
    pub(super) files: Vec<PathBuf>,
}

/// Reads files, and joins what they say.
pub(super) struct Files<'r> {
    report: &'r Report,
    /// The environment.
    lookup: Lookup<'r>,
    entries: Vec<Entry>,
    /// Where the pools were written.
    pools: HashMap<String, Span>,
    /// What a caret points at when a key is missing.
    place: Option<Span>,
    files: Vec<PathBuf>,
    /// The same under names that a file has but one of.
    known: HashSet<PathBuf>,
    room: Room,
    bytes_left: usize,
    /// Something could not be read, so that nothing can be said of the whole.
    is_broken: bool,
}

/// What a file may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Everything.
    Main,
    /// What can be joined.
    Included,
}

impl<'r> Files<'r> {
    /// Nothing yet. What is wrong goes into the report.
    pub(super) fn new(report: &'r Report, lookup: Lookup<'r>) -> Self {
        Self {
            report,
            lookup,
            entries: Vec::new(),
            pools: HashMap::new(),
            place: None,
            files: Vec::new(),
            known: HashSet::new(),
            room: Room::new(),
            bytes_left: BYTES_MAX,
            is_broken: false,
        }
    }

    /// Reads a file with those that it includes, or those of a directory.
    pub(super) fn read(&mut self, path: &Path) {
        if !path.is_dir() {
            return self.file(path, Span::default(), Role::Main);
        }
        let name = path.display().to_string();
        match in_directory(path) {
            Ok(paths) if paths.is_empty() => {
                let message = format!("there is no file *.{EXTENSION} in this directory");
                self.give_up(Span::default(), Problem::with_file(&name, message));
            }
            Ok(paths) => {
                for path in paths {
                    self.file(&path, Span::default(), Role::Main);
                }
            }
            Err(error) => {
                let message = format!("this directory cannot be read: {error}");
                self.give_up(Span::default(), Problem::with_file(&name, message));
            }
        }
    }

    /// Takes a text that includes nothing.
    pub(super) fn take(&mut self, name: &str, text: &str) {
        self.files.push(name.into());
        let Some(root) = self.tree(name, text) else {
            return;
        };
        for (_, at) in self.join(root, Role::Main) {
            self.report.error(at, "only a file includes others");
        }
    }

    /// What all say together; `None`, with a report, if that cannot be known.
    pub(super) fn joined(self) -> Option<Joined> {
        if self.is_broken {
            return None;
        }
        let Some(span) = self.place else {
            let message = "this file is empty; it needs `listeners`, `routes` and `pools`";
            self.report.error(Span::default(), message);
            return None;
        };
        let value = Value::Map(self.entries);
        Some(Joined {
            root: Node { span, value },
            files: self.files,
        })
    }

    /// Reads a file that is called for at this place, unless it has been read.
    fn file(&mut self, path: &Path, at: Span, role: Role) {
        if let Ok(known) = path.canonicalize()
            && !self.known.insert(known)
        {
            return;
        }
        let name = path.display().to_string();
        let text = match load::read(path, &name) {
            Ok(text) => text,
            // Whoever includes a file that cannot be read is shown where.
            Err(problem) if problem.line == 0 && role == Role::Included => {
                let why = problem.message.replacen("this file", &quoted(&name), 1);
                self.report.error(at, why);
                self.is_broken = true;
                return;
            }
            Err(problem) => return self.give_up(at, problem),
        };
        let left = self.bytes_left.checked_sub(text.len());
        if left.is_none() || self.files.len() >= FILES_MAX {
            let message = format!(
                "a configuration has at most {FILES_MAX} files and 16MiB; this is one over it"
            );
            return self.give_up(at, Problem::with_file(&name, message));
        }
        self.bytes_left = left.unwrap_or_default();
        self.files.push(path.to_owned());
        let Some(root) = self.tree(&name, &text) else {
            return;
        };
        let patterns = self.join(root, role);
        let directory = path.parent().unwrap_or_else(|| Path::new(""));
        for (pattern, at) in patterns {
            match matching(directory, &pattern) {
                Ok(paths) => paths
                    .iter()
                    .for_each(|path| self.file(path, at, Role::Included)),
                Err(why) => {
                    self.report.error(at, why);
                    self.is_broken = true;
                }
            }
        }
    }

    fn give_up(&mut self, at: Span, problem: Problem) {
        self.report.add_problem(at, problem);
        self.is_broken = true;
    }

    fn tree(&mut self, name: &str, text: &str) -> Option<Node> {
        let base = self.report.add_source(name, text);
        let root = load::tree(text, base, &mut self.room, self.report);
        let Some(mut root) = root else {
            self.is_broken = true;
            return None;
        };
        env::expand(&mut root, self.lookup, self.report);
        Some(root)
    }

    /// Adds what a file says. What it includes, and where it does.
    fn join(&mut self, root: Node, role: Role) -> Vec<(String, Span)> {
        let entries = match root.value {
            Value::Map(entries) => entries,
            Value::Empty => return Vec::new(),
            wrong @ (Value::Text(_) | Value::List(_)) => {
                self.report
                    .error(root.span, not_a_map(&table::ROOT, &wrong));
                self.is_broken = true;
                return Vec::new();
            }
        };
        self.place.get_or_insert(root.span);
        let mut patterns = Vec::new();
        for entry in entries {
            if role == Role::Included && !SHARED.contains(&entry.key.as_str()) {
                self.report.error(entry.key_span, misplaced(&entry.key));
                continue;
            }
            if entry.key == INCLUDE {
                patterns.extend(texts(&entry.value));
            }
            self.add(entry);
        }
        patterns
    }

    fn add(&mut self, entry: Entry) {
        let at = self.entries.iter().position(|old| old.key == entry.key);
        let Some(at) = at else {
            let mut entry = entry;
            if let (POOLS, Value::Map(pools)) = (entry.key.as_str(), &mut entry.value.value) {
                *pools = self.new_ones(std::mem::take(pools));
            }
            return self.entries.push(entry);
        };
        if entry.key != INCLUDE && !SHARED.contains(&entry.key.as_str()) {
            let line = self.report.line(self.entries[at].key_span);
            let key = quoted(&entry.key);
            let message = format!("the key {key} is here twice; the first is on line {line}");
            return self.report.error(entry.key_span, message);
        }
        let Entry { key, value, .. } = entry;
        let more = match (key.as_str(), value.value) {
            (_, Value::Empty) => return,
            (POOLS, Value::Map(pools)) => Value::Map(self.new_ones(pools)),
            (POOLS, wrong) => {
                let got = wrong.describe();
                let message = format!("`{POOLS}` takes a map from names to pools, not {got}");
                return self.report.error(value.span, message);
            }
            (_, Value::List(items)) => Value::List(items),
            (key, wrong) => return self.report.error(value.span, not_a_list(key, &wrong)),
        };
        let old = &mut self.entries[at].value;
        match (&mut old.value, more) {
            (Value::List(all), Value::List(items)) => all.extend(items),
            (Value::Map(all), Value::Map(pools)) => all.extend(pools),
            (Value::Empty, more) => {
                let (span, value) = (value.span, more);
                *old = Node { span, value };
            }
            // What was there is wrong, and will be called so.
            _ => {}
        }
    }

    /// Those of these pools that are not there yet; the others are reported.
    fn new_ones(&mut self, mut pools: Vec<Entry>) -> Vec<Entry> {
        pools.retain(|pool| {
            let Some(first) = self.pools.get(&pool.key) else {
                self.pools.insert(pool.key.clone(), pool.key_span);
                return true;
            };
            let (name, line) = (quoted(&pool.key), self.report.line(*first));
            let message = format!("the pool {name} is here twice; the first is on line {line}");
            self.report.error(pool.key_span, message);
            false
        });
        pools
    }
}

/// What is wrong with a key of a file that is included.
fn misplaced(key: &str) -> String {
    let shown = quoted(key);
    let may = "`listeners`, `routes` and `pools` may";
    if key == INCLUDE {
        return format!("a file that is included includes nothing itself; {may} stand here");
    }
    match suggest::nearest(key, SHARED.into_iter()) {
        Some(near) => format!("unknown key {shown} in an included file; did you mean `{near}`?"),
        None => format!(
            "{shown} cannot stand in an included file, for it is said once for the whole process; {may}"
        ),
    }
}

/// The texts of a list. What else there is in it is looked at later.
fn texts(node: &Node) -> Vec<(String, Span)> {
    let Value::List(items) = &node.value else {
        return Vec::new();
    };
    let text = |item: &Node| match &item.value {
        Value::Text(text) => Some((text.clone(), item.span)),
        _ => None,
    };
    items.iter().filter_map(text).collect()
}

/// The files of a directory that belong to a configuration, sorted by their names.
fn in_directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|end| end == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files that a pattern means, sorted by their names. A name without wildcards means itself, whether
/// it is there or not.
fn matching(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if pattern.is_empty() {
        return Err("a name of a file is missing here".to_owned());
    }
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![directory.join(pattern)]);
    }
    if pattern.contains("**") {
        return Err("`**` is not used here; write one `*` for each directory".to_owned());
    }
    let whole = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => {
            let directory = directory.to_str();
            let directory =
                directory.ok_or("the directory of this file has a name that is not UTF-8")?;
            let escaped = Pattern::escape(directory);
            Path::new(&escaped).join(pattern).display().to_string()
        }
    };
    let found = glob_with(&whole, SHELL);
    let found = found.map_err(|error| format!("{} is no pattern: {error}", quoted(pattern)))?;
    let found = found.take(FILES_MAX + 1).collect::<Result<Vec<_>, _>>();
    let mut found = found.map_err(|error| error.to_string())?;
    found.sort();
    Ok(found)
}
