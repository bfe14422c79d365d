//! What SSH and SFTP say of a failure, in the words of [`crate::Error`].

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{Status, StatusCode};

use crate::error::{Error, Kind, ProviderAnswer, covered};
use crate::secret::Secret;

/// What is being done to which path, for the sentence of an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    /// As in [`Error::action`].
    pub(super) action: &'static str,
    /// As in "the user may not *write to* `dir/`".
    pub(super) verb: &'static str,
    /// The path, as the client gave it. Empty for the login directory.
    pub(super) path: &'a str,
}

impl<'a> Step<'a> {
    pub(super) fn new(action: &'static str, verb: &'static str, path: &'a str) -> Self {
        Self { action, verb, path }
    }

    fn shown(&self) -> String {
        if self.path.is_empty() { "the login directory".to_owned() } else { format!("`{}`", self.path) }
    }
}

/// Says what a refusal of the SFTP server means. Lost connections are not for it: only the session knows why.
pub(super) fn refused(status: &Status, step: Step<'_>, user: &str, secrets: &[Secret]) -> Error {
    let (verb, path) = (step.verb, step.shown());
    let words = words(&status.error_message, secrets);
    let (kind, code, detail) = match status.status_code {
        StatusCode::NoSuchFile => {
            (Kind::NotFound, "SSH_FX_NO_SUCH_FILE", format!("there is no file or directory {path}"))
        }
        StatusCode::PermissionDenied => {
            (Kind::AccessDenied, "SSH_FX_PERMISSION_DENIED", format!("the user {user} may not {verb} {path}"))
        }
        StatusCode::Failure if is_no_space(&words) => {
            (Kind::NoSpace, "SSH_FX_FAILURE", format!("the server has no space left to {verb} {path}: {words}"))
        }
        StatusCode::Failure => {
            (Kind::Unavailable, "SSH_FX_FAILURE", format!("the server could not {verb} {path}: {words}"))
        }
        StatusCode::OpUnsupported => {
            (Kind::Unsupported, "SSH_FX_OP_UNSUPPORTED", format!("the server does not know how to {verb} {path}"))
        }
        StatusCode::NoConnection | StatusCode::ConnectionLost => {
            (Kind::Unreachable, "SSH_FX_CONNECTION_LOST", "the server lost its own connection".to_owned())
        }
        StatusCode::Ok | StatusCode::Eof | StatusCode::BadMessage => {
            (Kind::Protocol, "SSH_FX_BAD_MESSAGE", format!("the server gave no sensible answer: {words}"))
        }
    };
    let answer = ProviderAnswer { code: Some(code.to_owned()), ..ProviderAnswer::default() };
    Error::new(kind, step.action, detail).answered(answer).without(secrets)
}

/// Whether the answer means that the connection, not the request, has failed.
pub(super) fn is_lost(error: &SftpError) -> bool {
    match error {
        // The library says both of a closed channel; a packet that makes no sense closes it.
        SftpError::IO(_) | SftpError::UnexpectedBehavior(_) => true,
        SftpError::Status(_) | SftpError::Timeout | SftpError::Limited(_) | SftpError::UnexpectedPacket => false,
    }
}

/// Says what the failure of an SSH connection means. `peer` is `host:port`.
pub(super) fn ssh(error: &russh::Error, action: &'static str, peer: &str, secrets: &[Secret]) -> Error {
    use russh::Error as Ssh;
    let (kind, detail) = if let Ssh::NoCommonAlgo { kind, ours, theirs } = error {
        let what = match kind {
            russh::AlgorithmKind::Kex => "key exchange",
            russh::AlgorithmKind::Key => "host key",
            russh::AlgorithmKind::Cipher => "cipher",
            russh::AlgorithmKind::Compression => "compression",
            russh::AlgorithmKind::Mac => "message authentication",
        };
        let (theirs, ours) = (words(&theirs.join(", "), secrets), ours.join(", "));
        let detail =
            format!("{peer} offers no {what} that is safe enough: it offers {theirs}; needed is one of {ours}");
        (Kind::Unsupported, detail)
    } else if matches!(error, Ssh::KeepaliveTimeout | Ssh::ConnectionTimeout | Ssh::InactivityTimeout | Ssh::Elapsed(_))
    {
        (Kind::Timeout, format!("{peer} stopped answering"))
    } else if matches!(error, Ssh::PacketAuth | Ssh::DecryptionError | Ssh::WrongServerSig) {
        (Kind::IntegrityMismatch, format!("what arrived from {peer} was altered on its way"))
    } else if matches!(error, Ssh::Version | Ssh::PacketSize(_)) {
        (Kind::Protocol, format!("{peer} does not answer like an SSH server; check host and port"))
    } else if matches!(error, Ssh::HUP | Ssh::Disconnect | Ssh::IO(_) | Ssh::SendError | Ssh::RecvError) {
        (Kind::Unreachable, format!("the connection to {peer} was closed"))
    } else {
        (
            Kind::Protocol,
            format!("{peer} and this server do not understand each other: {}", words(&error.to_string(), secrets)),
        )
    };
    Error::new(kind, action, detail).because(error.to_string()).without(secrets)
}

/// A server's words, fit to be passed on.
pub(super) fn words(text: &str, secrets: &[Secret]) -> String {
    let clean = covered(text, secrets);
    if clean.is_empty() { "it gave no reason".to_owned() } else { clean }
}

fn is_no_space(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["no space", "quota", "disk full", "not enough space", "insufficient space"].iter().any(|hint| words.contains(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_never_cut_within_a_secret() {
        let step = Step::new("storing the file", "write to", "a");
        for before in [285, 292, 296] {
            let error_message = format!("{}canary-password", "x".repeat(before));
            let status = Status { id: 1, status_code: StatusCode::Failure, error_message, language_tag: String::new() };
            let shown = format!("{:?}", refused(&status, step, "u", &["canary-password".into()]));
            assert!(shown.contains("xxxx") && !shown.contains("cana"), "{shown}");
        }
    }
}
