//! `consign doctor --destination` and `POST /v2/destinations/test` against real storages that refuse this and that.

use std::fs;
use std::process::Output;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Ceph, Key, Sshd, or_skip};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::harness::{Program, eventually};

const NEEDED: [&str; 4] = ["arguments", "connect", "credentials", "write"];
const EXTRAS: [&str; 5] = ["abort", "stat", "read", "list", "delete"];

/// An empty bucket on which the user `other` has no right.
async fn bucket(name: &str) -> Option<Ceph> {
    let ceph = or_skip(testkit::ceph().await)?;
    let empty = format!(
        "
client('iam', 'other')
s3.create_bucket(Bucket={name:?})
s3.delete_bucket_policy(Bucket={name:?})
for found in s3.list_objects_v2(Bucket={name:?}).get('Contents', []):
    s3.delete_object(Bucket={name:?}, Key=found['Key'])"
    );
    ceph.s3api(&empty).await.unwrap();
    Some(ceph)
}

async fn keys(ceph: &Ceph, bucket: &str) -> Vec<String> {
    let script = format!("result = [it['Key'] for it in s3.list_objects_v2(Bucket={bucket:?}).get('Contents', [])]");
    serde_json::from_value(ceph.s3api(&script).await.unwrap()).unwrap()
}

/// Gives the user `other` what these policies say, as they were printed.
async fn grant(ceph: &Ceph, bucket: &str, policies: &[&Value]) {
    let policies: Vec<&str> = policies.iter().map(|policy| policy.as_str().unwrap()).collect();
    let script = format!(
        "
policies = [json.loads(text) for text in json.loads({:?})]
statements = [dict(it, Principal={{'AWS': ['arn:aws:iam:::user/other']}}) for each in policies for it in each['Statement']]
s3.put_bucket_policy(Bucket={bucket:?}, Policy=json.dumps({{'Version': '2012-10-17', 'Statement': statements}}))",
        json!(policies).to_string()
    );
    ceph.s3api(&script).await.unwrap();
}

fn s3(ceph: &Ceph, account: &testkit::Account, bucket: &str) -> Value {
    json!({"operation": "export/s3", "endpoint": ceph.endpoint, "region": ceph.region, "bucket": bucket,
        "access_key_id": account.access_key_id, "secret_access_key": account.secret_access_key})
}

fn with(mut task: Value, more: &Value) -> Value {
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    task
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the doctor with what is printed for people.
fn shown(program: &Program, file: &Value) -> (i32, String) {
    let path = program.data_dir().with_file_name("task.json");
    fs::write(&path, file.to_string()).unwrap();
    let output = program.run(&["doctor", "--destination", path.to_str().unwrap()]);
    let text = said(&output);
    for secret in ["secret_access_key", "password"] {
        let secret = file[secret].as_str().filter(|secret| secret.len() > 5);
        assert!(secret.is_none_or(|secret| !text.contains(secret)), "{text}");
    }
    (output.status.code().unwrap(), text)
}

/// Runs the doctor with what is printed for programs.
fn report(program: &Program, task: &Value) -> Value {
    let path = program.data_dir().with_file_name("task.json");
    fs::write(&path, task.to_string()).unwrap();
    let output = program.run(&["doctor", "--json", "--destination", path.to_str().unwrap()]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(output.status.code(), Some(i32::from(all["ok"] != true)));
    all["destinations"][0].clone()
}

fn ended(report: &Value, status: &str) -> Vec<String> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["status"] == status).map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_ones_own_passes_every_step() {
    let Some(ceph) = bucket("doctor-own").await else { return };
    let program = Program::new(&[]);
    let all = json!({"key_prefix": "2026/", "acl": "public-read", "tagging": {"a": "b"}, "metadata": {"c": "d"},
        "server_side_encryption": "AES256"});
    let task = with(s3(&ceph, &ceph.account, "doctor-own"), &all);
    let (code, text) = shown(&program, &task);
    println!("{text}");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("The export would work.") && !text.contains("FAIL") && !text.contains("note"), "{text}");
    let report = report(&program, &task);
    assert_eq!(ended(&report, "ok"), [&NEEDED[..], &EXTRAS].concat());
    assert_eq!(keys(&ceph, "doctor-own").await, [""; 0], "nothing stays");
    let rights: Vec<_> = report["permissions"]["needed"]["rights"].as_array().unwrap().iter().collect();
    assert_eq!(rights.len(), 3, "{rights:?}");
}

/// The policies that are printed are what is missing, and no more than that: each makes its own steps pass.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policies_give_what_is_missing() {
    let Some(ceph) = bucket("doctor-least").await else { return };
    let program = Program::new(&[]);
    for name in [json!({"key_prefix": "in/"}), json!({"key": "in/report-%d.pdf"})] {
        bucket("doctor-least").await.unwrap();
        let task = with(s3(&ceph, &ceph.other, "doctor-least"), &name);
        let nothing = report(&program, &task);
        assert_eq!(ended(&nothing, "ok"), NEEDED[..2], "nothing proves the credentials: {nothing:#}");
        assert_eq!(ended(&nothing, "refused"), ["write"]);
        let write = step(&nothing, "write");
        assert_eq!((&write["code"], &write["missing"]), (&json!("ACCESS_DENIED"), &json!(["s3:PutObject"])));
        assert_eq!(write["provider_code"], "AccessDenied");
        assert!(write["request_id"].as_str().is_some_and(|id| id.len() > 10), "{write}");
        let (code, text) = shown(&program, &task);
        println!("{text}");
        assert_eq!(code, 1);
        assert!(text.contains("FAIL  write") && text.contains("\"s3:PutObject\""), "{text}");

        grant(&ceph, "doctor-least", &[&nothing["permissions"]["needed"]["grant"]]).await;
        let least = report(&program, &task);
        assert_eq!((&least["ok"], &ended(&least, "ok")[..4]), (&json!(true), &NEEDED.map(str::to_owned)[..]));
        // Whoever writes an object owns it at this gateway, and may look at it and read it.
        assert_eq!(ended(&least, "refused"), ["abort", "list", "delete"], "{least:#}");
        assert_eq!(step(&least, "list")["missing"], json!(["s3:ListBucket"]));
        let stayed = least["left_behind"].as_str().unwrap();
        assert!(stayed.starts_with("in/consign-test-"), "{stayed}");
        assert_eq!(keys(&ceph, "doctor-least").await, [stayed]);
        let (code, text) = shown(&program, &task);
        println!("{text}");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("s3:DeleteObject") && text.contains("delete it by hand: in/consign-test-"), "{text}");

        let both = ["needed", "extras"].map(|which| &least["permissions"][which]["grant"]);
        grant(&ceph, "doctor-least", &both).await;
        let whole = report(&program, &task);
        assert_eq!(ended(&whole, "ok"), [&NEEDED[..], &EXTRAS].concat(), "{whole:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_may_not_deliver() {
    let Some(ceph) = bucket("doctor-read").await else { return };
    let policy = json!({"Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::doctor-read", "arn:aws:s3:::doctor-read/*"]}]});
    grant(&ceph, "doctor-read", &[&json!(policy.to_string())]).await;
    let found = report(&Program::new(&[]), &s3(&ceph, &ceph.other, "doctor-read"));
    assert_eq!((ended(&found, "refused"), &found["left_behind"]), (vec!["write".to_owned()], &Value::Null));
    assert_eq!(ended(&found, "ok"), ["arguments", "connect", "credentials", "list"], "the credentials are right");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_bucket_is_said_where_it_shows() {
    let Some(ceph) = bucket("doctor-wrong").await else { return };
    let program = Program::new(&[]);
    let own = || s3(&ceph, &ceph.account, "doctor-wrong");
    for (wrong, at, code) in [
        (json!({"bucket": "doctor-no-such-bucket"}), "write", "CONTAINER_NOT_FOUND"),
        (json!({"server_side_encryption": "aws:kms"}), "write", "REMOTE_REFUSED"),
        (json!({"acl": "no-such-acl"}), "write", "REMOTE_REFUSED"),
        (json!({"endpoint": "http://127.0.0.1:1"}), "connect", "REMOTE_UNREACHABLE"),
        (json!({"endpoint": "https://127.0.0.1:1"}), "connect", "REMOTE_UNREACHABLE"),
        (json!({"endpoint": "http://10.0.0.1"}), "connect", "HOST_NOT_ALLOWED"),
        (json!({"endpoint": "http://ann:password@127.0.0.1"}), "arguments", "INVALID_DATA"),
    ] {
        let task = with(own(), &wrong);
        let found = report(&program, &task);
        assert_eq!(ended(&found, "refused"), [at], "{wrong}: {found:#}");
        assert_eq!(step(&found, at)["code"], code, "{wrong}: {found:#}");
        let (_, text) = shown(&program, &task);
        println!("{wrong}\n{text}");
    }
    // Gateways differ in whether they tell wrong credentials from missing rights; we say no more than they do.
    for wrong in [json!({"secret_access_key": "a-wrong-secret"}), json!({"access_key_id": "nobody"})] {
        let found = report(&program, &with(own(), &wrong));
        let refused = ended(&found, "refused");
        let said = (refused[0].as_str(), step(&found, &refused[0])["code"].as_str().unwrap());
        assert!(matches!(said, ("credentials", "INVALID_CREDENTIALS") | ("write", "ACCESS_DENIED")), "{found:#}");
        assert_ne!(step(&found, "credentials")["status"], "ok", "{wrong}");
    }
    assert_eq!(keys(&ceph, "doctor-wrong").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_container_is_tried_by_its_letters() {
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container("doctor").await.unwrap();
    let program = Program::new(&[]);
    let with_token = async |letters: &str| {
        let token = azurite.container_sas("doctor", letters, 1).await.unwrap();
        let task = json!({"operation": "export/azure/blob", "endpoint": azurite.endpoint, "container": "doctor",
            "storage_account": azurite.account, "sas_token": token, "blob_prefix": "in/"});
        println!("{}", shown(&program, &task).1);
        report(&program, &task)
    };
    let least = with_token("w").await;
    assert_eq!(least["ok"], true, "{least:#}");
    assert_eq!(ended(&least, "refused"), EXTRAS[1..], "{least:#}");
    assert_eq!(step(&least, "delete")["missing"], json!(["delete (d)"]));
    assert!(least["permissions"]["needed"]["grant"].as_str().unwrap().contains("--permissions w "));
    let whole = with_token("rwdl").await;
    assert_eq!(ended(&whole, "refused"), [""; 0], "{whole:#}");
    let reading = with_token("rl").await;
    assert_eq!((&reading["ok"], ended(&reading, "refused")), (&json!(false), vec!["write".to_owned()]));
    assert_eq!(step(&reading, "write")["missing"], json!(["write (w)"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_is_tried_by_its_roles() {
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket("doctor").await.unwrap();
    let program = Program::new(&[]);
    let task = |client_email: &str| {
        json!({"operation": "export/google-cloud-storage", "endpoint": gcs.endpoint, "token_uri": gcs.token_uri,
            "project_id": "p", "bucket": "doctor", "client_email": client_email, "private_key": gcs.private_key})
    };
    let creator = gcs.account("doctor-creator", &["create"], 3600).await.unwrap();
    println!("{}", shown(&program, &task(&creator)).1);
    let least = report(&program, &task(&creator));
    assert_eq!(least["ok"], true, "{least:#}");
    assert_eq!(ended(&least, "refused"), ["replace", "stat", "read", "list", "delete"], "{least:#}");
    assert_eq!(step(&least, "replace")["missing"], json!(["storage.objects.delete"]));
    let nobody = gcs.account("doctor-nobody", &[], 3600).await.unwrap();
    let refused = report(&program, &task(&nobody));
    assert_eq!(step(&refused, "write")["missing"], json!(["storage.objects.create"]), "{refused:#}");
    let whole = report(&program, &task(&gcs.client_email));
    assert_eq!(ended(&whole, "refused"), [""; 0], "{whole:#}");
}

fn sftp(sshd: &Sshd, path: &str) -> Value {
    json!({"operation": "export/sftp", "host": "127.0.0.1", "port": sshd.addr().port(), "username": sshd.user(),
        "private_key": sshd.key(Key::Ed25519).unwrap(), "path": path})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_behind_ssh_is_tried_the_same_way() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let program = Program::new(&[]);
    let folder = sshd.folder("doctor").unwrap();
    let task = sftp(&sshd, folder.to_str().unwrap());
    let (code, text) = shown(&program, &task);
    println!("{text}");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&sshd.fingerprints()[0]), "the host key is shown, to be pinned: {text}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing stays");

    let (code, text) = shown(&program, &sftp(&sshd, sshd.denied().to_str().unwrap()));
    println!("{text}");
    assert_eq!(code, 1);
    assert!(text.contains("FAIL  write          ACCESS_DENIED") && text.contains("sudo chown"), "{text}");

    let mut wrong = with(task, &json!({"password": "a-wrong-password"}));
    wrong.as_object_mut().unwrap().remove("private_key");
    let (code, text) = shown(&program, &wrong);
    println!("{text}");
    assert_eq!(code, 1);
    assert!(text.contains("FAIL  credentials    INVALID_CREDENTIALS"), "{text}");
    let pinned = with(sftp(&sshd, "x"), &json!({"host_key": format!("SHA256:{}", "A".repeat(43))}));
    assert_eq!(step(&report(&program, &pinned), "connect")["code"], "HOST_KEY_MISMATCH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_tried_export_by_export() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let program = Program::new(&[]);
    let folder = sshd.folder("doctor-job").unwrap();
    let good = with(sftp(&sshd, folder.to_str().unwrap()), &json!({"input": "in"}));
    let bad = with(good.clone(), &json!({"path": sshd.denied().to_str().unwrap()}));
    let job =
        |one: &Value, two: &Value| json!({"tasks": {"in": {"operation": "import/upload"}, "one": one, "two": two}});
    let (code, text) = shown(&program, &job(&good, &bad));
    assert_eq!(code, 1, "{text}");
    let (one, two) = text.split_once("the task `two`").unwrap();
    assert!(one.contains("the task `one`") && one.contains("would work"), "{text}");
    assert!(two.contains("would not work"), "{text}");

    let mut unnamed = good;
    unnamed.as_object_mut().unwrap().remove("operation");
    let (code, text) = shown(&program, &unnamed);
    assert_eq!(code, 0, "the arguments say which operation it is: {text}");
    assert!(text.contains("Testing export/sftp"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_usage_is_said_before_anything_is_sent() {
    let program = Program::new(&[]);
    for (file, hint) in [
        (json!([]), "JSON object"),
        (json!({"operation": "export/s3", "bucket": "b", "secret_access_key": "canary-secret"}), "region"),
        (json!({"operation": "export/url"}), "has no destination"),
        (json!({"bucket": "b"}), "operation field is required"),
        (json!({"tasks": {"a": {"operation": "import/upload"}}}), "no export to a storage"),
        (json!({"tasks": {"a": {"operation": "export/sftp", "host": "h"}}}), "tasks.a.username"),
    ] {
        let (code, text) = shown(&program, &file);
        assert_eq!(code, 2, "{file}: {text}");
        assert!(text.contains(hint) && !text.contains("canary"), "{file}: {text}");
    }
    let missing = program.run(&["doctor", "--destination", "no-such-file.json"]);
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    assert_eq!(program.run(&["doctor", "--json"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_the_same() {
    let Some(ceph) = bucket("doctor-api").await else { return };
    let program = Program::started(&[]).await;
    let test = async |task: Value| program.call(Method::POST, "/v2/destinations/test", Some(&task)).await;
    let (status, answer) = test(s3(&ceph, &ceph.account, "doctor-api")).await;
    assert_eq!((status, &answer["data"]["ok"]), (StatusCode::OK, &json!(true)), "{answer:#}");
    let (status, answer) = test(s3(&ceph, &ceph.other, "doctor-api")).await;
    assert_eq!((status, &answer["data"]["ok"]), (StatusCode::OK, &json!(false)), "the test itself worked");
    assert_eq!(ended(&answer["data"], "refused"), ["write"]);
    let (status, answer) = test(json!({"operation": "export/s3", "bucket": "b"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["errors"]["region"].is_array(), "{answer}");
}

/// A client that goes away ends its test, and makes room for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_test() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            open.push(stream);
        }
    });
    let program = Program::started(&[]).await;
    let task = json!({"operation": "export/sftp", "host": "127.0.0.1", "port": port, "username": "u", "password": "p"});
    let test = || program.call(Method::POST, "/v2/destinations/test", Some(&task));
    let patience = Duration::from_secs(1);
    let waiting = async { tokio::join!(timeout(patience, test()), timeout(patience, test())) };
    let third = async {
        tokio::time::sleep(patience / 2).await;
        test().await
    };
    let ((first, second), (status, answer)) = tokio::join!(waiting, third);
    assert!(first.is_err() && second.is_err(), "nobody answers");
    assert_eq!((status, &answer["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("TOO_MANY_REQUESTS")));
    eventually("room for another test", async || timeout(patience, test()).await.err()).await;
}
