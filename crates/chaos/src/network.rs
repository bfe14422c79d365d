//! A network namespace for each process, with a wire of its own to each thing that it must reach. A wire that is cut drops every
//! packet in both directions without a word: connections are not refused, peers are dead and say nothing.
//!
//! Only root may lay wires between namespaces. Where that is forbidden all stay on loopback, and paths are relays that fall
//! silent; the summary says which it was.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use testkit::{Missing, tool};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// Addresses for measurements between networks (RFC 2544): nobody's.
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The same with its length, for those who have to allow it.
pub(crate) const NETWORK_CIDR: &str = "198.18.0.0/15";
/// Addresses that a run takes: more than its wires need.
const BLOCK: u32 = 128;
/// Blocks of that size in the network.
const BLOCKS: u32 = (1 << 17) / BLOCK;
/// Addresses of a wire: the smallest network with two ends.
const WIRE: u32 = 4;

/// Lays a wire from this namespace into that of a process: keeper, outer name, inner name, outer address, inner address, address of
/// what is there for all.
const LAY: &str = "
ip link add $2 type veth peer name $3 netns $1
ip addr add $4/30 dev $2
test $6 = - || ip addr add $6/32 dev $2
ip link set $2 up
nsenter --net=/proc/$1/ns/net sh -euc \"
ip link set lo up
ip addr add $5/30 dev $3
ip link set $3 up
test $6 = - || ip route add $6/32 via $4\"";

/// Lays a wire in a namespace that goes with it, and cuts it.
const TRY: &str = "
unshare --net sh -euc '
ip link add here type veth peer name there
ip link set here up
tc qdisc replace dev here root blackhole
tc qdisc del dev here root'";

/// Drops all packets on their way out, at both ends.
const CUT: &str = "
tc qdisc replace dev $2 root blackhole
nsenter --net=/proc/$1/ns/net tc qdisc replace dev $3 root blackhole";

/// Takes that back. What was under way is sent again by those who did not hear an answer.
const MEND: &str = "
tc qdisc del dev $2 root
nsenter --net=/proc/$1/ns/net tc qdisc del dev $3 root";

/// What a process reaches over a wire of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    /// The database.
    Database,
    /// The file store.
    Files,
    /// Everybody else: destinations, web servers and receivers; clients come this way, too.
    World,
}

impl Wire {
    pub(crate) const ALL: [Self; 3] = [Self::Database, Self::Files, Self::World];

    fn letter(self) -> char {
        match self {
            Self::Database => 'd',
            Self::Files => 'f',
            Self::World => 'w',
        }
    }
}

/// The namespaces of a run; they go, with their wires, when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    world: Ipv4Addr,
    rooms: BTreeMap<String, Room>,
    why_not: Option<String>,
}

/// The namespace of a process.
#[derive(Debug)]
struct Room {
    keeper: Child,
    wires: BTreeMap<Wire, Ends>,
    /// How many faults have cut a wire at the moment.
    cuts: Mutex<BTreeMap<Wire, usize>>,
}

/// A wire: names and addresses of its ends.
#[derive(Debug)]
struct Ends {
    outer: String,
    inner: String,
    outer_address: Ipv4Addr,
    inner_address: Ipv4Addr,
}

impl Network {
    /// Makes a namespace for each process, or finds out why not.
    ///
    /// # Errors
    /// When the machine allows namespaces, and they cannot be made: then nothing is silently left out. In CI also when it allows
    /// them, and lacks what wires are laid and cut with.
    pub(crate) async fn prepare(names: &[&str]) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::none("only root may lay wires between namespaces".to_owned()));
        }
        if let Err(error) = sh("unshare --net true", &[]).await {
            return Ok(Self::none(format!("the machine allows no namespaces of networks: {error:#}")));
        }
        for program in ["ip", "tc"] {
            match tool::find(program) {
                Err(error) if error.is::<Missing>() => return Self::do_without(format!("{error:#}"), testkit::in_ci()),
                found => drop(found?),
            }
        }
        if let Err(error) = sh(TRY, &[]).await {
            let why = format!("the machine allows no wires between namespaces that can be cut: {error:#}");
            return Self::do_without(why, testkit::in_ci());
        }
        let first = first_address().await?;
        let world = Ipv4Addr::from(first + BLOCK - 1);
        let mut rooms = BTreeMap::new();
        for (number, name) in (0..).zip(names) {
            rooms.insert((*name).to_owned(), Room::make(first, number, world).await.context("a namespace")?);
        }
        Ok(Self { world, rooms, why_not: None })
    }

    fn none(why: String) -> Self {
        Self { world: Ipv4Addr::LOCALHOST, rooms: BTreeMap::new(), why_not: Some(why) }
    }

    /// Goes on without wires although root may make namespaces here, but not in CI: faults would be left out in silence.
    fn do_without(why: String, in_ci: bool) -> Result<Self> {
        ensure!(!in_ci, "{why}");
        Ok(Self::none(why))
    }

    /// Why processes have no namespaces of their own, where they have none.
    pub(crate) fn why_not(&self) -> Option<&str> {
        self.why_not.as_deref()
    }

    /// Half a sentence for people.
    pub(crate) fn describe(&self) -> String {
        let why = |why| format!("relays that fall silent, because {why}");
        self.why_not.as_ref().map_or("namespaces whose wires drop packets".to_owned(), why)
    }

    /// Where everything listens that all processes reach.
    pub(crate) fn world(&self) -> IpAddr {
        self.world.into()
    }

    /// Where a thing listens that one process reaches by this wire.
    pub(crate) fn outside(&self, process: &str, wire: Wire) -> IpAddr {
        let ends = self.rooms.get(process).and_then(|room| room.wires.get(&wire));
        ends.map_or(Ipv4Addr::LOCALHOST, |ends| ends.outer_address).into()
    }

    /// Where a process itself listens.
    pub(crate) fn inside(&self, process: &str) -> IpAddr {
        let ends = self.rooms.get(process).and_then(|room| room.wires.get(&Wire::World));
        ends.map_or(Ipv4Addr::LOCALHOST, |ends| ends.inner_address).into()
    }

    /// The namespace of a process.
    pub(crate) fn namespace(&self, process: &str) -> Option<PathBuf> {
        self.rooms.get(process).map(|room| format!("/proc/{}/ns/net", room.id()).into())
    }

    /// Drops everything on these wires of a process.
    ///
    /// # Errors
    /// What `tc` says; when the process has no namespace.
    pub(crate) async fn cut(&self, process: &str, wires: &[Wire]) -> Result<()> {
        let room = self.rooms.get(process).context("no namespace")?;
        let mut cuts = room.cuts.lock().await;
        for &wire in wires {
            let count = cuts.entry(wire).or_default();
            if *count == 0 {
                room.run(wire, CUT).await?;
            }
            *count += 1;
        }
        Ok(())
    }

    /// Lets everything pass again, unless another fault has cut the same wire.
    ///
    /// # Errors
    /// Those of [`Network::cut`].
    pub(crate) async fn mend(&self, process: &str, wires: &[Wire]) -> Result<()> {
        let room = self.rooms.get(process).context("no namespace")?;
        let mut cuts = room.cuts.lock().await;
        for &wire in wires {
            let count = cuts.entry(wire).or_default();
            if *count == 1 {
                room.run(wire, MEND).await?;
            }
            *count = count.saturating_sub(1);
        }
        Ok(())
    }
}

impl Room {
    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    async fn make(first: u32, number: u32, world: Ipv4Addr) -> Result<Self> {
        let mut keeper = Command::new("unshare");
        // It ends with this process, however that ends: then its standard input does.
        keeper.args(["--net", "sh", "-c", "echo made && exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = keeper.kill_on_drop(true).spawn().context("unshare")?;
        let mut said = BufReader::new(keeper.stdout.take().context("a pipe")?).lines();
        ensure!(said.next_line().await?.is_some(), "unshare has ended");
        let mut room = Self { keeper, wires: BTreeMap::new(), cuts: Mutex::default() };
        for (place, wire) in (0..).zip(Wire::ALL) {
            let from = first + (number * 3 + place) * WIRE;
            let name = format!("cs{}-{number}{}", (from - u32::from(NETWORK)) / BLOCK, wire.letter());
            let ends = Ends {
                outer: name,
                inner: format!("to-{}", wire.letter()),
                outer_address: Ipv4Addr::from(from + 1),
                inner_address: Ipv4Addr::from(from + 2),
            };
            let for_all = if wire == Wire::World { world.to_string() } else { "-".to_owned() };
            let (outer, inner) = (ends.outer_address.to_string(), ends.inner_address.to_string());
            sh(LAY, &[&room.id(), &ends.outer, &ends.inner, &outer, &inner, &for_all]).await?;
            room.wires.insert(wire, ends);
            // What the machine cannot do is to be known now.
            room.run(wire, CUT).await?;
            room.run(wire, MEND).await?;
        }
        Ok(room)
    }

    fn id(&self) -> String {
        self.keeper.id().unwrap_or_default().to_string()
    }

    async fn run(&self, wire: Wire, script: &str) -> Result<()> {
        let ends = self.wires.get(&wire).context("no such wire")?;
        sh(script, &[&self.id(), &ends.outer, &ends.inner]).await.map(drop)
    }
}

/// The first address of a block that nobody on this machine uses.
async fn first_address() -> Result<u32> {
    let mut block = std::process::id() % BLOCKS;
    loop {
        let first = u32::from(NETWORK) + block * BLOCK;
        let taken = sh("ip -o -4 addr show to $1", &[&format!("{}/25", Ipv4Addr::from(first))]).await?;
        if taken.trim().is_empty() {
            return Ok(first);
        }
        block = (block + 1) % BLOCKS;
    }
}

/// Runs a script with these arguments, from `$1` on.
#[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
async fn sh(script: &str, arguments: &[&str]) -> Result<String> {
    let folder = tool::find("ip").ok().and_then(|ip| Some(ip.parent()?.display().to_string())).unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-euc", &format!("PATH=\"{folder}:$PATH:/usr/sbin:/sbin\"\n{script}"), "sh"]).args(arguments);
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr).trim());
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const CONNECT: &str = "import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as it: it.sendall(b'x'); print(it.recv(1).decode())
except TimeoutError: print('nothing')";

    #[expect(clippy::disallowed_methods, reason = "a client in the namespace")]
    async fn connect(network: &Network, port: u16) -> String {
        let mut client = Command::new("nsenter");
        client.arg(format!("--net={}", network.namespace("one").unwrap().display()));
        client.args(["python3", "-c", CONNECT, &network.world().to_string(), &port.to_string()]);
        let ended = client.output().await.unwrap();
        String::from_utf8_lossy(&ended.stdout).trim().to_owned() + &String::from_utf8_lossy(&ended.stderr)
    }

    #[test]
    fn wires_are_done_without_at_a_desk_only() {
        assert_eq!(Network::do_without("no tc".to_owned(), false).unwrap().why_not(), Some("no tc"));
        assert_eq!(Network::do_without("no tc".to_owned(), true).unwrap_err().to_string(), "no tc");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wire_that_is_cut_is_silent_and_the_others_are_not() {
        let network = Network::prepare(&["one", "two"]).await.unwrap();
        if let Some(why) = network.why_not() {
            testkit::note_skipped(&format!("skipped: wires between namespaces: {why}"));
            return;
        }
        let listener = tokio::net::TcpListener::bind((network.world(), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            }
        });
        assert_eq!(connect(&network, port).await, "x");
        network.cut("one", &[Wire::Database, Wire::Files]).await.unwrap();
        network.cut("two", &Wire::ALL).await.unwrap();
        assert_eq!(connect(&network, port).await, "x", "only these wires of this process");
        network.cut("one", &[Wire::World]).await.unwrap();
        let began = Instant::now();
        assert_eq!(connect(&network, port).await, "nothing");
        assert!(began.elapsed() >= Duration::from_secs(2), "it is not refused either");
        network.cut("one", &Wire::ALL).await.unwrap();
        network.mend("one", &[Wire::World]).await.unwrap();
        assert_eq!(connect(&network, port).await, "nothing", "another fault has cut it as well");
        network.mend("one", &Wire::ALL).await.unwrap();
        assert_eq!(connect(&network, port).await, "x");
    }
}
