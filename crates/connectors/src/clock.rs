//! The clock on the wall, for what another machine compares with its own: signatures, assertions, dates in answers.

use std::time::SystemTime;

/// The real time.
#[expect(
    clippy::disallowed_methods,
    reason = "it is compared with the clock of a service: a test that moves time must not move this one"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
