//! Arguments: what is accepted, what is refused, what is shown.

use std::collections::BTreeMap;

use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::operations::{Context, Entry, Feed, Outcome};
use crate::secret::Secret;

struct Trial;

/// Arguments of every kind.
#[expect(dead_code, reason = "what is read of them is not the point here")]
#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct Args {
    /// Required text.
    #[garde(length(min = 3, max = 5))]
    bucket: String,
    /// Required secret.
    #[garde(skip)]
    #[schemars(with = "String", extend("writeOnly" = true))]
    secret_access_key: Secret,
    /// Optional secret.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    session_token: Option<Secret>,
    /// Number.
    #[garde(range(min = 1))]
    port: Option<u16>,
    /// Switch.
    #[garde(skip)]
    #[serde(default)]
    inline: bool,
    /// Choice.
    #[garde(skip)]
    mode: Option<Mode>,
    /// Map.
    #[garde(skip)]
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Map of secrets.
    #[garde(skip)]
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Address.
    #[garde(skip)]
    url: Option<String>,
    /// Excludes `url`.
    #[garde(skip)]
    key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Fast.
    Fast,
    /// Safe.
    Safe,
}

impl Operation for Trial {
    const NAME: &'static str = "trial";
    const FEED: Feed = Feed::Itself;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        if args.url.is_some() && args.key.is_some() {
            faults.add("key", "Give url or key, not both.");
        }
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        drop((args, task));
        Ok(Outcome::default())
    }
}

const TRIAL: Entry = Entry::of::<Trial>();

fn object(value: Value) -> RawArgs {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn prepared(value: Value) -> (Value, Vec<String>) {
    let mut args = object(value);
    let warnings = TRIAL.prepare(&mut args).unwrap();
    (Value::Object(args), warnings)
}

fn faults(value: Value) -> Vec<String> {
    let faults = TRIAL.prepare(&mut object(value)).unwrap_err();
    faults.0.into_iter().map(|(field, sentences)| format!("{field}: {}", sentences.join(" "))).collect()
}

#[test]
fn right_arguments_pass_unchanged() {
    let args = json!({ "bucket": "abc", "secret_access_key": "s", "port": 22, "inline": true, "mode": "fast",
        "metadata": { "a": "b" }, "headers": {}, "url": "" });
    assert_eq!(prepared(args.clone()), (args, vec![]));
}

#[test]
fn what_clients_write_differently_is_brought_into_form() {
    let (args, warnings) = prepared(json!({ "bucket": "abc", "secret_access_key": "s", "session_token": null,
        "port": "22", "inline": "True", "mode": "", "metadata": [], "headers": { "a": 1, "b": true, "c": null } }));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(args.get("mode"), None);
    assert_eq!(args["port"], json!(22));
    assert_eq!(args["inline"], json!(true));
    assert_eq!(args["metadata"], json!({}));
    assert_eq!(args["headers"], json!({ "a": "1", "b": "true" }));
    assert_eq!(args.get("session_token"), None);
}

#[test]
fn all_faults_are_told_at_once() {
    let found = faults(json!({ "port": "many", "inline": 7, "mode": "slow", "metadata": { "a": ["b"] },
        "url": "x", "key": "y", "headers": "none" }));
    assert_eq!(
        found,
        [
            "bucket: The bucket field is required.",
            "headers: The headers must be an object.",
            "inline: The inline must be true or false.",
            "key: Give url or key, not both.",
            "metadata.a: The metadata.a must be a string.",
            "mode: The selected mode is invalid; use one of: fast, safe.",
            "port: The port must be an integer.",
            "secret_access_key: The secret_access_key field is required.",
        ]
    );
}

#[test]
fn bounds_are_kept() {
    let found = faults(json!({ "bucket": "toolong", "secret_access_key": "s", "port": 70_000 }));
    assert_eq!(
        found,
        ["bucket: The bucket may not be greater than 5 characters.", "port: The port must be between 1 and 65535.",]
    );
    for wrong in [json!(["a"]), json!(123), json!(true), json!({})] {
        let found = faults(json!({ "bucket": wrong, "secret_access_key": "s", "port": 0 }));
        assert_eq!(found, ["bucket: The bucket must be a string.", "port: The port is invalid: lower than 1."]);
    }
}

#[test]
fn a_fault_never_quotes_a_secret() {
    let found = faults(json!({ "bucket": "abc", "secret_access_key": { "canary": "canary" } }));
    assert_eq!(found, ["secret_access_key: The secret_access_key must be a string."]);
}

#[test]
fn unknown_arguments_are_warned_of() {
    let base = |name: &str| json!({ "bucket": "abc", "secret_access_key": "s", name: 1 });
    let (args, warnings) = prepared(base("secret_acess_key"));
    let expected = "The argument \"secret_acess_key\" is not known and is ignored; did you mean \"secret_access_key\"?";
    assert_eq!(warnings, [expected]);
    assert_eq!(args["secret_acess_key"], json!(1));
    assert_eq!(prepared(base("zzz")).1, ["The argument \"zzz\" is not known and is ignored."]);
    let mut many = base("x0");
    (0..50).for_each(|n| many[format!("x{n}")] = json!(1));
    let (_, warnings) = prepared(many);
    assert_eq!(warnings.len(), 21);
    assert_eq!(warnings[20], "30 more arguments are not known and are ignored.");
}

#[test]
fn what_is_secret_is_not_shown() {
    let args = object(json!({ "bucket": "abc", "secret_access_key": "canary", "session_token": "canary",
        "secret_acess_key": "canary", "headers": { "Authorization": "canary" }, "port": 22,
        "metadata": { "a": "https://canary:canary@example.com/x?canary#canary", "b": "a?b@c" },
        "url": "https://canary@example.com/x" }));
    let shown = Value::Object(TRIAL.redact(&args));
    assert!(!shown.to_string().contains("canary"), "{shown}");
    assert_eq!(
        shown,
        json!({ "bucket": "abc", "secret_access_key": "***", "session_token": "***",
        "secret_acess_key": "***", "headers": { "Authorization": "***" }, "port": 22,
        "metadata": { "a": "https://***@example.com/x?***#***", "b": "a?b@c" },
        "url": "https://***@example.com/x" })
    );
    for odd in ["http://user:canary@[broken/", " https:canary@host", "HTTPS:\\\\canary@host?canary", "x://a@b:canary"] {
        let shown = Value::Object(TRIAL.redact(&object(json!({ "url": odd }))));
        assert!(!shown.to_string().contains("canary"), "{shown}");
    }
    let plain = object(json!({ "url": "https://example.com/A%20b" }));
    assert_eq!(TRIAL.redact(&plain), plain);
}

/// Whether an argument of this name holds a credential, in all operations there are and will be.
fn is_credential(name: &str) -> bool {
    ["secret", "password", "token", "private_key", "access_key"].iter().any(|word| name.contains(word))
        && !matches!(name, "access_key_id" | "token_uri")
}

#[test]
fn no_operation_shows_a_credential() {
    for entry in crate::operations::all() {
        let schema = entry.schema();
        let shape = Shape::of(&schema);
        for name in shape.properties() {
            let shown = entry.redact(&object(json!({ name: { "Authorization": "canary" } })));
            assert!(name != "headers" || !json!(shown).to_string().contains("canary"), "{}", entry.name);
            let shown = entry.redact(&object(json!({ name: "canary" })));
            assert_eq!(shown[name] == "***", is_credential(name), "{} {name}", entry.name);
            let shown = entry.redact(&object(json!({ name: "https://u:canary@host/?canary#canary" })));
            assert!(!json!(shown).to_string().contains("canary"), "{} {name}", entry.name);
        }
    }
}

#[test]
fn every_operation_asks_for_what_it_requires() {
    for entry in crate::operations::all() {
        let schema = entry.schema();
        let required: Vec<&str> = Shape::of(&schema).required().collect();
        let faults = entry.prepare(&mut RawArgs::new()).err().unwrap_or_default();
        for name in required {
            assert_eq!(faults.0[name], [format!("The {name} field is required.")], "{}", entry.name);
        }
    }
}
