//! Arguments as clients send them, and a delivery to a stand-in, there and back.

use connectors::Retry;
use serde_json::{Value, json};
use testkit::{Gcs, or_skip};

use super::*;
use crate::error::Code;
use crate::operations::testing::{Bench, network};
use crate::operations::{self, Arguments as _, Context, Outcome, RawArgs};

const EXPORT: &str = "export/google-cloud-storage";
const IMPORT: &str = "import/google-cloud-storage";

/// Arguments that say everything that is required, and `more`.
fn args(more: Value) -> RawArgs {
    let mut args = json!({
        "project_id": "project",
        "bucket": "bkt",
        "client_email": "me@project.iam.gserviceaccount.com",
        "private_key": "some-private-key",
    });
    let (Some(args), Value::Object(more)) = (args.as_object_mut(), more) else { panic!("both are objects") };
    args.extend(more);
    args.clone()
}

fn faults(operation: &str, mut args: RawArgs) -> Vec<String> {
    match operations::find(operation).unwrap().prepare(&mut args) {
        Ok(warnings) => {
            assert_eq!(warnings, Vec::<String>::new());
            Vec::new()
        }
        Err(faults) => faults.0.into_keys().collect(),
    }
}

#[test]
fn creation_checks_what_is_there_and_no_more() {
    let addresses = json!({ "file": "f-%d", "endpoint": "not a host!", "token_uri": "" });
    for operation in [EXPORT, IMPORT] {
        assert_eq!(faults(operation, args(addresses.clone())), [""; 0], "an unreadable key is the run's affair");
        let missing = faults(operation, json!({ "file": "f" }).as_object().unwrap().clone());
        assert_eq!(missing, ["bucket", "client_email", "private_key", "project_id"]);
        assert_eq!(faults(operation, args(json!({ "file": "a", "private_key": "" }))), ["private_key"]);
        assert_eq!(faults(operation, args(json!({ "file": "a", "file_prefix": "b" }))), ["file_prefix"]);
    }
    assert_eq!(faults(EXPORT, args(json!({ "file_prefix": "" }))), [""; 0]);
    assert_eq!(faults(IMPORT, args(json!({ "filename": "a.txt" }))), ["file"]);
}

#[test]
fn the_key_is_hidden_and_marked() {
    for operation in [EXPORT, IMPORT] {
        let entry = operations::find(operation).unwrap();
        let shown = entry.redact(&args(json!({ "file": "f" })));
        assert_eq!((&shown["private_key"], &shown["file"]), (&json!("***"), &json!("f")));
        assert_eq!(entry.schema().as_value()["properties"]["private_key"]["writeOnly"], true);
        let required = json!(["project_id", "bucket", "client_email", "private_key"]);
        assert_eq!(entry.schema().as_value()["required"], required);
    }
}

#[test]
fn rights_come_with_a_command_that_grants_them() {
    let args = Args::take(args(json!({ "bucket": "it's mine" })).into()).unwrap();
    let permissions = ExportGcs::permissions(&args).unwrap();
    let (needed, extras) = (&permissions.needed, permissions.extras.as_ref().unwrap());
    assert_eq!(permissions.of(Name::Write), ["storage.objects.create"]);
    assert_eq!(permissions.of(Name::Replace), ["storage.objects.delete"]);
    let command = r"gcloud storage buckets add-iam-policy-binding 'gs://it'\''s mine' ";
    let member = "--member=serviceAccount:me@project.iam.gserviceaccount.com --role=roles/storage.";
    assert_eq!(needed.grant, format!("{command}{member}objectCreator"));
    assert_eq!(extras.grant, format!("{command}{member}objectUser"));
}

fn of(gcs: &Gcs, client_email: &str, bucket: &str, more: Value) -> RawArgs {
    let mut all = args(json!({
        "bucket": bucket,
        "client_email": client_email,
        // As it stands in the key file, pasted between quotes.
        "private_key": gcs.private_key.replace('\n', "\\n"),
        "endpoint": gcs.endpoint,
        "token_uri": gcs.token_uri,
    }));
    let Value::Object(more) = more else { panic!("an object") };
    all.extend(more);
    all
}

async fn run(operation: &str, args: RawArgs, context: Context) -> Result<Outcome, crate::error::TaskError> {
    operations::find(operation).unwrap().run(args, context).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_and_come_back_and_a_second_run_leaves_the_same() {
    let bucket = "export-gcs";
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket(bucket).await.unwrap();
    let email = gcs.account("export-gcs", &["create", "delete", "get", "list"], 3600).await.unwrap();
    let network = network();
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(20 << 20, 1);
    let inputs =
        [bench.input("a b.txt", b"one").await, bench.input("ü.bin", &large).await, bench.input("a b.txt", b"").await];
    for _ in 0..2 {
        let context = Context { network: network.clone(), ..bench.context(&inputs) };
        let args = of(&gcs, &email, bucket, json!({ "file_prefix": "//out/" }));
        let outcome = run(EXPORT, args, context).await.unwrap();
        let receipts: Vec<_> = outcome.files.iter().map(|file| file.receipt.clone().unwrap()).collect();
        let found: Vec<_> = receipts.iter().map(|receipt| receipt.location.as_str()).collect();
        let expected =
            ["gs://export-gcs///out/a b.txt", "gs://export-gcs///out/ü.bin", "gs://export-gcs///out/a b-2.txt"];
        assert_eq!(found, expected);
        assert!(receipts.iter().all(|receipt| receipt.verified == "crc32c" && receipt.version.is_some()));
    }
    assert_eq!(bench.reported().last(), Some(&99), "100 is for the end of the task");
    let script = format!(
        "result = [[blob.name, blob.size, blob.content_type] for blob in client.list_blobs({bucket:?}, prefix='//out/')]"
    );
    let left = json!([
        ["//out/a b-2.txt", 0, "text/plain"],
        ["//out/a b.txt", 3, "text/plain"],
        ["//out/ü.bin", large.len(), "application/octet-stream"],
    ]);
    assert_eq!(gcs.python(&script).await.unwrap(), left);
    assert_eq!(gcs.open_sessions(bucket).await.unwrap(), [""; 0]);

    let back = |more: Value| {
        let context = Context { network: network.clone(), ..bench.context(&[]) };
        run(IMPORT, of(&gcs, &email, bucket, more), context)
    };
    let all = back(json!({ "file_prefix": "//out/" })).await.unwrap();
    let names: Vec<_> = all.files.iter().map(|file| (file.name.as_str(), file.content_type.as_str())).collect();
    let octets = "application/octet-stream";
    assert_eq!(names, [("a b-2.txt", "text/plain"), ("a b.txt", "text/plain"), ("ü.bin", octets)]);
    assert!(bench.read(&all.files[2]).await == large);
    let one = back(json!({ "file": "//out/a b.txt", "filename": "c.txt" })).await.unwrap();
    assert_eq!((one.files.len(), one.files[0].name.as_str()), (1, "c.txt"));
    assert_eq!(bench.read(&one.files[0]).await, "one");
    assert_eq!(back(json!({ "file": "nothing" })).await.unwrap_err().code, Code::FileNotFound);
    assert_eq!(gcs.tokens_issued(&email).await.unwrap(), 1, "five tasks, one token");
}

#[tokio::test]
async fn what_is_refused_is_said_with_what_to_do() {
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket("export-gcs-refused").await.unwrap();
    let reader = gcs.account("export-gcs-reader", &["get", "list"], 3600).await.unwrap();
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await];
    for (args, code, expected) in [
        (args(json!({})), Code::InvalidCredentials, "`private_key` is not a private key"),
        (of(&gcs, &reader, "no-such-bucket", json!({})), Code::ContainerNotFound, "`no-such-bucket` does not exist"),
        (of(&gcs, &reader, "export-gcs-refused", json!({})), Code::AccessDenied, "storage.objects.create"),
        (
            of(&gcs, &reader, "b", json!({ "private_key": gcs.unknown_private_key })),
            Code::InvalidCredentials,
            "make a new key",
        ),
        (of(&gcs, &reader, "b", json!({ "endpoint": "ftp://x" })), Code::InvalidData, "`endpoint`"),
    ] {
        let context = Context { network: network(), ..bench.context(&inputs) };
        let error = run(EXPORT, args, context).await.unwrap_err();
        assert_eq!((error.code, error.retry), (code, Retry::Never), "{error}");
        assert!(error.message.contains(expected), "{}", error.message);
    }
    let guarded = bench.context(&inputs);
    let error = run(EXPORT, of(&gcs, &reader, "b", json!({})), guarded).await.unwrap_err();
    assert_eq!(error.code, Code::HostNotAllowed, "{}", error.message);
}
