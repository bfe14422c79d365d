//! Follows a job and shows it: bars on a terminal, a line a change elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::sleep;

use super::api::{Api, Meter};
use super::print;

/// Pause between two looks at the job after something happened; it grows while nothing does. Short jobs end quickly,
/// long ones do not keep the server busy with being looked at.
const PAUSE_FIRST: Duration = Duration::from_millis(150);
/// The longest pause between two looks; progress and ends are shown within this time.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Shows the tasks of one job.
#[derive(Debug)]
pub(super) struct Board {
    bars: MultiProgress,
    is_terminal: bool,
    tasks: HashMap<String, (ProgressBar, String)>,
}

impl Board {
    pub(super) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { bars: MultiProgress::new(), is_terminal, tasks: HashMap::new() }
    }

    /// A meter for bytes that this side moves, under a heading.
    pub(super) fn meter(&self, heading: String, size: u64) -> Meter {
        let bar = self.bars.add(ProgressBar::new(size));
        bar.set_style(style("{prefix:<34} {bar:28} {bytes:>11} {bytes_per_sec:>13}"));
        bar.set_prefix(heading);
        std::sync::Arc::new(move |bytes| {
            bar.inc(bytes);
            if bar.position() >= size {
                bar.finish();
            }
        })
    }

    /// Follows a job until it has ended and returns it.
    pub(super) async fn follow(&mut self, api: &Api, id: &str) -> anyhow::Result<Value> {
        let mut pause = PAUSE_FIRST;
        loop {
            let answer = api.call(Method::GET, &format!("/v2/jobs/{id}"), None).await?;
            let job = &answer["data"];
            let mut is_new = false;
            for task in job["tasks"].as_array().into_iter().flatten() {
                is_new |= self.show(task);
            }
            if matches!(job["status"].as_str(), Some("finished" | "error")) {
                return Ok(job.clone());
            }
            pause = if is_new { PAUSE_FIRST } else { (pause * 3 / 2).min(PAUSE_MAX) };
            sleep(pause).await;
        }
    }

    /// Shows a task; tells whether its state is new.
    fn show(&mut self, task: &Value) -> bool {
        let name = task["name"].as_str().unwrap_or_default();
        let status = task["status"].as_str().unwrap_or_default();
        let heading = format!("{name} ({})", task["operation"].as_str().unwrap_or_default());
        let (bar, shown) = self.tasks.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(100));
            bar.set_style(style("{prefix:<34} {bar:28} {pos:>3} % {msg}"));
            bar.set_prefix(heading.clone());
            (bar, String::new())
        });
        bar.set_position(task["percent"].as_u64().unwrap_or(0));
        bar.set_message(status.to_owned());
        let line = match task["code"].as_str() {
            Some(code) => format!("{heading}: {code}: {}", task["message"].as_str().unwrap_or_default()),
            None => format!("{heading}: {status}"),
        };
        let is_new = *shown != line;
        if is_new {
            if !self.is_terminal && status != "waiting" {
                print::note(format!("  {line}"));
            }
            *shown = line;
            match status {
                "finished" => bar.finish(),
                "error" => bar.abandon(),
                _ => {}
            }
        }
        is_new
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("━━─"))
}
