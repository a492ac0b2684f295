//! A write as data: what its processes need to know, and what they bring back to be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Clock, DatasetId, RunIds, WriteId};
use crate::manifest::{Lineage, Manifest, Operation, Run, RunJson, decode_runs};
use crate::schema::{FieldDef, schema_of};
use crate::spec::BucketSpec;
use crate::store::{Change, Place, commit};
use crate::write::options::WriteOptions;
use crate::write::progress::{Spilled, WriteSummary, commit_span};
use crate::write::run_encoder::RunTarget;
use crate::write::sorter::delete_runs;
use crate::write::writer::DatasetWriter;

/// A write that was begun: many processes write, one commits.
///
/// Made by [`DatasetWriterBuilder::begin`](crate::DatasetWriterBuilder::begin); serialise it (as JSON) to hand it to other processes.
/// Nothing of the write is visible before [`commit`](Self::commit).
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch};
/// use object_store::{ObjectStore, memory::InMemory};
/// use sort_merge_bucket::{BucketSpec, DatasetWriter, WriteTicket, WrittenRuns};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let batch = RecordBatch::try_from_iter([("user_id", Arc::new(Int64Array::from(vec![3, 1, 2])) as _)])?;
/// let spec = BucketSpec::new(["user_id"], 4)?;
/// let ticket = DatasetWriter::builder(store.clone(), "plays", batch.schema(), spec).begin().await?;
/// let ticket = serde_json::to_string(&ticket)?;
///
/// // In each of the processes:
/// let mut results = vec![];
/// for task in 0..3 {
///     let ticket: WriteTicket = serde_json::from_str(&ticket)?;
///     let mut writer = ticket.writer(store.clone(), task)?;
///     writer.write(&batch).await?;
///     results.push(serde_json::to_string(&writer.finish().await?)?);
/// }
///
/// // In one of them:
/// let ticket: WriteTicket = serde_json::from_str(&ticket)?;
/// let results = results.iter().map(|r| serde_json::from_str(r)).collect::<Result<Vec<WrittenRuns>, _>>()?;
/// assert_eq!(results.iter().map(WrittenRuns::rows).sum::<u64>(), 9);
/// let plays = ticket.commit(store, results).await?;
/// assert_eq!(plays.runs().iter().map(|run| run.rows).sum::<u64>(), 9);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteTicket {
    pub(super) path: String,
    /// What the commit will do: the mode, given what there was.
    pub(super) operation: Operation,
    pub(super) dataset_id: DatasetId,
    /// The version that the write starts from.
    pub(super) base: Option<u64>,
    pub(super) write_id: WriteId,
    /// The write id was found among the commits already.
    pub(super) done: bool,
    pub(super) schema: Vec<FieldDef>,
    pub(super) spec: BucketSpec,
    pub(super) options: WriteOptions,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) lineage: Vec<Lineage>,
    #[serde(with = "clock_text")]
    pub(super) clock: Clock,
}

/// What one task of a write has uploaded: invisible until it is committed, serialisable (as JSON) until then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WrittenRuns {
    pub(super) dataset_id: DatasetId,
    pub(super) write_id: WriteId,
    pub(super) task: u32,
    pub(super) rows: u64,
    pub(super) spilled: Spilled,
    pub(super) runs: Vec<RunJson>,
}

impl WrittenRuns {
    /// The task that wrote them.
    pub fn task(&self) -> u32 {
        self.task
    }

    /// The write that they belong to.
    pub fn write_id(&self) -> &WriteId {
        &self.write_id
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of runs: one for every bucket that got rows.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// How often the task spilled rows to local disk.
    pub fn spills(&self) -> u64 {
        self.spilled.spills
    }

    /// Bytes that the task wrote to local disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled.bytes
    }
}

impl WriteTicket {
    /// The path of the dataset in its store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the write.
    pub fn write_id(&self) -> &WriteId {
        &self.write_id
    }

    /// The id of the dataset, also if the write is going to make it.
    pub fn dataset_id(&self) -> &DatasetId {
        &self.dataset_id
    }

    /// The version that the write starts from; `None` if there is no dataset yet.
    pub fn base_version(&self) -> Option<u64> {
        self.base
    }

    /// A writer for one task, to be ended with [`DatasetWriter::finish`]. Tasks are numbered by the caller; a task that is run again uses
    /// its number again, and only one of its results may be committed.
    ///
    /// # Errors
    /// `InvalidInput` if the ticket was not made by this library, or its codec is not compiled in here.
    pub fn writer(&self, store: Arc<dyn ObjectStore>, task: u32) -> Result<DatasetWriter> {
        DatasetWriter::for_task(store, self.clone(), task)
    }

    /// Makes the runs of all tasks visible, in one version. Without any runs it is still a version: an empty dataset, or one more version
    /// with the same rows.
    ///
    /// If a commit of this write is there already, its version is returned, and fresh runs that it does not name are deleted.
    ///
    /// # Errors
    /// * `InvalidInput`: a result belongs to another write, or a task or run occurs twice. Nothing became visible, nothing was deleted.
    /// * `Conflict`: another commit came first that this one cannot follow. Nothing became visible; the runs were deleted.
    /// * `NotFound`: the version that the write started from was vacuumed since. Nothing became visible.
    /// * `CommitUnknown`: the store did not say whether the version was made. Commit again with the same ticket and runs.
    /// * `Store`, `Corrupt`, `UnsupportedVersion`: the dataset cannot be read or written. Nothing became visible; the runs are still there.
    pub async fn commit(
        &self,
        store: Arc<dyn ObjectStore>,
        written: impl IntoIterator<Item = WrittenRuns>,
    ) -> Result<Dataset> {
        Ok(self.commit_with_summary(store, written).await?.0)
    }

    /// The same as [`commit`](Self::commit), and says what all tasks have written.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_with_summary(
        &self,
        store: Arc<dyn ObjectStore>,
        written: impl IntoIterator<Item = WrittenRuns>,
    ) -> Result<(Dataset, WriteSummary)> {
        let written: Vec<WrittenRuns> = written.into_iter().collect();
        let spilled = written.iter().map(|task| task.spilled).sum();
        let runs = self.check(written)?;
        let summary = WriteSummary::new(self.spec.buckets(), &runs, spilled);
        let place = self.place(&store)?;
        let base = match self.base {
            Some(version) => Some(Arc::new(place.version(version).await?)),
            None => None,
        };
        Ok((self.commit_runs(place, base, runs).await?, summary))
    }

    /// Deletes the runs of results that are not going to be committed, as far as the store answers. Never call it with results that
    /// were, or are being, committed.
    ///
    /// # Errors
    /// `InvalidInput` as for [`commit`](Self::commit).
    pub async fn abort(
        &self,
        store: Arc<dyn ObjectStore>,
        written: impl IntoIterator<Item = WrittenRuns>,
    ) -> Result<()> {
        let runs = self.check(written.into_iter().collect())?;
        self.delete_uploaded(&self.place(&store)?, runs.iter().map(|run| run.path.as_str())).await;
        Ok(())
    }

    /// Checks that results belong to this write, and are all different.
    fn check(&self, written: Vec<WrittenRuns>) -> Result<Vec<Run>> {
        let mut tasks = BTreeSet::new();
        let mut paths = BTreeSet::new();
        let mut all = vec![];
        for WrittenRuns { dataset_id, write_id, task, rows: _, spilled: _, runs } in written {
            if write_id != self.write_id || dataset_id != self.dataset_id {
                return Err(Error::invalid_input(format!(
                    "runs of another write cannot be committed with this one, expected=`{} of {}`, found=`{write_id} of {dataset_id}`",
                    self.write_id, self.dataset_id
                )));
            }
            if !tasks.insert(task) {
                let message = "two results of one task would hold its rows twice; commit one of them";
                return Err(Error::invalid_input(format!("{message}, task=`{task}`")));
            }
            for run in decode_runs(runs, &self.schema, &self.spec)? {
                if !paths.insert(run.path.clone()) {
                    return Err(Error::invalid_input("a run cannot be committed twice").with_path(run.path));
                }
                all.push(run);
            }
        }
        all.sort_by(|a, b| (a.bucket, &a.path).cmp(&(b.bucket, &b.path)));
        Ok(all)
    }

    fn place(&self, store: &Arc<dyn ObjectStore>) -> Result<Place> {
        let path = Path::parse(&self.path).map_err(|e| {
            Error::invalid_input("a ticket names no path of a store").with_source(e).with_path(&self.path)
        })?;
        Ok(Place::new(Arc::clone(store), path))
    }

    /// What the runs of this write have in common.
    pub(crate) fn run_target(&self, store: &Arc<dyn ObjectStore>) -> Result<RunTarget> {
        RunTarget::new(
            self.place(store)?,
            self.dataset_id.clone(),
            self.write_id.clone(),
            schema_of(&self.schema)?,
            self.spec.clone(),
            &self.options,
        )
    }

    /// Names for the runs of one task.
    pub(crate) fn run_ids(&self, task: u32) -> RunIds {
        RunIds::new(self.clock, task)
    }

    /// Whether a commit of this write was there when it began: there is nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Makes these runs visible. Deletes them if that is certain not to have happened and never to happen.
    pub(crate) async fn commit_runs(
        &self,
        place: Place,
        base: Option<Arc<Manifest>>,
        runs: Vec<Run>,
    ) -> Result<Dataset> {
        let Self {
            path,
            operation,
            dataset_id,
            base: _,
            write_id,
            done: _,
            schema,
            spec,
            options: _,
            properties,
            lineage,
            clock,
        } = self;
        let paths: Vec<String> = runs.iter().map(|run| run.path.clone()).collect();
        let span = commit_span(path, write_id, &runs);
        let change = Change {
            operation: *operation,
            dataset_id: dataset_id.clone(),
            write_id: write_id.clone(),
            base,
            spec: spec.clone(),
            schema: schema.clone(),
            runs,
            lineage: lineage.clone(),
            properties: properties.clone(),
            clock: *clock,
        };
        match commit(&place, change).instrument(span.clone()).await {
            Ok(manifest) => {
                span.record("version", manifest.version);
                // If the own version was vacuumed, this is a later one, and versions between may still name the runs.
                if manifest.write_id == self.write_id {
                    let named: BTreeSet<&str> = manifest.runs.iter().map(|run| run.path.as_str()).collect();
                    let unnamed = paths.iter().map(String::as_str).filter(|path| !named.contains(path));
                    self.delete_uploaded(&place, unnamed).await;
                }
                Dataset::from_manifest(place, Arc::new(manifest))
            }
            Err(e) => {
                if e.kind() == ErrorKind::Conflict {
                    self.delete_uploaded(&place, paths.iter().map(String::as_str)).await;
                }
                Err(e)
            }
        }
    }

    /// Deletes runs that no manifest names.
    pub(crate) async fn delete_uploaded(&self, place: &Place, paths: impl Iterator<Item = &str>) {
        // Under a fixed clock names repeat, and an earlier attempt may have committed the very same ones.
        if self.clock == Clock::System {
            delete_runs(place, paths).await;
        }
    }
}

/// A clock as the time at which it stands, or null.
mod clock_text {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::layout::Clock;

    pub(super) fn serialize<S: Serializer>(clock: &Clock, serializer: S) -> Result<S::Ok, S::Error> {
        match clock {
            Clock::System => None,
            Clock::Fixed(time) => Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Clock, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        let Some(text) = text else { return Ok(Clock::System) };
        let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Clock::Fixed(time.with_timezone(&Utc)))
    }
}
