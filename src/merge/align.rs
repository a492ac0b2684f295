//! Aligned windows: several sorted sources advanced together.
//!
//! One step yields, per source, a slice of rows with typed keys, such that nothing at or below the window's bound is still to come, except
//! further rows of the bound itself (see [`SourceRows::open`]). A key group larger than the sources' batches therefore simply spans windows,
//! and nothing here grows with it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::merge::Step;
use crate::merge::input::{Order, Segment};
use crate::merge::keys::{Extract, Keys};
use crate::merge::kway::KWay;

/// Which rows of the bound's key a window takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ties {
    /// Those of every source. Whether a key at the bound has a partner in another source is then known inside the window, which is what
    /// joins need.
    Together,
    /// Those of the sources up to and including the bound's. Rows then come strictly by key, then source, which is what co-groups in chunks
    /// need.
    InSourceOrder,
}

/// One step of a merge.
#[derive(Debug)]
pub(crate) struct Window<K> {
    /// One entry per source; some may be empty, not all.
    pub(crate) sources: Vec<SourceRows<K>>,
    /// The rows' key is null (a single key column): the sources hold no keys.
    pub(crate) null_key: bool,
}

/// The rows of one source in a window.
#[derive(Debug, Clone)]
pub(crate) struct SourceRows<K> {
    pub(crate) batch: RecordBatch,
    /// The keys of `batch`; `None` if it is empty or its keys are null.
    pub(crate) keys: Option<K>,
    /// The group of the last row may go on in this source's next rows.
    pub(crate) open: bool,
}

impl<K: Keys> SourceRows<K> {
    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }
}

#[derive(Debug)]
struct Source<E: Extract> {
    merge: KWay<E>,
    head: Option<Segment<E::Keys>>,
    /// Rows taken from `head`.
    taken: usize,
    finished: bool,
    /// What the source contributes to a window where it has no rows.
    nothing: RecordBatch,
}

/// What one source brings to an alignment.
#[derive(Debug, Clone)]
pub(crate) struct SourceInputs {
    /// The canonical schema of its batches.
    pub(crate) schema: SchemaRef,
    /// The positions of the columns to merge by.
    pub(crate) order: Vec<usize>,
    /// Its runs, named for messages.
    pub(crate) runs: Vec<Arc<str>>,
}

/// Aligns sources. Inputs are numbered through: the runs of source 0, then those of source 1, and so on.
///
/// # Memory
/// One batch per run, one merged window per source with several runs.
#[derive(Debug)]
pub(crate) struct Align<E: Extract> {
    sources: Vec<Source<E>>,
    ties: Ties,
}

impl<E: Extract> Align<E> {
    pub(crate) fn new(extract: &E, sources: Vec<SourceInputs>, ties: Ties, batch_size: usize) -> Self {
        let sources = sources
            .into_iter()
            .map(|SourceInputs { schema, order, runs }| Source {
                merge: KWay::new(Order { extract: extract.clone(), columns: order }, runs, batch_size),
                head: None,
                taken: 0,
                finished: false,
                nothing: RecordBatch::new_empty(schema),
            })
            .collect();
        Self { sources, ties }
    }

    /// The source and its run that an input number means.
    fn locate(&mut self, mut input: usize) -> (&mut KWay<E>, usize) {
        let mut at = 0;
        while input >= self.sources[at].merge.inputs() {
            input -= self.sources[at].merge.inputs();
            at += 1;
        }
        (&mut self.sources[at].merge, input)
    }

    pub(crate) fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        let (merge, run) = self.locate(input);
        merge.push(run, batch)
    }

    pub(crate) fn finish(&mut self, input: usize) {
        let (merge, run) = self.locate(input);
        merge.finish(run);
    }

    /// Whether a source has nothing to come, as far as is known yet.
    pub(crate) fn is_exhausted(&self, source: usize) -> bool {
        self.sources[source].finished && self.sources[source].head.is_none()
    }

    pub(crate) fn step(&mut self) -> Result<Step<Window<E::Keys>>> {
        let mut first_input = 0;
        for source in &mut self.sources {
            if source.head.is_none() && !source.finished {
                match source.merge.step()? {
                    Step::Needs(run) => return Ok(Step::Needs(first_input + run)),
                    Step::Item(segment) => source.head = Some(segment),
                    Step::Done => source.finished = true,
                }
            }
            first_input += source.merge.inputs();
        }
        if let Some((bound_source, bound)) = self.bound() {
            return Ok(Step::Item(self.window(bound_source, &bound)));
        }
        if self.sources.iter().all(|source| source.head.is_none()) {
            return Ok(Step::Done);
        }
        Ok(Step::Item(self.null_window()))
    }

    /// The smallest last key among the heads with keys, and the first source that has it.
    fn bound(&self) -> Option<(usize, E::Keys)> {
        let mut bound: Option<(usize, &E::Keys)> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(Segment { keys: Some(keys), .. }) = &source.head else { continue };
            if bound.is_none_or(|(_, smallest)| keys.value(keys.len() - 1) < smallest.value(smallest.len() - 1)) {
                bound = Some((index, keys));
            }
        }
        bound.map(|(index, keys)| (index, keys.slice(keys.len() - 1, 1)))
    }

    fn window(&mut self, bound_source: usize, bound: &E::Keys) -> Window<E::Keys> {
        let ties = self.ties;
        let rows_of = |(index, source): (usize, &mut Source<E>)| {
            let inclusive = ties == Ties::Together || index <= bound_source;
            let rows = match &source.head {
                Some(Segment { keys: Some(keys), .. }) => keys.count_up_to(source.taken, bound.value(0), inclusive),
                _ => 0,
            };
            source.take(rows)
        };
        Window { sources: self.sources.iter_mut().enumerate().map(rows_of).collect(), null_key: false }
    }

    /// Null keys come after all others, so every head left is one of null keys.
    fn null_window(&mut self) -> Window<E::Keys> {
        let mut turn = true;
        let ties = self.ties;
        let rows_of = |source: &mut Source<E>| {
            let rest = source.head.as_ref().map_or(0, |head| head.len() - source.taken);
            let rows = if turn { rest } else { 0 };
            turn = turn && (ties == Ties::Together || rest == 0);
            source.take(rows)
        };
        Window { sources: self.sources.iter_mut().map(rows_of).collect(), null_key: true }
    }
}

impl<E: Extract> Source<E> {
    /// The next `rows` rows of the head.
    fn take(&mut self, rows: usize) -> SourceRows<E::Keys> {
        let Some(head) = self.head.as_ref().filter(|_| rows > 0) else {
            return SourceRows { batch: self.nothing.clone(), keys: None, open: false };
        };
        let whole = rows == head.len();
        let Segment { batch, keys } = if whole { head.clone() } else { head.slice(self.taken, rows) };
        self.taken += rows;
        let open = self.taken == head.len();
        if open {
            self.head = None;
            self.taken = 0;
        }
        SourceRows { batch, keys, open }
    }
}
