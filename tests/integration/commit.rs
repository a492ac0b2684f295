//! Commits as callers see them: what each mode does, who wins, that writing again doubles nothing, and that a read that fails is an error.

use std::sync::Arc;

use arrow::datatypes::DataType;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use sort_merge_bucket::{
    BucketSpec, Dataset, DatasetWriter, DatasetWriterBuilder, Error, ErrorKind, Operation, Result, Scan, WriteId,
    WriteMode, WriteTicket, WrittenRuns,
};

use crate::support::data::{DatasetData, batch_of};
use crate::support::named::{data, schema, some};
use crate::support::oracle::{Row, sorted, text};
use crate::support::stores::{TestStore, When};
use crate::support::{assert_error, assert_valid, field, memory, rows};

fn spec(buckets: u32) -> BucketSpec {
    data().spec(buckets)
}

fn builder(store: &Arc<dyn ObjectStore>, mode: WriteMode) -> DatasetWriterBuilder {
    DatasetWriter::builder(Arc::clone(store), "d", schema(), spec(4)).with_mode(mode)
}

async fn write(store: &Arc<dyn ObjectStore>, mode: WriteMode, name: &str) -> Result<Dataset> {
    let mut writer = builder(store, mode).build().await?;
    writer.write(&batch_of(&schema(), &some(name, 5))).await?;
    writer.commit().await
}

async fn open(store: &Arc<dyn ObjectStore>) -> Result<Dataset> {
    Dataset::open(Arc::clone(store), "d").await
}

/// How many rows of each name the newest version has.
async fn contents(store: &Arc<dyn ObjectStore>) -> Vec<Row> {
    let dataset = open(store).await.unwrap();
    sorted(rows(&Scan::new(&dataset).plan().unwrap()).await)
}

fn names(names: &[&str]) -> Vec<Row> {
    sorted(names.iter().flat_map(|name| some(name, 5)).collect())
}

#[tokio::test]
async fn datasets_are_created_appended_to_replaced_and_dropped_with_the_versions_to_show_for_it() {
    let local = tempfile::tempdir().unwrap();
    for store in [memory(), Arc::new(LocalFileSystem::new_with_prefix(local.path()).unwrap()) as _] {
        assert_eq!(open(&store).await.unwrap_err().kind(), ErrorKind::NotFound);
        let first = write(&store, WriteMode::Create, "a").await.unwrap();
        assert_eq!((first.version(), first.operation()), (1, Operation::Create));
        let second = write(&store, WriteMode::Append, "b").await.unwrap();
        assert_eq!((second.version(), second.operation(), second.id()), (2, Operation::Append, first.id()));
        assert_eq!(contents(&store).await, names(&["a", "b"]));
        let third = write(&store, WriteMode::Replace, "c").await.unwrap();
        assert_eq!((third.version(), third.operation(), third.id()), (3, Operation::Replace, first.id()));
        assert_eq!(contents(&store).await, names(&["c"]));
        assert_valid(&third).await;
        third.drop_dataset().await.unwrap();
        assert_error(&open(&store).await.unwrap_err(), ErrorKind::NotFound, &["dropped"]);
        // Its place can be taken again, with another schema, and the numbers go on.
        let fields = vec![field("other", DataType::Utf8, false)];
        let new = DatasetData::new(fields, &["other"], 2, vec![vec![text("x")]]).write(&store, "d").await;
        assert_eq!((new.version(), new.operation(), new.id()), (5, Operation::Create, first.id()));
    }
}

#[tokio::test]
async fn each_mode_meets_each_state_as_documented() {
    let store = memory();
    // Append and replace make the dataset if there is none.
    assert_eq!(write(&store, WriteMode::Append, "a").await.unwrap().operation(), Operation::Create);
    let error = write(&store, WriteMode::Create, "b").await.unwrap_err();
    assert_error(&error, ErrorKind::Conflict, &["exists already", "path=`d`"]);
    let other = memory();
    assert_eq!(write(&other, WriteMode::Replace, "a").await.unwrap().operation(), Operation::Create);

    // Appending wants the same schema and spec, the bucket count aside.
    let fields =
        vec![field("k", DataType::Int32, true), field("v", DataType::Binary, true), field("w", DataType::Int64, true)];
    let builder = |fields: Vec<_>, key: &[&str]| {
        let data = DatasetData::new(fields, key, 4, vec![]);
        DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), data.spec(4)).with_mode(WriteMode::Append)
    };
    let error = builder(fields[..2].to_vec(), &["v"]).build().await.unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["`k` of type `int32`", "`v` of type `binary`", "key=[v]"]);
    let error = builder(fields, &["k"]).build().await.unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["3 columns instead of 2"]);
    let mut writer = DatasetWriter::builder(Arc::clone(&store), "d", schema(), spec(7))
        .with_mode(WriteMode::Append)
        .build()
        .await
        .unwrap();
    writer.write(&batch_of(&schema(), &some("c", 5))).await.unwrap();
    let mixed = writer.commit().await.unwrap();
    assert_eq!(mixed.spec().buckets().get(), 7);
    assert_eq!(contents(&store).await, names(&["a", "c"]));
    assert_valid(&mixed).await;
}

/// What became of two writers of these modes, of which the first was built first and commits last.
async fn race(first: WriteMode, second: WriteMode) -> (Result<Dataset>, Vec<Row>) {
    let store = memory();
    write(&store, WriteMode::Create, "base").await.unwrap();
    let mut early = builder(&store, first).build().await.unwrap();
    early.write(&batch_of(&schema(), &some("early", 5))).await.unwrap();
    write(&store, second, "late").await.unwrap();
    let result = early.commit().await;
    (result, contents(&store).await)
}

#[tokio::test]
async fn appends_follow_appends_and_nothing_follows_a_replace() {
    let (result, found) = race(WriteMode::Append, WriteMode::Append).await;
    assert_eq!((result.unwrap().version(), found), (3, names(&["base", "early", "late"])));
    for (first, second, left) in [
        (WriteMode::Append, WriteMode::Replace, &["late"][..]),
        (WriteMode::Replace, WriteMode::Replace, &["late"]),
        (WriteMode::Replace, WriteMode::Append, &["base", "late"]),
    ] {
        let (result, found) = race(first, second).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict, "{first:?} after {second:?}");
        assert_eq!(found, names(left));
    }
}

#[tokio::test]
async fn of_writers_that_create_at_once_one_wins_and_the_files_of_the_others_go() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let results = futures::future::join_all((0..5).map(|_| write(&dynamic, WriteMode::Create, "a"))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|lost| lost.unwrap_err().kind() == ErrorKind::Conflict));
    let objects = store.objects().await;
    assert_eq!(objects.iter().filter(|path| path.ends_with(".parquet")).count(), won[0].as_ref().unwrap().runs().len());
    assert_eq!(contents(&dynamic).await, names(&["a"]));

    // Any number of appends at once all come in, each once.
    let letters = ["b", "c", "d", "e", "f"];
    let results = futures::future::join_all(letters.map(|name| write(&dynamic, WriteMode::Append, name))).await;
    let mut versions: Vec<u64> = results.into_iter().map(|dataset| dataset.unwrap().version()).collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5, 6]);
    assert_eq!(contents(&dynamic).await, names(&["a", "b", "c", "d", "e", "f"]));
    assert_valid(&open(&dynamic).await.unwrap()).await;
}

#[tokio::test]
async fn a_dataset_that_changed_since_it_was_opened_is_not_dropped() {
    let store = memory();
    let first = write(&store, WriteMode::Create, "a").await.unwrap();
    write(&store, WriteMode::Append, "b").await.unwrap();
    assert_eq!(first.drop_dataset().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(contents(&store).await, names(&["a", "b"]));
}

#[tokio::test]
async fn writers_that_are_aborted_dropped_or_only_finished_leave_nothing_visible() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    write(&dynamic, WriteMode::Create, "a").await.unwrap();
    let before = store.objects().await;
    let filled = async || {
        let mut writer = builder(&dynamic, WriteMode::Append).build().await.unwrap();
        writer.write(&batch_of(&schema(), &some("lost", 5))).await.unwrap();
        writer
    };
    filled().await.abort().await;
    drop(filled().await);
    assert_eq!(store.objects().await, before);

    let ticket = builder(&dynamic, WriteMode::Append).begin().await.unwrap();
    let mut writer = ticket.writer(Arc::clone(&dynamic), 0).unwrap();
    writer.write(&batch_of(&schema(), &some("lost", 5))).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!((written.rows(), written.runs()), (5, store.objects().await.len() - before.len()));
    assert_eq!(contents(&dynamic).await, names(&["a"]));
    ticket.abort(Arc::clone(&dynamic), [written]).await.unwrap();
    assert_eq!(store.objects().await, before);
    assert_eq!(open(&dynamic).await.unwrap().version(), 1);
}

#[tokio::test]
async fn a_writer_that_failed_accepts_nothing_more_and_nothing_that_does_not_fit_is_taken() {
    let store = memory();
    let mut writer = builder(&store, WriteMode::Create).build().await.unwrap();
    let other = batch_of(
        &DatasetData::new(vec![field("k", DataType::Utf8, true), field("v", DataType::Utf8, true)], &["k"], 1, vec![])
            .schema(),
        &[vec![text("x"), text("y")]],
    );
    assert_error(&writer.write(&other).await.unwrap_err(), ErrorKind::InvalidInput, &["k"]);
    let good = batch_of(&schema(), &some("a", 5));
    assert_error(&writer.write(&good).await.unwrap_err(), ErrorKind::InvalidInput, &["failed before"]);
    assert_error(&writer.commit().await.unwrap_err(), ErrorKind::InvalidInput, &["failed before"]);
    assert_eq!(open(&store).await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_error(&BucketSpec::new(["k"], 0).unwrap_err(), ErrorKind::InvalidInput, &["buckets=`0`"]);
    assert_error(
        &BucketSpec::new(Vec::<String>::new(), 4).unwrap_err(),
        ErrorKind::InvalidInput,
        &["at least one key"],
    );
    assert_error(&BucketSpec::new(["k", "k"], 4).unwrap_err(), ErrorKind::InvalidInput, &["column=`k`"]);
    let missing = BucketSpec::new(["nobody"], 4).unwrap().with_sort_columns(["nothing"]).unwrap();
    let error = DatasetWriter::builder(Arc::clone(&store), "d", schema(), missing).build().await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["`nobody` is not in the schema", "`nothing` is not in the schema"]);
    for id in ["", "a/b", "..", "-x", "ü", &"x".repeat(101)] {
        assert_eq!(WriteId::new(id).unwrap_err().kind(), ErrorKind::InvalidInput, "{id}");
    }
}

#[tokio::test]
async fn many_writers_share_one_commit_by_tickets_and_results_that_went_through_json() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let ticket = serde_json::to_string(&builder(&dynamic, WriteMode::Create).begin().await.unwrap()).unwrap();
    let process = async |task: u32, name: &str| {
        let ticket: WriteTicket = serde_json::from_str(&ticket).unwrap();
        let mut writer = ticket.writer(Arc::clone(&dynamic), task).unwrap();
        writer.write(&batch_of(&schema(), &some(name, 5))).await.unwrap();
        serde_json::to_string(&writer.finish().await.unwrap()).unwrap()
    };
    let read = |text: &String| -> WrittenRuns { serde_json::from_str(text).unwrap() };
    let results = [process(0, "a").await, process(1, "b").await, process(2, "c").await];
    // A twin of task 1 that finished as well: only one of both may be committed.
    let twin = process(1, "b").await;
    let ticket: WriteTicket = serde_json::from_str(&ticket).unwrap();
    let both = results.iter().chain([&twin]).map(read);
    assert_error(&ticket.commit(Arc::clone(&dynamic), both).await.unwrap_err(), ErrorKind::InvalidInput, &["task=`1`"]);
    assert_eq!(open(&dynamic).await.unwrap_err().kind(), ErrorKind::NotFound);
    let foreign = builder(&dynamic, WriteMode::Create).begin().await.unwrap();
    let error = foreign.commit(Arc::clone(&dynamic), results.iter().map(read)).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["another write"]);

    let dataset = ticket.commit(Arc::clone(&dynamic), results.iter().map(read)).await.unwrap();
    assert_eq!((dataset.version(), dataset.statistics().rows), (1, 15));
    assert_valid(&dataset).await;
    // Committed once more, by a coordinator that lost its memory: the same version.
    let again = ticket.commit(Arc::clone(&dynamic), results.iter().map(read)).await.unwrap();
    assert_eq!((again.version(), again.statistics().rows), (1, 15));
    assert_eq!(contents(&dynamic).await, names(&["a", "b", "c"]));
    ticket.abort(Arc::clone(&dynamic), [read(&twin)]).await.unwrap();
    assert_eq!(store.objects().await.iter().filter(|path| path.ends_with(".parquet")).count(), dataset.runs().len());
}

#[tokio::test]
async fn a_job_that_runs_again_under_its_write_id_finds_its_commit() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let job = async |mode, name: &str| {
        let writer = builder(&dynamic, mode).with_write_id(WriteId::new(name).unwrap()).build().await;
        let mut writer = writer?;
        writer.write(&batch_of(&schema(), &some(name, 5))).await?;
        writer.commit().await
    };
    assert_eq!(job(WriteMode::Create, "monday").await.unwrap().version(), 1);
    assert_eq!(job(WriteMode::Append, "tuesday").await.unwrap().version(), 2);
    let objects = store.objects().await;
    for (mode, name, version) in
        [(WriteMode::Create, "monday", 1), (WriteMode::Append, "tuesday", 2), (WriteMode::Replace, "monday", 1)]
    {
        let again = job(mode, name).await.unwrap();
        assert_eq!(again.version(), version, "{name}");
    }
    assert_eq!(store.objects().await, objects);
    assert_eq!(contents(&dynamic).await, names(&["monday", "tuesday"]));
}

#[tokio::test]
async fn a_read_that_fails_at_any_request_is_an_error_never_fewer_rows() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    write(&dynamic, WriteMode::Create, "old").await.unwrap();
    write(&dynamic, WriteMode::Append, "more").await.unwrap();
    store.heal();
    let expected = contents(&dynamic).await;
    let requests = store.requests();
    let read = async || -> Result<Vec<Row>, Error> {
        let plan = Scan::new(&open(&dynamic).await?).plan()?;
        let slots = crate::support::try_run(&plan, 2).await?;
        Ok(sorted(crate::support::oracle::all_rows(slots.values().flatten())))
    };
    let mut failed = 0;
    for request in 0..requests {
        for when in [When::Before, When::After] {
            store.fail(request..request + 1, when);
            match read().await {
                Ok(found) => assert_eq!(found, expected, "request {request} fails {when:?}"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Store, "{e}");
                    failed += 1;
                }
            }
        }
    }
    // All but the hint, which is only a hint, are needed.
    assert!(failed >= 2 * (requests - 1), "{failed} of {requests} requests");
}
