//! What must hold of the rows of a run: order, placement, keys where the manifest says, and no nulls where there may be none.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::bucket::{bucket_of, hash_rows};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::manifest::{DisplayKey, KeyBound, KeyValue, Run, key_at};
use crate::schema::cast_batch;
use crate::spec::BucketSpec;
use crate::validate::Found;
use crate::validate::statistics::StatisticsCheck;

/// Takes the rows of a run in the order of its file.
#[derive(Debug)]
pub(super) struct RowCheck {
    run: Run,
    spec: BucketSpec,
    /// The dataset's columns, and the same without a word on nulls.
    schema: SchemaRef,
    nullable: SchemaRef,
    key: Vec<usize>,
    order: Vec<usize>,
    converter: RowConverter,
    /// The last row of the batch before.
    last: Option<(OwnedRow, Vec<KeyValue>)>,
    /// The last key of the batch before.
    last_key: Option<Vec<KeyValue>>,
    rows: u64,
    statistics: StatisticsCheck,
    found: Found,
}

impl RowCheck {
    pub(super) fn new(dataset: &Dataset, run: &Run, metadata: &ArrowReaderMetadata, found: Found) -> Result<Self> {
        let schema = Arc::clone(dataset.schema());
        let nullable: Vec<Field> =
            schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let order = dataset.spec().order_indices(&schema)?;
        // Version 1 knows ascending columns with nulls last only.
        let options = SortOptions { descending: false, nulls_first: false };
        let fields =
            order.iter().map(|i| SortField::new_with_options(schema.field(*i).data_type().clone(), options)).collect();
        let nullable = Arc::new(Schema::new(nullable));
        Ok(Self {
            run: run.clone(),
            spec: dataset.spec().clone(),
            key: dataset.spec().key_indices(&schema)?,
            order,
            converter: RowConverter::new(fields)?,
            last: None,
            last_key: None,
            rows: 0,
            statistics: StatisticsCheck::new(metadata, Arc::clone(&nullable)),
            schema,
            nullable,
            found,
        })
    }

    /// Checks the next rows, which lie in one row group.
    pub(super) fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = cast_batch(batch, &self.nullable)?;
        let columns =
            |indices: &[usize]| indices.iter().map(|i| Arc::clone(batch.column(*i))).collect::<Vec<ArrayRef>>();
        let key = columns(&self.key);
        self.check_nulls(&batch);
        self.check_order(&columns(&self.order))?;
        self.check_placement(&key)?;
        self.check_keys(&key, batch.num_rows())?;
        self.statistics.check(&self.run, &batch, self.rows, &self.found)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Checks what only shows at the end, and returns the number of rows.
    pub(super) fn finish(mut self: Box<Self>) -> Result<u64> {
        self.statistics.finish(&self.run, &self.found);
        if let Some(key) = self.last_key.take() {
            self.check_bound("last key", &self.run.last_key, &key, Ordering::Less, self.rows.saturating_sub(1));
        }
        if self.rows != self.run.rows {
            let message =
                format!("the file holds another number of rows, expected=`{}`, found=`{}`", self.run.rows, self.rows);
            self.found.with(|found| found.run("INV-20", &self.run, message));
        }
        Ok(self.rows)
    }

    fn check_nulls(&self, batch: &RecordBatch) {
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            if column.null_count() > 0 && !field.is_nullable() {
                let message = format!("a column that is not nullable holds nulls, column=`{}`", field.name());
                self.found.with(|found| found.row("INV-21", &self.run, self.rows, message));
            }
        }
    }

    fn check_order(&mut self, order: &[ArrayRef]) -> Result<()> {
        let rows = self.converter.convert_columns(order)?;
        let end = rows.num_rows() - 1;
        if let Some((last, values)) = &self.last
            && rows.row(0) < last.row()
        {
            self.unsorted(0, values, &key_at(order, 0)?);
        }
        for row in 1..=end {
            if rows.row(row) < rows.row(row - 1) {
                self.unsorted(row, &key_at(order, row - 1)?, &key_at(order, row)?);
            }
        }
        self.last = Some((rows.row(end).owned(), key_at(order, end)?));
        Ok(())
    }

    fn unsorted(&self, row: usize, previous: &[KeyValue], key: &[KeyValue]) {
        let message = format!(
            "a row is less than the one before it, previous=`{}`, key=`{}`",
            DisplayKey(previous),
            DisplayKey(key)
        );
        self.found.with(|found| found.row("INV-23", &self.run, self.rows + row as u64, message));
    }

    fn check_placement(&self, key: &[ArrayRef]) -> Result<()> {
        for (row, hash) in hash_rows(self.spec.function(), key)?.into_iter().enumerate() {
            let expected = bucket_of(hash, self.run.buckets);
            if expected != self.run.bucket {
                let key = key_at(key, row)?;
                let message = format!(
                    "a row is in another bucket than its key hashes to, key=`{}`, expected=`{expected}`, found=`{}`",
                    DisplayKey(&key),
                    self.run.bucket
                );
                self.found.with(|found| found.row("INV-24", &self.run, self.rows + row as u64, message));
            }
        }
        Ok(())
    }

    fn check_keys(&mut self, key: &[ArrayRef], rows: usize) -> Result<()> {
        if self.rows == 0 {
            self.check_bound("first key", &self.run.first_key, &key_at(key, 0)?, Ordering::Greater, 0);
        }
        for fence in &self.run.fences {
            if let Some(row) = fence.row.checked_sub(self.rows).filter(|row| *row < rows as u64) {
                self.check_bound("fence", &fence.key, &key_at(key, row as usize)?, Ordering::Greater, fence.row);
            }
        }
        self.last_key = Some(key_at(key, rows - 1)?);
        Ok(())
    }

    /// Checks that `bound` is the key, or does not compare as `wrong` to it.
    fn check_bound(&self, what: &str, bound: &KeyBound, key: &[KeyValue], wrong: Ordering, row: u64) {
        let holds = if bound.exact { bound.values == key } else { bound.compare(key) != wrong };
        if !holds {
            let message =
                format!("the {what} of the manifest is not the row's, manifest=`{bound}`, row's=`{}`", DisplayKey(key));
            self.found.with(|found| found.row("INV-25", &self.run, row, message));
        }
    }
}
