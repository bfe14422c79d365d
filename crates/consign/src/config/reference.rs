//! The default settings file and the settings' page of the manual, both printed from the types.

use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::Value;

use super::Config;
use super::load::section;

/// A settings file with every key, its meaning and its default. Loading it changes nothing.
pub fn default_file() -> String {
    let mut text = String::from(
        "# All settings of Consign with their defaults. Each can also be given as an environment variable:\n# `limits.wait_max` as CONSIGN_LIMITS__WAIT_MAX. Keys that are commented out have no fixed default.\n",
    );
    let mut heading = String::new();
    for setting in settings() {
        let (table, key) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
        if table != heading {
            let _ = write!(text, "\n# {}\n[{table}]\n", setting.section_doc);
            table.clone_into(&mut heading);
        }
        let _ = match &setting.default {
            Some(value) => write!(text, "\n# {}\n{key} = {value}\n", setting.doc),
            None => write!(text, "\n# {}\n# {key} =\n", setting.doc),
        };
    }
    text
}

/// The settings as a table in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\nDefaults, then the file given with `--config`, then the environment, then flags. A key that does \
         not exist is an error.\n\n| key | environment | default | meaning |\n|---|---|---|---|\n",
    );
    for setting in settings() {
        let variable = format!("CONSIGN_{}", setting.key.replace('.', "__").to_ascii_uppercase());
        let default = setting.default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        let _ =
            writeln!(text, "| `{}` | `{variable}` | {default} | {} |", setting.key, setting.doc.replace('|', "\\|"));
    }
    text
}

struct Setting {
    key: String,
    doc: String,
    section_doc: String,
    default: Option<String>,
}

fn settings() -> Vec<Setting> {
    let schema = schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut all = Vec::new();
    walk(&schema, &schema, &defaults, "", &mut all);
    // TOML wants the keys of the root before the first table.
    all.sort_by_key(|setting| setting.key.contains('.'));
    all
}

fn walk(root: &Value, schema: &Value, defaults: &Value, prefix: &str, all: &mut Vec<Setting>) {
    let doc = |value: &Value| value["description"].as_str().unwrap_or_default().replace('\n', " ");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let default = &defaults[name];
        match section(root, property) {
            Some(section) => walk(root, section, default, &format!("{prefix}{name}."), all),
            None => all.push(Setting {
                key: format!("{prefix}{name}"),
                doc: doc(property),
                section_doc: doc(schema),
                default: (!default.is_null()).then(|| default.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consign.toml");
        std::fs::write(&path, default_file()).unwrap();
        let loaded = Config::load(Some(&path)).unwrap();
        assert_eq!(serde_json::to_value(loaded).unwrap(), serde_json::to_value(Config::default()).unwrap());
    }

    #[test]
    fn every_setting_is_documented() {
        for setting in settings() {
            assert!(!setting.doc.is_empty(), "{} has no documentation", setting.key);
        }
    }

    #[test]
    fn a_line_that_is_no_toml_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consign.toml");
        for secret in ["secret_key", "database_url", "files_url"] {
            for value in [
                "hunter2needle",
                "hunter2needle\"",
                "\"hunter2needle",
                "'hunter2needle",
                "hunter2needle:x@host/db",
                "\"\\hunter2needle\"",
                "\"a\" hunter2needle",
                "[hunter2needle",
                "{hunter2needle",
                "7hunter2needle",
                "+hunter2needle",
                "2026-hunter2needle",
                "= hunter2needle",
                "\"\"\"\nhunter2needle",
            ] {
                std::fs::write(&path, format!("# é\nlisten = \"127.0.0.1:1\"\n{secret} = {value}\n")).unwrap();
                let error = Config::load(Some(&path)).unwrap_err().to_string();
                assert!(!error.contains("needle") && !error.contains('\n'), "{value}: {error}");
                assert!(error.contains("consign.toml") && error.contains("line "), "{value}: {error}");
            }
        }
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\nsecret_key = hunter2\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("line 2, column 14: "), "{error}");
    }

    #[test]
    fn a_typo_is_an_error_that_names_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consign.toml");
        std::fs::write(&path, "listn = \"127.0.0.1:1\"\n[limits]\nwait_mx = \"1s\"\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("listn") || error.contains("wait_mx"), "{error}");
        std::fs::write(&path, "[limits]\nwait_mx = \"1s\"\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("`limits.wait_mx`") && error.contains("did you mean `limits.wait_max`?"), "{error}");
        std::fs::write(&path, "retention = \"soon\"\n[egress]\nallow = [\"a b\"]\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("retention") && error.contains("soon"), "{error}");
    }
}
