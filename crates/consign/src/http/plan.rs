//! From what a client sent to the job or task that will be stored: every fault of every task at once, by its path.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::members::{inputs, label, shortened, switch, task_members, webhook_url};
use super::state::AppState;
use crate::clock::Timestamp;
use crate::error::{ApiResult, Faults};
use crate::id::{JobId, TaskId, UserId};
use crate::model::{Job, Origin, State, Task, WireStatus, graph};
use crate::operations::{self, Entry, Feed, RawArgs};

/// A job that is ready to be stored.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    /// The job with its tasks.
    pub job: Job,
    /// The sealed arguments of each task.
    pub payloads: Vec<Vec<u8>>,
    /// The client wants to be sent to the file once the job has finished.
    pub redirect: bool,
}

/// A task of its own that is ready to be stored.
#[derive(Clone, Debug)]
pub struct PlannedTask {
    /// The task.
    pub task: Task,
    /// Its sealed arguments.
    pub payload: Vec<u8>,
}

/// Plans a job.
///
/// # Errors
/// `INVALID_DATA` with all faults; the store's.
pub async fn job(
    state: &AppState,
    user: UserId,
    origin: Origin,
    mut body: Map<String, Value>,
) -> ApiResult<PlannedJob> {
    let mut faults = Faults::default();
    let tag = label(body.remove("tag"), "tag", &mut faults);
    let webhook_url = webhook_url(body.remove("webhook_url"), &mut faults);
    let redirect = switch(body.remove("redirect"), "redirect", &mut faults);
    let wanted = task_members(body.remove("tasks"), state.config.limits.tasks_per_job_max, &mut faults);
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let mut drafts = Vec::with_capacity(wanted.len());
    for (name, args) in wanted {
        let mut own = Faults::default();
        drafts.push(draft(args, None, &mut own));
        faults.absorb(&format!("tasks.{name}"), own);
    }
    let lookup = Lookup::of(state, user, &names, &drafts).await?;
    let inputs: Vec<Vec<Input>> = (names.iter().zip(&drafts))
        .map(|(name, draft)| lookup.resolve(draft.as_ref(), &format!("tasks.{name}.input"), &mut faults))
        .collect();
    circles(&names, &inputs, &mut faults);
    faults.into_result()?;

    let now = state.clock.now();
    let id = JobId::new(now);
    let ids: Vec<TaskId> = names.iter().map(|_| TaskId::new(now)).collect();
    let (mut tasks, mut payloads) = (Vec::new(), Vec::new());
    // Without faults every draft is there.
    for (index, (draft, inputs)) in drafts.into_iter().flatten().zip(&inputs).enumerate() {
        let depends_on = inputs.iter().map(|input| input.id(&ids)).collect();
        payloads.push(draft.sealed(state));
        let task = draft.task(state, user, ids[index], depends_on, now);
        tasks.push(Task { job_id: Some(id), name: Some(names[index].clone()), ..task });
    }
    let job = Job {
        id,
        user_id: user,
        tag,
        // Whoever knows it may post there in our name.
        webhook_url: webhook_url.map(|url| STANDARD.encode(state.vault.seal(url.as_bytes()))),
        status: WireStatus::Waiting,
        created_at: now,
        started_at: None,
        ended_at: None,
        origin,
        tasks,
    };
    Ok(PlannedJob { job, payloads, redirect })
}

/// Plans a task of its own.
///
/// # Errors
/// `INVALID_DATA` with all faults; the store's.
pub async fn task(
    state: &AppState,
    user: UserId,
    entry: &'static Entry,
    body: Map<String, Value>,
) -> ApiResult<PlannedTask> {
    let mut faults = Faults::default();
    let draft = draft(Value::Object(body), Some(entry), &mut faults);
    let drafts = [draft];
    let inputs = Lookup::of(state, user, &[], &drafts).await?.resolve(drafts[0].as_ref(), "input", &mut faults);
    faults.into_result()?;
    let [draft] = drafts;
    let draft = draft.ok_or_else(crate::error::ApiError::not_found)?;
    let now = state.clock.now();
    let depends_on = inputs.iter().map(|input| input.id(&[])).collect();
    let payload = draft.sealed(state);
    Ok(PlannedTask { task: draft.task(state, user, TaskId::new(now), depends_on, now), payload })
}

/// Plans a task that does the same as another one.
pub fn again(state: &AppState, original: &Task, entry: &Entry) -> Task {
    let now = state.clock.now();
    Task {
        id: TaskId::new(now),
        job_id: None,
        name: None,
        retry_of: Some(original.id),
        warnings: original.warnings.clone(),
        ..fresh(state, original.user_id, entry, original.ignore_error, original.depends_on.clone(), now)
    }
}

fn fresh(
    state: &AppState,
    user: UserId,
    entry: &Entry,
    ignore_error: bool,
    depends_on: Vec<TaskId>,
    now: Timestamp,
) -> Task {
    let (first, upload_expires_at) = match entry.feed {
        Feed::Client => (State::Uploading, Some(now.plus(state.config.limits.upload_lifetime.0))),
        Feed::Itself => (State::Queued, None),
        Feed::Inputs => (State::Blocked, None),
    };
    Task {
        id: TaskId::new(now),
        user_id: user,
        job_id: None,
        name: None,
        operation: entry.name.to_owned(),
        state: first,
        ignore_error,
        percent: 0,
        code: None,
        message: None,
        warnings: Vec::new(),
        files: Vec::new(),
        attempt: 0,
        created_at: now,
        started_at: None,
        ended_at: None,
        upload_expires_at,
        retry_of: None,
        depends_on,
        host_name: None,
    }
}

/// A task whose own members are read and whose arguments are checked. Without `Debug`: it holds credentials.
struct Draft {
    entry: &'static Entry,
    input: Vec<String>,
    ignore_error: bool,
    args: RawArgs,
    warnings: Vec<String>,
}

impl Draft {
    fn sealed(&self, state: &AppState) -> Vec<u8> {
        let mut payload = Map::new();
        payload.insert("operation".to_owned(), Value::from(self.entry.name));
        if !self.input.is_empty() {
            payload.insert("input".to_owned(), Value::from(self.input.clone()));
        }
        if self.ignore_error {
            payload.insert("ignore_error".to_owned(), Value::from(true));
        }
        payload.extend(self.args.clone());
        state.vault.seal(Value::Object(payload).to_string().as_bytes())
    }

    fn task(self, state: &AppState, user: UserId, id: TaskId, depends_on: Vec<TaskId>, now: Timestamp) -> Task {
        let task = fresh(state, user, self.entry, self.ignore_error, depends_on, now);
        Task { id, warnings: self.warnings, ..task }
    }
}

/// Reads one task. `entry` is given where the path named the operation.
fn draft(args: Value, entry: Option<&'static Entry>, faults: &mut Faults) -> Option<Draft> {
    let mut args = match args {
        Value::Object(args) => args,
        Value::Array(entries) if entries.is_empty() => Map::new(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            faults.add("", "A task must be an object of arguments.");
            return None;
        }
    };
    let named = args.shift_remove("operation");
    args.shift_remove("name");
    let input = inputs(args.shift_remove("input"), faults);
    let ignore_error = switch(args.shift_remove("ignore_error"), "ignore_error", faults);
    let entry = entry.or_else(|| operations::named(named, faults))?;
    let mut warnings = match entry.prepare(&mut args) {
        Ok(warnings) => warnings,
        Err(own) => {
            own.0.into_iter().for_each(|(field, sentences)| faults.0.entry(field).or_default().extend(sentences));
            Vec::new()
        }
    };
    let input = match entry.feed {
        Feed::Inputs => {
            if input.is_empty() && !faults.0.contains_key("input") {
                faults.add("input", "The input field is required.");
            }
            input
        }
        Feed::Itself | Feed::Client => {
            if !input.is_empty() {
                warnings.push(format!("{} takes no `input`; it was ignored.", entry.name));
            }
            Vec::new()
        }
    };
    Some(Draft { entry, input, ignore_error, args, warnings })
}

/// A task that another one takes files from.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// In the same job, by its number.
    Here(usize),
    /// One that exists.
    There(TaskId),
}

impl Input {
    fn id(self, ids: &[TaskId]) -> TaskId {
        match self {
            Self::Here(index) => ids[index],
            Self::There(id) => id,
        }
    }
}

/// What names and ids may be taken as input.
#[derive(Debug)]
struct Lookup<'a> {
    here: HashMap<&'a str, usize>,
    there: HashSet<TaskId>,
}

impl<'a> Lookup<'a> {
    /// Reads those tasks of the user that are named by id, in one go.
    async fn of(state: &AppState, user: UserId, names: &'a [String], drafts: &[Option<Draft>]) -> ApiResult<Self> {
        let here: HashMap<&str, usize> = names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        let ids: HashSet<TaskId> = drafts
            .iter()
            .flatten()
            .flat_map(|draft| &draft.input)
            .filter(|name| !here.contains_key(name.as_str()))
            .filter_map(|name| name.parse().ok())
            .collect();
        let there = if ids.is_empty() {
            HashSet::new()
        } else {
            let mut ids: Vec<TaskId> = ids.into_iter().collect();
            ids.sort_unstable();
            state.store.tasks(user, &ids).await?.into_iter().map(|task| task.id).collect()
        };
        Ok(Self { here, there })
    }

    fn resolve(&self, draft: Option<&Draft>, path: &str, faults: &mut Faults) -> Vec<Input> {
        let mut found = Vec::new();
        for name in draft.map(|draft| draft.input.as_slice()).unwrap_or_default() {
            if let Some(&index) = self.here.get(name.as_str()) {
                found.push(Input::Here(index));
            } else if let Some(id) = name.parse().ok().filter(|id| self.there.contains(id)) {
                found.push(Input::There(id));
            } else {
                faults.add(path, format!("There is no task {:?}.", shortened(name)));
            }
        }
        found
    }
}

fn circles(names: &[String], inputs: &[Vec<Input>], faults: &mut Faults) {
    let edges: Vec<Vec<usize>> = inputs
        .iter()
        .map(|inputs| inputs.iter().filter_map(|input| if let Input::Here(at) = input { Some(*at) } else { None }))
        .map(Iterator::collect)
        .collect();
    for index in graph::stuck(&edges) {
        faults.add(format!("tasks.{}.input", names[index]), "The task waits for itself, by way of its inputs.");
    }
}
