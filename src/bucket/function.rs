//! The bucket function `iceberg-murmur3-v1`: from the logical value, never from a physical layout, to a hash and a bucket.
//!
//! Hashes are chained over the key columns: the hash so far, starting at 0, is the seed of the next column, and a null leaves it as it is. The
//! canonical bytes of each type are those of `docs/format.md` section 5; its known answers hold this code to the format. The internal
//! functions rely on canonical key columns of equal length; [`BucketSpec::hashes`] accepts every Arrow layout.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
    RecordBatch,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use crate::bucket::murmur3::{hash_bytes, hash_i64};
use crate::error::{Error, Result};
use crate::schema::{canonical_type, cast_batch};
use crate::spec::{BucketCount, BucketFunction, BucketSpec};

/// The bucket of each row, from its canonical key columns.
///
/// # Errors
/// `InvalidInput` if a timestamp in milliseconds has no value in microseconds; `Internal` for a column that cannot be a key.
pub(crate) fn bucket_ids(function: BucketFunction, key: &[ArrayRef], buckets: BucketCount) -> Result<Vec<u32>> {
    let mut ids = hash_rows(function, key)?;
    if buckets.is_power_of_two() {
        // The remainder without a division, which takes longer than half of the hash. No mask has the bit of the sign.
        let mask = buckets.get() - 1;
        ids.iter_mut().for_each(|id| *id &= mask);
    } else {
        ids.iter_mut().for_each(|id| *id = bucket_of(*id, buckets));
    }
    Ok(ids)
}

/// The unmasked hash of each row, from its canonical key columns. Errors as [`bucket_ids`].
pub(crate) fn hash_rows(function: BucketFunction, key: &[ArrayRef]) -> Result<Vec<u32>> {
    let rows = key.first().map_or(0, Array::len);
    match function {
        BucketFunction::IcebergMurmur3V1 => {
            let mut hashes = vec![0; rows];
            for column in key {
                debug_assert_eq!(column.len(), rows, "key columns are of one length");
                chain(column, &mut hashes)?;
            }
            Ok(hashes)
        }
    }
}

/// The bucket of an unmasked hash.
pub(crate) fn bucket_of(hash: u32, buckets: BucketCount) -> u32 {
    (hash & 0x7fff_ffff) % buckets
}

/// Chains the values of one column onto the hashes so far.
fn chain(column: &ArrayRef, hashes: &mut [u32]) -> Result<()> {
    use DataType as D;
    match column.data_type() {
        D::Boolean => chain_booleans(column.as_boolean(), hashes),
        D::Int8 => chain_integers::<Int8Type>(column.as_primitive(), hashes, i64::from),
        D::Int16 => chain_integers::<Int16Type>(column.as_primitive(), hashes, i64::from),
        D::Int32 => chain_integers::<Int32Type>(column.as_primitive(), hashes, i64::from),
        D::Int64 => chain_integers::<Int64Type>(column.as_primitive(), hashes, |v| v),
        D::UInt8 => chain_integers::<UInt8Type>(column.as_primitive(), hashes, i64::from),
        D::UInt16 => chain_integers::<UInt16Type>(column.as_primitive(), hashes, i64::from),
        D::UInt32 => chain_integers::<UInt32Type>(column.as_primitive(), hashes, i64::from),
        D::UInt64 => chain_integers::<UInt64Type>(column.as_primitive(), hashes, u64::cast_signed),
        D::Date32 => chain_integers::<Date32Type>(column.as_primitive(), hashes, i64::from),
        D::Timestamp(TimeUnit::Millisecond, _) => return chain_milliseconds(column.as_primitive(), hashes),
        D::Timestamp(TimeUnit::Microsecond, _) => {
            chain_integers::<TimestampMicrosecondType>(column.as_primitive(), hashes, |v| v);
        }
        D::Timestamp(TimeUnit::Nanosecond, _) => {
            // Floor, also before 1970: keys that differ only below the microsecond share a bucket.
            chain_integers::<TimestampNanosecondType>(column.as_primitive(), hashes, |v| v.div_euclid(1000));
        }
        D::Decimal128(_, _) => chain_decimals(column.as_primitive::<Decimal128Type>(), hashes),
        D::Utf8View => chain_bytes(column.as_string_view(), hashes),
        D::BinaryView => chain_bytes(column.as_binary_view(), hashes),
        D::FixedSizeBinary(_) => chain_bytes(column.as_fixed_size_binary(), hashes),
        other => return Err(Error::internal(format!("a key column is not of a canonical key type, type=`{other}`"))),
    }
    Ok(())
}

fn chain_booleans(column: &BooleanArray, hashes: &mut [u32]) {
    for_valid(column, hashes, |rows, hashes| {
        for (hash, row) in hashes.iter_mut().zip(rows) {
            *hash = hash_i64(i64::from(column.value(row)), *hash);
        }
    });
}

fn chain_integers<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    hashes: &mut [u32],
    widen: impl Fn(T::Native) -> i64,
) {
    let values = column.values();
    for_valid(column, hashes, |rows, hashes| {
        for (hash, value) in hashes.iter_mut().zip(&values[rows]) {
            *hash = hash_i64(widen(*value), *hash);
        }
    });
}

fn chain_milliseconds(column: &PrimitiveArray<TimestampMillisecondType>, hashes: &mut [u32]) -> Result<()> {
    let values = column.values();
    let mut overflow = None;
    for_valid(column, hashes, |rows, _| {
        overflow = overflow.or_else(|| values[rows].iter().find(|millis| millis.checked_mul(1000).is_none()));
    });
    if let Some(value) = overflow {
        return Err(Error::invalid_input(format!(
            "a timestamp key is out of the range of microseconds, milliseconds=`{value}`"
        )));
    }
    chain_integers(column, hashes, |millis| millis.wrapping_mul(1000));
    Ok(())
}

fn chain_decimals(column: &Decimal128Array, hashes: &mut [u32]) {
    let values = column.values();
    for_valid(column, hashes, |rows, hashes| {
        for (hash, value) in hashes.iter_mut().zip(&values[rows]) {
            *hash = hash_bytes(&value.to_be_bytes()[16 - shortest_length(*value)..], *hash);
        }
    });
}

fn chain_bytes<'a, T: AsRef<[u8]> + 'a>(column: impl ArrayAccessor<Item = T>, hashes: &mut [u32]) {
    for_valid(&column, hashes, |rows, hashes| {
        for (hash, row) in hashes.iter_mut().zip(rows) {
            *hash = hash_bytes(column.value(row).as_ref(), *hash);
        }
    });
}

/// Calls `f` with every stretch of rows that are not null, and their hashes.
fn for_valid(column: &dyn Array, hashes: &mut [u32], mut f: impl FnMut(Range<usize>, &mut [u32])) {
    match column.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => f(0..hashes.len(), hashes),
        Some(nulls) => nulls.valid_slices().for_each(|(start, end)| f(start..end, &mut hashes[start..end])),
    }
}

/// How many bytes the shortest two's complement form of `value` has: one for zero.
fn shortest_length(value: i128) -> usize {
    let sign_bits = if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    (128 - sign_bits) as usize / 8 + 1
}

impl BucketSpec {
    /// Hashes the key of each row of `batch`, in whatever Arrow layouts its key columns are: equal logical values give equal hashes.
    ///
    /// The bucket of a hash is `(hash & 0x7fffffff) mod N`. Allocates four bytes per row, and a converted copy of key columns that are not in
    /// their canonical layout.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
    /// use sort_merge_bucket::BucketSpec;
    ///
    /// let spec = BucketSpec::new(["id"], 8)?;
    /// let narrow = RecordBatch::try_from_iter([("id", Arc::new(Int32Array::from(vec![34, -1])) as ArrayRef)])?;
    /// let wide = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![34, -1])) as ArrayRef)])?;
    /// assert_eq!(spec.hashes(&narrow)?, [2017239379, 1651860712]);
    /// assert_eq!(spec.hashes(&narrow)?, spec.hashes(&wide)?);
    /// # Ok::<(), sort_merge_bucket::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if a key column is missing or of a type that cannot be a key, or if a timestamp does not fit its canonical unit.
    pub fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        hash_rows(self.function(), &self.canonical_key(batch)?)
    }

    /// The bucket of each row of `batch`, in whatever Arrow layouts its key columns are. See [`hashes`](Self::hashes).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::array::{ArrayRef, RecordBatch, StringArray};
    /// use sort_merge_bucket::BucketSpec;
    ///
    /// let names = Arc::new(StringArray::from(vec!["iceberg", "abc"])) as ArrayRef;
    /// let batch = RecordBatch::try_from_iter([("name", names)])?;
    /// assert_eq!(BucketSpec::new(["name"], 100)?.bucket_ids(&batch)?, [89, 54]);
    /// # Ok::<(), sort_merge_bucket::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`hashes`](Self::hashes).
    pub fn bucket_ids(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        bucket_ids(self.function(), &self.canonical_key(batch)?, self.buckets())
    }

    /// The key columns of `batch`, made canonical.
    fn canonical_key(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let indices = self.key_indices(batch.schema_ref())?;
        let key = batch.project(&indices)?;
        let fields = key
            .schema_ref()
            .fields()
            .iter()
            .map(|field| Ok(Field::new(field.name(), canonical_type(field.data_type())?, true)))
            .collect::<Result<Vec<_>>>()?;
        let canonical: SchemaRef = Arc::new(Schema::new(fields));
        // Names every column that cannot be a key; sort columns play no part in placement.
        let key_only = Self::new(self.key().iter().cloned(), self.buckets().get())?;
        key_only.order_indices(&canonical)?;
        Ok(cast_batch(&key, &canonical)?.columns().to_vec())
    }
}
