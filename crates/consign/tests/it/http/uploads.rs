//! The upload form: every field tampered with, every way to fail, and the answers that clients expect.

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::app::{App, Reply, URL, holds_no_file};

const CONTENT: &[u8] = b"The quick brown fox jumps over the lazy dog";
const MD5: &str = "9e107d9d372bb6826bd81d3542a419d6";

/// A form as a client got it.
struct Form {
    path: String,
    task: String,
    fields: Vec<(String, String)>,
}

async fn form(app: &App, args: Value) -> Form {
    let made = app.post("/v2/import/upload", args).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let task = made.json()["data"].clone();
    let form = &task["result"]["form"];
    let fields = form["parameters"].as_object().unwrap();
    Form {
        path: form["url"].as_str().unwrap().strip_prefix(URL).unwrap().to_owned(),
        task: task["id"].as_str().unwrap().to_owned(),
        fields: fields.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
    }
}

impl Form {
    fn body(&self, filename: &str, content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in &self.fields {
            body.extend_from_slice(
                format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
            );
        }
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--B--\r\n");
        body
    }

    async fn post(&self, app: &App, body: impl Into<Body>) -> Reply {
        let request = app.request("POST", &self.path).anonymous();
        request.header("content-type", "multipart/form-data; boundary=B").body(body).send().await
    }

    async fn status(&self, app: &App) -> String {
        let task = app.get(&format!("/v2/tasks/{}", self.task)).await.json();
        task["data"]["status"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_upload_finishes_its_task_and_answers_like_an_s3_store() {
    let app = App::new().await;
    let form = form(&app, json!({})).await;
    let reply = form.post(&app, form.body("dir/a b é.txt", CONTENT)).await;
    let (task, place) = (&form.task, format!("{URL}/upload/{}/a%20b%20%C3%A9.txt", form.task));
    assert_eq!(
        reply.text(),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Bucket>tasks</Bucket><Key>{task}/a b é.txt</Key>\
             <ETag>&#34;{MD5}&#34;</ETag><Location>{place}</Location></PostResponse>"
        )
    );
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("content-type"), "application/xml");
    assert_eq!((reply.header("etag"), reply.header("location")), (format!("\"{MD5}\"").as_str(), place.as_str()));
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    let shown = app.get(&format!("/sync/v2/tasks/{task}")).await.json()["data"].clone();
    assert_eq!(shown["status"], "finished");
    assert_eq!(shown["result"], json!({"files": [{"filename": "a b é.txt", "size": CONTENT.len()}]}));
    let again = form.post(&app, form.body("b.txt", CONTENT)).await;
    again.fails(409, "UPLOAD_CLOSED");
}

#[tokio::test]
async fn a_redirect_sends_the_browser_on() {
    let app = App::new().await;
    let form = form(&app, json!({"redirect": "https://shop.example.test/thanks?id=1"})).await;
    let reply = form.post(&app, form.body("a.txt", CONTENT)).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "https://shop.example.test/thanks?id=1"));
    assert_eq!(form.status(&app).await, "finished");
}

#[tokio::test]
async fn every_field_must_be_there_and_unchanged() {
    let app = App::new().await;
    let mut form = form(&app, json!({})).await;
    let genuine = form.fields.clone();
    for index in 0..genuine.len() {
        for value in ["", "x", &format!("{}x", genuine[index].1)] {
            let is_key = genuine[index].0 == "key";
            if is_key && value.ends_with("}x") {
                continue;
            }
            form.fields = genuine.clone();
            form.fields[index].1 = value.to_owned();
            form.post(&app, form.body("a.txt", CONTENT)).await.fails(403, "LINK_INVALID");
        }
        form.fields = genuine.clone();
        form.fields.remove(index);
        form.post(&app, form.body("a.txt", CONTENT)).await.fails(403, "LINK_INVALID");
    }
    let policy = genuine.iter().position(|(name, _)| name == "Policy").unwrap();
    let plain = base64::engine::general_purpose::STANDARD.decode(&genuine[policy].1).unwrap();
    let later = String::from_utf8(plain).unwrap().replace("2026-01-05T21", "2036-01-05T21");
    form.fields = genuine.clone();
    form.fields[policy].1 = base64::engine::general_purpose::STANDARD.encode(later);
    form.post(&app, form.body("a.txt", CONTENT)).await.fails(403, "LINK_INVALID");
    assert_eq!(form.status(&app).await, "waiting");
    assert!(holds_no_file(&app.files_folder()));

    form.fields = genuine;
    form.fields
        .iter_mut()
        .filter(|(name, _)| name == "key")
        .for_each(|(_, key)| *key = key.replace("${filename}", "z.txt"));
    form.fields.push(("submit".to_owned(), "Send".to_owned()));
    assert_eq!(form.post(&app, form.body("a.txt", CONTENT)).await.status, 201, "a harmless difference");
}

#[tokio::test]
async fn a_form_works_for_its_own_task_and_only_until_it_expires() {
    let app = App::new().await;
    let (one, other) = (form(&app, json!({})).await, form(&app, json!({})).await);
    let mixed = Form { path: other.path.clone(), task: other.task.clone(), fields: one.fields.clone() };
    mixed.post(&app, mixed.body("a.txt", CONTENT)).await.fails(403, "LINK_INVALID");
    let unknown = Form { path: "/upload/00000000-0000-0000-0000-000000000001".to_owned(), ..one };
    unknown.post(&app, unknown.body("a.txt", CONTENT)).await.fails(404, "NOT_FOUND");
    let import = app.post("/v2/import/url", json!({"url": "http://h.test/x"})).await.json()["data"]["id"].clone();
    let wrong = Form { path: format!("/upload/{}", import.as_str().unwrap()), ..unknown };
    wrong.post(&app, wrong.body("a.txt", CONTENT)).await.fails(404, "NOT_FOUND");
    app.clock.advance(app.state.config.limits.upload_lifetime.0);
    other.post(&app, other.body("a.txt", CONTENT)).await.fails(403, "LINK_INVALID");
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing_and_the_form_still_works() {
    let app = App::new().await;
    let form = form(&app, json!({})).await;
    let whole = form.body("a.txt", &vec![7; 300_000]);
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let broken = stream::iter([Ok(half.clone()), Err(std::io::Error::other("reset"))]);
    form.post(&app, Body::from_stream(broken)).await.fails(400, "BAD_REQUEST");
    form.post(&app, half).await.fails(400, "BAD_REQUEST");
    assert_eq!(form.status(&app).await, "waiting");
    assert!(holds_no_file(&app.files_folder()));
    let pieces =
        whole.chunks(1000).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
    assert_eq!(form.post(&app, Body::from_stream(stream::iter(pieces))).await.status, 201, "chunked, without a length");
    let task = app.state.store.task_of_link(form.task.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(task.files[0].size, 300_000);
}

#[tokio::test]
async fn of_two_uploads_at_once_one_wins_and_the_other_leaves_nothing() {
    let app = App::new().await;
    let form = form(&app, json!({})).await;
    let posts = (0..4).map(|number| form.post(&app, form.body("a.txt", &vec![number; 100_000])));
    let replies = futures_util::future::join_all(posts).await;
    let won = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(won, 1);
    assert!(replies.iter().all(|reply| matches!(reply.status.as_u16(), 201 | 409)));
    let folder = app.files_folder().join(&form.task);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "one attempt's folder");
}

#[tokio::test]
async fn sizes_and_shapes_are_bounded() {
    let app = App::with(|config| config.limits.file_bytes_max = "1KiB".parse().unwrap()).await;
    let mut form = form(&app, json!({})).await;
    form.post(&app, form.body("a.txt", &[0; 2000])).await.fails(413, "PAYLOAD_TOO_LARGE");
    let announced = app.request("POST", &form.path).header("content-length", "99999999999");
    announced.header("content-type", "multipart/form-data; boundary=B").send().await.fails(413, "PAYLOAD_TOO_LARGE");
    app.request("POST", &form.path).header("content-type", "text/plain").send().await.fails(400, "BAD_REQUEST");
    form.post(&app, "--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--B--\r\n")
        .await
        .fails(400, "BAD_REQUEST");
    let genuine = form.fields.clone();
    form.fields.insert(0, ("long".to_owned(), "x".repeat(70_000)));
    form.post(&app, form.body("a.txt", CONTENT)).await.fails(400, "BAD_REQUEST");
    form.fields = genuine.clone();
    form.fields.extend((0..80).map(|number| (format!("f{number}"), String::new())));
    form.post(&app, form.body("a.txt", CONTENT)).await.fails(400, "BAD_REQUEST");
    form.fields = genuine;
    assert_eq!(form.status(&app).await, "waiting");
    assert_eq!(form.post(&app, form.body("", &[0; 1024])).await.status, 201, "exactly the limit");
    let task = app.get(&format!("/v2/tasks/{}", form.task)).await.json();
    assert_eq!(task["data"]["result"]["files"][0]["filename"], "file");
}

#[tokio::test]
async fn browsers_of_any_origin_may_post() {
    let app = App::new().await;
    let form = form(&app, json!({})).await;
    let asked = app.request("OPTIONS", &form.path).anonymous().header("origin", "https://shop.example.test");
    let asked = asked.header("access-control-request-method", "POST").header("access-control-request-headers", "x-a");
    let reply = asked.send().await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert!(reply.header("access-control-allow-methods").contains("POST"));
    assert_eq!(reply.header("access-control-allow-headers"), "x-a");
}

#[tokio::test]
async fn a_redirect_after_an_upload_is_a_web_address_or_none() {
    let app = App::new().await;
    for (redirect, sent_to) in [
        ("https://example.com/done", Some("https://example.com/done")),
        ("https://example.com/ü\r\nx: y", Some("https://example.com/%C3%BCx:%20y")),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("done", None),
    ] {
        let form = form(&app, json!({ "redirect": redirect })).await;
        let reply = form.post(&app, form.body("a.txt", CONTENT)).await;
        let target = (reply.status == 303).then(|| reply.header("location"));
        assert_eq!(target, sent_to, "{redirect}: {}", reply.text());
        assert_eq!(reply.status, if sent_to.is_some() { 303 } else { 201 }, "{redirect}");
    }
}

#[tokio::test]
async fn the_name_given_at_creation_wins_over_the_posted_one() {
    let app = App::new().await;
    let form = form(&app, json!({ "filename": "over.bin" })).await;
    assert_eq!(form.post(&app, form.body("a.txt", CONTENT)).await.status, 201);
    let task = app.get(&format!("/v2/tasks/{}", form.task)).await.json();
    assert_eq!(task["data"]["result"]["files"][0]["filename"], "over.bin");
}

#[tokio::test]
async fn a_form_of_endless_fields_is_refused() {
    let app = App::new().await;
    let form = form(&app, json!({})).await;
    let field = "--B\r\nContent-Disposition: form-data; name=\"acl\"\r\n\r\nprivate\r\n";
    let reply = form.post(&app, format!("{}--B--\r\n", field.repeat(200))).await;
    assert!(reply.fails(400, "BAD_REQUEST")["message"].as_str().unwrap().contains("too many fields"));
}
