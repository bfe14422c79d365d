//! Counts what an attempt moves and repeats, under the name of its operation.

use std::sync::Arc;

use connectors::retry::Watch;

use crate::error::Code;
use crate::operations::context::{Meter, Transfer};
use crate::telemetry::metrics::{Metrics, Moved};

/// The counters of one attempt.
pub(super) struct TaskMeter {
    pub(super) metrics: Arc<Metrics>,
    pub(super) operation: String,
}

impl Meter for TaskMeter {
    fn moved(&self, transfer: &Transfer<'_>) {
        let Transfer { host, is_import, size_bytes, took } = *transfer;
        self.metrics.moved(&Moved { operation: &self.operation, host, is_import, size_bytes, took });
    }
}

/// Counts the repetitions of an operation's requests.
pub(super) fn watch(metrics: &Arc<Metrics>, operation: &str) -> Watch {
    let (metrics, operation) = (Arc::clone(metrics), operation.to_owned());
    Arc::new(move |kind| metrics.connector_retried(&operation, Code::from(kind)))
}
