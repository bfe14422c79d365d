//! How the memory for parts of transfers is used.

use std::sync::OnceLock;

use connectors::Budget;
use prometheus_client::metrics::gauge::Gauge;

use super::whole;

/// The budget, and what was last read of it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    budget: OnceLock<Budget>,
    total_bytes: Gauge,
    used_bytes: Gauge,
    parts_waiting: Gauge,
}

impl Memory {
    /// Reads this budget from now on; the first one counts.
    pub(super) fn watch(&self, budget: Budget) {
        let _ = self.budget.set(budget);
    }

    /// Its gauges by the names of the table.
    pub(super) fn gauges(&self) -> [(&'static str, &Gauge); 3] {
        [
            ("consign_transfer_memory_bytes", &self.total_bytes),
            ("consign_transfer_memory_used_bytes", &self.used_bytes),
            ("consign_transfer_parts_waiting", &self.parts_waiting),
        ]
    }

    /// Brings the gauges up to date.
    pub(super) fn read(&self) {
        if let Some(usage) = self.budget.get().map(Budget::usage) {
            self.total_bytes.set(whole(usage.total_bytes));
            self.used_bytes.set(whole(usage.held_bytes));
            self.parts_waiting.set(whole(usage.waiting as u64));
        }
    }
}
