//! Traces for an OpenTelemetry collector, when the settings name one: one trace a job, whose id is the job's.
//!
//! A request is a span, an attempt is a span, and inside it each transfer and each call of a storage. What a job's
//! attempts did in whichever process is found by the job's id alone, so that nothing about traces is stored. Spans hold
//! names of hosts and ids; never paths, arguments or what an error says. Off, all this costs a look at a flag.

use std::cell::Cell;
use std::ops::Range;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use connectors::http::Client;
use http::HeaderMap;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use prometheus_client::metrics::counter::Counter;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use crate::config::Telemetry;

mod export;
mod sampling;

use export::{Collector, Queue};

/// Crates whose spans are traced.
const TRACED: [&str; 2] = ["consign", "connectors"];
/// Time to send what is left when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether anybody collects.
static IS_ON: AtomicBool = AtomicBool::new(false);
/// Counted by process, as subscribers are.
static EXPORTED: LazyLock<Counter> = LazyLock::new(Counter::default);
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);
/// Ids that say that they were made in these seconds of Unix time may be those of jobs: from 2020 to 2100. Of random ids, one
/// in some thousands looks like that.
const JOB_TIMES: Range<u64> = 1_577_836_800..4_102_444_800;

thread_local! {
    /// The id of the next trace that begins on this thread, if it is to have one of our choice.
    static NEXT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Spans that the collector took.
pub(super) fn exported() -> &'static Counter {
    &EXPORTED
}

/// Spans that it did not get.
pub(super) fn dropped() -> &'static Counter {
    &DROPPED
}

/// What sends spans, until it is stopped.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    stop: CancellationToken,
    sender: JoinHandle<()>,
}

impl Traces {
    /// Starts sending through this client, if the settings name a collector.
    ///
    /// # Errors
    /// A sentence that names the setting which cannot be used.
    pub fn start(settings: &Telemetry, client: Client, host_name: &str) -> Result<Option<Self>, String> {
        let Some(collector) = Collector::of(settings, client)? else { return Ok(None) };
        let resource = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", format!("{host_name}-{}", std::process::id())),
                KeyValue::new("host.name", host_name.to_owned()),
            ])
            .build();
        let stop = CancellationToken::new();
        let (queue, sending) = Queue::open(collector, &resource, stop.clone());
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampling::sampler(settings.sample_ratio))
            .with_id_generator(Ids::default())
            .with_span_processor(queue)
            .build();
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Some(Self { provider, stop, sender: tokio::spawn(sending) }))
    }

    /// The layer that makes spans of ours into spans of traces. Lines of the log are not part of them.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let is_ours = |metadata: &Metadata<'_>| {
            let krate = metadata.target().split("::").next().unwrap_or_default();
            metadata.is_span() && *metadata.level() <= Level::DEBUG && TRACED.contains(&krate)
        };
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("consign"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_ours))
    }

    /// Sends what is left, for some seconds at the most.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(FLUSH_TIMEOUT, self.sender).await.is_err() {
            tracing::warn!("the last spans did not reach the collector in time");
        }
    }
}

/// Begins a span of this name that belongs to the trace of a job, or of a task of its own.
pub fn begin(span: &Span, id: Uuid, name: &str) {
    if IS_ON.load(Ordering::Relaxed) {
        NEXT.set(Some(trace_of(id)));
        span.context().span().update_name(name.to_owned());
        NEXT.set(None);
    }
}

/// Begins the span of a request under the name of its route, in the trace of the client where it has one, but never in that of
/// a job.
pub fn begin_request(span: &Span, headers: &HeaderMap, name: impl FnOnce() -> String) {
    if IS_ON.load(Ordering::Relaxed) {
        if let Some(parent) = headers.get("traceparent").and_then(|text| parent(text.to_str().ok()?)) {
            // The span was made just now and has not begun, so that this cannot fail.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
        span.context().span().update_name(name());
    }
}

/// Notes that this request made a job, or a task of its own: in the log, and as a link to its trace.
pub fn made(kind: &'static str, id: Uuid) {
    let span = Span::current();
    span.record(kind, display(id));
    if IS_ON.load(Ordering::Relaxed) {
        let (_, low) = id.as_u64_pair();
        let (flags, state) = (TraceFlags::SAMPLED, TraceState::NONE);
        span.add_link(SpanContext::new(trace_of(id), SpanId::from(low), flags, true, state));
    }
}

fn trace_of(id: Uuid) -> TraceId {
    TraceId::from(id.as_u128())
}

/// Reads where a client's trace stands. Whatever else clients pass along is not taken over.
///
/// # Source
/// W3C Trace Context, `traceparent`.
fn parent(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    (context.is_valid() && !may_be_of_a_job(trace)).then_some(context)
}

/// Whether a job, or a task of its own, may have this trace: then it is no client's, who may not even be its owner.
fn may_be_of_a_job(trace: TraceId) -> bool {
    let id = Uuid::from_bytes(trace.to_bytes());
    id.get_version_num() == 7 && id.get_timestamp().is_some_and(|made| JOB_TIMES.contains(&made.to_unix().0))
}

/// Random ids, but for traces that are to have one of our choice.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// The headers that the settings give, `name=value` with commas between them.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
        // What cannot be read may be half a secret, and is not repeated.
        let bad = || "telemetry.otlp_headers: give `name=value`, several with commas between them".to_owned();
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        let name = http::HeaderName::from_str(name.trim()).map_err(|_| bad())?;
        let mut value = http::HeaderValue::from_str(value.trim()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_taken_over_only_if_it_is_well_formed() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parent(good).unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_remote() && context.is_sampled());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-zbf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // The id of a job.
            "00-019a0f3577b37da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(parent(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn headers_that_cannot_be_read_are_not_repeated() {
        let read = headers("authorization=Bearer a=b, x-scope = t1\n").unwrap();
        assert_eq!((read["authorization"].to_str().unwrap(), read["x-scope"].to_str().unwrap()), ("Bearer a=b", "t1"));
        assert!(!format!("{read:?}").contains("Bearer"));
        for bad in ["needle", "a b=needle", "x=need\u{1}le"] {
            assert!(!headers(bad).unwrap_err().contains("need"), "{bad}");
        }
    }
}
