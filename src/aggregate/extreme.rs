//! The least and the greatest value.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::aggregate::segments::{bad_input, not_state_type, one_type, take_own};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;
use crate::merge::{Extract, ForKeys, Keys, dispatch};
use crate::schema::is_key_type;

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

macro_rules! extreme {
    ($type:ident, $name:literal, $greatest:literal) => {
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
                if is_ordered(input) { Ok(input.clone()) } else { Err(bad_input($name, &self.column, input)) }
            }

            fn output_type(&self, state: &DataType) -> Result<DataType> {
                if is_ordered(state) { Ok(state.clone()) } else { Err(not_state_type($name, state)) }
            }

            fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
                pick(rows, rows.column(0), $greatest)
            }

            fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
                // The least of the least; the null of no values is left out as any other.
                pick(states, states.column(0), $greatest)
            }

            fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
                Ok(Arc::clone(states))
            }
        }
    };
}

extreme!(Min, "min", false);
extreme!(Max, "max", true);

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

fn is_ordered(data_type: &DataType) -> bool {
    is_key_type(data_type) || is_float(data_type)
}

fn pick(rows: &Segments<'_>, column: &ArrayRef, greatest: bool) -> Result<ArrayRef> {
    let indices = if is_float(column.data_type()) {
        let wide = cast(column, &DataType::Float64)?;
        let values = wide.as_primitive::<Float64Type>();
        choose(rows, column, greatest, |a, b| values.value(a).total_cmp(&values.value(b)).is_lt())
    } else {
        dispatch(&[column.data_type().clone()], Choose { rows, column, greatest })?
    };
    take_own(column, &indices)
}

/// Per segment, the row of the extreme value.
fn choose(rows: &Segments<'_>, column: &ArrayRef, greatest: bool, less: impl Fn(usize, usize) -> bool) -> UInt64Array {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    let better = |a, b| if greatest { less(b, a) } else { less(a, b) };
    let best = |range: Range<usize>| {
        let mut best: Option<usize> = None;
        for row in range {
            if nulls.is_none_or(|nulls| nulls.is_valid(row)) && best.is_none_or(|best| better(row, best)) {
                best = Some(row);
            }
        }
        best.map(|row| row as u64)
    };
    rows.ranges().map(best).collect()
}

struct Choose<'a, 'b> {
    rows: &'a Segments<'b>,
    column: &'a ArrayRef,
    greatest: bool,
}

impl ForKeys for Choose<'_, '_> {
    type Output = UInt64Array;

    fn run<E: Extract>(self, extract: E) -> Result<UInt64Array> {
        // What lies below a null is any value; `choose` does not look at it.
        let keys = extract.extract(&[Arc::clone(self.column)])?;
        Ok(choose(self.rows, self.column, self.greatest, |a, b| keys.value(a) < keys.value(b)))
    }
}
