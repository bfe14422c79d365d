//! Signature Version 4 over the headers of a request; the body is left unsigned unless the service insists.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;

use super::Config;
use crate::clock::now;
use crate::error::{Error, Kind, Result};

/// Signs requests with one set of credentials for one region.
#[derive(Debug)]
pub(super) struct Signer {
    identity: Identity,
    region: String,
}

impl Signer {
    pub(super) fn new(config: &Config, region: &str) -> Self {
        let token = config.session_token.as_ref().map(|token| token.expose().to_owned());
        let credentials = Credentials::new(
            config.access_key_id.as_str(),
            config.secret_access_key.expose(),
            token.filter(|token| !token.is_empty()),
            None,
            "task",
        );
        Self { identity: credentials.into(), region: region.to_owned() }
    }

    /// Adds date, content hash, token and signature to `request`, whose body is `body`.
    ///
    /// The body itself is hashed only when `is_payload_signed`: its checksum header protects it as well, at a tenth
    /// of the cost.
    pub(super) fn sign(&self, request: &mut http::Request<()>, body: &Bytes, is_payload_signed: bool) -> Result<()> {
        let mut settings = settings();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name("s3")
            .time(now())
            .settings(settings)
            .build()
            .map_err(|error| refused(error.into()))?
            .into();
        let payload = if is_payload_signed {
            SignableBody::Precomputed(hex::encode(digest::digest(&digest::SHA256, body)))
        } else {
            SignableBody::UnsignedPayload
        };
        let uri = request.uri().to_string();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new(request.method().as_str(), uri, headers, payload)
            .map_err(|error| refused(error.into()))?;
        let (instructions, _) = sign(signable, &params).map_err(|error| refused(error.into()))?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// Signs the address of an object, so that anybody may read it until `life` is over.
    pub(super) fn link(&self, url: &str, life: Duration) -> Result<String> {
        let mut settings = settings();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(life);
        let params = SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name("s3")
            .time(now())
            .settings(settings)
            .build()
            .map_err(|error| refused(error.into()))?
            .into();
        let signable = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::UnsignedPayload)
            .map_err(|error| refused(error.into()))?;
        let (instructions, _) = sign(signable, &params).map_err(|error| refused(error.into()))?.into_parts();
        let mut request = http::Request::get(url).body(()).map_err(|error| refused(error.into()))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request.uri().to_string())
    }
}

fn settings() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings
}

fn refused(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(Kind::InvalidRequest, "signing the request", "the request cannot be signed with these arguments")
        .because(cause)
}
