//! The external sort behind a writer: buffer, spill, merge spills, encode every bucket. Knows runs, and nothing of commits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use tokio::sync::Semaphore;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};
use crate::footprint::{Cutter, RowSizes};
use crate::layout::RunIds;
use crate::manifest::Run;
use crate::spill::{Spill, SpillDir};
use crate::store::Place;
use crate::task::{self, Crew, Seat, Task};
use crate::write::bucket_rows::BucketRows;
use crate::write::intake::Intake;
use crate::write::options::{InputOrder, WriteOptions};
use crate::write::order_check::OrderCheck;
use crate::write::parallel::{Limits, PIECE_ROWS, split_evenly};
use crate::write::partition::{Placement, SortedRows};
use crate::write::progress::{Feedback, WritePhase};
use crate::write::run_encoder::{RunEncoder, RunTarget};
use crate::write::upload::Upload;

/// Runs that are encoded or uploaded at once: small files wait for the store, not for the processor.
const RUNS_UNDER_WAY: usize = 64;

/// Encoded bytes that are worth a visit to the upload.
const HAND_OVER_BYTES: usize = 1 << 20;

/// What to do about rows that are not in the order that was declared.
const UNSORTED_INPUT: &str = "sort the rows, or write them with `InputOrder::Any`";

/// The unit in which waiting bytes are counted, so that any sum fits a semaphore.
const UPLOAD_UNIT: u64 = 1 << 10;

/// Sorts rows into runs.
#[derive(Debug)]
pub(super) struct Sorter {
    target: RunTarget,
    placement: Arc<Placement>,
    limits: Limits,
    crew: Crew,
    intake: Intake,
    input: InputOrder,
    /// Of input that is declared to be in order.
    order: Option<OrderCheck>,
    spill_parent: Option<PathBuf>,
    /// Made at the first spill.
    spill_dir: Option<SpillDir>,
    /// Oldest first: rows of equal keys stay in order of arrival.
    spills: Vec<Spill>,
    /// A buffer that is being sorted and written to local disk while the next one fills.
    spilling: Option<(Span, Task<Spill>)>,
    feedback: Feedback,
}

impl Sorter {
    pub(super) fn new(target: RunTarget, options: &WriteOptions) -> Result<Self> {
        let limits = Limits::new(options, target.leaf_bytes());
        let input = options.input_order;
        let (sort_by, order) = match input {
            InputOrder::Any => (target.order(), None),
            InputOrder::Sorted => (&[][..], Some(OrderCheck::new(target.schema(), target.order(), UNSORTED_INPUT)?)),
        };
        Ok(Self {
            placement: Arc::new(Placement::new(target.schema(), target.spec(), sort_by)?),
            input,
            order,
            intake: Intake::new(Arc::clone(target.schema()), &limits),
            crew: Crew::new(limits.jobs),
            limits,
            target,
            spill_parent: options.spill_dir.clone(),
            spill_dir: None,
            spills: vec![],
            spilling: None,
            feedback: Feedback::default(),
        })
    }

    /// Keeps the books of what it does in `feedback`.
    pub(super) fn with_feedback(mut self, feedback: Feedback) -> Self {
        self.feedback = feedback;
        self
    }

    /// Checks rows without taking them.
    pub(super) fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        self.intake.check(batch)
    }

    /// Takes rows. After an error or when dropped half-way, some rows of `batch` may have been taken and others not.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.intake.check(batch)?;
        for part in Intake::parts(batch) {
            for piece in self.intake.pieces(&part)? {
                if let Some(order) = &mut self.order {
                    order.check(&piece)?;
                }
                self.feedback.taken(piece.num_rows());
                let sorting_bytes = self.placement.sorting_bytes(&piece);
                if self.intake.push(piece, sorting_bytes)? {
                    self.begin_spill().await?;
                }
            }
        }
        Ok(())
    }

    /// Sorts what is buffered; `None` if that is nothing.
    async fn sort_buffered(&mut self) -> Result<Option<Arc<SortedRows>>> {
        let batches = self.intake.take()?;
        if batches.is_empty() {
            return Ok(None);
        }
        self.feedback.enter(WritePhase::Sorting);
        let (placement, crew) = (Arc::clone(&self.placement), self.crew.clone());
        Ok(Some(Arc::new(SortedRows::sort(placement, batches, crew, self.limits.piece_bytes).await?)))
    }

    fn spill_dir(&mut self) -> Result<SpillDir> {
        if self.spill_dir.is_none() {
            self.spill_dir = Some(SpillDir::create(self.spill_parent.as_deref())?);
        }
        self.spill_dir.clone().ok_or_else(|| Error::internal("no folder for spill files"))
    }

    /// Has what is buffered sorted and written to local disk while more rows come. Waits until the buffer before it is there.
    async fn begin_spill(&mut self) -> Result<()> {
        let batches = self.intake.take()?;
        self.end_spill().await?;
        let span = self.feedback.spill_span();
        let dir = self.spill_dir()?;
        let schema = Arc::clone(self.target.schema());
        let (placement, crew, piece_bytes) = (Arc::clone(&self.placement), self.crew.clone(), self.limits.piece_bytes);
        let spill = async move {
            let rows = Arc::new(SortedRows::sort(placement, batches, crew.clone(), piece_bytes).await?);
            let parts = rows.split(crew.threads());
            let write = move |buckets| {
                let mut file = dir.file(&schema)?;
                let mut pieces = rows.pieces(buckets);
                while let Some((bucket, piece)) = pieces.next()? {
                    file.write(bucket, &piece)?;
                }
                file.finish()
            };
            Ok(Spill::of_parts(crew.run_all(parts, write).await?))
        };
        let task = span.in_scope(|| task::spawn(spill));
        self.spilling = Some((span, task));
        self.feedback.enter(WritePhase::Taking);
        Ok(())
    }

    /// Waits until the rows that are being spilled are on local disk.
    async fn end_spill(&mut self) -> Result<()> {
        let Some((span, task)) = self.spilling.take() else { return Ok(()) };
        self.feedback.enter(WritePhase::Spilling);
        let spill = task.await?;
        self.feedback.spilled(&span, spill.bytes());
        self.spills.push(spill);
        Ok(())
    }

    /// Gives up; returns when no spill file is left.
    pub(super) async fn abort(mut self) {
        if let Some((_, spilling)) = self.spilling.take() {
            drop(spilling.await);
        }
    }

    /// How many spills there are, one under way included.
    #[cfg(test)]
    pub(super) fn spill_count(&self) -> usize {
        self.spills.len() + usize::from(self.spilling.is_some())
    }

    /// Merges spills until at most `fan_in` are left, so that the last merge fits the budget whatever the number of spills. Those of input in
    /// order are read one after the other, and need no merge.
    async fn merge_spills(&mut self) -> Result<()> {
        if self.input == InputOrder::Sorted {
            return Ok(());
        }
        // One of the last merge's inputs is what is still in memory.
        let fan_in = self.limits.fan_in - 1;
        while self.spills.len() > fan_in {
            self.feedback.enter(WritePhase::Merging);
            let excess = self.spills.len() - fan_in;
            // Each merge of `fan_in` spills makes `fan_in - 1` fewer; no more rows are merged than needed.
            let mut left = excess;
            let mut merged = vec![];
            let mut spills = std::mem::take(&mut self.spills).into_iter();
            loop {
                let size = if left == 0 { 1 } else { fan_in.min(left + 1) };
                let group: Vec<Spill> = spills.by_ref().take(size).collect();
                match group.len() {
                    0 => break,
                    1 => merged.extend(group),
                    n => {
                        left -= (n - 1).min(left);
                        let span = self.feedback.merge_span(n);
                        let spill = self.merge_group(group).instrument(span.clone()).await?;
                        self.feedback.merged(&span, spill.bytes());
                        merged.push(spill);
                    }
                }
            }
            self.spills = merged;
        }
        Ok(())
    }

    async fn merge_group(&mut self, group: Vec<Spill>) -> Result<Spill> {
        let dir = self.spill_dir()?;
        let target = self.target.clone();
        let piece_bytes = self.limits.piece_bytes;
        let input = self.input;
        let mut sizes = BTreeMap::<u32, usize>::new();
        for (bucket, bytes) in group.iter().flat_map(Spill::buckets) {
            *sizes.entry(bucket).or_default() += bytes as usize;
        }
        let buckets: Vec<u32> = sizes.keys().copied().collect();
        let weights: Vec<usize> = sizes.into_values().collect();
        let parts =
            split_evenly(&weights, self.limits.encoders).into_iter().map(|part| buckets[part].to_vec()).collect();
        let group = Arc::new(group);
        let merge = move |buckets: Vec<u32>| {
            let mut file = dir.file(target.schema())?;
            for bucket in buckets {
                let mut rows = BucketRows::open(input, target.schema(), target.order(), &group, None, bucket)?;
                while let Some(batch) = rows.next()? {
                    // The rows of one output batch may be as heavy as they like, so it is cut again.
                    let mut cutter = Cutter::new(PIECE_ROWS, piece_bytes);
                    for (range, _) in cutter.cut(&RowSizes::of_batch(&batch), batch.num_rows()) {
                        file.write(bucket, &batch.slice(range.start, range.len()))?;
                    }
                }
            }
            file.finish()
        };
        Ok(Spill::of_parts(self.crew.run_all(parts, merge).await?))
    }

    /// Sorts the rest and uploads one run for every bucket that has rows, in the order of the buckets.
    ///
    /// A failure comes with the runs that were uploaded by then.
    pub(super) async fn finish(mut self, run_ids: RunIds) -> Result<Vec<Run>, (Error, Vec<Run>)> {
        let nothing_uploaded = |e| (e, vec![]);
        self.end_spill().await.map_err(nothing_uploaded)?;
        self.merge_spills().await.map_err(nothing_uploaded)?;
        let memory = self.sort_buffered().await.map_err(nothing_uploaded)?;
        self.encode(memory, run_ids).await
    }

    async fn encode(
        mut self,
        memory: Option<Arc<SortedRows>>,
        mut run_ids: RunIds,
    ) -> Result<Vec<Run>, (Error, Vec<Run>)> {
        let spilled = self.spills.iter().flat_map(|spill| spill.buckets().map(|(bucket, _)| bucket));
        let mut buckets: Vec<u32> = memory.iter().flat_map(|rows| rows.buckets()).chain(spilled).collect();
        buckets.sort_unstable();
        buckets.dedup();
        self.feedback.encoding(buckets.len());

        let upload_units = (self.limits.upload_bytes as u64 / UPLOAD_UNIT).max(1) as u32;
        let work = Arc::new(Work {
            target: self.target.clone(),
            input: self.input,
            crew: self.crew.clone(),
            spills: std::mem::take(&mut self.spills),
            memory,
            encoders: Semaphore::new(self.limits.encoders),
            uploads: Semaphore::new(upload_units as usize),
            upload_units,
            failed: AtomicBool::new(false),
            feedback: self.feedback.clone(),
        });
        let jobs = buckets.into_iter().map(|bucket| {
            let work = Arc::clone(&work);
            let run_id = run_ids.next();
            async move {
                let run = work.encode(bucket, &run_id).await;
                if run.is_err() {
                    work.failed.store(true, Ordering::Relaxed);
                }
                run
            }
        });
        let results: Vec<Result<Option<Run>>> = stream::iter(jobs).buffer_unordered(RUNS_UNDER_WAY).collect().await;

        let mut runs = vec![];
        let mut failure = None;
        for result in results {
            match result {
                Ok(run) => runs.extend(run),
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        runs.sort_by_key(|run| run.bucket);
        match failure {
            None => Ok(runs),
            Some(e) => Err((e, runs)),
        }
    }
}

impl Drop for Sorter {
    /// A spill that is under way would keep its files until it ends, and for ever if the process ends before.
    fn drop(&mut self) {
        if let Some(dir) = &self.spill_dir {
            dir.remove();
        }
    }
}

/// Deletes runs that no manifest names, as far as the store answers; what stays is invisible, and a vacuum's to remove.
pub(super) async fn delete_runs(place: &Place, paths: impl Iterator<Item = &str>) {
    let delete = |path| async move { drop(place.store.delete(&path).await) };
    let paths: Vec<_> = paths.map(|path| place.layout.run(path)).collect();
    stream::iter(paths.into_iter().map(delete)).buffer_unordered(RUNS_UNDER_WAY).collect::<()>().await;
}

/// What the encoding of all buckets shares.
#[derive(Debug)]
struct Work {
    target: RunTarget,
    input: InputOrder,
    crew: Crew,
    spills: Vec<Spill>,
    memory: Option<Arc<SortedRows>>,
    /// A permit per run that is being encoded.
    encoders: Semaphore,
    /// A permit per unit of encoded bytes that wait for the store.
    uploads: Semaphore,
    upload_units: u32,
    failed: AtomicBool,
    feedback: Feedback,
}

/// What a visit to a thread of the crew brings back.
enum Encoded {
    Part(BucketRows, RunEncoder, Bytes),
    Last(Option<(Bytes, Run)>),
}

impl Work {
    /// Writes the run of one bucket; nothing if another bucket failed meanwhile.
    async fn encode(self: &Arc<Self>, bucket: u32, run_id: &str) -> Result<Option<Run>> {
        let closed = |_| Error::internal("a semaphore was closed");
        let encoding = self.encoders.acquire().await.map_err(closed)?;
        if self.failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let seat = self.crew.seat();
        let encoder = RunEncoder::new(&self.target, bucket, run_id)?;
        let place = self.target.place();
        let mut upload = Upload::new(Arc::clone(&place.store), place.layout.run(encoder.path()));
        let span = self.feedback.encode_span(bucket);
        let run = match self.encode_into(bucket, encoder, &mut upload, &seat).instrument(span.clone()).await {
            Ok(Some(run)) => run,
            other => {
                upload.abort().await;
                return other;
            }
        };
        span.record("rows", run.rows).record("bytes", run.bytes);
        drop(span);
        // Taken before the next run may be encoded, so that a slow store slows the encoding down.
        let units = run.bytes.div_ceil(UPLOAD_UNIT).min(u64::from(self.upload_units)) as u32;
        let waiting = self.uploads.acquire_many(units).await.map_err(closed)?;
        drop((encoding, seat));
        let uploaded = upload.finish().instrument(self.feedback.upload_span(&run)).await?;
        self.feedback.uploaded(uploaded);
        drop(waiting);
        Ok(Some(run))
    }

    async fn encode_into(
        self: &Arc<Self>,
        bucket: u32,
        encoder: RunEncoder,
        upload: &mut Upload,
        seat: &Seat,
    ) -> Result<Option<Run>> {
        let mut state = (None, encoder);
        let mut encoded = 0;
        loop {
            let work = Arc::clone(self);
            let (rows, mut encoder) = state;
            let visit = move || {
                let mut rows = match rows {
                    Some(rows) => rows,
                    None => {
                        let Self { target, input, spills, memory, .. } = work.as_ref();
                        BucketRows::open(*input, target.schema(), target.order(), spills, memory.as_ref(), bucket)?
                    }
                };
                while let Some(batch) = rows.next()? {
                    encoder.write(&batch)?;
                    if encoder.ready_bytes() >= HAND_OVER_BYTES {
                        let bytes = encoder.take_bytes()?;
                        return Ok(Encoded::Part(rows, encoder, bytes));
                    }
                }
                Ok(Encoded::Last(encoder.finish()?))
            };
            match seat.run(visit).await? {
                Encoded::Part(rows, encoder, bytes) => {
                    upload.push(bytes).await?;
                    self.feedback.encoded(encoder.rows() - encoded, upload.newly_stored());
                    encoded = encoder.rows();
                    state = (Some(rows), encoder);
                }
                Encoded::Last(None) => return Ok(None),
                Encoded::Last(Some((bytes, run))) => {
                    upload.push(bytes).await?;
                    self.feedback.encoded(run.rows - encoded, upload.newly_stored());
                    return Ok(Some(run));
                }
            }
        }
    }
}
