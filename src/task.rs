//! The one place that starts tasks and threads: given up when dropped, panics become errors, and what they do belongs to the span that started them.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};

use futures::future::try_join_all;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};

/// A running task. Dropping it aborts it (blocking work already started runs to its end, its result discarded).
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<Result<T>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(ended(&e.to_string()))))
    }
}

/// Starts `future` on the current tokio runtime.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = Result<T>> + Send + 'static) -> Task<T> {
    Task(tokio::spawn(future.in_current_span()))
}

/// Runs `work`, which computes or blocks, on the runtime's blocking threads.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Task<T> {
    let span = Span::current();
    Task(tokio::task::spawn_blocking(move || span.in_scope(work)))
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that compute for one write, the same ones from beginning to end. Of a runtime's blocking threads each piece of work would get another one, and
/// common allocators keep what a thread has freed for that thread: a write took several times its budget that way. For the same reason a run that is
/// encoded visit by visit has a [`Seat`].
///
/// Each starts with its first work, and ends when nobody has it any more. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Crew(Arc<[Seat]>);

/// One thread of a crew, for work that comes in several visits. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seat(Arc<Mutex<Option<mpsc::Sender<Job>>>>);

impl Crew {
    /// This many threads, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        Self(std::iter::repeat_with(Seat::default).take(threads.max(1)).collect())
    }

    pub(crate) fn threads(&self) -> usize {
        self.0.len()
    }

    /// The thread that the fewest have a seat on, the first of several: whoever has one seat at a time uses one thread.
    pub(crate) fn seat(&self) -> Seat {
        // There is always one.
        self.0.iter().min_by_key(|seat| Arc::strong_count(&seat.0)).cloned().unwrap_or_default()
    }

    /// Runs `work` on every part at once, part after part on the threads in turn; the results are in the order of the parts.
    pub(crate) async fn run_all<P: Send + 'static, T: Send + 'static>(
        &self,
        parts: Vec<P>,
        work: impl Fn(P) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let run = |(part, seat): (P, &Seat)| {
            let (work, seat) = (work.clone(), seat.clone());
            async move { seat.run(move || work(part)).await }
        };
        try_join_all(parts.into_iter().zip(self.0.iter().cycle()).map(run)).await
    }
}

impl Seat {
    /// Runs `work`, which computes or blocks. Work whose turn comes when nobody waits for it any more is left out.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let span = Span::current();
        self.begin(Box::new(move || {
            if !answer.is_closed() {
                let done = catch_unwind(AssertUnwindSafe(|| span.in_scope(work)));
                drop(answer.send(done.unwrap_or_else(|panic| Err(ended(&panic_text(panic.as_ref()))))));
            }
        }))?;
        answered.await.unwrap_or_else(|_| Err(ended("its thread is gone")))
    }

    fn begin(&self, job: Job) -> Result<()> {
        // Nothing that can panic happens under the lock.
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match jobs.as_mut() {
            Some(jobs) => jobs,
            None => jobs.insert(start()?),
        };
        jobs.send(job).map_err(|_| ended("its thread is gone"))
    }
}

/// Starts a thread that does the jobs of the channel until it is closed.
fn start() -> Result<mpsc::Sender<Job>> {
    let (jobs, coming) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("smb-write".into()).spawn(move || coming.into_iter().for_each(|job| job()))?;
    Ok(jobs)
}

fn ended(cause: &str) -> Error {
    Error::internal(format!("a task ended without a result, cause=`{cause}`"))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown").to_owned()
}

/// Runs `work`, which hands bytes from outside to a library that may panic on damage: such a panic is `Corrupt`, not the caller's end.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::corrupt("damaged bytes made a decoder panic")))
}
