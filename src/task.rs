//! The one place that starts tasks: aborted when dropped, panics become errors, and what they do belongs to the span that started them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
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
        Pin::new(&mut self.0).poll(cx).map(|joined| {
            joined.unwrap_or_else(|e| Err(Error::internal(format!("a task ended without a result, cause=`{e}`"))))
        })
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

/// Drives `work`, which has computations done, from a blocking thread: it goes on whatever the runtime's own threads do meanwhile.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub(crate) fn spawn_computing<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Task<T> {
    let (runtime, work) = (Handle::current(), work.in_current_span());
    Task(tokio::task::spawn_blocking(move || runtime.block_on(work)))
}

/// Runs `work`, which hands bytes from outside to a library that may panic on damage: such a panic is `Corrupt`, not the caller's end.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::corrupt("damaged bytes made a decoder panic")))
}
