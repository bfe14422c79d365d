//! Which fault strikes whom and when, as data: the same seed gives the same schedule.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// A faulty process stands still for so long: past its lease of 10 s.
const FROZEN: Duration = Duration::from_secs(13);
/// Before the first fault, so that there is work under way.
const WARM_UP: Duration = Duration::from_secs(3);
/// After the last fault began, so that it meets work.
const LAST: Duration = Duration::from_secs(1);
/// So many faults make a run, if it is long enough for them.
const FAULTS_MIN: u128 = 18;
/// From one fault to the next, on average; in milliseconds.
const GAP_MS: std::ops::RangeInclusive<u64> = 2000..=8000;
/// Between two faults of which each is looked at by itself; in milliseconds.
const ALONE_MS: u64 = 20_000;

/// What can be done to a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP until the lease is long over, then SIGCONT.
    Freeze,
    /// SIGTERM, its end, and a new start; of all API processes one after the other.
    Restart,
    /// The database is stopped without warning and started again.
    DatabaseCrash,
    /// Sessions at the database are ended by its administrator.
    BackendsEnded,
    /// A process reaches its database no more.
    DatabaseCut,
    /// A process reaches the file store no more.
    FilesCut,
    /// A process reaches nobody but database and file store any more.
    WorldCut,
    /// A process reaches nobody, and nobody reaches it.
    Unplugged,
    /// The file store answers with 500 and 503.
    FilesErrors,
    /// The file store does what it is asked, and the answer is lost.
    FilesAnswersLost,
    /// Destinations answer with 500 and 503.
    DestinationErrors,
    /// Destinations do what they are asked, and the answer is lost.
    DestinationAnswersLost,
    /// A destination is cut off in the middle of transfers.
    DestinationCut,
    /// The disk of a process is full.
    DiskFull,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Kill,
        Self::Freeze,
        Self::Restart,
        Self::DatabaseCrash,
        Self::BackendsEnded,
        Self::DatabaseCut,
        Self::FilesCut,
        Self::WorldCut,
        Self::Unplugged,
        Self::FilesErrors,
        Self::FilesAnswersLost,
        Self::DestinationErrors,
        Self::DestinationAnswersLost,
        Self::DestinationCut,
        Self::DiskFull,
    ];

    /// Whether it begins and ends at moments of its own, so that what follows is counted from its end.
    pub(crate) fn lasts(self) -> bool {
        match self {
            Self::Kill | Self::Freeze | Self::Restart | Self::DatabaseCrash | Self::BackendsEnded => false,
            Self::DatabaseCut
            | Self::FilesCut
            | Self::WorldCut
            | Self::Unplugged
            | Self::FilesErrors
            | Self::FilesAnswersLost
            | Self::DestinationErrors
            | Self::DestinationAnswersLost
            | Self::DestinationCut
            | Self::DiskFull => true,
        }
    }

    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Freeze => "SIGSTOP past the lease",
            Self::Restart => "SIGTERM and restart",
            Self::DatabaseCrash => "database -m immediate",
            Self::BackendsEnded => "backends terminated",
            Self::DatabaseCut => "network cut to database",
            Self::FilesCut => "network cut to file store",
            Self::WorldCut => "network cut to destinations",
            Self::Unplugged => "network cut to everything",
            Self::FilesErrors => "file store answers 500",
            Self::FilesAnswersLost => "file store's answers lost",
            Self::DestinationErrors => "destination answers 500",
            Self::DestinationAnswersLost => "destination's answers lost",
            Self::DestinationCut => "destination cut off",
            Self::DiskFull => "disk full",
        }
    }
}

/// How long faults have to strike a fleet, or one process, for every kind to have its turn.
pub fn long_enough(fleet: bool) -> Duration {
    Duration::from_secs(if fleet { 45 } else { 20 })
}

/// A fault of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// When it begins, after the begin of the run.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// Name of a process; `api` for all API processes, `database`, `files`, `destinations`.
    pub(crate) target: String,
    /// How long until it is taken back.
    pub(crate) lasts: Duration,
}

/// Who can be struck.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    /// Processes that serve the API.
    pub(crate) apis: Vec<String>,
    /// Processes that run tasks.
    pub(crate) runners: Vec<String>,
    /// Whether the database is a server of its own.
    pub(crate) has_database: bool,
    /// Whether the file store is a server of its own.
    pub(crate) has_file_store: bool,
}

impl Targets {
    fn is_single(&self) -> bool {
        self.apis == self.runners
    }

    /// What can be done to them.
    pub(crate) fn kinds(&self) -> BTreeSet<Kind> {
        self.bag(&mut Dice::new(0)).into_iter().map(|(kind, _)| kind).collect()
    }

    /// Every fault that there is for them, with its target. A kind that can strike several of a sort picks one.
    fn bag(&self, dice: &mut Dice) -> Vec<(Kind, String)> {
        let destinations = || "destinations".to_owned();
        let mut all = self.runners.clone();
        all.extend(self.apis.iter().filter(|name| !self.runners.contains(name)).cloned());
        let mut bag = vec![
            (Kind::Kill, dice.pick(&self.runners).clone()),
            (Kind::Freeze, dice.pick(&all).clone()),
            (Kind::Restart, if self.is_single() { self.apis[0].clone() } else { "api".to_owned() }),
            (Kind::DestinationErrors, destinations()),
            (Kind::DestinationAnswersLost, destinations()),
            (Kind::DestinationCut, destinations()),
            (Kind::DiskFull, dice.pick(&all).clone()),
            (Kind::Unplugged, dice.pick(&all).clone()),
        ];
        if !self.is_single() {
            bag.push((Kind::Kill, dice.pick(&self.apis).clone()));
            bag.push((Kind::Restart, dice.pick(&self.runners).clone()));
            bag.push((Kind::WorldCut, dice.pick(&self.runners).clone()));
        }
        if self.has_database {
            bag.push((Kind::DatabaseCrash, "database".to_owned()));
            bag.push((Kind::BackendsEnded, "database".to_owned()));
            bag.push((Kind::DatabaseCut, dice.pick(&all).clone()));
        }
        if self.has_file_store {
            bag.push((Kind::FilesCut, dice.pick(&all).clone()));
            bag.push((Kind::FilesErrors, "files".to_owned()));
            bag.push((Kind::FilesAnswersLost, "files".to_owned()));
        }
        dice.shuffle(&mut bag);
        bag
    }
}

/// Plans the faults of `length`: all kinds in a random order, again and again, each at a random moment of a time of its own. A run
/// that is [`long_enough`] has them all. The last ones are taken back when it is over. With `only`, faults whose name contains
/// it, each after the one before is over.
pub(crate) fn plan(seed: u64, length: Duration, targets: &Targets, only: &str) -> Vec<Fault> {
    let mut dice = Dice::new(seed ^ 0xfa17);
    let draw = |dice: &mut Dice| {
        let mut bag = targets.bag(dice);
        bag.retain(|(kind, _)| kind.name().contains(only));
        bag
    };
    let (mut faults, mut bag, mut from) = (Vec::new(), draw(&mut dice), WARM_UP);
    // What takes longest comes first, so that it can end.
    bag.sort_by_key(|(kind, _)| *kind == Kind::Freeze);
    // Short runs strike closer together, so that each kind has its turn.
    let gap_ms = length.as_millis() / FAULTS_MIN;
    let gap_ms = gap_ms.min(length.saturating_sub(WARM_UP + LAST).as_millis() / bag.len().max(1) as u128);
    let gap_ms = u64::try_from(gap_ms).unwrap_or(u64::MAX).clamp(*GAP_MS.start(), *GAP_MS.end());
    let gap_ms = if only.is_empty() { gap_ms } else { ALONE_MS };
    while from + Duration::from_millis(gap_ms / 2) + LAST <= length {
        if bag.is_empty() {
            bag = draw(&mut dice);
        }
        let Some((kind, target)) = bag.pop() else { break };
        let lasts = match kind {
            Kind::Freeze => FROZEN,
            Kind::Kill | Kind::Restart | Kind::DatabaseCrash | Kind::BackendsEnded => {
                Duration::from_millis(dice.within(0..800))
            }
            Kind::DatabaseCut | Kind::FilesCut | Kind::WorldCut | Kind::Unplugged | Kind::DestinationCut => {
                Duration::from_millis(dice.within(1000..14_000))
            }
            Kind::FilesErrors
            | Kind::FilesAnswersLost
            | Kind::DestinationErrors
            | Kind::DestinationAnswersLost
            | Kind::DiskFull => Duration::from_millis(dice.within(1500..5000)),
        };
        let at = from + Duration::from_millis(dice.within(0..gap_ms / 2));
        faults.push(Fault { at, kind, target, lasts });
        from += Duration::from_millis(gap_ms);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Targets {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Targets {
            apis: names(&["api-1", "api-2"]),
            runners: names(&["runner-1", "runner-2", "runner-3"]),
            has_database: true,
            has_file_store: true,
        }
    }

    fn one() -> Targets {
        let one = vec!["all".to_owned()];
        Targets { apis: one.clone(), runners: one, has_database: false, has_file_store: false }
    }

    #[test]
    fn a_seed_gives_the_same_schedule() {
        let length = Duration::from_mins(1);
        assert_eq!(plan(1, length, &fleet(), ""), plan(1, length, &fleet(), ""));
        assert_ne!(plan(1, length, &fleet(), ""), plan(2, length, &fleet(), ""));
    }

    #[test]
    fn a_run_that_is_long_enough_has_every_kind_of_fault_and_all_are_over_in_time() {
        assert_eq!(fleet().kinds(), Kind::ALL.into());
        for (targets, enough) in [(fleet(), long_enough(true)), (one(), long_enough(false))] {
            for (length, seed) in
                [enough, Duration::from_mins(1)].into_iter().flat_map(|it| (0..200).map(move |n| (it, n)))
            {
                let faults = plan(seed, length, &targets, "");
                let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
                assert_eq!(kinds, targets.kinds(), "{seed}, {length:?}");
                assert_eq!(faults[0].kind, Kind::Freeze, "{seed}");
                assert!(faults.is_sorted_by_key(|fault| fault.at) && faults.last().unwrap().at + LAST <= length);
                // What excuses a request that fails has to leave moments without an excuse.
                let nearest = faults.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at)).min().unwrap();
                assert!(nearest >= Duration::from_millis(GAP_MS.start() / 2), "{seed}: {nearest:?}");
            }
        }
    }

    #[test]
    fn every_kind_strikes_whomever_it_can() {
        let faults = plan(1, Duration::from_hours(10), &fleet(), "");
        let struck = |kind| faults.iter().filter(move |fault| fault.kind == kind).map(|fault| fault.target.as_str());
        for kind in Kind::ALL {
            let targets: BTreeSet<&str> = struck(kind).collect();
            let wanted: &[&str] = match kind {
                Kind::Freeze | Kind::DatabaseCut | Kind::FilesCut | Kind::Unplugged | Kind::DiskFull | Kind::Kill => {
                    &["api-1", "api-2", "runner-1", "runner-2", "runner-3"]
                }
                Kind::WorldCut => &["runner-1", "runner-2", "runner-3"],
                Kind::Restart => &["api", "runner-1", "runner-2", "runner-3"],
                Kind::DatabaseCrash | Kind::BackendsEnded => &["database"],
                Kind::FilesErrors | Kind::FilesAnswersLost => &["files"],
                Kind::DestinationErrors | Kind::DestinationAnswersLost | Kind::DestinationCut => &["destinations"],
            };
            assert_eq!(targets.into_iter().collect::<Vec<_>>(), wanted, "{kind:?}");
        }
        let cut = struck(Kind::DatabaseCut).count();
        let long =
            faults.iter().filter(|it| it.kind == Kind::DatabaseCut && it.lasts > Duration::from_secs(10)).count();
        assert!(long * 10 > cut, "{long} of {cut} outlast a lease");
    }

    #[test]
    fn faults_can_be_chosen_and_then_come_one_by_one() {
        let faults = plan(1, Duration::from_mins(10), &fleet(), "kill -9");
        assert!(faults.len() > 20 && faults.iter().all(|fault| fault.kind == Kind::Kill), "{faults:?}");
        assert!(
            faults.windows(2).all(|pair| pair[1].at.saturating_sub(pair[0].at) >= Duration::from_millis(ALONE_MS / 2))
        );
        assert_eq!(plan(1, Duration::from_mins(10), &fleet(), "no such fault"), []);
    }

    #[test]
    fn one_process_is_not_struck_where_it_has_nothing() {
        let faults = plan(1, Duration::from_mins(10), &one(), "");
        let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
        assert!(!kinds.contains(&Kind::DatabaseCrash) && !kinds.contains(&Kind::FilesCut), "{kinds:?}");
        assert!(faults.iter().all(|fault| ["all", "destinations"].contains(&fault.target.as_str())));
    }
}
