//! Step 3: raw events become datasets, one per week, bucketed by user and sorted by user and time.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use object_store::ObjectStore;
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, WriteOptions};
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

/// Of each of the two writers that work at the same time.
const MEMORY_BUDGET: usize = 256 << 20;

/// What [`write`] makes.
#[derive(Debug)]
pub(crate) struct Datasets {
    /// Plays and contexts of each week.
    pub(crate) weeks: Vec<(Week, Dataset, Dataset)>,
    pub(crate) users: Dataset,
}

/// Reads the raw events of one week after the other and writes `plays/week=…`, `contexts/week=…` and `users`. The witness sees all events.
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
    let mut bytes_read = 0;
    let mut weeks = vec![];
    for week in Week::first(options.weeks) {
        let write = |kind: Kind| {
            let path = format!("{}/week={week}", kind.folder());
            write_one(options, store, kind, path, raw.week(kind, week), &witness)
        };
        let ((plays, plays_read), (contexts, contexts_read)) =
            futures::try_join!(write(Kind::Plays), write(Kind::Contexts))?;
        bytes_read += plays_read + contexts_read;
        weeks.push((week, plays, contexts));
        bar.inc(1);
    }
    let folder = Kind::Users.folder().to_owned();
    let (users, users_read) = write_one(options, store, Kind::Users, folder, vec![raw.users()], &witness).await?;
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

/// Writes the rows of some files as one dataset. Returns it with the bytes of the files.
async fn write_one(
    options: &Options,
    store: &Arc<dyn ObjectStore>,
    kind: Kind,
    path: String,
    files: Vec<PathBuf>,
    witness: &RefCell<Witness>,
) -> Result<(Dataset, u64), Failure> {
    let mut spec = BucketSpec::new(["user_id"], options.buckets)?;
    if kind != Kind::Users {
        spec = spec.with_sort_columns(["played_at"])?;
    }
    let mut writer = DatasetWriter::builder(Arc::clone(store), path, Arc::clone(kind.schema()), spec)
        .with_options(WriteOptions::default().with_memory_budget(MEMORY_BUDGET).with_spill_dir(&options.out))
        .build()
        .await?;
    let (sender, mut batches) = mpsc::channel(AHEAD);
    let reader = std::thread::spawn(move || -> Result<u64, Failure> {
        let mut bytes = 0;
        for file in files {
            bytes += std::fs::metadata(&file)?.len();
            for batch in raw::read(&file)? {
                // Nobody listens any more if the write failed, which is then the error to report.
                if sender.blocking_send(batch?).is_err() {
                    return Ok(bytes);
                }
            }
        }
        Ok(bytes)
    });
    while let Some(batch) = batches.recv().await {
        witness.borrow_mut().observe(kind, &batch)?;
        writer.write(&batch).await?;
    }
    // A reader that failed has sent a part of the rows: there must be no commit.
    let bytes = reader.join().map_err(|_| "a thread panicked")??;
    Ok((writer.commit().await?, bytes))
}
