//! Large groups: the `l × r` pairs of one key, chunk by chunk, whatever `l` and `r` are.
//!
//! As long as both sides may bring more rows, rows are only kept. When one side has ended, it is the **complete** side: all its rows stay, in
//! memory or beyond the budget on disk. The other side then goes by in blocks, and each block meets every chunk of the complete side:
//!
//! ```text
//!                      block 0     block 1     block 2 …      a block is a chunk if the complete side is in memory,
//!   complete, chunk 0     ×           ×           ×           else as many chunks as the budget allows, so that the disk
//!             chunk 1     ×           ×           ×           is read once per budget and not once per chunk
//! ```
//!
//! A row of a block has met all its partners when its block is done, a row of the complete side when the other side has ended: that is when a
//! condition's outcome for it is known.

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::join::kept::{CarryBudget, Kept, bytes_of};
use crate::join::outlet::{Matched, Outlet, Side};
use crate::join::output::SideRows;
use crate::join::pairing::Lists;
use crate::join::row_list::RowList;

/// What a step of a large group came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be output; go on.
    More,
    /// Rows must be added, or a side closed.
    Starved,
    /// The group has ended.
    Done,
}

/// One side of a large group.
#[derive(Debug)]
pub(super) struct LargeSide {
    pub(super) rows: Kept,
    /// More rows may come.
    pub(super) open: bool,
    /// Which rows of the first chunk have found a partner before.
    pub(super) matched: Option<BooleanBuffer>,
}

/// A key group with rows on both sides.
#[derive(Debug)]
pub(super) struct LargeGroup {
    /// Left, right.
    sides: [LargeSide; 2],
    /// The first chunks of both sides have met before.
    met: bool,
    /// `None` as long as both sides are open.
    passes: Option<Passes>,
}

impl LargeGroup {
    /// With `met`, the first chunks of the two sides have met before.
    pub(super) fn new(left: LargeSide, right: LargeSide, met: bool) -> Self {
        Self { sides: [left, right], met, passes: None }
    }

    /// Adds rows of the left and the right side and says whether more may come.
    pub(super) fn push(&mut self, rows: [RecordBatch; 2], open: [bool; 2], budget: &CarryBudget) -> Result<()> {
        for ((side, rows), open) in self.sides.iter_mut().zip(rows).zip(open) {
            side.rows.push(rows)?;
            side.open &= open;
        }
        if self.passes.is_none() {
            let [left, right] = &mut self.sides;
            while left.rows.bytes() + right.rows.bytes() > budget.bytes {
                let larger = if left.rows.bytes() > right.rows.bytes() { &mut *left } else { &mut *right };
                larger.rows.spill(budget)?;
            }
        }
        Ok(())
    }

    /// No more rows come.
    pub(super) fn close(&mut self) {
        self.sides.iter_mut().for_each(|side| side.open = false);
    }

    /// Makes the next rows of output.
    pub(super) fn step(&mut self, outlet: &mut Outlet, budget: &CarryBudget) -> Result<Progress> {
        let [left, right] = &mut self.sides;
        let Some(passes) = &mut self.passes else {
            let complete_is_left = match (left.open, right.open) {
                (true, true) => return Ok(Progress::Starved),
                (left_open, true) => !left_open,
                (true, false) => false,
                // What is in memory can be gone through for every chunk of the other side.
                (false, false) => {
                    let cost = |side: &LargeSide| (side.rows.overflows(), side.rows.rows());
                    cost(left) <= cost(right)
                }
            };
            self.passes = Some(Passes::begin(&mut self.sides, complete_is_left, outlet, budget)?);
            return Ok(Progress::More);
        };
        let (complete, other) = if passes.complete_is_left { (left, right) } else { (right, left) };
        passes.step(complete, other, self.met, outlet, budget)
    }
}

/// Block after block of one side against the other, the complete one.
#[derive(Debug)]
struct Passes {
    complete_is_left: bool,
    /// Of the rows of the complete side.
    matched: Matched,
    /// Whether the block at hand is the first one.
    first_block: bool,
    block: Block,
    at: At,
}

/// Chunks of the side that goes by.
#[derive(Debug)]
struct Block {
    chunks: Vec<RecordBatch>,
    bytes: usize,
    /// Of all its rows.
    matched: Matched,
}

#[derive(Debug)]
enum At {
    /// The block is filled.
    Filling,
    /// The block meets this chunk of the complete side.
    Meeting(Meeting),
    /// The block has met all of the complete side; its rows are let go of, next this chunk.
    Leaving { chunk: usize, first_row: usize },
    /// The other side has ended; the rows of the complete side are let go of.
    Ending { first_row: usize },
}

/// A chunk of the complete side and one of the block.
#[derive(Debug)]
struct Meeting {
    /// The chunk of the complete side, its number and that of its first row.
    chunk: RecordBatch,
    number: usize,
    first_row: usize,
    /// The number of the block's chunk and of its first row in the block.
    other: usize,
    other_first_row: usize,
    /// The next of their pairs.
    pair: u64,
}

impl Passes {
    /// Once a side is complete, pairs can be made.
    fn begin(
        sides: &mut [LargeSide; 2],
        complete_is_left: bool,
        outlet: &Outlet,
        budget: &CarryBudget,
    ) -> Result<Self> {
        let complete = usize::from(!complete_is_left);
        sides[complete].rows.seal()?;
        for side in sides.iter_mut().filter(|side| side.rows.overflows()) {
            // The budget is the block's from now on.
            side.rows.spill(budget)?;
            side.rows.rewind()?;
        }
        if !sides[complete].rows.overflows() {
            sides[1 - complete].rows.pass();
        }
        let LargeSide { rows, matched, .. } = &mut sides[complete];
        let matched = Matched::new(outlet.remembers()[complete], matched.take(), rows.rows());
        let block = Block { chunks: vec![], bytes: 0, matched: Matched::default() };
        Ok(Self { complete_is_left, matched, first_block: true, block, at: At::Filling })
    }

    fn step(
        &mut self,
        complete: &mut LargeSide,
        other: &mut LargeSide,
        met: bool,
        outlet: &mut Outlet,
        budget: &CarryBudget,
    ) -> Result<Progress> {
        match &mut self.at {
            At::Filling => return self.fill(complete, other, outlet, budget),
            At::Meeting(meeting) if meeting.other == self.block.chunks.len() => {
                let (number, first_row) = (meeting.number + 1, meeting.first_row + meeting.chunk.num_rows());
                self.at = Self::next_meeting(complete, number, first_row)?;
            }
            At::Meeting(meeting) => {
                let chunk = &self.block.chunks[meeting.other];
                let pairs = chunk.num_rows() as u64 * meeting.chunk.num_rows() as u64;
                let done_before = met && self.first_block && meeting.other == 0 && meeting.number == 0;
                if meeting.pair == pairs || done_before {
                    (meeting.other, meeting.other_first_row) =
                        (meeting.other + 1, meeting.other_first_row + chunk.num_rows());
                    meeting.pair = 0;
                    return Ok(Progress::More);
                }
                let sizes = (meeting.chunk.num_rows(), chunk.num_rows());
                let (own, others) = next_pairs(sizes, &mut meeting.pair, outlet.batch_size());
                let mut own_rows = SideRows::new(None, meeting.chunk.clone());
                let mut other_rows = SideRows::new(None, chunk.clone());
                let mut own_side =
                    Side { rows: &mut own_rows, matched: &mut self.matched, first_row: meeting.first_row };
                let mut other_side = Side {
                    rows: &mut other_rows,
                    matched: &mut self.block.matched,
                    first_row: meeting.other_first_row,
                };
                if self.complete_is_left {
                    outlet.put(&mut own_side, &mut other_side, Lists { left: own, right: others }, &[])?;
                } else {
                    outlet.put(&mut other_side, &mut own_side, Lists { left: others, right: own }, &[])?;
                }
            }
            At::Leaving { chunk, first_row } => {
                if let Some(rows) = self.block.chunks.get(*chunk) {
                    let matched = &mut self.block.matched;
                    let absent = complete.rows.schema();
                    outlet.let_go(rows, matched, *first_row, !self.complete_is_left, absent)?;
                    (*chunk, *first_row) = (*chunk + 1, *first_row + rows.num_rows());
                } else {
                    self.block.chunks.clear();
                    self.block.bytes = 0;
                    self.first_block = false;
                    self.at = At::Filling;
                }
            }
            At::Ending { first_row } => {
                let Some(rows) = complete.rows.next()? else { return Ok(Progress::Done) };
                let absent = other.rows.schema();
                outlet.let_go(&rows, &mut self.matched, *first_row, self.complete_is_left, absent)?;
                *first_row += rows.num_rows();
            }
        }
        Ok(Progress::More)
    }

    fn fill(
        &mut self,
        complete: &mut LargeSide,
        other: &mut LargeSide,
        outlet: &Outlet,
        budget: &CarryBudget,
    ) -> Result<Progress> {
        if !other.open {
            other.rows.seal()?;
        }
        let block = &mut self.block;
        while block.chunks.is_empty() || complete.rows.overflows() && block.bytes < budget.bytes {
            match other.rows.take()? {
                Some(chunk) => {
                    if complete.rows.overflows() {
                        block.bytes += bytes_of(&chunk);
                    }
                    block.chunks.push(chunk);
                }
                None if other.open => return Ok(Progress::Starved),
                None if block.chunks.is_empty() => {
                    if !outlet.remembers()[usize::from(!self.complete_is_left)] {
                        return Ok(Progress::Done);
                    }
                    complete.rows.rewind()?;
                    self.at = At::Ending { first_row: 0 };
                    return Ok(Progress::More);
                }
                None => break,
            }
        }
        let rows = block.chunks.iter().map(RecordBatch::num_rows).sum();
        block.matched =
            Matched::new(outlet.remembers()[usize::from(self.complete_is_left)], other.matched.take(), rows);
        complete.rows.rewind()?;
        self.at = Self::next_meeting(complete, 0, 0)?;
        Ok(Progress::More)
    }

    /// The next chunk of the complete side meets the block, if there is one.
    fn next_meeting(complete: &mut LargeSide, number: usize, first_row: usize) -> Result<At> {
        Ok(match complete.rows.next()? {
            Some(chunk) => At::Meeting(Meeting { chunk, number, first_row, other: 0, other_first_row: 0, pair: 0 }),
            None => At::Leaving { chunk: 0, first_row: 0 },
        })
    }
}

/// The next pairs of two chunks with so many rows, from `pair` on, at most `batch_size`: the rows of either one.
///
/// The smaller chunk is the outer loop, so that the rows of the larger one are stretches, which cost no copy. A stretch is more than half a
/// batch where that is possible, for smaller batches are joined to larger ones by a copy.
fn next_pairs((own, others): (usize, usize), pair: &mut u64, batch_size: usize) -> (RowList, RowList) {
    let (outer, inner) = (own.min(others), own.max(others));
    let (mut row, mut at) = ((*pair / inner as u64) as usize, (*pair % inner as u64) as usize);
    let stretches = inner * 2 > batch_size;
    let most = if stretches { inner.div_ceil(inner.div_ceil(batch_size)) } else { batch_size };
    let (mut outer_rows, mut inner_rows) = (RowList::expecting(most), RowList::expecting(most));
    while row < outer && outer_rows.len() < most {
        let end = inner.min(at + most - outer_rows.len());
        outer_rows.push_repeated(row as u32, end - at);
        inner_rows.push_run(at as u32, end - at);
        (row, at) = if end == inner { (row + 1, 0) } else { (row, end) };
        if stretches {
            break;
        }
    }
    *pair += outer_rows.len() as u64;
    if own <= others { (outer_rows, inner_rows) } else { (inner_rows, outer_rows) }
}
