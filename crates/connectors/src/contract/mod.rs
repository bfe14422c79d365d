//! The contract that every connector keeps, as a suite that its tests run against a real server.
//!
//! A system's test implements [`Fixture`] (how to reach the server, a [`Wire`] that can be broken, a [`Witness`] by
//! another hand) and calls [`all`], which walks [`CASES`]. A case leaves nothing behind, and either holds, or says
//! why it cannot be asked of this storage: [`Excluded`], by its [`Capability`](crate::Capability) or by the server at
//! hand. There is one file for each theme.

mod content;
mod faults;
mod fixture;
mod handy;
mod listing;
mod names;
mod refusals;
mod resume;
mod sizes;

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub use fixture::{BoxError, Fixture, Seen, Who, Wire, Witness};
pub use handy::{bytes, get, put, request};

/// Size of the large object.
pub const LARGE_BYTES: usize = 200 * 1024 * 1024;

/// One thing that every connector must do.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: a row of the conformance matrix.
    pub name: &'static str,
    /// What it asks, in a phrase.
    pub about: &'static str,
    /// Asks it of a storage. Panics when the connector breaks the contract.
    pub run: for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, Outcome>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a case ended that did not fail. `Err` is no failure: the case cannot be asked of this storage.
pub type Outcome = Result<(), Excluded>;

/// Why a case cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// What stands in its way.
    pub by: By,
    /// The reason, as a phrase for people.
    pub reason: &'static str,
}

/// What stands in the way of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The protocol cannot express it, as the connector's [`Capability`](crate::Capability) says.
    Protocol,
    /// The protocol could, the server at hand cannot.
    Server,
}

impl Excluded {
    /// The protocol cannot express the case.
    pub const fn by_protocol(reason: &'static str) -> Self {
        Self { by: By::Protocol, reason }
    }

    /// The server at hand cannot take the case.
    pub const fn by_server(reason: &'static str) -> Self {
        Self { by: By::Server, reason }
    }

    /// Leaves a case unless `is_able`.
    const fn unless(is_able: bool, reason: &'static str) -> Outcome {
        if is_able { Ok(()) } else { Err(Self::by_protocol(reason)) }
    }
}

macro_rules! cases {
    ($($theme:ident::$name:ident: $about:literal,)*) => {
        &[$(Case { name: stringify!($name), about: $about, run: |fixture| Box::pin($theme::$name(fixture)) },)*]
    };
}

/// The contract, in the order in which it is asked and shown.
pub const CASES: &[Case] = cases! {
    sizes::empty_object: "an object of no bytes",
    sizes::one_byte: "an object of 1 byte",
    sizes::a_part_less_a_byte: "an object one byte smaller than a part",
    sizes::one_part: "an object as large as a part",
    sizes::a_part_and_a_byte: "an object one byte larger than a part",
    sizes::large_object: "an object of 200 MiB",
    sizes::three_hundred_files: "300 small objects, several at once",
    sizes::ranges: "a range holds exactly its bytes",
    names::spaces: "spaces in a name",
    names::unicode: "letters beyond ASCII in a name, composed and decomposed",
    names::percent_signs: "`%`, alone and before digits, in a name",
    names::plus_signs: "`+` and what else means something in a URL",
    names::brackets_and_quotes: "brackets, quotes and what a shell would expand",
    names::leading_slash: "a name that begins with a slash",
    names::double_slash: "a name with an empty segment",
    names::dot_segments: "a name with `.` and `..` segments",
    names::longest_name: "a name of 1,024 bytes",
    listing::list_by_prefix: "a listing holds what begins with the prefix, in order, and is refused rather than cut",
    listing::missing_object: "an object that is not there is told apart from other errors",
    content::content_type: "the media type is kept",
    content::overwrite: "a second object replaces the first, shorter or longer",
    content::the_same_export_twice: "the same export again leaves the same object and nothing else",
    content::the_same_export_at_the_same_time: "two exports at the same time leave one of the two, whole",
    refusals::wrong_key_id: "an unknown key id or user is refused at once",
    refusals::wrong_secret: "a wrong secret is refused at once",
    refusals::missing_container: "a missing bucket or container is named",
    refusals::no_permission: "credentials that may only read are told what they lack",
    resume::interrupted_put: "an interrupted upload leaves the old object, and `abort` the rest away",
    resume::resumed_put: "an interrupted upload goes on from the journal, and anew when it is gone",
    resume::other_bytes: "an upload of other bytes is not gone on with",
    faults::cut_at_half: "a connection cut at 50 %: nothing visible, then only the rest is sent, counted by bytes",
    faults::cut_and_mended: "a cut is mended within an attempt",
    faults::flipped_bit_in_a_small_object: "a bit flipped on the way in a single write is noticed",
    faults::flipped_bit_in_a_part: "a bit flipped on the way in a part is noticed",
    faults::unavailable: "503 on every fifth request is waited out",
    faults::throttled: "429 on every fifth request is waited out",
    faults::silence: "a server that takes no byte ends in a timeout that may be tried again",
    faults::silence_while_reading: "a server that sends no byte ends in a timeout",
    faults::cancelled: "an upload cancelled in the middle leaves nothing once it was aborted",
};

/// Runs the whole suite (or, while looking for a fault, the cases whose name contains `CONSIGN_TEST_CASE`), and tells
/// how each case ended. All cases are run, whatever becomes of the first.
///
/// # Panics
/// When the connector breaks the contract, with the names of all cases that it breaks.
pub async fn all(fixture: &dyn Fixture) -> Vec<(&'static Case, Outcome)> {
    let wanted = wanted();
    let (mut ended, mut broken) = (Vec::new(), Vec::new());
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        tracing::info!(case = case.name, "a case of the contract begins");
        match AssertUnwindSafe((case.run)(fixture)).catch_unwind().await {
            Ok(outcome) => ended.push((case, outcome)),
            Err(panic) => broken.push(format!("{}: {}", case.name, message(panic.as_ref()))),
        }
    }
    assert!(broken.is_empty(), "{} cases of the contract are broken:\n{}", broken.len(), broken.join("\n"));
    ended
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
fn wanted() -> String {
    std::env::var("CONSIGN_TEST_CASE").unwrap_or_default()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked without a message")
}
