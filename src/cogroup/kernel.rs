//! Cuts aligned windows into key groups.
//!
//! Whether the last group of a window is complete is only known when the next window comes, so whole groups hold it back; chunks pass it on
//! and say so with the next chunk.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};

use crate::cogroup::groups::{CoGroupBatch, CoGroupChunk, SourceGroups, SourceNames};
use crate::error::{Error, ErrorKind, Result};
use crate::merge::{Align, Extract, ForKeys, Kernel, Keys, SourceInputs, Step, Ties, Window, dispatch, gather};

/// What a co-group kernel is made of.
#[derive(Debug, Clone)]
pub(crate) struct CoGroupInputs {
    pub(crate) names: SourceNames,
    /// The key columns of the output.
    pub(crate) key_schema: SchemaRef,
    /// The sources, whose order columns are the key columns.
    pub(crate) sources: Vec<SourceInputs>,
    /// Whole groups: the most rows of one group, over all sources.
    pub(crate) max_group_rows: usize,
    pub(crate) batch_size: usize,
}

impl CoGroupInputs {
    fn key_types(&self) -> Vec<DataType> {
        self.key_schema.fields().iter().map(|field| field.data_type().clone()).collect()
    }
}

/// The kernel that yields whole groups.
pub(crate) fn whole_kernel(inputs: CoGroupInputs) -> Result<Box<dyn Kernel<Item = CoGroupBatch>>> {
    dispatch(&inputs.key_types(), Whole(inputs))
}

/// The kernel that yields chunks of groups.
pub(crate) fn chunk_kernel(inputs: CoGroupInputs) -> Result<Box<dyn Kernel<Item = CoGroupChunk>>> {
    dispatch(&inputs.key_types(), Chunks(inputs))
}

struct Whole(CoGroupInputs);
struct Chunks(CoGroupInputs);

impl ForKeys for Whole {
    type Output = Box<dyn Kernel<Item = CoGroupBatch>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let max_group_rows = self.0.max_group_rows;
        Ok(Box::new(WholeKernel { cutter: Cutter::new(&extract, self.0), held: None, max_group_rows }))
    }
}

impl ForKeys for Chunks {
    type Output = Box<dyn Kernel<Item = CoGroupChunk>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        Ok(Box::new(ChunkKernel { cutter: Cutter::new(&extract, self.0) }))
    }
}

/// Cuts windows into groups and knows whether the first one goes on from the window before.
struct Cutter<E: Extract> {
    align: Align<E>,
    names: SourceNames,
    key_schema: SchemaRef,
    /// Per source, the positions of its key columns.
    key_columns: Vec<Vec<usize>>,
    /// The key of the last group so far; `None` inside is the null key.
    last: Option<Option<E::Keys>>,
}

impl<E: Extract> Cutter<E> {
    fn new(extract: &E, inputs: CoGroupInputs) -> Self {
        let CoGroupInputs { names, key_schema, sources, max_group_rows: _, batch_size } = inputs;
        let key_columns = sources.iter().map(|source| source.order.clone()).collect();
        let align = Align::new(extract, sources, Ties::InSourceOrder, batch_size);
        Self { align, names, key_schema, key_columns, last: None }
    }

    fn step(&mut self) -> Result<Step<CoGroupChunk>> {
        Ok(match self.align.step()? {
            Step::Needs(input) => Step::Needs(input),
            Step::Done => Step::Done,
            Step::Item(window) if window.null_key => Step::Item(self.cut_null(window)?),
            Step::Item(window) => Step::Item(self.cut(window)?),
        })
    }

    fn cut(&mut self, window: Window<E::Keys>) -> Result<CoGroupChunk> {
        let keys: Vec<Option<E::Keys>> = window.sources.iter().map(|source| source.keys.clone()).collect();
        let starts: Vec<Vec<u32>> =
            keys.iter().map(|keys| keys.as_ref().map_or_else(|| vec![0], Keys::group_offsets)).collect();
        let mut at = vec![0; keys.len()];
        // The first row of the group that a source is at, or its number of rows.
        let row = |at: &[usize], source: usize| starts[source][at[source]] as usize;
        let mut offsets = vec![vec![0]; keys.len()];
        // Where each group's key can be read.
        let mut named: Vec<(usize, usize)> = vec![];
        loop {
            let mut least: Option<(usize, <E::Keys as Keys>::Value<'_>)> = None;
            for (source, keys) in keys.iter().enumerate() {
                let Some(keys) = keys.as_ref().filter(|keys| row(&at, source) < keys.len()) else { continue };
                let key = keys.value(row(&at, source));
                if least.is_none_or(|(_, other)| key < other) {
                    least = Some((source, key));
                }
            }
            let Some((first, key)) = least else { break };
            named.push((first, row(&at, first)));
            for (source, keys) in keys.iter().enumerate() {
                if let Some(keys) = keys
                    && row(&at, source) < keys.len()
                    && keys.value(row(&at, source)) == key
                {
                    at[source] += 1;
                }
                offsets[source].push(row(&at, source));
            }
        }
        let key_at = |(source, row): (usize, usize)| keys[source].as_ref().map(|keys| keys.slice(row, 1));
        let (first, last) = (named.first().copied().and_then(key_at), named.last().copied().and_then(key_at));
        let continues = match (&self.last, &first) {
            (Some(Some(last)), Some(first)) => last.value(0) == first.value(0),
            _ => false,
        };
        self.last = Some(last);
        self.chunk(window, offsets, &named, continues)
    }

    /// All rows of a window of null keys are of one group, however many windows there are.
    fn cut_null(&mut self, window: Window<E::Keys>) -> Result<CoGroupChunk> {
        let offsets = window.sources.iter().map(|source| vec![0, source.len()]).collect();
        let named = window.sources.iter().position(|source| source.len() > 0).map(|source| (source, 0));
        let continues = matches!(self.last, Some(None));
        self.last = Some(None);
        self.chunk(window, offsets, named.as_slice(), continues)
    }

    fn chunk(
        &self,
        window: Window<E::Keys>,
        offsets: Vec<Vec<usize>>,
        named: &[(usize, usize)],
        continues: bool,
    ) -> Result<CoGroupChunk> {
        let key_batches = window
            .sources
            .iter()
            .zip(&self.key_columns)
            .map(|(source, columns)| {
                let columns = columns.iter().map(|&column| Arc::clone(source.batch.column(column))).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(source.len()));
                Ok(RecordBatch::try_new_with_options(Arc::clone(&self.key_schema), columns, &options)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let keys = gather(&key_batches.iter().collect::<Vec<_>>(), named)?;
        let sources = window
            .sources
            .into_iter()
            .zip(offsets)
            .map(|(source, offsets)| SourceGroups { rows: source.batch, offsets })
            .collect();
        Ok(CoGroupChunk { groups: CoGroupBatch { keys, names: Arc::clone(&self.names), sources }, continues })
    }
}

struct ChunkKernel<E: Extract> {
    cutter: Cutter<E>,
}

impl<E: Extract> Kernel for ChunkKernel<E> {
    type Item = CoGroupChunk;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.cutter.align.push(input, batch)
    }

    fn finish(&mut self, input: usize) {
        self.cutter.align.finish(input);
    }

    fn step(&mut self) -> Result<Step<CoGroupChunk>> {
        self.cutter.step()
    }
}

struct WholeKernel<E: Extract> {
    cutter: Cutter<E>,
    /// The last group so far, which may go on: its pieces, chunk by chunk.
    held: Option<Held>,
    max_group_rows: usize,
}

/// A group in pieces: batches of exactly one group each.
struct Held {
    pieces: Vec<CoGroupBatch>,
    rows: usize,
}

impl<E: Extract> Kernel for WholeKernel<E> {
    type Item = CoGroupBatch;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.cutter.align.push(input, batch)
    }

    fn finish(&mut self, input: usize) {
        self.cutter.align.finish(input);
    }

    fn step(&mut self) -> Result<Step<CoGroupBatch>> {
        loop {
            match self.cutter.step()? {
                Step::Needs(input) => return Ok(Step::Needs(input)),
                Step::Done => {
                    let Some(held) = self.held.take() else { return Ok(Step::Done) };
                    let last = concat(&held.pieces)?;
                    self.check(&last)?;
                    return Ok(Step::Item(last));
                }
                Step::Item(chunk) => {
                    if let Some(batch) = self.complete(chunk)? {
                        return Ok(Step::Item(batch));
                    }
                }
            }
        }
    }
}

impl<E: Extract> WholeKernel<E> {
    /// Holds back the chunk's last group and returns the groups that are complete now.
    fn complete(&mut self, chunk: CoGroupChunk) -> Result<Option<CoGroupBatch>> {
        let CoGroupChunk { groups, continues } = chunk;
        let last = groups.len() - 1;
        let (closed, open) = (slice(&groups, 0, last), slice(&groups, last, 1));
        if continues && last == 0 {
            self.hold(open)?;
            return Ok(None);
        }
        let mut held = self.held.take().map_or(vec![], |held| held.pieces);
        let mut rest = closed;
        if continues {
            // The chunk's first group is the last piece of the held one.
            held.push(slice(&rest, 0, 1));
            rest = slice(&rest, 1, last - 1);
        }
        let mut batches = vec![];
        if !held.is_empty() {
            batches.push(concat(&held)?);
        }
        if !rest.is_empty() {
            batches.push(rest);
        }
        self.hold(open)?;
        for batch in &batches {
            self.check(batch)?;
        }
        append(batches)
    }

    /// Keeps a piece of the group that may go on, as long as it is within the limit.
    fn hold(&mut self, group: CoGroupBatch) -> Result<()> {
        let held = self.held.get_or_insert(Held { pieces: vec![], rows: 0 });
        held.rows += group.sources.iter().map(|source| source.rows.num_rows()).sum::<usize>();
        held.pieces.push(group);
        let (rows, keys) = (held.rows, &held.pieces[0].keys);
        if rows > self.max_group_rows { Err(too_large(keys, 0, rows, self.max_group_rows)) } else { Ok(()) }
    }

    /// Groups that never had to be held obey the limit too, so that it does not depend on batch sizes.
    fn check(&self, batch: &CoGroupBatch) -> Result<()> {
        for group in 0..batch.len() {
            let rows = batch.sources.iter().map(|source| source.offsets[group + 1] - source.offsets[group]).sum();
            if rows > self.max_group_rows {
                return Err(too_large(&batch.keys, group, rows, self.max_group_rows));
            }
        }
        Ok(())
    }
}

fn too_large(keys: &RecordBatch, group: usize, rows: usize, limit: usize) -> Error {
    let key = show_key(keys, group);
    let message = format!(
        "a key group is larger than the limit, raise it or read the co-group in chunks, key=`{key}`, rows>=`{rows}`, max_group_rows=`{limit}`"
    );
    Error::new(ErrorKind::LimitExceeded, message)
}

fn show_key(keys: &RecordBatch, row: usize) -> String {
    let values: Vec<String> = keys
        .columns()
        .iter()
        .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|e| e.to_string()))
        .collect();
    values.join(", ")
}

/// The groups `from..from + groups`, rows sliced without a copy.
fn slice(batch: &CoGroupBatch, from: usize, groups: usize) -> CoGroupBatch {
    let sources = batch
        .sources
        .iter()
        .map(|source| {
            let offsets = &source.offsets[from..=from + groups];
            let (start, end) = (offsets[0], offsets[groups]);
            SourceGroups {
                rows: source.rows.slice(start, end - start),
                offsets: offsets.iter().map(|offset| offset - start).collect(),
            }
        })
        .collect();
    CoGroupBatch { keys: batch.keys.slice(from, groups), names: Arc::clone(&batch.names), sources }
}

/// Pieces of one group as one group.
fn concat(pieces: &[CoGroupBatch]) -> Result<CoGroupBatch> {
    let rows = rows_of(pieces)?;
    let sources = rows.into_iter().map(|rows| SourceGroups { offsets: vec![0, rows.num_rows()], rows }).collect();
    Ok(CoGroupBatch { keys: pieces[0].keys.clone(), names: Arc::clone(&pieces[0].names), sources })
}

/// Groups after groups as one batch.
fn append(mut batches: Vec<CoGroupBatch>) -> Result<Option<CoGroupBatch>> {
    if batches.len() <= 1 {
        return Ok(batches.pop());
    }
    let rows = rows_of(&batches)?;
    let sources = rows
        .into_iter()
        .enumerate()
        .map(|(source, rows)| {
            let mut offsets = vec![0];
            let mut start = 0;
            for batch in &batches {
                let own = &batch.sources[source].offsets;
                offsets.extend(own[1..].iter().map(|offset| start + offset));
                start += own[own.len() - 1];
            }
            SourceGroups { rows, offsets }
        })
        .collect();
    let keys = concat_batches(&batches[0].keys.schema(), batches.iter().map(|batch| &batch.keys))?;
    Ok(Some(CoGroupBatch { keys, names: Arc::clone(&batches[0].names), sources }))
}

/// Per source, the rows of all batches; without a copy where only one batch has any.
fn rows_of(batches: &[CoGroupBatch]) -> Result<Vec<RecordBatch>> {
    (0..batches[0].sources.len())
        .map(|source| {
            let all = batches.iter().map(|batch| &batch.sources[source].rows);
            let some: Vec<&RecordBatch> = all.clone().filter(|rows| rows.num_rows() > 0).collect();
            match some.as_slice() {
                [] => Ok(batches[0].sources[source].rows.clone()),
                [only] => Ok((*only).clone()),
                _ => Ok(concat_batches(&some[0].schema(), some)?),
            }
        })
        .collect()
}
