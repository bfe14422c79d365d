//! The one error of all connectors: what happened, whether trying again may help, and the provider's own words.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::secret::Secret;

/// A result of a connector.
pub type Result<T> = std::result::Result<T, Error>;

type Cause = Box<dyn StdError + Send + Sync>;

/// Shorter texts are not covered: they are words that a message may hold by chance.
const SECRET_BYTES_MIN: usize = 6;

/// The longest text of the other side that is passed on.
const WORDS_CHARS_MAX: usize = 300;

/// What is being done while arguments are read, as in [`Error::action`].
pub(crate) const ARGUMENTS: &str = "reading the arguments";

/// What went wrong, in terms that hold for every storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The address is not one that this server may connect to.
    HostNotAllowed,
    /// The host name has no address.
    HostNotFound,
    /// No connection could be made, or it broke.
    Unreachable,
    /// The other side's certificate was not accepted.
    TlsRefused,
    /// The other side's SSH host key is not the one that was insisted on.
    HostKeyMismatch,
    /// No byte moved for too long.
    Timeout,
    /// The credentials are wrong, expired or malformed.
    InvalidCredentials,
    /// The credentials are right but may not do this.
    AccessDenied,
    /// The bucket, container or directory does not exist.
    ContainerNotFound,
    /// The object or file does not exist.
    NotFound,
    /// The other side refused an argument.
    InvalidRequest,
    /// The object is larger than this storage, or this side, takes.
    TooLarge,
    /// There are more objects than were asked for at the most.
    TooMany,
    /// The other side has no space left, or a quota is used up.
    NoSpace,
    /// The other side asks to slow down.
    Throttled,
    /// The other side failed.
    Unavailable,
    /// What arrived is not what was sent.
    IntegrityMismatch,
    /// The other side's answer makes no sense.
    Protocol,
    /// The storage cannot do this.
    Unsupported,
    /// The local file could not be read, or the journal not be written.
    Local,
}

/// Whether the same call may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No: the same call will fail again.
    Never,
    /// Yes, after the time that the other side asked for, if it did.
    Later(Option<Duration>),
}

/// A failed call to a foreign storage.
///
/// `detail` may be shown to the client: it holds names that the client gave and the provider's words, never a
/// credential, a local path or a signed URL. The cause is for the log.
pub struct Error {
    /// What happened.
    pub kind: Kind,
    /// Whether trying again may help.
    pub retry: Retry,
    /// What was being done, as a phrase that follows "while": `opening the upload`.
    pub action: &'static str,
    /// One sentence without a full stop that says what happened, fit for the client.
    pub detail: String,
    /// The provider's answer, where there was one.
    pub answer: Option<Box<ProviderAnswer>>,
    cause: Option<Cause>,
}

/// What the provider said of its refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderAnswer {
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own error code, such as `NoSuchBucket`.
    pub code: Option<String>,
    /// The provider's id of the request, to quote to its support.
    pub request_id: Option<String>,
}

impl Error {
    /// Makes an error whose retry class is the usual one of its kind.
    pub fn new(kind: Kind, action: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, retry: kind.retry(), action, detail: detail.into(), answer: None, cause: None }
    }

    /// The error of an argument that cannot be used; nothing was sent.
    pub(crate) fn argument(detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidRequest, ARGUMENTS, detail)
    }

    /// Adds what lies behind it, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what the provider said of itself.
    #[must_use]
    pub fn answered(mut self, answer: ProviderAnswer) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// Takes credentials out of all that may be shown or logged: the other side was told them and may repeat them.
    /// Texts of fewer than 6 bytes stay: they are words that a message may hold by chance.
    ///
    /// What is cut short must have been covered before: half a secret is not found.
    #[must_use]
    pub fn without(mut self, secrets: &[Secret]) -> Self {
        let spellings = spellings(secrets);
        let cover = |text: &mut String| *text = cover(text, &spellings);
        cover(&mut self.detail);
        if let Some(answer) = &mut self.answer {
            [&mut answer.code, &mut answer.request_id].into_iter().flatten().for_each(cover);
        }
        if self.cause.as_deref().is_some_and(|cause| spellings.iter().any(|secret| chain_holds(cause, secret))) {
            self.cause = None;
        }
        self
    }

    /// Sets the retry class where it differs from the kind's usual one.
    #[must_use]
    pub fn retrying(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self.retry, Retry::Later(_))
    }
}

/// A text of the other side, fit to be passed on: without secrets, on one line, of bounded length, without a full stop.
pub(crate) fn covered(text: &str, secrets: &[Secret]) -> String {
    // Before it is cut: of a secret that is cut in two, the first half would stay.
    let text = cover(text, &spellings(secrets));
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line: String = words.collect::<Vec<_>>().join(" ").chars().take(WORDS_CHARS_MAX).collect();
    line.trim_end().trim_end_matches('.').to_owned()
}

fn cover(text: &str, spellings: &[String]) -> String {
    spellings.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Secrets as they are, and as a JSON text has them where that is different: some repeat the body that they were sent. The
/// longest come first: one may hold another.
fn spellings(secrets: &[Secret]) -> Vec<String> {
    let long = secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= SECRET_BYTES_MIN);
    let mut all: Vec<String> = long
        .flat_map(|secret| {
            let quoted = serde_json::Value::from(secret).to_string();
            [quoted[1..quoted.len() - 1].to_owned(), secret.to_owned()]
        })
        .collect();
    all.sort_unstable_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    all
}

fn chain_holds(cause: &(dyn StdError + 'static), text: &str) -> bool {
    let mut next = Some(cause);
    while let Some(error) = next {
        if error.to_string().contains(text) {
            return true;
        }
        next = error.source();
    }
    false
}

impl Kind {
    /// The usual retry class of this kind.
    pub fn retry(self) -> Retry {
        match self {
            Self::Unreachable
            | Self::HostNotFound
            | Self::Timeout
            | Self::Throttled
            | Self::Unavailable
            | Self::IntegrityMismatch => Retry::Later(None),
            Self::HostNotAllowed
            | Self::TlsRefused
            | Self::HostKeyMismatch
            | Self::InvalidCredentials
            | Self::AccessDenied
            | Self::ContainerNotFound
            | Self::NotFound
            | Self::InvalidRequest
            | Self::TooLarge
            | Self::TooMany
            | Self::NoSpace
            | Self::Protocol
            | Self::Unsupported
            | Self::Local => Retry::Never,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (while {}", self.detail, self.action)?;
        let ProviderAnswer { status, code, request_id } = self.answer.as_deref().cloned().unwrap_or_default();
        if let Some(status) = status {
            write!(f, ", status {status}")?;
        }
        if let Some(code) = code {
            write!(f, ", code {code}")?;
        }
        if let Some(id) = request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "; because {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_repeats_is_covered() {
        let cause = Error::new(Kind::Local, "b", "hunter22 again");
        let error = Error::new(Kind::AccessDenied, "a", "no hunter22 here: hunter22")
            .answered(ProviderAnswer {
                status: None,
                code: Some("hunter22".to_owned()),
                request_id: Some("xhunter22x".to_owned()),
            })
            .because(Error::new(Kind::Local, "c", "outer").because(cause));
        let error = error.without(&[Secret::new("hunter22"), Secret::new("no"), Secret::new("")]);
        assert_eq!(error.to_string(), "no *** here: *** (while a, code ***, request x***x)");
        assert!(!format!("{error:?}").contains("hunter22"));
        let repeated = Error::new(Kind::AccessDenied, "a", r#"{"password":"hu\"nter\\22"} hu"nter\22"#);
        let covered = repeated.without(&[Secret::new(r#"hu"nter\22"#)]);
        assert_eq!(covered.detail, r#"{"password":"***"} ***"#);
        let nested = Error::new(Kind::AccessDenied, "a", "Bearer hunter22 is none");
        let covered = nested.without(&[Secret::new("hunter22"), Secret::new("Bearer hunter22")]);
        assert_eq!(covered.detail, "*** is none");
        let harmless = Error::new(Kind::Local, "c", "outer").because("inner").without(&[Secret::new("hunter22")]);
        assert!(harmless.source().is_some());
    }

    #[test]
    fn words_are_one_bounded_line_and_a_secret_never_stands_in_them_in_part() {
        assert_eq!(covered(" line\r\n\tone. \u{7}two.\n", &[]), "line one. two");
        assert_eq!(covered(&"é".repeat(1000), &[]), "é".repeat(WORDS_CHARS_MAX));
        let secret = "tail-hunter22\nand-more-of-it";
        for before in (WORDS_CHARS_MAX - secret.len() - 4)..=WORDS_CHARS_MAX {
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(50));
            let shown = covered(&text, &[Secret::new(secret)]);
            assert!(!shown.contains("tail") && shown.chars().count() <= WORDS_CHARS_MAX, "{before}: {shown}");
        }
    }
}
