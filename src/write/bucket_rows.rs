//! All rows of one bucket in order: what lies in spills and what lies in memory, by a k-way merge or, of input that was in order, one part after
//! the other.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::merge::{SortedMerge, Step};
use crate::spill::{Segment, SegmentReader, Spill};
use crate::write::options::InputOrder;
use crate::write::parallel::PIECE_ROWS;
use crate::write::partition::{Pieces, SortedRows};

/// One sorted part of a bucket.
#[derive(Debug)]
enum Part {
    Memory(Pieces),
    Spilled(Segment),
    /// A spilled part from its first row on.
    Open(SegmentReader),
}

impl Part {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Memory(pieces) => Ok(pieces.next()?.map(|(_, batch)| batch)),
            Self::Spilled(segment) => {
                let mut rows = segment.read()?;
                let first = rows.next();
                *self = Self::Open(rows);
                first
            }
            Self::Open(rows) => rows.next(),
        }
    }
}

/// The rows of one bucket in order; rows of equal keys in order of arrival.
///
/// Holds one piece of every part, and one of output; of input that was in order, one piece of one part.
#[derive(Debug)]
pub(super) struct BucketRows {
    parts: VecDeque<Part>,
    /// Absent if the parts are in order one after the other, as a single part is.
    merge: Option<SortedMerge>,
}

impl BucketRows {
    /// The rows of `bucket` in `spills`, oldest first, and in `memory`, which arrived last, all of them in the order `input`.
    pub(super) fn open(
        input: InputOrder,
        schema: &SchemaRef,
        order: &[usize],
        spills: &[Spill],
        memory: Option<&Arc<SortedRows>>,
        bucket: u32,
    ) -> Result<Self> {
        let spilled = spills.iter().filter_map(|spill| spill.segment(bucket)).map(Part::Spilled);
        let parts: VecDeque<Part> = spilled.chain(memory.map(|rows| Part::Memory(rows.bucket(bucket)))).collect();
        let merge = match (input, parts.len()) {
            // No later part has a smaller row, and among equal rows those of an earlier part come first.
            (InputOrder::Sorted, _) | (InputOrder::Any, 0 | 1) => None,
            (InputOrder::Any, inputs) => Some(SortedMerge::new(schema, order, inputs, PIECE_ROWS)?),
        };
        Ok(Self { parts, merge })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Self { parts, merge } = self;
        let Some(merge) = merge else {
            while let Some(part) = parts.front_mut() {
                if let Some(batch) = part.next()? {
                    return Ok(Some(batch));
                }
                parts.pop_front();
            }
            return Ok(None);
        };
        loop {
            match merge.step()? {
                Step::Needs(input) => match parts[input].next()? {
                    Some(batch) => merge.push(input, batch)?,
                    None => merge.finish(input),
                },
                Step::Item(batch) => return Ok(Some(batch)),
                Step::Done => return Ok(None),
            }
        }
    }
}
