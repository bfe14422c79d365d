//! XML as S3 and Azure speak it, both ways.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// What an error answer says. S3, and what speaks its protocol, has the first ones, Azure some of them and the last.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ErrorBody {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) request_id: Option<String>,
    /// What was wrong with the signature or the token.
    pub(crate) authentication_error_detail: Option<String>,
}

/// Reads an answer of `service`, which names whose protocol it is.
pub(crate) fn read<T: DeserializeOwned>(action: &'static str, service: &str, body: &[u8]) -> Result<T> {
    let senseless =
        || Error::new(Kind::Protocol, action, format!("the answer is not what the {service} protocol has here"));
    let text = text(body).map_err(|error| senseless().because(error))?;
    quick_xml::de::from_str(text).map_err(|error| senseless().because(error))
}

/// Writes a request body.
pub(crate) fn write<T: Serialize>(action: &'static str, body: &T) -> Result<String> {
    quick_xml::se::to_string(body)
        .map_err(|error| Error::new(Kind::Protocol, action, "the request cannot be written").because(error))
}

/// Reads an error answer, where the body is one: HTML, JSON and silence are none.
pub(crate) fn read_error(body: &[u8]) -> Option<ErrorBody> {
    let text = text(body).ok()?;
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) if start.local_name().as_ref() == "Error" => break,
            Ok(Event::Decl(_) | Event::Text(_) | Event::Comment(_)) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    quick_xml::de::from_str(text).ok()
}

/// A body as text, without the mark that Azure puts in front of it.
fn text(body: &[u8]) -> std::result::Result<&str, std::str::Utf8Error> {
    Ok(std::str::from_utf8(body)?.trim_start_matches('\u{feff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_other_bodies() {
        for mark in ["", "\u{feff}"] {
            let body = format!(
                "{mark}<?xml version=\"1.0\"?>\n\n <Error><Code>NoSuchBucket</Code><Message>m\nRequestId:1</Message>\
                 <BucketName>x</BucketName></Error>"
            );
            let said = read_error(body.as_bytes()).unwrap();
            assert_eq!((said.code.as_deref(), said.message.as_deref()), (Some("NoSuchBucket"), Some("m\nRequestId:1")));
        }
        for body in [
            "",
            "<html><body>no</body></html>",
            "{\"error\":1}",
            "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        ] {
            assert!(read_error(body.as_bytes()).is_none(), "{body}");
        }
    }
}
