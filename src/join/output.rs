//! Row lists become batches.
//!
//! A side whose rows are a stretch of its window is sliced, without a copy; otherwise its columns are taken by index, where "no row"
//! gives null. Key columns appear once: from a side that can be sliced if the join allows, coalesced in full joins.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::Result;
use crate::join::row_list::{NONE, RowList};

/// Where an output column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputColumn {
    /// A join column: the same value on both sides where both have a row.
    Key {
        /// Its position on the left.
        left: usize,
        /// Its position on the right.
        right: usize,
    },
    /// A column of the left side.
    Left(usize),
    /// A column of the right side.
    Right(usize),
}

/// The schema of a join's output and where its columns come from.
#[derive(Debug, Clone)]
pub(crate) struct OutputLayout {
    pub(crate) schema: SchemaRef,
    pub(crate) columns: Vec<OutputColumn>,
}

/// The rows of one side that indices refer to: carried rows, then the window's.
#[derive(Debug)]
pub(crate) struct SideRows {
    carried: Option<RecordBatch>,
    window: RecordBatch,
    /// Both in one, made when an index first needs the carried rows.
    joined: Option<RecordBatch>,
}

impl SideRows {
    pub(crate) fn new(carried: Option<RecordBatch>, window: RecordBatch) -> Self {
        Self { carried, window, joined: None }
    }

    pub(crate) fn window(&self) -> &RecordBatch {
        &self.window
    }

    pub(crate) fn carried_rows(&self) -> usize {
        self.carried.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// How to fetch these rows.
    fn pick(&mut self, list: RowList) -> Result<Pick> {
        let (entries, missing, carried) = (list.len(), list.absent(), self.carried_rows() as u32);
        if let Some(stretch) = list.stretch()
            && (stretch.start >= carried || stretch.is_empty())
        {
            return Ok(Pick::Slice(self.window.slice(stretch.start.saturating_sub(carried) as usize, stretch.len())));
        }
        if missing == entries {
            return Ok(Pick::Nothing(missing));
        }
        let mut indices = list.into_rows();
        let batch = if carried == 0 {
            self.window.clone()
        } else if indices.iter().all(|&index| index >= carried) {
            indices.iter_mut().filter(|index| **index != NONE).for_each(|index| *index -= carried);
            self.window.clone()
        } else {
            self.joined()?
        };
        let nulls = (missing > 0).then(|| {
            let present = BooleanBuffer::collect_bool(indices.len(), |row| indices[row] != NONE);
            // A null index still has to be a legal one.
            indices.iter_mut().filter(|index| **index == NONE).for_each(|index| *index = 0);
            NullBuffer::new(present)
        });
        Ok(Pick::Take { batch, indices: UInt32Array::new(indices.into(), nulls) })
    }

    fn joined(&mut self) -> Result<RecordBatch> {
        if let Some(joined) = &self.joined {
            return Ok(joined.clone());
        }
        let joined = match &self.carried {
            Some(carried) => concat_batches(&self.window.schema(), [carried, &self.window])?,
            None => self.window.clone(),
        };
        self.joined = Some(joined.clone());
        Ok(joined)
    }
}

enum Pick {
    Slice(RecordBatch),
    Take {
        batch: RecordBatch,
        indices: UInt32Array,
    },
    /// This many rows, all absent.
    Nothing(usize),
}

impl Pick {
    fn column(&self, at: usize, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Self::Slice(batch) => Arc::clone(batch.column(at)),
            Self::Take { batch, indices } => take(batch.column(at), indices, None)?,
            Self::Nothing(rows) => new_null_array(data_type, *rows),
        })
    }

    fn is_slice(&self) -> bool {
        matches!(self, Self::Slice(_))
    }

    /// Which rows are present; `None` if all are.
    fn present(&self, rows: usize) -> Option<NullBuffer> {
        match self {
            Self::Slice(_) => None,
            Self::Take { indices, .. } => indices.nulls().cloned(),
            Self::Nothing(_) => Some(NullBuffer::new_null(rows)),
        }
    }
}

impl OutputLayout {
    /// The rows that the index lists of a pairing name.
    pub(super) fn batch(&self, left: (&mut SideRows, RowList), right: (&mut SideRows, RowList)) -> Result<RecordBatch> {
        let rows = left.1.len();
        let (left, right) = (left.0.pick(left.1)?, right.0.pick(right.1)?);
        let columns = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| match *column {
                OutputColumn::Left(at) => left.column(at, field.data_type()),
                OutputColumn::Right(at) => right.column(at, field.data_type()),
                OutputColumn::Key { left: l, right: r } => coalesce((&left, l), (&right, r), field.data_type(), rows),
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// A key column: the left value where there is a left row, else the right one.
fn coalesce(left: (&Pick, usize), right: (&Pick, usize), data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    let (present_left, present_right) = (left.0.present(rows), right.0.present(rows));
    match (&present_left, &present_right) {
        // Both sides are there in every row and equal: a slice is free.
        (None, None) if right.0.is_slice() => right.0.column(right.1, data_type),
        (None, _) => left.0.column(left.1, data_type),
        (_, None) => right.0.column(right.1, data_type),
        (Some(present), Some(_)) => {
            let (l, r) = (left.0.column(left.1, data_type)?, right.0.column(right.1, data_type)?);
            let from: Vec<(usize, usize)> =
                present.iter().enumerate().map(|(row, left)| (usize::from(!left), row)).collect();
            Ok(interleave(&[l.as_ref(), r.as_ref()], &from)?)
        }
    }
}
