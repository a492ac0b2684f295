//! Rollups: partial aggregates per period, stored as datasets and merged into longer periods.
//!
//! * `periods`: which periods there are and what each is made of; `refresh`: what of it is stale and why, and making it anew.
//! * `provenance`: what a partial was made from, so that it is made again only if that changed.
//!
//! ```text
//! plays/week=2025-W01 ──update──> listening/period=2025-W01 ┐
//! plays/week=2025-W02 ──update──> listening/period=2025-W02 ┼──merge──> listening/period=2025 ──finish──> results
//! plays/week=2025-W03 ──update──> listening/period=2025-W03 ┘
//! ```
//!
//! Partials hold the states of aggregates, one row per key; they are bucketed and sorted as what they were made from, so that merging a year is a
//! k-way merge of 52 small datasets.

mod periods;
mod provenance;
mod refresh;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{filter, is_not_null, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::aggregate::Aggregator;
use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Clock, WriteId};
use crate::partitions::Partitions;
use crate::plan::{Aggregate, AggregateInput, AggregatePlan, Named, PlanOptions, Problems};
use crate::run::Parallelism;
use crate::schema::{canonical_array, canonical_type};
use crate::transform::Target;
use crate::write::{WriteMode, WriteOptions};

use provenance::Provenance;

pub use periods::Periods;
pub use refresh::{Refresh, RefreshAction, RefreshReason, RefreshStep};

/// The folder of a period.
const FOLDER_PREFIX: &str = "period=";

/// Aggregates of keyed data per period, kept under one prefix of a store: each period is computed once, from its rows or from shorter periods.
///
/// Every period is a dataset of its own, `<path>/period=<name>`, with a row per key: the key columns and one column of states per aggregate. Names of
/// periods are the caller's; nothing interprets them.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
/// use arrow::datatypes::Int64Type;
/// use futures::TryStreamExt;
/// use object_store::{ObjectStore, memory::InMemory};
/// use sort_merge_bucket::{BucketSpec, DatasetWriter, Parallelism, Rollup, Sum, TopK};
///
/// # #[tokio::main] async fn main() -> sort_merge_bucket::Result<()> {
/// # async fn write(store: &Arc<dyn ObjectStore>, path: &str, rows: [Vec<i64>; 3]) -> sort_merge_bucket::Result<sort_merge_bucket::Dataset> {
/// #     let columns = ["user_id", "artist_id", "ms_played"].into_iter().zip(rows.map(|v| Arc::new(Int64Array::from(v)) as ArrayRef));
/// #     let batch = RecordBatch::try_from_iter(columns)?;
/// #     let spec = BucketSpec::new(["user_id"], 4)?;
/// #     let mut writer = DatasetWriter::builder(store.clone(), path, batch.schema(), spec).build().await?;
/// #     writer.write(&batch).await?;
/// #     writer.commit().await
/// # }
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// // user_id, artist_id, ms_played
/// let week_1 = write(&store, "plays/week=2025-W01", [vec![7, 7, 7], vec![1, 2, 3], vec![30, 20, 29]]).await?;
/// let week_2 = write(&store, "plays/week=2025-W02", [vec![7, 7, 9], vec![4, 3, 1], vec![31, 30, 5]]).await?;
///
/// let listening = Rollup::builder(store.clone(), "listening")
///     .aggregate("ms_played", Sum::of("ms_played"))
///     .aggregate("top_artists", TopK::of("artist_id").weighted_by("ms_played").with_limit(1))
///     .build()?;
/// listening.update("2025-W01", &week_1).await?;
/// listening.update("2025-W02", &week_2).await?;
/// listening.merge("2025", ["2025-W01", "2025-W02"]).await?;
///
/// // Artist 3 was never a week's first, and is the year's.
/// let year: Vec<_> = listening.plan(["2025"]).await?.stream(Parallelism::Available).try_collect().await?;
/// let user_7 = year.iter().map(|slot| &slot.item).find(|batch| batch.column(0).as_primitive::<Int64Type>().value(0) == 7).unwrap();
/// assert_eq!(user_7["ms_played"].as_primitive::<Int64Type>().value(0), 140);
/// let top = user_7["top_artists"].as_list::<i32>().value(0);
/// assert_eq!(top.as_struct().column(0).as_primitive::<Int64Type>().value(0), 3);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Rollup {
    store: Arc<dyn ObjectStore>,
    root: Path,
    aggregates: Vec<Named>,
    write_options: WriteOptions,
    plan_options: PlanOptions,
    parallelism: Parallelism,
    clock: Clock,
}

/// Of the store, its kind alone.
impl fmt::Debug for Rollup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, root, aggregates, write_options, plan_options, parallelism, clock } = self;
        f.debug_struct("Rollup")
            .field("store", &format_args!("{store}"))
            .field("root", root)
            .field("aggregates", aggregates)
            .field("write_options", write_options)
            .field("plan_options", plan_options)
            .field("parallelism", parallelism)
            .field("clock", clock)
            .finish()
    }
}

/// Builds a [`Rollup`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct RollupBuilder(Rollup);

impl RollupBuilder {
    /// Adds an aggregate, whose states are the column `name`.
    pub fn aggregate(self, name: impl Into<String>, aggregator: impl Aggregator) -> Self {
        self.named(name.into(), None, aggregator)
    }

    /// Adds an aggregate over one source of the co-groups that periods are updated from.
    pub fn aggregate_of(self, source: impl Into<String>, name: impl Into<String>, aggregator: impl Aggregator) -> Self {
        self.named(name.into(), Some(source.into()), aggregator)
    }

    fn named(mut self, name: String, source: Option<String>, aggregator: impl Aggregator) -> Self {
        self.0.aggregates.push(Named { name, source, aggregator: Arc::new(aggregator) });
        self
    }

    /// How partials are written.
    pub fn with_write_options(mut self, options: WriteOptions) -> Self {
        self.0.write_options = options;
        self
    }

    /// How inputs and partials are read.
    pub fn with_plan_options(mut self, options: PlanOptions) -> Self {
        self.0.plan_options = options;
        self
    }

    /// How many slots run at the same time; as many as cores by default.
    pub fn with_parallelism(mut self, parallelism: Parallelism) -> Self {
        self.0.parallelism = parallelism;
        self
    }

    /// Where the time and names come from.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.0.clock = clock;
        self
    }

    /// The rollup. Reads and writes nothing.
    ///
    /// # Errors
    /// `InvalidInput` if there is no aggregate, or two of one name.
    pub fn build(self) -> Result<Rollup> {
        let mut problems = Problems::default();
        Named::check(&self.0.aggregates, &mut problems);
        problems.into_result()?;
        Ok(self.0)
    }
}

impl Rollup {
    /// Builds a rollup that keeps its periods under `path`.
    pub fn builder(store: Arc<dyn ObjectStore>, path: impl Into<Path>) -> RollupBuilder {
        RollupBuilder(Self {
            store,
            root: path.into(),
            aggregates: vec![],
            write_options: WriteOptions::default(),
            plan_options: PlanOptions::default(),
            parallelism: Parallelism::default(),
            clock: Clock::default(),
        })
    }

    /// Computes a period from rows: those of a source, of a join or of a co-group. What the period held before is replaced, as a whole.
    ///
    /// If the period was made from the same rows by the same aggregates already, nothing is computed and nothing is written: inputs are compared by
    /// dataset id and data version, aggregates by their [`Definition`](crate::Definition).
    ///
    /// The partial has the key columns of the input and as many buckets as the input's plan has slots: those of the input, if all its datasets agree.
    ///
    /// # Errors
    /// Those of [`Aggregate::plan`]; `InvalidInput` for a name that cannot be a folder's; those of [`Plan::transform`](crate::Plan::transform); `Conflict` if somebody else updated the
    /// period meanwhile. The period is as it was then.
    pub async fn update(&self, period: &str, input: impl Into<AggregateInput>) -> Result<Dataset> {
        Ok(self.update_period(period, input.into()).await?.dataset)
    }

    async fn update_period(&self, period: &str, input: AggregateInput) -> Result<Written> {
        let plan = self.aggregation(Aggregate::over(input)).plan_states()?;
        let provenance = Provenance::of(&plan, &self.aggregates, BTreeSet::from([period.to_owned()]));
        let found = self.find(period).await?;
        match found {
            Some((dataset, Some(before))) if before == provenance => Ok(Written::nothing(dataset)),
            found => self.write(period, found.map(|(dataset, _)| dataset), &plan, &provenance).await,
        }
    }

    /// Merges periods into a longer one, from their partials alone. As [`update`](Self::update), it does nothing if nothing changed.
    ///
    /// If all that the period was merged from is among the parts and has not changed, its own state and the new parts are merged, as far as that is
    /// less to read than all parts: a year to date costs itself and the week that is new.
    ///
    /// # Errors
    /// `NotFound` naming all periods that are not there. `Incompatible` naming all that were made by other aggregates: update them again.
    /// `InvalidInput` if there are none, or rows would count twice: a period occurs twice, or in another one that was merged from it. Else as `update`.
    pub async fn merge<S: Into<String>>(&self, period: &str, parts: impl IntoIterator<Item = S>) -> Result<Dataset> {
        let parts: Vec<String> = parts.into_iter().map(Into::into).collect();
        if parts.iter().any(|part| part == period) {
            return Err(Error::invalid_input(format!("a period cannot be merged into itself, period=`{period}`")));
        }
        Ok(self.merge_period(period, parts).await?.dataset)
    }

    async fn merge_period(&self, period: &str, parts: Vec<String>) -> Result<Written> {
        let (mut datasets, covers) = self.open(&parts).await?;
        sort_by_period(&mut datasets);
        let provenance = Provenance::of_parts(&self.aggregates, &datasets, covers);
        let found = self.find(period).await?;
        let inputs = match &found {
            Some((dataset, Some(before))) if *before == provenance => return Ok(Written::nothing(dataset.clone())),
            Some((dataset, Some(before))) => match worth_extending(dataset, before, &provenance, &datasets) {
                Some(added) => [dataset].into_iter().chain(added.iter().map(|at| &datasets[*at])).cloned().collect(),
                None => datasets,
            },
            _ => datasets,
        };
        let plan = self.aggregation(Aggregate::over_states(inputs)).plan_states()?;
        self.write(period, found.map(|(dataset, _)| dataset), &plan, &provenance).await
    }

    /// A plan of the results of some periods together: key columns, then the result of each aggregate. Of several periods, the states are merged as
    /// the plan runs.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub async fn plan<S: Into<String>>(&self, periods: impl IntoIterator<Item = S>) -> Result<AggregatePlan> {
        let periods: Vec<String> = periods.into_iter().map(Into::into).collect();
        let (datasets, _) = self.open(&periods).await?;
        self.aggregation(Aggregate::over_states(datasets)).plan()
    }

    /// A period's partial: an ordinary dataset, to be joined or shown like any other.
    ///
    /// # Errors
    /// `NotFound` if the period was never made, `Incompatible` if it was made by other aggregates.
    pub async fn partial(&self, period: &str) -> Result<Dataset> {
        let (mut datasets, _) = self.open(&[period.to_owned()]).await?;
        datasets.pop().ok_or_else(|| Error::internal("a period was opened without a dataset"))
    }

    /// The names of the periods that have a folder, in the order of their bytes. One listing.
    ///
    /// # Errors
    /// `Store`.
    pub async fn periods(&self) -> Result<Vec<String>> {
        let folders = Partitions::list(Arc::clone(&self.store), self.root.clone()).await?;
        Ok(folders.names().iter().filter_map(|name| name.strip_prefix(FOLDER_PREFIX)).map(str::to_owned).collect())
    }

    /// Replaces the columns of states in a batch, known by their names, by results; other columns stay as they are. For batches that come from a
    /// partial by way of a join. A null state, of a key that the partial did not have, has a null result.
    ///
    /// # Errors
    /// `InvalidInput` if a column is missing or holds other states.
    pub fn finish(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = self.finished_schema(batch.schema_ref())?;
        let mut columns = batch.columns().to_vec();
        for Named { name, aggregator, .. } in &self.aggregates {
            let at = schema.index_of(name)?;
            let results = finish_nullable(aggregator.as_ref(), &columns[at])?;
            columns[at] = canonical_array(&results, schema.field(at).data_type(), name)?;
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// The schema of what [`finish`](Self::finish) makes of batches of this schema.
    ///
    /// # Errors
    /// As `finish`.
    pub fn finished_schema(&self, schema: &Schema) -> Result<SchemaRef> {
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for Named { name, aggregator, .. } in &self.aggregates {
            let field = fields.iter_mut().find(|field| field.name() == name).ok_or_else(|| {
                Error::invalid_input(format!("the states of an aggregate are not there, aggregate=`{name}`"))
            })?;
            *field = Field::new(name, canonical_type(&aggregator.output_type(field.data_type())?)?, true);
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn aggregation(&self, aggregate: Aggregate) -> Aggregate {
        let aggregate = aggregate.with_options(self.plan_options.clone());
        self.aggregates.iter().cloned().fold(aggregate, Aggregate::with_named)
    }

    fn folder(&self, period: &str) -> Result<Path> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '+');
        if period.is_empty() || !period.chars().all(is_name) {
            return Err(Error::invalid_input(format!(
                "the name of a period consists of letters, digits and any of -_.=+, period=`{period}`"
            )));
        }
        Ok(self.root.clone().join(format!("{FOLDER_PREFIX}{period}")))
    }

    /// Opens periods, checks that they were made by these aggregates, and tells the updated periods they cover.
    async fn open(&self, periods: &[String]) -> Result<(Vec<Dataset>, BTreeSet<String>)> {
        if periods.is_empty() {
            return Err(Error::invalid_input("no periods to merge"));
        }
        let mut twice: Vec<String> = vec![];
        for (at, period) in periods.iter().enumerate() {
            self.folder(period)?;
            if periods[..at].contains(period) {
                twice.push(period.clone());
            }
        }
        let names = periods.iter().map(|period| format!("{FOLDER_PREFIX}{period}"));
        let datasets = Partitions::of(Arc::clone(&self.store), self.root.clone(), names.collect()).open().await?;
        let mut covers = BTreeSet::new();
        let mut foreign = vec![];
        for dataset in &datasets {
            let period = period_of(dataset).unwrap_or_default();
            match Provenance::read(dataset)?.filter(|provenance| provenance.is_of(&self.aggregates)) {
                None => foreign.push(period.to_owned()),
                Some(provenance) => {
                    for covered in provenance.covers {
                        if !covers.insert(covered.clone()) {
                            let place = if covered == period { covered } else { format!("{covered} in {period}") };
                            if !twice.contains(&place) {
                                twice.push(place);
                            }
                        }
                    }
                }
            }
        }
        if !twice.is_empty() {
            return Err(Error::invalid_input(format!("periods would count twice, periods=`{}`", twice.join(", "))));
        }
        if foreign.is_empty() {
            return Ok((datasets, covers));
        }
        Err(Error::incompatible(format!(
            "periods were made by other aggregates or changed by others, update them again, periods=`{}`",
            foreign.join(", ")
        ))
        .with_path(&self.root))
    }

    /// A period as it is now, and what it was made from, if that can be told.
    async fn find(&self, period: &str) -> Result<Option<(Dataset, Option<Provenance>)>> {
        match Dataset::open(Arc::clone(&self.store), self.folder(period)?).await {
            Ok(dataset) => {
                let provenance = Provenance::read(&dataset)?;
                Ok(Some((dataset, provenance)))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a period in the place of what was `found`: whatever another process commits from then on is a conflict.
    async fn write(
        &self,
        period: &str,
        found: Option<Dataset>,
        plan: &AggregatePlan,
        provenance: &Provenance,
    ) -> Result<Written> {
        let target = Target::new(Arc::clone(&self.store), self.folder(period)?);
        let target = match found {
            Some(dataset) => target.with_mode(WriteMode::Replace).with_base(dataset.version()),
            None => target.with_mode(WriteMode::Create),
        };
        let write_id = WriteId::generate();
        let target = target
            .with_options(self.write_options.clone())
            .with_parallelism(self.parallelism)
            .with_clock(self.clock)
            .with_property(provenance::PROPERTY, provenance.to_text(&write_id)?)
            .with_write_id(write_id);
        let (dataset, summary) = plan.transform_with_summary(target, Ok).await?;
        let inputs = plan.resolved.sources.iter().flat_map(|source| &source.datasets);
        let input_bytes = inputs.map(|input| input.statistics().bytes).sum();
        Ok(Written { dataset, input_bytes, written_bytes: summary.bytes })
    }

    async fn drop_period(&self, period: &str) -> Result<()> {
        if let Some((dataset, _)) = self.find(period).await? {
            dataset.drop_dataset().await?;
        }
        Ok(())
    }
}

/// A period that is up to date, and what it took to make it so.
struct Written {
    dataset: Dataset,
    input_bytes: u64,
    written_bytes: u64,
}

impl Written {
    fn nothing(dataset: Dataset) -> Self {
        Self { dataset, input_bytes: 0, written_bytes: 0 }
    }
}

/// The period that a dataset of a rollup holds.
fn period_of(dataset: &Dataset) -> Option<&str> {
    dataset.path().filename()?.strip_prefix(FOLDER_PREFIX)
}

/// States merge to the same in any order, so that parts in another order must make nothing stale.
fn sort_by_period(parts: &mut [Dataset]) {
    parts.sort_by(|a, b| period_of(a).cmp(&period_of(b)));
}

/// Which parts are to be merged with the state of a period, made of what it was `before`, instead of merging all parts: those that are new, if nothing
/// else changed and the state is smaller than the parts that it stands for.
fn worth_extending(dataset: &Dataset, before: &Provenance, now: &Provenance, parts: &[Dataset]) -> Option<Vec<usize>> {
    let added = before.added(now)?;
    let of_parts = |(at, part): (usize, &Dataset)| if added.contains(&at) { 0 } else { part.statistics().bytes };
    let merged: u64 = parts.iter().enumerate().map(of_parts).sum();
    (dataset.statistics().bytes < merged).then_some(added)
}

/// Results, null where the state is.
fn finish_nullable(aggregator: &dyn Aggregator, states: &ArrayRef) -> Result<ArrayRef> {
    if states.null_count() == 0 {
        return aggregator.finish(states);
    }
    let valid = is_not_null(states)?;
    let results = aggregator.finish(&filter(states, &valid)?)?;
    let mut next = 0;
    let rows: UInt64Array = valid
        .values()
        .iter()
        .map(|valid| {
            next += u64::from(valid);
            valid.then(|| next - 1)
        })
        .collect();
    Ok(take(&results, &rows, None)?)
}
