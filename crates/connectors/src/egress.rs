//! The egress guard: the one place that opens outbound connections, and refuses those that the operator did not allow.
//!
//! The address that is checked is the address that is dialled: a name is resolved once, every address of the answer
//! is judged, and the connection goes to one that passed. So neither a redirect nor a name that changes its address
//! between check and use gets past it. Every spelling of an address (`127.1`, `0x7f000001`, full-width digits) is read
//! the way browsers read it before a rule or the list of reserved networks sees it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Host;

use crate::error::{Error, Kind, Result};

/// The time for one name to be resolved. 5 s: two tries of the usual resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried before the connection fails.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Turns host names into addresses. Replaced in tests, never by a setting.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Resolves `host`, which is a name in lower-case ASCII and never an address, to where `port` of it is. Only a
    /// test answers with another port; what is judged and dialled is what is answered.
    ///
    /// # Errors
    /// The system's, when the name has no address.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Decides which addresses may be connected to, and connects.
#[derive(Clone, Debug)]
pub struct Guard {
    rules: Arc<[Rule]>,
    resolver: Arc<dyn Resolver>,
}

impl Guard {
    /// Makes a guard that allows public addresses and what `rules` name.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self::with_resolver(rules, Arc::new(SystemResolver))
    }

    /// Makes a guard with another resolver, for tests.
    pub fn with_resolver(rules: impl IntoIterator<Item = Rule>, resolver: Arc<dyn Resolver>) -> Self {
        Self { rules: rules.into_iter().collect(), resolver }
    }

    /// Opens a TCP connection to `host`, at an address that the rules allow, without delay for small writes. When it is
    /// dropped, what the other side has not got yet never arrives: the connection is reset.
    ///
    /// `host` may be a name (international ones too), an IPv4 address, or an IPv6 address with or without brackets. The
    /// deadline covers the name and all addresses together.
    ///
    /// # Errors
    /// [`Kind::HostNotAllowed`], [`Kind::HostNotFound`], [`Kind::Unreachable`], [`Kind::Timeout`], and
    /// [`Kind::InvalidRequest`] for what is no host.
    pub async fn connect(&self, host: &str, port: u16, deadline: Duration) -> Result<TcpStream> {
        let end = Instant::now() + deadline;
        let addresses = self.check(host, port).await?;
        dial(&addresses, end).await.map_err(|error| {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            let (kind, detail) = if error.kind() == io::ErrorKind::TimedOut {
                (Kind::Timeout, format!("did not answer within {} s", deadline.as_secs()))
            } else if refused {
                (Kind::Unreachable, "refused the connection".to_owned())
            } else {
                (Kind::Unreachable, "cannot be reached".to_owned())
            };
            Error::new(kind, "connecting", format!("{host}:{port} {detail}")).because(error)
        })
    }

    /// Resolves `host` and returns the addresses that may be dialled, at least one.
    ///
    /// Of a name with allowed and refused addresses only the allowed ones are returned.
    ///
    /// # Errors
    /// [`Kind::HostNotAllowed`], [`Kind::HostNotFound`], [`Kind::InvalidRequest`].
    pub async fn check(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let host = read_host(host)?;
        let (found, named) = match &host {
            Host::Ipv4(address) => (vec![SocketAddr::new((*address).into(), port)], false),
            Host::Ipv6(address) => (vec![SocketAddr::new((*address).into(), port)], false),
            Host::Domain(name) => {
                (self.resolve(name, port).await?, self.rules.iter().any(|rule| rule.allows_name(name, port)))
            }
        };
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .map(|found| SocketAddr::new(unmapped(found.ip()), found.port()))
            .filter(|found| {
                let allows = |rule: &Rule| rule.allows_address(found.ip(), found.port());
                named || is_public(found.ip()) || self.rules.iter().any(allows)
            })
            .take(ADDRESSES_TRIED_MAX)
            .collect();
        if allowed.is_empty() { Err(refusal(&host, port)) } else { Ok(allowed) }
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let not_found = || Error::new(Kind::HostNotFound, "resolving the host name", format!("{host} has no address"));
        match timeout(RESOLVE_TIMEOUT, self.resolver.resolve(host, port)).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(not_found()),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(not_found().because(error)),
            Err(elapsed) => Err(not_found().because(elapsed)),
        }
    }
}

/// Tries the addresses in order. Each may take its share of the time that is left, so that one that swallows packets
/// leaves time for the next.
async fn dial(addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = end.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        #[expect(clippy::disallowed_methods, reason = "this is the guard itself: the address has been checked")]
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                // Whoever gives a request up gives up its bytes too: else the system goes on sending what was written, minutes
                // after the end of an outage, and a request to open an upload arrives when nobody knows of it any more.
                stream.set_zero_linger()?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn refusal(host: &Host, port: u16) -> Error {
    let what = match host {
        Host::Domain(_) => "resolves to",
        Host::Ipv4(_) | Host::Ipv6(_) => "is",
    };
    Error::new(
        Kind::HostNotAllowed,
        "checking the address",
        format!("{host} {what} a private or reserved address; to allow it add {host}:{port} to egress.allow"),
    )
}

/// Reads a host in any spelling: numbers become addresses, names lower-case ASCII without a final dot.
///
/// # Source
/// The host parser of the WHATWG URL standard, so that a host means the same inside and outside a URL.
fn read_host(host: &str) -> Result<Host> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Ok(Host::Ipv6(address));
    }
    match Host::parse(host) {
        Ok(Host::Domain(name)) => Ok(Host::Domain(name.strip_suffix('.').unwrap_or(&name).to_owned())),
        Ok(address) => Ok(address),
        // What is no host may be anything, a password too, and is not repeated.
        Err(error) => {
            Err(Error::new(Kind::InvalidRequest, "checking the address", "the host name cannot be read").because(error))
        }
    }
}

/// One entry of `egress.allow`: `host[:port]`, `*.suffix[:port]` or `network[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    target: Target,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Host(String),
    Suffix(String),
    Network(IpNet),
}

impl Rule {
    /// Tells whether this rule names `host`, which is as [`read_host`] writes it.
    fn allows_name(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
            && match &self.target {
                Target::Host(name) => name == host,
                Target::Suffix(suffix) => host
                    .strip_suffix(suffix.as_str())
                    .and_then(|front| front.strip_suffix('.'))
                    .is_some_and(|front| !front.is_empty()),
                Target::Network(_) => false,
            }
    }

    fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
            && matches!(&self.target, Target::Network(network) if network.contains(&address))
    }
}

/// An entry of `egress.allow` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `host[:port]`, `*.suffix[:port]` or `network/bits[:port]`")]
pub struct BadRule(String);

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> std::result::Result<Self, BadRule> {
        let bad = || BadRule(text.to_owned());
        let text = text.trim();
        let (target, port) = split_port(text).ok_or_else(bad)?;
        if let Ok(network) = target.parse::<IpNet>() {
            return Ok(Self { target: Target::Network(unmapped_network(network.trunc())), port });
        }
        let (name, suffix) = target.strip_prefix("*.").map_or((target, false), |rest| (rest, true));
        let target = match read_host(name).map_err(|_| bad())? {
            Host::Domain(name) if name.contains('*') => return Err(bad()),
            Host::Domain(name) if suffix => Target::Suffix(name),
            Host::Domain(name) => Target::Host(name),
            Host::Ipv4(_) | Host::Ipv6(_) if suffix => return Err(bad()),
            Host::Ipv4(address) => Target::Network(IpAddr::V4(address).into()),
            Host::Ipv6(address) => Target::Network(unmapped(IpAddr::V6(address)).into()),
        };
        Ok(Self { target, port })
    }
}

/// Splits `target[:port]`, where an IPv6 target with a port stands in brackets.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (target, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((target, Some(port.parse().ok()?))),
            None => after.is_empty().then_some((target, None)),
        };
    }
    match text.rsplit_once(':') {
        Some((target, port)) if !target.contains(':') => Some((target, Some(port.parse().ok()?))),
        Some(_) | None => Some((text, None)),
    }
}

/// Makes an IPv4 address out of one that hides in `::ffff:0:0/96`; the system would dial it as IPv4 anyway.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The same for a network.
fn unmapped_network(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let bits = v6.prefix_len().checked_sub(96);
    match (v6.addr().to_ipv4_mapped(), bits) {
        (Some(address), Some(bits)) => Ipv4Net::new(address, bits).map_or(network, IpNet::V4),
        (Some(_) | None, _) => network,
    }
}

/// Tells whether an address is reachable from everywhere, that is: not of this machine, this network, or reserved.
///
/// # Source
/// IANA special-purpose address registries for IPv4 and IPv6, and the tricks known from published advisories.
pub fn is_public(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !RESERVED_V4.iter().any(|(network, bits)| {
        let mask = u32::MAX << (32 - bits);
        u32::from(address) & mask == u32::from(*network)
    })
}

#[expect(clippy::ip_constant, reason = "a list of networks reads better when all are written the same way")]
const RESERVED_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this host
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT, some clouds' metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's WireServer, reachable from inside only
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, most clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// Only `2000::/3` is global unicast. That alone refuses loopback, `::/96`, NAT64 (both prefixes), `fc00::/7`,
/// `fe80::/10`, `fec0::/10`, `5f00::/16`, multicast; the rest are the parts of it that lead elsewhere.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, _, _, e, f, _, _] = address.segments();
    let global_unicast = a & 0xe000 == 0x2000;
    let protocol_assignments = a == 0x2001 && b < 0x0200; // 2001::/23: Teredo, benchmarking, ORCHID
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    let isatap = f == 0x5efe && e & !0x0200 == 0;
    global_unicast && !protocol_assignments && !documentation && !six_to_four && !isatap
}

#[cfg(test)]
mod tests;
