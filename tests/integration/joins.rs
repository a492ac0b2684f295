//! Joins against a join that shuffles both sides into a map.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::BooleanArray;
use arrow::compute::kernels::cmp::lt;
use arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use sort_merge_bucket::{
    Aggregate, Count, Error, ErrorKind, Join, JoinCondition, JoinKind, JoinPlan, Parallelism, PlanOptions, Source,
};

use crate::support::data::{DatasetData, Family, Names, Shape, SourceData, shapes, sources};
use crate::support::oracle::{Row, Value, int, rows_of, shuffle_join, shuffle_join_where, sorted, text, wider_type};
use crate::support::{assert_error, block_on, config, everywhere, failure, field, rows, rows_by_slot, store};

const SEEDS: &str = "proptest-regressions/integration/joins.txt";

/// Batch sizes around the places where loops go wrong.
const BATCH_SIZES: [usize; 8] = [8192, 1, 2, 7, 49, 50, 51, 100];

/// No row of a key group fits in memory, a few do, all do.
const BUDGETS: [usize; 4] = [0, 1, 300, 64 << 20];

#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    left: SourceData,
    right: SourceData,
    /// Whether the sides' columns have the same names, so that prefixes are needed.
    same_names: bool,
    /// Sort columns of the join key.
    sort_columns: usize,
    batch_size: usize,
    /// Of how many pairs about one is kept.
    one_of: Option<usize>,
    carry_budget: usize,
}

/// The outcome of a condition on a pair, for any values: true, false or null.
fn outcome(pair: &[Value], one_of: usize) -> Option<bool> {
    let mixed = format!("{pair:?}").bytes().fold(7_usize, |mixed, byte| mixed.wrapping_mul(31) ^ usize::from(byte));
    (mixed % 7 != 0).then_some(mixed / 7 % one_of == 0)
}

/// The same as a condition of a join.
fn condition(one_of: usize) -> JoinCondition {
    JoinCondition::new("outcome", move |pairs| Ok(rows_of(pairs).iter().map(|pair| outcome(pair, one_of)).collect()))
}

fn cases() -> impl Strategy<Value = Case> {
    let own =
        (any::<bool>(), 0..BATCH_SIZES.len(), prop::option::of(1..4_usize), prop::sample::select(BUDGETS.to_vec()));
    (shapes(), own).prop_flat_map(|(shape, (same_names, batch_size, one_of, carry_budget))| {
        let names = |side, own| {
            if same_names { Names { order: "", payload: "p" } } else { Names { order: side, payload: own } }
        };
        let sort = shape.families.len() - shape.keys;
        (sources(shape.clone(), names("", "p"), 20), sources(shape.clone(), names("r", "q"), 20), 0..=sort).prop_map(
            move |(left, right, sort_columns)| Case {
                shape: shape.clone(),
                left,
                right,
                same_names,
                sort_columns,
                batch_size,
                one_of,
                carry_budget,
            },
        )
    })
}

/// The schema of a join's output, written down once more.
fn expected_schema(kind: JoinKind, merge: usize, left: &[Field], right: &[Field], prefixes: (&str, &str)) -> Schema {
    use JoinKind as J;
    let mut fields = vec![];
    for (l, r) in left.iter().zip(right).take(merge) {
        let nullable = match kind {
            J::Inner | J::LeftSemi | J::RightSemi => false,
            J::Left | J::LeftAnti => l.is_nullable(),
            J::Right | J::RightAnti => r.is_nullable(),
            J::Full => l.is_nullable() || r.is_nullable(),
        };
        let name = if matches!(kind, J::RightSemi | J::RightAnti) { r.name() } else { l.name() };
        fields.push(Field::new(name, wider_type(l.data_type(), r.data_type()), nullable));
    }
    let has_left = !matches!(kind, J::RightSemi | J::RightAnti);
    let has_right = !matches!(kind, J::LeftSemi | J::LeftAnti);
    let mut side = |own: &[Field], prefix: &str, absent: bool| {
        for f in &own[merge..] {
            fields.push(Field::new(format!("{prefix}{}", f.name()), f.data_type().clone(), f.is_nullable() || absent));
        }
    };
    if has_left {
        side(left, prefixes.0, matches!(kind, J::Right | J::Full));
    }
    if has_right {
        side(right, prefixes.1, matches!(kind, J::Left | J::Full));
    }
    Schema::new(fields)
}

fn plan(case: &Case, kind: JoinKind, left: &Source, right: &Source, batch_size: usize) -> JoinPlan {
    let join = Join::new(kind, left.clone(), right.clone())
        .with_sort_columns(case.sort_columns)
        .with_options(PlanOptions::default().with_batch_size(batch_size).with_carry_budget(case.carry_budget));
    let join = match case.one_of {
        None => join,
        Some(one_of) => join.with_condition(condition(one_of)),
    };
    let join = if case.same_names { join.with_left_prefix("l.").with_right_prefix("r.") } else { join };
    join.plan().unwrap()
}

proptest! {
    #![proptest_config(config(160, SEEDS))]

    #[test]
    fn oracle_every_join_kind_equals_the_shuffle_join(case in cases()) {
        block_on(async {
            let store = store();
            let left = case.left.write(&store, "left").await;
            let right = case.right.write(&store, "right").await;
            let merge = case.shape.keys + case.sort_columns;
            let (left_fields, right_fields) = (case.left.fields(merge), case.right.fields(merge));
            let (left_side, right_side) = (case.left.side(merge), case.right.side(merge));
            let prefixes = if case.same_names { ("l.", "r.") } else { ("", "") };
            for (at, kind) in JoinKind::ALL.into_iter().enumerate() {
                let batch_size = BATCH_SIZES[(case.batch_size + at) % BATCH_SIZES.len()];
                let plan = plan(&case, kind, &left, &right, batch_size);
                let expected_schema = expected_schema(kind, merge, &left_fields, &right_fields, prefixes);
                assert_eq!(plan.schema().as_ref(), &expected_schema, "{kind}");
                let keep = |pair: &[Value]| case.one_of.is_none_or(|one_of| outcome(pair, one_of) == Some(true));
                let expected = shuffle_join_where(kind, merge, &left_side, &right_side, keep);
                let found = if at % 2 == 0 { rows(&plan).await } else { rows_by_slot(&plan).await };
                assert_eq!(sorted(found), sorted(expected), "{kind} join, batches of {batch_size}");
            }
        });
    }
}

/// Every key family with every pair of its types, one after the other, so that none is left to chance.
#[test]
fn oracle_every_pair_of_key_types_of_a_family_joins() {
    block_on(async {
        for family in Family::ALL {
            for left_type in family.types() {
                for right_type in family.types() {
                    let side = |data_type: &DataType, payload: &str, buckets: u32| {
                        let mut rows = vec![];
                        for (at, value) in family.pool().into_iter().enumerate() {
                            if crate::support::data::holds(data_type, &value) {
                                rows.push(vec![value, int(at as i128)]);
                            }
                        }
                        rows.push(vec![Value::Null, int(-1)]);
                        rows.extend(rows[..rows.len() / 2].to_vec());
                        let fields = vec![field("k", data_type.clone(), true), field(payload, DataType::Int64, false)];
                        SourceData::from(DatasetData::new(fields, &["k"], buckets, rows))
                    };
                    let (left, right) = (side(&left_type, "l", 6), side(&right_type, "r", 4));
                    let store = store();
                    let plan = Join::full(left.write(&store, "left").await, right.write(&store, "right").await)
                        .plan()
                        .unwrap();
                    assert_eq!(plan.slots().get(), 2);
                    let expected = shuffle_join(JoinKind::Full, 1, &left.side(1), &right.side(1));
                    assert_eq!(sorted(rows(&plan).await), sorted(expected), "{left_type} with {right_type}");
                }
            }
        }
    });
}

/// Two sides with a hot key among others, in several runs.
fn hot(left: i128, right: i128) -> (SourceData, SourceData) {
    let side = |payload: &str, rows: i128, other: i128| {
        let fields = vec![
            field("k", DataType::Int64, true),
            field(payload, DataType::Int64, false),
            field(&format!("{payload}_text"), DataType::Utf8, true),
        ];
        let row = |at: i128| {
            let key = if at >= rows { int(at % 40) } else { int(7) };
            vec![key, int(at * other % 101), if at % 5 == 0 { Value::Null } else { text(&format!("{payload} {at}")) }]
        };
        let null = vec![Value::Null, int(0), text("a null key")];
        let all: Vec<Row> = (0..rows + 80).map(row).chain([null]).collect();
        let (early, late) = all.split_at(all.len() / 3);
        SourceData::from(DatasetData::new(fields, &["k"], 2, early.to_vec()).and_write(4, late.to_vec()))
    };
    (side("l", left, 13), side("r", right, 29))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn spilling(folder: &Path, batch_size: usize, budget: usize) -> PlanOptions {
    PlanOptions::default().with_batch_size(batch_size).with_carry_budget(budget).with_spill_dir(folder)
}

#[test]
fn law_a_hot_key_joins_the_same_whatever_batch_size_and_budget() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (left, right) = hot(130, 90);
        let store = store();
        let (l, r) = (left.write(&store, "left").await, right.write(&store, "right").await);
        for kind in JoinKind::ALL {
            for one_of in [None, Some(1), Some(3), Some(1000)] {
                let keep = |pair: &[Value]| one_of.is_none_or(|one_of| outcome(pair, one_of) == Some(true));
                let expected = sorted(shuffle_join_where(kind, 1, &left.side(1), &right.side(1), keep));
                for (batch_size, budget) in [(16, 0), (3, 700), (50, 2000), (16, 1 << 20), (8192, 0)] {
                    let join = Join::new(kind, l.clone(), r.clone());
                    let join = match one_of {
                        None => join,
                        Some(one_of) => join.with_condition(condition(one_of)),
                    };
                    let plan = join.with_options(spilling(folder.path(), batch_size, budget)).plan().unwrap();
                    assert!(sorted(rows(&plan).await) == expected, "{kind}, {one_of:?}, {batch_size}, {budget}");
                    assert!(is_empty(folder.path()), "a join that ended leaves no files");
                }
            }
        }
    });
}

#[tokio::test]
async fn files_of_a_hot_key_are_gone_after_an_error_and_when_the_stream_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (left, right) = hot(300, 200);
    let store = store();
    let (l, r) = (left.write(&store, "left").await, right.write(&store, "right").await);
    let path = folder.path().to_owned();
    let files_seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&files_seen);
    let failing = JoinCondition::new("failing", move |pairs| {
        if is_empty(&path) {
            return Ok(BooleanArray::from(vec![true; pairs.num_rows()]));
        }
        count.fetch_add(1, Ordering::Relaxed);
        Err(Error::external("now there are files"))
    });
    let options = spilling(folder.path(), 8, 0);
    let join = || Join::full(l.clone(), r.clone()).with_options(options.clone());
    let error = failure(&join().with_condition(failing).plan().unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::External);
    assert_eq!(files_seen.load(Ordering::Relaxed), 1);
    assert!(is_empty(folder.path()), "after an error");

    let plan = join().plan().unwrap();
    let mut dropped_with_files = false;
    for slot in 0..plan.slots().get() {
        let mut stream = plan.execute(&plan.slot(slot).unwrap()).unwrap();
        while is_empty(folder.path()) && stream.next().await.is_some() {}
        dropped_with_files |= !is_empty(folder.path());
        drop(stream);
        assert!(is_empty(folder.path()), "after a drop");
    }
    assert!(dropped_with_files);

    let nowhere = spilling(&folder.path().join("missing"), 8, 0);
    let error = failure(&join().with_options(nowhere).plan().unwrap()).await;
    assert_error(&error, ErrorKind::Store, &["missing"]);
}

fn ranges() -> (SourceData, SourceData) {
    let fields = |a: &str, b: &str| {
        vec![field("k", DataType::Int64, true), field(a, DataType::Int64, true), field(b, DataType::Int64, false)]
    };
    let row = |k: i128, a: Value, b: i128| vec![int(k), a, int(b)];
    let plays = vec![row(1, int(5), 10), row(1, int(9), 11), row(2, Value::Null, 12), row(3, int(1), 13)];
    let terms = vec![row(1, int(7), 20), row(1, int(2), 21), row(2, int(0), 22), row(4, int(0), 23)];
    let data = |fields, rows| SourceData::from(DatasetData::new(fields, &["k"], 2, rows));
    (data(fields("at", "play"), plays), data(fields("from", "term"), terms))
}

#[tokio::test]
async fn a_condition_sees_the_columns_that_it_names_in_every_kind_of_join() {
    let store = store();
    let (plays, terms) = ranges();
    let (plays, terms) = (plays.write(&store, "plays").await, terms.write(&store, "terms").await);
    let after = |columns: &'static [&'static str]| {
        JoinCondition::new("after", move |pairs| {
            let names: Vec<&str> = pairs.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
            assert_eq!(names, columns);
            Ok(lt(pairs.column_by_name("t.from").unwrap(), pairs.column_by_name("at").unwrap())?)
        })
    };
    let n = |value: i128| if value == 0 { Value::Null } else { int(value) };
    for (columns, named) in [(&["t.from", "at"][..], true), (&["k", "at", "play", "t.from", "t.term"], false)] {
        let condition = if named { after(columns).with_columns(columns.iter().copied()) } else { after(columns) };
        let joined = async |kind| {
            let join = Join::new(kind, plays.clone(), terms.clone()).with_right_prefix("t.");
            sorted(rows(&join.with_condition(condition.clone()).plan().unwrap()).await)
        };
        let play = |k, at, play| vec![int(k), n(at), int(play)];
        assert_eq!(joined(JoinKind::LeftSemi).await, [play(1, 5, 10), play(1, 9, 11)]);
        assert_eq!(joined(JoinKind::LeftAnti).await, [play(2, 0, 12), play(3, 1, 13)]);
        let term = |k, from, term| vec![int(k), int(from), int(term)];
        assert_eq!(joined(JoinKind::RightSemi).await, [term(1, 2, 21), term(1, 7, 20)]);
        assert_eq!(joined(JoinKind::RightAnti).await, [term(2, 0, 22), term(4, 0, 23)]);
        let pair = |k, at, play, from, term| vec![int(k), n(at), n(play), n(from), n(term)];
        let inner = [pair(1, 5, 10, 2, 21), pair(1, 9, 11, 2, 21), pair(1, 9, 11, 7, 20)];
        assert_eq!(joined(JoinKind::Inner).await, inner);
        let alone = [pair(2, 0, 12, 0, 0), pair(3, 1, 13, 0, 0)];
        assert_eq!(joined(JoinKind::Left).await, [&inner[..], &alone[..]].concat());
        // The column `from` of key 2 and 4 is 0, so that it is written out.
        let zero = |k, term| vec![int(k), Value::Null, Value::Null, int(0), int(term)];
        let full = [&inner[..], &alone[..], &[zero(2, 22), zero(4, 23)]].concat();
        assert_eq!(joined(JoinKind::Full).await, sorted(full));
    }
}

#[tokio::test]
async fn conditions_are_explained_and_refused_with_everything_else_that_is_wrong() {
    let store = store();
    let (plays, terms) = ranges();
    let (plays, terms) = (plays.write(&store, "plays").await, terms.write(&store, "terms").await);
    let always = || JoinCondition::new("always", |pairs| Ok(BooleanArray::from(vec![true; pairs.num_rows()])));
    let join = || Join::left(plays.clone(), terms.clone()).with_condition(always());
    let shown = join().plan().unwrap().to_string();
    assert!(shown.starts_with("left join with condition `always` on [k]\n"), "{shown}");

    let named = |columns: &'static [&'static str]| always().with_columns(columns.iter().copied());
    let wrong = join().with_condition(named(&["at", "untill", "frum"])).plan().unwrap_err();
    assert_error(&wrong, ErrorKind::InvalidInput, &["`always`", "column=`untill`", "column=`frum`"]);
    // A semi join returns one side, its condition sees both.
    let same = |kind| Join::new(kind, plays.clone(), plays.clone());
    assert!(same(JoinKind::LeftSemi).plan().is_ok());
    let twice = same(JoinKind::LeftSemi).with_condition(always()).plan().unwrap_err();
    assert_error(&twice, ErrorKind::InvalidInput, &["sees two columns", "column=`at`", "column=`play`"]);
    assert!(same(JoinKind::LeftSemi).with_condition(named(&["k"])).plan().is_ok());
    assert!(same(JoinKind::LeftSemi).with_right_prefix("r.").with_condition(always()).plan().is_ok());

    // Aggregates read what they need, and what the condition needs.
    let early = JoinCondition::new("early", |pairs| Ok(lt(pairs.column(0), pairs.column(1))?));
    let early = early.with_columns(["from", "at"]);
    let plan = Aggregate::over(Join::inner(plays.clone(), terms.clone()).with_condition(early))
        .aggregate("n", Count::rows())
        .plan()
        .unwrap();
    assert_eq!(rows(&plan).await, [vec![int(1), int(3)]]);
}

#[tokio::test]
async fn a_condition_may_need_no_column_at_all() {
    let store = store();
    let (left, right) = ranges();
    let (plays, terms) = (left.write(&store, "plays").await, right.write(&store, "terms").await);
    let never = JoinCondition::new("never", |pairs| Ok(BooleanArray::new_null(pairs.num_rows())));
    let plan = Join::full(plays.clone(), terms.clone()).with_condition(never.with_columns([""; 0])).plan().unwrap();
    let expected = shuffle_join_where(JoinKind::Full, 1, &left.side(1), &right.side(1), |_| false);
    assert_eq!(sorted(rows(&plan).await), sorted(expected));
    let mut slots = plan.stream(Parallelism::Available);
    assert!(slots.next().await.is_some());
}

#[tokio::test]
async fn metrics_say_how_many_rows_of_a_large_key_went_to_disk() {
    let store = store();
    let side = async |name: &str, rows: i128| {
        let fields = vec![field("k", DataType::Int64, false), field(name, DataType::Int64, false)];
        let rows = (0..rows).map(|row| vec![int(7), int(row)]).collect();
        DatasetData::new(fields, &["k"], 1, rows).write(&store, name).await
    };
    let (left, right) = (side("l", 300).await, side("r", 200).await);
    for (budget, spills) in [(0, true), (64 << 20, false)] {
        let options = PlanOptions::default().with_batch_size(50).with_carry_budget(budget);
        let plan = Join::inner(&left, &right).with_options(options).plan().unwrap();
        let mut stream = plan.stream(Parallelism::Available);
        let mut joined = 0;
        while let Some(slot) = stream.try_next().await.unwrap() {
            joined += slot.item.num_rows();
        }
        let metrics = stream.metrics().total();
        assert_eq!((joined, metrics.rows_made, metrics.rows_read), (60_000, 60_000, 500));
        assert_eq!(metrics.rows_spilled > 0, spills, "{metrics:?}");
    }
}

everywhere!(
    oracle_every_join_kind_equals_the_shuffle_join,
    law_a_hot_key_joins_the_same_whatever_batch_size_and_budget,
    files_of_a_hot_key_are_gone_after_an_error_and_when_the_stream_is_dropped,
    a_condition_sees_the_columns_that_it_names_in_every_kind_of_join,
);
