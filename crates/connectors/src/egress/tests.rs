//! Tests of the guard, with the corpus of spellings that lead where nobody may go.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;

use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Answers with one list after the other, and with the last one for ever.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

impl Scripted {
    fn answering(answers: &[&[IpAddr]]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect())))
    }
}

#[async_trait]
impl Resolver for Scripted {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        assert!(host.parse::<IpAddr>().is_err(), "the address {host} was given to the resolver");
        let mut answers = self.0.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().cloned().unwrap() };
        Ok(next.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

#[test]
fn rules_are_read_in_every_documented_form() {
    assert!(rule("NAS.local").allows_name("nas.local", 445));
    assert!(rule("nas.local.").allows_name("nas.local", 445));
    assert!(!rule("nas.local:22").allows_name("nas.local", 23));
    assert!(rule("*.corp.example").allows_name("a.b.corp.example", 1));
    assert!(!rule("*.corp.example").allows_name("corp.example", 1));
    assert!(!rule("*.corp.example").allows_name("evilcorp.example", 1));
    assert!(!rule("*.corp.example").allows_name(".corp.example", 1));
    assert!(!rule("*.corp.example").allows_name("corp.example.evil.test", 1));
    assert!(rule("bücher.example").allows_name("xn--bcher-kva.example", 1));
    assert!(rule("10.0.0.0/8:443").allows_address(ip("10.1.2.3"), 443));
    assert!(!rule("10.0.0.0/8:443").allows_address(ip("10.1.2.3"), 80));
    assert!(rule("[::1]:80").allows_address(ip("::1"), 80));
    assert!(!rule("[::1]:80").allows_address(ip("::1"), 81));
    assert!(rule("fd00::/8").allows_address(ip("fd12::1"), 80));
    assert!(rule("127.0.0.1").allows_address(ip("127.0.0.1"), 1));
    assert!(!rule("127.0.0.1").allows_address(ip("127.0.0.2"), 1));
    assert!(rule("::ffff:10.0.0.0/104").allows_address(ip("10.9.9.9"), 1));
    assert!(!rule("::ffff:10.0.0.0/104").allows_address(ip("11.9.9.9"), 1));
}

#[test]
fn a_rule_that_may_mean_something_else_is_not_read() {
    for bad in [
        "",
        " ",
        "a b",
        "host:99999",
        "host:",
        "[::1",
        "[::1]80",
        "*.",
        "*",
        "*.*.example",
        "a*.example",
        "http://x",
        "user@host",
        "*.0.0.1",
        "*.10.0.0.1",
        "10.0.0.0/33",
        "10.0.0.0/8:",
        "fd00::/8:443",
        "256.1.1.1",
        "fe80::1%eth0",
    ] {
        assert!(bad.parse::<Rule>().is_err(), "{bad:?} was accepted");
    }
}

#[tokio::test]
async fn a_refusal_names_the_setting() {
    for (host, shown) in [("10.0.0.5", "10.0.0.5"), ("::1", "[::1]"), ("0x7f.1", "127.0.0.1")] {
        let error = Guard::new([]).check(host, 22).await.unwrap_err();
        assert_eq!(error.kind, Kind::HostNotAllowed);
        let expected = format!("{shown} is a private or reserved address; to allow it add {shown}:22 to egress.allow");
        assert_eq!(error.detail, expected);
        assert!(rule(&format!("{shown}:22")).allows_address(ip(shown.trim_matches(['[', ']'])), 22));
    }
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_passes() {
    let forms = testkit::egress::forbidden();
    assert!(forms.len() >= 300, "the corpus has shrunk to {}", forms.len());
    // A name is a mistake here: it would be resolved, to an address that passes.
    let guard = Guard::with_resolver([], Scripted::answering(&[&[ip("1.1.1.1")]]));
    let mut passed = Vec::new();
    for form in forms {
        let expected = if form.address.is_some() { Kind::HostNotAllowed } else { Kind::InvalidRequest };
        for host in [form.host.to_owned(), form.in_url()] {
            match guard.check(&host, 80).await {
                Err(error) if error.kind == expected => {}
                other => passed.push((host, other)),
            }
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test]
async fn no_answer_of_a_resolver_leads_to_a_forbidden_address() {
    let names = testkit::egress::forbidden_names();
    for form in testkit::egress::forbidden().into_iter().chain(names.clone()) {
        let Some(address) = form.address else { continue };
        let guard = Guard::with_resolver([], Scripted::answering(&[&[address]]));
        let error = guard.check("public.example", 80).await.unwrap_err();
        assert_eq!(error.kind, Kind::HostNotAllowed, "{address}");
        // As the resolver would hand out an IPv4 address on a machine that speaks IPv6 only.
        if let IpAddr::V4(v4) = address {
            let guard = Guard::with_resolver([], Scripted::answering(&[&[v4.to_ipv6_mapped().into()]]));
            assert_eq!(guard.check("public.example", 80).await.unwrap_err().kind, Kind::HostNotAllowed, "{v4}");
        }
    }
    for form in names {
        let guard = Guard::with_resolver([], Scripted::answering(&[&[form.address.unwrap()]]));
        assert_eq!(guard.check(form.host, 80).await.unwrap_err().kind, Kind::HostNotAllowed, "{}", form.host);
    }
}

#[tokio::test]
async fn public_addresses_pass_in_every_spelling() {
    let guard = Guard::with_resolver([], Scripted::answering(&[&[]]));
    for form in testkit::egress::public() {
        let expected = unmapped(form.address.unwrap());
        let passed = guard.check(form.host, 443).await.unwrap_or_else(|error| panic!("{}: {error:?}", form.host));
        assert_eq!(passed, [SocketAddr::new(expected, 443)], "{}", form.host);
    }
}

#[tokio::test]
async fn a_rule_opens_what_it_names_and_its_port_only() {
    let resolver = Scripted::answering(&[&[ip("10.1.1.1")]]);
    let rules = ["10.0.0.5:22", "nas.local:445", "*.corp.example:443", "192.168.7.0/24"].map(rule);
    let guard = Guard::with_resolver(rules, resolver);
    for (host, port) in [
        ("10.0.0.5", 22),
        ("0x0a000005", 22),
        ("::ffff:10.0.0.5", 22),
        ("NAS.local.", 445),
        ("a.corp.example", 443),
        ("ａ.corp.example", 443),
        ("192.168.7.255", 1),
    ] {
        assert!(guard.check(host, port).await.is_ok(), "{host}:{port} was refused");
    }
    for (host, port) in [
        ("10.0.0.5", 23),
        ("10.0.0.6", 22),
        ("nas.local", 22),
        ("nas.local.evil.test", 445),
        ("anas.local", 445),
        ("corp.example", 443),
        ("a.corp.example", 80),
        ("acorp.example", 443),
        ("192.168.8.0", 1),
        ("10.1.1.1", 445),
    ] {
        assert!(guard.check(host, port).await.is_err(), "{host}:{port} passed");
    }
}

/// Leads a name to another port than the one that was asked for.
#[derive(Debug)]
struct Diverting(SocketAddr);

#[async_trait]
impl Resolver for Diverting {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}

#[tokio::test]
async fn the_port_that_is_judged_is_the_one_that_is_dialled() {
    let place: SocketAddr = "10.1.2.3:9000".parse().unwrap();
    for (allowed, expected) in [("10.0.0.0/8:443", None), ("10.0.0.0/8:9000", Some(place))] {
        let guard = Guard::with_resolver([rule(allowed)], Arc::new(Diverting(place)));
        assert_eq!(guard.check("storage.example", 443).await.ok(), expected.map(|place| vec![place]), "{allowed}");
    }
}

#[tokio::test]
async fn of_mixed_answers_only_the_allowed_ones_are_dialled() {
    let mixed = [ip("10.0.0.1"), ip("1.1.1.1"), ip("::1"), ip("::ffff:127.0.0.1"), ip("2606:4700::1")];
    let guard = Guard::with_resolver([], Scripted::answering(&[&mixed]));
    let passed = guard.check("mixed.example", 80).await.unwrap();
    assert_eq!(passed, [SocketAddr::new(ip("1.1.1.1"), 80), SocketAddr::new(ip("2606:4700::1"), 80)]);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_by_what_is_dialled() {
    // 127.0.0.9 plays the public address: allowed, and nobody listens there. The trap listens where the name leads next.
    let trap = tokio::net::TcpListener::bind("127.0.0.8:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let answers: &[&[IpAddr]] = &[&[ip("127.0.0.9")], &[ip("127.0.0.8")]];
    let guard = Guard::with_resolver([rule("127.0.0.9")], Scripted::answering(answers));
    let deadline = Duration::from_secs(2);
    let error = guard.connect("rebound.example", port, deadline).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "the first answer was not dialled: {error:?}");
    let error = guard.connect("rebound.example", port, deadline).await.unwrap_err();
    assert_eq!(error.kind, Kind::HostNotAllowed);
    assert!(timeout(Duration::from_millis(50), trap.accept()).await.is_err(), "the refused address was dialled");
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nobody answers in a network for documentation; some machines say so at once, which is as good.
    let silent = [ip("192.0.2.1"), ip("127.0.0.1")];
    let guard = Guard::with_resolver([rule("slow.example")], Scripted::answering(&[&silent]));
    let stream = guard.connect("slow.example", port, Duration::from_secs(2)).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), SocketAddr::new(ip("127.0.0.1"), port));
}

#[tokio::test]
async fn what_is_no_host_is_not_repeated_in_the_error() {
    let error = Guard::new([]).check("user:hunter2@files.example", 22).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidRequest);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_was_written_before_a_connection_is_given_up_does_not_arrive_after() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let guard = Guard::new([rule("127.0.0.1")]);
    let stream = guard.connect("127.0.0.1", port, Duration::from_secs(2)).await.unwrap();
    let (mut other_side, _) = listener.accept().await.unwrap();
    // Until the buffers of both sides are full: some bytes wait on this side.
    let mut written = 0;
    while let Ok(Ok(())) = timeout(Duration::from_millis(200), stream.writable()).await {
        written += stream.try_write(&[7; 16 * 1024]).unwrap_or(0);
    }
    drop(stream);
    let mut arrived = Vec::new();
    let end = other_side.read_to_end(&mut arrived).await;
    assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    assert!(arrived.len() < written, "all {written} bytes arrived");
}
