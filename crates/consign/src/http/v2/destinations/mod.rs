//! Destinations.

pub mod test;
