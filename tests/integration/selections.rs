//! Restricted sources against a loop over all rows; slots cut into key ranges against whole ones.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{
    Dataset, DynamicFilters, ErrorKind, Join, JoinKind, KeyRange, KeySet, KeyValue, Parallelism, Plan, PlanOperation,
    PlanOptions, Predicate, Scan, Source, WriteOptions,
};

use crate::support::aggregates::{Recipe, recipes};
use crate::support::data::{DatasetData, Names, Shape, SourceData, array_of, shapes, sources};
use crate::support::oracle::{Row, Side, Value, all_rows, int, shuffle_join, sorted, text};
use crate::support::{assert_error, block_on, config, everywhere, field, rows, rows_by_slot, store};

const SEEDS: &str = "proptest-regressions/integration/selections.txt";

/// What a source is restricted to, before its columns are known: numbers that choose among its rows.
#[derive(Debug, Clone)]
struct Restriction {
    filter: Option<Recipe>,
    /// Which rows' keys are the ends of the range, and how many of their values.
    start: Option<(usize, usize)>,
    end: Option<(usize, usize)>,
    keys: Option<Vec<usize>>,
}

fn restrictions() -> impl Strategy<Value = Restriction> {
    let end = || prop::option::weighted(0.3, (0..1000_usize, 1..=3_usize));
    let keys = prop::option::weighted(0.4, prop::collection::vec(0..1000_usize, 0..12));
    (prop::option::weighted(0.6, recipes()), end(), end(), keys).prop_map(|(filter, start, end, keys)| Restriction {
        filter,
        start,
        end,
        keys,
    })
}

fn key_value(value: &Value) -> KeyValue {
    match value {
        Value::Bool(v) => KeyValue::Boolean(*v),
        Value::Int(v) => KeyValue::Integer(*v),
        Value::Text(v) => KeyValue::Utf8(v.clone()),
        Value::Bytes(v) => KeyValue::Binary(v.clone()),
        Value::Null => KeyValue::Null,
        other => panic!("not a key: {other:?}"),
    }
}

impl Restriction {
    /// The source so restricted, and the rows that are left of it with their projection.
    fn apply(&self, data: &SourceData, source: &Source, keys: usize, merge: usize) -> (Source, Side) {
        let whole = SourceData { columns: None, ..data.clone() };
        let (fields, Side { mut rows, .. }) = (whole.fields(merge), whole.side(merge));
        let all = rows.clone();
        let pick = |number: usize| all.get(number % all.len().max(1)).map(|row| row[..keys].to_vec());
        let mut source = source.clone();
        if let Some(recipe) = &self.filter {
            let condition = recipe.condition(&fields, &all);
            source = source.with_filter(condition.predicate(&fields));
            rows.retain(|row| condition.holds(row) == Some(true));
        }
        let end = |end: &Option<(usize, usize)>| {
            let (number, length) = (*end)?;
            pick(number).map(|key| key[..length.min(keys)].to_vec())
        };
        let tuple = |key: &[Value]| key.iter().map(key_value).collect::<Vec<_>>();
        if let Some(start) = end(&self.start) {
            source = source.with_key_range(KeyRange::all().starting_at(tuple(&start)));
            rows.retain(|row| row[..keys] >= start[..]);
        }
        if let Some(end) = end(&self.end) {
            source = source.with_key_range(KeyRange::all().below(tuple(&end)));
            rows.retain(|row| row[..keys] < end[..]);
        }
        if let Some(picks) = &self.keys {
            let wanted: Vec<Row> = picks.iter().filter_map(|number| pick(*number)).collect();
            let column = |at: usize| {
                let values: Vec<Value> = wanted.iter().map(|key| key[at].clone()).collect();
                array_of(fields[at].data_type(), &values)
            };
            source = source.with_keys(KeySet::try_new((0..keys).map(column)).unwrap());
            let wanted: BTreeSet<Row> = wanted.into_iter().collect();
            rows.retain(|row| !row[..keys].contains(&Value::Null) && wanted.contains(&row[..keys]));
        }
        let wanted = data.fields(merge);
        let at: Vec<usize> = wanted.iter().map(|w| fields.iter().position(|f| f.name() == w.name()).unwrap()).collect();
        let rows = rows.iter().map(|row| at.iter().map(|at| row[*at].clone()).collect()).collect();
        (source, Side { rows, width: wanted.len() })
    }
}

#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    left: SourceData,
    right: SourceData,
    restricted: [Restriction; 2],
    batch_size: usize,
    workers: usize,
}

fn cases(most_rows: usize) -> impl Strategy<Value = Case> {
    let names = |order, payload| Names { order, payload };
    (shapes(), [restrictions(), restrictions()], prop::sample::select(vec![8192_usize, 1, 2, 7, 50]), 1..9_usize)
        .prop_flat_map(move |(shape, restricted, batch_size, workers)| {
            let sides =
                (sources(shape.clone(), names("", "p"), most_rows), sources(shape.clone(), names("r", "q"), most_rows));
            sides.prop_map(move |(left, right)| Case {
                shape: shape.clone(),
                left,
                right,
                restricted: restricted.clone(),
                batch_size,
                workers,
            })
        })
}

proptest! {
    #![proptest_config(config(100, SEEDS))]

    #[test]
    fn oracle_a_restricted_scan_returns_the_rows_that_satisfy_all(case in cases(60)) {
        block_on(async {
            let store = store();
            let source = case.left.write(&store, "left").await;
            let (source, expected) = case.restricted[0].apply(&case.left, &source, case.shape.keys, case.shape.keys);
            let options = PlanOptions::default().with_batch_size(case.batch_size).with_prefetch(case.workers % 3);
            let plan = Scan::new(source).with_options(options).plan().unwrap();
            assert_eq!(sorted(rows(&plan).await), sorted(expected.rows.clone()), "{plan}");
            assert_eq!(sorted(rows_by_slot(&plan).await), sorted(expected.rows), "{plan}");
        });
    }

    #[test]
    fn oracle_joins_of_restricted_sources_equal_the_shuffle_join(case in cases(30)) {
        block_on(async {
            let store = store();
            let (keys, merge) = (case.shape.keys, case.shape.keys);
            let left = case.left.write(&store, "left").await;
            let right = case.right.write(&store, "right").await;
            let (left, left_side) = case.restricted[0].apply(&case.left, &left, keys, merge);
            let (right, right_side) = case.restricted[1].apply(&case.right, &right, keys, merge);
            for (at, kind) in JoinKind::ALL.into_iter().enumerate() {
                let expected = sorted(shuffle_join(kind, merge, &left_side, &right_side));
                for filters in [DynamicFilters::Always, [DynamicFilters::Auto, DynamicFilters::Never][at % 2]] {
                    let options =
                        PlanOptions::default().with_batch_size(case.batch_size).with_dynamic_filters(filters);
                    let plan = Join::new(kind, left.clone(), right.clone()).with_options(options).plan().unwrap();
                    assert_eq!(sorted(rows(&plan).await), expected, "{kind} join, {filters:?}");
                }
            }
        });
    }

    #[test]
    fn law_the_pieces_of_a_split_plan_are_its_rows_in_order(case in cases(60)) {
        block_on(async {
            let store = store();
            let (keys, merge) = (case.shape.keys, case.shape.keys);
            let left = case.left.write(&store, "left").await;
            let right = case.right.write(&store, "right").await;
            let (left, _) = case.restricted[0].apply(&case.left, &left, keys, merge);
            let plan = Scan::new(left.clone()).plan().unwrap();
            assert_eq!(pieces(&plan, case.workers).await, rows_by_slot(&plan).await);
            let plan = Join::full(left, right).plan().unwrap();
            assert_eq!(sorted(pieces(&plan, case.workers).await), sorted(rows_by_slot(&plan).await));
        });
    }
}

/// The rows of all pieces of a plan, from descriptors that went through JSON.
async fn pieces<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>, workers: usize) -> Vec<Row> {
    let mut all = vec![];
    for piece in plan.split(workers).unwrap() {
        let piece = serde_json::from_str(&serde_json::to_string(&piece).unwrap()).unwrap();
        let batches: Vec<RecordBatch> = plan.execute(&piece).unwrap().try_collect().await.unwrap();
        all.extend(all_rows(&batches));
    }
    all
}

/// `rows` rows with keys 0, 1, 2 … in `buckets` buckets, pages of 10 rows and row groups of 100.
async fn numbers(store: &Arc<dyn ObjectStore>, path: &str, buckets: u32, rows: i128) -> Dataset {
    let fields =
        vec![field("k", DataType::Int64, false), field("v", DataType::Int32, true), field("s", DataType::Utf8, false)];
    let row = |k: i128| {
        let v = if k % 10 == 3 { Value::Null } else { int(k / 100) };
        vec![int(k), v, text(&format!("row {k} {}", "x".repeat(100)))]
    };
    let mut data = DatasetData::new(fields, &["k"], buckets, (0..rows).map(row).collect());
    data.writes[0].options = WriteOptions::default().with_page_rows(10).with_max_row_group_rows(100);
    data.write(store, path).await
}

/// Runs a plan; its rows and what it cost.
async fn run<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>) -> (Vec<Row>, sort_merge_bucket::SlotMetrics) {
    let mut stream = plan.stream(Parallelism::Available);
    let mut batches = vec![];
    while let Some(item) = stream.try_next().await.unwrap() {
        batches.push(item.item);
    }
    (all_rows(&batches), stream.metrics().total())
}

#[tokio::test]
async fn a_look_up_reads_the_pages_of_its_keys_and_no_others() {
    let store = store();
    let dataset = numbers(&store, "numbers", 4, 10_000).await;
    let (all, whole) = run(&Scan::new(&dataset).plan().unwrap()).await;
    assert_eq!((all.len(), whole.rows_read, whole.rows_made), (10_000, 10_000, 10_000));
    assert_eq!((whole.row_groups_pruned, whole.rows_pruned, whole.rows_filtered), (0, 0, 0));
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![5000, 17, 123_456, 17]));
    let plan = Scan::new(Source::from(&dataset).with_keys(keys)).plan().unwrap();
    let (found, look_up) = run(&plan).await;
    assert_eq!(found.iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), BTreeSet::from([int(17), int(5000)]));
    assert_eq!(look_up.rows_read, 2);
    // Of each run with a key: one row group, of which nine pages of ten rows are left out.
    assert_eq!(look_up.row_groups, 2, "{look_up:?}");
    assert_eq!(look_up.rows_filtered, 2 * 9, "{look_up:?}");
    assert!(look_up.bytes * 10 < whole.bytes, "{look_up:?} of {whole:?}");
}

#[tokio::test]
async fn predicates_leave_out_runs_row_groups_and_pages() {
    let store = store();
    let dataset = numbers(&store, "numbers", 4, 10_000).await;
    let filtered = |predicate: Predicate| Scan::new(Source::from(&dataset).with_filter(predicate)).plan().unwrap();
    // A key is in one bucket.
    let plan = filtered(Predicate::eq("k", 77));
    assert!(plan.to_string().contains("slots: 4 (3 skipped"), "{plan}");
    let (found, cost) = run(&plan).await;
    assert_eq!((found.len(), cost.runs, cost.row_groups), (1, 1, 1));
    // Keys of a range: the ends of each run's range, a row group or two.
    let (found, cost) = run(&filtered(Predicate::ge("k", 1000).and(Predicate::lt("k", 1100)))).await;
    assert_eq!((found.len(), cost.runs), (100, 4));
    assert!(cost.row_groups <= 8 && cost.row_groups_pruned >= 90, "{cost:?}");
    // Another column that ascends with the key: found by its own statistics.
    let (found, cost) = run(&filtered(Predicate::eq("v", 42))).await;
    assert_eq!(found.len(), 90);
    assert!(cost.row_groups <= 8 && cost.rows_pruned > 0, "{cost:?}");
    // Nothing is left of what no page may have.
    let (found, cost) = run(&filtered(Predicate::eq("v", 4242))).await;
    assert_eq!((found.len(), cost.row_groups), (0, 0));
    let (found, _) = run(&filtered(Predicate::is_null("v"))).await;
    assert_eq!(found.len(), 1000);
}

#[tokio::test]
async fn a_join_reads_of_the_other_side_what_the_restricted_side_has() {
    let store = store();
    let left = numbers(&store, "left", 4, 10_000).await;
    let right = numbers(&store, "right", 4, 10_000).await;
    let join = |filters| {
        let few = Source::from(&left).with_columns(["v"]).with_filter(Predicate::eq("v", 7));
        Join::inner(few, Source::from(&right).with_columns(["s"]))
            .with_options(PlanOptions::default().with_dynamic_filters(filters))
            .plan()
            .unwrap()
    };
    let (with, cost_with) = run(&join(DynamicFilters::Always)).await;
    let (without, cost_without) = run(&join(DynamicFilters::Never)).await;
    assert_eq!(with.len(), 90);
    assert_eq!(sorted(with), sorted(without));
    assert_eq!(cost_with.rows_read, 90 + 90, "{cost_with:?}");
    assert_eq!(cost_without.rows_read, 90 + 10_000, "{cost_without:?}");
    assert!(cost_with.row_groups * 4 < cost_without.row_groups, "{cost_with:?}, without {cost_without:?}");
}

#[tokio::test]
async fn restrictions_that_do_not_fit_are_reported_with_the_plan() {
    let store = store();
    let dataset = numbers(&store, "numbers", 2, 10).await;
    let refused = |source: Source, parts: &[&str]| {
        assert_error(&Scan::new(source).plan().unwrap_err(), ErrorKind::InvalidInput, parts);
    };
    let source = || Source::from(&dataset);
    refused(source().with_filter(Predicate::eq("nothing", 1)), &["source `source`", "column=`nothing`"]);
    refused(source().with_filter(Predicate::eq("v", "text")), &["no value of its type", "literal=`\"text\"`"]);
    refused(
        source().with_key_range(KeyRange::all().below(["text"])),
        &["end of a key range", "another type", "end=`\"text\"`"],
    );
    refused(source().with_key_range(KeyRange::all().below([1, 2])), &["end of a key range"]);
    let texts = KeySet::from(array_of(&DataType::Utf8, &[text("a")]));
    refused(source().with_keys(texts), &["not those of the key", "expected=`Int64`", "found=`Utf8`"]);
    // Keys of other integer types are as good, and those out of range are in no row.
    let wide = KeySet::from(array_of(&DataType::UInt8, &[int(3), int(200)]));
    assert_eq!(rows(&Scan::new(source().with_keys(wide)).plan().unwrap()).await.len(), 1);
}

#[tokio::test]
async fn the_types_of_a_filters_column_must_fit_together_even_if_it_is_not_returned() {
    let store = store();
    let dataset = async |path: &str, data_type: DataType, value: Value| {
        let fields = vec![field("k", DataType::Int64, false), field("x", data_type, false)];
        DatasetData::new(fields, &["k"], 1, vec![vec![int(1), value]]).write(&store, path).await
    };
    let numbers = dataset("numbers", DataType::Int64, int(5)).await;
    let texts = dataset("texts", DataType::Utf8, text("5")).await;
    let source = Source::new([numbers, texts]).with_columns(["k"]);
    assert_eq!(rows(&Scan::new(source.clone()).plan().unwrap()).await.len(), 2);
    let refused = Scan::new(source.with_filter(Predicate::eq("x", 5))).plan().unwrap_err();
    assert_error(&refused, ErrorKind::Incompatible, &["types of column `x` differ", "int64", "utf8"]);
}

#[tokio::test]
async fn nothing_is_opened_for_a_range_without_keys() {
    let store = store();
    let dataset = numbers(&store, "numbers", 4, 1000).await;
    let between = Predicate::gt("k", 500).and(Predicate::lt("k", 300));
    for source in [
        Source::from(&dataset).with_filter(between),
        Source::from(&dataset).with_key_range(KeyRange::all().starting_at([7]).below([7])),
        Source::from(&dataset).with_key_range(KeyRange::all().starting_at([1000])),
    ] {
        let plan = Scan::new(source).plan().unwrap();
        assert!(plan.to_string().contains("slots: 4 (4 skipped"), "{plan}");
        assert_eq!(run(&plan).await.1, sort_merge_bucket::SlotMetrics::default());
    }
}

#[tokio::test]
async fn any_number_of_tasks_may_be_asked_for() {
    let store = store();
    let dataset = numbers(&store, "numbers", 4, 100).await;
    let plan = Scan::new(&dataset).plan().unwrap();
    let items: Vec<_> = plan.stream(Parallelism::Slots(NonZeroUsize::MAX)).try_collect().await.unwrap();
    assert_eq!(items.iter().map(|item| item.item.num_rows()).sum::<usize>(), 100);
    assert!(plan.split(usize::MAX).unwrap().len() > 4);
}

#[tokio::test]
async fn looked_up_rows_come_bucket_by_bucket_in_key_order() {
    let store = store();
    let dataset = numbers(&store, "numbers", 4, 10_000).await;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..10_000).rev().step_by(7)));
    let found = all_rows([&dataset.get(keys).await.unwrap()]);
    let plan = Scan::new(&dataset).plan().unwrap();
    let wanted = |row: &Row| matches!(row[0], Value::Int(key) if (9_999 - key) % 7 == 0);
    let expected: Vec<Row> = rows_by_slot(&plan).await.into_iter().filter(wanted).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_large_slot_is_cut_and_a_hot_key_has_a_part_of_its_own() {
    let store = store();
    let fields = vec![field("k", DataType::Int64, false), field("v", DataType::Int64, false)];
    let hot = (0..4000).map(|v| vec![int(5), int(v)]);
    let others = (0..6000).map(|v| vec![int(v), int(v)]);
    let dataset = DatasetData::new(fields, &["k"], 1, hot.chain(others).collect()).write(&store, "hot").await;
    let plan = Scan::new(&dataset).plan().unwrap();
    let pieces_of = plan.split(8).unwrap();
    assert!(pieces_of.len() >= 5, "{pieces_of:?}");
    let alone = KeyRange::all().starting_at([5]).below([6]);
    assert!(pieces_of.iter().any(|piece| piece.key_range == alone), "{pieces_of:?}");
    assert_eq!(pieces(&plan, 8).await, rows_by_slot(&plan).await);
}

everywhere!(
    oracle_a_restricted_scan_returns_the_rows_that_satisfy_all,
    oracle_joins_of_restricted_sources_equal_the_shuffle_join,
    law_the_pieces_of_a_split_plan_are_its_rows_in_order,
    a_look_up_reads_the_pages_of_its_keys_and_no_others,
    predicates_leave_out_runs_row_groups_and_pages,
    a_join_reads_of_the_other_side_what_the_restricted_side_has,
);
