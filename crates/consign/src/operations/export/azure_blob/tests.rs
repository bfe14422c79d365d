//! Arguments as clients send them, and a delivery to a real server and back.

use serde_json::{Value, json};
use testkit::{Azurite, or_skip};

use crate::error::Code;
use crate::operations::testing::{Bench, network};
use crate::operations::trial::Name;
use crate::operations::{self, Context, RawArgs};

/// Arguments that say everything that is required, and `more`.
fn args(more: Value) -> RawArgs {
    let mut args = json!({ "storage_account": "acct", "storage_access_key": "Y2FuYXJ5", "container": "box" });
    let (Some(args), Value::Object(more)) = (args.as_object_mut(), more) else { panic!("both are objects") };
    args.extend(more);
    args.clone()
}

fn faults(mut args: RawArgs) -> Vec<String> {
    let prepared = operations::find("export/azure/blob").unwrap().prepare(&mut args);
    prepared.unwrap_or_else(|faults| faults.0.into_keys().collect())
}

#[test]
fn every_argument_of_the_contract_is_taken() {
    let all = json!({
        "endpoint": "http://127.0.0.1:10000/acct",
        "blob": "report-%d.pdf",
        "metadata": { "x-ms-meta-some_key": "a b", "N1": "1" },
    });
    assert_eq!(faults(args(all)), Vec::<String>::new());
    let token = json!({ "storage_access_key": null, "sas_token": "?sv=1&sig=x", "blob_prefix": "in/", "metadata": [] });
    assert_eq!(faults(args(token)), Vec::<String>::new());
}

#[test]
fn what_is_missing_or_excluded_is_said_all_at_once() {
    assert_eq!(faults(RawArgs::new()), ["container", "storage_access_key", "storage_account"]);
    let bad =
        json!({ "storage_access_key": "", "blob": "a", "blob_prefix": "b", "metadata": { "a-b": "", "good": "" } });
    assert_eq!(faults(args(bad)), ["blob_prefix", "metadata.a-b", "storage_access_key"]);
    for (key, value) in [("k", "ü"), ("k", "a\nx-ms-x: y"), ("1k", ""), ("", "")] {
        let bad = json!({ "metadata": { key: value } });
        assert_eq!(faults(args(bad)), [format!("metadata.{key}")]);
    }
    assert_eq!(faults(args(json!({ "sas_token": "s" }))), ["sas_token"]);
}

#[test]
fn secrets_are_hidden_and_marked() {
    for name in ["export/azure/blob", "import/azure/blob"] {
        let entry = operations::find(name).unwrap();
        let shown = entry.redact(&args(json!({ "sas_token": "canary" })));
        assert_eq!((&shown["storage_access_key"], &shown["sas_token"]), (&json!("***"), &json!("***")));
        assert_eq!(shown["storage_account"], "acct");
        assert_eq!(entry.schema().as_value()["required"], json!(["storage_account", "container"]));
    }
}

#[test]
fn the_least_token_may_write() {
    let entry = operations::find("export/azure/blob").unwrap();
    let with_token = json!({ "container": "it's", "storage_access_key": null, "sas_token": "sv=1&sig=x" });
    let found = entry.permissions(args(with_token)).unwrap();
    assert_eq!((found.of(Name::Write), found.of(Name::Replace)), (vec!["write (w)".into()], vec!["write (w)".into()]));
    assert_eq!((found.of(Name::List), found.of(Name::Abort)), (vec!["list (l)".to_owned()], Vec::new()));
    assert!(found.needed.grant.contains(r"--account-name acct --name 'it'\''s' --permissions w "), "{found:?}");
    assert!(found.extras.unwrap().grant.contains("--permissions rwdl "));
    let with_key = entry.permissions(args(json!({}))).unwrap();
    assert!(with_key.needed.grant.contains("--allow-shared-key-access true") && with_key.extras.is_none());
}

fn of_azurite(azurite: &Azurite, container: &str, more: Value) -> RawArgs {
    let mut args = args(more);
    args.insert("storage_account".to_owned(), json!(azurite.account));
    args.insert("container".to_owned(), json!(container));
    args.insert("endpoint".to_owned(), json!(azurite.endpoint));
    args.entry("sas_token").or_insert(Value::Null);
    let key = if args["sas_token"].is_null() { json!(azurite.key) } else { Value::Null };
    args.insert("storage_access_key".to_owned(), key);
    args
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_and_come_back_and_a_second_run_leaves_the_same() {
    let container = "export-azure";
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container(container).await.unwrap();
    let (export, import) =
        (operations::find("export/azure/blob").unwrap(), operations::find("import/azure/blob").unwrap());
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(20 << 20, 1);
    let inputs =
        [bench.input("a b.txt", b"one").await, bench.input("ü.bin", &large).await, bench.input("a b.txt", b"").await];
    let token = azurite.container_sas(container, "w", 1).await.unwrap();
    let more = json!({ "blob_prefix": "//out/", "metadata": { "Job": "7" } });
    let mut with_token = more.clone();
    with_token["sas_token"] = json!(token);
    for more in [more, with_token] {
        let context = Context { network: network(), ..bench.context(&inputs) };
        let outcome = export.run(of_azurite(&azurite, container, more), context).await.unwrap();
        let receipts: Vec<_> = outcome.files.iter().map(|file| file.receipt.as_ref().unwrap()).collect();
        let place = format!("{}/{container}///out/", azurite.endpoint);
        let expected = ["a%20b.txt", "%C3%BC.bin", "a%20b-2.txt"].map(|name| format!("{place}{name}"));
        assert_eq!(receipts.iter().map(|receipt| receipt.location.clone()).collect::<Vec<_>>(), expected);
        assert!(receipts.iter().all(|receipt| receipt.verified == "md5"), "{outcome:?}");
    }
    assert_eq!(bench.reported().last(), Some(&99), "100 is for the end of the task");
    let script = format!(
        "
names = service.get_container_client({container:?}).list_blob_names()
seen = [(name, view({container:?}, name)) for name in names]
result = [[name, it['size'], it['type'], it['metadata']] for name, it in seen]"
    );
    let left = json!([
        ["//out/a b-2.txt", 0, "text/plain", { "job": "7" }],
        ["//out/a b.txt", 3, "text/plain", { "job": "7" }],
        ["//out/ü.bin", large.len(), "application/octet-stream", { "job": "7" }],
    ]);
    assert_eq!(azurite.sdk(&script).await.unwrap(), left);

    let back = Bench::new().await;
    for (more, names) in [
        (json!({ "blob_prefix": "//out/" }), vec!["a b-2.txt", "a b.txt", "ü.bin"]),
        (json!({ "blob": "//out/ü.bin", "filename": "one.bin" }), vec!["one.bin"]),
    ] {
        let context = Context { network: network(), ..back.context(&[]) };
        let outcome = import.run(of_azurite(&azurite, container, more), context).await.unwrap();
        assert_eq!(outcome.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), names);
        assert!(back.read(outcome.files.last().unwrap()).await == large, "other bytes came back");
    }
}

#[tokio::test]
async fn what_the_service_refuses_is_said_with_its_words_and_what_to_do() {
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await];
    let export = operations::find("export/azure/blob").unwrap();
    let context = || Context { network: network(), ..bench.context(&inputs) };
    let missing = of_azurite(&azurite, "no-such-container", json!({}));
    let error = export.run(missing.clone(), context()).await.unwrap_err();
    assert_eq!(error.code, Code::ContainerNotFound, "{}", error.message);
    assert!(error.message.contains("`no-such-container` does not exist"), "{}", error.message);
    let error = export.run(missing.clone(), bench.context(&inputs)).await.unwrap_err();
    assert_eq!(error.code, Code::HostNotAllowed, "{}", error.message);
    let mut malformed = missing;
    malformed.insert("storage_access_key".to_owned(), json!("canary, not base64"));
    let error = export.run(malformed, context()).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidCredentials, "{}", error.message);
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}
