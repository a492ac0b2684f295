//! The rows of one side of a key group that have to wait: a list of chunks in memory, beyond a budget in an [`Overflow`].
//!
//! Rows keep their order and are never joined into one array: what is copied is copied once, when small pieces are joined into a chunk.
//! Chunks are written once and then read, by [`Kept::next`] again and again or by [`Kept::take`] for the last time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::footprint::{RowSizes, Tolerance, compact};
use crate::merge::Emit;

/// Where rows go for which there is no room in memory: written first, then read from the beginning any number of times. What it holds is gone
/// when it is dropped.
pub(crate) trait Overflow: Send {
    /// Adds rows. Never called after the first [`rewind`](Self::rewind).
    fn append(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Goes to the first batch.
    fn rewind(&mut self) -> Result<()>;

    /// The next batch, as it was appended.
    fn next(&mut self) -> Result<Option<RecordBatch>>;
}

/// Makes an [`Overflow`] for rows of a schema.
pub(crate) type MakeOverflow = dyn Fn(&SchemaRef) -> Result<Box<dyn Overflow>> + Send + Sync;

/// How many bytes of rows a join may hold of one key group, and where more go.
#[derive(Clone)]
pub(crate) struct CarryBudget {
    pub(crate) bytes: usize,
    pub(crate) overflow: Arc<MakeOverflow>,
}

impl fmt::Debug for CarryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarryBudget").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The logical bytes of a batch.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    usize::try_from(RowSizes::of_batch(batch).of_rows(0..batch.num_rows())).unwrap_or(usize::MAX)
}

/// Rows that wait.
pub(super) struct Kept {
    schema: SchemaRef,
    overflow: Option<Box<dyn Overflow>>,
    /// What comes after the rows in `overflow`, with its logical bytes.
    chunks: VecDeque<(RecordBatch, usize)>,
    /// Joins small pieces into chunks; its rows come last.
    pieces: Emit,
    /// All rows ever added.
    rows: usize,
    /// Logical bytes of `chunks`.
    bytes: usize,
    /// The next of `chunks` to read.
    at: usize,
    /// Rows are taken as soon as they come, so that there is nothing to weigh.
    passing: bool,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .field("overflows", &self.overflow.is_some())
            .finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(schema: SchemaRef, batch_size: usize) -> Self {
        let pieces = Emit::new(Arc::clone(&schema), batch_size);
        Self { schema, overflow: None, chunks: VecDeque::new(), pieces, rows: 0, bytes: 0, at: 0, passing: false }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the rows in memory, but for the last small pieces.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn overflows(&self) -> bool {
        self.overflow.is_some()
    }

    /// Adds rows as a chunk of their own.
    pub(super) fn push_chunk(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.keep(batch)
    }

    /// Adds rows.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            self.rows += batch.num_rows();
            self.pieces.push(batch)?;
            while let Some(chunk) = self.pieces.pop() {
                self.keep(&chunk)?;
            }
        }
        Ok(())
    }

    /// From now on every chunk is taken before more rows come.
    pub(super) fn pass(&mut self) {
        self.passing = true;
    }

    fn keep(&mut self, chunk: &RecordBatch) -> Result<()> {
        if self.passing {
            self.chunks.push_back((chunk.clone(), 0));
            return Ok(());
        }
        // A slice would keep the whole batch alive that it was cut from.
        let chunk = compact(chunk, Tolerance::SLICE)?;
        let bytes = bytes_of(&chunk);
        self.bytes += bytes;
        self.chunks.push_back((chunk, bytes));
        Ok(())
    }

    /// Makes a chunk of the last small pieces.
    pub(super) fn seal(&mut self) -> Result<()> {
        while let Some(chunk) = self.pieces.finish()? {
            self.keep(&chunk)?;
        }
        Ok(())
    }

    /// Moves the chunks in memory to the overflow.
    pub(super) fn spill(&mut self, budget: &CarryBudget) -> Result<()> {
        let overflow = match &mut self.overflow {
            Some(overflow) => overflow,
            none => none.insert((budget.overflow)(&self.schema)?),
        };
        for (chunk, _) in self.chunks.drain(..) {
            overflow.append(&chunk)?;
        }
        self.bytes = 0;
        Ok(())
    }

    /// Goes to the first chunk.
    pub(super) fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        self.overflow.as_mut().map_or(Ok(()), |overflow| overflow.rewind())
    }

    /// The next chunk, which stays.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(overflow) = &mut self.overflow
            && let Some(chunk) = overflow.next()?
        {
            return Ok(Some(chunk));
        }
        self.at += 1;
        Ok(self.chunks.get(self.at - 1).map(|(chunk, _)| chunk.clone()))
    }

    /// The next chunk, which is let go of. Rows may be added between two calls.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(overflow) = &mut self.overflow {
            if let Some(chunk) = overflow.next()? {
                return Ok(Some(chunk));
            }
            self.overflow = None;
        }
        let Some((chunk, bytes)) = self.chunks.pop_front() else { return Ok(None) };
        self.bytes -= bytes;
        Ok(Some(chunk))
    }
}
