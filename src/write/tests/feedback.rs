//! Tests of what a writer tells: summaries held against manifests, progress step by step, spans as a subscriber sees them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread::ThreadId;

use parquet::basic::Compression;
use tracing::field::{Field as TracingField, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use super::*;
use crate::dataset::Dataset;
use crate::write::parallel::Limits;
use crate::write::progress::ProgressFn;
use crate::write::{
    DatasetWriter, DatasetWriterBuilder, WriteMode, WritePhase, WriteProgress, WriteSummary, WrittenRuns,
};

fn table(rows: usize) -> Table {
    Table::random(vec![Kind::Int64, Kind::Utf8], rows, 5000, 5, 7)
}

fn builder(store: &Arc<dyn ObjectStore>, table: &Table, buckets: u32, budget: usize) -> DatasetWriterBuilder {
    let spec = BucketSpec::new(["c0"], buckets).unwrap();
    let options = WriteOptions::default().with_memory_budget(budget);
    DatasetWriter::builder(Arc::clone(store), "plays", table.schema(), spec).with_options(options)
}

/// What a writer reported, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<WriteProgress>>>);

impl Log {
    fn function(&self) -> impl Fn(&WriteProgress) + Send + Sync + 'static {
        let log = self.clone();
        move |now| log.0.lock().unwrap().push(*now)
    }

    fn take(&self) -> Vec<WriteProgress> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn write_all(mut writer: DatasetWriter, table: &Table) -> DatasetWriter {
    for batch in table.batches(&[1000, 1, 77]) {
        writer.write(&batch).await.unwrap();
    }
    writer
}

/// The figures of the manifest alone.
fn assert_sums(summary: &WriteSummary, dataset: &Dataset) {
    let (statistics, n) = (dataset.statistics(), f64::from(dataset.spec().buckets().get()));
    assert_eq!((summary.rows, summary.bytes, summary.runs), (statistics.rows, statistics.bytes, statistics.runs));
    let by_bucket = |of: fn(&Run) -> u64| {
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        dataset.runs().iter().for_each(|run| *sums.entry(run.bucket).or_default() += of(run));
        sums.into_values().max().unwrap_or(0)
    };
    assert_eq!(summary.largest_bucket_rows, by_bucket(|run| run.rows));
    assert_eq!(summary.largest_bucket_bytes, by_bucket(|run| run.bytes));
    assert_eq!(summary.buckets, dataset.spec().buckets());
    assert_eq!(summary.mean_bucket_rows, statistics.rows as f64 / n);
    assert_eq!(summary.mean_bucket_bytes, statistics.bytes as f64 / n);
    let skew = summary.largest_bucket_rows as f64 / summary.mean_bucket_rows;
    assert_eq!(summary.skew, if statistics.rows == 0 { 1.0 } else { skew });
}

fn numbers(now: &WriteProgress) -> [u64; 7] {
    let WriteProgress {
        phase: _,
        rows_taken,
        spills,
        spilled_bytes,
        rows_encoded,
        bytes_uploaded,
        runs_finished,
        runs,
    } = *now;
    [rows_taken, spills, spilled_bytes, rows_encoded, bytes_uploaded, runs_finished, runs]
}

/// Progress never goes back, and ends with the figures of the summary.
fn assert_progress(log: &[WriteProgress], summary: &WriteSummary) {
    for pair in log.windows(2) {
        assert!(numbers(&pair[0]).iter().zip(numbers(&pair[1])).all(|(a, b)| *a <= b), "{pair:?}");
        assert!(pair[1].rows_encoded <= pair[1].rows_taken && pair[1].runs_finished <= pair[1].runs, "{pair:?}");
    }
    let WriteSummary { rows, bytes, runs, spills, spilled_bytes, .. } = *summary;
    let last = log.last().unwrap();
    assert_eq!(last.phase, WritePhase::Done);
    assert_eq!(numbers(last), [rows, spills, spilled_bytes, rows, bytes, runs, runs]);
    assert_eq!(log.iter().filter(|now| now.phase == WritePhase::Done).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn law_summary_manifest_and_last_progress_agree() {
    for (rows, buckets, budget) in [
        (0, 4, 1 << 30),
        (1, 4, 1 << 30),
        (20_000, 1, 1 << 30),
        (20_000, 7, 1 << 18),
        (20_000, 64, 1 << 30),
        (20_000, 64, 1 << 17),
        (3000, 16_384, 1 << 16),
    ] {
        let (store, table, log) = (in_memory(), table(rows), Log::default());
        let writer = builder(&store, &table, buckets, budget).with_progress(log.function()).build().await.unwrap();
        let (dataset, summary) = write_all(writer, &table).await.commit_with_summary().await.unwrap();
        assert_eq!(summary.rows, rows as u64);
        assert_eq!(summary.spills > 0, budget < 1 << 20, "{summary}");
        assert_eq!(summary.spilled_bytes > 0, budget < 1 << 20, "{summary}");
        assert_sums(&summary, &dataset);
        let log = log.take();
        assert_progress(&log, &summary);
        let fan_in = Limits::new(&WriteOptions::default().with_memory_budget(budget), 2 << 20).fan_in;
        let seen = |phase| log.iter().any(|now| now.phase == phase);
        assert_eq!(seen(WritePhase::Spilling), summary.spills > 0);
        assert_eq!(seen(WritePhase::Merging), summary.spills as usize > fan_in - 1);
        assert!(seen(WritePhase::Encoding) && seen(WritePhase::Committing));
    }
}

#[tokio::test]
async fn summaries_and_phases_print_as_one_line() {
    let (store, table) = (in_memory(), Table::random(vec![Kind::Int64], 100, 1, 0, 7));
    let writer = builder(&store, &table, 4, 1 << 30).build().await.unwrap();
    let (_, summary) = write_all(writer, &table).await.commit_with_summary().await.unwrap();
    let bytes = summary.bytes;
    assert_eq!(
        summary.to_string(),
        format!("100 rows, {bytes} bytes, 1 runs in 4 buckets; largest bucket 100 rows, skew 4.00; 0 spills, 0 bytes")
    );
    let json = serde_json::to_value(summary).unwrap();
    assert_eq!((&json["rows"], &json["skew"]), (&serde_json::json!(100), &serde_json::json!(4.0)));
    let json = serde_json::to_value(WriteProgress::default()).unwrap();
    assert_eq!((&json["phase"], &json["rows_taken"]), (&serde_json::json!("taking"), &serde_json::json!(0)));
    assert_eq!(WritePhase::Merging.to_string(), "merging spills");
}

#[tokio::test]
async fn tasks_report_for_themselves_and_are_summed_up_by_the_commit() {
    let (store, table) = (in_memory(), table(10_000));
    let ticket = builder(&store, &table, 8, 1 << 17).begin().await.unwrap();
    let mut results: Vec<WrittenRuns> = vec![];
    for task in 0..3 {
        let log = Log::default();
        let writer = ticket.writer(Arc::clone(&store), task).unwrap().with_progress(log.function());
        let written = write_all(writer, &table).await.finish().await.unwrap();
        let last = *log.take().last().unwrap();
        assert_eq!((last.phase, last.rows_encoded, last.runs), (WritePhase::Done, written.rows(), 8));
        assert_eq!((last.spills, last.spilled_bytes), (written.spills(), written.spilled_bytes()));
        assert!(written.spills() > 1);
        results.push(serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap());
    }
    let spills = results.iter().map(WrittenRuns::spills).sum::<u64>();
    let spilled_bytes = results.iter().map(WrittenRuns::spilled_bytes).sum::<u64>();
    let (dataset, summary) = ticket.commit_with_summary(store, results).await.unwrap();
    assert_sums(&summary, &dataset);
    assert_eq!((summary.rows, summary.runs), (30_000, 24));
    assert_eq!((summary.spills, summary.spilled_bytes), (spills, spilled_bytes));
}

#[tokio::test]
async fn a_summary_is_about_one_write_and_a_write_that_was_done_before_wrote_nothing() {
    let (store, a, b) = (in_memory(), table(500), table(30));
    let id = || WriteId::new("job-7").unwrap();
    let writer = builder(&store, &a, 4, 1 << 30).with_write_id(id()).build().await.unwrap();
    write_all(writer, &a).await.commit().await.unwrap();
    let appending = builder(&store, &b, 4, 1 << 30).with_mode(WriteMode::Append).build().await.unwrap();
    let (dataset, summary) = write_all(appending, &b).await.commit_with_summary().await.unwrap();
    assert_eq!((summary.rows, dataset.statistics().rows), (30, 530));

    let log = Log::default();
    let again = builder(&store, &a, 4, 1 << 30).with_write_id(id()).with_progress(log.function());
    let (_, summary) = write_all(again.build().await.unwrap(), &a).await.commit_with_summary().await.unwrap();
    assert_eq!((summary.rows, summary.runs, summary.bytes, summary.skew), (0, 0, 0, 1.0));
    assert_progress(&log.take(), &summary);
}

#[tokio::test]
async fn batches_of_one_row_are_not_reported_one_by_one() {
    let (store, table, log) = (in_memory(), table(20_000), Log::default());
    let mut writer = builder(&store, &table, 4, 1 << 30).with_progress(log.function()).build().await.unwrap();
    for batch in table.batches(&[1]) {
        writer.write(&batch).await.unwrap();
    }
    let taken: Vec<u64> = log.take().iter().map(|now| now.rows_taken).collect();
    assert_eq!(taken, [8192, 16_384]);
    writer.abort().await;
}

#[tokio::test]
async fn a_large_run_is_reported_piece_by_piece() {
    let (store, log) = (in_memory(), Log::default());
    let mut random = Random(5);
    let texts: Vec<String> =
        (0..36_000).map(|_| (0..64).map(|_| format!("{:016x}", random.next())).collect()).collect();
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    let batch = RecordBatch::try_from_iter([("c0", texts)]).unwrap();
    let options = WriteOptions::default().with_compression(Compression::UNCOMPRESSED).with_row_group_bytes(2 << 20);
    let spec = BucketSpec::new(["c0"], 1).unwrap();
    let builder = DatasetWriter::builder(store, "plays", batch.schema(), spec).with_options(options);
    let mut writer = builder.with_progress(log.function()).build().await.unwrap();
    writer.write(&batch).await.unwrap();
    let (_, summary) = writer.commit_with_summary().await.unwrap();
    let log = log.take();
    assert_progress(&log, &summary);
    let distinct = |of: fn(&WriteProgress) -> u64| log.iter().map(of).collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(|now| now.rows_encoded) > 4, "{log:?}");
    assert!(distinct(|now| now.bytes_uploaded) > 2, "{log:?}");
}

#[test]
fn the_progress_function_is_called_without_a_lock_held() {
    let feedback = Feedback::default();
    let (again, log) = (feedback.clone(), Log::default());
    let logged = log.function();
    feedback.report_to(ProgressFn::new(move |now| {
        // Would wait for ever.
        assert_eq!(again.now(), *now);
        logged(now);
    }));
    feedback.enter(WritePhase::Sorting);
    feedback.check().unwrap();
    assert_eq!(log.take().len(), 1);
}

#[tokio::test]
async fn a_progress_function_that_panics_fails_the_write_but_not_a_commit_that_was_made() {
    for phase in
        [WritePhase::Taking, WritePhase::Sorting, WritePhase::Encoding, WritePhase::Committing, WritePhase::Done]
    {
        let (store, table) = (in_memory(), table(10_000));
        let builder = builder(&store, &table, 4, 1 << 30).with_progress(move |now| {
            assert!(now.phase != phase, "no {}", now.phase);
        });
        let mut writer = builder.build().await.unwrap();
        let mut written = Ok(());
        for batch in table.batches(&[1000]) {
            written = writer.write(&batch).await;
            if written.is_err() {
                break;
            }
        }
        assert_eq!(written.is_err(), phase == WritePhase::Taking);
        let committed = writer.commit().await;
        let newest = place(&store).newest().await.unwrap();
        if phase == WritePhase::Done {
            assert_eq!(committed.unwrap().statistics().rows, 10_000);
            assert!(newest.is_some());
            continue;
        }
        let error = written.and(committed.map(drop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.to_string().contains(&format!("panicked, cause=`no {phase}`")), "{error}");
        assert!(newest.is_none());
        let files: Vec<_> = futures::TryStreamExt::try_collect(store.list(None)).await.unwrap();
        assert!(files.is_empty(), "{files:?}");
    }
}

/// A span as a subscriber sees it.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    /// Threads that worked in it.
    threads: Vec<ThreadId>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &TracingField, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &TracingField, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps all spans of this crate.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    spans: Vec<(Seen, &'static Metadata<'static>)>,
    entered: HashMap<ThreadId, Vec<u64>>,
    events: usize,
}

impl Recorder {
    fn spans(&self, name: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().spans.iter().map(|(span, _)| span.clone()).collect()
    }
}

fn here() -> ThreadId {
    std::thread::current().id()
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sort_merge_bucket")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut all = self.0.lock().unwrap();
        let current = all.entered.get(&here()).and_then(|stack| stack.last().copied());
        let parent = span.parent().map(Id::into_u64).or(current.filter(|_| span.is_contextual()));
        let mut seen = Seen { name: span.metadata().name(), parent, ..Seen::default() };
        span.record(&mut seen);
        all.spans.push((seen, span.metadata()));
        Id::from_u64(all.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.0.lock().unwrap();
        values.record(&mut all.spans[span.into_u64() as usize - 1].0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.lock().unwrap().events += 1;
    }

    fn enter(&self, span: &Id) {
        let mut all = self.0.lock().unwrap();
        all.entered.entry(here()).or_default().push(span.into_u64());
        all.spans[span.into_u64() as usize - 1].0.threads.push(here());
    }

    fn exit(&self, span: &Id) {
        let left = self.0.lock().unwrap().entered.get_mut(&here()).and_then(Vec::pop);
        assert_eq!(left, Some(span.into_u64()), "spans are left in order");
    }

    fn current_span(&self) -> Current {
        let all = self.0.lock().unwrap();
        match all.entered.get(&here()).and_then(|stack| stack.last()) {
            Some(id) => Current::new(Id::from_u64(*id), all.spans[*id as usize - 1].1),
            None => Current::none(),
        }
    }
}

#[tokio::test]
async fn spans_tell_the_phases_with_their_figures() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let (store, table) = (in_memory(), table(20_000));
    let writer =
        builder(&store, &table, 8, 1 << 17).with_write_id(WriteId::new("job-7").unwrap()).build().await.unwrap();
    let (_, summary) = write_all(writer, &table).await.commit_with_summary().await.unwrap();

    let number = |span: &Seen, field: &str| span.fields[field].parse::<u64>().unwrap();
    let sum = |name: &str, field: &str| recorder.spans(name).iter().map(|span| number(span, field)).sum::<u64>();
    let [write] = recorder.spans("write").try_into().unwrap();
    assert_eq!((write.fields["path"].as_str(), write.fields["write_id"].as_str()), ("plays", "job-7"));
    assert_eq!((number(&write, "rows"), number(&write, "bytes")), (summary.rows, summary.bytes));
    assert_eq!(write.parent, None);
    let [commit] = recorder.spans("commit").try_into().unwrap();
    assert_eq!((commit.fields["path"].as_str(), commit.fields["write_id"].as_str()), ("plays", "job-7"));
    assert_eq!((number(&commit, "rows"), number(&commit, "bytes")), (summary.rows, summary.bytes));
    assert_eq!((number(&commit, "runs"), number(&commit, "version")), (8, 1));
    assert_eq!(recorder.spans("spill").len() as u64, summary.spills);
    assert!(!recorder.spans("merge").is_empty());
    assert_eq!(sum("spill", "bytes") + sum("merge", "bytes"), summary.spilled_bytes);
    assert!(sum("spill", "rows") > summary.rows / 2 && sum("spill", "rows") <= summary.rows);
    for name in ["encode", "upload"] {
        assert_eq!((sum(name, "rows"), sum(name, "bytes")), (summary.rows, summary.bytes), "{name}");
        let buckets: Vec<u64> = recorder.spans(name).iter().map(|span| number(span, "bucket")).collect();
        assert_eq!(buckets.iter().copied().collect::<std::collections::BTreeSet<_>>(), (0..8).collect(), "{name}");
    }
    // Everything belongs to the write, and work on other threads to its span.
    let root = recorder.all().iter().position(|span| span.name == "write").unwrap() as u64 + 1;
    assert!(recorder.all().iter().all(|span| span.name == "write" || span.parent == Some(root)));
    for name in ["spill", "merge", "encode"] {
        assert!(recorder.spans(name).iter().all(|span| span.threads.iter().any(|thread| *thread != here())), "{name}");
    }
    // As few spans as there are phases, and nothing per row.
    let expected = 2 + 2 * summary.runs + summary.spills + recorder.spans("merge").len() as u64;
    assert_eq!(recorder.all().len() as u64, expected);
    assert_eq!(recorder.0.lock().unwrap().events, 0);
}

#[tokio::test]
async fn a_write_belongs_to_the_span_in_which_it_was_built() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let job = tracing::info_span!(target: "sort_merge_bucket::tests", "job");
    let (store, table) = (in_memory(), table(10));
    let built = tracing::Instrument::instrument(builder(&store, &table, 2, 1 << 30).build(), job);
    let ticket = built.await.unwrap().ticket().clone();
    assert_eq!(recorder.spans("write")[0].parent, Some(1));
    // A ticket is committed by whoever holds it.
    ticket.commit(store, []).await.unwrap();
    assert_eq!(recorder.spans("commit")[0].parent, None);
}
