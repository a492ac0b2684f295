//! Steps 4 to 6: partials of each week, their merge into quarters and the year, and what every user hears of it.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::kernels::numeric::div;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStore;
use sort_merge_bucket::{
    Count, Dataset, Join, Periods, RefreshAction, RefreshStep, Result, Rollup, Source, Sum, SumMap, Target, TopK,
    WriteMode,
};

use crate::datasets::Datasets;
use crate::metered::Meter;
use crate::report::{Step, progress};

/// Where partials are kept.
pub(crate) const LISTENING: &str = "listening";
/// The summaries, a row for every user who listened to anything.
pub(crate) const WRAPPED: &str = "wrapped";
/// How many songs, artists and genres a summary names.
pub(crate) const TOP: usize = 5;

/// The period that all quarters are merged to.
const YEAR: &str = "year";
const MS_PER_MINUTE: i64 = 60_000;

/// What is kept of the plays of a user.
pub(crate) fn listening(store: &Arc<dyn ObjectStore>) -> Result<Rollup> {
    let top = |column| TopK::of(column).weighted_by("ms_played").with_limit(TOP);
    Rollup::builder(Arc::clone(store), LISTENING)
        .aggregate("plays", Count::rows())
        .aggregate("ms_played", Sum::of("ms_played"))
        .aggregate("top_songs", top("track_id"))
        .aggregate("top_artists", top("artist_id"))
        .aggregate("top_genres", top("genre"))
        .aggregate("devices", SumMap::of("device").weighted_by("ms_played"))
        .build()
}

/// Brings partials up to date: joins the plays of each week that is new or has changed with their contexts, on user and time, aggregates them by user, and
/// merges what changed by it; then no play is read. Returns the year, and the bytes of all weekly partials.
pub(crate) async fn refresh(
    listening: &Rollup,
    datasets: &Datasets,
    meter: &Meter,
) -> Result<(Dataset, u64, [Step; 2])> {
    let periods = datasets.weeks.iter().fold(Periods::new(), |all, (week, plays, contexts)| {
        all.with_rows(week.to_string(), Join::left(plays, contexts).with_sort_columns(1))
    });
    let periods = periods.grouped_by(quarter).grouped_by(|_| Some(YEAR.to_owned()));
    let refresh = listening.refresh(periods).await?;
    let is_done = |step: &RefreshStep| !matches!(step.action, RefreshAction::Reuse | RefreshAction::Leave);
    let is_first = refresh.steps().iter().all(is_done);

    let bar = progress("partials", refresh.steps().len() as u32);
    let mut steps = [("weekly partials", "made of rows"), (YEAR, "merged")]
        .map(|(name, remark)| (Step { name, ..Step::default() }, 0, remark));
    let mut started = Instant::now();
    meter.take();
    let done = refresh.run_with(|step| {
        bar.inc(1);
        let merged = matches!(step.action, RefreshAction::Merge | RefreshAction::Extend);
        let (sum, count, _) = &mut steps[usize::from(merged)];
        let (read, written) = meter.take();
        sum.time += started.elapsed();
        sum.bytes_read += read;
        sum.bytes_written += written;
        *count += usize::from(is_done(step));
        started = Instant::now();
    });
    let done = done.await?;
    bar.finish_and_clear();

    let year = listening.partial(YEAR).await?;
    let (mut rows, mut bytes) = (0, 0);
    for (week, _, _) in &datasets.weeks {
        let statistics = listening.partial(&week.to_string()).await?.statistics();
        rows += statistics.rows;
        bytes += statistics.bytes;
    }
    let reused = done.iter().filter(|step| step.action == RefreshAction::Reuse).count();
    let mut steps = steps.map(|(step, count, remark)| Step { remark: format!("{count} {remark}"), ..step });
    steps[0].rows = rows;
    steps[1].rows = year.statistics().rows;
    steps[1].remark += &format!(", {reused} of {} periods reused", done.len());
    if !is_first {
        done.iter().filter(|step| is_done(step)).for_each(|step| println!("  {step}"));
    }
    Ok((year, bytes, steps))
}

/// `2025-Q1` of `2025-W07`; weeks 52 and 53 are in the fourth quarter.
fn quarter(week: &str) -> Option<String> {
    let (year, number) = week.split_once("-W")?;
    let number: u32 = number.parse().ok()?;
    Some(format!("{year}-Q{}", (number.saturating_sub(1) / 13 + 1).min(4)))
}

/// Joins users with their year and writes what they hear: sums instead of states, the top of the maps.
pub(crate) async fn summaries(
    listening: &Rollup,
    users: &Dataset,
    year: &Dataset,
    meter: &Meter,
) -> Result<(Dataset, Step)> {
    let started = Instant::now();
    let plan = Join::inner(Source::from(users), Source::from(year)).plan()?;
    let schema = with_minutes(&*listening.finished_schema(plan.schema())?);
    let target =
        Target::new(Arc::clone(users.store()), WRAPPED).with_mode(WriteMode::Replace).with_schema(Arc::clone(&schema));
    let listening = listening.clone();
    let summarise = move |joined: RecordBatch| {
        let finished = listening.finish(&joined)?;
        let minutes = div(&finished["ms_played"], &Int64Array::new_scalar(MS_PER_MINUTE))?;
        let columns: Vec<ArrayRef> = finished.columns().iter().cloned().chain([minutes]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    };
    let wrapped = plan.transform(target, summarise).await?;
    let (time, rows) = (started.elapsed(), wrapped.statistics().rows);
    let (bytes_read, bytes_written) = meter.take();
    let remark = "users joined with their year".to_owned();
    Ok((wrapped, Step { name: WRAPPED, rows, bytes_read, bytes_written, time, remark }))
}

/// Whole minutes after the other columns.
fn with_minutes(schema: &Schema) -> SchemaRef {
    let minutes = Arc::new(Field::new("minutes", DataType::Int64, true));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([minutes]).collect::<Vec<_>>()))
}
