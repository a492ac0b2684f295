//! From the columns of one dataset to the columns of its source: projection, order, missing columns, wider integers.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::error::{Error, Result};
use crate::schema::cast_batch;

/// How batches of a dataset's runs become batches of the source.
#[derive(Debug)]
pub(crate) struct Adapt {
    /// The source's schema.
    schema: SchemaRef,
    /// The positions in the dataset's schema of the columns to read, ascending, as Parquet readers return them.
    projection: Vec<usize>,
    /// Per column of the source, its position in `projection`; `None` if the dataset has no such column.
    columns: Vec<Option<usize>>,
    /// Read batches are source batches already.
    identical: bool,
}

impl Adapt {
    /// Matches columns by name, except the first `keys.len()` columns of the source, which are the dataset's columns at `keys`.
    pub(crate) fn new(schema: &SchemaRef, dataset: &Schema, keys: &[usize]) -> Self {
        let at = |column: usize| match keys.get(column) {
            Some(&key) => Some(key),
            None => dataset.index_of(schema.field(column).name()).ok(),
        };
        let wanted: Vec<Option<usize>> = (0..schema.fields().len()).map(at).collect();
        let mut projection: Vec<usize> = wanted.iter().flatten().copied().collect();
        projection.sort_unstable();
        projection.dedup();
        let columns: Vec<Option<usize>> =
            wanted.iter().map(|at| at.and_then(|at| projection.binary_search(&at).ok())).collect();
        let in_place = columns.iter().enumerate().all(|(at, column)| *column == Some(at));
        let same_types = wanted
            .iter()
            .zip(schema.fields())
            .all(|(at, field)| at.is_some_and(|at| dataset.field(at).data_type() == field.data_type()));
        Self { schema: Arc::clone(schema), identical: in_place && same_types, projection, columns }
    }

    /// The source's schema, or that part of it that this makes.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The positions in the dataset's schema of the columns to read.
    pub(crate) fn projection(&self) -> &[usize] {
        &self.projection
    }

    /// A batch of the source from one with the projected columns.
    pub(crate) fn apply(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        if self.identical {
            let (_, columns, _) = batch.into_parts();
            return RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(broken);
        }
        let columns: Vec<_> = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(at, field)| match at {
                Some(at) => Arc::clone(batch.column(*at)),
                None => new_null_array(field.data_type(), rows),
            })
            .collect();
        // The columns as they are first, then in the source's types.
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
            .collect();
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(broken)?;
        cast_batch(&batch, &self.schema)
    }
}

/// What arrow refuses here is what the manifest promises: a column without nulls has some.
fn broken(error: ArrowError) -> Error {
    Error::corrupt("a run's rows are not what the manifest's schema says").with_source(error)
}
