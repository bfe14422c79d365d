//! What can happen to a store, without ids: numbers choose among what is there when a command's turn comes.

use consign::store::AttemptEnd;
use proptest::prelude::*;

/// One of the things that are there, the newest first; taken modulo their number.
pub(super) type Pick = u8;

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// Time passes.
    Wait {
        seconds: u32,
    },
    Make(Make),
    Run(Run),
    End(Ending),
    Tell(Tell),
}

/// Something is made.
#[derive(Clone, Debug)]
pub(super) enum Make {
    Job { user: Pick, nodes: Vec<Node>, has_url: bool, promise: Option<Promise> },
    Task { user: Pick, inputs: Vec<Pick>, retries: Option<Pick>, promise: Option<Promise> },
    SignedJob { user: Pick, nodes: Vec<Node>, cache_key: u8 },
    Webhook { user: Pick },
}

/// Something that runners do.
#[derive(Clone, Debug)]
pub(super) enum Run {
    OpenSession {
        is_exclusive: bool,
    },
    CloseSession {
        session: Pick,
    },
    ExpireSessions {
        idle_seconds: u32,
        attempts_max: u32,
    },
    Heartbeat {
        session: Pick,
        leases: Vec<Pick>,
        percent: u8,
    },
    Claim {
        session: Pick,
        tasks_max: u32,
        per_user_max: u32,
    },
    /// The holder of a lease, or of one that was lost, does something. Sometimes with another's token.
    Hold {
        lease: Pick,
        token_of: Option<Pick>,
        deed: Deed,
    },
    /// An upload was aborted.
    Aborted {
        lease: Pick,
        target: u8,
    },
    ClaimAbort {
        lease: Pick,
        target: u8,
        tries: u32,
        seconds: u32,
    },
    AbortFailed {
        lease: Pick,
        target: u8,
        tries: u32,
        seconds: u32,
    },
    ReleaseDue,
    ExpireUploads,
    TakeTurn {
        name: u8,
        seconds: u32,
    },
}

/// Something that clients and sweeps do to what is there.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    FinishUpload { task: Pick },
    Cancel { task: Pick, is_foreign: bool },
    DeleteTask { task: Pick, is_foreign: bool },
    DeleteJob { job: Pick, is_foreign: bool },
    Expire { seconds: u32 },
    TakeTrash { seconds: u32 },
    EmptyTrash { tasks: u32 },
}

/// Something about webhooks.
#[derive(Clone, Debug)]
pub(super) enum Tell {
    DeleteWebhook {
        webhook: Pick,
        is_foreign: bool,
    },
    /// Somebody takes all of the outbox that nobody has.
    Take {
        seconds: u32,
    },
    /// A line of the outbox is told; or one that was told already, again.
    Line {
        line: Pick,
        is_stale: bool,
    },
    Claim {
        max: u32,
        per_receiver_max: u32,
        per_user_max: u32,
    },
    EndAttempt {
        parcel: Pick,
        end: End,
    },
    Release,
    Again {
        parcel: Pick,
        is_foreign: bool,
    },
    Expire {
        seconds: u32,
    },
}

/// A task of a job.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Which of the tasks before it are its inputs: one bit each.
    pub(super) inputs: u8,
    /// An input from elsewhere.
    pub(super) foreign: Option<Pick>,
    pub(super) ignores_error: bool,
    pub(super) is_upload: bool,
}

/// An idempotency key and what was asked with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub(super) key: u8,
    pub(super) request: u8,
}

/// What the holder of a lease does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Finish {
        files: u8,
    },
    Fail,
    Delay {
        seconds: u32,
    },
    GiveBack,
    /// `waiting`: on behalf of another task, which may wait for this one.
    OpenLine {
        waiting: Option<Pick>,
        target: u8,
        parts: u8,
    },
    WritePart {
        waiting: Option<Pick>,
        target: u8,
        number: u8,
    },
    CloseLine {
        waiting: Option<Pick>,
        target: u8,
    },
    /// The digest of an upload becomes known.
    Seal {
        waiting: Option<Pick>,
        target: u8,
        parts: u8,
    },
    LookBehind,
}

/// How an attempt at a delivery ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Delivered,
    Again { seconds: u32 },
    Failed,
    Gone,
}

impl End {
    pub(super) fn at(self, now: consign::clock::Timestamp) -> AttemptEnd {
        match self {
            Self::Delivered => AttemptEnd::Delivered,
            Self::Again { seconds } => AttemptEnd::Again(now.plus(std::time::Duration::from_secs(seconds.into()))),
            Self::Failed => AttemptEnd::Failed,
            Self::Gone => AttemptEnd::Gone,
        }
    }
}

/// The newest are chosen most often.
fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![3 => 0..3_u8, 2 => 0..8_u8, 1 => any::<u8>()]
}

fn seldom() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

/// Now and then a second, a minute, or more than anything is kept for.
fn seconds() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..3_u32, 4 => 20..90_u32, 1 => Just(90_000)]
}

fn promise() -> impl Strategy<Value = Option<Promise>> {
    let promise = (0..2_u8, 0..2_u8).prop_map(|(key, request)| Promise { key, request });
    prop::option::weighted(0.2, promise)
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node =
        (any::<u8>(), prop::option::weighted(0.15, pick()), prop::bool::weighted(0.3), prop::bool::weighted(0.15))
            .prop_map(|(inputs, foreign, ignores_error, is_upload)| Node { inputs, foreign, ignores_error, is_upload });
    prop::collection::vec(node, 1..7)
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        5 => (0..3_u8).prop_map(|files| Deed::Finish { files }),
        2 => Just(Deed::Fail),
        2 => seconds().prop_map(|seconds| Deed::Delay { seconds }),
        2 => Just(Deed::GiveBack),
        4 => (waiting(), 0..2_u8, 0..3_u8)
            .prop_map(|(waiting, target, parts)| Deed::OpenLine { waiting, target, parts }),
        3 => (waiting(), 0..2_u8, 0..4_u8)
            .prop_map(|(waiting, target, number)| Deed::WritePart { waiting, target, number }),
        2 => (waiting(), 0..2_u8).prop_map(|(waiting, target)| Deed::CloseLine { waiting, target }),
        2 => (waiting(), 0..2_u8, 0..3_u8).prop_map(|(waiting, target, parts)| Deed::Seal { waiting, target, parts }),
        2 => Just(Deed::LookBehind),
    ]
}

fn waiting() -> impl Strategy<Value = Option<Pick>> {
    prop::option::weighted(0.4, pick())
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Delivered),
        3 => seconds().prop_map(|seconds| End::Again { seconds }),
        1 => Just(End::Failed),
        1 => Just(End::Gone),
    ]
}

/// Any of them.
pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => making().prop_map(Command::Make),
        30 => running().prop_map(Command::Run),
        11 => ending().prop_map(Command::End),
        11 => telling().prop_map(Command::Tell),
        6 => seconds().prop_map(|seconds| Command::Wait { seconds }),
    ]
}

fn making() -> impl Strategy<Value = Make> {
    prop_oneof![
        6 => (pick(), nodes(), prop::bool::weighted(0.3), promise())
            .prop_map(|(user, nodes, has_url, promise)| Make::Job { user, nodes, has_url, promise }),
        2 => (pick(), prop::collection::vec(pick(), 0..3), prop::option::weighted(0.2, pick()), promise())
            .prop_map(|(user, inputs, retries, promise)| Make::Task { user, inputs, retries, promise }),
        1 => (pick(), nodes(), 0..2_u8)
            .prop_map(|(user, nodes, cache_key)| Make::SignedJob { user, nodes, cache_key }),
        2 => pick().prop_map(|user| Make::Webhook { user }),
    ]
}

fn running() -> impl Strategy<Value = Run> {
    prop_oneof![
        8 => (pick(), 1..5_u32, 1..6_u32)
            .prop_map(|(session, tasks_max, per_user_max)| Run::Claim { session, tasks_max, per_user_max }),
        14 => (pick(), prop::option::weighted(0.1, pick()), deed())
            .prop_map(|(lease, token_of, deed)| Run::Hold { lease, token_of, deed }),
        2 => (pick(), prop::collection::vec(pick(), 0..3), 0..120_u8)
            .prop_map(|(session, leases, percent)| Run::Heartbeat { session, leases, percent }),
        2 => Just(Run::ReleaseDue),
        1 => Just(Run::ExpireUploads),
        1 => (0..2_u8, seconds()).prop_map(|(name, seconds)| Run::TakeTurn { name, seconds }),
        2 => seldom().prop_map(|is_exclusive| Run::OpenSession { is_exclusive }),
        1 => pick().prop_map(|session| Run::CloseSession { session }),
        1 => (0..60_u32, 1..4_u32)
            .prop_map(|(idle_seconds, attempts_max)| Run::ExpireSessions { idle_seconds, attempts_max }),
        1 => (pick(), 0..2_u8).prop_map(|(lease, target)| Run::Aborted { lease, target }),
        1 => (pick(), 0..2_u8, 0..2_u32, seconds())
            .prop_map(|(lease, target, tries, seconds)| Run::ClaimAbort { lease, target, tries, seconds }),
        1 => (pick(), 0..2_u8, 0..2_u32, seconds())
            .prop_map(|(lease, target, tries, seconds)| Run::AbortFailed { lease, target, tries, seconds }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => pick().prop_map(|task| Ending::FinishUpload { task }),
        4 => (pick(), seldom()).prop_map(|(task, is_foreign)| Ending::Cancel { task, is_foreign }),
        2 => (pick(), seldom()).prop_map(|(task, is_foreign)| Ending::DeleteTask { task, is_foreign }),
        2 => (pick(), seldom()).prop_map(|(job, is_foreign)| Ending::DeleteJob { job, is_foreign }),
        1 => seconds().prop_map(|seconds| Ending::Expire { seconds }),
        1 => seconds().prop_map(|seconds| Ending::TakeTrash { seconds }),
        1 => (0..4_u32).prop_map(|tasks| Ending::EmptyTrash { tasks }),
    ]
}

fn telling() -> impl Strategy<Value = Tell> {
    prop_oneof![
        1 => (pick(), seldom()).prop_map(|(webhook, is_foreign)| Tell::DeleteWebhook { webhook, is_foreign }),
        1 => seconds().prop_map(|seconds| Tell::Take { seconds }),
        6 => (pick(), seldom()).prop_map(|(line, is_stale)| Tell::Line { line, is_stale }),
        5 => (1..5_u32, 1..3_u32, 1..5_u32)
            .prop_map(|(max, per_receiver_max, per_user_max)| Tell::Claim { max, per_receiver_max, per_user_max }),
        5 => (pick(), end()).prop_map(|(parcel, end)| Tell::EndAttempt { parcel, end }),
        1 => Just(Tell::Release),
        1 => (pick(), seldom()).prop_map(|(parcel, is_foreign)| Tell::Again { parcel, is_foreign }),
        1 => seconds().prop_map(|seconds| Tell::Expire { seconds }),
    ]
}
