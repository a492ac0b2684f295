//! The least and the greatest value; of booleans, which are ordered false before true, these are whether all and whether any are true.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::datatypes::DataType;

use crate::aggregate::order::{WithOrder, choose, is_ordered, with_order};
use crate::aggregate::segments::{bad_input, not_state_type, one_type, take_own};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;

/// The least value of a column, nulls left out.
///
/// For columns of key types (numbers by value, strings and binary by bytes, false before true) and floats (IEEE 754's total order: NaNs without
/// sign after infinity, −0.0 before 0.0). State `min`, version 1, and result: the column's type, null without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Min {
    column: String,
}

/// The greatest value of a column, nulls left out; types and order as of [`Min`]. State `max`, version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Max {
    column: String,
}

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

macro_rules! extreme {
    ($type:ident, $name:literal, $greatest:literal, $accepts:expr) => {
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
                let input = one_type(inputs, $name)?;
                if $accepts(input) { Ok(input.clone()) } else { Err(bad_input($name, &self.column, input)) }
            }

            fn output_type(&self, state: &DataType) -> Result<DataType> {
                if $accepts(state) { Ok(state.clone()) } else { Err(not_state_type($name, state)) }
            }

            fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
                self.state_type(&[rows.column(0).data_type().clone()])?;
                pick(rows, rows.column(0), $greatest)
            }

            fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
                self.output_type(states.column(0).data_type())?;
                // The least of the least; the null of no values is left out as any other.
                pick(states, states.column(0), $greatest)
            }

            fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
                Ok(Arc::clone(states))
            }
        }
    };
}

extreme!(Min, "min", false, is_ordered);
extreme!(Max, "max", true, is_ordered);
extreme!(All, "all", false, is_boolean);
extreme!(Any, "any", true, is_boolean);

fn is_boolean(data_type: &DataType) -> bool {
    *data_type == DataType::Boolean
}

fn pick(rows: &Segments<'_>, column: &ArrayRef, greatest: bool) -> Result<ArrayRef> {
    take_own(column, &with_order(column, Pick { rows, column, greatest })?)
}

struct Pick<'a, 'b> {
    rows: &'a Segments<'b>,
    column: &'a ArrayRef,
    greatest: bool,
}

impl WithOrder for Pick<'_, '_> {
    /// Per segment, the row of the extreme value.
    type Output = UInt64Array;

    fn run(self, order: impl Fn(usize, usize) -> Ordering) -> Result<UInt64Array> {
        Ok(choose(self.rows, self.column.nulls(), self.greatest, order))
    }
}
