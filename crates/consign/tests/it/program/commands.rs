//! Commands beside the server: what they do when it stumbles, and when they are told to stop.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use testkit::http_faults::{Action, HttpFaults};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::harness::{Program, Signal};

/// Longest time for a command to do as it is told.
const PATIENCE: Duration = Duration::from_secs(20);

fn write_job(program: &Program, tasks: &Value) -> String {
    let path = program.folder().join("job.json");
    std::fs::write(&path, json!({"tasks": tasks}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn ended(mut process: Child) -> std::process::ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            process.kill().unwrap();
            panic!("it does not stop");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stumbles_does_not_end_a_run() {
    let program = Program::started(&[]).await;
    let faults = HttpFaults::start(program.address()).await.unwrap();
    let url = format!("http://{}", faults.addr());
    faults.rule(|request| match request.number {
        // The job is made, but nobody hears of it.
        1 => Action::DropAnswer,
        number if number % 2 == 0 => Action::Answer { status: 503, retry_after_secs: None },
        _ => Action::Pass,
    });
    let job = write_job(&program, &json!({"in": {"operation": "import/raw", "file": "a", "filename": "a.txt"}}));
    let run = program.run(&["run", &job, "--server", &url, "--key", program.key(), "--json"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    assert!(faults.requests().iter().any(|request| request.status == Some(503)));
    let shown: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(said.contains(shown["id"].as_str().unwrap()), "the job is named: {said}");
    let jobs = program.show("/v2/jobs").await;
    assert_eq!(jobs.as_array().unwrap().len(), 1, "a repeated request makes no second job: {jobs:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_upload_is_cancelled() {
    let program = Program::started(&[("LIMITS__FILE_BYTES_MAX", "9B")]).await;
    let url = format!("http://{}", program.address());
    let job = write_job(
        &program,
        &json!({"in": {"operation": "import/upload"}, "out": {"operation": "export/url", "input": "in"}}),
    );
    std::fs::write(program.folder().join("a.txt"), "ten bytes.").unwrap();
    let run = program.run(&["run", &job, "--server", &url, "--key", program.key(), "--upload", "in=a.txt"]);
    let said = String::from_utf8_lossy(&run.stderr);
    let jobs = program.show("/v2/jobs").await;
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains(jobs[0]["id"].as_str().unwrap()), "{said}");
    assert_eq!(jobs[0]["status"], "error", "{jobs:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_told_to_stop_cleans_up() {
    let program = Program::new(&[("LIMITS__STOP_GRACE", "1s")]);
    let scratch = program.folder().join("tmp");
    std::fs::create_dir(&scratch).unwrap();
    let is_empty = |folder: &Path| std::fs::read_dir(folder).unwrap().next().is_none();
    for (told, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/never", silent.local_addr().unwrap());
        let job = write_job(&program, &json!({"in": {"operation": "import/url", "url": url}}));
        let run = program.command(&["run", &job]).env("TMPDIR", &scratch).stderr(Stdio::null()).spawn().unwrap();
        let _connection = tokio::time::timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
        assert!(!is_empty(&scratch), "it works in a folder of its own");
        signal(&run, told);
        assert_eq!(ended(run).await.code(), Some(code), "{told:?}");
        assert!(is_empty(&scratch), "{told:?} leaves its folder behind");
    }
    let mut practice = program.command(&["practice", "--s3-port", "0", "--sftp-port", "0"]);
    let mut practice = practice.stdout(Stdio::piped()).spawn().unwrap();
    assert!(BufReader::new(practice.stdout.take().unwrap()).lines().next().unwrap().unwrap().contains("ready"));
    signal(&practice, Signal::TERM);
    assert_eq!(ended(practice).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_nowhere_are_told() {
    for (listen, public_url, is_told) in [
        ("0.0.0.0:0", "", true),
        ("[::]:0", "", true),
        ("127.0.0.1:0", "", false),
        ("0.0.0.0:0", "http://h.test", false),
    ] {
        let mut program = Program::new(&[("LISTEN", listen)]);
        if !public_url.is_empty() {
            program.set("PUBLIC_URL", public_url);
        }
        let mut serve = program.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(serve.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said: Vec<String> = lines.take_while(|line| !line.starts_with("Data is kept")).collect();
        signal(&serve, Signal::TERM);
        ended(serve).await;
        assert_eq!(said.iter().any(|line| line.contains("public_url")), is_told, "{listen}: {said:?}");
        let doctor = program.run(&["doctor"]);
        let found = String::from_utf8_lossy(&doctor.stdout);
        assert_eq!(found.contains("leads nowhere"), is_told, "{listen}: {found}");
    }
}

/// A unit of a service manager has sockets, and a shell has files that are written on with `>>`.
#[test]
fn the_state_goes_through_whatever_the_standard_streams_are() {
    let program = Program::new(&[]);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = program.command(&["export-state", "-"]);
    let mut export = command.stdout(OwnedFd::from(theirs)).spawn().unwrap();
    // It holds the other end open, too.
    drop(command);
    let mut state = String::new();
    ours.read_to_string(&mut state).unwrap();
    assert!(export.wait().unwrap().success(), "{state}");
    assert!(state.starts_with("{\"consign_state\":") && state.lines().last().unwrap().contains("rows"), "{state}");

    let path = program.folder().join("several");
    std::fs::write(&path, "before\n").unwrap();
    let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    assert!(program.command(&["export-state", "-"]).stdout(file).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("before\n{state}"));

    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut import = program.command(&["import-state", "-"]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    ours.write_all(state.as_bytes()).unwrap();
    drop(ours);
    assert!(import.wait().unwrap().success());
}
