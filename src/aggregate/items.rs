//! The rows of segments, grouped by item: what sets and sum maps are made of. One sort per key type serves them all.

use arrow::array::{ArrayRef, UInt64Array};
use arrow::buffer::OffsetBuffer;

use crate::error::{Error, ErrorKind, Result};
use crate::merge::{Extract, ForKeys, Keys, dispatch};

/// Rows of several segments: segment after segment, in each by item, rows of one item in their order.
#[derive(Debug, Default)]
pub(super) struct Items {
    rows: Vec<usize>,
    /// Where the items begin in `rows`, and the end.
    starts: Vec<usize>,
    /// How many items there are up to each segment, from 0 on.
    ends: Vec<usize>,
}

impl Items {
    /// Groups the rows of segments by the item in a column of a key type, without nulls.
    pub(super) fn group(items: &ArrayRef, offsets: &[usize]) -> Result<Self> {
        dispatch(&[items.data_type().clone()], Group { items, offsets })
    }

    /// The rows of each item.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.starts.windows(2).map(|ends| &self.rows[ends[0]..ends[1]])
    }

    /// The first row of each item.
    pub(super) fn firsts(&self) -> UInt64Array {
        self.rows().map(|rows| Some(rows[0] as u64)).collect()
    }

    /// Offsets of lists that hold the items of a segment each.
    ///
    /// # Errors
    /// As [`list_offsets`].
    pub(super) fn offsets(&self) -> Result<OffsetBuffer<i32>> {
        list_offsets(&self.ends)
    }
}

/// Offsets of lists; `LimitExceeded` beyond the 2³¹ values of one array.
pub(super) fn list_offsets(ends: &[usize]) -> Result<OffsetBuffer<i32>> {
    match ends.iter().map(|end| i32::try_from(*end)).collect::<Result<Vec<_>, _>>() {
        Ok(ends) => Ok(OffsetBuffer::new(ends.into())),
        Err(_) => Err(Error::new(ErrorKind::LimitExceeded, "the states of one batch have more than 2³¹ values")),
    }
}

struct Group<'a> {
    items: &'a ArrayRef,
    offsets: &'a [usize],
}

impl ForKeys for Group<'_> {
    type Output = Items;

    fn run<E: Extract>(self, extract: E) -> Result<Items> {
        let keys = extract.extract(std::slice::from_ref(self.items))?;
        let mut items = Items { rows: vec![], starts: vec![0], ends: vec![0] };
        let mut segment = vec![];
        for range in self.offsets.windows(2) {
            segment.clear();
            segment.extend((range[0]..range[1]).map(|row| (keys.value(row), row)));
            // Stable: finds the sorted stretches of states that are merged, and keeps the order in which floats are added up.
            segment.sort_by(|a, b| a.0.cmp(&b.0));
            for (at, (item, row)) in segment.iter().enumerate() {
                items.rows.push(*row);
                if segment.get(at + 1).is_none_or(|(next, _)| next != item) {
                    items.starts.push(items.rows.len());
                }
            }
            items.ends.push(items.starts.len() - 1);
        }
        Ok(items)
    }
}
