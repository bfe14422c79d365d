//! Credentials do not leak: every operation is run with credentials that are easy to find again, well and badly, and
//! then everything that the server said, logged or stored is searched for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use consign::operations;
use practice::{Practice, Settings};
use serde_json::{Value, json};

use super::needles::Needle;
use super::program::{Program, Reply};
use super::targets::{self, Wanted};

/// How a case ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    Finished,
    /// The file is posted to the form, after a post with a forged signature.
    Uploaded,
    Error(&'static str),
    /// It is cancelled while it works or waits.
    Cancelled,
    /// The request is refused.
    Invalid,
}

/// One operation with arguments.
#[derive(Clone, Debug)]
struct Case {
    operation: &'static str,
    ends: Ends,
    args: Value,
}

/// Where the cases go to, and what they may not show.
struct Stage {
    web: SocketAddr,
    silent: SocketAddr,
    storages: Practice,
    /// Of a service account.
    google_key: String,
    password: Needle,
    token: Needle,
    query: Needle,
    wrong: Needle,
}

impl Stage {
    async fn set(folder: &std::path::Path) -> Self {
        let (password, token) = (Needle::new("the password"), Needle::new("the token"));
        let wanted = Wanted { password: password.text.clone(), token: token.text.clone() };
        let settings = Settings {
            secret_access_key: Some(password.text.clone()),
            password: Some(password.text.clone()),
            ..Settings::new(folder)
        };
        Self {
            web: targets::web(wanted).await,
            silent: targets::silent().await,
            storages: Practice::start(settings).await.unwrap(),
            google_key: targets::private_key(),
            password,
            token,
            query: Needle::plain("the query of a URL"),
            wrong: Needle::new("a wrong credential"),
        }
    }

    fn needles(&self) -> Vec<Needle> {
        let mut needles = vec![self.password.clone(), self.token.clone(), self.query.clone(), self.wrong.clone()];
        let lines = self.storages.private_key().lines().chain(self.google_key.lines());
        let lines = lines.filter(|line| line.len() > 20 && !line.contains("---"));
        needles.extend(lines.map(|line| Needle::of("the private key", line)));
        needles
    }

    fn cases(&self) -> Vec<Case> {
        let storages =
            [self.exports_to_s3(), self.exports_to_sftp(), self.azure(), self.google(), self.openstack()].concat();
        [self.imports(), self.uploads(), self.imports_like_exports(), storages, self.misplaced()].concat()
    }

    fn imports(&self) -> Vec<Case> {
        let (web, query) = (self.web, &self.query.text);
        let (password, wrong) = (self.password.in_url(), self.wrong.in_url());
        let with = |url: String| json!({"url": url, "headers": {"X-Token": self.token.text}});
        let upload = |redirect: Value| json!({"redirect": redirect});
        let far = format!("https://ann:{password}@files.example/?{query}#{query}");
        vec![
            case("import/url", Ends::Finished, with(format!("http://ann:{password}@{web}/guarded?{query}#{query}"))),
            case("import/url", Ends::Finished, with(format!("http://{web}/hop?{query}"))),
            case(
                "import/url",
                Ends::Error("INVALID_CREDENTIALS"),
                with(format!("http://ann:{wrong}@{web}/guarded?{query}")),
            ),
            case(
                "import/url",
                Ends::Error("ACCESS_DENIED"),
                with(format!("http://ann:{wrong}@{web}/echo/403?{query}")),
            ),
            case(
                "import/url",
                Ends::Error("REMOTE_UNAVAILABLE"),
                with(format!("http://ann:{wrong}@{web}/echo/500?{query}")),
            ),
            case("import/url", Ends::Error("HOST_NOT_ALLOWED"), with(format!("http://ann:{wrong}@10.0.0.1/?{query}"))),
            case("import/url", Ends::Cancelled, with(format!("http://ann:{wrong}@{web}/silent?{query}"))),
            case("import/url", Ends::Invalid, with(format!("ftp://ann:{wrong}@{web}/?{query}"))),
            case("import/url", Ends::Invalid, with(format!("ht tp://ann:{wrong}@{web}/?{query}"))),
            case("import/url", Ends::Invalid, json!({"url": [far], "headers": self.token.text})),
            case(
                "import/url",
                Ends::Invalid,
                json!({"url": far, "headers": {"a b": self.token.text, "c": [self.wrong.text]}}),
            ),
            case("import/upload", Ends::Uploaded, json!({})),
            case("import/upload", Ends::Cancelled, upload(json!(far))),
            case("import/upload", Ends::Invalid, upload(json!([far]))),
            case(
                "import/base64",
                Ends::Finished,
                json!({"file": "aGVsbG8=", "filename": "a.txt", "password": self.wrong.text}),
            ),
            case("import/base64", Ends::Invalid, json!({"file": self.wrong.text, "filename": "a.txt"})),
            case(
                "import/raw",
                Ends::Finished,
                json!({"file": "hello", "filename": "a.txt", "secret": {"a": self.wrong.text}}),
            ),
            case("import/raw", Ends::Invalid, json!({"file": {"a": self.wrong.text}, "filename": [self.wrong.text]})),
            case("export/url", Ends::Finished, json!({"password": [self.wrong.text]})),
            case("export/url", Ends::Invalid, json!({"inline": self.wrong.text})),
        ]
    }

    fn uploads(&self) -> Vec<Case> {
        let (web, query) = (self.web, &self.query.text);
        let (password, wrong) = (self.password.in_url(), self.wrong.in_url());
        let headers = json!({"X-Token": self.token.text, "X-Amz-Security-Token": self.token.text});
        let with = |url: String| json!({"url": url, "headers": headers});
        let to = |path: &str| with(format!("http://ann:{wrong}@{web}{path}?sig={query}"));
        vec![
            case("export/upload", Ends::Finished, with(format!("http://ann:{password}@{web}/guarded?sig={query}"))),
            case("export/upload", Ends::Finished, with(format!("http://{web}/hop-put?{query}"))),
            case("export/upload", Ends::Error("INVALID_CREDENTIALS"), to("/guarded")),
            case("export/upload", Ends::Error("REMOTE_PROTOCOL"), to("/hop")),
            case("export/upload", Ends::Error("REMOTE_REFUSED"), to("/echo/400")),
            case("export/upload", Ends::Error("ACCESS_DENIED"), to("/echo/403")),
            case("export/upload", Ends::Error("ACCESS_DENIED"), to("/echo-code/403/a")),
            case("export/upload", Ends::Error("REMOTE_UNAVAILABLE"), to("/echo/500")),
            case(
                "export/upload",
                Ends::Error("HOST_NOT_ALLOWED"),
                with(format!("http://ann:{wrong}@10.0.0.1/?{query}")),
            ),
            case("export/upload", Ends::Cancelled, to("/silent")),
            case("export/upload", Ends::Invalid, with(format!("ftp://ann:{wrong}@{web}/?{query}"))),
            case("export/upload", Ends::Invalid, json!({"url": [query], "headers": self.token.text})),
            case(
                "export/upload",
                Ends::Invalid,
                json!({"url": "http://a.example/", "headers": {"a b": self.wrong.text}}),
            ),
        ]
    }

    /// What goes wrong for an export does so for its import.
    fn imports_like_exports(&self) -> Vec<Case> {
        let storages = &self.storages;
        std::fs::create_dir_all(storages.sftp_root().join("a")).unwrap();
        std::fs::write(storages.sftp_root().join("a/seed.txt"), "a file").unwrap();
        std::fs::write(storages.bucket_folder().join("a%2Fseed.txt"), "a file").unwrap();
        let s3 = self.exports_to_s3().into_iter().flat_map(|export| {
            let mut one = Case { operation: "import/s3", ..export.clone() };
            let args = one.args.as_object_mut().unwrap();
            args.remove("key_prefix");
            args.insert("key".to_owned(), json!("a/seed.txt"));
            [one, Case { operation: "import/s3", ..export }]
        });
        let sftp = self.exports_to_sftp().into_iter().map(|export| Case { operation: "import/sftp", ..export });
        s3.chain(sftp).collect()
    }

    fn exports_to_s3(&self) -> Vec<Case> {
        let storages = &self.storages;
        let to = |endpoint: String, secret: &Needle| {
            json!({"endpoint": endpoint, "region": "us-east-1", "bucket": storages.bucket(), "key_prefix": "a/",
                "access_key_id": storages.access_key_id(), "secret_access_key": secret.text})
        };
        let with_token = |endpoint: String| {
            let mut args = to(endpoint, &self.password);
            args["session_token"] = json!(self.token.text);
            args
        };
        let (web, wrong, query) = (self.web, self.wrong.in_url(), &self.query.text);
        let here = storages.s3_endpoint();
        let mut faulty = with_token(here.clone());
        faulty["bucket"] = json!({"a": self.wrong.text});
        faulty["secret_access_key"] = json!([self.password.text]);
        let mut named_wrongly = to(here.clone(), &self.password);
        named_wrongly["secret_acces_key"] = json!(self.wrong.text);
        vec![
            case("export/s3", Ends::Finished, to(here.clone(), &self.password)),
            case("export/s3", Ends::Finished, named_wrongly),
            case("export/s3", Ends::Error("INVALID_CREDENTIALS"), to(here, &self.wrong)),
            case("export/s3", Ends::Error("REMOTE_REFUSED"), with_token(format!("http://{web}/echo/400"))),
            case("export/s3", Ends::Error("ACCESS_DENIED"), with_token(format!("http://{web}/echo-code/403"))),
            case("export/s3", Ends::Error("REMOTE_UNAVAILABLE"), with_token(format!("http://{web}/echo/500"))),
            case("export/s3", Ends::Error("HOST_NOT_ALLOWED"), with_token("http://10.0.0.1".to_owned())),
            case("export/s3", Ends::Error("INVALID_DATA"), with_token(format!("http://ann:{wrong}@{web}/?{query}"))),
            case("export/s3", Ends::Error("INVALID_DATA"), with_token(format!("ann:{wrong}@{web}/?{query}"))),
            case("export/s3", Ends::Error("INVALID_DATA"), with_token(format!("storage.example/?{query}"))),
            case("export/s3", Ends::Cancelled, with_token(format!("http://{web}/silent"))),
            case("export/s3", Ends::Invalid, faulty),
        ]
    }

    fn exports_to_sftp(&self) -> Vec<Case> {
        let storages = &self.storages;
        let to = |address: SocketAddr, field: &str, secret: &str| {
            json!({"host": address.ip().to_string(), "port": address.port(), "username": storages.username(),
                field: secret, "path": "a"})
        };
        let here = storages.sftp_addr();
        let broken = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", self.wrong.text);
        let mut elsewhere = to(here, "password", &self.password.text);
        elsewhere["host"] = json!(format!("ann:{}@127.0.0.1", self.wrong.text));
        let mut faulty = to(here, "password", &self.password.text);
        faulty["port"] = json!(self.wrong.text);
        faulty["private_key"] = json!({"a": self.wrong.text});
        vec![
            case("export/sftp", Ends::Finished, to(here, "password", &self.password.text)),
            case("export/sftp", Ends::Finished, to(here, "private_key", storages.private_key())),
            case("export/sftp", Ends::Error("INVALID_CREDENTIALS"), to(here, "password", &self.wrong.text)),
            case("export/sftp", Ends::Error("INVALID_CREDENTIALS"), to(here, "private_key", &broken)),
            case(
                "export/sftp",
                Ends::Error("HOST_NOT_ALLOWED"),
                to("10.0.0.1:22".parse().unwrap(), "password", &self.wrong.text),
            ),
            case("export/sftp", Ends::Error("INVALID_DATA"), elsewhere),
            case("export/sftp", Ends::Cancelled, to(self.silent, "password", &self.wrong.text)),
            case("export/sftp", Ends::Invalid, faulty),
        ]
    }

    fn azure(&self) -> Vec<Case> {
        let (web, wrong, query) = (self.web, self.wrong.in_url(), &self.query.text);
        let of = |endpoint: String, field: &str, secret: &str| {
            json!({"endpoint": endpoint, "storage_account": "acct", "container": "box", "blob_prefix": "a/",
                field: secret})
        };
        let key = STANDARD.encode(&self.password.text);
        let token = format!("?sv=2021-12-02&sp=rlcw&sig={}", self.token.in_url());
        let with_key = |path: &str| of(format!("http://{web}{path}"), "storage_access_key", &key);
        let with_token = |path: &str| of(format!("http://{web}{path}"), "sas_token", &token);
        let both = |endpoint: String| of(endpoint, "sas_token", &token);
        let mut faulty = with_key("/blobs");
        faulty["sas_token"] = json!({"a": self.wrong.text});
        let mut malformed = with_key("/blobs");
        malformed["storage_access_key"] = json!(self.wrong.text);
        let mut no_token = with_token("/blobs");
        no_token["sas_token"] = json!(self.wrong.text);
        ["import/azure/blob", "export/azure/blob"]
            .into_iter()
            .flat_map(|operation| {
                [
                    (Ends::Finished, with_key("/blobs")),
                    (Ends::Finished, with_token("/blobs")),
                    (Ends::Error("REMOTE_REFUSED"), with_token("/echo/400")),
                    (Ends::Error("ACCESS_DENIED"), with_token("/echo/403")),
                    (Ends::Error("ACCESS_DENIED"), with_key("/echo/403")),
                    (Ends::Error("REMOTE_UNAVAILABLE"), with_token("/echo/500")),
                    (Ends::Error("HOST_NOT_ALLOWED"), both("http://10.0.0.1".to_owned())),
                    (Ends::Error("INVALID_DATA"), both(format!("http://ann:{wrong}@{web}/"))),
                    (Ends::Error("INVALID_DATA"), both(format!("http://{web}/?{query}"))),
                    (Ends::Error("INVALID_CREDENTIALS"), malformed.clone()),
                    (Ends::Error("INVALID_CREDENTIALS"), no_token.clone()),
                    (Ends::Cancelled, with_token("/silent")),
                    (Ends::Invalid, faulty.clone()),
                ]
                .map(|(ends, args)| case(operation, ends, args))
            })
            .collect()
    }

    /// There is no practice server of this kind: a small one of ours takes and gives one file.
    fn google(&self) -> Vec<Case> {
        let (web, wrong, query) = (self.web, self.wrong.in_url(), &self.query.text);
        let of = |endpoint: String, token_uri: String, key: &str| {
            json!({"project_id": "p", "bucket": "b", "client_email": "me@project", "private_key": key, "file": "a/in.txt",
                "endpoint": endpoint, "token_uri": token_uri})
        };
        let (here, token) = (format!("http://{web}/google"), format!("http://{web}/google/token"));
        let at = |endpoint: String| of(endpoint, token.clone(), &self.google_key);
        let with = |token_uri: String| of(here.clone(), token_uri, &self.google_key);
        let broken = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", self.wrong.text);
        let mut faulty = at(here.clone());
        faulty["private_key"] = json!({"a": self.wrong.text});
        let each = |operation| {
            vec![
                case(operation, Ends::Finished, at(here.clone())),
                case(operation, Ends::Finished, of(here.clone(), token.clone(), &self.google_key.replace('\n', "\\n"))),
                case(operation, Ends::Error("INVALID_CREDENTIALS"), of(here.clone(), token.clone(), &self.wrong.text)),
                case(operation, Ends::Error("INVALID_CREDENTIALS"), of(here.clone(), token.clone(), &broken)),
                case(operation, Ends::Error("REMOTE_REFUSED"), at(format!("http://{web}/echo-json/400"))),
                case(operation, Ends::Error("INVALID_CREDENTIALS"), at(format!("http://{web}/echo-json/401"))),
                case(operation, Ends::Error("REMOTE_UNAVAILABLE"), at(format!("http://{web}/echo-json/500"))),
                case(operation, Ends::Error("INVALID_CREDENTIALS"), with(format!("http://{web}/echo-json/400/token"))),
                case(operation, Ends::Error("HOST_NOT_ALLOWED"), at("http://10.0.0.1".to_owned())),
                case(operation, Ends::Error("HOST_NOT_ALLOWED"), with("http://10.0.0.1".to_owned())),
                case(operation, Ends::Error("INVALID_DATA"), at(format!("http://ann:{wrong}@{web}/?{query}"))),
                case(operation, Ends::Error("INVALID_DATA"), with(format!("http://ann:{wrong}@{web}/?{query}"))),
                case(operation, Ends::Cancelled, with(format!("http://{web}/silent"))),
                case(operation, Ends::Invalid, faulty.clone()),
            ]
        };
        [each("export/google-cloud-storage"), each("import/google-cloud-storage")].concat()
    }

    /// A Keystone and a Swift that repeat what they are told.
    fn openstack(&self) -> Vec<Case> {
        let (web, wrong, query) = (self.web, self.wrong.in_url(), &self.query.text);
        let of = |auth_url: String, password: &str| {
            json!({"auth_url": auth_url, "username": "ann", "password": password, "region": "R", "container": "box",
                "file": "a/in.txt"})
        };
        let at = |path: &str| of(format!("http://{web}{path}"), &self.password.text);
        let mut credential = at("/openstack");
        credential["application_credential_id"] = json!("id");
        credential["application_credential_secret"] = json!(self.password.text);
        let mut wrong_credential = credential.clone();
        wrong_credential["application_credential_secret"] = json!(self.wrong.text);
        let mut faulty = at("/openstack");
        faulty["password"] = json!({"a": self.wrong.text});
        let each = |operation| {
            [
                (Ends::Finished, at("/openstack")),
                (Ends::Finished, at("/openstack/v3/")),
                (Ends::Finished, credential.clone()),
                (Ends::Error("INVALID_CREDENTIALS"), of(format!("http://{web}/openstack"), &self.wrong.text)),
                (Ends::Error("INVALID_CREDENTIALS"), wrong_credential.clone()),
                (Ends::Error("REMOTE_REFUSED"), at("/openstack/refusing")),
                (Ends::Error("REMOTE_UNAVAILABLE"), at("/echo/500")),
                (Ends::Error("HOST_NOT_ALLOWED"), of("http://10.0.0.1".to_owned(), &self.password.text)),
                (Ends::Error("INVALID_DATA"), of(format!("http://ann:{wrong}@{web}/openstack"), &self.password.text)),
                (Ends::Error("INVALID_DATA"), of(format!("http://{web}/openstack?{query}"), &self.password.text)),
                (Ends::Cancelled, at("/silent")),
                (Ends::Invalid, faulty.clone()),
            ]
            .map(|(ends, args)| case(operation, ends, args))
        };
        [each("export/openstack"), each("import/openstack")].concat()
    }

    /// Credentials in places where they have no business.
    fn misplaced(&self) -> Vec<Case> {
        let mut args = json!({"bucket": "b", "region": "r", "access_key_id": "k"});
        args["secret_access_key"] = json!(self.wrong.text.repeat(2));
        args["key"] = json!("k".repeat(2000));
        vec![case("export/s3", Ends::Invalid, args)]
    }
}

fn case(operation: &'static str, ends: Ends, args: Value) -> Case {
    Case { operation, ends, args }
}

/// The arguments of an operation that may hold a credential, by its schema.
fn secret_fields(entry: &operations::Entry) -> BTreeSet<String> {
    let schema = entry.schema().to_value();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let is_secret = |name: &str, field: &Value| {
        field.to_string().contains("\"writeOnly\":true")
            || matches!(name, "headers" | "endpoint" | "token_uri" | "redirect")
            || name.ends_with("url")
    };
    fields.filter(|(name, field)| is_secret(name, field)).map(|(name, _)| name.clone()).collect()
}

/// No operation, no way to end and no secret argument may be missing among the cases.
fn check_that_nothing_is_missing(cases: &[Case], needles: &[Needle]) {
    let known: BTreeSet<&str> = operations::all().map(|entry| entry.name).collect();
    assert!(cases.iter().all(|case| known.contains(case.operation)), "an operation is gone");
    for entry in operations::all() {
        let own: Vec<&Case> = cases.iter().filter(|case| case.operation == entry.name).collect();
        let some = |is: fn(&Ends) -> bool| own.iter().any(|case| is(&case.ends));
        assert!(some(|ends| matches!(ends, Ends::Finished | Ends::Uploaded)), "{}: no case ends well", entry.name);
        assert!(some(|ends| *ends == Ends::Invalid), "{}: no case is refused", entry.name);
        for field in secret_fields(entry) {
            assert!(some(|ends| *ends == Ends::Cancelled), "{}: no case is cancelled", entry.name);
            let is_tried = own.iter().filter(|case| case.ends != Ends::Invalid).any(|case| {
                let given = case.args[&field].to_string();
                needles.iter().any(|needle| needle.found_in(given.as_bytes()).is_some())
            });
            assert!(is_tried, "{}: no case puts a credential into `{field}`", entry.name);
        }
    }
}

/// A case that was accepted: its job, and the task that it is about.
struct Accepted {
    case: Case,
    job: String,
    task: String,
    form: Value,
}

fn job_of(case: &Case, webhook: &Needle) -> Value {
    let mut tasks = json!({"it": case.args});
    tasks["it"]["operation"] = json!(case.operation);
    if operations::find(case.operation).unwrap().feed == operations::Feed::Inputs {
        tasks["in"] = json!({"operation": "import/raw", "file": "bytes to deliver", "filename": "in.txt"});
        tasks["it"]["input"] = json!("in");
    }
    json!({"tag": "canary", "webhook_url": format!("https://ann:x@hooks.example/?{}", webhook.text), "tasks": tasks})
}

async fn create(program: &mut Program, case: Case, webhook: &Needle) -> Option<Accepted> {
    let job = job_of(&case, webhook);
    let reply = program.post("/v2/jobs", &job).await;
    if case.ends == Ends::Invalid {
        assert_eq!(reply.status, 422, "{case:?}: {reply:?}");
        let mut alone = case.args.clone();
        alone["input"] = json!("no-such-task");
        assert_eq!(program.post(&format!("/v2/{}", case.operation), &alone).await.status, 422);
        return None;
    }
    assert_eq!(reply.status, 201, "{case:?}: {reply:?}");
    let data = &reply.body["data"];
    let task = data["tasks"].as_array().unwrap().iter().find(|task| task["name"] == "it").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some(Accepted { job: text(&data["id"]), task: text(&task["id"]), form: task["result"]["form"].clone(), case })
}

/// Does what the client does before the task can end.
async fn accompany(program: &mut Program, it: &Accepted) {
    match it.case.ends {
        Ends::Uploaded => {
            let mut forged = it.form.clone();
            forged["parameters"]["X-Amz-Signature"] = json!("0".repeat(64));
            assert_eq!(post_form(program, &forged).await.status, 403);
            assert_eq!(post_form(program, &it.form).await.status, 201);
        }
        Ends::Cancelled => {
            let waits = it.case.operation == "import/upload";
            while !waits && program.get(&format!("/v2/tasks/{}", it.task)).await.body["data"]["status"] != "processing"
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let cancelled = program.post(&format!("/v2/tasks/{}/cancel", it.task), &json!({})).await;
            assert_eq!(cancelled.body["data"]["code"], "CANCELLED", "{cancelled:?}");
        }
        Ends::Finished | Ends::Error(_) | Ends::Invalid => {}
    }
}

async fn post_form(program: &mut Program, form: &Value) -> Reply {
    let field = |(name, value): (&String, &Value)| {
        let value = value.as_str().unwrap();
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let mut body = form["parameters"].as_object().unwrap().iter().map(field).collect::<String>();
    body += "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--B--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=B")];
    program.ask_with(Method::POST, form["url"].as_str().unwrap(), body.as_bytes(), &headers).await
}

/// Waits for the end and looks at it from all sides; makes the task again.
async fn end(program: &mut Program, it: &Accepted) -> Option<String> {
    program.get(&format!("/v2/jobs/{}/wait", it.job)).await;
    let shown = program.get(&format!("/v2/tasks/{}?include=payload,retries,depends_on_tasks,job", it.task)).await.body;
    let (status, code) = match it.case.ends {
        Ends::Finished | Ends::Uploaded => ("finished", Value::Null),
        Ends::Error(code) => ("error", json!(code)),
        Ends::Cancelled => ("error", json!("CANCELLED")),
        Ends::Invalid => unreachable!("it was refused"),
    };
    assert_eq!((&shown["data"]["status"], &shown["data"]["code"]), (&json!(status), &code), "{:?}: {shown}", it.case);
    assert!(shown["data"]["payload"].is_object(), "{shown}");
    if matches!(it.case.ends, Ends::Cancelled | Ends::Uploaded) {
        return None;
    }
    let again = program.post(&format!("/v2/tasks/{}/retry", it.task), &json!({})).await;
    assert_eq!(again.status, 201, "{again:?}");
    again.body["data"]["id"].as_str().map(str::to_owned)
}

/// Tries the destination of a case, over the API and on the command line.
async fn try_destination(program: &mut Program, folder: &std::path::Path, case: &Case) {
    if !operations::find(case.operation).unwrap().has_destination() {
        return;
    }
    let mut task = case.args.clone();
    task["operation"] = json!(case.operation);
    if case.ends == Ends::Cancelled {
        // It hangs; the client goes away.
        let test = program.post("/v2/destinations/test", &task);
        assert!(tokio::time::timeout(Duration::from_secs(1), test).await.is_err(), "{case:?}");
        return;
    }
    let reply = program.post("/v2/destinations/test", &task).await;
    match case.ends {
        Ends::Invalid => assert_eq!(reply.status, 422, "{case:?}: {reply:?}"),
        Ends::Finished => assert_eq!(reply.body["data"]["ok"], json!(true), "{case:?}: {reply:?}"),
        Ends::Error(code) => {
            assert_eq!((reply.status, &reply.body["data"]["ok"]), (200, &json!(false)), "{case:?}: {reply:?}");
            let mut steps = reply.body["data"]["steps"].as_array().unwrap().iter();
            assert!(steps.any(|step| step["code"] == code), "{case:?}: {reply:?}");
        }
        Ends::Uploaded | Ends::Cancelled => unreachable!("no such case has a destination"),
    }
    let file = folder.join("task.json");
    std::fs::write(&file, task.to_string()).unwrap();
    program.run(&["doctor", "--destination", file.to_str().unwrap()], &[]).await;
    program.run(&["doctor", "--json", "--destination", file.to_str().unwrap()], &[]).await;
}

/// What is not about one task: replays, lists, pages, wrong bodies, the command line.
async fn look_around(program: &mut Program, stage: &Stage, cases: &[Case], webhook: &Needle) {
    let job = job_of(cases.iter().find(|case| case.operation == "export/s3").unwrap(), webhook).to_string();
    for (status, body) in [(201, job.clone()), (201, job.clone()), (422, job.replace("canary", "other"))] {
        let headers = [("idempotency-key", "once")];
        let reply = program.ask_with(Method::POST, "/v2/jobs", body.as_bytes(), &headers).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    let broken = format!("{{\"tasks\": {{\"a\": {{\"password\": \"{}\" \"x\"", stage.query.text);
    assert_eq!(program.ask(Method::POST, "/v2/jobs", broken.as_bytes()).await.status, 400);
    let key = program.key.clone();
    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/readyz",
        "/healthz",
        "/metrics",
        "/v2/users/me",
        "/v2/operations?include=options",
        "/v2/jobs?include=tasks&per_page=250",
        &format!("/v2/jobs?filter[access_token]={key}&per_page=2"),
        "/v2/tasks?include=payload,retries,job,depends_on_tasks&per_page=250",
    ] {
        assert_eq!(program.get(&path.replace('[', "%5B").replace(']', "%5D")).await.status, 200, "{path}");
    }
    program.get(&format!("/v2/nothing/{}?x={}", stage.query.text, stage.query.text)).await;
    program.run(&["doctor"], &[]).await;
    program.run(&["key", "list"], &[]).await;
    let wrong = &stage.query.text;
    program.run(&["doctor"], &[("CONSIGN_SECRET_KEY", wrong.clone())]).await;
    program.run(&["doctor"], &[("CONSIGN_SECRET_KEY", format!("{{a = \"{wrong}\"}}"))]).await;
    program
        .run(&["doctor"], &[("CONSIGN_DATABASE_URL", format!("postgres://ann:{wrong}@db.example/x?a={wrong}"))])
        .await;
    program.run(&["doctor"], &[("CONSIGN_FILES_URL", format!("s3://bucket/x?key={wrong}"))]).await;
    program.run(&["doctor"], &[("CONSIGN_PUBLIC_URL", format!("ftp://ann:{wrong}@x.example/?{wrong}"))]).await;
}

/// Has webhooks told of everything, and gives what must not come to light of them. Only the answers that are meant to hold
/// a secret are forgotten.
async fn listen(program: &mut Program, stage: &Stage) -> Vec<Needle> {
    let address = Needle::plain("the address of a webhook of a user");
    let mut needles = vec![address.clone()];
    for path in ["/echo/500", "/echo/403", "/hop"] {
        let url = format!("http://ann:{0}@{1}{path}?{0}", address.text, stage.web);
        let asked = json!({"url": url, "events": ["job.created", "job.finished", "job.failed"]});
        let reply = program.post("/v2/webhooks", &asked).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        program.heard.pop();
        needles.push(Needle::of("a signing secret", reply.body["data"]["signing_secret"].as_str().unwrap()));
    }
    assert_eq!(program.get("/v2/users/me/webhooks").await.status, 200);
    program.heard.pop();
    program.run(&["webhook-secret"], &[]).await;
    let printed = program.heard.remove(program.heard.len() - 2);
    needles.push(Needle::of("the secret of the webhooks of jobs", String::from_utf8(printed.1).unwrap().trim()));
    needles
}

/// Looks at what webhooks were told.
async fn look_at_deliveries(program: &mut Program, job: &str) {
    let log = format!("/v2/jobs/{job}/deliveries");
    let mut shown = program.get(&log).await.body;
    while shown["data"].as_array().unwrap().iter().any(|delivery| delivery["attempts"] == json!([])) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shown = program.get(&log).await.body;
    }
    assert!(shown["data"].as_array().is_some_and(|deliveries| deliveries.len() >= 7), "{shown}");
    let id = shown["data"][0]["id"].as_str().unwrap();
    assert_eq!(program.post(&format!("/v2/deliveries/{id}/redeliver"), &json!({})).await.status, 202);
    for webhook in 1..=3 {
        program.get(&format!("/v2/webhooks/{webhook}/deliveries?per_page=250")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_comes_to_light() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set(&folder.path().join("storages")).await;
    let (webhook, environment) = (Needle::plain("the address of a webhook"), Needle::plain("CONSIGN_KEY"));
    let secret_key = consign::secret::Vault::generate();
    let mut needles = stage.needles();
    let cases = stage.cases();
    check_that_nothing_is_missing(&cases, &needles);

    let allowed = [stage.web, stage.silent, stage.storages.s3_addr(), stage.storages.sftp_addr()];
    let settings = vec![
        ("CONSIGN_EGRESS__ALLOW", allowed.map(|address| address.to_string()).join(",")),
        ("CONSIGN_LOG__LEVEL", "trace".to_owned()),
        ("CONSIGN_LOG__JSON", "true".to_owned()),
        ("CONSIGN_LIMITS__ATTEMPTS_MAX", "2".to_owned()),
        ("CONSIGN_TRANSFER__TRIES", "2".to_owned()),
        ("CONSIGN_SECRET_KEY", secret_key.clone()),
        ("CONSIGN_KEY", environment.text.clone()),
    ];
    let mut program = Program::start(folder.path(), settings).await;
    needles.extend([webhook.clone(), environment, Needle::of("the server's secret key", &secret_key)]);
    needles.push(Needle::of("the API key", &program.key));

    needles.extend(listen(&mut program, &stage).await);
    let mut accepted = Vec::new();
    for case in cases.clone() {
        accepted.extend(create(&mut program, case, &webhook).await);
    }
    for it in &accepted {
        accompany(&mut program, it).await;
    }
    let mut repeated = Vec::new();
    for it in &accepted {
        repeated.extend(end(&mut program, it).await);
    }
    for task in &repeated {
        program.get(&format!("/v2/tasks/{task}/wait?include=payload,retries,depends_on_tasks,job")).await;
    }
    for case in &cases {
        try_destination(&mut program, folder.path(), case).await;
    }
    look_around(&mut program, &stage, &cases, &webhook).await;
    look_at_deliveries(&mut program, &accepted[0].job).await;
    program.read_disk("with all tasks in it").await;
    for it in &accepted {
        assert_eq!(program.ask(Method::DELETE, &format!("/v2/jobs/{}", it.job), b"").await.status, 204);
        program.get(&format!("/v2/tasks/{}?include=payload", it.task)).await;
    }
    program.get("/metrics").await;
    program.read_disk("after all was deleted").await;
    program.kill().await;
    program.read_disk("after the server was killed").await;

    let mut found = BTreeMap::new();
    for (place, hay) in &program.heard {
        for needle in &needles {
            if let Some(form) = needle.found_in(hay) {
                let shown = around(hay, needle);
                found
                    .entry((place, needle.name))
                    .or_insert_with(|| format!("{place}: {} ({form}): {shown}", needle.name));
            }
        }
    }
    let log = program.heard.iter().rfind(|(place, _)| place.starts_with("the log")).unwrap();
    assert!(memchr::memmem::find(&log.1, b"\"DEBUG\"").is_some(), "the log has no debug lines");
    assert!(program.heard.len() > 300, "only {} answers and files were searched", program.heard.len());
    let found: Vec<String> = found.into_values().collect();
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
}

/// What stands around a finding, for the report.
fn around(hay: &[u8], needle: &Needle) -> String {
    let at = needle.place_in(hay).unwrap_or(0);
    let part = &hay[at.saturating_sub(160)..hay.len().min(at + 60)];
    String::from_utf8_lossy(part).into_owned()
}
