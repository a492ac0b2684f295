//! The writer that callers hold: rows in, then one commit, or results for someone else's commit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;
use tracing::Instrument;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::layout::{DatasetId, WriteId};
use crate::manifest::{Manifest, Run, encode_runs};
use crate::spec::BucketSpec;
use crate::write::builder::DatasetWriterBuilder;
use crate::write::progress::{Feedback, ProgressFn, WritePhase, WriteProgress, WriteSummary};
use crate::write::run_encoder::RunTarget;
use crate::write::sorter::Sorter;
use crate::write::ticket::{WriteTicket, WrittenRuns};

/// Writes a dataset: [`RecordBatch`]es in any order and of any size become N buckets of sorted runs, visible all at once or not at all.
///
/// Rows of equal keys and sort columns stay in the order in which they were written. The same rows with the same options, write id and
/// [`Clock::Fixed`](crate::Clock::Fixed) make the same bytes, however they are cut into batches.
///
/// Needs a tokio runtime. Sorts and encodes on threads of its own, as many as there are processors.
///
/// # Memory
/// See [`WriteOptions`](crate::WriteOptions). Rows beyond the budget are sorted and spilled to local disk, about as large there as their
/// LZ4-compressed values; the files are gone with the writer.
///
/// # Spans
/// For subscribers of `tracing`, with the target `sort_merge_bucket::write`. At level info `write`, from when the writer is built until it is
/// dropped, and in it `commit`, both with `path`, `write_id`, `rows` and `bytes`; at level debug `spill`, `merge` (of spills into one), and for each
/// run `encode` and `upload` (of what is left when encoding ends), with `bytes` and, but for `merge`, `rows`. Nothing is recorded per row or batch.
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
    feedback: Feedback,
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
        let feedback = Feedback::new(ticket.path(), ticket.write_id());
        let sorter = Sorter::new(target.clone(), &ticket.options)?.with_feedback(feedback.clone());
        Ok(Self { ticket, target, commits, task, sorter: Some(sorter), feedback })
    }

    /// Has `function` called with the progress of the write, as [`DatasetWriterBuilder::with_progress`] does: for the writers of a
    /// [`WriteTicket`], which have no builder.
    #[must_use]
    pub fn with_progress(self, function: impl Fn(&WriteProgress) + Send + Sync + 'static) -> Self {
        self.report_to(ProgressFn::new(function))
    }

    pub(super) fn report_to(self, function: ProgressFn) -> Self {
        self.feedback.report_to(function);
        self
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

    /// Takes rows. A full buffer is sorted and spilled while more rows come; waits if the one before is not there yet.
    ///
    /// # Errors
    /// `InvalidInput` if the batch's columns are not those of the schema by position, name and logical type, if a column that is not
    /// nullable holds nulls, or a value cannot be stored (a timestamp in seconds beyond the range of milliseconds); `Unsorted`, with the row
    /// counted from the first one written, if the rows were declared to come in order ([`InputOrder::Sorted`](crate::InputOrder::Sorted)) and
    /// do not; `Store` if the local disk fails, now or with rows of an earlier call. After an error, or when this future is dropped before its end, the writer is of no use: every further call fails.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut sorter = self.sorter.take().ok_or_else(broken)?;
        if self.ticket.is_done() {
            // The commit is there; what a second run of the job brings is only checked.
            sorter.check(batch)?;
        } else {
            sorter.write(batch).await?;
            self.feedback.check()?;
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
        let runs = self.upload(WritePhase::Done).await?;
        Ok(WrittenRuns {
            dataset_id: self.ticket.dataset_id,
            write_id: self.ticket.write_id,
            task: self.task,
            rows: self.feedback.now().rows_taken,
            spilled: self.feedback.spilled_so_far(),
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
    pub async fn commit(self) -> Result<Dataset> {
        Ok(self.commit_with_summary().await?.0)
    }

    /// The same as [`commit`](Self::commit), and says what was written.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use arrow::array::{Int64Array, RecordBatch};
    /// # use object_store::{ObjectStore, memory::InMemory};
    /// # use sort_merge_bucket::{BucketSpec, DatasetWriter};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// let batch = RecordBatch::try_from_iter([("user_id", Arc::new(Int64Array::from(vec![7; 100])) as _)])?;
    /// let spec = BucketSpec::new(["user_id"], 4)?;
    /// let mut writer = DatasetWriter::builder(store, "plays", batch.schema(), spec).build().await?;
    /// writer.write(&batch).await?;
    /// let (plays, summary) = writer.commit_with_summary().await?;
    /// assert_eq!((summary.rows, summary.runs, summary.bytes), (100, 1, plays.statistics().bytes));
    /// // One user has all rows, so that one of four buckets has four times the mean.
    /// assert_eq!((summary.largest_bucket_rows, summary.skew), (100, 4.0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_with_summary(mut self) -> Result<(Dataset, WriteSummary)> {
        let Commits::Itself(base) = &self.commits else {
            return Err(Error::invalid_input("the runs of a task are committed with its ticket; finish this writer"));
        };
        let base = base.clone();
        let runs = self.upload(WritePhase::Committing).await?;
        let summary = self.feedback.summary(self.ticket.spec.buckets(), &runs);
        let commit = self.ticket.commit_runs(self.target.place().clone(), base, runs);
        let dataset = commit.instrument(self.feedback.span().clone()).await?;
        // A panic of the caller's function comes too late here: the version is made.
        self.feedback.enter(WritePhase::Done);
        Ok((dataset, summary))
    }

    /// Gives up the write: nothing becomes visible, and spill files are deleted. Dropping the writer does the same, but without waiting for rows that
    /// are just being spilled: their file is deleted when it is complete.
    pub async fn abort(self) {
        if let Some(sorter) = self.sorter {
            sorter.abort().await;
        }
    }

    /// Sorts, encodes and uploads what was written, and enters the phase that comes next.
    async fn upload(&mut self, next: WritePhase) -> Result<Vec<Run>> {
        let sorter = self.sorter.take().ok_or_else(broken)?;
        let span = self.feedback.span();
        let finished = sorter.finish(self.ticket.run_ids(self.task)).instrument(span.clone()).await;
        let checked = finished.and_then(|runs| match self.feedback.written(&runs, next) {
            Ok(()) => Ok(runs),
            Err(e) => Err((e, runs)),
        });
        match checked {
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
