//! The web: one file behind an `http:` or `https:` address, with redirects, and resumed where it breaks; or one that is
//! put there (`upload`).
//!
//! Every connection of every hop goes through the guard of the [`Client`]. Headers of the caller are secrets: they are
//! sent to the origin that they were meant for and to no other. Errors show scheme, host and path of an address, never
//! its user info or query.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, LOCATION, RANGE, USER_AGENT,
};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Kind, ProviderAnswer, Result, Retry};
use crate::http::{Answer, Body, Client};
use crate::retry;
use crate::source::ByteStream;
use crate::transfer::Limits;

mod disposition;
mod resume;
mod upload;

use resume::Transfer;
pub use upload::Upload;

/// Redirects that are followed for one file: twice what honest sites need.
const REDIRECTS_MAX: usize = 10;

/// Length of an address in bytes, the same as that of the HTTP library.
const URL_BYTES_MAX: usize = 65_534;

/// What an error says was being done.
const ACTION: &str = "downloading the file";

/// What we call ourselves.
const AGENT: &str = concat!("consign/", env!("CARGO_PKG_VERSION"));

/// Headers that belong to the connection or to the resumption; a caller's are left out.
const OWN_HEADERS: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-range",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Downloads files from the web.
#[derive(Clone, Debug)]
pub struct Web {
    client: Client,
    tries: u32,
}

/// A file that is on its way.
pub struct Download {
    /// The name that the server, else the address gives it. It may hold anything: make it safe before using it.
    pub file_name: Option<String>,
    /// Media type, as the server says.
    pub content_type: Option<String>,
    /// Length in bytes, where the server says.
    pub size: Option<u64>,
    /// Scheme, host and path that the bytes came from, after all redirects.
    pub location: String,
    /// The bytes. An error in it is the last word: what could be resumed has been.
    pub stream: ByteStream,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("location", &self.location).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Web {
    /// Makes a source that asks through `client`.
    pub fn new(client: Client, limits: &Limits) -> Self {
        Self { client, tries: limits.tries }
    }

    /// Asks for the file at `url` with `headers` and waits for its first bytes.
    ///
    /// User info in the address becomes basic authentication, unless `headers` hold an `Authorization`. Headers that
    /// belong to the connection (`Host`, `Range`, `Accept-Encoding` and such) are left out. On a redirect to another
    /// origin all of `headers` but `Accept`, `Accept-Language` and `User-Agent` are.
    ///
    /// # Errors
    /// Those of [`Client::send`]; [`Kind::InvalidRequest`] for what is no `http:` or `https:` address;
    /// [`Kind::NotFound`], [`Kind::AccessDenied`], [`Kind::InvalidCredentials`], [`Kind::Throttled`],
    /// [`Kind::Unavailable`] by the status of the answer; [`Kind::Protocol`] for redirects that lead nowhere.
    pub async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Download> {
        let asked = Target::new(read_url(url)?, headers);
        let (target, response) = retry::request(self.tries, |_| self.follow(asked.clone(), None)).await?;
        let (head, answer) = response.into_parts();
        let size = answer.size();
        let transfer = Transfer::new(self.clone(), target, &head.headers, answer);
        Ok(Download {
            file_name: disposition::file_name(head.headers.get(CONTENT_DISPOSITION))
                .or_else(|| name_in_path(&transfer.target().url, &asked.url)),
            content_type: head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned),
            size,
            location: shown(&transfer.target().url),
            stream: transfer.stream(),
        })
    }

    /// Follows redirects up to an answer that is a success, and checks that it is what was asked for.
    async fn follow(&self, mut target: Target, part: Option<&PartWanted>) -> Result<(Target, http::Response<Answer>)> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.client.send(target.request(part)?, ACTION).await?;
            let status = response.status();
            if status.is_success() {
                if status == StatusCode::PARTIAL_CONTENT && part.is_none() {
                    return Err(protocol(format!("{} sent a part that was not asked for", shown(&target.url))));
                }
                return Ok((target, response));
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(refusal(&target, &response));
            }
            target = target.redirected(&response)?;
        }
        Err(protocol(format!("the URL redirects more than {REDIRECTS_MAX} times")))
    }
}

/// The rest of a file: from where, if it is still the same.
#[derive(Debug)]
struct PartWanted {
    from: u64,
    validator: HeaderValue,
}

/// Where a request goes, and what it takes along.
#[derive(Clone)]
struct Target {
    /// Without user info and fragment.
    url: Url,
    headers: HeaderMap,
}

impl Target {
    fn new(url: Url, headers: &HeaderMap) -> Self {
        let own = |name: &HeaderName| OWN_HEADERS.contains(&name.as_str());
        let kept = headers.iter().filter(|(name, _)| !own(name));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { url, headers }.with_user_info(false)
    }

    /// Turns the user info of the address into a header.
    fn with_user_info(mut self, replace: bool) -> Self {
        if !self.url.username().is_empty() || self.url.password().is_some() {
            let mut plain: Vec<u8> = percent_decode_str(self.url.username()).collect();
            plain.push(b':');
            plain.extend(percent_decode_str(self.url.password().unwrap_or_default()));
            if (replace || !self.headers.contains_key(AUTHORIZATION))
                && let Ok(mut value) = HeaderValue::try_from(format!("Basic {}", BASE64.encode(plain)))
            {
                value.set_sensitive(true);
                self.headers.insert(AUTHORIZATION, value);
            }
            // Both succeed for every address that has a host, and one without was refused.
            let _ = self.url.set_username("");
            let _ = self.url.set_password(None);
        }
        self.url.set_fragment(None);
        self
    }

    fn request(&self, part: Option<&PartWanted>) -> Result<http::Request<Body>> {
        let mut request = http::Request::builder()
            .method(Method::GET)
            .uri(self.url.as_str())
            .body(Body::empty())
            .map_err(|_| invalid("the URL cannot be asked for: it is too long or its host is malformed"))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        // A body that is encoded on the way can neither be counted nor resumed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(part) = part {
            headers.insert(RANGE, HeaderValue::try_from(format!("bytes={}-", part.from)).expect("digits are allowed"));
            headers.insert(IF_RANGE, part.validator.clone());
        }
        Ok(request)
    }

    fn redirected(self, response: &http::Response<Answer>) -> Result<Self> {
        let from = shown(&self.url);
        let location = response
            .headers()
            .get(LOCATION)
            .ok_or_else(|| protocol(format!("{from} answers {} without saying where to", response.status())))?;
        let location = disposition::text(location.as_bytes());
        let url = self
            .url
            .join(&location)
            .map_err(|error| protocol(format!("{from} redirects to what is no URL")).because(error))?;
        if !is_web(&url) {
            return Err(protocol(format!("{from} redirects to a URL that is neither http nor https")));
        }
        let mut headers = self.headers;
        if !is_same_origin(&self.url, &url) {
            headers = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT]
                .into_iter()
                .filter_map(|name| headers.remove(&name).map(|value| (name, value)))
                .collect();
        }
        Ok(Self { url, headers }.with_user_info(true))
    }
}

fn invalid(detail: &'static str) -> Error {
    Error::new(Kind::InvalidRequest, ACTION, detail)
}

fn protocol(detail: String) -> Error {
    Error::new(Kind::Protocol, ACTION, detail)
}

/// Reads an address as browsers do: what may not stand in it is percent-encoded, what already is stays.
///
/// # Errors
/// [`Kind::InvalidRequest`].
pub fn read_url(text: &str) -> Result<Url> {
    if text.len() > URL_BYTES_MAX {
        return Err(invalid("the URL is too long"));
    }
    let url = Url::parse(text).map_err(|error| invalid("the URL cannot be read").because(error))?;
    if is_web(&url) { Ok(url) } else { Err(invalid("only http and https URLs can be used")) }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// Scheme, host, port and path: what may be shown of an address.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Tells whether secrets for `one` may go to `other`: the same origin, or the same host as soon as it is encrypted.
fn is_same_origin(one: &Url, other: &Url) -> bool {
    let upgraded = one.host() == other.host()
        && (one.scheme(), one.port()) == ("http", None)
        && (other.scheme(), other.port()) == ("https", None);
    one.origin() == other.origin() || upgraded
}

/// Makes an error of an answer that is no success.
fn refusal(target: &Target, response: &http::Response<Answer>) -> Error {
    let status = response.status();
    let (kind, advice) = match status.as_u16() {
        401 if target.headers.contains_key(AUTHORIZATION) => {
            (Kind::InvalidCredentials, "; it does not accept the credentials")
        }
        401 => (Kind::InvalidCredentials, "; it wants credentials, which `headers` can carry"),
        403 => (Kind::AccessDenied, "; check that the file is public, or that the link has not expired"),
        404 | 410 => (Kind::NotFound, "; check that the file exists and is public"),
        408 => (Kind::Timeout, ""),
        425 | 429 => (Kind::Throttled, "; it asks for fewer requests"),
        501 | 505 => (Kind::Unsupported, ""),
        500.. => (Kind::Unavailable, "; the server behind it has a problem"),
        300..=399 => (Kind::Protocol, ", which is no file"),
        _ => (Kind::InvalidRequest, ""),
    };
    let retry = match kind.retry() {
        Retry::Later(_) => Retry::Later(retry::after(response.headers())),
        Retry::Never => Retry::Never,
    };
    Error::new(kind, ACTION, format!("the URL answers {status}{advice}"))
        .answered(ProviderAnswer { status: Some(status.as_u16()), ..ProviderAnswer::default() })
        .retrying(retry)
}

/// The last segment of the path: of the final address, or of the first one if only that looks like a file.
fn name_in_path(last: &Url, first: &Url) -> Option<String> {
    let names = [last, first].map(|url| {
        let segment = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        disposition::text(&percent_decode_str(segment).collect::<Vec<u8>>())
    });
    let [last, first] = names;
    if first.contains('.') && !last.contains('.') || last.is_empty() {
        (!first.is_empty()).then_some(first)
    } else {
        Some(last)
    }
}

#[cfg(test)]
mod tests;
