//! The number of rows, or of values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};

use crate::aggregate::segments::{not_state_type, states};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::{Error, ErrorKind, Result};

/// Counts rows, or the values of a column that are not null.
///
/// State `count`, version 1: `Int64`, not null. Result: the same. Without rows 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    column: Option<String>,
}

impl Count {
    /// Counts rows.
    pub fn rows() -> Self {
        Self { column: None }
    }

    /// Counts the values of `column` that are not null.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: Some(column.into()) }
    }
}

impl Aggregator for Count {
    fn definition(&self) -> Definition {
        let definition = Definition::new("count", 1);
        match &self.column {
            None => definition,
            Some(column) => definition.with_parameter("column", column),
        }
    }

    fn inputs(&self) -> Vec<String> {
        self.column.iter().cloned().collect()
    }

    fn state_type(&self, _inputs: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        if *state == DataType::Int64 { Ok(DataType::Int64) } else { Err(not_state_type("count", state)) }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(values(rows, rows.columns().first())))
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        merge(segments, states(segments.columns(), "count")?)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::clone(states))
    }
}

/// Per segment, the values of `column` that are not null, or the rows.
pub(super) fn values(rows: &Segments<'_>, column: Option<&ArrayRef>) -> Int64Array {
    match column.and_then(Array::logical_nulls) {
        None => rows.ranges().map(|rows| rows.len() as i64).collect(),
        Some(nulls) => {
            let valid = nulls.inner();
            rows.ranges().map(|rows| valid.slice(rows.start, rows.len()).count_set_bits() as i64).collect()
        }
    }
}

/// Per segment, the sum of counts.
pub(super) fn merge(segments: &Segments<'_>, counts: &ArrayRef) -> Result<ArrayRef> {
    let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(|| not_state_type("count", counts.data_type()))?;
    let sum = |rows| -> Option<i64> {
        let rows: std::ops::Range<usize> = rows;
        counts.values()[rows].iter().try_fold(0_i64, |sum, count| sum.checked_add(*count))
    };
    let sums: Option<Int64Array> = segments.ranges().map(|rows| sum(rows).map(Some)).collect::<Option<_>>();
    match sums {
        Some(sums) => Ok(Arc::new(sums)),
        None => Err(Error::new(ErrorKind::LimitExceeded, "a count is too large for 64 bits")),
    }
}
