//! Writers, droppers and vacuums at once: in every interleaving of two with few interruptions, in seeded ones of eight, and freely on threads; in
//! memory and on local files. Whatever the order, numbers are dense, each version follows from the one before, and all runs of every version
//! that can be opened are there, after each single request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use sort_merge_bucket::{
    BucketCount, Clock, Dataset, DatasetWriter, DatasetWriterBuilder, Error, ErrorKind, Operation, Result, Scan,
    VacuumOptions, WriteId, WriteMode, WriteTicket, WrittenRuns,
};
use tempfile::TempDir;

use crate::support::data::batch_of;
use crate::support::gated::{Client, every_schedule, interleave};
use crate::support::history::{self, Version};
use crate::support::named::{data, schema, some};
use crate::support::oracle::{Row, sorted};
use crate::support::{assert_error, assert_valid, block_on, rows};

type Store = Arc<dyn ObjectStore>;

const PATH: &str = "d";

fn builder(store: &Store, mode: WriteMode, name: &str, buckets: u32) -> DatasetWriterBuilder {
    DatasetWriter::builder(Arc::clone(store), PATH, schema(), data().spec(buckets))
        .with_mode(mode)
        .with_write_id(WriteId::new(name).unwrap())
}

async fn write(store: &Store, mode: WriteMode, name: &str) -> Result<Dataset> {
    let mut writer = builder(store, mode, name, 2).build().await?;
    writer.write(&batch_of(&schema(), &some(name, 3))).await?;
    writer.commit().await
}

/// A write whose runs are there, to be committed.
async fn written(store: &Store, mode: WriteMode, name: &str) -> (WriteTicket, WrittenRuns) {
    let ticket = builder(store, mode, name, 2).begin().await.unwrap();
    let mut writer = ticket.writer(Arc::clone(store), 0).unwrap();
    writer.write(&batch_of(&schema(), &some(name, 3))).await.unwrap();
    (ticket, writer.finish().await.unwrap())
}

fn vacuum_options(retention: Duration) -> VacuumOptions {
    let tomorrow = (SystemTime::now() + Duration::from_secs(24 * 3600)).into();
    VacuumOptions::default()
        .with_retention(retention)
        .with_grace_period(Duration::ZERO)
        .with_clock(Clock::Fixed(tomorrow))
}

const FOR_EVER: Duration = Duration::from_secs(1 << 40);

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Write(WriteMode),
    Drop,
    /// Keeps old versions, or none.
    Vacuum(Duration),
}

use Act::{Drop, Vacuum, Write};

const APPEND: Act = Write(WriteMode::Append);
const REPLACE: Act = Write(WriteMode::Replace);
const CREATE: Act = Write(WriteMode::Create);
const SWEEP: Act = Vacuum(Duration::ZERO);
const TIDY: Act = Vacuum(FOR_EVER);

/// What there is before clients start, in memory or on local files.
enum Origin {
    Memory(InMemory),
    Local(TempDir),
}

impl Origin {
    fn new(local: bool) -> Self {
        if local { Self::Local(tempfile::tempdir().unwrap()) } else { Self::Memory(InMemory::new()) }
    }

    fn store(&self) -> Store {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Local(folder) => Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()),
        }
    }

    /// The same in another place, which lasts as long as what comes with it.
    fn fork(&self) -> Self {
        match self {
            Self::Memory(store) => Self::Memory(store.fork()),
            Self::Local(folder) => {
                let copy = tempfile::tempdir().unwrap();
                copy_files(folder.path(), copy.path());
                Self::Local(copy)
            }
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_files(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

/// Clients of the same state, ready to commit.
struct Race {
    origin: Origin,
    acts: Vec<Act>,
    writes: Vec<Option<(WriteTicket, WrittenRuns)>>,
    /// Versions before the race.
    versions: usize,
}

impl Race {
    fn new(acts: &[Act], local: bool) -> Self {
        let origin = Origin::new(local);
        let store = origin.store();
        let (writes, versions) = block_on(async {
            if !acts.contains(&CREATE) {
                write(&store, WriteMode::Create, "first").await.unwrap();
                write(&store, WriteMode::Replace, "second").await.unwrap();
            }
            let mut writes = vec![];
            for (at, act) in acts.iter().enumerate() {
                writes.push(match act {
                    Write(mode) => Some(written(&store, *mode, &format!("client-{at}")).await),
                    _ => None,
                });
            }
            (writes, history::versions(store.as_ref(), PATH).await.len())
        });
        Self { origin, acts: acts.to_vec(), writes, versions }
    }

    /// One run of the race.
    fn run(&self, choose: &mut dyn FnMut(Option<usize>, &[usize]) -> usize) {
        let place = self.origin.fork();
        let store = place.store();
        let client = |at: usize| {
            let (act, write) = (self.acts[at], self.writes[at].clone());
            Client::new(&store, |store| async move {
                match (act, write) {
                    (Write(_), Some((ticket, written))) => ticket.commit(store, [written]).await.map(|_| ()),
                    (Drop, _) => Dataset::open(store, PATH).await?.drop_dataset().await,
                    (Vacuum(retention), _) => {
                        Dataset::vacuum(store, PATH, &vacuum_options(retention)).await.map(|_| ())
                    }
                    (Write(_), None) => panic!("a write was not prepared"),
                }
            })
        };
        let clients = (0..self.acts.len()).map(client).collect();
        let look = || drop(history::check(store.as_ref(), PATH).now_or_never().unwrap());
        let results = interleave(clients, choose, look);
        let versions = history::check(store.as_ref(), PATH).now_or_never().unwrap();
        self.check(&results, &versions);
    }

    fn check(&self, results: &[Result<()>], versions: &[Version]) {
        let context = format!("{:?}: {results:?}", self.acts);
        let kinds: Vec<Option<ErrorKind>> = results.iter().map(|r| r.as_ref().err().map(Error::kind)).collect();
        let has = |wanted: fn(&Act) -> bool| self.acts.iter().any(wanted);
        let vacuumed = has(|act| matches!(act, Vacuum(_)));
        for (at, (act, kind)) in self.acts.iter().zip(&kinds).enumerate() {
            let made = versions.iter().filter(|version| version.write_id == format!("client-{at}")).count();
            match (act, kind) {
                (Write(_), None) => assert_eq!(made, 1, "{context}"),
                (Write(_), Some(ErrorKind::Conflict)) => assert_eq!(made, 0, "{context}"),
                // The version that the write started from is gone, or the dataset.
                (Write(_), Some(ErrorKind::NotFound)) => assert!(made == 0 && vacuumed, "{context}"),
                (Drop, None | Some(ErrorKind::Conflict | ErrorKind::NotFound)) | (Vacuum(_), None) => {}
                _ => panic!("{context}"),
            }
        }
        let won = |act: Act| self.acts.iter().zip(&kinds).filter(|(a, kind)| **a == act && kind.is_none()).count();
        // All writes start from the same version; a drop from the one it finds.
        let exclusive = won(REPLACE) + won(CREATE);
        assert!(exclusive <= 1 && won(Drop) <= 1, "{context}");
        let exclusive = exclusive + won(Drop);
        let appends = self.acts.iter().filter(|act| **act == APPEND).count();
        if !vacuumed {
            assert!(won(APPEND) + exclusive > 0, "somebody wins: {context}");
            assert_eq!(versions.len(), self.versions + won(APPEND) + exclusive, "{context}");
            assert!(won(APPEND) == appends || exclusive > 0, "appends follow each other: {context}");
        }
        let makers: BTreeSet<&str> = versions.iter().map(|version| version.write_id.as_str()).collect();
        assert_eq!(makers.len(), versions.len(), "{context}");
    }
}

/// Runs two clients in every order with at most so many interruptions.
fn every_order(acts: [Act; 2], interruptions: usize) {
    let race = Race::new(&acts, false);
    let count = every_schedule(interruptions, |choose| race.run(choose));
    println!("{acts:?}: {count} schedules");
    assert!(count > 20, "{acts:?}: {count}");
}

#[test]
fn two_writers_in_every_order_of_their_requests() {
    for acts in [[APPEND, APPEND], [APPEND, REPLACE], [REPLACE, REPLACE], [CREATE, CREATE]] {
        every_order(acts, usize::MAX);
    }
    for acts in [[APPEND, Drop], [REPLACE, Drop], [Drop, Drop]] {
        every_order(acts, 6);
    }
}

#[test]
fn a_vacuum_and_somebody_else_in_every_order_of_their_requests() {
    for acts in [[SWEEP, APPEND], [SWEEP, REPLACE], [SWEEP, Drop], [TIDY, APPEND], [SWEEP, SWEEP], [TIDY, SWEEP]] {
        every_order(acts, 4);
    }
}

fn seeded(local: bool, seeds: u64) {
    let crowds: [&[Act]; 4] = [
        &[APPEND; 8],
        &[APPEND, APPEND, APPEND, REPLACE, REPLACE, APPEND, APPEND, Drop],
        &[SWEEP, APPEND, APPEND, REPLACE, TIDY, APPEND, APPEND, APPEND],
        &[CREATE; 8],
    ];
    let mut count = 0;
    for acts in crowds {
        let race = Race::new(acts, local);
        for seed in 0..seeds {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            // Some schedules go back and forth, others let a client go on for long.
            let stay = random.random_range(0..10);
            race.run(&mut |last, live| {
                let last = last.and_then(|last| live.iter().position(|client| *client == last));
                last.filter(|_| random.random_range(0..10) < stay).unwrap_or_else(|| random.random_range(0..live.len()))
            });
            count += 1;
        }
    }
    println!("eight clients, local {local}: {count} schedules");
}

#[test]
fn eight_clients_in_seeded_orders_of_their_requests() {
    seeded(false, 150);
}

#[test]
fn eight_clients_on_local_files_in_seeded_orders_of_their_requests() {
    seeded(true, 15);
}

/// Threads that append as they come, beside one that replaces and one that vacuums.
fn on_threads(store: &Store, writers: usize, each: usize, others: bool) {
    block_on(write(store, WriteMode::Create, "first")).unwrap();
    let finished = std::sync::atomic::AtomicUsize::new(0);
    let landed: Vec<String> = std::thread::scope(|scope| {
        let appender = |writer: usize| {
            let finished = &finished;
            scope.spawn(move || {
                let mut landed = vec![];
                for n in 0..each {
                    // A vacuum that keeps nothing may take the base away; then the write is done again, as another one.
                    for attempt in 0.. {
                        let name = format!("writer-{writer}-{n}-{attempt}");
                        match block_on(write(store, WriteMode::Append, &name)) {
                            Ok(_) => {
                                landed.push(name);
                                break;
                            }
                            Err(e) => assert!(others && e.kind() == ErrorKind::Conflict, "{name}: {e}"),
                        }
                    }
                }
                finished.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                landed
            })
        };
        let appenders: Vec<_> = (0..writers).map(appender).collect();
        if others {
            scope.spawn(|| {
                while finished.load(std::sync::atomic::Ordering::SeqCst) < writers {
                    let swept = block_on(Dataset::vacuum(Arc::clone(store), PATH, &vacuum_options(Duration::ZERO)));
                    swept.unwrap();
                }
            });
        }
        appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect()
    });
    block_on(async {
        let versions = history::check(store.as_ref(), PATH).await;
        let appended = versions.iter().filter(|version| version.write_id.starts_with("writer-")).count();
        assert_eq!((landed.len(), appended), (writers * each, writers * each), "each append made one version");
        let dataset = Dataset::open(Arc::clone(store), PATH).await.unwrap();
        let found = sorted(rows(&Scan::new(&dataset).plan().unwrap()).await);
        let expected = landed.iter().map(String::as_str).chain(["first"]).flat_map(|name| some(name, 3)).collect();
        assert_eq!(found, sorted(expected));
        assert_valid(&dataset).await;
    });
}

#[test]
fn appends_from_two_and_eight_threads_all_arrive_once() {
    for (writers, each) in [(2, 12), (8, 5)] {
        for origin in [Origin::new(false), Origin::new(true)] {
            on_threads(&origin.store(), writers, each, false);
        }
    }
}

#[test]
fn appends_from_threads_beside_a_vacuum_that_keeps_nothing_all_arrive_once() {
    for origin in [Origin::new(false), Origin::new(true)] {
        on_threads(&origin.store(), 3, 5, true);
    }
}

#[test]
fn of_replaces_from_eight_threads_one_wins_each_version() {
    for origin in [Origin::new(false), Origin::new(true)] {
        let store = origin.store();
        block_on(write(&store, WriteMode::Create, "first")).unwrap();
        for round in 0..4 {
            let writes: Vec<_> =
                (0..8).map(|n| block_on(written(&store, WriteMode::Replace, &format!("r{round}-{n}")))).collect();
            let results: Vec<Result<Dataset>> = std::thread::scope(|scope| {
                let commit = |(ticket, written): (WriteTicket, WrittenRuns)| {
                    let store = Arc::clone(&store);
                    scope.spawn(move || block_on(ticket.commit(store, [written])))
                };
                let threads: Vec<_> = writes.into_iter().map(commit).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let won: Vec<u64> = results.iter().flatten().map(Dataset::version).collect();
            assert_eq!(won, [round + 2]);
            assert!(results.iter().filter_map(|r| r.as_ref().err()).all(|e| e.kind() == ErrorKind::Conflict));
        }
        let versions = block_on(history::check(store.as_ref(), PATH));
        let left = block_on(history::data(store.as_ref(), PATH));
        let named: BTreeSet<String> = versions.into_iter().flat_map(|version| version.whole.unwrap().runs).collect();
        assert_eq!(left, named, "those that lost took their files with them");
    }
}

#[tokio::test]
async fn a_writer_stalled_over_a_replace_with_another_bucket_count_fails() {
    for origin in [Origin::new(false), Origin::new(true)] {
        let store = origin.store();
        write(&store, WriteMode::Create, "first").await.unwrap();
        let mut stalled = builder(&store, WriteMode::Append, "stalled", 2).build().await.unwrap();
        stalled.write(&batch_of(&schema(), &some("stalled", 3))).await.unwrap();
        let mut other = builder(&store, WriteMode::Replace, "other", 3).build().await.unwrap();
        other.write(&batch_of(&schema(), &some("other", 3))).await.unwrap();
        other.commit().await.unwrap();
        assert_error(&stalled.commit().await.unwrap_err(), ErrorKind::Conflict, &["replaced"]);
        let dataset = Dataset::open(Arc::clone(&store), PATH).await.unwrap();
        assert_eq!((dataset.version(), dataset.spec().buckets()), (2, BucketCount::new(3).unwrap()));
        assert_eq!(sorted(rows(&Scan::new(&dataset).plan().unwrap()).await), sorted(some("other", 3)));
    }
}

#[tokio::test]
async fn a_writer_whose_files_a_vacuum_removed_cannot_commit() {
    for origin in [Origin::new(false), Origin::new(true)] {
        let store = origin.store();
        write(&store, WriteMode::Create, "first").await.unwrap();
        let (ticket, runs) = written(&store, WriteMode::Append, "stalled").await;
        let report = Dataset::vacuum(Arc::clone(&store), PATH, &vacuum_options(FOR_EVER)).await.unwrap();
        assert_eq!((report.version, &report.fenced_write_ids[..]), (Some(2), &[WriteId::new("stalled").unwrap()][..]));
        assert_eq!(report.deleted.len(), runs.runs());
        let error = ticket.commit(Arc::clone(&store), [runs.clone()]).await.unwrap_err();
        assert_error(&error, ErrorKind::Conflict, &["fenced", "stalled"]);
        // Nor when others came since, nor when the job starts again under its name.
        write(&store, WriteMode::Append, "third").await.unwrap();
        assert_eq!(ticket.commit(Arc::clone(&store), [runs]).await.unwrap_err().kind(), ErrorKind::Conflict);
        let error = write(&store, WriteMode::Append, "stalled").await.unwrap_err();
        assert_error(&error, ErrorKind::Conflict, &["fenced"]);
        let dataset = Dataset::open(Arc::clone(&store), PATH).await.unwrap();
        assert_eq!((dataset.version(), dataset.statistics().rows), (3, 6));
        history::check(store.as_ref(), PATH).await;
    }
}

#[tokio::test]
async fn a_stalled_writer_cannot_bring_an_old_version_back() {
    for origin in [Origin::new(false), Origin::new(true)] {
        let store = origin.store();
        write(&store, WriteMode::Create, "first").await.unwrap();
        // Built on version 1: an append that wants to be version 2, and one whose version 2 was made, but nobody told it.
        let mut stalled = builder(&store, WriteMode::Append, "stalled", 2).build().await.unwrap();
        stalled.write(&batch_of(&schema(), &some("stalled", 3))).await.unwrap();
        let mut unaware = builder(&store, WriteMode::Append, "second", 2).build().await.unwrap();
        unaware.write(&batch_of(&schema(), &some("second", 3))).await.unwrap();
        let second = write(&store, WriteMode::Append, "second").await.unwrap();
        let old = object_store::path::Path::from(format!("{PATH}/_smb/{:020}.json", second.version()));
        let manifest = store.get_opts(&old, Default::default()).await.unwrap().bytes().await.unwrap();
        write(&store, WriteMode::Replace, "third").await.unwrap();
        let report = Dataset::vacuum(Arc::clone(&store), PATH, &vacuum_options(Duration::ZERO)).await.unwrap();
        assert_eq!(report.emptied_versions, [1, 2]);

        let options = object_store::PutMode::Create.into();
        let put = store.put_opts(&old, manifest.into(), options).await.unwrap_err();
        assert!(matches!(put, object_store::Error::AlreadyExists { .. }), "numbers stay taken: {put}");
        assert_error(&stalled.commit().await.unwrap_err(), ErrorKind::Conflict, &["vacuumed"]);
        // Its rows were there and were replaced since: it is told so, and nothing changes.
        let done = unaware.commit().await.unwrap();
        assert_eq!((done.version(), done.operation()), (3, Operation::Replace));
        let dataset = Dataset::open(Arc::clone(&store), PATH).await.unwrap();
        assert_eq!(dataset.version(), 3);
        assert_eq!(sorted(rows(&Scan::new(&dataset).plan().unwrap()).await), sorted(some("third", 3)));
        assert_valid(&dataset).await;
    }
}

#[test]
fn rows_of_racing_writers_are_read_by_name() {
    // The checks of this file are about runs; this one is about rows, in all orders of two appends.
    let race = Race::new(&[APPEND, APPEND], false);
    let store = race.origin.store();
    let (a, b) = (race.writes[0].clone().unwrap(), race.writes[1].clone().unwrap());
    block_on(async {
        let (a, b) = futures::join!(
            a.0.commit(Arc::clone(&store), [a.1.clone()]),
            b.0.commit(Arc::clone(&store), [b.1.clone()])
        );
        let versions: BTreeSet<u64> = [a.unwrap().version(), b.unwrap().version()].into();
        assert_eq!(versions, BTreeSet::from([3, 4]));
        let newest = Dataset::open(Arc::clone(&store), PATH).await.unwrap();
        let mut counts: BTreeMap<Row, usize> = BTreeMap::new();
        for row in rows(&Scan::new(&newest).plan().unwrap()).await {
            *counts.entry(row).or_default() += 1;
        }
        let expected =
            ["second", "client-0", "client-1"].into_iter().flat_map(|name| some(name, 3)).map(|row| (row, 1)).collect();
        assert_eq!(counts, expected);
    });
}
