//! What a delivered file is called at its destination.

use std::collections::{HashMap, HashSet};

use crate::error::{Code, Faults, TaskError};
use crate::files::name;

/// Widest number that `%0Nd` writes, in digits; wider ones are no placeholders.
const WIDTH_MAX: usize = 20;
/// Longest file name in bytes that is made of a shorter one.
const NAME_BYTES_MAX: usize = 255;

/// How the name of a file begins that tries a destination.
pub const TEST_FILE: &str = "consign-test-";

/// How the client wants files to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// This name; `%d` and `%0Nd` in it are replaced by the number of the file, `%%` by a percent sign.
    Exact(String),
    /// This text, unchanged, and right behind it the file's own name.
    Prefix(String),
    /// The file's own name in this directory.
    Directory(String),
    /// The file's own name.
    Own,
}

/// What one file is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its whole name at the destination.
    pub target: String,
    /// Its last part, as shown.
    pub shown: String,
    /// It was changed because another file has the name that it would have had.
    pub is_changed: bool,
}

impl Naming {
    /// For object storage: an exact name, or a prefix, or neither. Empty counts as not given.
    pub fn object(exact: Option<String>, prefix: Option<String>) -> Self {
        Self::either(exact, prefix.filter(|prefix| !prefix.is_empty()).map(Self::Prefix))
    }

    /// For file servers: an exact name, or a directory, or neither. Empty counts as not given.
    pub fn file(exact: Option<String>, directory: Option<String>) -> Self {
        Self::either(exact, directory.filter(|directory| !directory.is_empty()).map(Self::Directory))
    }

    fn either(exact: Option<String>, other: Option<Self>) -> Self {
        exact.filter(|exact| !exact.is_empty()).map(Self::Exact).or(other).unwrap_or(Self::Own)
    }

    /// Names files, in order, all different.
    ///
    /// # Errors
    /// `NAME_CONFLICT` when several files would get one exact name.
    pub fn names<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> Result<Vec<Name>, TaskError> {
        let own: Vec<String> = files.into_iter().map(name::safe).collect();
        if let Self::Exact(pattern) = self {
            return exact(pattern, &own);
        }
        let start = self.start();
        let named = distinct(own).into_iter();
        Ok(named.map(|(shown, is_changed)| Name { target: format!("{start}{shown}"), shown, is_changed }).collect())
    }
}

impl Naming {
    /// What stands in front of files' own names; for an exact name, of the files beside it.
    pub fn start(&self) -> String {
        match self {
            Self::Exact(pattern) => {
                let whole = Pattern::read(pattern).with(1);
                whole.rfind('/').map_or_else(String::new, |slash| whole[..=slash].to_owned())
            }
            Self::Prefix(prefix) => prefix.clone(),
            Self::Directory(directory) if directory.is_empty() || directory.ends_with('/') => directory.clone(),
            Self::Directory(directory) => format!("{directory}/"),
            Self::Own => String::new(),
        }
    }

    /// All names that files may get, and the one that tries the destination, with `*` for any text.
    pub fn globs(&self) -> Vec<String> {
        match self {
            Self::Exact(pattern) => vec![Pattern::read(pattern).glob(), format!("{}{TEST_FILE}*", self.start())],
            Self::Prefix(_) | Self::Directory(_) | Self::Own => vec![format!("{}*", self.start())],
        }
    }
}

/// Says that two arguments exclude each other.
pub fn check_either(faults: &mut Faults, exact: (&str, Option<&str>), other: (&str, Option<&str>)) {
    let is_given = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
    if is_given(exact.1) && is_given(other.1) {
        faults.add(other.0, format!("Give {} or {}, not both.", exact.0, other.0));
    }
}

fn exact(pattern: &str, own: &[String]) -> Result<Vec<Name>, TaskError> {
    let pattern = Pattern::read(pattern);
    if own.len() > 1 && !pattern.counts() {
        let advice = "Use a prefix or a directory instead, or put %d into the name.";
        let count = own.len();
        return Err(TaskError::new(Code::NameConflict, format!("{count} files would get the same name. {advice}")));
    }
    let named = own.iter().zip(1..).map(|(own, number)| {
        let target = pattern.with(number);
        let last = target.rsplit('/').next().unwrap_or_default();
        let shown = if last.is_empty() { own.clone() } else { last.to_owned() };
        Name { target, shown, is_changed: false }
    });
    Ok(named.collect())
}

/// An exact name, taken apart.
struct Pattern(Vec<Piece>);

enum Piece {
    Text(String),
    Number { width: usize },
}

impl Pattern {
    fn read(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            pieces.push(Piece::Text(before.to_owned()));
            if let Some(behind) = after.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = behind;
            } else if let Some((width, behind)) = number(after) {
                pieces.push(Piece::Number { width });
                rest = behind;
            } else {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Self(pieces)
    }

    fn counts(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Number { .. }))
    }

    fn with(&self, number: usize) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Number { width } => format!("{number:0width$}"),
        });
        pieces.collect()
    }

    fn glob(&self) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Number { .. } => "*",
        });
        pieces.collect()
    }
}

/// Reads what stands behind a percent sign: `d` or `0Nd`. Returns the width and the rest.
pub(super) fn number(text: &str) -> Option<(usize, &str)> {
    if let Some(rest) = text.strip_prefix('d') {
        return Some((0, rest));
    }
    let (digits, rest) = text.strip_prefix('0')?.split_once('d')?;
    let width = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse::<usize>().ok())??;
    (1..=WIDTH_MAX).contains(&width).then_some((width, rest))
}

/// Gives each file a name of its own: the first with a name keeps it, the others become `name-2.ext` and so on,
/// around the names that are there already.
fn distinct(own: Vec<String>) -> Vec<(String, bool)> {
    let mut taken: HashSet<String> = own.iter().cloned().collect();
    let mut next: HashMap<String, u32> = HashMap::new();
    let mut names = Vec::with_capacity(own.len());
    for name in own {
        let Some(number) = next.get_mut(&name) else {
            next.insert(name.clone(), 2);
            names.push((name, false));
            continue;
        };
        let free = loop {
            let candidate = numbered(&name, *number);
            *number += 1;
            if taken.insert(candidate.clone()) {
                break candidate;
            }
        };
        names.push((free, true));
    }
    names
}

fn numbered(name: &str, number: u32) -> String {
    let dot = name.rfind('.').filter(|&dot| dot > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let end = format!("-{number}{extension}");
    let room = NAME_BYTES_MAX.saturating_sub(end.len()).max(1);
    format!("{}{end}", &stem[..stem.floor_char_boundary(room)])
}

#[cfg(test)]
mod tests;
