//! Skeleton.
pub mod egress;
