//! The built program as a process of its own, talked to over HTTP, with all that it says written down.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::http::{Method, Request, header};
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::needles::Needle;

/// What was heard, and where.
pub(super) type Heard = Vec<(String, Vec<u8>)>;

/// Longest answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A server.
pub(super) struct Program {
    child: Child,
    client: Client,
    url: String,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    surroundings: Surroundings,
    pub(super) key: String,
    pub(super) heard: Heard,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

#[expect(clippy::disallowed_methods, reason = "the program that is tested is the outside program here")]
fn command(settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consign"));
    command.kill_on_drop(true).env_clear().envs(settings.iter().map(|(key, value)| (key, value)));
    command
}

/// What other programs take credentials and proxies from, and where nobody may call.
struct Surroundings {
    credential: Needle,
    trap: TcpListener,
}

impl Surroundings {
    fn new() -> Self {
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        Self { credential: Needle::plain("a credential of the surroundings"), trap }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let (credential, trap) = (&self.credential.text, format!("http://{}", self.trap.local_addr().unwrap()));
        let names =
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OS_PASSWORD", "AZURE_STORAGE_KEY"];
        let credentials = names.map(|name| (name, credential.clone()));
        let traps = [
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "AWS_ENDPOINT_URL",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "GCE_METADATA_HOST",
            "OS_AUTH_URL",
        ];
        let traps = traps.map(|name| (name, trap.clone()));
        let file = ("GOOGLE_APPLICATION_CREDENTIALS", format!("/nowhere/{credential}"));
        credentials.into_iter().chain(traps).chain([file]).collect()
    }

    /// Nobody called, and nothing that was heard shows the credential.
    fn check(&self, heard: &Heard) {
        let caller = self.trap.accept().map(|(_, address)| address);
        assert!(caller.is_err(), "{caller:?} took a proxy or an address from the surroundings");
        for (place, bytes) in heard {
            assert_eq!(self.credential.found_in(bytes), None, "a credential of the surroundings is in {place}");
        }
    }
}

impl Program {
    /// Starts a server in a folder.
    pub(super) async fn start(folder: &Path, mut settings: Vec<(&'static str, String)>) -> Self {
        let surroundings = Surroundings::new();
        settings.extend(surroundings.settings());
        settings.extend([
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("HOME", folder.to_str().unwrap().to_owned()),
            ("CONSIGN_DATA_DIR", folder.join("data").to_str().unwrap().to_owned()),
            ("CONSIGN_LISTEN", "127.0.0.1:0".to_owned()),
        ]);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = command(&settings).arg("serve").stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut url, mut key) = (String::new(), String::new());
        while key.is_empty() {
            let line = tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await;
            let line = line.expect("the server starts in time").unwrap().expect("the server starts");
            if let Some(rest) = line.strip_prefix("Consign is ready at ") {
                rest.clone_into(&mut url);
            } else if line.trim().starts_with("csk_") {
                line.trim().clone_into(&mut key);
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
        let client = Client::new(guard, tls_config(&[]).unwrap(), &Limits::default());
        Self { child, client, url, folder: folder.to_owned(), settings, surroundings, key, heard: Vec::new() }
    }

    /// Asks, with the key, and notes the answer.
    pub(super) async fn ask(&mut self, method: Method, path: &str, body: &[u8]) -> Reply {
        self.ask_with(method, path, body, &[]).await
    }

    /// Asks with further headers.
    pub(super) async fn ask_with(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
        headers: &[(&'static str, &str)],
    ) -> Reply {
        let target = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(target)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let (head, answer) = self.client.send(request, "asking the server").await.unwrap().into_parts();
        let bytes = answer.bytes(ANSWER_BYTES_MAX).await.unwrap();
        let place = format!("{method} {}", path.split('?').next().unwrap());
        self.heard.push((format!("the headers of {place}"), format!("{:?}", head.headers).into_bytes()));
        self.heard.push((format!("the answer to {place}"), bytes.to_vec()));
        Reply { status: head.status.as_u16(), body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    pub(super) async fn get(&mut self, path: &str) -> Reply {
        self.ask(Method::GET, path, b"").await
    }

    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Reply {
        self.ask(Method::POST, path, body.to_string().as_bytes()).await
    }

    /// Runs another command beside the server, with further settings, and notes what it prints.
    pub(super) async fn run(&mut self, arguments: &[&str], settings: &[(&'static str, String)]) {
        let mut command = command(&self.settings);
        command.envs(settings.iter().map(|(key, value)| (key, value)));
        let output = command.args(arguments).output().await.unwrap();
        self.heard.push((format!("standard output of {arguments:?}"), output.stdout));
        self.heard.push((format!("standard error of {arguments:?}"), output.stderr));
    }

    /// Notes every file of the data directory but the secret key, and the log.
    pub(super) async fn read_disk(&mut self, when: &str) {
        // What was answered is in the log a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut folders = vec![self.folder.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("secret.key") {
                    // A file may go while we look: a write-ahead log, a file of a task.
                    let Ok(bytes) = std::fs::read(&path) else { continue };
                    let shown = path.strip_prefix(&self.folder).unwrap().display();
                    self.heard.push((format!("{shown} ({when})"), bytes));
                }
            }
        }
        self.heard.push((format!("the log ({when})"), std::fs::read(self.folder.join("log")).unwrap()));
    }

    /// Ends it at once, as the system does when memory runs out.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
        self.surroundings.check(&self.heard);
    }
}
