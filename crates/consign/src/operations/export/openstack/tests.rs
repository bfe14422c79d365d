//! Arguments as clients send them, and a delivery to a real Swift, there and back.

use connectors::{Limits, Network};
use serde_json::{Value, json};
use testkit::{OpenStack, User, or_skip};

use crate::error::Code;
use crate::operations::testing::{Bench, network};
use crate::operations::{self, Context, Outcome, RawArgs};

const EXPORT: &str = "export/openstack";
const IMPORT: &str = "import/openstack";

fn object(value: Value) -> RawArgs {
    let Value::Object(object) = value else { panic!("arguments are an object") };
    object
}

/// Arguments that say everything that is required, and `more`.
fn args(more: Value) -> RawArgs {
    let mut args = object(json!({
        "auth_url": "https://keystone.example.com", "username": "u", "password": "p", "region": "R", "container": "c",
    }));
    args.extend(object(more));
    args
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
    let ours = json!({
        "file": "f-%d", "auth_url": "no URL!", "tenant_name": "t", "project_name": "p", "project_id": "i",
        "user_domain_name": "d", "project_domain_name": "e",
    });
    for operation in [EXPORT, IMPORT] {
        assert_eq!(faults(operation, args(ours.clone())), [""; 0], "an address is the run's affair");
        let missing = faults(operation, object(json!({ "file": "f" })));
        assert_eq!(missing, ["auth_url", "container", "password", "region", "username"]);
        let bare = json!({ "auth_url": "a", "region": "r", "container": "c", "file": "f" });
        assert_eq!(faults(operation, object(bare.clone())), ["password", "username"]);
        let with = |more: Value| {
            let mut all = object(bare.clone());
            all.extend(object(more));
            faults(operation, all)
        };
        assert_eq!(with(json!({ "username": "u", "password": "" })), ["password"]);
        let credential = json!({ "application_credential_id": "i", "application_credential_secret": "s" });
        assert_eq!(with(credential), [""; 0]);
        assert_eq!(with(json!({ "application_credential_id": "i" })), ["application_credential_secret"]);
        assert_eq!(with(json!({ "application_credential_secret": "s" })), ["application_credential_id"]);
        assert_eq!(faults(operation, args(json!({ "file": "a", "file_prefix": "b" }))), ["file_prefix"]);
    }
    assert_eq!(faults(EXPORT, args(json!({ "file_prefix": "" }))), [""; 0]);
    assert_eq!(faults(IMPORT, args(json!({ "filename": "a.txt" }))), ["file"]);
}

#[test]
fn secrets_are_hidden_and_marked() {
    for operation in [EXPORT, IMPORT] {
        let entry = operations::find(operation).unwrap();
        let given = args(json!({ "application_credential_secret": "s", "auth_url": "u:pass@k.example", "file": "f" }));
        let shown = entry.redact(&given);
        for secret in ["password", "application_credential_secret"] {
            assert_eq!(shown[secret], "***");
            assert_eq!(entry.schema().as_value()["properties"][secret]["writeOnly"], true);
        }
        assert!(!shown["auth_url"].to_string().contains("pass"), "{}", shown["auth_url"]);
        assert_eq!(shown["username"], "u");
    }
}

#[test]
fn what_is_needed_is_named_with_commands_that_grant_it() {
    let all = args(json!({ "container": "my box", "username": "ann" }));
    let permissions = operations::find(EXPORT).unwrap().permissions(all).unwrap();
    assert!(permissions.needed.grant.contains("swift post --write-acl '*:ann' 'my box'"), "{permissions:?}");
    assert!(permissions.needed.grant.contains("'my box_segments'"), "{permissions:?}");
}

fn of(openstack: &OpenStack, user: User, container: &str, more: Value) -> RawArgs {
    let mut all = args(json!({
        "auth_url": openstack.auth_url(), "username": user.name(), "password": openstack.password(user),
        "region": "RegionOne", "container": container,
    }));
    all.extend(object(more));
    all
}

async fn run(operation: &str, args: RawArgs, context: Context) -> Result<Outcome, crate::error::TaskError> {
    operations::find(operation).unwrap().run(args, context).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_and_come_back_and_a_second_run_leaves_the_same() {
    let container = "export-openstack";
    let Some(openstack) = or_skip(testkit::openstack().await) else { return };
    openstack.empty_container(container).await.unwrap();
    let network = Network { limits: Limits { segment_bytes: 4 << 20, ..Limits::default() }, ..network() };
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(10 << 20, 1);
    let inputs =
        [bench.input("a b.txt", b"one").await, bench.input("ü.bin", &large).await, bench.input("a b.txt", b"").await];
    for _ in 0..2 {
        let context = Context { network: network.clone(), ..bench.context(&inputs) };
        let args = of(&openstack, User::NoDefault, container, json!({ "file_prefix": "//out/" }));
        let outcome = run(EXPORT, args, context).await.unwrap();
        let receipts: Vec<_> = outcome.files.iter().map(|file| file.receipt.clone().unwrap()).collect();
        let found: Vec<_> = receipts.iter().map(|receipt| receipt.location.as_str()).collect();
        let at = |name: &str| format!("swift://{container}//{name}");
        assert_eq!(found, [at("/out/a b.txt"), at("/out/ü.bin"), at("/out/a b-2.txt")]);
        assert!(receipts.iter().all(|receipt| receipt.verified == "md5"), "{receipts:?}");
        assert!(receipts[..2].iter().all(|receipt| receipt.note.is_none()), "{receipts:?}");
    }
    assert_eq!(bench.reported().last(), Some(&99), "100 is for the end of the task");
    let script =
        format!("result = [[f['name'], f['bytes'], f['content_type']] for f in swift.get_container({container:?})[1]]");
    let left = json!([
        ["//out/a b-2.txt", 0, "text/plain"],
        ["//out/a b.txt", 3, "text/plain"],
        ["//out/ü.bin", large.len(), "application/octet-stream"],
    ]);
    assert_eq!(openstack.swift(&script).await.unwrap(), left);
    assert_eq!(openstack.names_in(&format!("{container}_segments")).await.unwrap().len(), 3);

    let back = |more: Value| {
        let context = Context { network: network.clone(), ..bench.context(&[]) };
        run(IMPORT, of(&openstack, User::Demo, container, more), context)
    };
    let all = back(json!({ "file_prefix": "//out/" })).await.unwrap();
    let names: Vec<_> = all.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a b-2.txt", "a b.txt", "ü.bin"]);
    assert!(bench.read(&all.files[2]).await == large);
    let one = back(json!({ "file": "//out/a b.txt", "filename": "c.txt" })).await.unwrap();
    assert_eq!((one.files.len(), one.files[0].name.as_str()), (1, "c.txt"));
    assert_eq!(back(json!({ "file": "nothing" })).await.unwrap_err().code, Code::FileNotFound);
}

#[tokio::test]
async fn what_is_refused_is_said_with_what_to_do() {
    let Some(openstack) = or_skip(testkit::openstack().await) else { return };
    openstack.empty_container("export-openstack-refused").await.unwrap();
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await];
    let demo = |container: &str, more: Value| of(&openstack, User::Demo, container, more);
    for (args, code, expected) in [
        (demo("c", json!({ "password": "wrong" })), Code::InvalidCredentials, "check `username`"),
        (demo("no-such-container", json!({})), Code::ContainerNotFound, "`no-such-container` does not exist"),
        (demo("c", json!({ "region": "Nowhere" })), Code::InvalidData, "`RegionOne`"),
        (
            of(&openstack, User::Reader, "export-openstack-refused", json!({})),
            Code::AccessDenied,
            "give the user a role",
        ),
        (demo("c", json!({ "auth_url": "ftp://x" })), Code::InvalidData, "`auth_url`"),
    ] {
        let context = Context { network: network(), ..bench.context(&inputs) };
        let error = run(EXPORT, args, context).await.unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.message.contains(expected), "{}", error.message);
    }
}
