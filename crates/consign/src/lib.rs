//! Consign takes files in, works on them and delivers them where they belong.
//!
//! Start here: [`model`] holds the words (job, task, file), [`operations`] what a task can do, [`store`] how it is
//! kept, [`runner`] what drives it, [`http`] how clients reach it, [`webhooks`] how they are told, [`server`] how these are
//! put together. Bytes go through [`files`] and the crate `connectors`. `ARCHITECTURE.md` has the walkthroughs.

#![forbid(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod files;
pub mod http;
pub mod id;
pub mod model;
pub mod operations;
pub mod runner;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod webhooks;
