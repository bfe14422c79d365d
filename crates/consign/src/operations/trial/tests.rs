//! Trials of a destination in memory that refuses what it is told to.
