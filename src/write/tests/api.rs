//! Tests of the writer as callers see it: modes, tickets, failures, what becomes visible.

use futures::TryStreamExt;

use super::*;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::manifest::{Manifest, Operation};
use crate::store::tests::{FaultStore, When};
use crate::write::{DatasetWriter, DatasetWriterBuilder, Encoding, WriteMode, WriteTicket, WrittenRuns};

fn table(rows: usize, seed: u64) -> Table {
    Table::random(vec![Kind::Int64, Kind::Utf8], rows, 50, 5, seed)
}

fn spec() -> BucketSpec {
    BucketSpec::new(["c0"], 4).unwrap()
}

fn builder(store: &Arc<dyn ObjectStore>, table: &Table) -> DatasetWriterBuilder {
    DatasetWriter::builder(Arc::clone(store), "plays", table.schema(), spec())
}

async fn write_all(builder: DatasetWriterBuilder, table: &Table) -> Result<Dataset> {
    let mut writer = builder.build().await?;
    for batch in table.batches(&[100]) {
        writer.write(&batch).await?;
    }
    writer.commit().await
}

async fn newest(store: &Arc<dyn ObjectStore>) -> Option<Manifest> {
    place(store).newest().await.unwrap()
}

/// All rows of a version, sorted.
async fn rows(store: &Arc<dyn ObjectStore>, table: &Table, manifest: &Manifest) -> Vec<Row> {
    let mut rows = vec![];
    for run in &manifest.runs {
        let bytes = bytes_of(store, run).await;
        rows.extend(read(&bytes).iter().flat_map(|b| table.read(b)));
    }
    rows.sort();
    rows
}

fn sorted(tables: &[&Table]) -> Vec<Row> {
    let mut rows: Vec<Row> = tables.iter().flat_map(|t| t.rows.clone()).collect();
    rows.sort();
    rows
}

async fn run_files(store: &Arc<dyn ObjectStore>) -> usize {
    let listed: Vec<_> = store.list(Some(&Path::from("plays/data"))).try_collect().await.unwrap();
    listed.len()
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

#[tokio::test]
async fn create_append_and_replace_make_versions() {
    let store = in_memory();
    let (a, b, c) = (table(300, 1), table(200, 2), table(100, 3));
    write_all(builder(&store, &a).with_property("source", "a").with_property("day", "1"), &a).await.unwrap();
    let first = newest(&store).await.unwrap();
    assert_eq!((first.version, first.operation, first.base), (1, Operation::Create, None));
    assert_eq!(rows(&store, &a, &first).await, sorted(&[&a]));

    // The bucket count of appended runs is their own.
    let more = DatasetWriter::builder(Arc::clone(&store), "plays", b.schema(), BucketSpec::new(["c0"], 3).unwrap());
    write_all(more.with_mode(WriteMode::Append).with_property("source", "b"), &b).await.unwrap();
    let second = newest(&store).await.unwrap();
    assert_eq!((second.version, second.operation, second.base), (2, Operation::Append, Some(1)));
    assert_eq!(second.dataset_id, first.dataset_id);
    assert_eq!(rows(&store, &a, &second).await, sorted(&[&a, &b]));
    assert_eq!(second.runs.iter().map(|r| r.buckets.get()).collect::<std::collections::BTreeSet<_>>(), [3, 4].into());
    assert_eq!(second.properties, [("day".to_owned(), "1".to_owned()), ("source".to_owned(), "b".to_owned())].into());

    write_all(builder(&store, &c).with_mode(WriteMode::Replace), &c).await.unwrap();
    let third = newest(&store).await.unwrap();
    assert_eq!((third.version, third.operation, third.base), (3, Operation::Replace, Some(2)));
    assert_eq!(rows(&store, &c, &third).await, sorted(&[&c]));
    assert!(third.properties.is_empty());
    // Older versions stay as they were.
    assert_eq!(rows(&store, &a, &second).await, sorted(&[&a, &b]));
}

#[tokio::test]
async fn append_and_replace_make_a_dataset_that_is_missing() {
    for mode in [WriteMode::Append, WriteMode::Replace] {
        let (store, a) = (in_memory(), table(50, 1));
        write_all(builder(&store, &a).with_mode(mode), &a).await.unwrap();
        assert_eq!(newest(&store).await.unwrap().operation, Operation::Create);
    }
}

#[tokio::test]
async fn a_dataset_that_exists_is_not_created_again() {
    let (store, a) = (in_memory(), table(50, 1));
    write_all(builder(&store, &a), &a).await.unwrap();
    assert_eq!(kind(builder(&store, &a).build().await), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_slower_of_two_creations_conflicts_and_leaves_no_files() {
    let (store, a, b) = (in_memory(), table(50, 1), table(60, 2));
    let mut slow = builder(&store, &a).build().await.unwrap();
    slow.write(&a.batches(&[50])[0]).await.unwrap();
    write_all(builder(&store, &b), &b).await.unwrap();
    let files = run_files(&store).await;
    assert_eq!(kind(slow.commit().await), ErrorKind::Conflict);
    assert_eq!(run_files(&store).await, files);
    assert_eq!(rows(&store, &b, &newest(&store).await.unwrap()).await, sorted(&[&b]));
}

#[tokio::test]
async fn racing_appends_both_count_and_a_raced_replace_conflicts() {
    let (store, a, b, c) = (in_memory(), table(50, 1), table(60, 2), table(70, 3));
    write_all(builder(&store, &a), &a).await.unwrap();
    let append = |t: &Table| builder(&store, t).with_mode(WriteMode::Append);
    let mut slow = append(&b).build().await.unwrap();
    let mut replace = builder(&store, &c).with_mode(WriteMode::Replace).build().await.unwrap();
    slow.write(&b.batches(&[60])[0]).await.unwrap();
    replace.write(&c.batches(&[70])[0]).await.unwrap();
    write_all(append(&c), &c).await.unwrap();
    slow.commit().await.unwrap();
    assert_eq!(rows(&store, &a, &newest(&store).await.unwrap()).await, sorted(&[&a, &b, &c]));
    assert_eq!(kind(replace.commit().await), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_writer_without_rows_makes_an_empty_dataset() {
    let (store, a) = (in_memory(), table(0, 1));
    write_all(builder(&store, &a), &a).await.unwrap();
    let manifest = newest(&store).await.unwrap();
    assert_eq!((manifest.version, manifest.runs.len()), (1, 0));
}

#[tokio::test]
async fn specs_that_no_dataset_can_have_are_refused_at_build() {
    let store = in_memory();
    let schema = |fields: Vec<(&str, DataType)>| -> SchemaRef {
        Arc::new(Schema::new(fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect::<Vec<_>>()))
    };
    let build = |schema: SchemaRef, spec: BucketSpec| DatasetWriter::builder(Arc::clone(&store), "plays", schema, spec);
    let failure = async |builder: DatasetWriterBuilder| -> (ErrorKind, String) {
        let error: Error = builder.build().await.map(drop).unwrap_err();
        (error.kind(), error.to_string())
    };

    let float = schema(vec![("k", DataType::Float64), ("x", DataType::Int64)]);
    let (kind, message) = failure(build(float, BucketSpec::new(["k", "gone"], 4).unwrap())).await;
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(message.contains("`k` of type `float64`") && message.contains("`gone` is not in the schema"), "{message}");

    let twice = schema(vec![("k", DataType::Int64), ("k", DataType::Utf8)]);
    let (kind, message) = failure(build(twice, BucketSpec::new(["k"], 4).unwrap())).await;
    assert!(kind == ErrorKind::InvalidInput && message.contains("same name, column=`k`"), "{message}");

    let interval = schema(vec![("k", DataType::Int64), ("i", DataType::Interval(IntervalUnit::DayTime))]);
    let (kind, message) = failure(build(interval, BucketSpec::new(["k"], 4).unwrap())).await;
    assert!(kind == ErrorKind::InvalidInput && message.contains("column=`i`"), "{message}");

    assert_eq!(BucketSpec::new(["k"], 0).unwrap_err().kind(), ErrorKind::InvalidInput);

    let fine = schema(vec![("k", DataType::Int64)]);
    for (options, named) in [
        (WriteOptions::default().with_page_rows(0), "page_rows"),
        (WriteOptions::default().with_page_bytes(0), "page_bytes"),
        (WriteOptions::default().with_max_row_group_rows(0), "max_row_group_rows"),
        (WriteOptions::default().with_row_group_bytes(0), "row_group_bytes"),
        (WriteOptions::default().with_compression_threshold(0.0), "compression_threshold"),
        (WriteOptions::default().with_compression_threshold(f64::NAN), "compression_threshold"),
        (WriteOptions::default().with_column_encoding("gone", Encoding::Plain), "column=`gone`"),
        (WriteOptions::default().with_compression(parquet::basic::Compression::LZO), "LZO"),
    ] {
        let builder = build(Arc::clone(&fine), BucketSpec::new(["k"], 4).unwrap()).with_options(options);
        let (kind, message) = failure(builder).await;
        assert!(kind == ErrorKind::InvalidInput && message.contains(named), "{message}");
    }
    assert!(newest(&store).await.is_none());
}

#[tokio::test]
async fn an_append_that_does_not_fit_lists_every_difference() {
    let (store, a) = (in_memory(), table(50, 1));
    write_all(builder(&store, &a), &a).await.unwrap();
    let other = Table::random(vec![Kind::Int32, Kind::Utf8], 1, 5, 0, 1);
    let spec = BucketSpec::new(["c0", "c1"], 4).unwrap();
    let build =
        DatasetWriter::builder(Arc::clone(&store), "plays", other.schema(), spec).with_mode(WriteMode::Append).build();
    let error = build.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let message = error.to_string();
    assert!(
        message.contains("column 0 is `c0` of type `int32`, nullable instead of `c0` of type `int64`, nullable"),
        "{message}"
    );
    assert!(message.contains("key=[c0, c1]") && message.contains("instead of `key=[c0]"), "{message}");
    // A replacement may have any schema.
    DatasetWriter::builder(Arc::clone(&store), "plays", other.schema(), BucketSpec::new(["c1"], 9).unwrap())
        .with_mode(WriteMode::Replace)
        .build()
        .await
        .unwrap();
}

#[tokio::test]
async fn batches_of_another_schema_are_refused_and_break_the_writer() {
    let (store, a) = (in_memory(), table(10, 1));
    let mut writer = builder(&store, &a).build().await.unwrap();
    // The layout of strings does not matter.
    let large = Table { columns: vec![Kind::Int64, Kind::Dictionary], rows: a.rows.clone() };
    writer.write(&large.batches(&[10])[0]).await.unwrap();

    let other = Table::random(vec![Kind::Int32, Kind::Binary], 10, 5, 0, 1);
    let error = writer.write(&other.batches(&[10])[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let message = error.to_string();
    assert!(message.contains("column 0 is `c0` of type `int32` instead of `c0` of type `int64`"), "{message}");
    assert!(message.contains("column 1 is `c1` of type `binary` instead of `c1` of type `utf8`"), "{message}");

    let error = writer.write(&a.batches(&[10])[0]).await.unwrap_err();
    assert!(error.to_string().contains("failed before"), "{error}");
    assert_eq!(kind(writer.commit().await), ErrorKind::InvalidInput);
    assert!(newest(&store).await.is_none());

    let mut writer = builder(&store, &a).build().await.unwrap();
    let fewer = Table::random(vec![Kind::Int64], 1, 5, 0, 1);
    let error = writer.write(&fewer.batches(&[10])[0]).await.unwrap_err();
    assert!(error.to_string().contains("it has 1 columns instead of 2"), "{error}");
}

#[tokio::test]
async fn values_that_cannot_be_stored_are_refused() {
    let store = in_memory();
    let spec = BucketSpec::new(["k"], 4).unwrap();
    let seconds = TimestampSecondArray::from(vec![0, i64::MAX / 10]);
    let batch = RecordBatch::try_from_iter([("k", Arc::new(seconds) as ArrayRef)]).unwrap();
    let mut writer =
        DatasetWriter::builder(Arc::clone(&store), "a", batch.schema(), spec.clone()).build().await.unwrap();
    let error = writer.write(&batch).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("column=`k`"), "{error}");

    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
    let nulls = RecordBatch::try_from_iter_with_nullable([(
        "k",
        Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef,
        true,
    )]);
    let mut writer =
        DatasetWriter::builder(Arc::clone(&store), "b", Arc::clone(&schema), spec.clone()).build().await.unwrap();
    let error = writer.write(&nulls.unwrap()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidInput && error.to_string().contains("not nullable holds nulls, column=`k`"),
        "{error}"
    );

    // A nullable column without nulls fits one that is not nullable.
    let fits = RecordBatch::try_from_iter_with_nullable([("k", Arc::new(Int64Array::from(vec![1])) as ArrayRef, true)])
        .unwrap();
    let mut writer = DatasetWriter::builder(store, "c", schema, spec).build().await.unwrap();
    writer.write(&fits).await.unwrap();
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn aborted_and_dropped_writers_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, a) = (in_memory(), table(5000, 1));
    for abort in [true, false] {
        let options = WriteOptions::default().with_memory_budget(1 << 15).with_spill_dir(dir.path());
        let mut writer = builder(&store, &a).with_options(options).build().await.unwrap();
        for batch in a.batches(&[500]) {
            writer.write(&batch).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        if abort {
            writer.abort().await;
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        } else {
            drop(writer);
            memory::until_empty(dir.path()).await;
        }
    }
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(listed.is_empty());
}

#[tokio::test]
async fn law_same_rows_write_id_and_clock_make_the_same_bytes() {
    let a = table(2000, 1);
    let mut seen = vec![];
    for batch_rows in [100, 77] {
        let store = in_memory();
        let id = WriteId::new("job-7").unwrap();
        let mut writer = builder(&store, &a).with_clock(clock()).with_write_id(id).build().await.unwrap();
        for batch in a.batches(&[batch_rows]) {
            writer.write(&batch).await.unwrap();
        }
        writer.commit().await.unwrap();
        let mut files = BTreeMap::new();
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        for meta in listed {
            files.insert(meta.location.to_string(), store.get(&meta.location).await.unwrap().bytes().await.unwrap());
        }
        seen.push(files);
    }
    assert_eq!(seen[0].len(), 6, "4 runs, manifest, hint");
    assert!(seen[0] == seen[1]);
}

#[tokio::test]
async fn a_job_that_runs_again_finds_its_own_commit() {
    let (store, a, b) = (in_memory(), table(300, 1), table(10, 2));
    let id = || WriteId::new("job-7").unwrap();
    write_all(builder(&store, &a).with_write_id(id()), &a).await.unwrap();
    write_all(builder(&store, &b).with_mode(WriteMode::Append), &b).await.unwrap();
    let files = run_files(&store).await;
    // At build, also in a mode that would be refused.
    for mode in [WriteMode::Create, WriteMode::Append, WriteMode::Replace] {
        write_all(builder(&store, &a).with_mode(mode).with_write_id(id()), &a).await.unwrap();
    }
    assert_eq!(newest(&store).await.unwrap().version, 2);
    assert_eq!(run_files(&store).await, files);
}

#[tokio::test]
async fn twins_of_one_job_commit_once_and_the_second_deletes_its_files() {
    let (store, a, b) = (in_memory(), table(300, 1), table(50, 2));
    write_all(builder(&store, &b), &b).await.unwrap();
    let twin = || builder(&store, &a).with_mode(WriteMode::Append).with_write_id(WriteId::new("job-7").unwrap());
    let mut slow = twin().build().await.unwrap();
    for batch in a.batches(&[100]) {
        slow.write(&batch).await.unwrap();
    }
    write_all(twin(), &a).await.unwrap();
    let files = run_files(&store).await;
    slow.commit().await.unwrap();
    assert_eq!(run_files(&store).await, files);
    let manifest = newest(&store).await.unwrap();
    assert_eq!(manifest.version, 2);
    assert_eq!(rows(&store, &a, &manifest).await, sorted(&[&a, &b]));
}

#[tokio::test]
async fn many_writers_make_one_commit() {
    let store = in_memory();
    let tables: Vec<Table> = (0..3).map(|i| table(200 + i, i as u64 + 1)).collect();
    let ticket = builder(&store, &tables[0]).with_clock(clock()).with_property("p", "v").begin().await.unwrap();
    let text = serde_json::to_string(&ticket).unwrap();
    assert_eq!(serde_json::from_str::<WriteTicket>(&text).unwrap(), ticket);

    let mut results = vec![];
    for (task, table) in tables.iter().enumerate() {
        let ticket: WriteTicket = serde_json::from_str(&text).unwrap();
        let mut writer = ticket.writer(Arc::clone(&store), task as u32).unwrap();
        for batch in table.batches(&[70]) {
            writer.write(&batch).await.unwrap();
        }
        let written = writer.finish().await.unwrap();
        assert_eq!((written.task(), written.rows(), written.runs()), (task as u32, table.rows.len() as u64, 4));
        results.push(serde_json::from_str::<WrittenRuns>(&serde_json::to_string(&written).unwrap()).unwrap());
    }
    assert!(newest(&store).await.is_none());

    let twice = vec![results[0].clone(), results[0].clone()];
    assert_eq!(kind(ticket.commit(Arc::clone(&store), twice).await), ErrorKind::InvalidInput);
    let mut renamed = results[0].clone();
    renamed.task = 9;
    assert_eq!(
        kind(ticket.commit(Arc::clone(&store), vec![results[0].clone(), renamed]).await),
        ErrorKind::InvalidInput
    );
    let other = builder(&store, &tables[0]).begin().await.unwrap();
    let error = other.commit(Arc::clone(&store), results.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("another write"), "{error}");
    assert!(newest(&store).await.is_none());

    ticket.commit(Arc::clone(&store), results.clone()).await.unwrap();
    let manifest = newest(&store).await.unwrap();
    assert_eq!((manifest.version, manifest.runs.len()), (1, 12));
    assert_eq!(rows(&store, &tables[0], &manifest).await, sorted(&tables.iter().collect::<Vec<_>>()));
    // Once more changes nothing.
    ticket.commit(Arc::clone(&store), results).await.unwrap();
    assert_eq!(newest(&store).await.unwrap(), manifest);
}

#[tokio::test]
async fn a_tasks_writer_does_not_commit_and_its_results_can_be_given_up() {
    let (store, a) = (in_memory(), table(100, 1));
    let ticket = builder(&store, &a).begin().await.unwrap();
    assert_eq!(kind(ticket.writer(Arc::clone(&store), 0).unwrap().commit().await), ErrorKind::InvalidInput);
    let mut writer = ticket.writer(Arc::clone(&store), 1).unwrap();
    writer.write(&a.batches(&[100])[0]).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!(run_files(&store).await, 4);
    ticket.abort(Arc::clone(&store), [written]).await.unwrap();
    assert_eq!(run_files(&store).await, 0);

    // A writer of its own can be finished and committed apart, too.
    let mut writer = builder(&store, &a).build().await.unwrap();
    writer.write(&a.batches(&[100])[0]).await.unwrap();
    let ticket = writer.ticket().clone();
    let written = writer.finish().await.unwrap();
    ticket.commit(Arc::clone(&store), [written]).await.unwrap();
    assert_eq!(rows(&store, &a, &newest(&store).await.unwrap()).await, sorted(&[&a]));
}

#[tokio::test]
async fn after_a_failure_at_any_operation_there_is_all_or_nothing_and_a_retry_succeeds() {
    let a = table(200, 1);
    let job = async |store: &Arc<dyn ObjectStore>| {
        write_all(builder(store, &a).with_write_id(WriteId::new("job-7").unwrap()), &a).await
    };
    let fault = Arc::new(FaultStore::default());
    let store: Arc<dyn ObjectStore> = Arc::clone(&fault) as _;
    job(&store).await.unwrap();
    let operations = fault.take_log().len();
    assert!(operations > 8);
    let mut failed = 0;
    for operation in 0..operations {
        for when in [When::Before, When::After] {
            let fault = Arc::new(FaultStore::default());
            let store: Arc<dyn ObjectStore> = Arc::clone(&fault) as _;
            fault.fail(operation..operation + 1, when);
            let result = job(&store).await;
            fault.heal();
            let found = newest(&store).await;
            if let Some(manifest) = &found {
                assert_eq!(rows(&store, &a, manifest).await, sorted(&[&a]), "operation {operation} {when:?}");
            }
            assert!(result.is_err() || found.is_some());
            failed += usize::from(result.is_err());
            job(&store).await.unwrap();
            let manifest = newest(&store).await.unwrap();
            assert_eq!(manifest.version, 1);
            assert_eq!(rows(&store, &a, &manifest).await, sorted(&[&a]), "operation {operation} {when:?}");
        }
    }
    assert!(failed > 4, "{failed} failures");
}

#[tokio::test]
async fn a_failed_upload_deletes_the_other_runs() {
    let a = table(200, 1);
    let fault = Arc::new(FaultStore::default());
    let store: Arc<dyn ObjectStore> = Arc::clone(&fault) as _;
    let mut writer = builder(&store, &a).build().await.unwrap();
    writer.write(&a.batches(&[200])[0]).await.unwrap();
    fault.fail(2..3, When::Before);
    let error = writer.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.path().unwrap().starts_with("plays/data/"), "{error}");
    fault.heal();
    assert_eq!(run_files(&store).await, 0);
    assert!(newest(&store).await.is_none());
}

#[test]
fn writers_and_their_futures_can_be_sent() {
    fn sendable<T: Send + 'static>(value: T) -> T {
        value
    }
    let (store, a) = (in_memory(), table(10, 1));
    let work = sendable(async move {
        let mut writer = builder(&store, &a).build().await?;
        writer.write(&a.batches(&[10])[0]).await?;
        let ticket = writer.ticket().clone();
        let written = writer.finish().await?;
        ticket.commit(store, [written]).await
    });
    runtime().block_on(work).unwrap();
}
