//! What the statistics of row groups and pages promise, held to their rows: readers skip by them.
//!
//! Nested columns have statistics of their leaves, by which nothing is skipped; they are left out.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::{CastOptions, cast_with_options, or, take};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::error::{Error, Result};
use crate::manifest::Run;
use crate::validate::Found;

/// Takes the rows of a run in the order of its file.
#[derive(Debug)]
pub(super) struct StatisticsCheck {
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    /// The row group of the rows to come, and the run's row that it begins with.
    row_group: usize,
    start: u64,
    /// What is promised of that row group; empty until its first rows come.
    promises: Vec<Promise>,
    loaded: bool,
}

/// The statistics of one column over consecutive pieces of a row group: the whole of it, or its pages.
#[derive(Debug)]
struct Promise {
    column: usize,
    level: &'static str,
    /// The row of the row group that each piece begins with; the first is 0.
    starts: Vec<u64>,
    least: ArrayRef,
    greatest: ArrayRef,
    nulls: UInt64Array,
    /// Nulls seen so far, per piece.
    seen: Vec<u64>,
}

impl StatisticsCheck {
    pub(super) fn new(metadata: &ArrowReaderMetadata, schema: SchemaRef) -> Self {
        Self { metadata: metadata.clone(), schema, row_group: 0, start: 0, promises: vec![], loaded: false }
    }

    /// Checks rows of one row group, the first of which is row `row` of the run.
    pub(super) fn check(&mut self, run: &Run, batch: &RecordBatch, row: u64, found: &Found) -> Result<()> {
        while row >= self.start.saturating_add(self.group_rows())
            && self.row_group + 1 < self.metadata.metadata().num_row_groups()
        {
            self.finish(run, found);
            self.start += self.group_rows();
            self.row_group += 1;
        }
        if !self.loaded {
            self.promises = self.load()?;
            self.loaded = true;
        }
        let offset = row - self.start;
        for promise in &mut self.promises {
            promise.check(run, batch, offset, self.start, found)?;
        }
        Ok(())
    }

    /// Checks the null counts of the row group that was being read.
    pub(super) fn finish(&mut self, run: &Run, found: &Found) {
        for promise in self.promises.drain(..) {
            let name = self.schema.field(promise.column).name();
            for (piece, seen) in promise.seen.iter().enumerate() {
                if promise.nulls.is_valid(piece) && promise.nulls.value(piece) != *seen {
                    let message = format!(
                        "the null count of a {} is wrong, column=`{name}`, row_group=`{}`, piece=`{piece}`, expected=`{}`, found=`{seen}`",
                        promise.level,
                        self.row_group,
                        promise.nulls.value(piece)
                    );
                    found.with(|found| found.run("INV-27", run, message));
                }
            }
        }
        self.loaded = false;
    }

    fn group_rows(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        groups.get(self.row_group).and_then(|group| u64::try_from(group.num_rows()).ok()).unwrap_or(0)
    }

    fn load(&self) -> Result<Vec<Promise>> {
        let metadata = self.metadata.metadata();
        let mut promises = vec![];
        for (column, field) in self.schema.fields().iter().enumerate() {
            if field.data_type().is_nested() {
                continue;
            }
            let converter =
                StatisticsConverter::try_new(field.name(), self.metadata.schema(), self.metadata.parquet_schema())?
                    .with_missing_null_counts_as_zero(false);
            let Some(leaf) = converter.parquet_column_index() else { continue };
            let group = || [metadata.row_group(self.row_group)];
            let promise = |level, starts: Vec<u64>, least: ArrayRef, greatest: ArrayRef, nulls: UInt64Array| {
                let pieces = starts.len();
                if [least.len(), greatest.len(), nulls.len()] != [pieces; 3]
                    || starts.first() != Some(&0)
                    || !starts.is_sorted()
                {
                    return Err(Error::corrupt(format!(
                        "the {level} statistics do not fit the {level}s, column=`{}`",
                        field.name()
                    )));
                }
                let (least, greatest) =
                    (canonical(&least, field.data_type())?, canonical(&greatest, field.data_type())?);
                Ok(Promise { column, level, starts, least, greatest, nulls, seen: vec![0; pieces] })
            };
            promises.push(promise(
                "row group",
                vec![0],
                converter.row_group_mins(group())?,
                converter.row_group_maxes(group())?,
                converter.row_group_null_counts(group())?,
            )?);
            let (Some(columns), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) else { continue };
            let Some(pages) = offsets.get(self.row_group).and_then(|group| group.get(leaf)) else { continue };
            let starts = pages
                .page_locations()
                .iter()
                .map(|page| u64::try_from(page.first_row_index).unwrap_or(u64::MAX))
                .collect();
            let groups = [self.row_group];
            promises.push(promise(
                "page",
                starts,
                converter.data_page_mins(columns, offsets, &groups)?,
                converter.data_page_maxes(columns, offsets, &groups)?,
                converter.data_page_null_counts(columns, offsets, &groups)?,
            )?);
        }
        Ok(promises)
    }
}

/// Statistics in the type of the column.
fn canonical(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(values, data_type, &options)?)
}

impl Promise {
    /// `offset` is the batch's first row in its row group, which begins at row `start` of the run.
    fn check(&mut self, run: &Run, batch: &RecordBatch, offset: u64, start: u64, found: &Found) -> Result<()> {
        let column = batch.column(self.column);
        let mut piece = self.starts.partition_point(|first| *first <= offset) - 1;
        let mut pieces = Vec::with_capacity(column.len());
        for row in 0..column.len() {
            while self.starts.get(piece + 1).is_some_and(|next| *next <= offset + row as u64) {
                piece += 1;
            }
            self.seen[piece] += u64::from(column.is_null(row));
            pieces.push(u32::try_from(piece).unwrap_or(u32::MAX));
        }
        let pieces = UInt32Array::from(pieces);
        let least = take(&self.least, &pieces, None)?;
        let greatest = take(&self.greatest, &pieces, None)?;
        let outside: BooleanArray = or(&known(&lt(column, &least)?), &known(&gt(column, &greatest)?))?;
        for row in outside.values().set_indices() {
            if !is_outside(column, &least, &greatest, row) {
                continue;
            }
            let message = format!(
                "a value lies outside the statistics of its {}, column=`{}`",
                self.level,
                batch.schema_ref().field(self.column).name()
            );
            found.with(|found| found.row("INV-27", run, start + offset + row as u64, message));
        }
        Ok(())
    }
}

/// Unknown (a null value or no statistics) is not outside.
fn known(mask: &BooleanArray) -> BooleanArray {
    match mask.nulls() {
        Some(nulls) => BooleanArray::new(mask.values() & nulls.inner(), None),
        None => mask.clone(),
    }
}

/// Floats once more as Parquet means it: statistics know no NaN, and both zeros are equal.
fn is_outside(column: &ArrayRef, least: &ArrayRef, greatest: &ArrayRef, row: usize) -> bool {
    macro_rules! float {
        ($type:ty) => {{
            let value = column.as_primitive::<$type>().value(row);
            let (least, greatest) = (least.as_primitive::<$type>(), greatest.as_primitive::<$type>());
            least.is_valid(row) && value < least.value(row) || greatest.is_valid(row) && value > greatest.value(row)
        }};
    }
    match column.data_type() {
        DataType::Float16 => float!(Float16Type),
        DataType::Float32 => float!(Float32Type),
        DataType::Float64 => float!(Float64Type),
        _ => true,
    }
}
