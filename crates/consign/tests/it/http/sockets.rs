//! What only a real connection shows: clients that leave in the middle, and clients that ask before they send.

use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use consign::config::Period;
use consign::http::access;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::app::{App, URL, holds_no_file};

async fn connected(app: &App) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app.router()).into_future());
    TcpSocket::new_v4().unwrap().connect(address).await.unwrap()
}

async fn answer_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A form's path, and its body up to the content of the file.
async fn form(app: &App) -> (String, String, String) {
    let task = app.post("/v2/import/upload", json!({})).await.json()["data"].clone();
    let form = &task["result"]["form"];
    let mut body = String::new();
    for (name, value) in form["parameters"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        body.push_str("--B\r\nContent-Disposition: form-data; name=\"");
        body.push_str(&[name, "\"\r\n\r\n", value, "\r\n"].concat());
    }
    body.push_str("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n");
    let path = form["url"].as_str().unwrap().strip_prefix(URL).unwrap().to_owned();
    (path, body, task["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_upload_whose_client_vanishes_leaves_nothing() {
    let app = App::new().await;
    let (path, body, task) = form(&app).await;
    let mut client = connected(&app).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 9000000\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    client.write_all(&vec![7; 3_000_000]).await.unwrap();
    let mut began = false;
    for _ in 0..100 {
        began |= !holds_no_file(&app.files_folder());
        tokio::time::sleep(Duration::from_millis(10)).await;
        if began {
            break;
        }
    }
    assert!(began, "the file is on its way to the disk");
    drop(client);
    let mut is_clean = false;
    for _ in 0..200 {
        is_clean = holds_no_file(&app.files_folder());
        if is_clean {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_clean, "nothing is left");
    assert_eq!(app.get(&format!("/v2/tasks/{task}")).await.json()["data"]["status"], "waiting");
}

#[tokio::test]
async fn a_client_that_sends_half_a_form_is_shown_out() {
    let app = App::with(|config| config.transfer.idle_timeout = Period::from_secs(1)).await;
    let (path, body, task) = form(&app).await;
    for sent in [body.len() / 2, body.len()] {
        let mut client = connected(&app).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 9000000\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body.as_bytes()[..sent]).await.unwrap();
        let head = tokio::time::timeout(Duration::from_secs(15), answer_head(&mut client)).await;
        let head = head.expect("it holds its place for ever");
        assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 5"), "{head}");
        assert!(holds_no_file(&app.files_folder()));
        assert_eq!(app.get(&format!("/v2/tasks/{task}")).await.json()["data"]["status"], "waiting");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_or_why_not() {
    let app = App::new().await;
    let (path, body, task) = form(&app).await;
    let content = "hello\r\n--B--\r\n";
    let length = body.len() + content.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut client = connected(&app).await;
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(answer_head(&mut client).await.starts_with("HTTP/1.1 100 Continue\r\n"));
    client.write_all(body.as_bytes()).await.unwrap();
    client.write_all(content.as_bytes()).await.unwrap();
    assert!(answer_head(&mut client).await.starts_with("HTTP/1.1 201 Created\r\n"));
    assert_eq!(app.get(&format!("/v2/tasks/{task}")).await.json()["data"]["status"], "finished");

    let mut client = connected(&app).await;
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(answer_head(&mut client).await.starts_with("HTTP/1.1 409 Conflict\r\n"), "it need not send anything");
}

#[tokio::test]
async fn a_panic_is_an_answer_without_details() {
    let app = App::new().await;
    let router = Router::new()
        .route("/panics", get(async || -> &'static str { panic!("a secret detail") }))
        .layer(from_fn_with_state(app.state.clone(), access::account));
    let reply = app.request("GET", "/panics").through(router).send().await;
    reply.fails(500, "INTERNAL");
    assert!(!reply.text().contains("secret"));
}
