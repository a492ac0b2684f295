//! Sums by item: the exact map that a top-K is cut from.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, MapArray, PrimitiveArray, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::aggregate::distinct::list_offsets;
use crate::aggregate::segments::{bad_input, inner_offsets, keep_valid, map_states, not_state_type, states};
use crate::aggregate::sum::{Summand, WithSummands, sum_type, with_summands};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;
use crate::merge::{Extract, ForKeys, Keys, dispatch};
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
    let Grouped { rows, sums, ends } = with_summands(weights, BySum { items, offsets })?;
    let items = take(items, &rows, None)?;
    let fields = entry_fields(items.data_type().clone(), sums.data_type().clone());
    let entries = StructArray::try_new(fields.clone(), vec![items, sums], None)?;
    Ok(Arc::new(MapArray::try_new(entries_field(fields), list_offsets(&ends)?, entries, None, false)?))
}

/// Items with their sums, segment after segment.
struct Grouped {
    /// A row of each item.
    rows: UInt64Array,
    sums: ArrayRef,
    ends: Vec<usize>,
}

struct BySum<'a> {
    items: &'a ArrayRef,
    offsets: &'a [usize],
}

impl WithSummands for BySum<'_> {
    type Output = Grouped;

    fn run<T: Summand>(self, weights: &PrimitiveArray<T>) -> Result<Grouped> {
        dispatch(&[self.items.data_type().clone()], ByItem { items: self.items, offsets: self.offsets, weights })
    }
}

struct ByItem<'a, T: Summand> {
    items: &'a ArrayRef,
    offsets: &'a [usize],
    weights: &'a PrimitiveArray<T>,
}

impl<T: Summand> ForKeys for ByItem<'_, T> {
    type Output = Grouped;

    fn run<E: Extract>(self, extract: E) -> Result<Grouped> {
        let items = extract.extract(&[Arc::clone(self.items)])?;
        let weights = self.weights.values();
        let mut rows: Vec<u64> = vec![];
        let mut sums: Vec<T::Native> = vec![];
        let mut ends = vec![0];
        let mut segment = vec![];
        for range in self.offsets.windows(2) {
            segment.clear();
            segment.extend((range[0]..range[1]).map(|row| (items.value(row), row)));
            // Stable: finds the sorted stretches of merged maps, and adds floats in the order of their rows.
            segment.sort_by(|a, b| a.0.cmp(&b.0));
            let mut at = 0;
            while at < segment.len() {
                let (item, first) = segment[at];
                let mut sum = T::ZERO;
                while at < segment.len() && segment[at].0 == item {
                    sum = T::add(sum, T::widen(weights[segment[at].1]))?;
                    at += 1;
                }
                rows.push(first as u64);
                sums.push(T::narrow(sum)?);
            }
            ends.push(rows.len());
        }
        let sums = PrimitiveArray::<T>::new(sums.into(), None).with_data_type(self.weights.data_type().clone());
        Ok(Grouped { rows: rows.into(), sums: Arc::new(sums), ends })
    }
}
