//! The one registry of metrics, in the text format of Prometheus. What each means is in [`table`]. Labels are bounded:
//! route templates, never paths; names of hosts and users in a bounded number.

use std::fmt::{self, Write as _};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use connectors::Budget;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::traces;
use crate::error::Code;
use crate::store::{Counts, Load};

mod event;
mod hosts;
pub mod labels;
mod memory;
mod process;
mod seconds;
pub mod table;

pub use event::{Held, LeaseLoss, Moved};
pub use hosts::{HOSTS_MAX, OTHER};
use labels::{
    BuildLabels, CallLabels, HostLabels, HostRetryLabels, KindLabels, OperationLabels, OutcomeLabels, ReasonLabels,
    RequestLabels, RetryLabels, RouteLabels, TaskLabels, TransferLabels, UserLabels,
};
use seconds::histogram;

/// The prefix of our own metrics.
const PREFIX: &str = "consign";
/// Users with a line of their own, those with the most tasks queued.
pub const USERS_MAX: u32 = 20;

/// Takes one number out of the counts.
type Read = fn(&Counts) -> u64;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Seconds = Counter<f64, AtomicU64>;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    hosts: hosts::Hosts,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<RouteLabels>,
    attempts: Family<TaskLabels, Counter>,
    attempt_seconds: Histograms<OperationLabels>,
    task_retries: Family<RetryLabels, Counter>,
    connector_retries: Family<RetryLabels, Counter>,
    claim_wait: Histogram,
    store_seconds: Histograms<CallLabels>,
    lease_losses: Family<ReasonLabels, Counter>,
    heartbeats_missed: Family<ReasonLabels, Counter>,
    import_bytes: Family<OperationLabels, Counter>,
    export_bytes: Family<OperationLabels, Counter>,
    host_transfers: Family<TransferLabels, Counter>,
    host_bytes: Family<HostLabels, Counter>,
    host_seconds: Family<HostLabels, Seconds>,
    host_retries: Family<HostRetryLabels, Counter>,
    webhook_attempts: Family<OutcomeLabels, Counter>,
    webhook_seconds: Histogram,
    live: Family<KindLabels, Gauge>,
    counts: [(Gauge, Read); 12],
    user_queued: Family<UserLabels, Gauge>,
    user_running: Family<UserLabels, Gauge>,
    /// Heartbeats that were answered.
    pub heartbeats: Counter,
    /// Tasks taken back from processes that died.
    pub recovered: Counter,
    /// Bytes that came in through upload forms.
    pub upload_bytes: Counter,
    /// Bytes that went out through download links.
    pub download_bytes: Counter,
    /// Connections of clients.
    pub connections: Gauge,
    /// Requests that wait for an end.
    pub waits: Gauge,
    /// Downloads that are being sent.
    pub downloads: Gauge,
    /// Tasks that this process may work on at once.
    pub slots: Gauge,
    /// Tasks that this process works on.
    pub slots_used: Gauge,
    /// How many seconds ago the store was counted.
    pub counts_age: Gauge,
    /// Whether this process can work.
    pub ready: Gauge,
    /// Whether the database answers.
    pub database_up: Gauge,
    /// Whether the file store takes files.
    pub file_store_up: Gauge,
    /// Free bytes on the disk of the data directory.
    pub data_free_bytes: Gauge,
    /// Size of that disk in bytes.
    pub data_bytes: Gauge,
    memory: memory::Memory,
}

impl Metrics {
    /// Makes the registry with all metrics at zero.
    pub fn new() -> Self {
        let mut metrics = Self::unregistered();
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix(PREFIX));
        registry.register_collector(Box::new(process::Process));
        metrics.registry = registry;
        metrics.begin();
        metrics
    }

    fn unregistered() -> Self {
        let counts: [Read; 12] = [
            |counts| counts.waiting,
            |counts| counts.queued,
            |counts| counts.delayed,
            |counts| counts.running,
            |counts| counts.oldest_queued_secs,
            |counts| counts.open_uploads,
            |counts| counts.users,
            |counts| counts.keys,
            |counts| counts.oldest_event_secs,
            |counts| counts.deliveries,
            |counts| counts.oldest_delivery_secs,
            |counts| counts.oldest_snapshot_secs,
        ];
        Self {
            registry: Registry::default(),
            hosts: hosts::Hosts::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(histogram),
            task_retries: Family::default(),
            connector_retries: Family::default(),
            claim_wait: histogram(),
            store_seconds: Family::new_with_constructor(histogram),
            lease_losses: Family::default(),
            heartbeats_missed: Family::default(),
            import_bytes: Family::default(),
            export_bytes: Family::default(),
            host_transfers: Family::default(),
            host_bytes: Family::default(),
            host_seconds: Family::default(),
            host_retries: Family::default(),
            webhook_attempts: Family::default(),
            webhook_seconds: histogram(),
            live: Family::default(),
            counts: counts.map(|read| (Gauge::default(), read)),
            user_queued: Family::default(),
            user_running: Family::default(),
            heartbeats: Counter::default(),
            recovered: Counter::default(),
            upload_bytes: Counter::default(),
            download_bytes: Counter::default(),
            connections: Gauge::default(),
            waits: Gauge::default(),
            downloads: Gauge::default(),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
            counts_age: Gauge::default(),
            ready: Gauge::default(),
            database_up: Gauge::default(),
            file_store_up: Gauge::default(),
            data_free_bytes: Gauge::default(),
            data_bytes: Gauge::default(),
            memory: memory::Memory::default(),
        }
    }

    fn register(&self, to: &mut Registry) {
        let gauges = [
            ("consign_counts_age_seconds", &self.counts_age),
            ("consign_ready", &self.ready),
            ("consign_database_up", &self.database_up),
            ("consign_file_store_up", &self.file_store_up),
            ("consign_data_free_bytes", &self.data_free_bytes),
            ("consign_data_bytes", &self.data_bytes),
            ("consign_connections_open", &self.connections),
            ("consign_waits_open", &self.waits),
            ("consign_downloads_open", &self.downloads),
            ("consign_slots", &self.slots),
            ("consign_slots_used", &self.slots_used),
        ];
        let names = [
            "consign_tasks_waiting",
            "consign_tasks_queued",
            "consign_tasks_delayed",
            "consign_tasks_running",
            "consign_oldest_queued_seconds",
            "consign_open_uploads",
            "consign_users",
            "consign_keys",
            "consign_oldest_event_seconds",
            "consign_webhooks_pending",
            "consign_oldest_webhook_seconds",
            "consign_oldest_snapshot_seconds",
        ];
        let counts = names.into_iter().zip(self.counts.iter().map(|(gauge, _)| gauge));
        for (name, gauge) in gauges.into_iter().chain(counts).chain(self.memory.gauges()) {
            add(to, name, gauge);
        }
        for (name, counter) in [
            ("consign_heartbeats_total", &self.heartbeats),
            ("consign_tasks_recovered_total", &self.recovered),
            ("consign_upload_bytes_total", &self.upload_bytes),
            ("consign_download_bytes_total", &self.download_bytes),
            ("consign_spans_exported_total", traces::exported()),
            ("consign_spans_dropped_total", traces::dropped()),
        ] {
            add(to, name, counter);
        }
        add(to, "consign_http_requests_total", &self.requests);
        add(to, "consign_http_request_seconds", &self.request_seconds);
        add(to, "consign_attempts_total", &self.attempts);
        add(to, "consign_attempt_seconds", &self.attempt_seconds);
        add(to, "consign_task_retries_total", &self.task_retries);
        add(to, "consign_connector_retries_total", &self.connector_retries);
        add(to, "consign_claim_wait_seconds", &self.claim_wait);
        add(to, "consign_store_seconds", &self.store_seconds);
        add(to, "consign_lease_losses_total", &self.lease_losses);
        add(to, "consign_heartbeats_missed_total", &self.heartbeats_missed);
        add(to, "consign_import_bytes_total", &self.import_bytes);
        add(to, "consign_export_bytes_total", &self.export_bytes);
        add(to, "consign_host_transfers_total", &self.host_transfers);
        add(to, "consign_host_bytes_total", &self.host_bytes);
        add(to, "consign_host_transfer_seconds_total", &self.host_seconds);
        add(to, "consign_host_retries_total", &self.host_retries);
        add(to, "consign_webhook_attempts_total", &self.webhook_attempts);
        add(to, "consign_webhook_attempt_seconds", &self.webhook_seconds);
        add(to, "consign_live_open", &self.live);
        add(to, "consign_user_tasks_queued", &self.user_queued);
        add(to, "consign_user_tasks_running", &self.user_running);
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        add(to, "consign_build_info", &build);
    }

    /// Makes the lines that alerts look at, so that their first increase is seen as one.
    fn begin(&self) {
        for loss in LeaseLoss::ALL {
            let _ = self.lease_losses.get_or_create(&loss.label());
        }
        for reason in ["error", "timeout"] {
            let _ = self.heartbeats_missed.get_or_create(&ReasonLabels { reason });
        }
        for outcome in ["delivered", "retried", "failed", "gone"] {
            let _ = self.webhook_attempts.get_or_create(&OutcomeLabels { outcome });
        }
        for kind in ["socket", "stream"] {
            let _ = self.live.get_or_create(&KindLabels { kind });
        }
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

    /// Counts a task that waited so long for its claim.
    pub fn claimed(&self, waited: Duration) {
        self.claim_wait.observe(waited.as_secs_f64());
    }

    /// Counts a transaction.
    pub fn stored(&self, call: &'static str, took: Duration) {
        self.store_seconds.get_or_create(&CallLabels { call }).observe(took.as_secs_f64());
    }

    /// Counts an attempt that failed and is made again.
    pub fn task_retried(&self, operation: &str, reason: Code) {
        let labels = RetryLabels { operation: operation.to_owned(), reason: reason.wire() };
        self.task_retries.get_or_create(&labels).inc();
    }

    /// Counts a request of a connector that is made again.
    pub fn connector_retried(&self, operation: &str, reason: Code) {
        let labels = RetryLabels { operation: operation.to_owned(), reason: reason.wire() };
        self.connector_retries.get_or_create(&labels).inc();
    }

    /// Counts a lease, or the leases of a session, that were lost.
    pub fn lease_lost(&self, loss: LeaseLoss) {
        self.lease_losses.get_or_create(&loss.label()).inc();
    }

    /// Counts a heartbeat that was not answered: `error` or `timeout`.
    pub fn heartbeat_missed(&self, reason: &'static str) {
        self.heartbeats_missed.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a file that was moved, or not.
    pub fn moved(&self, moved: &Moved<'_>) {
        if let Some(bytes) = moved.size_bytes {
            let family = if moved.is_import { &self.import_bytes } else { &self.export_bytes };
            family.get_or_create(&OperationLabels { operation: moved.operation.to_owned() }).inc_by(bytes);
        }
        let Some(host) = moved.host.map(|host| self.hosts.label(host)) else { return };
        let direction = if moved.is_import { "in" } else { "out" };
        let outcome = if moved.size_bytes.is_some() { "ok" } else { "failed" };
        self.host_transfers.get_or_create(&TransferLabels { host: host.clone(), direction, outcome }).inc();
        let labels = HostLabels { host, direction };
        self.host_seconds.get_or_create(&labels).inc_by(moved.took.as_secs_f64());
        self.host_bytes.get_or_create(&labels).inc_by(moved.size_bytes.unwrap_or(0));
    }

    /// Counts an attempt at a delivery of a webhook.
    pub fn delivered(&self, outcome: &'static str, took: Duration) {
        self.webhook_seconds.observe(took.as_secs_f64());
        self.webhook_attempts.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The gauge of live connections of a kind: `socket` or `stream`.
    pub fn live(&self, kind: &'static str) -> Gauge {
        self.live.get_or_create_owned(&KindLabels { kind })
    }

    /// Takes over what the store counted, and who has the most tasks.
    pub fn set_counts(&self, counts: &Counts, loads: &[Load]) {
        for (gauge, read) in &self.counts {
            gauge.set(whole(read(counts)));
        }
        self.user_queued.clear();
        self.user_running.clear();
        let (mut queued, mut running) = (counts.queued, counts.running);
        for load in loads {
            let labels = UserLabels { user: load.user.0.to_string() };
            self.user_queued.get_or_create(&labels).set(whole(load.queued));
            self.user_running.get_or_create(&labels).set(whole(load.running));
            queued = queued.saturating_sub(load.queued);
            running = running.saturating_sub(load.running);
        }
        let others = UserLabels { user: OTHER.to_owned() };
        self.user_queued.get_or_create(&others).set(whole(queued));
        self.user_running.get_or_create(&others).set(whole(running));
    }

    /// Tells from now on how the memory of transfers is used. The first budget counts.
    pub fn watch_memory(&self, memory: Budget) {
        self.memory.watch(memory);
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        self.memory.read();
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail; should an encoder ever, half a page is worse than a plain comment.
            text.clear();
            let _ = text.write_str("# the metrics could not be written\n");
        }
        text
    }
}

/// Registers a metric under the name of the table, and with what that says of it.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, metric: &M) {
    let help = table::find(name).map_or("", |entry| entry.help);
    let bare = name.strip_prefix("consign_").unwrap_or(name);
    registry.register(bare.strip_suffix("_total").unwrap_or(bare), help, metric.clone());
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests;
