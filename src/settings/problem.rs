//! What is wrong with the settings, told to the person who has to put it right.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::key_path::KeyPath;
use super::secret;

/// The longest line and value that a report shows, in characters.
const SHOWN_CHARS: usize = 160;

/// Everything that is wrong with the settings, at least one problem. Its `Display` is the report
/// that `pawl check` and `pawl run` print, several lines long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    pub(super) file: Option<PathBuf>,
    pub(super) problems: Vec<Problem>,
}

impl SettingsError {
    /// The problems, in the order of the file, those of environment variables last.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        match &self.file {
            Some(file) => write!(f, "{count} in the settings of {}", file.display())?,
            None => write!(f, "{count} in the settings")?,
        }
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "\n\n{}. {problem}", index + 1)?;
            if let Some(excerpt) = &problem.excerpt {
                write!(f, "\n{excerpt}")?;
            }
        }
        Ok(())
    }
}

/// One problem. Its `Display` is one line: what, where, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) key: KeyPath,
    pub(super) subject: String,
    pub(super) reason: Option<String>,
    pub(super) remedy: String,
    pub(super) place: Option<Place>,
    pub(super) excerpt: Option<Excerpt>,
    /// The key that was probably meant, or the list with this element: not reported as missing as well.
    pub(super) meant: Option<KeyPath>,
}

impl Problem {
    /// A problem with no place yet; `Origin`s give it one.
    pub(super) fn new(key: &KeyPath, subject: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            key: key.clone(),
            subject: subject.into(),
            reason: None,
            remedy: remedy.into(),
            place: None,
            excerpt: None,
            meant: None,
        }
    }

    /// A problem with the value of a key. The value is shown unless its name says that it is secret.
    pub(super) fn with_value(key: &KeyPath, value: &str, complaint: Complaint) -> Self {
        let hidden = secret::key(key.names());
        let value = if hidden { secret::HIDDEN.to_owned() } else { shortened(value) };
        let problem = Problem::new(key, format!("{key} = {value}"), complaint.remedy);
        Problem { meant: key.list(), ..problem.because(complaint.reason) }
    }

    pub(super) fn because(self, reason: impl Into<String>) -> Self {
        Problem { reason: Some(reason.into()), ..self }
    }

    /// Whether `other` follows from this one: the same key, or the key that was meant by this one.
    pub(super) fn covers(&self, other: &Problem) -> bool {
        let within = |key: &KeyPath| key.names().next().is_some() && other.key.is_within(key);
        within(&self.key) || self.meant.as_ref().is_some_and(within)
    }

    pub(super) fn at(self, origin: &Origin, source: &Source<'_>) -> Self {
        let (place, excerpt) = match origin {
            Origin::File(span) => (source.place(span), source.excerpt(span)),
            Origin::Variable(name) | Origin::VariableFile(name) => (Place::Variable(name.clone()), None),
        };
        let problem = Problem { place: Some(place), excerpt, ..self };
        if matches!(origin, Origin::VariableFile(_)) { problem.concealed() } else { problem }
    }

    /// Without the value and what was said about it: what is kept in a file is kept out of sight.
    fn concealed(self) -> Self {
        let subject = format!("{} = {}", self.key, secret::HIDDEN);
        let reason = "the content of the file is refused, and not shown since it may be a secret";
        let remedy = "correct the file, or try its content in the variable without __FILE to be told more";
        Problem { subject, reason: Some(reason.into()), remedy: remedy.into(), ..self }
    }

    /// The key it is about, as in `handler.billing.topic`; empty for the file as a whole.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// Where it was found; `None` if nothing in the file or the environment speaks of it.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// What is the case, where, and why that is wrong.
    pub fn finding(&self) -> String {
        let place = self.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("{}{place}{reason}", self.subject)
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.finding(), self.remedy)
    }
}

/// Why a value cannot be taken, and what to do.
pub(super) struct Complaint {
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Complaint {
    pub(super) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Complaint { reason: reason.into(), remedy: remedy.into() }
    }
}

/// Where a problem was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the settings file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Place::Variable(name) => f.write_str(name),
        }
    }
}

/// Where a value comes from: bytes of the settings file, or a variable.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(Range<usize>),
    Variable(String),
    /// The file that a variable names.
    VariableFile(String),
}

/// A line of the file with a caret below the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    line: usize,
    text: String,
    indent: usize,
    carets: usize,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let (indent, carets) = (" ".repeat(self.indent), "^".repeat(self.carets));
        write!(f, "   {gutter} |\n   {number} | {}\n   {gutter} | {indent}{carets}", self.text)
    }
}

/// The settings file: its name and its text.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Line and column of the span's begin.
    fn place(&self, span: &Range<usize>) -> Place {
        let (line, column, _) = self.find(span.start);
        Place::File { path: self.path.to_owned(), line, column }
    }

    /// The first line of the span; `None` if it may hold a secret or is too long to read.
    fn excerpt(&self, span: &Range<usize>) -> Option<Excerpt> {
        let (line, column, text) = self.find(span.start);
        if secret::in_line(text) || text.chars().count() > SHOWN_CHARS {
            return None;
        }
        let marked = self.text.get(span.clone()).unwrap_or("").lines().next().unwrap_or("");
        let text = text.replace('\t', " ");
        Some(Excerpt { line, text, indent: column - 1, carets: marked.chars().count().max(1) })
    }

    fn find(&self, offset: usize) -> (usize, usize, &str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = self.text[begin..].lines().next().unwrap_or("");
        (before.matches('\n').count() + 1, before[begin..].chars().count() + 1, text)
    }
}

/// The value cut to a length that a report can show.
fn shortened(value: &str) -> String {
    if value.chars().count() <= SHOWN_CHARS {
        return value.to_owned();
    }
    let mut short: String = value.chars().take(SHOWN_CHARS).collect();
    write!(short, "… ({} characters)", value.chars().count()).expect("a string can be written to");
    short
}

/// The candidate that a mistyped word probably meant: the nearest one, if no more than a third of
/// its letters are wrong.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A list for people: `"a", "b"`.
pub(super) fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}
