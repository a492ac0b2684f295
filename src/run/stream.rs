//! Runs plans: slot by slot in the caller's task, or all slots over several tasks.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::stream::{BoxStream, StreamExt, try_unfold};
use futures::{FutureExt, Stream};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::metrics::{Counters, PlanMetrics, SlotMetrics};
use crate::plan::{Part, Plan, PlanOperation, SlotDescriptor, parts};
use crate::run::SlotRun;
use crate::task::{Task, spawn};

/// More tasks than this are not started, however many are asked for: their memory would be of no use to any machine.
const MAX_TASKS: usize = 1024;

/// How many slots run at the same time; at most 1024.
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
    /// The slot.
    pub slot: u32,
    /// The part of the slot: 0, unless slots were cut into key ranges because they are few or one is much larger than the others. Items of one
    /// part come in order, and every key of a part is less than all keys of the next part.
    pub part: u32,
    /// A `RecordBatch` of a scan or join, a `CoGroupBatch` or `CoGroupChunk`.
    pub item: T,
}

/// The items of one slot in key order, made in the task that polls.
///
/// # Memory
/// Per run of the slot, the fetched bytes of two row groups (projected columns) and the pages being decoded; one window; one item.
pub struct SlotStream<T> {
    items: BoxStream<'static, Result<T>>,
    counters: Arc<Counters>,
}

impl<T> SlotStream<T> {
    /// What was read and made so far.
    pub fn metrics(&self) -> SlotMetrics {
        self.counters.snapshot()
    }
}

impl<T> Stream for SlotStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl<T> std::fmt::Debug for SlotStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlotStream")
    }
}

/// The items of all slots, made by several tasks: those of each part of a slot in order (see [`SlotItem::part`]), parts interleaved. Ends after the
/// first error. Dropping it stops the tasks.
///
/// # Memory
/// As many running slots as the parallelism says (see [`SlotStream`]) and one finished item for each; for each of them, as many slots as
/// [`PlanOptions::prefetch`](crate::PlanOptions::prefetch) says whose runs are open, with the fetched bytes of their first row groups.
#[derive(Debug)]
pub struct PlanStream<T> {
    counters: Arc<[Arc<Counters>]>,
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
    /// What each slot has read and made so far.
    pub fn metrics(&self) -> PlanMetrics {
        PlanMetrics { slots: self.counters.iter().map(|counters| counters.snapshot()).collect() }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        self.tasks.clear();
        error
    }
}

impl<O: PlanOperation> Plan<O> {
    /// Runs one slot in the task that polls the stream, which must be on a tokio runtime: for callers with a scheduler of their own.
    ///
    /// # Errors
    /// `Incompatible` if the descriptor was made by a plan over other datasets or versions, `InvalidInput` if it has no such slot. The stream ends after its first error: `Corrupt`,
    /// `Unsorted`, `Misplaced`, `Store`, for co-groups `LimitExceeded`.
    pub fn execute(&self, descriptor: &SlotDescriptor) -> Result<SlotStream<O::Item>> {
        let part = self.check_descriptor(descriptor)?;
        let plan = self.clone();
        let counters = Arc::new(Counters::default());
        let own = Arc::clone(&counters);
        let start = async move { plan.start(&part, &own) };
        let items = futures::stream::once(start).flat_map(|started| match started {
            Ok(None) => futures::stream::empty().boxed(),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            Ok(Some(run)) => {
                try_unfold(run, |mut run| async move { Ok(run.next().await?.map(|item| (item, run))) }).boxed()
            }
        });
        Ok(SlotStream { items: items.boxed(), counters })
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
        let tasks = parallelism.tasks().clamp(1, MAX_TASKS);
        let (sender, items) = mpsc::channel(tasks);
        let counters: Arc<[Arc<Counters>]> = (0..self.slots().get()).map(|_| Arc::default()).collect();
        let queue = Queue {
            plan: self.clone(),
            counters: Arc::clone(&counters),
            ahead: tasks.saturating_mul(self.resolved.options.prefetch),
            state: Mutex::new(QueueState { waiting: None, started: VecDeque::new(), tasks }),
        };
        let queue = Arc::new(queue);
        let tasks = (0..tasks).map(|_| spawn(run_parts(Arc::clone(&queue), sender.clone()))).collect();
        PlanStream { counters, items, tasks, failed: false }
    }
}

/// The parts of a plan that no task has taken yet. The first of them have begun to fetch: they belong to no task, so that none waits while
/// another has work that it has not begun.
struct Queue<O: PlanOperation> {
    plan: Plan<O>,
    counters: Arc<[Arc<Counters>]>,
    /// How many parts may have been started and not taken.
    ahead: usize,
    state: Mutex<QueueState<O::Item>>,
}

struct QueueState<T> {
    /// `None` before the first part is asked for.
    waiting: Option<VecDeque<Part>>,
    started: VecDeque<(Part, SlotRun<T>)>,
    tasks: usize,
}

impl<O: PlanOperation> Queue<O> {
    /// The next part that may yield something.
    fn take(&self) -> Result<Option<(Part, SlotRun<O::Item>)>> {
        let mut state = self.state.lock().map_err(|_| Error::internal("a task that took a part panicked"))?;
        let QueueState { waiting, started, tasks } = &mut *state;
        let waiting = match waiting {
            Some(waiting) => waiting,
            None => waiting.insert(parts(&self.plan.resolved, *tasks)?.into()),
        };
        while started.len() <= self.ahead {
            let Some(part) = waiting.pop_front() else { break };
            if let Some(run) = self.plan.start(&part, &self.counters[part.slot as usize])? {
                started.push_back((part, run));
            }
        }
        Ok(started.pop_front())
    }
}

/// Takes parts until none is left. Errors go to the stream; a closed stream ends the task.
async fn run_parts<O: PlanOperation>(
    queue: Arc<Queue<O>>,
    items: mpsc::Sender<Result<SlotItem<O::Item>>>,
) -> Result<()> {
    loop {
        let (Part { slot, part, .. }, mut run) = match queue.take() {
            Ok(Some(taken)) => taken,
            Ok(None) => return Ok(()),
            Err(error) => {
                let _ = items.send(Err(error)).await;
                return Ok(());
            }
        };
        loop {
            let message = match run.next().await {
                Ok(None) => break,
                Ok(Some(item)) => Ok(SlotItem { slot, part, item }),
                Err(error) => Err(error),
            };
            let failed = message.is_err();
            if items.send(message).await.is_err() || failed {
                return Ok(());
            }
        }
    }
}
