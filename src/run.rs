//! Runs plans: slot by slot in the caller's task, or all slots over several tasks.
//!
//! This is the async shell around the kernels: it feeds them from run streams and hands on what they make.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures::stream::{BoxStream, StreamExt, try_unfold};
use futures::{FutureExt, Stream};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::merge::{Kernel, Step};
use crate::plan::{Plan, PlanOperation, SlotDescriptor};
use crate::read::{RunReader, RunStream};
use crate::task::{Task, spawn};

/// How many slots run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Parallelism {
    /// As many as the machine has cores.
    #[default]
    Available,
    /// This many.
    Slots(NonZeroUsize),
}

impl Parallelism {
    pub(crate) fn tasks(self) -> usize {
        match self {
            Self::Available => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Self::Slots(slots) => slots.get(),
        }
    }
}

/// Something that a slot yielded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SlotItem<T> {
    /// The slot. Items of one slot come in order.
    pub slot: u32,
    /// A `RecordBatch` of a scan or join, a `CoGroupBatch` or `CoGroupChunk`.
    pub item: T,
}

/// The items of one slot in key order, made in the task that polls.
///
/// # Memory
/// Per run of the slot, the fetched bytes of two row groups (projected columns) and the pages being decoded; one window; one item.
pub struct SlotStream<T>(BoxStream<'static, Result<T>>);

impl<T> Stream for SlotStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> std::fmt::Debug for SlotStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlotStream")
    }
}

/// The items of all slots, made by several tasks: each slot's in order, slots interleaved. Ends after the first error. Dropping it stops the tasks.
///
/// # Memory
/// As many running slots as the parallelism says (see [`SlotStream`]) and one finished item for each.
#[derive(Debug)]
pub struct PlanStream<T> {
    items: mpsc::Receiver<Result<SlotItem<T>>>,
    tasks: Vec<Task<()>>,
    failed: bool,
}

impl<T> Stream for PlanStream<T> {
    type Item = Result<SlotItem<T>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.items.poll_recv(cx)) {
            Some(Ok(item)) => Poll::Ready(Some(Ok(item))),
            Some(Err(error)) => Poll::Ready(Some(Err(self.fail(error)))),
            // All tasks have let go of the channel: by ending, or by a panic.
            None => {
                while let Some(task) = self.tasks.last_mut() {
                    let ended = std::task::ready!(task.poll_unpin(cx));
                    self.tasks.pop();
                    if let Err(error) = ended {
                        return Poll::Ready(Some(Err(self.fail(error))));
                    }
                }
                Poll::Ready(None)
            }
        }
    }
}

impl<T> PlanStream<T> {
    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        self.tasks.clear();
        error
    }
}

/// A kernel and the streams that feed it.
pub(crate) struct SlotRun<T> {
    kernel: Box<dyn Kernel<Item = T>>,
    runs: Vec<RunStream>,
}

impl<T> SlotRun<T> {
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        loop {
            match self.kernel.step()? {
                Step::Item(item) => return Ok(Some(item)),
                Step::Done => return Ok(None),
                Step::Needs(input) => match self.runs[input].next().await? {
                    Some(batch) => self.kernel.push(input, batch)?,
                    None => self.kernel.finish(input),
                },
            }
        }
    }
}

impl<O: PlanOperation> Plan<O> {
    /// Starts a slot: all its runs begin to open. `None` if it is known to yield nothing.
    pub(crate) fn start_slot(&self, slot: u32) -> Result<Option<SlotRun<O::Item>>> {
        if self.is_skipped(slot) {
            return Ok(None);
        }
        let (sources, readers) = self.slot_inputs(slot);
        let kernel = self.operation.kernel(sources, &self.resolved)?;
        Ok(Some(SlotRun { kernel, runs: readers.into_iter().map(RunReader::start).collect() }))
    }

    /// Runs one slot in the task that polls the stream, which must be on a tokio runtime: for callers with a scheduler of their own.
    ///
    /// # Errors
    /// `Incompatible` if the descriptor was made by a plan over other datasets or versions, `InvalidInput` if it has no such slot. The stream ends after its first error: `Corrupt`,
    /// `Unsorted`, `Misplaced`, `Store`, for co-groups `LimitExceeded`.
    pub fn execute(&self, descriptor: &SlotDescriptor) -> Result<SlotStream<O::Item>> {
        let slot = self.check_descriptor(descriptor)?;
        let plan = self.clone();
        let start = async move { plan.start_slot(slot) };
        let items = futures::stream::once(start).flat_map(|started| match started {
            Ok(None) => futures::stream::empty().boxed(),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            Ok(Some(run)) => {
                try_unfold(run, |mut run| async move { Ok(run.next().await?.map(|item| (item, run))) }).boxed()
            }
        });
        Ok(SlotStream(items.boxed()))
    }

    /// Runs all slots on the current tokio runtime, several at a time.
    ///
    /// # Errors
    /// The stream ends after its first error, of the kinds of [`execute`](Self::execute). What came before an error must not be taken for the
    /// whole result.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn stream(&self, parallelism: Parallelism) -> PlanStream<O::Item> {
        let slots = self.slots().get();
        let tasks = parallelism.tasks().min(slots as usize).max(1);
        let (sender, items) = mpsc::channel(tasks);
        let next = Arc::new(AtomicU32::new(0));
        let tasks = (0..tasks).map(|_| spawn(run_slots(self.clone(), Arc::clone(&next), sender.clone()))).collect();
        PlanStream { items, tasks, failed: false }
    }
}

/// Takes slots until none is left. Errors go to the stream; a closed stream ends the task.
async fn run_slots<O: PlanOperation>(
    plan: Plan<O>,
    next: Arc<AtomicU32>,
    items: mpsc::Sender<Result<SlotItem<O::Item>>>,
) -> Result<()> {
    loop {
        let slot = next.fetch_add(1, Ordering::Relaxed);
        if slot >= plan.slots().get() {
            return Ok(());
        }
        let mut run = match plan.start_slot(slot) {
            Ok(Some(run)) => run,
            Ok(None) => continue,
            Err(error) => {
                let _ = items.send(Err(error)).await;
                return Ok(());
            }
        };
        loop {
            let message = match run.next().await {
                Ok(None) => break,
                Ok(Some(item)) => Ok(SlotItem { slot, item }),
                Err(error) => Err(error),
            };
            let failed = message.is_err();
            if items.send(message).await.is_err() || failed {
                return Ok(());
            }
        }
    }
}
