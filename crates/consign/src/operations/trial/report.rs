//! What a trial found, step by step, as clients and people see it.

use connectors::Error;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Code, TaskError};
use crate::operations::permissions::Permissions;

/// What a trial found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Trial")]
pub struct Report {
    /// The operation that was tried.
    pub operation: &'static str,
    /// The export would work: every step that it needs passed.
    pub ok: bool,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// Full name of the test file, when it may have stayed at the destination.
    pub left_behind: Option<String>,
    /// What the export must be allowed there, and how to allow it; null where that is not known.
    pub permissions: Option<Permissions>,
    /// What the client should know about its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One step of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "TrialStep")]
pub struct Step {
    /// Which.
    pub step: Name,
    /// How it ended.
    pub status: Status,
    /// The export does not work without it.
    pub needed: bool,
    /// What was found, and what to do about it; null for a step about which there is nothing to say.
    pub message: Option<String>,
    /// Error code, when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The provider's own error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_code: Option<String>,
    /// The provider's id of the request, to quote to its support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Rights that the step needs, when one of them may be missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What does not work without a step that is not needed, when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loses: Option<&'static str>,
}

/// The steps of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TrialStepName")]
pub enum Name {
    /// The arguments can be used.
    Arguments,
    /// The host has an address that may be connected to, and answers.
    Connect,
    /// The credentials are accepted.
    Credentials,
    /// A small file is stored under a name of its own, with all arguments of the task.
    Write,
    /// It is stored again under the same name; where that takes a right of its own.
    Replace,
    /// An upload in parts that failed is cleared away; where that takes a right of its own.
    Abort,
    /// The file is looked at.
    Stat,
    /// The file is read back.
    Read,
    /// The folder of the file is listed.
    List,
    /// The file is deleted.
    Delete,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TrialStatus")]
pub enum Status {
    /// It works.
    Ok,
    /// It does not; the message says why.
    Refused,
    /// It was not tried, because an earlier step was refused, or proved neither way.
    Skipped,
}

impl Name {
    /// All steps in their order.
    pub const ALL: [Self; 10] = [
        Self::Arguments,
        Self::Connect,
        Self::Credentials,
        Self::Write,
        Self::Replace,
        Self::Abort,
        Self::Stat,
        Self::Read,
        Self::List,
        Self::Delete,
    ];

    /// As on the wire.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Connect => "connect",
            Self::Credentials => "credentials",
            Self::Write => "write",
            Self::Replace => "replace",
            Self::Abort => "abort",
            Self::Stat => "stat",
            Self::Read => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    /// What does not work without it; nothing for the steps that an export needs.
    const fn loses(self) -> Option<&'static str> {
        Some(match self {
            Self::Arguments | Self::Connect | Self::Credentials | Self::Write => return None,
            Self::Replace => "A file of the same name cannot be replaced: a task that runs again may fail.",
            Self::Abort => "An upload that fails leaves its parts behind.",
            Self::Stat => "A large upload whose last answer gets lost is sent again.",
            Self::Read => "An import from here would not work.",
            Self::List => "An import of all files from here would not work.",
            Self::Delete => "The test file stays.",
        })
    }
}

impl Step {
    pub(super) fn ok(step: Name, message: impl Into<String>) -> Self {
        Self { status: Status::Ok, message: Some(message.into()), ..Self::skipped(step) }
    }

    pub(super) fn skipped(step: Name) -> Self {
        Self {
            step,
            status: Status::Skipped,
            needed: step.loses().is_none(),
            message: None,
            code: None,
            provider_code: None,
            request_id: None,
            missing: Vec::new(),
            loses: None,
        }
    }

    /// A step that the destination refused, or that did not come so far.
    pub(super) fn refused(step: Name, error: Error, permissions: Option<&Permissions>) -> Self {
        let answer = error.answer.as_deref().cloned().unwrap_or_default();
        let refused = Self::failed(step, TaskError::from(error));
        let is_denied = refused.code == Some(Code::AccessDenied.wire());
        Self {
            provider_code: answer.code,
            request_id: answer.request_id,
            missing: permissions.filter(|_| is_denied).map(|known| known.of(step)).unwrap_or_default(),
            ..refused
        }
    }

    /// A step that failed here already.
    pub(super) fn failed(step: Name, error: TaskError) -> Self {
        Self {
            status: Status::Refused,
            code: Some(error.code.wire()),
            message: Some(error.message),
            loses: step.loses(),
            ..Self::skipped(step)
        }
    }
}
