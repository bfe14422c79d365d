//! Counts the running tasks in the database itself, some times a second: of each user, and of each session of a process. Looks
//! also for uploads that are open although their task still waits for its import: those went ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Method;
use testkit::tool;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::sleep;

use crate::client::{Ask, Client};
use crate::history::{Event, History, Whose};

/// One statement, so that all counts are of one moment.
const ROWS: &str = "\
SELECT 'user', user_id::text, count(*) FROM tasks WHERE state = 'running' GROUP BY user_id
UNION ALL SELECT 'process', session_id::text, count(*) FROM tasks WHERE state = 'running' GROUP BY session_id
UNION ALL SELECT 'ahead', l.task_id::text, 1 FROM ledger l JOIN tasks t ON t.id = l.task_id WHERE t.state = 'blocked'
UNION ALL SELECT 'look', '', 1";
/// Between two looks at the rows, in seconds.
const EVERY_SECS: &str = "0.1";
/// Before the database is asked again after it did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at the metrics, which the program itself renews every 5 s.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// What was counted so far.
#[derive(Debug)]
pub(crate) struct Counts {
    history: Arc<History>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    times: u64,
    most: BTreeMap<Whose, u64>,
    /// None as long as nobody looked at rows, which alone show it.
    ahead: Option<BTreeSet<String>>,
}

impl Counts {
    pub(crate) fn new(history: Arc<History>) -> Self {
        Self { history, seen: Mutex::default() }
    }

    /// Counts rows until it is dropped.
    pub(crate) async fn watch_rows(&self, url: &str) {
        loop {
            // The database is struck, too: then it is asked again.
            self.read_rows(url).await.ok();
            sleep(PAUSE).await;
        }
    }

    async fn read_rows(&self, url: &str) -> Result<()> {
        let mut psql = tool::command("psql")?;
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut to = psql.stdin.take().context("a pipe")?;
        to.write_all(format!("{ROWS} \\watch {EVERY_SECS}\n").as_bytes()).await?;
        to.flush().await?;
        let mut lines = BufReader::new(psql.stdout.take().context("a pipe")?).lines();
        while let Some(line) = lines.next_line().await? {
            self.line(&line);
        }
        Ok(())
    }

    /// Reads the metrics until it is dropped: all that there is to see where the database is a file.
    pub(crate) async fn watch_metrics(&self, client: &Client) {
        loop {
            if let Some(count) = metric(client, "consign_tasks_running").await {
                self.total(count);
            }
            sleep(METRICS_EVERY).await;
        }
    }

    /// All running tasks of the one process, which are those of the one user.
    fn total(&self, count: u64) {
        self.count(Whose::User, count);
        self.count(Whose::Process, count);
        self.seen().times += 1;
    }

    fn line(&self, line: &str) {
        let mut columns = line.split('|');
        let (Some(sort), Some(whose), Some(count)) = (columns.next(), columns.next(), columns.next()) else { return };
        let count = count.parse().unwrap_or_default();
        match sort {
            "user" => self.count(Whose::User, count),
            "process" => self.count(Whose::Process, count),
            "ahead" => _ = self.seen().ahead.get_or_insert_default().insert(whose.to_owned()),
            "look" => {
                let mut seen = self.seen();
                seen.times += 1;
                seen.ahead.get_or_insert_default();
            }
            _ => {}
        }
    }

    fn count(&self, whose: Whose, count: u64) {
        let mut seen = self.seen();
        let most = seen.most.entry(whose).or_default();
        if count > *most {
            *most = count;
            self.history.note(Event::Running { whose, count });
        }
    }

    /// Writes down what only the end of the run shows.
    pub(crate) fn conclude(&self) {
        let (times, uploads) = {
            let seen = self.seen();
            (seen.times, seen.ahead.as_ref().map(|ahead| ahead.len() as u64))
        };
        self.history.note(Event::Counted { times });
        if let Some(uploads) = uploads {
            self.history.note(Event::Ahead { uploads });
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number of the metrics; none when no process answers.
pub(crate) async fn metric(client: &Client, name: &str) -> Option<u64> {
    let (_, text) = client.fetch(&Ask::new("metrics", Method::GET, "/metrics")).await.ok()?;
    let text = String::from_utf8_lossy(&text);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_is_noted_once_and_uploads_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let history = Arc::new(History::begin(&folder.path().join("history")).unwrap());
        let counts = Counts::new(Arc::clone(&history));
        let lines = ["user|1|3", "process|a|2", "look||1", "Tue 24 Nov 2026 (every 0.1s)", "", "user|1|3", "user|2|4"];
        for line in lines.into_iter().chain(["ahead|x|1", "ahead|x|1", "look||1", "process|b|1"]) {
            counts.line(line);
        }
        counts.conclude();
        let events: Vec<Event> = history.entries().into_iter().map(|entry| entry.event).collect();
        let expected = [
            Event::Running { whose: Whose::User, count: 3 },
            Event::Running { whose: Whose::Process, count: 2 },
            Event::Running { whose: Whose::User, count: 4 },
            Event::Counted { times: 2 },
            Event::Ahead { uploads: 1 },
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn metrics_do_not_say_that_no_upload_went_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let history = Arc::new(History::begin(&folder.path().join("history")).unwrap());
        let counts = Counts::new(Arc::clone(&history));
        counts.total(3);
        counts.conclude();
        let is_ahead = |event: &Event| matches!(event, Event::Ahead { .. });
        assert!(history.any(|event| *event == Event::Counted { times: 1 }) && !history.any(is_ahead));
    }
}
