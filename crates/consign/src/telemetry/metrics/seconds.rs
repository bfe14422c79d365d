//! How durations are counted.

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds of the duration histograms: from a database read to a long transfer.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

pub(super) fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}
