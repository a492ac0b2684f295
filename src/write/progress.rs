//! What a writer tells of its work: numbers while it goes on, spans for `tracing`, a summary in the end.
//!
//! Reports are made one after the other, whichever task makes them, and the books are open meanwhile: what a caller's function sees never goes back.

use std::fmt;
use std::iter::Sum;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::Empty;
use tracing::{Span, debug_span, info_span};

use crate::dataset::BucketSizes;
use crate::error::{Error, Result};
use crate::layout::WriteId;
use crate::manifest::Run;
use crate::spec::BucketCount;
use crate::task::panic_text;
use crate::write::parallel::PIECE_ROWS;

/// The target of all spans of writes, whatever file makes them.
const TARGET: &str = "sort_merge_bucket::write";

/// What a writer is doing.
///
/// Rows that do not fit the memory budget are sorted and written to local disk while more are taken; when the next ones are to follow them there,
/// the writer goes from `Taking` to `Spilling` and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WritePhase {
    /// Rows are taken and buffered.
    #[default]
    Taking,
    /// The rows that are in memory in the end are being sorted.
    Sorting,
    /// The buffer is full, and the rows before it are still on their way to local disk.
    Spilling,
    /// Spills are being merged into fewer, because there are more than can be merged at once.
    Merging,
    /// Runs are being encoded and uploaded.
    Encoding,
    /// The runs are being made visible.
    Committing,
    /// Nothing is left to do.
    Done,
}

impl fmt::Display for WritePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taking => "taking rows",
            Self::Sorting => "sorting",
            Self::Spilling => "spilling",
            Self::Merging => "merging spills",
            Self::Encoding => "encoding",
            Self::Committing => "committing",
            Self::Done => "done",
        })
    }
}

/// How far a write is, as [`with_progress`](crate::DatasetWriterBuilder::with_progress) reports it. Numbers never go back.
///
/// What [`Plan::transform`](crate::Plan::transform) writes is in order, so that it begins with `Encoding`, and takes rows then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct WriteProgress {
    /// What is being done.
    pub phase: WritePhase,
    /// Rows taken from the caller.
    pub rows_taken: u64,
    /// How often rows were spilled to local disk.
    pub spills: u64,
    /// Bytes written to local disk: those of spills, and again those of spills merged into one.
    pub spilled_bytes: u64,
    /// Rows encoded into runs; in the end as many as were taken.
    pub rows_encoded: u64,
    /// Bytes of runs that the store has confirmed.
    pub bytes_uploaded: u64,
    /// Runs uploaded.
    pub runs_finished: u64,
    /// The number of runs, known when all rows were taken; 0 until then.
    pub runs: u64,
}

/// What a write has made.
///
/// From [`DatasetWriter::commit_with_summary`](crate::DatasetWriter::commit_with_summary) or
/// [`WriteTicket::commit_with_summary`](crate::WriteTicket::commit_with_summary), or from
/// [`Plan::transform_with_summary`](crate::Plan::transform_with_summary). It is about the rows of this write alone; what a dataset has altogether is said by
/// [`Dataset::bucket_sizes`](crate::Dataset::bucket_sizes). If the write id was found committed when the writer was built, nothing was written: rows, bytes and runs are 0. Printed it is one line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WriteSummary {
    /// Rows written.
    pub rows: u64,
    /// Bytes of the runs' files.
    pub bytes: u64,
    /// Runs written: by one writer, as many as there are buckets with rows.
    pub runs: u64,
    /// How often rows were spilled to local disk, because they did not fit the memory budget.
    pub spills: u64,
    /// Bytes written to local disk: those of spills, and again those of spills merged into one.
    pub spilled_bytes: u64,
    /// The number of buckets, empty ones included.
    pub buckets: BucketCount,
    /// Rows of the bucket with the most rows.
    pub largest_bucket_rows: u64,
    /// Bytes of the bucket with the most bytes.
    pub largest_bucket_bytes: u64,
    /// Rows per bucket, empty buckets included.
    pub mean_bucket_rows: f64,
    /// Bytes per bucket, empty buckets included.
    pub mean_bucket_bytes: f64,
    /// How many times the mean rows the bucket with the most rows has: 1 if all are alike (or there are no rows), the number of buckets if
    /// one has all rows.
    pub skew: f64,
}

impl WriteSummary {
    /// Of runs that one writer has made of these spills.
    pub(super) fn new(buckets: BucketCount, runs: &[Run], spilled: Spilled) -> Self {
        let sizes = BucketSizes::new(buckets, runs);
        Self {
            rows: sizes.rows(),
            bytes: sizes.bytes(),
            runs: sizes.runs(),
            spills: spilled.spills,
            spilled_bytes: spilled.bytes,
            buckets,
            largest_bucket_rows: sizes.filled.iter().map(|size| size.rows).max().unwrap_or(0),
            largest_bucket_bytes: sizes.filled.iter().map(|size| size.bytes).max().unwrap_or(0),
            mean_bucket_rows: sizes.mean_rows(),
            mean_bucket_bytes: sizes.mean_bytes(),
            skew: sizes.skew(),
        }
    }
}

impl fmt::Display for WriteSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, bytes, runs, spills, spilled_bytes, buckets, largest_bucket_rows, skew, .. } = self;
        write!(
            f,
            "{rows} rows, {bytes} bytes, {runs} runs in {buckets} buckets; largest bucket {largest_bucket_rows} rows, "
        )?;
        write!(f, "skew {skew:.2}; {spills} spills, {spilled_bytes} bytes")
    }
}

/// What went to local disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spilled {
    pub(super) spills: u64,
    pub(super) bytes: u64,
}

impl Sum for Spilled {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        // Results of tasks come from outside.
        all.fold(Self::default(), |sum, one| Self {
            spills: sum.spills.saturating_add(one.spills),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

/// A caller's function that is told of progress.
#[derive(Clone)]
pub(crate) struct ProgressFn(Arc<dyn Fn(&WriteProgress) + Send + Sync>);

impl ProgressFn {
    pub(crate) fn new(function: impl Fn(&WriteProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }
}

impl fmt::Debug for ProgressFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressFn")
    }
}

/// The books of one writer. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Feedback {
    /// The span of the whole write, the parent of all others.
    span: Span,
    books: Arc<Mutex<Books>>,
    /// Held during a report.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct Books {
    now: WriteProgress,
    /// The rows taken at the last report, and at the last spill.
    reported: u64,
    spilled: u64,
    function: Option<ProgressFn>,
    /// What the function panicked with.
    panic: Option<String>,
}

impl Default for Feedback {
    fn default() -> Self {
        Self { span: Span::none(), books: Arc::default(), turn: Arc::default() }
    }
}

impl Feedback {
    /// The books of a write, with its span.
    pub(crate) fn new(path: &str, write_id: &WriteId) -> Self {
        let span = info_span!(target: TARGET, "write", path, %write_id, rows = Empty, bytes = Empty);
        Self { span, books: Arc::default(), turn: Arc::default() }
    }

    /// The span of the whole write.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Calls `function` from now on.
    pub(crate) fn report_to(&self, function: ProgressFn) {
        self.books().function = Some(function);
    }

    pub(super) fn now(&self) -> WriteProgress {
        self.books().now
    }

    pub(super) fn spilled_so_far(&self) -> Spilled {
        let WriteProgress { spills, spilled_bytes, .. } = self.now();
        Spilled { spills, bytes: spilled_bytes }
    }

    /// Says whether the caller's function has panicked: once it has, it is not called again, and the write is to fail.
    pub(super) fn check(&self) -> Result<()> {
        match &self.books().panic {
            None => Ok(()),
            Some(cause) => Err(Error::internal(format!("the progress function panicked, cause=`{cause}`"))),
        }
    }

    /// Books rows that were taken. However few come at once, the function is called only every few thousand rows.
    pub(crate) fn taken(&self, rows: usize) {
        let due = {
            let mut books = self.books();
            books.now.rows_taken += rows as u64;
            books.now.rows_taken - books.reported >= PIECE_ROWS as u64
        };
        if due {
            self.report(|_| ());
        }
    }

    pub(crate) fn enter(&self, phase: WritePhase) {
        self.report(|now| now.phase = phase);
    }

    /// The span of a spill of all rows taken since the last one.
    pub(super) fn spill_span(&self) -> Span {
        let mut books = self.books();
        let rows = books.now.rows_taken - books.spilled;
        books.spilled = books.now.rows_taken;
        debug_span!(target: TARGET, parent: &self.span, "spill", rows, bytes = Empty)
    }

    pub(super) fn spilled(&self, span: &Span, bytes: u64) {
        span.record("bytes", bytes);
        self.report(|now| {
            now.spills += 1;
            now.spilled_bytes += bytes;
        });
    }

    /// The span of merging spills into one.
    pub(super) fn merge_span(&self, spills: usize) -> Span {
        debug_span!(target: TARGET, parent: &self.span, "merge", spills, bytes = Empty)
    }

    pub(super) fn merged(&self, span: &Span, bytes: u64) {
        span.record("bytes", bytes);
        self.report(|now| now.spilled_bytes += bytes);
    }

    pub(super) fn encoding(&self, runs: usize) {
        self.report(|now| {
            now.phase = WritePhase::Encoding;
            now.runs = runs as u64;
        });
    }

    /// The span of encoding the run of a bucket, and of uploading the parts that are complete meanwhile.
    pub(crate) fn encode_span(&self, bucket: u32) -> Span {
        debug_span!(target: TARGET, parent: &self.span, "encode", bucket, rows = Empty, bytes = Empty)
    }

    pub(crate) fn encoded(&self, rows: u64, uploaded: u64) {
        self.report(|now| {
            now.rows_encoded += rows;
            now.bytes_uploaded += uploaded;
        });
    }

    /// The span of uploading what is left of a run once it is encoded.
    pub(crate) fn upload_span(&self, run: &Run) -> Span {
        debug_span!(target: TARGET, parent: &self.span, "upload", bucket = run.bucket, rows = run.rows, bytes = run.bytes)
    }

    pub(crate) fn uploaded(&self, uploaded: u64) {
        self.report(|now| {
            now.bytes_uploaded += uploaded;
            now.runs_finished += 1;
        });
    }

    /// Books a change and tells the caller's function of it.
    fn report(&self, change: impl FnOnce(&mut WriteProgress)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, function) = {
            let mut books = self.books();
            change(&mut books.now);
            books.reported = books.now.rows_taken;
            (books.now, books.function.clone())
        };
        let Some(ProgressFn(function)) = function else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| function(&now))) {
            let mut books = self.books();
            books.function = None;
            books.panic = Some(panic_text(panic.as_ref()));
        }
    }

    /// Books that all runs are uploaded, and enters the phase that comes next, unless the write is to [fail](Self::check).
    pub(crate) fn written(&self, runs: &[Run], next: WritePhase) -> Result<()> {
        self.report(|now| {
            now.phase = next;
            now.runs = runs.len() as u64;
        });
        let WriteProgress { rows_encoded, bytes_uploaded, .. } = self.now();
        self.span.record("rows", rows_encoded).record("bytes", bytes_uploaded);
        self.check()
    }

    /// What is known when all runs are there.
    pub(crate) fn summary(&self, buckets: BucketCount, runs: &[Run]) -> WriteSummary {
        WriteSummary::new(buckets, runs, self.spilled_so_far())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing that can panic happens under the lock.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span of making runs visible.
pub(super) fn commit_span(path: &str, write_id: &WriteId, runs: &[Run]) -> Span {
    let rows = runs.iter().map(|run| run.rows).fold(0, u64::saturating_add);
    let bytes = runs.iter().map(|run| run.bytes).fold(0, u64::saturating_add);
    info_span!(target: TARGET, "commit", path, %write_id, runs = runs.len(), rows, bytes, version = Empty)
}
