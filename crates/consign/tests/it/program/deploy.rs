//! What ships beside the program: its units and its compose file say what this version of it understands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{or_skip, tool};

use super::harness::{Program, Signal};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap()
}

/// Starts a server as the words say, but for its port and folder, and stops it as a supervisor does.
async fn starts_and_stops(words: &[&str]) {
    let mut words: Vec<&str> = words.to_vec();
    assert_eq!(words.remove(0), "serve");
    for (own, _) in [("--listen", "a free port"), ("--data-dir", "a folder")] {
        if let Some(at) = words.iter().position(|word| *word == own) {
            words.drain(at..at + 2);
        }
    }
    let mut program = Program::new(&[]);
    if words.contains(&"runner") {
        let mut runner = program.command(&[&["serve"], &words[..]].concat());
        let mut runner = runner.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = std::io::BufReader::new(runner.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        assert!(said.contains("ready"), "{words:?}: {said}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&runner), Signal::TERM).unwrap();
        assert!(runner.wait().unwrap().success(), "{words:?}");
    } else {
        program.start_with(0, &words).await;
        program.signal(Signal::TERM);
        assert!(program.exit(Duration::from_secs(30)).await.success(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_start_this_program() {
    for name in ["consign.service", "consign-api@.service", "consign-runner@.service"] {
        let text = std::fs::read_to_string(deploy().join("systemd").join(name)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "/usr/local/bin/consign", "{name}");
        starts_and_stops(&words[1..]).await;
        let folder = words[words.iter().position(|word| *word == "--data-dir").unwrap() + 1];
        let kept = format!("StateDirectory={}", folder.strip_prefix("/var/lib/").unwrap());
        assert!(text.lines().any(|line| line == kept), "{name}: {folder} is not its state directory");
        for needed in ["Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes"] {
            assert!(text.lines().any(|line| line == needed), "{name}: {needed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_takes_the_units() {
    let Ok(verify) = tool::find("systemd-analyze") else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("consign");
    std::fs::copy("/bin/true", &program).unwrap();
    let mut names = vec!["verify".to_owned()];
    for (unit, instance) in [
        ("consign.service", "consign.service"),
        ("consign-api@.service", "consign-api@8081.service"),
        ("consign-runner@.service", "consign-runner@1.service"),
    ] {
        let text = std::fs::read_to_string(deploy().join("systemd").join(unit)).unwrap();
        let path = folder.path().join(instance);
        std::fs::write(&path, text.replace("/usr/local/bin/consign", &program.display().to_string())).unwrap();
        names.push(path.display().to_string());
    }
    tool::run(&verify.display().to_string(), &names).await.unwrap();
}

/// Every variable that a text names is a setting of this version.
#[track_caller]
fn are_settings<'a>(names: impl IntoIterator<Item = &'a str>) {
    let manual = std::fs::read_to_string(deploy().join("../docs/generated/config.md")).unwrap();
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
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let Some(json) = or_skip(tool::run("python-openstack", &["-c", read, &path]).await) else { return };
    let file: Value = serde_json::from_slice(&json).unwrap();
    let services: BTreeMap<&str, &Value> =
        file["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect();
    let own = services.iter().filter(|(_, service)| service["image"] == "consign");
    let mut roles: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, service) in own {
        let command = service["command"].as_str().unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        if *roles.entry(command).and_modify(|count| *count += 1).or_insert(1) == 1 {
            starts_and_stops(&words).await;
        }
        let environment = service["environment"].as_object().unwrap();
        are_settings(environment.keys().map(String::as_str));
        for needed in ["SECRET_KEY", "DATABASE_URL", "FILES_URL", "PUBLIC_URL"] {
            assert!(environment.contains_key(&format!("CONSIGN_{needed}")), "{name} lacks {needed}");
        }
        for other in service["depends_on"].as_object().unwrap().keys() {
            assert!(services.contains_key(other.as_str()), "{name} waits for {other}, which is not there");
        }
    }
    assert_eq!(roles, [("serve --role api", 2), ("serve --role runner", 2)].into());
    let proxy = std::fs::read_to_string(deploy().join("Caddyfile")).unwrap();
    assert!(proxy.contains("api-1:8080 api-2:8080") && proxy.contains("health_uri /readyz"));
    let image = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let set = image.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(|line| line.split(' '));
    are_settings(set.map(|pair| pair.split('=').next().unwrap()));
}

#[test]
fn the_guide_names_settings_that_exist() {
    let guide = std::fs::read_to_string(deploy().join("../docs/scaling.md")).unwrap();
    let names = guide.lines().filter(|line| line.starts_with("CONSIGN_")).map(|line| line.split('=').next().unwrap());
    are_settings(names);
}
