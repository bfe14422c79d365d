//! Webhooks: the outbox, deliveries, who may send what, and how it went.

use std::time::Duration;

use super::{Made, Scene, cases};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, JobId, UserId, WebhookId};
use crate::model::{Delivery, DeliveryAttempt, DeliveryState, EventKind, Page, Webhook};
use crate::store::{
    AttemptEnd, Creation, Deletion, DeliveryClaim, DeliveryFilter, NewDelivery, NewWebhook, OutboxLine, Parcel,
    Receiver, Recipient, Redelivery,
};

cases!(
    webhooks_are_made_listed_and_removed_by_their_owner,
    a_creation_that_is_run_again_makes_no_second_webhook,
    nothing_is_written_for_nobody,
    each_event_is_told_once,
    lines_are_taken_for_a_while,
    a_job_of_its_own_address_tells_only_its_end,
    who_is_gone_by_then_is_told_nothing,
    a_job_stays_until_its_end_is_told,
    a_claim_is_a_lease,
    one_receiver_does_not_fill_a_claim,
    attempts_are_recorded_and_show_in_the_log,
    a_webhook_that_is_gone_is_told_nothing_more,
    what_ended_is_delivered_again_and_expires,
);

const ALL: [EventKind; 3] = EventKind::ALL;
const PAGE: Page = Page { number: 1, size: 100 };

fn new_hook(scene: &Scene, user: UserId, events: &[EventKind]) -> NewWebhook {
    let secret = DeliveryId::new(scene.now()).0.as_bytes().to_vec();
    NewWebhook { user_id: user, url: b"sealed url".to_vec(), events: events.to_vec(), secret }
}

async fn hook_of(scene: &Scene, user: UserId, events: &[EventKind]) -> Webhook {
    scene.store.create_webhook(new_hook(scene, user, events), 10, scene.now()).await.unwrap().expect("there is room")
}

async fn hook(scene: &Scene) -> Webhook {
    hook_of(scene, scene.user, &ALL).await
}

async fn lines(scene: &Scene) -> Vec<OutboxLine> {
    scene.store.outbox(100).await.unwrap()
}

fn to(webhook: &Webhook, scene: &Scene) -> NewDelivery {
    NewDelivery { id: DeliveryId::new(scene.now()), to: Recipient::Webhook(webhook.id), body: b"sealed body".to_vec() }
}

/// Makes one delivery to this webhook of each line.
async fn tell_all(scene: &Scene, webhook: &Webhook) {
    for line in lines(scene).await {
        assert!(scene.store.tell(line, vec![to(webhook, scene)], scene.now()).await.unwrap());
    }
}

/// A webhook and so many deliveries to it that are due.
async fn backlog(scene: &Scene, user: UserId, count: usize) -> Webhook {
    let webhook = hook_of(scene, user, &[EventKind::JobCreated]).await;
    for _ in 0..count {
        scene.job_of(user, "a").await;
    }
    tell_all(scene, &webhook).await;
    webhook
}

fn wish(scene: &Scene, max: u32) -> DeliveryClaim {
    DeliveryClaim {
        max,
        per_receiver_max: 2,
        per_user_max: 5,
        sending: Vec::new(),
        lease_until: scene.now().plus(Duration::from_mins(1)),
        now: scene.now(),
    }
}

async fn claim(scene: &Scene) -> Vec<Parcel> {
    scene.store.claim_deliveries(wish(scene, 100)).await.unwrap()
}

async fn claim_one(scene: &Scene) -> Parcel {
    let mut parcels = claim(scene).await;
    assert_eq!(parcels.len(), 1, "one is due: {parcels:?}");
    parcels.remove(0)
}

fn attempt(parcel: &Parcel, status: Option<u16>, at: Timestamp) -> DeliveryAttempt {
    let error = (status != Some(200)).then(|| "It did not work.".to_owned());
    DeliveryAttempt { number: parcel.number, at, status, error, duration_ms: 12 }
}

async fn end(scene: &Scene, parcel: &Parcel, status: Option<u16>, end: AttemptEnd) -> bool {
    let attempt = attempt(parcel, status, scene.now());
    scene.store.end_attempt(parcel.id, attempt, end, scene.now()).await.unwrap()
}

async fn log(scene: &Scene, webhook: &Webhook) -> Vec<Delivery> {
    let filter = DeliveryFilter::Webhook(webhook.id);
    scene.store.deliveries(webhook.user_id, filter, PAGE).await.unwrap().expect("there is such a webhook").0
}

async fn read(scene: &Scene, id: WebhookId) -> Webhook {
    let mut all = scene.store.webhooks(scene.user).await.unwrap();
    all.retain(|webhook| webhook.id == id);
    all.pop().expect("there is such a webhook")
}

async fn webhooks_are_made_listed_and_removed_by_their_owner(scene: Scene) {
    let (first, second) = (hook(&scene).await, hook_of(&scene, scene.user, &[EventKind::JobFailed]).await);
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    assert_eq!((first.events.as_slice(), first.url.as_slice()), (&ALL[..], &b"sealed url"[..]));
    assert_eq!((first.disabled, first.failing, first.created_at), (false, false, scene.now()));
    assert_eq!(scene.store.webhooks(scene.user).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(scene.store.webhooks(eve).await.unwrap(), []);
    let new = NewWebhook { user_id: scene.user, url: vec![1], events: vec![], secret: vec![2] };
    assert_eq!(scene.store.create_webhook(new, 2, scene.now()).await.unwrap(), None, "there are two already");
    assert!(!scene.store.delete_webhook(eve, second.id).await.unwrap());
    assert!(scene.store.delete_webhook(scene.user, second.id).await.unwrap());
    assert!(!scene.store.delete_webhook(scene.user, second.id).await.unwrap());
    assert_ne!(hook(&scene).await.id, second.id, "numbers are not given twice");
}

async fn a_creation_that_is_run_again_makes_no_second_webhook(scene: Scene) {
    let new = new_hook(&scene, scene.user, &ALL);
    let made = scene.store.create_webhook(new.clone(), 1, scene.now()).await.unwrap().expect("there is room");
    scene.wait(1);
    // The answer was lost after the commit. There would be no room for another one.
    let again = scene.store.create_webhook(new.clone(), 1, scene.now()).await.unwrap();
    assert_eq!(again, Some(made.clone()));
    assert_eq!(scene.store.webhooks(scene.user).await.unwrap(), std::slice::from_ref(&made));
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let hers = scene.store.create_webhook(NewWebhook { user_id: eve, ..new }, 1, scene.now()).await.unwrap();
    assert_ne!(hers.expect("there is room").id, made.id, "nobody is given another user's");
}

async fn nothing_is_written_for_nobody(scene: Scene) {
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    hook_of(&scene, eve, &ALL).await;
    scene.job("a").await;
    scene.run_all(&[]).await;
    assert_eq!(lines(&scene).await, [], "only somebody else has a webhook");
}

async fn events_of(scene: &Scene, made: &Made) -> Vec<EventKind> {
    let lines = scene.store.outbox_of(made.id).await.unwrap();
    assert!(lines.iter().all(|line| line.user_id == scene.user && line.job_id == made.id), "{lines:?}");
    lines.iter().map(|line| line.event).collect()
}

async fn each_event_is_told_once(scene: Scene) {
    let webhook = hook(&scene).await;
    let (good, bad, cancelled) = (scene.job("a; b: a").await, scene.job("a; b: a").await, scene.job("a; b: a").await);
    scene.store.hints().outbox().await;
    assert_eq!(events_of(&scene, &good).await, [EventKind::JobCreated]);
    scene.wait(1);
    for task in cancelled.tasks.values() {
        scene.store.cancel(scene.user, *task, scene.now()).await.unwrap();
    }
    scene.run_all(&[bad.task("a")]).await;
    assert_eq!(events_of(&scene, &good).await, [EventKind::JobCreated, EventKind::JobFinished]);
    assert_eq!(events_of(&scene, &bad).await, [EventKind::JobCreated, EventKind::JobFailed]);
    assert_eq!(events_of(&scene, &cancelled).await, [EventKind::JobCreated, EventKind::JobFailed]);
    assert_eq!(lines(&scene).await.len(), 6);
    assert_eq!(scene.store.outbox(2).await.unwrap().len(), 2);
    scene.wait(4);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().oldest_event_secs, 5);

    let line = lines(&scene).await[0];
    assert!(scene.store.tell(line, vec![to(&webhook, &scene)], scene.now()).await.unwrap());
    scene.store.hints().deliveries().await;
    assert!(!scene.store.tell(line, vec![to(&webhook, &scene)], scene.now()).await.unwrap(), "it was told");
    assert_eq!(log(&scene, &webhook).await.len(), 1);
    assert_eq!(lines(&scene).await.len(), 5);
}

async fn lines_are_taken_for_a_while(scene: Scene) {
    let webhook = hook_of(&scene, scene.user, &[EventKind::JobCreated]).await;
    for _ in 0..3 {
        scene.wait(1);
        scene.job("a").await;
    }
    let all = lines(&scene).await;
    let take = async |limit: u32, now: Timestamp| {
        scene.store.take_outbox(limit, now, now.plus(Duration::from_secs(10))).await.unwrap()
    };
    let now = scene.now();
    assert_eq!(take(2, now).await, all[..2], "the oldest");
    assert_eq!(take(2, now).await, all[2..], "the others have been taken");
    assert_eq!(take(2, now).await, []);
    assert_eq!(lines(&scene).await, all, "they are still to be told");
    assert!(scene.store.tell(all[0], vec![to(&webhook, &scene)], now).await.unwrap());
    assert!(scene.store.tell(all[2], vec![], now).await.unwrap(), "by whomever");
    assert_eq!(take(9, now.plus(Duration::from_secs(9))).await, []);
    assert_eq!(take(9, now.plus(Duration::from_secs(10))).await, all[1..2], "whoever had it has died");
}

async fn a_job_of_its_own_address_tells_only_its_end(scene: Scene) {
    let mut new = scene.new_job(scene.user, "a");
    new.job.webhook_url = Some("sealed".to_owned());
    let id = new.job.id;
    assert_eq!(scene.store.create_job(new).await.unwrap(), Creation::Created);
    assert_eq!(lines(&scene).await, []);
    scene.run_all(&[]).await;
    let line = lines(&scene).await[0];
    assert_eq!((line.job_id, line.event), (id, EventKind::JobFinished));
    let own = Recipient::Job { url: b"sealed url".to_vec(), host: -7 };
    let delivery = NewDelivery { id: DeliveryId::new(scene.now()), to: own, body: b"body".to_vec() };
    assert!(scene.store.tell(line, vec![delivery.clone()], scene.now()).await.unwrap());
    let parcel = claim_one(&scene).await;
    assert_eq!((parcel.id, parcel.number, parcel.tries), (delivery.id, 1, 1));
    assert_eq!((parcel.url.as_slice(), parcel.body.as_slice()), (&b"sealed url"[..], &b"body"[..]));
    assert_eq!((parcel.secret.as_deref(), parcel.receiver), (None, Receiver { user_id: scene.user, number: -7 }));
    assert!(end(&scene, &parcel, Some(410), AttemptEnd::Gone).await);
    let (found, _) = scene.store.deliveries(scene.user, DeliveryFilter::Job(id), PAGE).await.unwrap().unwrap();
    assert_eq!((found[0].webhook_id, found[0].state), (None, DeliveryState::Failed));
}

async fn who_is_gone_by_then_is_told_nothing(scene: Scene) {
    let (webhook, other) = (hook(&scene).await, hook(&scene).await);
    let made = scene.job("a").await;
    assert!(scene.store.delete_webhook(scene.user, webhook.id).await.unwrap());
    let both = vec![to(&webhook, &scene), to(&other, &scene)];
    assert!(scene.store.tell(lines(&scene).await[0], both, scene.now()).await.unwrap());
    let filter = DeliveryFilter::Job(made.id);
    let (found, _) = scene.store.deliveries(scene.user, filter, PAGE).await.unwrap().unwrap();
    assert_eq!(found.iter().map(|delivery| delivery.webhook_id).collect::<Vec<_>>(), [Some(other.id)]);
    assert!(scene.store.delete_webhook(scene.user, other.id).await.unwrap());
    assert!(claim(&scene).await.is_empty(), "its deliveries went with it");
    let nothing = scene.store.deliveries(scene.user, DeliveryFilter::Webhook(other.id), PAGE).await.unwrap();
    assert_eq!(nothing, None);
}

async fn a_job_stays_until_its_end_is_told(scene: Scene) {
    let webhook = hook(&scene).await;
    let made = scene.job("a; b: a").await;
    scene.wait(1);
    let delete = async || scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap();
    assert_eq!(delete().await, Deletion::Untold);
    assert_eq!(delete().await, Deletion::Untold);
    assert_eq!(scene.states(&made).await, "error: a error CANCELLED, b error CANCELLED");
    assert_eq!(events_of(&scene, &made).await, [EventKind::JobCreated, EventKind::JobFailed], "once");
    scene.wait(10);
    assert_eq!(scene.store.expire(scene.now(), 10, 100, scene.now()).await.unwrap(), 0, "nor does it expire");
    tell_all(&scene, &webhook).await;
    assert_eq!(delete().await, Deletion::Done);
    assert_eq!(delete().await, Deletion::NotFound);
    assert_eq!(log(&scene, &webhook).await.len(), 2, "what is told outlives the job");
    assert_eq!(claim(&scene).await.len(), 2);

    let other = scene.job("a").await;
    scene.run_all(&[]).await;
    tell_all(&scene, &webhook).await;
    scene.wait(1);
    assert_eq!(scene.store.expire(scene.now(), 10, 100, scene.now()).await.unwrap(), 1);
    assert_eq!(scene.store.job(scene.user, other.id).await.unwrap(), None);
    let known = scene.store.deliveries(scene.user, DeliveryFilter::Job(other.id), PAGE).await.unwrap();
    assert_eq!(known.unwrap().0.len(), 2);
    let unknown = DeliveryFilter::Job(JobId::new(scene.now()));
    assert_eq!(scene.store.deliveries(scene.user, unknown, PAGE).await.unwrap(), None);
}

async fn a_claim_is_a_lease(scene: Scene) {
    let webhook = backlog(&scene, scene.user, 1).await;
    assert_eq!(scene.store.next_delivery().await.unwrap(), Some(scene.now()));
    let parcel = claim_one(&scene).await;
    assert_eq!((parcel.number, parcel.secret.as_deref()), (1, Some(webhook.secret.as_slice())));
    assert!(claim(&scene).await.is_empty(), "somebody is at it");
    assert_eq!(scene.store.next_delivery().await.unwrap(), Some(scene.now().plus(Duration::from_mins(1))));
    scene.wait(61);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().oldest_delivery_secs, 1);
    let again = claim_one(&scene).await;
    assert_eq!((again.id, again.number, &again.body), (parcel.id, 2, &parcel.body));
    assert!(!end(&scene, &parcel, Some(200), AttemptEnd::Delivered).await, "the lease was lost");
    assert_eq!(log(&scene, &webhook).await[0].attempts, []);
    scene.store.release_deliveries(scene.now()).await.unwrap();
    let third = claim_one(&scene).await;
    assert_eq!(third.number, 3);
    assert!(end(&scene, &third, Some(200), AttemptEnd::Delivered).await);
    assert!(!end(&scene, &third, Some(200), AttemptEnd::Delivered).await, "it has ended");
    assert_eq!(scene.store.next_delivery().await.unwrap(), None);
}

async fn one_receiver_does_not_fill_a_claim(scene: Scene) {
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let slow = backlog(&scene, scene.user, 50).await;
    scene.wait(1);
    let fast = backlog(&scene, scene.user, 1).await;
    let hers = backlog(&scene, eve, 1).await;
    let number = |webhook: &Webhook| Receiver { user_id: webhook.user_id, number: i64::from(webhook.id.0) };
    let (slow, fast, hers) = (number(&slow), number(&fast), number(&hers));

    let mut wanted = wish(&scene, 4);
    let claimed = scene.store.claim_deliveries(wanted.clone()).await.unwrap();
    let mut receivers: Vec<Receiver> = claimed.iter().map(|parcel| parcel.receiver).collect();
    receivers.sort_unstable();
    assert_eq!(receivers, [slow, slow, fast, hers], "two of the one that has fifty");

    wanted.sending = receivers;
    assert!(scene.store.claim_deliveries(wanted.clone()).await.unwrap().is_empty(), "it has its share already");
    wanted.sending = vec![slow];
    assert_eq!(scene.store.claim_deliveries(wanted.clone()).await.unwrap().len(), 1);
    wanted.sending = vec![fast; 5];
    assert!(scene.store.claim_deliveries(wanted.clone()).await.unwrap().is_empty(), "so has the user");
    wanted.sending.clear();
    wanted.max = 1;
    assert_eq!(scene.store.claim_deliveries(wanted).await.unwrap().len(), 1);
}

async fn attempts_are_recorded_and_show_in_the_log(scene: Scene) {
    let webhook = backlog(&scene, scene.user, 1).await;
    let first = claim_one(&scene).await;
    let again_at = scene.now().plus(Duration::from_secs(30));
    assert!(end(&scene, &first, Some(500), AttemptEnd::Again(again_at)).await);
    assert!(read(&scene, webhook.id).await.failing);
    assert!(claim(&scene).await.is_empty(), "not yet");
    let shown = log(&scene, &webhook).await.remove(0);
    assert_eq!((shown.state, shown.due_at, shown.event), (DeliveryState::Pending, again_at, EventKind::JobCreated));
    assert_eq!(shown.attempts, [attempt(&first, Some(500), scene.now())]);
    scene.wait(30);
    let second = claim_one(&scene).await;
    assert_eq!((second.id, second.number, second.tries, &second.body), (first.id, 2, 2, &first.body));
    assert!(end(&scene, &second, Some(200), AttemptEnd::Delivered).await);
    assert!(!read(&scene, webhook.id).await.failing);
    let shown = log(&scene, &webhook).await.remove(0);
    assert_eq!((shown.state, shown.ended_at, shown.attempts.len()), (DeliveryState::Delivered, Some(scene.now()), 2));
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let filter = DeliveryFilter::Webhook(webhook.id);
    assert_eq!(scene.store.deliveries(eve, filter, PAGE).await.unwrap(), None);

    scene.job("a").await;
    tell_all(&scene, &webhook).await;
    let page = |number| scene.store.deliveries(scene.user, filter, Page { number, size: 1 });
    let (newest, more) = page(1).await.unwrap().unwrap();
    assert_eq!((newest[0].state, more), (DeliveryState::Pending, true));
    let (oldest, more) = page(2).await.unwrap().unwrap();
    assert_eq!((oldest[0].id, more), (first.id, false));
    assert_eq!(page(3).await.unwrap(), Some((Vec::new(), false)));
}

async fn a_webhook_that_is_gone_is_told_nothing_more(scene: Scene) {
    let webhook = backlog(&scene, scene.user, 3).await;
    let parcels = claim(&scene).await;
    assert_eq!(parcels.len(), 2);
    assert!(end(&scene, &parcels[0], Some(410), AttemptEnd::Gone).await);
    let shown = read(&scene, webhook.id).await;
    assert_eq!((shown.disabled, shown.failing), (true, true));
    assert!(!end(&scene, &parcels[1], Some(200), AttemptEnd::Delivered).await, "it was ended meanwhile");
    assert!(log(&scene, &webhook).await.iter().all(|delivery| delivery.state == DeliveryState::Failed));
    scene.wait(100);
    assert!(claim(&scene).await.is_empty());
    scene.job("a").await;
    assert_eq!(lines(&scene).await, [], "nobody listens any more");
    let again = scene.store.redeliver(scene.user, parcels[0].id, scene.now()).await.unwrap();
    assert_eq!(again, Redelivery::Disabled);
}

async fn what_ended_is_delivered_again_and_expires(scene: Scene) {
    let webhook = backlog(&scene, scene.user, 1).await;
    let first = claim_one(&scene).await;
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let again = async |user| scene.store.redeliver(user, first.id, scene.now()).await.unwrap();
    let Redelivery::Due(shown) = again(scene.user).await else { panic!("it is being sent") };
    assert_eq!(shown.due_at, scene.now().plus(Duration::from_mins(1)), "and stays with who sends it");
    assert!(end(&scene, &first, None, AttemptEnd::Failed).await);
    assert_eq!(again(eve).await, Redelivery::NotFound);
    scene.wait(5);
    let Redelivery::Due(shown) = again(scene.user).await else { panic!("it is there") };
    assert_eq!((shown.state, shown.due_at, shown.ended_at), (DeliveryState::Pending, scene.now(), None));
    assert_eq!(shown.attempts, [attempt(&first, None, scene.now().minus(Duration::from_secs(5)))]);
    let second = claim_one(&scene).await;
    assert_eq!((second.id, second.number, second.tries, &second.body), (first.id, 2, 1, &first.body));
    assert_eq!(scene.store.expire_deliveries(Timestamp(i64::MAX), 10).await.unwrap(), 0, "it is not at its end");
    assert!(end(&scene, &second, Some(200), AttemptEnd::Delivered).await);
    assert_eq!(scene.store.expire_deliveries(scene.now(), 10).await.unwrap(), 0, "not old enough");
    scene.wait(1);
    assert_eq!(scene.store.expire_deliveries(scene.now(), 10).await.unwrap(), 1);
    assert_eq!(log(&scene, &webhook).await, []);

    // Attempts are forgotten one by one, when there are very many.
    scene.job("a").await;
    tell_all(&scene, &webhook).await;
    for _ in 0..60 {
        let parcel = claim_one(&scene).await;
        assert!(end(&scene, &parcel, Some(500), AttemptEnd::Again(scene.now())).await);
    }
    let attempts = log(&scene, &webhook).await.remove(0).attempts;
    assert_eq!((attempts.len(), attempts[0].number, attempts[49].number), (50, 11, 60));
}
