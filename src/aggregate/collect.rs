//! Some of the values, as a list.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, UInt64Array, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};

use crate::aggregate::items::list_offsets;
use crate::aggregate::order::{WithOrder, by_and_value, by_value_fields, is_ordered, ties, with_order};
use crate::aggregate::segments::{
    bad_input, inner_offsets, not_state_type, one_type, states, take_own, value_and_order,
};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::Result;

/// The default of [`Collect::with_limit`].
const DEFAULT_LIMIT: usize = 100;

/// The first values of a column, as a list: in their own order, or in that of another column. Nulls are left out, repeated values are not.
///
/// There is no list in the order in which rows come: rows of a key come run after run, and how they lie in runs and periods must make no
/// difference. What a merge can keep are the first rows of an order, so one is always chosen: the values' own, for columns of key types and
/// floats; or with [`by`](Self::by) that of a column of such a type, for values of any type, rows that are equal in it in the order that
/// [`First`](crate::First) breaks ties by. [`descending`](Self::descending) turns all of it around, for the last ones, the last of all first.
///
/// State `collect`, version 1: `List` of the values, or of `Struct { by, value }`, not null, in order; at most `limit` of them for each key, which
/// bounds its size. Result: `List` of the values, empty without any. The limit and the order are parts of the definition: what a state leaves out
/// cannot come back.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
/// use sort_merge_bucket::{Aggregator, Collect, Segments};
///
/// let tracks = Arc::new(StringViewArray::from(vec!["Naima", "Spain", "Gloria", "Spain"])) as ArrayRef;
/// let columns = [tracks, Arc::new(Int64Array::from(vec![9, 7, 8, 6])) as ArrayRef];
/// let latest = Collect::of("track").by("played_at").descending().with_limit(3);
/// let results = latest.finish(&latest.update(&Segments::new(&columns, &[0, 4])?)?)?;
/// let tracks = results.as_list::<i32>().value(0);
/// assert_eq!(tracks.as_string_view().iter().flatten().collect::<Vec<_>>(), ["Naima", "Gloria", "Spain"]);
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    column: String,
    by: Option<String>,
    descending: bool,
    limit: usize,
}

impl Collect {
    /// The least values of `column`, least first, unless another order is set.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into(), by: None, descending: false, limit: DEFAULT_LIMIT }
    }

    /// In the order of this column. Rows in which it is null are left out.
    #[must_use]
    pub fn by(mut self, column: impl Into<String>) -> Self {
        self.by = Some(column.into());
        self
    }

    /// The last values instead, the last of all first.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// How many for each key; 100 by default.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Per segment, the first rows.
    fn pick(&self, columns: &[ArrayRef], offsets: &[usize]) -> Result<ArrayRef> {
        let by = columns.last().ok_or_else(|| not_state_type("collect", &DataType::Null))?;
        let nulls = columns.iter().fold(None, |all, column| NullBuffer::union(all.as_ref(), column.nulls()));
        let (descending, limit) = (self.descending, self.limit);
        let (rows, ends) = with_order(by, Pick { offsets, nulls, value: &columns[0], descending, limit })?;
        let columns = columns.iter().map(|column| take_own(column, &rows)).collect::<Result<Vec<_>>>()?;
        let items: ArrayRef = match columns.as_slice() {
            [value, by] => {
                let fields = by_value_fields(by.data_type().clone(), value.data_type().clone());
                Arc::new(StructArray::try_new(fields, vec![Arc::clone(by), Arc::clone(value)], None)?)
            }
            _ => Arc::clone(&columns[0]),
        };
        Ok(Arc::new(ListArray::try_new(item(items.data_type().clone()), list_offsets(&ends)?, items, None)?))
    }

    /// Values, and what they are ordered by if it is something else, of the items of states.
    fn columns(&self, items: &ArrayRef) -> Option<Vec<ArrayRef>> {
        if self.by.is_none() {
            return is_ordered(items.data_type()).then(|| vec![Arc::clone(items)]);
        }
        by_and_value(items).map(|(by, value)| vec![Arc::clone(value), Arc::clone(by)])
    }
}

impl Aggregator for Collect {
    fn definition(&self) -> Definition {
        let mut definition = Definition::new("collect", 1)
            .with_parameter("column", &self.column)
            .with_parameter("limit", self.limit.to_string());
        if let Some(by) = &self.by {
            definition = definition.with_parameter("by", by);
        }
        if self.descending {
            definition = definition.with_parameter("descending", "true");
        }
        definition
    }

    fn inputs(&self) -> Vec<String> {
        std::iter::once(&self.column).chain(&self.by).cloned().collect()
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let Some(by) = &self.by else {
            let value = one_type(inputs, "collect")?;
            return match is_ordered(value) {
                true => Ok(DataType::List(item(value.clone()))),
                false => Err(bad_input("collect", &self.column, value)),
            };
        };
        let (value, order) = value_and_order(inputs, "collect", &self.column, by)?;
        Ok(DataType::List(item(DataType::Struct(by_value_fields(order.clone(), value.clone())))))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        let bad = || not_state_type("collect", state);
        let DataType::List(items) = state else { return Err(bad()) };
        let columns = self.columns(&new_empty_array(items.data_type())).ok_or_else(bad)?;
        Ok(DataType::List(item(columns[0].data_type().clone())))
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        self.pick(rows.columns(), rows.offsets())
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let (lists, columns) = self.open(states(segments.columns(), "collect")?)?;
        // The items of a stretch of lists are a stretch of items.
        self.pick(&columns, &inner_offsets(lists.offsets(), segments.offsets()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let (lists, columns) = self.open(states)?;
        let values = Arc::clone(&columns[0]);
        Ok(Arc::new(ListArray::try_new(item(values.data_type().clone()), lists.offsets().clone(), values, None)?))
    }
}

impl Collect {
    /// States, and the columns that they are made of.
    fn open<'a>(&self, states: &'a ArrayRef) -> Result<(&'a ListArray, Vec<ArrayRef>)> {
        let bad = || not_state_type("collect", states.data_type());
        let lists = states.as_list_opt::<i32>().ok_or_else(bad)?;
        Ok((lists, self.columns(lists.values()).ok_or_else(bad)?))
    }
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(data_type, true))
}

struct Pick<'a> {
    offsets: &'a [usize],
    nulls: Option<NullBuffer>,
    value: &'a ArrayRef,
    descending: bool,
    limit: usize,
}

impl WithOrder for Pick<'_> {
    /// The rows of the lists, and where lists end.
    type Output = (UInt64Array, Vec<usize>);

    fn run(self, order: impl Fn(usize, usize) -> Ordering) -> Result<Self::Output> {
        let ties = ties(self.value)?;
        let nulls = self.nulls.as_ref().filter(|nulls| nulls.null_count() > 0);
        let order = |a: &u64, b: &u64| {
            let (a, b) = if self.descending { (*b as usize, *a as usize) } else { (*a as usize, *b as usize) };
            order(a, b).then_with(|| ties(a, b))
        };
        let mut rows: Vec<u64> = vec![];
        let mut ends = Vec::with_capacity(self.offsets.len());
        ends.push(0);
        for range in self.offsets.windows(2) {
            let start = rows.len();
            let valid = |row: &u64| nulls.is_none_or(|nulls| nulls.is_valid(*row as usize));
            rows.extend((range[0] as u64..range[1] as u64).filter(valid));
            let own = &mut rows[start..];
            if self.limit < own.len() {
                if self.limit > 0 {
                    own.select_nth_unstable_by(self.limit - 1, order);
                }
                rows.truncate(start + self.limit);
            }
            rows[start..].sort_unstable_by(order);
            ends.push(rows.len());
        }
        Ok((rows.into(), ends))
    }
}
