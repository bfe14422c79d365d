//! The one table of error codes, and the two errors that carry a code: [`ApiError`] ends a request, [`TaskError`] an
//! attempt. Neither knows HTTP frameworks; `http/error.rs` turns the first into an answer.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use connectors::Kind;

/// A result that ends a request when it fails.
pub type ApiResult<T> = Result<T, ApiError>;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $wire:literal, $status:literal, $retry:ident;)+) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As clients see it.
            pub const fn wire(self) -> &'static str {
                match self { $(Self::$name => $wire),+ }
            }

            /// HTTP status of an answer with this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// Whether the server tries the task again by itself.
            pub const fn is_retried(self) -> bool {
                match self { $(Self::$name => Retried::$retry as u8 == Retried::Later as u8),+ }
            }

            /// What it means, for the manual.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

enum Retried {
    Never,
    Later,
}

codes! {
    /// The API key is missing, unknown, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED", 401, Never;
    /// The API key lacks the scope that this call needs.
    Forbidden = "FORBIDDEN", 403, Never;
    /// There is no such task, job, file or path.
    NotFound = "NOT_FOUND", 404, Never;
    /// The path exists, but not with this method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, Never;
    /// An argument is missing or has a value that is not allowed; `errors` names each one.
    InvalidData = "INVALID_DATA", 422, Never;
    /// The request is not what its headers say, or is not HTTP.
    BadRequest = "BAD_REQUEST", 400, Never;
    /// The request body is larger than the server takes.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", 413, Never;
    /// A condition of the request does not hold.
    PreconditionFailed = "PRECONDITION_FAILED", 412, Never;
    /// The range lies outside the file.
    RangeNotSatisfiable = "RANGE_NOT_SATISFIABLE", 416, Never;
    /// The link has expired or its signature is wrong.
    LinkInvalid = "LINK_INVALID", 403, Never;
    /// The webhook said that it is gone and is told nothing more; delete it and create another one.
    WebhookDisabled = "WEBHOOK_DISABLED", 409, Never;
    /// The task has its file already, or is no longer waiting for one.
    UploadClosed = "UPLOAD_CLOSED", 409, Never;
    /// There were too many requests; wait as long as `Retry-After` says.
    TooManyRequests = "TOO_MANY_REQUESTS", 429, Never;
    /// The task or job did not end while the request waited; ask again.
    WaitTimeout = "WAIT_TIMEOUT", 504, Never;
    /// The job behind a signed URL failed; the message says why.
    JobFailed = "JOB_FAILED", 422, Never;
    /// The server cannot work now; try again later.
    Unavailable = "UNAVAILABLE", 503, Later;
    /// Something in the server went wrong; its log says what.
    Internal = "INTERNAL", 500, Never;

    /// A task that this one takes files from has failed.
    InputTaskFailed = "INPUT_TASK_FAILED", 422, Never;
    /// The task was cancelled.
    Cancelled = "CANCELLED", 422, Never;
    /// The task took longer than it may, or its file never came.
    Timeout = "TIMEOUT", 504, Never;
    /// The task was interrupted more often than it is tried.
    WorkerLost = "WORKER_LOST", 500, Never;
    /// There is no file to work on.
    NoInputFiles = "NO_INPUT_FILES", 422, Never;
    /// Several files would get the same name; use a prefix or a placeholder such as `%d`.
    NameConflict = "NAME_CONFLICT", 422, Never;
    /// The file is larger than allowed, here or at the destination.
    FileTooLarge = "FILE_TOO_LARGE", 413, Never;
    /// There are more files than allowed.
    TooManyFiles = "TOO_MANY_FILES", 422, Never;
    /// This server's disk is full; its operator must make room.
    StorageFull = "STORAGE_FULL", 507, Later;
    /// The host is not one that this server may connect to; the message names the setting.
    HostNotAllowed = "HOST_NOT_ALLOWED", 403, Never;
    /// The host name has no address; check its spelling.
    HostNotFound = "HOST_NOT_FOUND", 502, Later;
    /// No connection could be made, or it broke.
    RemoteUnreachable = "REMOTE_UNREACHABLE", 502, Later;
    /// The other side's certificate was not accepted.
    TlsRefused = "TLS_REFUSED", 502, Never;
    /// The SSH host key is not the one given in `host_key`.
    HostKeyMismatch = "HOST_KEY_MISMATCH", 502, Never;
    /// The other side was silent for too long.
    RemoteTimeout = "REMOTE_TIMEOUT", 504, Later;
    /// The credentials for the other side are wrong or expired.
    InvalidCredentials = "INVALID_CREDENTIALS", 401, Never;
    /// The credentials are right but do not allow this; the message names what is missing.
    AccessDenied = "ACCESS_DENIED", 403, Never;
    /// The bucket, container or directory does not exist.
    ContainerNotFound = "CONTAINER_NOT_FOUND", 404, Never;
    /// The file does not exist at the other side.
    FileNotFound = "FILE_NOT_FOUND", 404, Never;
    /// The other side refused an argument.
    RemoteRefused = "REMOTE_REFUSED", 422, Never;
    /// The other side has no space left.
    RemoteFull = "REMOTE_FULL", 507, Never;
    /// The other side asks to slow down.
    RemoteThrottled = "REMOTE_THROTTLED", 429, Later;
    /// The other side failed.
    RemoteUnavailable = "REMOTE_UNAVAILABLE", 502, Later;
    /// What arrived is not what was sent.
    IntegrityMismatch = "INTEGRITY_MISMATCH", 502, Later;
    /// The other side's answer makes no sense.
    RemoteProtocol = "REMOTE_PROTOCOL", 502, Never;
    /// The storage cannot do this.
    Unsupported = "UNSUPPORTED", 422, Never;
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::HostNotAllowed => Self::HostNotAllowed,
            Kind::HostNotFound => Self::HostNotFound,
            Kind::Unreachable => Self::RemoteUnreachable,
            Kind::TlsRefused => Self::TlsRefused,
            Kind::HostKeyMismatch => Self::HostKeyMismatch,
            Kind::Timeout => Self::RemoteTimeout,
            Kind::InvalidCredentials => Self::InvalidCredentials,
            Kind::AccessDenied => Self::AccessDenied,
            Kind::ContainerNotFound => Self::ContainerNotFound,
            Kind::NotFound => Self::FileNotFound,
            Kind::InvalidRequest => Self::RemoteRefused,
            Kind::TooLarge => Self::FileTooLarge,
            Kind::TooMany => Self::TooManyFiles,
            Kind::NoSpace => Self::RemoteFull,
            Kind::Throttled => Self::RemoteThrottled,
            Kind::Unavailable => Self::RemoteUnavailable,
            Kind::IntegrityMismatch => Self::IntegrityMismatch,
            Kind::Protocol => Self::RemoteProtocol,
            Kind::Unsupported => Self::Unsupported,
            Kind::Local => Self::Internal,
        }
    }
}

/// Faults of a request, by wire path (`tasks.save.bucket`), each with sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeMap<String, Vec<String>>);

impl Faults {
    /// Adds a sentence for a field.
    pub fn add(&mut self, field: impl Into<String>, sentence: impl Into<String>) {
        self.0.entry(field.into()).or_default().push(sentence.into());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in the faults of a part, each field below `prefix`.
    pub fn absorb(&mut self, prefix: &str, part: Self) {
        for (field, sentences) in part.0 {
            let path = if field.is_empty() { prefix.to_owned() } else { format!("{prefix}.{field}") };
            self.0.entry(path).or_default().extend(sentences);
        }
    }

    /// Fails with these faults, if there are any.
    ///
    /// # Errors
    /// [`Code::InvalidData`].
    pub fn into_result(self) -> ApiResult<()> {
        if self.is_empty() { Ok(()) } else { Err(ApiError::invalid(self)) }
    }
}

type Cause = Box<dyn StdError + Send + Sync>;

/// Ends a request. `Display` shows what the client may see; the cause is for the log.
#[derive(Debug)]
pub struct ApiError {
    /// The code.
    pub code: Code,
    /// One sentence for the client: no host path, no credential, no SQL.
    pub message: String,
    /// Faults by field, for [`Code::InvalidData`].
    pub faults: Faults,
    /// When to try again, for [`Code::TooManyRequests`] and [`Code::Unavailable`].
    pub retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl ApiError {
    /// Makes an error with a sentence for the client.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), faults: Faults::default(), retry_after: None, cause: None }
    }

    /// The answer to a request with faults in it.
    pub fn invalid(faults: Faults) -> Self {
        Self { faults, ..Self::new(Code::InvalidData, "The given data was invalid.") }
    }

    /// The answer for what is not there, or not this user's.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing here: check the id and the path.")
    }

    /// Adds what lies behind it, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.wire(), self.message)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// Ends an attempt of a task. `Display` shows what the client may see; the cause is for the log.
#[derive(Debug)]
pub struct TaskError {
    /// The code.
    pub code: Code,
    /// What happened and what to do, for the client.
    pub message: String,
    /// Whether to try again, and when the other side asked for it.
    pub retry: connectors::Retry,
    cause: Option<Cause>,
}

impl TaskError {
    /// Makes an error whose retry class is that of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry = if code.is_retried() { connectors::Retry::Later(None) } else { connectors::Retry::Never };
        Self { code, message: message.into(), retry, cause: None }
    }

    /// Adds what lies behind it, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl From<connectors::Error> for TaskError {
    fn from(error: connectors::Error) -> Self {
        // Without an answer nobody else has refused it: an argument cannot be used.
        let is_own = error.kind == Kind::InvalidRequest && error.answer.is_none();
        let code = if is_own { Code::InvalidData } else { Code::from(error.kind) };
        if error.kind == Kind::Local && error.is_transient() {
            let message = "This server cannot use its file store at the moment; the task is tried again.";
            return Self { retry: error.retry, ..Self::new(Code::Unavailable, message).because(error) };
        }
        let message = if error.kind == Kind::Local {
            "The server could not read or write its own files; its log says why.".to_owned()
        } else {
            format!("{error}.")
        };
        Self { code, message: sentence(&message), retry: error.retry, cause: Some(Box::new(error)) }
    }
}

/// Begins with a capital letter, unless it begins with a name, such as that of a host or an argument.
fn sentence(text: &str) -> String {
    let begins_with_a_word = ["a ", "access ", "an ", "it ", "no ", "the "].iter().any(|word| text.starts_with(word));
    if !begins_with_a_word {
        return text.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.wire(), self.message)
    }
}

impl StdError for TaskError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
