//! Every metric with its kind, labels and meaning: what `/metrics` says of itself and what the manual prints.

use std::fmt::Write as _;

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at zero with the process.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// As the text format names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, as queries write it.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Names of its labels, with commas.
    pub labels: &'static str,
    /// What it means, without a full stop.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Entry {
    Entry { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Entry {
    Entry { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static str, help: &'static str) -> Entry {
    Entry { name, kind: Kind::Histogram, labels, help }
}

/// All metrics, in the order of the manual.
pub const TABLE: &[Entry] = &[
    // Is it healthy.
    gauge("consign_ready", "", "1 when this process can work: what readyz says"),
    gauge("consign_database_up", "", "1 when the database answers and can be written to"),
    gauge("consign_file_store_up", "", "1 when a file can be written and the disk is not full"),
    gauge("consign_data_free_bytes", "", "Free bytes on the disk of the data directory"),
    gauge("consign_data_bytes", "", "Size in bytes of the disk of the data directory"),
    gauge("consign_build_info", "version", "1, with the version of the program"),
    // What waits.
    gauge("consign_tasks_waiting", "", "Tasks that wait for others or for an upload"),
    gauge("consign_tasks_queued", "", "Tasks that can be claimed"),
    gauge("consign_tasks_delayed", "", "Tasks that wait to be tried again"),
    gauge("consign_tasks_running", "", "Tasks that are being worked on"),
    gauge("consign_oldest_queued_seconds", "", "Age of the oldest task that can be claimed"),
    gauge(
        "consign_counts_age_seconds",
        "",
        "How long ago this process last read what is counted in the database: what waits stands still while it grows",
    ),
    gauge(
        "consign_user_tasks_queued",
        "user",
        "Tasks that can be claimed, of the 20 users with the most; else `other`",
    ),
    gauge("consign_user_tasks_running", "user", "Tasks that are being worked on, of the same users; else `other`"),
    gauge("consign_open_uploads", "", "Uploads open at destinations"),
    gauge("consign_users", "", "Users"),
    gauge("consign_keys", "", "API keys that are not revoked"),
    gauge("consign_oldest_event_seconds", "", "Outbox lag: age of the oldest event that no delivery was made of"),
    gauge("consign_webhooks_pending", "", "Deliveries of webhooks that are not at their end"),
    gauge("consign_oldest_webhook_seconds", "", "How long the delivery that is overdue the longest has been so"),
    gauge(
        "consign_oldest_snapshot_seconds",
        "",
        "Age of the oldest transaction for which PostgreSQL keeps rows that are gone, of those that our user may see: claims have to pass over these rows",
    ),
    // The runner.
    gauge("consign_slots", "", "Tasks that this process may work on at once; 0 without a runner"),
    gauge("consign_slots_used", "", "Tasks that this process works on"),
    histogram("consign_claim_wait_seconds", "", "Time from when a task could be claimed to its claim"),
    histogram(
        "consign_store_seconds",
        "call",
        "Time of transactions: `claim`, `heartbeat`, `end`, `recover`, `ping` write, `count` reads",
    ),
    counter("consign_attempts_total", "operation, outcome", "Attempts: `finished`, or the error code"),
    histogram("consign_attempt_seconds", "operation", "Time of attempts"),
    counter(
        "consign_task_retries_total",
        "operation, reason",
        "Attempts that failed and are made again, by error code",
    ),
    counter(
        "consign_connector_retries_total",
        "operation, reason",
        "Requests repeated within an attempt, by error code",
    ),
    counter(
        "consign_lease_losses_total",
        "reason",
        "`session_expired`: others declared this process dead; `fenced`: it could not renew in time and stopped; \
         `stale_result`: an end came too late and was dropped",
    ),
    counter("consign_heartbeats_total", "", "Heartbeats that were answered"),
    counter("consign_heartbeats_missed_total", "reason", "Heartbeats that were not: `error`, `timeout`"),
    counter("consign_tasks_recovered_total", "", "Tasks taken back from processes that died"),
    // Bytes.
    gauge("consign_transfer_memory_bytes", "", "Memory that parts of transfers may have: `transfer.memory_bytes`"),
    gauge("consign_transfer_memory_used_bytes", "", "Memory that parts of transfers have"),
    gauge(
        "consign_transfer_parts_waiting",
        "",
        "Parts that wait for memory; above 0 for long, more memory makes transfers faster",
    ),
    counter("consign_import_bytes_total", "operation", "Bytes that imports took in"),
    counter("consign_export_bytes_total", "operation", "Bytes that exports delivered"),
    counter("consign_upload_bytes_total", "", "Bytes taken in by upload forms"),
    counter("consign_download_bytes_total", "", "Bytes sent by download links"),
    counter(
        "consign_host_transfers_total",
        "host, direction, outcome",
        "Files moved, by host of the source (`in`) or destination (`out`): `ok`, `failed`; the first 64 hosts since the start, whosever they are, else `other`",
    ),
    counter("consign_host_bytes_total", "host, direction", "Bytes of files moved, by host"),
    counter("consign_host_transfer_seconds_total", "host, direction", "Time spent moving files, by host"),
    counter(
        "consign_host_retries_total",
        "host, reason",
        "Requests repeated while a file was moved, by host and error code",
    ),
    // HTTP.
    counter("consign_http_requests_total", "method, route, status", "Requests by route and status"),
    histogram("consign_http_request_seconds", "method, route", "Time to the head of the answer"),
    gauge("consign_connections_open", "", "Connections of clients"),
    gauge("consign_waits_open", "", "Requests that wait for the end of a job or task"),
    gauge("consign_downloads_open", "", "Downloads that are being sent"),
    gauge("consign_live_open", "kind", "Live connections: `socket` (Socket.IO), `stream` (server-sent events)"),
    // Webhooks.
    counter(
        "consign_webhook_attempts_total",
        "outcome",
        "Attempts at webhooks: `delivered`, `retried`, `failed`, `gone`",
    ),
    histogram("consign_webhook_attempt_seconds", "", "Time of attempts at webhooks"),
    // Traces.
    counter("consign_spans_exported_total", "", "Spans that the collector took"),
    counter(
        "consign_spans_dropped_total",
        "",
        "Spans that were not sent: the queue was full, or the collector refused",
    ),
    // The process.
    counter("process_cpu_seconds_total", "", "Time of processors spent"),
    gauge("process_resident_memory_bytes", "", "Resident memory"),
    gauge("process_open_fds", "", "Open files and connections"),
    gauge("process_max_fds", "", "How many may be open"),
    gauge("process_start_time_seconds", "", "When the process started, in seconds since 1970"),
];

/// What the table says of a metric.
pub fn find(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == name)
}

/// The table in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n`GET /metrics`, in the text format of Prometheus, on the API's address and on `metrics_listen`. \
         Counters and histograms are of this process and start at zero with it; a line with labels appears when there is \
         something to count. What is read from the database is read at most every 5 s, however often it is asked for, and \
         is the same in all processes: take `max` over them, not `sum`. What each is good for: \
         [operation](../operation.md).\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for Entry { name, kind, labels, help } in TABLE {
        let labels = if labels.is_empty() { String::new() } else { format!("`{}`", labels.replace(", ", "`, `")) };
        let _ = writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.name());
    }
    text
}
