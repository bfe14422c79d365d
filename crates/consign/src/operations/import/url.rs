//! `import/url`: downloads a file from the web.

use std::collections::BTreeMap;

use connectors::Network;
use connectors::web::{Download, Web, read_url};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Faults, TaskError};
use crate::operations::account::given;
use crate::operations::{Context, Feed, Operation, Outcome, headers};
use crate::secret::Secret;

/// What a file is called whose source has no name for it.
const NAMELESS: &str = "file";

/// The operation `import/url`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ImportUrl;

/// Downloads a file from a public URL.
///
/// Redirects are followed, up to ten. A download that breaks is resumed where it broke, if the server says that the
/// file is still the same.
///
/// ## Result
/// `result.files` has the file, with its size in bytes.
///
/// ## Retries
/// The file of an earlier try is replaced, so running again leaves one file.
///
/// ## Errors
/// `HOST_NOT_ALLOWED` for addresses that are not public and not in `egress.allow`, `FILE_NOT_FOUND`,
/// `ACCESS_DENIED`, `INVALID_CREDENTIALS`, `FILE_TOO_LARGE`; tried again: `REMOTE_UNAVAILABLE` and its kin.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportUrlArgs")]
pub(super) struct Args {
    /// Address of the file, `http:` or `https:`. User info in it becomes basic authentication.
    #[garde(length(max = 8192))]
    #[schemars(extend("format" = "uri"))]
    url: String,
    /// Name of the file. By default the one that the server tells, else the end of the URL's path.
    #[garde(length(max = 255))]
    filename: Option<String>,
    /// Headers to send along, such as `Authorization`. They go to the host of `url` only, not where it redirects to.
    #[garde(length(max = 64))]
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("additionalProperties" = { "type": "string", "writeOnly": true }))]
    headers: BTreeMap<String, Secret>,
}

impl Operation for ImportUrl {
    const NAME: &'static str = "import/url";
    const FEED: Feed = Feed::Itself;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        if read_url(&args.url).is_err() {
            faults.add("url", "The url format is invalid.");
        }
        headers::check(&args.headers, faults);
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let Network { http, limits, hosts, .. } = task.network.clone();
        let host = read_url(&args.url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let _slot = hosts.take(host.as_deref().unwrap_or_default()).await;
        let headers = headers::read(&args.headers);
        let received = async {
            let Download { file_name, content_type, size, stream, .. } =
                Web::new(http, &limits).get(&args.url, &headers).await?;
            let name = given(args.filename.as_ref()).or(file_name).unwrap_or_else(|| NAMELESS.to_owned());
            task.save(1, &name, content_type.as_deref(), size, stream).await
        };
        Ok(Outcome { files: vec![task.metered(host.as_deref(), true, received).await?] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::operations::testing::{self, Bench};

    fn faults(args: serde_json::Value) -> Vec<String> {
        let args: Args = serde_json::from_value(args).unwrap();
        let mut faults = Faults::default();
        ImportUrl::check(&args, &mut faults);
        faults.0.into_iter().map(|(field, sentences)| format!("{field}: {}", sentences.join(" "))).collect()
    }

    #[test]
    fn any_web_address_is_accepted_whether_or_not_somebody_is_there() {
        for url in [
            "http://invalid.url",
            "https://files.example/a b.pdf?x=1#y",
            "HTTP://user:pass@files.example:8443/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://bücher.example/ü",
        ] {
            assert_eq!(faults(json!({ "url": url })), Vec::<String>::new(), "{url}");
        }
    }

    #[test]
    fn what_is_no_web_address_is_a_fault_of_the_url() {
        for url in
            ["", "invalid", "//files.example/", "ftp://files.example/", "file:///etc/passwd", "http://", "data:,x"]
        {
            assert_eq!(faults(json!({ "url": url })), ["url: The url format is invalid."], "{url}");
        }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_faults_that_show_no_value() {
        let args = json!({
            "url": "http://invalid.url",
            "headers": { "X-Good": " v\u{e4}lue ", "X Bad": "s3cret", "X-Split": "s3cret\r\nHost: x" },
        });
        let found = faults(args);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("headers.X Bad: ") && found[1].starts_with("headers.X-Split: "));
        assert!(!format!("{found:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn an_empty_name_is_no_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/told.txt", listener.local_addr().unwrap());
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer).await;
            }
        });
        for (filename, wanted) in [("", "told.txt"), ("own.txt", "own.txt")] {
            let args: Args = serde_json::from_value(json!({"url": url, "filename": filename})).unwrap();
            let bench = Bench::new().await;
            let task = Context { network: testing::network(), ..bench.context(&[]) };
            let done = ImportUrl::run(args, task).await.unwrap();
            assert_eq!(done.files[0].name, wanted);
        }
    }

    #[test]
    fn values_of_headers_are_write_only() {
        let schema = schemars::schema_for!(Args);
        assert_eq!(schema.as_value()["properties"]["headers"]["additionalProperties"]["writeOnly"], true);
        assert_eq!(schema.as_value()["properties"]["url"]["format"], "uri");
        assert_eq!(schema.as_value()["required"], json!(["url"]));
    }
}
