//! Results written as datasets: buckets kept, key and order checked, nothing visible after a failure.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int64Type, Schema};
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{
    BucketCount, CoGroup, CoGroupBatch, Dataset, DatasetWriter, Error, ErrorKind, Join, JoinKind, Operation,
    PlanOptions, Result, Scan, Target, WriteId, WriteMode, WriteOptions, WritePhase, WriteProgress,
};

use crate::support::data::{DatasetData, Names, batch_of, shapes, sources};
use crate::support::oracle::{Row, int, sorted, text};
use crate::support::stores::TestStore;
use crate::support::{assert_error, assert_valid, block_on, config, everywhere, field, rows, store};

const SEEDS: &str = "proptest-regressions/integration/transform.txt";

fn count(n: u32) -> BucketCount {
    NonZeroU32::new(n).unwrap()
}

proptest! {
    #![proptest_config(config(40, SEEDS))]

    /// A join of any kind, written with a bucket count that divides the slots, equals them or is a multiple, reads back as it was.
    #[test]
    fn oracle_a_join_written_as_a_dataset_reads_back_as_the_join(
        (left, right) in shapes().prop_flat_map(|shape| (
            sources(shape.clone(), Names { order: "", payload: "p" }, 20),
            sources(shape, Names { order: "r", payload: "q" }, 20),
        )),
        kind in prop::sample::select(JoinKind::ALL.to_vec()),
        factor in 1_u32..4,
        divide in any::<bool>(),
        batch_size in prop::sample::select(vec![1_usize, 7, 50, 8192]),
    ) {
        block_on(async {
            let store = store();
            let (left, right) = (left.write(&store, "left").await, right.write(&store, "right").await);
            let options = PlanOptions::default().with_batch_size(batch_size);
            let plan = Join::new(kind, left.clone(), right.clone()).with_options(options).plan().unwrap();
            let slots = plan.slots().get();
            let buckets = if divide { (1..=slots).filter(|n| slots.is_multiple_of(*n)).nth((factor - 1) as usize).unwrap_or(slots) } else { slots * factor };
            let target = Target::new(Arc::clone(&store), "result")
                .with_buckets(count(buckets))
                .with_options(WriteOptions::default().with_max_row_group_rows(11));
            let result = plan.transform(target, Ok).await.unwrap();
            assert_eq!(result.schema(), plan.schema());
            assert_eq!((result.spec().buckets().get(), result.spec().key()), (buckets, plan.key()));
            assert_valid(&result).await;
            let expected = sorted(rows(&plan).await);
            let scan = Scan::new(&result).plan().unwrap();
            assert_eq!(sorted(rows(&scan).await), expected);
            // What is written joins again: every result row with a key finds itself.
            let keyed = expected.iter().filter(|row| !row[..plan.key().len()].contains(&crate::support::oracle::Value::Null));
            let again = Join::left_semi(&result, &result).plan().unwrap();
            assert_eq!(sorted(rows(&again).await), keyed.cloned().collect::<Vec<_>>());
        });
    }
}

fn plays(buckets: u32) -> DatasetData {
    let fields = vec![
        field("user", DataType::Int64, true),
        field("at", DataType::Int64, false),
        field("ms", DataType::Int64, false),
    ];
    let rows = (0..200).map(|at| vec![int(at % 23), int(at), int(at * 10)]).collect();
    DatasetData::new(fields, &["user"], buckets, rows).with_sort(&["at"])
}

fn users(buckets: u32) -> DatasetData {
    let fields = vec![field("user", DataType::Int64, false), field("name", DataType::Utf8, false)];
    let row = |user: i128| vec![int(user), text(&format!("user {user}"))];
    DatasetData::new(fields, &["user"], buckets, (0..20).map(row).collect())
}

/// Per user the number of plays and their sum: one row per group.
fn summarise(batch: &CoGroupBatch) -> Result<RecordBatch> {
    let plays = batch.rows("plays").unwrap();
    let ms = plays.column_by_name("ms").unwrap().as_primitive::<Int64Type>();
    let sums: Vec<i64> =
        batch.groups().map(|group| group.range("plays").unwrap().map(|row| ms.value(row)).sum()).collect();
    let counts: Vec<u64> = batch.groups().map(|group| group.range("plays").unwrap().len() as u64).collect();
    let mut columns: Vec<ArrayRef> = batch.keys().columns().to_vec();
    columns.push(Arc::new(UInt64Array::from(counts)));
    columns.push(Arc::new(Int64Array::from(sums)));
    Ok(RecordBatch::try_new(Arc::new(summary_schema()), columns)?)
}

fn summary_schema() -> Schema {
    Schema::new(vec![
        field("user", DataType::Int64, true),
        field("plays", DataType::UInt64, false),
        field("ms", DataType::Int64, false),
    ])
}

#[tokio::test]
async fn a_co_group_becomes_a_summary_that_joins_again() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let users = users(8).write(&store, "users").await;
    let plan = CoGroup::new().source("plays", &plays).source("users", &users).plan().unwrap();
    let target = Target::new(Arc::clone(&store), "summary")
        .with_schema(Arc::new(summary_schema()))
        .with_buckets(count(12))
        .with_property("owner", "charts");
    let summary = plan.transform(target, |batch| summarise(&batch)).await.unwrap();
    assert_valid(&summary).await;
    assert_eq!(summary.properties()["owner"], "charts");
    let lineage: Vec<(&str, u64, u64)> =
        summary.lineage().iter().map(|l| (l.path.as_str(), l.version, l.data_version)).collect();
    assert_eq!(lineage, [("plays", 1, 1), ("users", 1, 1)]);
    assert_eq!(summary.lineage()[0].dataset_id, *plays.id());

    let expected: Vec<Row> = (0..23)
        .map(|user| {
            let own: Vec<i128> = (0..200).filter(|at| at % 23 == user).collect();
            vec![int(user), int(own.len() as i128), int(own.iter().map(|at| at * 10).sum())]
        })
        .collect();
    assert_eq!(sorted(rows(&Scan::new(&summary).plan().unwrap()).await), expected);
    let again = Join::inner(&users, &summary).plan().unwrap();
    assert_eq!(again.slots().get(), 4);
    let found = sorted(rows(&again).await);
    assert_eq!(found.len(), 20);
    assert_eq!(found[3], [int(3), text("user 3"), expected[3][1].clone(), expected[3][2].clone()]);
}

#[tokio::test]
async fn a_join_on_sort_columns_keeps_them_in_its_spec() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let plan = Join::left_anti(&plays, &plays).with_sort_columns(1).plan().unwrap();
    let none = plan.transform(Target::new(Arc::clone(&store), "none"), Ok).await.unwrap();
    assert_eq!(
        (none.spec().key(), none.spec().sort_columns().len(), none.statistics().rows),
        (&["user".to_owned()][..], 1, 0)
    );
    let plan = Join::left_semi(&plays, &plays).with_sort_columns(1).plan().unwrap();
    let all = plan.transform(Target::new(Arc::clone(&store), "all").with_buckets(count(2)), Ok).await.unwrap();
    assert_eq!(all.spec().sort_columns()[0].name, "at");
    assert_valid(&all).await;
    let both = Join::inner(&plays, &all).with_sort_columns(1).with_right_prefix("r.").plan().unwrap();
    assert_eq!(rows(&both).await.len(), 200);
}

#[tokio::test]
async fn many_runs_become_one_per_bucket_by_a_transformed_scan() {
    let store = store();
    let mut data = plays(4);
    for n in 0..5 {
        data = data.and_write(4, (0..50).map(|at| vec![int(at % 23), int(1000 * n + at), int(1)]).collect());
    }
    let plays = data.write(&store, "plays").await;
    assert!(plays.statistics().runs > 20);
    let plan = Scan::new(&plays).plan().unwrap();
    let before = sorted(rows(&plan).await);
    let target = Target::new(Arc::clone(&store), "plays").with_mode(WriteMode::Replace);
    let after = plan.transform(target, Ok).await.unwrap();
    assert_eq!((after.statistics().runs, after.version(), after.operation()), (4, 7, Operation::Replace));
    assert_eq!(sorted(rows(&Scan::new(&after).plan().unwrap()).await), before);
    // The plan still reads the version that it was made over.
    assert_eq!(sorted(rows(&plan).await), before);
}

#[tokio::test]
async fn a_target_that_was_read_must_not_have_changed_since() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let plan = Scan::new(&plays).plan().unwrap();
    append(&store, "plays", 1).await;
    let target = Target::new(Arc::clone(&store), "plays").with_mode(WriteMode::Replace);
    let error = plan.transform(target, Ok).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let newest = Dataset::open(store, "plays").await.unwrap();
    assert_eq!((newest.version(), newest.statistics().rows), (2, 201));
}

async fn append(store: &Arc<dyn ObjectStore>, path: &str, rows: i128) {
    let data = plays(4);
    let mut writer = DatasetWriter::builder(Arc::clone(store), path, data.schema(), data.spec(4))
        .with_mode(WriteMode::Append)
        .build()
        .await
        .unwrap();
    let rows: Vec<Row> = (0..rows).map(|at| vec![int(at), int(at), int(at)]).collect();
    writer.write(&batch_of(&data.schema(), &rows)).await.unwrap();
    writer.commit().await.unwrap();
}

/// Runs a scan of plays through a function that must not be accepted; says why, after checking that nothing of it is left.
async fn refused(buckets: u32, function: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static) -> Error {
    let store = TestStore::new();
    let plays = plays(4).write(&(Arc::clone(&store) as _), "plays").await;
    let plan = Scan::new(&plays).plan().unwrap();
    let before = store.objects().await;
    let target = Target::new(Arc::clone(&store) as _, "result").with_buckets(count(buckets));
    let error = plan.transform(target, function).await.unwrap_err();
    assert_eq!(store.objects().await, before, "a failed transform leaves nothing behind");
    assert_eq!(Dataset::open(store, "result").await.unwrap_err().kind(), ErrorKind::NotFound);
    error
}

fn with_user(batch: &RecordBatch, change: impl Fn(i64) -> i64) -> RecordBatch {
    let users: Int64Array = batch.column(0).as_primitive::<Int64Type>().unary(change);
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(users);
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test]
async fn a_function_that_changes_the_key_is_refused_as_misplaced() {
    for buckets in [2, 4, 8] {
        let error = refused(buckets, |batch| Ok(with_user(&batch, |user| user + 1))).await;
        assert_error(&error, ErrorKind::Misplaced, &["key=`", "path=`result`", "row=`"]);
    }
}

#[tokio::test]
async fn a_function_that_changes_the_order_is_refused_as_unsorted() {
    for buckets in [1, 2, 4, 8] {
        let backwards = |batch: RecordBatch| {
            let rows: Vec<u64> = (0..batch.num_rows() as u64).rev().collect();
            Ok(take_record_batch(&batch, &UInt64Array::from(rows))?)
        };
        let error = refused(buckets, backwards).await;
        assert_error(&error, ErrorKind::Unsorted, &["path=`result/data/", "row=`"]);
    }
}

#[tokio::test]
async fn a_function_that_fails_or_panics_or_returns_other_columns_fails_the_transform() {
    let error = refused(4, |_| Err(Error::external("no more"))).await;
    assert_error(&error, ErrorKind::External, &[]);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no more");
    let error = refused(4, |batch| Ok(batch.project(&[0, 1])?)).await;
    assert_error(&error, ErrorKind::InvalidInput, &["other columns"]);
    let error =
        refused(4, |batch| if batch.num_rows() > 1 { panic!("a bug of the caller's") } else { Ok(batch) }).await;
    assert_error(&error, ErrorKind::Internal, &[]);
}

#[tokio::test]
async fn bucket_counts_that_do_not_fit_the_slots_and_missing_keys_are_refused() {
    for buckets in [3, 5, 6, 7] {
        let error = refused(buckets, Ok).await;
        assert_error(&error, ErrorKind::InvalidInput, &[&format!("buckets=`{buckets}`"), "slots=`4`"]);
    }
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let schema = Arc::new(Schema::new(vec![field("listener", DataType::Int64, true)]));
    let target = Target::new(Arc::clone(&store), "result").with_schema(schema);
    let error = Scan::new(&plays).plan().unwrap().transform(target, Ok).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["`user` is not in the schema"]);
    let target = Target::new(Arc::clone(&store), "plays");
    let error = Scan::new(&plays).plan().unwrap().transform(target, Ok).await.unwrap_err();
    assert_error(&error, ErrorKind::Conflict, &["exists already"]);
}

#[tokio::test]
async fn a_function_may_drop_rows_and_return_nothing_at_all() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let plan = Scan::new(&plays).plan().unwrap();
    let keep_even = |batch: RecordBatch| {
        let even = batch.column(1).as_primitive::<Int64Type>();
        let rows: Vec<u64> = (0..batch.num_rows() as u64).filter(|&row| even.value(row as usize) % 2 == 0).collect();
        Ok(take_record_batch(&batch, &UInt64Array::from(rows))?)
    };
    let half = plan.transform(Target::new(Arc::clone(&store), "half"), keep_even).await.unwrap();
    assert_eq!(half.statistics().rows, 100);
    assert_valid(&half).await;
    let nothing =
        plan.transform(Target::new(Arc::clone(&store), "nothing"), |batch| Ok(batch.slice(0, 0))).await.unwrap();
    assert_eq!((nothing.statistics().runs, nothing.version()), (0, 1));
    assert!(rows(&Scan::new(&nothing).plan().unwrap()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_transform_never_goes_back_and_ends_with_its_summary() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let plan = Scan::new(&plays).with_options(PlanOptions::default().with_batch_size(10)).plan().unwrap();
    for buckets in [1, 2, 4, 12] {
        let log: Arc<Mutex<Vec<WriteProgress>>> = Arc::default();
        let logged = Arc::clone(&log);
        let target = Target::new(Arc::clone(&store), format!("copy-{buckets}"))
            .with_buckets(count(buckets))
            .with_progress(move |now| logged.lock().unwrap().push(*now));
        let (copy, summary) = plan.transform_with_summary(target, Ok).await.unwrap();
        let statistics = copy.statistics();
        assert_eq!((summary.rows, summary.bytes, summary.runs), (200, statistics.bytes, statistics.runs));
        assert_eq!((summary.buckets, summary.spills), (count(buckets), 0));
        let log = std::mem::take(&mut *log.lock().unwrap());
        let numbers =
            |now: &WriteProgress| [now.rows_taken, now.rows_encoded, now.bytes_uploaded, now.runs_finished, now.runs];
        for pair in log.windows(2) {
            assert!(numbers(&pair[0]).iter().zip(numbers(&pair[1])).all(|(a, b)| *a <= b), "{pair:?}");
            assert!(pair[1].rows_encoded <= pair[1].rows_taken, "{pair:?}");
        }
        assert_eq!(numbers(log.last().unwrap()), [200, 200, summary.bytes, summary.runs, summary.runs]);
        let mut phases: Vec<WritePhase> = log.iter().map(|now| now.phase).collect();
        phases.dedup();
        assert_eq!(phases, [WritePhase::Encoding, WritePhase::Committing, WritePhase::Done]);
        assert!(log.len() > 20, "{} reports", log.len());
    }
}

#[tokio::test]
async fn a_progress_function_that_panics_fails_the_transform() {
    for phase in [WritePhase::Encoding, WritePhase::Committing] {
        let store = TestStore::new();
        let plays = plays(4).write(&(Arc::clone(&store) as _), "plays").await;
        let before = store.objects().await;
        let target = Target::new(Arc::clone(&store) as _, "copy").with_progress(move |now| assert!(now.phase != phase));
        let error = Scan::new(&plays).plan().unwrap().transform(target, Ok).await.unwrap_err();
        assert_error(&error, ErrorKind::Internal, &["the progress function panicked"]);
        assert_eq!(store.objects().await, before);
    }
}

#[tokio::test]
async fn a_transform_that_runs_again_under_its_write_id_does_nothing() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let plan = Scan::new(&plays).plan().unwrap();
    let target = || {
        Target::new(Arc::clone(&store), "copy")
            .with_mode(WriteMode::Append)
            .with_write_id(WriteId::new("job-7").unwrap())
    };
    let first = plan.transform(target(), Ok).await.unwrap();
    let second = plan.transform(target(), Ok).await.unwrap();
    assert_eq!((first.version(), second.version(), second.statistics().rows), (1, 1, 200));
    let other = plan.transform(target().with_write_id(WriteId::new("job-8").unwrap()), Ok).await.unwrap();
    assert_eq!((other.version(), other.statistics().rows), (2, 400));
    let nulls = other.schema().fields().iter().filter(|f| f.is_nullable()).count();
    assert_eq!(nulls, 1);
    assert!(
        !rows(&Scan::new(&other).plan().unwrap())
            .await
            .iter()
            .flatten()
            .any(|v| *v == crate::support::oracle::Value::Null)
    );
}

everywhere!(
    oracle_a_join_written_as_a_dataset_reads_back_as_the_join,
    a_co_group_becomes_a_summary_that_joins_again,
    many_runs_become_one_per_bucket_by_a_transformed_scan,
    a_target_that_was_read_must_not_have_changed_since,
    a_function_that_fails_or_panics_or_returns_other_columns_fails_the_transform,
    a_transform_that_runs_again_under_its_write_id_does_nothing,
);
