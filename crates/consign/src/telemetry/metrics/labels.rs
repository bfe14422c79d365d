//! The labels of metrics. Each has few values: closed lists, templates of routes, and names that are bounded in number.

use prometheus_client::encoding::EncodeLabelSet;

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `GET`, `POST` …
    pub method: String,
    /// The template of the route, such as `/v2/jobs/{id}`.
    pub route: String,
    /// The status of the answer.
    pub status: u16,
}

/// Labels of a request's duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// `GET`, `POST` …
    pub method: String,
    /// The template of the route.
    pub route: String,
}

/// Labels of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaskLabels {
    /// What it did.
    pub operation: String,
    /// `finished`, or the error code.
    pub outcome: String,
}

/// Labels by operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabels {
    /// What it does.
    pub operation: String,
}

/// Labels of what is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RetryLabels {
    /// What it does.
    pub operation: String,
    /// The code of the error that made it necessary.
    pub reason: &'static str,
}

/// Labels by outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// One of a closed list.
    pub outcome: &'static str,
}

/// Labels by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One of a closed list.
    pub reason: &'static str,
}

/// Labels of live connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// `socket` or `stream`.
    pub kind: &'static str,
}

/// Labels of calls of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// Which call.
    pub call: &'static str,
}

/// Labels of what is counted by user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UserLabels {
    /// The user's number, or `other`.
    pub user: String,
}

/// Labels of bytes that are moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HostLabels {
    /// The host, or `other`.
    pub host: String,
    /// `in` or `out`.
    pub direction: &'static str,
}

/// Labels of what is tried again at a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HostRetryLabels {
    /// The host, or `other`.
    pub host: String,
    /// The code of the error that made it necessary.
    pub reason: &'static str,
}

/// Labels of transfers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransferLabels {
    /// The host, or `other`.
    pub host: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

/// Labels of the build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildLabels {
    /// The program's version.
    pub version: &'static str,
}
