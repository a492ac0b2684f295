//! Helpers over segments that several functions share: rows left out, lists of states opened up.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, MapArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{filter, prep_null_mask_filter, take};
use arrow::datatypes::DataType;

use crate::aggregate::order::{is_comparable, is_ordered};
use crate::error::{Error, Result};
use crate::footprint::own;

/// Columns and offsets of their own, after rows were left out.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) offsets: Vec<usize>,
}

/// Leaves out the rows where `mask` is false or null.
pub(super) fn keep(columns: &[ArrayRef], offsets: &[usize], mask: &BooleanArray) -> Result<Kept> {
    let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
    let columns = columns.iter().map(|column| Ok(filter(column, &mask)?)).collect::<Result<_>>()?;
    let bits = mask.values();
    let mut kept = bits.slice(0, offsets[0]).count_set_bits();
    let mut own = Vec::with_capacity(offsets.len());
    own.push(kept);
    for ends in offsets.windows(2) {
        kept += bits.slice(ends[0], ends[1] - ends[0]).count_set_bits();
        own.push(kept);
    }
    Ok(Kept { columns, offsets: own })
}

/// Leaves out the rows in which a column is null; `None` if there are none.
pub(super) fn keep_valid(columns: &[ArrayRef], offsets: &[usize]) -> Result<Option<Kept>> {
    let nulls = columns.iter().fold(None, |all, column| NullBuffer::union(all.as_ref(), column.nulls()));
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => Ok(None),
        Some(nulls) => keep(columns, offsets, &BooleanArray::new(nulls.into_inner(), None)).map(Some),
    }
}

/// The segments of a list's values that segments of its rows cover: rows of a list lie side by side in its values.
pub(super) fn inner_offsets(list: &OffsetBuffer<i32>, offsets: &[usize]) -> Vec<usize> {
    offsets.iter().map(|&row| list[row] as usize).collect()
}

/// The one column of states of a merge, which are never null.
pub(super) fn states<'a>(columns: &'a [ArrayRef], function: &str) -> Result<&'a ArrayRef> {
    match columns {
        [states] if states.null_count() == 0 => Ok(states),
        _ => Err(not_states(function)),
    }
}

/// States that are maps.
pub(super) fn map_states<'a>(states: &'a ArrayRef, function: &str) -> Result<&'a MapArray> {
    states.as_map_opt().filter(|map| map.null_count() == 0).ok_or_else(|| not_states(function))
}

fn not_states(function: &str) -> Error {
    Error::invalid_input(format!("a column does not hold states of this aggregate, aggregate=`{function}`"))
}

/// Of a column that is not of states of an aggregate.
pub(super) fn not_state_type(function: &str, found: &DataType) -> Error {
    Error::invalid_input(format!("states of this aggregate have another type, aggregate=`{function}`, type=`{found}`"))
}

/// Of an input that an aggregate cannot work on.
pub(super) fn bad_input(function: &str, column: &str, found: &DataType) -> Error {
    Error::invalid_input(format!(
        "the aggregate cannot work on a column of this type, aggregate=`{function}`, column=`{column}`, type=`{found}`"
    ))
}

/// Of an aggregate that orders rows, with the types of a value and of what its rows are ordered by.
pub(super) fn value_and_order<'a>(
    inputs: &'a [DataType],
    function: &str,
    value: &str,
    by: &str,
) -> Result<(&'a DataType, &'a DataType)> {
    let [of, order] = inputs else {
        return Err(Error::invalid_input(format!(
            "the aggregate has another number of inputs, aggregate=`{function}`, expected=`2`, found=`{}`",
            inputs.len()
        )));
    };
    if !is_ordered(order) {
        return Err(bad_input(function, by, order));
    }
    if !is_comparable(of) {
        return Err(bad_input(function, value, of));
    }
    Ok((of, order))
}

/// The one type among `inputs`.
pub(super) fn one_type<'a>(inputs: &'a [DataType], function: &str) -> Result<&'a DataType> {
    match inputs {
        [one] => Ok(one),
        _ => Err(Error::invalid_input(format!(
            "the aggregate has another number of inputs, aggregate=`{function}`, expected=`1`, found=`{}`",
            inputs.len()
        ))),
    }
}

/// The values at these rows, in buffers of their own: arrow's `take` shares the buffers of strings and binary, and a state that goes on and on
/// would keep alive all batches that it was made from.
pub(super) fn take_own(values: &ArrayRef, rows: &UInt64Array) -> Result<ArrayRef> {
    own(&take(values, rows, None)?)
}
