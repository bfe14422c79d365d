//! `GET /`: what runs here, and where to go.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};

/// The look of this page and of the manual: small, and readable in light and dark.
pub(super) const STYLE: &str = include_str!("style.css");

/// Pages run no script and load nothing.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers with the page.
pub async fn handler() -> Response {
    let body = format!(
        "<header><h1>Consign</h1><p>Takes files in, works on them and delivers them.</p></header>\
         <p>Version {} is running.</p><nav><a href=\"/docs\">Manual of the API<small>every route, every argument</small></a>\
         <a href=\"/openapi.json\">OpenAPI document<small>for tools</small></a>\
         <a href=\"/readyz\">Readiness<small>database and file store</small></a>\
         <a href=\"/metrics\">Metrics<small>for Prometheus</small></a></nav>\
         <p>Make a key with <code>consign key create NAME</code>, then try:</p>\
         <pre>curl -H \"Authorization: Bearer $KEY\" \"$URL/v2/users/me\"</pre>",
        env!("CARGO_PKG_VERSION"),
    );
    page("Consign", &body)
}

/// A page of ours. `body` is HTML.
pub(super) fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>"
    );
    let mut response = Html(html).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
