//! One part of a plan while it runs: its kernel, and the streams that feed it.

use std::sync::Arc;

use crate::error::Result;
use crate::merge::{Kernel, Step};
use crate::metrics::Counters;
use crate::plan::{Part, Plan, PlanOperation};
use crate::read::{Chain, ChainStream};
use crate::run::probe::{Probe, Probed};

/// A kernel and the streams that feed it.
pub(crate) struct SlotRun<T> {
    kernel: Box<dyn Kernel<Item = T>>,
    inputs: Vec<ChainStream>,
    /// What is done before the runs are read.
    probing: Option<Probing>,
    counters: Arc<Counters>,
    rows: fn(&T) -> usize,
}

/// A side of a join whose keys decide which rows of the other side are read.
struct Probing {
    probe: Probe,
    /// The chains of every source, in order.
    readers: Vec<Vec<Chain>>,
    from: usize,
    of: usize,
}

impl<O: PlanOperation> Plan<O> {
    /// Starts a part: its runs begin to open. `None` if it is known to yield nothing.
    pub(crate) fn start(&self, part: &Part, counters: &Arc<Counters>) -> Result<Option<SlotRun<O::Item>>> {
        let (inputs, readers) = self.inputs(part, counters)?;
        let has_runs: Vec<bool> = readers.iter().map(|readers| !readers.is_empty()).collect();
        if self.operation.yields_nothing(&has_runs) {
            return Ok(None);
        }
        let kernel = self.operation.kernel(inputs, &self.resolved, counters)?;
        let mut run = SlotRun { kernel, inputs: vec![], probing: None, counters: Arc::clone(counters), rows: O::rows };
        match self.operation.driver(&self.resolved) {
            Some(driver) if !readers[driver.of].is_empty() => {
                let probe = Probe::start(&readers[driver.from], &readers[driver.of], driver.always);
                run.probing = Some(Probing { probe, readers, from: driver.from, of: driver.of });
            }
            _ => run.inputs = readers.into_iter().flatten().map(ChainStream::start).collect(),
        }
        Ok(Some(run))
    }
}

impl<T> SlotRun<T> {
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        if let Some(probing) = self.probing.take() {
            self.probe(probing).await?;
        }
        loop {
            match self.kernel.step()? {
                Step::Item(item) => {
                    self.counters.rows_made.add((self.rows)(&item) as u64);
                    return Ok(Some(item));
                }
                Step::Done => return Ok(None),
                Step::Needs(input) => match self.inputs[input].next().await? {
                    Some(batch) => {
                        let pushed = self.kernel.push(input, batch);
                        pushed.map_err(|e| self.inputs[input].locate(e))?;
                    }
                    None => self.kernel.finish(input),
                },
            }
        }
    }

    /// Finishes the probe and starts all runs.
    async fn probe(&mut self, probing: Probing) -> Result<()> {
        let Probing { probe, mut readers, from, of } = probing;
        let Probed { keys, inputs } = probe.finish().await?;
        if let Some(keys) = keys {
            if keys.is_empty() {
                // The driving side may still have rows: those with a null key.
                readers[of].iter_mut().for_each(Vec::clear);
            }
            let keys = Arc::new(keys);
            for chain in &mut readers[of] {
                for reader in chain.iter_mut() {
                    let both = match &reader.selection.keys {
                        Some(wanted) => Arc::new(wanted.intersect(&keys)?),
                        None => Arc::clone(&keys),
                    };
                    reader.selection.keys = Some(both);
                }
                let mut wanted = vec![];
                for reader in std::mem::take(chain) {
                    if reader.selection.may_want(&reader.run)? {
                        wanted.push(reader);
                    }
                }
                *chain = wanted;
            }
        }
        let mut driving = Some(inputs);
        for (source, chains) in readers.into_iter().enumerate() {
            match driving.take_if(|_| source == from) {
                Some(inputs) => self.inputs.extend(inputs),
                None => self.inputs.extend(chains.into_iter().map(ChainStream::start)),
            }
        }
        Ok(())
    }
}
