//! Credentials that are easy to find again, whatever they were encoded as on their way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A text that must not come to light.
#[derive(Clone, Debug)]
pub(super) struct Needle {
    /// What it is, for the report.
    pub(super) name: &'static str,
    /// As it is given to the server.
    pub(super) text: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Needle {
    /// Makes a credential whose core is found even if it is cut, quoted, or glued to something else. Around the core
    /// stand letters that URLs, headers and JSON have to encode.
    pub(super) fn new(name: &'static str) -> Self {
        let core = format!("{:016x}", rand::random::<u64>());
        Self::with_core(name, format!("Canary+/ %{core}\"="), &core)
    }

    /// The same without letters that need encoding.
    pub(super) fn plain(name: &'static str) -> Self {
        let core = format!("{:016x}", rand::random::<u64>());
        Self::with_core(name, format!("canary{core}"), &core)
    }

    /// Takes in a credential that somebody else made; all of it is the core.
    pub(super) fn of(name: &'static str, text: &str) -> Self {
        Self::with_core(name, text.to_owned(), text)
    }

    fn with_core(name: &'static str, text: String, core: &str) -> Self {
        let mut forms = vec![
            ("plain", core.as_bytes().to_vec()),
            ("percent-encoded", utf8_percent_encode(core, NON_ALPHANUMERIC).to_string().into_bytes()),
            ("hex", hex::encode(core).into_bytes()),
            ("upper-case hex", hex::encode_upper(core).into_bytes()),
        ];
        forms.extend((0..3).map(|offset| ("base64", in_base64(core, offset))));
        Self { name, text, forms }
    }

    /// As user info or query of a URL has it.
    pub(super) fn in_url(&self) -> String {
        utf8_percent_encode(&self.text, NON_ALPHANUMERIC).to_string()
    }

    /// Where it begins in there, in any form.
    pub(super) fn place_in(&self, hay: &[u8]) -> Option<usize> {
        self.forms.iter().find_map(|(_, form)| memchr::memmem::find(hay, form))
    }

    /// In which form it stands in there, if it does.
    pub(super) fn found_in(&self, hay: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| memchr::memmem::find(hay, form).is_some()).map(|(name, _)| *name)
    }
}

/// The letters of base64 that a text leads to behind `offset` other bytes, whatever those are and whatever follows.
fn in_base64(core: &str, offset: usize) -> Vec<u8> {
    let encoded = STANDARD.encode([&vec![0; offset], core.as_bytes()].concat());
    let first = (offset * 8).div_ceil(6);
    let last = (offset + core.len()) * 8 / 6;
    encoded.as_bytes()[first..last].to_vec()
}

#[test]
fn needles_are_found_in_every_form() {
    let needle = Needle::new("it");
    let text = &needle.text;
    for hay in [
        text.clone(),
        format!("x={}&y", needle.in_url()),
        hex::encode(text),
        hex::encode_upper(text),
        STANDARD.encode(text),
        STANDARD.encode(format!("a{text}b")),
        STANDARD.encode(format!("ab:{text}")),
        format!("{:?}", text.as_bytes().iter().map(|byte| char::from(*byte)).collect::<String>()),
    ] {
        assert!(needle.found_in(hay.as_bytes()).is_some(), "{hay}");
    }
    assert_eq!(needle.found_in(Needle::new("it").text.as_bytes()), None);
}
