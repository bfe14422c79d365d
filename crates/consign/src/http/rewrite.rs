//! Brings the many ways in which clients name a path to one: prefixes that SDKs make up, absolute targets as sent to
//! a proxy, slashes too many; and finds out whether the request waits.

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::{PathAndQuery, Uri};

use uuid::Uuid;

use super::extract::Waits;

/// Prefixes that stand for `/v2`, and whether they wait. The last two are what region-string concatenation yields.
const PREFIXES: [(&str, bool); 3] =
    [("/sync/v2", true), ("/.sync.api.cloudconvert.com/v2", true), ("/.api.cloudconvert.com/v2", false)];

/// What the paths of signed URLs begin with.
const SIGNED: &str = "/s/";

/// Where a request arrived, as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    authority: String,
    path: String,
}

impl Arrived {
    /// The addresses that it may have had: whether TLS ended before this server cannot be known here.
    pub fn addresses(&self) -> [String; 2] {
        ["https", "http"].map(|scheme| format!("{scheme}://{}{}", self.authority, self.path))
    }
}

/// Rewrites the target of a request. `always_waits` is set on the address where every show and create waits.
pub fn rewrite(mut request: Request, always_waits: bool) -> Request {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(|| request.headers().get(header::HOST)?.to_str().ok().map(str::to_owned));
    let (mut path, prefix_waits) = normal_path(request.uri().path());
    let waits = always_waits || prefix_waits || authority.as_deref().is_some_and(has_sync_label);
    if authority.as_deref().is_some_and(is_host_of_signed_urls) && path[1..].parse::<Uuid>().is_ok() {
        path.insert_str(0, SIGNED.trim_end_matches('/'));
    }
    if let Some(authority) = authority.filter(|_| path.starts_with(SIGNED)) {
        let path = request.uri().path().to_owned();
        request.extensions_mut().insert(Arrived { authority, path });
    }
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // What was a valid target stays one: only ASCII prefixes and slashes are taken away.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        *request.uri_mut() = Uri::from(target);
    }
    request.extensions_mut().insert(Waits(waits));
    request
}

fn normal_path(path: &str) -> (String, bool) {
    let trimmed = path.trim_start_matches('/').trim_end_matches('/');
    let path = format!("/{trimmed}");
    for (prefix, waits) in PREFIXES {
        if let Some(rest) = path.strip_prefix(prefix)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return (format!("/v2{rest}"), waits);
        }
    }
    (path, false)
}

/// Whether it is the host on which the path is nothing but the id of a signed URL.
fn is_host_of_signed_urls(authority: &str) -> bool {
    authority.split('.').next().is_some_and(|label| label.eq_ignore_ascii_case("s"))
}

/// Whether one of the labels of the host name is `sync`.
fn has_sync_label(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host.split('.').any(|label| label.eq_ignore_ascii_case("sync"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(target: &str, host: &str) -> (String, bool) {
        let request = Request::builder().uri(target).header("host", host).body(axum::body::Body::empty()).unwrap();
        let request = rewrite(request, false);
        let Waits(waits) = *request.extensions().get::<Waits>().unwrap();
        (request.uri().to_string(), waits)
    }

    #[test]
    fn all_ways_to_wait_come_to_the_same_path() {
        let id = "/v2/jobs/1?include=a%5B";
        for (target, host, waits) in [
            ("/v2/jobs/1?include=a%5B", "localhost:8080", false),
            ("/v2/jobs/1/?include=a%5B", "api.example.test", false),
            ("//v2/jobs/1?include=a%5B", "api.example.test", false),
            ("/v2/jobs/1?include=a%5B", "sync.api.example.test:443", true),
            ("/v2/jobs/1?include=a%5B", "us-east.SYNC.api.example.test", true),
            ("/v2/jobs/1?include=a%5B", "synchronous.example.test", false),
            ("/sync/v2/jobs/1?include=a%5B", "localhost", true),
            ("/.sync.api.cloudconvert.com/v2/jobs/1?include=a%5B", "localhost", true),
            ("/.api.cloudconvert.com/v2/jobs/1?include=a%5B", "localhost", false),
            ("https://sync.api.cloudconvert.com/v2/jobs/1?include=a%5B", "localhost", true),
            ("https://api.cloudconvert.com/v2/jobs/1?include=a%5B", "localhost", false),
        ] {
            assert_eq!(seen(target, host), (id.to_owned(), waits), "{target} at {host}");
        }
        // HTTP/2 has no Host header, but an authority.
        let request = Request::builder().uri("https://sync.h.test/v2/jobs/1").body(axum::body::Body::empty()).unwrap();
        assert_eq!(rewrite(request, false).extensions().get(), Some(&Waits(true)));
        let signed = "b3d85428-584e-4639-bc11-76b7dee9c109";
        let path = format!("/{signed}?job=a+b/c");
        assert_eq!(seen(&path, "s.example.test"), (format!("/s/{signed}?job=a+b/c"), false));
        assert_eq!(seen(&path, "example.test"), (path.clone(), false));
        assert_eq!(seen("/v2/jobs", "s.example.test"), ("/v2/jobs".to_owned(), false));
        assert_eq!(seen("/", "localhost"), ("/".to_owned(), false));
        assert_eq!(seen("/sync/v2x", "localhost"), ("/sync/v2x".to_owned(), false));
    }
}
