//! The k-way merge: the sorted inputs of one source become one sorted sequence.
//!
//! The unit of work is a window, not a row: the **bound** is the smallest last key among the first segments, so every row up to it is at
//! hand; these rows are collected as groups of equal keys, input after input, and sorted stably, which costs little on runs that are sorted already
//! and keeps rows of one key in the order of their inputs. Where only one input has rows below the bound, its rows are passed on without a copy.
//!
//! ```text
//! input 0   1 3 3 7 | 9 …        bound (7, input 0): all of input 0's segment,
//! input 1   2 3 7 8 9 | …        2 3 of input 1 (its 7 comes after input 0's 7s, which may go on)
//! out       1 2 3 3 3 7
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::merge::input::{Input, Order, Segment};
use crate::merge::keys::{Extract, ForKeys, Keys, dispatch};
use crate::merge::{Kernel, Step};

/// Merges the inputs of one source: by key, then input, then position.
///
/// # Memory
/// One batch per input, plus the output batches of one window (at most the rows of the inputs' batches).
#[derive(Debug)]
pub(crate) struct KWay<E: Extract> {
    order: Order<E>,
    inputs: Vec<Input<E>>,
    batch_size: usize,
    /// Merged and not yet handed out.
    ready: VecDeque<Segment<E::Keys>>,
}

impl<E: Extract> KWay<E> {
    /// `labels` names the inputs in messages.
    pub(crate) fn new(order: Order<E>, labels: Vec<Arc<str>>, batch_size: usize) -> Self {
        let inputs = labels.into_iter().map(Input::new).collect();
        Self { order, inputs, batch_size: batch_size.max(1), ready: VecDeque::new() }
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    pub(crate) fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.inputs[input].push(&self.order, batch)
    }

    pub(crate) fn finish(&mut self, input: usize) {
        self.inputs[input].finish();
    }

    pub(crate) fn step(&mut self) -> Result<Step<Segment<E::Keys>>> {
        loop {
            if let Some(segment) = self.ready.pop_front() {
                return Ok(Step::Item(segment));
            }
            if let Some(starved) = self.inputs.iter().position(Input::is_starved) {
                return Ok(Step::Needs(starved));
            }
            let Some((bound_input, bound)) = self.bound() else {
                // Only null keys are left: input after input.
                let rest = self.inputs.iter_mut().find_map(Input::take_head);
                return Ok(rest.map_or(Step::Done, Step::Item));
            };
            let mut parts = Vec::new();
            for (index, input) in self.inputs.iter_mut().enumerate() {
                let Some((Segment { keys: Some(keys), .. }, taken)) = input.head() else { continue };
                // Rows equal to the bound wait behind those of the bound's own input, which may go on with that key.
                let rows = keys.count_up_to(taken, bound.value(0), index <= bound_input);
                if rows > 0 {
                    parts.extend(input.take(rows));
                }
            }
            self.merge(parts)?;
        }
    }

    /// The smallest last key among the first segments with keys, and the first input that has it.
    fn bound(&self) -> Option<(usize, E::Keys)> {
        let mut bound: Option<(usize, &E::Keys)> = None;
        for (index, input) in self.inputs.iter().enumerate() {
            let Some((Segment { keys: Some(keys), .. }, _)) = input.head() else { continue };
            if bound.is_none_or(|(_, smallest)| keys.value(keys.len() - 1) < smallest.value(smallest.len() - 1)) {
                bound = Some((index, keys));
            }
        }
        bound.map(|(index, keys)| (index, keys.slice(keys.len() - 1, 1)))
    }

    /// Puts the rows of `parts`, complete up to the bound, into `ready`.
    fn merge(&mut self, parts: Vec<Segment<E::Keys>>) -> Result<()> {
        if parts.len() <= 1 {
            self.ready.extend(parts);
            return Ok(());
        }
        // What is sorted is groups of equal keys: of an input's rows, those of one key stay together.
        let mut groups = Vec::new();
        for (part, segment) in parts.iter().enumerate() {
            let keys = segment.keys.as_ref().ok_or_else(|| Error::internal("null keys inside a merge window"))?;
            let group = |ends: &[u32]| (keys.value(ends[0] as usize), part as u32, ends[0], ends[1]);
            groups.extend(keys.group_offsets().windows(2).map(group));
        }
        // Stable, and the standard library's sort merges the presorted runs that it finds.
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let mut rows: Vec<(usize, usize)> = Vec::with_capacity(parts.iter().map(Segment::len).sum());
        for (_, part, start, end) in groups {
            rows.push((part as usize, start as usize));
            // Most groups of one row have no more to do, which the processor learns.
            if end - start > 1 {
                rows.extend((start + 1..end).map(|row| (part as usize, row as usize)));
            }
        }
        let batches: Vec<&RecordBatch> = parts.iter().map(|segment| &segment.batch).collect();
        for chunk in rows.chunks(self.batch_size) {
            let batch = gather(&batches, chunk)?;
            let keys = Some(self.order.keys(&batch)?);
            self.ready.push_back(Segment { batch, keys });
        }
        Ok(())
    }
}

/// The rows `(batch, row)` of several batches of one schema as one batch.
pub(crate) fn gather(batches: &[&RecordBatch], rows: &[(usize, usize)]) -> Result<RecordBatch> {
    let schema = batches[0].schema();
    let columns = (0..schema.fields().len())
        .map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            interleave(&arrays, rows)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// The k-way merge of one source behind one type for all key types: rows by order columns, then input, then position.
///
/// # Memory
/// As [`KWay`].
pub(crate) struct SortedMerge(pub(super) Box<dyn Kernel<Item = RecordBatch>>);

impl std::fmt::Debug for SortedMerge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SortedMerge")
    }
}

impl SortedMerge {
    /// A merge of `inputs` inputs of this canonical schema, ordered by the columns at `order_columns`.
    pub(crate) fn new(schema: &SchemaRef, order_columns: &[usize], inputs: usize, batch_size: usize) -> Result<Self> {
        Self::with_labels(
            schema,
            order_columns,
            (0..inputs).map(|input| format!("input {input}").into()).collect(),
            batch_size,
        )
    }

    /// The same with names for the inputs, which messages use.
    pub(crate) fn with_labels(
        schema: &SchemaRef,
        order_columns: &[usize],
        labels: Vec<Arc<str>>,
        batch_size: usize,
    ) -> Result<Self> {
        let types: Vec<_> = order_columns.iter().map(|&c| schema.field(c).data_type().clone()).collect();
        dispatch(&types, Build { columns: order_columns.to_vec(), labels, batch_size }).map(Self)
    }

    /// Feeds the next rows of an input. `Unsorted` if they are not in order.
    pub(crate) fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.0.push(input, batch)
    }

    /// Says that an input has no more rows.
    pub(crate) fn finish(&mut self, input: usize) {
        self.0.finish(input);
    }

    /// The next rows, at most `batch_size` of them unless an input's own batch is passed on whole.
    pub(crate) fn step(&mut self) -> Result<Step<RecordBatch>> {
        self.0.step()
    }
}

struct Build {
    columns: Vec<usize>,
    labels: Vec<Arc<str>>,
    batch_size: usize,
}

impl ForKeys for Build {
    type Output = Box<dyn Kernel<Item = RecordBatch>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        Ok(Box::new(KWay::new(Order { extract, columns: self.columns }, self.labels, self.batch_size)))
    }
}

impl<E: Extract> Kernel for KWay<E> {
    type Item = RecordBatch;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        Self::push(self, input, batch)
    }

    fn finish(&mut self, input: usize) {
        Self::finish(self, input);
    }

    fn step(&mut self) -> Result<Step<RecordBatch>> {
        Ok(match Self::step(self)? {
            Step::Needs(input) => Step::Needs(input),
            Step::Item(segment) => Step::Item(segment.batch),
            Step::Done => Step::Done,
        })
    }
}
