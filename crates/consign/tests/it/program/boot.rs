//! Starting, the commands beside a running server, and what they say of mistakes.

use std::time::Duration;

use http::{Method, StatusCode};

use super::harness::Program;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_is_quick_and_shows_a_key_once() {
    let mut program = Program::new(&[]);
    let first = program.start().await;
    assert!(program.printed().contains("first API key"), "{}", program.printed());
    let (status, me) = program.call(Method::GET, "/v2/users/me", None).await;
    assert_eq!(status, StatusCode::OK, "{me}");
    let (status, _) = program.call(Method::GET, "/readyz", None).await;
    assert_eq!(status, StatusCode::OK);
    program.kill();
    let second = program.start().await;
    println!("ready after {first:?} on an empty data directory, {second:?} on a known one");
    assert!(first.max(second) < Duration::from_secs(10), "{first:?}, {second:?}");
    assert!(!program.printed().contains("API key"), "{}", program.printed());
    let (status, _) = program.call(Method::GET, "/v2/users/me", None).await;
    assert_eq!(status, StatusCode::OK, "the key outlives a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_does_not_use_the_first_key_up() {
    let neighbour = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = neighbour.local_addr().unwrap().to_string();
    let mut program = Program::new(&[]);
    let refused = |program: &Program, listen: &str, code: i32, why: &str| {
        let ended = program.run(&["serve", "--listen", listen]);
        let (out, said) = (text(&ended.stdout), text(&ended.stderr));
        assert_eq!(ended.status.code(), Some(code), "{why}: {out}{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert!(!out.contains("API key"), "{why}: {out}");
    };
    refused(&program, &taken, 1, "cannot listen on");
    program.set("SYNC_LISTEN", &taken);
    refused(&program, "127.0.0.1:0", 1, "cannot listen on");
    program.set("SYNC_LISTEN", "127.0.0.1:0");
    for file in ["cert", "key"] {
        let path = program.folder().join(file);
        std::fs::write(&path, "no PEM").unwrap();
        program.set(&format!("TLS__{}", file.to_uppercase()), path.to_str().unwrap());
    }
    refused(&program, "127.0.0.1:0", 2, "cannot be used");
    program.unset("TLS__CERT");
    program.unset("TLS__KEY");
    program.start().await;
    assert!(program.printed().contains("first API key"), "{}", program.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_server() {
    let program = Program::started(&[]).await;
    let second = program.run(&["serve", "--listen", "127.0.0.1:0"]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another server is using") && said.contains("data_dir"), "{said}");
    let (status, _) = program.call(Method::GET, "/v2/users/me", None).await;
    assert_eq!(status, StatusCode::OK, "the first is not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_urls_come_and_go_while_the_server_runs() {
    let program = Program::started(&[]).await;
    let made = program.run(&["signed-url", "create", "web"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let printed = text(&made.stdout);
    let [base, secret] = printed.lines().collect::<Vec<_>>()[..] else { panic!("a base and a secret: {printed}") };
    assert!(base.starts_with(&format!("{}/s/", program.base())), "where the server really listens: {base}");
    assert_eq!(secret.len(), 32);
    let path = base.strip_prefix(program.base()).unwrap();
    let refused = async || program.call(Method::GET, &format!("{path}?job=e30&s=00"), None).await.1["message"].clone();
    assert!(refused().await.as_str().unwrap().contains("signature"));
    let again = program.run(&["signed-url", "create", "web"]);
    assert!(!again.status.success() && text(&again.stderr).contains("already"), "{}", text(&again.stderr));
    let listed = text(&program.run(&["signed-url", "list"]).stdout);
    assert!(listed.contains(base) && listed.contains("valid") && !listed.contains(secret), "{listed}");
    assert!(program.run(&["signed-url", "revoke", "web"]).status.success());
    assert!(refused().await.as_str().unwrap().contains("revoked"));
    assert_eq!(program.run(&["signed-url", "revoke", "web"]).status.code(), Some(1));
    assert!(text(&program.run(&["signed-url", "list"]).stdout).contains("revoked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_and_go_while_the_server_runs() {
    let program = Program::started(&[]).await;
    let made = program.run(&["key", "create", "ci", "--user", "build", "--scope", "task.read"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let key = text(&made.stdout);
    assert_eq!(key.lines().count(), 1, "the key alone is printed: {key}");
    let key = key.trim();
    let (status, _) = program.call_as(key, Method::GET, "/v2/tasks", None).await;
    assert_eq!(status, StatusCode::OK, "a new key works at once");
    let again = program.run(&["key", "create", "ci"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("consign key revoke ci"), "{}", text(&again.stderr));
    let listed = text(&program.run(&["key", "list"]).stdout);
    assert!(listed.contains("admin") && listed.contains("ci") && listed.contains("task.read"), "{listed}");
    assert!(!listed.contains(key), "{listed}");
    assert!(program.run(&["key", "revoke", "ci"]).status.success());
    let (status, _) = program.call_as(key, Method::GET, "/v2/tasks", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a revoked key is refused at once");
    assert_eq!(program.run(&["key", "revoke", "ci"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_good_from_bad() {
    let mut program = Program::started(&[]).await;
    let healthy = program.run(&["doctor"]);
    assert_eq!(healthy.status.code(), Some(0), "{}{}", text(&healthy.stdout), text(&healthy.stderr));
    assert!(text(&healthy.stdout).contains("Everything works"), "{}", text(&healthy.stdout));
    program.kill();
    std::fs::write(program.data_dir().join("plain"), b"").unwrap();
    program.set("FILES_URL", &format!("file://{}/plain/files", program.data_dir().display()));
    let sick = program.run(&["doctor"]);
    assert_eq!(sick.status.code(), Some(1), "{}", text(&sick.stdout));
    assert!(text(&sick.stdout).contains("FAIL  file store"), "{}", text(&sick.stdout));
}

#[test]
fn a_mistake_in_the_settings_is_named() {
    let program = Program::new(&[("LIMITS__WAIT_MX", "1s")]);
    for command in [&["serve"][..], &["doctor"], &["key", "list"]] {
        let refused = program.run(command);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains("limits.wait_mx") && said.contains("limits.wait_max"), "{command:?}: {said}");
    }
    assert!(!program.data_dir().exists(), "nothing is made before the settings are right");
    let program = Program::new(&[]);
    let file = program.data_dir().with_file_name("consign.toml");
    std::fs::write(&file, "retention = \"soon\"\n").unwrap();
    let refused = program.run(&["serve", "--config", file.to_str().unwrap()]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("retention") && said.contains("soon"), "{said}");
    assert_eq!(program.run(&["serve", "--lissten"]).status.code(), Some(2));
}

#[test]
fn every_command_explains_itself() {
    let program = Program::new(&[]);
    let commands = [
        &["serve"][..],
        &["demo"],
        &["run"],
        &["key"],
        &["key", "create"],
        &["key", "list"],
        &["key", "revoke"],
        &["doctor"],
        &["practice"],
    ];
    let overview = text(&program.run(&["--help"]).stdout);
    for command in commands {
        assert!(overview.contains(command[0]), "{command:?} is not in the overview");
        let help = program.run(&[command, &["--help"]].concat());
        assert!(help.status.success(), "{command:?}");
        assert!(text(&help.stdout).contains("Usage: consign"), "{command:?}: {}", text(&help.stdout));
    }
}
