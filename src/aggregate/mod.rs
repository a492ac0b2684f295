//! Aggregates: mergeable summaries of the rows of a key, as Arrow columns.
//!
//! * `aggregator`: the trait [`Aggregator`], its laws, and what it is given.
//! * `laws`: checks the laws for any implementation.
//! * `count`, `sum`, `variance`, `extreme`, `first_last`, `collect`, `distinct`, `approx_distinct`, `sum_map`, `top_k`: the functions.
//! * `filtered`: any aggregate over the rows that a predicate keeps.
//! * `fold`: aggregates written row by row over plain Rust types.
//! * `exact`: sums of floats without rounding. `order`: what comes before what in a column.
//! * `segments`, `items`: helpers over segments, and over the items of segments, that several functions share.
//! * `kernel`: the state machine that turns sorted rows into states, merges states and finishes them.
//!
//! ```text
//!  run 0 ── update ──> states ─┐
//!  run 1 ── update ──> states ─┼─ merge by key ──> one state per key ──> finish ──> results
//!  partial of last week ───────┘
//! ```

mod aggregator;
mod approx_distinct;
mod collect;
mod count;
mod distinct;
mod exact;
mod extreme;
mod filtered;
mod first_last;
mod fold;
mod items;
mod kernel;
mod laws;
mod order;
mod segments;
mod sum;
mod sum_map;
#[cfg(test)]
mod tests;
mod top_k;
mod variance;

pub use aggregator::{Aggregator, Definition, Segments};
pub use approx_distinct::ApproxCountDistinct;
pub use collect::Collect;
pub use count::Count;
pub use distinct::CountDistinct;
pub use extreme::{All, Any, Max, Min};
pub use filtered::Filtered;
pub use first_last::{First, Last, OrderedBy};
pub use fold::Fold;
pub(crate) use kernel::{AggregateSpec, Bound, Feeding, aggregate_kernel};
pub use laws::check_laws;
pub use sum::{Mean, Sum};
pub use sum_map::SumMap;
pub use top_k::TopK;
pub use variance::{StdDev, Variance};
