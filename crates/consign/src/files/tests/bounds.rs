//! What a bucket costs when it is away, slow, or does what it should not: on a store that a test directs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::bucket::settings;
use super::staged::{Act, Staged, fails, goes};
use super::*;

/// A file store on a staged bucket, with one file in it.
struct Stage {
    store: Arc<Staged>,
    files: Files,
    from: BlobKey,
    received: Received,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(store: Staged) -> Self {
        let (store, folder) = (Arc::new(store), tempfile::tempdir().unwrap());
        let settings = BucketSettings { prefix: String::new(), ..settings(Arc::clone(&store) as _, folder.path()) };
        let files = Files::in_bucket(settings).await.unwrap();
        let from = key();
        let stream = stream_of(b"bytes", 5);
        let received = files.receive(&from, stream, None, LIMIT_BYTES, &Progress::default()).await.unwrap();
        Self { store, files, from, received, _folder: folder }
    }

    /// So many second keys of the file.
    fn links(&self, count: u32) -> Vec<Link> {
        let (from, digests, task) = (&self.from, self.received.digests, task());
        (1..=count).map(|n| Link { from: from.clone(), to: BlobKey::new(task, Token(1), n), digests }).collect()
    }

    /// Waits until nothing but the file is left.
    async fn is_clear_in_the_end(&self) {
        for _ in 0..200 {
            if self.store.names() == [self.from.to_string()] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} are left", self.store.names().len());
    }
}

/// More than that would wait for a store that is away for as long as all its tries take, each.
#[tokio::test]
async fn after_the_first_failure_no_further_copy_is_begun() {
    let stage = Stage::set(Staged::new(|_, act, name| {
        let is_bad = act == Act::Copy && name.ends_with("/20");
        if is_bad { fails(Kind::Unreachable) } else { goes() }
    }));
    let stage = stage.await;
    let error = stage.files.link_all(stage.links(10_000)).await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error:?}");
    let copies = stage.store.count(Act::Copy);
    assert!((20..40).contains(&copies), "{copies} copies were begun");
    assert_eq!(stage.store.count(Act::Delete), copies, "what was begun is cleared away, and nothing else");
    assert_eq!(stage.store.names(), [stage.from.to_string()]);
}

#[tokio::test]
async fn what_cannot_be_cleared_away_is_not_tried_for_each_file() {
    let stage = Stage::set(Staged::new(|_, act, name| {
        let is_bad = act == Act::Delete || (act == Act::Copy && name.ends_with("/500"));
        if is_bad { fails(Kind::Unreachable) } else { goes() }
    }));
    let stage = stage.await;
    stage.files.link_all(stage.links(1000)).await.unwrap_err();
    let deletions = stage.store.count(Act::Delete);
    assert!(deletions <= 8, "{deletions} deletions were tried");
}

/// A task of thousands of files that is cancelled must not become thousands of requests at once.
#[tokio::test]
async fn copies_that_are_dropped_are_cleared_away_a_few_at_a_time() {
    static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let stage = Stage::set(Staged::new(|_, act, name| {
        if act == Act::Copy && name.ends_with("/1000") {
            return Box::pin(std::future::pending());
        }
        if act != Act::Delete {
            return goes();
        }
        Box::pin(async {
            MOST.fetch_max(AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            AT_ONCE.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
    }));
    let stage = stage.await;
    let copying = stage.files.link_all(stage.links(1000));
    tokio::time::timeout(Duration::from_secs(1), copying).await.unwrap_err();
    assert!(stage.store.names().len() >= 900, "most were copied");
    stage.is_clear_in_the_end().await;
    let most = MOST.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most} deletions at once");
}

#[tokio::test]
async fn a_clearing_that_is_dropped_goes_on_without_its_task() {
    static DELETIONS: AtomicUsize = AtomicUsize::new(0);
    let stage = Stage::set(Staged::new(|_, act, name| {
        if act == Act::Copy && name.ends_with("/5") {
            return fails(Kind::Unavailable);
        }
        // The first ones never come to an end.
        let hangs = act == Act::Delete && DELETIONS.fetch_add(1, Ordering::SeqCst) < 4;
        if hangs { Box::pin(std::future::pending()) } else { goes() }
    }));
    let stage = stage.await;
    let copying = stage.files.link_all(stage.links(5));
    tokio::time::timeout(Duration::from_millis(300), copying).await.unwrap_err();
    stage.is_clear_in_the_end().await;
}

#[tokio::test]
async fn what_is_carried_is_what_its_row_says() {
    let stage =
        Stage::set(Staged::new(|_, act, _| if act == Act::Copy { fails(Kind::TooLarge) } else { goes() })).await;
    let links = stage.links(1);
    stage.files.link_all(links.clone()).await.unwrap();
    assert_eq!(stage.store.names().len(), 2);
    stage.files.remove_task(links[0].to.as_str().split('/').next().unwrap().parse().unwrap()).await.unwrap();
    let altered = Bytes::from_static(b"BYTES");
    stage.store.objects.lock().unwrap().insert(stage.from.to_string(), altered);
    let error = stage.files.link_all(links).await.unwrap_err();
    assert!(matches!(&error, Error::Store(error) if error.kind == Kind::IntegrityMismatch), "{error:?}");
    assert_eq!(stage.store.names(), [stage.from.to_string()]);
}

/// A task may have thousands of inputs, which must not cost a request each before it begins.
#[tokio::test]
async fn an_input_is_asked_for_when_it_is_read() {
    let stage = Stage::set(Staged::new(|_, _, _| goes())).await;
    let input = stage.files.input(&stage.from, &row(stage.received)).await.unwrap();
    assert_eq!(stage.store.count(Act::Stat), 0);
    assert_eq!(input.read_at(1, 3).await.unwrap(), "yte");
    stage.files.source(&stage.from, &row(stage.received)).await.unwrap();
    assert_eq!(stage.store.count(Act::Stat), 1);
}

/// Whoever asks gives up after a while and asks again: that must not gather work for a store that lists and takes nothing.
#[tokio::test]
async fn a_write_that_was_given_up_leaves_no_clean_up_behind() {
    let stage = Stage::set(Staged::new(|store, act, _| {
        // The first file is the stage's own.
        let hangs = act == Act::Put && store.count(Act::Put) > 1;
        if hangs { Box::pin(std::future::pending()) } else { goes() }
    }));
    let stage = stage.await;
    for writes in 2..6 {
        let begun = async {
            while stage.store.count(Act::Put) < writes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            pinged = stage.files.ping() => panic!("it hangs, and yet {pinged:?}"),
            () = begun => {}
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.store.count(Act::Delete), 0);
}

/// What a file store needs beside files: without it, what a crash cut off stays for good.
#[tokio::test]
async fn a_probe_tries_to_list_and_to_abort_uploads() {
    for denied in [None, Some(Act::Abort), Some(Act::AbortOlder), Some(Act::Copy), Some(Act::Page)] {
        let stage = Stage::set(Staged::new(move |store, act, _| {
            let is_denied = denied == Some(act) && store.count(Act::Put) > 1;
            if is_denied { fails(Kind::AccessDenied) } else { goes() }
        }));
        let stage = stage.await;
        let probed = stage.files.probe().await;
        match denied {
            None => probed.unwrap(),
            Some(_) => {
                assert!(matches!(probed, Err(Error::Store(error)) if error.kind == Kind::AccessDenied), "{denied:?}");
            }
        }
        assert_eq!(stage.store.uploads.lock().unwrap().len(), usize::from(denied == Some(Act::Abort)));
        assert!(denied.is_some() || stage.store.count(Act::Abort) == 1, "an upload was opened, and aborted");
        // That is no reason to say it again every hour.
        assert_eq!(stage.files.abort_abandoned().await.unwrap(), 0);
    }
}

/// No row names what a probe keeps, so that the search of a running server may remove it at any moment.
#[tokio::test]
async fn a_probe_is_not_misled_by_a_search_that_removes_its_files() {
    for (moment, times, passes) in
        [(Act::Copy, 1, true), (Act::Stat, 1, true), (Act::Read, 1, true), (Act::Page, 1, true), (Act::Copy, 9, false)]
    {
        let seen = AtomicUsize::new(0);
        let stage = Stage::set(Staged::new(move |store, act, _| {
            // The first file is the stage's own.
            let is_probing = act == moment && store.count(Act::Put) > 1;
            if is_probing && seen.fetch_add(1, Ordering::SeqCst) < times {
                store.objects.lock().unwrap().retain(|kept, _| store.is_first(kept));
            }
            goes()
        }));
        let stage = stage.await;
        let probed = stage.files.probe().await;
        assert_eq!(probed.is_ok(), passes, "{moment:?}, {times} times: {probed:?}");
        assert_eq!(stage.store.names(), [stage.from.to_string()]);
    }
}

/// Where a listing cannot begin in the middle, it must not begin anew for every few tasks.
#[tokio::test]
async fn a_search_through_all_tasks_turns_each_page_once() {
    let mut store = Staged::new(|_, _, _| goes());
    store.begins_anywhere = false;
    let mut expected: Vec<TaskId> = (0..40).map(|_| task()).collect();
    expected.sort_unstable();
    for task in &expected {
        store.objects.lock().unwrap().insert(BlobKey::new(*task, Token(1), 1).to_string(), Bytes::new());
    }
    let stage = Stage::set(store).await;
    stage.files.remove_task(stage.from.as_str().split('/').next().unwrap().parse().unwrap()).await.unwrap();
    let before = stage.store.count(Act::Page);
    let search = async |limit| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let found = stage.files.list_tasks(after, limit).await.unwrap();
            let Some(last) = found.last() else { return all };
            after = Some(*last);
            all.extend(found);
        }
    };
    assert_eq!(search(5).await, expected);
    let pages = stage.store.count(Act::Page) - before;
    assert!(pages <= 14, "{pages} pages of three tasks for forty of them");
    // It was the end, but not for good.
    expected.push(task());
    let added = BlobKey::new(expected[40], Token(1), 1).to_string();
    stage.store.objects.lock().unwrap().insert(added, Bytes::new());
    expected.sort_unstable();
    assert_eq!(search(7).await, expected);
    assert_eq!(stage.files.list_tasks(Some(expected[3]), 2).await.unwrap(), expected[4..6], "from anywhere");
}
