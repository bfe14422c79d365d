//! What all exports share: which name each file gets, and sending them, several at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use connectors::{Connector, Progress, Put, Receipt};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::{Code, TaskError};
use crate::model::File;
use crate::operations::{Context, InputFile, Outcome};

/// Widest zero-padded number of a placeholder, `%09d`.
const PLACEHOLDER_WIDTH_MAX: usize = 9;

/// How the names of delivered files come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// This name, with `%d` or `%0Nd` in it for the number of the file.
    Exact(String),
    /// This text and the file's own name, nothing between them.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the exports that take a prefix"))]
    Prefix(String),
    /// The file's own name in this directory.
    Directory(String),
}

/// The name of one delivered file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    name: String,
    /// Its first choice, where an earlier file of the task has that.
    instead_of: Option<String>,
}

/// Sends all input files, and tells what the destination confirmed of each.
///
/// # Errors
/// `NO_INPUT_FILES`, `NAME_CONFLICT` before a byte is sent, and the connector's.
pub(super) async fn deliver(task: &Context, connector: &dyn Connector, naming: &Naming) -> Result<Outcome, TaskError> {
    let own: Vec<&str> = task.inputs.iter().map(|input| input.file.name.as_str()).collect();
    let planned = plan(naming, &own)?;
    let progress = progress(task);
    // Collected, because the compiler cannot see that an iterator over borrowed inputs may cross threads.
    let sent: Vec<_> = task
        .inputs
        .iter()
        .zip(planned)
        .map(|(input, planned)| send(task, connector, input, planned, &progress))
        .collect();
    let files = stream::iter(sent).buffered(task.bounds.files_at_once.max(1)).try_collect().await?;
    Ok(Outcome { files })
}

async fn send(
    task: &Context,
    connector: &dyn Connector,
    input: &InputFile,
    planned: Planned,
    progress: &Progress,
) -> Result<File, TaskError> {
    let put = Put {
        name: planned.name.clone(),
        source: Arc::clone(&input.source),
        content_type: input.file.content_type.clone(),
        journal: Arc::clone(&task.journal),
        resume: task.open.iter().find(|open| open.target == planned.name).cloned(),
        progress: progress.clone(),
    };
    let mut receipt = connector.put(put).await?;
    note_renamed(&mut receipt, &planned);
    let base = planned.name.rsplit('/').next().filter(|base| !base.is_empty()).unwrap_or(&input.file.name);
    Ok(File { name: base.to_owned(), blob: None, download: None, receipt: Some(receipt), ..input.file.clone() })
}

fn note_renamed(receipt: &mut Receipt, planned: &Planned) {
    if let Some(first) = &planned.instead_of {
        let renamed = format!("another file of this task has the name {first}");
        receipt.note = Some(receipt.note.take().map_or(renamed.clone(), |note| format!("{note}; {renamed}")));
    }
}

/// Turns acknowledged bytes into percent of all files together.
fn progress(task: &Context) -> Progress {
    let total_bytes: u64 = task.inputs.iter().map(|input| input.file.size).sum();
    let report = Arc::clone(&task.report);
    Progress::reporting(move |sent_bytes| {
        let percent = u128::from(sent_bytes) * 100 / u128::from(total_bytes.max(1));
        report(u8::try_from(percent).unwrap_or(u8::MAX).min(99));
    })
}

fn plan(naming: &Naming, own: &[&str]) -> Result<Vec<Planned>, TaskError> {
    if own.is_empty() {
        return Err(TaskError::new(Code::NoInputFiles, "There is no file to export: the input tasks produced none."));
    }
    let mut taken = BTreeSet::new();
    let mut planned = Vec::new();
    for (number, own) in (1..).zip(own) {
        let first = match naming {
            Naming::Exact(pattern) => numbered(pattern, number),
            Naming::Prefix(prefix) => format!("{prefix}{own}"),
            Naming::Directory(directory) if directory.is_empty() || directory.ends_with('/') => {
                format!("{directory}{own}")
            }
            Naming::Directory(directory) => format!("{directory}/{own}"),
        };
        if taken.insert(first.clone()) {
            planned.push(Planned { name: first, instead_of: None });
        } else if matches!(naming, Naming::Exact(_)) {
            let message = format!("Several files would all be called {first}: put %d into the name, or use a prefix.");
            return Err(TaskError::new(Code::NameConflict, message));
        } else {
            let name = alternatives(&first).find(|name| taken.insert(name.clone())).unwrap_or_else(|| first.clone());
            planned.push(Planned { name, instead_of: Some(first) });
        }
    }
    Ok(planned)
}

/// `a/b-2.ext`, `a/b-3.ext` … for `a/b.ext`.
fn alternatives(name: &str) -> impl Iterator<Item = String> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].rfind('.').filter(|dot| *dot > 0).map_or(name.len(), |dot| base + dot);
    (2_u32..).map(move |number| format!("{}-{number}{}", &name[..dot], &name[dot..]))
}

/// Puts the number of a file where `%d` or `%0Nd` stands, and `%` where `%%` does. Any other `%` stays.
fn numbered(pattern: &str, number: u32) -> String {
    let mut name = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        name.push_str(before);
        let digits = after.len() - after.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let width = after[..digits].strip_prefix('0').and_then(|width| width.parse::<usize>().ok());
        if let Some(after) = after.strip_prefix('%') {
            name.push('%');
            rest = after;
        } else if let Some(after) = after.strip_prefix('d') {
            name.push_str(&number.to_string());
            rest = after;
        } else if let (Some(width @ 1..=PLACEHOLDER_WIDTH_MAX), Some(after)) =
            (width, after[digits..].strip_prefix('d'))
        {
            name.extend([format!("{number:0width$}")]);
            rest = after;
        } else {
            name.push('%');
            rest = after;
        }
    }
    name.push_str(rest);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(naming: &Naming, own: &[&str]) -> Vec<String> {
        plan(naming, own).unwrap().into_iter().map(|planned| planned.name).collect()
    }

    #[test]
    fn placeholders_count_and_the_rest_stays() {
        for (pattern, expected) in [
            ("a-%d.pdf", "a-7.pdf"),
            ("%03d/%d", "007/7"),
            ("100%% %d", "100% 7"),
            ("%%d", "%d"),
            ("50%.txt", "50%.txt"),
            ("%3d %0d %s %", "%3d %0d %s %"),
            ("%0000000000099d", "%0000000000099d"),
            ("ü%dü", "ü7ü"),
            ("", ""),
        ] {
            assert_eq!(numbered(pattern, 7), expected, "{pattern}");
        }
    }

    #[test]
    fn names_follow_the_arguments() {
        let own = ["a.txt", "b.txt"];
        assert_eq!(names(&Naming::Prefix("in-".to_owned()), &own), ["in-a.txt", "in-b.txt"]);
        assert_eq!(names(&Naming::Directory("x/y".to_owned()), &own), ["x/y/a.txt", "x/y/b.txt"]);
        assert_eq!(names(&Naming::Directory("/".to_owned()), &own), ["/a.txt", "/b.txt"]);
        assert_eq!(names(&Naming::Directory(String::new()), &own), own);
        assert_eq!(names(&Naming::Exact("f-%d".to_owned()), &own), ["f-1", "f-2"]);
        assert_eq!(names(&Naming::Exact("f".to_owned()), &own[..1]), ["f"]);
    }

    #[test]
    fn names_that_clash_are_kept_apart_or_refused() {
        let own = ["a.tar.gz", "a.tar.gz", "a.tar-2.gz", "a.tar.gz", ".x", ".x", "n", "n"];
        let expected = ["a.tar.gz", "a.tar-2.gz", "a.tar-2-2.gz", "a.tar-3.gz", ".x", ".x-2", "n", "n-2"];
        let expected: Vec<String> = expected.iter().map(|name| format!("d.d/{name}")).collect();
        assert_eq!(names(&Naming::Directory("d.d".to_owned()), &own), expected);
        let error = plan(&Naming::Exact("f%%d".to_owned()), &own).unwrap_err();
        assert_eq!(error.code, Code::NameConflict);
        assert_eq!(plan(&Naming::Exact("f".to_owned()), &[]).unwrap_err().code, Code::NoInputFiles);
    }

    #[test]
    fn the_receipt_says_that_a_file_was_renamed() {
        let planned = &plan(&Naming::Prefix(String::new()), &["a", "a"]).unwrap()[1];
        let mut receipt = Receipt { note: Some("first".to_owned()), ..Receipt::default() };
        note_renamed(&mut receipt, planned);
        assert_eq!(receipt.note.as_deref(), Some("first; another file of this task has the name a"));
    }
}
