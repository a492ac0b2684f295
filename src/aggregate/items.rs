//! The rows of segments, grouped by item: what sets and sum maps are made of. Rows are found by hash and only items are sorted, since most rows repeat one.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::buffer::OffsetBuffer;

use crate::error::{Error, ErrorKind, Result};
use crate::merge::{Extract, ForKeys, Keys, dispatch};

/// The items of several segments: segment after segment, in each of them ascending.
#[derive(Debug)]
pub(super) struct Items {
    /// The rows of all segments.
    rows: Range<usize>,
    /// The item of each row.
    of_rows: Vec<u32>,
    /// The first row of each item.
    firsts: Vec<u64>,
    /// How many items there are up to each segment, from 0 on.
    ends: Vec<usize>,
}

impl Items {
    /// Groups the rows of segments by the item in a column of a key type, without nulls.
    pub(super) fn group(items: &ArrayRef, offsets: &[usize]) -> Result<Self> {
        dispatch(&[items.data_type().clone()], Group { items, offsets })
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Every row of a segment with the number of its item.
    pub(super) fn of_rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.rows.clone().zip(self.of_rows.iter().map(|item| *item as usize))
    }

    /// The rows of each item: where those of an item begin, with the end, and the rows.
    pub(super) fn by_item(&self) -> (Vec<usize>, Vec<usize>) {
        let mut starts = vec![0; self.len() + 1];
        self.of_rows().for_each(|(_, item)| starts[item + 1] += 1);
        (1..starts.len()).for_each(|item| starts[item] += starts[item - 1]);
        let mut next = starts.clone();
        let mut rows = vec![0; self.of_rows.len()];
        for (row, item) in self.of_rows() {
            rows[next[item]] = row;
            next[item] += 1;
        }
        (starts, rows)
    }

    /// The first row of each item.
    pub(super) fn firsts(&self) -> UInt64Array {
        self.firsts.clone().into()
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
        Err(_) => Err(too_many()),
    }
}

fn too_many() -> Error {
    Error::new(ErrorKind::LimitExceeded, "the states of one batch have more than 2³¹ values")
}

struct Group<'a> {
    items: &'a ArrayRef,
    offsets: &'a [usize],
}

impl ForKeys for Group<'_> {
    type Output = Items;

    fn run<E: Extract>(self, extract: E) -> Result<Items> {
        let keys = extract.extract(std::slice::from_ref(self.items))?;
        if i32::try_from(keys.len()).is_err() {
            return Err(too_many());
        }
        let (Some(start), Some(end)) = (self.offsets.first(), self.offsets.last()) else {
            return Err(Error::internal("segments without offsets"));
        };
        let mut items =
            Items { rows: *start..*end, of_rows: Vec::with_capacity(end - start), firsts: vec![], ends: vec![0] };
        // Random, so that nobody can choose items that meet in one place.
        let seed = RandomState::new().hash_one(());
        let mut places = vec![];
        for ends in self.offsets.windows(2) {
            items.push_segment(&keys, ends[0]..ends[1], seed, &mut places);
        }
        items.sort(&keys);
        Ok(items)
    }
}

impl Items {
    /// Numbers the items of a segment in the order of their first rows. `places` is memory to use again.
    fn push_segment<K: Keys>(&mut self, keys: &K, rows: Range<usize>, seed: u64, places: &mut Vec<u32>) {
        // Open addressing, at least every other place free: 0, or the number after an item's.
        let size = (2 * rows.len()).next_power_of_two();
        places.clear();
        places.resize(size, 0);
        for row in rows {
            let mut place = keys.hash(row, seed) as usize & (size - 1);
            let item = loop {
                match places[place] {
                    0 => {
                        self.firsts.push(row as u64);
                        places[place] = self.firsts.len() as u32;
                        break places[place] - 1;
                    }
                    found if keys.equal(self.firsts[found as usize - 1] as usize, row) => break found - 1,
                    _ => place = (place + 1) & (size - 1),
                }
            };
            self.of_rows.push(item);
        }
        self.ends.push(self.firsts.len());
    }

    /// Numbers the items of each segment in their own order.
    fn sort<K: Keys>(&mut self, keys: &K) {
        let heads = keys.heads(&self.firsts);
        let mut ranks = vec![0; self.len()];
        let mut firsts = Vec::with_capacity(self.len());
        let mut order: Vec<u128> = vec![];
        for ends in self.ends.windows(2) {
            // Head and item in one number, which compares faster than the two.
            order.clear();
            order.extend((ends[0]..ends[1]).map(|item| u128::from(heads[item]) << 64 | item as u128));
            order.sort_unstable();
            let first = |entry: &u128| self.firsts[*entry as u64 as usize];
            for same_head in order.chunk_by_mut(|a, b| *a >> 64 == *b >> 64).filter(|same_head| same_head.len() > 1) {
                same_head.sort_unstable_by(|a, b| keys.value(first(a) as usize).cmp(&keys.value(first(b) as usize)));
            }
            for entry in &order {
                ranks[*entry as u64 as usize] = firsts.len() as u32;
                firsts.push(first(entry));
            }
        }
        self.of_rows.iter_mut().for_each(|item| *item = ranks[*item as usize]);
        self.firsts = firsts;
    }
}
