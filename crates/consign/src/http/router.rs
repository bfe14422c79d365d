//! Every route on one page: method, path, scope, handler, and what the manual says of it.

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, options};
use axum::{Extension, Router};

use super::body::{Data, JobBody, TaskBody};
use super::extract::authorise;
use super::health;
use super::limits::count_creation;
use super::live::sockets::{self, Sockets};
use super::page::PageBody;
use super::rewrite::rewrite;
use super::route::{Route, Takes};
use super::state::AppState;
use super::v2::deliveries::DeliveryBody;
use super::v2::operations::OperationBody;
use super::v2::users_me::UserBody;
use super::v2::webhooks::WebhookBody;
use super::v2::{self, jobs, tasks, webhooks};
use super::{access, body, docs, download, openapi, signed, status, upload};
use crate::error::{ApiError, ApiResult, Code, Faults};
use crate::model::Scope;
use crate::operations::trial::Report;
use crate::operations::{self, elsewhere};
use crate::telemetry::health::Readiness;

/// What the manual says of the test of a destination.
const DESTINATIONS_TEST: &str = "Takes an export to a storage as it stands in a job, writes a small file there under a name of its own \
     (`consign-test-…`) with the task's arguments, reads it back and deletes it. The answer is 200 also when the \
     destination refuses: `ok` says whether the export would work, `steps` what was found, `permissions` which rights it \
     needs and how to give them. It takes a minute at the most, and ends when the client goes away.";

/// What the manual says of a new webhook.
const WEBHOOKS: &str = "Its address is posted `{\"event\":…,\"job\":{…}}` when one of the user's jobs is created, finishes or fails. \
     `CloudConvert-Signature` is the HMAC-SHA256 of the body with `signing_secret`, in hex; the headers of Standard Webhooks \
     stand beside it. What is not answered with 2xx is sent again for a day; 410 disables the webhook.";

/// What the manual says of server-sent events.
const JOBS_EVENTS: &str = "Server-sent events: `job.created`, `job.updated`, `job.finished`, `job.failed` with `{\"job\": …}`, and \
     `task.created`, `task.updated`, `task.finished`, `task.failed` with `{\"task\": …}`. First what happened so far, then \
     what happens; the stream ends after the end of the job. `Last-Event-ID`, or `last_event_id`, goes on after an event; \
     after the last one the answer is 204.";

/// What the manual says of signed URLs.
const SIGNED: &str = "Runs the job that the address carries and sends the client to its first file. `job` is the JSON of a job in \
     base64, `s` the HMAC-SHA256 in hex of all that stands before `&s=`, with the secret of \
     `consign signed-url create`. The same `cache_key` gives the same result for 24 hours.";

/// What a list of operations reads from the query.
const OPERATION_FILTERS: [&str; 7] = [
    "filter[operation]",
    "filter[input_format]",
    "filter[output_format]",
    "filter[engine]",
    "filter[engine_version]",
    "include",
    "alternatives",
];

/// All routes. Errors that follow from scope, path and body are documented by themselves; `fails` names the others.
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::post("/v2/jobs", jobs::create::handler)
            .creates(Takes::Job)
            .says("Creates a job", "Answers when the job is stored; on a waiting host, when it has ended.")
            .answers::<Data<JobBody>>(201)
            .or(&[(302, "On a waiting host, with `redirect`: to the first file.")])
            .fails(&[Code::WaitTimeout]),
        Route::get("/v2/jobs", jobs::list::handler)
            .needs(Scope::TaskRead)
            .says("Lists jobs", "Newest first. Filters that are empty count as not given.")
            .query(&["filter[status]", "filter[tag]", "filter[access_token]", "include", "per_page", "page"])
            .answers::<PageBody<JobBody>>(200)
            .fails(&[Code::InvalidData]),
        Route::get("/v2/jobs/{id}", jobs::show::handler)
            .needs(Scope::TaskRead)
            .says("Shows a job", "With its tasks. With `redirect=true` a finished job answers 302 to its first file.")
            .query(&["redirect"])
            .answers::<Data<JobBody>>(200)
            .or(&[(302, "With `redirect=true`: to the first file.")])
            .fails(&[Code::WaitTimeout]),
        Route::get("/v2/jobs/{id}/wait", jobs::wait::handler)
            .needs(Scope::TaskRead)
            .says("Waits for a job", "Answers when the job has ended, well or badly.")
            .query(&["redirect"])
            .answers::<Data<JobBody>>(200)
            .or(&[(302, "With `redirect=true`: to the first file.")])
            .fails(&[Code::WaitTimeout]),
        Route::get("/v2/jobs/{id}/events", jobs::events::handler)
            .needs(Scope::TaskRead)
            .says("Follows a job", JOBS_EVENTS)
            .query(&["last_event_id"])
            .answers_with(200, "text/event-stream"),
        Route::delete("/v2/jobs/{id}", jobs::delete::handler)
            .needs(Scope::TaskWrite)
            .says("Deletes a job", "Cancels it if need be; its tasks, files and links go with it."),
        Route::get("/v2/tasks", tasks::list::handler)
            .needs(Scope::TaskRead)
            .says("Lists tasks", "Newest first. Filters that are empty count as not given.")
            .query(&["filter[job_id]", "filter[status]", "filter[operation]", "include", "per_page", "page"])
            .answers::<PageBody<TaskBody>>(200)
            .fails(&[Code::InvalidData]),
        Route::get("/v2/tasks/{id}", tasks::show::handler)
            .needs(Scope::TaskRead)
            .says("Shows a task", "With `include`: `payload`, `retries`, `depends_on_tasks`, `job`.")
            .query(&["include"])
            .answers::<Data<TaskBody>>(200)
            .fails(&[Code::WaitTimeout]),
        Route::get("/v2/tasks/{id}/wait", tasks::wait::handler)
            .needs(Scope::TaskRead)
            .says("Waits for a task", "Answers when the task has ended, well or badly.")
            .query(&["include"])
            .answers::<Data<TaskBody>>(200)
            .fails(&[Code::WaitTimeout]),
        Route::post("/v2/tasks/{id}/cancel", tasks::cancel::handler)
            .needs(Scope::TaskWrite)
            .says("Cancels a task", "It ends with CANCELLED, and what depends on it with INPUT_TASK_FAILED.")
            .answers::<Data<TaskBody>>(200)
            .fails(&[Code::InvalidData]),
        Route::post("/v2/tasks/{id}/retry", tasks::retry::handler)
            .creates(Takes::Nothing)
            .says("Retries a task", "Makes a new task of its own that does the same; the original stays as it is.")
            .answers::<Data<TaskBody>>(201),
        Route::delete("/v2/tasks/{id}", tasks::delete::handler)
            .needs(Scope::TaskWrite)
            .says("Deletes a task", "Cancels it if need be; its files and links go with it."),
        Route::post("/v2/destinations/test", v2::destinations::test::handler)
            .creates(Takes::Destination)
            .says("Tests a destination", DESTINATIONS_TEST)
            .answers::<Data<Report>>(200),
        Route::post("/v2/webhooks", webhooks::create::handler)
            .needs(Scope::WebhookWrite)
            .takes(Takes::Webhook)
            .says("Creates a webhook", WEBHOOKS)
            .answers::<Data<WebhookBody>>(201)
            .fails(&[Code::BadRequest, Code::PayloadTooLarge, Code::InvalidData]),
        Route::get("/v2/users/me/webhooks", webhooks::list::handler)
            .needs(Scope::WebhookRead)
            .says("Lists webhooks", "Newest first. Filters that are empty count as not given.")
            .query(&["filter[url]", "per_page", "page"])
            .answers::<PageBody<WebhookBody>>(200),
        Route::delete("/v2/webhooks/{id}", webhooks::delete::handler)
            .needs(Scope::WebhookWrite)
            .says("Deletes a webhook", "What is still on its way there is not sent any more."),
        Route::get("/v2/webhooks/{id}/deliveries", webhooks::deliveries::handler)
            .needs(Scope::WebhookRead)
            .says("Lists what a webhook was told", "Newest first, with every attempt.")
            .query(&["per_page", "page"])
            .answers::<PageBody<DeliveryBody>>(200),
        Route::get("/v2/jobs/{id}/deliveries", jobs::deliveries::handler)
            .needs(Scope::WebhookRead)
            .says("Lists who was told of a job", "Newest first, with every attempt; also of a job that was deleted.")
            .query(&["per_page", "page"])
            .answers::<PageBody<DeliveryBody>>(200),
        Route::post("/v2/deliveries/{id}/redeliver", v2::deliveries::redeliver::handler)
            .needs(Scope::WebhookWrite)
            .says("Delivers again", "The same bytes under the same id, now; and again like a new one should that fail.")
            .answers::<Data<DeliveryBody>>(202)
            .fails(&[Code::WebhookDisabled]),
        Route::get("/v2/users/me", v2::users_me::handler)
            .needs(Scope::UserRead)
            .says("Shows the user", "Whose key it is.")
            .answers::<Data<UserBody>>(200),
        Route::get("/v2/operations", v2::operations::handler)
            .says("Lists operations", "What tasks can do. With `include=options,engine_versions` also their arguments.")
            .query(&OPERATION_FILTERS)
            .answers::<Data<Vec<OperationBody>>>(200),
        Route::get("/v2/convert/formats", v2::operations::formats)
            .says("Lists conversions", "The same list with `filter[operation]=convert`, under its older address.")
            .query(&OPERATION_FILTERS[1..])
            .answers::<Data<Vec<OperationBody>>>(200),
        Route::get("/s/{id}", signed::handler)
            .says("Runs a signed job", SIGNED)
            .query(&["job", "cache_key", "s"])
            .answers_with(302, "")
            .fails(&[Code::LinkInvalid, Code::InvalidData, Code::JobFailed, Code::TooManyRequests, Code::WaitTimeout]),
        Route::post("/upload/{task}", upload::handler)
            .takes(Takes::Form)
            .says("Takes the file of an import/upload task", "Post the fields of `result.form`, then the file.")
            .answers_with(201, "application/xml")
            .or(&[(303, "To the `redirect` of the task.")])
            .fails(&[Code::BadRequest, Code::LinkInvalid, Code::UploadClosed, Code::PayloadTooLarge]),
        Route::new(Method::OPTIONS, "/upload/{task}", options(upload::preflight)),
        Route::get("/files/{task}/{name}", download::handler)
            .says("Fetches a file", "By the link in `result.files[].url`. Ranges and conditions are honoured.")
            .query(&["temp_url_sig", "temp_url_expires", "temp_url_number"])
            .answers_with(200, "*/*")
            .or(&[(206, "The ranges asked for."), (304, "The client has it already.")])
            .fails(&[Code::LinkInvalid, Code::PreconditionFailed, Code::RangeNotSatisfiable]),
        Route::new(Method::GET, "/socket.io", any(sockets::handler)),
        Route::get("/healthz", health::alive)
            .says("Lives", "200 while the process lives.")
            .answers_with(200, "application/json"),
        Route::get("/readyz", health::ready)
            .says(
                "Is ready",
                "200 when this process can work; else 503 with the same body, which says what is wrong and what to do.",
            )
            .answers::<Readiness>(200),
        Route::get("/metrics", health::metrics)
            .says("Tells its metrics", "In the text format of Prometheus.")
            .answers_with(200, "application/openmetrics-text"),
        Route::get("/openapi.json", openapi::handler)
            .says("Describes itself", "This document.")
            .answers_with(200, "application/json"),
        Route::get("/docs", docs::handler)
            .says("Describes itself to people", "This document as a page.")
            .answers_with(200, "text/html"),
        Route::get("/", status::handler).says("Says hello", "A page with links.").answers_with(200, "text/html"),
    ];
    routes.extend(operations::all().map(|entry| Route::operation(&format!("/v2/{}", entry.name), entry)));
    routes.extend(elsewhere::NAMES.map(|name| {
        let refuse = async move || -> ApiResult<()> { Err(not_built_in(name)) };
        Route::post(&format!("/v2/{name}"), refuse).needs(Scope::TaskWrite)
    }));
    // The Java SDK calls one operation by another name.
    let aliased = operations::all().find(|entry| entry.name == "import/azure/blob");
    routes.extend(aliased.map(|entry| Route::operation("/v2/import/azure-blob", entry)));
    routes
}

/// All routes with all that goes around them, ready to be served. `always_waits` is for the address on which every
/// show and create waits.
pub fn router(state: AppState, always_waits: bool) -> Router {
    let mut inner = Router::new();
    for route in routes() {
        let mut handler = route.handler;
        if route.creates {
            handler = handler.route_layer(from_fn_with_state(state.clone(), count_creation));
        }
        if let Some(scope) = route.scope {
            handler = handler.route_layer(from_fn_with_state((state.clone(), scope), authorise));
        }
        inner = inner.route(&route.path, handler);
    }
    let inner = inner
        .method_not_allowed_fallback(wrong_method)
        .fallback(async || ApiError::not_found())
        .layer(Extension(Sockets::new(state.clone())))
        .layer(from_fn_with_state(state.clone(), access::account))
        .with_state(state);
    // Targets are rewritten before they are routed, hence the second router around the first.
    let rewriting = map_request(move |request: Request| std::future::ready(rewrite(request, always_waits)));
    Router::new().fallback_service(inner).layer(rewriting)
}

/// Answers for a path that exists, but not with this method. `Allow` is added by the router.
async fn wrong_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return body::no_content();
    }
    ApiError::new(Code::MethodNotAllowed, "The path exists, but not with this method: see the Allow header.")
        .into_response()
}

/// The answer to a task whose operation this server does not have.
fn not_built_in(name: &str) -> ApiError {
    let mut faults = Faults::default();
    faults.add("operation", elsewhere::sentence(name));
    ApiError::invalid(faults)
}
