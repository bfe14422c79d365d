//! Counts what an attempt moves and repeats, under the name of its operation.

use std::sync::Arc;

use connectors::Kind;
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

    fn repeated(&self, host: &str, reason: Kind) {
        self.metrics.host_retried(host, Code::from(reason));
    }
}

/// Counts the repetitions of an operation's requests.
pub(super) fn watch(metrics: &Arc<Metrics>, operation: &str) -> Watch {
    let (metrics, operation) = (Arc::clone(metrics), operation.to_owned());
    Arc::new(move |kind| metrics.connector_retried(&operation, Code::from(kind)))
}

/// Counts the same of what goes to one host, where no [`TaskMeter`] does.
pub(super) fn watch_host(metrics: &Arc<Metrics>, operation: &str, host: String) -> Watch {
    let (watch, metrics) = (watch(metrics, operation), Arc::clone(metrics));
    Arc::new(move |kind| {
        watch(kind);
        metrics.host_retried(&host, Code::from(kind));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_counts_by_operation_and_by_host() {
        let metrics = Arc::new(Metrics::new());
        watch_host(&metrics, "export/s3", "h.test:1".to_owned())(Kind::Throttled);
        let meter = TaskMeter { metrics: Arc::clone(&metrics), operation: "export/s3".to_owned() };
        meter.repeated("h.test:1", Kind::Throttled);
        let text = metrics.text();
        for line in [
            r#"consign_connector_retries_total{operation="export/s3",reason="REMOTE_THROTTLED"} 1"#,
            r#"consign_host_retries_total{host="h.test",reason="REMOTE_THROTTLED"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
