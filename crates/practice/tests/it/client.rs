//! A small S3 client: the signer of the AWS SDK and plain HTTP.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use practice::Practice;

/// What S3 clients leave as it is in paths.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

pub(crate) struct Client {
    endpoint: String,
    bucket: String,
    credentials: Credentials,
    http: Http<HttpConnector, Full<Bytes>>,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Gives the text of the first element of this name.
    pub(crate) fn element(&self, name: &str) -> Option<&str> {
        self.text().split_once(&format!("<{name}>"))?.1.split_once("</").map(|(text, _)| text)
    }

    /// Gives the status and the code of an error.
    pub(crate) fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.element("Code").unwrap_or_default())
    }
}

impl Client {
    pub(crate) fn new(practice: &Practice) -> Self {
        Self::with_key(practice, practice.access_key_id(), practice.secret_access_key())
    }

    pub(crate) fn with_key(practice: &Practice, id: &str, secret: &str) -> Self {
        Self {
            endpoint: practice.s3_endpoint(),
            bucket: practice.bucket().to_owned(),
            credentials: Credentials::new(id, secret, None, None, "test"),
            http: Http::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Sends a signed request for a key of the bucket; `query` is as in a URL.
    pub(crate) async fn send(
        &self,
        method: &str,
        key: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let key = utf8_percent_encode(key, UNRESERVED);
        let path = format!("/{}/{key}?{query}", self.bucket);
        self.send_path(method, &path, headers, body.into()).await
    }

    #[expect(clippy::disallowed_methods, reason = "signatures are checked against the real time")]
    pub(crate) async fn send_path(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let uri = format!("{}{}", self.endpoint, path.trim_end_matches('?'));
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("s3")
            .time(std::time::SystemTime::now())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let signable = SignableRequest::new(method, &uri, headers.iter().copied(), SignableBody::Bytes(&body)).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(body)).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        self.finish(request).await
    }

    /// Sends a request without a signature.
    pub(crate) async fn send_unsigned(&self, method: &str, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        self.finish(request.body(Full::default()).unwrap()).await
    }

    async fn finish(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.http.request(request).await.unwrap().into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }
}
