//! A dataset opened at one version: what it is and which runs it has.
//!
//! The version is immutable, so that a [`Dataset`] stays what it is while others commit.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::layout::{Clock, DatasetId, WriteId};
use crate::manifest::{Lineage, Manifest, Operation, Run};
use crate::schema::schema_of;
use crate::spec::BucketSpec;
use crate::store::{Change, Place, VacuumOptions, VacuumReport, commit, vacuum};

mod sizes;
#[cfg(test)]
pub(crate) mod tests;

pub use sizes::{BucketSize, BucketSizes};

/// A dataset, opened at one immutable version. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use sort_merge_bucket::{Dataset, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = Arc::new(InMemory::new());
/// let missing = Dataset::open(store, "plays/week=2025-W01").await.unwrap_err();
/// assert_eq!(missing.kind(), ErrorKind::NotFound);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    place: Place,
    manifest: Arc<Manifest>,
    schema: SchemaRef,
}

/// A run that shares its manifest's memory: a plan over many files has thousands of them waiting.
#[derive(Debug, Clone)]
pub(crate) struct SharedRun {
    manifest: Arc<Manifest>,
    position: usize,
}

impl Deref for SharedRun {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.manifest.runs[self.position]
    }
}

impl Dataset {
    /// Opens the newest version.
    ///
    /// Takes the hint, the manifest that it names and a probe for the next one: three requests, two of them at once, and no listing. A missing or
    /// stale hint costs a logarithmic number more.
    ///
    /// # Errors
    /// `NotFound` if there is no dataset or it was dropped, `Store`, `Corrupt`, or `UnsupportedVersion` if it needs a newer library.
    pub async fn open(store: Arc<dyn ObjectStore>, path: impl Into<Path>) -> Result<Self> {
        let place = Place::new(store, path);
        match place.newest().await? {
            Some(manifest) => Self::from_manifest(place, Arc::new(manifest)),
            None => Err(Error::not_found("there is no dataset").with_path(place.layout.root())),
        }
    }

    /// Opens one version, counted from 1: one request.
    ///
    /// # Errors
    /// `NotFound` if there is no such version, if it was vacuumed, or if it is one that dropped the dataset; else as [`open`](Self::open).
    pub async fn open_version(store: Arc<dyn ObjectStore>, path: impl Into<Path>, version: u64) -> Result<Self> {
        let place = Place::new(store, path);
        let manifest = place.version(version).await?;
        Self::from_manifest(place, Arc::new(manifest))
    }

    /// The dataset of a manifest that was read from or committed to `place`. `NotFound` if it marks the dataset as dropped.
    pub(crate) fn from_manifest(place: Place, manifest: Arc<Manifest>) -> Result<Self> {
        if manifest.dropped {
            let message = format!("the dataset was dropped, version=`{}`", manifest.version);
            return Err(Error::not_found(message).with_path(place.layout.root()));
        }
        let schema = schema_of(&manifest.schema)?;
        Ok(Self { place, manifest, schema })
    }

    /// Drops the dataset: commits a version without runs, after which opening says `NotFound` and partition listings skip it.
    ///
    /// Earlier versions and their files stay until a vacuum; a new dataset can be created in its place.
    ///
    /// # Errors
    /// `Conflict` if another version was committed since this one was opened; `CommitUnknown` and `Store` as any commit.
    pub async fn drop_dataset(self) -> Result<()> {
        let Manifest { dataset_id, spec, schema, .. } = self.manifest.as_ref().clone();
        let change = Change {
            operation: Operation::Drop,
            dataset_id,
            write_id: WriteId::generate(),
            base: Some(Arc::clone(&self.manifest)),
            spec,
            schema,
            runs: vec![],
            lineage: vec![],
            properties: BTreeMap::new(),
            clock: Clock::System,
        };
        commit(&self.place, change).await.map(|_| ())
    }

    /// Removes what no kept version of the dataset at `path` needs: versions that were followed by others longer ago than the retention, their files,
    /// and the files of writes that failed. Works on a dropped dataset as well.
    ///
    /// Old manifests are emptied, which takes their key bounds too; only number, time and write id stay. Files of writes that were not committed are
    /// deleted once the write is fenced, by one more version of the dataset: should it still be at work, its commit fails with `Conflict`, and never
    /// names a file that is gone. Without such files, no version is made. Readers that run meanwhile lose nothing within the retention.
    ///
    /// It may run at any time, also beside itself and beside appends, which follow its version; a replace that began before that version fails with
    /// `Conflict`, as after any other. What one that failed left undone, the next one does. It reads the manifest of every version that is
    /// not emptied yet, and lists `data/`. Multipart uploads that were begun and not completed are invisible to it, and staging files of local stores,
    /// too: `docs/format.md`, section 12, says what removes them.
    ///
    /// # Memory
    /// The paths of all files of the dataset and of all runs of its versions.
    ///
    /// # Errors
    /// `NotFound` if there is no dataset; `Corrupt` if a manifest is damaged, for then nobody knows which files it names; `UnsupportedVersion`;
    /// `CommitUnknown` and `Store` as any commit. Run it again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use arrow::array::{Int64Array, RecordBatch};
    /// # use object_store::{ObjectStore, memory::InMemory};
    /// # use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, VacuumOptions, WriteMode};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # for ids in [vec![1, 2, 3], vec![4, 5]] {
    /// #     let batch = RecordBatch::try_from_iter([("user_id", Arc::new(Int64Array::from(ids)) as _)])?;
    /// #     let builder = DatasetWriter::builder(store.clone(), "users", batch.schema(), BucketSpec::new(["user_id"], 1)?);
    /// #     let mut writer = builder.with_mode(WriteMode::Replace).build().await?;
    /// #     writer.write(&batch).await?;
    /// #     writer.commit().await?;
    /// # }
    /// // Version 2 has replaced version 1 just now: seven days are not over.
    /// let report = Dataset::vacuum(store.clone(), "users", &VacuumOptions::default()).await?;
    /// assert!(report.is_empty());
    ///
    /// let now = VacuumOptions::default().with_retention(Duration::ZERO).with_grace_period(Duration::ZERO);
    /// let report = Dataset::vacuum(store.clone(), "users", &now.clone().with_dry_run(true)).await?;
    /// assert_eq!((&report.emptied_versions, report.deleted.len()), (&vec![1], 1));
    /// assert_eq!(Dataset::vacuum(store.clone(), "users", &now).await?, report);
    /// assert!(Dataset::open_version(store.clone(), "users", 1).await.is_err());
    /// assert_eq!(Dataset::open(store, "users").await?.statistics().rows, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn vacuum(
        store: Arc<dyn ObjectStore>,
        path: impl Into<Path>,
        options: &VacuumOptions,
    ) -> Result<VacuumReport> {
        vacuum(&Place::new(store, path), options).await
    }

    /// On local files, has the operating system write this version to disk: its runs, its manifest and the folders that they are in. When it returns
    /// `true`, the version survives a power failure; without it, what was committed last may be lost or damaged by one (not by a process that is
    /// killed). `false` of any other store, which keeps what it acknowledges; it costs one request there.
    ///
    /// What `docs/format.md` says in section 12 about local files says also how to go back to a version that is whole.
    ///
    /// # Errors
    /// `Store` if a file is gone or cannot be synced.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use arrow::array::{Int64Array, RecordBatch};
    /// # use object_store::local::LocalFileSystem;
    /// # use sort_merge_bucket::{BucketSpec, DatasetWriter};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let batch = RecordBatch::try_from_iter([("user_id", Arc::new(Int64Array::from(vec![7, 3])) as _)])?;
    /// let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path())?);
    /// let spec = BucketSpec::new(["user_id"], 4)?;
    /// let mut writer = DatasetWriter::builder(store, "users", batch.schema(), spec).build().await?;
    /// writer.write(&batch).await?;
    /// let users = writer.commit().await?;
    /// assert!(users.sync_to_disk().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sync_to_disk(&self) -> Result<bool> {
        // The manifest last: it names the others.
        let manifest = self.place.layout.manifest(self.version());
        self.place.sync(self.run_paths().chain([manifest]).collect()).await
    }

    /// The columns of every batch read from it, in their canonical types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How its rows are bucketed and ordered. The bucket count is that of the newest write; each run states its own.
    pub fn spec(&self) -> &BucketSpec {
        &self.manifest.spec
    }

    /// The version that is open, counted from 1.
    pub fn version(&self) -> u64 {
        self.manifest.version
    }

    /// The last version that changed rows: what depends on the rows alone is up to date if this has not changed.
    pub fn data_version(&self) -> u64 {
        self.manifest.data_version
    }

    /// The id of the dataset, the same in all its versions.
    pub fn id(&self) -> &DatasetId {
        &self.manifest.dataset_id
    }

    /// Where it lies in its store.
    pub fn path(&self) -> &Path {
        self.place.layout.root()
    }

    /// The store it lies in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.place.store
    }

    /// What the commit of this version did.
    pub fn operation(&self) -> Operation {
        self.manifest.operation
    }

    /// When this version was committed, by the clock of its writer, in milliseconds.
    pub fn committed_at(&self) -> DateTime<Utc> {
        self.manifest.committed_at
    }

    /// The write that made this version.
    pub fn write_id(&self) -> &WriteId {
        &self.manifest.write_id
    }

    /// The write that last changed rows; `None` if so many versions were made since that the manifest has forgotten it.
    pub(crate) fn rows_written_by(&self) -> Option<&WriteId> {
        let Manifest { recent_writes, data_version, .. } = &*self.manifest;
        recent_writes.iter().find(|write| write.version == *data_version).map(|write| &write.write_id)
    }

    /// The inputs that its rows were derived from, at the versions that were read.
    pub fn lineage(&self) -> &[Lineage] {
        &self.manifest.lineage
    }

    /// The properties that its writers set.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.manifest.properties
    }

    /// The runs of this version, with their statistics.
    pub fn runs(&self) -> &[Run] {
        &self.manifest.runs
    }

    /// The full paths in the store of the runs of this version: ordinary Parquet files for other tools. Other files under `data/` belong to other
    /// versions or to no version at all.
    pub fn run_paths(&self) -> impl Iterator<Item = Path> {
        self.manifest.runs.iter().map(|run| self.place.layout.run(&run.path))
    }

    /// Sums over the runs of this version. Reads nothing.
    pub fn statistics(&self) -> DatasetStatistics {
        let mut statistics = DatasetStatistics::default();
        for run in &self.manifest.runs {
            statistics.runs += 1;
            // Counts come from a file: sums of damaged ones must not overflow.
            statistics.rows = statistics.rows.saturating_add(run.rows);
            statistics.bytes = statistics.bytes.saturating_add(run.bytes);
            statistics.largest_run_rows = statistics.largest_run_rows.max(run.rows);
            statistics.largest_run_bytes = statistics.largest_run_bytes.max(run.bytes);
        }
        statistics
    }

    /// The runs of this version by bucket: how large buckets are, and how even. Reads nothing.
    ///
    /// If runs have different counts, buckets are counted modulo the greatest common divisor of all of them and of the spec's: what a plan
    /// of this dataset alone reads as one slot.
    pub fn bucket_sizes(&self) -> BucketSizes {
        BucketSizes::new(self.spec().buckets(), self.runs())
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The run at a position of [`runs`](Self::runs), for those that outlive the dataset.
    pub(crate) fn shared_run(&self, position: usize) -> SharedRun {
        SharedRun { manifest: Arc::clone(&self.manifest), position }
    }

    pub(crate) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DatasetStatistics { runs, rows, bytes, .. } = self.statistics();
        write!(
            f,
            "{} version {}: {runs} runs, {rows} rows, {bytes} bytes, {}",
            self.path(),
            self.version(),
            self.spec()
        )
    }
}

/// Sums over the runs of a dataset, from its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DatasetStatistics {
    /// The number of runs.
    pub runs: u64,
    /// Rows of all runs.
    pub rows: u64,
    /// Bytes of all runs' files.
    pub bytes: u64,
    /// Rows of the run with the most.
    pub largest_run_rows: u64,
    /// Bytes of the largest file.
    pub largest_run_bytes: u64,
}
