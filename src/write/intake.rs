//! Batches as they come: checked against the writer's schema, made canonical, cut into pieces and buffered.
//!
//! Pieces own their memory, so that the buffer's size is what it keeps alive; small ones are joined, so that the cost of a batch is not
//! paid per row.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::footprint::{Cutter, RowSizes, Tolerance, compact};
use crate::schema::{canonical_type, cast_batch, type_name};
use crate::write::parallel::Limits;

/// Rows that are converted at once; a conversion may need as much memory again.
const CONVERT_ROWS: usize = 1 << 20;

/// What part of the buffer a piece is at most: a buffer overflows by no more than that.
const PIECES_PER_BUFFER: usize = 8;

/// Batches of fewer rows are joined with others.
const SMALL_ROWS: usize = 1024;

/// Joined batches have about this many rows.
const JOINED_ROWS: usize = 8192;

/// The most rows of a buffer: references to rows have 32 bits.
const MAX_ROWS: usize = u32::MAX as usize / 2;

/// Buffers rows up to a number of bytes.
#[derive(Debug)]
pub(super) struct Intake {
    schema: SchemaRef,
    /// The last schema of a batch that was found to fit.
    fits: Option<SchemaRef>,
    piece_bytes: u64,
    buffer_bytes: usize,
    batches: Vec<RecordBatch>,
    small: Vec<RecordBatch>,
    small_rows: usize,
    rows: usize,
    bytes: usize,
}

impl Intake {
    /// `schema` is canonical.
    pub(super) fn new(schema: SchemaRef, limits: &Limits) -> Self {
        Self {
            schema,
            fits: None,
            piece_bytes: (limits.buffer_bytes / PIECES_PER_BUFFER) as u64,
            buffer_bytes: limits.buffer_bytes,
            batches: vec![],
            small: vec![],
            small_rows: 0,
            rows: 0,
            bytes: 0,
        }
    }

    /// Checks that `batch` has the columns of the schema, by position, name and logical type.
    ///
    /// # Errors
    /// `InvalidInput` naming all differences, or the first column that holds nulls and must not.
    pub(super) fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema_ref();
        if !self.fits.as_ref().is_some_and(|fits| SchemaRef::ptr_eq(fits, schema)) {
            let differences = differences(schema, &self.schema);
            if !differences.is_empty() {
                let message = format!("a batch does not have the writer's schema: {}", differences.join("; "));
                return Err(Error::invalid_input(message));
            }
            self.fits = Some(SchemaRef::clone(schema));
        }
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(Error::invalid_input(format!(
                    "a column that is not nullable holds nulls, column=`{}`",
                    field.name()
                )));
            }
        }
        Ok(())
    }

    /// Cuts a checked batch so that each part can be converted and buffered by itself.
    pub(super) fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
        let rows = batch.num_rows();
        (0..rows).step_by(CONVERT_ROWS).map(move |start| batch.slice(start, CONVERT_ROWS.min(rows - start)))
    }

    /// The canonical form of such a part, in pieces to [`push`](Self::push).
    pub(super) fn pieces(&self, part: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let canonical = cast_batch(part, &self.schema)?;
        let mut cutter = Cutter::new(usize::MAX, self.piece_bytes);
        let ranges = cutter.cut(&RowSizes::of_batch(&canonical), canonical.num_rows());
        let tolerance = if ranges.len() == 1 { Tolerance::WHOLE } else { Tolerance::SLICE };
        ranges.into_iter().map(|(range, _)| compact(&canonical.slice(range.start, range.len()), tolerance)).collect()
    }

    /// Buffers a piece, the sorting of which takes `sorting_bytes`, and says whether the buffer is full.
    pub(super) fn push(&mut self, piece: RecordBatch, sorting_bytes: usize) -> Result<bool> {
        self.rows += piece.num_rows();
        self.bytes += piece.get_array_memory_size() + sorting_bytes;
        if piece.num_rows() < SMALL_ROWS {
            self.small_rows += piece.num_rows();
            self.small.push(piece);
            if self.small_rows >= JOINED_ROWS {
                self.join_small()?;
            }
        } else {
            // Rows stay in order of arrival.
            self.join_small()?;
            self.batches.push(piece);
        }
        Ok(self.bytes >= self.buffer_bytes || self.rows >= MAX_ROWS)
    }

    fn join_small(&mut self) -> Result<()> {
        let joined = match self.small.as_slice() {
            [] => return Ok(()),
            [only] => only.clone(),
            several => {
                let before: usize = several.iter().map(RecordBatch::get_array_memory_size).sum();
                let joined = concat_batches(&self.schema, several)?;
                self.bytes = self.bytes.saturating_sub(before) + joined.get_array_memory_size();
                joined
            }
        };
        self.batches.push(joined);
        self.small.clear();
        self.small_rows = 0;
        Ok(())
    }

    /// Takes all buffered rows, in order of arrival.
    pub(super) fn take(&mut self) -> Result<Vec<RecordBatch>> {
        self.join_small()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(std::mem::take(&mut self.batches))
    }
}

/// What is different between a batch's schema and the canonical one it should have.
fn differences(found: &Schema, wanted: &Schema) -> Vec<String> {
    let (found, wanted) = (found.fields(), wanted.fields());
    if found.len() != wanted.len() {
        return vec![format!("it has {} columns instead of {}", found.len(), wanted.len())];
    }
    let differs = |found: &Field, wanted: &Field| {
        found.name() != wanted.name() || canonical_type(found.data_type()).ok().as_ref() != Some(wanted.data_type())
    };
    let pairs = found.iter().zip(wanted).enumerate();
    pairs
        .filter(|(_, (found, wanted))| differs(found, wanted))
        .map(|(i, (found, wanted))| format!("column {i} is {} instead of {}", describe(found), describe(wanted)))
        .collect()
}

fn describe(field: &Field) -> String {
    let data_type = field.data_type();
    let name = match canonical_type(data_type) {
        Ok(canonical) if !data_type.is_nested() => type_name(&canonical).unwrap_or_else(|_| data_type.to_string()),
        _ => data_type.to_string(),
    };
    format!("`{}` of type `{name}`", field.name())
}
