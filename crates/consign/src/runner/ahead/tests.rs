//! Head starts: what they hold, when they give it back, and who goes on with them.

use std::collections::BTreeMap;

use connectors::memory::MemoryJournal;
use connectors::{HostSlots, Part};
use tokio::time::Instant;

use super::*;
use crate::files::Scratch;
use crate::operations::testing::{Bench, NOW};
use crate::store::MemoryStore;
use crate::store::contract::Scene;

const HOST: &str = "destination.test";
const PART_BYTES: u64 = 10;
/// Long enough for whatever goes on by itself.
const A_WHILE: Duration = Duration::from_secs(2);

fn place(slots: &HostSlots) -> Arc<Place> {
    Arc::new(Place::new(slots.clone(), HOST.to_owned(), PART_BYTES))
}

fn is_admitted(place: &Place, end: u64) -> bool {
    place.admit(end).now_or_never().is_some()
}

/// How many slots are free.
fn free(slots: &HostSlots) -> usize {
    let taken: Vec<_> = std::iter::from_fn(|| slots.take(HOST).now_or_never()).collect();
    taken.len()
}

#[tokio::test]
async fn a_slot_is_held_while_parts_are_under_way_and_no_longer() {
    let slots = HostSlots::new(3);
    let (place, other) = (place(&slots), place(&slots));
    assert_eq!(free(&slots), 3);
    assert!(is_admitted(&place, 10) && is_admitted(&place, 20));
    assert_eq!(free(&slots), 2, "one for all of its parts");
    assert!(!is_admitted(&other, 10), "half of three is for those before their turn");
    place.acknowledged(10);
    assert_eq!(free(&slots), 2, "the second part is under way");
    place.acknowledged(10);
    assert_eq!(free(&slots), 3, "it has nothing to send");
    assert!(is_admitted(&other, 10) && !is_admitted(&place, 30));
    assert!(is_admitted(&place, 15), "what was sent is there for whoever reads it again");
    other.acknowledged(10);
    assert!(is_admitted(&place, 30));
    place.opened(PART_BYTES);
    assert_eq!(free(&slots), 3, "it begins anew");
    assert!(is_admitted(&place, 30));
    place.acknowledged(20);
    assert_eq!(free(&slots), 2);
    drop(place.leaving());
    assert_eq!(free(&slots), 3);
}

#[tokio::test]
async fn a_part_waits_until_a_slot_is_spare_and_stands_in_nobodys_way() {
    let slots = HostSlots::new(2);
    let place = place(&slots);
    let first = slots.take(HOST).await;
    let second = slots.take(HOST).await;
    let admitted = tokio::spawn({
        let place = Arc::clone(&place);
        async move { place.admit(10).await }
    });
    tokio::task::yield_now().await;
    let third = slots.take(HOST);
    drop(first);
    let third = third.await;
    assert!(!admitted.is_finished());
    drop(second);
    timeout(A_WHILE, admitted).await.expect("it looks again").unwrap();
    assert_eq!(free(&slots), 0);
    drop(third);
}

#[tokio::test]
async fn a_sealed_head_start_begins_nothing_and_goes_on_with_a_slot_as_any_transfer() {
    let slots = HostSlots::new(2);
    let sealed = place(&slots);
    assert!(is_admitted(&sealed, 10));
    sealed.seal();
    assert_eq!(free(&slots), 1, "a part is under way");
    assert!(!is_admitted(&sealed, 20));
    sealed.acknowledged(10);
    assert_eq!(free(&slots), 2);
    assert!(!is_admitted(&sealed, 20));
    let others = [slots.take(HOST).await, slots.take(HOST).await];
    let mut coming = Box::pin(sealed.come());
    assert!(coming.as_mut().now_or_never().is_none() && !is_admitted(&sealed, 20));
    drop(others);
    coming.await;
    assert!(is_admitted(&sealed, 20));
    sealed.acknowledged(10);
    assert_eq!(free(&slots), 1, "its own until it ends");

    // One whose part is under way keeps the slot that it has.
    let slots = HostSlots::new(2);
    let begun = place(&slots);
    assert!(is_admitted(&begun, 10));
    begun.seal();
    let other = slots.take(HOST).await;
    assert!(begun.come().now_or_never().is_some());
    drop(other);
    assert!(slots.spare(HOST).is_some(), "it is none of those before their turn");

    // One that ends before it gets a slot keeps none.
    let slots = HostSlots::new(2);
    let ended = place(&slots);
    drop(ended.leaving());
    ended.come().await;
    assert_eq!(free(&slots), 2);
}

#[tokio::test]
async fn who_waits_for_the_whole_file_has_no_slot_though_the_last_part_may_go() {
    let (bench, slots) = (Bench::new().await, HostSlots::new(2));
    let (_scratch, arriving, whole) = coming(&bench).await;
    let place = place(&slots);
    assert!(is_admitted(&place, 10));
    let paced = Paced { arriving, place };
    assert!(paced.arrived(1).now_or_never().is_none(), "nothing has come");
    let mut waiting = Box::pin(paced.whole());
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(free(&slots), 2);
    whole.say(Digests::of(b"bytes"));
    waiting.await.unwrap();
}

/// A file of two parts, of which nothing has come.
async fn coming(bench: &Bench) -> (Scratch, Arriving, Whole) {
    let key = model::BlobKey::new(TaskId::new(NOW), Token::random(), 1);
    let scratch = bench.files.scratch_for(&key, Some(20), u64::MAX).await.unwrap();
    let (arriving, whole) = scratch.arriving(20);
    (scratch, arriving, whole)
}

fn open() -> OpenUpload {
    OpenUpload {
        target: "out/a".to_owned(),
        handle: "upload".to_owned(),
        sha256: String::new(),
        part_bytes: PART_BYTES,
        parts: BTreeMap::new(),
    }
}

/// A head start that has sent all and waits for the file to be whole, sealed.
struct Sealed {
    begun: Begun,
    slots: HostSlots,
    bench: Bench,
    file: File,
    _scratch: Scratch,
}

impl Sealed {
    async fn new() -> Self {
        let (bench, slots) = (Bench::new().await, HostSlots::new(2));
        let (scratch, arriving, whole) = coming(&bench).await;
        let state = Arc::new(State::default());
        let place = place(&slots);
        state.note(|noted| *noted = Some(open()));
        state.place.set(Arc::clone(&place)).unwrap();
        let sending = tokio::spawn(async move {
            let _leaving = place.leaving();
            arriving.whole().await.unwrap();
            Some(Ok(Receipt { location: "there".to_owned(), ..Receipt::default() }))
        });
        let going = Mutex::new(Some(Going { sending: AbortOnDropHandle::new(sending), whole }));
        let file = bench.input("a", b"a file of twenty byte").await.file;
        let begun = Begun { state, going, sealed: OnceLock::from((TaskId::new(NOW), file.digests)) };
        begun.state.seal();
        Self { begun, slots, bench, file, _scratch: scratch }
    }

    async fn go_on(&self, target: &str, file: &File) -> Option<Sending> {
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
        self.begun.go_on(target, file, &journal, &Progress::default()).await
    }
}

#[tokio::test]
async fn an_export_goes_on_once_its_destination_has_a_slot() {
    let sealed = Sealed::new().await;
    let others = [sealed.slots.take(HOST).await, sealed.slots.take(HOST).await];
    let mut sending = Box::pin(sealed.go_on("out/a", &sealed.file));
    assert!(timeout(Duration::from_millis(100), &mut sending).await.is_err(), "others were first");
    assert!(sealed.begun.state.holder.borrow().is_some(), "what is acknowledged meanwhile is written down");
    drop(others);
    let sending = sending.await.unwrap();
    assert_eq!(free(&sealed.slots), 1);
    assert_eq!(sending.await.unwrap().location, "there");
    assert_eq!(free(&sealed.slots), 2);
    assert!(sealed.go_on("out/a", &sealed.file).await.is_none(), "only once");
}

#[tokio::test]
async fn an_export_hears_of_a_failure_before_its_destination_has_a_slot() {
    let sealed = Sealed::new().await;
    let others = [sealed.slots.take(HOST).await, sealed.slots.take(HOST).await];
    let (fail, failing) = tokio::sync::oneshot::channel::<()>();
    let mut going = sealed.begun.take().unwrap();
    going.sending = AbortOnDropHandle::new(tokio::spawn(async move {
        failing.await.unwrap();
        Some(Err(Error::new(Kind::AccessDenied, "sending a part", "it was told to fail")))
    }));
    *sealed.begun.going.lock().unwrap() = Some(going);
    let mut sending = Box::pin(sealed.go_on("out/a", &sealed.file));
    assert!(sending.as_mut().now_or_never().is_none(), "a part is under way");
    fail.send(()).unwrap();
    let sending = timeout(A_WHILE, sending).await.expect("it needs no slot").unwrap();
    assert_eq!(sending.await.unwrap_err().kind, Kind::AccessDenied);
    drop(others);
    assert_eq!(free(&sealed.slots), 2, "nobody has taken one");
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_stopped_and_holds_nothing() {
    for why in ["another name", "other bytes", "lost by the service", "not sealed", "ended"] {
        let mut sealed = Sealed::new().await;
        let mut file = sealed.file.clone();
        let mut target = "out/a";
        // It holds a slot, as one whose part is under way does.
        let slot = sealed.slots.take(HOST).await;
        let (stopped, has_stopped) = tokio::sync::oneshot::channel::<()>();
        let sending = tokio::spawn(async move {
            let _held = (slot, stopped);
            std::future::pending().await
        });
        let mut going = sealed.begun.take().unwrap();
        going.sending = AbortOnDropHandle::new(sending);
        match why {
            "another name" => target = "out/b",
            "other bytes" => file.digests = sealed.bench.input("b", b"others").await.file.digests,
            "lost by the service" => sealed.begun.state.note(|noted| *noted = None),
            "not sealed" => sealed.begun.sealed = OnceLock::new(),
            _ => {
                going.sending.abort();
                tokio::task::yield_now().await;
            }
        }
        *sealed.begun.going.lock().unwrap() = Some(going);
        assert!(sealed.go_on(target, &file).await.is_none(), "{why}");
        assert_eq!(free(&sealed.slots), 2, "{why}");
        assert!(has_stopped.now_or_never().is_some_and(|sent| sent.is_err()), "{why}");
    }
}

#[tokio::test]
async fn what_somebody_may_go_on_with_is_not_aborted() {
    let begun = || {
        let state = State::default();
        state.note(|noted| *noted = Some(open()));
        state.holder.send_replace(Some(Arc::new(MemoryJournal::default())));
        state
    };
    let state = begun();
    assert_eq!(state.forsaken(), Some(open()), "the import's");
    assert!(state.open().is_none(), "it cannot be sealed any more");
    let sealed = begun();
    sealed.seal();
    assert_eq!(sealed.forsaken(), None, "whoever claims the export");
    let taken = begun();
    taken.seal();
    taken.hand_over(&(Arc::new(MemoryJournal::default()) as _), &Progress::default());
    assert_eq!(taken.forsaken(), None, "the export's");
}

#[tokio::test]
async fn a_part_that_grows_is_counted_once() {
    let slots = HostSlots::new(2);
    let state = Arc::new(State::default());
    state.place.set(place(&slots)).unwrap();
    state.holder.send_replace(Some(Arc::new(MemoryJournal::default())));
    let relay = Relay(Arc::clone(&state));
    relay.opened(&open()).await.unwrap();
    assert!(is_admitted(state.place.get().unwrap(), 20));
    for (size, is_under_way) in [(10, true), (15, true), (20, false)] {
        relay.part("out/a", 1, &Part { size, etag: String::new(), checksum: None }).await.unwrap();
        assert_eq!(free(&slots) == 1, is_under_way, "{size}");
    }
}

#[tokio::test]
async fn an_export_that_another_process_runs_is_not_waited_for() {
    let scene = Scene::new(Arc::new(MemoryStore::new())).await;
    let made = scene.job("in; out: in").await;
    let out = made.task("out");
    let import = scene.claim_one().await;
    scene.finish(&import).await;
    let gone = |is_here| timeout(A_WHILE, gone_elsewhere(&*scene.store, out, move || is_here));
    assert!(gone(false).await.is_err(), "anybody may claim it");
    let export = scene.claim_one().await;
    let began = Instant::now();
    let (elsewhere, here) = tokio::join!(gone(false), gone(true));
    assert!(elsewhere.is_ok() && here.is_err(), "it is waited for where it runs: {:?}", began.elapsed());
    scene.fail(&export).await;
    assert!(gone(false).await.is_ok(), "it has ended");
}
