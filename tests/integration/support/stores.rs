//! Stores that log what is asked of them, are slow and fail where they are told to.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};

use super::store;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    /// The byte ranges of a read that names any.
    pub(crate) ranges: Vec<Range<u64>>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.path)
    }
}

/// When a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before it had any effect.
    Before,
    /// After its effect: the answer is lost.
    After,
}

/// A store that logs its requests and fails some of them.
#[derive(Debug)]
pub(crate) struct TestStore {
    inner: Arc<dyn ObjectStore>,
    log: Mutex<Vec<Request>>,
    count: AtomicUsize,
    /// The requests that fail, counted from 0 since the last [`fail_from`](Self::fail_from).
    fault: Mutex<Option<(Range<usize>, When)>>,
    /// How long reads take.
    latency: Mutex<Duration>,
    /// Reads that have not been answered, now and at most.
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: store(),
            log: Mutex::default(),
            count: AtomicUsize::new(0),
            fault: Mutex::default(),
            latency: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        })
    }

    /// The requests since the last call.
    pub(crate) fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Fails the requests `range`, counted from the next one. Counting starts anew.
    pub(crate) fn fail(&self, range: Range<usize>, when: When) {
        *self.fault.lock().unwrap() = Some((range, when));
        self.count.store(0, Ordering::SeqCst);
    }

    /// Fails nothing any more and counts from 0.
    pub(crate) fn heal(&self) {
        *self.fault.lock().unwrap() = None;
        self.count.store(0, Ordering::SeqCst);
    }

    /// How many requests there were since counting started.
    pub(crate) fn requests(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Makes reads take this long.
    pub(crate) fn slow_down(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// The most reads that waited for their answers at the same time since the last call.
    pub(crate) fn take_most_in_flight(&self) -> usize {
        self.most_in_flight.swap(0, Ordering::SeqCst)
    }

    /// Answers a read after the latency.
    async fn answer<T>(&self, read: impl Future<Output = T>) -> T {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let answer = read.await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    /// What is stored, by path; not logged and never failing.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let mut paths: Vec<String> =
            self.inner.list(None).map(|meta| meta.unwrap().location.to_string()).collect().await;
        paths.sort();
        paths
    }

    fn log(&self, verb: &'static str, path: &Path, ranges: Vec<Range<u64>>) -> Option<When> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        self.log.lock().unwrap().push(Request { verb, path: path.to_string(), ranges });
        let fault = self.fault.lock().unwrap();
        fault.as_ref().filter(|(range, _)| range.contains(&number)).map(|(_, when)| *when)
    }

    async fn run<T>(
        &self,
        fault: Option<When>,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        match fault {
            None => work.await,
            Some(When::Before) => Err(lost()),
            Some(When::After) => {
                let _ = work.await;
                Err(lost())
            }
        }
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "TestStore", source: "the connection was lost".into() }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for TestStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let fault = self.log("PUT", path, vec![]);
        self.run(fault, self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let fault = self.log("MULTIPART", path, vec![]);
        self.run(fault, self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let ranges = match &options.range {
            Some(GetRange::Bounded(range)) => vec![range.clone()],
            Some(other) => panic!("a range read of unknown extent: {other}"),
            None => vec![],
        };
        let fault = self.log(if options.head { "HEAD" } else { "GET" }, path, ranges);
        self.answer(self.run(fault, self.inner.get_opts(path, options))).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let fault = self.log("RANGES", path, ranges.to_vec());
        self.answer(self.run(fault, self.inner.get_ranges(path, ranges))).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // Deletes one by one would need a store that is shared with the stream; all at once fail together.
        match self.log("DELETE", &Path::default(), vec![]) {
            None => self.inner.delete_stream(paths),
            Some(When::Before) => paths.map(|_| Err(lost())).boxed(),
            Some(When::After) => self.inner.delete_stream(paths).map(|_| Err(lost())).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.log("LIST", &prefix.cloned().unwrap_or_default(), vec![]);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.log("LIST", &prefix.cloned().unwrap_or_default(), vec![]);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let fault = self.log("LIST", &prefix.cloned().unwrap_or_default(), vec![]);
        self.run(fault, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let fault = self.log("COPY", from, vec![]);
        self.run(fault, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        let fault = self.log("RENAME", from, vec![]);
        self.run(fault, self.inner.rename_opts(from, to, options)).await
    }
}

/// The whole object at `path`.
pub(crate) async fn read(store: &Arc<dyn ObjectStore>, path: &str) -> Bytes {
    store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap()
}

/// Puts the object at `path`, whatever is there.
pub(crate) async fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: impl Into<Bytes>) {
    store.put(&Path::from(path), bytes.into().into()).await.unwrap();
}
