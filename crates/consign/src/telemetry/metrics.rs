//! The one registry of metrics, in the text format of Prometheus. Labels are bounded: route templates, never paths.

use std::fmt::{self, Write as _};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::store::Counts;

/// Upper bounds in seconds of the duration histograms: from a database read to a long transfer.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

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

/// Labels of a task that ended, or of an attempt.
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
    /// What it did.
    pub operation: String,
}

/// Labels of attempts at deliveries of webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// `delivered`, `retried`, `failed` or `gone`.
    pub outcome: &'static str,
}

/// Takes one number out of the counts.
type Read = fn(&Counts) -> u64;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabels>,
    /// Attempts that ended, counted by the runner.
    pub attempts: Family<TaskLabels, Counter>,
    /// How long attempts took in seconds, observed by the runner.
    pub attempt_seconds: Histograms<OperationLabels>,
    /// Bytes that came in through upload forms.
    pub upload_bytes: Counter<u64, AtomicU64>,
    /// Bytes that went out through download links.
    pub download_bytes: Counter<u64, AtomicU64>,
    deliveries: Family<DeliveryLabels, Counter>,
    delivery_seconds: Histogram,
    counts: [(Gauge, Read); 11],
}

impl Metrics {
    /// Makes the registry with all metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("consign");
        let counts: [(&str, &str, Read); 11] = [
            ("tasks_waiting", "Tasks that wait for others or for an upload", |counts| counts.waiting),
            ("tasks_queued", "Tasks that can be claimed", |counts| counts.queued),
            ("tasks_delayed", "Tasks that wait to be tried again", |counts| counts.delayed),
            ("tasks_running", "Tasks that are being worked on", |counts| counts.running),
            ("oldest_queued_seconds", "Age of the oldest task that can be claimed", |counts| counts.oldest_queued_secs),
            ("open_uploads", "Uploads open at destinations", |counts| counts.open_uploads),
            ("users", "Users", |counts| counts.users),
            ("keys", "API keys that are not revoked", |counts| counts.keys),
            ("oldest_event_seconds", "Age of the oldest event that no delivery was made of", |counts| {
                counts.oldest_event_secs
            }),
            ("webhooks_pending", "Deliveries of webhooks that are not at their end", |counts| counts.deliveries),
            ("oldest_webhook_seconds", "How long the delivery that is overdue the longest has been so", |counts| {
                counts.oldest_delivery_secs
            }),
        ];
        let counts = counts.map(|(name, help, read)| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            (gauge, read)
        });
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(histogram),
            upload_bytes: Counter::default(),
            download_bytes: Counter::default(),
            deliveries: Family::default(),
            delivery_seconds: histogram(),
            counts,
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register("http_request_seconds", "Time to the head of the answer", metrics.request_seconds.clone());
        registry.register("attempts", "Attempts by operation and outcome", metrics.attempts.clone());
        registry.register("attempt_seconds", "Time of attempts", metrics.attempt_seconds.clone());
        registry.register("upload_bytes", "Bytes taken in by upload forms", metrics.upload_bytes.clone());
        registry.register("download_bytes", "Bytes sent by download links", metrics.download_bytes.clone());
        registry.register("webhook_attempts", "Attempts at webhooks by outcome", metrics.deliveries.clone());
        registry.register("webhook_attempt_seconds", "Time of attempts at webhooks", metrics.delivery_seconds.clone());
        Self { registry, ..metrics }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.request_seconds
            .get_or_create(&RouteLabels { method: method.clone(), route: route.clone() })
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }

    /// Counts an attempt that ended; `outcome` is `finished` or an error code.
    pub fn attempted(&self, operation: &str, outcome: &str, took: Duration) {
        let operation = operation.to_owned();
        self.attempt_seconds
            .get_or_create(&OperationLabels { operation: operation.clone() })
            .observe(took.as_secs_f64());
        self.attempts.get_or_create(&TaskLabels { operation, outcome: outcome.to_owned() }).inc();
    }

    /// Counts an attempt at a delivery of a webhook.
    pub fn delivered(&self, outcome: &'static str, took: Duration) {
        self.delivery_seconds.observe(took.as_secs_f64());
        self.deliveries.get_or_create(&DeliveryLabels { outcome }).inc();
    }

    /// Takes over what the store counted.
    pub fn set_counts(&self, counts: &Counts) {
        for (gauge, read) in &self.counts {
            gauge.set(i64::try_from(read(counts)).unwrap_or(i64::MAX));
        }
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail; should an encoder ever, half a page is worse than a plain comment.
            text.clear();
            let _ = text.write_str("# the metrics could not be written\n");
        }
        text
    }
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
