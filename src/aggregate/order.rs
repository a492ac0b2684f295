//! The order of a column's values, found once per column, and the rows that come first in it.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, DynComparator, UInt64Array, make_comparator, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, Fields, Float64Type};

use crate::aggregate::Segments;
use crate::error::Result;
use crate::merge::{Extract, ForKeys, Keys, dispatch};
use crate::schema::is_key_type;

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// Whether [`with_order`] knows an order of values of this type: key types and floats.
pub(super) fn is_ordered(data_type: &DataType) -> bool {
    is_key_type(data_type) || is_float(data_type)
}

/// Whether [`ties`] knows an order of values of this type: all types that a dataset can store.
pub(super) fn is_comparable(data_type: &DataType) -> bool {
    ties(&new_empty_array(data_type)).is_ok()
}

/// The state of a value: with what its row is ordered by before it.
pub(super) fn by_value_fields(by: DataType, value: DataType) -> Fields {
    Fields::from(vec![Field::new("by", by, true), Field::new("value", value, true)])
}

/// What values are ordered by, and the values, of states with [`by_value_fields`]; `None` of others.
pub(super) fn by_and_value(states: &ArrayRef) -> Option<(&ArrayRef, &ArrayRef)> {
    match states.as_struct_opt()?.columns() {
        [by, value] if is_ordered(by.data_type()) && is_comparable(value.data_type()) => Some((by, value)),
        _ => None,
    }
}

/// The order of a column's values of any type, by which rows that are equal otherwise are told apart: numbers by value, floats by IEEE 754's total
/// order, strings and binary by bytes, lists, structs and maps by their first difference. Slower than [`with_order`], and meant to be asked
/// seldom. Values that are equal in it are the same.
pub(super) fn ties(column: &ArrayRef) -> Result<DynComparator> {
    Ok(make_comparator(column, column, SortOptions { descending: false, nulls_first: false })?)
}

/// A computation that compares rows of a column.
pub(super) trait WithOrder {
    type Output;

    /// `order` compares two rows; what it says of nulls means nothing.
    fn run(self, order: impl Fn(usize, usize) -> Ordering) -> Result<Self::Output>;
}

/// Runs `work` with the order of a column: key types as keys are ordered, floats by IEEE 754's total order.
pub(super) fn with_order<W: WithOrder>(column: &ArrayRef, work: W) -> Result<W::Output> {
    if is_float(column.data_type()) {
        let wide = cast(column, &DataType::Float64)?;
        let values = wide.as_primitive::<Float64Type>().values();
        return work.run(|a, b| values[a].total_cmp(&values[b]));
    }
    dispatch(&[column.data_type().clone()], OfKeys { column, work })
}

struct OfKeys<'a, W> {
    column: &'a ArrayRef,
    work: W,
}

impl<W: WithOrder> ForKeys for OfKeys<'_, W> {
    type Output = W::Output;

    fn run<E: Extract>(self, extract: E) -> Result<W::Output> {
        // What lies below a null is any value.
        let keys = extract.extract(std::slice::from_ref(self.column))?;
        self.work.run(|a, b| keys.value(a).cmp(&keys.value(b)))
    }
}

/// Per segment, the row that comes first (or last, if `greatest`) among those that are valid; of equal ones, the first of them.
pub(super) fn choose(
    rows: &Segments<'_>,
    nulls: Option<&NullBuffer>,
    greatest: bool,
    order: impl Fn(usize, usize) -> Ordering,
) -> UInt64Array {
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    let better = |a, b| if greatest { order(a, b).is_gt() } else { order(a, b).is_lt() };
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
