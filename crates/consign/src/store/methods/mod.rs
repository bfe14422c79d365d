//! The store's methods, written once: each database includes this folder, and says with its own `read!`, `command!`,
//! `beat!`, `beat_read!`, `create_job!`, `claim!` and `finish!` how a statement is run.

use async_trait::async_trait;
use connectors::{OpenUpload, Part};

use super::{Database, queries};
use crate::clock::Timestamp;
use crate::id::{JobId, SessionId, SignedUrlId, TaskId, Token, UserId};
use crate::model::{ApiKey, BlobKey, File, Follower, Job, LedgerEntry, Page, SignedUrl, State, Task, User};
use crate::store::{
    Accounts, Applied, Cancellation, Claim, ClaimRequest, Creation, Deletion, Expired, Heartbeat, JobFilter, Jobs,
    Ledger, NewJob, NewKey, NewTask, Result, SignedUrls, TaskFilter, TaskProgress, Transitions,
};

mod webhooks;

#[async_trait]
impl Accounts for Database {
    async fn ensure_user(&self, name: &str, now: Timestamp) -> Result<User> {
        let name = name.to_owned();
        command!(self, [name] accounts::ensure_user(&name, now))
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        read!(self, accounts::user(id))
    }

    async fn create_key(&self, key: NewKey, now: Timestamp) -> Result<Option<ApiKey>> {
        command!(self, [key] accounts::create_key(&key, now))
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<(ApiKey, User)>> {
        read!(self, accounts::key_by_hash(hash))
    }

    async fn list_keys(&self) -> Result<Vec<(ApiKey, User)>> {
        read!(self, accounts::list_keys())
    }

    async fn revoke_key(&self, name: &str, now: Timestamp) -> Result<bool> {
        let name = name.to_owned();
        command!(self, [name] accounts::revoke_key(&name, now))
    }
}

#[async_trait]
impl Jobs for Database {
    async fn create_job(&self, new: NewJob) -> Result<Creation> {
        create_job!(self, new)
    }

    async fn create_task(&self, new: NewTask) -> Result<Creation> {
        command!(self, [new] jobs::create_task(&new))
    }

    async fn replay(
        &self,
        user: UserId,
        key: &str,
        request_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Creation>> {
        read!(self, jobs::replay(user, key, request_hash, now))
    }

    async fn job(&self, user: UserId, id: JobId) -> Result<Option<Job>> {
        read!(self, jobs::job(user, id))
    }

    async fn jobs(&self, user: UserId, ids: &[JobId]) -> Result<Vec<Job>> {
        read!(self, lists::jobs(user, ids))
    }

    async fn list_jobs(&self, filter: &JobFilter, page: Page) -> Result<(Vec<Job>, bool)> {
        read!(self, lists::list_jobs(filter, page))
    }

    async fn task(&self, user: UserId, id: TaskId) -> Result<Option<Task>> {
        read!(self, jobs::task(Some(user), id))
    }

    async fn task_of_link(&self, id: TaskId) -> Result<Option<Task>> {
        read!(self, jobs::task(None, id))
    }

    async fn linked_file(&self, id: TaskId, number: u32) -> Result<Option<(Task, Option<File>)>> {
        read!(self, jobs::linked_file(id, number))
    }

    async fn tasks(&self, user: UserId, ids: &[TaskId]) -> Result<Vec<Task>> {
        read!(self, lists::tasks(user, ids))
    }

    async fn list_tasks(&self, filter: &TaskFilter, page: Page) -> Result<(Vec<Task>, bool)> {
        read!(self, lists::list_tasks(filter, page))
    }

    async fn retries(&self, user: UserId, id: TaskId) -> Result<Vec<Task>> {
        read!(self, lists::retries(user, id))
    }

    async fn payload(&self, id: TaskId) -> Result<Option<Vec<u8>>> {
        read!(self, jobs::payload(id))
    }

    async fn trash(&self, limit: u32) -> Result<Vec<TaskId>> {
        read!(self, sweep::trash(limit))
    }

    async fn take_trash(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<TaskId>> {
        command!(self, [] sweep::take_trash(limit, now, until))
    }

    async fn trash_emptied(&self, ids: &[TaskId]) -> Result<()> {
        let ids = ids.to_vec();
        command!(self, [ids] sweep::trash_emptied(&ids))
    }

    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, State, Vec<BlobKey>)>> {
        read!(self, lists::blobs(ids))
    }
}

#[async_trait]
impl Transitions for Database {
    async fn session_time(&self, own: Timestamp) -> Result<Timestamp> {
        beat_read!(self, sessions::time(own))
    }

    async fn open_session(&self, id: SessionId, host_name: &str, exclusive: bool, now: Timestamp) -> Result<()> {
        let host_name = host_name.to_owned();
        command!(self, [host_name] sessions::open(id, &host_name, exclusive, now))
    }

    async fn heartbeat(&self, id: SessionId, progress: &[TaskProgress], now: Timestamp) -> Result<Heartbeat> {
        let progress = progress.to_vec();
        // A crash of the database may take back a percentage; whoever keeps the lease tells it again with the next one.
        beat!(self, [progress] sessions::heartbeat(id, &progress, now))
    }

    async fn close_session(&self, id: SessionId, now: Timestamp) -> Result<()> {
        command!(self, [] sessions::close(id, now))
    }

    async fn expire_sessions(&self, seen_before: Timestamp, attempts_max: u32, now: Timestamp) -> Result<Expired> {
        command!(self, [] sessions::expire(seen_before, attempts_max, now))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        claim!(self, *request)
    }

    async fn holds(&self, id: TaskId, token: Token) -> Result<bool> {
        read!(self, transitions::holds(id, token))
    }

    async fn leases(&self, id: SessionId) -> Result<Vec<(TaskId, Token)>> {
        read!(self, sessions::leases(id))
    }

    async fn finish(&self, id: TaskId, token: Token, files: &[File], now: Timestamp) -> Result<Applied> {
        finish!(self, id, token, files.to_vec(), now)
    }

    async fn fail(&self, id: TaskId, token: Token, code: &str, message: &str, now: Timestamp) -> Result<Applied> {
        let (code, message) = (code.to_owned(), message.to_owned());
        command!(self, [code, message] transitions::fail(id, token, &code, &message, now))
    }

    async fn delay(&self, id: TaskId, token: Token, until: Timestamp, _now: Timestamp) -> Result<Applied> {
        command!(self, [] transitions::delay(id, token, until))
    }

    async fn give_back(&self, id: TaskId, token: Token, now: Timestamp) -> Result<Applied> {
        command!(self, [] transitions::give_back(id, token, now))
    }

    async fn release_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        command!(self, [] transitions::release_due(now))
    }

    async fn finish_upload(&self, id: TaskId, file: &File, now: Timestamp) -> Result<Applied> {
        let file = file.clone();
        command!(self, [file] transitions::finish_upload(id, &file, now))
    }

    async fn expire_uploads(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        command!(self, [] transitions::expire_uploads(now))
    }

    async fn cancel(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<Cancellation> {
        command!(self, [] transitions::cancel(user, id, now))
    }

    async fn delete_task(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<bool> {
        command!(self, [] sweep::delete_task(user, id, now))
    }

    async fn delete_job(&self, user: UserId, id: JobId, now: Timestamp) -> Result<Deletion> {
        command!(self, [] sweep::delete_job(user, id, now))
    }

    async fn expire(&self, ended_before: Timestamp, limit: u32, tasks_max: u32, now: Timestamp) -> Result<u64> {
        command!(self, [] sweep::expire(ended_before, limit, tasks_max, now))
    }
}

#[async_trait]
impl Ledger for Database {
    async fn follower(&self, id: TaskId, token: Token) -> Result<Option<Follower>> {
        read!(self, ledger::follower(id, token))
    }

    async fn ledger_open(&self, id: TaskId, token: Token, open: &OpenUpload, now: Timestamp) -> Result<bool> {
        let open = open.clone();
        command!(self, [open] ledger::open(id, token, &open, now))
    }

    async fn ledger_seal(&self, id: TaskId, token: Token, open: &OpenUpload) -> Result<bool> {
        let open = open.clone();
        command!(self, [open] ledger::seal(id, token, &open))
    }

    async fn ledger_part(&self, id: TaskId, token: Token, target: &str, number: u32, part: &Part) -> Result<bool> {
        let (target, part) = (target.to_owned(), part.clone());
        command!(self, [target, part] ledger::write_part(id, token, &target, number, &part))
    }

    async fn ledger_close(&self, id: TaskId, token: Token, target: &str) -> Result<bool> {
        let target = target.to_owned();
        command!(self, [target] ledger::close(id, token, &target))
    }

    async fn ledger_aborted(&self, id: TaskId, target: &str) -> Result<()> {
        let target = target.to_owned();
        command!(self, [target] ledger::aborted(id, &target))
    }

    async fn ledger_orphans(&self, now: Timestamp, limit: u32) -> Result<Vec<LedgerEntry>> {
        read!(self, ledger::orphans(now, limit))
    }

    async fn ledger_claim_abort(
        &self,
        id: TaskId,
        target: &str,
        tries: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool> {
        let target = target.to_owned();
        command!(self, [target] ledger::claim_abort(id, &target, tries, now, until))
    }

    async fn ledger_abort_failed(&self, id: TaskId, target: &str, tries: u32, again_at: Timestamp) -> Result<()> {
        let target = target.to_owned();
        command!(self, [target] ledger::abort_failed(id, &target, tries, again_at))
    }
}

#[async_trait]
impl SignedUrls for Database {
    async fn create_signed_url(&self, new: SignedUrl) -> Result<bool> {
        command!(self, [new] signed_urls::create(&new))
    }

    async fn signed_url(&self, id: SignedUrlId) -> Result<Option<SignedUrl>> {
        read!(self, signed_urls::find(id))
    }

    async fn list_signed_urls(&self) -> Result<Vec<(SignedUrl, User)>> {
        read!(self, signed_urls::list())
    }

    async fn revoke_signed_url(&self, name: &str, now: Timestamp) -> Result<bool> {
        let name = name.to_owned();
        command!(self, [name] signed_urls::revoke(&name, now))
    }

    async fn signed_result(&self, id: SignedUrlId, cache_key: &str, now: Timestamp) -> Result<Option<JobId>> {
        read!(self, signed_urls::result(id, cache_key, now))
    }

    async fn create_signed_job(&self, new: NewJob, id: SignedUrlId, cache_key: &str) -> Result<Option<JobId>> {
        let cache_key = cache_key.to_owned();
        command!(self, [new, cache_key] signed_urls::create_signed_job(&new, id, &cache_key))
    }
}
