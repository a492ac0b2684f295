//! Which rows of its runs a source wants, resolved against its columns.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::manifest::Run;
use crate::predicate::Predicate;
use crate::select::{KeyRange, SortedKeys};

/// Rows that satisfy all of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Rows with a key of this range.
    pub(crate) range: KeyRange,
    /// Rows with one of these keys.
    pub(crate) keys: Option<Arc<SortedKeys>>,
    /// Rows that pass this.
    pub(crate) filter: Option<Arc<Filter>>,
}

/// A predicate and the columns that it looks at.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) predicate: Predicate,
    /// The columns in the types of the source.
    pub(crate) schema: SchemaRef,
}

impl Filter {
    /// The rows for which the predicate is true.
    pub(crate) fn passes(&self, batch: &RecordBatch) -> Result<BooleanBuffer> {
        Ok(true_of(&self.predicate.evaluate(batch)?))
    }
}

/// Null is not true.
fn true_of(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        Some(nulls) => mask.values() & nulls.inner(),
        None => mask.values().clone(),
    }
}

impl Selection {
    pub(crate) fn is_all(&self) -> bool {
        self.range.is_all() && self.keys.is_none() && self.filter.is_none()
    }

    /// Whether a run may have wanted rows, by what its manifest says of its keys.
    pub(crate) fn may_want(&self, run: &Run) -> Result<bool> {
        let of_keys = match &self.keys {
            Some(keys) => keys.may_overlap(&run.first_key, &run.last_key)?,
            None => true,
        };
        Ok(of_keys && self.range.may_overlap(&run.first_key, &run.last_key))
    }
}
