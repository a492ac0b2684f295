//! What a vacuum does and says: dry runs, times, dropped datasets, foreign objects, staging files, requests. Races and faults are elsewhere.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::{Value, json};
use sort_merge_bucket::chrono::{DateTime, TimeDelta, Utc};
use sort_merge_bucket::{
    Clock, Dataset, DatasetWriter, DatasetWriterBuilder, ErrorKind, Operation, Scan, VacuumOptions, VacuumReport,
    WriteMode,
};

use crate::support::data::batch_of;
use crate::support::named::{data, schema, some};
use crate::support::oracle::{Row, sorted};
use crate::support::stores::{TestStore, put, read};
use crate::support::{assert_error, assert_valid, history, memory, rows};

type Store = Arc<dyn ObjectStore>;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn builder(store: &Store, mode: WriteMode) -> DatasetWriterBuilder {
    DatasetWriter::builder(Arc::clone(store), "d", schema(), data().spec(2)).with_mode(mode)
}

/// Writes `name`'s rows at a time.
async fn write_at(store: &Store, mode: WriteMode, name: &str, time: DateTime<Utc>) -> Dataset {
    let mut writer = builder(store, mode).with_clock(Clock::Fixed(time)).build().await.unwrap();
    writer.write(&batch_of(&schema(), &some(name, 10))).await.unwrap();
    writer.commit().await.unwrap()
}

async fn write(store: &Store, mode: WriteMode, name: &str) -> Dataset {
    write_at(store, mode, name, now()).await
}

/// Uploads runs that nobody commits.
async fn lose(store: &Store) {
    let ticket = builder(store, WriteMode::Append).begin().await.unwrap();
    let mut writer = ticket.writer(Arc::clone(store), 0).unwrap();
    writer.write(&batch_of(&schema(), &some("lost", 10))).await.unwrap();
    writer.finish().await.unwrap();
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// By a clock that is a day ahead of the store's.
fn tomorrow() -> VacuumOptions {
    VacuumOptions::default()
        .with_retention(Duration::ZERO)
        .with_grace_period(Duration::ZERO)
        .with_clock(Clock::Fixed(now() + TimeDelta::days(1)))
}

async fn vacuum(store: &Store, options: &VacuumOptions) -> VacuumReport {
    Dataset::vacuum(Arc::clone(store), "d", options).await.unwrap()
}

async fn contents(store: &Store) -> Vec<Row> {
    let dataset = Dataset::open(Arc::clone(store), "d").await.unwrap();
    assert_valid(&dataset).await;
    sorted(rows(&Scan::new(&dataset).plan().unwrap()).await)
}

async fn metadata(store: &Store) -> Vec<ObjectMeta> {
    let mut all: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    all.sort_by(|a, b| a.location.cmp(&b.location));
    all
}

#[tokio::test]
async fn a_dry_run_reports_what_would_be_done_and_touches_nothing() {
    let store = memory();
    write(&store, WriteMode::Create, "a").await;
    write(&store, WriteMode::Append, "b").await;
    lose(&store).await;
    write(&store, WriteMode::Replace, "c").await;
    put(&store, "d/data/note.txt", "hands off").await;
    let before = metadata(&store).await;
    let dry = vacuum(&store, &tomorrow().with_dry_run(true)).await;
    assert_eq!(metadata(&store).await, before, "not even the hint is written");
    assert_eq!((dry.version, &dry.emptied_versions[..], dry.fenced_write_ids.len()), (Some(4), &[1, 2][..], 1));
    assert_eq!((dry.deleted.len(), &dry.unknown[..]), (6, &[Path::from("d/data/note.txt")][..]));
    let bytes: u64 = before.iter().filter(|meta| dry.deleted.contains(&meta.location)).map(|meta| meta.size).sum();
    assert_eq!(dry.deleted_bytes, bytes);
    assert_eq!(
        dry.to_string(),
        format!(
            "2 versions emptied, 1 writes fenced, 6 files of {bytes} bytes deleted, 0 files of 0 bytes waiting, 1 unknown objects"
        )
    );

    assert_eq!(vacuum(&store, &tomorrow()).await, dry, "the vacuum does what the dry run said");
    let left: Vec<Path> = metadata(&store).await.into_iter().map(|meta| meta.location).collect();
    assert!(dry.deleted.iter().all(|gone| !left.contains(gone)));
    assert_eq!(read(&store, "d/data/note.txt").await, "hands off");
    assert_eq!(contents(&store).await, sorted(some("c", 10)));
    let newest = Dataset::open(Arc::clone(&store), "d").await.unwrap();
    assert_eq!((newest.version(), newest.operation(), newest.data_version()), (4, Operation::Vacuum, 3));
    for version in [1, 2] {
        let error = Dataset::open_version(Arc::clone(&store), "d", version).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &["vacuumed"]);
    }
    let again = vacuum(&store, &tomorrow()).await;
    assert_eq!((again.version, &again.emptied_versions[..]), (None, &[3][..]), "what the vacuum's version followed");
    assert!(vacuum(&store, &tomorrow()).await.is_empty());
    assert_eq!(Dataset::open(store, "d").await.unwrap().version(), 4, "nothing to fence, no version");
}

#[tokio::test]
async fn versions_go_when_the_retention_after_their_successor_is_over_and_files_of_failed_writes_after_the_grace_period()
 {
    let store = memory();
    let start = now() - TimeDelta::days(20);
    let at = |day: i64| start + TimeDelta::days(day);
    // Version 1 is old, but was the newest for 15 days.
    write_at(&store, WriteMode::Create, "a", at(0)).await;
    write_at(&store, WriteMode::Replace, "b", at(15)).await;
    write_at(&store, WriteMode::Replace, "c", at(16)).await;
    lose(&store).await;
    let options = |day: i64| VacuumOptions::default().with_clock(Clock::Fixed(at(day)));
    let report = vacuum(&store, &options(20)).await;
    assert!(report.is_empty(), "{report:?}");
    assert_eq!(report.waiting.len(), 2, "the failed write's files are too young");
    let report = vacuum(&store, &options(22)).await;
    assert_eq!((report.emptied_versions, report.fenced_write_ids.len()), (vec![1], 0));
    let report = vacuum(&store, &options(22).with_retention(6 * DAY)).await;
    assert_eq!(report.emptied_versions, [2]);
    // Uploaded on day 20 by the store's clock.
    let report = vacuum(&store, &options(26)).await;
    assert_eq!(
        (report.fenced_write_ids.len(), report.waiting.len()),
        (0, 2 + 2 + 2),
        "the files of the emptied versions are as young"
    );
    let report = vacuum(&store, &options(28)).await;
    assert_eq!((report.fenced_write_ids.len(), report.deleted.len(), report.version), (1, 6, Some(4)));
    assert_eq!(contents(&store).await, sorted(some("c", 10)));
}

#[tokio::test]
async fn a_dropped_dataset_is_emptied_and_can_be_created_again() {
    let store = memory();
    let first = write(&store, WriteMode::Create, "a").await;
    lose(&store).await;
    first.clone().drop_dataset().await.unwrap();
    let report = vacuum(&store, &tomorrow()).await;
    assert_eq!((report.version, &report.emptied_versions[..], report.deleted.len()), (Some(3), &[1][..], 4));
    assert!(history::data(store.as_ref(), "d").await.is_empty());
    let error = Dataset::open(Arc::clone(&store), "d").await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["dropped"]);
    let again = write(&store, WriteMode::Create, "b").await;
    assert_eq!((again.version(), again.id()), (4, first.id()));
    assert_eq!(contents(&store).await, sorted(some("b", 10)));
    history::check(store.as_ref(), "d").await;
}

#[tokio::test]
async fn without_a_dataset_or_with_a_damaged_version_nothing_is_removed() {
    let store = memory();
    let error = Dataset::vacuum(Arc::clone(&store), "d", &tomorrow()).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["path=`d`"]);
    for name in ["a", "b", "c"] {
        write(&store, WriteMode::Replace, name).await;
    }
    lose(&store).await;
    let manifest = "d/_smb/00000000000000000002.json";
    put(&store, manifest, "{}").await;
    let before = metadata(&store).await;
    let error = Dataset::vacuum(Arc::clone(&store), "d", &tomorrow()).await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, &[manifest]);
    assert_eq!(metadata(&store).await, before);
}

#[tokio::test]
async fn what_a_newer_library_put_into_the_manifest_is_carried_on() {
    let store = memory();
    write(&store, WriteMode::Create, "a").await;
    let edit = async |version: u64, field: &str, value: Value| {
        let path = format!("d/_smb/{version:020}.json");
        let mut manifest: Value = serde_json::from_slice(&read(&store, &path).await).unwrap();
        manifest[field] = value;
        put(&store, &path, manifest.to_string()).await;
    };
    edit(1, "zones", json!({"a": [1, 2.5]})).await;
    lose(&store).await;
    assert_eq!(vacuum(&store, &tomorrow()).await.version, Some(2));
    let manifest: Value = serde_json::from_slice(&read(&store, "d/_smb/00000000000000000002.json").await).unwrap();
    assert_eq!(manifest["zones"], json!({"a": [1, 2.5]}));
    edit(2, "writer_features", json!(["row-ids"])).await;
    let error = Dataset::vacuum(Arc::clone(&store), "d", &tomorrow()).await.unwrap_err();
    assert_error(&error, ErrorKind::UnsupportedVersion, &["row-ids"]);
}

#[tokio::test]
async fn a_vacuum_lists_once_and_reads_only_versions_that_are_left() {
    let store = TestStore::new();
    let dynamic: Store = Arc::clone(&store) as _;
    for n in 0..60 {
        write(&dynamic, WriteMode::Replace, &format!("w{n}")).await;
    }
    let report = vacuum(&dynamic, &tomorrow()).await;
    assert_eq!((report.emptied_versions.len(), report.deleted.len(), report.version), (59, 118, None));
    store.take_log();
    assert!(vacuum(&dynamic, &tomorrow()).await.is_empty());
    let log: Vec<String> = store.take_log().iter().map(ToString::to_string).collect();
    let count = |verb: &str| log.iter().filter(|request| request.starts_with(verb)).count();
    assert_eq!((count("LIST"), count("PUT"), count("DELETE")), (1, 0, 0), "{log:?}");
    // The hint, the newest and the probe, then tombstones until it is clear that there is nothing else.
    assert!(count("GET") <= 3 + 32, "{log:?}");
}

#[tokio::test]
async fn only_failed_writes_are_fenced_each_with_40_bytes_of_every_later_manifest() {
    let store = memory();
    for n in 0..130 {
        write(&store, WriteMode::Replace, &format!("w{n}")).await;
    }
    let report = vacuum(&store, &tomorrow()).await;
    assert_eq!((report.emptied_versions.len(), report.fenced_write_ids.len()), (129, 0));
    let size = async |version: u64| read(&store, &format!("d/_smb/{version:020}.json")).await.len();
    let mut sizes = vec![];
    for version in [131, 132] {
        for _ in 0..10 {
            lose(&store).await;
        }
        let report = vacuum(&store, &tomorrow()).await;
        assert_eq!((report.version, report.fenced_write_ids.len()), (Some(version), 10));
        sizes.push(size(version).await);
    }
    // A digit more or less in the versions of other writes.
    assert!((400..=402).contains(&(sizes[1] - sizes[0])), "{sizes:?}");
    assert!(vacuum(&store, &tomorrow()).await.fenced_write_ids.is_empty());
}

#[tokio::test]
async fn on_local_files_staging_leftovers_are_invisible_to_readers_writers_and_vacuum() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    builder(&store, WriteMode::Create).build().await.unwrap().commit().await.unwrap();
    assert!(vacuum(&store, &tomorrow()).await.is_empty(), "without any run, there is no folder to be listed");
    let first = write(&store, WriteMode::Replace, "a").await;
    // What writers leave that died in the middle of a put: of a run, of the next manifest, of the hint.
    let run = first.run_paths().next().unwrap().to_string();
    let staging = [
        format!("{run}#1"),
        "d/data/dead/bucket-00000-of-00002-00000-0badcafe-000001.parquet#1".to_owned(),
        "d/_smb/00000000000000000003.json#1".to_owned(),
        "d/_smb/latest#1".to_owned(),
    ];
    std::fs::create_dir(folder.path().join("d/data/dead")).unwrap();
    for name in &staging {
        std::fs::write(folder.path().join(name), "half").unwrap();
    }
    assert_eq!(contents(&store).await, sorted(some("a", 10)));
    write(&store, WriteMode::Replace, "b").await;
    let report = vacuum(&store, &tomorrow()).await;
    assert_eq!((&report.emptied_versions[..], report.deleted.len()), (&[1, 2][..], 2));
    assert!(report.unknown.is_empty() && report.fenced_write_ids.is_empty() && report.waiting.is_empty(), "{report:?}");
    assert_eq!(contents(&store).await, sorted(some("b", 10)));
    write(&store, WriteMode::Append, "c").await;
    assert_eq!(contents(&store).await, sorted([some("b", 10), some("c", 10)].concat()));
    for name in &staging {
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"half", "they are the administrator's to remove");
    }
}

#[tokio::test]
async fn a_version_on_local_files_is_synced_with_its_folders_and_other_stores_have_nothing_to_sync() {
    assert!(!write(&memory(), WriteMode::Create, "a").await.sync_to_disk().await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let prefixed: Store = Arc::new(object_store::prefix::PrefixStore::new(local, "x"));
    let dataset = write(&prefixed, WriteMode::Create, "a").await;
    assert!(dataset.sync_to_disk().await.unwrap());
    let empty = builder(&prefixed, WriteMode::Replace).build().await.unwrap().commit().await.unwrap();
    assert!(empty.runs().is_empty() && empty.sync_to_disk().await.unwrap());
    std::fs::remove_file(folder.path().join("x").join(dataset.run_paths().next().unwrap().as_ref())).unwrap();
    assert_eq!(dataset.sync_to_disk().await.unwrap_err().kind(), ErrorKind::Store);
}

#[tokio::test]
async fn on_local_files_a_run_or_manifest_lost_to_a_power_failure_is_an_error_and_the_version_before_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store: Store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    write(&store, WriteMode::Create, "a").await;
    let second = write(&store, WriteMode::Append, "b").await;
    let before = async || {
        let dataset = Dataset::open_version(Arc::clone(&store), "d", 1).await.unwrap();
        sorted(rows(&Scan::new(&dataset).plan().unwrap()).await)
    };
    // Names are there, bytes are not: what was never written back.
    let run = second.runs().iter().find(|run| run.path.contains(second.write_id().as_str())).unwrap();
    let run = folder.path().join("d").join(&run.path);
    let bytes = std::fs::read(&run).unwrap();
    for left in [None, Some(0), Some(bytes.len() / 2), Some(bytes.len() - 1)] {
        match left {
            None => std::fs::remove_file(&run).unwrap(),
            Some(left) => std::fs::write(&run, &bytes[..left]).unwrap(),
        }
        let error = crate::support::failure(&Scan::new(&second).plan().unwrap()).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(run.ends_with(error.path().unwrap()), "{error}");
        assert_eq!(before().await, sorted(some("a", 10)));
    }
    std::fs::write(&run, &bytes).unwrap();
    assert_eq!(contents(&store).await.len(), 20);
    // An empty newest manifest stops opening and writing until it is removed by hand; the version before can be read.
    let manifest = folder.path().join("d/_smb/00000000000000000002.json");
    std::fs::write(&manifest, "").unwrap();
    let error = Dataset::open(Arc::clone(&store), "d").await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, &["00000000000000000002.json"]);
    assert_eq!(builder(&store, WriteMode::Append).build().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(before().await, sorted(some("a", 10)));
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(contents(&store).await, sorted(some("a", 10)));
    let next = write(&store, WriteMode::Append, "c").await;
    assert_eq!(next.version(), 2);
    assert_eq!(contents(&store).await, sorted([some("a", 10), some("c", 10)].concat()));
}
