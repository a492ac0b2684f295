//! T5 and T6: what every user listened to in a year, from the plays themselves, or from stored states and the plays of the last week.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::Int64Type;
use futures::future::try_join_all;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde_json::{Map, Value, json};
use sort_merge_bucket::{
    Aggregate, AggregatePlan, Dataset, Parallelism, Periods, RefreshAction, RefreshStep, Rollup, Sum, TopK,
    WriteOptions,
};

use crate::join::reduce_slots;
use crate::plays::week_name;
use crate::question::Answer;
use crate::reduce::Reduce;
use crate::{Failure, Options};

/// Weeks are numbered from 1.
const LAST_WEEK: u64 = 52;
const WEEKS_OF_QUARTER: usize = 13;
/// The period of the weeks so far.
const TO_DATE: &str = "to-date";
const TOP: usize = 5;

/// The aggregates and the columns that they are.
fn total() -> (&'static str, Sum) {
    ("ms", Sum::of("ms_played"))
}

fn top_artists() -> (&'static str, TopK) {
    ("top_artists", TopK::of("artist_id").weighted_by("ms_played").with_limit(TOP))
}

/// How the stored periods make a year.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// The weeks before are stored as one state, and merged with the last week's as they are read.
    Read,
    /// The weeks so far are stored as one state, which grows.
    Store,
    /// Weeks are stored as quarters, quarters as the year.
    Tree,
}

impl Shape {
    fn of(question: &str) -> Result<Self, Failure> {
        match question {
            "T6-read" => Ok(Self::Read),
            "T6-store" => Ok(Self::Store),
            "T6-tree" => Ok(Self::Tree),
            other => Err(format!("no question {other} of stored states").into()),
        }
    }

    /// Adds the periods that are merged from these weeks.
    fn add_to(self, periods: Periods, weeks: &[String]) -> Periods {
        match self {
            Self::Read => periods.with_merged(TO_DATE, weeks[..LAST_WEEK as usize - 1].iter().cloned()),
            Self::Store => periods.with_merged(TO_DATE, weeks.iter().cloned()),
            Self::Tree => {
                let quarters = weeks.chunks(WEEKS_OF_QUARTER).enumerate();
                let quarters: Vec<_> = quarters.map(|(at, weeks)| (format!("quarter-{}", at + 1), weeks)).collect();
                let add =
                    |all: Periods, (name, weeks): &(String, &[String])| all.with_merged(name, weeks.iter().cloned());
                quarters.iter().fold(periods, add).with_merged("year", quarters.iter().map(|(name, _)| name.as_str()))
            }
        }
    }
}

/// The weekly datasets of a folder, opened.
async fn open(store: &Arc<dyn ObjectStore>, weeks: u64) -> Result<Vec<(String, Dataset)>, Failure> {
    let open = |week| async move {
        let name = week_name(week);
        let dataset = Dataset::open(Arc::clone(store), name.as_str()).await?;
        Ok::<_, Failure>((name, dataset))
    };
    try_join_all((1..=weeks).map(open)).await
}

/// T5: from the plays of all weeks.
pub(crate) async fn from_plays(options: &Options, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let weeks = open(&local(&options.from)?, LAST_WEEK).await?;
    let plays: Vec<Dataset> = weeks.into_iter().map(|(_, plays)| plays).collect();
    let ((ms, sum), (top, artists)) = (total(), top_artists());
    let plan = Aggregate::over(plays).aggregate(ms, sum).aggregate(top, artists).plan()?;
    answer(plan, threads).await
}

/// Stores the states of all weeks but the last, and what every shape merges of them. Says how large they are.
pub(crate) async fn store_states(options: &Options, threads: NonZeroUsize) -> Result<Value, Failure> {
    fs::create_dir_all(&options.to)?;
    let weeks = open(&local(&options.from)?, LAST_WEEK - 1).await?;
    let rollup = rollup(options, threads)?;
    let steps = rollup.refresh(periods(&weeks, &[Shape::Store, Shape::Tree])).await?.run().await?;
    let year = rollup.partial(TO_DATE).await?;
    let mut bytes = Map::new();
    for step in steps {
        bytes.insert(step.period, step.written_bytes.into());
    }
    Ok(json!({ "users": year.statistics().rows, "bytes": bytes }))
}

/// What T6 came to.
#[derive(Debug)]
pub(crate) struct Refreshed {
    pub(crate) answer: Answer,
    /// Bytes.
    pub(crate) written: u64,
    /// What was done, with the seconds after which it was.
    pub(crate) phases: Vec<Value>,
}

/// T6: one more week than is stored. Makes and stores its state, and what the shape merges of it, and answers from the fewest states that are the year.
pub(crate) async fn from_states(
    question: &str,
    options: &Options,
    threads: NonZeroUsize,
) -> Result<Refreshed, Failure> {
    let shape = Shape::of(question)?;
    let started = Instant::now();
    let mut phases = vec![];
    let mut phase = |what: String| phases.push(json!([what, started.elapsed().as_secs_f64()]));
    let weeks = open(&local(&options.from)?, LAST_WEEK).await?;
    phase("opened".into());
    let rollup = rollup(options, threads)?;
    let periods = periods(&weeks, &[shape]);
    let year = periods.cover(weeks.into_iter().map(|(week, _)| week))?;
    let refresh = rollup.refresh(periods).await?;
    phase("planned".into());
    // If datasets were written anew since the states were stored, this would measure another thing.
    let stale = |step: &&RefreshStep| match step.action {
        RefreshAction::Compute => step.period != week_name(LAST_WEEK),
        RefreshAction::Merge => step.period == TO_DATE,
        _ => false,
    };
    if let Some(step) = refresh.steps().iter().find(stale) {
        return Err(format!("the stored states are not those of the datasets, prepare them again: {step}").into());
    }
    let mut written = 0;
    let told = |step: &RefreshStep| {
        if !matches!(step.action, RefreshAction::Reuse | RefreshAction::Leave) {
            written += step.written_bytes;
            phase(format!("{step}; {} bytes of {}", step.written_bytes, step.input_bytes));
        }
    };
    refresh.run_with(told).await?;
    let answer = answer(rollup.plan(year).await?, threads).await?;
    phase("answered".into());
    Ok(Refreshed { answer, written, phases })
}

/// Makes a folder of stored states, which a question adds to, of the same files: none is ever changed, new ones take their names.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), target));
            } else {
                fs::hard_link(entry.path(), target)?;
            }
        }
    }
    Ok(())
}

fn local(folder: &Path) -> Result<Arc<dyn ObjectStore>, Failure> {
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?))
}

/// The stored states of the folder that is written to.
fn rollup(options: &Options, threads: NonZeroUsize) -> Result<Rollup, Failure> {
    let write_options: WriteOptions = options.write.clone().with_spill_dir(&options.to);
    let ((ms, sum), (top, artists)) = (total(), top_artists());
    let rollup = Rollup::builder(local(&options.to)?, "listening")
        .aggregate(ms, sum)
        .aggregate(top, artists)
        .with_write_options(write_options)
        .with_parallelism(Parallelism::Slots(threads));
    Ok(rollup.build()?)
}

fn periods(weeks: &[(String, Dataset)], shapes: &[Shape]) -> Periods {
    let names: Vec<String> = weeks.iter().map(|(name, _)| name.clone()).collect();
    let of_rows = weeks.iter().fold(Periods::new(), |all, (name, plays)| all.with_rows(name, plays));
    shapes.iter().fold(of_rows, |all, shape| shape.add_to(all, &names))
}

async fn answer(plan: AggregatePlan, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let listening: Listening = reduce_slots(plan, threads, Listening::default).await?;
    let mut answer = Answer::from([
        ("rows".to_owned(), listening.users.to_string()),
        ("sum(ms)".to_owned(), listening.ms.to_string()),
    ]);
    for (rank, (ms, artist)) in listening.ms_of_rank.iter().zip(listening.artist_of_rank).enumerate() {
        answer.insert(format!("sum(ms of rank {})", rank + 1), ms.to_string());
        answer.insert(format!("max(artist of rank {})", rank + 1), artist);
    }
    Ok(answer)
}

/// The results of all users: total time, and by rank the time of all users' artists of that rank and the greatest of these artists.
#[derive(Debug, Default)]
struct Listening {
    users: u64,
    ms: i64,
    ms_of_rank: [i64; TOP],
    artist_of_rank: [String; TOP],
}

impl Reduce for Listening {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let [ms, top] = [total().0, top_artists().0].map(|name| batch.column_by_name(name));
        let (ms, top) = ms.zip(top).ok_or("a result is missing")?;
        self.users += batch.num_rows() as u64;
        self.ms += arrow::compute::sum(ms.as_primitive::<Int64Type>()).unwrap_or(0);
        let ranked = top.as_list::<i32>();
        let entries = ranked.values().as_struct();
        let artists: &StringViewArray = entries.column(0).as_string_view();
        let ms = entries.column(1).as_primitive::<Int64Type>();
        for ends in ranked.offsets().windows(2) {
            for (rank, at) in (ends[0] as usize..ends[1] as usize).enumerate() {
                self.ms_of_rank[rank] += ms.value(at);
                let (artist, greatest) = (artists.value(at), &mut self.artist_of_rank[rank]);
                if artist > greatest.as_str() {
                    artist.clone_into(greatest);
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.users += other.users;
        self.ms += other.ms;
        for rank in 0..TOP {
            self.ms_of_rank[rank] += other.ms_of_rank[rank];
        }
        for (greatest, artist) in self.artist_of_rank.iter_mut().zip(other.artist_of_rank) {
            if artist > *greatest {
                *greatest = artist;
            }
        }
    }
}
