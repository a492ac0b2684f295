//! Dynamic filters: one side of a join is read first, as far as it is restricted, and of the other side only rows with one of its keys.

use arrow::array::{Array, ArrayRef, RecordBatch};

use crate::error::Result;
use crate::footprint::own;
use crate::read::{Chain, ChainStream, RunReader};
use crate::select::SortedKeys;
use crate::write::DEFAULT_PAGE_ROWS;

/// The most keys that are held; a side with more of them in a slot does not filter the other.
const MAX_KEYS: usize = 1 << 20;

/// The most bytes of keys that are held, and of the rows that they are of.
const MAX_BYTES: usize = 16 << 20;

/// Reads a driving side.
///
/// Its keys are used if they are at most half as many as its rows were before, and not more than the other side has pages (of the default
/// size): keys that lie anywhere are else in nearly every page, and a join of TPC-H's orders of 1 % of the customers with their lines took a fifth longer
/// with them than without.
///
/// # Memory
/// The streams of its chains, one after the other; the keys, up to 2²⁰ and 16 MiB; its rows, up to 16 MiB, to be merged when the other side is there. If
/// they are more, they are read again.
#[derive(Debug)]
pub(super) struct Probe {
    chains: Vec<Chain>,
    /// The first chain, which has begun to open.
    first: Option<ChainStream>,
    /// Rows of the driving side before it was restricted, and of the other side, about.
    rows: u64,
    rows_of_other: u64,
    /// Whether the keys are used however many there are.
    always: bool,
}

/// What was found of a driving side.
pub(super) struct Probed {
    /// `None` if they are too many to be of use.
    pub(super) keys: Option<SortedKeys>,
    /// Its rows, or else where to read them.
    pub(super) inputs: Vec<ChainStream>,
}

impl Probe {
    /// The chains of the driving side, and those of the other.
    pub(super) fn start(chains: &[Chain], other: &[Chain], always: bool) -> Self {
        let rows =
            |chains: &[Chain]| chains.iter().flatten().map(|reader| reader.run.rows).fold(0, u64::saturating_add);
        let first = chains.first().cloned().map(ChainStream::start);
        Self { chains: chains.to_vec(), first, rows: rows(chains), rows_of_other: rows(other), always }
    }

    pub(super) async fn finish(mut self) -> Result<Probed> {
        let mut kept: Option<Vec<Vec<RecordBatch>>> = Some(vec![]);
        let mut found: Vec<Vec<ArrayRef>> = vec![];
        let (mut keys, mut bytes, mut bytes_kept) = (0, 0, 0);
        for at in 0..self.chains.len() {
            let mut chain = match self.first.take() {
                Some(first) => first,
                None => ChainStream::start(self.chains[at].clone()),
            };
            let width = self.chains[at].first().map_or(0, RunReader::key_columns);
            kept.iter_mut().for_each(|kept| kept.push(vec![]));
            while let Some(batch) = chain.next().await? {
                // A few rows would otherwise keep alive the pages that they were decoded from.
                let columns = batch.columns().iter().map(own).collect::<Result<_>>()?;
                let batch = RecordBatch::try_new(batch.schema(), columns)?;
                let columns = batch.columns()[..width].to_vec();
                keys += batch.num_rows();
                bytes += columns.iter().map(Array::get_array_memory_size).sum::<usize>();
                if keys > MAX_KEYS || bytes > MAX_BYTES {
                    return Ok(Probed { keys: None, inputs: self.read_again() });
                }
                found.push(columns);
                bytes_kept += batch.get_array_memory_size();
                kept = kept.filter(|_| bytes_kept <= MAX_BYTES);
                if let Some(of_chain) = kept.as_mut().and_then(|kept| kept.last_mut()) {
                    of_chain.push(batch);
                }
            }
        }
        let keys = if found.is_empty() { SortedKeys::none()? } else { SortedKeys::of_batches(&found)? };
        let found = keys.len() as u64;
        let few = found.saturating_mul(2) <= self.rows
            && found.saturating_mul(DEFAULT_PAGE_ROWS as u64) <= self.rows_of_other;
        let used = few || self.always;
        let inputs = match kept {
            Some(kept) => kept.into_iter().map(ChainStream::replay).collect(),
            None => self.read_again(),
        };
        Ok(Probed { keys: used.then_some(keys), inputs })
    }

    fn read_again(self) -> Vec<ChainStream> {
        self.chains.into_iter().map(ChainStream::start).collect()
    }
}
