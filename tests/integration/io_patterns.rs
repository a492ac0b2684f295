//! Which requests are made: the executable form of "no shuffle". A slot reads its own runs, of them the footer and the wanted columns, each byte
//! once, and nothing is ever listed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sort_merge_bucket::{
    CoGroup, Dataset, DatasetWriter, Encoding, Join, JoinKind, Parallelism, Partitions, Plan, PlanOperation,
    PlanOptions, Scan, Source, Target, WriteMode, WriteOptions,
};

use crate::support::data::{DatasetData, Write, batch_of};
use crate::support::forge::manifest_path;
use crate::support::oracle::{Row, int, text};
use crate::support::stores::{Request, TestStore, put, read};
use crate::support::{everywhere, field, try_run};

/// Two runs of several row groups in every bucket, a wide column beside the key.
fn wide(name: &str, buckets: u32) -> DatasetData {
    let fields = vec![
        field(&format!("{name}_wide"), DataType::Utf8, false),
        field("k", DataType::Int64, false),
        field(&format!("{name}_narrow"), DataType::Int64, false),
    ];
    let row = |at: i128| -> Row { vec![text(&format!("{at} {}", "w".repeat(60))), int(at % 300), int(at)] };
    let write = |from: i128| Write {
        options: WriteOptions::default().with_max_row_group_rows(20).with_encoding(Encoding::Plain),
        ..Write::new(buckets, (from..from + 600).map(row).collect())
    };
    DatasetData { writes: vec![write(0), write(1000)], ..DatasetData::new(fields, &["k"], buckets, vec![]) }
}

async fn setup(left: u32, right: u32) -> (Arc<TestStore>, Dataset, Dataset) {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let (left, right) =
        (wide("l", left).write(&dynamic, "left").await, wide("r", right).write(&dynamic, "right").await);
    store.take_log();
    (store, left, right)
}

fn shown(log: &[Request]) -> Vec<String> {
    log.iter().map(Request::to_string).collect()
}

/// The ranges that were read of each object.
fn read_ranges(log: &[Request]) -> BTreeMap<String, Vec<Range<u64>>> {
    let mut ranges: BTreeMap<String, Vec<Range<u64>>> = BTreeMap::new();
    for Request { verb, path, ranges: own } in log {
        assert!(["GET", "RANGES"].contains(verb) && !own.is_empty(), "a plan makes range reads only: {verb} {path}");
        ranges.entry(path.clone()).or_default().extend(own.iter().cloned());
    }
    ranges
}

/// Asserts that of a run the footer was read once and of its other bytes exactly the chunks of these columns, each once.
async fn assert_read_once(
    store: &Arc<TestStore>,
    dataset: &Dataset,
    run: usize,
    ranges: &[Range<u64>],
    columns: &[&str],
) {
    let path = dataset.run_paths().nth(run).unwrap();
    let run = &dataset.runs()[run];
    let bytes = read(&(Arc::clone(store) as _), path.as_ref()).await;
    let metadata = Arc::clone(ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().metadata());
    let footer = run.bytes - run.footer_bytes;
    let mut expected = vec![];
    expected.push(footer..run.bytes);
    assert!(metadata.num_row_groups() > 1);
    for group in metadata.row_groups() {
        for column in group.columns().iter().filter(|c| columns.contains(&c.column_path().string().as_str())) {
            let (start, length) = column.byte_range();
            expected.push(start..start + length);
        }
    }
    let mut found = ranges.to_vec();
    found.sort_by_key(|range| range.start);
    expected.sort_by_key(|range| range.start);
    assert_eq!(found, expected, "{path}");
}

/// Runs one slot to its end; the number of rows.
async fn run_slot<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>, slot: u32) -> usize {
    let batches: Vec<RecordBatch> = plan.execute(&plan.slot(slot).unwrap()).unwrap().try_collect().await.unwrap();
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn opening_is_three_requests_however_many_versions_and_runs_there_are() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let data = wide("l", 4);
    for version in 1..=30 {
        let builder = DatasetWriter::builder(Arc::clone(&dynamic), "d", data.schema(), data.spec(4));
        let mut writer = builder.with_mode(WriteMode::Append).build().await.unwrap();
        writer.write(&batch_of(&data.schema(), &data.writes[0].rows[..10])).await.unwrap();
        writer.commit().await.unwrap();
        store.take_log();
        Dataset::open(Arc::clone(&dynamic), "d").await.unwrap();
        let mut log = shown(&store.take_log());
        log.sort();
        let manifest = |version: u64| format!("GET d/_smb/{version:020}.json");
        assert_eq!(log, [manifest(version), manifest(version + 1), "GET d/_smb/latest".to_owned()]);
    }
    Dataset::open_version(Arc::clone(&dynamic), "d", 7).await.unwrap();
    assert_eq!(shown(&store.take_log()), ["GET d/_smb/00000000000000000007.json"]);
}

#[tokio::test]
async fn opening_the_ten_thousandth_version_is_as_many_requests_as_opening_the_first() {
    const VERSIONS: u64 = 10_000;
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    wide("l", 4).write(&dynamic, "d").await;
    let first = read(&dynamic, &manifest_path("d", 1)).await;
    let mut manifest: serde_json::Value = serde_json::from_slice(&first).unwrap();
    for version in 2..=VERSIONS {
        manifest["version"] = version.into();
        manifest["base"] = (version - 1).into();
        manifest["data_version"] = version.into();
        manifest["recent_writes"][0]["version"] = version.into();
        put(&dynamic, &manifest_path("d", version), serde_json::to_vec(&manifest).unwrap()).await;
    }
    let mut requests = vec![];
    for hint in [Some(VERSIONS), Some(VERSIONS - 1), Some(VERSIONS - 100), Some(1), Some(VERSIONS + 5), None] {
        match hint {
            Some(hint) => put(&dynamic, "d/_smb/latest", format!("{hint}\n")).await,
            None => dynamic.delete(&"d/_smb/latest".into()).await.unwrap(),
        }
        store.take_log();
        let dataset = Dataset::open(Arc::clone(&dynamic), "d").await.unwrap();
        assert_eq!(dataset.version(), VERSIONS);
        let log = store.take_log();
        assert!(log.iter().all(|request| ["GET", "HEAD"].contains(&request.verb)), "{}", shown(&log).join(", "));
        requests.push(log.len());
    }
    println!("requests: {requests:?}");
    // With the hint of the last commit; of the one before, whose hint was lost; and beyond these in numbers that grow with the logarithm of the distance.
    assert_eq!(requests[..2], [3, 4]);
    assert!(requests[2..].iter().all(|requests| *requests <= 8 + 2 * VERSIONS.ilog2() as usize), "{requests:?}");
}

#[tokio::test]
async fn planning_and_explaining_read_nothing() {
    let (store, left, right) = setup(4, 6).await;
    let plan = Join::inner(&left, &right).plan().unwrap();
    let _ = plan.to_string();
    for slot in 0..plan.slots().get() {
        let _ = plan.execute(&plan.slot(slot).unwrap()).unwrap();
    }
    CoGroup::new().source("l", &left).source("r", &right).plan_chunks().unwrap();
    assert_eq!(shown(&store.take_log()), Vec::<String>::new());
}

#[tokio::test]
async fn slot_3_of_a_join_reads_its_own_buckets_footers_and_wanted_columns_each_byte_once() {
    // 8 and 12 buckets meet in 4 slots: slot 3 reads the buckets 3 and 7, and 3, 7 and 11.
    let (store, left, right) = setup(8, 12).await;
    let narrow = |dataset: &Dataset, name: &str| Source::from(dataset).with_columns([name]);
    let plan = Join::full(narrow(&left, "l_narrow"), narrow(&right, "r_narrow")).plan().unwrap();
    assert_eq!(plan.slots().get(), 4);
    assert!(run_slot(&plan, 3).await > 0);
    let log = store.take_log();
    let read = read_ranges(&log);
    let mut own = BTreeSet::new();
    for (dataset, column) in [(&left, "l_narrow"), (&right, "r_narrow")] {
        for (at, run) in dataset.runs().iter().enumerate().filter(|(_, run)| run.bucket % 4 == 3) {
            let path = dataset.run_paths().nth(at).unwrap().to_string();
            assert_read_once(&store, dataset, at, &read[&path], &["k", column]).await;
            assert!([3, 7, 11].contains(&run.bucket));
            own.insert(path);
        }
    }
    assert_eq!(own.len(), 2 * 2 + 2 * 3);
    assert_eq!(read.keys().cloned().collect::<BTreeSet<_>>(), own, "files of other slots were read");
    // One request for the footer, one per row group.
    let gets = log.iter().filter(|request| request.verb == "GET").count();
    assert_eq!(gets, own.len());
}

#[tokio::test]
async fn all_slots_together_read_every_run_once_whatever_the_plan() {
    let (store, left, right) = setup(8, 12).await;
    let all = ["l_wide", "k", "l_narrow", "r_wide", "r_narrow"];
    let check = async |plan: String| {
        let log = store.take_log();
        let read = read_ranges(&log);
        assert_eq!(read.len(), left.runs().len() + right.runs().len(), "{plan}");
        for dataset in [&left, &right] {
            for (at, path) in dataset.run_paths().enumerate() {
                assert_read_once(&store, dataset, at, &read[path.as_ref()], &all).await;
            }
        }
        store.take_log();
    };
    let plan = Join::full(&left, &right).plan().unwrap();
    try_run(&plan, 2).await.unwrap();
    check(plan.to_string()).await;
    let plan = CoGroup::new().source("l", &left).source("r", &right).plan().unwrap();
    try_run(&plan, 3).await.unwrap();
    check(plan.to_string()).await;
    let plan = CoGroup::new().source("l", &left).source("r", &right).plan_chunks().unwrap();
    try_run(&plan, 1).await.unwrap();
    check(plan.to_string()).await;
}

#[tokio::test]
async fn a_scan_of_the_key_alone_reads_the_key_alone() {
    let (store, left, _) = setup(8, 1).await;
    let plan = Scan::new(Source::from(&left).with_columns(Vec::<String>::new())).plan().unwrap();
    try_run(&plan, 2).await.unwrap();
    let read = read_ranges(&store.take_log());
    for (at, path) in left.run_paths().enumerate() {
        assert_read_once(&store, &left, at, &read[path.as_ref()], &["k"]).await;
    }
    // The point of it: of the pages, little.
    let total: u64 = read.values().flatten().map(|range| range.end - range.start).sum();
    let footers: u64 = left.runs().iter().map(|run| run.footer_bytes).sum();
    let (pages, all) = (total - footers, left.statistics().bytes - footers);
    assert!(pages * 3 < all, "{pages} of {all} bytes");
}

#[tokio::test]
async fn slots_whose_other_side_is_empty_are_not_read() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let all = wide("l", 8).write(&dynamic, "all").await;
    let mut one = wide("r", 8);
    one.writes.truncate(1);
    one.writes[0].rows.truncate(1);
    let one = one.write(&dynamic, "one").await;
    let bucket = one.runs()[0].bucket;
    store.take_log();
    for (kind, reads_all) in [
        (JoinKind::Inner, false),
        (JoinKind::LeftSemi, false),
        (JoinKind::RightSemi, false),
        (JoinKind::Right, false),
        (JoinKind::RightAnti, false),
        (JoinKind::Left, true),
        (JoinKind::Full, true),
        (JoinKind::LeftAnti, true),
    ] {
        let plan = Join::new(kind, &all, &one).plan().unwrap();
        try_run(&plan, 2).await.unwrap();
        let read = read_ranges(&store.take_log());
        let buckets: BTreeSet<u32> = all
            .runs()
            .iter()
            .zip(all.run_paths())
            .filter(|(_, path)| read.contains_key(path.as_ref()))
            .map(|(run, _)| run.bucket)
            .collect();
        let expected = if reads_all { (0..8).collect() } else { BTreeSet::from([bucket]) };
        assert_eq!(buckets, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_plan_that_is_dropped_stops_reading() {
    let (store, left, right) = setup(8, 12).await;
    let plan = Join::full(&left, &right).plan().unwrap();
    let mut items = plan.stream(Parallelism::Slots(NonZeroUsize::MIN));
    items.try_next().await.unwrap();
    drop(items);
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.take_log();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shown(&store.take_log()), Vec::<String>::new());
}

#[tokio::test]
async fn a_write_puts_each_run_the_manifest_and_the_hint_and_lists_nothing() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let data = wide("l", 4);
    let dataset = DatasetData { writes: vec![data.writes[0].clone()], ..data.clone() }.write(&dynamic, "d").await;
    let log = shown(&store.take_log());
    let puts: Vec<&String> = log.iter().filter(|request| request.starts_with("PUT")).collect();
    let manifest = "PUT d/_smb/00000000000000000001.json";
    // The first manifest is put twice, to see that the store minds the condition.
    assert_eq!(puts[4..], [manifest, manifest, "PUT d/_smb/latest"]);
    let runs: BTreeSet<String> = dataset.run_paths().map(|path| format!("PUT {path}")).collect();
    assert_eq!(puts[..4].iter().map(|put| (*put).clone()).collect::<BTreeSet<_>>(), runs);
    assert!(log.iter().all(|request| request.starts_with("PUT") || request.starts_with("GET d/_smb/")), "{log:?}");

    let plan = Scan::new(&dataset).plan().unwrap();
    plan.transform(Target::new(Arc::clone(&dynamic), "copy"), Ok).await.unwrap();
    let log = shown(&store.take_log());
    assert!(!log.iter().any(|request| request.starts_with("LIST") || request.starts_with("HEAD")), "{log:?}");
    assert_eq!(log.iter().filter(|request| request.starts_with("PUT")).count(), 4 + 3);
}

#[tokio::test]
async fn finding_partitions_is_one_listing_and_three_requests_for_each() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    for week in 1..=5 {
        wide("l", 2).write(&dynamic, &format!("plays/week={week}")).await;
    }
    store.take_log();
    let some = Partitions::list(Arc::clone(&dynamic), "plays").await.unwrap().range("week=2"..="week=3");
    assert_eq!(shown(&store.take_log()), ["LIST plays"]);
    assert_eq!(some.open().await.unwrap().len(), 2);
    let log = shown(&store.take_log());
    assert_eq!(log.len(), 2 * 3, "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_come_next_are_fetched_while_others_run() {
    let (store, left, right) = setup(16, 16).await;
    // Two runs of either side in a slot, and of each run one request at a time, or two while a row group is read ahead.
    const RUNS: usize = 4;
    for (prefetch, least, most) in [(0, 2 * RUNS, 4 * RUNS), (2, 6 * RUNS, 8 * RUNS)] {
        let options = PlanOptions::default().with_prefetch(prefetch);
        let plan = Join::inner(&left, &right).with_options(options).plan().unwrap();
        store.slow_down(Duration::from_millis(50));
        store.take_most_in_flight();
        let rows: Vec<_> = plan.stream(Parallelism::Slots(NonZeroUsize::new(2).unwrap())).try_collect().await.unwrap();
        assert!(!rows.is_empty());
        let found = store.take_most_in_flight();
        assert!((least..=most).contains(&found), "{found} requests in flight with a prefetch of {prefetch}");
        store.slow_down(Duration::ZERO);
    }
}

#[tokio::test]
async fn runs_of_disjoint_keys_are_opened_late_and_closed_early() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let fields = || vec![field("k", DataType::Int64, false), field("v", DataType::Int64, false)];
    let mut hours = vec![];
    // Keys that go on from hour to hour, but for one hour that was written again.
    for hour in [0, 1, 2, 3, 4, 5, 6, 7, 4] {
        let rows = (0..100).map(|at| vec![int(hour * 100 + at), int(at)]).collect();
        let options = WriteOptions::default().with_max_row_group_rows(20);
        let data = DatasetData {
            writes: vec![Write { options, ..Write::new(1, rows) }],
            ..DatasetData::new(fields(), &["k"], 1, vec![])
        };
        hours.push(data.write(&dynamic, &format!("hour={}", hours.len())).await);
    }
    store.take_log();
    let plan = Scan::new(Source::new(hours)).plan().unwrap();
    assert_eq!(run_slot(&plan, 0).await, 900);
    let log = store.take_log();
    let hour_of = |request: &Request| request.path.split('/').next().unwrap_or_default().to_owned();
    let first = |hour: usize| log.iter().position(|r| hour_of(r) == format!("hour={hour}")).unwrap();
    let last = |hour: usize| log.iter().rposition(|r| hour_of(r) == format!("hour={hour}")).unwrap();
    for hour in 0..7 {
        assert!(first(hour + 1) > last(hour), "hour {} was opened before hour {hour} was read", hour + 1);
    }
    assert!(first(8) < last(0), "a run that overlaps others is an input of its own");
}

everywhere!(
    opening_is_three_requests_however_many_versions_and_runs_there_are,
    slot_3_of_a_join_reads_its_own_buckets_footers_and_wanted_columns_each_byte_once,
    a_write_puts_each_run_the_manifest_and_the_hint_and_lists_nothing,
    finding_partitions_is_one_listing_and_three_requests_for_each,
);
