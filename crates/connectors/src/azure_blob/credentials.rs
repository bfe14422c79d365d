//! How a request shows who sends it: signed with the account's key, or with a token in its query.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Config;
use crate::address::{ESCAPED, push_query};
use crate::clock::now;
use crate::error::{ARGUMENTS, Error, Kind, Result};
use crate::secret::Secret;

/// When a request was made.
const DATE: HeaderName = HeaderName::from_static("x-ms-date");

/// The standard headers whose values are signed, in this order, each on its own line.
///
/// # Source
/// Azure documentation, "Authorize with Shared Key: Blob, Queue, and File services".
const SIGNED: [HeaderName; 11] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    HeaderName::from_static("content-md5"),
    header::CONTENT_TYPE,
    header::DATE,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// What a task may use.
pub(super) enum Credentials {
    /// The key of the account.
    Key { account: String, key: Box<hmac::Key> },
    /// A shared access signature.
    Sas(Sas),
}

/// A shared access signature.
pub(super) struct Sas {
    /// The token as a query, properly encoded.
    query: String,
    /// What it may do, as letters.
    pub(super) permissions: Option<String>,
    /// When it ends.
    pub(super) ends: Option<OffsetDateTime>,
}

impl Credentials {
    /// Reads the one of key and token that there is.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let given = |secret: &Option<Secret>| {
            secret.as_ref().map(|secret| secret.expose().trim().to_owned()).filter(|text| !text.is_empty())
        };
        match (given(&config.key), given(&config.sas)) {
            (Some(key), None) => {
                let bytes = STANDARD.decode(key).map_err(|_| {
                    invalid("`storage_access_key` is not a key: it must be base64, as the portal shows it")
                })?;
                if config.account.is_empty() || !config.account.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(invalid("`storage_account` must be the name of a storage account"));
                }
                let key = Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
                Ok(Self::Key { account: config.account.clone(), key })
            }
            (None, Some(token)) => Sas::new(&token).map(Self::Sas),
            (None, None) => Err(invalid("`storage_access_key` or `sas_token` is needed")),
            (Some(_), Some(_)) => Err(invalid("only one of `storage_access_key` and `sas_token` may be given")),
        }
    }

    /// Texts that an answer may repeat and nobody may read.
    pub(super) fn secrets(&self, config: &Config) -> Vec<Secret> {
        let mut secrets: Vec<Secret> = config.key.iter().chain(&config.sas).cloned().collect();
        if let Self::Sas(sas) = self {
            let signatures = sas.query.split('&').filter_map(|pair| pair.strip_prefix("sig="));
            for signature in signatures {
                let plain = percent_decode_str(signature).decode_utf8_lossy();
                secrets.extend([Secret::new(&*plain), Secret::new(signature)]);
            }
        }
        secrets
    }

    /// The whole URL of a request, and its headers completed: a signature in `headers`, or the token in the URL.
    pub(super) fn sign(
        &self,
        method: &Method,
        mut url: String,
        query: &[(&str, String)],
        headers: &mut HeaderMap,
    ) -> String {
        match self {
            Self::Sas(_) => {}
            Self::Key { account, key } => {
                let date = httpdate::fmt_http_date(now());
                headers.insert(DATE, HeaderValue::try_from(date).expect("a date makes a header"));
                let text = text_to_sign(account, method, &url, query, headers);
                let mac = STANDARD.encode(hmac::sign(key, text.as_bytes()));
                let value = HeaderValue::try_from(format!("SharedKey {account}:{mac}"));
                let mut value = value.expect("base64 and an account of visible ASCII make a header");
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        push_query(&mut url, query.iter().map(|(name, value)| (*name, value.as_str())));
        if let Self::Sas(sas) = self {
            url.extend([if query.is_empty() { "?" } else { "&" }, &sas.query]);
        }
        url
    }
}

impl Sas {
    fn new(token: &str) -> Result<Self> {
        let malformed = || {
            invalid(
                "`sas_token` is not a SAS token: it looks like `sv=…&sig=…`, what follows the question mark of a SAS URL",
            )
        };
        let token = token.strip_prefix('?').unwrap_or(token);
        if token.contains("://") || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed());
        }
        let (mut query, mut permissions, mut ends, mut is_signed) = (String::new(), None, None, false);
        for (name, value) in token.split('&').filter_map(|pair| pair.split_once('=')) {
            // Tokens are copied encoded and decoded; a plus is always a plus.
            let value = percent_decode_str(value).decode_utf8().map_err(|_| malformed())?;
            match name {
                "sp" => permissions = Some(value.clone().into_owned()),
                "se" => ends = OffsetDateTime::parse(&value, &Rfc3339).ok(),
                "sig" => is_signed = true,
                _ => {}
            }
            let separator = if query.is_empty() { "" } else { "&" };
            query.push_str(separator);
            query.extend(utf8_percent_encode(name, ESCAPED));
            query.push('=');
            query.extend(utf8_percent_encode(&value, ESCAPED));
        }
        if is_signed { Ok(Self { query, permissions, ends }) } else { Err(malformed()) }
    }
}

fn invalid(detail: &str) -> Error {
    Error::new(Kind::InvalidCredentials, ARGUMENTS, detail)
}

/// What the signature is made of. `url` is without its query.
fn text_to_sign(account: &str, method: &Method, url: &str, query: &[(&str, String)], headers: &HeaderMap) -> String {
    let mut text = method.to_string();
    for name in SIGNED {
        let value = headers.get(&name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.push('\n');
        // Since version 2015-02-21 a length of nothing is left out.
        text.push_str(if name == header::CONTENT_LENGTH && value == "0" { "" } else { value });
    }
    let mut own: Vec<(&str, &str)> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default().trim()))
        .collect();
    own.sort_by(|a, b| order_of(a.0).cmp(order_of(b.0)));
    for (name, value) in own {
        text.extend(["\n", name, ":", value]);
    }
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    text.extend(["\n/", account, path.unwrap_or("/")]);
    let mut query: Vec<_> = query.iter().collect();
    query.sort_unstable();
    for (name, value) in query {
        text.extend(["\n", name, ":", value]);
    }
    text
}

/// The service sorts as dictionaries do: an underscore comes before digits, not after them.
fn order_of(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: Option<&str>, sas: Option<&str>) -> Result<Credentials> {
        let config = Config {
            account: "acct".to_owned(),
            key: key.map(Secret::from),
            sas: sas.map(Secret::from),
            ..Config::default()
        };
        Credentials::new(&config)
    }

    fn refusal(key: Option<&str>, sas: Option<&str>) -> Error {
        let Err(error) = of(key, sas) else { panic!("{key:?} {sas:?} was taken") };
        assert_eq!(error.kind, Kind::InvalidCredentials);
        error
    }

    #[test]
    fn exactly_one_well_formed_credential_is_taken() {
        assert!(refusal(None, None).detail.contains("is needed"));
        assert!(refusal(Some(""), Some(" ")).detail.contains("is needed"));
        assert!(refusal(Some("AAAA"), Some("sig=x")).detail.contains("only one"));
        let error = refusal(Some("canary-key!"), None);
        assert!(error.detail.contains("base64") && !format!("{error:?}").contains("canary"), "{error:?}");
        for token in ["sv=2024", "https://a.blob.core.windows.net/c?sig=canary", "sig=canary x", "sig=%FF"] {
            assert!(!format!("{:?}", refusal(None, Some(token))).contains("canary"), "{token}");
        }
        assert!(of(Some(" AAAA\n"), None).is_ok());
    }

    #[test]
    fn tokens_are_taken_encoded_and_decoded() {
        for token in ["?sp=cw&se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%2F%3D", "sp=cw&se=2030-01-01T00:00:00Z&sig=a+b/="] {
            let Ok(Credentials::Sas(sas)) = of(None, Some(token)) else { panic!("{token} is not taken") };
            assert_eq!(sas.query, "sp=cw&se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%2F%3D");
            assert_eq!((sas.permissions.as_deref(), sas.ends.unwrap().year()), (Some("cw"), 2030));
        }
        let credentials = of(None, Some("sig=abcdef%2B&sp=r")).unwrap();
        let mut headers = HeaderMap::new();
        let url = credentials.sign(&Method::GET, "https://x/c".to_owned(), &[("comp", "a/b".into())], &mut headers);
        assert_eq!((url.as_str(), headers.len()), ("https://x/c?comp=a%2Fb&sig=abcdef%2B&sp=r", 0));
        let secrets = credentials.secrets(&Config::default());
        assert_eq!(secrets, [Secret::new("abcdef+"), Secret::new("abcdef%2B")]);
    }

    #[test]
    fn the_text_to_sign_is_the_documented_one() {
        let headers = [
            ("content-length", "0"),
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
            ("range", "bytes=0-1"),
            ("x-ms-version", "2021-12-02"),
            ("x-ms-meta-a1", "v"),
            ("x-ms-meta-a_b", " w  x "),
            ("x-ms-date", "now"),
            ("user-agent", "x"),
        ];
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let query = [("restype", "container".to_owned()), ("comp", "list".to_owned())];
        let text = text_to_sign("acct", &Method::GET, "http://h:1/acct/c/a%20b", &query, &headers);
        assert_eq!(
            text,
            "GET\n\n\n\n1B2M2Y8AsgTpgAmY7PhCfg==\n\n\n\n\n\n\nbytes=0-1\nx-ms-date:now\nx-ms-meta-a_b:w  x\n\
             x-ms-meta-a1:v\nx-ms-version:2021-12-02\n/acct/acct/c/a%20b\ncomp:list\nrestype:container"
        );
    }
}
