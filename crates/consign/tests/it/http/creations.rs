//! Making jobs and tasks: what is accepted, and every fault by its path.

use serde_json::{Value, json};

use super::app::App;

#[tokio::test]
async fn a_job_is_answered_with_its_tasks_in_order() {
    let app = App::new().await;
    let body = json!({"tag": "t", "webhook_url": null, "tasks": {
        "save": {"operation": "export/url", "input": ["b", "a", "b"], "ignore_error": true},
        "b": {"operation": "import/url", "url": "http://invalid.url", "name": "ignored"},
        "a": {"operation": "import/upload"},
    }});
    let reply = app.post("/v2/jobs", body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert!(reply.text().starts_with("{\"data\":{\"id\":\"") && reply.text().ends_with("}}"));
    let job = reply.json()["data"].clone();
    assert_eq!((&job["tag"], &job["status"]), (&json!("t"), &json!("waiting")));
    let tasks = job["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["save", "b", "a"]);
    assert_eq!(tasks[0]["depends_on_task_ids"], json!([tasks[1]["id"], tasks[2]["id"]]));
    assert!(tasks.iter().all(|task| task["status"] == "waiting" && task["job_id"] == job["id"]));
    assert_eq!(tasks[2]["message"], "Waiting for file upload");
    let shown = app.get(&format!("/v2/jobs/{}", job["id"].as_str().unwrap())).await;
    assert_eq!(shown.json()["data"], job);
}

#[tokio::test]
async fn what_clients_send_besides_is_accepted() {
    let app = App::new().await;
    for body in [
        r#"{"tasks":{"a":{"operation":"import/upload"}},"tag":"","webhook_url":""}"#,
        r#"{"tasks":{"a":{"operation":"import/url","url":"http://h/x","headers":[]}}}"#,
        r#"{"tasks":{"a":{"operation":"import/upload"},"b":{"operation":"export/url","input":"a","ignore_error":"false"}}}"#,
        r#"{"tasks":{"a":{"operation":"import/upload"}},"tag":7,"redirect":false,"unknown":[1]}"#,
    ] {
        let reply = app.request("POST", "/v2/jobs").body(body).send().await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.text());
        assert!(reply.json()["data"]["tag"] != "");
    }
    for body in ["", "{}", "[]", " \n", r#"{"operation":"import/url","name":"x"}"#] {
        let reply = app.request("POST", "/v2/import/upload").body(body.to_owned()).send().await;
        assert_eq!(reply.status, 201, "{body:?}: {}", reply.text());
        assert!(reply.json()["data"].get("name").is_none());
        assert_eq!(reply.json()["data"]["job_id"], Value::Null);
    }
}

#[tokio::test]
async fn a_job_without_tasks_is_refused_in_the_words_of_the_contract() {
    let app = App::new().await;
    for body in ["{}", "", r#"{"tasks":[],"tag":null,"webhook_url":null}"#, r#"{"tasks":{}}"#, r#"{"tasks":null}"#] {
        let reply = app.request("POST", "/v2/jobs").body(body).send().await;
        assert_eq!(reply.status, 422);
        assert_eq!(
            reply.text(),
            r#"{"message":"The given data was invalid.","code":"INVALID_DATA","errors":{"tasks":["The tasks field is required."]}}"#
        );
    }
}

#[tokio::test]
async fn all_faults_of_all_tasks_come_at_once_by_path() {
    let app = App::new().await;
    let body = json!({"tag": ["x"], "webhook_url": "ftp://h", "tasks": {
        "bad name": {"operation": "import/upload"},
        "a": {"operation": "import/url"},
        "b": {"operation": "import/urll", "url": "http://h"},
        "c": {"input": "a"},
        "d": {"operation": "export/url", "input": "nobody"},
        "e": {"operation": "export/url"},
        "f": {"operation": "export/url", "input": ["g"]},
        "g": {"operation": "export/url", "input": ["f"]},
        "h": {"operation": "export/url", "input": [1]},
        "i": 7,
        "j": {"operation": "export/url", "input": "a", "ignore_error": "maybe"},
        "k": {"operation": "export/url", "input": "k"},
    }});
    let errors = app.post("/v2/jobs", body).await.fails(422, "INVALID_DATA")["errors"].clone();
    let fields: Vec<&str> = errors.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "tag",
            "tasks.a.url",
            "tasks.b.operation",
            "tasks.bad name",
            "tasks.c.operation",
            "tasks.d.input",
            "tasks.e.input",
            "tasks.f.input",
            "tasks.g.input",
            "tasks.h.input",
            "tasks.i",
            "tasks.j.ignore_error",
            "tasks.k.input",
            "webhook_url",
        ]
    );
    assert!(errors.as_object().unwrap().values().all(|list| list.as_array().unwrap().iter().all(Value::is_string)));
    assert_eq!(errors["tasks.b.operation"][0], "The selected operation is invalid. Did you mean import/url?");
    let listed = app.get("/v2/jobs").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 0, "nothing was stored");
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let app = App::new().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["{", "nul", "7", "[1]", "\"x\"", deep.as_str()] {
        app.request("POST", "/v2/jobs").body(body.to_owned()).send().await.fails(400, "BAD_REQUEST");
    }
    app.request("POST", "/v2/jobs").body(vec![b'{', b'"', 0xff, b'"', b'}']).send().await.fails(400, "BAD_REQUEST");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let app = App::with(|config| config.limits.request_bytes_max = "1KiB".parse().unwrap()).await;
    let body = format!("{{\"tag\":\"{}\"}}", "x".repeat(2000));
    app.request("POST", "/v2/jobs").body(body.clone()).send().await.fails(413, "PAYLOAD_TOO_LARGE");
    let announced = app.request("POST", "/v2/jobs").header("content-length", "99999").body(body);
    announced.send().await.fails(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn the_number_of_tasks_is_bounded() {
    let app = App::with(|config| config.limits.tasks_per_job_max = 2).await;
    let tasks: Value = (0..3)
        .map(|n| (n.to_string(), json!({"operation": "import/upload"})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let errors = app.post("/v2/jobs", json!({"tasks": tasks})).await.fails(422, "INVALID_DATA");
    assert_eq!(errors["errors"]["tasks"][0], "The tasks may not have more than 2 items.");
}

#[tokio::test]
async fn unknown_arguments_are_warned_of() {
    let app = App::new().await;
    let task = app.post("/v2/import/url", json!({"url": "http://h/x", "colour": 1})).await.json();
    assert!(task["data"]["warnings"][0].as_str().unwrap().contains("colour"), "{task}");
    assert_eq!(task["data"].as_object().unwrap().keys().next_back().unwrap(), "warnings");
    let fine = app.post("/v2/import/url", json!({"url": "http://h/x"})).await.json();
    assert!(fine["data"].get("warnings").is_none());
}

#[tokio::test]
async fn an_idempotency_key_makes_one_job_of_many_requests() {
    let app = App::new().await;
    let body = r#"{"tasks":{"a":{"operation":"import/upload"}}}"#;
    let send = |body: &'static str, key: &str| {
        app.request("POST", "/v2/jobs").header("idempotency-key", key).body(body).send()
    };
    let first = send(body, "k").await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    let again = send(body, "k").await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(again.body, first.body);
    let other = send(r#"{"tasks":{"b":{"operation":"import/upload"}}}"#, "k").await.fails(422, "INVALID_DATA");
    assert!(other["errors"]["Idempotency-Key"].is_array());
    assert_ne!(send(body, "k2").await.body, first.body);
    let task = app.request("POST", "/v2/import/upload").header("idempotency-key", "k").body("{}").send().await;
    assert_eq!(task.status, 422, "another path is another request");
    let racing = futures_util::future::join_all((0..8).map(|_| send(body, "race"))).await;
    assert!(racing.iter().all(|reply| reply.status == 201 && reply.body == racing[0].body));
    assert_eq!(racing.iter().filter(|reply| reply.header("idempotent-replayed").is_empty()).count(), 1);
    assert_eq!(app.get("/v2/jobs").await.json()["data"].as_array().unwrap().len(), 3);
    assert_ne!(send(body, "").await.body, first.body, "an empty key is none");
    send(body, &"k".repeat(256)).await.fails(422, "INVALID_DATA");
}
