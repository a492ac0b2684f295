//! The value of the first and of the last row in the order of another column.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StructArray, UInt64Array, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use crate::aggregate::order::{WithOrder, by_and_value, by_value_fields, choose, ties, with_order};
use crate::aggregate::segments::{not_state_type, states, take_own, value_and_order};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;

/// The value of a column in the first row by another column: SQL's `arg_min`. Rows in which either is null are left out.
///
/// Values are of any type that a dataset can store; the other column is of a key type or a float, ordered as by [`Min`](crate::Min). Of rows that
/// are first together, the least value is taken: numbers by value, floats by IEEE 754's total order, strings and binary by bytes, lists, structs
/// and maps by their first difference, nulls inside them after all else. So the result depends on what rows there are, and not on how they lie in
/// runs and periods. For the first row as such, null or not, take a struct of its columns as the value.
///
/// State `first`, version 1: `Struct { by, value }`, not null, with two nulls without values. Result: the value.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
/// use sort_merge_bucket::{Aggregator, First, Segments};
///
/// let tracks = Arc::new(StringViewArray::from(vec!["Naima", "Spain", "Gloria"])) as ArrayRef;
/// let columns = [tracks, Arc::new(Int64Array::from(vec![9, 7, 8])) as ArrayRef];
/// let first = First::of("track").by("played_at");
/// let results = first.finish(&first.update(&Segments::new(&columns, &[0, 3])?)?)?;
/// assert_eq!(results.as_string_view().value(0), "Spain");
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    column: String,
    by: String,
}

/// The value of a column in the last row by another column: SQL's `arg_max`. As [`First`], but of rows that are last together, the greatest value
/// is taken. State `last`, version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    column: String,
    by: String,
}

/// A [`First`] or [`Last`] that lacks the column by which rows are ordered.
#[derive(Debug, Clone)]
#[must_use]
pub struct OrderedBy<A> {
    column: String,
    make: fn(String, String) -> A,
}

impl<A> OrderedBy<A> {
    /// Of the first or last row by this column.
    pub fn by(self, column: impl Into<String>) -> A {
        (self.make)(self.column, column.into())
    }
}

macro_rules! at_end {
    ($type:ident, $name:literal, $last:literal) => {
        impl $type {
            /// The value of `column`; [`by`](OrderedBy::by) says by which column rows are ordered.
            pub fn of(column: impl Into<String>) -> OrderedBy<Self> {
                OrderedBy { column: column.into(), make: |column, by| Self { column, by } }
            }
        }

        impl Aggregator for $type {
            fn definition(&self) -> Definition {
                Definition::new($name, 1).with_parameter("column", &self.column).with_parameter("by", &self.by)
            }

            fn inputs(&self) -> Vec<String> {
                vec![self.column.clone(), self.by.clone()]
            }

            fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
                let (value, by) = value_and_order(inputs, $name, &self.column, &self.by)?;
                Ok(DataType::Struct(by_value_fields(by.clone(), value.clone())))
            }

            fn output_type(&self, state: &DataType) -> Result<DataType> {
                let states = new_empty_array(state);
                let (_, value) = by_and_value(&states).ok_or_else(|| not_state_type($name, state))?;
                Ok(value.data_type().clone())
            }

            fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
                pick(rows, rows.column(1), rows.column(0), $last)
            }

            fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
                let column = states(segments.columns(), $name)?;
                let (by, value) = by_and_value(column).ok_or_else(|| not_state_type($name, column.data_type()))?;
                pick(segments, by, value, $last)
            }

            fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
                let (_, value) = by_and_value(states).ok_or_else(|| not_state_type($name, states.data_type()))?;
                Ok(Arc::clone(value))
            }
        }
    };
}

at_end!(First, "first", false);
at_end!(Last, "last", true);

/// Per segment, the state of its first or last row.
fn pick(rows: &Segments<'_>, by: &ArrayRef, value: &ArrayRef, last: bool) -> Result<ArrayRef> {
    let nulls = NullBuffer::union(by.nulls(), value.nulls());
    let rows = with_order(by, Pick { rows, nulls, value, last })?;
    let fields = by_value_fields(by.data_type().clone(), value.data_type().clone());
    Ok(Arc::new(StructArray::try_new(fields, vec![take_own(by, &rows)?, take_own(value, &rows)?], None)?))
}

struct Pick<'a, 'b> {
    rows: &'a Segments<'b>,
    nulls: Option<NullBuffer>,
    value: &'a ArrayRef,
    last: bool,
}

impl WithOrder for Pick<'_, '_> {
    type Output = UInt64Array;

    fn run(self, order: impl Fn(usize, usize) -> Ordering) -> Result<UInt64Array> {
        let ties = ties(self.value)?;
        Ok(choose(self.rows, self.nulls.as_ref(), self.last, |a, b| order(a, b).then_with(|| ties(a, b))))
    }
}
