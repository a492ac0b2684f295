//! All rows of one bucket in order: what lies in memory, what lies in spills, or a k-way merge of both.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::merge::{SortedMerge, Step};
use crate::spill::{SegmentReader, Spill};
use crate::write::parallel::PIECE_ROWS;
use crate::write::partition::{Pieces, SortedRows};

/// One sorted part of a bucket.
#[derive(Debug)]
enum Part {
    Memory(Pieces),
    Spilled(SegmentReader),
}

impl Part {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Memory(pieces) => Ok(pieces.next()?.map(|(_, batch)| batch)),
            Self::Spilled(segment) => segment.next(),
        }
    }
}

/// The rows of one bucket in order; rows of equal keys in order of arrival.
///
/// Holds one piece of every part, and one of output.
#[derive(Debug)]
pub(super) struct BucketRows {
    parts: Vec<Part>,
    /// Absent for a single part, which is in order already.
    merge: Option<SortedMerge>,
}

impl BucketRows {
    /// The rows of `bucket` in `spills`, oldest first, and in `memory`, which arrived last.
    pub(super) fn open(
        schema: &SchemaRef,
        order: &[usize],
        spills: &[Spill],
        memory: Option<&Arc<SortedRows>>,
        bucket: u32,
    ) -> Result<Self> {
        let mut parts = vec![];
        for spill in spills {
            parts.extend(spill.read(bucket)?.map(Part::Spilled));
        }
        parts.extend(memory.map(|rows| Part::Memory(rows.bucket(bucket))));
        let merge = match parts.len() {
            0 | 1 => None,
            inputs => Some(SortedMerge::new(schema, order, inputs, PIECE_ROWS)?),
        };
        Ok(Self { parts, merge })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Self { parts, merge } = self;
        let Some(merge) = merge else {
            return parts.first_mut().map_or(Ok(None), Part::next);
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
