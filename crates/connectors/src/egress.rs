//! The egress guard: the one place that opens outbound connections, and refuses those that the operator did not allow.
//!
//! The address that is checked is the address that is dialled: a name is resolved once, every address of the answer
//! is judged, and the connection goes to one that passed. So neither a redirect nor a name that changes its address
//! between check and use gets past it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Kind, Result};

/// The time for one name to be resolved. 5 s: two tries of the usual resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried before the connection fails.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Turns host names into addresses. Replaced in tests, never by a setting.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Resolves `host`, which is a name or an address in any spelling that the system understands.
    ///
    /// # Errors
    /// The system's, when the name has no address.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
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

    /// Opens a TCP connection to `host`, at an address that the rules allow, without delay for small writes.
    ///
    /// `host` may be a name, an IPv4 address, or an IPv6 address with or without brackets. The deadline covers all
    /// addresses together.
    ///
    /// # Errors
    /// [`Kind::HostNotAllowed`], [`Kind::HostNotFound`], [`Kind::Unreachable`], [`Kind::Timeout`].
    pub async fn connect(&self, host: &str, port: u16, deadline: Duration) -> Result<TcpStream> {
        let addresses = self.check(host, port).await?;
        match timeout(deadline, dial(&addresses)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                Err(Error::new(Kind::Unreachable, "connecting", format!("{host}:{port} refused the connection"))
                    .because(error))
            }
            Err(_) => Err(Error::new(
                Kind::Timeout,
                "connecting",
                format!("{host}:{port} did not answer within {} s", deadline.as_secs()),
            )),
        }
    }

    /// Resolves `host` and returns the addresses that may be dialled, at least one.
    ///
    /// # Errors
    /// [`Kind::HostNotAllowed`], [`Kind::HostNotFound`].
    pub async fn check(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let bare = bare_host(host);
        let found = match literal(bare) {
            Some(address) => vec![address],
            None => self.resolve(bare).await?,
        };
        let named = self.rules.iter().any(|rule| rule.allows_name(bare, port));
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .map(unmapped)
            .filter(|address| {
                named || is_public(*address) || self.rules.iter().any(|rule| rule.allows_address(*address, port))
            })
            .map(|address| SocketAddr::new(address, port))
            .take(ADDRESSES_TRIED_MAX)
            .collect();
        if allowed.is_empty() { Err(refusal(bare, port)) } else { Ok(allowed) }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        let not_found = || Error::new(Kind::HostNotFound, "resolving the host name", format!("{host} has no address"));
        match timeout(RESOLVE_TIMEOUT, self.resolver.resolve(host)).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(not_found()),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(not_found().because(error)),
            Err(elapsed) => Err(not_found().because(elapsed)),
        }
    }
}

async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        #[expect(clippy::disallowed_methods, reason = "this is the guard itself: the address has been checked")]
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn refusal(host: &str, port: u16) -> Error {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let what = if literal(host).is_some() { "is" } else { "resolves to" };
    Error::new(
        Kind::HostNotAllowed,
        "checking the address",
        format!("{host} {what} a private or reserved address; to allow it add {shown} to egress.allow"),
    )
}

fn bare_host(host: &str) -> &str {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
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
    fn allows_name(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
            && match &self.target {
                Target::Host(name) => name.eq_ignore_ascii_case(host),
                Target::Suffix(suffix) => {
                    let at = host.len().checked_sub(suffix.len());
                    at.is_some_and(|at| {
                        at > 1
                            && host.is_char_boundary(at)
                            && host[at..].eq_ignore_ascii_case(suffix)
                            && host.as_bytes()[at - 1] == b'.'
                    })
                }
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
            return Ok(Self { target: Target::Network(network.trunc()), port });
        }
        if let Ok(address) = target.parse::<IpAddr>() {
            return Ok(Self { target: Target::Network(unmapped(address).into()), port });
        }
        let (name, suffix) = target.strip_prefix("*.").map_or((target, false), |rest| (rest, true));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(bad());
        }
        let name = name.trim_end_matches('.').to_owned();
        Ok(Self { target: if suffix { Target::Suffix(name) } else { Target::Host(name) }, port })
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
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read_in_every_documented_form() {
        assert!(rule("nas.local").allows_name("NAS.local", 445));
        assert!(!rule("nas.local:22").allows_name("nas.local", 23));
        assert!(rule("*.corp.example").allows_name("a.b.corp.example", 1));
        assert!(!rule("*.corp.example").allows_name("corp.example", 1));
        assert!(!rule("*.corp.example").allows_name("evilcorp.example", 1));
        assert!(rule("10.0.0.0/8:443").allows_address([10, 1, 2, 3].into(), 443));
        assert!(!rule("10.0.0.0/8:443").allows_address([10, 1, 2, 3].into(), 80));
        assert!(rule("[::1]:80").allows_address("::1".parse().unwrap(), 80));
        assert!(rule("fd00::/8").allows_address("fd12::1".parse().unwrap(), 80));
        assert!(rule("127.0.0.1").allows_address([127, 0, 0, 1].into(), 1));
        for bad in ["", "a b", "host:99999", "[::1", "*.", "http://x"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad:?} was accepted");
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_setting() {
        let error = Guard::new([]).check("10.0.0.5", 22).await.unwrap_err();
        assert_eq!(error.kind, Kind::HostNotAllowed);
        assert!(error.detail.contains("add 10.0.0.5:22 to egress.allow"), "{}", error.detail);
    }
}
