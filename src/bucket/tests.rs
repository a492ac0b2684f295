//! Tests of the bucket function and of alignment.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use proptest::prelude::*;

use super::murmur3::{hash_bytes, hash_i64};
use super::*;
use crate::error::ErrorKind;
use crate::spec::{BucketCount, BucketFunction, BucketSpec};

fn count(n: u32) -> BucketCount {
    BucketCount::new(n).unwrap()
}

fn batch(columns: Vec<ArrayRef>) -> (BucketSpec, RecordBatch) {
    let names: Vec<String> = (0..columns.len()).map(|i| format!("k{i}")).collect();
    let spec = BucketSpec::new(names.clone(), 64).unwrap();
    (spec, RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap())
}

/// Hashes columns of any layout.
fn hashes(columns: Vec<ArrayRef>) -> Vec<i32> {
    let (spec, batch) = batch(columns);
    spec.hashes(&batch).unwrap().into_iter().map(u32::cast_signed).collect()
}

fn hash(column: impl Array + 'static) -> i32 {
    assert_eq!(column.len(), 1);
    hashes(vec![Arc::new(column)])[0]
}

/// The hash by the crate `murmur3`.
fn reference(mut bytes: &[u8], seed: u32) -> u32 {
    ::murmur3::murmur3_32(&mut bytes, seed).unwrap()
}

fn days(date: &str) -> i32 {
    let date: chrono::NaiveDate = date.parse().unwrap();
    (date - chrono::NaiveDate::default()).num_days().try_into().unwrap()
}

fn micros(time: &str) -> i64 {
    time.parse::<chrono::NaiveDateTime>().unwrap().and_utc().timestamp_micros()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The array of one value that a row of the vectors file means.
fn vector_array(data_type: &str, value: &str) -> ArrayRef {
    let bytes = || unhex(value.strip_prefix("hex:").unwrap());
    match data_type {
        "int64" => Arc::new(Int64Array::from(vec![value.parse::<i64>().unwrap()])),
        "int32" => Arc::new(Int32Array::from(vec![value.parse::<i32>().unwrap()])),
        "utf8" => Arc::new(StringArray::from(vec![value])),
        "binary" => Arc::new(BinaryArray::from(vec![bytes().as_slice()])),
        "fixed_size_binary(4)" => Arc::new(FixedSizeBinaryArray::try_from_iter([bytes()].into_iter()).unwrap()),
        "uuid as fixed_size_binary(16)" => {
            Arc::new(FixedSizeBinaryArray::try_from_iter([unhex(&value.replace('-', ""))].into_iter()).unwrap())
        }
        "date32" => Arc::new(Date32Array::from(vec![days(value)])),
        "timestamp(us)" => Arc::new(TimestampMicrosecondArray::from(vec![micros(value)])),
        "decimal128(9,2)" => {
            let unscaled: i128 = value.replace('.', "").parse().unwrap();
            Arc::new(Decimal128Array::from(vec![unscaled]).with_precision_and_scale(9, 2).unwrap())
        }
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn every_row_of_the_iceberg_vectors_hashes_to_its_buckets() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/data/vectors/iceberg.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let rows = vectors["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 56);
    for row in rows {
        let column = vector_array(row["type"].as_str().unwrap(), row["value"].as_str().unwrap());
        let (spec, batch) = batch(vec![column]);
        assert_eq!(
            i64::from(spec.hashes(&batch).unwrap()[0].cast_signed()),
            row["hash_i32"].as_i64().unwrap(),
            "{row}"
        );
        let buckets = row["bucket"].as_object().unwrap();
        assert_eq!(buckets.len(), 7);
        for (n, bucket) in buckets {
            let spec = spec.clone().with_buckets(count(n.parse().unwrap()));
            assert_eq!(
                u64::from(spec.bucket_ids(&batch).unwrap()[0]),
                bucket.as_u64().unwrap(),
                "{n} buckets of {row}"
            );
        }
    }
}

#[test]
fn values_beyond_the_vectors_match_independent_answers() {
    assert_eq!(hash(Int64Array::from(vec![3])), -1_556_392_013);
    assert_eq!(hash(Int64Array::from(vec![-2])), -1_438_076_027);
    assert_eq!(hash(BooleanArray::from(vec![true])), 1_392_991_556);
    assert_eq!(hash(BooleanArray::from(vec![false])), 1_669_671_676);
    // 22:31:08 as microseconds.
    assert_eq!(hash(Int64Array::from(vec![81_068_000_000])), -662_762_989);
}

#[test]
fn every_integer_width_and_date_hashes_as_its_64_bit_value() {
    for value in [0_i8, 1, 42, -1, i8::MIN, i8::MAX] {
        let wide = hash(Int64Array::from(vec![i64::from(value)]));
        assert_eq!(hash(Int8Array::from(vec![value])), wide);
        assert_eq!(hash(Int16Array::from(vec![i16::from(value)])), wide);
        assert_eq!(hash(Int32Array::from(vec![i32::from(value)])), wide);
        assert_eq!(hash(Date32Array::from(vec![i32::from(value)])), wide);
        if let Ok(value) = u8::try_from(value) {
            assert_eq!(hash(UInt8Array::from(vec![value])), wide);
            assert_eq!(hash(UInt16Array::from(vec![u16::from(value)])), wide);
            assert_eq!(hash(UInt32Array::from(vec![u32::from(value)])), wide);
            assert_eq!(hash(UInt64Array::from(vec![u64::from(value)])), wide);
        }
    }
    assert_eq!(hash(UInt32Array::from(vec![u32::MAX])), hash(Int64Array::from(vec![i64::from(u32::MAX)])));
    // uint64 keys hash their own eight bytes.
    assert_eq!(hash(UInt64Array::from(vec![u64::MAX])), hash(Int64Array::from(vec![-1])));
}

#[test]
fn timestamps_hash_as_microseconds_rounded_down() {
    let micros = |value| hash(TimestampMicrosecondArray::from(vec![value]));
    assert_eq!(hash(TimestampNanosecondArray::from(vec![-1])), micros(-1));
    assert_eq!(hash(TimestampNanosecondArray::from(vec![-1000])), micros(-1));
    assert_eq!(hash(TimestampNanosecondArray::from(vec![-1001])), micros(-2));
    assert_eq!(hash(TimestampNanosecondArray::from(vec![1999])), micros(1));
    assert_eq!(hash(TimestampMillisecondArray::from(vec![-7])), micros(-7000));
    assert_eq!(hash(TimestampSecondArray::from(vec![-7])), micros(-7_000_000));
    assert_eq!(hash(TimestampMicrosecondArray::from(vec![-7]).with_timezone("Europe/Stockholm")), micros(-7));
}

#[test]
fn timestamps_beyond_microseconds_are_an_error() {
    for column in [
        Arc::new(TimestampMillisecondArray::from(vec![0, i64::MAX / 1000 + 1])) as ArrayRef,
        Arc::new(TimestampSecondArray::from(vec![0, i64::MAX / 1000 + 1])),
    ] {
        let (spec, batch) = batch(vec![column]);
        assert_eq!(spec.hashes(&batch).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn decimals_hash_their_shortest_bytes() {
    let expected = |bytes: &[u8]| hash(BinaryArray::from(vec![bytes]));
    for (value, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0, 0x80]),
        (-128, &[0x80]),
        (-129, &[0xff, 0x7f]),
        (-1, &[0xff]),
        (i128::MAX, &i128::MAX.to_be_bytes()),
        (i128::MIN, &i128::MIN.to_be_bytes()),
    ] {
        assert_eq!(hash(Decimal128Array::from(vec![value])), expected(bytes), "{value}");
    }
}

#[test]
fn equal_values_hash_alike_in_every_arrow_layout() {
    let long = "x".repeat(200);
    let values = vec![
        Some(""),
        Some("a"),
        None,
        Some("dödsmetall 🎵"),
        Some("exactly12byt"),
        Some("thirteen byte"),
        Some(&long),
        Some("a"),
    ];
    let plain = StringArray::from(values.clone());
    let expected = hashes(vec![Arc::new(plain.clone())]);
    let mut layouts: Vec<ArrayRef> = vec![
        Arc::new(LargeStringArray::from(values.clone())),
        Arc::new(StringViewArray::from(values.clone())),
        Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>()),
        cast(&plain, &DataType::Binary).unwrap(),
        cast(&plain, &DataType::BinaryView).unwrap(),
        Arc::new(values.iter().map(|v| v.map(str::as_bytes)).collect::<LargeBinaryArray>()),
        cast(&plain, &DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::LargeUtf8))).unwrap(),
    ];
    for layout in layouts.clone() {
        assert_eq!(hashes(vec![Arc::clone(&layout)]), expected, "{}", layout.data_type());
    }
    layouts.push(Arc::new(plain));
    for layout in layouts {
        assert_eq!(hashes(vec![layout.slice(3, 4)]), expected[3..7], "sliced {}", layout.data_type());
    }
}

#[test]
fn sliced_columns_of_every_kind_hash_as_their_rows() {
    let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]));
    let integers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(-5), Some(7)]));
    let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(1), None, Some(-5), Some(700)]));
    let fixed: ArrayRef =
        Arc::new(FixedSizeBinaryArray::try_from_iter([b"abcd", b"efgh", b"ijkl", b"mnop"].into_iter()).unwrap());
    for column in [booleans, integers, decimals, fixed] {
        let whole = hashes(vec![Arc::clone(&column)]);
        for from in 0..4 {
            assert_eq!(hashes(vec![column.slice(from, 4 - from)]), whole[from..]);
        }
    }
}

#[test]
fn columns_are_chained_and_nulls_leave_the_hash_as_it_is() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(34), Some(34), None, None]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("abc"), None]));
    let first = reference(&34_i64.to_le_bytes(), 0);
    let both = reference(b"abc", first);
    let second = reference(b"abc", 0);
    let expected = [both, first, second, 0].map(u32::cast_signed);
    assert_eq!(hashes(vec![Arc::clone(&numbers), Arc::clone(&names)]), expected);
    // A null anywhere hashes as if its column were not there; the order of columns matters.
    assert_ne!(hashes(vec![names, numbers])[0], expected[0]);
}

#[test]
fn the_smallest_hash_and_nulls_lie_in_bucket_zero() {
    assert_eq!(bucket_of(i32::MIN.cast_unsigned(), count(7)), 0);
    assert_eq!(bucket_of(0, count(7)), 0);
    assert_eq!(bucket_of(u32::MAX, count(7)), (i32::MAX % 7).cast_unsigned());
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>]));
    assert_eq!(bucket_ids(BucketFunction::IcebergMurmur3V1, &[nulls], count(64)).unwrap(), [0]);
}

#[test]
fn keys_that_cannot_be_hashed_are_named() {
    let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0]));
    let (spec, batch) = batch(vec![floats]);
    let error = spec.bucket_ids(&batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("column `k0` of type `float64` cannot be a key"), "{error}");
    let error = BucketSpec::new(["absent"], 4).unwrap().bucket_ids(&batch).unwrap_err();
    assert!(error.to_string().contains("`absent`"), "{error}");
}

#[test]
fn slots_are_the_greatest_common_divisor_of_all_counts() {
    let gcd = |counts: &[u32]| greatest_common_count(counts.iter().map(|n| count(*n))).map(BucketCount::get);
    assert_eq!(gcd(&[]), None);
    assert_eq!(gcd(&[7]), Some(7));
    assert_eq!(gcd(&[8, 12]), Some(4));
    assert_eq!(gcd(&[8, 5]), Some(1));
    assert_eq!(gcd(&[64, 16, 24]), Some(8));
    assert_eq!(gcd(&[u32::MAX, u32::MAX]), Some(u32::MAX));
}

/// The same numbers as a column of every type that can be a key, with the canonical bytes of a value.
fn columns_of(numbers: &[Option<i64>]) -> Vec<(ArrayRef, Vec<Option<Vec<u8>>>)> {
    let bytes = |to: &dyn Fn(i64) -> i64| -> Vec<Option<Vec<u8>>> {
        numbers.iter().map(|n| n.map(|n| to(n).to_le_bytes().to_vec())).collect()
    };
    macro_rules! narrow {
        ($array:ty, $native:ty) => {
            (
                Arc::new(numbers.iter().map(|n| n.map(|n| n as $native)).collect::<$array>()) as ArrayRef,
                bytes(&|n| n as $native as i64),
            )
        };
    }
    let times = |unit| cast(&Int64Array::from(numbers.to_vec()), &DataType::Timestamp(unit, None)).unwrap();
    let millis: Int64Array = numbers.iter().map(|n| n.map(|n| n / 1000)).collect();
    let millis = cast(&millis, &DataType::Timestamp(TimeUnit::Millisecond, None)).unwrap();
    let text = |n: i64| "text".repeat((n.unsigned_abs() % 9) as usize) + &n.to_string()[..1];
    let decimal = |n: i64| i128::from(n) << (n.unsigned_abs() % 60);
    let shortest = |value: i128| {
        let bytes = value.to_be_bytes();
        let spare = |at: &usize| i128::from_be_bytes(bytes) == (value << (8 * at)) >> (8 * at);
        bytes[(0..16).rev().find(spare).unwrap()..].to_vec()
    };
    vec![
        narrow!(Int8Array, i8),
        narrow!(Int16Array, i16),
        narrow!(Int32Array, i32),
        narrow!(Int64Array, i64),
        narrow!(UInt8Array, u8),
        narrow!(UInt16Array, u16),
        narrow!(UInt32Array, u32),
        narrow!(UInt64Array, u64),
        narrow!(Date32Array, i32),
        (millis, bytes(&|n| n / 1000 * 1000)),
        (times(TimeUnit::Microsecond), bytes(&|n| n)),
        (times(TimeUnit::Nanosecond), bytes(&|n| n.div_euclid(1000))),
        (
            Arc::new(numbers.iter().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>()),
            bytes(&|n| i64::from(n % 2 == 0)),
        ),
        (
            Arc::new(numbers.iter().map(|n| n.map(decimal)).collect::<Decimal128Array>()),
            numbers.iter().map(|n| n.map(|n| shortest(decimal(n)))).collect(),
        ),
        (
            Arc::new(numbers.iter().map(|n| n.map(text)).collect::<StringViewArray>()),
            numbers.iter().map(|n| n.map(|n| text(n).into_bytes())).collect(),
        ),
        (
            Arc::new(numbers.iter().map(|n| n.map(|n| text(n).into_bytes())).collect::<BinaryArray>()),
            numbers.iter().map(|n| n.map(|n| text(n).into_bytes())).collect(),
        ),
        (
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    numbers.iter().map(|n| n.map(|n| n.to_be_bytes()[1..].to_vec())),
                    7,
                )
                .unwrap(),
            ),
            numbers.iter().map(|n| n.map(|n| n.to_be_bytes()[1..].to_vec())).collect(),
        ),
    ]
}

proptest! {
    #[test]
    fn differential_bytes_of_any_length_hash_as_by_the_reference(bytes in proptest::collection::vec(any::<u8>(), 64), seed: u32) {
        for len in 0..=64 {
            prop_assert_eq!(hash_bytes(&bytes[..len], seed), reference(&bytes[..len], seed));
        }
    }

    #[test]
    fn differential_integers_hash_as_their_bytes(value: i64, seed: u32) {
        prop_assert_eq!(hash_i64(value, seed), reference(&value.to_le_bytes(), seed));
        prop_assert_eq!(hash_i64(value, seed), hash_bytes(&value.to_le_bytes(), seed));
    }

    #[test]
    fn differential_columns_of_every_type_hash_as_by_the_reference(
        numbers in proptest::collection::vec(proptest::option::weighted(0.8, any::<i64>()), 0..40),
        dense in proptest::collection::vec(any::<i64>().prop_map(Some), 0..40),
        from in 0_usize..5,
    ) {
        for numbers in [numbers, dense] {
            // The hash of the first column is the seed of the second.
            let seeds: ArrayRef = Arc::new((0..numbers.len() as i64).collect::<Int64Array>());
            let from = from.min(numbers.len());
            for (column, bytes) in columns_of(&numbers) {
                let expected: Vec<i32> = (from..numbers.len())
                    .map(|row| {
                        let seed = reference(&(row as i64).to_le_bytes(), 0);
                        bytes[row].as_ref().map_or(seed, |bytes| reference(bytes, seed)).cast_signed()
                    })
                    .collect();
                let rest = |column: &ArrayRef| column.slice(from, numbers.len() - from);
                prop_assert_eq!(hashes(vec![rest(&seeds), rest(&column)]), expected, "{}", column.data_type());
            }
        }
    }

    #[test]
    fn differential_bucket_ids_are_remainders_of_hashes(
        numbers in proptest::collection::vec(any::<i64>(), 1..100),
        n in prop_oneof![1_u32..5000, (0_u32..32).prop_map(|bits| 1 << bits), Just(u32::MAX)],
    ) {
        let column: ArrayRef = Arc::new(Int64Array::from(numbers));
        let key = [column];
        let hashes = hash_rows(BucketFunction::IcebergMurmur3V1, &key).unwrap();
        let expected: Vec<u32> = hashes.into_iter().map(|hash| (hash & 0x7fff_ffff) % n).collect();
        prop_assert_eq!(bucket_ids(BucketFunction::IcebergMurmur3V1, &key, count(n)).unwrap(), expected);
    }

    #[test]
    fn law_a_bucket_modulo_a_divisor_is_the_bucket_of_the_divisor(hash: u32, divisor in 1_u32..2000, factor in 1_u32..1000) {
        let (divisor, n) = (count(divisor), count(divisor * factor));
        prop_assert_eq!(bucket_of(hash, n) % divisor, bucket_of(hash, divisor));
        prop_assert_eq!(slot_of(bucket_of(hash, n), divisor), bucket_of(hash, divisor));
    }

    #[test]
    fn law_slots_partition_the_buckets_and_equal_hashes_meet(a in 1_u32..200, b in 1_u32..200, hash: u32) {
        let (a, b) = (count(a), count(b));
        let slots = greatest_common_count([a, b]).unwrap();
        for n in [a, b] {
            let read_by = |slot: u32| (0..n.get()).filter(move |bucket| slot_of(*bucket, slots) == slot);
            prop_assert!((0..slots.get()).all(|slot| read_by(slot).count() as u32 == n.get() / slots));
            prop_assert!(read_by(bucket_of(hash, slots)).any(|bucket| bucket == bucket_of(hash, n)));
        }
    }
}
