//! Everything that commits, under every fault at every single request: the old or the new version, whole, and once; nothing left over that a vacuum
//! does not find, and nothing gone that it should not.
//!
//! A job runs against a store that fails at one request, in one of the ways of [`FaultyStore`]; everything else is looked at, and tried again, by
//! clients to which nothing happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::basic::Compression;
use sort_merge_bucket::{
    Clock, Dataset, DatasetWriter, DatasetWriterBuilder, Encoding, ErrorKind, Result, Rollup, Scan, Source, Sum,
    Target, VacuumOptions, VacuumReport, WriteId, WriteMode, WriteOptions, WriteTicket, WrittenRuns,
};

use crate::support::data::batch_of;
use crate::support::faulty::{Fault, FaultyStore};
use crate::support::named::{data, schema, some};
use crate::support::oracle::{Row, Value, int, sorted, text};
use crate::support::{assert_valid, history, rows};

type Store = Arc<dyn ObjectStore>;

/// A write that is to be committed.
type Written = Option<(WriteTicket, WrittenRuns)>;

/// The dataset that the plain writes, the transforms and the vacuum work on.
const PATH: &str = "d";

fn builder(store: &Store, path: &str, mode: WriteMode) -> DatasetWriterBuilder {
    DatasetWriter::builder(Arc::clone(store), path, schema(), data().spec(2)).with_mode(mode)
}

async fn write(store: &Store, path: &str, mode: WriteMode, name: &str) -> Result<Dataset> {
    let mut writer = builder(store, path, mode).with_write_id(WriteId::new(name)?).build().await?;
    writer.write(&batch_of(&schema(), &some(name, 4))).await?;
    writer.commit().await
}

/// A row of more bytes than one part of an upload.
async fn write_large(store: &Store) -> Result<Dataset> {
    let options = WriteOptions::default().with_compression(Compression::UNCOMPRESSED).with_encoding(Encoding::Plain);
    let writer = builder(store, PATH, WriteMode::Append).with_options(options).with_write_id(WriteId::new("job")?);
    let mut writer = writer.build().await?;
    writer.write(&batch_of(&schema(), &[vec![int(0), text(&"0123456789abcdef".repeat(9 << 16))]])).await?;
    writer.commit().await
}

fn rollup(store: &Store) -> Result<Rollup> {
    Rollup::builder(Arc::clone(store), "rollup").aggregate("sum", Sum::of("k")).build()
}

async fn update(store: &Store, week: &str) -> Result<Dataset> {
    let plays = Dataset::open(Arc::clone(store), format!("plays/week={week}")).await?;
    rollup(store)?.update(week, Source::from(&plays)).await
}

/// A vacuum by a clock that is a day ahead.
async fn vacuum(store: &Store, path: &str, retention: Duration) -> Result<VacuumReport> {
    let tomorrow = (SystemTime::now() + Duration::from_secs(24 * 3600)).into();
    let options = VacuumOptions::default()
        .with_retention(retention)
        .with_grace_period(Duration::ZERO)
        .with_clock(Clock::Fixed(tomorrow));
    Dataset::vacuum(Arc::clone(store), path, &options).await
}

const FOR_EVER: Duration = Duration::from_secs(1 << 40);

/// Something that commits, named, so that it can run again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Job {
    Create,
    Append,
    /// The commit of an append that was written before the newest version came.
    Rebase,
    /// In several parts.
    AppendLarge,
    Replace,
    Drop,
    TransformCreate,
    TransformReplace,
    /// A rollup's first, and one that replaces another.
    Update,
    UpdateAgain,
    Merge,
    Vacuum,
}

impl Job {
    async fn run(self, store: Store, written: Written) -> Result<()> {
        let done = match self {
            Self::Rebase => match written {
                Some((ticket, written)) => ticket.commit(store, [written]).await,
                None => panic!("nothing was written"),
            },
            Self::Create => write(&store, PATH, WriteMode::Create, "job").await,
            Self::Append => write(&store, PATH, WriteMode::Append, "job").await,
            Self::AppendLarge => write_large(&store).await,
            Self::Replace => write(&store, PATH, WriteMode::Replace, "job").await,
            Self::Drop => match Dataset::open(store, PATH).await {
                Ok(dataset) => return dataset.drop_dataset().await,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) => Err(e),
            },
            Self::TransformCreate | Self::TransformReplace => {
                let mode = if self == Self::TransformCreate { WriteMode::Create } else { WriteMode::Replace };
                let source = Dataset::open(Arc::clone(&store), "source").await?;
                let target = Target::new(store, PATH).with_mode(mode).with_write_id(WriteId::new("job")?);
                Scan::new(&source).plan()?.transform(target, Ok).await
            }
            Self::Update | Self::UpdateAgain => update(&store, "1").await,
            Self::Merge => rollup(&store)?.merge("year", ["1", "2"]).await,
            Self::Vacuum => return vacuum(&store, PATH, Duration::ZERO).await.map(|_| ()),
        };
        done.map(|_| ())
    }

    fn path(self) -> &'static str {
        match self {
            Self::Update | Self::UpdateAgain => "rollup/period=1",
            Self::Merge => "rollup/period=year",
            _ => PATH,
        }
    }

    /// What there is before the job, and a write that has not been committed.
    async fn prepare(self) -> (InMemory, Written) {
        let memory = Arc::new(InMemory::new());
        let store: Store = Arc::clone(&memory) as _;
        match self {
            Self::Update => drop(write(&store, "plays/week=1", WriteMode::Create, "plays").await.unwrap()),
            Self::UpdateAgain => {
                write(&store, "plays/week=1", WriteMode::Create, "plays").await.unwrap();
                update(&store, "1").await.unwrap();
                write(&store, "plays/week=1", WriteMode::Append, "late").await.unwrap();
            }
            Self::Merge => {
                for week in ["1", "2"] {
                    write(&store, &format!("plays/week={week}"), WriteMode::Create, "plays").await.unwrap();
                    update(&store, week).await.unwrap();
                }
            }
            _ => {
                let mut source = data();
                source.writes[0].rows = some("job", 4);
                source.write(&store, "source").await;
            }
        }
        let mut lost = None;
        if [
            Self::Append,
            Self::Rebase,
            Self::AppendLarge,
            Self::Replace,
            Self::Drop,
            Self::TransformReplace,
            Self::Vacuum,
        ]
        .contains(&self)
        {
            write(&store, PATH, WriteMode::Create, "first").await.unwrap();
            if self == Self::Vacuum {
                write(&store, PATH, WriteMode::Append, "more").await.unwrap();
                write(&store, PATH, WriteMode::Replace, "second").await.unwrap();
            }
            let ticket = builder(&store, PATH, WriteMode::Append).with_write_id(WriteId::new("lost").unwrap());
            let ticket = ticket.begin().await.unwrap();
            let mut writer = ticket.writer(Arc::clone(&store), 0).unwrap();
            writer.write(&batch_of(&schema(), &some("lost", 4))).await.unwrap();
            lost = Some((ticket, writer.finish().await.unwrap()));
            write(&store, PATH, WriteMode::Append, "old").await.unwrap();
        }
        (memory.fork(), lost)
    }
}

/// The rows of a version, the newest if none is named; `None` if there is none.
async fn visible(store: &Store, path: &str, version: Option<u64>) -> Option<Vec<Row>> {
    let opened = match version {
        Some(version) => Dataset::open_version(Arc::clone(store), path, version).await,
        None => Dataset::open(Arc::clone(store), path).await,
    };
    match opened {
        Ok(dataset) => {
            let found = rows(&Scan::new(&dataset).plan().unwrap()).await;
            let short = |value: Value| match value {
                Value::Text(text) if text.len() > 100 => int(text.len() as i128),
                other => other,
            };
            Some(sorted(found.into_iter().map(|row| row.into_iter().map(short).collect()).collect()))
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{path} version {version:?}: {error}");
            None
        }
    }
}

/// All versions before a job.
struct Before {
    newest: Option<Vec<Row>>,
    versions: Vec<Option<Vec<Row>>>,
}

impl Before {
    async fn of(store: &Store, path: &str) -> Self {
        let mut versions = vec![];
        for version in 1..=history::versions(store, path).await.len() {
            versions.push(visible(store, path, Some(version as u64)).await);
        }
        Self { newest: visible(store, path, None).await, versions }
    }

    /// Every version is as it was; under a vacuum, it may be gone as well.
    async fn assert_kept(&self, store: &Store, job: Job, context: &str) {
        for (at, rows) in self.versions.iter().enumerate() {
            let found = visible(store, job.path(), Some(at as u64 + 1)).await;
            assert!(
                job == Job::Vacuum && found.is_none() || found == *rows,
                "{context}: version {} is {found:?}",
                at + 1
            );
        }
    }
}

/// When effects that come late do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Landing {
    AfterJob,
    AfterRetry,
}

/// Everything that may happen at a request: by itself, and from then on.
fn faults(at: usize) -> Vec<(Fault, Landing)> {
    let (once, on) = (at..at + 1, at..usize::MAX);
    let mut faults = vec![
        (Fault::Fails(once.clone()), Landing::AfterJob),
        (Fault::Fails(on.clone()), Landing::AfterJob),
        (Fault::LosesAnswer(once.clone()), Landing::AfterJob),
        (Fault::LosesAnswer(on.clone()), Landing::AfterJob),
        (Fault::Dies { at, effective: false }, Landing::AfterJob),
        (Fault::Dies { at, effective: true }, Landing::AfterJob),
    ];
    for after in [Some(1), Some(2)] {
        faults.push((Fault::Lands(once.clone(), after), Landing::AfterJob));
    }
    for landing in [Landing::AfterJob, Landing::AfterRetry] {
        faults.push((Fault::Lands(once.clone(), None), landing));
        faults.push((Fault::Lands(on.clone(), None), landing));
    }
    faults
}

/// What was tried, for the log.
#[derive(Default)]
struct Figures {
    points: usize,
    trials: usize,
    faults: AtomicUsize,
}

impl Figures {
    fn print(&self, job: Job) {
        let faults = self.faults.load(Ordering::SeqCst);
        println!("{job:?}: {} requests, {} trials, {faults} faults", self.points, self.trials);
        assert!(self.points > 4 && self.trials >= 8 * self.points);
    }
}

/// The job with a fault, as far as it comes.
async fn attempt(
    job: Job,
    written: &Written,
    store: &Store,
    fault: Fault,
    figures: &mut Figures,
) -> (Option<Result<()>>, FaultyStore) {
    let faulty = FaultyStore::new(Arc::clone(store), Some(fault));
    let result = faulty.run(job.run(Arc::new(faulty.clone()), written.clone())).await;
    figures.trials += 1;
    figures.faults.fetch_add(faulty.faults(), Ordering::SeqCst);
    (result, faulty)
}

async fn every_fault(job: Job) {
    let (origin, written) = job.prepare().await;
    let fork = || -> Store { Arc::new(origin.fork()) };
    let before = Before::of(&fork(), job.path()).await;
    let (done, mut figures) = (fork(), Figures::default());
    let counted = FaultyStore::new(Arc::clone(&done), None);
    job.run(Arc::new(counted.clone()), written.clone()).await.unwrap();
    figures.points = counted.requests();
    let new = visible(&done, job.path(), None).await;
    assert_eq!(new == before.newest, job == Job::Vacuum);

    for at in 0..figures.points {
        for (fault, landing) in faults(at) {
            let context = format!("{job:?}, {fault:?} of {}, {landing:?}", figures.points);
            let store = fork();
            let (result, faulty) = attempt(job, &written, &store, fault, &mut figures).await;
            let mut now = visible(&store, job.path(), None).await;
            assert!(now == before.newest || now == new, "{context}: {result:?}, and neither old nor new: {now:?}");
            match &result {
                Some(Ok(())) => assert_eq!(now, new, "{context}"),
                Some(Err(e)) if e.kind() == ErrorKind::Store => assert_eq!(now, before.newest, "{context}: {e}"),
                Some(Err(e)) => assert_eq!(e.kind(), ErrorKind::CommitUnknown, "{context}: {e}"),
                None => {}
            }
            if landing == Landing::AfterJob {
                faulty.land().await;
                now = visible(&store, job.path(), None).await;
                assert!(now == before.newest || now == new, "{context}: late: {now:?}");
            }
            before.assert_kept(&store, job, &context).await;
            if let Err(e) = job.run(Arc::clone(&store), written.clone()).await {
                panic!("{context}: {result:?}, and running again fails: {e:?}");
            }
            assert_eq!(visible(&store, job.path(), None).await, new, "{context}");
            faulty.land().await;
            assert_eq!(visible(&store, job.path(), None).await, new, "{context}: late");
            before.assert_kept(&store, job, &context).await;
            let versions = history::check(&store, job.path()).await;
            assert_eq!(versions.len(), before.versions.len() + 1, "{context}: one version, however often it was tried");
            assert_swept(&store, job.path(), &context).await;
        }
    }
    figures.print(job);
}

/// A vacuum removes what belongs to no version, and only that; one that keeps no old versions leaves the newest.
async fn assert_swept(store: &Store, path: &str, context: &str) {
    let versions = history::versions(store, path).await;
    let newest = visible(store, path, None).await;
    let before = history::data(store, path).await;
    let named =
        versions.iter().filter_map(|version| version.whole.as_ref()).flat_map(|whole| whole.runs.clone()).collect();
    let report = vacuum(store, path, FOR_EVER).await.unwrap();
    assert_eq!(history::data(store, path).await, named, "{context}: {report}");
    assert_eq!((report.deleted.len(), report.emptied_versions.len()), (before.len() - named.len(), 0), "{context}");
    assert!(report.waiting.is_empty() && report.unknown.is_empty(), "{context}: {report:?}");

    vacuum(store, path, Duration::ZERO).await.unwrap();
    let versions = history::check(store, path).await;
    let (last, older) = versions.split_last().unwrap();
    assert!(older.iter().all(|version| version.whole.is_none()), "{context}");
    assert_eq!(history::data(store, path).await, last.whole.as_ref().unwrap().runs, "{context}");
    assert_eq!(visible(store, path, None).await, newest, "{context}");
    if newest.is_some() {
        assert_valid(&Dataset::open(Arc::clone(store), path).await.unwrap()).await;
    }
    assert!(vacuum(store, path, Duration::ZERO).await.unwrap().is_empty(), "{context}");
}

#[tokio::test]
async fn a_creation_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Create).await;
}

#[tokio::test]
async fn an_append_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Append).await;
}

#[tokio::test]
async fn an_append_that_follows_another_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Rebase).await;
}

#[tokio::test]
async fn an_append_in_parts_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::AppendLarge).await;
}

#[tokio::test]
async fn a_replace_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Replace).await;
}

#[tokio::test]
async fn a_drop_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Drop).await;
}

#[tokio::test]
async fn a_transform_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::TransformCreate).await;
    every_fault(Job::TransformReplace).await;
}

#[tokio::test]
async fn an_update_of_a_rollup_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Update).await;
    every_fault(Job::UpdateAgain).await;
}

#[tokio::test]
async fn a_merge_of_a_rollup_under_any_fault_is_all_or_nothing_and_once() {
    every_fault(Job::Merge).await;
}

#[tokio::test]
async fn a_vacuum_under_any_fault_changes_no_row_and_is_finished_by_the_next() {
    every_fault(Job::Vacuum).await;
}

#[tokio::test]
async fn a_write_that_goes_on_after_a_vacuum_under_any_fault_commits_whole_or_not_at_all() {
    let job = Job::Vacuum;
    let (origin, lost) = job.prepare().await;
    let (ticket, written) = lost.unwrap();
    let fork = || -> Store { Arc::new(origin.fork()) };
    let old = visible(&fork(), PATH, None).await.unwrap();
    let with_lost = sorted(old.iter().cloned().chain(some("lost", 4)).collect());
    let (done, mut figures) = (fork(), Figures::default());
    let counted = FaultyStore::new(Arc::clone(&done), None);
    job.run(Arc::new(counted.clone()), None).await.unwrap();
    figures.points = counted.requests();
    let error = ticket.commit(Arc::clone(&done), [written.clone()]).await.unwrap_err();
    assert!([ErrorKind::Conflict, ErrorKind::NotFound].contains(&error.kind()), "{error}");

    let mut committed = 0;
    for at in 0..figures.points {
        for (fault, landing) in faults(at) {
            let context = format!("{fault:?} of {}, {landing:?}", figures.points);
            let store = fork();
            let (result, faulty) = attempt(job, &None, &store, fault, &mut figures).await;
            if landing == Landing::AfterJob {
                faulty.land().await;
            }
            let commit = ticket.commit(Arc::clone(&store), [written.clone()]).await;
            let now = visible(&store, PATH, None).await.unwrap();
            match &commit {
                Ok(_) => {
                    assert_eq!(now, with_lost, "{context}: {result:?}");
                    committed += 1;
                }
                Err(e) => {
                    assert!([ErrorKind::Conflict, ErrorKind::NotFound].contains(&e.kind()), "{context}: {e}");
                    assert_eq!(now, old, "{context}: {result:?}");
                }
            }
            faulty.land().await;
            job.run(Arc::clone(&store), None).await.unwrap();
            assert_eq!(visible(&store, PATH, None).await.unwrap(), now, "{context}");
            history::check(&store, PATH).await;
            assert_swept(&store, PATH, &context).await;
        }
    }
    assert!(committed > 0 && committed < figures.trials, "{committed} of {} came before the fence", figures.trials);
    figures.print(job);
}
