//! Requests as they come over the wire to an S3 server, which is what a bill counts: their number, their bytes, and that none is a listing or
//! asks for what is known.
//!
//! `io_patterns` holds what is asked of a store; here, what its client makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use sort_merge_bucket::{Dataset, DatasetWriter, Join, Location, Source, WriteMode};

use crate::support::data::{DatasetData, batch_of};
use crate::support::oracle::{Row, int, text};
use crate::support::s3::{BUCKET, Exchange, Server};
use crate::support::{field, try_run};

const BUCKETS: u32 = 4;
const ROWS: i128 = 4000;

/// One run in each bucket, a few columns.
fn data(name: &str) -> DatasetData {
    let fields = vec![
        field("k", DataType::Int64, false),
        field(&format!("{name}_number"), DataType::Int64, false),
        field(&format!("{name}_text"), DataType::Utf8, false),
    ];
    let row = |k: i128| -> Row { vec![int(k), int(k * 7 % 1000), text(&format!("{name} number {k}"))] };
    DatasetData::new(fields, &["k"], BUCKETS, (0..ROWS).map(row).collect())
}

async fn write(place: &Location, name: &str, mode: WriteMode, rows: usize) -> Dataset {
    let data = data(name);
    let builder = DatasetWriter::builder(place.store(), place.join(name), data.schema(), data.spec(BUCKETS));
    let mut writer = builder.with_mode(mode).build().await.unwrap();
    writer.write(&batch_of(&data.schema(), &data.writes[0].rows[..rows])).await.unwrap();
    writer.commit().await.unwrap()
}

/// What was asked, by verb, kind of object and answer: how many requests, bytes there and back.
fn summary(log: &[Exchange]) -> BTreeMap<String, (usize, u64, u64)> {
    let mut all = BTreeMap::new();
    for exchange in log {
        let kind = match exchange.key.rsplit('/').next() {
            Some("latest") => "hint",
            Some(name) if name.ends_with(".json") => "manifest",
            Some(name) if name.ends_with(".parquet") && exchange.range.is_some() => "range of a run",
            Some(name) if name.ends_with(".parquet") => "run",
            _ => "something else",
        };
        let entry: &mut (usize, u64, u64) =
            all.entry(format!("{} {kind} {}", exchange.verb, exchange.status)).or_default();
        *entry = (entry.0 + 1, entry.1 + exchange.received, entry.2 + exchange.sent);
    }
    all
}

/// Asserts the requests, and prints a line of a table.
fn check(server: &Server, what: &str, expected: &[(&str, usize)]) -> Vec<Exchange> {
    let log = server.take_log();
    let summary = summary(&log);
    let found: Vec<(&str, usize)> = summary.iter().map(|(what, (count, ..))| (what.as_str(), *count)).collect();
    assert_eq!(found, expected, "{what}");
    let (there, back) = summary.values().fold((0, 0), |(there, back), (_, t, b)| (there + t, back + b));
    println!("{what}: {} requests, {there} bytes there, {back} bytes back, {summary:?}", log.len());
    log
}

#[tokio::test]
async fn every_operation_makes_the_requests_that_it_needs_and_no_others() {
    let server = Server::start();
    server.take_log();
    let place = Location::with_options(&format!("s3://{BUCKET}/wire"), server.options()).unwrap();

    write(&place, "left", WriteMode::Create, ROWS as usize).await;
    // Looking for a dataset that is not there is the hint and version 1; creating it, its manifest is put twice to see that the condition holds.
    let create = [
        ("GET hint 404", 1),
        ("GET manifest 404", 1),
        ("PUT hint 200", 1),
        ("PUT manifest 200", 1),
        ("PUT manifest 412", 1),
        ("PUT run 200", 4),
    ];
    check(&server, "create, 4 runs", &create);
    write(&place, "right", WriteMode::Create, ROWS as usize).await;
    check(&server, "create, 4 runs", &create);

    let mut version = 1;
    for versions in [1, 2, 30] {
        while version < versions {
            version += 1;
            write(&place, "left", WriteMode::Append, 10).await;
            let append = [
                ("GET hint 200", 1),
                ("GET manifest 200", 1),
                ("GET manifest 404", 1),
                ("PUT hint 200", 1),
                ("PUT manifest 200", 1),
                ("PUT run 200", 4),
            ];
            check(&server, &format!("append of 10 rows, 4 runs, version {version}"), &append);
        }
        Dataset::open(place.store(), place.join("left")).await.unwrap();
        let open = [("GET hint 200", 1), ("GET manifest 200", 1), ("GET manifest 404", 1)];
        check(&server, &format!("open, {versions} versions"), &open);
    }
    let left = Dataset::open_version(place.store(), place.join("left"), 1).await.unwrap();
    check(&server, "open of version 1", &[("GET manifest 200", 1)]);
    let right = Dataset::open_version(place.store(), place.join("right"), 1).await.unwrap();
    server.take_log();

    let sources = [(&left, "left_number"), (&right, "right_number")];
    let [l, r] = sources.map(|(dataset, column)| Source::from(dataset).with_columns([column]));
    let plan = Join::inner(l, r).plan().unwrap();
    try_run(&plan, 2).await.unwrap();
    // Of each of 8 runs the footer, then key and number of its one row group, which lie side by side.
    let log = check(&server, "join of 2 x 4 runs, 2 of 3 columns each", &[("GET range of a run 206", 16)]);
    let all = left.statistics().bytes + right.statistics().bytes;
    let read: u64 = log.iter().map(|exchange| exchange.sent).sum();
    println!("of {all} bytes, {read}");

    let plan = Join::inner(&left, &right).plan().unwrap();
    try_run(&plan, 2).await.unwrap();
    let log = check(&server, "join of 2 x 4 runs, all columns", &[("GET range of a run 206", 16)]);
    // Each byte at most once.
    assert!(log.iter().map(|exchange| exchange.sent).sum::<u64>() <= all);

    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1234]));
    assert_eq!(left.get(keys).await.unwrap().num_rows(), 1);
    // Footer, page index, the key's pages, the pages of the other columns.
    check(&server, "look-up of a key", &[("GET range of a run 206", 4)]);

    left.validate().await.unwrap();
    // Each file as a whole, for its checksum, and as a plan reads it; the manifest once more.
    let validate = [("GET manifest 200", 1), ("GET range of a run 206", 16), ("GET run 200", 4)];
    check(&server, "validate, 4 runs", &validate);

    let current = Dataset::open(place.store(), place.join("left")).await.unwrap();
    server.take_log();
    current.drop_dataset().await.unwrap();
    check(&server, "drop", &[("PUT hint 200", 1), ("PUT manifest 200", 1)]);
}
