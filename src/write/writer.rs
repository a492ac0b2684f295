//! The writer that callers hold: rows in, then one commit, or results for someone else's commit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::layout::{DatasetId, WriteId};
use crate::manifest::{Manifest, Run, encode_runs};
use crate::spec::BucketSpec;
use crate::write::builder::DatasetWriterBuilder;
use crate::write::run_encoder::RunTarget;
use crate::write::sorter::Sorter;
use crate::write::ticket::{WriteTicket, WrittenRuns};

/// Writes a dataset: [`RecordBatch`]es in any order and of any size become N buckets of sorted runs, visible all at once or not at all.
///
/// Rows of equal keys and sort columns stay in the order in which they were written. The same rows with the same options, write id and
/// [`Clock::Fixed`](crate::Clock::Fixed) make the same bytes, however they are cut into batches.
///
/// Needs a tokio runtime, whose blocking threads sort and encode.
///
/// # Memory
/// See [`WriteOptions`](crate::WriteOptions). Rows beyond the budget are sorted and spilled to local disk, about as large there as their
/// LZ4-compressed values; the files are gone when the writer is.
///
/// # Guarantees
/// Nothing is visible before [`commit`](Self::commit), and everything after it. When a writer is dropped or fails, nothing is visible;
/// runs that were uploaded by then are deleted where that is certain to harm nobody, and are a vacuum's to remove otherwise.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch, StringArray};
/// use object_store::{ObjectStore, memory::InMemory};
/// use sort_merge_bucket::{BucketSpec, DatasetWriter, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let batch = RecordBatch::try_from_iter([
///     ("user_id", Arc::new(Int64Array::from(vec![7, 3, 7])) as _),
///     ("track", Arc::new(StringArray::from(vec!["b", "a", "c"])) as _),
/// ])?;
/// let spec = BucketSpec::new(["user_id"], 4)?;
/// let mut writer = DatasetWriter::builder(store.clone(), "plays", batch.schema(), spec.clone()).build().await?;
/// writer.write(&batch).await?;
/// let plays = writer.commit().await?;
/// assert_eq!(plays.runs().iter().map(|run| run.rows).sum::<u64>(), 3);
///
/// // The dataset exists now, so that it cannot be created once more.
/// let again = DatasetWriter::builder(store, "plays", batch.schema(), spec).build().await;
/// assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DatasetWriter {
    ticket: WriteTicket,
    target: RunTarget,
    commits: Commits,
    task: u32,
    /// Absent after a failure.
    sorter: Option<Sorter>,
    rows: u64,
}

/// Who commits.
#[derive(Debug)]
enum Commits {
    /// The writer itself, starting from this base.
    Itself(Option<Arc<Manifest>>),
    /// The holder of the ticket.
    Ticket,
}

impl DatasetWriter {
    /// A writer of rows of `schema` to the dataset at `path`, bucketed and sorted by `spec`.
    ///
    /// Strings, binary and dictionaries may have any layout; what is stored are their values. Metadata of the schema is not stored.
    pub fn builder(
        store: Arc<dyn ObjectStore>,
        path: impl Into<Path>,
        schema: SchemaRef,
        spec: BucketSpec,
    ) -> DatasetWriterBuilder {
        DatasetWriterBuilder::new(store, path.into(), schema, spec)
    }

    pub(super) fn new(store: Arc<dyn ObjectStore>, ticket: WriteTicket, base: Option<Arc<Manifest>>) -> Result<Self> {
        Self::with(&store, ticket, Commits::Itself(base), 0)
    }

    pub(super) fn for_task(store: Arc<dyn ObjectStore>, ticket: WriteTicket, task: u32) -> Result<Self> {
        Self::with(&store, ticket, Commits::Ticket, task)
    }

    fn with(store: &Arc<dyn ObjectStore>, ticket: WriteTicket, commits: Commits, task: u32) -> Result<Self> {
        let target = ticket.run_target(store)?;
        let sorter = Some(Sorter::new(target.clone(), &ticket.options)?);
        Ok(Self { ticket, target, commits, task, sorter, rows: 0 })
    }

    /// The canonical schema, in which the rows are stored and will be read.
    pub fn schema(&self) -> &SchemaRef {
        self.target.schema()
    }

    /// The name of the write.
    pub fn write_id(&self) -> &WriteId {
        &self.ticket.write_id
    }

    /// The id of the dataset, also if this write is going to make it.
    pub fn dataset_id(&self) -> &DatasetId {
        &self.ticket.dataset_id
    }

    /// The version that the write starts from; `None` if there is no dataset yet.
    pub fn base_version(&self) -> Option<u64> {
        self.ticket.base
    }

    /// Takes rows. Waits while a full buffer is sorted and spilled.
    ///
    /// # Errors
    /// `InvalidInput` if the batch's columns are not those of the schema by position, name and logical type, if a column that is not
    /// nullable holds nulls, or a value cannot be stored (a timestamp in seconds beyond the range of milliseconds); `Unsorted`, with the row
    /// counted from the first one written, if the rows were declared to come in order ([`InputOrder::Sorted`](crate::InputOrder::Sorted)) and
    /// do not; `Store` if the local disk fails. After an error, or when this future is dropped before its end, the writer is of no use: every further call fails.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut sorter = self.sorter.take().ok_or_else(broken)?;
        if self.ticket.is_done() {
            // The commit is there; what a second run of the job brings is only checked.
            sorter.check(batch)?;
        } else {
            sorter.write(batch).await?;
            self.rows += batch.num_rows() as u64;
        }
        self.sorter = Some(sorter);
        Ok(())
    }

    /// The write as data, with which the result of [`finish`](Self::finish) is committed.
    pub fn ticket(&self) -> &WriteTicket {
        &self.ticket
    }

    /// Sorts, encodes and uploads what was written, for a commit by the [`ticket`](Self::ticket).
    ///
    /// # Errors
    /// `InvalidInput` if an earlier call failed; `Store` if the store or the local disk fails. Nothing is visible; what was uploaded is
    /// deleted as far as the store answers.
    pub async fn finish(mut self) -> Result<WrittenRuns> {
        let runs = self.upload().await?;
        Ok(WrittenRuns {
            dataset_id: self.ticket.dataset_id,
            write_id: self.ticket.write_id,
            task: self.task,
            rows: self.rows,
            runs: encode_runs(&runs),
        })
    }

    /// Sorts, encodes and uploads what was written, and makes it visible as one version. A writer that took no rows makes a version, too.
    ///
    /// If a commit of the same write id is there already, its version is returned and what was uploaded is deleted.
    ///
    /// # Errors
    /// * `InvalidInput`: an earlier call failed, or the writer is a task's, whose ticket commits.
    /// * `Conflict`: another commit came first that this one cannot follow. Nothing became visible; what was uploaded is deleted.
    /// * `CommitUnknown`: the store did not say whether the version was made. Write again with the same write id.
    /// * `Store`: the store or the local disk failed. Nothing became visible.
    /// * `Corrupt`, `UnsupportedVersion`: versions that others made meanwhile cannot be read or followed.
    pub async fn commit(mut self) -> Result<Dataset> {
        let Commits::Itself(base) = &self.commits else {
            return Err(Error::invalid_input("the runs of a task are committed with its ticket; finish this writer"));
        };
        let base = base.clone();
        let runs = self.upload().await?;
        self.ticket.commit_runs(self.target.place().clone(), base, runs).await
    }

    /// Gives up the write: nothing becomes visible, and spill files are deleted. Dropping the writer does the same.
    pub async fn abort(self) {
        drop(self);
    }

    async fn upload(&mut self) -> Result<Vec<Run>> {
        let sorter = self.sorter.take().ok_or_else(broken)?;
        match sorter.finish(self.ticket.run_ids(self.task)).await {
            Ok(runs) => Ok(runs),
            Err((e, uploaded)) => {
                self.ticket.delete_uploaded(self.target.place(), uploaded.iter().map(|run| run.path.as_str())).await;
                Err(e)
            }
        }
    }
}

fn broken() -> Error {
    Error::invalid_input("the writer failed before and holds no rows any more; write everything again")
}
