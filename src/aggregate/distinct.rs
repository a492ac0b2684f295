//! The exact number of distinct values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::datatypes::{DataType, Field};

use crate::aggregate::items::Items;
use crate::aggregate::segments::{bad_input, inner_offsets, keep_valid, not_state_type, one_type, states, take_own};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;
use crate::schema::is_key_type;

/// Counts the distinct values of a column exactly, nulls left out.
///
/// For columns of key types; floats have no equality to rely on. State `count_distinct`, version 1: `List` of the values, ascending, each once, so
/// that its size is that of the distinct values. Result: `Int64`, 0 without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountDistinct {
    column: String,
}

impl CountDistinct {
    /// Of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into() }
    }
}

impl Aggregator for CountDistinct {
    fn definition(&self) -> Definition {
        Definition::new("count_distinct", 1).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "count_distinct")?;
        if !is_key_type(input) {
            return Err(bad_input("count_distinct", &self.column, input));
        }
        Ok(DataType::List(Arc::new(Field::new_list_field(input.clone(), true))))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        match state {
            DataType::List(item) if is_key_type(item.data_type()) => Ok(DataType::Int64),
            _ => Err(not_state_type("count_distinct", state)),
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        match keep_valid(rows.columns(), rows.offsets())? {
            None => sets(rows.column(0), rows.offsets()),
            Some(kept) => sets(&kept.columns[0], &kept.offsets),
        }
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let lists = states(segments.columns(), "count_distinct")?;
        let lists = lists.as_list_opt::<i32>().ok_or_else(|| not_state_type("count_distinct", lists.data_type()))?;
        // The values of a stretch of sets are a stretch of values.
        sets(lists.values(), &inner_offsets(lists.offsets(), segments.offsets()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let lists = states.as_list_opt::<i32>().ok_or_else(|| not_state_type("count_distinct", states.data_type()))?;
        Ok(Arc::new(lists.offsets().lengths().map(|length| length as i64).collect::<Int64Array>()))
    }
}

/// Per segment, its distinct values in order.
fn sets(values: &ArrayRef, offsets: &[usize]) -> Result<ArrayRef> {
    let items = Items::group(values, offsets)?;
    let values = take_own(values, &items.firsts())?;
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, items.offsets()?, values, None)?))
}
