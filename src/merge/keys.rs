//! Typed keys: the key columns of a batch as something that compares without looking at Arrow types again.
//!
//! Each kind is one [`Keys`] type; [`dispatch`] picks it once per merge, so that the loops over rows are monomorphised. Values of one kind
//! order as `KeyOrder::Value` says. No kind copies strings; integers narrower than 64 bits are widened.
//!
//! Nulls: with a single key column they never reach a `Keys` (inputs cut them off as their tail); composite keys hold them, encoded after
//! every value, and tell them through [`Keys::has_null`].

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, FixedSizeBinaryArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{ArrowNativeType, DataType, Decimal128Type, Int64Type, UInt64Type};
use arrow::row::{Row, RowConverter, Rows, SortField};
use twox_hash::XxHash3_64;

use crate::error::{Error, Result};
use crate::merge::heads::{Number, heads_of_bytes};

/// The typed keys of a stretch of rows. Cloning and slicing share the data.
pub(crate) trait Keys: Clone + Debug + Send + Sync + 'static {
    /// One key.
    type Value<'a>: Copy + Ord;

    fn len(&self) -> usize;

    fn value(&self, row: usize) -> Self::Value<'_>;

    fn slice(&self, offset: usize, len: usize) -> Self;

    /// The heads of the keys of some rows: comparable among each other.
    fn heads(&self, rows: &[u64]) -> Vec<u64>;

    /// A hash of a key, which depends on the seed. It never leaves memory.
    fn hash(&self, row: usize, seed: u64) -> u64;

    /// Whether the keys of two rows are equal.
    #[inline]
    fn equal(&self, a: usize, b: usize) -> bool {
        self.value(a) == self.value(b)
    }

    /// Whether a component of the key is null, so that it equals nothing in a join.
    fn has_null(&self, _row: usize) -> bool {
        false
    }

    /// The first row whose key is less than the one before it.
    fn first_descent(&self) -> Option<usize> {
        (1..self.len()).find(|&row| self.value(row) < self.value(row - 1))
    }

    /// How many rows from `from` on, in sorted keys, are less than `bound`, or equal to it if `inclusive`.
    fn count_up_to<'a>(&'a self, from: usize, bound: Self::Value<'a>, inclusive: bool) -> usize {
        let below = |row| if inclusive { self.value(row) <= bound } else { self.value(row) < bound };
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if below(middle) { low = middle + 1 } else { high = middle }
        }
        low - from
    }

    /// Where the groups of equal keys begin, in sorted keys, and the number of rows.
    ///
    /// Without a branch per row: it would be mispredicted at the end of nearly every group, and searching for one end after the other would make each wait
    /// for the one before.
    fn group_offsets(&self) -> Vec<u32> {
        let rows = self.len();
        let mut offsets = vec![0; rows + 1];
        let mut groups = usize::from(rows > 0);
        for row in 1..rows {
            offsets[groups] = row as u32;
            groups += usize::from(!self.equal(row, row - 1));
        }
        offsets[groups] = rows as u32;
        offsets.truncate(groups + 1);
        offsets
    }

    /// The end of the group of equal keys that starts at `from`.
    fn group_end(&self, from: usize) -> usize {
        let mut end = from + 1;
        while end < self.len() && self.equal(end, from) {
            end += 1;
        }
        end
    }
}

/// Makes [`Keys`] of canonical key columns.
pub(crate) trait Extract: Clone + Debug + Send + Sync + 'static {
    type Keys: Keys;

    /// The keys of `columns`: one or several columns of the types the extractor was made for. Single columns hold no nulls.
    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys>;

    /// Whether nulls are part of the keys instead of being cut off before.
    const HOLDS_NULLS: bool = false;
}

/// A computation that is generic over the kind of keys.
pub(crate) trait ForKeys {
    type Output;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output>;
}

/// Runs `work` with the kind of keys for key columns of these canonical types.
pub(crate) fn dispatch<W: ForKeys>(types: &[DataType], work: W) -> Result<W::Output> {
    use DataType as D;
    let [single] = types else {
        return work.run(ExtractRows::try_new(types)?);
    };
    match single {
        D::UInt64 => work.run(ExtractU64),
        D::Decimal128(_, _) => work.run(ExtractI128),
        D::Utf8View | D::BinaryView => work.run(ExtractBytes),
        D::FixedSizeBinary(_) => work.run(ExtractFixed),
        D::Boolean | D::Date32 | D::Timestamp(_, _) => work.run(ExtractI64),
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => work.run(ExtractI64),
        other => Err(Error::internal(format!("not a key type, type=`{other}`"))),
    }
}

/// Keys of a primitive type.
#[derive(Debug, Clone)]
pub(crate) struct PrimitiveKeys<T: ArrowNativeType>(ScalarBuffer<T>);

impl<T: Number> Keys for PrimitiveKeys<T> {
    type Value<'a> = T;

    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn value(&self, row: usize) -> T {
        self.0[row]
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self(self.0.slice(offset, len))
    }

    #[inline]
    fn hash(&self, row: usize, seed: u64) -> u64 {
        self.0[row].hash(seed)
    }

    fn heads(&self, rows: &[u64]) -> Vec<u64> {
        rows.iter().map(|row| self.0[*row as usize].head()).collect()
    }

    fn first_descent(&self) -> Option<usize> {
        if self.0.is_sorted() {
            None
        } else {
            self.0.windows(2).position(|pair| pair[1] < pair[0]).map(|before| before + 1)
        }
    }
}

/// Integers up to 64 bits but uint64, dates, timestamps, booleans.
#[derive(Debug, Clone)]
struct ExtractI64;

impl Extract for ExtractI64 {
    type Keys = PrimitiveKeys<i64>;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        let column = &columns[0];
        // Timestamps are 64-bit integers already: only the type changes, the buffer is shared.
        let integers: PrimitiveArray<Int64Type> = match column.data_type() {
            DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?.as_primitive().clone(),
            _ => cast(column, &DataType::Int64)?.as_primitive().clone(),
        };
        Ok(PrimitiveKeys(integers.values().clone()))
    }
}

#[derive(Debug, Clone)]
struct ExtractU64;

impl Extract for ExtractU64 {
    type Keys = PrimitiveKeys<u64>;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        Ok(PrimitiveKeys(columns[0].as_primitive::<UInt64Type>().values().clone()))
    }
}

#[derive(Debug, Clone)]
struct ExtractI128;

impl Extract for ExtractI128 {
    type Keys = PrimitiveKeys<i128>;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        Ok(PrimitiveKeys(columns[0].as_primitive::<Decimal128Type>().values().clone()))
    }
}

/// Strings and binary, ordered by unsigned bytes.
#[derive(Debug, Clone)]
pub(crate) struct BytesKeys(BinaryViewArray);

impl Keys for BytesKeys {
    type Value<'a> = &'a [u8];

    fn len(&self) -> usize {
        Array::len(&self.0)
    }

    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        self.0.value(row)
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self(self.0.slice(offset, len))
    }

    #[inline]
    fn hash(&self, row: usize, seed: u64) -> u64 {
        XxHash3_64::oneshot_with_seed(seed, self.value(row))
    }

    fn heads(&self, rows: &[u64]) -> Vec<u64> {
        heads_of_bytes(rows.iter().map(|row| self.value(*row as usize)))
    }

    #[inline]
    fn equal(&self, a: usize, b: usize) -> bool {
        self.same_view(a, b) || self.value(a) == self.value(b)
    }

    fn first_descent(&self) -> Option<usize> {
        (1..self.len()).find(|&row| !self.same_view(row, row - 1) && self.value(row) < self.value(row - 1))
    }
}

impl BytesKeys {
    /// Whether two rows are one value in one place, as rows with the same value of a dictionary are.
    #[inline]
    fn same_view(&self, a: usize, b: usize) -> bool {
        let views = self.0.views();
        views[a] == views[b]
    }
}

#[derive(Debug, Clone)]
struct ExtractBytes;

impl Extract for ExtractBytes {
    type Keys = BytesKeys;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        Ok(BytesKeys(match columns[0].as_string_view_opt() {
            Some(strings) => strings.clone().to_binary_view(),
            None => columns[0].as_binary_view().clone(),
        }))
    }
}

/// Binary of fixed size.
#[derive(Debug, Clone)]
pub(crate) struct FixedKeys(FixedSizeBinaryArray);

impl Keys for FixedKeys {
    type Value<'a> = &'a [u8];

    fn len(&self) -> usize {
        Array::len(&self.0)
    }

    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        self.0.value(row)
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self(self.0.slice(offset, len))
    }

    #[inline]
    fn hash(&self, row: usize, seed: u64) -> u64 {
        XxHash3_64::oneshot_with_seed(seed, self.value(row))
    }

    fn heads(&self, rows: &[u64]) -> Vec<u64> {
        heads_of_bytes(rows.iter().map(|row| self.value(*row as usize)))
    }
}

#[derive(Debug, Clone)]
struct ExtractFixed;

impl Extract for ExtractFixed {
    type Keys = FixedKeys;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        Ok(FixedKeys(columns[0].as_fixed_size_binary().clone()))
    }
}

/// Several columns as rows of bytes in memory comparison order. The encoding is not stable between arrow releases and never leaves memory.
#[derive(Debug, Clone)]
pub(crate) struct RowKeys {
    rows: Arc<Rows>,
    offset: usize,
    len: usize,
    /// Valid where every component is.
    complete: Option<NullBuffer>,
}

impl Keys for RowKeys {
    type Value<'a> = Row<'a>;

    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn value(&self, row: usize) -> Row<'_> {
        self.rows.row(self.offset + row)
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self {
            rows: Arc::clone(&self.rows),
            offset: self.offset + offset,
            len,
            complete: self.complete.as_ref().map(|nulls| nulls.slice(offset, len)),
        }
    }

    #[inline]
    fn hash(&self, row: usize, seed: u64) -> u64 {
        XxHash3_64::oneshot_with_seed(seed, self.value(row).data())
    }

    fn heads(&self, rows: &[u64]) -> Vec<u64> {
        heads_of_bytes(rows.iter().map(|row| self.value(*row as usize).data()))
    }

    fn has_null(&self, row: usize) -> bool {
        self.complete.as_ref().is_some_and(|complete| complete.is_null(row))
    }
}

#[derive(Debug, Clone)]
struct ExtractRows(Arc<RowConverter>);

impl ExtractRows {
    fn try_new(types: &[DataType]) -> Result<Self> {
        let nulls_last = SortOptions { descending: false, nulls_first: false };
        let fields = types.iter().map(|t| SortField::new_with_options(t.clone(), nulls_last)).collect();
        Ok(Self(Arc::new(RowConverter::new(fields)?)))
    }
}

impl Extract for ExtractRows {
    type Keys = RowKeys;

    const HOLDS_NULLS: bool = true;

    fn extract(&self, columns: &[ArrayRef]) -> Result<Self::Keys> {
        let rows = self.0.convert_columns(columns)?;
        let complete =
            columns.iter().fold(None, |all, column| NullBuffer::union(all.as_ref(), column.logical_nulls().as_ref()));
        Ok(RowKeys { offset: 0, len: rows.num_rows(), rows: Arc::new(rows), complete })
    }
}
