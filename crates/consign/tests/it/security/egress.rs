//! The server cannot be turned against its own network: whatever takes a host from a client is given every spelling of
//! every address that is nobody's business, and a trap on loopback listens whether anybody comes.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::routing::any;
use connectors::egress::{Guard, Resolver};
use connectors::memory::MemoryJournal;
use connectors::{Limits, Network, Progress, http};
use consign::clock::{Clock, Timestamp};
use consign::error::{Code, TaskError};
use consign::files::Files;
use consign::id::{TaskId, Token};
use consign::model::{BlobKey, File};
use consign::operations::context::{Bounds, NoMeter};
use consign::operations::trial::{Name, Status, Subject, Trials};
use consign::operations::{self, Context, InputFile, Outcome};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::egress::{Form, forbidden, forbidden_names};

use super::targets;

/// The name that an allowed server goes by.
const ALLOWED: &str = "allowed.example";
/// Operations that run at once.
const AT_ONCE: usize = 32;
/// The time of all tests.
const NOW: Timestamp = Timestamp(1_767_603_600_000_000);

/// Answers [`ALLOWED`] with loopback, and every other name with one list after the other, the last one for ever.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

impl Scripted {
    fn answering(answers: &[&[IpAddr]]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect())))
    }
}

#[async_trait]
impl Resolver for Scripted {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let with_port = |addresses: &[IpAddr]| addresses.iter().map(|&address| (address, port).into()).collect();
        if host == ALLOWED {
            return Ok(with_port(&[Ipv4Addr::LOCALHOST.into()]));
        }
        let mut answers = self.0.lock().unwrap();
        let last = answers.front().cloned().unwrap();
        Ok(with_port(&if answers.len() > 1 { answers.pop_front().unwrap() } else { last }))
    }
}

/// Somebody who listens on every loopback address and should hear nothing.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Self {
        let everywhere = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
        let listener = everywhere.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    #[track_caller]
    fn heard_nothing(&self) {
        let heard = self.0.accept().map(|(_, address)| address);
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock, "somebody came");
    }
}

/// Runs operations as the runner does, on a network of our own.
struct Bench {
    network: Network,
    files: Files,
    input: InputFile,
    _folder: TempDir,
}

impl Bench {
    async fn new(rules: &[String], resolver: Arc<Scripted>, tries: u32) -> Self {
        let limits = Limits { tries, connect_timeout: Duration::from_secs(2), ..Limits::default() };
        let guard = Guard::with_resolver(rules.iter().map(|rule| rule.parse().unwrap()), resolver);
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).await.unwrap();
        let key = BlobKey::new(TaskId::new(NOW), Token::random(), 1);
        let bytes = stream::iter([Ok("hello".into())]).boxed();
        let received = files.receive(&key, bytes, None, 1 << 20, &Progress::default()).await.unwrap();
        let file = File {
            name: "a.txt".to_owned(),
            size: received.size,
            digests: received.digests,
            content_type: "text/plain".to_owned(),
            blob: Some(key.clone()),
            download: None,
            receipt: None,
        };
        let input = InputFile { source: files.source(&key, &file).await.unwrap(), file };
        let network = Network::new(guard, http::tls_config(&[]).unwrap(), limits, AT_ONCE);
        Self { network, files, input, _folder: folder }
    }

    async fn run(&self, operation: &str, args: &Value) -> Result<Outcome, TaskError> {
        let entry = operations::find(operation).unwrap();
        let mut args = args.as_object().unwrap().clone();
        if let Err(faults) = entry.prepare(&mut args) {
            return Err(TaskError::new(Code::InvalidData, format!("{:?}", faults.0)));
        }
        let context = Context {
            task_id: TaskId::new(NOW),
            token: Token::random(),
            inputs: vec![self.input.clone()],
            files: self.files.clone(),
            network: self.network.clone(),
            journal: Arc::new(MemoryJournal::default()),
            open: Vec::new(),
            ahead: None,
            head_start: None,
            meter: Arc::new(NoMeter),
            report: Arc::new(|_| ()),
            clock: Clock::manual(NOW),
            bounds: Bounds {
                file_bytes_max: 1 << 20,
                files_max: 10,
                files_at_once: 1,
                link_lifetime: Duration::from_hours(1),
            },
        };
        entry.run(args, context).await
    }

    /// Tries the destination of an export, as `POST /v2/destinations/test` does. Says which step was not refused as it
    /// should be.
    async fn trial(&self, attack: &Attack) -> Option<String> {
        let is_export = operations::find(attack.operation).unwrap().has_destination();
        let mut task = attack.args.as_object().unwrap().clone();
        task.insert("operation".to_owned(), attack.operation.into());
        let subject = is_export.then(|| Subject::read(task).ok()).flatten()?;
        let report = Trials::new(self.network.clone()).run(subject).await;
        let refused = report.steps.iter().find(|step| step.status == Status::Refused);
        let step = refused.map(|step| (step.step, step.code.unwrap()));
        let is_fine = step == Some((Name::Connect, "HOST_NOT_ALLOWED"))
            || (!attack.is_address && matches!(step, Some((_, "INVALID_DATA" | "REMOTE_REFUSED" | "REMOTE_PROTOCOL"))));
        let is_fine = is_fine && !report.ok && report.left_behind.is_none();
        (!is_fine).then(|| format!("testing {} {}: {report:?}", attack.operation, attack.args))
    }

    /// Runs many and returns what is wrong with their ends.
    async fn run_all(&self, attacks: Vec<Attack>) -> Vec<String> {
        assert!(attacks.len() >= 300, "the corpus has shrunk to {}", attacks.len());
        let ends = attacks.into_iter().map(async |attack| {
            let end = self.run(attack.operation, &attack.args).await;
            let tested = self.trial(&attack).await;
            attack.complaint(end).or(tested)
        });
        let ends: Vec<_> = ends.collect();
        stream::iter(ends).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }
}

/// An operation that is to reach what it must not reach.
struct Attack {
    operation: &'static str,
    args: Value,
    /// It names an address, so that the answer must be exactly a refusal of that address.
    is_address: bool,
}

impl Attack {
    fn complaint(&self, end: Result<Outcome, TaskError>) -> Option<String> {
        let error = match end {
            Ok(outcome) => return Some(format!("{} {}: {outcome:?}", self.operation, self.args)),
            Err(error) => error,
        };
        let is_refused = error.code == Code::HostNotAllowed && error.message.contains("egress.allow");
        let is_nonsense = matches!(error.code, Code::InvalidData | Code::RemoteRefused | Code::RemoteProtocol);
        let is_fine = is_refused || (!self.is_address && is_nonsense);
        (!is_fine).then(|| format!("{} {}: {error}", self.operation, self.args))
    }
}

fn forms() -> Vec<Form> {
    forbidden().into_iter().chain(forbidden_names()).collect()
}

fn s3(endpoint: &str) -> Value {
    json!({"endpoint": endpoint, "bucket": "bucket", "region": "us-east-1", "access_key_id": "k",
        "secret_access_key": "s"})
}

fn azure(endpoint: &str) -> Value {
    json!({"endpoint": endpoint, "storage_account": "acct", "container": "box", "sas_token": "sv=1&sig=s",
        "blob_prefix": "a"})
}

fn openstack(auth_url: &str) -> Value {
    json!({"auth_url": auth_url, "username": "u", "password": "p", "region": "R", "container": "box", "file": "f"})
}

/// A service account's. It is not secret, and takes a while to make.
static KEY: LazyLock<String> = LazyLock::new(targets::private_key);

/// Two addresses of the task's own: either is an attack.
fn google(endpoint: &str, token_uri: &str) -> Value {
    json!({"project_id": "p", "bucket": "bucket", "client_email": "me@project", "private_key": KEY.as_str(),
        "file": "f", "endpoint": endpoint, "token_uri": token_uri})
}

fn sftp(host: &str, port: u16) -> Value {
    json!({"host": host, "port": port, "username": "u", "password": "p"})
}

/// Arguments of an import: those of an account, and what is wanted.
fn wanting(mut account: Value, what: &str) -> Value {
    account[what] = json!("a/b");
    account
}

/// Every name leads to loopback.
fn to_loopback() -> Arc<Scripted> {
    Scripted::answering(&[&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_leads_an_operation_into_the_servers_network() {
    let trap = Trap::set();
    let port = trap.port();
    let bench = Bench::new(&[], to_loopback(), 1).await;
    let mut attacks = Vec::new();
    for form in forms() {
        let (host, is_address) = (form.in_url(), form.address.is_some());
        let mut add = |operation, args, is_address| attacks.push(Attack { operation, args, is_address });
        for scheme in ["http", "HTTPS"] {
            add("import/url", json!({"url": format!("{scheme}://{host}:{port}/")}), is_address);
            add("export/s3", s3(&format!("{scheme}://{host}:{port}/base")), is_address);
            add("export/upload", json!({"url": format!("{scheme}://{host}:{port}/a?sig=%2F")}), is_address);
            add("export/azure/blob", azure(&format!("{scheme}://{host}:{port}/acct")), is_address);
        }
        add("import/azure/blob", azure(&format!("{host}:{port}")), is_address);
        add("import/url", json!({"url": format!("http://{host}/")}), is_address);
        add("import/url", json!({"url": format!("http://public.example@{host}:{port}/")}), is_address);
        add("export/s3", s3(&format!("{host}:{port}")), is_address);
        add("export/s3", s3(&host), is_address);
        add("export/google-cloud-storage", google("", &format!("http://{host}:{port}/token")), is_address);
        add("import/google-cloud-storage", google("", &format!("{host}:{port}")), is_address);
        add("export/openstack", openstack(&format!("http://{host}:{port}/v3")), is_address);
        add("import/openstack", openstack(&format!("{host}:{port}")), is_address);
        add("import/s3", wanting(s3(&format!("{host}:{port}")), "key"), is_address);
        add("import/s3", wanting(s3(&format!("http://{host}:{port}")), "key_prefix"), is_address);
        add("export/upload", json!({"url": format!("http://{host}/")}), is_address);
        add("export/upload", json!({"url": format!("http://public.example@{host}:{port}/%d")}), is_address);
        add("import/sftp", wanting(sftp(&host, port), "file"), is_address);
        add("import/sftp", wanting(sftp(form.host, port), "path"), is_address);
        add("export/sftp", sftp(&host, port), is_address);
        add("export/sftp", sftp(form.host, port), is_address);
    }
    let complaints = bench.run_all(attacks).await;
    assert!(complaints.is_empty(), "{} got through:\n{}", complaints.len(), complaints.join("\n"));
    trap.heard_nothing();
}

/// Starts a server that redirects to whatever its query says.
async fn redirector() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let redirect = async |request: Request| {
        let query = request.uri().query().unwrap().to_owned();
        // An answer before the end of a body breaks the connection, and with it whatever comes next on it.
        request.into_body().collect().await.unwrap();
        let (status, place) = query.split_once('=').unwrap();
        let place: Vec<u8> = percent_decode_str(place).collect();
        (status.parse::<StatusCode>().unwrap(), [(header::LOCATION, HeaderValue::from_bytes(&place).unwrap())])
    };
    let router = Router::new().route("/", any(redirect));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_leads_into_the_servers_network() {
    let trap = Trap::set();
    let web = redirector().await;
    let bench = Bench::new(&[format!("{ALLOWED}:{}", web.port())], to_loopback(), 1).await;
    let mut attacks = Vec::new();
    for (form, status) in forms().into_iter().zip([301, 302, 303, 307, 308].into_iter().cycle()) {
        for place in [format!("http://{}:{}/", form.in_url(), trap.port()), format!("//{}/", form.in_url())] {
            let place = utf8_percent_encode(&place, NON_ALPHANUMERIC);
            let url = format!("http://{ALLOWED}:{}/?{status}={place}", web.port());
            // What is sent goes on only where the method stays.
            let operations = if status > 303 { vec!["import/url", "export/upload"] } else { vec!["import/url"] };
            let is_address = form.address.is_some();
            attacks.extend(operations.into_iter().map(|operation| Attack {
                operation,
                args: json!({"url": url}),
                is_address,
            }));
        }
    }
    let complaints = bench.run_all(attacks).await;
    assert!(complaints.is_empty(), "{} got through:\n{}", complaints.len(), complaints.join("\n"));
    trap.heard_nothing();
}

/// Who has a token from an allowed place gets no further with it.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_leads_into_the_servers_network() {
    let trap = Trap::set();
    let wanted = targets::Wanted { password: "password".to_owned(), token: "token".to_owned() };
    let web = targets::web(wanted).await;
    let bench = Bench::new(&[format!("{ALLOWED}:{}", web.port())], to_loopback(), 1).await;
    let token_uri = format!("http://{ALLOWED}:{}/google/token", web.port());
    let mut attacks = Vec::new();
    for form in forms() {
        let (host, is_address) = (form.in_url(), form.address.is_some());
        for operation in ["export/google-cloud-storage", "import/google-cloud-storage"] {
            let args = google(&format!("http://{host}:{}", trap.port()), &token_uri);
            attacks.push(Attack { operation, args, is_address });
        }
    }
    let complaints = bench.run_all(attacks).await;
    assert!(complaints.is_empty(), "{} got through:\n{}", complaints.len(), complaints.join("\n"));
    trap.heard_nothing();
}

/// What a catalogue says is trusted no more than what a client says.
#[tokio::test(flavor = "multi_thread")]
async fn no_catalogue_leads_into_the_servers_network() {
    let trap = Trap::set();
    let wanted = targets::Wanted { password: "password".to_owned(), token: "token".to_owned() };
    let web = targets::web(wanted).await;
    let bench = Bench::new(&[format!("{ALLOWED}:{}", web.port())], to_loopback(), 1).await;
    let mut attacks = Vec::new();
    for form in forms() {
        let place = format!("http://{}:{}/v1/AUTH_p", form.in_url(), trap.port());
        let place = utf8_percent_encode(&place, NON_ALPHANUMERIC);
        let args = openstack(&format!("http://{ALLOWED}:{}/catalogue/{place}", web.port()));
        for operation in ["export/openstack", "import/openstack"] {
            attacks.push(Attack { operation, args: args.clone(), is_address: form.address.is_some() });
        }
    }
    let complaints = bench.run_all(attacks).await;
    assert!(complaints.is_empty(), "{} got through:\n{}", complaints.len(), complaints.join("\n"));
    trap.heard_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_address_is_judged_at_every_connection() {
    // 127.0.0.9 plays a public address: allowed, and nobody listens there. The trap is where the name leads next.
    let trap = Trap::at("127.0.0.8");
    let port = trap.port();
    let (public, inside): (IpAddr, IpAddr) = ("127.0.0.9".parse().unwrap(), "127.0.0.8".parse().unwrap());
    for (operation, args) in [
        ("import/url", json!({"url": format!("http://rebound.example:{port}/")})),
        ("export/upload", json!({"url": format!("http://rebound.example:{port}/")})),
        ("import/s3", wanting(s3(&format!("http://rebound.example:{port}")), "key")),
        ("import/sftp", wanting(sftp("rebound.example", port), "path")),
        ("export/s3", s3(&format!("http://rebound.example:{port}"))),
        ("export/s3", s3(&format!("rebound.example:{port}"))),
        ("export/azure/blob", azure(&format!("http://rebound.example:{port}"))),
        ("import/azure/blob", azure(&format!("rebound.example:{port}"))),
        ("export/google-cloud-storage", google("", &format!("http://rebound.example:{port}/token"))),
        ("export/openstack", openstack(&format!("http://rebound.example:{port}"))),
        ("export/sftp", sftp("rebound.example", port)),
    ] {
        let resolver = Scripted::answering(&[&[public], &[inside]]);
        let bench = Bench::new(&["127.0.0.9".to_owned()], resolver, 2).await;
        let error = bench.run(operation, &args).await.unwrap_err();
        assert_eq!(error.code, Code::HostNotAllowed, "{operation}: {error}");
        let mixed = Scripted::answering(&[&[inside, public, inside]]);
        let bench = Bench::new(&["127.0.0.9".to_owned()], mixed, 1).await;
        let error = bench.run(operation, &args).await.unwrap_err();
        assert_eq!(error.code, Code::RemoteUnreachable, "only the allowed address is dialled: {operation}: {error}");
    }
    trap.heard_nothing();
}
