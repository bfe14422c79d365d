//! What follows when tasks end: dependents, jobs, `ignore_error`.

use super::{Scene, cases, file};
use crate::clock::Timestamp;
use crate::id::Token;
use crate::model::{State, WireStatus};
use crate::store::transitions::DUE_MAX;
use crate::store::{Applied, Cancellation, Creation, Deletion};

cases!(
    a_job_runs_through,
    a_diamond_waits_for_both_sides,
    a_failed_task_takes_its_dependents_with_it,
    independent_branches_go_on,
    an_ignored_failure_leaves_the_rest_running,
    with_nothing_left_an_ignored_failure_ends_the_dependents_but_not_the_job,
    an_ignored_failure_does_not_excuse_another,
    what_follows_from_an_ignored_failure_can_be_left_out_as_well,
    an_input_that_fails_after_another_was_ignored_counts,
    uploads_start_and_end_tasks,
    uploads_that_do_not_come_end,
    what_is_due_moves_in_steps,
    cancelling_ends_a_task_in_every_state,
    tasks_of_other_jobs_follow_too,
    a_long_chain_ends_at_once,
    a_long_chain_of_ignored_failures_ends_at_once,
    a_wide_job_is_readied_and_ended,
);

async fn a_job_runs_through(scene: Scene) {
    let made = scene.job("a; b: a").await;
    assert_eq!(scene.states(&made).await, "waiting: a queued, b blocked");
    scene.wait(1);
    let claim = scene.claim_one().await;
    assert_eq!(scene.states(&made).await, "processing: a running, b blocked");
    assert_eq!(scene.read(&made).await.started_at, Some(scene.now()));
    scene.wait(1);
    scene.finish(&claim).await;
    assert_eq!(scene.states(&made).await, "processing: a finished, b queued");
    scene.wait(1);
    let claim = scene.claim_one().await;
    assert_eq!(claim.inputs.len(), 1);
    assert_eq!(claim.inputs[0].task_id, made.task("a"));
    assert_eq!(claim.inputs[0].name.as_deref(), Some("a"));
    assert_eq!(claim.inputs[0].files, scene.task(made.task("a")).await.files);
    assert_eq!(claim.payload, format!("sealed {}", made.task("b")).into_bytes());
    assert_eq!(scene.read(&made).await.ended_at, None);
    scene.wait(1);
    scene.finish(&claim).await;
    assert_eq!(scene.states(&made).await, "finished: a finished, b finished");
    let job = scene.read(&made).await;
    assert_eq!(job.ended_at, Some(scene.now()));
    assert_eq!(job.tasks[1].ended_at, Some(scene.now()));
    assert_eq!((job.tasks[1].percent, job.tasks[1].host_name.as_deref()), (100, Some("host-a")));
}

async fn a_diamond_waits_for_both_sides(scene: Scene) {
    let made = scene.job("top; left: top; right: top; end: left right").await;
    let top = scene.claim_one().await;
    scene.finish(&top).await;
    let sides = scene.claim(10).await;
    assert_eq!(sides.len(), 2);
    scene.finish(&sides[0]).await;
    assert!(scene.claim(10).await.is_empty(), "one side is still open");
    scene.finish(&sides[1]).await;
    let end = scene.claim_one().await;
    let inputs: Vec<_> = end.inputs.iter().map(|input| input.task_id).collect();
    assert_eq!(inputs, [made.task("left"), made.task("right")], "in the order of `input`");
    assert_eq!(end.task.depends_on, inputs);
    scene.finish(&end).await;
    assert_eq!(scene.read(&made).await.status, WireStatus::Finished);
}

async fn a_failed_task_takes_its_dependents_with_it(scene: Scene) {
    let made = scene.job("a; b: a; c: b").await;
    let claim = scene.claim_one().await;
    scene.wait(1);
    scene.fail(&claim).await;
    assert_eq!(
        scene.states(&made).await,
        "error: a error FILE_NOT_FOUND, b error INPUT_TASK_FAILED, c error INPUT_TASK_FAILED"
    );
    let job = scene.read(&made).await;
    assert_eq!(job.ended_at, Some(scene.now()));
    assert_eq!(job.tasks[0].message.as_deref(), Some("It is gone."));
    for task in &job.tasks[1..] {
        assert_eq!(task.message.as_deref(), Some("Input task has failed"));
        assert_eq!(task.started_at, Some(scene.now()));
        assert_eq!(task.ended_at, Some(scene.now()));
        assert_eq!((task.files.len(), task.host_name.as_deref(), task.attempt), (0, None, 0));
    }
}

async fn independent_branches_go_on(scene: Scene) {
    let made = scene.job("a; b; c: b").await;
    let claims = scene.claim(10).await;
    let (a, b) = if claims[0].task.id == made.task("a") { (0, 1) } else { (1, 0) };
    scene.fail(&claims[a]).await;
    assert_eq!(scene.states(&made).await, "processing: a error FILE_NOT_FOUND, b running, c blocked");
    scene.finish(&claims[b]).await;
    scene.wait(5);
    scene.run_all(&[]).await;
    assert_eq!(scene.states(&made).await, "error: a error FILE_NOT_FOUND, b finished, c finished");
    assert_eq!(scene.read(&made).await.ended_at, Some(scene.now()), "that of its last task");
}

async fn an_ignored_failure_leaves_the_rest_running(scene: Scene) {
    let made = scene.job("a!; b; c: a b").await;
    scene.run_all(&[made.task("a")]).await;
    assert_eq!(scene.states(&made).await, "finished: a error FILE_NOT_FOUND, b finished, c finished");
}

async fn with_nothing_left_an_ignored_failure_ends_the_dependents_but_not_the_job(scene: Scene) {
    let made = scene.job("a!; b: a; c: b; d").await;
    scene.run_all(&[made.task("a")]).await;
    assert_eq!(
        scene.states(&made).await,
        "finished: a error FILE_NOT_FOUND, b error INPUT_TASK_FAILED, c error INPUT_TASK_FAILED, d finished"
    );
}

async fn an_ignored_failure_does_not_excuse_another(scene: Scene) {
    let made = scene.job("a!; b; c: a b").await;
    scene.run_all(&[made.task("a"), made.task("b")]).await;
    assert_eq!(
        scene.states(&made).await,
        "error: a error FILE_NOT_FOUND, b error FILE_NOT_FOUND, c error INPUT_TASK_FAILED"
    );
}

async fn what_follows_from_an_ignored_failure_can_be_left_out_as_well(scene: Scene) {
    let made = scene.job("a!; b: a; c; d: b c").await;
    scene.run_all(&[made.task("a")]).await;
    assert_eq!(
        scene.states(&made).await,
        "finished: a error FILE_NOT_FOUND, b error INPUT_TASK_FAILED, c finished, d finished"
    );
}

async fn an_input_that_fails_after_another_was_ignored_counts(scene: Scene) {
    let made = scene.job("a!; b; c: a b; d!: c; e: d").await;
    let claims = scene.claim(10).await;
    let (a, b) = if claims[0].task.id == made.task("a") { (0, 1) } else { (1, 0) };
    scene.fail(&claims[a]).await;
    assert_eq!(scene.task(made.task("c")).await.state, State::Blocked);
    scene.fail(&claims[b]).await;
    assert_eq!(
        scene.states(&made).await,
        "error: a error FILE_NOT_FOUND, b error FILE_NOT_FOUND, c error INPUT_TASK_FAILED, \
         d error INPUT_TASK_FAILED, e error INPUT_TASK_FAILED"
    );
}

async fn uploads_start_and_end_tasks(scene: Scene) {
    let made = scene.job("up^; b: up").await;
    assert_eq!(scene.states(&made).await, "waiting: up uploading, b blocked");
    assert!(scene.claim(10).await.is_empty(), "the client has it");
    scene.wait(5);
    let upload = made.task("up");
    let sent = file(upload, Token(7));
    assert_eq!(scene.store.finish_upload(upload, &sent, scene.now()).await.unwrap(), Applied::Done);
    assert_eq!(scene.states(&made).await, "processing: up finished, b queued");
    let task = scene.task(upload).await;
    assert_eq!((task.started_at, task.ended_at), (Some(scene.now()), Some(scene.now())));
    assert_eq!((task.percent, &task.files[..]), (100, &[sent.clone()][..]));
    assert_eq!(scene.store.finish_upload(upload, &sent, scene.now()).await.unwrap(), Applied::Stale);
    let later = scene.now().plus(std::time::Duration::from_hours(1));
    assert_eq!(scene.store.expire_uploads(later).await.unwrap(), None);
    assert_eq!(scene.states(&made).await, "processing: up finished, b queued", "it came in time");
    let queued = made.task("b");
    assert_eq!(scene.store.finish_upload(queued, &sent, scene.now()).await.unwrap(), Applied::Stale);
    assert_eq!(scene.task(queued).await.state, State::Queued);
}

async fn uploads_that_do_not_come_end(scene: Scene) {
    let made = scene.job("up^; b: up").await;
    let expires_at = scene.task(made.task("up")).await.upload_expires_at.expect("uploads expire");
    assert_eq!(scene.store.expire_uploads(scene.now()).await.unwrap(), Some(expires_at));
    assert_eq!(scene.states(&made).await, "waiting: up uploading, b blocked");
    assert_eq!(scene.store.expire_uploads(expires_at).await.unwrap(), None);
    assert_eq!(scene.states(&made).await, "error: up error TIMEOUT, b error INPUT_TASK_FAILED");
    let sent = file(made.task("up"), Token(7));
    assert_eq!(scene.store.finish_upload(made.task("up"), &sent, expires_at).await.unwrap(), Applied::Stale);
}

async fn what_is_due_moves_in_steps(scene: Scene) {
    let tasks = DUE_MAX as usize + 10;
    let made = scene.job(&(0..tasks).map(|n| format!("u{n}^")).collect::<Vec<_>>().join("; ")).await;
    let expires_at = scene.task(made.task("u0")).await.upload_expires_at;
    let late = expires_at.expect("uploads expire");
    for (due_next, open) in [(expires_at, 10), (None, 0)] {
        assert_eq!(scene.store.expire_uploads(late).await.unwrap(), due_next);
        let tasks = scene.read(&made).await.tasks;
        assert_eq!(tasks.iter().filter(|task| task.state == State::Uploading).count(), open);
    }
    assert_eq!(scene.read(&made).await.status, WireStatus::Error);
}

async fn cancelling_ends_a_task_in_every_state(scene: Scene) {
    let made = scene.job("running; delayed; queued; up^; blocked: queued; after: blocked").await;
    let cancel = async |name: &str| scene.store.cancel(scene.user, made.task(name), scene.now()).await.unwrap();
    assert_eq!(cancel("blocked").await, Cancellation::Done);
    assert_eq!(
        scene.states(&made).await,
        "waiting: running queued, delayed queued, queued queued, up uploading, blocked error CANCELLED, \
         after error INPUT_TASK_FAILED"
    );
    let claims = scene.claim(2).await;
    let running = claims.iter().find(|claim| claim.task.id == made.task("running")).expect("claimed in order");
    let delayed = claims.iter().find(|claim| claim.task.id == made.task("delayed")).expect("claimed in order");
    let until = scene.now().plus(std::time::Duration::from_secs(9));
    let applied = scene.store.delay(delayed.task.id, delayed.token, until, scene.now()).await.unwrap();
    assert_eq!(applied, Applied::Done);
    for name in ["running", "delayed", "queued", "up"] {
        assert_eq!(cancel(name).await, Cancellation::Done, "{name}");
        let task = scene.task(made.task(name)).await;
        assert_eq!((task.state, task.code.as_deref()), (State::Error, Some("CANCELLED")), "{name}");
        assert_eq!(cancel(name).await, Cancellation::AlreadyEnded, "{name}");
    }
    assert_eq!(scene.read(&made).await.status, WireStatus::Error);
    assert!(!scene.store.holds(running.task.id, running.token).await.unwrap());
    assert_eq!(scene.try_finish(running).await, Applied::Stale);
    assert_eq!(scene.store.release_due(until).await.unwrap(), None);
    assert!(scene.claim(10).await.is_empty());

    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let theirs = scene.job("a").await;
    let answer = scene.store.cancel(other, theirs.task("a"), scene.now()).await.unwrap();
    assert_eq!(answer, Cancellation::NotFound);
    assert_eq!(scene.task(theirs.task("a")).await.state, State::Queued);
}

async fn tasks_of_other_jobs_follow_too(scene: Scene) {
    let made = scene.job("a").await;
    let single = scene.single(&[made.task("a")]);
    let id = single.task.id;
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
    let mut job = scene.new_job(scene.user, "b; c: b");
    job.job.tasks[0].depends_on.push(made.task("a"));
    let (other, b) = (job.job.id, job.job.tasks[0].id);
    assert_eq!(scene.store.create_job(job).await.unwrap(), Creation::Created);
    let claim = scene.claim_one().await;
    assert_eq!(claim.task.id, made.task("a"));
    scene.fail(&claim).await;
    assert_eq!(scene.task(id).await.code.as_deref(), Some("INPUT_TASK_FAILED"));
    let job = scene.store.job(scene.user, other).await.unwrap().expect("it exists");
    assert_eq!((job.status, job.tasks[0].id), (WireStatus::Error, b));
    assert_eq!(job.tasks[1].state, State::Error);
}

/// Tasks of the big graphs.
const MANY: usize = 10_000;

fn chain(mark: &str) -> String {
    let mut graph = format!("t0{mark}");
    for n in 1..MANY {
        graph.extend([format!("; t{n}: t{}", n - 1)]);
    }
    graph
}

async fn a_long_chain_ends_at_once(scene: Scene) {
    let made = scene.job(&chain("")).await;
    scene.fail(&scene.claim_one().await).await;
    let job = scene.read(&made).await;
    assert_eq!((job.status, job.tasks.len()), (WireStatus::Error, MANY));
    assert!(job.tasks.iter().all(|task| task.state == State::Error));
}

async fn a_long_chain_of_ignored_failures_ends_at_once(scene: Scene) {
    let made = scene.job(&chain("!")).await;
    scene.fail(&scene.claim_one().await).await;
    let job = scene.read(&made).await;
    assert_eq!(job.status, WireStatus::Finished);
    assert!(job.tasks.iter().all(|task| task.state == State::Error));
}

async fn a_wide_job_is_readied_and_ended(scene: Scene) {
    let mut graph = "root".to_owned();
    for n in 1..MANY {
        graph.extend([format!("; t{n}: root")]);
    }
    let made = scene.job(&graph).await;
    scene.finish(&scene.claim_one().await).await;
    let counts = scene.store.counts(Timestamp(0)).await.unwrap();
    assert_eq!(counts.queued, MANY as u64 - 1);
    let first = scene.claim(3).await;
    let order: Vec<_> = first.iter().map(|claim| claim.task.id).collect();
    assert_eq!(order, [made.task("t1"), made.task("t2"), made.task("t3")], "in the order of the job");
    assert_eq!(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap(), Deletion::Done);
    assert_eq!(scene.store.counts(Timestamp(0)).await.unwrap().queued, 0);
}
