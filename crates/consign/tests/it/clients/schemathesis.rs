//! schemathesis against the whole API of the program: no server error, and no answer that the manual does not have.

use std::time::Duration;

use serde_json::json;
use testkit::clients;

use crate::program::{Program, id, task};

/// Requests tried for each operation in the phase that draws them; those of the edges of each schema come on top.
const EXAMPLES: &str = "8";
/// Time for all of it, in seconds: what is not tried by then is left.
const TIME_MAX: &str = "90";
/// Time for the process, should it not keep to that.
const PATIENCE: Duration = Duration::from_mins(4);

/// The one check that is left out: a schema does not say what spans fields, nor which tasks there are, so that the server
/// refuses what the schema lets pass.
const LEFT_OUT: &str = "positive_data_acceptance";

/// What operations need that cannot be drawn by chance: a key, a link and a form that are genuine, and for the events a job
/// that has ended, so that they end too. A wait may end with 504.
fn settings(server: &Program, job: &str, link: &[&str], upload: &str) -> String {
    let text = |value: &str| json!(value);
    format!(
        "[generation]\nallow-x00 = true\n[headers]\nAuthorization = {key}\n\
         [[operations]]\ninclude-path-regex = '/wait$'\nchecks.not_a_server_error.expected-statuses = ['2xx', '4xx', '504']\n\
         [[operations]]\ninclude-path = '/files/{{task}}/{{name}}'\n\
         parameters = {{ 'path.task' = {task}, 'path.name' = {name}, temp_url_sig = {sig}, temp_url_expires = {expires}, temp_url_number = '1' }}\n\
         [[operations]]\ninclude-path = '/upload/{{task}}'\nparameters = {{ task = {upload} }}\n\
         [[operations]]\ninclude-path = '/v2/jobs/{{id}}/events'\nparameters = {{ 'path.id' = {job} }}\n",
        key = text(&format!("Bearer {}", server.key())),
        task = text(link[0]),
        name = text(link[1]),
        sig = text(link[2]),
        expires = text(link[3]),
        upload = text(upload),
        job = text(job),
    )
}

#[tokio::test]
async fn the_manual_is_true() {
    let Some(mut command) = testkit::or_skip(clients::python()) else { return };
    let settings_of_server = [("LIMITS__WAIT_MAX", "1s"), ("LIMITS__CREATIONS_PER_MINUTE_MAX", "100000000")];
    let server = Program::started(&settings_of_server).await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let job = server.job(json!({"in": raw, "out": {"operation": "export/url", "input": "in"}})).await;
    let ended = server.finished(&job).await;
    let url = task(&ended, "out")["result"]["files"][0]["url"].as_str().unwrap();
    let (_, link) = url.split_once("/files/").unwrap();
    let link: Vec<_> = link.split(['/', '?', '&']).map(|part| part.rsplit('=').next().unwrap()).collect();
    let form = server.job(json!({"in": {"operation": "import/upload"}})).await;
    let file = server.folder().join("schemathesis.toml");
    std::fs::write(&file, settings(&server, &id(&job), &link, &id(task(&form, "in")))).unwrap();

    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(&file).args(["--no-color", "run"]);
    command.arg(format!("{}/openapi.json", server.base()));
    command.args([
        "--checks",
        "all",
        "--exclude-checks",
        LEFT_OUT,
        "--mode",
        "all",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    command.args(["--max-examples", EXAMPLES, "--generation-deterministic", "--continue-on-failure", "--workers", "2"]);
    command.args(["--max-time", TIME_MAX, "--request-timeout", "20", "--warnings", "off"]);
    let output = tokio::time::timeout(PATIENCE, command.current_dir(server.folder()).output()).await;
    let output = output.expect("it ends in time").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("Tested: "), "it tried nothing: {printed}");
    println!("{printed}");
}
