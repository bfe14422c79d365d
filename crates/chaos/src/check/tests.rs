//! Histories that break a promise, one each: the checker has to see every one of them, and nothing else.

use super::*;
use crate::history::Setup;
use crate::jobs::{Follow, Import};
use crate::schedule::Kind;

fn spec(tag: &str) -> Spec {
    Spec {
        tag: tag.to_owned(),
        import: Import::Upload,
        seed: 1,
        size: 10,
        exports: vec![Place::S3],
        has_lame_input: true,
        sent: 1,
        follow: Follow::Ask,
        change: Change::Nothing,
        has_webhook: true,
    }
}

fn seen(client: &str, tag: &str, task: Option<&str>, status: Status) -> Event {
    let (client, tag, task) = (client.to_owned(), tag.to_owned(), task.map(str::to_owned));
    Event::Seen { client, tag, task, status, code: None }
}

fn failed(tag: &str, task: &str, code: &str) -> Event {
    let (client, tag, task, code) = ("a".to_owned(), tag.to_owned(), Some(task.to_owned()), Some(code.to_owned()));
    Event::Seen { client, tag, task, status: Status::Error, code }
}

/// A run in which one job is made, works, is delivered and told of.
fn good() -> Vec<Event> {
    let (tag, job) = ("t-1".to_owned(), "id-1".to_owned());
    vec![
        Event::Began(Setup { per_user_max: 4, per_process_max: 2, ..Setup::default() }),
        Event::Asked { spec: spec("t-1") },
        Event::Accepted { tag: tag.clone(), job: job.clone() },
        seen("a", "t-1", None, Status::Waiting),
        failed("t-1", LAME, "SOURCE_NOT_FOUND"),
        seen("a", "t-1", Some("to-s3"), Status::Processing),
        Event::Running { whose: Whose::User, count: 4 },
        Event::Running { whose: Whose::Process, count: 2 },
        Event::Counted { times: 7 },
        seen("a", "t-1", Some("to-s3"), Status::Finished),
        seen("a", "t-1", None, Status::Finished),
        Event::Heard { tag: tag.clone(), name: "job.finished".to_owned(), is_genuine: true },
        Event::Settled,
        Event::Final { tag: tag.clone(), status: Some(Status::Finished) },
        Event::Listed { tag, job },
        Event::Delivered { place: "s3".to_owned(), name: "t-1.bin".to_owned(), sha256: spec("t-1").sha256() },
    ]
}

fn entries(events: Vec<Event>) -> Vec<Entry> {
    (0..).step_by(100).zip(events).map(|(at_ms, event)| Entry { at_ms, event }).collect()
}

fn found(events: Vec<Event>) -> Vec<Violation> {
    check(&entries(events)).into_iter().collect()
}

/// The good history with one event changed.
fn with(at: fn(&Event) -> bool, now: Option<Event>) -> Vec<Event> {
    let mut events = good();
    let index = events.iter().position(at).unwrap();
    match now {
        Some(now) => events[index] = now,
        None => drop(events.remove(index)),
    }
    events
}

/// The good history with more at its end.
fn and(more: Vec<Event>) -> Vec<Event> {
    [good(), more].concat()
}

#[track_caller]
fn breaks(events: Vec<Event>, is: fn(&Violation) -> bool) {
    let found = found(events);
    assert!(found.len() == 1 && is(&found[0]), "{found:?}");
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(found(good()), []);
}

#[test]
fn an_empty_history_proves_nothing() {
    assert_eq!(found(Vec::new()).len(), 3);
    let counts = |event: &Event| matches!(event, Event::Counted { .. });
    breaks(with(counts, Some(Event::Counted { times: 0 })), |it| matches!(it, Violation::Incomplete(_)));
    breaks(with(|event| *event == Event::Settled, None), |it| matches!(it, Violation::Incomplete(_)));
}

fn answered(action: &str, status: u16) -> Event {
    let (action, tag) = (action.to_owned(), Some("t-1".to_owned()));
    Event::Call { action, tag, began_ms: 0, status: Some(status), error: None }
}

#[test]
fn a_job_that_was_asked_for_and_never_taken_is_seen() {
    let mut other = spec("t-2");
    other.has_webhook = false;
    breaks(and(vec![Event::Asked { spec: other }]), |it| *it == Violation::NotTaken("t-2".to_owned()));
}

#[test]
fn a_request_that_is_rejected_without_a_reason_is_seen() {
    for (action, status) in
        [("create", 422), ("create", 429), ("show", 404), ("upload", 400), ("upload", 409), ("list", 400)]
    {
        breaks(and(vec![answered(action, status)]), |it| matches!(it, Violation::Rejected(_)));
    }
    let again = vec![answered("upload", 503), answered("upload", 409), answered("cancel", 422), answered("show", 200)];
    assert_eq!(found(and(again)), [], "an answer may have been lost");
    let deleting = Event::Deleting { tag: "t-1".to_owned() };
    let gone = vec![deleting.clone(), answered("show", 404), answered("upload", 409), answered("delete", 404)];
    assert_eq!(found(and(gone)), [], "whoever deletes a job finds it no more");
    breaks(and(vec![deleting, answered("show", 403)]), |it| matches!(it, Violation::Rejected(_)));
}

#[test]
fn a_client_that_gives_up_is_seen() {
    let why = "the upload: deadline has elapsed".to_owned();
    breaks(and(vec![Event::GaveUp { why }]), |it| matches!(it, Violation::GaveUp(_)));
}

#[test]
fn overlap_that_never_happens_is_seen() {
    let run = |has_overlap, uploads: Option<u64>| {
        let mut events = good();
        events[0] =
            Event::Began(Setup { per_user_max: 4, per_process_max: 2, overlap: has_overlap, ..Setup::default() });
        for number in 0..JOBS_AHEAD {
            let tag = format!("ahead-{number}");
            let early = Spec { import: Import::Url, size: 16 << 20, has_lame_input: false, ..spec(&tag) };
            events.push(Event::Asked { spec: Spec { has_webhook: false, ..early } });
            events.push(Event::Accepted { tag: tag.clone(), job: tag.clone() });
            events.push(Event::Final { tag, status: Some(Status::Finished) });
        }
        events.extend(uploads.map(|uploads| Event::Ahead { uploads }));
        events
    };
    breaks(run(true, Some(0)), |it| matches!(it, Violation::Incomplete(_)));
    assert_eq!(found(run(true, Some(1))), []);
    assert_eq!(found(run(false, Some(0))), []);
    assert_eq!(found(run(true, None)), [], "nobody could look");
}

#[test]
fn a_lost_job_is_seen() {
    let is_final = |event: &Event| matches!(event, Event::Final { .. });
    let gone = Event::Final { tag: "t-1".to_owned(), status: None };
    breaks(with(is_final, Some(gone)), |it| matches!(it, Violation::Lost(_)));
    breaks(with(is_final, None), |it| matches!(it, Violation::Lost(_)));
}

#[test]
fn a_deleted_job_may_be_gone_but_not_come_back() {
    let tag = || "t-1".to_owned();
    let deleted = vec![Event::Deleting { tag: tag() }, Event::Deleted { tag: tag() }];
    breaks(and(deleted.clone()), |it| matches!(it, Violation::CameBack(_)));
    let mut gone = deleted;
    gone.push(Event::Final { tag: tag(), status: None });
    assert_eq!(found(and(gone)), []);
    // Without an acknowledgement both may be.
    assert_eq!(found(and(vec![Event::Deleting { tag: tag() }])), []);
}

#[test]
fn two_jobs_for_one_creation_are_seen() {
    let (tag, job) = ("t-1".to_owned(), "id-2".to_owned());
    let both = |it: &Violation| matches!(it, Violation::Doubled(_));
    breaks(and(vec![Event::Accepted { tag: tag.clone(), job: job.clone() }]), both);
    breaks(and(vec![Event::Listed { tag, job }]), both);
}

#[test]
fn a_status_that_goes_back_is_seen_by_the_client_that_saw_it() {
    let mut back = good();
    back.insert(4, seen("a", "t-1", Some("to-s3"), Status::Processing));
    back.insert(5, seen("a", "t-1", Some("to-s3"), Status::Waiting));
    breaks(back, |it| matches!(it, Violation::WentBack(_)));
    let mut another = good();
    another.insert(4, seen("a", "t-1", Some("to-s3"), Status::Processing));
    another.insert(5, seen("b", "t-1", Some("to-s3"), Status::Waiting));
    assert_eq!(found(another), [], "another client may have asked before");
}

#[test]
fn an_end_that_changes_is_seen_even_by_another_client() {
    let changed = and(vec![seen("b", "t-1", None, Status::Error)]);
    breaks(changed, |it| matches!(it, Violation::EndChanged(_)));
    let is_final = |event: &Event| matches!(event, Event::Final { .. });
    let other = Event::Final { tag: "t-1".to_owned(), status: Some(Status::Error) };
    let kinds = found(with(is_final, Some(other)));
    assert!(kinds.iter().any(|it| matches!(it, Violation::EndChanged(_))), "{kinds:?}");
}

#[test]
fn a_job_without_an_end_is_seen() {
    let mut events = good();
    events.retain(|event| !matches!(event, Event::Seen { task: None, .. } | Event::Heard { .. }));
    for event in &mut events {
        if let Event::Final { status, .. } = event {
            *status = Some(Status::Processing);
        }
    }
    breaks(events, |it| matches!(it, Violation::NotSettled(_)));
}

#[test]
fn a_failure_without_a_reason_is_seen() {
    let mut events = good();
    events.insert(4, failed("t-1", "in", "WORKER_LOST"));
    breaks(events, |it| matches!(it, Violation::Failed(_)));
    let mut cancelled = good();
    cancelled.retain(|event| !matches!(event, Event::Seen { task, .. } if task.as_deref() != Some(LAME)));
    cancelled.insert(4, failed("t-1", "to-s3", "CANCELLED"));
    for event in &mut cancelled {
        if let Event::Asked { spec } = event {
            spec.change = Change::Cancel(1);
        } else if let Event::Final { status, .. } = event {
            *status = Some(Status::Error);
        } else if let Event::Heard { name, .. } = event {
            "job.failed".clone_into(name);
        }
    }
    assert_eq!(found(cancelled), [], "whoever cancels gets what was asked for");
}

#[test]
fn wrong_missing_and_foreign_objects_are_seen() {
    let object = |name: &str, sha256: &str| Event::Delivered {
        place: "s3".to_owned(),
        name: name.to_owned(),
        sha256: sha256.to_owned(),
    };
    let is_object = |event: &Event| matches!(event, Event::Delivered { .. });
    breaks(with(is_object, Some(object("t-1.bin", "00"))), |it| matches!(it, Violation::WrongBytes(_)));
    breaks(and(vec![object("t-1.bin.part", "00")]), |it| matches!(it, Violation::Stray(_)));
    let missing = found(with(is_object, None));
    assert!(missing.iter().any(|it| matches!(it, Violation::NotDelivered(_))), "{missing:?}");
}

#[test]
fn a_missing_contradicting_or_forged_webhook_is_seen() {
    let is_heard = |event: &Event| matches!(event, Event::Heard { .. });
    let heard = |name: &str, is_genuine| Event::Heard { tag: "t-1".to_owned(), name: name.to_owned(), is_genuine };
    breaks(with(is_heard, None), |it| matches!(it, Violation::Untold(_)));
    breaks(with(is_heard, Some(heard("job.failed", true))), |it| matches!(it, Violation::Untold(_)));
    breaks(and(vec![heard("job.failed", true)]), |it| matches!(it, Violation::Untold(_)));
    breaks(and(vec![heard("job.finished", false)]), |it| matches!(it, Violation::Forged(_)));
    assert_eq!(found(and(vec![heard("job.finished", true)])), [], "twice is not once too often");
}

#[test]
fn the_end_of_a_job_that_is_gone_is_told_too() {
    let tag = || "t-1".to_owned();
    let gone = |deletes: Event, hears: bool| {
        let is_end = |event: &Event| {
            matches!(event, Event::Seen { task: None, status: Status::Finished, .. } | Event::Final { .. })
        };
        let mut events = good();
        events.retain(|event| (hears || !matches!(event, Event::Heard { .. })) && !is_end(event));
        events.extend([deletes, Event::Final { tag: tag(), status: None }]);
        events
    };
    for deletes in [Event::Deleted { tag: tag() }, Event::Deleting { tag: tag() }] {
        let asked = Event::Deleting { tag: tag() };
        let mut heard = gone(deletes.clone(), true);
        heard.push(asked.clone());
        assert_eq!(found(heard), [], "whatever its end was");
        let mut untold = gone(deletes, false);
        untold.push(asked);
        breaks(untold, |it| matches!(it, Violation::Untold(_)));
    }
    // What somebody saw of its end must be what was told.
    let mut seen_once = gone(Event::Deleting { tag: tag() }, true);
    seen_once.insert(9, seen("a", "t-1", None, Status::Error));
    assert_eq!(
        found(seen_once),
        [Violation::Untold("t-1 ended with job.failed, heard was {\"job.finished\"}".to_owned())]
    );
}

#[test]
fn an_exceeded_limit_and_what_is_left_over_are_seen() {
    for (whose, count) in [(Whose::User, 5), (Whose::Process, 3)] {
        breaks(and(vec![Event::Running { whose, count }]), |it| matches!(it, Violation::LimitExceeded(_)));
    }
    let left = Event::LeftOver { place: "s3".to_owned(), what: "an open upload".to_owned() };
    breaks(and(vec![left]), |it| matches!(it, Violation::LeftOver(_)));
}

#[test]
fn a_process_that_ends_by_itself_is_seen() {
    let died = Event::Died { process: "api-1".to_owned(), how: "exit status: 101".to_owned() };
    breaks(and(vec![died]), |it| matches!(it, Violation::Died(_)));
}

#[test]
fn a_request_that_fails_in_a_graceful_restart_is_seen() {
    let fault = |number, kind, target: &str| Event::Fault { number, kind, target: target.to_owned() };
    let call = |status, error: Option<&str>| Event::Call {
        action: "create".to_owned(),
        tag: None,
        began_ms: 0,
        status,
        error: error.map(str::to_owned),
    };
    let nth = |number, kind, target: &str, call| vec![fault(number, kind, target), call, Event::Healed { number }];
    let run = |kind, target: &str, call| nth(0, kind, target, call);
    let refused = |it: &Violation| matches!(it, Violation::Refused(_));
    breaks(and(run(Kind::Restart, "api", call(None, Some("reset")))), refused);
    breaks(and(run(Kind::Restart, "api", call(Some(502), None))), refused);
    assert_eq!(found(and(run(Kind::Restart, "api", call(Some(201), None)))), []);
    assert_eq!(found(and(run(Kind::Kill, "api-1", call(None, Some("reset"))))), [], "nobody promised that");
    let mut both = run(Kind::Kill, "api-1", call(Some(200), None));
    both.extend(nth(1, Kind::Restart, "api", call(None, Some("reset"))));
    assert_eq!(found(and(both)), [], "it may be the kill's fault");
    let mut runner = run(Kind::Freeze, "runner-1", call(Some(200), None));
    runner.extend(vec![fault(1, Kind::Restart, "api"), call(None, Some("reset")), Event::Healed { number: 1 }]);
    breaks(and(runner), refused);
}

#[test]
fn rolling_restarts_beside_a_harsh_fault_are_not_clear() {
    let entry = |at_ms, event| Entry { at_ms, event };
    let fault = |number, kind, target: &str| Event::Fault { number, kind, target: target.to_owned() };
    let restart = |number, at_ms| {
        [entry(at_ms, fault(number, Kind::Restart, "api")), entry(at_ms + 500, Event::Healed { number })]
    };
    let kill = |target| [entry(1000, fault(0, Kind::Kill, target)), entry(2000, Event::Healed { number: 0 })];
    let run = |target| [&kill(target)[..], &restart(1, 600), &restart(2, 17_000), &restart(3, 17_001)].concat();
    assert_eq!(rolling_restarts(&run("api-1")), (3, 1), "the last one begins when the kill is long over");
    assert_eq!(rolling_restarts(&run("runner-1")), (3, 3), "requests do not meet runners");
}
