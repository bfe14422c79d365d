//! The shape of the code: which module may name which, how long a file may be, that every file says what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Production lines of a file: more is a question at review.
const LINES_SOFT: usize = 400;
/// Production lines of a file: more fails.
const LINES_HARD: usize = 800;
/// Lines of a file of tests.
const TEST_LINES_HARD: usize = 900;
/// Names that say nothing of what a module holds.
const BANNED: [&str; 5] = ["util", "utils", "common", "helpers", "misc"];
/// Files that may be longer than `LINES_SOFT`, with the reason.
const LONG: [(&str, &str); 2] = [
    ("connectors/src/s3/upload.rs", "one transfer from the first byte to the proof; its states share one struct"),
    ("connectors/src/sftp/session.rs", "one session from the handshake to the last packet"),
];

/// Which modules of the program a module may name. `model`, `error`, `clock`, `id` and `secret` are for everybody.
const MAY_NAME: [(&str, &[&str]); 17] = [
    ("auth", &["store"]),
    ("cli", &["auth", "config", "files", "operations", "server", "store", "telemetry"]),
    ("clock", &[]),
    ("config", &[]),
    ("error", &[]),
    ("files", &[]),
    ("http", &["auth", "config", "files", "operations", "store", "telemetry"]),
    ("id", &[]),
    ("main", &["cli"]),
    ("model", &[]),
    ("operations", &["files"]),
    ("runner", &["config", "files", "operations", "store", "telemetry"]),
    ("secret", &[]),
    ("server", &["auth", "config", "files", "http", "operations", "runner", "store", "telemetry", "webhooks"]),
    ("store", &[]),
    ("telemetry", &["config", "files", "store"]),
    ("webhooks", &["auth", "http", "store", "telemetry"]),
];
const FOR_EVERYBODY: [&str; 5] = ["model", "error", "clock", "id", "secret"];

/// Who may name the half of the store that changes a task's state.
const MAY_CHANGE_STATE: [&str; 6] =
    ["runner/", "store/", "http/v2/tasks/", "http/v2/jobs/delete.rs", "http/upload", "http/v2/import"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All Rust files below a folder with their text, by path.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    path.components().any(|part| part.as_os_str() == "tests") || name == "tests" || name == "testing"
}

/// The lines above the tests of a file.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// The modules of the program that a text names by `crate::`, `{…}` groups included.
fn named(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        let parts = if rest.starts_with('{') { group(rest) } else { vec![rest] };
        for part in parts {
            let name: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

/// The members of the group that a text begins with, each with the groups inside it.
fn group(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 1, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' if depth == 1 => {
                members.push(&text[start..at]);
                start = at + 1;
            }
            '}' if depth == 1 => {
                members.push(&text[start..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    members
}

/// The methods of the store that change a task's state, as its trait has them.
fn transitions() -> Vec<String> {
    let text = fs::read_to_string(crates().join("consign/src/store/transitions.rs")).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("async fn ")?.split_once('('));
    names.map(|(name, _)| name.to_owned()).filter(|name| name != "holds" && name != "session_time").collect()
}

/// Which of these methods a text calls on a store.
fn called<'a>(text: &str, methods: &'a [String]) -> Vec<&'a str> {
    let code: String = text.split_whitespace().collect();
    methods.iter().map(String::as_str).filter(|name| code.contains(&format!("store.{name}("))).collect()
}

#[test]
fn groups_over_several_lines_are_read() {
    let text = "use crate::{\n    a::{b, c::d},\n    // crate::x\n    e,\n};\nlet f = mycrate::g; crate::h::i();";
    assert_eq!(named(text), ["a", "e", "h"]);
    assert_eq!(called("tools.store\n    .claim(&x)", &transitions()), ["claim"]);
}

#[test]
fn modules_name_only_what_lies_below_them() {
    let root = crates().join("consign/src");
    let (methods, mut changes) = (transitions(), 0);
    let mut faults = Vec::new();
    for (path, text) in sources(&root) {
        let inner = path.strip_prefix(&root).unwrap();
        let module = inner.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if module == "lib" || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: the module `{module}` is not in the table", inner.display()));
            continue;
        };
        for name in named(production(&text)) {
            let fine = name == module
                || allowed.contains(&name.as_str())
                || FOR_EVERYBODY.contains(&name.as_str()) && module != name
                || !MAY_NAME.iter().any(|(known, _)| *known == name);
            if !fine {
                faults.push(format!("{} names `{name}`, which `{module}` may not", inner.display()));
            }
        }
        let shown = inner.to_string_lossy();
        for name in called(production(&text), &methods) {
            changes += 1;
            if !MAY_CHANGE_STATE.iter().any(|prefix| shown.starts_with(prefix)) {
                faults.push(format!("{shown} calls `{name}`; only the runner, uploads and cancelling change a state"));
            }
        }
    }
    assert!(changes >= methods.len(), "only {changes} calls were found: this test looks for the wrong thing");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn leaf_crates_do_not_know_the_program() {
    for leaf in ["connectors", "practice", "testkit"] {
        let manifest = fs::read_to_string(crates().join(leaf).join("Cargo.toml")).unwrap();
        assert!(!names_program(&manifest.parse().unwrap()), "{leaf} depends on the program");
    }
}

/// Whether there is a dependency on the program, whatever it is called and in whichever table.
fn names_program(table: &toml::Table) -> bool {
    table.iter().any(|(key, value)| match value {
        toml::Value::Table(inner) => key == "consign" || names_program(inner),
        toml::Value::String(text) => {
            key == "consign" || key == "package" && text == "consign" || key == "path" && text.ends_with("/consign")
        }
        toml::Value::Boolean(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_) => false,
    })
}

#[test]
fn every_spelling_of_a_dependency_is_found() {
    for line in [
        "consign.workspace = true",
        "consign = { path = \"../consign\" }",
        "x = { package = \"consign\", version = \"1\" }",
        "x = { path = \"../consign\" }",
        "consign = \"1\"",
    ] {
        for section in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
            assert!(names_program(&format!("[{section}]\n{line}\n").parse().unwrap()), "[{section}] {line}");
        }
    }
    assert!(!names_program(&"[dependencies]\nconnectors.workspace = true\n".parse().unwrap()));
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    let mut faults = Vec::new();
    for (path, text) in sources(&crates()) {
        let shown = path.strip_prefix(crates()).unwrap().to_string_lossy().into_owned();
        if !text.starts_with("//!") {
            faults.push(format!("{shown} does not open with `//!`"));
        }
        let stem = path.file_stem().unwrap().to_string_lossy();
        if BANNED.contains(&stem.as_ref()) {
            faults.push(format!("{shown}: name the module after what it holds"));
        }
        if stem != "mod" && path.with_extension("").join("mod.rs").exists() {
            faults.push(format!("{shown} stands beside a folder of the same name with a mod.rs"));
        }
        let lines = production(&text).lines().count();
        let hard = if is_test(&path) { TEST_LINES_HARD } else { LINES_HARD };
        if lines > hard {
            faults.push(format!("{shown} has {lines} lines, more than {hard}: cut it by subject"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn long_files_have_a_reason() {
    for (path, text) in sources(&crates()) {
        let shown = path.strip_prefix(crates()).unwrap().to_string_lossy().into_owned();
        let lines = production(&text).lines().count();
        if lines > LINES_SOFT && !is_test(&path) && !shown.contains("/tests/") {
            let reason = LONG.iter().find(|(file, _)| *file == shown);
            assert!(
                reason.is_some(),
                "{shown} has {lines} lines, more than {LINES_SOFT}, without a reason in this file"
            );
        }
    }
}
