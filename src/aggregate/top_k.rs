//! The K items with the greatest sums.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::aggregate::items::list_offsets;
use crate::aggregate::order::{WithOrder, with_order};
use crate::aggregate::segments::{map_states, not_state_type};
use crate::aggregate::sum::finished;
use crate::aggregate::sum_map::item_and_sum;
use crate::aggregate::{Aggregator, Definition, Segments, SumMap};
use crate::error::Result;

/// The default of [`TopK::with_limit`].
const DEFAULT_LIMIT: usize = 10;

/// The items with the greatest sums of a weight, or the greatest counts: exact, also over partials.
///
/// The state is that of [`SumMap`], all items of it: an item that is number K + 1 in every week may be the year's first, so lists of K do not merge.
/// Only [`finish`](Aggregator::finish) cuts. Definition: that of the sum map; the limit is not part of it.
///
/// Result: `List` of `Struct { item, sum }`, not null, greatest sum first, among equal sums the lesser item first; at most `limit`. Float sums are
/// ordered by IEEE 754's total order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopK {
    sums: SumMap,
    limit: usize,
}

impl TopK {
    /// The items of the most rows, unless a weight is set.
    pub fn of(item: impl Into<String>) -> Self {
        Self { sums: SumMap::of(item), limit: DEFAULT_LIMIT }
    }

    /// The items with the greatest sums of this column instead.
    #[must_use]
    pub fn weighted_by(mut self, weight: impl Into<String>) -> Self {
        self.sums = self.sums.weighted_by(weight);
        self
    }

    /// How many; 10 by default.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

impl Aggregator for TopK {
    fn definition(&self) -> Definition {
        self.sums.definition()
    }

    fn inputs(&self) -> Vec<String> {
        self.sums.inputs()
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        self.sums.state_type(inputs)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        let (item, sum) = item_and_sum(state).ok_or_else(|| not_state_type("top_k", state))?;
        Ok(DataType::List(ranked_field(item.clone(), sum)))
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        self.sums.update(rows)
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        self.sums.merge(states)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let maps = map_states(states, "top_k")?;
        let ends: Vec<usize> = maps.offsets().iter().map(|end| *end as usize).collect();
        let sums = finished(maps.values(), "top_k")?;
        let (rows, ends) = with_order(&sums, Rank { offsets: &ends, limit: self.limit })?;
        let columns = vec![take(maps.keys(), &rows, None)?, take(&sums, &rows, None)?];
        let fields = ranked_fields(columns[0].data_type().clone(), columns[1].data_type().clone());
        let ranked = StructArray::try_new(fields.clone(), columns, None)?;
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        Ok(Arc::new(ListArray::try_new(item, list_offsets(&ends)?, Arc::new(ranked), None)?))
    }
}

fn ranked_fields(item: DataType, sum: DataType) -> Fields {
    Fields::from(vec![Field::new("item", item, false), Field::new("sum", sum, false)])
}

fn ranked_field(item: DataType, sum: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(ranked_fields(item, sum)), true))
}

struct Rank<'a> {
    offsets: &'a [usize],
    limit: usize,
}

impl WithOrder for Rank<'_> {
    /// The entries in rank order, and where the lists end.
    type Output = (UInt64Array, Vec<usize>);

    fn run(self, order: impl Fn(usize, usize) -> Ordering) -> Result<Self::Output> {
        // Entries lie in the order of their items, so that among equal sums the first entry is the one to take.
        let order = |a: &u64, b: &u64| order(*b as usize, *a as usize).then(a.cmp(b));
        let mut rows: Vec<u64> = vec![];
        let mut ends = vec![0];
        let mut entries: Vec<u64> = vec![];
        for range in self.offsets.windows(2) {
            entries.clear();
            entries.extend(range[0] as u64..range[1] as u64);
            if self.limit < entries.len() {
                if self.limit > 0 {
                    entries.select_nth_unstable_by(self.limit - 1, order);
                }
                entries.truncate(self.limit);
            }
            entries.sort_unstable_by(order);
            rows.extend_from_slice(&entries);
            ends.push(rows.len());
        }
        Ok((rows.into(), ends))
    }
}
