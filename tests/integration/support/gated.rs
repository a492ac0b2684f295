//! Clients that take turns: each request waits until its client is let go on by one, so that a schedule decides who is first, and the same schedule
//! replays. Everything is polled by hand, outside of any runtime, where local files answer at once as well.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};

/// Where the requests of one client wait.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<(bool, Vec<Waker>)>);

impl Gate {
    async fn pass(&self) {
        poll_fn(|cx| {
            let (open, waiting) = &mut *self.0.lock().unwrap();
            if std::mem::take(open) {
                return Poll::Ready(());
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn open(&self) {
        let (open, waiting) = &mut *self.0.lock().unwrap();
        *open = true;
        waiting.drain(..).for_each(Waker::wake);
    }

    fn is_open(&self) -> bool {
        self.0.lock().unwrap().0
    }
}

/// A client's view of `inner`, through its gate.
#[derive(Debug, Clone)]
pub(crate) struct GatedStore {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
}

impl fmt::Display for GatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatedStore({})", self.inner)
    }
}

/// A client to be scheduled.
pub(crate) struct Client<T> {
    gate: Arc<Gate>,
    future: BoxFuture<'static, T>,
}

impl<T> Client<T> {
    pub(crate) fn new<F: Future<Output = T> + Send + 'static>(
        store: &Arc<dyn ObjectStore>,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Self {
        let gate = Arc::new(Gate::default());
        let store = GatedStore { inner: Arc::clone(store), gate: Arc::clone(&gate) };
        Self { gate, future: work(Arc::new(store)).boxed() }
    }
}

/// Runs clients, one request at a time. `choose` gets the client that went last, if it can go on, and those that can, and returns a position in the
/// latter; `look` is called after each request.
pub(crate) fn interleave<T>(
    clients: Vec<Client<T>>,
    mut choose: impl FnMut(Option<usize>, &[usize]) -> usize,
    mut look: impl FnMut(),
) -> Vec<T> {
    let mut results: Vec<Option<T>> = clients.iter().map(|_| None).collect();
    let mut clients: Vec<Option<Client<T>>> = clients.into_iter().map(Some).collect();
    let mut last = None;
    loop {
        let live: Vec<usize> = (0..clients.len()).filter(|&at| clients[at].is_some()).collect();
        if live.is_empty() {
            return results.into_iter().map(Option::unwrap).collect();
        }
        let at = live[choose(last.filter(|last| live.contains(last)), &live)];
        let client = clients[at].as_mut().unwrap();
        client.gate.open();
        match client.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => {
                results[at] = Some(result);
                clients[at] = None;
            }
            Poll::Pending => assert!(!client.gate.is_open(), "a client waits for something else than the store"),
        }
        last = Some(at);
        look();
    }
}

/// Calls `run` with every schedule in which a client is interrupted at most so often, and returns their number.
pub(crate) fn every_schedule(
    interruptions: usize,
    mut run: impl FnMut(&mut dyn FnMut(Option<usize>, &[usize]) -> usize),
) -> usize {
    let mut script: Vec<(usize, usize)> = vec![];
    for count in 1.. {
        let (mut at, mut left) = (0, interruptions);
        run(&mut |last, live| {
            // The first choice is to go on with the same client.
            let going_on = last.and_then(|last| live.iter().position(|client| *client == last));
            let choices = if going_on.is_some() && left == 0 { 1 } else { live.len() };
            if at == script.len() {
                script.push((0, choices));
            }
            let (choice, of) = script[at];
            assert_eq!(of, choices, "a schedule does not replay");
            at += 1;
            left -= usize::from(going_on.is_some() && choice > 0);
            let first = going_on.unwrap_or(0);
            (0..live.len()).filter(|other| *other != first).fold(vec![first], |mut all, other| {
                all.push(other);
                all
            })[choice]
        });
        script.truncate(at);
        loop {
            match script.pop() {
                None => return count,
                Some((choice, of)) if choice + 1 < of => {
                    script.push((choice + 1, of));
                    break;
                }
                Some(_) => {}
            }
        }
    }
    unreachable!("there is a last schedule")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for GatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.gate.pass().await;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.gate.pass().await;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.gate.pass().await;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.gate.pass().await;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let store = self.clone();
        let delete = move |path: object_store::Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                store.gate.pass().await;
                store.inner.delete(&path).await.map(|()| path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            store.gate.pass().await;
            store.inner.list(prefix.as_ref())
        })
        .flatten()
        .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        stream::once(async move {
            store.gate.pass().await;
            store.inner.list_with_offset(prefix.as_ref(), &offset)
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.gate.pass().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.gate.pass().await;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.gate.pass().await;
        self.inner.rename_opts(from, to, options).await
    }
}
