//! Grouping rows by item, against a sorted map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, Decimal128Array, Int64Array, StringViewArray};
use arrow::datatypes::{Decimal128Type, Int64Type};

use crate::aggregate::items::Items;

/// What `group` must find, by the plainest means: per segment, each item with its rows.
fn oracle<T: Ord + Clone>(values: &[T], offsets: &[usize]) -> Vec<Vec<(T, Vec<usize>)>> {
    let segment = |ends: &[usize]| {
        let mut items: BTreeMap<T, Vec<usize>> = BTreeMap::new();
        (ends[0]..ends[1]).for_each(|row| items.entry(values[row].clone()).or_default().push(row));
        items.into_iter().collect()
    };
    offsets.windows(2).map(segment).collect()
}

fn found<T>(column: &ArrayRef, offsets: &[usize], value: impl Fn(usize) -> T) -> Vec<Vec<(T, Vec<usize>)>> {
    let items = Items::group(column, offsets).unwrap();
    let (starts, rows) = items.by_item();
    let firsts = items.firsts();
    let item = |item: usize| (value(firsts.value(item) as usize), rows[starts[item]..starts[item + 1]].to_vec());
    let ends = items.offsets().unwrap();
    ends.windows(2).map(|ends| (ends[0] as usize..ends[1] as usize).map(item).collect()).collect()
}

/// Empty segments, those of one row, and a long one; rows before the first and after the last belong to none.
fn offsets(rows: usize) -> Vec<usize> {
    vec![3, 3, 4, 9, 9, rows / 2, rows - 2]
}

fn check_bytes(values: &[Vec<u8>]) {
    let offsets = offsets(values.len());
    let column: ArrayRef = Arc::new(BinaryViewArray::from_iter_values(values));
    let value = |row| column.as_binary_view().value(row).to_vec();
    assert_eq!(found(&column, &offsets, value), oracle(values, &offsets));
}

/// 0, 1, … in some order, each several times.
fn numbers() -> impl Iterator<Item = u64> + Clone {
    (0..500_u64).map(|i| i * i * 31 % 97)
}

#[test]
fn oracle_items_of_strings_that_begin_alike() {
    let id = |i: u64| format!("spotify:artist:{}{i}", if i.is_multiple_of(3) { "0000000000" } else { "" });
    let values: Vec<String> = numbers().map(id).collect();
    let offsets = offsets(values.len());
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(&values));
    let value = |row| column.as_string_view().value(row).to_owned();
    assert_eq!(found(&column, &offsets, value), oracle(&values, &offsets));
}

#[test]
fn oracle_items_of_strings_with_equal_heads() {
    // Zeros at the end differ from nothing, though heads are padded with them.
    check_bytes(
        &numbers()
            .map(|i| [b"12345678".as_slice(), &vec![0; i as usize % 5], &[i as u8 / 16]].concat())
            .collect::<Vec<_>>(),
    );
    check_bytes(&numbers().map(|i| vec![0; i as usize % 11]).collect::<Vec<_>>());
}

#[test]
fn oracle_items_of_numbers_of_either_sign() {
    let values: Vec<i64> =
        numbers().map(|i| [i64::MIN, -1, 0, i64::MAX][i as usize % 4].wrapping_add(i as i64 / 9)).collect();
    let offsets = offsets(values.len());
    let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
    let value = |row| column.as_primitive::<Int64Type>().value(row);
    assert_eq!(found(&column, &offsets, value), oracle(&values, &offsets));
}

#[test]
fn oracle_items_of_decimals_beyond_64_bits() {
    let least = i128::from(i64::MIN);
    let bases = [least, least - 3, i128::from(i64::MAX), 0, -1 << 100, 1 << 100];
    let values: Vec<i128> = numbers().map(|i| bases[i as usize % 6] + i128::from(i / 9)).collect();
    let offsets = offsets(values.len());
    let column: ArrayRef = Arc::new(Decimal128Array::from(values.clone()).with_precision_and_scale(38, 2).unwrap());
    let value = |row| column.as_primitive::<Decimal128Type>().value(row);
    assert_eq!(found(&column, &offsets, value), oracle(&values, &offsets));
}
