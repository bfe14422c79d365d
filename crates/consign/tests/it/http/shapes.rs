//! Every shape, byte for byte: the order of keys, what is null and what is absent.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use connectors::{Digests, Receipt};
use consign::http::body::{View, data_bytes};
use consign::id::{JobId, KeyId, TaskId, UserId};
use consign::model::{Download, File, Job, Origin, State, Task, WireStatus};
use consign::secret::Vault;
use uuid::Uuid;

use super::app::{START, URL};

fn view() -> View {
    View::new(URL.into(), Arc::new(Vault::new(&[7; 32])))
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn task() -> Task {
    Task {
        id: TaskId(id(1)),
        user_id: UserId(1),
        job_id: None,
        name: None,
        operation: "import/url".to_owned(),
        state: State::Queued,
        ignore_error: false,
        percent: 0,
        code: None,
        message: None,
        warnings: Vec::new(),
        files: Vec::new(),
        attempt: 0,
        created_at: START,
        started_at: None,
        ended_at: None,
        upload_expires_at: None,
        retry_of: None,
        depends_on: Vec::new(),
        host_name: None,
    }
}

fn file() -> File {
    File {
        name: "photo.png".to_owned(),
        size: 40213,
        digests: Digests { md5: Some([1; 16]), sha256: [2; 32], crc32c: 3 },
        content_type: "image/png".to_owned(),
        blob: None,
        download: None,
        receipt: None,
    }
}

fn ended(task: Task, state: State) -> Task {
    let at = |seconds| Some(START.plus(Duration::from_secs(seconds)));
    Task { state, percent: 100, started_at: at(2), ended_at: at(3), host_name: Some("worker-1".to_owned()), ..task }
}

#[track_caller]
fn is(task: &Task, expected: &str) {
    let written = String::from_utf8(data_bytes(&view().task(task))).unwrap();
    assert_eq!(written, expected.replace('\n', ""));
}

#[test]
fn a_task_of_its_own_that_waits() {
    is(
        &task(),
        r#"{"data":{"id":"00000000-0000-0000-0000-000000000001","job_id":null,"status":"waiting","credits":null,
"code":null,"message":null,"percent":0,"operation":"import/url","result":null,
"created_at":"2026-01-05T09:00:00+00:00","started_at":null,"ended_at":null,
"retry_of_task_id":null,"copy_of_task_id":null,"user_id":1,"priority":0,"host_name":null,"storage":null,
"depends_on_task_ids":[],"links":{"self":"https://cc.example.test/v2/tasks/00000000-0000-0000-0000-000000000001"}}}"#,
    );
}

#[test]
fn an_upload_that_waits_shows_its_form() {
    let task = Task {
        operation: "import/upload".to_owned(),
        state: State::Uploading,
        upload_expires_at: Some(START.plus(Duration::from_hours(12))),
        ..task()
    };
    let body: serde_json::Value = serde_json::from_slice(&data_bytes(&view().task(&task))).unwrap();
    assert_eq!(body["data"]["message"], "Waiting for file upload");
    let form = &body["data"]["result"]["form"];
    assert_eq!(form["url"], "https://cc.example.test/upload/00000000-0000-0000-0000-000000000001");
    let names: Vec<&str> = form["parameters"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "acl",
            "key",
            "success_action_status",
            "X-Amz-Credential",
            "X-Amz-Algorithm",
            "X-Amz-Date",
            "Policy",
            "X-Amz-Signature"
        ]
    );
    assert!(form["parameters"].as_object().unwrap().values().all(serde_json::Value::is_string));
    assert_eq!(form["parameters"]["key"], "00000000-0000-0000-0000-000000000001/${filename}");
    assert_eq!(form["parameters"]["X-Amz-Date"], "20260105T090000Z");
    assert_eq!(form["parameters"]["X-Amz-Signature"].as_str().unwrap().len(), 64);
    let policy = form["parameters"]["Policy"].as_str().unwrap();
    let policy = base64::engine::general_purpose::STANDARD.decode(policy).unwrap();
    assert_eq!(
        String::from_utf8(policy).unwrap(),
        concat!(
            r#"{"expiration":"2026-01-05T21:00:00Z","conditions":[{"acl":"private"},{"bucket":"tasks"},"#,
            r#"["starts-with","$key","00000000-0000-0000-0000-000000000001/"],{"success_action_status":"201"},"#,
            r#"{"X-Amz-Date":"20260105T090000Z"},{"X-Amz-Credential":"consign/20260105/local/s3/aws4_request"},"#,
            r#"{"X-Amz-Algorithm":"AWS4-HMAC-SHA256"}]}"#
        )
    );
}

#[test]
fn a_finished_import_in_a_job() {
    let task = Task {
        job_id: Some(JobId(id(2))),
        name: Some("fetch".to_owned()),
        files: vec![file()],
        warnings: vec!["`colour` is not known.".to_owned()],
        ..ended(task(), State::Finished)
    };
    is(
        &task,
        r#"{"data":{"id":"00000000-0000-0000-0000-000000000001","name":"fetch",
"job_id":"00000000-0000-0000-0000-000000000002","status":"finished","credits":0,
"code":null,"message":null,"percent":100,"operation":"import/url",
"result":{"files":[{"filename":"photo.png","size":40213}]},
"created_at":"2026-01-05T09:00:00+00:00","started_at":"2026-01-05T09:00:02+00:00","ended_at":"2026-01-05T09:00:03+00:00",
"retry_of_task_id":null,"copy_of_task_id":null,"user_id":1,"priority":0,"host_name":"worker-1","storage":null,
"depends_on_task_ids":[],"links":{"self":"https://cc.example.test/v2/tasks/00000000-0000-0000-0000-000000000001"},
"warnings":["`colour` is not known."]}}"#,
    );
}

#[test]
fn a_delivery_shows_its_receipt() {
    let receipt = Receipt {
        location: "s3://bucket/photo.png".to_owned(),
        etag: Some("abc".to_owned()),
        verified: "crc32c".to_owned(),
        ..Receipt::default()
    };
    let task = Task {
        operation: "export/s3".to_owned(),
        files: vec![File { receipt: Some(receipt), ..file() }],
        depends_on: vec![TaskId(id(9))],
        retry_of: Some(TaskId(id(8))),
        ..ended(task(), State::Finished)
    };
    is(
        &task,
        r#"{"data":{"id":"00000000-0000-0000-0000-000000000001","job_id":null,"status":"finished","credits":0,
"code":null,"message":null,"percent":100,"operation":"export/s3",
"result":{"files":[{"filename":"photo.png","size":40213,"location":"s3://bucket/photo.png",
"sha256":"0202020202020202020202020202020202020202020202020202020202020202","etag":"abc","verified":"crc32c"}]},
"created_at":"2026-01-05T09:00:00+00:00","started_at":"2026-01-05T09:00:02+00:00","ended_at":"2026-01-05T09:00:03+00:00",
"retry_of_task_id":"00000000-0000-0000-0000-000000000008","copy_of_task_id":"00000000-0000-0000-0000-000000000008",
"user_id":1,"priority":0,"host_name":"worker-1","storage":null,
"depends_on_task_ids":["00000000-0000-0000-0000-000000000009"],
"links":{"self":"https://cc.example.test/v2/tasks/00000000-0000-0000-0000-000000000001"}}}"#,
    );
}

#[test]
fn a_link_is_below_the_public_url_and_its_name_is_encoded() {
    let download = Download { inline: false, expires_at: START.plus(Duration::from_hours(24)) };
    let task = Task {
        operation: "export/url".to_owned(),
        files: vec![File { name: "é & b.png".to_owned(), download: Some(download), ..file() }],
        ..ended(task(), State::Finished)
    };
    let body = serde_json::to_value(view().task(&task)).unwrap();
    let entry = body["result"]["files"][0].as_object().unwrap();
    assert_eq!(entry.keys().collect::<Vec<_>>(), ["filename", "size", "url", "sha256"]);
    let url = entry["url"].as_str().unwrap();
    let start = "https://cc.example.test/files/00000000-0000-0000-0000-000000000001/%C3%A9%20%26%20b.png?temp_url_sig=";
    let (signature, expires) = url.strip_prefix(start).unwrap().split_once("&temp_url_expires=").unwrap();
    assert_eq!((signature.len(), expires), (64, "1767690000"));
}

#[test]
fn a_failed_task_and_its_job() {
    let failed = Task {
        job_id: Some(JobId(id(2))),
        name: Some("save".to_owned()),
        code: Some("INPUT_TASK_FAILED".to_owned()),
        message: Some("Input task has failed".to_owned()),
        ..ended(task(), State::Error)
    };
    let job = Job {
        id: JobId(id(2)),
        user_id: UserId(1),
        tag: None,
        webhook_url: Some("https://hook.example.test".to_owned()),
        status: WireStatus::Error,
        created_at: START,
        started_at: Some(START),
        ended_at: Some(START.plus(Duration::from_secs(3))),
        origin: Origin::Key(KeyId(id(3))),
        tasks: vec![failed],
    };
    let expected = r#"{"data":{"id":"00000000-0000-0000-0000-000000000002","tag":null,"status":"error",
"created_at":"2026-01-05T09:00:00+00:00","started_at":"2026-01-05T09:00:00+00:00","ended_at":"2026-01-05T09:00:03+00:00",
"tasks":[{"id":"00000000-0000-0000-0000-000000000001","name":"save","job_id":"00000000-0000-0000-0000-000000000002",
"status":"error","credits":0,"code":"INPUT_TASK_FAILED","message":"Input task has failed","percent":100,
"operation":"import/url","result":null,
"created_at":"2026-01-05T09:00:00+00:00","started_at":"2026-01-05T09:00:02+00:00","ended_at":"2026-01-05T09:00:03+00:00",
"retry_of_task_id":null,"copy_of_task_id":null,"user_id":1,"priority":0,"host_name":"worker-1","storage":null,
"depends_on_task_ids":[],"links":{"self":"https://cc.example.test/v2/tasks/00000000-0000-0000-0000-000000000001"}}],
"links":{"self":"https://cc.example.test/v2/jobs/00000000-0000-0000-0000-000000000002"}}}"#;
    assert_eq!(String::from_utf8(data_bytes(&view().job(&job, true))).unwrap(), expected.replace('\n', ""));
    let without = serde_json::to_value(view().job(&job, false)).unwrap();
    assert!(without.get("tasks").is_none());
}

#[test]
fn the_java_client_reads_its_own_name_of_one_operation() {
    let task = Task { operation: "import/azure/blob".to_owned(), ..task() };
    assert_eq!(view().task(&task).operation, "import/azure/blob");
    assert_eq!(view().for_java().task(&task).operation, "import/azure-blob");
}

#[test]
fn a_retried_task_stays_in_processing() {
    let started = Task { started_at: Some(START), ..task() };
    for state in [State::Queued, State::Delayed, State::Running] {
        assert_eq!(view().task(&Task { state, ..started.clone() }).status, "processing");
    }
    for state in [State::Blocked, State::Queued, State::Uploading] {
        assert_eq!(view().task(&Task { state, ..task() }).status, "waiting");
    }
}
