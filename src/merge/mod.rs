//! The merge core: sorted inputs in, rows of one order out, without I/O.
//!
//! * `keys`: typed views of key columns, so that the comparison loops are monomorphised.
//! * `heads`: the first bytes of keys as numbers, which settle most comparisons.
//! * `input`: one sorted input, its order checked as it is fed in.
//! * `kway`: the inputs of one source merged into one sorted sequence.
//! * `scan`: the merge of one source as a kernel of its own.
//! * `align`: several sources advanced together, in windows up to a common key.
//! * `emit`: the batches that kernels hand out, brought to a useful size.
//!
//! Everything here is a state machine that is fed and asked: [`Step::Needs`] names the input that must be fed (or finished) before the next
//! item can be made. The async shell and the tests are two drivers of the same machine.
//!
//! ```text
//!  run 0 ─┐
//!  run 1 ─┼─ KWay ── source 0 ─┐            keys up to the bound       ┌ join kernel
//!  run 2 ─┘                    ├─ Align ──  [1 2 2 3 | 5 …]  ──────────┤
//!  run 3 ─── KWay ── source 1 ─┘            [2 3 3   | 4 …]            └ co-group kernel
//! ```

mod align;
mod emit;
mod heads;
mod input;
mod keys;
mod kway;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

use arrow::array::RecordBatch;

use crate::error::Result;

pub(crate) use align::{Align, SourceInputs, SourceRows, Ties, Window};
pub(crate) use emit::Emit;
pub(crate) use heads::{common_bytes, head_of_bytes};
pub(crate) use input::{Input, Order, Segment};
pub(crate) use keys::{Extract, ForKeys, Keys, dispatch};
pub(crate) use kway::{KWay, SortedMerge, gather};
pub(crate) use scan::scan_kernel;

/// What a state machine of this crate says when asked to go on.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// Feed this input, or say that it has ended, and ask again.
    Needs(usize),
    /// The next item.
    Item(T),
    /// There is no more.
    Done,
}

/// A machine that turns sorted inputs into items. Implemented by the kernels that plans run.
pub(crate) trait Kernel: Send {
    /// What it makes.
    type Item;

    /// Feeds the next rows of an input: canonical columns of the input's schema, in the order of the merge.
    ///
    /// # Errors
    /// `Unsorted` if the rows are not in order, or come before rows that were fed earlier.
    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()>;

    /// Says that an input has no more rows.
    fn finish(&mut self, input: usize);

    /// The next item, or what is needed for it.
    fn step(&mut self) -> Result<Step<Self::Item>>;
}
