//! Dynamic filters: the keys that are left of one side of a join, read before the other side, of which then only rows with one of them are
//! decoded.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use crate::error::Result;
use crate::read::{Chain, RunReader, RunStream};
use crate::select::SortedKeys;

/// The most keys that are held; a side with more of them in a slot does not filter the other.
const MAX_KEYS: usize = 1 << 20;

/// The most bytes of keys that are held.
const MAX_BYTES: usize = 32 << 20;

/// Reads the keys of a driving side.
///
/// # Memory
/// The keys, up to 2²⁰ and 32 MiB, and the stream of one run, of which only the key columns and those of the filter are read.
#[derive(Debug)]
pub(super) struct Probe {
    running: Option<RunStream>,
    waiting: VecDeque<RunReader>,
    found: Vec<Vec<ArrayRef>>,
    /// Rows of the driving side before it was restricted, about.
    rows: u64,
    /// Whether the keys are used however many there are.
    always: bool,
}

impl Probe {
    /// `chains` are the runs of the driving side.
    pub(super) fn start(chains: &[Chain], always: bool) -> Self {
        let readers = || chains.iter().flatten();
        let rows = readers().map(|reader| reader.run.rows).sum();
        let keys_only = |reader: &RunReader| RunReader { adapt: Arc::clone(&reader.key_adapt), ..reader.clone() };
        let mut waiting: VecDeque<RunReader> = readers().map(keys_only).collect();
        let running = waiting.pop_front().map(RunReader::start);
        Self { running, waiting, found: vec![], rows, always }
    }

    /// The keys found; `None` if they are too many to be of use.
    pub(super) async fn finish(mut self) -> Result<Option<SortedKeys>> {
        let (mut keys, mut bytes) = (0, 0);
        while let Some(mut run) = self.running.take() {
            // Opened while this one is read.
            let next = self.waiting.pop_front().map(RunReader::start);
            while let Some(batch) = run.next().await? {
                let columns: Vec<ArrayRef> = batch.columns().iter().map(own).collect();
                keys += batch.num_rows();
                bytes += columns.iter().map(Array::get_array_memory_size).sum::<usize>();
                let too_many = keys > MAX_KEYS || bytes > MAX_BYTES;
                if too_many {
                    return Ok(None);
                }
                self.found.push(columns);
            }
            self.running = next;
        }
        if self.found.is_empty() {
            return Ok(Some(SortedKeys::none()?));
        }
        let keys = SortedKeys::of_batches(&self.found)?;
        let selective = (keys.len() as u64).saturating_mul(2) <= self.rows;
        Ok((selective || self.always).then_some(keys))
    }
}

/// The values in buffers of their own: a few keys would otherwise keep alive the pages that they were decoded from.
fn own(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}
