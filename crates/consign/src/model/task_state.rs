//! The only place that knows how a task moves from state to state. Pure; the store has one guarded statement an event.
//!
//! ```text
//! blocked ──inputs done──▶ queued ──claim──▶ running ──finish──▶ finished
//!    │                      ▲  ▲               │ │ └──fail──▶ error
//!    └─input failed─▶ error │  └──lease lost───┘ └─retry later─▶ delayed ──due──▶ queued
//! uploading ──file came──▶ finished                any but the last two ──cancel──▶ error
//! ```

/// Where a task stands inside the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Some of its inputs have not ended.
    Blocked,
    /// It waits for the client's file (`import/upload`).
    Uploading,
    /// It can be claimed.
    Queued,
    /// It will be tried again later.
    Delayed,
    /// A process holds its lease.
    Running,
    /// It ended well.
    Finished,
    /// It ended badly.
    Error,
}

/// Where a task or a job stands for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireStatus {
    /// It has not started, nor has any of its tasks.
    Waiting,
    /// It has started; retries and recovery do not take that back.
    Processing,
    /// It ended well: a job, when no task ended in an error that counts.
    Finished,
    /// It ended badly.
    Error,
}

/// What happens to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its last input ended and it can run.
    InputsDone,
    /// An input failed and nothing is left to work on.
    InputFailed,
    /// A runner took it.
    Claimed,
    /// The holder of the lease finished it.
    Finished,
    /// The holder of the lease gave up on it.
    Failed,
    /// The holder of the lease wants it tried again later.
    RetryLater,
    /// The time to try it again has come.
    Due,
    /// The holder gave the lease back, or its session expired.
    LeaseLost,
    /// Its lease was lost more often than it is tried.
    AttemptsUsed,
    /// The client's file came.
    FileCame,
    /// The client's file did not come in time, or cannot be used.
    UploadFailed,
    /// The client cancelled it.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Blocked, Self::Uploading, Self::Queued, Self::Delayed, Self::Running, Self::Finished, Self::Error];

    /// As in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Uploading => "uploading",
            Self::Queued => "queued",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Error => "error",
        }
    }

    /// Reads the form of rows.
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text)
    }

    /// Whether it never changes again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Error)
    }

    /// What clients see.
    pub const fn wire(self, has_started: bool) -> WireStatus {
        match self {
            Self::Queued | Self::Delayed if has_started => WireStatus::Processing,
            Self::Blocked | Self::Uploading | Self::Queued | Self::Delayed => WireStatus::Waiting,
            Self::Running => WireStatus::Processing,
            Self::Finished => WireStatus::Finished,
            Self::Error => WireStatus::Error,
        }
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::InputsDone,
        Self::InputFailed,
        Self::Claimed,
        Self::Finished,
        Self::Failed,
        Self::RetryLater,
        Self::Due,
        Self::LeaseLost,
        Self::AttemptsUsed,
        Self::FileCame,
        Self::UploadFailed,
        Self::Cancelled,
    ];
}

impl WireStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Processing, Self::Finished, Self::Error];

    /// As clients see it.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Processing => "processing",
            Self::Finished => "finished",
            Self::Error => "error",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.wire() == text)
    }

    /// Whether it never changes again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Error)
    }
}

/// Where an event leads, or nowhere: then it comes too late, or does not fit, and must be dropped.
pub const fn next(state: State, event: Event) -> Option<State> {
    match (state, event) {
        (State::Blocked, Event::InputsDone) | (State::Delayed, Event::Due) | (State::Running, Event::LeaseLost) => {
            Some(State::Queued)
        }
        (State::Queued, Event::Claimed) => Some(State::Running),
        (State::Running, Event::RetryLater) => Some(State::Delayed),
        (State::Running, Event::Finished) | (State::Uploading, Event::FileCame) => Some(State::Finished),
        (State::Blocked, Event::InputFailed)
        | (State::Running, Event::Failed | Event::AttemptsUsed)
        | (State::Uploading, Event::UploadFailed)
        | (State::Blocked | State::Uploading | State::Queued | State::Delayed | State::Running, Event::Cancelled) => {
            Some(State::Error)
        }
        (
            State::Blocked
            | State::Uploading
            | State::Queued
            | State::Delayed
            | State::Running
            | State::Finished
            | State::Error,
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Event, State, WireStatus, next};

    fn events() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec(prop::sample::select(&Event::ALL[..]), 0..60)
    }

    fn births() -> impl Strategy<Value = State> {
        prop::sample::select(vec![State::Blocked, State::Queued, State::Uploading])
    }

    /// What clients see of it, in an order in which it may never go back.
    fn stage(state: State, has_started: bool) -> u8 {
        match state.wire(has_started) {
            WireStatus::Waiting => 0,
            WireStatus::Processing => 1,
            WireStatus::Finished | WireStatus::Error => 2,
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_out_of_an_end_and_clients_never_see_a_step_back(birth in births(), events in events()) {
            let (mut state, mut has_started) = (birth, false);
            for event in events {
                let Some(to) = next(state, event) else { continue };
                prop_assert!(!state.is_terminal(), "{event:?} leads out of {state:?}");
                let before = stage(state, has_started);
                has_started |= to == State::Running;
                prop_assert!(stage(to, has_started) >= before, "{event:?} leads from {state:?} back to {to:?}");
                prop_assert!(to != state, "{event:?} changes nothing");
                state = to;
            }
        }

        #[test]
        fn every_open_task_can_be_cancelled_at_once(birth in births(), events in events()) {
            let state = events.into_iter().fold(birth, |state, event| next(state, event).unwrap_or(state));
            prop_assert_eq!(next(state, Event::Cancelled), (!state.is_terminal()).then_some(State::Error));
        }
    }

    #[test]
    fn only_a_claim_starts_and_only_a_holder_or_a_file_finishes() {
        for state in State::ALL {
            for event in Event::ALL {
                match next(state, event) {
                    Some(State::Running) => assert_eq!((state, event), (State::Queued, Event::Claimed)),
                    Some(State::Finished) => assert!(matches!(
                        (state, event),
                        (State::Running, Event::Finished) | (State::Uploading, Event::FileCame)
                    )),
                    Some(State::Blocked | State::Uploading) => panic!("{event:?} leads back to the start"),
                    Some(State::Queued | State::Delayed | State::Error) | None => {}
                }
            }
        }
    }

    #[test]
    fn every_event_happens_somewhere_and_every_state_is_reached() {
        let mut reached = BTreeSet::from([State::Blocked.name(), State::Uploading.name()]);
        for event in Event::ALL {
            let to: Vec<State> = State::ALL.into_iter().filter_map(|state| next(state, event)).collect();
            assert!(!to.is_empty(), "{event:?} never happens");
            reached.extend(to.into_iter().map(State::name));
        }
        assert_eq!(reached.len(), State::ALL.len());
    }

    #[test]
    fn names_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        for status in WireStatus::ALL {
            assert_eq!(WireStatus::from_wire(status.wire()), Some(status));
        }
        assert_eq!((State::from_name("waiting"), WireStatus::from_wire("queued")), (None, None));
    }
}
