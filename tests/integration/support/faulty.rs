//! One client's view of a store that others use as well, with faults on its way there: requests that fail, answers that are lost, effects that
//! come late, and the death of the client. Whoever looks at the store itself sees what is really there.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, pending};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

/// What happens to requests.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// They fail before they have any effect.
    Fails(Range<usize>),
    /// They have their effect, but the client gets an error.
    LosesAnswer(Range<usize>),
    /// The client gets an error, and what they write is there so many requests later; `None`: not before [`FaultyStore::land`].
    Lands(Range<usize>, Option<usize>),
    /// The client dies at this request, before or after its effect: neither this nor any later one is ever answered.
    Dies { at: usize, effective: bool },
    /// So many of a thousand requests fail, lose their answers, or land late.
    Random { seed: u64, permille: u32 },
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    Fails,
    LosesAnswer,
    Lands(Option<usize>),
    Dies { effective: bool },
    Dead,
}

/// A client of `inner`.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStore(Arc<Core>);

struct Core {
    inner: Arc<dyn ObjectStore>,
    fault: Option<Fault>,
    random: Option<Mutex<Xoshiro256PlusPlus>>,
    count: AtomicUsize,
    /// Requests that were not simply answered.
    faults: AtomicUsize,
    /// Effects that are still to come, with the request before which they do.
    late: Mutex<Vec<(Option<usize>, BoxFuture<'static, ()>)>>,
    death: Notify,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({}, {:?})", self.inner, self.fault)
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "FaultyStore", source: "the connection was lost".into() }
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, fault: Option<Fault>) -> Self {
        let random = match fault {
            Some(Fault::Random { seed, .. }) => Some(Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed))),
            _ => None,
        };
        Self(Arc::new(Core {
            inner,
            fault,
            random,
            count: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            late: Mutex::new(vec![]),
            death: Notify::new(),
        }))
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// How many of them met a fault.
    pub(crate) fn faults(&self) -> usize {
        self.0.faults.load(Ordering::SeqCst)
    }

    /// Lets everything that is late take effect now.
    pub(crate) async fn land(&self) {
        let late = std::mem::take(&mut *self.0.late.lock().unwrap());
        for (_, effect) in late {
            effect.await;
        }
    }

    /// Runs a client to its end or its death, at which everything it holds is dropped.
    pub(crate) async fn run<T>(&self, client: impl Future<Output = T>) -> Option<T> {
        let death = self.0.death.notified();
        tokio::select! {
            biased;
            () = death => None,
            result = client => Some(result),
        }
    }
}

impl Core {
    /// Counts a request and says what becomes of it. `writes`: it changes something.
    fn next(&self, writes: bool) -> (usize, Fate) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let fate = match &self.fault {
            Some(Fault::Fails(range)) if range.contains(&number) => Fate::Fails,
            Some(Fault::LosesAnswer(range)) if range.contains(&number) => Fate::LosesAnswer,
            Some(Fault::Lands(range, after)) if range.contains(&number) && writes => Fate::Lands(*after),
            Some(Fault::Dies { at, effective }) if number == *at => Fate::Dies { effective: *effective },
            Some(Fault::Dies { at, .. }) if number > *at => Fate::Dead,
            Some(Fault::Random { permille, .. }) => self.draw(*permille, writes),
            _ => Fate::Fine,
        };
        if fate != Fate::Fine {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        (number, fate)
    }

    fn draw(&self, permille: u32, writes: bool) -> Fate {
        let Some(random) = &self.random else { return Fate::Fine };
        let mut random = random.lock().unwrap();
        if random.random_range(0..1000) >= permille {
            return Fate::Fine;
        }
        match random.random_range(0..3) {
            0 => Fate::Fails,
            1 => Fate::LosesAnswer,
            _ if writes => Fate::Lands(Some(random.random_range(1..20))),
            _ => Fate::Fails,
        }
    }

    /// Carries out a request as its fate wants.
    async fn conclude<T: Send + 'static>(
        &self,
        (number, fate): (usize, Fate),
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> object_store::Result<T> {
        if fate == Fate::Dead {
            return pending().await;
        }
        let due: Vec<_> = {
            let mut late = self.late.lock().unwrap();
            let (due, rest) = late.drain(..).partition(|(when, _)| when.is_some_and(|when| when <= number));
            *late = rest;
            due
        };
        for (_, effect) in due {
            effect.await;
        }
        match fate {
            Fate::Fine => work.await,
            Fate::Fails => Err(lost()),
            Fate::LosesAnswer => {
                let _ = work.await;
                Err(lost())
            }
            Fate::Lands(after) => {
                let effect = work.map(drop).boxed();
                self.late.lock().unwrap().push((after.map(|after| number + after), effect));
                Err(lost())
            }
            Fate::Dies { effective } => {
                if effective {
                    let _ = work.await;
                }
                self.death.notify_one();
                pending().await
            }
            Fate::Dead => pending().await,
        }
    }

    async fn request<T: Send + 'static, F>(
        &self,
        writes: bool,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let fate = self.next(writes);
        self.conclude(fate, work(Arc::clone(&self.inner))).await
    }

    fn listing(
        self: &Arc<Self>,
        list: impl FnOnce(Arc<dyn ObjectStore>) -> BoxStream<'static, object_store::Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let core = Arc::clone(self);
        let all = async move { core.request(false, |inner| list(inner).try_collect::<Vec<_>>()).await };
        stream::once(all).map_ok(|all| stream::iter(all.into_iter().map(Ok))).try_flatten().boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let path = path.clone();
        self.0.request(true, |inner| async move { inner.put_opts(&path, payload, options).await }).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let path = path.clone();
        let begun =
            self.0.request(false, |inner| async move { inner.put_multipart_opts(&path, options).await }).await?;
        Ok(Box::new(FaultyUpload { core: Arc::clone(&self.0), inner: Arc::new(tokio::sync::Mutex::new(begun)) }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let path = path.clone();
        self.0.request(false, |inner| async move { inner.get_opts(&path, options).await }).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let (path, ranges) = (path.clone(), ranges.to_vec());
        self.0.request(false, |inner| async move { inner.get_ranges(&path, &ranges).await }).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let core = Arc::clone(&self.0);
        let delete = move |path: object_store::Result<Path>| {
            let core = Arc::clone(&core);
            async move {
                let path = path?;
                let deleted = path.clone();
                core.request(true, |inner| async move { inner.delete(&path).await }).await.map(|()| deleted)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.0.listing(move |inner| inner.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.0.listing(move |inner| inner.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let prefix = prefix.cloned();
        self.0.request(false, |inner| async move { inner.list_with_delimiter(prefix.as_ref()).await }).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.0.request(true, |inner| async move { inner.copy_opts(&from, &to, options).await }).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.0.request(true, |inner| async move { inner.rename_opts(&from, &to, options).await }).await
    }
}

/// An upload in parts, each of which is a request, and so is its completion.
#[derive(Debug)]
struct FaultyUpload {
    core: Arc<Core>,
    inner: Arc<tokio::sync::Mutex<Box<dyn MultipartUpload>>>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (number, fate) = self.core.next(false);
        let core = Arc::clone(&self.core);
        // A part has its place by the order of these calls, so that one which is never to come must not be begun.
        let part = match fate {
            Fate::Fine | Fate::LosesAnswer | Fate::Dies { effective: true } => {
                self.inner.try_lock().unwrap().put_part(data)
            }
            _ => async { Err(lost()) }.boxed(),
        };
        async move { core.conclude((number, fate), part).await }.boxed()
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let inner = Arc::clone(&self.inner);
        self.core.request(true, |_| async move { inner.lock().await.complete().await }).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let inner = Arc::clone(&self.inner);
        self.core.request(false, |_| async move { inner.lock().await.abort().await }).await
    }
}
