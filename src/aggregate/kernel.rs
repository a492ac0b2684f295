//! The state machine of aggregation: sorted rows or states in, one row per key out.
//!
//! Every input is brought to states batch by batch as it comes (what comes as states already is passed on), then inputs are merged by key, then
//! the states of each key are merged. So no row is ever merged with rows of another run, only states are; and a group of any size is a few
//! states at any time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};

use crate::aggregate::segments::take_own;
use crate::aggregate::{Aggregator, Segments};
use crate::error::{Error, Result};
use crate::merge::{Emit, Extract, ForKeys, Input, KWay, Kernel, Keys, Order, Segment, SourceInputs, Step, dispatch};
use crate::schema::canonical_array;

/// An aggregate and where its inputs are.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) aggregator: Arc<dyn Aggregator>,
    /// The source that it reads.
    pub(crate) source: usize,
    /// The positions of its inputs in that source's columns.
    pub(crate) columns: Vec<usize>,
}

/// What is computed.
#[derive(Debug, Clone)]
pub(crate) struct AggregateSpec {
    pub(crate) aggregates: Vec<Bound>,
    /// The key columns are the first ones of every source.
    pub(crate) key: usize,
    /// Key columns, then states.
    pub(crate) states: SchemaRef,
    /// Key columns, then results; `None` yields states.
    pub(crate) output: Option<SchemaRef>,
    /// The types of each source's columns.
    pub(crate) source_types: Vec<Vec<DataType>>,
    pub(crate) batch_size: usize,
}

/// Where the kernel's rows come from.
pub(crate) enum Feeding {
    /// The runs of each source, rows in key order.
    Rows(Vec<SourceInputs>),
    /// Another kernel, which makes rows in key order of its own inputs. It is source 0.
    Made(Box<dyn Kernel<Item = RecordBatch>>),
    /// The runs of one source that holds states, in the columns of `AggregateSpec::states`.
    States(SourceInputs),
}

/// The kernel of an aggregation.
pub(crate) fn aggregate_kernel(
    spec: Arc<AggregateSpec>,
    feeding: Feeding,
) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
    let types: Vec<DataType> =
        spec.states.fields().iter().take(spec.key).map(|field| field.data_type().clone()).collect();
    dispatch(&types, Build { spec, feeding })
}

struct Build {
    spec: Arc<AggregateSpec>,
    feeding: Feeding,
}

impl ForKeys for Build {
    type Output = Box<dyn Kernel<Item = RecordBatch>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let Self { spec, feeding } = self;
        let order = Order { extract, columns: (0..spec.key).collect() };
        let mut feeds = vec![];
        let mut made = None;
        let labels: Vec<Arc<str>> = match feeding {
            Feeding::Rows(sources) => {
                for (source, inputs) in sources.iter().enumerate() {
                    feeds.extend(inputs.runs.iter().map(|run| Feed { source, input: Input::new(Arc::clone(run)) }));
                }
                sources.into_iter().flat_map(|inputs| inputs.runs).collect()
            }
            Feeding::Made(kernel) => {
                let label: Arc<str> = "rows to aggregate".into();
                feeds.push(Feed { source: 0, input: Input::new(Arc::clone(&label)) });
                made = Some(kernel);
                vec![label]
            }
            Feeding::States(inputs) => inputs.runs,
        };
        let merge = KWay::new(order.clone(), labels, spec.batch_size);
        let out = Emit::new(Arc::clone(&spec.states), spec.batch_size);
        Ok(Box::new(AggregateKernel { spec, order, feeds, made, merge, carried: None, out }))
    }
}

/// An input of rows, its order checked before they become states.
struct Feed<E: Extract> {
    source: usize,
    input: Input<E>,
}

/// # Memory
/// The states of one batch per input, one window of states, one batch of output; of the last group of a window, states that stand for 1, 2, 4, …
/// of its parts.
struct AggregateKernel<E: Extract> {
    spec: Arc<AggregateSpec>,
    order: Order<E>,
    /// Empty if inputs are states.
    feeds: Vec<Feed<E>>,
    made: Option<Box<dyn Kernel<Item = RecordBatch>>>,
    merge: KWay<E>,
    carried: Option<Carried<E::Keys>>,
    out: Emit,
}

/// The last group so far, which may go on.
struct Carried<K> {
    /// `None` is the null key.
    key: Option<K>,
    /// One-row batches of states, each with the number of parts that were merged into it: descending, so that a part is merged again only
    /// with about as many others.
    parts: Vec<(usize, RecordBatch)>,
}

impl<E: Extract> Kernel for AggregateKernel<E> {
    type Item = RecordBatch;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        match &mut self.made {
            Some(made) => made.push(input, batch),
            None if self.feeds.is_empty() => self.merge.push(input, batch),
            None => self.update(input, batch),
        }
    }

    fn finish(&mut self, input: usize) {
        match &mut self.made {
            Some(made) => made.finish(input),
            None => self.merge.finish(input),
        }
    }

    fn step(&mut self) -> Result<Step<RecordBatch>> {
        loop {
            if let Some(states) = self.out.pop() {
                return self.spec.finish(states).map(Step::Item);
            }
            match self.merge.step()? {
                Step::Item(segment) => self.window(&segment)?,
                Step::Needs(input) => match &mut self.made {
                    None => return Ok(Step::Needs(input)),
                    Some(made) => match made.step()? {
                        Step::Item(batch) => self.update(0, batch)?,
                        Step::Needs(input) => return Ok(Step::Needs(input)),
                        Step::Done => self.merge.finish(0),
                    },
                },
                Step::Done => {
                    self.flush()?;
                    return match self.out.finish()? {
                        Some(states) => self.spec.finish(states).map(Step::Item),
                        None => Ok(Step::Done),
                    };
                }
            }
        }
    }
}

impl<E: Extract> AggregateKernel<E> {
    /// Checks the order of rows and turns them into states.
    fn update(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        let feed = &mut self.feeds[input];
        feed.input.push(&self.order, batch)?;
        while let Some(segment) = feed.input.take_head() {
            let states = self.spec.update(feed.source, &segment.batch, &group_offsets(&segment))?;
            self.merge.push(input, states)?;
        }
        Ok(())
    }

    /// Merges the states of each key of a window; the last group is held back.
    fn window(&mut self, segment: &Segment<E::Keys>) -> Result<()> {
        let offsets = group_offsets(segment);
        let groups = offsets.len() - 1;
        let states = self.spec.merge(&segment.batch, &offsets)?;
        let mut done = 0;
        if let Some(carried) = &mut self.carried {
            let continues = match (&carried.key, &segment.keys) {
                (Some(last), Some(keys)) => last.value(0) == keys.value(0),
                (None, None) => true,
                _ => false,
            };
            if continues {
                carried.add(&self.spec, states.slice(0, 1))?;
                done = 1;
            }
        }
        if done == groups {
            return Ok(());
        }
        self.flush()?;
        self.out.push(states.slice(done, groups - 1 - done))?;
        let key = segment.keys.as_ref().map(|keys| keys.slice(offsets[groups - 1], 1));
        self.carried = Some(Carried { key, parts: vec![(1, states.slice(groups - 1, 1))] });
        Ok(())
    }

    /// The last group is complete.
    fn flush(&mut self) -> Result<()> {
        if let Some(carried) = self.carried.take() {
            let parts: Vec<RecordBatch> = carried.parts.into_iter().map(|(_, part)| part).collect();
            let state = self.spec.merge_parts(&parts)?;
            self.out.push(state)?;
        }
        Ok(())
    }
}

impl<K> Carried<K> {
    fn add(&mut self, spec: &AggregateSpec, part: RecordBatch) -> Result<()> {
        let mut parts = vec![part];
        let mut count = 1;
        while let Some((before, earlier)) = self.parts.pop_if(|(before, _)| *before <= count) {
            parts.insert(0, earlier);
            count += before;
            parts = vec![spec.merge_parts(&parts)?];
        }
        self.parts.extend(parts.into_iter().map(|part| (count, part)));
        Ok(())
    }
}

/// Where the groups of equal keys begin, and the number of rows. Null keys are one group.
fn group_offsets<K: Keys>(segment: &Segment<K>) -> Vec<usize> {
    match &segment.keys {
        Some(keys) => keys.group_offsets().into_iter().map(|row| row as usize).collect(),
        None => vec![0, segment.len()],
    }
}

impl AggregateSpec {
    /// One row of states per group of rows of a source.
    fn update(&self, source: usize, rows: &RecordBatch, offsets: &[usize]) -> Result<RecordBatch> {
        self.states(rows, offsets, |_, bound| {
            if bound.source == source {
                let columns: Vec<ArrayRef> = bound.columns.iter().map(|&at| Arc::clone(rows.column(at))).collect();
                return bound.aggregator.update(&Segments::new(&columns, offsets)?);
            }
            // Aggregates of other sources know nothing of these keys yet.
            let types = &self.source_types[bound.source];
            let columns: Vec<ArrayRef> = bound.columns.iter().map(|&at| new_empty_array(&types[at])).collect();
            bound.aggregator.update(&Segments::new(&columns, &vec![0; offsets.len()])?)
        })
    }

    /// One row of states per group of rows of states.
    fn merge(&self, states: &RecordBatch, offsets: &[usize]) -> Result<RecordBatch> {
        if offsets.len() == states.num_rows() + 1 {
            return Ok(states.clone());
        }
        self.states(states, offsets, |at, bound| {
            let columns = [Arc::clone(states.column(self.key + at))];
            bound.aggregator.merge(&Segments::new(&columns, offsets)?)
        })
    }

    /// The states of one key, merged in order.
    fn merge_parts(&self, parts: &[RecordBatch]) -> Result<RecordBatch> {
        match parts {
            [one] => Ok(one.clone()),
            _ => {
                let all = concat_batches(&self.states, parts)?;
                self.merge(&all, &[0, all.num_rows()])
            }
        }
    }

    /// A row per group: its key and what `state` makes of it.
    fn states(
        &self,
        rows: &RecordBatch,
        offsets: &[usize],
        state: impl Fn(usize, &Bound) -> Result<ArrayRef>,
    ) -> Result<RecordBatch> {
        let groups = offsets.len() - 1;
        let firsts: UInt64Array = offsets[..groups].iter().map(|&at| at as u64).collect();
        let mut columns = Vec::with_capacity(self.states.fields().len());
        for key in &rows.columns()[..self.key] {
            columns.push(if groups == rows.num_rows() { Arc::clone(key) } else { take_own(key, &firsts)? });
        }
        for (at, bound) in self.aggregates.iter().enumerate() {
            let made = state(at, bound)?;
            let field = self.states.field(self.key + at);
            columns.push(bound.column(&made, field.data_type(), groups)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.states), columns)?)
    }

    /// States as they are, or their results.
    pub(crate) fn finish(&self, states: RecordBatch) -> Result<RecordBatch> {
        let Some(output) = &self.output else { return Ok(states) };
        let mut columns = states.columns()[..self.key].to_vec();
        for (at, bound) in self.aggregates.iter().enumerate() {
            let made = bound.aggregator.finish(states.column(self.key + at))?;
            columns.push(bound.column(&made, output.field(self.key + at).data_type(), states.num_rows())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(output), columns)?)
    }
}

impl Bound {
    /// Holds what an aggregate made to what it promised.
    pub(crate) fn column(&self, made: &ArrayRef, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
        if made.len() != rows {
            return Err(Error::invalid_input(format!(
                "an aggregate made another number of values than it should have, aggregate=`{}`, expected=`{rows}`, found=`{}`",
                self.name,
                made.len()
            )));
        }
        canonical_array(made, data_type, &self.name)
    }
}
