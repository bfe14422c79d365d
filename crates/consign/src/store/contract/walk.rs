//! Random walks: whatever happens in whatever order, the store moves tasks as [`task_state::next`] says, and jobs as
//! their tasks.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Made, Scene, cases, file};
use crate::id::{SessionId, TaskId, Token};
use crate::model::{Event, Job, State, Task, WireStatus, task_state};
use crate::store::{Applied, Cancellation, Claim};

cases!(walks_agree_with_the_table);

/// Walks, and steps of each.
const WALKS: u64 = 40;
const STEPS: usize = 40;

const GRAPHS: [&str; 4] = [
    "a; b: a; c!; d: b c; up^; e: up d; f: e",
    "a!; b!; c: a b; d: c; e: c a",
    "up^; a: up; b: up; c: a b; d!: c; e: d; other",
    "a; b; c; d",
];

async fn walks_agree_with_the_table(mut scene: Scene) {
    for seed in 0..WALKS {
        let mut walk = Walk { random: StdRng::seed_from_u64(seed), leases: Vec::new(), seed };
        let made = scene.job(GRAPHS[usize::try_from(seed).expect("it is small") % GRAPHS.len()]).await;
        for _ in 0..STEPS {
            walk.step(&mut scene, &made).await;
        }
        scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap();
    }
}

struct Walk {
    random: StdRng,
    /// All claims so far, lost ones too.
    leases: Vec<Claim>,
    seed: u64,
}

/// What a step did to the task it was aimed at.
struct Aimed {
    id: TaskId,
    event: Event,
    has_happened: bool,
    /// The right to it was there.
    is_allowed: bool,
}

impl Walk {
    async fn step(&mut self, scene: &mut Scene, made: &Made) {
        scene.wait(1);
        let before = scene.read(made).await;
        let choice = self.random.random_range(0..10);
        let aimed = match choice {
            0..=2 => self.claim(scene).await,
            3..=6 => self.end(scene, choice).await,
            7 => self.by_client(scene, &before).await,
            8 => {
                scene.store.release_due(scene.now()).await.unwrap();
                None
            }
            _ => {
                scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap_or(());
                let attempts_max = self.random.random_range(1..4);
                scene.store.expire_sessions(scene.now(), attempts_max, scene.now()).await.unwrap();
                scene.session = SessionId::new(scene.now());
                scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap();
                None
            }
        };
        let after = scene.read(made).await;
        let seed = self.seed;
        if let Some(aimed) = &aimed {
            let state = before.tasks.iter().find(|task| task.id == aimed.id).expect("it is of this job").state;
            let next = if aimed.is_allowed { task_state::next(state, aimed.event) } else { None };
            assert_eq!(aimed.has_happened, next.is_some(), "walk {seed}: {state:?} {:?}", aimed.event);
        }
        for (old, new) in before.tasks.iter().zip(&after.tasks) {
            let event = aimed.as_ref().filter(|aimed| aimed.id == old.id && aimed.has_happened);
            check_task(old, new, event.map(|aimed| aimed.event), choice, seed);
        }
        check_job(&after, seed);
    }

    async fn claim(&mut self, scene: &Scene) -> Option<Aimed> {
        let claims = scene.claim(self.random.random_range(1..3)).await;
        self.leases.extend(claims);
        None
    }

    /// The holder of a lease, or of one that was lost, does something.
    async fn end(&mut self, scene: &Scene, choice: i32) -> Option<Aimed> {
        if self.leases.is_empty() {
            return None;
        }
        let claim = &self.leases[self.random.random_range(0..self.leases.len())];
        let (id, token, now) = (claim.task.id, claim.token, scene.now());
        let is_allowed = scene.store.holds(id, token).await.unwrap();
        let (event, applied) = match choice {
            3 => (Event::Finished, scene.try_finish(claim).await),
            4 => (Event::Failed, scene.try_fail(claim).await),
            5 => (Event::RetryLater, scene.store.delay(id, token, now, now).await.unwrap()),
            _ => (Event::LeaseLost, scene.store.give_back(id, token, now).await.unwrap()),
        };
        Some(Aimed { id, event, has_happened: applied == Applied::Done, is_allowed })
    }

    /// The client uploads or cancels.
    async fn by_client(&mut self, scene: &Scene, job: &Job) -> Option<Aimed> {
        let id = job.tasks[self.random.random_range(0..job.tasks.len())].id;
        let (event, has_happened) = if self.random.random_bool(0.7) {
            let applied = scene.store.finish_upload(id, &file(id, Token(1)), scene.now()).await.unwrap();
            (Event::FileCame, applied == Applied::Done)
        } else {
            let cancelled = scene.store.cancel(scene.user, id, scene.now()).await.unwrap();
            (Event::Cancelled, cancelled == Cancellation::Done)
        };
        Some(Aimed { id, event, has_happened, is_allowed: true })
    }
}

fn check_task(old: &Task, new: &Task, aimed: Option<Event>, choice: i32, seed: u64) {
    let name = old.name.as_deref().unwrap_or_default();
    if old.state.is_terminal() {
        assert_eq!(old, new, "walk {seed}: {name} had ended");
    }
    assert!(new.attempt >= old.attempt || aimed == Some(Event::LeaseLost), "walk {seed}: {name} forgot an attempt");
    assert!(new.ended_at.is_none_or(|ended| new.started_at.is_none_or(|started| started <= ended)));
    assert_eq!(new.state.is_terminal(), new.ended_at.is_some(), "walk {seed}: {name}");
    assert_eq!(new.percent == 100, new.state == State::Finished, "walk {seed}: {name}");
    let expected = match aimed {
        Some(event) => vec![task_state::next(old.state, event)],
        None if old.state == new.state => return,
        None => {
            let by_itself = match choice {
                0..=2 => &[Event::Claimed][..],
                8 => &[Event::Due],
                9 => &[Event::LeaseLost, Event::AttemptsUsed],
                _ => &[],
            };
            let follows = [Event::InputsDone, Event::InputFailed];
            by_itself.iter().chain(&follows).map(|event| task_state::next(old.state, *event)).collect()
        }
    };
    assert!(expected.contains(&Some(new.state)), "walk {seed}: {name} from {:?} to {:?}", old.state, new.state);
}

fn check_job(job: &Job, seed: u64) {
    let state = |id: &TaskId| job.tasks.iter().find(|task| task.id == *id).expect("it is of this job").state;
    let mut forgiven: Vec<TaskId> = Vec::new();
    let mut has_failed = false;
    for task in &job.tasks {
        let open = task.depends_on.iter().filter(|input| !state(input).is_terminal()).count();
        if task.state == State::Blocked {
            assert!(open > 0, "walk {seed}: {:?} waits for nothing", task.name);
        } else if task.state != State::Error {
            assert_eq!(open, 0, "walk {seed}: {:?} did not wait", task.name);
        }
        let failed = |input: &&TaskId| state(input) == State::Error;
        let follows = task.code.as_deref() == Some("INPUT_TASK_FAILED")
            && task.depends_on.iter().filter(failed).all(|input| forgiven.contains(input));
        if task.state == State::Error && (task.ignore_error || follows) {
            forgiven.push(task.id);
        } else if task.state == State::Error {
            has_failed = true;
        }
    }
    let ended = job.tasks.iter().map(|task| task.ended_at).collect::<Option<Vec<_>>>();
    let status = match (&ended, has_failed) {
        (Some(_), true) => WireStatus::Error,
        (Some(_), false) => WireStatus::Finished,
        (None, _) if job.started_at.is_some() => WireStatus::Processing,
        (None, _) => WireStatus::Waiting,
    };
    assert_eq!(job.status, status, "walk {seed}");
    assert_eq!(job.ended_at, ended.and_then(|ended| ended.into_iter().max()), "walk {seed}: when the last one did");
    let has_begun = job.tasks.iter().any(|task| task.started_at.is_some() && task.host_name.is_some());
    assert!(job.started_at.is_some() || !has_begun, "walk {seed}: a task started");
}
