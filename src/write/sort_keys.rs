//! Sort keys: what a row is sorted by and where it lies, in one entry that is compared without a look at Arrow types.
//!
//! Order columns of integers, dates, timestamps and booleans are packed if the values at hand span few enough bits, so that sorting rows is
//! sorting integers, by radix where they are many, and rows of equal keys stay in order of arrival:
//!
//! ```text
//! highest bits   first column: is null │ value − least value   next column …   batch │ row   lowest bits
//! ```
//!
//! Any other columns are compared as the bytes of arrow-row, eight of which are in the entry: the first ones that are not the same in all rows.
//! Without any order column, rows are in order of arrival.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowNativeType, DataType};
use arrow::row::{RowConverter, Rows, SortField};

use crate::error::Result;
use crate::merge::{common_bytes, head_of_bytes};

/// A row of the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowRef {
    pub(super) batch: u32,
    pub(super) row: u32,
}

/// Makes and sorts the entries of a buffer's rows.
pub(super) trait SortKeys: Send + Sync + 'static {
    type Entry: Copy + Default + Send + Sync + 'static;

    /// The entries of the rows of the batch with this number, in order of arrival.
    fn entries(&self, number: usize, batch: &RecordBatch) -> Vec<Self::Entry>;

    /// Sorts entries that are in order of arrival; those of equal keys stay so. What `spare` holds is of no matter, its memory is used again.
    fn sort(&self, entries: &mut Vec<Self::Entry>, spare: &mut Vec<Self::Entry>);

    /// Where the row of an entry lies.
    fn row(&self, entry: Self::Entry) -> RowRef;
}

/// An integer that entries are packed into.
pub(super) trait Word: Copy + Default + Ord + Send + Sync + 'static {
    const BITS: u32;

    /// Moves what is there up by `bits` bits, into which it puts `value`.
    fn push(self, bits: u32, value: u64) -> Self;

    /// The lowest 64 bits after the first `shift`.
    fn bits_from(self, shift: u32) -> u64;
}

impl Word for u64 {
    const BITS: u32 = Self::BITS;

    #[inline]
    fn push(self, bits: u32, value: u64) -> Self {
        self.unbounded_shl(bits) | value
    }

    #[inline]
    fn bits_from(self, shift: u32) -> u64 {
        self.unbounded_shr(shift)
    }
}

impl Word for u128 {
    const BITS: u32 = Self::BITS;

    #[inline]
    fn push(self, bits: u32, value: u64) -> Self {
        self.unbounded_shl(bits) | Self::from(value)
    }

    #[inline]
    fn bits_from(self, shift: u32) -> u64 {
        self.unbounded_shr(shift) as u64
    }
}

/// The values of an order column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Above `greatest` if there is no value.
    least: i64,
    greatest: i64,
    nulls: bool,
}

impl Span {
    const NOTHING: Self = Self { least: i64::MAX, greatest: i64::MIN, nulls: false };

    /// The spans of the columns at `order`, which can be packed.
    pub(super) fn of_batch(batch: &RecordBatch, order: &[usize]) -> Vec<Self> {
        order.iter().map(|i| Self::of(batch.column(*i))).collect()
    }

    fn of(column: &ArrayRef) -> Self {
        let values = integers(column);
        let stretch = |span: Self, values: &[i64]| {
            values.iter().fold(span, |span, value| Self {
                least: span.least.min(*value),
                greatest: span.greatest.max(*value),
                ..span
            })
        };
        match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => stretch(Self::NOTHING, &values),
            Some(nulls) => {
                let nothing = Self { nulls: true, ..Self::NOTHING };
                nulls.valid_slices().fold(nothing, |span, (start, end)| stretch(span, &values[start..end]))
            }
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            nulls: self.nulls || other.nulls,
        }
    }

    /// The bits of a value.
    fn value_bits(self) -> u32 {
        if self.least > self.greatest { 0 } else { bits_of(self.greatest.wrapping_sub(self.least).cast_unsigned()) }
    }

    /// The bits of a value or null.
    fn bits(self) -> u32 {
        u32::from(self.nulls) + self.value_bits()
    }
}

/// How many bits numbers up to `greatest` need.
fn bits_of(greatest: u64) -> u32 {
    u64::BITS - greatest.leading_zeros()
}

/// How the entries of a buffer are packed.
#[derive(Debug, Clone)]
pub(super) struct Packing {
    order: Vec<usize>,
    spans: Vec<Span>,
    batch_bits: u32,
    row_bits: u32,
}

impl Packing {
    /// Packs the columns at `order`, whose values have the `spans` in each of the batches.
    pub(super) fn new(order: &[usize], spans: &[Vec<Span>], batches: &[RecordBatch]) -> Self {
        let rows = batches.iter().map(RecordBatch::num_rows).max().unwrap_or(0);
        let last = |count: usize| count.saturating_sub(1) as u64;
        Self {
            order: order.to_vec(),
            spans: (0..order.len()).map(|i| spans.iter().map(|s| s[i]).fold(Span::NOTHING, Span::with)).collect(),
            batch_bits: bits_of(last(batches.len())),
            row_bits: bits_of(last(rows)),
        }
    }

    /// The bits of an entry. Those of one column never exceed 128: a buffer has fewer than 2^31 batches of fewer than 2^31 rows.
    pub(super) fn bits(&self) -> u32 {
        self.spans.iter().map(|span| span.bits()).sum::<u32>() + self.batch_bits + self.row_bits
    }
}

/// Entries of packed integers.
#[derive(Debug)]
pub(super) struct Packed<W> {
    packing: Packing,
    word: std::marker::PhantomData<W>,
}

impl<W: Word> Packed<W> {
    /// `None` if the entries have more bits than a `W`.
    pub(super) fn new(packing: &Packing) -> Option<Self> {
        (packing.bits() <= W::BITS).then(|| Self { packing: packing.clone(), word: std::marker::PhantomData })
    }
}

impl<W: Word> SortKeys for Packed<W> {
    type Entry = W;

    fn entries(&self, number: usize, batch: &RecordBatch) -> Vec<W> {
        let Packing { order, spans, batch_bits, row_bits } = &self.packing;
        let mut words = vec![W::default(); batch.num_rows()];
        for (column, span) in order.iter().zip(spans) {
            let column = batch.column(*column);
            let values = integers(column);
            let offset = |value: i64| value.wrapping_sub(span.least).cast_unsigned();
            match column.nulls().filter(|nulls| nulls.null_count() > 0) {
                None => {
                    // The bit for null is 0, as all bits above the value's.
                    for (word, value) in words.iter_mut().zip(&values) {
                        *word = word.push(span.bits(), offset(*value));
                    }
                }
                Some(nulls) => {
                    for ((word, value), valid) in words.iter_mut().zip(&values).zip(nulls) {
                        let value = if valid { offset(*value) } else { 0 };
                        *word = word.push(1, u64::from(!valid)).push(span.value_bits(), value);
                    }
                }
            }
        }
        for (row, word) in words.iter_mut().enumerate() {
            *word = word.push(*batch_bits, number as u64).push(*row_bits, row as u64);
        }
        words
    }

    fn sort(&self, entries: &mut Vec<W>, spare: &mut Vec<W>) {
        let Packing { batch_bits, row_bits, .. } = self.packing;
        let key_bits = batch_bits + row_bits..self.packing.bits();
        let passes = (key_bits.end - key_bits.start).div_ceil(DIGIT_BITS);
        // A pass takes as long as some two levels of a sort by comparisons, which also finds rows that are in order already.
        if !RADIX_ROWS.contains(&entries.len()) || passes > entries.len().ilog2() / 2 || entries.is_sorted() {
            entries.sort_unstable();
        } else {
            radix_sort(entries, spare, key_bits);
        }
    }

    fn row(&self, entry: W) -> RowRef {
        let Packing { batch_bits, row_bits, .. } = self.packing;
        let low = |bits: u32| 1_u64.unbounded_shl(bits).wrapping_sub(1);
        let at = |shift, bits| (entry.bits_from(shift) & low(bits)) as u32;
        RowRef { batch: at(row_bits, batch_bits), row: at(0, row_bits) }
    }
}

/// The bits by which a pass of the radix sort distributes.
const DIGIT_BITS: u32 = 8;

/// How many entries are sorted by radix: of fewer a pass costs too much per value of a digit, of more the memory that it needs.
const RADIX_ROWS: Range<usize> = 256..1 << 20;

/// Sorts by the `bits` of an entry, beyond which there are none, and leaves entries that agree in them as they are.
fn radix_sort<W: Word>(entries: &mut Vec<W>, spare: &mut Vec<W>, bits: Range<u32>) {
    spare.clear();
    spare.resize(entries.len(), W::default());
    for shift in bits.step_by(DIGIT_BITS as usize) {
        let digit = |entry: &W| entry.bits_from(shift) as u8 as usize;
        let mut next = [0_usize; 1 << DIGIT_BITS];
        entries.iter().for_each(|entry| next[digit(entry)] += 1);
        let mut end = 0;
        next.iter_mut().for_each(|count| end += std::mem::replace(count, end));
        for entry in entries.iter() {
            let place = &mut next[digit(entry)];
            spare[*place] = *entry;
            *place += 1;
        }
        std::mem::swap(entries, spare);
    }
}

/// Whether values of this type can be packed.
pub(super) fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Boolean | DataType::Date32 | DataType::Timestamp(_, _))
}

/// The values of such a column as `i64` of the same order; meaningless where it is null.
fn integers(column: &ArrayRef) -> ScalarBuffer<i64> {
    fn widen<T: ArrowNativeType>(column: &ArrayRef, to: impl Fn(T) -> i64) -> ScalarBuffer<i64> {
        native::<T>(column).iter().map(|v| to(*v)).collect()
    }
    fn native<T: ArrowNativeType>(column: &ArrayRef) -> ScalarBuffer<T> {
        let data = column.to_data();
        ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().values().iter().map(i64::from).collect(),
        DataType::Int8 => widen::<i8>(column, i64::from),
        DataType::Int16 => widen::<i16>(column, i64::from),
        DataType::Int32 | DataType::Date32 => widen::<i32>(column, i64::from),
        DataType::UInt8 => widen::<u8>(column, i64::from),
        DataType::UInt16 => widen::<u16>(column, i64::from),
        DataType::UInt32 => widen::<u32>(column, i64::from),
        // Flipping the top bit maps unsigned order onto signed order.
        DataType::UInt64 => widen::<u64>(column, |v| (v ^ (1 << 63)) as i64),
        _ => native::<i64>(column),
    }
}

/// The order columns of one batch as bytes.
#[derive(Debug)]
pub(super) struct Encoding {
    rows: Rows,
    /// How many bytes all rows begin with alike.
    common: usize,
}

impl Encoding {
    /// Encodes the columns at `order`.
    pub(super) fn of_batch(batch: &RecordBatch, order: &[usize], fields: &[SortField]) -> Result<Self> {
        let columns: Vec<ArrayRef> = order.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let rows = RowConverter::new(fields.to_vec())?.convert_columns(&columns)?;
        let mut common = usize::MAX;
        if let Some(first) = rows.iter().next() {
            common =
                rows.iter().fold(first.data().len(), |common, row| common_bytes(&first.data()[..common], row.data()));
        }
        Ok(Self { rows, common })
    }

    fn row(&self, row: u32) -> &[u8] {
        self.rows.row(row as usize).data()
    }
}

/// Entries of bytes: the first ones in which rows may differ, batch, row.
#[derive(Debug)]
pub(super) struct Encoded {
    batches: Vec<Encoding>,
    common: usize,
}

impl Encoded {
    /// Of all batches, in order.
    pub(super) fn new(batches: Vec<Encoding>) -> Self {
        let first = batches.iter().find(|batch| batch.rows.num_rows() > 0).map(|batch| batch.row(0));
        let common = first.map_or(0, |first| {
            let firsts = batches.iter().filter(|batch| batch.rows.num_rows() > 0);
            firsts.map(|batch| common_bytes(first, batch.row(0)).min(batch.common)).min().unwrap_or(0)
        });
        Self { batches, common }
    }

    fn bytes(&self, entry: u128) -> &[u8] {
        let RowRef { batch, row } = self.row(entry);
        self.batches[batch as usize].row(row)
    }
}

impl SortKeys for Encoded {
    type Entry = u128;

    fn entries(&self, number: usize, _batch: &RecordBatch) -> Vec<u128> {
        let entry = |(row, bytes): (usize, &[u8])| {
            u128::from(head_of_bytes(&bytes[self.common..])).push(32, number as u64).push(32, row as u64)
        };
        self.batches[number].rows.iter().map(|row| row.data()).enumerate().map(entry).collect()
    }

    fn sort(&self, entries: &mut Vec<u128>, _spare: &mut Vec<u128>) {
        entries.sort_unstable_by(|a, b| {
            // The first bytes settle most comparisons without a visit to the rows.
            match (a >> 64).cmp(&(b >> 64)) {
                Ordering::Equal => self.bytes(*a).cmp(self.bytes(*b)).then(a.cmp(b)),
                unequal => unequal,
            }
        });
    }

    fn row(&self, entry: u128) -> RowRef {
        RowRef { batch: (entry >> 32) as u32, row: entry as u32 }
    }
}
