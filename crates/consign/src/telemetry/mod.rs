//! What operators see: logs, metrics, traces, and whether the server can work.

mod disk;
pub mod health;
mod json;
pub mod logs;
pub mod loops;
pub mod metrics;
pub mod traces;
