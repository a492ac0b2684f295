//! Aggregation as a plan: the builder, and how aggregates are bound to the columns of its sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::aggregate::{AggregateSpec, Aggregator, Bound, Definition, Feeding, aggregate_kernel};
use crate::error::{Error, ErrorKind, Result};
use crate::merge::{Kernel, SourceInputs};
use crate::metrics::Counters;
use crate::plan::cogroup::key_fields;
use crate::plan::operation::{Driver, PlanOperation, sealed};
use crate::plan::resolve::{Problems, Resolved, resolve};
use crate::plan::{AggregatePlan, CoGroup, Join, Plan, PlanOptions};
use crate::read::Source;
use crate::schema::canonical_type;

/// What an [`Aggregate`] reads: a [`Source`], a [`Join`], or the sources of a [`CoGroup`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AggregateInput {
    /// The rows of a source.
    Source(Source),
    /// The rows that a join returns, grouped by its key columns, without its sort columns.
    Join(Join),
    /// The rows of several sources, each with aggregates of its own. A key has a result if any source has it.
    CoGroup(CoGroup),
}

impl<S: Into<Source>> From<S> for AggregateInput {
    fn from(source: S) -> Self {
        Self::Source(source.into())
    }
}

impl From<Join> for AggregateInput {
    fn from(join: Join) -> Self {
        Self::Join(join)
    }
}

impl From<CoGroup> for AggregateInput {
    fn from(group: CoGroup) -> Self {
        Self::CoGroup(group)
    }
}

/// An aggregate under the name of its column.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// The source of a co-group that it reads.
    pub(crate) source: Option<String>,
    pub(crate) aggregator: Arc<dyn Aggregator>,
}

impl Named {
    pub(crate) fn definition(&self) -> Definition {
        self.aggregator.definition()
    }

    /// Notes if there are none, or two of one name.
    pub(crate) fn check(all: &[Self], problems: &mut Problems) {
        if all.is_empty() {
            problems.invalid("there must be at least one aggregate".to_owned());
        }
        for (at, Self { name, .. }) in all.iter().enumerate() {
            if all[..at].iter().any(|other| other.name == *name) {
                problems.invalid(format!("two aggregates have the same name, aggregate=`{name}`"));
            }
        }
    }
}

/// One row per key: the key columns and the result of each aggregate, in key order. Null is a key like any other, as in GROUP BY.
///
/// Rows are not merged before they are aggregated: each run is aggregated by itself, then states are merged by key. Only the columns that aggregates
/// name are read.
///
/// ```text
/// run 0   7:3 7:1 9:4  ──>  7:(2 rows, 4)  9:(1, 4)  ┐
/// run 1   7:5 8:2      ──>  7:(1, 5)  8:(1, 2)       ┴─>  7:(3, 9)  8:(1, 2)  9:(1, 4)
/// ```
///
/// # Memory
/// Of a running slot: per open run two row groups of the projected columns as fetched, the pages being decoded and the states of one batch; one
/// window of states; an output batch of states. A key group of any size is a few states at any time. A state is as large as its aggregate says.
///
/// ```
/// # use sort_merge_bucket::{Aggregate, Aggregator, Count, Dataset, Predicate, Sum, TopK};
/// # fn example(plays: &Dataset) -> sort_merge_bucket::Result<()> {
/// let plan = Aggregate::over(plays)
///     .aggregate("plays", Count::rows())
///     .aggregate("ms_mobile", Sum::of("ms_played").filter(Predicate::eq("device", "mobile")))
///     .aggregate("top_artists", TopK::of("artist_id").weighted_by("ms_played").with_limit(5))
///     .plan()?;
/// println!("{plan}");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Aggregate {
    input: Input,
    aggregates: Vec<Named>,
    options: PlanOptions,
    /// Set when it is planned.
    spec: Option<Arc<AggregateSpec>>,
}

#[derive(Debug, Clone)]
enum Input {
    Rows(AggregateInput),
    States(Source),
}

impl Aggregate {
    /// Aggregates rows.
    pub fn over(input: impl Into<AggregateInput>) -> Self {
        Self::new(Input::Rows(input.into()))
    }

    /// Merges states: the source holds, under the names of the aggregates, columns that a plan of [`plan_states`](Self::plan_states) made. A key may
    /// occur any number of times.
    pub fn over_states(states: impl Into<Source>) -> Self {
        Self::new(Input::States(states.into()))
    }

    fn new(input: Input) -> Self {
        Self { input, aggregates: vec![], options: PlanOptions::default(), spec: None }
    }

    /// Adds an aggregate, whose result is the column `name`.
    #[must_use]
    pub fn aggregate(self, name: impl Into<String>, aggregator: impl Aggregator) -> Self {
        self.with_named(Named { name: name.into(), source: None, aggregator: Arc::new(aggregator) })
    }

    /// Adds an aggregate over one source of a co-group. Over states, it is the same as [`aggregate`](Self::aggregate).
    #[must_use]
    pub fn aggregate_of(self, source: impl Into<String>, name: impl Into<String>, aggregator: impl Aggregator) -> Self {
        self.with_named(Named { name: name.into(), source: Some(source.into()), aggregator: Arc::new(aggregator) })
    }

    pub(crate) fn with_named(mut self, named: Named) -> Self {
        self.aggregates.push(named);
        self
    }

    /// Sets how the plan runs. Those of a join or co-group that is aggregated have no effect.
    #[must_use]
    pub fn with_options(mut self, options: PlanOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes a plan that yields results.
    ///
    /// # Errors
    /// As [`Join::plan`]; `InvalidInput` also for no aggregate, two of one name, inputs that are missing or of a type that an aggregate cannot work
    /// on, and an aggregate of a co-group without or with an unknown source.
    pub fn plan(self) -> Result<AggregatePlan> {
        self.resolve(true)
    }

    /// Makes a plan that yields states, to be stored and merged later.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_states(self) -> Result<AggregatePlan> {
        self.resolve(false)
    }

    fn resolve(mut self, finished: bool) -> Result<AggregatePlan> {
        let mut problems = Problems::default();
        Named::check(&self.aggregates, &mut problems);
        let (names, resolved, schemas) = match self.resolve_input(&mut problems) {
            Ok(resolved) => resolved,
            // What a join or a lack of sources makes impossible, reported with what was found before.
            Err(e) => {
                match e.kind() {
                    ErrorKind::InvalidInput => problems.invalid(e.message().to_owned()),
                    ErrorKind::Incompatible => problems.incompatible(e.message().to_owned()),
                    _ => return Err(e),
                }
                problems.into_result()?;
                return Err(Error::internal("a plan that failed without a problem"));
            }
        };
        // A source without datasets, which is a problem already, has no columns to bind to.
        let spec =
            (names.len() == schemas.len()).then(|| self.bind(&names, &resolved, &schemas, finished, &mut problems));
        problems.into_result()?;
        let spec = spec.ok_or_else(|| Error::internal("aggregates were not bound"))?;
        let schema = Arc::clone(spec.output.as_ref().unwrap_or(&spec.states));
        self.spec = Some(Arc::new(spec));
        Ok(Plan { operation: self, resolved, schema })
    }

    /// The names of sources, the resolved ones, and the columns that aggregates see of each.
    fn resolve_input(&mut self, problems: &mut Problems) -> Result<(Vec<String>, Arc<Resolved>, Vec<SchemaRef>)> {
        let aggregates = &self.aggregates;
        let sources = match &mut self.input {
            Input::Rows(AggregateInput::Join(join)) => {
                *join =
                    join.clone().with_output_columns(&needed(aggregates, |_| true)).with_options(self.options.clone());
                let plan = join.clone().plan()?;
                return Ok((vec!["join".to_owned()], Arc::clone(&plan.resolved), vec![Arc::clone(&plan.schema)]));
            }
            Input::Rows(AggregateInput::Source(source)) => {
                let columns = needed(aggregates, |_| true);
                vec![("source".to_owned(), source.clone().restricted(|name| columns.contains(name)))]
            }
            Input::Rows(AggregateInput::CoGroup(group)) => {
                let restrict = |(name, source): (String, Source)| {
                    let columns = needed(aggregates, |other| other == Some(&name));
                    (name, source.restricted(|name| columns.contains(name)))
                };
                group.named_sources(problems).into_iter().map(restrict).collect()
            }
            Input::States(source) => {
                let columns: Vec<String> = aggregates.iter().map(|named| named.name.clone()).collect();
                // Elsewhere a column that a dataset lacks is null; a state never is.
                for dataset in &source.datasets {
                    for column in columns.iter().filter(|column| dataset.schema().index_of(column).is_err()) {
                        problems
                            .invalid(format!("a dataset has no states of `{column}`, dataset=`{}`", dataset.path()));
                    }
                }
                vec![("states".to_owned(), source.clone().with_columns(columns))]
            }
        };
        let names = sources.iter().map(|(name, _)| name.clone()).collect();
        let resolved = resolve(sources, 0, self.options.clone(), problems);
        // With problems and without sources there is nothing more to find.
        let Some(resolved) = resolved else {
            std::mem::take(problems).into_result()?;
            return Err(Error::internal("a plan without sources"));
        };
        let schemas = resolved.sources.iter().map(|source| Arc::clone(&source.schema)).collect();
        Ok((names, Arc::new(resolved), schemas))
    }

    /// Finds the columns of every aggregate and the types of what it makes.
    fn bind(
        &self,
        names: &[String],
        resolved: &Resolved,
        schemas: &[SchemaRef],
        finished: bool,
        problems: &mut Problems,
    ) -> AggregateSpec {
        let keys = key_fields(self.key(resolved), schemas);
        let (mut states, mut outputs) = (keys.clone(), keys.clone());
        let mut bound = vec![];
        for named in &self.aggregates {
            if keys.iter().any(|key| *key.name() == named.name) {
                problems.invalid(format!("an aggregate has the name of a key column, aggregate=`{}`", named.name));
            }
            let made = self.bind_one(named, names, schemas);
            match made {
                Ok((one, state, output)) => {
                    states.push(Field::new(&one.name, state, true));
                    outputs.push(Field::new(&one.name, output, true));
                    bound.push(one);
                }
                Err(e) => problems.invalid(format!("aggregate `{}`: {}", named.name, e.message())),
            }
        }
        AggregateSpec {
            aggregates: bound,
            key: keys.len(),
            states: Arc::new(Schema::new(states)),
            output: finished.then(|| Arc::new(Schema::new(outputs))),
            source_types: schemas
                .iter()
                .map(|schema| schema.fields().iter().map(|field| field.data_type().clone()).collect())
                .collect(),
            batch_size: resolved.options.batch_size,
        }
    }

    fn bind_one(&self, named: &Named, names: &[String], schemas: &[SchemaRef]) -> Result<(Bound, DataType, DataType)> {
        let Named { name, source, aggregator } = named;
        let source = match (source, names) {
            // States know of no sources: which one they came from is part of the rollup's definition.
            _ if matches!(self.input, Input::States(_)) => 0,
            (None, [_]) => 0,
            (None, _) => return Err(Error::invalid_input("name the source that it reads (aggregate_of)")),
            (Some(source), _) => names
                .iter()
                .position(|name| name == source)
                .ok_or_else(|| Error::invalid_input(format!("there is no such source, source=`{source}`")))?,
        };
        let schema = &schemas[source];
        let find = |column: &str| {
            schema.index_of(column).map_err(|_| Error::invalid_input(format!("there is no column `{column}`")))
        };
        let (columns, state) = match &self.input {
            Input::States(_) => (vec![], schema.field(find(name)?).data_type().clone()),
            Input::Rows(_) => {
                let inputs = aggregator.inputs();
                let columns = inputs.iter().map(|input| find(input)).collect::<Result<Vec<_>>>()?;
                let types: Vec<DataType> = columns.iter().map(|&at| schema.field(at).data_type().clone()).collect();
                (columns, canonical_type(&aggregator.state_type(&types)?)?)
            }
        };
        let output = canonical_type(&aggregator.output_type(&state)?)?;
        Ok((Bound { name: name.clone(), aggregator: Arc::clone(aggregator), source, columns }, state, output))
    }

    fn spec(&self) -> Result<&Arc<AggregateSpec>> {
        self.spec.as_ref().ok_or_else(|| Error::internal("an aggregation that was not planned"))
    }

    /// The operation and everything beside datasets and aggregates that its rows depend on.
    pub(crate) fn describe_input(&self) -> String {
        match &self.input {
            Input::Rows(AggregateInput::Source(source)) => match source.describe_restriction() {
                none if none.is_empty() => "scan".to_owned(),
                some => format!("scan with {some}"),
            },
            Input::Rows(AggregateInput::Join(join)) => join.describe_fully(),
            Input::Rows(AggregateInput::CoGroup(group)) => group.describe_fully(),
            Input::States(_) => "states".to_owned(),
        }
    }
}

/// The columns that aggregates read, of a source that `of` accepts.
fn needed(aggregates: &[Named], of: impl Fn(Option<&str>) -> bool) -> BTreeSet<String> {
    aggregates.iter().filter(|named| of(named.source.as_deref())).flat_map(|named| named.aggregator.inputs()).collect()
}

impl sealed::Sealed for Aggregate {}

impl PlanOperation for Aggregate {
    type Item = RecordBatch;

    fn describe(&self) -> String {
        match &self.input {
            Input::Rows(AggregateInput::Source(_)) => "aggregate of a scan".to_owned(),
            Input::Rows(AggregateInput::Join(join)) => format!("aggregate of a {}", join.describe()),
            Input::Rows(AggregateInput::CoGroup(_)) => "aggregate of a co-group".to_owned(),
            Input::States(_) => "merge of states".to_owned(),
        }
    }

    fn rows(item: &RecordBatch) -> usize {
        item.num_rows()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn driver(&self, resolved: &Resolved) -> Option<Driver> {
        match &self.input {
            Input::Rows(AggregateInput::Join(join)) => join.driver(resolved),
            _ => None,
        }
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
        let feeding = match &self.input {
            Input::Rows(AggregateInput::Join(join)) => Feeding::Made(join.kernel(sources, resolved, counters)?),
            Input::Rows(_) => Feeding::Rows(sources),
            Input::States(_) => {
                let one = sources.into_iter().next();
                Feeding::States(one.ok_or_else(|| Error::internal("a merge without a source"))?)
            }
        };
        aggregate_kernel(Arc::clone(self.spec()?), feeding)
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn key<'a>(&self, resolved: &'a Resolved) -> &'a [String] {
        &resolved.key[..resolved.hashed]
    }

    fn yields_nothing(&self, has_runs: &[bool]) -> bool {
        match &self.input {
            Input::Rows(AggregateInput::Join(join)) => join.yields_nothing(has_runs),
            _ => !has_runs.contains(&true),
        }
    }
}
