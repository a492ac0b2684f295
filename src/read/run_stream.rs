//! The rows of one run, read ahead by one row group.
//!
//! Opening checks that the file is the one that the manifest means (`footer`). What of a row group is read, `row_group` decides. Of every row
//! group, the first and the last row read are checked: their keys hash to the run's bucket and lie between the manifest's bounds. On request, all rows are,
//! and the file's checksum (`verify`). Order is checked by the merge that the batches go into.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::dataset::SharedRun;
use crate::error::{Error, Result};
use crate::layout::DatasetId;
use crate::manifest::{DisplayKey, key_at};
use crate::metrics::Counters;
use crate::read::footer::check_footer;
use crate::read::row_group::{Beginning, Progress, RowGroup, begin};
use crate::read::verify::{Placement, Verification};
use crate::read::{Adapt, Selection};
use crate::spec::BucketFunction;
use crate::store::{Place, check_checksum, fetch_footer, fetch_ranges};
use crate::task::{Task, guard, spawn};

/// Everything needed to read one run as batches of its source.
#[derive(Debug, Clone)]
pub(crate) struct RunReader {
    pub(crate) place: Place,
    pub(crate) dataset_id: DatasetId,
    /// The dataset's canonical schema, which the file must have.
    pub(crate) schema: SchemaRef,
    pub(crate) run: SharedRun,
    pub(crate) adapt: Arc<Adapt>,
    /// To the key columns of the source alone.
    pub(crate) key_adapt: Arc<Adapt>,
    /// To the columns of the selection's filter.
    pub(crate) filter_adapt: Option<Arc<Adapt>>,
    pub(crate) selection: Selection,
    pub(crate) function: BucketFunction,
    pub(crate) batch_size: usize,
    pub(crate) verification: Verification,
    pub(crate) counters: Arc<Counters>,
}

impl RunReader {
    pub(crate) fn path(&self) -> Path {
        self.place.layout.run(&self.run.path)
    }

    /// How many columns of a batch are the key: the first ones.
    pub(crate) fn key_columns(&self) -> usize {
        self.key_adapt.schema().fields().len()
    }

    pub(super) fn placement(&self) -> Placement {
        Placement::new(self.function, &self.run)
    }

    /// Begins to open the run and to fetch its first row group.
    pub(crate) fn start(self) -> RunStream {
        let path = self.path();
        let reader = Arc::new(self);
        let opening = spawn(open(Arc::clone(&reader), path.clone()));
        RunStream { reader, path, state: State::Opening(opening), rows: 0 }
    }

    async fn fetch(&self, path: &Path, ranges: Vec<Range<u64>>) -> Result<Fetched> {
        let bytes = fetch_ranges(&self.place.store, path, &ranges).await?;
        self.counters.requests.add(1);
        self.counters.bytes.add(bytes.iter().map(|bytes| bytes.len() as u64).sum());
        Ok((ranges, bytes))
    }

    /// Chooses among the rows of a row group and fetches the first bytes that they take. `None` if it has none.
    async fn prepare(&self, path: &Path, metadata: &ArrowReaderMetadata, row_group: usize) -> Result<Option<RowGroup>> {
        let mut group = match guard(|| begin(self, metadata, row_group))? {
            Beginning::Nothing => return Ok(None),
            Beginning::Rows(group) => *group,
            Beginning::PageIndex(planning) => {
                let (_, pieces) = self.fetch(path, planning.request.ranges()).await?;
                match guard(|| planning.finish(self, metadata, &pieces))? {
                    Some(group) => group,
                    None => return Ok(None),
                }
            }
        };
        group.begin(|ranges| self.fetch(path, ranges)).await?;
        Ok(Some(group))
    }
}

type Fetched = (Vec<Range<u64>>, Vec<Bytes>);

/// An opened run.
#[derive(Debug)]
struct Opened {
    metadata: ArrowReaderMetadata,
    first: Option<RowGroup>,
    /// The row group after it.
    next: usize,
}

async fn open(reader: Arc<RunReader>, path: Path) -> Result<Opened> {
    let footer = fetch_footer(&reader.place.store, &path, &reader.run).await?;
    reader.counters.runs.add(1);
    reader.counters.requests.add(1);
    reader.counters.bytes.add(footer.len() as u64);
    if reader.verification >= Verification::Full {
        let bytes = check_checksum(&reader.place.store, &path, &reader.run).await?;
        reader.counters.requests.add(1);
        reader.counters.bytes.add(bytes);
    }
    let metadata = guard(|| check_footer(&reader, &footer))?;
    let (first, next) = prepare_from(&reader, &path, &metadata, 0).await?;
    Ok(Opened { metadata, first, next })
}

/// The first row group from `row_group` on that has wanted rows, and the number of the one after it.
async fn prepare_from(
    reader: &RunReader,
    path: &Path,
    metadata: &ArrowReaderMetadata,
    mut row_group: usize,
) -> Result<(Option<RowGroup>, usize)> {
    while row_group < metadata.metadata().num_row_groups() {
        let group = reader.prepare(path, metadata, row_group).await?;
        row_group += 1;
        if group.is_some() {
            return Ok((group, row_group));
        }
    }
    Ok((None, row_group))
}

/// Streams the wanted rows of one run, in batches of its source.
///
/// # Memory
/// The fetched bytes of up to two row groups (projected columns; of a selection, pages with wanted rows only, and the columns that rows are
/// chosen by) and what their decoder holds: one page per column, dictionaries.
#[derive(Debug)]
pub(crate) struct RunStream {
    reader: Arc<RunReader>,
    path: Path,
    state: State,
    /// Rows returned so far.
    rows: u64,
}

#[derive(Debug)]
enum State {
    Opening(Task<Opened>),
    Reading(Reading),
    Done,
}

#[derive(Debug)]
struct Reading {
    metadata: ArrowReaderMetadata,
    group: RowGroup,
    /// Whether rows of it have come.
    begun: bool,
    ahead: Option<Task<(Option<RowGroup>, usize)>>,
}

impl RunStream {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt`, `Misplaced`, `Unsorted`, `Store`, naming the file.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self.advance().await {
            Ok(batch) => Ok(batch),
            Err(error) => {
                self.state = State::Done;
                Err(error.with_path(&self.path))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rows returned so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether every row of the run comes, so that rows returned are rows of the file.
    pub(crate) fn is_whole(&self) -> bool {
        self.reader.selection.is_all()
    }

    /// Whether nothing of the run is left to be fetched.
    pub(crate) fn is_at_its_end(&self) -> bool {
        match &self.state {
            State::Opening(_) => false,
            State::Reading(reading) => reading.ahead.is_none(),
            State::Done => true,
        }
    }

    async fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match &mut self.state {
                State::Done => return Ok(None),
                State::Opening(opening) => {
                    let Opened { metadata, first, next } = opening.await?;
                    self.read(metadata, first, next);
                }
                State::Reading(reading) => match reading.group.step()? {
                    Progress::Needs(ranges) => {
                        let (ranges, bytes) = self.reader.fetch(&self.path, ranges).await?;
                        reading.group.push(ranges, bytes)?;
                    }
                    Progress::Batch(batch) if batch.num_rows() == 0 => {}
                    Progress::Batch(batch) => return self.deliver(batch).map(Some),
                    Progress::Done => {
                        let ahead = reading.ahead.take();
                        let metadata = reading.metadata.clone();
                        match ahead {
                            None => self.state = State::Done,
                            Some(ahead) => {
                                let (group, next) = ahead.await?;
                                self.read(metadata, group, next);
                            }
                        }
                    }
                },
            }
        }
    }

    /// Goes on with a row group, and begins to fetch the one after it.
    fn read(&mut self, metadata: ArrowReaderMetadata, group: Option<RowGroup>, next: usize) {
        let Some(group) = group else {
            self.state = State::Done;
            return;
        };
        let ahead = (next < metadata.metadata().num_row_groups()).then(|| {
            let (reader, path, metadata) = (Arc::clone(&self.reader), self.path.clone(), metadata.clone());
            spawn(async move { prepare_from(&reader, &path, &metadata, next).await })
        });
        self.state = State::Reading(Reading { metadata, group, begun: false, ahead });
    }

    /// Adapts a decoded batch and checks its ends.
    fn deliver(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let State::Reading(reading) = &mut self.state else {
            return Err(Error::internal("a batch without a reader"));
        };
        let whole = reading.group.whole;
        let first = !reading.begun || !whole;
        let last = reading.group.left() == 0 || !whole;
        reading.begun = true;
        let batch = self.reader.adapt.apply(batch)?;
        let is_whole = self.is_whole();
        let number = |row: usize| is_whole.then_some(self.rows + row as u64);
        if self.reader.verification >= Verification::Keys {
            self.reader.placement().check(&batch.columns()[..self.reader.key_columns()], number(0))?;
        }
        if first {
            self.check_row(&batch, 0, number(0))?;
        }
        if last {
            let row = batch.num_rows() - 1;
            self.check_row(&batch, row, number(row))?;
        }
        self.rows += batch.num_rows() as u64;
        self.reader.counters.rows_read.add(batch.num_rows() as u64);
        Ok(batch)
    }

    /// A row lies in the run's bucket, within its bounds and within the range that was asked for.
    fn check_row(&self, batch: &RecordBatch, row: usize, number: Option<u64>) -> Result<()> {
        let RunReader { run, selection, .. } = self.reader.as_ref();
        let at = |error: Error| match number {
            Some(number) => error.with_row(number),
            None => error,
        };
        let key: Vec<ArrayRef> =
            batch.columns()[..self.reader.key_columns()].iter().map(|column| column.slice(row, 1)).collect();
        self.reader.placement().check(&key, number)?;
        let key = key_at(&key, 0)?;
        if run.first_key.compare(&key).is_gt() || run.last_key.compare(&key).is_lt() {
            return Err(at(Error::corrupt(format!(
                "a key lies outside the bounds that the manifest says, key=`{}`, first_key=`{}`, last_key=`{}`",
                DisplayKey(&key),
                run.first_key,
                run.last_key
            ))));
        }
        if !selection.range.contains(&key) {
            return Err(at(Error::corrupt(
                "a key lies outside the statistics of its row group, by which readers skip rows",
            )));
        }
        Ok(())
    }
}
