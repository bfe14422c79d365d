//! What operators rely on: health, metrics and logs of the real program, and the traces that a collector gets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use consign::error::Code;
use consign::telemetry::metrics::table;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::fleet::Fleet;
use super::harness::{Program, Signal, eventually, id, task};

/// Stands in every place where a credential may stand, and must come out nowhere.
const CANARY: &str = "canary5f1e";

/// What a path answers, as text.
pub(super) async fn text(base: &str, path: &str) -> (u16, String) {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    let client = Client::new(guard, tls_config(&[]).unwrap(), &Limits::default());
    let request = http::Request::get(format!("{base}{path}")).body(Body::empty()).unwrap();
    let answer = client.send(request, "fetching").await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().bytes(1 << 20).await.unwrap().to_vec()).unwrap())
}

/// Names of metrics in a text: words of letters, digits and underscores with one of our prefixes.
fn names(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = |word: &&str| word.starts_with("consign_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

/// Whether the table has a metric to which this name of a series belongs.
fn is_in_table(name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let is_histogram = |entry: &table::Entry| entry.kind == table::Kind::Histogram;
    if base == name { table::find(name).is_some() } else { table::find(base).is_some_and(is_histogram) }
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let read = |name: &str| fs::read_to_string(docs.join(name)).unwrap();
    let (dashboard, alerts, manual) =
        (read("grafana/consign.json"), read("prometheus/alerts.yaml"), read("operation.md"));
    for (name, text, least) in [("dashboard", &dashboard, 40), ("alerts", &alerts, 12), ("manual", &manual, 10)] {
        let found = names(text);
        assert!(found.len() >= least, "{name}: only {} names of metrics were found", found.len());
        for metric in found {
            assert!(is_in_table(&metric), "{name}: there is no metric {metric}");
        }
    }
    let shown: Value = serde_json::from_str(&dashboard).unwrap();
    let variables = shown["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["type"] == "datasource"), "one may choose the data source");
    for panel in shown["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{}", panel["title"]);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
    let charted = names(&dashboard);
    for entry in table::TABLE {
        let is_charted = charted.iter().any(|name| name.starts_with(entry.name));
        assert!(is_charted, "the dashboard does not show {}", entry.name);
    }
    // What ends a task without an attempt that says so is in no attempt's outcome: an alert on it would never come.
    let outcomes = alerts.split("consign_attempts_total{outcome=~\"").nth(1).unwrap().split('"').next().unwrap();
    for outcome in outcomes.split('|') {
        let code = Code::ALL.iter().find(|code| code.wire() == outcome).unwrap_or_else(|| panic!("no code {outcome}"));
        let name = format!("Code::{code:?}");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let is_made = ["files/mod.rs", "runner/step.rs"]
            .iter()
            .any(|file| fs::read_to_string(source.join(file)).unwrap().contains(&name));
        assert!(is_made, "no attempt ends with {outcome}");
    }
    for line in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(manual.contains(line), "the manual does not say what to do about {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_alone_tells_its_health_and_metrics() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let program = fleet.member(&[("METRICS_LISTEN", "127.0.0.1:0")]);
    let mut serve = program.command(&["serve", "--role", "runner"]);
    let mut runner = serve.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "Consign's runner is ready");
    let base = lines.next().unwrap().unwrap().strip_prefix("Health and metrics are at ").unwrap().to_owned();
    assert_eq!(text(&base, "/healthz").await.0, 200);
    let (status, ready) = text(&base, "/readyz").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let checks: Vec<&str> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!((status, checks), (200, vec!["database", "clock", "file_store", "runner", "webhooks", "serving"]));
    assert_eq!(text(&base, "/v2/users/me").await.0, 404, "nothing else is there");
    sleep(Duration::from_millis(3500)).await;
    let (_, metrics) = text(&base, "/metrics").await;
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert_eq!(table::find(&name).map(|entry| entry.kind.name()), Some(kind), "{line}");
    }
    for line in ["consign_ready 1", "consign_database_up 1", "consign_slots 32", "consign_slots_used 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("consign_heartbeats_total 0\n"), "{metrics}");
    runner.kill().unwrap();
    runner.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_unready_first_and_serves_on_for_the_delay() {
    let mut program = Program::started(&[("LIMITS__DRAIN_DELAY", "8s")]).await;
    assert_eq!(program.text("/readyz").await.0, 200);
    let began = Instant::now();
    program.signal(Signal::TERM);
    eventually("the end of readiness", async || (program.text("/readyz").await.0 == 503).then_some(())).await;
    let (_, body) = program.text("/readyz").await;
    assert!(body.contains("about to stop"), "{body}");
    let (status, made) =
        program.call(http::Method::POST, "/v2/import/raw", Some(&json!({"file": "a", "filename": "a"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(began.elapsed() < Duration::from_secs(8), "the machine is too slow for this test");
    let status = program.exit(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(8), "it did not wait");
}

/// An origin that has one file, and a place that takes files, both asking for credentials.
async fn origin() -> SocketAddr {
    let served = get(async || "some bytes");
    let taken = put(async |_: Bytes| StatusCode::CREATED);
    let router = Router::new().route("/a", served).route("/b", taken);
    serve(router).await
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A job full of credentials, with a task that fails.
fn job_with_canaries(origin: SocketAddr) -> Value {
    json!({
        "in": {"operation": "import/url", "url": format!("http://u:{CANARY}@{origin}/a?token={CANARY}"),
               "headers": {"X-Key": CANARY}, "filename": "a.txt"},
        "out": {"operation": "export/upload", "input": "in", "url": format!("http://{origin}/b?sig={CANARY}")},
        "not": {"operation": "export/upload", "input": "in", "url": format!("http://{origin}/none?sig={CANARY}")},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_an_attempt_and_of_a_request_says_which_it_belongs_to() {
    let origin = origin().await;
    let program =
        Program::started(&[("LOG__JSON", "true"), ("LOG__LEVEL", "info,consign=debug,connectors=debug")]).await;
    let job = program.job(job_with_canaries(origin)).await;
    program.follow(&job).await;
    let (job_id, failed) = (id(&job), id(task(&job, "not")));
    let lines: Vec<BTreeMap<String, Value>> = program
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for name in ["timestamp", "level", "target", "message"] {
            assert!(line.get(name).is_some_and(Value::is_string), "{name} is not in {line:?}");
        }
        assert!(line.keys().all(|name| !name.starts_with("otel.")), "{line:?}");
        assert!(line.values().all(|value| !value.is_object() && !value.is_array()), "flat: {line:?}");
    }
    let said = |message: &str, task: Option<&str>| {
        let is_meant = |line: &&BTreeMap<String, Value>| {
            line["message"] == message && task.is_none_or(|task| line.get("task").is_some_and(|found| found == task))
        };
        lines.iter().find(is_meant).unwrap_or_else(|| panic!("nobody said {message}: {lines:#?}"))
    };
    let attempt = said("attempt failed", Some(&failed));
    assert_eq!((&attempt["job"], &attempt["operation"]), (&json!(job_id), &json!("export/upload")));
    assert_eq!((&attempt["attempt"], &attempt["level"]), (&json!(1), &json!("INFO")));
    let of_connectors = lines.iter().filter(|line| line["target"].as_str().unwrap().starts_with("connectors"));
    for line in of_connectors {
        assert!(line.contains_key("job") && line.contains_key("task"), "{line:?}");
    }
    let created = lines.iter().find(|line| line.get("route").is_some_and(|route| route == "/v2/jobs")).unwrap();
    assert_eq!(created["job"], json!(job_id), "the request says which job it made");
    assert!(created["request"].as_str().is_some_and(|id| id.len() == 16) && created["status"] == 201, "{created:?}");
    assert!(!program.log().contains(CANARY));
    let (_, metrics) = program.text("/metrics").await;
    for line in [
        r#"consign_host_transfers_total{host="127.0.0.1",direction="in",outcome="ok"} 1"#,
        r#"consign_host_transfers_total{host="127.0.0.1",direction="out",outcome="ok"} 1"#,
        r#"consign_host_transfers_total{host="127.0.0.1",direction="out",outcome="failed"} 1"#,
        r#"consign_import_bytes_total{operation="import/url"} 10"#,
        r#"consign_export_bytes_total{operation="export/upload"} 10"#,
        "consign_claim_wait_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains(CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_repeated_counts_for_its_host() {
    let asked = Arc::new(AtomicU32::new(0));
    let taken = put(move |_: Bytes| {
        let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        std::future::ready(if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CREATED })
    });
    let origin = serve(Router::new().route("/b", taken)).await;
    let program = Program::started(&[]).await;
    let job = json!({
        "in": {"operation": "import/raw", "file": "a", "filename": "a"},
        "out": {"operation": "export/upload", "input": "in", "url": format!("http://{origin}/b")},
    });
    program.finished(&program.job(job).await).await;
    let (_, metrics) = program.text("/metrics").await;
    for line in [
        r#"consign_connector_retries_total{operation="export/upload",reason="REMOTE_UNAVAILABLE"} 1"#,
        r#"consign_host_retries_total{host="127.0.0.1",reason="REMOTE_UNAVAILABLE"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Collected {
    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap().clone();
        let requests = requests.into_iter().map(|(_, body)| ExportTraceServiceRequest::decode(body).unwrap());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|of| of.scope_spans)
            .flat_map(|of| of.spans)
            .collect()
    }
}

/// A collector that takes everything.
async fn collector() -> (SocketAddr, Collected) {
    let collected = Collected::default();
    let kept = collected.clone();
    let take = post(async move |headers: HeaderMap, body: Bytes| {
        kept.0.lock().unwrap().push((headers, body));
    });
    (serve(Router::new().route("/v1/traces", take)).await, collected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_trace_of_a_job_and_no_credential() {
    let (origin, (address, collected)) = (origin().await, collector().await);
    let mut program = Program::new(&[]);
    // The collector is allowed by being named, and for traces only.
    program.set("EGRESS__ALLOW", &origin.to_string());
    program.set("TELEMETRY__OTLP_ENDPOINT", &format!("http://{address}"));
    let headers = program.folder().join("headers");
    fs::write(&headers, "x-scope=tests\n").unwrap();
    program.set("TELEMETRY__OTLP_HEADERS_FILE", headers.to_str().unwrap());
    program.set("TELEMETRY__SERVICE_NAME", "consign-tests");
    // As an operator would run it: quiet logs take nothing from the traces.
    program.set("LOG__LEVEL", "warn");
    program.start().await;
    let job = program.job(job_with_canaries(origin)).await;
    program.follow(&job).await;
    let elsewhere = json!({"url": format!("http://{address}/v1/traces")});
    let (_, refused) = program.call(http::Method::POST, "/v2/import/url", Some(&elsewhere)).await;
    let path = format!("/v2/tasks/{}/wait", id(&refused["data"]));
    assert_eq!(program.show(&path).await["code"], "HOST_NOT_ALLOWED");
    program.signal(Signal::TERM);
    assert_eq!(program.exit(Duration::from_secs(40)).await.code(), Some(0), "what is left is sent before the end");

    let spans = collected.spans();
    let trace = id(&job).replace('-', "");
    let of_job: Vec<&Span> = spans.iter().filter(|span| hex::encode(&span.trace_id) == trace).collect();
    let named = |name: &str| of_job.iter().filter(|span| span.name == name).count();
    assert_eq!((named("import/url"), named("export/upload")), (1, 2), "{spans:#?}");
    let attempt = *of_job.iter().find(|span| span.name == "import/url").unwrap();
    assert!(attempt.parent_span_id.is_empty(), "the attempt is a root of the job's trace");
    let transfer = of_job.iter().find(|span| span.parent_span_id == attempt.span_id).unwrap();
    assert_eq!(transfer.name, "transfer");
    let call = of_job.iter().find(|span| span.parent_span_id == transfer.span_id).unwrap();
    assert_eq!(attribute(call, "host"), Some("127.0.0.1".to_owned()), "{call:?}");
    assert_eq!(attribute(attempt, "task"), Some(id(task(&job, "in"))));
    assert_eq!(attribute(attempt, "outcome"), Some("finished".to_owned()));
    let request = spans.iter().find(|span| span.name == "POST /v2/jobs").expect("the request is traced");
    assert_eq!(hex::encode(&request.links[0].trace_id), trace, "and leads to the job");

    for (headers, body) in &*collected.0.lock().unwrap() {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-scope"], "tests");
        let shown = String::from_utf8_lossy(body);
        assert!(shown.contains("consign-tests"), "the name of the service");
        for hidden in [CANARY, program.key()] {
            assert!(!shown.contains(hidden), "{hidden} is in {shown}");
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of values are OpenTelemetry's")]
fn attribute(span: &Span, name: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_costs_spans_and_nothing_else() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut program = Program::started(&[("TELEMETRY__OTLP_ENDPOINT", &format!("http://{gone}"))]).await;
    let job = program.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    program.finished(&job).await;
    eventually("dropped spans", async || {
        let (_, text) = program.text("/metrics").await;
        let dropped =
            text.lines().find_map(|line| line.strip_prefix("consign_spans_dropped_total ")).unwrap().to_owned();
        (dropped != "0").then_some(())
    })
    .await;
    assert!(program.log().contains("the collector takes no spans"), "{}", program.log());
    program.signal(Signal::TERM);
    assert_eq!(program.exit(Duration::from_secs(40)).await.code(), Some(0));
}
