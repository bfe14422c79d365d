//! How the clients for PHP, Java, .NET and Ruby write their requests: headers in their order, bodies, forms, signed jobs.

use super::wire::request;

/// The name and content of the file that is uploaded.
pub(super) const UPLOADED: (&str, &[u8]) = ("input file é.pdf", b"The quick brown fox");

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `cloudconvert/cloudconvert-php` with Guzzle.
    Php,
    /// `com.cloudconvert:cloudconvert-java` with Apache `HttpClient`.
    Java,
    /// `CloudConvert.API` with `HttpClient`.
    DotNet,
    /// `cloudconvert` with Faraday.
    Ruby,
}

use Dialect::{DotNet, Java, Php, Ruby};

impl Dialect {
    pub(super) fn name(self) -> (&'static str, &'static str) {
        match self {
            Php => ("PHP", "3.4.4"),
            Java => ("Java", "1.2.3"),
            DotNet => (".NET", "1.4.1"),
            Ruby => ("Ruby", "1.1.1"),
        }
    }

    /// A call of the API. `waits` is said as the client is told to: by path, by address (Java: the caller), by host name.
    pub(super) fn call(self, method: &str, path: &str, waits: bool, key: &str, body: Option<&str>) -> Vec<u8> {
        let bearer = format!("Authorization: Bearer {key}");
        let length = format!("Content-Length: {}", body.map_or(0, str::len));
        let host = if waits { "Host: sync.api.cloudconvert.com" } else { "Host: api.cloudconvert.com" };
        let prefix = match self {
            // The region is put in front of the rest of the host, whatever it is.
            Php if waits => "/.sync.api.cloudconvert.com/v2",
            Php => "/.api.cloudconvert.com/v2",
            Ruby if waits => "/sync/v2",
            Java | DotNet | Ruby => "/v2",
        };
        let line = format!("{method} {prefix}{path}");
        let is_post = method == "POST";
        match self {
            Php => {
                let agent = "User-Agent: cloudconvert-php/v3.4.4 (https://github.com/cloudconvert/cloudconvert-php)";
                let mut headers = vec!["Host: 127.0.0.1", "Accept-Encoding: application/json", agent, &bearer];
                if is_post {
                    headers.push(&length);
                }
                if body.is_some() {
                    headers.insert(1, "Content-Type: application/json");
                }
                request(&line, &headers, body.unwrap_or_default().as_bytes())
            }
            Java => {
                let agent = "User-Agent: cloudconvert-java/v2 (https://github.com/cloudconvert/cloudconvert-java)";
                let mut headers = vec![bearer.as_str(), agent];
                if is_post {
                    headers.push(&length);
                }
                if body.is_some() {
                    headers.push("Content-Type: application/json; charset=UTF-8");
                }
                headers.extend(["Host: 127.0.0.1", "Connection: Keep-Alive", "Accept-Encoding: gzip,deflate"]);
                request(&line, &headers, body.unwrap_or_default().as_bytes())
            }
            DotNet => {
                let agent =
                    "User-Agent: cloudconvert-dotnet/v1.4.1 (https://github.com/cloudconvert/cloudconvert-dotnet)";
                let mut headers = vec![host, &bearer, agent];
                let Some(body) = body else {
                    if is_post {
                        headers.push(&length);
                    }
                    return request(&line, &headers, b"");
                };
                headers.extend(["Transfer-Encoding: chunked", "Content-Type: application/json; charset=utf-8"]);
                let chunk = format!("{:X}\r\n{body}\r\n0\r\n\r\n", body.len());
                request(&line, &headers, chunk.as_bytes())
            }
            Ruby => {
                let agent = "User-Agent: CloudConvertRubyGem/1.1.1";
                let mut headers = vec![agent, &bearer, "Content-Type: application/json"];
                // Also where there is nothing to say.
                let body = if is_post { body.unwrap_or("{}") } else { "" };
                let length = format!("Content-Length: {}", body.len());
                if is_post {
                    headers.push(&length);
                }
                headers.extend([
                    "Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3",
                    "Accept: */*",
                    "Host: 127.0.0.1",
                ]);
                request(&line, &headers, body.as_bytes())
            }
        }
    }

    /// The body of a job that takes an upload in and leads to a link.
    pub(super) fn upload_job(self) -> &'static str {
        match self {
            Php => {
                r#"{"tasks":{"in":{"operation":"import\/upload"},"out":{"operation":"export\/url","input":"in"}},"tag":null,"webhook_url":null}"#
            }
            Java => {
                r#"{"tag":"","tasks":{"in":{"operation":"import/upload"},"out":{"input":["in"],"operation":"export/url"}}}"#
            }
            DotNet => {
                r#"{"tasks":{"in":{"operation":"import/upload"},"out":{"input":"in","operation":"export/url"}},"tag":"integration"}"#
            }
            Ruby => r#"{"tasks":{"in":{"operation":"import/upload"},"out":{"operation":"export/url","input":"in"}}}"#,
        }
    }

    /// The query of a list, with everything that the client adds.
    pub(super) fn list_query(self, job: &str) -> String {
        match self {
            Php => format!("?filter%5Bjob_id%5D={job}&per_page=10"),
            Java => format!("?filter%5Bjob_id%5D={job}&include=retries%2Cdepends_on_tasks&per_page=10&page=1"),
            DotNet => format!(
                "?filter[job_id]={job}&filter[status]=&filter[operation]=&include=System.String[]&per_page=&page="
            ),
            Ruby => format!("?filter[job_id]={job}"),
        }
    }

    /// An empty job, which is refused.
    pub(super) fn empty_job(self) -> &'static str {
        match self {
            Php => r#"{"tasks":[],"tag":null,"webhook_url":null}"#,
            Java => r#"{"tag":"","tasks":{}}"#,
            DotNet | Ruby => r#"{"tasks":{}}"#,
        }
    }

    /// Creations that other servers stumble over: path, body, and the operation that comes back.
    pub(super) fn odd_creations(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Php => &[
                ("/import/url", r#"{"name":"x","url":"http:\/\/invalid.url","headers":[]}"#, "import/url"),
                (
                    "/export/s3",
                    r#"{"input":"IN","bucket":"b","region":"r","access_key_id":"a","secret_access_key":"s","metadata":[]}"#,
                    "export/s3",
                ),
            ],
            Java => &[
                (
                    "/import/azure/blob",
                    r#"{"storage_account":"a","storage_access_key":"c29tZQ==","container":"c","blob":"b"}"#,
                    "import/azure-blob",
                ),
                (
                    "/import/openstack",
                    r#"{"auth_url":"some-auth-url","username":"u","password":"p","region":"r","container":"c","file":"f"}"#,
                    "import/openstack",
                ),
                (
                    "/import/sftp",
                    r#"{"host":"some-host","port":"22","username":"u","password":"p","file":"f"}"#,
                    "import/sftp",
                ),
                (
                    "/import/google-cloud-storage",
                    r#"{"project_id":"p","bucket":"b","client_email":"some-client-email","private_key":"some-private-key","file":"f"}"#,
                    "import/google-cloud-storage",
                ),
                (
                    "/import/s3",
                    r#"{"bucket":"b","region":"r","access_key_id":"a","secret_access_key":"s","key":"k"}"#,
                    "import/s3",
                ),
            ],
            DotNet => &[(
                "/export/s3",
                r#"{"operation":"export/s3","input":"IN","bucket":"b","region":"r","access_key_id":"a","secret_access_key":"s","acl":"BucketOwnerFullControl"}"#,
                "export/s3",
            )],
            Ruby => &[(
                "/import/url",
                r#"{"operation":"import/url","url":"http://invalid.url","filename":"test.file"}"#,
                "import/url",
            )],
        }
    }

    /// The form: type and body.
    pub(super) fn form(self, fields: &[(String, String)]) -> (&'static str, Vec<u8>) {
        let (name, content) = UPLOADED;
        let length = content.len();
        let (kind, boundary) = match self {
            Php => ("multipart/form-data; boundary=\"6d1f0d2c3a\"", "6d1f0d2c3a"),
            Java => ("multipart/form-data; boundary=Q_x-1; charset=ISO-8859-1", "Q_x-1"),
            DotNet => ("multipart/form-data; boundary=\"0b6b\"", "0b6b"),
            Ruby => {
                ("multipart/form-data; boundary=-----------RubyMultipartPost-4f", "-----------RubyMultipartPost-4f")
            }
        };
        let mut body = Vec::new();
        let mut part = |head: String, content: &[u8]| {
            body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        };
        for (field, value) in fields {
            let head = match self {
                Php => format!("Content-Disposition: form-data; name=\"{field}\"\r\nContent-Length: {}", value.len()),
                Java => format!(
                    "Content-Disposition: form-data; name=\"{field}\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit"
                ),
                DotNet => {
                    format!("Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name={field}")
                }
                Ruby => format!("Content-Disposition: form-data; name=\"{field}\""),
            };
            part(head, value.as_bytes());
        }
        let head = match self {
            // A text has no name: the part is only called `file`.
            Php => format!("Content-Disposition: form-data; name=\"file\"\r\nContent-Length: {length}"),
            Java => "Content-Disposition: form-data; name=\"file\"; filename=\"input file ?.pdf\"\r\n\
                     Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary"
                .to_owned(),
            DotNet => format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\""),
            Ruby => format!(
                "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Length: {length}\r\n\
                 Content-Type: application/pdf\r\nContent-Transfer-Encoding: binary"
            ),
        };
        part(head, content);
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (kind, body)
    }

    /// What the uploaded file is called then.
    pub(super) fn uploaded_name(self) -> &'static str {
        match self {
            Php => "file",
            Java => "input file ?.pdf",
            DotNet | Ruby => UPLOADED.0,
        }
    }

    /// The JSON of a job as it is signed.
    pub(super) fn signed_job(self) -> &'static str {
        match self {
            Php => {
                r#"{"tasks":{"in":{"operation":"import\/raw","file":"h\u00e9llo>>>???","filename":"a.txt"},"out":{"operation":"export\/url","input":"in","inline":true}},"tag":null,"webhook_url":null}"#
            }
            Java => {
                r#"{"tasks":{"in":{"file":"héllo>>>???","filename":"a.txt","operation":"import/raw"},"out":{"input":["in"],"inline":true,"operation":"export/url"}}}"#
            }
            DotNet => {
                r#"{"tasks":{"in":{"operation":"import/raw","file":"h\u00E9llo>>>???","filename":"a.txt"},"out":{"operation":"export/url","input":"in","inline":true}}}"#
            }
            Ruby => {
                r#"{"tasks":{"in":{"operation":"import/raw","file":"héllo>>>???","filename":"a.txt"},"out":{"input":"in","operation":"export/url","inline":true}}}"#
            }
        }
    }

    /// Why it has no methods for webhooks; Java has.
    pub(super) fn lacks_webhooks(self) -> bool {
        self != Java
    }
}
