//! Runs one after the other as one sorted input: those of a source whose keys do not overlap are opened late and closed early.
//!
//! ```text
//! runs in order   0: 1…4   1: 2…9   2: 5…8   3: 10…12
//! chain 0         0 ───────────────────────> 3 (2 overlaps run 1, and equal keys come in the order of runs)
//! chain 1         1
//! chain 2         2
//! ```

use std::collections::VecDeque;

use arrow::array::RecordBatch;

use crate::error::{Error, ErrorKind, Result};
use crate::read::{RunReader, RunStream};

/// Runs of a source that ascend without a common key.
pub(crate) type Chain = Vec<RunReader>;

/// Groups the readers of a source, which are in the order of its runs, into chains: the runs of one ascend without a common key, and a run is in
/// a later chain than every earlier run that it may share a key with, so that merging chains in order keeps rows of one key in the order of runs.
pub(crate) fn chains(readers: Vec<RunReader>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = vec![];
    for reader in readers {
        let comes_after = |earlier: &RunReader| earlier.run.last_key.compare(&reader.run.first_key.values).is_lt();
        let comes_before = |earlier: &RunReader| reader.run.last_key.compare(&earlier.run.first_key.values).is_lt();
        // Chains are sorted by key, so only neighbours can overlap.
        let place = |chain: &Chain| {
            let at = chain.partition_point(comes_after);
            chain.get(at).is_none_or(comes_before).then_some(at)
        };
        let after = chains.iter().rposition(|chain| place(chain).is_none()).map_or(0, |overlapping| overlapping + 1);
        match chains.get(after).and_then(place) {
            Some(at) => chains[after].insert(at, reader),
            None => chains.push(vec![reader]),
        }
    }
    chains
}

/// The rows of the runs of a chain.
///
/// # Memory
/// One [`RunStream`], and a second one that has begun to open while the last row group of the first is read.
#[derive(Debug)]
pub(crate) struct ChainStream {
    current: Option<RunStream>,
    next: Option<RunStream>,
    waiting: VecDeque<RunReader>,
    /// Rows of the runs before the current one.
    before: u64,
    /// Rows that were read already.
    replayed: VecDeque<RecordBatch>,
}

impl ChainStream {
    /// Begins to open the first run.
    pub(crate) fn start(chain: Chain) -> Self {
        let mut waiting: VecDeque<RunReader> = chain.into();
        let current = waiting.pop_front().map(RunReader::start);
        Self { current, next: None, waiting, before: 0, replayed: VecDeque::new() }
    }

    /// A chain whose rows have been read.
    pub(crate) fn replay(rows: Vec<RecordBatch>) -> Self {
        Self { current: None, next: None, waiting: VecDeque::new(), before: 0, replayed: rows.into() }
    }

    /// The next rows; `None` at the end of the last run.
    ///
    /// # Errors
    /// Those of [`RunStream::next`].
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.replayed.pop_front() {
            return Ok(Some(batch));
        }
        while let Some(current) = &mut self.current {
            let batch = current.next().await?;
            if current.is_at_its_end() && self.next.is_none() {
                self.next = self.waiting.pop_front().map(RunReader::start);
            }
            match batch {
                Some(batch) => return Ok(Some(batch)),
                None => {
                    self.before += current.rows();
                    self.current = self.next.take();
                }
            }
        }
        Ok(None)
    }

    /// Makes the rows that an error speaks of, counted over the chain, those of the run that is being read.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match (&self.current, error.kind(), error.row()) {
            (Some(current), ErrorKind::Unsorted, Some(row)) => {
                // Where rows were left out, their number in the file is not known.
                let row = current.is_whole().then(|| row.saturating_sub(self.before));
                error.relocated(current.path(), row)
            }
            _ => error,
        }
    }
}
