//! The join kernel against nested loops.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::merge::SourceInputs;
use crate::merge::tests::drive_batches;

/// A row: key, second key, and a value that names it.
type Row = (Option<i64>, Option<i64>, i64);
/// A joined row: the key, and the values of either side.
type Joined = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

fn schema(value: &str) -> SchemaRef {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![field("k"), field("s"), field(value)]))
}

fn batch(value: &str, rows: &[Row]) -> RecordBatch {
    let columns = [
        Int64Array::from_iter(rows.iter().map(|r| r.0)),
        Int64Array::from_iter(rows.iter().map(|r| r.1)),
        Int64Array::from_iter(rows.iter().map(|r| Some(r.2))),
    ];
    RecordBatch::try_new(schema(value), columns.into_iter().map(|c| Arc::new(c) as _).collect()).unwrap()
}

/// Sorts rows as a run of a dataset whose key has `keys` columns.
fn run(mut rows: Vec<Row>, keys: usize) -> Vec<Row> {
    let last = |v: Option<i64>| (v.is_none(), v);
    rows.sort_by_key(|r| (last(r.0), if keys == 2 { last(r.1) } else { (false, None) }));
    rows
}

/// Every pair of rows is looked at, as the definition of a join says.
fn nested_loops(kind: JoinKind, left: &[Row], right: &[Row], keys: usize) -> Vec<Joined> {
    let equal = |l: &Row, r: &Row| l.0.is_some() && l.0 == r.0 && (keys == 1 || l.1.is_some() && l.1 == r.1);
    let mut out = vec![];
    for l in left {
        let partners: Vec<_> = right.iter().filter(|r| equal(l, r)).collect();
        let key = (l.0, if keys == 2 { l.1 } else { None });
        match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
                out.extend(partners.iter().map(|r| (key.0, key.1, Some(l.2), Some(r.2))));
            }
            JoinKind::LeftSemi if !partners.is_empty() => out.push((key.0, key.1, Some(l.2), None)),
            _ => {}
        }
        if partners.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full | JoinKind::LeftAnti) {
            out.push((key.0, key.1, Some(l.2), None));
        }
    }
    for r in right {
        let partners = left.iter().filter(|l| equal(l, r)).count();
        let key = (r.0, if keys == 2 { r.1 } else { None });
        let unmatched = partners == 0 && matches!(kind, JoinKind::Right | JoinKind::Full | JoinKind::RightAnti);
        if unmatched || partners > 0 && kind == JoinKind::RightSemi {
            out.push((key.0, key.1, None, Some(r.2)));
        }
    }
    out.sort();
    out
}

struct Case {
    kind: JoinKind,
    keys: usize,
    left: Vec<Vec<Row>>,
    right: Vec<Vec<Row>>,
    piece: usize,
    batch_size: usize,
}

/// Runs the kernel; the output must be sorted by key, nulls last.
fn kernel(case: &Case) -> Vec<Joined> {
    let Case { kind, keys, left, right, piece, batch_size } = case;
    let side = |value: &str, runs: &[Vec<Row>]| SourceInputs {
        schema: schema(value),
        order: (0..*keys).collect(),
        runs: runs.iter().map(|_| Arc::from("run")).collect(),
    };
    // Output: k, s, a, b. With one key column, `s` is left out of the comparison by being null.
    let mut columns: Vec<OutputColumn> = (0..*keys).map(|k| OutputColumn::Key { left: k, right: k }).collect();
    let mut fields: Vec<Field> =
        ["k", "s"][..*keys].iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
    if kind.has_left() {
        columns.push(OutputColumn::Left(2));
        fields.push(Field::new("a", DataType::Int64, true));
    }
    if kind.has_right() {
        columns.push(OutputColumn::Right(2));
        fields.push(Field::new("b", DataType::Int64, true));
    }
    let output = OutputLayout { schema: Arc::new(Schema::new(fields)), columns };
    let mut kernel = join_kernel(JoinInputs {
        kind: *kind,
        key_types: vec![DataType::Int64; *keys],
        left: side("a", left),
        right: side("b", right),
        output,
        batch_size: *batch_size,
    })
    .unwrap();
    let batches: Vec<_> =
        left.iter().map(|rows| batch("a", rows)).chain(right.iter().map(|rows| batch("b", rows))).collect();
    let mut out = vec![];
    drive_batches(&mut *kernel, &batches, *piece, |batch: RecordBatch| {
        assert!(batch.num_rows() > 0 && batch.num_rows() <= *batch_size);
        let column = |name: &str, row: usize| {
            let column = batch.column_by_name(name)?.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        out.extend(
            (0..batch.num_rows()).map(|row| (column("k", row), column("s", row), column("a", row), column("b", row))),
        );
    })
    .unwrap();
    let last = |v: Option<i64>| (v.is_none(), v);
    assert!(out.is_sorted_by_key(|r: &Joined| (last(r.0), last(r.1))), "{kind} join output is sorted by key: {out:?}");
    out.sort();
    out
}

fn runs(max_rows: usize, from: i64) -> impl Strategy<Value = Vec<Vec<(Option<i64>, Option<i64>)>>> {
    let row = (prop::option::weighted(0.9, 0..6 + from), prop::option::weighted(0.8, 0i64..3));
    prop::collection::vec(prop::collection::vec(row, 0..max_rows), 0..4)
}

fn named(runs: Vec<Vec<(Option<i64>, Option<i64>)>>, keys: usize) -> Vec<Vec<Row>> {
    let mut name = 0;
    let mut number = || {
        name += 1;
        name
    };
    runs.into_iter().map(|rows| run(rows.into_iter().map(|(k, s)| (k, s, number())).collect(), keys)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn oracle_every_kind_equals_nested_loops(
        left in runs(20, 0), right in runs(20, 30), keys in 1usize..3, piece in 1usize..9,
        batch_size in prop::sample::select(vec![1, 2, 7, 49, 50, 51, 100]),
    ) {
        let (left, right) = (named(left, keys), named(right, keys));
        let all = |runs: &[Vec<Row>]| runs.concat();
        for kind in JoinKind::ALL {
            let want = nested_loops(kind, &all(&left), &all(&right), keys);
            let got = kernel(&Case { kind, keys, left: left.clone(), right: right.clone(), piece, batch_size });
            prop_assert_eq!(got, want, "{}", kind);
        }
    }

    #[test]
    fn oracle_hot_keys_span_many_windows(
        hot in (0usize..40, 0usize..40), runs_of in (1usize..4, 1usize..4), piece in 1usize..4,
        batch_size in 1usize..20,
    ) {
        let side = |rows: usize, runs: usize| {
            let rows: Vec<Row> = (0..rows).map(|i| (Some(7), None, i as i64)).chain([(Some(3), None, 100), (Some(9), None, 101)]).collect();
            rows.chunks(rows.len().div_ceil(runs)).map(|rows| run(rows.to_vec(), 1)).collect::<Vec<_>>()
        };
        let (left, right) = (side(hot.0, runs_of.0), side(hot.1, runs_of.1));
        for kind in JoinKind::ALL {
            let want = nested_loops(kind, &left.concat(), &right.concat(), 1);
            let got = kernel(&Case { kind, keys: 1, left: left.clone(), right: right.clone(), piece, batch_size });
            prop_assert_eq!(got, want, "{}", kind);
        }
    }
}
