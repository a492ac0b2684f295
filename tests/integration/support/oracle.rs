//! An engine over plain values: joins, co-groups, placement and widening in the most obvious way.
//!
//! Shares no code with the crate: batches become rows of [`Value`]s by the code here, the join shuffles them into a map, the hash is spelt
//! out from its definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use sort_merge_bucket::JoinKind;

/// A value, whatever its Arrow layout. Nulls are greater than everything else; values of one column are of one variant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Bool(bool),
    /// Integers, days, time units, unscaled decimals.
    Int(i128),
    /// The bits of a float.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    /// Items of a list, fields of a struct, entries of a map.
    Many(Vec<Self>),
    Null,
}

pub(crate) type Row = Vec<Value>;

/// An integer value.
pub(crate) fn int(value: i128) -> Value {
    Value::Int(value)
}

/// A string value.
pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn integers<T: ArrowPrimitiveType>(array: &dyn Array, widen: impl Fn(T::Native) -> i128) -> Vec<Value> {
    array.as_primitive::<T>().iter().map(|v| v.map_or(Value::Null, |v| Value::Int(widen(v)))).collect()
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Vec<Value> {
    values.map(|v| v.map_or(Value::Null, text)).collect()
}

fn bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<Value> {
    values.map(|v| v.map_or(Value::Null, |v| Value::Bytes(v.to_vec()))).collect()
}

/// The values of a column.
pub(crate) fn values_of(array: &ArrayRef) -> Vec<Value> {
    use DataType as D;
    match array.data_type() {
        D::Boolean => array.as_boolean().iter().map(|v| v.map_or(Value::Null, Value::Bool)).collect(),
        D::Int8 => integers::<Int8Type>(array, i128::from),
        D::Int16 => integers::<Int16Type>(array, i128::from),
        D::Int32 => integers::<Int32Type>(array, i128::from),
        D::Int64 => integers::<Int64Type>(array, i128::from),
        D::UInt8 => integers::<UInt8Type>(array, i128::from),
        D::UInt16 => integers::<UInt16Type>(array, i128::from),
        D::UInt32 => integers::<UInt32Type>(array, i128::from),
        D::UInt64 => integers::<UInt64Type>(array, i128::from),
        D::Date32 => integers::<Date32Type>(array, i128::from),
        D::Decimal128(_, _) => integers::<Decimal128Type>(array, |v| v),
        D::Decimal256(_, _) => integers::<Decimal256Type>(array, |v| v.to_i128().unwrap()),
        D::Timestamp(TimeUnit::Second, _) => integers::<TimestampSecondType>(array, i128::from),
        D::Timestamp(TimeUnit::Millisecond, _) => integers::<TimestampMillisecondType>(array, i128::from),
        D::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(array, i128::from),
        D::Timestamp(TimeUnit::Nanosecond, _) => integers::<TimestampNanosecondType>(array, i128::from),
        D::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            floats.iter().map(|v| v.map_or(Value::Null, |v| Value::Float(v.to_bits()))).collect()
        }
        D::Utf8 => texts(array.as_string::<i32>().iter()),
        D::LargeUtf8 => texts(array.as_string::<i64>().iter()),
        D::Utf8View => texts(array.as_string_view().iter()),
        D::Binary => bytes(array.as_binary::<i32>().iter()),
        D::LargeBinary => bytes(array.as_binary::<i64>().iter()),
        D::BinaryView => bytes(array.as_binary_view().iter()),
        D::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().iter()),
        D::List(_) => {
            let lists = array.as_list::<i32>();
            lists.iter().map(|items| items.map_or(Value::Null, |items| Value::Many(values_of(&items)))).collect()
        }
        D::Map(_, _) => {
            let maps = array.as_map();
            let entries = |map: StructArray| Value::Many(values_of(&(Arc::new(map) as ArrayRef)));
            maps.iter().map(|map| map.map_or(Value::Null, entries)).collect()
        }
        D::Struct(_) => {
            let fields: Vec<Vec<Value>> = array.as_struct().columns().iter().map(values_of).collect();
            let row = |row: usize| match array.is_null(row) {
                true => Value::Null,
                false => Value::Many(fields.iter().map(|field| field[row].clone()).collect()),
            };
            (0..array.len()).map(row).collect()
        }
        other => panic!("the oracle knows no values of type {other}"),
    }
}

/// The rows of a batch.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(values_of).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

/// The rows of many batches.
pub(crate) fn all_rows<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<Row> {
    batches.into_iter().flat_map(rows_of).collect()
}

/// Rows as a multiset.
pub(crate) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

fn has_null(key: &[Value]) -> bool {
    key.contains(&Value::Null)
}

/// One side of a join: rows whose first `keys` values are the key, all of `width` values.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) rows: Vec<Row>,
    pub(crate) width: usize,
}

/// Joins by shuffling both sides into a map by key. The output has the key once, then the other values of the left, then of the right.
pub(crate) fn shuffle_join(kind: JoinKind, keys: usize, left: &Side, right: &Side) -> Vec<Row> {
    shuffle_join_where(kind, keys, left, right, |_| true)
}

/// The same where a pair must be kept besides: key, the other values of the left, those of the right.
pub(crate) fn shuffle_join_where(
    kind: JoinKind,
    keys: usize,
    left: &Side,
    right: &Side,
    keep: impl Fn(&[Value]) -> bool,
) -> Vec<Row> {
    let mut groups: BTreeMap<Row, [Vec<Row>; 2]> = BTreeMap::new();
    for (at, side) in [left, right].into_iter().enumerate() {
        for row in &side.rows {
            let (key, rest) = row.split_at(keys);
            groups.entry(key.to_vec()).or_default()[at].push(rest.to_vec());
        }
    }
    let nothing = |side: &Side| vec![Value::Null; side.width - keys];
    let mut out = vec![];
    for (key, [lefts, rights]) in &groups {
        let meets = |l: &Row, r: &Row| !has_null(key) && keep(&[&key[..], l, r].concat());
        let mut emit = |parts: &[&Row]| {
            let mut row = key.clone();
            parts.iter().for_each(|part| row.extend_from_slice(part));
            out.push(row);
        };
        use JoinKind as J;
        for l in lefts {
            let partners: Vec<&Row> = rights.iter().filter(|r| meets(l, r)).collect();
            match kind {
                J::Inner | J::Left | J::Right | J::Full => partners.iter().for_each(|r| emit(&[l, r])),
                J::LeftSemi if !partners.is_empty() => emit(&[l]),
                J::LeftAnti if partners.is_empty() => emit(&[l]),
                _ => {}
            }
            if partners.is_empty() && matches!(kind, J::Left | J::Full) {
                emit(&[l, &nothing(right)]);
            }
        }
        for r in rights {
            let matched = lefts.iter().any(|l| meets(l, r));
            if !matched && matches!(kind, J::Right | J::Full) {
                emit(&[&nothing(left), r]);
            }
            if kind == J::RightSemi && matched || kind == J::RightAnti && !matched {
                emit(&[r]);
            }
        }
    }
    out
}

/// Groups any number of sources by key: per key, the rows of each in their order. Null is a key.
pub(crate) fn shuffle_groups(keys: usize, sources: &[Side]) -> BTreeMap<Row, Vec<Vec<Row>>> {
    let mut groups: BTreeMap<Row, Vec<Vec<Row>>> = BTreeMap::new();
    for (at, source) in sources.iter().enumerate() {
        for row in &source.rows {
            let group = groups.entry(row[..keys].to_vec()).or_insert_with(|| vec![vec![]; sources.len()]);
            group[at].push(row.clone());
        }
    }
    groups
}

/// MurmurHash3 x86 32, from its definition.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut h = seed;
    let blocks = bytes.chunks_exact(4);
    let tail = blocks.remainder();
    for block in blocks {
        let k = block.iter().rev().fold(0u32, |k, byte| k << 8 | u32::from(*byte));
        h = (h ^ scramble(k)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        h ^= scramble(tail.iter().rev().fold(0u32, |k, byte| k << 8 | u32::from(*byte)));
    }
    h ^= bytes.len() as u32;
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// The bucket of a key with columns of these canonical types, by `docs/format.md` section 5.
pub(crate) fn bucket_of(types: &[DataType], key: &[Value], buckets: u32) -> u32 {
    let mut hash = 0;
    for (data_type, value) in types.iter().zip(key) {
        let bytes = match (data_type, value) {
            (_, Value::Null) => continue,
            (_, Value::Bool(v)) => i64::from(*v).to_le_bytes().to_vec(),
            (_, Value::Text(v)) => v.as_bytes().to_vec(),
            (_, Value::Bytes(v)) => v.clone(),
            (DataType::Decimal128(_, _), Value::Int(v)) => {
                let mut bytes = v.to_be_bytes().to_vec();
                while bytes.len() > 1 && (bytes[0] == 0 && bytes[1] < 0x80 || bytes[0] == 0xff && bytes[1] >= 0x80) {
                    bytes.remove(0);
                }
                bytes
            }
            (DataType::Timestamp(TimeUnit::Millisecond, _), Value::Int(v)) => {
                ((v * 1000) as i64).to_le_bytes().to_vec()
            }
            (DataType::Timestamp(TimeUnit::Nanosecond, _), Value::Int(v)) => {
                (v.div_euclid(1000) as i64).to_le_bytes().to_vec()
            }
            (_, Value::Int(v)) => v.to_le_bytes()[..8].to_vec(),
            (data_type, value) => panic!("not a key: {value:?} of {data_type}"),
        };
        hash = murmur3(&bytes, hash);
    }
    (hash & 0x7fff_ffff) % buckets
}

/// The type that values of `data_type` are stored and returned as.
pub(crate) fn stored_type(data_type: &DataType) -> DataType {
    use DataType as D;
    match data_type {
        D::Utf8 | D::LargeUtf8 => D::Utf8View,
        D::Binary | D::LargeBinary => D::BinaryView,
        D::Dictionary(_, value) => stored_type(value),
        D::Timestamp(TimeUnit::Second, zone) => D::Timestamp(TimeUnit::Millisecond, zone.clone()),
        D::List(item) => D::List(item.as_ref().clone().with_data_type(stored_type(item.data_type())).into()),
        D::Struct(fields) => {
            D::Struct(fields.iter().map(|f| f.as_ref().clone().with_data_type(stored_type(f.data_type()))).collect())
        }
        other => other.clone(),
    }
}

/// The narrowest stored type that holds the values of both.
pub(crate) fn wider_type(a: &DataType, b: &DataType) -> DataType {
    use DataType as D;
    if let (D::Decimal128(p, s), D::Decimal128(q, _)) = (a, b) {
        return D::Decimal128(*p.max(q), *s);
    }
    if a == b {
        return a.clone();
    }
    // Least and greatest value, narrowest first.
    let range = |t: &DataType| match t {
        D::Int8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
        D::Int16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
        D::Int32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        D::Int64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
        D::UInt8 => (0, i128::from(u8::MAX)),
        D::UInt16 => (0, i128::from(u16::MAX)),
        D::UInt32 => (0, i128::from(u32::MAX)),
        other => panic!("{other} does not widen"),
    };
    let holds = |t: &DataType| {
        let (low, high) = range(t);
        [a, b].into_iter().all(|of| low <= range(of).0 && range(of).1 <= high)
    };
    let all = [D::UInt8, D::Int8, D::UInt16, D::Int16, D::UInt32, D::Int32, D::Int64];
    all.into_iter().find(holds).unwrap()
}
