//! Sends spans to the collector: OTLP over HTTP with protobuf, in batches, from a bounded queue. Work never waits for it:
//! what does not fit, or is not taken, is dropped and counted.

use std::fmt;
use std::time::Duration;

use connectors::http::{Body, Client};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::{dropped, exported, headers};
use crate::config::Telemetry;

/// Spans that wait to be sent; more are dropped.
const QUEUE_MAX: usize = 8192;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long spans wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// Time for a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of a batch, and the pause between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Where collectors take traces.
const PATH: &str = "/v1/traces";

/// Where spans go.
pub(super) struct Collector {
    client: Client,
    target: Uri,
    headers: HeaderMap,
}

impl Collector {
    /// The collector that the settings name.
    pub(super) fn of(settings: &Telemetry, client: Client) -> Result<Option<Self>, String> {
        let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
        let base = endpoint.expose().trim_end_matches('/');
        let full = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
        let target = full.parse().map_err(|_| "telemetry.otlp_endpoint: this is no URL".to_owned())?;
        let text = match (&settings.otlp_headers, &settings.otlp_headers_file) {
            (Some(text), _) => text.expose().to_owned(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("telemetry.otlp_headers_file: {} cannot be read: {error}", path.display()))?,
            (None, None) => String::new(),
        };
        Ok(Some(Self { client, target, headers: headers(&text)? }))
    }

    /// Sends spans, a few times if need be; says why they were not taken.
    async fn send(&self, body: Vec<u8>) -> Result<u64, String> {
        let body = bytes::Bytes::from(body);
        let mut tries = 1;
        loop {
            let (why, again) = match self.send_once(body.clone()).await {
                Ok((status, rejected)) if status.is_success() => return Ok(rejected),
                Ok((status, _)) => {
                    let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                    (format!("it answered {}", status.as_u16()), again)
                }
                Err(why) => (why, true),
            };
            if !again || tries >= TRIES {
                return Err(why);
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }

    async fn send_once(&self, body: bytes::Bytes) -> Result<(StatusCode, u64), String> {
        let mut request =
            Request::post(self.target.clone()).body(Body::from(body)).map_err(|error| error.to_string())?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let exchange = async {
            let response = self.client.send(request, "sending spans").await.map_err(|error| error.detail)?;
            let status = response.status();
            let answer = response.into_body().bytes(ANSWER_BYTES_MAX).await.unwrap_or_default();
            let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
            let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
            Ok((status, u64::try_from(rejected).unwrap_or(0)))
        };
        // Sending must not make spans of its own.
        timeout(ANSWER_TIMEOUT, exchange.with_subscriber(NoSubscriber::default()))
            .await
            .unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
    }
}

/// The queue, as seen by the library that makes spans.
pub(super) struct Queue(Sender<SpanData>);

impl Queue {
    /// Opens a queue, and the work that empties it.
    pub(super) fn open(
        collector: Collector,
        resource: &Resource,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = channel(QUEUE_MAX);
        (Self(sender), empty(receiver, collector, resource.into(), stop))
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            dropped().inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

/// Sends what comes, until it is stopped and nothing is left.
async fn empty(
    mut spans: Receiver<SpanData>,
    collector: Collector,
    resource: ResourceAttributesWithSchema,
    stop: CancellationToken,
) {
    let mut is_failing = false;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = spans.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
            () = stop.cancelled() => {}
        }
        if batch.len() < BATCH_MAX {
            tokio::select! {
                () = sleep(GATHER) => {}
                () = stop.cancelled() => {}
            }
        }
        while batch.len() < BATCH_MAX
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let request = ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, &resource) };
        match collector.send(request.encode_to_vec()).await {
            Ok(rejected) => {
                exported().inc_by(count.saturating_sub(rejected));
                dropped().inc_by(rejected.min(count));
                is_failing = false;
            }
            Err(why) => {
                dropped().inc_by(count);
                // Once, and again when it had worked in between: a collector may be gone for days.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(why, "the collector takes no spans; they are dropped and counted");
                }
            }
        }
    }
}
