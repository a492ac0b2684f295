//! Sums by item: the exact map that a top-K is cut from.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, MapArray, PrimitiveArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::aggregate::items::Items;
use crate::aggregate::segments::{bad_input, inner_offsets, keep_valid, map_states, not_state_type, states, take_own};
use crate::aggregate::sum::{Summand, WithSummands, sum_type, with_summands};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;
use crate::schema::is_key_type;

/// Adds up a weight by item: for each key, a map from item to sum. Or counts rows by item.
///
/// Rows whose item or weight is null are left out. Items are of key types; weights and their sums of the types of [`Sum`](crate::Sum), counts `Int64`. State
/// `sum_map`, version 1, and result: `Map` from item to sum, not null, items ascending, each once; the empty map without rows. Sums may
/// be zero or negative. Its size is that of the distinct items of a key.
///
/// ```text
/// item    a b a c      weight  1 2 3 4       {a: 4, b: 2, c: 4}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumMap {
    item: String,
    weight: Option<String>,
}

impl SumMap {
    /// Counts rows by `item`, unless a weight is set.
    pub fn of(item: impl Into<String>) -> Self {
        Self { item: item.into(), weight: None }
    }

    /// Adds up this column instead.
    #[must_use]
    pub fn weighted_by(mut self, weight: impl Into<String>) -> Self {
        self.weight = Some(weight.into());
        self
    }
}

impl Aggregator for SumMap {
    fn definition(&self) -> Definition {
        let definition = Definition::new("sum_map", 1).with_parameter("item", &self.item);
        match &self.weight {
            None => definition,
            Some(weight) => definition.with_parameter("weight", weight),
        }
    }

    fn inputs(&self) -> Vec<String> {
        std::iter::once(&self.item).chain(&self.weight).cloned().collect()
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let (item, weight) = match inputs {
            [item] => (item, DataType::Int64),
            [item, weight] => match sum_type(weight) {
                Some(sum) => (item, sum),
                None => return Err(bad_input("sum_map", self.weight.as_deref().unwrap_or_default(), weight)),
            },
            _ => return Err(crate::Error::invalid_input("a sum map has one or two inputs")),
        };
        if !is_key_type(item) {
            return Err(bad_input("sum_map", &self.item, item));
        }
        Ok(map_type(item.clone(), weight))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        item_and_sum(state).map(|_| state.clone()).ok_or_else(|| not_state_type("sum_map", state))
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let kept = keep_valid(rows.columns(), rows.offsets())?;
        let (columns, offsets) = match &kept {
            None => (rows.columns(), rows.offsets()),
            Some(kept) => (kept.columns.as_slice(), kept.offsets.as_slice()),
        };
        match columns {
            [items, weights] => sum_by_item(items, weights, offsets),
            _ => sum_by_item(&columns[0], &(Arc::new(Int64Array::from_value(1, columns[0].len())) as _), offsets),
        }
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let maps = map_states(states(segments.columns(), "sum_map")?, "sum_map")?;
        // The entries of a stretch of maps are a stretch of entries.
        sum_by_item(maps.keys(), maps.values(), &inner_offsets(maps.offsets(), segments.offsets()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::clone(states))
    }
}

fn entry_fields(item: DataType, sum: DataType) -> Fields {
    Fields::from(vec![Field::new("item", item, false), Field::new("sum", sum, false)])
}

fn entries_field(fields: Fields) -> FieldRef {
    Arc::new(Field::new("entries", DataType::Struct(fields), false))
}

fn map_type(item: DataType, sum: DataType) -> DataType {
    DataType::Map(entries_field(entry_fields(item, sum)), false)
}

/// The types of items and sums, of a sum map's type.
pub(super) fn item_and_sum(state: &DataType) -> Option<(&DataType, &DataType)> {
    let DataType::Map(entries, _) = state else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    let [item, sum] = fields.as_ref() else { return None };
    let (item, sum) = (item.data_type(), sum.data_type());
    (is_key_type(item) && sum_type(sum).as_ref() == Some(sum)).then_some((item, sum))
}

/// Per segment, the sums of `weights` by item. Neither column has nulls.
fn sum_by_item(items: &ArrayRef, weights: &ArrayRef, offsets: &[usize]) -> Result<ArrayRef> {
    let groups = Items::group(items, offsets)?;
    let items = take_own(items, &groups.firsts())?;
    let sums = with_summands(weights, Sums(&groups))?;
    let fields = entry_fields(items.data_type().clone(), sums.data_type().clone());
    let entries = StructArray::try_new(fields.clone(), vec![items, sums], None)?;
    Ok(Arc::new(MapArray::try_new(entries_field(fields), groups.offsets()?, entries, None, false)?))
}

struct Sums<'a>(&'a Items);

impl WithSummands for Sums<'_> {
    type Output = ArrayRef;

    fn run<T: Summand>(self, weights: &PrimitiveArray<T>) -> Result<ArrayRef> {
        let values = weights.values();
        let sum = |rows: &[usize]| -> Result<T::Native> {
            let add = |sum, row: &usize| T::add(sum, T::widen(values[*row]));
            T::narrow(rows.iter().try_fold(T::ZERO, add)?)
        };
        let sums = self.0.rows().map(sum).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<T>::new(sums.into(), None).with_data_type(weights.data_type().clone())))
    }
}
