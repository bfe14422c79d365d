//! What each command does, to both.

use std::time::Duration;

use connectors::OpenUpload;
use consign::clock::Timestamp;
use consign::id::{DeliveryId, TaskId, Token};
use consign::model::DeliveryAttempt;
use consign::store::{DeliveryClaim, NewDelivery, OutboxLine, Recipient, TaskProgress};
use consign::store::{Jobs as _, Webhooks as _};

use super::command::{Command, Deed, End, Ending, Make, Pick, Run, Tell};
use super::world::{World, chosen, file, part, upload};

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now.plus(Duration::from_secs(seconds.into()))
}

fn before(now: Timestamp, seconds: u32) -> Timestamp {
    now.minus(Duration::from_secs(seconds.into()))
}

fn target(number: u8) -> String {
    upload(number, 0).target
}

impl World {
    /// Does it; where there is nothing to do it to, nothing.
    pub(super) async fn follow(&mut self, command: Command) {
        match command {
            Command::Wait { seconds } => self.now = after(self.now, seconds),
            Command::Make(make) => self.make(make).await,
            Command::Run(run) => self.run(run).await,
            Command::End(ending) => self.end(ending).await,
            Command::Tell(tell) => self.tell(tell).await,
        }
    }

    async fn make(&mut self, make: Make) {
        match make {
            Make::Job { user, nodes, has_url, promise } => self.create_job(user, &nodes, has_url, promise).await,
            Make::Task { user, inputs, retries, promise } => self.create_task(user, &inputs, retries, promise).await,
            Make::SignedJob { user, nodes, cache_key } => {
                let new = self.new_job(self.user(user), &nodes, false, None);
                let (id, key) = (self.signed_url, format!("cache {cache_key}"));
                let made = self.both(async |store| store.create_signed_job(new.clone(), id, &key).await).await;
                if made == Some(new.job.id) {
                    self.note_job(&new.job);
                }
                self.same(async |store| store.signed_result(id, &key, self.now).await).await;
            }
            Make::Webhook { user } => self.create_webhook(user).await,
        }
    }

    async fn run(&mut self, run: Run) {
        let now = self.now;
        match run {
            Run::Claim { session, tasks_max, per_user_max } => drop(self.claim(session, tasks_max, per_user_max).await),
            Run::Hold { lease, token_of, deed } => self.hold(lease, token_of, deed).await,
            Run::OpenSession { is_exclusive } => self.open_session(is_exclusive).await,
            Run::CloseSession { session } => {
                let id = chosen(&self.sessions, session).expect("the first one stays");
                self.same(async |store| store.close_session(id, now).await).await;
            }
            Run::ExpireSessions { idle_seconds, attempts_max } => {
                let seen = before(now, idle_seconds);
                self.same(async |store| store.expire_sessions(seen, attempts_max, now).await).await;
            }
            Run::Heartbeat { session, leases, percent } => {
                let id = chosen(&self.sessions, session).expect("the first one stays");
                let leases = leases.iter().filter_map(|pick| chosen(&self.known.leases, *pick));
                let told: Vec<_> = leases.map(|(id, token)| TaskProgress { id, token, percent }).collect();
                self.same(async |store| store.heartbeat(id, &told, now).await).await;
            }
            Run::Aborted { lease, target: number } => {
                let Some((id, _)) = chosen(&self.known.leases, lease) else { return };
                self.same(async |store| store.ledger_aborted(id, &target(number)).await).await;
            }
            Run::ClaimAbort { lease, target: number, tries, seconds } => {
                let Some((id, _)) = chosen(&self.known.leases, lease) else { return };
                let (target, until) = (target(number), after(now, seconds));
                self.same(async |store| store.ledger_claim_abort(id, &target, tries, now, until).await).await;
            }
            Run::AbortFailed { lease, target: number, tries, seconds } => {
                let Some((id, _)) = chosen(&self.known.leases, lease) else { return };
                let (target, again_at) = (target(number), after(now, seconds));
                self.same(async |store| store.ledger_abort_failed(id, &target, tries, again_at).await).await;
            }
            Run::ReleaseDue => self.same(async |store| store.release_due(now).await).await,
            Run::ExpireUploads => self.same(async |store| store.expire_uploads(now).await).await,
            Run::TakeTurn { name, seconds } => {
                let (name, until) = (format!("turn {name}"), after(now, seconds));
                self.same(async |store| store.take_turn(&name, now, until).await).await;
            }
        }
    }

    async fn hold(&self, lease: Pick, token_of: Option<Pick>, deed: Deed) {
        let Some((id, own)) = chosen(&self.known.leases, lease) else { return };
        let other = token_of.and_then(|pick| chosen(&self.known.leases, pick));
        let (token, now): (Token, Timestamp) = (other.map_or(own, |(_, token)| token), self.now);
        match deed {
            Deed::Finish { files } => {
                let files: Vec<_> = (1..=u32::from(files)).map(|number| file(id, token, number)).collect();
                self.same(async |store| store.finish(id, token, &files, now).await).await;
            }
            Deed::Fail => self.same(async |store| store.fail(id, token, "CODE", "Words.", now).await).await,
            Deed::Delay { seconds } => {
                let until = after(now, seconds);
                self.same(async |store| store.delay(id, token, until, now).await).await;
            }
            Deed::GiveBack => self.same(async |store| store.give_back(id, token, now).await).await,
            Deed::OpenLine { waiting, target, parts } => {
                let id = waiting.and_then(|pick| chosen(&self.known.tasks, pick)).map_or(id, |(id, _)| id);
                let open = upload(target, parts);
                self.same(async |store| store.ledger_open(id, token, &open, now).await).await;
            }
            Deed::WritePart { waiting, target: of, number } => {
                let id = waiting.and_then(|pick| chosen(&self.known.tasks, pick)).map_or(id, |(id, _)| id);
                let (target, part) = (target(of), part(number));
                self.same(async |store| store.ledger_part(id, token, &target, number.into(), &part).await).await;
            }
            Deed::CloseLine { waiting, target: of } => {
                let id = waiting.and_then(|pick| chosen(&self.known.tasks, pick)).map_or(id, |(id, _)| id);
                let target = target(of);
                self.same(async |store| store.ledger_close(id, token, &target).await).await;
            }
            Deed::Seal { waiting, target, parts } => {
                let id = waiting.and_then(|pick| chosen(&self.known.tasks, pick)).map_or(id, |(id, _)| id);
                let open = OpenUpload { sha256: "cd".repeat(32), ..upload(target, parts) };
                self.same(async |store| store.ledger_seal(id, token, &open).await).await;
            }
            Deed::LookBehind => self.same(async |store| store.follower(id, token).await).await,
        }
    }

    async fn end(&mut self, ending: Ending) {
        let now = self.now;
        match ending {
            Ending::FinishUpload { task } => {
                let Some((id, _)) = chosen(&self.known.tasks, task) else { return };
                let came = file(id, Token(1), 1);
                self.same(async |store| store.finish_upload(id, &came, now).await).await;
            }
            Ending::Cancel { task, is_foreign } => {
                let Some((id, owner)) = chosen(&self.known.tasks, task) else { return };
                let user = self.whoever(owner, is_foreign);
                self.same(async |store| store.cancel(user, id, now).await).await;
            }
            Ending::DeleteTask { task, is_foreign } => {
                let Some((id, owner)) = chosen(&self.known.tasks, task) else { return };
                let user = self.whoever(owner, is_foreign);
                self.same(async |store| store.delete_task(user, id, now).await).await;
            }
            Ending::DeleteJob { job, is_foreign } => {
                let Some((id, owner)) = chosen(&self.known.jobs, job) else { return };
                let user = self.whoever(owner, is_foreign);
                self.same(async |store| store.delete_job(user, id, now).await).await;
            }
            Ending::Expire { seconds } => {
                self.same(async |store| store.expire(before(now, seconds), 1000, 1000, now).await).await;
            }
            Ending::TakeTrash { seconds } => {
                let until = after(now, seconds);
                self.same(async |store| {
                    let mut taken = store.take_trash(1000, now, until).await?;
                    taken.sort_unstable();
                    Ok(taken)
                })
                .await;
            }
            Ending::EmptyTrash { tasks } => {
                let mut trash: Vec<TaskId> = self.model.trash(u32::MAX).await.unwrap();
                trash.truncate(tasks as usize);
                self.same(async |store| store.trash_emptied(&trash).await).await;
            }
        }
    }

    async fn tell(&mut self, tell: Tell) {
        let now = self.now;
        match tell {
            Tell::DeleteWebhook { webhook, is_foreign } => {
                let Some((id, owner)) = chosen(&self.webhooks, webhook) else { return };
                let user = self.whoever(owner, is_foreign);
                self.same(async |store| store.delete_webhook(user, id).await).await;
            }
            Tell::Take { seconds } => {
                let until = after(now, seconds);
                self.same(async |store| {
                    let lines = store.take_outbox(1000, now, until).await?;
                    let mut taken: Vec<_> = lines.iter().map(|line| (line.job_id, line.event)).collect();
                    taken.sort_unstable();
                    Ok(taken)
                })
                .await;
            }
            Tell::Line { line, is_stale } => self.tell_line(line, is_stale).await,
            Tell::Claim { max, per_receiver_max, per_user_max } => {
                let lease_until = now.plus(Duration::from_secs(30));
                let sending = Vec::new();
                let claim = DeliveryClaim { max, per_receiver_max, per_user_max, sending, lease_until, now };
                self.claim_deliveries(claim).await;
            }
            Tell::EndAttempt { parcel, end } => self.end_attempt(parcel, end).await,
            Tell::Release => self.same(async |store| store.release_deliveries(now).await).await,
            Tell::Again { parcel, is_foreign } => {
                let Some((parcel, owner)) = chosen(&self.parcels, parcel) else { return };
                let user = self.whoever(owner, is_foreign);
                self.same(async |store| store.redeliver(user, parcel.id, now).await).await;
            }
            Tell::Expire { seconds } => {
                self.same(async |store| store.expire_deliveries(before(now, seconds), 1000).await).await;
            }
        }
    }

    /// Tells a line, by the id that each store gave it, to all webhooks, and to a job's own address.
    async fn tell_line(&mut self, pick: Pick, is_stale: bool) {
        let pair = if is_stale {
            chosen(&self.told, pick)
        } else {
            let sorted = |mut lines: Vec<OutboxLine>| {
                lines.sort_by_key(|line| (line.job_id, line.event));
                lines
            };
            let real = sorted(self.real.outbox(u32::MAX).await.unwrap());
            let model = sorted(self.model.outbox(u32::MAX).await.unwrap());
            chosen(&real, pick).zip(chosen(&model, pick))
        };
        let Some((real, model)) = pair else { return };
        self.told.push((real, model));
        let mut deliveries = Vec::new();
        for (webhook, _) in self.webhooks.clone() {
            let to = Recipient::Webhook(webhook);
            deliveries.push(NewDelivery { id: self.delivery_id(), to, body: b"sealed body".to_vec() });
        }
        let to = Recipient::Job { url: b"sealed address".to_vec(), host: -1 - i64::from(pick % 2) };
        deliveries.push(NewDelivery { id: self.delivery_id(), to, body: b"sealed body".to_vec() });
        let by_real = self.real.tell(real, deliveries.clone(), self.now).await.unwrap();
        let by_model = self.model.tell(model, deliveries, self.now).await.unwrap();
        assert_eq!(by_real, by_model, "telling: the database, then the model");
    }

    /// The database chooses; the model says whether it may.
    async fn claim_deliveries(&mut self, claim: DeliveryClaim) {
        let parcels = self.real.claim_deliveries(claim.clone()).await.unwrap();
        let ids: Vec<DeliveryId> = parcels.iter().map(|parcel| parcel.id).collect();
        let expected = self.model.follow_deliveries(&claim, &ids).unwrap();
        assert_eq!(format!("{parcels:#?}"), format!("{expected:#?}"), "parcels: the database's, then the model's");
        self.parcels.extend(parcels.into_iter().map(|parcel| (parcel.clone(), parcel.receiver.user_id)));
    }

    async fn end_attempt(&self, parcel: Pick, end: End) {
        let Some((parcel, _)) = chosen(&self.parcels, parcel) else { return };
        let attempt = DeliveryAttempt {
            number: parcel.number,
            at: self.now,
            status: Some(200),
            error: Some("words".to_owned()),
            duration_ms: 7,
        };
        let (end, now) = (end.at(self.now), self.now);
        self.same(async |store| store.end_attempt(parcel.id, attempt.clone(), end, now).await).await;
    }
}
