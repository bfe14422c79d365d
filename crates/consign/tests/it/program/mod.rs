//! The real binary against real servers: started, killed, stopped, frozen, and looked at from outside.

mod balancer;
mod boot;
mod cancel;
mod commands;
mod crash;
mod deploy;
mod destinations;
mod drain;
mod fail_points;
mod faults;
mod fence;
mod fleet;
mod harness;
mod operation;
mod overlap;
mod ownership;
mod places;
mod pooler;
mod receiver;
mod roles;
mod shared_files;
mod stop;
mod sweep;
mod tls;
mod waiting;
mod webhooks;

pub(crate) use harness::{Program, eventually, id, task};
pub(crate) use receiver::{Heard, Receiver};
