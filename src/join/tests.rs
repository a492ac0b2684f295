//! The join kernel against nested loops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::merge::tests::drive_batches;
use crate::merge::{Kernel, SourceInputs};

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

/// A condition on the values of a pair, which may be null: kept, not kept, unknown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Residual(i64);

impl Residual {
    fn of(self, left: i64, right: i64) -> Option<bool> {
        let mixed = (left * 31 + right * 17) % 11;
        (mixed != 0).then_some(mixed <= self.0)
    }

    /// With `columns`, the values alone instead of everything that is there.
    fn condition(self, keys: usize, columns: bool) -> JoinCondition {
        // All columns: k, a's s, a, b's s, b; with two key columns k, s, a, b.
        let (first, second) = if columns { (1, 0) } else { (2, if keys == 1 { 4 } else { 3 }) };
        let condition = JoinCondition::new("mixed", move |pairs| {
            let value = |at: usize| pairs.column(at).as_primitive::<Int64Type>().values();
            Ok(value(first).iter().zip(value(second)).map(|(l, r)| self.of(*l, *r)).collect())
        });
        if columns { condition.with_columns(["b", "a"]) } else { condition }
    }
}

/// Every pair of rows is looked at, as the definition of a join says.
fn nested_loops(kind: JoinKind, left: &[Row], right: &[Row], keys: usize, residual: Option<Residual>) -> Vec<Joined> {
    let equal = |l: &Row, r: &Row| {
        let keys = l.0.is_some() && l.0 == r.0 && (keys == 1 || l.1.is_some() && l.1 == r.1);
        keys && residual.is_none_or(|residual| residual.of(l.2, r.2) == Some(true))
    };
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

/// What went to overflows.
#[derive(Debug, Default)]
struct Counts {
    live: AtomicUsize,
    rows: AtomicUsize,
    passes: AtomicUsize,
}

/// An overflow that holds its users to its rules.
struct Shelf {
    batches: Vec<RecordBatch>,
    next: Option<usize>,
    counts: Arc<Counts>,
}

impl Overflow for Shelf {
    fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        assert!(self.next.is_none(), "rows come after reading began");
        self.counts.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
        self.batches.push(batch.clone());
        Ok(())
    }

    fn rewind(&mut self) -> Result<()> {
        self.counts.passes.fetch_add(1, Ordering::Relaxed);
        self.next = Some(0);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let at = self.next.as_mut().expect("rows are read without a beginning");
        *at += 1;
        Ok(self.batches.get(*at - 1).cloned())
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.counts.live.fetch_sub(1, Ordering::Relaxed);
    }
}

fn budget(bytes: usize) -> (CarryBudget, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    let overflow = move |_: &SchemaRef| {
        shared.live.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Shelf { batches: vec![], next: None, counts: Arc::clone(&shared) }) as Box<dyn Overflow>)
    };
    (CarryBudget { bytes, overflow: Arc::new(overflow) }, counts)
}

#[derive(Debug, Clone)]
struct Case {
    kind: JoinKind,
    keys: usize,
    left: Vec<Vec<Row>>,
    right: Vec<Vec<Row>>,
    piece: usize,
    batch_size: usize,
    condition: Option<JoinCondition>,
    budget: usize,
}

impl Case {
    fn kernel(&self) -> (Box<dyn Kernel<Item = RecordBatch>>, Arc<Counts>) {
        let Self { kind, keys, left, right, batch_size, condition, budget: bytes, piece: _ } = self;
        let side = |value: &str, runs: &[Vec<Row>]| SourceInputs {
            schema: schema(value),
            order: (0..*keys).collect(),
            runs: runs.iter().map(|_| Arc::from("run")).collect(),
        };
        // Output: k, s, a, b. With one key column, `s` is left out of the comparison by being null.
        let layout = |has_left: bool, has_right: bool, all: bool| {
            let mut columns: Vec<OutputColumn> = (0..*keys).map(|k| OutputColumn::Key { left: k, right: k }).collect();
            let mut fields: Vec<Field> =
                ["k", "s"][..*keys].iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
            for (has, name, column) in
                [(has_left, "a", OutputColumn::Left as fn(usize) -> _), (has_right, "b", OutputColumn::Right)]
            {
                let others = if all { *keys } else { 2 }..3;
                for at in others.filter(|_| has) {
                    columns.push(column(at));
                    fields.push(Field::new(if at == 2 { name } else { "s" }, DataType::Int64, true));
                }
            }
            OutputLayout { schema: Arc::new(Schema::new(fields)), columns }
        };
        let condition = condition.clone().map(|condition| {
            let all = layout(true, true, true);
            let layout = match &condition.columns {
                None => all,
                Some(names) => {
                    let at: Vec<usize> = names.iter().map(|name| all.schema.index_of(name).unwrap()).collect();
                    OutputLayout {
                        schema: Arc::new(all.schema.project(&at).unwrap()),
                        columns: at.iter().map(|&at| all.columns[at]).collect(),
                    }
                }
            };
            BoundCondition { condition, layout }
        });
        let (budget, counts) = budget(*bytes);
        let kernel = join_kernel(JoinInputs {
            kind: *kind,
            key_types: vec![DataType::Int64; *keys],
            left: side("a", left),
            right: side("b", right),
            output: layout(kind.has_left(), kind.has_right(), false),
            condition,
            batch_size: *batch_size,
            budget,
        });
        (kernel.unwrap(), counts)
    }

    fn batches(&self) -> Vec<RecordBatch> {
        let Self { left, right, .. } = self;
        left.iter().map(|rows| batch("a", rows)).chain(right.iter().map(|rows| batch("b", rows))).collect()
    }

    /// Runs the kernel; the output must be sorted by key, nulls last.
    fn rows(&self) -> Vec<Joined> {
        let (mut kernel, counts) = self.kernel();
        let mut out = vec![];
        drive_batches(&mut *kernel, &self.batches(), self.piece, |batch: RecordBatch| {
            assert!(batch.num_rows() > 0 && batch.num_rows() <= self.batch_size);
            let column = |name: &str, row: usize| {
                let column = batch.column_by_name(name)?.as_primitive::<Int64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            let row = |row| (column("k", row), column("s", row), column("a", row), column("b", row));
            out.extend((0..batch.num_rows()).map(row));
        })
        .unwrap();
        let last = |v: Option<i64>| (v.is_none(), v);
        assert!(out.is_sorted_by_key(|r: &Joined| (last(r.0), last(r.1))), "{} join is sorted: {out:?}", self.kind);
        assert_eq!(counts.live.load(Ordering::Relaxed), 0, "overflows are let go of before the end");
        out.sort();
        out
    }
}

/// A group of one key, with rows around it.
fn hot(rows: usize, runs: usize) -> Vec<Vec<Row>> {
    let around = [(Some(3), None, 1000), (Some(9), None, 1001)];
    let rows: Vec<Row> = (0..rows).map(|i| (Some(7), None, i as i64)).chain(around).collect();
    rows.chunks(rows.len().div_ceil(runs)).map(|rows| run(rows.to_vec(), 1)).collect()
}

/// No condition, or one that keeps more and more.
fn residuals() -> impl Strategy<Value = Option<Residual>> {
    prop::option::weighted(0.7, (0i64..11).prop_map(Residual))
}

/// Nothing, one row, a few, all.
fn budgets() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![0, 1, 100, 300, 1 << 20])
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
        batch_size in prop::sample::select(vec![1, 2, 7, 49, 50, 51, 100]), residual in residuals(), columns in any::<bool>(),
        budget in budgets(),
    ) {
        let (left, right) = (named(left, keys), named(right, keys));
        for kind in JoinKind::ALL {
            let want = nested_loops(kind, &left.concat(), &right.concat(), keys, residual);
            let condition = residual.map(|residual| residual.condition(keys, columns));
            let case = Case { kind, keys, left: left.clone(), right: right.clone(), piece, batch_size, condition, budget };
            prop_assert_eq!(case.rows(), want, "{}", kind);
        }
    }

    #[test]
    fn oracle_hot_keys_span_many_windows(
        rows in (0usize..40, 0usize..40), runs_of in (1usize..4, 1usize..4), piece in 1usize..4,
        batch_size in 1usize..20, residual in residuals(), budget in budgets(),
    ) {
        let (left, right) = (hot(rows.0, runs_of.0), hot(rows.1, runs_of.1));
        for kind in JoinKind::ALL {
            let want = nested_loops(kind, &left.concat(), &right.concat(), 1, residual);
            let condition = residual.map(|residual| residual.condition(1, true));
            let case = Case { kind, keys: 1, left: left.clone(), right: right.clone(), piece, batch_size, condition, budget };
            prop_assert_eq!(case.rows(), want, "{}", kind);
        }
    }
}

fn case(kind: JoinKind, left: Vec<Vec<Row>>, right: Vec<Vec<Row>>) -> Case {
    Case { kind, keys: 1, left, right, piece: 8, batch_size: 8, condition: None, budget: 0 }
}

/// One key so many times.
fn many(rows: usize) -> Vec<Vec<Row>> {
    vec![(0..rows).map(|i| (Some(7), None, i as i64)).collect()]
}

#[test]
fn a_hot_group_of_one_side_keeps_no_row_of_the_other() {
    for (left, right) in [(many(200_000), many(1)), (many(1), many(200_000))] {
        let case = Case { piece: 1000, batch_size: 1000, ..case(JoinKind::Inner, left, right) };
        let (mut kernel, counts) = case.kernel();
        let mut rows = 0;
        drive_batches(&mut *kernel, &case.batches(), 1000, |batch: RecordBatch| {
            // The many rows are passed on as they came, without a copy.
            assert_eq!(batch.num_rows(), 1000);
            rows += 1000;
        })
        .unwrap();
        assert_eq!(rows, 200_000);
        // Both sides were open once, after the first window.
        assert!(counts.rows.load(Ordering::Relaxed) <= 2001, "{counts:?}");
    }
}

#[test]
fn a_spilled_side_is_read_once_per_budget_and_not_once_per_window() {
    // 24 bytes per row: 800 rows are 19200 bytes.
    for (budget, blocks) in [(1 << 20, 0), (8000, 3), (0, 100)] {
        let case = Case { budget, ..case(JoinKind::LeftSemi, many(800), many(800)) };
        let none = JoinCondition::new("none", |pairs| Ok(BooleanArray::from(vec![false; pairs.num_rows()])));
        let case = Case { condition: Some(none), ..case };
        let (mut kernel, counts) = case.kernel();
        drive_batches(&mut *kernel, &case.batches(), 8, |_| panic!("no row")).unwrap();
        let passes = counts.passes.load(Ordering::Relaxed);
        // Each of both is rewound once at the beginning, and one more time for every block and for the rows without a partner.
        assert!(passes >= blocks && passes <= blocks + 4, "{counts:?}, budget {budget}");
    }
}

#[test]
fn a_group_that_fits_the_budget_is_not_spilled() {
    let case = Case { budget: 24 * 400, ..case(JoinKind::Full, many(100), many(300)) };
    let (mut kernel, counts) = case.kernel();
    drive_batches(&mut *kernel, &case.batches(), 8, |_| {}).unwrap();
    assert_eq!(counts.passes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_condition_must_return_one_value_per_row() {
    for rows in [0, 1, 5] {
        let wrong = JoinCondition::new("too few", move |_| Ok(BooleanArray::from(vec![true; rows])));
        let case = Case { condition: Some(wrong), ..case(JoinKind::Left, many(1), many(4)) };
        let (mut kernel, _) = case.kernel();
        let error = drive_batches(&mut *kernel, &case.batches(), 8, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("condition=`too few`, rows=`4`, values=`{rows}`")), "{error}");
    }
}

#[test]
fn errors_of_a_condition_and_of_an_overflow_pass_through() {
    let failing = JoinCondition::new("failing", |_| Err(Error::external("no such luck")));
    let failed = Case { condition: Some(failing), ..case(JoinKind::Inner, many(2), many(2)) };
    let (mut kernel, _) = failed.kernel();
    let error = drive_batches(&mut *kernel, &failed.batches(), 8, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::External);

    let full = CarryBudget { bytes: 0, overflow: Arc::new(|_| Err(Error::new(ErrorKind::Store, "the disk is full"))) };
    let mut rows = kept::Kept::new(schema("a"), 1);
    rows.push(batch("a", &[(Some(1), None, 1)])).unwrap();
    assert_eq!(rows.spill(&full).unwrap_err().kind(), ErrorKind::Store);
}

#[test]
fn a_condition_sees_no_pair_twice_and_none_of_null_keys() {
    use std::sync::Mutex;
    for (piece, batch_size, budget) in [(1, 1, 0), (2, 3, 100), (3, 50, 1 << 20), (100, 100, 0)] {
        let seen = Arc::new(Mutex::new(vec![]));
        let log = Arc::clone(&seen);
        let condition = JoinCondition::new("log", move |pairs| {
            let value = |at: usize| pairs.column(at).as_primitive::<Int64Type>().values().to_vec();
            log.lock().unwrap().extend(value(0).into_iter().zip(value(1)));
            Ok(BooleanArray::from(vec![true; pairs.num_rows()]))
        })
        .with_columns(["a", "b"]);
        let rows = || vec![run((0..30).map(|i| ((i % 7 > 0).then_some(i / 11), None, i)).collect(), 1)];
        let case = Case { piece, batch_size, budget, ..case(JoinKind::Full, rows(), rows()) };
        let mut want: Vec<_> = nested_loops(JoinKind::Inner, &rows()[0], &rows()[0], 1, None)
            .iter()
            .map(|r| (r.2.unwrap(), r.3.unwrap()))
            .collect();
        Case { condition: Some(condition), ..case }.rows();
        let mut seen = seen.lock().unwrap().clone();
        seen.sort();
        want.sort();
        assert_eq!(seen, want);
    }
}
