//! `consign doctor --destination`: whether an export would work, and what is missing.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::{Map, Value, json};

use super::interrupt::Interrupts;
use super::{EXIT_FAILED, Failure, Settings, print, run};
use crate::error::Faults;
use crate::operations;
use crate::operations::permissions::Grant;
use crate::operations::trial::{Report, Status, Step, Subject, Trials};
use crate::server;

/// Tries every destination of a file, one after the other.
pub(super) async fn run(settings: &Settings, path: &Path, is_json: bool) -> Result<ExitCode, Failure> {
    let subjects = subjects(run::read_json(path).map_err(Failure::usage)?).map_err(Failure::usage)?;
    let trials = Trials::new(server::network::open(&settings.load()?)?);
    let mut interrupts = Interrupts::new()?;
    let mut found = Vec::new();
    for (task, subject) in subjects {
        if !is_json {
            let named = task.as_ref().map(|task| format!(" of the task `{task}`")).unwrap_or_default();
            print::line(format!("Testing {}{named}:\n", subject.operation()));
        }
        let report = tokio::select! {
            report = trials.run(subject) => report,
            code = interrupts.next() => {
                print::note("Stopped; deleting the test file.");
                trials.settle().await;
                return Ok(code);
            }
        };
        if !is_json {
            show(&report);
        }
        found.push((task, report));
    }
    let ok = found.iter().all(|(_, report)| report.ok);
    if is_json {
        let all: Result<Vec<Value>, _> = found.iter().map(|(task, report)| as_json(task.as_deref(), report)).collect();
        print::line(json!({"ok": ok, "destinations": all?}).to_string());
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// The exports to storages in a task or a job, with the names of tasks.
fn subjects(file: Value) -> anyhow::Result<Vec<(Option<String>, Subject)>> {
    let Value::Object(mut file) = file else {
        return Err(anyhow!("the file must hold a task or a job, that is a JSON object"));
    };
    let Some(Value::Object(tasks)) = file.shift_remove("tasks") else {
        return Ok(vec![(None, one(file).map_err(|faults| anyhow!("the task is not right:\n{}", list("", &faults)))?)]);
    };
    let is_export = |task: &Value| {
        task["operation"].as_str().and_then(operations::find).is_some_and(operations::Entry::has_destination)
    };
    let mut subjects = Vec::new();
    let mut wrong = String::new();
    for (name, task) in tasks.into_iter().filter(|(_, task)| is_export(task)) {
        let Value::Object(task) = task else { continue };
        match Subject::read(task) {
            Ok(subject) => subjects.push((Some(name), subject)),
            Err(faults) => wrong.push_str(&list(&format!("tasks.{name}."), &faults)),
        }
    }
    if !wrong.is_empty() {
        return Err(anyhow!("the job is not right:\n{wrong}"));
    }
    if subjects.is_empty() {
        let known: Vec<_> = operations::all().filter(|entry| entry.has_destination()).map(|entry| entry.name).collect();
        return Err(anyhow!("the job has no export to a storage ({})", known.join(", ")));
    }
    Ok(subjects)
}

/// Reads a task. One that does not name its operation is the one that takes all of its arguments, if only one does.
fn one(task: Map<String, Value>) -> Result<Subject, Faults> {
    if !task.contains_key("operation") {
        let as_operation = |entry: &operations::Entry| {
            let mut task = task.clone();
            task.insert("operation".to_owned(), entry.name.into());
            Subject::read(task).ok().filter(Subject::is_without_warnings)
        };
        let mut fitting: Vec<_> = operations::all().filter_map(as_operation).collect();
        if let (Some(only), true) = (fitting.pop(), fitting.is_empty()) {
            return Ok(only);
        }
    }
    Subject::read(task)
}

fn list(prefix: &str, faults: &Faults) -> String {
    let lines = faults.0.iter().map(|(field, sentences)| format!("  {prefix}{field}: {}\n", sentences.join(" ")));
    lines.collect()
}

fn as_json(task: Option<&str>, report: &Report) -> Result<Value, serde_json::Error> {
    let mut shown = json!({"task": task});
    if let (Some(shown), Value::Object(report)) = (shown.as_object_mut(), serde_json::to_value(report)?) {
        shown.extend(report);
    }
    Ok(shown)
}

fn show(report: &Report) {
    let (untried, tried): (Vec<&Step>, Vec<&Step>) = report.steps.iter().partition(|step| step.message.is_none());
    for step in tried {
        let message = step.message.as_deref().unwrap_or_default();
        let code = step.code.map(|code| format!("{code}: ")).unwrap_or_default();
        print::line(format!("  {:<5} {:<14} {code}{message}", mark(step), step.step.wire()));
        if let Some(loses) = step.loses {
            print::line(format!("  {:<20} {loses}", ""));
        }
    }
    if !untried.is_empty() {
        let names: Vec<&str> = untried.iter().map(|step| step.step.wire()).collect();
        print::line(format!("  -     {:<14} {}", "not tried", names.join(", ")));
    }
    for warning in &report.warnings {
        print::line(format!("  note  {:<14} {warning}", "arguments"));
    }
    if let Some(name) = &report.left_behind {
        print::line(format!(
            "  note  {:<14} The test file may still be there; delete it by hand: {name}",
            "left behind"
        ));
    }
    print::line(if report.ok { "\nThe export would work.\n" } else { "\nThe export would not work.\n" });
    let Some(permissions) = &report.permissions else { return };
    let is_missing = |needed: bool| report.steps.iter().any(|step| step.needed == needed && !step.missing.is_empty());
    if is_missing(true) {
        show_grant("What it needs, and how the owner of the destination gives it:", &permissions.needed);
    }
    if let Some(extras) = permissions.extras.as_ref().filter(|_| is_missing(false)) {
        show_grant("What the steps marked `note` need besides:", extras);
    }
}

fn mark(step: &Step) -> &'static str {
    match (step.status, step.needed) {
        (Status::Ok, _) => "ok",
        (Status::Refused, true) => "FAIL",
        (Status::Refused, false) => "note",
        (Status::Skipped, _) => "-",
    }
}

fn show_grant(head: &str, grant: &Grant) {
    let mut names: Vec<&str> = Vec::new();
    for right in &grant.rights {
        if !names.contains(&right.name.as_str()) {
            names.push(&right.name);
        }
    }
    print::line(format!("{head} {}\n", names.join(", ")));
    for line in grant.grant.lines() {
        print::line(format!("    {line}"));
    }
    print::line("");
}
