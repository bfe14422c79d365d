//! The official clients for Node and Python: programs beside this file use them as any program would.

use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::clients::{self, Client, Via};
use testkit::namespace::Namespace;
use tokio::process::Command;

use super::{FILE, Server, conclude, told};
use crate::program::Program;

/// The service's host names that clients know, as they stand in a hosts file.
const HOSTS: &str =
    "127.0.0.1 localhost api.cloudconvert.com sync.api.cloudconvert.com socketio.cloudconvert.com s.cloudconvert.com\n";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/programs").join(name)
}

/// A client of the package registries.
struct Published {
    name: &'static str,
    version: &'static str,
    /// What the program asks for, in Node.
    package: &'static str,
}

const NODE_3: Published = Published { name: "Node 3 (npm)", version: "3.0.0", package: "cloudconvert-3" };
const NODE_2: Published = Published { name: "Node 2 (npm)", version: "2.3.7", package: "cloudconvert-2" };
/// The last with the older protocol of Socket.IO, and with `/wait` below the plain address.
const NODE_2_2: Published = Published { name: "Node 2.2 (npm)", version: "2.2.4", package: "cloudconvert-2-eio3" };
const PYTHON: Published = Published { name: "Python (PyPI)", version: "2.1.0", package: "" };

impl Published {
    fn command(&self) -> testkit::Result<Command> {
        if self.package.is_empty() {
            let mut command = clients::python()?;
            command.arg(script("python.py"));
            return Ok(command);
        }
        clients::node(&script("node.cjs"))
    }

    /// Runs the program to its end and writes down what it says. Over TLS there is no `base`: its own names lead here.
    async fn run(&self, mut command: Command, server: &Server, via: Via) {
        let base = (via == Via::Http).then(|| server.program.base());
        let (signed, secret) = &server.signed;
        let settings = json!({
            "package": self.package,
            "key": server.program.key(),
            "base": base,
            "file": server.file(),
            "size": FILE.1,
            "folder": server.program.folder(),
            "signed": {"base": signed, "secret": secret},
            "webhook_secret": server.webhook_secret,
            "only": std::env::var_os("CONSIGN_TEST_CASE").and_then(|only| only.into_string().ok()),
        });
        let output = command.arg(settings.to_string()).output().await.unwrap();
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {}\n{errors}", self.name, output.status);
        let ends = printed.lines().filter(|line| line.starts_with('{')).map(told).collect();
        let client = Client { name: self.name.to_owned(), version: self.version.to_owned(), via };
        conclude(&client, ends, server);
    }

    async fn over_http(&self) {
        let Some(mut command) = testkit::or_skip(self.command()) else { return };
        let server = Server::started().await;
        // Version 2 sends absolute targets to a proxy, and everybody else is told the address otherwise.
        command.env("https_proxy", server.program.base()).env("no_proxy", "");
        self.run(command, &server, Via::Http).await;
    }
}

#[tokio::test]
async fn node_3_over_http() {
    NODE_3.over_http().await;
}

#[tokio::test]
async fn node_2_over_http() {
    NODE_2.over_http().await;
}

#[tokio::test]
async fn node_2_with_the_older_sockets_over_http() {
    NODE_2_2.over_http().await;
}

#[tokio::test]
async fn python_over_http() {
    PYTHON.over_http().await;
}

/// The server is on port 443 of a network of its own, where the service's names lead to it; the clients are told nothing
/// but which authority to trust, in the way of their language.
#[tokio::test]
async fn all_by_the_names_of_the_service_over_tls() {
    let mut program = Program::new(&[("PUBLIC_URL", "https://api.cloudconvert.com")]);
    let made = program.run(&["hosts", "--folder", "hosts"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let folder = program.folder().join("hosts");
    let [authority, cert, key, hosts] = ["ca.pem", "cert.pem", "key.pem", "names"].map(|name| folder.join(name));
    std::fs::write(&hosts, HOSTS).unwrap();
    program.set("TLS__CERT", cert.to_str().unwrap());
    program.set("TLS__KEY", key.to_str().unwrap());
    let Some(namespace) = testkit::or_skip(Namespace::with_hosts(&hosts).await) else { return };
    let Some(namespace) = namespace else { return };
    program.launch_by(namespace.launcher());
    program.start_at(443).await;
    let server = Server::of(program, "https://s.cloudconvert.com");
    let process = server.program.pid().as_raw_nonzero().get().unsigned_abs();
    for client in [NODE_3, NODE_2, NODE_2_2, PYTHON] {
        let Some(command) = testkit::or_skip(client.command()) else { return };
        let mut command = namespace.join(process, &command);
        for trust in ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
            command.env(trust, &authority);
        }
        client.run(command, &server, Via::Tls).await;
    }
}
