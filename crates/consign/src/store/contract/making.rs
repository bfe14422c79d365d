//! Making jobs and tasks: what is stored, what is born how, idempotency.

use connectors::Receipt;

use super::{Scene, cases, file};
use crate::id::{KeyId, TaskId, Token};
use crate::model::{Download, File, Origin, State, WireStatus};
use crate::store::{Applied, Creation, Idempotency, NewJob};

cases!(
    what_was_given_is_read_back,
    files_are_read_back_as_they_were,
    inputs_that_have_ended_decide_how_a_task_starts,
    inputs_that_are_gone_or_not_ours_are_named,
    an_input_named_twice_counts_once,
    a_key_makes_a_request_happen_once,
    a_key_is_forgotten_after_a_day,
    nothing_is_stored_when_a_creation_fails,
    what_is_told_twice_is_made_once,
);

async fn what_was_given_is_read_back(scene: Scene) {
    let mut new = scene.new_job(scene.user, "a!; up^; b: up a");
    new.job.tag = Some("a tag".to_owned());
    new.job.webhook_url = Some("https://example.test/hook".to_owned());
    new.job.origin = Origin::Key(KeyId::new(scene.now()));
    new.job.tasks[0].warnings = vec!["`x` is not known".to_owned()];
    new.job.tasks[2].state = State::Blocked;
    let job = new.job.clone();
    assert_eq!(scene.store.create_job(new).await.unwrap(), Creation::Created);
    let read = scene.store.job(scene.user, job.id).await.unwrap();
    assert_eq!(read, Some(job.clone()));
    let payload = scene.store.payload(job.tasks[0].id).await.unwrap();
    assert_eq!(payload, Some(format!("sealed {}", job.tasks[0].id).into_bytes()));
    assert_eq!(scene.store.payload(TaskId::new(scene.now())).await.unwrap(), None);

    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    assert_eq!(scene.store.job(other, job.id).await.unwrap(), None);
    assert_eq!(scene.store.task(other, job.tasks[0].id).await.unwrap(), None);
    assert_eq!(scene.store.task_of_link(job.tasks[0].id).await.unwrap(), Some(job.tasks[0].clone()));

    let mut single = scene.single(&[]);
    single.task.retry_of = Some(job.tasks[0].id);
    let task = single.task.clone();
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
    assert_eq!(scene.task(task.id).await, task);
    assert_eq!(scene.store.retries(scene.user, job.tasks[0].id).await.unwrap(), [task]);
    assert!(scene.store.retries(other, job.tasks[0].id).await.unwrap().is_empty());
}

async fn files_are_read_back_as_they_were(scene: Scene) {
    let made = scene.job("a; b: a").await;
    let claim = scene.claim_one().await;
    let plain = file(claim.task.id, claim.token);
    let linked = File {
        name: "ü \u{1F980} 'quoted'\"".to_owned(),
        size: u64::try_from(i64::MAX).expect("it is positive"),
        download: Some(Download { inline: true, expires_at: scene.now() }),
        ..plain.clone()
    };
    let receipt = Receipt {
        location: "s3://bucket/key".to_owned(),
        etag: Some("e".to_owned()),
        verified: "crc32c".to_owned(),
        ..Receipt::default()
    };
    let delivered = File { blob: None, receipt: Some(receipt), ..plain.clone() };
    let files = [plain, linked, delivered];
    let applied = scene.store.finish(claim.task.id, claim.token, &files, scene.now()).await.unwrap();
    assert_eq!(applied, Applied::Done);
    assert_eq!(scene.task(made.task("a")).await.files, files);
    assert_eq!(scene.claim_one().await.inputs[0].files, files);
    for (number, file) in [(0, None), (1, Some(&files[0])), (3, Some(&files[2])), (4, None), (u32::MAX, None)] {
        let (task, found) = scene.store.linked_file(made.task("a"), number).await.unwrap().unwrap();
        assert_eq!((task.id, task.files.len(), found.as_ref()), (made.task("a"), 0, file), "{number}");
    }
    assert_eq!(scene.store.linked_file(TaskId::new(scene.now()), 1).await.unwrap(), None);
    let blobs = scene.store.blobs(&[made.task("b"), made.task("a"), TaskId::new(scene.now())]).await.unwrap();
    let mut blobs: Vec<_> = blobs.into_iter().map(|(id, state, blobs)| (id == made.task("a"), state, blobs)).collect();
    blobs.sort_by_key(|(is_a, ..)| *is_a);
    let named: Vec<_> = files.iter().filter_map(|file| file.blob.clone()).collect();
    assert_eq!(blobs, [(false, State::Running, Vec::new()), (true, State::Finished, named)]);
}

async fn inputs_that_have_ended_decide_how_a_task_starts(scene: Scene) {
    let made = scene.job("good; bad; ignored!; open^").await;
    scene.run_all(&[made.task("bad"), made.task("ignored")]).await;
    for (inputs, state) in [
        (&["good"][..], State::Queued),
        (&["bad"], State::Error),
        (&["good", "bad"], State::Error),
        (&["ignored"], State::Error),
        (&["good", "ignored"], State::Queued),
        (&["open"], State::Blocked),
        (&["open", "bad"], State::Error),
        (&["open", "ignored"], State::Blocked),
    ] {
        let inputs: Vec<_> = inputs.iter().map(|name| made.task(name)).collect();
        let mut job = scene.new_job(scene.user, "a; b: a");
        job.job.tasks[0].depends_on = inputs;
        let (id, a) = (job.job.id, job.job.tasks[0].id);
        assert_eq!(scene.store.create_job(job).await.unwrap(), Creation::Created);
        let task = scene.task(a).await;
        assert_eq!(task.state, state, "{:?}", task.depends_on);
        let job = scene.store.job(scene.user, id).await.unwrap().expect("it exists");
        if state == State::Error {
            assert_eq!(task.code.as_deref(), Some("INPUT_TASK_FAILED"));
            let follows_from_ignored = task.depends_on == [made.task("ignored")];
            let status = if follows_from_ignored { WireStatus::Finished } else { WireStatus::Error };
            assert_eq!((job.status, job.ended_at), (status, Some(scene.now())));
        } else {
            assert_eq!((job.status, job.ended_at), (WireStatus::Waiting, None));
        }
    }
    scene.run_all(&[]).await;
    let upload = made.task("open");
    let applied = scene.store.finish_upload(upload, &file(upload, Token(1)), scene.now()).await.unwrap();
    assert_eq!(applied, Applied::Done);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().queued, 2);
    scene.run_all(&[]).await;
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().waiting, 0);
}

async fn inputs_that_are_gone_or_not_ours_are_named(scene: Scene) {
    let gone = TaskId::new(scene.now());
    let single = scene.single(&[gone]);
    let id = single.task.id;
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::InputGone(gone));
    assert_eq!(scene.store.task(scene.user, id).await.unwrap(), None);
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let theirs = scene.job_of(other, "a").await.task("a");
    let mut job = scene.new_job(scene.user, "a; b: a");
    job.job.tasks[1].depends_on.push(theirs);
    let id = job.job.id;
    assert_eq!(scene.store.create_job(job).await.unwrap(), Creation::InputGone(theirs));
    assert_eq!(scene.store.job(scene.user, id).await.unwrap(), None);
}

async fn an_input_named_twice_counts_once(scene: Scene) {
    let made = scene.job("a; b: a a").await;
    scene.run_all(&[]).await;
    assert_eq!(scene.states(&made).await, "finished: a finished, b finished");
    assert_eq!(scene.task(made.task("b")).await.depends_on, [made.task("a")]);
}

fn promised(scene: &Scene, key: &str, hash: u8) -> NewJob {
    let idempotency =
        Idempotency { key: key.to_owned(), request_hash: [hash; 32], answer: format!("answer {hash}").into_bytes() };
    NewJob { idempotency: Some(idempotency), ..scene.new_job(scene.user, "a") }
}

async fn a_key_makes_a_request_happen_once(scene: Scene) {
    let replayed = Creation::Replayed(b"answer 1".to_vec());
    let replay = async |hash| scene.store.replay(scene.user, "k", &[hash; 32], scene.now()).await.unwrap();
    assert_eq!(replay(1).await, None);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 1)).await.unwrap(), Creation::Created);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 1)).await.unwrap(), replayed);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 2)).await.unwrap(), Creation::KeyReused);
    assert_eq!(replay(1).await, Some(replayed.clone()));
    assert_eq!(replay(2).await, Some(Creation::KeyReused));
    assert_eq!(scene.store.create_job(promised(&scene, "l", 1)).await.unwrap(), Creation::Created);
    let mut single = scene.single(&[]);
    single.idempotency = promised(&scene, "k", 1).idempotency;
    assert_eq!(scene.store.create_task(single).await.unwrap(), replayed);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().queued, 2, "two were made");
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    assert_eq!(scene.store.replay(other, "k", &[1; 32], scene.now()).await.unwrap(), None, "keys are a user's own");
}

async fn a_key_is_forgotten_after_a_day(scene: Scene) {
    assert_eq!(scene.store.create_job(promised(&scene, "k", 1)).await.unwrap(), Creation::Created);
    scene.wait(24 * 3600 - 1);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 2)).await.unwrap(), Creation::KeyReused);
    scene.wait(1);
    assert_eq!(scene.store.replay(scene.user, "k", &[2; 32], scene.now()).await.unwrap(), None);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 2)).await.unwrap(), Creation::Created);
    assert_eq!(scene.store.create_job(promised(&scene, "k", 1)).await.unwrap(), Creation::KeyReused);
}

async fn nothing_is_stored_when_a_creation_fails(scene: Scene) {
    let made = scene.job("a").await;
    let mut job = promised(&scene, "k", 1);
    // The second row cannot be stored: its id is taken.
    job.job.tasks.push(scene.task(made.task("a")).await);
    job.payloads.push(Vec::new());
    let (id, first) = (job.job.id, job.job.tasks[0].id);
    assert!(scene.store.create_job(job).await.is_err());
    assert_eq!(scene.store.job(scene.user, id).await.unwrap(), None);
    assert_eq!(scene.store.task(scene.user, first).await.unwrap(), None);
    assert_eq!(scene.store.replay(scene.user, "k", &[1; 32], scene.now()).await.unwrap(), None);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().queued, 1);
}

async fn what_is_told_twice_is_made_once(scene: Scene) {
    let job = scene.new_job(scene.user, "a; b: a");
    let single = scene.single(&[job.job.tasks[0].id]);
    for _ in 0..2 {
        assert_eq!(scene.store.create_job(job.clone()).await.unwrap(), Creation::Created);
        assert_eq!(scene.store.create_task(single.clone()).await.unwrap(), Creation::Created);
        scene.run_all(&[]).await;
        scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap();
    }
    assert_eq!(scene.store.job(scene.user, job.job.id).await.unwrap().unwrap().tasks.len(), 2);
    assert_eq!(scene.task(single.task.id).await.attempt, 1);
}
