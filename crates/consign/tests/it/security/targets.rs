//! Places to import from and deliver to that check credentials, and others that repeat whatever they are told.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::Response as Plain;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::net::TcpListener;

/// What the guarded file wants to be told.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) password: String,
    pub(super) token: String,
}

/// Starts a web server:
///
/// - `/guarded` gives a file to who has the token (header `x-token`) and the password (basic, of the user `ann`)
/// - `/hop` leads there with the password in the address, `/hop-put` with the same method, `/plain` takes and gives a file
/// - `/echo/{status}` refuses with all that it was told, as an S3 error whose texts are full of it
/// - `/echo-code/{status}` does so in the error's code and request id
/// - `/blobs/…` is a container of blobs that takes everything and holds one
/// - `/echo-json/{status}` does so as Google's API does
/// - `/google` is as much of Google's API as takes and gives one small file, to who has the token; it gives that out itself
/// - `/openstack` is a Keystone and a Swift that takes and gives one small file, to who has the password
/// - `/catalogue/{place}` is a Keystone whose catalogue leads to that place
/// - `/silent` never answers
pub(super) async fn web(wanted: Wanted) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = wanted.token.clone();
    let (password, keystone_token) = (wanted.password.clone(), wanted.token.clone());
    let router = Router::new()
        .route("/plain", any(async || "a file"))
        .route("/guarded", any(async move |headers: HeaderMap| guarded(&wanted, &headers)))
        .route(
            "/hop",
            any(async move |request: Request| {
                let query = request.uri().query().unwrap_or_default();
                let place = format!("http://ann:{query}@{address}/plain?signature={query}");
                (StatusCode::FOUND, [(header::LOCATION, place)])
            }),
        )
        .route(
            "/hop-put",
            any(async move |request: Request| {
                let query = request.uri().query().unwrap_or_default();
                let place = format!("http://ann:{query}@{address}/plain?signature={query}");
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)])
            }),
        )
        .route("/blobs/{*name}", any(blobs))
        .route("/silent", any(std::future::pending::<StatusCode>))
        .route("/silent/{*rest}", any(std::future::pending::<StatusCode>))
        .route("/echo/{status}", any(echo))
        .route("/echo/{status}/{*rest}", any(echo))
        .route("/echo-code/{status}/{*rest}", any(echo_code))
        .route("/echo-json/{status}/{*rest}", any(echo_json))
        .nest("/google", google(&token))
        .nest("/openstack", openstack(address, &password, &keystone_token))
        .route(
            "/catalogue/{place}/v3/auth/tokens",
            any(async move |Path(place): Path<String>| issued(&keystone_token, &place)),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A private key of a service account, just made.
pub(super) fn private_key() -> String {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let lines: Vec<String> = STANDARD
        .encode(der.as_ref())
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// A Keystone that wants the password, and the store of its catalogue, which wants the token. Below `/refusing` is a store
/// that repeats all that it is told.
fn openstack(address: SocketAddr, password: &str, token: &str) -> Router {
    let log_in = |store: &'static str| {
        // As it stands in JSON: quoted and escaped.
        let (password, token) = (json!(password).to_string(), token.to_owned());
        any(async move |body: String| {
            if body.contains(&password) {
                issued(&token, &format!("http://{address}{store}"))
            } else {
                let told = json!({"error": {"code": 401, "title": body, "message": body}});
                (StatusCode::UNAUTHORIZED, told.to_string()).into_response()
            }
        })
    };
    let wanted = token.to_owned();
    let store = any(async move |request: Request| {
        if request.headers().get("x-auth-token").is_none_or(|given| *given != wanted) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        match request.method().as_str() {
            "PUT" => {
                let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
                (StatusCode::CREATED, [("etag", testkit::bytes::digest(&body).md5)]).into_response()
            }
            "HEAD" => [(header::CONTENT_LENGTH, "16")].into_response(),
            _ => (StatusCode::PARTIAL_CONTENT, "bytes to deliver").into_response(),
        }
    });
    Router::new()
        .route("/v3/auth/tokens", log_in("/openstack/v1/AUTH_p"))
        .route("/refusing/v3/auth/tokens", log_in("/echo/400/v1/AUTH_p"))
        .route("/v1/{*rest}", store)
}

/// A token for a project, with a catalogue that has one region, `R`.
fn issued(token: &str, store: &str) -> Response {
    let endpoints = json!([{"interface": "public", "region": "R", "url": store}]);
    let catalog = json!([{"type": "object-store", "endpoints": endpoints}]);
    let body = json!({"token": {"project": {"id": "p"}, "catalog": catalog}}).to_string();
    (StatusCode::CREATED, [("x-subject-token", token)], body).into_response()
}

/// Starts a server that takes connections and says nothing.
pub(super) async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    address
}

fn guarded(wanted: &Wanted, headers: &HeaderMap) -> Response {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    let basic = format!("Basic {}", STANDARD.encode(format!("ann:{}", wanted.password)));
    if is("authorization", &basic) && is("x-token", &wanted.token) {
        "a guarded file".into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn blobs(request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if request.method() == "PUT" {
        StatusCode::CREATED.into_response()
    } else if query.contains("comp=list") {
        "<EnumerationResults><Blobs><Blob><Name>a/a.txt</Name><Properties><Content-Length>6</Content-Length></Properties>\
         </Blob></Blobs></EnumerationResults>"
            .into_response()
    } else {
        "a file".into_response()
    }
}

/// A token for everybody, and objects for who has it.
fn google(token: &str) -> Router {
    let bearer = format!("Bearer {token}");
    let issued = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).to_string();
    let guarded = |answer: Plain<String>| {
        let bearer = bearer.clone();
        any(async move |headers: HeaderMap| match headers.get("authorization") {
            Some(given) if *given == bearer => Ok(answer.clone()),
            _ => Err(StatusCode::UNAUTHORIZED),
        })
    };
    let accepted = bearer.clone();
    let object = json!({"name": "a/in.txt", "size": "16", "contentType": "text/plain"}).to_string();
    let range = Plain::builder().status(206).header("content-range", "bytes 0-15/16");
    Router::new()
        .route("/token", any(async move || issued))
        .route("/upload/{*rest}", any(async move |headers: HeaderMap, body: String| stored(&accepted, &headers, &body)))
        .route("/storage/{*rest}", guarded(Plain::new(object)))
        .route("/download/{*rest}", guarded(range.body("bytes to deliver".to_owned()).unwrap()))
}

/// Says how long the second part of a body is.
fn stored(bearer: &str, headers: &HeaderMap, body: &str) -> Response {
    if headers.get("authorization").is_none_or(|given| given != bearer) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let media = body.rsplit_once("\r\n--").and_then(|(parts, _)| parts.rsplit_once("\r\n\r\n")).unwrap().1;
    json!({"size": media.len().to_string()}).to_string().into_response()
}

fn status_of(request: &Request) -> StatusCode {
    request.uri().path().split('/').nth(2).unwrap().parse().unwrap()
}

fn told(request: &Request) -> String {
    let headers: Vec<String> =
        request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
    let text = format!("{} {}", request.uri(), headers.join(" "));
    text.replace('&', "&amp;").replace('<', "&lt;")
}

async fn echo(request: Request) -> Response {
    let told = told(&request);
    let body = format!(
        "<Error><Code>Odd</Code><Message>{told}</Message><StringToSign>{told}</StringToSign>\
         <AWSAccessKeyId>{told}</AWSAccessKeyId><RequestId>R</RequestId></Error>"
    );
    (status_of(&request), [("x-reason", "it was odd"), ("retry-after", "0")], body).into_response()
}

async fn echo_json(request: Request) -> Response {
    let headers = request.headers().iter();
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    let told = format!("{} {}", request.uri(), headers.join(" "));
    let body = json!({"error": {"message": told, "errors": [{"reason": told, "message": told}]}}).to_string();
    (status_of(&request), [("x-guploader-uploadid", told), ("retry-after", "0".to_owned())], body).into_response()
}

async fn echo_code(request: Request) -> Response {
    let token = request.headers().get("x-amz-security-token").map(|value| value.to_str().unwrap().to_owned());
    let token = token.unwrap_or_default();
    let body = format!("<Error><Code>{token}</Code><Message>no</Message><RequestId>{token}</RequestId></Error>");
    (status_of(&request), body).into_response()
}
