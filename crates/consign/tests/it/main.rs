//! The program from outside: its API, its commands, its store, its shape.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it stands, and say why"
)]

mod chaos;
mod clients;
mod http;
mod model;
mod program;
mod readiness;
mod runners;
mod security;
mod state;
mod store_groups;
mod store_memory;
mod store_pooled;
mod store_postgres;
mod store_sqlite;
mod tidy;
