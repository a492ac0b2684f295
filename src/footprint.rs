//! What rows weigh: logical bytes per row, cuts at a number of bytes, and copies that hold nothing but their own rows.
//!
//! Slices and string views share buffers, so the memory that an array reports says little about its rows: a slice of ten rows may keep a
//! gigabyte alive, and a million views may point at one value. Cuts therefore follow the *logical* size, which depends on the values
//! alone and never on how the rows arrived; and what is kept is [`compact`]ed first, so that its reported memory is in proportion to its
//! logical size.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, ListArray, MapArray, MutableArrayData, RecordBatch,
    RecordBatchOptions, StructArray, make_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};

use crate::error::Result;

/// Memory beyond what is tolerated that is not worth a copy.
const SLACK_BYTES: u64 = 4096;

/// How much memory, in per cent of the logical size, is left as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance(u64);

impl Tolerance {
    /// For whole arrays: builders may hold buffers of twice the size of what they built, and all of it is counted.
    pub(crate) const WHOLE: Self = Self(200);
    /// For slices, whose buffers are counted once for every slice.
    pub(crate) const SLICE: Self = Self(125);

    /// Whether an array of this logical size keeps too much memory alive.
    fn is_exceeded(self, logical: u64, memory: usize) -> bool {
        memory as u64 > logical * self.0 / 100 + SLACK_BYTES
    }
}

/// The logical bytes of each row of an array or batch; saturating, for no limit on a piece comes near 4 GiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowSizes {
    /// Every row has this many.
    Fixed(u32),
    /// Row by row.
    PerRow(Vec<u32>),
}

impl RowSizes {
    /// The sizes of a canonical batch's rows.
    pub(crate) fn of_batch(batch: &RecordBatch) -> Self {
        batch.columns().iter().map(Self::of).fold(Self::Fixed(0), Self::plus)
    }

    /// The sizes of a canonical column's values.
    pub(crate) fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8View => view_sizes(array.as_byte_view::<StringViewType>()),
            DataType::BinaryView => view_sizes(array.as_byte_view::<BinaryViewType>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Self::of(list.values()).nested(list.value_offsets())
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                let entries: ArrayRef = Arc::new(map.entries().clone());
                Self::of(&entries).nested(map.value_offsets())
            }
            DataType::Struct(_) => array.as_struct().columns().iter().map(Self::of).fold(Self::Fixed(1), Self::plus),
            DataType::FixedSizeBinary(width) => Self::Fixed(width.unsigned_abs()),
            other => Self::Fixed(other.primitive_width().unwrap_or(1) as u32),
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => Self::Fixed(a.saturating_add(b)),
            (Self::PerRow(mut rows), Self::Fixed(b)) | (Self::Fixed(b), Self::PerRow(mut rows)) => {
                rows.iter_mut().for_each(|r| *r = r.saturating_add(b));
                Self::PerRow(rows)
            }
            (Self::PerRow(mut rows), Self::PerRow(other)) => {
                rows.iter_mut().zip(other).for_each(|(a, b)| *a = a.saturating_add(b));
                Self::PerRow(rows)
            }
        }
    }

    /// The sizes of lists whose items have the sizes `self`.
    fn nested(self, offsets: &[i32]) -> Self {
        const OFFSET_BYTES: u32 = 4;
        let items = |w: &[i32]| Range { start: w[0] as usize, end: w[1] as usize };
        let sum = |sizes: &[u32]| sizes.iter().fold(OFFSET_BYTES, |sum, size| sum.saturating_add(*size));
        Self::PerRow(match self {
            Self::Fixed(item) => {
                let size = |items: Range<usize>| item.saturating_mul(items.len() as u32).saturating_add(OFFSET_BYTES);
                offsets.windows(2).map(|w| size(items(w))).collect()
            }
            Self::PerRow(sizes) => offsets.windows(2).map(|w| sum(&sizes[items(w)])).collect(),
        })
    }

    pub(crate) fn row(&self, row: usize) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::PerRow(sizes) => sizes[row],
        }
    }

    /// The bytes of some rows.
    pub(crate) fn of_rows(&self, rows: Range<usize>) -> u64 {
        match self {
            Self::Fixed(size) => u64::from(*size) * rows.len() as u64,
            Self::PerRow(sizes) => sizes[rows].iter().map(|s| u64::from(*s)).sum(),
        }
    }
}

fn view_sizes<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> RowSizes {
    const VIEW_BYTES: u32 = 16;
    if array.data_buffers().is_empty() {
        return RowSizes::Fixed(VIEW_BYTES);
    }
    // The length is the low 32 bits of a view; up to 12 bytes lie in the view itself. What a null's view says is noise.
    let size = |view: &u128| match *view as u32 {
        0..=12 => VIEW_BYTES,
        len => len.saturating_add(VIEW_BYTES),
    };
    RowSizes::PerRow(match array.nulls() {
        None => array.views().iter().map(size).collect(),
        Some(nulls) => {
            array.views().iter().zip(nulls).map(|(v, valid)| if valid { size(v) } else { VIEW_BYTES }).collect()
        }
    })
}

/// Cuts a stream of rows into pieces of at most `max_rows` rows that end with the row that reaches `max_bytes`.
///
/// Where a cut falls depends on the rows since the last one and on nothing else.
#[derive(Debug, Clone)]
pub(crate) struct Cutter {
    max_rows: usize,
    max_bytes: u64,
    rows: usize,
    bytes: u64,
}

impl Cutter {
    pub(crate) fn new(max_rows: usize, max_bytes: u64) -> Self {
        Self { max_rows: max_rows.max(1), max_bytes, rows: 0, bytes: 0 }
    }

    /// Adds a row and says whether the piece ends with it.
    pub(crate) fn push(&mut self, bytes: u32) -> bool {
        self.rows += 1;
        self.bytes += u64::from(bytes);
        let full = self.rows >= self.max_rows || self.bytes >= self.max_bytes;
        if full {
            (self.rows, self.bytes) = (0, 0);
        }
        full
    }

    /// Cuts `rows` rows of these sizes; the last range may be unfinished, which the flag says.
    pub(crate) fn cut(&mut self, sizes: &RowSizes, rows: usize) -> Vec<(Range<usize>, bool)> {
        let mut ranges = vec![];
        let mut start = 0;
        while start < rows {
            let (end, full) = match sizes {
                RowSizes::Fixed(size) => {
                    let size = u64::from(*size);
                    let by_bytes = self.max_bytes.saturating_sub(self.bytes).div_ceil(size.max(1)).max(1);
                    let by_rows = (self.max_rows - self.rows) as u64;
                    let take = by_bytes.min(by_rows);
                    let left = (rows - start) as u64;
                    if take <= left {
                        (self.rows, self.bytes) = (0, 0);
                        (start + take as usize, true)
                    } else {
                        self.rows += rows - start;
                        self.bytes += size * left;
                        (rows, false)
                    }
                }
                RowSizes::PerRow(sizes) => match sizes[start..rows].iter().position(|&size| self.push(size)) {
                    Some(at) => (start + at + 1, true),
                    None => (rows, false),
                },
            };
            ranges.push((start..end, full));
            start = end;
        }
        ranges
    }
}

/// The same rows, in buffers that hold little else.
pub(crate) fn compact(batch: &RecordBatch, tolerance: Tolerance) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| compact_array(column, tolerance)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// The same values, of strings and binary in buffers that hold nothing else, however much they take: a buffer may be a piece of a larger one, of
/// which it does not tell.
pub(crate) fn own(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Utf8View => Arc::new(values.as_string_view().gc()),
        DataType::BinaryView => Arc::new(values.as_binary_view().gc()),
        DataType::Struct(fields) => {
            let columns = values.as_struct().columns().iter().map(own).collect::<Result<_>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, values.nulls().cloned(), values.len())?)
        }
        DataType::List(item) => {
            let list: &ListArray = values.as_list();
            let items = own(list.values())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), items, list.nulls().cloned())?)
        }
        DataType::Map(entries, sorted) => {
            let map = values.as_map();
            let inner = own(&(Arc::new(map.entries().clone()) as ArrayRef))?.as_struct().clone();
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, inner, nulls, *sorted)?)
        }
        _ => Arc::clone(values),
    })
}

fn compact_array(array: &ArrayRef, tolerance: Tolerance) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => compact_views(array.as_byte_view::<StringViewType>(), array, tolerance)?,
        DataType::BinaryView => compact_views(array.as_byte_view::<BinaryViewType>(), array, tolerance)?,
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let (offsets, items) = rebase(list.offsets());
            let values = compact_array(&list.values().slice(items.start, items.len()), tolerance)?;
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, list.nulls().cloned())?)
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let (offsets, items) = rebase(map.offsets());
            let values = compact_struct(&map.entries().slice(items.start, items.len()), tolerance)?;
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, values, map.nulls().cloned(), *sorted)?)
        }
        DataType::Struct(_) => Arc::new(compact_struct(array.as_struct(), tolerance)?),
        _ if tolerance.is_exceeded(RowSizes::of(array).of_rows(0..array.len()), array.get_buffer_memory_size()) => {
            copy(array)?
        }
        _ => Arc::clone(array),
    })
}

fn compact_struct(array: &StructArray, tolerance: Tolerance) -> Result<StructArray> {
    let columns = array.columns().iter().map(|column| compact_array(column, tolerance)).collect::<Result<Vec<_>>>()?;
    Ok(StructArray::try_new_with_length(array.fields().clone(), columns, array.nulls().cloned(), array.len())?)
}

/// Offsets that begin at 0, and the items that they span.
fn rebase(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, Range<usize>) {
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let items = first as usize..last as usize;
    if first == 0 && offsets.inner().inner().capacity() <= 2 * size_of_val::<[i32]>(offsets) + SLACK_BYTES as usize {
        return (offsets.clone(), items);
    }
    let rebased: ScalarBuffer<i32> = offsets.iter().map(|o| o - first).collect();
    (OffsetBuffer::new(rebased), items)
}

fn compact_views<T: ByteViewType>(
    views: &GenericByteViewArray<T>,
    array: &ArrayRef,
    tolerance: Tolerance,
) -> Result<ArrayRef> {
    // The values of a dictionary may be shared by many views; a copy for each would be larger than what is kept alive.
    let used = view_sizes(views).of_rows(0..views.len());
    if !tolerance.is_exceeded(used, views.get_buffer_memory_size()) {
        return Ok(Arc::clone(array));
    }
    let kept: usize = views.data_buffers().iter().map(Buffer::capacity).sum();
    let views =
        if tolerance.is_exceeded(views.total_buffer_bytes_used() as u64, kept) { views.gc() } else { views.clone() };
    let array: ArrayRef = Arc::new(views);
    if tolerance.is_exceeded(used, array.get_buffer_memory_size()) { copy(&array) } else { Ok(array) }
}

/// Copies the rows' own slots into new buffers; the data that views point to stays shared.
fn copy(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data();
    let mut copied = MutableArrayData::new(vec![&data], false, array.len());
    copied.try_extend(0, 0, array.len())?;
    Ok(make_array(copied.freeze()))
}
