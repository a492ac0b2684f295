//! Sums by item: the exact map that a top-K is cut from.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, MapArray, PrimitiveArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};

use crate::aggregate::exact::{Accumulator, SumLists, sum_lists};
use crate::aggregate::items::Items;
use crate::aggregate::segments::{bad_input, inner_offsets, keep_valid, map_states, not_state_type, states, take_own};
use crate::aggregate::sum::{Summand, WithSummands, finished, sum_of_state, sum_state_type, with_summands};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;
use crate::schema::is_key_type;

/// Adds up a weight by item: for each key, a map from item to sum. Or counts rows by item.
///
/// Rows whose item or weight is null are left out. Items are of key types; weights, states of their sums and sums of the types of [`Sum`](crate::Sum),
/// counts `Int64`. State `sum_map`, version 2: `Map` from item to the state of its sum, not null, items ascending, each once; the empty map without
/// rows. Result: the same with sums, which may be zero or negative. Its size is that of the distinct items of a key.
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
        let definition = Definition::new("sum_map", 2).with_parameter("item", &self.item);
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
            [item, weight] => match sum_state_type(weight) {
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
        let (item, sum) = item_and_sum(state).ok_or_else(|| not_state_type("sum_map", state))?;
        Ok(map_type(item.clone(), sum))
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
        let maps = map_states(states, "sum_map")?;
        let sums = finished(maps.values(), "sum_map")?;
        map(Arc::clone(maps.keys()), sums, maps.offsets().clone())
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

/// The types of items and sums, of the type of a sum map's state.
pub(super) fn item_and_sum(state: &DataType) -> Option<(&DataType, DataType)> {
    let DataType::Map(entries, _) = state else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    let [item, sum] = fields.as_ref() else { return None };
    let sum = sum_of_state(sum.data_type())?;
    is_key_type(item.data_type()).then_some((item.data_type(), sum))
}

/// Maps from items to sums.
fn map(items: ArrayRef, sums: ArrayRef, offsets: OffsetBuffer<i32>) -> Result<ArrayRef> {
    let fields = entry_fields(items.data_type().clone(), sums.data_type().clone());
    let entries = StructArray::try_new(fields.clone(), vec![items, sums], None)?;
    Ok(Arc::new(MapArray::try_new(entries_field(fields), offsets, entries, None, false)?))
}

/// Per segment, the sums of `weights`, values or states, by item. Neither column has nulls.
fn sum_by_item(items: &ArrayRef, weights: &ArrayRef, offsets: &[usize]) -> Result<ArrayRef> {
    let groups = Items::group(items, offsets)?;
    let items = take_own(items, &groups.firsts())?;
    let sums = match weights.data_type() {
        DataType::List(_) => {
            let lists = sum_lists(weights, "sum_map")?;
            let (ends, parts) = (lists.offsets(), lists.values().as_primitive::<Float64Type>().values());
            exact_sums(&groups, |sum, row| {
                parts[ends[row] as usize..ends[row + 1] as usize].iter().for_each(|part| sum.add(*part));
            })?
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let weights = cast(weights, &DataType::Float64)?;
            let weights = weights.as_primitive::<Float64Type>().values();
            exact_sums(&groups, |sum, row| sum.add(weights[row]))?
        }
        _ => with_summands(weights, Sums(&groups))?,
    };
    map(items, sums, groups.offsets()?)
}

fn exact_sums(items: &Items, add: impl Fn(&mut Accumulator, usize)) -> Result<ArrayRef> {
    let (starts, rows) = items.by_item();
    let mut sum = Accumulator::new();
    let mut sums = SumLists::with_capacity(items.len());
    for ends in starts.windows(2) {
        rows[ends[0]..ends[1]].iter().for_each(|row| add(&mut sum, *row));
        sums.push(&mut sum);
    }
    sums.finish(None)
}

struct Sums<'a>(&'a Items);

impl WithSummands for Sums<'_> {
    type Output = ArrayRef;

    fn run<T: Summand>(self, weights: &PrimitiveArray<T>) -> Result<ArrayRef> {
        let values = weights.values();
        let mut sums = vec![T::ZERO; self.0.len()];
        for (row, item) in self.0.of_rows() {
            sums[item] = T::add(sums[item], T::widen(values[row]))?;
        }
        let sums = sums.into_iter().map(T::narrow).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<T>::new(sums.into(), None).with_data_type(weights.data_type().clone())))
    }
}
