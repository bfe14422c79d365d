//! How faults are carried out: each from its beginning to its end, and both are written down.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::proxy::Proxy;
use tokio::sync::MutexGuard;
use tokio::time::sleep;

use crate::client::Client;
use crate::destinations::Destinations;
use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::history::Event;
use crate::network::Wire;
use crate::process::Process;
use crate::schedule::{Fault, Kind};

/// After a process of the API said that it is ready, before the next one is restarted.
const ROLLING_PAUSE: Duration = Duration::from_millis(500);
/// How long a process of the API may take until it says that it can work: as long as its start.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Ends about half of all sessions.
const END_BACKENDS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE datname = 'app' AND pid <> pg_backend_pid() AND random() < 0.5";

/// Carries a fault out.
///
/// # Errors
/// When it cannot be done although the machine allows it, or is not got over: a process that does not come back.
pub(crate) async fn strike(fleet: &Fleet, number: usize, fault: &Fault, client: &Client) -> Result<()> {
    if let Some(why) = why_not(fleet, fault.kind) {
        fleet.history.note(Event::Skipped { kind: fault.kind, why });
        return Ok(());
    }
    let blow = Blow { fleet, number, fault, client };
    match fault.kind {
        Kind::Kill | Kind::Freeze => blow.at_process().await?,
        Kind::Restart => blow.restart().await?,
        Kind::DatabaseCrash | Kind::BackendsEnded => blow.at_database().await?,
        Kind::DatabaseCut => blow.at_wires(&[Wire::Database]).await?,
        Kind::FilesCut => blow.at_wires(&[Wire::Files]).await?,
        Kind::WorldCut => blow.at_wires(&[Wire::World]).await?,
        Kind::Unplugged => blow.at_wires(&Wire::ALL).await?,
        Kind::FilesErrors => blow.at_files(Gate::answer_errors).await?,
        Kind::FilesAnswersLost => blow.at_files(Gate::lose_answers).await?,
        Kind::DestinationErrors => blow.at_destinations(Destinations::answer_errors).await?,
        Kind::DestinationAnswersLost => blow.at_destinations(Destinations::lose_answers).await?,
        Kind::DestinationCut => blow.at_destinations(Destinations::cut).await?,
        Kind::DiskFull => blow.at_disk().await?,
    }
    fleet.history.note(Event::Healed { number });
    if fault.kind.lasts() {
        blow.is_over().await;
    }
    Ok(())
}

/// Why a fault cannot be done on this machine.
fn why_not(fleet: &Fleet, kind: Kind) -> Option<String> {
    match kind {
        Kind::DiskFull => fleet.no_disk.clone(),
        Kind::WorldCut | Kind::Unplugged => fleet.network.why_not().map(str::to_owned),
        Kind::Kill
        | Kind::Freeze
        | Kind::Restart
        | Kind::DatabaseCrash
        | Kind::BackendsEnded
        | Kind::DatabaseCut
        | Kind::FilesCut
        | Kind::FilesErrors
        | Kind::FilesAnswersLost
        | Kind::DestinationErrors
        | Kind::DestinationAnswersLost
        | Kind::DestinationCut => None,
    }
}

/// A fault that is being carried out.
struct Blow<'a> {
    fleet: &'a Fleet,
    number: usize,
    fault: &'a Fault,
    client: &'a Client,
}

impl Blow<'_> {
    fn begin(&self) {
        let Fault { kind, target, .. } = self.fault;
        self.fleet.history.note(Event::Fault { number: self.number, kind: *kind, target: target.clone() });
    }

    /// Waits until no other fault is on at the same target.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        Ok(self.fleet.turns.get(&self.fault.target).context("no such target")?.lock().await)
    }

    fn process(&self) -> Result<&Process> {
        let named = self.fleet.processes.iter().find(|process| process.name == self.fault.target);
        named.map(Arc::as_ref).context("no such process")
    }

    async fn at_process(&self) -> Result<()> {
        let process = self.process()?;
        let mut held = process.hold_alive(&self.fleet.history).await?;
        self.begin();
        if self.fault.kind == Kind::Freeze {
            held.freeze(self.fault.lasts).await?;
        } else {
            held.kill().await?;
            sleep(self.fault.lasts).await;
            held.start().await?;
        }
        drop(held);
        self.is_ready(process).await;
        Ok(())
    }

    /// One after the other.
    async fn restart(&self) -> Result<()> {
        let is_meant = |process: &&Arc<Process>| match process.role() {
            "api" => self.fault.target == "api",
            _ => process.name == self.fault.target,
        };
        self.begin();
        for process in self.fleet.processes.iter().filter(is_meant) {
            let mut held = process.hold_alive(&self.fleet.history).await?;
            held.stop().await?;
            held.start().await?;
            drop(held);
            self.is_ready(process).await;
            sleep(ROLLING_PAUSE).await;
        }
        Ok(())
    }

    async fn at_database(&self) -> Result<()> {
        let mut postgres = self.fleet.postgres.as_ref().context("no database")?.lock().await;
        self.begin();
        if self.fault.kind == Kind::DatabaseCrash {
            postgres.restart().await?;
        } else {
            postgres.server().psql("postgres", END_BACKENDS).await?;
        }
        drop(postgres);
        for process in self.fleet.processes.iter().filter(|process| process.is_api()) {
            self.is_ready(process).await;
        }
        Ok(())
    }

    /// Cuts wires; where there are none, paths fall silent and are broken afterwards.
    async fn at_wires(&self, wires: &[Wire]) -> Result<()> {
        let (network, target) = (&self.fleet.network, &self.fault.target);
        if network.why_not().is_none() {
            self.begin();
            network.cut(target, wires).await?;
            sleep(self.fault.lasts).await;
            return network.mend(target, wires).await;
        }
        let paths: Vec<&Proxy> =
            wires.iter().filter_map(|wire| self.fleet.paths.get(&(target.clone(), *wire))).collect();
        let _turn = self.turn().await?;
        self.begin();
        for path in &paths {
            path.stall_after(0);
        }
        sleep(self.fault.lasts).await;
        for path in &paths {
            path.cut();
            path.heal();
        }
        Ok(())
    }

    async fn at_destinations(&self, strike: fn(&Destinations)) -> Result<()> {
        let destinations = &self.fleet.destinations;
        let _turn = self.turn().await?;
        self.begin();
        strike(destinations);
        sleep(self.fault.lasts).await;
        destinations.heal();
        for (place, requests) in destinations.take_spoilt() {
            self.spoilt(place.name(), requests);
        }
        Ok(())
    }

    async fn at_files(&self, strike: fn(&Gate)) -> Result<()> {
        let gate = self.fleet.files.as_ref().context("no file store")?;
        let _turn = self.turn().await?;
        self.begin();
        strike(gate);
        sleep(self.fault.lasts).await;
        gate.heal();
        self.spoilt("file store", gate.take_spoilt());
        Ok(())
    }

    fn spoilt(&self, place: &str, requests: u64) {
        self.fleet.history.note(Event::Spoilt { number: self.number, place: place.to_owned(), requests });
    }

    async fn at_disk(&self) -> Result<()> {
        let disk = self.process()?.disk.as_ref().context("no disk")?;
        self.begin();
        disk.fill().await?;
        sleep(self.fault.lasts).await;
        disk.empty().await
    }

    /// Waits until those processes of the API say that they can work which a fault that lasted has met.
    async fn is_over(&self) {
        let target = self.fault.target.as_str();
        let is_meant = |process: &&Arc<Process>| process.name == target || target == "files";
        for process in self.fleet.processes.iter().filter(|process| process.is_api()).filter(is_meant) {
            self.is_ready(process).await;
        }
    }

    /// Waits until a process of the API says that it can work; one that has no API said so when it started.
    async fn is_ready(&self, process: &Process) {
        if !process.is_api() || self.client.is_ready_within(process.address, READY_TIMEOUT).await {
            self.fleet.history.note(Event::Ready { number: self.number });
            return;
        }
        let (name, waited) = (&process.name, READY_TIMEOUT.as_secs());
        let why = format!("{name} does not say within {waited} s that it is ready after fault {}", self.number);
        self.fleet.history.note(Event::GaveUp { why });
    }
}
