//! The program from outside: its API, its commands, its store, its shape.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

mod http;
mod program;
mod store_sqlite;
mod tidy;
