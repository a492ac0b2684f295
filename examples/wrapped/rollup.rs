//! Steps 4 to 6: partials of each week, their merge into a year, and what every user hears of it.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::kernels::numeric::div;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use object_store::ObjectStore;
use sort_merge_bucket::{Count, Dataset, Join, Result, Rollup, Source, Sum, SumMap, Target, TopK};

use crate::datasets::Datasets;
use crate::metered::Meter;
use crate::report::{Step, progress};

/// Where partials are kept.
pub(crate) const LISTENING: &str = "listening";
/// The summaries, a row for every user who listened to anything.
pub(crate) const WRAPPED: &str = "wrapped";
/// How many songs, artists and genres a summary names.
pub(crate) const TOP: usize = 5;

/// The period that all weeks are merged to.
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

/// Joins the plays of each week with their contexts, on user and time, and aggregates them by user.
pub(crate) async fn weeks(listening: &Rollup, datasets: &Datasets, meter: &Meter) -> Result<Step> {
    let bar = progress("weekly partials", datasets.weeks.len() as u32);
    let started = Instant::now();
    let mut rows = 0;
    for (week, plays, contexts) in &datasets.weeks {
        let with_context = Join::left(plays, contexts).with_sort_columns(1);
        rows += listening.update(&week.to_string(), with_context).await?.statistics().rows;
        bar.inc(1);
    }
    let time = started.elapsed();
    bar.finish_and_clear();
    let (bytes_read, bytes_written) = meter.take();
    let remark = "plays joined with contexts".to_owned();
    Ok(Step { name: "weekly partials", rows, bytes_read, bytes_written, time, remark })
}

/// Merges the partials of all weeks; no play is read.
pub(crate) async fn year(listening: &Rollup, datasets: &Datasets, meter: &Meter) -> Result<(Dataset, Step)> {
    let started = Instant::now();
    let weeks = datasets.weeks.iter().map(|(week, _, _)| week.to_string());
    let year = listening.merge(YEAR, weeks).await?;
    let (time, rows) = (started.elapsed(), year.statistics().rows);
    let (bytes_read, bytes_written) = meter.take();
    let remark = "partials merged".to_owned();
    Ok((year, Step { name: YEAR, rows, bytes_read, bytes_written, time, remark }))
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
    let target = Target::new(Arc::clone(users.store()), WRAPPED).with_schema(Arc::clone(&schema));
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
