//! Aggregates: mergeable summaries of the rows of a key, as Arrow columns.
//!
//! * `aggregator`: the trait [`Aggregator`], its laws, and what it is given.
//! * `laws`: checks the laws for any implementation.
//! * `count`, `sum`, `extreme`, `distinct`, `sum_map`, `top_k`: the functions.
//! * `filtered`: any aggregate over the rows that a predicate keeps.
//! * `fold`: aggregates written row by row over plain Rust types.
//! * `segments`, `items`: helpers over segments, and over the items of segments, that several functions share.
//! * `kernel`: the state machine that turns sorted rows into states, merges states and finishes them.
//!
//! ```text
//!  run 0 ── update ──> states ─┐
//!  run 1 ── update ──> states ─┼─ merge by key ──> one state per key ──> finish ──> results
//!  partial of last week ───────┘
//! ```

mod aggregator;
mod count;
mod distinct;
mod extreme;
mod filtered;
mod fold;
mod items;
mod kernel;
mod laws;
mod segments;
mod sum;
mod sum_map;
#[cfg(test)]
mod tests;
mod top_k;

pub use aggregator::{Aggregator, Definition, Segments};
pub use count::Count;
pub use distinct::CountDistinct;
pub use extreme::{Max, Min};
pub use filtered::Filtered;
pub use fold::Fold;
pub(crate) use kernel::{AggregateSpec, Bound, Feeding, aggregate_kernel};
pub use laws::check_laws;
pub use sum::{Mean, Sum};
pub use sum_map::SumMap;
pub use top_k::TopK;
