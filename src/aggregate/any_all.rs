//! Whether a condition holds for some or for all rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;

use crate::aggregate::segments::{bad_input, not_state_type, one_type};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;

/// Whether any value of a boolean column is true, nulls left out: SQL's `bool_or`.
///
/// State `any`, version 1, and result: `Boolean`, null without values.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
/// use sort_merge_bucket::{Aggregator, Any, Segments};
///
/// let columns = [Arc::new(BooleanArray::from(vec![Some(false), Some(true), None, Some(false)])) as ArrayRef];
/// let states = Any::of("skipped").update(&Segments::new(&columns, &[0, 3, 4, 4])?)?;
/// assert_eq!(states.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Any {
    column: String,
}

/// Whether all values of a boolean column are true, nulls left out: SQL's `bool_and`. State `all`, version 1, and result as of [`Any`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct All {
    column: String,
}

macro_rules! quantifier {
    ($type:ident, $name:literal, $holds:expr) => {
        impl $type {
            /// Of `column`.
            pub fn of(column: impl Into<String>) -> Self {
                Self { column: column.into() }
            }
        }

        impl Aggregator for $type {
            fn definition(&self) -> Definition {
                Definition::new($name, 1).with_parameter("column", &self.column)
            }

            fn inputs(&self) -> Vec<String> {
                vec![self.column.clone()]
            }

            fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
                match one_type(inputs, $name)? {
                    DataType::Boolean => Ok(DataType::Boolean),
                    other => Err(bad_input($name, &self.column, other)),
                }
            }

            fn output_type(&self, state: &DataType) -> Result<DataType> {
                if *state == DataType::Boolean { Ok(DataType::Boolean) } else { Err(not_state_type($name, state)) }
            }

            fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
                let column = rows.column(0);
                let values = column.as_boolean_opt().ok_or_else(|| not_state_type($name, column.data_type()))?;
                Ok(Arc::new(decide(rows, values, $holds)))
            }

            fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
                // Any of any, all of all; the null of no values is left out as any other.
                self.update(states)
            }

            fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
                Ok(Arc::clone(states))
            }
        }
    };
}

quantifier!(Any, "any", |trues, _| trues > 0);
quantifier!(All, "all", |trues, values| trues == values);

/// Per segment, what `holds` says of the number of trues and of values; null without values.
fn decide(rows: &Segments<'_>, values: &BooleanArray, holds: impl Fn(usize, usize) -> bool) -> BooleanArray {
    let (trues, valid) = match values.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => (values.values().clone(), None),
        Some(nulls) => (values.values() & nulls.inner(), Some(nulls.inner())),
    };
    let decide = |rows: std::ops::Range<usize>| -> Option<bool> {
        let values = valid.map_or(rows.len(), |valid| valid.slice(rows.start, rows.len()).count_set_bits());
        (values > 0).then(|| holds(trues.slice(rows.start, rows.len()).count_set_bits(), values))
    };
    rows.ranges().map(decide).collect()
}
