//! Step 3: raw events become datasets, one per week, bucketed by user and sorted by user and time.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use object_store::ObjectStore;
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, ErrorKind, WriteMode, WriteOptions};
use tokio::sync::mpsc;

use crate::Failure;
use crate::calendar::Week;
use crate::metered::Meter;
use crate::options::Options;
use crate::raw::{self, Kind, Raw};
use crate::report::{Step, progress};
use crate::witness::Witness;

/// Batches that may be read before the writer takes them.
const AHEAD: usize = 8;

/// The property of a dataset that says how many raw files it was made from.
const RAW_FILES: &str = "wrapped.raw-files";

/// Of each of the two writers that work at the same time.
const MEMORY_BUDGET: usize = 256 << 20;

/// What [`write`] makes.
#[derive(Debug)]
pub(crate) struct Datasets {
    /// Plays and contexts of each week.
    pub(crate) weeks: Vec<(Week, Dataset, Dataset)>,
    pub(crate) users: Dataset,
}

/// Reads the raw events of one week after the other and writes `plays/week=…`, `contexts/week=…` and `users`, or what of them is new. The witness
/// sees all events.
pub(crate) async fn write(
    options: &Options,
    store: &Arc<dyn ObjectStore>,
    raw: &Raw,
    witness: Witness,
    meter: &Meter,
) -> Result<(Datasets, Witness, Step), Failure> {
    let bar = progress("datasets", options.weeks);
    let started = Instant::now();
    // Both writers of a week belong to one task.
    let witness = RefCell::new(witness);
    let kept = Cell::new(0);
    let mut bytes_read = 0;
    let mut weeks = vec![];
    for week in Week::first(options.weeks) {
        let write = |kind: Kind| {
            let path = format!("{}/week={week}", kind.folder());
            write_one(options, store, kind, path, raw.week(kind, week), &witness, &kept)
        };
        let ((plays, plays_read), (contexts, contexts_read)) =
            futures::try_join!(write(Kind::Plays), write(Kind::Contexts))?;
        bytes_read += plays_read + contexts_read;
        weeks.push((week, plays, contexts));
        bar.inc(1);
    }
    let folder = Kind::Users.folder().to_owned();
    let (users, users_read) =
        write_one(options, store, Kind::Users, folder, vec![raw.users()], &witness, &kept).await?;
    bytes_read += users_read;
    let time = started.elapsed();
    bar.finish_and_clear();

    let datasets = Datasets { weeks, users };
    let (mut rows, mut runs) = (0, 0);
    for statistics in datasets.all().map(Dataset::statistics) {
        rows += statistics.rows;
        runs += statistics.runs;
    }
    let remark = format!("{} datasets, {runs} files", datasets.all().count());
    let remark = match kept.get() {
        0 => remark,
        kept => format!("{remark}; {kept} of them were there"),
    };
    let (_, bytes_written) = meter.take();
    let step = Step { name: "datasets", rows, bytes_read, bytes_written, time, remark };
    Ok((datasets, witness.into_inner(), step))
}

impl Datasets {
    /// Of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.all().map(|dataset| dataset.statistics().bytes).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Dataset> {
        self.weeks.iter().flat_map(|(_, plays, contexts)| [plays, contexts]).chain([&self.users])
    }
}

/// Writes the rows of some files as one dataset, or appends those of files that it was not made from yet. Returns it with the bytes of the files.
async fn write_one(
    options: &Options,
    store: &Arc<dyn ObjectStore>,
    kind: Kind,
    path: String,
    files: Vec<PathBuf>,
    witness: &RefCell<Witness>,
    kept: &Cell<usize>,
) -> Result<(Dataset, u64), Failure> {
    let there = match Dataset::open(Arc::clone(store), path.clone()).await {
        Ok(dataset) => Some(dataset),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let known = match &there {
        Some(dataset) => dataset.properties().get(RAW_FILES).ok_or("a dataset without its number of files")?.parse()?,
        None => 0,
    };
    let total = files.len();
    let mut spec = BucketSpec::new(["user_id"], options.buckets)?;
    if kind != Kind::Users {
        spec = spec.with_sort_columns(["played_at"])?;
    }
    let mut writer = match &there {
        Some(_) if known == total => None,
        _ => {
            let options = WriteOptions::default().with_memory_budget(MEMORY_BUDGET).with_spill_dir(&options.out);
            let builder = DatasetWriter::builder(Arc::clone(store), path, Arc::clone(kind.schema()), spec);
            let builder = builder.with_mode(WriteMode::Append).with_property(RAW_FILES, total.to_string());
            Some(builder.with_options(options).build().await?)
        }
    };
    let (sender, mut batches) = mpsc::channel(AHEAD);
    let reader = std::thread::spawn(move || -> Result<u64, Failure> {
        let mut bytes = 0;
        for (number, file) in files.into_iter().enumerate() {
            bytes += std::fs::metadata(&file)?.len();
            for batch in raw::read(&file)? {
                // Nobody listens any more if the write failed, which is then the error to report.
                if sender.blocking_send((number, batch?)).is_err() {
                    return Ok(bytes);
                }
            }
        }
        Ok(bytes)
    });
    while let Some((number, batch)) = batches.recv().await {
        witness.borrow_mut().observe(kind, &batch)?;
        if let Some(writer) = writer.as_mut().filter(|_| number >= known) {
            writer.write(&batch).await?;
        }
    }
    // A reader that failed has sent a part of the rows: there must be no commit.
    let bytes = reader.join().map_err(|_| "a thread panicked")??;
    match (writer, there) {
        (Some(writer), _) => Ok((writer.commit().await?, bytes)),
        (None, Some(dataset)) => {
            kept.set(kept.get() + 1);
            Ok((dataset, bytes))
        }
        (None, None) => Err("neither a dataset nor a writer of it".into()),
    }
}
