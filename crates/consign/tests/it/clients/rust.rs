//! The Rust crate `cloudconvert-sdk`, by its own builders and types.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cloudconvert_sdk::{
    ApiKey, CloudConvertClient, Error, ExportUrlTask, Job, JobCreateRequest, JobListQuery, JobTask, SigningSecret,
    TaskGetQuery, TaskListQuery, TaskRequest, TaskStatus, WebhookCreateRequest, WebhookEvent, WebhookListQuery,
    sign_job_url, verify_signature,
};
use http::Method;
use testkit::clients::{Cell, Client, Via};

use super::{FILE, Server, conclude, delivery};
use crate::program::Receiver;

const CONTENT: &[u8] = b"The quick brown fox";

/// The client, pointed at the server by its own option.
struct It {
    client: CloudConvertClient,
    server: Server,
}

fn client(server: &Server, key: &str) -> CloudConvertClient {
    let base = |path: &str| format!("{}{path}", server.program.base()).parse().unwrap();
    CloudConvertClient::builder(ApiKey::new(key)).with_base_urls(base("/v2/"), base("/sync/v2/")).build().unwrap()
}

fn upload_and_export() -> JobCreateRequest {
    JobCreateRequest::builder()
        .task("in", TaskRequest::import_upload())
        .task("out", TaskRequest::export_url("in"))
        .tag("drop-in")
        .build()
}

fn raw_and_export(name: &str) -> JobCreateRequest {
    let export = ExportUrlTask::new("in").inline(true);
    JobCreateRequest::builder()
        .task("in", TaskRequest::import_raw(String::from_utf8_lossy(CONTENT), name))
        .task("out", export)
        .build()
}

fn named<'a>(job: &'a Job, name: &str) -> Result<&'a JobTask> {
    job.tasks.iter().find(|task| task.name == name).context("no such task")
}

fn id_of<'a>(job: &'a Job, name: &str) -> Result<&'a str> {
    named(job, name)?.id.as_deref().context("no id")
}

/// Status, code and reasons of a refusal.
fn refused<T>(answer: Result<T, Error>) -> Result<(u16, Option<String>, Option<serde_json::Value>)> {
    match answer {
        Err(Error::Api { status, code, errors, .. }) => Ok((status, code, errors.map(|errors| *errors))),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("it is not refused"),
    }
}

/// Of users and webhooks it wants the id as a text, where the service gives a number, as the official clients want it.
fn cannot_read<T>(answer: Result<T, Error>) -> Result<Cell> {
    match answer {
        Err(Error::Http(error)) if error.is_decode() => {
            Ok(Cell::Excluded("the crate wants a text for an id that the service gives as a number".to_owned()))
        }
        Err(other) => Err(other.into()),
        Ok(_) => bail!("it can read it by now: try the whole flow"),
    }
}

impl It {
    async fn user(&self) -> Result<Cell> {
        cannot_read(self.client.users().me().await)
    }

    async fn create(&self) -> Result<Cell> {
        let job = self.client.jobs().create(upload_and_export()).await?;
        ensure!(job.status.is_waiting() && job.tag.as_deref() == Some("drop-in") && job.tasks.len() == 2);
        let task = self.client.tasks().create(TaskRequest::import_upload()).await?;
        ensure!(task.status.is_waiting() && task.operation == "import/upload" && task.job_id.is_none());
        Ok(Cell::Shown)
    }

    async fn upload(&self) -> Result<Cell> {
        let (tasks, file) = (self.client.tasks(), self.server.file());
        for name in [FILE.0, "my file é.txt"] {
            let task = tasks.create(TaskRequest::import_upload()).await?;
            if name == FILE.0 {
                self.client.upload_path(&task, &file).await?;
            } else {
                self.client.upload_bytes(&task, name, CONTENT).await?;
            }
            let ended = tasks.wait(&task.id).await?;
            let entry = &ended.result.context("a result")?.files[0];
            ensure!(entry.filename == name, "{}", entry.filename);
        }
        Ok(Cell::Shown)
    }

    async fn wait(&self) -> Result<Cell> {
        let job = self.client.jobs().create(upload_and_export()).await?;
        let (jobs, tasks, out) = (self.client.jobs(), self.client.tasks(), id_of(&job, "out")?.to_owned());
        let id = job.id.clone();
        let waiter = tokio::spawn(async move { tokio::join!(jobs.wait(id), tasks.wait(out)) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        ensure!(!waiter.is_finished(), "it does not wait");
        self.client.upload_bytes(&self.client.tasks().get(id_of(&job, "in")?).await?, "a.txt", CONTENT).await?;
        let (job, task) = waiter.await?;
        ensure!(job?.status.is_finished() && task?.status.is_finished());
        Ok(Cell::Shown)
    }

    async fn show(&self) -> Result<Cell> {
        let job = self.client.jobs().create_and_wait(raw_and_export("a.txt")).await?;
        let shown = self.client.jobs().get(&job.id).await?;
        ensure!(shown.status.is_finished() && shown.tasks.len() == 2);
        let (tasks, id) = (self.client.tasks(), id_of(&job, "in")?);
        let with = tasks.get_with_query(id, &TaskGetQuery::default().include("payload")).await?;
        ensure!(with.payload.context("a payload")?["filename"] == "a.txt" && tasks.get(id).await?.payload.is_none());
        Ok(Cell::Shown)
    }

    async fn list(&self) -> Result<Cell> {
        let made = self.client.jobs().create(upload_and_export()).await?;
        let query = JobListQuery::default().tag("drop-in").include("tasks").per_page(1);
        let page = self.client.jobs().list_page(&query).await?;
        ensure!(page.data.len() == 1 && page.data[0].id == made.id && page.data[0].tasks.len() == 2);
        ensure!(page.meta.per_page == Some(1) && page.links.first.is_some());
        let query = TaskListQuery::default().job_id(&made.id).status(TaskStatus::Waiting);
        ensure!(self.client.tasks().list(&query).await?.len() == 2);
        Ok(Cell::Shown)
    }

    async fn cancel(&self) -> Result<Cell> {
        let task = self.client.tasks().create(TaskRequest::import_upload()).await?;
        let cancelled = self.client.tasks().cancel(&task.id).await?;
        ensure!(cancelled.status.is_error() && cancelled.code.as_deref() == Some("CANCELLED"));
        ensure!(refused(self.client.tasks().cancel(&task.id).await)?.0 == 422);
        Ok(Cell::Shown)
    }

    async fn retry(&self) -> Result<Cell> {
        let task = self.client.tasks().create(TaskRequest::import_upload()).await?;
        self.client.tasks().cancel(&task.id).await?;
        let again = self.client.tasks().retry(&task.id).await?;
        ensure!(again.status.is_waiting() && again.id != task.id);
        Ok(Cell::Shown)
    }

    async fn delete(&self) -> Result<Cell> {
        let job = self.client.jobs().create(upload_and_export()).await?;
        self.client.tasks().delete(id_of(&job, "out")?).await?;
        self.client.jobs().delete(&job.id).await?;
        ensure!(refused(self.client.jobs().get(&job.id).await)?.0 == 404);
        Ok(Cell::Shown)
    }

    async fn download(&self) -> Result<Cell> {
        let job = self.client.jobs().create_and_wait(raw_and_export("a b.txt")).await?;
        let file = job.export_urls().into_iter().next().context("a file")?;
        ensure!(self.client.download(file.url.as_ref().context("a link")?).await? == CONTENT);
        Ok(Cell::Shown)
    }

    async fn redirect(&self) -> Result<Cell> {
        let url = self.client.jobs().create_and_wait_redirect_url(raw_and_export("a.txt")).await?;
        ensure!(self.client.download(url).await? == CONTENT);
        let job = self.client.jobs().create_and_wait(raw_and_export("a.txt")).await?;
        let url = self.client.jobs().get_redirect_url(&job.id).await?;
        ensure!(url == self.client.jobs().wait_redirect_url(&job.id).await?);
        Ok(Cell::Shown)
    }

    async fn failed(&self) -> Result<Cell> {
        let request = JobCreateRequest::builder()
            .task("in", TaskRequest::import_url(format!("{}/missing", self.server.program.base())))
            .task("out", TaskRequest::export_url("in"))
            .build();
        let ended = self.client.jobs().create_and_wait(request).await?;
        ensure!(ended.status.is_error() && named(&ended, "out")?.code.as_deref() == Some("INPUT_TASK_FAILED"));
        let cause = named(&ended, "in")?;
        ensure!(cause.code.as_deref().is_some_and(|code| code != "INPUT_TASK_FAILED") && cause.message.is_some());
        Ok(Cell::Shown)
    }

    async fn unauthenticated(&self) -> Result<Cell> {
        let (status, code, _) = refused(client(&self.server, "wrong").users().me().await)?;
        ensure!((status, code.as_deref()) == (401, Some("UNAUTHENTICATED")));
        Ok(Cell::Shown)
    }

    async fn not_found(&self) -> Result<Cell> {
        let (status, code, _) = refused(self.client.tasks().get("0d9b7a44-2d6f-4f0e-8a55-6f4d8f1f7a20").await)?;
        ensure!((status, code.as_deref()) == (404, Some("NOT_FOUND")));
        Ok(Cell::Shown)
    }

    async fn invalid(&self) -> Result<Cell> {
        let (status, code, errors) = refused(self.client.jobs().create(JobCreateRequest::default()).await)?;
        ensure!((status, code.as_deref()) == (422, Some("INVALID_DATA")));
        ensure!(errors.context("reasons")?["tasks"][0] == "The tasks field is required.");
        Ok(Cell::Shown)
    }

    async fn webhooks(&self) -> Result<Cell> {
        let (hooks, url) = (self.client.webhooks(), "http://127.0.0.1:9/rust");
        let cell = cannot_read(hooks.create(&WebhookCreateRequest::new(url, [WebhookEvent::JobFinished])).await)?;
        let (_, made) = self.server.program.call(Method::GET, "/v2/users/me/webhooks", None).await;
        ensure!(made["data"][0]["url"] == url, "{made}");
        hooks.delete(made["data"][0]["id"].to_string()).await?;
        ensure!(hooks.list(&WebhookListQuery::default().url(url)).await?.is_empty());
        Ok(cell)
    }

    async fn signature(&self) -> Result<Cell> {
        let hook = Receiver::start().await;
        let body = serde_json::json!({"url": hook.url("/ok"), "events": ["job.created", "job.finished"]});
        let (_, made) = self.server.program.call(Method::POST, "/v2/webhooks", Some(&body)).await;
        let secret = SigningSecret::new(made["data"]["signing_secret"].as_str().context("a secret")?);
        let job = self.client.jobs().create(raw_and_export("é.txt")).await?;
        for event in ["job.created", "job.finished"] {
            let kept = delivery(&hook, event, &job.id).await;
            let signature = kept.header("cloudconvert-signature");
            ensure!(verify_signature(&kept.body, signature, &secret)?);
            ensure!(!verify_signature(b"{}", signature, &secret)?);
        }
        self.client.webhooks().delete(made["data"]["id"].to_string()).await?;
        Ok(Cell::Shown)
    }

    async fn signed_url(&self) -> Result<Cell> {
        let (base, secret) = &self.server.signed;
        let job = raw_and_export("ünï ?>.txt");
        let url = sign_job_url(base, &SigningSecret::new(secret), &job, Some("rust-key"))?;
        for _ in 0..2 {
            ensure!(self.client.download(&url).await? == CONTENT);
        }
        let wrong = sign_job_url(base, &SigningSecret::new("another"), &job, None)?;
        ensure!(refused(self.client.download(&wrong).await)?.0 == 403);
        Ok(Cell::Shown)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_crate_over_http() {
    let server = Server::started().await;
    let it = It { client: client(&server, server.program.key()), server };
    let no_sockets = "its sockets are an extra feature with a literal host";
    let flows = [
        ("user", it.user().await),
        ("create", it.create().await),
        ("upload", it.upload().await),
        ("wait", it.wait().await),
        ("show", it.show().await),
        ("list", it.list().await),
        ("cancel", it.cancel().await),
        ("retry", it.retry().await),
        ("delete", it.delete().await),
        ("download", it.download().await),
        ("redirect", it.redirect().await),
        ("failed", it.failed().await),
        ("unauthenticated", it.unauthenticated().await),
        ("not-found", it.not_found().await),
        ("invalid", it.invalid().await),
        ("webhooks", it.webhooks().await),
        ("signature", it.signature().await),
        ("standard-signature", Ok(Cell::Excluded("the client knows its own signature only".to_owned()))),
        ("signed-url", it.signed_url().await),
        ("live", Ok(Cell::Excluded(no_sockets.to_owned()))),
        ("live-late", Ok(Cell::Excluded(no_sockets.to_owned()))),
    ];
    let ends: BTreeMap<_, _> = flows
        .into_iter()
        .map(|(flow, end)| (flow.to_owned(), end.map_err(|error: anyhow::Error| format!("{:?}", anyhow!(error)))))
        .collect();
    let client = Client { name: "Rust (cloudconvert-sdk)".to_owned(), version: "0.3.0".to_owned(), via: Via::Http };
    conclude(&client, ends, &it.server);
}
