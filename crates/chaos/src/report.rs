//! The page `docs/generated/chaos.md`: what runs showed, from their histories.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::{Violation, check, rolling_restarts};
use crate::history::{Entry, Event, Setup, Whose};
use crate::recovery::{Recovery, median_worst, recoveries};
use crate::schedule::Kind;
use crate::summary::{Totals, not_done};

/// Before the first table.
const HEAD: &str = "\
# Chaos: what was broken, and what was lost

Written by `cargo xtask chaos --report`, from the histories of the runs below. In each of them real processes of the program, and the
servers that they need, work on jobs while faults strike by a schedule that follows from the seed. Afterwards a checker reads the history and
what lies at the destinations: no acknowledged job missing, no job asked for and never acknowledged, no terminal state changed, no
status gone backwards, the right bytes of every finished export read back by the vendors' own clients, nothing left over, a webhook of every end with
a right signature, limits kept, no request rejected without a reason or failed by a graceful restart. PostgreSQL runs with `fsync`.
";

/// After the table of runs.
const ROLLING: &str = "
A rolling restart is *clear* when neither a fault beside it nor the 15 s after one excuse a request that fails: only these show
that a restart fails none.
";

/// Before the table of faults.
const RECOVERY: &str = "
## Recovery

Times are seconds, median / worst, as clients saw them (they look four times a second, or wait). They count from the moment of the strike for
what happens at once (`kill -9`, SIGSTOP, SIGTERM, a crash of the database, its sessions ended), and from the moment that it was taken back for what
lasts (networks, answers, disks). Several faults may be on at once, so that a time may hold what another fault cost.

- *ready again*: until what was struck says that it is ready: `readyz` of an API process; a runner, when it started; every API process where
  database or file store were struck. For a frozen process that is the length of the freeze.
- *next task done*: until the next task, whosoever, was seen to finish.
- *struck work done*: until the last of all tasks that were being worked on when the fault began had ended, by whomever. **This is the recovery time**:
  then nothing of the fault is left. For a dead or frozen runner most of it is the lease of 10 s, after which others take its tasks over.
- *requests failed*: requests to the file store or to destinations that were answered with an error, whose answer was lost, or that were cut.

";

/// The page about these runs; each with its violations.
pub fn report(runs: &[Vec<Entry>]) -> (String, BTreeSet<Violation>) {
    let mut text = HEAD.to_owned();
    let mut all = BTreeSet::new();
    let mut recovered: BTreeMap<(Kind, String), Recovery> = BTreeMap::new();
    let _ = writeln!(text, "\n## Runs\n");
    for setup in runs.iter().filter_map(|history| setup(history)).take(1) {
        let _ = writeln!(text, "On {}. Program: {}.\n", setup.machine, setup.program);
    }
    let _ = writeln!(
        text,
        "| seed | what | faults | rolling restarts | jobs | objects read back | webhooks heard | most tasks at once: user, process | violations |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|");
    for history in runs {
        let violations = check(history);
        run(history, violations.len(), &mut text);
        all.extend(violations);
        for (key, recovery) in recoveries(history) {
            recovered.entry(key).or_default().add(recovery);
        }
    }
    text.push_str(ROLLING);
    commands(runs, &mut text);
    text.push_str(RECOVERY);
    table(&recovered, &mut text);
    skipped(runs, &mut text);
    let _ = writeln!(text, "\n## Violations\n\n{}", if all.is_empty() { "None." } else { "" });
    for violation in &all {
        let _ = writeln!(text, "- {violation}");
    }
    (format!("{}\n", text.trim_end()), all)
}

fn setup(history: &[Entry]) -> Option<&Setup> {
    history.iter().find_map(|entry| if let Event::Began(setup) = &entry.event { Some(setup) } else { None })
}

/// A line of the table of runs.
fn run(history: &[Entry], violations: usize, text: &mut String) {
    let Some(setup) = setup(history) else { return };
    let totals = Totals::of(history);
    let sum = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
    let jobs: Vec<String> = totals.jobs.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let places: Vec<String> = totals.objects.iter().map(|(place, count)| format!("{count} {place}")).collect();
    let faults = history.iter().filter(|entry| matches!(entry.event, Event::Fault { .. })).count();
    let (rolling, clear) = rolling_restarts(history);
    let overlap = match (setup.overlap, totals.ahead) {
        (true, Some(uploads)) => format!("; overlap on, {uploads} uploads seen ahead"),
        (true, None) => "; overlap on".to_owned(),
        (false, _) => String::new(),
    };
    let _ = writeln!(
        text,
        "| {} | {}; networks cut by {}{overlap} | {faults} | {rolling}, {clear} clear | {} | {}: {} | {} | {} of {}, {} of {} (counted {} times) | {violations} |",
        setup.seed,
        setup.fleet,
        setup.network,
        jobs.join(", "),
        sum(&totals.objects),
        places.join(", "),
        totals.heard,
        totals.most(Whose::User),
        setup.per_user_max,
        totals.most(Whose::Process),
        setup.per_process_max,
        totals.counted,
    );
}

fn commands(runs: &[Vec<Entry>], text: &mut String) {
    let _ = writeln!(text, "\nTo repeat them (jobs and faults are the same again; how they meet is not):\n\n```sh");
    for setup in runs.iter().filter_map(|history| setup(history)) {
        let _ = writeln!(text, "{}", setup.command);
    }
    let _ = writeln!(text, "```");
}

fn table(recovered: &BTreeMap<(Kind, String), Recovery>, text: &mut String) {
    let _ = writeln!(
        text,
        "| fault | struck | times | counted from | lasted | ready again | next task done | struck work done | requests failed |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|");
    for ((kind, sort), recovery) in recovered {
        let [lasted, ready, next, struck] =
            [&recovery.lasted, &recovery.ready, &recovery.next, &recovery.struck].map(|times| median_worst(times));
        let spoilt: Vec<String> = recovery.spoilt.iter().map(|(place, count)| format!("{count} {place}")).collect();
        let _ = writeln!(
            text,
            "| {} | {sort} | {} | {} | {lasted} | {ready} | {next} | {struck} | {} |",
            kind.name(),
            recovery.faults,
            if kind.lasts() { "end" } else { "strike" },
            spoilt.join(", "),
        );
    }
}

/// What no run did, and why.
fn skipped(runs: &[Vec<Entry>], text: &mut String) {
    let skipped: BTreeSet<(Kind, &str)> = runs.iter().flat_map(|history| not_done(history)).collect();
    if skipped.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nNot done on this machine:\n");
    for (kind, why) in skipped {
        let _ = writeln!(text, "- {}: {why}", kind.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(events: Vec<Event>) -> Vec<Entry> {
        (0..).step_by(1000).zip(events).map(|(at_ms, event)| Entry { at_ms, event }).collect()
    }

    #[test]
    fn a_page_has_runs_commands_faults_and_what_was_not_done() {
        let began = |seed| {
            let command = format!("cargo xtask chaos --seed {seed}");
            Event::Began(Setup { seed, command, fleet: "a fleet".to_owned(), overlap: true, ..Setup::default() })
        };
        let fault = |number, target: &str| Event::Fault { number, kind: Kind::Kill, target: target.to_owned() };
        let healed = |number| Event::Healed { number };
        let skipped = Event::Skipped { kind: Kind::DiskFull, why: "no root".to_owned() };
        let one = entries(vec![began(1), fault(0, "runner-1"), healed(0), fault(1, "api-1"), healed(1), skipped]);
        let two = entries(vec![began(2), Event::Ahead { uploads: 3 }, fault(0, "runner-3"), healed(0)]);
        let (text, violations) = report(&[one, two]);
        assert!(!violations.is_empty() && !text.contains("None."), "nothing was delivered: {text}");
        for wanted in [
            "cargo xtask chaos --seed 1\ncargo xtask chaos --seed 2\n",
            "| kill -9 | runner | 2 | strike | 1.0 / 1.0 |",
            "| kill -9 | api | 1 |",
            "- disk full: no root",
            "| 2 | a fleet; networks cut by ; overlap on, 3 uploads seen ahead | 1 | 0, 0 clear |",
            "- incomplete history",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
