//! Tests of opening and committing, on a store that fails where it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::layout::{Clock, DatasetId};
use crate::manifest::tests::{example, example_run, write_id};
use crate::manifest::{Manifest, Operation, RECENT_WRITE_IDS, Tombstone, encode_tombstone};
use crate::spec::BucketCount;

/// When an operation fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    /// Before it had any effect.
    Before,
    /// After its effect: the answer is lost.
    After,
}

/// A store in memory that logs its operations, and fails those it is told to.
#[derive(Debug, Default)]
pub(crate) struct FaultStore {
    inner: InMemory,
    operations: AtomicUsize,
    log: Mutex<Vec<String>>,
    /// Operations, counted from 0, that fail.
    faults: Mutex<Vec<(Range<usize>, When)>>,
    /// Whether create-if-absent overwrites.
    ignores_conditions: bool,
    /// Whether create-if-absent is unknown to the store.
    lacks_conditions: bool,
    /// Objects that the next read does not find yet.
    not_yet: Mutex<Vec<Path>>,
}

impl FaultStore {
    /// Fails these operations, counted from the next one on.
    pub(crate) fn fail(&self, operations: Range<usize>, when: When) {
        let now = self.operations.load(Ordering::SeqCst);
        self.faults.lock().unwrap().push((now + operations.start..now + operations.end, when));
    }

    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// The operations since the last call, as `GET path`.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    async fn run<T>(
        &self,
        name: &str,
        path: &Path,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        self.log.lock().unwrap().push(format!("{name} {path}"));
        let fault =
            self.faults.lock().unwrap().iter().find(|(range, _)| range.contains(&number)).map(|(_, when)| *when);
        let lost = || object_store::Error::Generic { store: "FaultStore", source: "the connection was lost".into() };
        match fault {
            Some(When::Before) => Err(lost()),
            Some(When::After) => {
                let _ = work.await;
                Err(lost())
            }
            None => work.await,
        }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if options.mode == PutMode::Create && self.lacks_conditions {
            return Err(object_store::Error::NotImplemented {
                operation: "put if absent".into(),
                implementer: "FaultStore".into(),
            });
        }
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        self.run("PUT", path, self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.run("MULTIPART", path, self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let name = if options.head { "HEAD" } else { "GET" };
        let not_yet = self.not_yet.lock().unwrap().extract_if(.., |other| other == path).count() > 0;
        if not_yet {
            return InMemory::new().get_opts(path, options).await;
        }
        self.run(name, path, self.inner.get_opts(path, options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.run("RANGES", path, self.inner.get_ranges(path, ranges)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.log.lock().unwrap().push("LIST".to_owned());
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.log.lock().unwrap().push("LIST".to_owned());
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.run("LIST", &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.run("COPY", from, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.run("RENAME", from, self.inner.rename_opts(from, to, options)).await
    }
}

const ROOT: &str = "plays/week=1";

fn clock() -> Clock {
    Clock::Fixed(DateTime::from_timestamp_millis(1_735_689_600_000).unwrap())
}

fn fresh() -> (Arc<FaultStore>, Place) {
    with_store(FaultStore::default())
}

fn with_store(store: FaultStore) -> (Arc<FaultStore>, Place) {
    let store = Arc::new(store);
    let place = Place::new(Arc::clone(&store) as _, ROOT);
    (store, place)
}

/// A change of `operation` with one run, from the version `base`.
fn change(operation: Operation, write: &str, base: Option<&Manifest>) -> Change {
    let Manifest { spec, schema, dataset_id, .. } = example();
    Change {
        operation,
        dataset_id: base.map_or(dataset_id, |base| base.dataset_id.clone()),
        write_id: write_id(write),
        base: base.cloned().map(Arc::new),
        spec,
        schema,
        runs: if operation == Operation::Drop { vec![] } else { vec![example_run(write, 1)] },
        lineage: vec![],
        properties: BTreeMap::from([(write.to_owned(), "yes".to_owned()), ("last".to_owned(), write.to_owned())]),
        clock: clock(),
    }
}

async fn apply(place: &Place, operation: Operation, write: &str) -> Manifest {
    let base = place.newest().await.unwrap();
    commit(place, change(operation, write, base.as_ref())).await.unwrap()
}

async fn create(place: &Place) -> Manifest {
    commit(place, change(Operation::Create, "w1", None)).await.unwrap()
}

fn kind<T: fmt::Debug>(result: crate::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// The write ids whose runs a version has.
fn writes(manifest: &Manifest) -> Vec<&str> {
    manifest.runs.iter().map(|run| run.path.split('/').nth(1).unwrap()).collect()
}

#[tokio::test]
async fn a_dataset_is_created_appended_replaced_dropped_and_created_again() {
    let (_, place) = fresh();
    assert_eq!(place.newest().await.unwrap(), None);
    let first = create(&place).await;
    assert_eq!((first.version, first.base, first.data_version), (1, None, 1));
    assert_eq!(place.newest().await.unwrap().as_ref(), Some(&first));

    let second = apply(&place, Operation::Append, "w2").await;
    assert_eq!((second.version, second.base, writes(&second)), (2, Some(1), vec!["w1", "w2"]));
    assert_eq!(second.properties.keys().collect::<Vec<_>>(), ["last", "w1", "w2"]);
    assert_eq!(second.properties["last"], "w2");

    let third = apply(&place, Operation::Replace, "w3").await;
    assert_eq!((third.version, writes(&third)), (3, vec!["w3"]));
    assert_eq!(third.properties.keys().collect::<Vec<_>>(), ["last", "w3"]);

    let fourth = apply(&place, Operation::Drop, "w4").await;
    assert!(fourth.dropped && fourth.runs.is_empty());
    for operation in [Operation::Append, Operation::Replace, Operation::Drop] {
        assert_eq!(kind(commit(&place, change(operation, "w5", Some(&fourth))).await), ErrorKind::NotFound);
        assert_eq!(kind(commit(&place, change(operation, "w5", None)).await), ErrorKind::NotFound);
    }

    let fifth = apply(&place, Operation::Create, "w6").await;
    assert_eq!((fifth.version, &fifth.dataset_id, writes(&fifth)), (5, &first.dataset_id, vec!["w6"]));
    let recent: Vec<(String, u64)> = fifth.recent_writes.iter().map(|w| (w.write_id.to_string(), w.version)).collect();
    assert_eq!(recent, [("w1".into(), 1), ("w2".into(), 2), ("w3".into(), 3), ("w4".into(), 4), ("w6".into(), 5)]);
    for version in [&first, &second, &third, &fourth, &fifth] {
        assert_eq!(place.version(version.version).await.unwrap(), *version, "old versions stay as they were");
    }
}

#[tokio::test]
async fn opening_reads_hint_manifest_and_probe_and_lists_nothing() {
    let (store, place) = fresh();
    create(&place).await;
    for n in 2..=40 {
        apply(&place, Operation::Append, &format!("w{n}")).await;
    }
    store.take_log();
    assert_eq!(place.newest().await.unwrap().unwrap().version, 40);
    let manifest = |n: u64| format!("GET {ROOT}/_smb/{n:020}.json");
    assert_eq!(store.take_log(), [format!("GET {ROOT}/_smb/latest"), manifest(40), manifest(41)]);
}

#[tokio::test]
async fn creating_costs_two_manifest_puts_and_a_hint() {
    let (store, place) = fresh();
    create(&place).await;
    let manifest = format!("PUT {ROOT}/_smb/00000000000000000001.json");
    assert_eq!(store.take_log(), [manifest.clone(), manifest, format!("PUT {ROOT}/_smb/latest")]);
}

#[tokio::test]
async fn a_hint_that_is_missing_stale_too_high_or_garbage_changes_no_answer() {
    let (store, place) = fresh();
    create(&place).await;
    let hints: [&[u8]; 12] = [
        b"1\n",
        b"2",
        b"9",
        b"1000",
        b"18446744073709551615\n",
        b"18446744073709551616",
        b"0",
        b"-1",
        b"",
        b"\xff\xfe",
        b"1 2",
        &[b'1'; 10_000],
    ];
    for n in 2..=20 {
        let last = apply(&place, Operation::Append, &format!("w{n}")).await;
        for hint in hints {
            store.put(&place.layout.hint(), hint.to_vec().into()).await.unwrap();
            store.take_log();
            assert_eq!(place.newest().await.unwrap().as_ref(), Some(&last), "{hint:?}");
            assert!(store.take_log().len() <= 15, "the search gallops");
        }
        store.delete(&place.layout.hint()).await.unwrap();
        assert_eq!(place.newest().await.unwrap().as_ref(), Some(&last));
    }
}

#[tokio::test]
async fn a_manifest_under_another_number_or_damaged_is_corrupt() {
    let (store, place) = fresh();
    let first = create(&place).await;
    store.copy(&place.layout.manifest(1), &place.layout.manifest(2)).await.unwrap();
    let error = place.newest().await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(place.layout.manifest(2).as_ref())));
    assert!(error.to_string().contains("INV-01"), "{error}");
    assert_eq!(place.version(1).await.unwrap(), first);
    store.put(&place.layout.manifest(2), "{}".into()).await.unwrap();
    assert_eq!(kind(place.newest().await), ErrorKind::Corrupt);
    assert_eq!(kind(commit(&place, change(Operation::Append, "w2", Some(&first))).await), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_version_that_is_missing_or_vacuumed_is_not_found() {
    let (store, place) = fresh();
    let Manifest { dataset_id, version, write_id, committed_at, .. } = create(&place).await;
    apply(&place, Operation::Append, "w2").await;
    for missing in [0, 3, u64::MAX] {
        assert_eq!(kind(place.version(missing).await), ErrorKind::NotFound);
    }
    let tombstone = encode_tombstone(&Tombstone { dataset_id, version, write_id, committed_at }).unwrap();
    store.put(&place.layout.manifest(1), tombstone.into()).await.unwrap();
    let error = place.version(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("vacuumed"), "{error}");
    store.put(&place.layout.hint(), "1".into()).await.unwrap();
    assert_eq!(place.newest().await.unwrap().unwrap().version, 2, "a hint at a tombstone is a hint");
}

/// Empties a version.
async fn empty(store: &FaultStore, place: &Place, manifest: &Manifest) {
    let tombstone = encode_tombstone(&Tombstone::from(manifest)).unwrap();
    store.put(&place.layout.manifest(manifest.version), tombstone.into()).await.unwrap();
}

#[tokio::test]
async fn a_version_that_is_followed_and_emptied_while_it_is_looked_for_is_not_the_newest() {
    let (store, place) = fresh();
    let first = create(&place).await;
    let second = apply(&place, Operation::Append, "w2").await;
    empty(&store, &place, &first).await;
    store.put(&place.layout.hint(), "1".into()).await.unwrap();
    // When it was asked for version 2, there was none; when version 1 was read, there was.
    store.not_yet.lock().unwrap().push(place.layout.manifest(2));
    assert_eq!(place.newest().await.unwrap(), Some(second.clone()));
    empty(&store, &place, &second).await;
    assert_eq!(kind(place.newest().await), ErrorKind::Corrupt, "a tombstone that stays the newest is damage");
}

#[tokio::test]
async fn a_commit_whose_version_was_emptied_long_ago_is_found_by_the_tombstone() {
    let (store, place) = fresh();
    let base = create(&place).await;
    let own = commit(&place, change(Operation::Append, "job", Some(&base))).await.unwrap();
    for n in 0..=RECENT_WRITE_IDS {
        apply(&place, Operation::Replace, &format!("later{n}")).await;
    }
    let newest = place.newest().await.unwrap().unwrap();
    assert!(newest.recent_writes.iter().all(|write| write.version > own.version));
    for version in 1..newest.version {
        let manifest = place.version(version).await.unwrap();
        empty(&store, &place, &manifest).await;
    }
    for operation in [Operation::Append, Operation::Replace] {
        assert_eq!(commit(&place, change(operation, "job", Some(&base))).await.unwrap(), newest);
        assert_eq!(kind(commit(&place, change(operation, "other", Some(&base))).await), ErrorKind::Conflict);
    }
    assert_eq!(place.newest().await.unwrap(), Some(newest), "nothing was committed again");
}

#[tokio::test]
async fn appends_rebase_over_appends_with_their_own_bucket_counts() {
    let (_, place) = fresh();
    let base = create(&place).await;
    let mut other = change(Operation::Append, "w2", Some(&base));
    other.spec = other.spec.with_buckets(BucketCount::new(8).unwrap());
    other.runs[0].buckets = BucketCount::new(8).unwrap();
    commit(&place, other).await.unwrap();
    for n in 3..=6 {
        commit(&place, change(Operation::Append, &format!("w{n}"), Some(&base))).await.unwrap();
    }
    let newest = place.newest().await.unwrap().unwrap();
    assert_eq!((newest.version, newest.base, newest.data_version), (6, Some(1), 6));
    assert_eq!(writes(&newest), ["w1", "w2", "w3", "w4", "w5", "w6"]);
}

#[tokio::test]
async fn appends_do_not_follow_a_replace_drop_or_another_schema() {
    let (_, place) = fresh();
    let base = create(&place).await;
    apply(&place, Operation::Replace, "w2").await;
    assert_eq!(kind(commit(&place, change(Operation::Append, "w3", Some(&base))).await), ErrorKind::Conflict);
    let base = apply(&place, Operation::Append, "w4").await;
    apply(&place, Operation::Drop, "w5").await;
    assert_eq!(kind(commit(&place, change(Operation::Append, "w6", Some(&base))).await), ErrorKind::Conflict);
    let base = apply(&place, Operation::Create, "w7").await;
    let mut other = change(Operation::Append, "w8", Some(&base));
    other.schema.pop();
    assert_eq!(kind(commit(&place, other).await), ErrorKind::Incompatible);
    assert_eq!(place.newest().await.unwrap().unwrap(), base);
}

#[tokio::test]
async fn appends_do_not_follow_a_rewrite_that_changed_the_schema() {
    let (store, place) = fresh();
    let base = create(&place).await;
    let own = write_id("rewrite");
    let mut rewritten =
        Manifest { version: 2, base: Some(1), operation: Operation::Rewrite, write_id: own.clone(), ..base.clone() };
    rewritten.recent_writes.push(crate::manifest::RecentWrite { write_id: own, version: 2 });
    let put = |manifest: &Manifest| {
        let (store, path) = (Arc::clone(&store), place.layout.manifest(2));
        let bytes = crate::manifest::encode(manifest).unwrap();
        async move { store.put(&path, bytes.into()).await.unwrap() }
    };
    put(&rewritten).await;
    let appended = commit(&place, change(Operation::Append, "w2", Some(&base))).await.unwrap();
    assert_eq!((appended.version, writes(&appended)), (3, vec!["w1", "w2"]));
    store.delete(&place.layout.manifest(3)).await.unwrap();
    rewritten.schema[1].nullable = true;
    put(&rewritten).await;
    assert_eq!(kind(commit(&place, change(Operation::Append, "w2", Some(&base))).await), ErrorKind::Conflict);
}

#[tokio::test]
async fn replaces_drops_and_creations_never_rebase() {
    let (_, place) = fresh();
    let base = create(&place).await;
    assert_eq!(kind(commit(&place, change(Operation::Create, "w2", None)).await), ErrorKind::Conflict);
    assert_eq!(kind(commit(&place, change(Operation::Create, "w2", Some(&base))).await), ErrorKind::Conflict);
    let newest = apply(&place, Operation::Append, "w3").await;
    assert_eq!(kind(commit(&place, change(Operation::Replace, "w4", Some(&base))).await), ErrorKind::Conflict);
    assert_eq!(kind(commit(&place, change(Operation::Drop, "w5", Some(&base))).await), ErrorKind::Conflict);
    assert_eq!(place.newest().await.unwrap().unwrap(), newest);
}

#[tokio::test]
async fn a_job_that_runs_again_finds_its_own_commit() {
    let (_, place) = fresh();
    let base = create(&place).await;
    let own = commit(&place, change(Operation::Replace, "job", Some(&base))).await.unwrap();
    // The same process asks again, with the old base.
    assert_eq!(commit(&place, change(Operation::Replace, "job", Some(&base))).await.unwrap(), own);
    for n in 3..=5 {
        apply(&place, Operation::Append, &format!("w{n}")).await;
    }
    // With the old base, and with the newest, as a job does that starts again.
    let newest = place.newest().await.unwrap().unwrap();
    for operation in [Operation::Replace, Operation::Append] {
        assert_eq!(commit(&place, change(operation, "job", Some(&base))).await.unwrap(), own);
        assert_eq!(commit(&place, change(operation, "job", Some(&newest))).await.unwrap(), own);
    }
    assert_eq!(commit(&place, change(Operation::Create, "w1", None)).await.unwrap(), base);
    assert_eq!(place.newest().await.unwrap().unwrap(), newest);
}

#[tokio::test]
async fn only_the_newest_write_ids_are_carried_on() {
    let (_, place) = fresh();
    create(&place).await;
    for n in 2..=RECENT_WRITE_IDS + 3 {
        apply(&place, Operation::Replace, &format!("w{n}")).await;
    }
    let newest = place.newest().await.unwrap().unwrap();
    assert_eq!(newest.recent_writes.len(), RECENT_WRITE_IDS);
    assert_eq!(newest.recent_writes[0].version, 4);
}

#[tokio::test]
async fn a_commit_that_is_no_longer_among_the_newest_is_found_from_its_base() {
    let (_, place) = fresh();
    let base = create(&place).await;
    apply(&place, Operation::Append, "earlier").await;
    let own = commit(&place, change(Operation::Append, "job", Some(&base))).await.unwrap();
    for n in 0..=RECENT_WRITE_IDS {
        apply(&place, Operation::Append, &format!("later{n}")).await;
    }
    let newest = place.newest().await.unwrap().unwrap();
    assert!(newest.recent_writes.iter().all(|write| write.version > own.version));
    assert_eq!(commit(&place, change(Operation::Append, "job", Some(&base))).await.unwrap(), own);
    assert_eq!(place.newest().await.unwrap().unwrap(), newest);
}

#[tokio::test]
async fn a_fenced_write_id_cannot_commit() {
    let (store, place) = fresh();
    let base = create(&place).await;
    let vacuum = Manifest {
        version: 2,
        base: Some(1),
        operation: Operation::Vacuum,
        write_id: write_id("vacuum"),
        fenced_write_ids: vec![write_id("slow")],
        recent_writes: [
            base.recent_writes.clone(),
            vec![crate::manifest::RecentWrite { write_id: write_id("vacuum"), version: 2 }],
        ]
        .concat(),
        ..base.clone()
    };
    let bytes = crate::manifest::encode(&vacuum).unwrap();
    store.put(&place.layout.manifest(2), bytes.into()).await.unwrap();
    assert_eq!(kind(commit(&place, change(Operation::Append, "slow", Some(&base))).await), ErrorKind::Conflict);
    assert_eq!(kind(commit(&place, change(Operation::Append, "slow", Some(&vacuum))).await), ErrorKind::Conflict);
    let appended = commit(&place, change(Operation::Append, "fast", Some(&base))).await.unwrap();
    assert_eq!((appended.version, appended.fenced_write_ids.clone()), (3, vec![write_id("slow")]));
}

#[tokio::test]
async fn what_a_newer_library_put_into_a_manifest_is_carried_on() {
    let (store, place) = fresh();
    let mut base = create(&place).await;
    base.unknown.insert("zones".to_owned(), serde_json::json!({"a": [1, 2.5]}));
    base.runs[0].unknown.insert("bloom".to_owned(), serde_json::json!("x"));
    store.put(&place.layout.manifest(1), crate::manifest::encode(&base).unwrap().into()).await.unwrap();
    let next = apply(&place, Operation::Append, "w2").await;
    assert_eq!((&next.unknown, &next.runs[0]), (&base.unknown, &base.runs[0]));
    base.writer_features.push("row-ids".to_owned());
    store
        .put(&place.layout.manifest(2), crate::manifest::encode(&Manifest { version: 2, ..next }).unwrap().into())
        .await
        .unwrap();
    assert_eq!(kind(commit(&place, change(Operation::Append, "w3", Some(&base))).await), ErrorKind::UnsupportedVersion);
}

#[tokio::test]
async fn versions_of_two_datasets_are_not_mixed() {
    let (store, place) = fresh();
    let base = create(&place).await;
    let next = apply(&place, Operation::Append, "w2").await;
    let foreign = Manifest { dataset_id: DatasetId::generate(clock(), &write_id("foreign")), ..next };
    store.put(&place.layout.manifest(2), crate::manifest::encode(&foreign).unwrap().into()).await.unwrap();
    let error = commit(&place, change(Operation::Append, "w3", Some(&base))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("INV-16"), "{error}");
}

#[tokio::test]
async fn a_store_that_ignores_or_lacks_the_condition_is_refused() {
    let (_, place) = with_store(FaultStore { ignores_conditions: true, ..FaultStore::default() });
    let error = commit(&place, change(Operation::Create, "w1", None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.to_string().contains("create-if-absent"), "{error}");
    assert_eq!(place.newest().await.unwrap(), None, "nothing is left behind");
    let (_, place) = with_store(FaultStore { lacks_conditions: true, ..FaultStore::default() });
    assert_eq!(kind(commit(&place, change(Operation::Create, "w1", None)).await), ErrorKind::Store);
    assert_eq!(place.newest().await.unwrap(), None);
}

/// What a commit is tried on, and with.
async fn scenario(place: &Place, operation: Operation) -> Change {
    let base = match operation {
        Operation::Create => None,
        _ => Some(create(place).await),
    };
    if operation == Operation::Append {
        // A version in between, so that the append has to rebase.
        apply(place, Operation::Append, "between").await;
    }
    change(operation, "own", base.as_ref())
}

#[tokio::test]
async fn a_commit_cut_off_or_unanswered_at_any_operation_leaves_the_old_or_the_new_version() {
    for operation in [Operation::Create, Operation::Append, Operation::Replace, Operation::Drop] {
        for when in [When::Before, When::After] {
            for length in [1, 2, 1000] {
                for k in 0.. {
                    let (store, place) = fresh();
                    let change = scenario(&place, operation).await;
                    let old = place.newest().await.unwrap();
                    store.take_log();
                    store.fail(k..k + length, when);
                    let outcome = commit(&place, change.clone()).await;
                    let reached = store.take_log().len() > k;
                    store.heal();

                    let name = format!("{operation:?}, {length} operations from {k} fail {when:?}: {outcome:?}");
                    let now = place.newest().await.unwrap();
                    let is_new = now.as_ref().is_some_and(|now| now.write_id == write_id("own"));
                    assert!(is_new || now == old, "{name}");
                    match outcome {
                        Ok(manifest) => assert_eq!(now, Some(manifest), "{name}"),
                        Err(e) if e.kind() == ErrorKind::CommitUnknown => {
                            assert!(e.to_string().contains("own"), "{name}");
                        }
                        Err(e) => assert!(!is_new && e.kind() == ErrorKind::Store, "{name}"),
                    }
                    let again = commit(&place, change).await.expect(&name);
                    assert_eq!(place.newest().await.unwrap(), Some(again.clone()), "{name}");
                    assert_eq!(again.version, old.map_or(1, |old| old.version + 1), "committed once: {name}");
                    if !reached {
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn one_lost_answer_is_resolved_without_the_caller() {
    for operation in [Operation::Create, Operation::Append, Operation::Replace, Operation::Drop] {
        let (store, place) = fresh();
        let change = scenario(&place, operation).await;
        store.fail(0..1, When::After);
        commit(&place, change).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_while_another_writer_wins_is_a_conflict() {
    let (store, place) = fresh();
    let base = create(&place).await;
    apply(&place, Operation::Append, "other").await;
    store.fail(0..1, When::Before);
    assert_eq!(kind(commit(&place, change(Operation::Replace, "own", Some(&base))).await), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creators_and_replacers_one_wins_and_every_racing_append_lands() {
    async fn race(place: &Place, operation: Operation, base: Option<&Manifest>) -> Vec<crate::Result<Manifest>> {
        let tasks = (0..16).map(|n| {
            let (place, change) = (place.clone(), change(operation, &format!("{operation:?}-{n}"), base));
            crate::task::spawn(async move { commit(&place, change).await })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await
    }
    let won = |results: &[crate::Result<Manifest>]| {
        assert!(
            results.iter().all(|r| r.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::Conflict)),
            "{results:?}"
        );
        results.iter().filter(|r| r.is_ok()).count()
    };
    for _ in 0..10 {
        let (_, place) = fresh();
        assert_eq!(won(&race(&place, Operation::Create, None).await), 1);
        let base = place.newest().await.unwrap().unwrap();
        assert_eq!(won(&race(&place, Operation::Append, Some(&base)).await), 16);
        let base = place.newest().await.unwrap().unwrap();
        assert_eq!((base.version, base.runs.len()), (17, 17));
        assert_eq!(won(&race(&place, Operation::Replace, Some(&base)).await), 1);
        assert_eq!(place.newest().await.unwrap().unwrap().version, 18);
    }
}

#[tokio::test]
async fn local_files_honour_the_protocol_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let place = Place::new(Arc::new(store), ROOT);
    assert_eq!(place.newest().await.unwrap(), None);
    let base = create(&place).await;
    assert_eq!(kind(commit(&place, change(Operation::Create, "w2", None)).await), ErrorKind::Conflict);
    let newest = commit(&place, change(Operation::Append, "w3", Some(&base))).await.unwrap();
    assert_eq!(place.newest().await.unwrap(), Some(newest));
}

#[tokio::test]
async fn an_outage_while_opening_is_a_store_error_with_the_path() {
    let (store, place) = fresh();
    create(&place).await;
    store.fail(1..2, When::Before);
    let error: Error = place.newest().await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Store, Some(place.layout.manifest(1).as_ref())));
}
