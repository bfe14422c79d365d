//! The little of Socket.IO's packets that is spoken here: text only, the main namespace only. The same for both versions
//! of the protocol, but for who says hello.

use serde_json::Value;

/// A packet from a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Packet {
    /// It wants to use a namespace; none is the main one.
    Connect(Option<String>),
    /// It leaves.
    Disconnect,
    /// It says something; with a number, it wants to hear that this was heard.
    Event(String, Value, Option<u64>),
    /// Something that is of no use here.
    Other,
}

impl Packet {
    /// Reads a packet; `None` for what is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let kind = *text.as_bytes().first()?;
        let rest = text.get(1..)?;
        let (namespace, rest) = match rest.strip_prefix('/') {
            Some(named) => {
                let (name, rest) = named.split_once(',').unwrap_or((named, ""));
                // Old clients put a query behind the name.
                (Some(name.split('?').next().unwrap_or(name)).filter(|name| !name.is_empty()), rest)
            }
            None => (None, rest),
        };
        match kind {
            b'0' => Some(Self::Connect(namespace.map(|name| format!("/{name}")))),
            b'1' if namespace.is_none() => Some(Self::Disconnect),
            b'2' if namespace.is_none() => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (ack, json) = rest.split_at_checked(digits)?;
                let said: Vec<Value> = serde_json::from_str(json).ok()?;
                let mut said = said.into_iter();
                let name = said.next()?.as_str()?.to_owned();
                Some(Self::Event(name, said.next().unwrap_or(Value::Null), ack.parse().ok()))
            }
            b'1'..=b'6' => Some(Self::Other),
            _ => None,
        }
    }
}

/// Says that the main namespace can be used, as version 5 of the protocol wants it.
pub(super) fn welcome(id: &str) -> String {
    format!("0{}", serde_json::json!({"sid": id}))
}

/// The same in version 4, where the server says it unasked.
pub(super) const WELCOME_V4: &str = "0";

/// Says that there is no such namespace.
pub(super) fn no_namespace(name: &str, is_v4: bool) -> String {
    let message = Value::from("Invalid namespace");
    format!("4{name},{}", if is_v4 { message } else { serde_json::json!({"message": message}) })
}

/// Says that a packet was heard.
pub(super) fn heard(number: u64) -> String {
    format!("3{number}[]")
}

/// An event about a channel; `data` is JSON.
pub(super) fn event(name: &str, channel: &str, data: &str) -> String {
    format!("2[{},{},{data}]", Value::from(name), Value::from(channel))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packets_are_read() {
        let event = |name: &str, data, ack| Some(Packet::Event(name.to_owned(), data, ack));
        for (text, packet) in [
            ("0", Some(Packet::Connect(None))),
            ("0{\"token\":1}", Some(Packet::Connect(None))),
            ("0/", Some(Packet::Connect(None))),
            ("0/?a=b,", Some(Packet::Connect(None))),
            ("0/admin,{}", Some(Packet::Connect(Some("/admin".to_owned())))),
            ("1", Some(Packet::Disconnect)),
            ("1/admin,", Some(Packet::Other)),
            ("2[\"subscribe\",{\"channel\":\"c\"}]", event("subscribe", json!({"channel": "c"}), None)),
            ("217[\"x\"]", event("x", json!(null), Some(17))),
            ("2/admin,[\"x\"]", Some(Packet::Other)),
            ("51-[\"x\",{\"_placeholder\":true,\"num\":0}]", Some(Packet::Other)),
            ("3[]", Some(Packet::Other)),
            ("", None),
            ("2", None),
            ("2[]", None),
            ("2[1]", None),
            ("2{}", None),
            ("9", None),
            ("ä", None),
        ] {
            assert_eq!(Packet::parse(text), packet, "{text}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_a_packet() {
        assert_eq!(event("job.created", "a\",\"b", "{\"job\":1}"), r#"2["job.created","a\",\"b",{"job":1}]"#);
    }
}
