//! Co-groups: for each key, the rows of every source.
//!
//! * `groups`: the types that callers see: whole groups, chunks of groups, one group.
//! * `kernel`: the state machines that cut aligned windows into groups.

mod groups;
mod kernel;
#[cfg(test)]
mod tests;

pub(crate) use groups::SourceNames;
pub use groups::{CoGroupBatch, CoGroupChunk, KeyGroup};
pub(crate) use kernel::{CoGroupInputs, chunk_kernel, whole_kernel};
