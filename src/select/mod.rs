//! Which rows of a source are wanted, and what statistics say about where they are. Knows no I/O.
//!
//! * `key_range`: a stretch of the key order.
//! * `key_set`: sorted keys, matched against the sorted keys of a run.
//! * `pruning`: predicates against minima, maxima and null counts.
//!
//! Everything here errs on one side only: rows, pages and runs are left out when it is certain that nothing of them is wanted.

mod key_range;
mod key_set;
mod pruning;
#[cfg(test)]
mod tests;

pub use key_range::KeyRange;
pub(crate) use key_range::{Coverage, after};
pub use key_set::KeySet;
pub(crate) use key_set::{SortedKeys, order_matcher};
pub(crate) use pruning::{ColumnStatistics, conjuncts, key_hints, may_hold};
