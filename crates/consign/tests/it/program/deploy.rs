//! What ships beside the program: its units and its compose file say what this version of it understands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{or_skip, tool};

use super::fleet::Fleet;
use super::harness::{Program, Signal};
use super::operation::text;

/// Variables, by name.
type Settings = BTreeMap<String, String>;

/// How long a supervisor waits beyond the periods that are settings. A process may take 15 s for test files at destinations, 5 s
/// for webhooks, 2 s to tell other processes and 5 s for spans; the rest is for what has no bound of its own.
const STOP_MARGIN: Duration = Duration::from_secs(15 + 5 + 2 + 5 + 3);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy().join(name)).unwrap()
}

/// Starts a process as the words and settings say, but for its ports, its folder and what a fleet shares; asks after its health,
/// and stops it as a supervisor does.
async fn starts_and_stops(fleet: &Fleet, words: &[&str], settings: &Settings) {
    let mut words: Vec<&str> = words.to_vec();
    assert_eq!(words.remove(0), "serve");
    for own in ["--listen", "--data-dir"] {
        if let Some(at) = words.iter().position(|word| *word == own) {
            words.drain(at..at + 2);
        }
    }
    let mut program = if words.contains(&"--role") { fleet.member(&[]) } else { Program::new(&[]) };
    for (name, value) in settings {
        let name = name.strip_prefix("CONSIGN_").unwrap();
        program.set(name, if name == "METRICS_LISTEN" { "127.0.0.1:0" } else { value });
    }
    if words.contains(&"runner") {
        let mut runner = program.command(&[&["serve"], &words[..]].concat());
        let mut runner = runner.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(runner.stdout.take().unwrap()));
        let mut lines = lines.map(|line| line.unwrap());
        assert_eq!(lines.next().as_deref(), Some("Consign's runner is ready"), "{words:?}");
        let health = lines.next().unwrap();
        let base = health.strip_prefix("Health and metrics are at ").expect("a runner can be asked how it does");
        assert_eq!(text(base, "/readyz").await.0, 200, "{words:?}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&runner), Signal::TERM).unwrap();
        assert!(runner.wait().unwrap().success(), "{words:?}");
    } else {
        if words.contains(&"--role") {
            program.make_key("admin");
        }
        program.start_with(0, &words).await;
        assert_eq!(program.text("/readyz").await.0, 200, "{words:?}");
        program.signal(Signal::TERM);
        assert!(program.exit(Duration::from_secs(30)).await.success(), "{words:?}");
    }
}

/// The lines of a unit that set something, by what they set.
fn directives(unit: &str) -> Vec<(&str, &str)> {
    unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect()
}

/// The settings in a unit, as the supervisor would give them to instance 0 with its credentials in this folder.
fn settings(unit: &str, credentials: &Path) -> Settings {
    let given = directives(unit).into_iter().filter(|(name, _)| *name == "Environment");
    let given = given.map(|(_, pair)| pair.replace("%d", credentials.to_str().unwrap()).replace("%i", "0"));
    given.map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_start_this_program() {
    let Some(server) = or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("files.secret"), "\n").unwrap();
    for name in ["consign.service", "consign-api@.service", "consign-runner@.service"] {
        let unit = read(&format!("systemd/{name}"));
        let of_fleet = name.contains('@');
        let given = directives(&unit);
        let has = |directive: &str, value: &str| given.contains(&(directive, value));
        let line = given.iter().find(|(directive, _)| *directive == "ExecStart").unwrap().1;
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "/usr/local/bin/consign", "{name}");
        let settings = settings(&unit, credentials.path());
        if !settings.is_empty() {
            are_settings(settings.keys().map(String::as_str));
        }
        starts_and_stops(&fleet, &words[1..], &settings).await;
        let folder = words[words.iter().position(|word| *word == "--data-dir").unwrap() + 1];
        assert!(
            has("StateDirectory", folder.strip_prefix("/var/lib/").unwrap()),
            "{name}: {folder} is not its state directory"
        );
        for (directive, value) in
            [("Restart", "always"), ("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("DynamicUser", "yes")]
        {
            assert!(has(directive, value), "{name}: {directive}={value}");
        }
        // A supervisor that gave up would leave a fleet without processes after the database was away for some seconds.
        assert!(has("StartLimitIntervalSec", "0") && has("RestartPreventExitStatus", "2"), "{name}");
        if of_fleet {
            // With a dash the process would start without its settings, on a database of its own.
            assert!(has("EnvironmentFile", "/etc/consign/fleet.env"), "{name}");
            // Its user, which is made at the start, can read no file that only root may read.
            assert!(has("LoadCredential", "files.secret:/etc/consign/files.secret"), "{name}");
            assert!(settings["CONSIGN_FILES__SECRET_ACCESS_KEY_FILE"].ends_with("/files.secret"), "{name}");
        }
        let patience = given.iter().find(|(directive, _)| *directive == "TimeoutStopSec").unwrap().1;
        is_patient(name, patience, &settings);
    }
}

/// A supervisor must wait for longer than a process may take to stop.
#[track_caller]
fn is_patient(name: &str, patience: &str, settings: &Settings) {
    let patience = Duration::from_secs(patience.trim_end_matches('s').parse().unwrap());
    let defaults = consign::config::Limits::default();
    let drain = settings.get("CONSIGN_LIMITS__DRAIN_DELAY").map_or(defaults.drain_delay, |text| text.parse().unwrap());
    assert!(patience >= drain.0 + defaults.stop_grace.0 + STOP_MARGIN, "{name} is stopped after {patience:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_takes_the_units() {
    let Ok(verify) = tool::find("systemd-analyze") else {
        // The test bed does not bring it, and a machine that is not run by systemd need not have it, in CI either.
        let line = "skipped: systemd-analyze is missing, which would look at the units";
        println!("{line}");
        testkit::note_skipped(line);
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("consign");
    std::fs::copy("/bin/true", &program).unwrap();
    // It ends well also when it has ignored a line that it does not understand, and says so.
    let mut words: Vec<String> = ["-c", "\"$@\" 2>&1", "sh"].map(str::to_owned).into();
    words.extend([verify.display().to_string(), "verify".to_owned()]);
    for (unit, instance) in [
        ("consign.service", "consign.service"),
        ("consign-api@.service", "consign-api@8081.service"),
        ("consign-runner@.service", "consign-runner@9101.service"),
    ] {
        let path = folder.path().join(instance);
        let text = read(&format!("systemd/{unit}"));
        std::fs::write(&path, text.replace("/usr/local/bin/consign", &program.display().to_string())).unwrap();
        words.push(path.display().to_string());
    }
    let said = String::from_utf8(tool::run("sh", &words).await.unwrap()).unwrap();
    assert!(!said.contains("consign"), "{said}");
}

/// Every variable that a text names is a setting of this version.
#[track_caller]
fn are_settings<'a>(names: impl IntoIterator<Item = &'a str>) {
    let manual = read("../docs/generated/config.md");
    let mut count = 0;
    for name in names {
        assert!(manual.contains(&format!("| `{name}` |")), "there is no setting {name}");
        count += 1;
    }
    assert!(count > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compose_file_fits_the_program() {
    let path = deploy().join("compose.yaml").display().to_string();
    let reading = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let Some(json) = or_skip(tool::run("python-openstack", &["-c", reading, &path]).await) else { return };
    let Some(server) = or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let file: Value = serde_json::from_slice(&json).unwrap();
    let services: BTreeMap<&str, &Value> =
        file["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect();
    let own = services.iter().filter(|(_, service)| service["image"] == "consign");
    let mut roles: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, service) in own {
        let command = service["command"].as_str().unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        let environment: Settings = serde_json::from_value(service["environment"].clone()).unwrap();
        are_settings(environment.keys().map(String::as_str));
        for needed in ["SECRET_KEY", "DATABASE_URL", "FILES_URL", "PUBLIC_URL"] {
            assert!(environment.contains_key(&format!("CONSIGN_{needed}")), "{name} lacks {needed}");
        }
        let of_place = |name: &str| {
            ["DATABASE_URL", "FILES_URL", "FILES__", "SECRET_KEY", "PUBLIC_URL"]
                .iter()
                .any(|place| name.contains(place))
        };
        let mut settings = environment.clone();
        settings.retain(|name, _| !of_place(name));
        if *roles.entry(command).and_modify(|count| *count += 1).or_insert(1) == 1 {
            starts_and_stops(&fleet, &words, &settings).await;
        }
        // Without a listener in the settings it is the one of the image.
        let port =
            environment.get("CONSIGN_METRICS_LISTEN").map_or("8080", |address| address.rsplit(':').next().unwrap());
        let check = format!("curl -fsS http://127.0.0.1:{port}/readyz");
        assert_eq!(service["healthcheck"]["test"], check, "{name} is asked how it does");
        is_patient(name, service["stop_grace_period"].as_str().unwrap(), &settings);
        for other in service["depends_on"].as_object().unwrap().keys() {
            assert!(services.contains_key(other.as_str()), "{name} waits for {other}, which is not there");
        }
    }
    assert_eq!(roles, [("serve --role api", 2), ("serve --role runner", 2)].into());
    let image = read("Dockerfile");
    let set = image.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(|line| line.split(' '));
    are_settings(set.map(|pair| pair.split('=').next().unwrap()));
    assert!(image.contains("CONSIGN_LISTEN=0.0.0.0:8080"));
}

#[test]
fn the_guide_names_settings_that_exist() {
    let guide = read("../docs/scaling.md");
    let names = guide.lines().filter(|line| line.starts_with("CONSIGN_")).map(|line| line.split('=').next().unwrap());
    are_settings(names);
}
