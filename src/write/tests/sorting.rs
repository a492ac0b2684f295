//! Tests of sort keys: which form they take, and orders that a form could get wrong.

use super::*;
use crate::write::sort_keys::{Encoded, Encoding, Packed, Packing, RowRef, SortKeys, Span};

type Column<'a> = &'a [Option<i64>];

fn batch(columns: &[Column<'_>]) -> RecordBatch {
    let column = |(i, values): (usize, &Column<'_>)| {
        (format!("c{i}"), Arc::new(Int64Array::from(values.to_vec())) as ArrayRef, true)
    };
    RecordBatch::try_from_iter_with_nullable(columns.iter().enumerate().map(column)).unwrap()
}

/// The rows of `batches` in the order of all their columns, by these keys.
fn sorted(keys: &impl SortKeys, batches: &[RecordBatch]) -> Vec<(u32, u32)> {
    let mut entries: Vec<_> = batches.iter().enumerate().flat_map(|(i, batch)| keys.entries(i, batch)).collect();
    keys.sort(&mut entries, &mut vec![]);
    let place = |entry| {
        let RowRef { batch, row } = keys.row(entry);
        (batch, row)
    };
    entries.into_iter().map(place).collect()
}

/// The bits of packed entries, and the order by every form that there is for these batches.
fn orders(batches: &[RecordBatch]) -> (u32, Vec<Vec<(u32, u32)>>) {
    let order: Vec<usize> = (0..batches[0].num_columns()).collect();
    let spans: Vec<_> = batches.iter().map(|batch| Span::of_batch(batch, &order)).collect();
    let packing = Packing::new(&order, &spans, batches);
    let small = Packed::<u64>::new(&packing).map(|keys| sorted(&keys, batches));
    let large = Packed::<u128>::new(&packing).map(|keys| sorted(&keys, batches));
    let fields = super::super::partition::sort_fields(&batches[0].schema(), &order);
    let encode = |batch| Encoding::of_batch(batch, &order, &fields).unwrap();
    let encoded = Encoded::new(batches.iter().map(encode).collect());
    let found = small.into_iter().chain(large).chain([sorted(&encoded, batches)]).collect();
    (packing.bits(), found)
}

#[test]
fn keys_take_the_smallest_form_that_holds_them() {
    const ALL: Column<'_> = &[Some(i64::MAX), None, Some(i64::MIN), Some(0), None];
    let near: Column<'_> = &[Some(1003), Some(1000), Some(1007), Some(1000), Some(1001)];
    let nothing: Column<'_> = &[None; 5];
    // Three bits for a row number, none for the number of the only batch.
    let cases: [(&[Column<'_>], u32, usize, &[u32]); 6] = [
        (&[near], 3 + 3, 3, &[1, 3, 4, 0, 2]),
        (&[nothing], 1 + 3, 3, &[0, 1, 2, 3, 4]),
        (&[nothing, near], 1 + 3 + 3, 3, &[1, 3, 4, 0, 2]),
        (&[near, ALL], 3 + 65 + 3, 2, &[3, 1, 4, 0, 2]),
        (&[ALL], 65 + 3, 2, &[2, 3, 0, 1, 4]),
        (&[ALL, ALL], 65 + 65 + 3, 1, &[2, 3, 0, 1, 4]),
    ];
    for (columns, bits, forms, rows) in cases {
        let (found, orders) = orders(&[batch(columns)]);
        assert_eq!((found, orders.len()), (bits, forms), "{columns:?}");
        let expected: Vec<(u32, u32)> = rows.iter().map(|row| (0, *row)).collect();
        assert!(orders.iter().all(|order| *order == expected), "{columns:?}: {orders:?}");
    }
}

#[test]
fn differential_many_rows_are_in_the_same_order_in_every_form() {
    let mut random = Random(5);
    // Keys of many and of few bits, of which there are so many rows that the sort of integers is by radix; some null, in some order already.
    for (bits, nulls, rows, in_order) in
        [(40, 0, 3000, false), (3, 5, 3000, false), (17, 50, 700, false), (63, 1, 20_000, false), (17, 0, 3000, true)]
    {
        let mut values: Vec<Option<i64>> = (0..rows)
            .map(|_| (random.next() % 100 >= nulls).then(|| (random.next() >> (64 - bits)) as i64 - (1 << (bits - 1))))
            .collect();
        if in_order {
            values.sort();
        }
        let batches: Vec<RecordBatch> = values.chunks(450).map(|values| batch(&[values])).collect();
        let (_, orders) = orders(&batches);
        assert!(orders.len() > 1);
        let place = |i: usize| ((i / 450) as u32, (i % 450) as u32);
        let mut expected: Vec<usize> = (0..values.len()).collect();
        expected.sort_by_key(|i| (values[*i].is_none(), values[*i]));
        let expected: Vec<(u32, u32)> = expected.into_iter().map(place).collect();
        assert!(orders.iter().all(|order| *order == expected), "{rows} keys of {bits} bits");
    }
}

#[test]
fn rows_of_equal_keys_stay_in_order_of_arrival_in_every_form() {
    let batches = [batch(&[&[Some(7), None, Some(-7)]]), batch(&[&[Some(-7), Some(7)]]), batch(&[&[None, Some(-7)]])];
    let (_, orders) = orders(&batches);
    assert_eq!(orders, vec![vec![(0, 2), (1, 0), (2, 1), (0, 0), (1, 1), (0, 1), (2, 0)]; 3]);
}

#[test]
fn keys_that_begin_alike_are_sorted_by_what_follows() {
    // Alike in the first batch for longer than with the second; the shortest ends where the others go on.
    let texts: [&[&str]; 2] =
        [&["user-00000000000000000012", "user-00000000000000000011", "user-0000000000000000001"], &["user-1", "user-"]];
    let batches = texts.map(|texts| {
        let column: ArrayRef = Arc::new(StringViewArray::from(texts.to_vec()));
        RecordBatch::try_from_iter([("c", column)]).unwrap()
    });
    let encode = |batch: &RecordBatch| {
        Encoding::of_batch(batch, &[0], &super::super::partition::sort_fields(&batch.schema(), &[0])).unwrap()
    };
    for (batches, expected) in [
        (&batches[..], &[(1, 1), (0, 2), (0, 1), (0, 0), (1, 0)][..]),
        (&batches[..1], &[(0, 2), (0, 1), (0, 0)]),
        // One row, which is all common.
        (&[batches[1].slice(0, 1)], &[(0, 0)]),
        (&[batches[1].slice(0, 0), batches[1].slice(0, 1)], &[(1, 0)]),
    ] {
        assert_eq!(sorted(&Encoded::new(batches.iter().map(encode).collect()), batches), expected);
    }
}
