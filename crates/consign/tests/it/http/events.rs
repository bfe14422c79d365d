//! Server-sent events of a job: the past, the present, going on after a break, and what ends a stream.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use consign::model::Scope;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::app::{App, Asked, new_key};

/// How long to wait for an event, and how long silence must last to be believed.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq)]
struct Told {
    name: String,
    id: Option<String>,
    data: Value,
}

/// A client that reads a stream block by block.
struct Reader {
    body: Body,
    text: String,
}

impl Reader {
    fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        for (name, value) in
            [("content-type", "text/event-stream"), ("cache-control", "no-cache, private"), ("x-accel-buffering", "no")]
        {
            assert_eq!(response.headers()[name], value);
        }
        Self { body: response.into_body(), text: String::new() }
    }

    async fn block(&mut self) -> Option<BTreeMap<String, String>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let fields = block.lines().map(|line| line.split_once(':').unwrap());
                let fields = fields.map(|(name, value)| (name.to_owned(), value.trim_start().to_owned())).collect();
                rest.to_owned().clone_into(&mut self.text);
                return Some(fields);
            }
            let frame =
                tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("something comes, or the end")?;
            self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            let fields = self.block().await?;
            if let Some(name) = fields.get("event") {
                let data = serde_json::from_str(&fields["data"]).unwrap();
                return Some(Told { name: name.clone(), id: fields.get("id").cloned(), data });
            }
        }
    }

    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.next().await.expect("another event").name);
        }
        names
    }

    async fn rest(mut self) -> Vec<Told> {
        let mut rest = Vec::new();
        while let Some(told) = self.next().await {
            rest.push(told);
        }
        rest
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.next()).await.is_err()
    }
}

fn asked(app: &App, job: &str) -> Asked {
    app.request("GET", &format!("/v2/jobs/{job}/events"))
}

async fn reader(app: &App, job: &str) -> Reader {
    Reader::new(asked(app, job).open().await)
}

const LOG: [&str; 9] = [
    "job.created",
    "task.created",
    "task.created",
    "job.updated",
    "task.updated",
    "task.finished",
    "task.updated",
    "task.finished",
    "job.finished",
];

/// A job of which every step was made a minute after the one before.
async fn ended_job(app: &App) -> String {
    let (job, ..) = app.small_job().await;
    for _ in 0..2 {
        app.clock.advance(Duration::from_mins(1));
        let claim = app.claim().await;
        app.clock.advance(Duration::from_mins(1));
        app.finish(&claim, &[]).await;
    }
    job
}

#[tokio::test]
async fn a_stream_tells_what_happened_then_what_happens_and_ends_with_the_job() {
    let app = App::new().await;
    let (job, import, _) = app.small_job().await;
    let mut reader = reader(&app, &job).await;
    assert_eq!(reader.block().await.unwrap().get("retry").map(String::as_str), Some("2000"));
    assert_eq!(reader.names(3).await, LOG[..3]);
    assert!(reader.is_silent().await);
    app.clock.advance(Duration::from_secs(1));
    let claim = app.claim().await;
    assert_eq!(reader.names(2).await, LOG[3..5]);
    app.progress(&claim, 40).await;
    let progress = reader.next().await.unwrap();
    assert_eq!((progress.name.as_str(), progress.id), ("task.updated", None));
    assert_eq!((&progress.data["task"]["percent"], &progress.data["task"]["id"]), (&json!(40), &json!(import)));
    app.progress(&claim, 40).await;
    assert!(reader.is_silent().await, "nothing has changed");
    app.clock.advance(Duration::from_secs(1));
    app.finish(&claim, &[]).await;
    assert_eq!(reader.names(1).await, LOG[5..6]);
    app.run_one().await;
    let rest = reader.rest().await;
    assert_eq!(rest.iter().map(|told| told.name.as_str()).collect::<Vec<_>>(), LOG[6..]);
    let shown = app.get(&format!("/v2/jobs/{job}")).await.json()["data"].clone();
    assert_eq!(rest.last().unwrap().data, json!({"job": shown}), "the data is what showing the job says");
    assert_eq!((app.state.live.taken(), app.state.store.hints().waiters()), (0, 0));
}

#[tokio::test]
async fn whoever_comes_late_is_told_everything_with_the_same_ids() {
    let app = App::new().await;
    let job = ended_job(&app).await;
    let first = reader(&app, &job).await.rest().await;
    assert_eq!(first.iter().map(|told| told.name.as_str()).collect::<Vec<_>>(), LOG);
    let mut ids: Vec<_> = first.iter().map(|told| told.id.clone().unwrap()).collect();
    assert_eq!(reader(&app, &job).await.rest().await, first);
    ids.dedup();
    assert_eq!(ids.len(), LOG.len(), "each has its own");
}

#[tokio::test]
async fn a_failed_task_fails_what_depends_on_it_and_the_job() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let claim = app.claim().await;
    app.fail(&claim).await;
    let told = reader(&app, &job).await.rest().await;
    let names: Vec<_> = told.iter().map(|told| told.name.as_str()).collect();
    let wanted = [&LOG[..4], &["task.updated", "task.failed", "task.failed", "job.failed"]].concat();
    // In the manual clock's one moment a failed task's start and end are one.
    assert_eq!(names, wanted.into_iter().filter(|name| *name != "task.updated").collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_was_seen() {
    let app = App::new().await;
    let job = ended_job(&app).await;
    let log = reader(&app, &job).await.rest().await;
    for (seen, told) in log.iter().enumerate().take(LOG.len() - 1) {
        let id = told.id.clone().unwrap();
        let by_header = Reader::new(asked(&app, &job).header("last-event-id", &id).open().await).rest().await;
        let query = app.request("GET", &format!("/v2/jobs/{job}/events?last_event_id={id}"));
        assert_eq!(Reader::new(query.open().await).rest().await, by_header);
        let again = log.len() - by_header.len();
        assert_eq!(by_header, log[again..], "all that follow, in their order");
        assert!(again <= seen + 1, "nothing is left out");
        let same_moment = log.iter().take(seen + 1).filter(|earlier| minute(earlier) == minute(told)).count();
        assert_eq!(again, seen + 1 - same_moment, "only what happened in the same seconds is told again");
    }
    let everything = Reader::new(asked(&app, &job).header("last-event-id", "what?").open().await).rest().await;
    assert_eq!(everything, log);
    let last = log.last().unwrap().id.clone().unwrap();
    let after_the_end = asked(&app, &job).header("last-event-id", &last).send().await;
    assert_eq!((after_the_end.status.as_u16(), after_the_end.body.len()), (204, 0), "so that browsers stop asking");
    let (running, ..) = app.small_job().await;
    let mut reader = Reader::new(asked(&app, &running).header("last-event-id", &last).open().await);
    assert_eq!(reader.names(3).await, LOG[..3], "that job begins in the same minute");
}

fn minute(told: &Told) -> String {
    told.id.clone().unwrap().split('-').next().unwrap().to_owned()
}

#[tokio::test]
async fn only_the_owner_may_listen() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let (other, _) = new_key(&app.state, "eve", &Scope::ALL).await;
    asked(&app, &job).by(&other).send().await.fails(404, "NOT_FOUND");
    let (blind, _) = new_key(&app.state, "ann", &[Scope::TaskWrite]).await;
    asked(&app, &job).by(&blind).send().await.fails(403, "FORBIDDEN");
    asked(&app, &job).anonymous().send().await.fails(401, "UNAUTHENTICATED");
    asked(&app, "no-id").send().await.fails(404, "NOT_FOUND");
    assert_eq!((app.state.live.taken(), app.state.store.hints().waiters()), (0, 0));
}

#[tokio::test]
async fn a_deleted_job_a_revoked_key_and_a_stop_end_the_stream_and_a_leaving_client_frees_everything() {
    let app = App::new().await.hurried(|periods| periods.key_check = SILENCE);
    let (job, ..) = app.small_job().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = reader(&app, &job).await;
        reader.names(3).await;
        readers.push(reader);
    }
    assert_eq!((app.state.live.taken(), app.state.store.hints().waiters()), (3, 3));
    readers.pop();
    assert_eq!((app.state.live.taken(), app.state.store.hints().waiters()), (2, 2), "at once");
    assert_eq!(app.request("DELETE", &format!("/v2/jobs/{job}")).send().await.status, 204);
    for reader in readers {
        assert_eq!(reader.rest().await, [], "a job that is gone has no end to tell of");
    }
    let (job, ..) = app.small_job().await;
    let mut told = reader(&app, &job).await;
    told.names(3).await;
    app.revoke_key().await;
    assert_eq!(told.rest().await, []);

    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let mut told = reader(&app, &job).await;
    told.names(3).await;
    app.state.stopping.cancel();
    assert_eq!(told.rest().await, []);
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives() {
    let app = App::new().await.hurried(|periods| periods.keep_alive = SILENCE);
    let (job, ..) = app.small_job().await;
    let mut told = reader(&app, &job).await;
    told.names(3).await;
    assert_eq!(told.block().await.unwrap().keys().collect::<Vec<_>>(), [""], "a comment");
}
