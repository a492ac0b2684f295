//! Writes a plan's result as a dataset, without a sort and without a shuffle: slots become buckets.
//!
//! With G slots and N target buckets, a slot's rows lie in bucket `slot mod N` if N divides G, and in the buckets b with `b mod G = slot` if N
//! is a multiple of G. Either way the rows come in key order, so that each bucket's run is written as the rows come by.
//!
//! Placement and order of what the caller's function returns are checked row by row: a function that changes the key fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use object_store::ObjectStore;
use object_store::path::Path;
use tracing::Instrument;

use crate::bucket::bucket_ids;
use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Clock, WriteId};
use crate::manifest::Run;
use crate::plan::{Part, Plan, PlanOperation};
use crate::run::Parallelism;
use crate::schema::{canonical_schema, cast_batch};
use crate::spec::{BucketCount, BucketSpec};
use crate::store::Place;
use crate::task::{Crew, spawn};
use crate::write::{
    DatasetWriter, Feedback, ProgressFn, RunFileWriter, RunTarget, WriteMode, WriteOptions, WritePhase, WriteProgress,
    WriteSummary, WriteTicket,
};

/// Where and how [`Plan::transform`] writes.
#[derive(Debug, Clone)]
pub struct Target {
    place: Place,
    schema: Option<SchemaRef>,
    buckets: Option<BucketCount>,
    mode: WriteMode,
    options: WriteOptions,
    write_id: Option<WriteId>,
    properties: BTreeMap<String, String>,
    clock: Clock,
    parallelism: Parallelism,
    base: Option<u64>,
    progress: Option<ProgressFn>,
}

impl Target {
    /// A new dataset at `path`.
    pub fn new(store: Arc<dyn ObjectStore>, path: impl Into<Path>) -> Self {
        Self {
            place: Place::new(store, path),
            schema: None,
            buckets: None,
            mode: WriteMode::default(),
            options: WriteOptions::default(),
            write_id: None,
            properties: BTreeMap::new(),
            clock: Clock::default(),
            parallelism: Parallelism::default(),
            base: None,
            progress: None,
        }
    }

    /// The schema of what the function returns, which holds the plan's key columns under their names. The plan's own schema by default.
    #[must_use]
    pub fn with_schema(mut self, schema: SchemaRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// The bucket count: a divisor or a multiple of the plan's slots. The number of slots by default.
    #[must_use]
    pub fn with_buckets(mut self, buckets: BucketCount) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// What to do if there is a dataset already; [`WriteMode::Create`] by default.
    #[must_use]
    pub fn with_mode(mut self, mode: WriteMode) -> Self {
        self.mode = mode;
        self
    }

    /// How runs are written.
    #[must_use]
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// A write id of the caller's own, so that a job run again finds its own commit and does nothing.
    #[must_use]
    pub fn with_write_id(mut self, write_id: WriteId) -> Self {
        self.write_id = Some(write_id);
        self
    }

    /// Adds a property to the manifest.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Where the time and names come from.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The version that the caller decided on: a commit since is a conflict.
    #[must_use]
    pub(crate) fn with_base(mut self, version: u64) -> Self {
        self.base = Some(version);
        self
    }

    /// Has `function` called with the progress of the write, as [`DatasetWriterBuilder::with_progress`](crate::DatasetWriterBuilder::with_progress)
    /// does: for every batch that is encoded and every run that is uploaded, one call after the other, from the tasks that run slots.
    #[must_use]
    pub fn with_progress(mut self, function: impl Fn(&WriteProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(function));
        self
    }

    /// How many slots run at the same time; as many as cores by default.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: Parallelism) -> Self {
        self.parallelism = parallelism;
        self
    }
}

impl<O: PlanOperation> Plan<O> {
    /// Runs the plan, puts every item through `function` and writes what it returns as a dataset, whose lineage names the plan's inputs.
    ///
    /// The spec is derived: the plan's key columns, its bucket function and order, and for a join on sort columns these as well. If the
    /// target is one of the plan's inputs, the version that was read is the base of the write.
    ///
    /// # Memory
    /// Per slot running, what the plan needs and one row group in the making for each of its target buckets.
    ///
    /// # Spans
    /// Those of [`DatasetWriter`], but for `spill` and `merge`: nothing is sorted.
    ///
    /// # Errors
    /// `InvalidInput` for a bucket count that neither divides nor is a multiple of the slots, or a schema without the key columns; `Misplaced` or
    /// `Unsorted` if the function's rows have other keys or another order than its item; the function's own errors; those of reading a plan
    /// and of committing. Nothing becomes visible then.
    pub async fn transform<F>(&self, target: Target, function: F) -> Result<Dataset>
    where
        F: Fn(O::Item) -> Result<RecordBatch> + Send + Sync + 'static,
    {
        Ok(self.transform_with_summary(target, function).await?.0)
    }

    /// The same as [`transform`](Self::transform), and says what was written.
    ///
    /// # Errors
    /// As [`transform`](Self::transform).
    pub async fn transform_with_summary<F>(&self, target: Target, function: F) -> Result<(Dataset, WriteSummary)>
    where
        F: Fn(O::Item) -> Result<RecordBatch> + Send + Sync + 'static,
    {
        let Target { place, schema, buckets, mode, options, write_id, properties, clock, parallelism, base, progress } =
            target;
        let schema = schema.unwrap_or_else(|| Arc::clone(self.schema()));
        let slots = self.slots();
        let buckets = buckets.unwrap_or(slots);
        if buckets.get() % slots != 0 && slots.get() % buckets != 0 {
            return Err(Error::invalid_input(format!(
                "the target's bucket count must divide the plan's slots or be a multiple of them, buckets=`{buckets}`, slots=`{slots}`"
            )));
        }
        let (key, sort) = self.key().split_at(self.resolved.hashed);
        let spec = BucketSpec::new(key, buckets.get())?
            .with_function(self.resolved.function)
            .with_sort_columns(sort.iter().cloned())?;
        let (store, path) = (Arc::clone(&place.store), place.layout.root().clone());
        let mut builder = DatasetWriter::builder(Arc::clone(&store), path, schema, spec)
            .with_mode(mode)
            .with_options(options)
            .with_clock(clock)
            .with_lineage(self.lineage());
        for (name, value) in properties {
            builder = builder.with_property(name, value);
        }
        if let Some(write_id) = write_id {
            builder = builder.with_write_id(write_id);
        }
        let current = place.newest().await?;
        let inputs = self.resolved.sources.iter().flat_map(|source| &source.datasets);
        if let Some(input) =
            inputs.into_iter().find(|input| current.as_ref().is_some_and(|c| c.dataset_id == *input.id()))
        {
            builder = builder.with_base(input.version());
        }
        if let Some(base) = base {
            builder = builder.with_base(base);
        }
        let ticket = builder.begin().await?;
        let feedback = Feedback::new(place.layout.root().as_ref(), ticket.write_id());
        if let Some(progress) = progress {
            feedback.report_to(progress);
        }
        let span = feedback.span().clone();
        let runs = if ticket.is_done() {
            vec![]
        } else {
            let written = self.write_slots(&store, &ticket, parallelism, function, &feedback);
            written.instrument(span.clone()).await?
        };
        let summary = feedback.summary(buckets, &runs);
        let base = match ticket.base_version() {
            Some(version) => Some(Arc::new(place.version(version).await?)),
            None => None,
        };
        let dataset = ticket.commit_runs(place, base, runs).instrument(span).await?;
        feedback.enter(WritePhase::Done);
        Ok((dataset, summary))
    }

    /// Writes all slots; on an error deletes what is complete already.
    async fn write_slots<F>(
        &self,
        store: &Arc<dyn ObjectStore>,
        ticket: &WriteTicket,
        parallelism: Parallelism,
        function: F,
        feedback: &Feedback,
    ) -> Result<Vec<Run>>
    where
        F: Fn(O::Item) -> Result<RecordBatch> + Send + Sync + 'static,
    {
        feedback.enter(WritePhase::Encoding);
        let target = ticket.run_target(store)?;
        let (next, function) = (Arc::new(AtomicU32::new(0)), Arc::new(function));
        let tasks = parallelism.tasks().min(self.slots().get() as usize).max(1);
        let crew = Crew::new(tasks);
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let output = Output {
                    target: target.clone(),
                    ticket: ticket.clone(),
                    feedback: feedback.clone(),
                    crew: crew.clone(),
                };
                let plan = self.clone();
                let (next, function) = (Arc::clone(&next), Arc::clone(&function));
                spawn(async move {
                    let mut runs = vec![];
                    let written = write_some_slots(&plan, &output, &next, function.as_ref(), &mut runs).await;
                    if written.is_err() {
                        // The others need not begin another slot.
                        next.store(plan.slots().get(), Ordering::Relaxed);
                    }
                    Ok((runs, written))
                })
            })
            .collect();
        let mut runs = vec![];
        let mut failed = None;
        for task in tasks {
            match task.await {
                Ok((own, written)) => {
                    runs.extend(own);
                    failed = failed.or(written.err());
                }
                Err(panicked) => {
                    next.store(self.slots().get(), Ordering::Relaxed);
                    failed = failed.or(Some(panicked));
                }
            }
        }
        // Whichever task wrote them, the manifest lists runs in one order.
        runs.sort_by(|a, b| (a.bucket, &a.path).cmp(&(b.bucket, &b.path)));
        if let Some(error) = failed.or_else(|| feedback.written(&runs, WritePhase::Committing).err()) {
            let place = target.place().clone();
            ticket.delete_uploaded(&place, runs.iter().map(|run| run.path.as_str())).await;
            return Err(error);
        }
        Ok(runs)
    }
}

/// Where all slots write to.
struct Output {
    target: RunTarget,
    ticket: WriteTicket,
    feedback: Feedback,
    crew: Crew,
}

/// Takes slots until none is left; `runs` gets every run that is complete, whatever happens after.
async fn write_some_slots<O: PlanOperation>(
    plan: &Plan<O>,
    output: &Output,
    next: &AtomicU32,
    function: &(impl Fn(O::Item) -> Result<RecordBatch> + Send + Sync),
    runs: &mut Vec<Run>,
) -> Result<()> {
    loop {
        let slot = next.fetch_add(1, Ordering::Relaxed);
        if slot >= plan.slots().get() {
            return Ok(());
        }
        let Some(mut items) = plan.start(&Part::whole(slot), &Arc::default())? else { continue };
        let mut output = SlotOutput::new(output, slot, plan.slots())?;
        let written = async {
            while let Some(item) = items.next().await? {
                output.write(function(item)?).await?;
            }
            output.close(runs).await
        };
        let written = written.await;
        // Gives up the uploads that an error left unfinished; there are none otherwise.
        output.abort().await;
        written?;
    }
}

/// The runs that one slot is written to.
struct SlotOutput<'a> {
    output: &'a Output,
    ids: crate::layout::RunIds,
    key: Vec<usize>,
    slot: u32,
    slots: BucketCount,
    /// By bucket; made when the first row comes.
    writers: BTreeMap<u32, RunFileWriter>,
    rows: u64,
}

impl<'a> SlotOutput<'a> {
    fn new(output: &'a Output, slot: u32, slots: BucketCount) -> Result<Self> {
        let key = output.target.spec().key_indices(output.target.schema())?;
        Ok(Self { output, ids: output.ticket.run_ids(slot), key, slot, slots, writers: BTreeMap::new(), rows: 0 })
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.canonical(&batch)?;
        let spec = self.output.target.spec();
        let key: Vec<ArrayRef> = self.key.iter().map(|&column| Arc::clone(batch.column(column))).collect();
        let buckets = bucket_ids(spec.function(), &key, spec.buckets())?;
        // Whether N divides G or the other way round: a row is in its slot if slot and bucket agree modulo the smaller of both.
        let smaller = spec.buckets().min(self.slots).get();
        if let Some(row) = buckets.iter().position(|bucket| *bucket % smaller != self.slot % smaller) {
            return Err(self.misplaced(&key, row, buckets[row]));
        }
        self.rows += batch.num_rows() as u64;
        self.output.feedback.taken(batch.num_rows());
        if buckets.iter().all(|bucket| *bucket == buckets[0]) {
            return self.writer(buckets[0])?.write(&batch).await;
        }
        // The buckets of a slot are `smaller` apart.
        let first = self.slot % smaller;
        let (order, ends) =
            by_bucket(buckets.iter().map(|bucket| (bucket / smaller) as usize), spec.buckets().get() / smaller);
        let sorted = take_record_batch(&batch, &UInt32Array::from(order))?;
        let mut start = 0;
        for (place, end) in ends.into_iter().enumerate() {
            if end > start {
                self.writer(first + place as u32 * smaller)?.write(&sorted.slice(start, end - start)).await?;
                start = end;
            }
        }
        Ok(())
    }

    /// The batch in the target's types; other columns than the target's are an error.
    fn canonical(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = self.output.target.schema();
        let found = canonical_schema(batch.schema_ref())?;
        let same = found.fields().len() == schema.fields().len()
            && found
                .fields()
                .iter()
                .zip(schema.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !same {
            return Err(Error::invalid_input(format!(
                "the function returned other columns than the target's schema has, expected=`{schema}`, found=`{found}`"
            )));
        }
        cast_batch(batch, schema)
    }

    fn misplaced(&self, key: &[ArrayRef], row: usize, bucket: u32) -> Error {
        let values: Vec<String> =
            key.iter().map(|column| array_value_to_string(column, row).unwrap_or_else(|e| e.to_string())).collect();
        let message = format!(
            "the function returned a key of another slot: it must keep the keys of its item, key=`{}`, bucket=`{bucket}`, slot=`{} of {}`",
            values.join(", "),
            self.slot,
            self.slots
        );
        Error::new(ErrorKind::Misplaced, message)
            .with_path(self.output.target.place().layout.root())
            .with_row(self.rows + row as u64)
    }

    fn writer(&mut self, bucket: u32) -> Result<&mut RunFileWriter> {
        use std::collections::btree_map::Entry;
        let Output { target, feedback, crew, .. } = self.output;
        Ok(match self.writers.entry(bucket) {
            Entry::Occupied(writer) => writer.into_mut(),
            Entry::Vacant(place) => {
                place.insert(RunFileWriter::new(target, bucket, &self.ids.next(), feedback, crew.seat())?)
            }
        })
    }

    /// Completes the runs.
    async fn close(&mut self, runs: &mut Vec<Run>) -> Result<()> {
        while let Some((_, writer)) = self.writers.pop_first() {
            runs.extend(writer.close().await?);
        }
        Ok(())
    }

    /// Gives up the runs that are not complete.
    async fn abort(mut self) {
        while let Some((_, writer)) = self.writers.pop_first() {
            writer.abort().await;
        }
    }
}

/// The rows with these places, of which there are `places`, ordered by place and then as they come, and where each place ends in that order.
fn by_bucket(of_rows: impl Iterator<Item = usize> + Clone, places: u32) -> (Vec<u32>, Vec<usize>) {
    let mut ends = vec![0; places as usize];
    of_rows.clone().for_each(|place| ends[place] += 1);
    let mut rows = 0;
    // Where the next row of each place goes; in the end, where the place ends.
    ends.iter_mut().for_each(|end| rows += std::mem::replace(end, rows));
    let mut order = vec![0; rows];
    for (row, place) in of_rows.enumerate() {
        order[ends[place]] = row as u32;
        ends[place] += 1;
    }
    (order, ends)
}
