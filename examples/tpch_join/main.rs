//! Writes TPC-H orders and lineitem as sort-merge-bucket datasets, then joins them with no shuffle:
//!
//! 1. generate both tables with their keys out of order, and write them, bucketed and sorted by order key;
//! 2. scan the same files with parquet's own reader: what reading them costs without a join;
//! 3. join them, once over two columns and once over all, and check every answer against the generator's own rows;
//! 4. print what each step took.
//!
//! `cargo run --release --example tpch_join -- --help` lists the options.
#![expect(clippy::print_stdout, reason = "a command-line program")]

mod generate;
mod options;
mod query;
mod report;
mod scan;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use sort_merge_bucket::{
    BucketSpec, Dataset, DatasetWriter, Join, JoinPlan, Location, Parallelism, Source, WriteMode, WriteOptions,
};

use generate::{Expected, Feed, Ledger};
use options::Options;
use query::{Answer, Query};
use report::{Cost, Step, Stopwatch, Table, progress};

/// Whatever went wrong; the program ends with it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const ORDERS: &str = "orders";
const LINEITEM: &str = "lineitem";

/// The number of lines that the TPC-H specification gives for a scale factor.
const SPECIFIED_LINES: [(f64, u64); 3] = [(1.0, 6_001_215), (10.0, 59_986_052), (100.0, 600_037_902)];

/// What is remembered beside the datasets, for a later run with `--reuse`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    scale_factor: f64,
    buckets: u32,
    expected: [Expected; 2],
}

impl Record {
    const FILE: &str = "expected.json";

    /// What an earlier run with the same options left, if it came to its end.
    async fn read(options: &Options, place: &Location) -> Result<Option<Self>, Failure> {
        let text = match place.store().get(&place.join(Self::FILE)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let record = serde_json::from_slice::<Self>(&text).ok();
        Ok(record.filter(|record| record.scale_factor == options.scale_factor && record.buckets == options.buckets))
    }

    async fn write(text: String, place: &Location) -> Result<(), Failure> {
        place.store().put(&place.join(Self::FILE), text.into()).await?;
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let Some(options) = Options::from_args()? else { return Ok(()) };
    std::fs::create_dir_all(&options.out)?;
    let shown = options.store.clone().unwrap_or_else(|| options.out.display().to_string());
    let place = match &options.store {
        Some(url) => Location::from_env(url)?,
        None => Location::local(&options.out)?,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads.get()).enable_all().build()?;
    println!(
        "TPC-H at scale factor {}, {} buckets, {} threads, in {shown}",
        options.scale_factor, options.buckets, options.threads
    );
    let mut steps = vec![];

    let record = match runtime.block_on(Record::read(&options, &place))?.filter(|_| options.reuse) {
        Some(record) => record,
        None => runtime.block_on(write_both(&options, &place, &mut steps))?,
    };
    let open = |table| Dataset::open(place.store(), place.join(table));
    let (orders, lineitem) = runtime.block_on(async { futures::try_join!(open(ORDERS), open(LINEITEM)) })?;
    if let Some((_, lines)) = SPECIFIED_LINES.iter().find(|(scale_factor, _)| *scale_factor == options.scale_factor) {
        assert_eq!(lineitem.statistics().rows, *lines, "lines that TPC-H specifies");
    }

    for (query, expected) in Query::ALL.into_iter().zip(&record.expected) {
        compare(query, expected, &options, &runtime, &orders, &lineitem, &mut steps)?;
    }
    println!("\nEvery count, sum and maximum is that of the generator's rows.\n\n{}", Table(&steps));
    if steps.iter().any(|step| step.name.starts_with("write")) {
        println!(
            "Generating and writing left memory to the process; --reuse shows what scans and joins need by themselves."
        );
    }
    Ok(())
}

/// Generates and writes both tables, and leaves a record of what is right.
async fn write_both(options: &Options, place: &Location, steps: &mut Vec<Step>) -> Result<Record, Failure> {
    // Replacing a dataset would keep the files of its old version, which nobody wants here. Without a record beside them, datasets
    // in this place are not ours: creating ours over them is a conflict.
    if place.store().head(&place.join(Record::FILE)).await.is_ok() {
        for table in [ORDERS, LINEITEM] {
            if options.store.is_some() {
                let store = place.store();
                let objects = store.list(Some(&place.join(table))).map_ok(|object| object.location).boxed();
                store.delete_stream(objects).try_collect::<Vec<_>>().await?;
            } else if options.out.join(table).exists() {
                std::fs::remove_dir_all(options.out.join(table))?;
            }
        }
    }
    // A record that cannot be read until both datasets are complete.
    Record::write("incomplete\n".to_owned(), place).await?;
    let ledger = write(options, place, ORDERS, "o_orderkey", Feed::orders(options.scale_factor), steps).await?;
    let feed = Feed::lineitem(options.scale_factor, ledger);
    let ledger = write(options, place, LINEITEM, "l_orderkey", feed, steps).await?;
    let record = Record { scale_factor: options.scale_factor, buckets: options.buckets, expected: ledger.finish() };
    Record::write(serde_json::to_string_pretty(&record)?, place).await?;
    Ok(record)
}

/// Writes one table, bucketed and sorted by `key`.
async fn write(
    options: &Options,
    place: &Location,
    name: &str,
    key: &str,
    mut feed: Feed,
    steps: &mut Vec<Step>,
) -> Result<Ledger, Failure> {
    let bar = progress(&format!("write {name}"), feed.rows);
    let stopwatch = Stopwatch::start();
    let spec = BucketSpec::new([key], options.buckets)?;
    let write_options = WriteOptions::default().with_memory_budget(options.memory_budget).with_spill_dir(&options.out);
    let (shown, table) = (bar.clone(), name.to_owned());
    let mut writer = DatasetWriter::builder(place.store(), place.join(name), Arc::clone(&feed.schema), spec)
        .with_mode(WriteMode::Create)
        .with_options(write_options)
        .with_progress(move |now| {
            // A row has come half of its way when it is taken, and all of it when it is encoded.
            shown.set_position(u64::midpoint(now.rows_taken, now.rows_encoded));
            shown.set_message(format!("{table}: {}", now.phase));
        })
        .build()
        .await?;
    let mut waited = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let Some(batch) = feed.batches.recv().await else { break };
        waited += asked.elapsed();
        writer.write(&batch).await?;
    }
    let ledger = feed.finish()?;
    let (_, summary) = writer.commit_with_summary().await?;
    let cost = stopwatch.stop();
    bar.finish_and_clear();
    steps.push(Step {
        name: format!("write {name}"),
        cost,
        rows: summary.rows,
        bytes: summary.bytes,
        remark: format!(
            "{} runs, skew {:.2}, {} spills of {} MB; {:.2} s of it waiting for the generator",
            summary.runs,
            summary.skew,
            summary.spills,
            summary.spilled_bytes / 1_000_000,
            waited.as_secs_f64()
        ),
    });
    Ok(ledger)
}

/// Runs scan and join of one query in turn and checks every answer.
fn compare(
    query: Query,
    expected: &Expected,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    orders: &Dataset,
    lineitem: &Dataset,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    let tables = [(orders, "o_orderkey"), (lineitem, "l_orderkey")];
    let plan = plan(query, orders, lineitem)?;
    println!("\n{plan}");

    let bar = progress(query.name(), options.repeat.get() as u64 * 2 * expected.join.rows);
    let (mut scans, mut joins, mut bytes) = (vec![], vec![], 0);
    for _ in 0..options.repeat.get() {
        let stopwatch = Stopwatch::start();
        let (answers, read) = scan::scan(query, &tables, options.threads, runtime.handle())?;
        scans.push(stopwatch.stop());
        assert_eq!(answers, [expected.orders.clone(), expected.lineitem.clone()], "{} scan", query.name());
        bytes = read;
        bar.inc(expected.join.rows);

        let stopwatch = Stopwatch::start();
        let answer = runtime.block_on(join(query, &plan, options.threads))?;
        joins.push(stopwatch.stop());
        assert_eq!(answer, expected.join, "{} join", query.name());
        bar.inc(expected.join.rows);
    }
    bar.finish_and_clear();

    let (scan, join) = (Cost::typical(&scans), Cost::typical(&joins));
    let step = |what, cost, rows, remark| Step { name: format!("{} {what}", query.name()), cost, rows, bytes, remark };
    let remark = format!("{:.2} x scan only", join.time.as_secs_f64() / scan.time.as_secs_f64());
    steps.push(step("scan only", scan, expected.orders.rows + expected.lineitem.rows, String::new()));
    steps.push(step("join", join, expected.join.rows, remark));
    Ok(())
}

/// Plans the join of orders and lineitem on their keys. The key columns are read anyway.
fn plan(query: Query, orders: &Dataset, lineitem: &Dataset) -> Result<JoinPlan, Failure> {
    let (mut left, mut right) = (Source::from(orders), Source::from(lineitem));
    if let Some([price, quantity]) = query.payload() {
        (left, right) = (left.with_columns([price]), right.with_columns([quantity]));
    }
    Ok(Join::inner(left, right).plan()?)
}

/// Joins all slots in parallel and reduces the joined batches.
async fn join(query: Query, plan: &JoinPlan, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    let mut rows = plan.stream(Parallelism::Slots(threads));
    while let Some(joined) = rows.try_next().await? {
        query.reduce(&mut answer, &joined.item)?;
    }
    Ok(answer)
}
