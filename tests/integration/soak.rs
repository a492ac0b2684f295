//! Everything at once for a while: many small appends, a compaction by replace, readers that hold old versions, vacuums, stalled writers and
//! random faults. Time is virtual, a second per request, so that retention and grace periods pass many times over.
//!
//! The seed is printed; it fixes what each client does and which of its requests fail, not how their threads interleave.
//! `SMB_TEST_SOAK_SECONDS` makes it longer, `SMB_TEST_SOAK_SEED` repeats a seed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use sort_merge_bucket::chrono::{DateTime, Utc};
use sort_merge_bucket::{
    Clock, Dataset, DatasetWriter, DatasetWriterBuilder, Error, ErrorKind, Result, Scan, Target, VacuumOptions,
    WriteId, WriteMode,
};

use tokio::sync::RwLock;

use crate::support::data::batch_of;
use crate::support::faulty::{Fault, FaultyStore};
use crate::support::named::{data, schema};
use crate::support::oracle::{Row, Value, all_rows, int, text};
use crate::support::{assert_valid, block_on, history, try_run};

type Store = Arc<dyn ObjectStore>;

/// In virtual seconds, which pass with requests.
const RETENTION: i64 = 400;
const GRACE: i64 = 300;
const ROWS: u64 = 3;

/// A store in memory whose clock goes on by a second with every request.
#[derive(Debug, Default)]
struct TimedStore {
    inner: InMemory,
    /// Milliseconds since the epoch.
    now: AtomicI64,
    written: Mutex<HashMap<Path, i64>>,
}

impl TimedStore {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now.load(Ordering::SeqCst)).unwrap()
    }

    fn tick(&self) -> i64 {
        self.now.fetch_add(1000, Ordering::SeqCst)
    }

    fn clock(&self) -> Clock {
        Clock::Fixed(self.now())
    }
}

impl fmt::Display for TimedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimedStore")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for TimedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let time = self.tick();
        // Before the object is there, so that no listing finds it without a time.
        let mut written = self.written.lock().unwrap();
        let put = futures::FutureExt::now_or_never(self.inner.put_opts(path, payload, options)).unwrap();
        if put.is_ok() {
            written.insert(path.clone(), time);
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.tick();
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.tick();
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.tick();
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.tick();
        let written = self.written.lock().unwrap();
        let listed = futures::FutureExt::now_or_never(self.inner.list(prefix).collect::<Vec<_>>()).unwrap();
        let timed = |listed: object_store::Result<ObjectMeta>| {
            listed.map(|meta| {
                let last_modified = DateTime::from_timestamp_millis(written[&meta.location]).unwrap();
                ObjectMeta { last_modified, ..meta }
            })
        };
        let listed: Vec<_> = listed.into_iter().map(timed).collect();
        futures::stream::iter(listed).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// How many rows of each name.
type Counts = BTreeMap<String, u64>;

/// What all clients share.
struct Soak {
    store: Arc<TimedStore>,
    seed: u64,
    /// The rows that each write brings, known before it may commit.
    model: Mutex<HashMap<String, Counts>>,
    over: AtomicBool,
    /// Held by appends, so that a compaction has a chance when it waits for them.
    quiet: RwLock<()>,
    figures: Mutex<BTreeMap<Figure, usize>>,
}

/// What is counted, with the words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Faults,
    Appends,
    Repeated,
    Fenced,
    Compactions,
    Late,
    Vacuums,
    Died,
    Emptied,
    Deleted,
    Reads,
    Refused,
}

/// What must have happened at least once. Faults are counted at the end.
const NEEDED: [Figure; 7] = [
    Figure::Appends,
    Figure::Repeated,
    Figure::Compactions,
    Figure::Vacuums,
    Figure::Emptied,
    Figure::Deleted,
    Figure::Reads,
];

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faults => "requests that met a fault",
            Self::Appends => "appends",
            Self::Repeated => "attempts that were repeated",
            Self::Fenced => "appends that a vacuum fenced",
            Self::Compactions => "compactions",
            Self::Late => "compactions that failed or came too late",
            Self::Vacuums => "vacuums",
            Self::Died => "vacuums that failed half-way",
            Self::Emptied => "versions emptied",
            Self::Deleted => "files deleted",
            Self::Reads => "reads of a version",
            Self::Refused => "reads refused after the retention",
        })
    }
}

impl Soak {
    fn count(&self, figure: Figure, more: usize) {
        *self.figures.lock().unwrap().entry(figure).or_default() += more;
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn random(&self, client: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.seed ^ (client << 32))
    }

    /// A client's own way to the store.
    fn faulty(&self, client: u64, permille: u32) -> FaultyStore {
        FaultyStore::new(Arc::clone(&self.store) as _, Some(Fault::Random { seed: self.seed ^ client, permille }))
    }

    fn clean(&self) -> Store {
        Arc::clone(&self.store) as _
    }

    fn builder(&self, store: Store, mode: WriteMode, name: &str) -> DatasetWriterBuilder {
        DatasetWriter::builder(store, "d", schema(), data().spec(2))
            .with_mode(mode)
            .with_write_id(WriteId::new(name).unwrap())
            .with_clock(self.store.clock())
    }

    async fn write(&self, store: Store, mode: WriteMode, name: &str, stall: i64) -> Result<Dataset> {
        let rows: Vec<Row> = (0..ROWS).map(|k| vec![int(k.into()), text(name)]).collect();
        self.model.lock().unwrap().insert(name.to_owned(), Counts::from([(name.to_owned(), ROWS)]));
        let ticket = self.builder(Arc::clone(&store), mode, name).begin().await?;
        let mut writer = ticket.writer(Arc::clone(&store), 0)?;
        writer.write(&batch_of(&schema(), &rows)).await?;
        let written = writer.finish().await?;
        let until = self.store.now.load(Ordering::SeqCst) + stall * 1000;
        while self.store.now.load(Ordering::SeqCst) < until && !self.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ticket.commit(store, [written]).await
    }

    /// The rows that a version must have, by the writes whose runs it names.
    fn expected(&self, dataset: &Dataset) -> Counts {
        let model = self.model.lock().unwrap();
        let mut expected = Counts::new();
        let mut writes: Vec<&str> = dataset.runs().iter().map(|run| run.path.split('/').nth(1).unwrap()).collect();
        writes.dedup();
        writes.sort_unstable();
        writes.dedup();
        for write in writes {
            for (name, rows) in &model[write] {
                *expected.entry(name.clone()).or_default() += rows;
            }
        }
        expected
    }

    async fn read(&self, dataset: &Dataset) -> Result<Counts> {
        let slots = try_run(&Scan::new(dataset).plan()?, 1).await?;
        let mut found = Counts::new();
        for row in all_rows(slots.values().flatten()) {
            let Value::Text(name) = &row[1] else { panic!("{row:?}") };
            *found.entry(name.clone()).or_default() += 1;
        }
        Ok(found)
    }

    /// Until when a version can be read, in virtual milliseconds: the retention after its successor was committed.
    async fn promised(&self, version: u64) -> i64 {
        let path = Path::from(format!("d/_smb/{:020}.json", version + 1));
        match self.store.inner.get_opts(&path, GetOptions::default()).await {
            Ok(found) => {
                let manifest: serde_json::Value = serde_json::from_slice(&found.bytes().await.unwrap()).unwrap();
                let time: DateTime<Utc> = manifest["committed_at"].as_str().unwrap().parse().unwrap();
                time.timestamp_millis() + RETENTION * 1000
            }
            Err(_) => i64::MAX,
        }
    }

    /// Appends until it is over; the names that arrived.
    async fn append(&self, client: u64) -> Vec<String> {
        let (mut random, faulty) = (self.random(client), self.faulty(client, 30));
        let mut landed = vec![];
        let mut name = String::new();
        for n in 0.. {
            if self.is_over() {
                break;
            }
            let mut again = false;
            for attempt in 0.. {
                if !again {
                    name = format!("append-{client}-{n}-{attempt}");
                }
                // Some take longer than the grace period.
                let stall = if random.random_range(0..12) == 0 { GRACE + random.random_range(0..200) } else { 0 };
                let _writing = if stall == 0 { Some(self.quiet.read().await) } else { None };
                match self.write(Arc::new(faulty.clone()), WriteMode::Append, &name, stall).await {
                    Ok(_) => {
                        landed.push(name.clone());
                        self.count(Figure::Appends, 1);
                        break;
                    }
                    // It may have arrived: only the same name may be tried.
                    Err(e) if [ErrorKind::Store, ErrorKind::CommitUnknown].contains(&e.kind()) => {
                        self.count(Figure::Repeated, 1);
                        again = true;
                    }
                    Err(e) => {
                        assert!([ErrorKind::Conflict, ErrorKind::NotFound].contains(&e.kind()), "{name}: {e}");
                        if e.to_string().contains("fenced") {
                            self.count(Figure::Fenced, 1);
                        }
                        // A base that was vacuumed says nothing about an earlier attempt whose answer was lost.
                        again &= e.kind() == ErrorKind::NotFound;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..3))).await;
        }
        faulty.land().await;
        self.count(Figure::Faults, faulty.faults());
        landed
    }

    /// Writes all rows anew from time to time, so that versions and their files come out of use.
    async fn compact(&self, client: u64) {
        let (mut random, faulty) = (self.random(client), self.faulty(client, 5));
        for n in 0.. {
            if self.is_over() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
            let _quiet = if random.random() { Some(self.quiet.write().await) } else { None };
            let name = format!("compaction-{n}");
            let done = async {
                let store: Store = Arc::new(faulty.clone());
                let dataset = Dataset::open(Arc::clone(&store), "d").await?;
                self.model.lock().unwrap().insert(name.clone(), Counts::new());
                let rows = self.expected(&dataset);
                self.model.lock().unwrap().insert(name.clone(), rows);
                let target = Target::new(store, "d")
                    .with_mode(WriteMode::Replace)
                    .with_write_id(WriteId::new(name.clone())?)
                    .with_clock(self.store.clock());
                Scan::new(&dataset).plan()?.transform(target, Ok).await
            };
            match done.await {
                Ok(_) => self.count(Figure::Compactions, 1),
                Err(e) => {
                    let expected =
                        [ErrorKind::Conflict, ErrorKind::Store, ErrorKind::CommitUnknown, ErrorKind::NotFound];
                    assert!(expected.contains(&e.kind()), "{name}: {e}");
                    self.count(Figure::Late, 1);
                }
            }
        }
        faulty.land().await;
        self.count(Figure::Faults, faulty.faults());
    }

    async fn vacuum(&self, client: u64) {
        let (mut random, faulty) = (self.random(client), self.faulty(client, 8));
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
            let options = VacuumOptions::default()
                .with_retention(Duration::from_secs(RETENTION as u64))
                .with_grace_period(Duration::from_secs(GRACE as u64))
                .with_clock(self.store.clock());
            match Dataset::vacuum(Arc::new(faulty.clone()), "d", &options).await {
                Ok(report) => {
                    self.count(Figure::Vacuums, 1);
                    self.count(Figure::Emptied, report.emptied_versions.len());
                    self.count(Figure::Deleted, report.deleted.len());
                }
                Err(e) => {
                    assert!([ErrorKind::Store, ErrorKind::CommitUnknown].contains(&e.kind()), "{e}");
                    self.count(Figure::Died, 1);
                }
            }
        }
        faulty.land().await;
        self.count(Figure::Faults, faulty.faults());
    }

    /// Holds versions and reads them again and again.
    async fn hold(&self, client: u64) {
        let mut random = self.random(client);
        while !self.is_over() {
            let newest = Dataset::open(self.clean(), "d").await.unwrap();
            let dataset = match newest.version().saturating_sub(random.random_range(0..6)) {
                older if older == 0 || older == newest.version() => newest,
                older => match Dataset::open_version(self.clean(), "d", older).await {
                    Ok(dataset) => dataset,
                    Err(e) => {
                        self.assert_expired(older, &e).await;
                        continue;
                    }
                },
            };
            let expected = self.expected(&dataset);
            for _ in 0..random.random_range(1..6) {
                match self.read(&dataset).await {
                    Ok(found) => {
                        assert_eq!(found, expected, "version {}", dataset.version());
                        self.count(Figure::Reads, 1);
                    }
                    Err(e) => {
                        self.assert_expired(dataset.version(), &e).await;
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..8))).await;
            }
        }
    }

    /// A version that cannot be read must be one that nothing was promised of any more.
    async fn assert_expired(&self, version: u64, error: &Error) {
        let (now, until) = (self.store.now.load(Ordering::SeqCst), self.promised(version).await);
        assert!(until <= now, "version {version} is kept until {until}, and at {now} it is gone: {error:?}");
        self.count(Figure::Refused, 1);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn a_soak_of_appends_compactions_vacuums_and_faults_loses_nothing_and_breaks_no_reader() {
    let seconds = setting("SMB_TEST_SOAK_SECONDS").unwrap_or(4);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("SMB_TEST_SOAK_SEED").unwrap_or(now.as_nanos() as u64);
    println!("soak of {seconds} s, seed {seed}");
    let store = Arc::new(TimedStore { now: AtomicI64::new(1_735_689_600_000), ..TimedStore::default() });
    let soak = Soak {
        store: Arc::clone(&store),
        seed,
        model: Mutex::default(),
        over: AtomicBool::new(false),
        quiet: RwLock::new(()),
        figures: Mutex::default(),
    };
    block_on(soak.write(soak.clean(), WriteMode::Create, "first", 0)).unwrap();

    let landed: Vec<String> = std::thread::scope(|scope| {
        let soak = &soak;
        let appenders: Vec<_> = (1..4).map(|client| scope.spawn(move || block_on(soak.append(client)))).collect();
        let mut others = vec![
            scope.spawn(|| block_on(soak.compact(10))),
            scope.spawn(|| block_on(soak.vacuum(20))),
            scope.spawn(|| block_on(soak.vacuum(21))),
        ];
        others.extend((30..32).map(|client| scope.spawn(move || block_on(soak.hold(client)))));
        let started = Instant::now();
        let goes_on = || {
            let all = NEEDED.iter().all(|figure| soak.figures.lock().unwrap().contains_key(figure));
            // Longer where the machine is slow; and if one of them failed, the others need not go on.
            started.elapsed().as_secs() < if all { seconds } else { seconds + 60 }
        };
        while goes_on() && !others.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        soak.over.store(true, Ordering::SeqCst);
        for other in others {
            other.join().unwrap();
        }
        appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect()
    });

    block_on(async {
        let versions = history::check(store.as_ref(), "d").await;
        let figures = soak.figures.lock().unwrap().clone();
        let shown: Vec<String> = figures.iter().map(|(figure, count)| format!("{count} {figure}")).collect();
        println!("{} versions, {}", versions.len(), shown.join(", "));
        let newest = Dataset::open(soak.clean(), "d").await.unwrap();
        let found = soak.read(&newest).await.unwrap();
        let expected: Counts = landed.into_iter().chain(["first".to_owned()]).map(|name| (name, ROWS)).collect();
        assert_eq!(found, expected, "every append that was told so is there, once, and nothing else");
        assert_valid(&newest).await;
        store.now.fetch_add(1_000_000_000, Ordering::SeqCst);
        let all = VacuumOptions::default().with_clock(store.clock());
        Dataset::vacuum(soak.clean(), "d", &all).await.unwrap();
        let kept = history::versions(store.as_ref(), "d").await.pop().unwrap().whole.unwrap().runs;
        assert_eq!(history::data(store.as_ref(), "d").await, kept, "nothing is left over");
        assert_eq!(soak.read(&Dataset::open(soak.clean(), "d").await.unwrap()).await.unwrap(), expected);
        for figure in NEEDED {
            assert!(figures.contains_key(&figure), "no {figure}");
        }
    });
}
