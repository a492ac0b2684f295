//! What running a plan cost: counted slot by slot while it runs, read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the running or finished slots of a plan have read and made so far.
///
/// Taken from [`PlanStream::metrics`](crate::PlanStream::metrics). Slots that have not started are all zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanMetrics {
    /// One entry per slot.
    pub slots: Vec<SlotMetrics>,
}

impl PlanMetrics {
    /// The sums over all slots.
    pub fn total(&self) -> SlotMetrics {
        self.slots.iter().fold(SlotMetrics::default(), |sum, slot| sum.zip(slot, |a, b| a + b))
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What one slot has read and made, or all of them together.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SlotMetrics {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl SlotMetrics {
            fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
                Self { $($name: with(self.$name, other.$name),)+ }
            }
        }

        /// The counters of one slot, shared by everything that works for it.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> SlotMetrics {
                SlotMetrics { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters!(
    /// Runs opened.
    runs,
    /// Reads asked of the store; the store may cut one into several or answer from a cache.
    requests,
    /// Bytes read from the store: footers, page indexes, and pages.
    bytes,
    /// Row groups decoded, at least in part.
    row_groups,
    /// Row groups left out by their statistics.
    row_groups_pruned,
    /// Rows left out by page statistics, before any column was decoded.
    rows_pruned,
    /// Rows left out by their decoded keys or by a predicate, before the other columns were decoded.
    rows_filtered,
    /// Rows read from runs; those of the side of a join that is read first count again if they are read again.
    rows_read,
    /// Rows that a join wrote to local disk, because a key has more of them than its budget allows.
    rows_spilled,
    /// Rows of the batches made: of a co-group, its groups.
    rows_made,
);

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }
}
