//! Reading a TOML document against [`SectionSpec`]s, collecting every problem with its line.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Problems shown of one file; a wrong file would otherwise fill the terminal.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Characters of an offending value that an error message repeats.
const VALUE_SHOWN_CHARS_MAX: usize = 60;

/// One key: what it may hold, what holds without it, what it does.
#[derive(Debug)]
pub struct KeySpec {
    /// The key.
    pub name: &'static str,
    /// What is allowed, with unit and range, fit to follow the word "expected".
    pub form: &'static str,
    /// What holds without it.
    pub default: KeyDefault,
    /// What it does, as whole sentences.
    pub effect: &'static str,
}

/// What holds when a key is absent.
#[derive(Debug)]
pub enum KeyDefault {
    /// This value, as it would stand in the file. It is read like one.
    Literal(&'static str),
    /// Something that a value in the file cannot say.
    Absent {
        /// In words, fit to follow "default:".
        meaning: &'static str,
        /// A value the file may hold, for the reference.
        example: &'static str,
    },
    /// Nothing: the key must be there.
    Required {
        /// A value the file may hold, for the reference.
        example: &'static str,
    },
}

/// One `[section]`, or one kind of `[[section]]`.
#[derive(Debug)]
pub struct SectionSpec {
    /// The name between the brackets.
    pub name: &'static str,
    /// What it is for, as whole sentences.
    pub effect: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [KeySpec],
}

/// A kind of file.
pub trait Document: Sized {
    /// The sections it reads.
    const SECTIONS: &'static [&'static SectionSpec];
    /// Sections that may be there and are another reader's business.
    const SKIPPED: &'static [&'static str] = &[];

    /// Builds the document. Problems go to `reader`; `None` is only returned after one.
    fn read(reader: &Reader<'_>) -> Option<Self>;
}

/// Parses `text`. `file_name` appears in problems only.
///
/// # Errors
/// All problems of the file, in the order of its lines.
pub fn parse_document<T: Document>(text: &str, file_name: &str) -> Result<T, ConfigError> {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        let problems = syntax_errors
            .iter()
            .map(|error| Problem {
                file: file_name.to_owned(),
                line: error.span().map(|span| line_of(text, span.start)),
                message: error.message().trim_end().replace('\n', ", "),
            })
            .collect();
        return Err(ConfigError { problems });
    }
    let root = root.into_inner();
    let reader = Reader {
        file: file_name,
        text,
        root: &root,
        sections: T::SECTIONS,
        problems: RefCell::new(Vec::new()),
    };
    reader.reject_unknown_sections(T::SECTIONS, T::SKIPPED);
    let document = T::read(&reader);
    let mut problems = reader.problems.into_inner();
    match document {
        Some(document) if problems.is_empty() => Ok(document),
        _ => {
            problems.sort_by_key(|problem| problem.line);
            Err(ConfigError { problems })
        }
    }
}

/// A syntactically sound document while it is read.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    root: &'a DeTable<'a>,
    sections: &'static [&'static SectionSpec],
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    /// The section `[name]`, or `[outer.name]`; an empty one when the file does not have it.
    pub fn section(&'a self, spec: &'static SectionSpec) -> Section<'a> {
        let (outer, name) = match spec.name.split_once('.') {
            Some((outer, name)) => {
                let outer = self.root.get(outer);
                (outer.and_then(|table| table.get_ref().as_table()), name)
            }
            None => (Some(self.root), spec.name),
        };
        let entry = outer.and_then(|outer| outer.get_key_value(name));
        let table = entry.and_then(|(key, value)| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.push(
                    key.span().start,
                    format!("{} must be a section, written [{0}]", spec.name),
                );
            }
            table
        });
        let at = entry.map_or(0, |(key, _)| key.span().start);
        self.checked(spec, format!("[{}]", spec.name), table, at)
    }

    /// Every `[[name]]`, in the order of the file.
    pub fn sections(&'a self, spec: &'static SectionSpec) -> Vec<Section<'a>> {
        let Some((key, value)) = self.root.get_key_value(spec.name) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            let message = format!("{} is a list of sections, each written [[{0}]]", spec.name);
            self.push(key.span().start, message);
            return Vec::new();
        };
        let section = |item: &'a Spanned<DeValue<'a>>| {
            let table = item.get_ref().as_table();
            if table.is_none() {
                let message = format!("{} must be sections, each written [[{0}]]", spec.name);
                self.push(item.span().start, message);
            }
            table.map(|table| {
                self.checked(
                    spec,
                    format!("[[{}]]", spec.name),
                    Some(table),
                    item.span().start,
                )
            })
        };
        items.iter().filter_map(section).collect()
    }

    fn checked(
        &'a self,
        spec: &'static SectionSpec,
        title: String,
        table: Option<&'a DeTable<'a>>,
        at: usize,
    ) -> Section<'a> {
        for (key, _) in table.into_iter().flat_map(|table| table.iter()) {
            let is_section = |inner: &&SectionSpec| {
                inner.name.split_once('.') == Some((spec.name, key.get_ref()))
            };
            let is_known = spec.keys.iter().any(|known| known.name == key.get_ref());
            if !is_known && !self.sections.iter().any(is_section) {
                let allowed: Vec<_> = spec.keys.iter().map(|known| known.name).collect();
                let message = format!(
                    "unknown key \"{}\" in {title}; allowed: {}",
                    key.get_ref().escape_debug(),
                    allowed.join(", ")
                );
                self.push(key.span().start, message);
            }
        }
        Section {
            reader: self,
            spec,
            title,
            table,
            at,
        }
    }

    fn reject_unknown_sections(&self, known: &[&SectionSpec], skipped: &[&str]) {
        let allowed = || {
            known
                .iter()
                .map(|spec| spec.name)
                .chain(skipped.iter().copied())
        };
        for (key, value) in self.root {
            if allowed().any(|name| name == key.get_ref()) {
                continue;
            }
            let what = if value.get_ref().is_table() || value.get_ref().is_array() {
                "section"
            } else {
                "key"
            };
            let names: Vec<_> = allowed().collect();
            let message = format!(
                "unknown {what} \"{}\"; allowed sections: {}",
                key.get_ref().escape_debug(),
                names.join(", ")
            );
            self.push(key.span().start, message);
        }
    }

    /// A piece of the file, shortened to one short line.
    fn shown(&self, span: Range<usize>) -> String {
        let source = self.text.get(span).unwrap_or_default();
        let mut shown: String = source
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(VALUE_SHOWN_CHARS_MAX)
            .collect();
        if shown.len() < source.len() {
            shown.push('…');
        }
        shown
    }

    fn push(&self, at: usize, message: String) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.to_owned(),
            line: Some(line_of(self.text, at)),
            message,
        });
    }
}

/// One section while it is read.
#[derive(Debug)]
pub struct Section<'a> {
    reader: &'a Reader<'a>,
    spec: &'static SectionSpec,
    title: String,
    table: Option<&'a DeTable<'a>>,
    at: usize,
}

impl<'a> Section<'a> {
    /// The key's value, or its default, through `convert`; a `None` from there is reported with
    /// the form that the key's [`KeySpec`] states, and given back as `None`.
    pub fn value<T>(&self, name: &str, convert: impl Fn(Value<'_>) -> Option<T>) -> Option<T> {
        match self.optional(name, &convert)? {
            Some(value) => Some(value),
            None => match self.key(name)?.default {
                KeyDefault::Literal(literal) => {
                    let default = DeValue::parse(literal).ok()?;
                    convert(Value(default.get_ref()))
                }
                KeyDefault::Absent { .. } | KeyDefault::Required { .. } => {
                    let form = self.key(name)?.form;
                    let message = format!("{} needs the key {name}: {form}", self.title);
                    self.reader.push(self.at, message);
                    None
                }
            },
        }
    }

    /// The key's value through `convert`, `Some(None)` when the file does not have the key;
    /// `None` after a problem was reported.
    pub fn optional<T>(
        &self,
        name: &str,
        convert: impl Fn(Value<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        let key = self.key(name)?;
        let Some(value) = self.table.and_then(|table| table.get(name)) else {
            return Some(None);
        };
        let converted = convert(Value(value.get_ref()));
        if converted.is_none() {
            let message = format!("{} {}: expected {}", self.title, self.shown(name), key.form);
            self.reader.push(value.span().start, message);
        }
        converted.map(Some)
    }

    /// The items of the key's list, or of its default, each through `convert`; an item's problem
    /// is reported on its own line in the words of `convert`, a list of another length and
    /// anything but a list with the key's form. `None` after a problem was reported.
    pub fn list<T>(
        &self,
        name: &str,
        lengths: RangeInclusive<usize>,
        mut convert: impl FnMut(Value<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(value) = self.table.and_then(|table| table.get(name)) else {
            let KeyDefault::Literal(literal) = self.key(name)?.default else {
                return Some(Vec::new());
            };
            let default = DeValue::parse(literal).ok()?;
            let items = Value(default.get_ref()).as_list()?;
            return items.map(|item| convert(item).ok()).collect();
        };
        let items = value.get_ref().as_array();
        let Some(items) = items.filter(|items| lengths.contains(&items.len())) else {
            let form = self.key(name)?.form;
            self.reject(name, &format!("expected {form}"));
            return None;
        };
        let mut converted = Vec::with_capacity(items.len());
        for item in items.iter() {
            match convert(Value(item.get_ref())) {
                Ok(item) => converted.push(item),
                Err(problem) => {
                    let shown = self.reader.shown(item.span());
                    let message = format!("{} {name}: {shown}: {problem}", self.title);
                    self.reader.push(item.span().start, message);
                }
            }
        }
        (converted.len() == items.len()).then_some(converted)
    }

    /// Reports a problem with the value of `name` that its form alone does not show, such as a
    /// name that occurs twice. `message` follows the key and value.
    pub fn reject(&self, name: &str, message: &str) {
        let value = self.table.and_then(|table| table.get(name));
        let at = value.map_or(self.at, |value| value.span().start);
        let message = format!("{} {}: {message}", self.title, self.shown(name));
        self.reader.push(at, message);
    }

    /// The line on which the section begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        line_of(self.reader.text, self.at)
    }

    /// The line of the key's value, from 1; the section's own where the key is absent.
    #[must_use]
    pub fn line_of(&self, name: &str) -> usize {
        match self.table.and_then(|table| table.get(name)) {
            Some(value) => line_of(self.reader.text, value.span().start),
            None => self.line(),
        }
    }

    fn key(&self, name: &str) -> Option<&'static KeySpec> {
        let key = self.spec.keys.iter().find(|key| key.name == name);
        debug_assert!(key.is_some(), "{} has no key {name}", self.title);
        key
    }

    /// `name = value` as the file has it, shortened to one short line.
    fn shown(&self, name: &str) -> String {
        match self.table.and_then(|table| table.get(name)) {
            Some(value) => format!("{name} = {}", self.reader.shown(value.span())),
            None => name.to_owned(),
        }
    }
}

/// A value in the file.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a>(&'a DeValue<'a>);

impl<'a> Value<'a> {
    /// A string.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        self.0.as_str()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        self.0.as_bool()
    }

    /// An integer within `range`.
    #[must_use]
    pub fn as_number<N>(self, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<i64> + PartialOrd,
    {
        let integer = self.0.as_integer()?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
        N::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
    }

    /// The items of a list.
    pub fn as_list(self) -> Option<impl Iterator<Item = Value<'a>>> {
        Some(self.0.as_array()?.iter().map(|item| Value(item.get_ref())))
    }

    /// A table.
    #[must_use]
    pub fn as_table(self) -> Option<Table<'a>> {
        self.0.as_table().map(Table)
    }

    /// A path that begins with `/`.
    #[must_use]
    pub fn as_absolute_path(self) -> Option<PathBuf> {
        let path = PathBuf::from(self.as_str()?);
        path.is_absolute().then_some(path)
    }
}

/// A table inside a value.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(&'a DeTable<'a>);

impl<'a> Table<'a> {
    /// Its keys.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(key, _)| key.get_ref().as_ref())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.0.get(key).map(|value| Value(value.get_ref()))
    }
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as the reader was given it.
    pub file: String,
    /// From 1; `None` when the problem is the whole file's.
    pub line: Option<usize>,
    /// What is wrong, and what is allowed instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Everything that is wrong with a file, one problem per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// A problem of the whole file.
    #[must_use]
    pub fn file(file: &str, message: String) -> Self {
        Self {
            problems: vec![Problem {
                file: file.to_owned(),
                line: None,
                message,
            }],
        }
    }

    /// A problem on one line.
    #[must_use]
    pub fn at(file: &str, line: usize, message: String) -> Self {
        Self {
            problems: vec![Problem {
                file: file.to_owned(),
                line: Some(line),
                message,
            }],
        }
    }

    /// Several problems; `None` when there are none.
    #[must_use]
    pub fn from_problems(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| problem.line);
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// At least one, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            problem.fmt(f)?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A commented file with every key of `sections`; each key stands commented out at its default.
#[must_use]
pub fn reference(sections: &[&SectionSpec]) -> String {
    let mut out = String::new();
    for (i, section) in sections.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        out.push_str(&format!("{gap}# {}\n[{}]\n", section.effect, section.name));
        for key in section.keys {
            out.push_str(&format!("\n# {}\n# Allowed: {}.\n", key.effect, key.form));
            let example = match key.default {
                KeyDefault::Literal(literal) => literal,
                KeyDefault::Absent { meaning, example } => {
                    out.push_str(&format!("# Default: {meaning}.\n"));
                    example
                }
                KeyDefault::Required { example } => {
                    out.push_str("# Required.\n");
                    example
                }
            };
            out.push_str(&format!("#{} = {example}\n", key.name));
        }
    }
    out
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}
