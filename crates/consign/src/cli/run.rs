//! `consign run`: one job from a file, without a server or on one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use connectors::Secret;
use http::Method;
use serde_json::Value;

use super::api::{Api, Refused};
use super::interrupt::Interrupts;
use super::local::Local;
use super::progress::Board;
use super::{EXIT_FAILED, EXIT_USAGE, Failure, Settings, print};

/// Run one job from a JSON file, without a server or on one.
///
/// The file holds what would be posted to /v2/jobs. Files for `import/upload` tasks are given with --upload; what
/// `export/url` tasks offer lands in --output, replacing files of the same name there. Exit code 0 when the job
/// finished, 1 when it failed, 2 when the job or the command line is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  consign run job.json --upload scan=invoice.pdf --output results\n\nwith job.json:\n  {\"tasks\": {\"scan\": {\"operation\": \"import/upload\"},\n             \"link\": {\"operation\": \"export/url\", \"input\": \"scan\"}}}"
)]
pub(super) struct Run {
    #[command(flatten)]
    settings: Settings,
    /// The job; `-` reads it from standard input
    #[arg(value_name = "JOB.json")]
    job: PathBuf,
    /// File for an `import/upload` task; may be given several times
    #[arg(long = "upload", value_name = "TASK=PATH", value_parser = parse_upload)]
    uploads: Vec<(String, PathBuf)>,
    /// Folder for the files of `export/url` tasks
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Print the ended job as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Run it on this server instead, such as `https://consign.example`
    #[arg(long, value_name = "URL", requires = "key")]
    server: Option<String>,
    /// API key for --server; better given as `CONSIGN_KEY` in the environment
    #[arg(long, value_name = "KEY", env = "CONSIGN_KEY", hide_env_values = true)]
    key: Option<Secret>,
}

fn parse_upload(text: &str) -> Result<(String, PathBuf), String> {
    let (task, path) = text.split_once('=').ok_or("write it as TASK=PATH")?;
    Ok((task.to_owned(), PathBuf::from(path)))
}

impl Run {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let job = read_json(&self.job).map_err(Failure::usage)?;
        self.check_uploads(&job).map_err(Failure::usage)?;
        self.check_output(&job).map_err(Failure::usage)?;
        let mut interrupts = Interrupts::new()?;
        if let Some(server) = &self.server {
            let api = Api::new(server, self.key.clone().unwrap_or_default()).map_err(Failure::usage)?;
            return tokio::select! {
                outcome = self.drive(&api, &job) => outcome,
                code = interrupts.next() => Ok(code),
            };
        }
        let config = self.settings.load()?;
        // Only what went wrong: the job itself is shown by its bars.
        let log = crate::config::Log { level: "error".to_owned(), ..config.log.clone() };
        crate::telemetry::logs::start(&log, None).map_err(|error| Failure::usage(anyhow!(error)))?;
        let local = Local::start(config).await?;
        let outcome = tokio::select! {
            outcome = self.drive(&local.api, &job) => outcome,
            code = interrupts.next() => Ok(code),
        };
        local.stop().await?;
        outcome
    }

    /// Every upload has its task, and every task its upload, before anything is started.
    fn check_uploads(&self, job: &Value) -> anyhow::Result<()> {
        let waiting: HashSet<&str> = job["tasks"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, task)| task["operation"] == "import/upload")
            .map(|(name, _)| name.as_str())
            .collect();
        let mut seen = HashSet::new();
        for (task, path) in &self.uploads {
            if !seen.insert(task) {
                return Err(anyhow!("--upload {task}=… is given twice; a task takes one file"));
            }
            if !waiting.contains(task.as_str()) {
                return Err(anyhow!("--upload {task}=…: the job has no import/upload task named `{task}`"));
            }
            if !path.is_file() {
                return Err(anyhow!("--upload {task}=…: {} is not a file that can be read", path.display()));
            }
        }
        let mut missing: Vec<_> =
            waiting.into_iter().filter(|name| !self.uploads.iter().any(|(task, _)| task == name)).collect();
        missing.sort_unstable();
        match missing.first() {
            Some(name) => Err(anyhow!("the task `{name}` waits for a file: give it with --upload {name}=PATH")),
            None => Ok(()),
        }
    }

    /// There is a place for what `export/url` tasks offer, before anything is started.
    fn check_output(&self, job: &Value) -> anyhow::Result<()> {
        let offers = |task: &Value| task["operation"] == "export/url";
        if !job["tasks"].as_object().into_iter().flatten().any(|(_, task)| offers(task)) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("--output: {} cannot be made or is no folder", self.output.display()))
    }

    async fn drive(&self, api: &Api, job: &Value) -> Result<ExitCode, Failure> {
        let created = match api.call(Method::POST, "/v2/jobs", Some(job)).await {
            Ok(created) => created,
            Err(error) => {
                let code = match error.downcast_ref::<Refused>() {
                    Some(refused) if refused.is_of_the_caller() => EXIT_USAGE,
                    Some(_) | None => EXIT_FAILED,
                };
                return Err(Failure { code, error });
            }
        };
        let id = created["data"]["id"].as_str().ok_or_else(|| anyhow!("the server's answer is not a job"))?;
        if self.server.is_some() {
            print::note(format!("  job {id}"));
        }
        let mut board = Board::new();
        if let Err(error) = self.upload(api, &created["data"], &board).await {
            cancel(api, &created["data"]).await;
            return Err(error.context(format!("job {id} is cancelled: its upload failed")).into());
        }
        let ended = board.follow(api, id).await.with_context(|| format!("job {id} cannot be followed any more"))?;
        let saved = self.save(api, &ended, &board).await;
        if self.json {
            print::line(ended.to_string());
        }
        saved?;
        Ok(report(&ended))
    }

    async fn upload(&self, api: &Api, job: &Value, board: &Board) -> anyhow::Result<()> {
        for (task, path) in &self.uploads {
            let tasks = job["tasks"].as_array().into_iter().flatten();
            let form = tasks.into_iter().find(|made| made["name"] == task.as_str()).map(|made| &made["result"]["form"]);
            let size = tokio::fs::metadata(path).await?.len();
            let meter = board.meter(format!("{task} ⇐ {}", path.display()), size);
            api.upload(form.unwrap_or(&Value::Null), path, meter).await?;
        }
        Ok(())
    }

    /// Fetches the files of `export/url` tasks.
    async fn save(&self, api: &Api, job: &Value, board: &Board) -> anyhow::Result<()> {
        let mut used = HashSet::new();
        for task in job["tasks"].as_array().into_iter().flatten().filter(|task| task["operation"] == "export/url") {
            for file in task["result"]["files"].as_array().into_iter().flatten() {
                let (Some(url), Some(name)) = (file["url"].as_str(), file["filename"].as_str()) else { continue };
                let path = self.output.join(unused(&crate::files::name::safe(name), &mut used));
                let meter = board.meter(format!("⇒ {}", path.display()), file["size"].as_u64().unwrap_or(0));
                let digest = api.download(url, &path, Arc::clone(&meter)).await?;
                if file["sha256"].as_str().is_some_and(|sha256| sha256 != hex::encode(digest)) {
                    return Err(anyhow!("{} is not what the server holds; run the job again", path.display()));
                }
                print::note(format!("  ⇒ {}", path.display()));
            }
        }
        Ok(())
    }
}

/// Ends what has not ended of a job that will not get its files.
async fn cancel(api: &Api, job: &Value) {
    for id in job["tasks"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str()) {
        // A task that has ended, or ended with another, is refused.
        let _ = api.call(Method::POST, &format!("/v2/tasks/{id}/cancel"), None).await;
    }
}

/// Reads a JSON file; `-` is standard input.
pub(super) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let is_input = path == Path::new("-");
    let shown = if is_input { "standard input".to_owned() } else { path.display().to_string() };
    let text = if is_input { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.with_context(|| format!("{shown} cannot be read"))?;
    serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))
}

/// A name that no earlier file of this job has.
fn unused(name: &str, used: &mut HashSet<String>) -> String {
    let (stem, extension) = name.rfind('.').filter(|dot| *dot > 0).map_or((name, ""), |dot| name.split_at(dot));
    let mut candidate = name.to_owned();
    let mut number = 1;
    while !used.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{stem}-{number}{extension}");
    }
    candidate
}

fn report(job: &Value) -> ExitCode {
    if job["status"] == "finished" {
        return ExitCode::SUCCESS;
    }
    for task in job["tasks"].as_array().into_iter().flatten() {
        if task["status"] == "error" && task["code"] != "INPUT_TASK_FAILED" {
            let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
            print::note(format!("{} failed: {}: {}", text("name"), text("code"), text("message")));
        }
    }
    ExitCode::from(EXIT_FAILED)
}
