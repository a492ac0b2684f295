//! Sources: partitions by name and range, schemas that changed between datasets, projections.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{Dataset, ErrorKind, Join, Partitions, Scan, Source};

use crate::support::data::{DatasetData, SourceData};
use crate::support::oracle::{Row, Value, int, sorted, text};
use crate::support::{assert_error, block_on, config, everywhere, field, rows, store};

const SEEDS: &str = "proptest-regressions/integration/sources.txt";

/// A partition of plays: `count` rows of its own.
fn week(number: i128, buckets: u32, count: i128) -> DatasetData {
    let fields = vec![field("user", DataType::Int64, false), field("week", DataType::Int64, false)];
    DatasetData::new(fields, &["user"], buckets, (0..count).map(|user| vec![int(user % 10), int(number)]).collect())
}

async fn write_weeks(store: &Arc<dyn ObjectStore>) {
    for (number, buckets) in [(1, 4), (2, 4), (3, 8), (10, 6)] {
        week(number, buckets, 20).write(store, &format!("plays/week=2025-W{number:02}")).await;
    }
}

fn names(datasets: &[Dataset]) -> Vec<&str> {
    datasets.iter().map(|dataset| dataset.path().filename().unwrap()).collect()
}

#[tokio::test]
async fn partitions_are_chosen_by_range_and_name_and_joined_as_one_source() {
    let store = store();
    write_weeks(&store).await;
    // Neither is a partition.
    week(99, 4, 1).write(&store, "plays/_staging").await;
    week(99, 4, 1).write(&store, "plays/.hidden").await;
    week(99, 4, 1).write(&store, "other/week=2025-W01").await;

    let all = Partitions::list(Arc::clone(&store), "plays").await.unwrap();
    assert_eq!(all.names(), ["week=2025-W01", "week=2025-W02", "week=2025-W03", "week=2025-W10"]);
    let some = all.clone().range("week=2025-W02".."week=2025-W10").open().await.unwrap();
    assert_eq!(names(&some), ["week=2025-W02", "week=2025-W03"]);
    let named = all.clone().named(["week=2025-W10", "week=2025-W01"]).unwrap().open().await.unwrap();
    assert_eq!(names(&named), ["week=2025-W01", "week=2025-W10"]);
    let error = all.clone().named(["week=2025-W01", "week=2025-W04", "week=2025-W05"]).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["week=2025-W04, week=2025-W05"]);

    // 4, 4, 8 and 6 buckets meet in 2 slots.
    let plan = Scan::new(all.open().await.unwrap()).plan().unwrap();
    assert_eq!(plan.slots().get(), 2);
    let expected: Vec<Row> = [1, 2, 3, 10].into_iter().flat_map(|n| week(n, 1, 20).writes[0].rows.clone()).collect();
    let found = rows(&plan).await;
    assert_eq!(sorted(found.clone()), sorted(expected));
    // Rows of one key come in the order of the partitions.
    for pair in found.windows(2) {
        assert!(pair[0][0] != pair[1][0] || pair[0][1] <= pair[1][1], "{pair:?}");
    }
}

#[tokio::test]
async fn dropped_partitions_are_skipped_unless_asked_for_by_name() {
    let store = store();
    write_weeks(&store).await;
    Dataset::open(Arc::clone(&store), "plays/week=2025-W02").await.unwrap().drop_dataset().await.unwrap();
    let all = Partitions::list(Arc::clone(&store), "plays").await.unwrap();
    assert_eq!(names(&all.open().await.unwrap()), ["week=2025-W01", "week=2025-W03", "week=2025-W10"]);
    let error = all.named(["week=2025-W02"]).unwrap().open().await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["week=2025-W02"]);
    assert!(Partitions::list(store, "nothing/here").await.unwrap().open().await.unwrap().is_empty());
}

/// Three years of a table: a column came, a column went, integers and decimals grew.
fn evolved() -> SourceData {
    let key = field("user", DataType::Int32, false);
    let first = DatasetData::new(
        vec![key.clone(), field("ms", DataType::Int16, false), field("old", DataType::Utf8, false)],
        &["user"],
        2,
        vec![vec![int(1), int(-5), text("a")], vec![int(-2), int(6), text("b")]],
    );
    let second = DatasetData::new(
        vec![
            field("ms", DataType::UInt32, true),
            field("user", DataType::Int64, true),
            field("new", DataType::Decimal128(5, 1), false),
        ],
        &["user"],
        3,
        vec![
            vec![int(4_000_000_000), int(1), int(15)],
            vec![Value::Null, int(1 << 40), int(-15)],
            vec![int(0), Value::Null, int(0)],
        ],
    );
    let third = DatasetData::new(
        vec![field("new", DataType::Decimal128(30, 1), false), key],
        &["user"],
        4,
        vec![vec![int(10_i128.pow(29)), int(-2)], vec![int(0), int(1)]],
    );
    SourceData { datasets: vec![first, second, third], columns: None }
}

#[tokio::test]
async fn missing_columns_are_null_and_integers_and_decimals_widen() {
    let store = store();
    let source = evolved().write(&store, "plays").await;
    let plan = Scan::new(source.clone()).plan().unwrap();
    let shown: Vec<String> =
        plan.schema().fields().iter().map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable())).collect();
    assert_eq!(shown, ["user Int64 true", "ms Int64 true", "old Utf8View true", "new Decimal128(30, 1) true"]);
    let null = Value::Null;
    let expected = vec![
        vec![int(-2), int(6), text("b"), null.clone()],
        vec![int(-2), null.clone(), null.clone(), int(10_i128.pow(29))],
        vec![int(1), int(-5), text("a"), null.clone()],
        vec![int(1), int(4_000_000_000), null.clone(), int(15)],
        vec![int(1), null.clone(), null.clone(), int(0)],
        vec![int(1 << 40), null.clone(), null.clone(), int(-15)],
        vec![null.clone(), int(0), null.clone(), int(0)],
    ];
    assert_eq!(rows(&plan).await, expected);

    // Columns in the order that is asked for, after the key; of a dataset that has none of them only the key is read.
    let some = Scan::new(source.with_columns(["new", "old", "user"])).plan().unwrap();
    let names: Vec<&str> = some.schema().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["user", "new", "old"]);
    let projected = |row: &Row| vec![row[0].clone(), row[3].clone(), row[2].clone()];
    assert_eq!(rows(&some).await, expected.iter().map(projected).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_does_not_widen_is_one_error_that_lists_everything() {
    let store = store();
    let dataset = |types: [DataType; 3]| {
        let [key, a, b] = types;
        DatasetData::new(vec![field("k", key, true), field("a", a, true), field("b", b, true)], &["k"], 2, vec![])
    };
    let first = dataset([DataType::Int64, DataType::Int64, DataType::Float64]).write(&store, "t/1").await;
    let second = dataset([DataType::Utf8, DataType::UInt64, DataType::Int32]).write(&store, "t/2").await;
    let third = dataset([DataType::Date32, DataType::Int64, DataType::Timestamp(TimeUnit::Millisecond, None)]);
    let third = third.write(&store, "t/3").await;
    let source = Source::new([first.clone(), second.clone(), third]);
    let error = Scan::new(source).plan().unwrap_err();
    let parts = ["key types differ", "(t/1) column `k`: int64", "(t/2) column `k`: utf8", "(t/3) column `k`: date32"];
    assert_error(&error, ErrorKind::Incompatible, &parts);

    // With keys that agree, every other column is listed.
    let second = dataset([DataType::Int64, DataType::UInt64, DataType::Int32]).write(&store, "t/4").await;
    let source = Source::new([first, second]);
    let error = Scan::new(source.clone()).plan().unwrap_err();
    let parts = ["column `a`", "t/4: uint64, before: int64", "column `b`", "t/4: int32, before: float64"];
    assert_error(&error, ErrorKind::Incompatible, &parts);
    // Columns that nobody wants harm nobody.
    assert!(Scan::new(source.clone().with_columns(["k"])).plan().is_ok());
    let error = Scan::new(source.with_columns(["a", "c", "d"])).plan().unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["column `a`", "no column `c`", "no column `d`"]);
}

#[tokio::test]
async fn a_source_without_datasets_is_refused() {
    let store = store();
    let plays = week(1, 4, 3).write(&store, "plays").await;
    let error = Join::inner(&plays, Source::new([])).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["source `right` has no datasets"]);
    assert_error(&Scan::new(Source::new([])).plan().unwrap_err(), ErrorKind::InvalidInput, &["no datasets"]);
}

proptest! {
    #![proptest_config(config(24, SEEDS))]

    /// Any choice of the three generations in any order reads as the oracle says.
    #[test]
    fn oracle_datasets_of_different_schemas_read_as_one(picks in prop::collection::vec(0_usize..3, 1..5)) {
        block_on(async {
            let store = store();
            let all = evolved();
            let source = SourceData { datasets: picks.iter().map(|&at| all.datasets[at].clone()).collect(), columns: None };
            let plan = Scan::new(source.write(&store, "plays").await).plan().unwrap();
            assert_eq!(plan.schema().fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>(), source.fields(1));
            assert_eq!(sorted(rows(&plan).await), sorted(source.side(1).rows));
        });
    }
}

everywhere!(
    partitions_are_chosen_by_range_and_name_and_joined_as_one_source,
    dropped_partitions_are_skipped_unless_asked_for_by_name,
    oracle_datasets_of_different_schemas_read_as_one,
);
