//! What must not happen: credentials that come to light, connections into the server's own network.

mod canary;
mod egress;
mod needles;
mod program;
mod review;
mod targets;
