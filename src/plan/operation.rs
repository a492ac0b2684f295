//! What plans compute: the builders that callers use, and the kernels they become.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::cogroup::{CoGroupBatch, CoGroupChunk, CoGroupInputs, SourceNames, chunk_kernel, whole_kernel};
use crate::error::{Error, Result};
use crate::join::{
    BoundCondition, CarryBudget, JoinCondition, JoinInputs, JoinKind, OutputColumn, OutputLayout, Overflow, join_kernel,
};
use crate::merge::{Kernel, SourceInputs, scan_kernel};
use crate::metrics::Counters;
use crate::plan::resolve::{Problems, Resolved, resolve};
use crate::plan::{CoGroupChunkPlan, CoGroupPlan, DynamicFilters, JoinPlan, Plan, PlanOptions, ScanPlan};
use crate::read::Source;
use crate::spill::SpilledRows;

pub(super) mod sealed {
    pub trait Sealed {}
}

/// Rows of the source `of` matter only if their key is in the source `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Driver {
    pub(crate) from: usize,
    pub(crate) of: usize,
    /// Whatever it brings.
    pub(crate) always: bool,
}

/// What a [`Plan`] computes. Implemented by [`Scan`], [`Join`], [`CoGroup`], [`CoGroupChunks`] and
/// [`Aggregate`](crate::Aggregate), and by nothing else.
pub trait PlanOperation: sealed::Sealed + Clone + Send + Sync + 'static {
    /// What the plan yields.
    type Item: Send + 'static;

    /// The operation in a word or two, for explaining.
    #[doc(hidden)]
    fn describe(&self) -> String;

    /// The machine for one slot.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = Self::Item>>>;

    /// The columns whose equality makes a key group.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn key<'a>(&self, resolved: &'a Resolved) -> &'a [String] {
        &resolved.key
    }

    /// The number of rows of an item.
    #[doc(hidden)]
    fn rows(item: &Self::Item) -> usize;

    /// The source whose keys decide about another's rows, if it is worth reading them first.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn driver(&self, _resolved: &Resolved) -> Option<Driver> {
        None
    }

    /// Whether a slot yields nothing, given which sources have runs in it.
    #[doc(hidden)]
    fn yields_nothing(&self, has_runs: &[bool]) -> bool {
        !has_runs.contains(&true)
    }
}

/// Reads one source in key order: its datasets and their runs merged.
///
/// ```text
/// week 1   1 1 4     ┐
/// week 2   1 2 4 9   ├─>  1 1 1 2 4 4 9
/// ```
#[derive(Debug, Clone)]
pub struct Scan {
    source: Source,
    options: PlanOptions,
}

impl Scan {
    /// A scan of `source`.
    pub fn new(source: impl Into<Source>) -> Self {
        Self { source: source.into(), options: PlanOptions::default() }
    }

    /// Sets how the plan runs.
    #[must_use]
    pub fn with_options(mut self, options: PlanOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes the plan. Its batches have the key columns first, then the others.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown column or a source without datasets, `Incompatible` if the datasets do not fit together; all problems at
    /// once.
    pub fn plan(self) -> Result<ScanPlan> {
        let mut problems = Problems::default();
        let sources = vec![("source".to_owned(), self.source.clone())];
        let resolved = resolve(sources, 0, self.options.clone(), &mut problems);
        problems.into_result()?;
        let resolved = resolved.ok_or_else(|| Error::internal("a plan without sources"))?;
        let schema = Arc::clone(&resolved.sources[0].schema);
        Ok(Plan { operation: self, resolved: Arc::new(resolved), schema })
    }
}

impl sealed::Sealed for Scan {}

impl PlanOperation for Scan {
    type Item = RecordBatch;

    fn describe(&self) -> String {
        "scan".to_owned()
    }

    fn rows(item: &RecordBatch) -> usize {
        item.num_rows()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        mut sources: Vec<SourceInputs>,
        resolved: &Resolved,
        _counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
        let source = sources.pop().ok_or_else(|| Error::internal("a scan without a source"))?;
        scan_kernel(source, resolved.options.batch_size)
    }
}

/// Joins two sources on their keys.
///
/// The output has the join columns once, with the left side's names and the wider type, null only where the key is; then the left side's
/// other columns, then the right side's. It is sorted by the join columns, nulls last. Semi and anti joins have one side's columns only.
/// A null key equals nothing. A [`JoinCondition`] restricts which rows of a key meet.
///
/// Among rows of one key the order is not defined; it is the same whenever the same plan runs over the same versions with the same options.
///
/// # Memory
/// Of a running slot: per open run two row groups of the projected columns as fetched, and the pages being decoded; the batches of one
/// window; an output batch; with a condition a batch of candidates.
///
/// A key of any number of rows on both sides streams. Of a key that goes on over several windows the rows of the side that ends first are kept,
/// and as many of the other as come meanwhile, together up to [`PlanOptions::carry_budget`]. What is more goes to a compressed
/// file in [`PlanOptions::spill_dir`], which is read again for every block of the other side; a block is as large as the budget. The files are gone when the key
/// is joined, after an error, and when the plan's stream is dropped. They are written and read by the task that runs the slot. With a condition, outer, semi and anti joins also keep a bit for every
/// row of the side that ended first.
///
/// ```
/// # use sort_merge_bucket::{Dataset, Join, Source};
/// # fn example(plays: &Dataset, users: &Dataset) -> sort_merge_bucket::Result<()> {
/// let plan = Join::left(plays, Source::from(users).with_columns(["region"])).plan()?;
/// println!("{plan}");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Join {
    kind: JoinKind,
    left: Source,
    right: Source,
    sort_columns: usize,
    left_prefix: String,
    right_prefix: String,
    condition: Option<JoinCondition>,
    options: PlanOptions,
}

impl Join {
    /// A join of this kind.
    pub fn new(kind: JoinKind, left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self {
            kind,
            left: left.into(),
            right: right.into(),
            sort_columns: 0,
            left_prefix: String::new(),
            right_prefix: String::new(),
            condition: None,
            options: PlanOptions::default(),
        }
    }

    /// An inner join.
    pub fn inner(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::Inner, left, right)
    }

    /// A left outer join.
    pub fn left(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::Left, left, right)
    }

    /// A right outer join.
    pub fn right(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::Right, left, right)
    }

    /// A full outer join.
    pub fn full(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::Full, left, right)
    }

    /// The left rows that have a partner.
    pub fn left_semi(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::LeftSemi, left, right)
    }

    /// The left rows that have no partner.
    pub fn left_anti(left: impl Into<Source>, right: impl Into<Source>) -> Self {
        Self::new(JoinKind::LeftAnti, left, right)
    }

    /// Joins on the key columns and the first `columns` sort columns of both sides. 0 by default.
    #[must_use]
    pub fn with_sort_columns(mut self, columns: usize) -> Self {
        self.sort_columns = columns;
        self
    }

    /// Puts a prefix before the names of the left side's columns, join columns excepted.
    #[must_use]
    pub fn with_left_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.left_prefix = prefix.into();
        self
    }

    /// Puts a prefix before the names of the right side's columns.
    #[must_use]
    pub fn with_right_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.right_prefix = prefix.into();
        self
    }

    /// Joins only pairs of rows that fulfil a condition beside equal keys, as a further term of SQL's `ON`: a row all of whose pairs fail has no
    /// partner. A second call replaces the condition.
    #[must_use]
    pub fn with_condition(mut self, condition: JoinCondition) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Sets how the plan runs.
    #[must_use]
    pub fn with_options(mut self, options: PlanOptions) -> Self {
        self.options = options;
        self
    }

    /// Reads only those columns of both sides that become one of these output columns or that the condition sees; join columns in any case.
    pub(super) fn with_output_columns(mut self, names: &BTreeSet<String>) -> Self {
        let seen = match &self.condition {
            None => &[][..],
            Some(JoinCondition { columns: Some(columns), .. }) => columns,
            // It may look at all of them.
            Some(JoinCondition { columns: None, .. }) => return self,
        };
        let names: BTreeSet<&str> = names.iter().chain(seen).map(String::as_str).collect();
        self.left = self.left.restricted(|name| names.contains(format!("{}{name}", self.left_prefix).as_str()));
        self.right = self.right.restricted(|name| names.contains(format!("{}{name}", self.right_prefix).as_str()));
        self
    }

    /// Everything that the joined rows depend on beside the datasets. A name that both sides have means the side that reads it.
    pub(super) fn describe_fully(&self) -> String {
        let columns = |source: &Source| source.columns.clone().unwrap_or_default();
        let restricted = |side: &str, source: &Source| match source.describe_restriction() {
            none if none.is_empty() => none,
            some => format!(", {side} {some}"),
        };
        format!(
            "{} join with {} sort columns, prefixes `{}` and `{}`, columns {:?} and {:?}{}{}{}",
            self.kind,
            self.sort_columns,
            self.left_prefix,
            self.right_prefix,
            columns(&self.left),
            columns(&self.right),
            restricted("left", &self.left),
            restricted("right", &self.right),
            // A function cannot be compared.
            self.condition.as_ref().map_or(String::new(), |JoinCondition { name, version, columns, .. }| format!(
                ", condition `{name}` version {version} of columns {columns:?}"
            ))
        )
    }

    /// Makes the plan.
    ///
    /// # Errors
    /// `Incompatible` if bucket function, key order, key columns or key types of any datasets differ by more than integer width, decimal precision or string layout;
    /// `InvalidInput` for unknown columns, too few sort columns, or two output columns of the same name. All problems at once.
    pub fn plan(self) -> Result<JoinPlan> {
        let mut problems = Problems::default();
        let sources = vec![("left".to_owned(), self.left.clone()), ("right".to_owned(), self.right.clone())];
        let resolved = resolve(sources, self.sort_columns, self.options.clone(), &mut problems);
        if let Some(resolved) = &resolved
            && resolved.sources.len() == 2
        {
            let names: Vec<String> = self.output(resolved).schema.fields().iter().map(|f| f.name().clone()).collect();
            for (at, name) in names.iter().enumerate() {
                if names[..at].contains(name) {
                    problems.invalid(format!("two output columns have the same name, give one side a prefix or leave one out, column=`{name}`"));
                }
            }
            self.bind_condition(resolved, &mut problems);
        }
        problems.into_result()?;
        let mut resolved = resolved.ok_or_else(|| Error::internal("a plan without sources"))?;
        let schema = self.output(&resolved).schema;
        // A join that returns the right side alone names the key as that side does.
        resolved.key = schema.fields().iter().take(resolved.key.len()).map(|field| field.name().clone()).collect();
        Ok(Plan { operation: self, resolved: Arc::new(resolved), schema })
    }

    /// Where output columns come from; computed, not kept, so that it cannot disagree with the plan.
    fn output(&self, resolved: &Resolved) -> OutputLayout {
        self.layout(resolved, false)
    }

    /// The columns of the output, or those of pairs of a left and a right row whatever the join returns.
    fn layout(&self, resolved: &Resolved, pairs: bool) -> OutputLayout {
        let keys = resolved.key.len();
        let (left, right) = (&resolved.sources[0].schema, &resolved.sources[1].schema);
        let (has_left, has_right) = (pairs || self.kind.has_left(), pairs || self.kind.has_right());
        let mut columns = vec![];
        let mut fields: Vec<Field> = vec![];
        for at in 0..keys {
            let (l, r) = (left.field(at), right.field(at));
            let nullable = match self.kind {
                // Null keys never match.
                _ if pairs => false,
                JoinKind::Inner | JoinKind::LeftSemi | JoinKind::RightSemi => false,
                JoinKind::Left | JoinKind::LeftAnti => l.is_nullable(),
                JoinKind::Right | JoinKind::RightAnti => r.is_nullable(),
                JoinKind::Full => l.is_nullable() || r.is_nullable(),
            };
            let name = if self.kind.has_left() { l.name() } else { r.name() };
            fields.push(Field::new(name, l.data_type().clone(), nullable));
            columns.push(match (has_left, has_right) {
                (true, true) => OutputColumn::Key { left: at, right: at },
                (true, false) => OutputColumn::Left(at),
                (false, _) => OutputColumn::Right(at),
            });
        }
        let mut side = |schema: &SchemaRef, prefix: &str, absent: bool, column: fn(usize) -> OutputColumn| {
            for (at, field) in schema.fields().iter().enumerate().skip(keys) {
                let name = format!("{prefix}{}", field.name());
                fields.push(field.as_ref().clone().with_name(name).with_nullable(field.is_nullable() || absent));
                columns.push(column(at));
            }
        };
        if has_left {
            let absent = !pairs && matches!(self.kind, JoinKind::Right | JoinKind::Full);
            side(left, &self.left_prefix, absent, OutputColumn::Left);
        }
        if has_right {
            let absent = !pairs && matches!(self.kind, JoinKind::Left | JoinKind::Full);
            side(right, &self.right_prefix, absent, OutputColumn::Right);
        }
        OutputLayout { schema: Arc::new(Schema::new(fields)), columns }
    }

    /// The condition with the columns that it sees; computed like the output. Notes columns that are not there, or twice.
    fn bind_condition(&self, resolved: &Resolved, problems: &mut Problems) -> Option<BoundCondition> {
        let condition = self.condition.as_ref()?;
        let OutputLayout { schema, columns } = self.layout(resolved, true);
        let all = || schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut chosen = vec![];
        for name in condition.columns.clone().unwrap_or_else(all) {
            let found: Vec<usize> = (0..columns.len()).filter(|&at| *schema.field(at).name() == name).collect();
            match found[..] {
                [] => problems.invalid(format!(
                    "the join condition `{}` names a column that there is not, column=`{name}`",
                    condition.name
                )),
                [at] => chosen.push(at),
                _ => problems.invalid(format!(
                    "the join condition `{}` sees two columns of the same name, give one side a prefix, column=`{name}`",
                    condition.name
                )),
            }
        }
        let fields: Vec<Field> = chosen.iter().map(|&at| schema.field(at).clone()).collect();
        let columns = chosen.iter().map(|&at| columns[at]).collect();
        let layout = OutputLayout { schema: Arc::new(Schema::new(fields)), columns };
        Some(BoundCondition { condition: condition.clone(), layout })
    }
}

impl sealed::Sealed for Join {}

impl PlanOperation for Join {
    type Item = RecordBatch;

    fn describe(&self) -> String {
        match &self.condition {
            None => format!("{} join", self.kind),
            Some(condition) => format!("{} join with condition `{}`", self.kind, condition.name),
        }
    }

    fn rows(item: &RecordBatch) -> usize {
        item.num_rows()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn driver(&self, resolved: &Resolved) -> Option<Driver> {
        let shape = self.kind.shape();
        let restricted = |source: usize| !resolved.sources[source].restriction.is_all();
        let legal = [(0, 1, !shape.right_unmatched), (1, 0, !shape.left_unmatched)];
        let always = resolved.options.dynamic_filters == DynamicFilters::Always;
        let mut worthwhile = legal.into_iter().filter(|(from, of, legal)| {
            *legal
                && match resolved.options.dynamic_filters {
                    DynamicFilters::Always => true,
                    DynamicFilters::Never => false,
                    // Of two restricted sides, the one with fewer rows.
                    DynamicFilters::Auto => {
                        restricted(*from)
                            && (!restricted(*of) || resolved.sources[*from].rows() <= resolved.sources[*of].rows())
                    }
                }
        });
        worthwhile.next().map(|(from, of, _)| Driver { from, of, always })
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
        let Ok([left, right]) = <[SourceInputs; 2]>::try_from(sources) else {
            return Err(Error::internal("a join has not two sources"));
        };
        let key_types = left.order.iter().map(|&at| left.schema.field(at).data_type().clone()).collect();
        let mut problems = Problems::default();
        let condition = self.bind_condition(resolved, &mut problems);
        problems.into_result()?;
        let PlanOptions { batch_size, carry_budget, spill_dir, .. } = resolved.options.clone();
        let counters = Arc::clone(counters);
        let overflow = move |schema: &SchemaRef| {
            let rows = SpilledRows::create(spill_dir.as_deref(), schema, Arc::clone(&counters))?;
            Ok(Box::new(rows) as Box<dyn Overflow>)
        };
        let budget = CarryBudget { bytes: carry_budget, overflow: Arc::new(overflow) };
        let output = self.output(resolved);
        join_kernel(JoinInputs { kind: self.kind, key_types, left, right, output, condition, batch_size, budget })
    }

    fn yields_nothing(&self, has_runs: &[bool]) -> bool {
        let shape = self.kind.shape();
        match (has_runs[0], has_runs[1]) {
            (true, true) => false,
            (true, false) => !shape.left_unmatched,
            (false, true) => !shape.right_unmatched,
            (false, false) => true,
        }
    }
}

/// The default of [`CoGroup::with_max_group_rows`].
pub const DEFAULT_MAX_GROUP_ROWS: usize = 1 << 20;

/// Groups any number of sources by key: for each key, the rows of every source.
///
/// [`plan`](Self::plan) yields whole groups, up to a limit; [`plan_chunks`](Self::plan_chunks) yields chunks without a limit. Null is a key
/// like any other and comes last, as in GROUP BY.
///
/// ```text
/// plays     7 7 7     12 12         CoGroupBatch  7:  3 plays, 1 user,  0 contexts
/// users     7     9                               9:  0 plays, 1 user,  0 contexts
/// contexts            12                         12:  2 plays, 0 users, 1 context
/// ```
///
/// # Memory
/// Of a running slot: per open run two row groups of the projected columns as fetched, and the pages being decoded; the batches of one
/// window; whole groups hold the group at the end of a window, at most the limit.
#[derive(Debug, Clone)]
pub struct CoGroup {
    sources: Vec<(String, Source)>,
    max_group_rows: usize,
    options: PlanOptions,
}

impl Default for CoGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl CoGroup {
    /// A co-group without sources yet.
    pub fn new() -> Self {
        Self { sources: vec![], max_group_rows: DEFAULT_MAX_GROUP_ROWS, options: PlanOptions::default() }
    }

    /// Adds a source under a name of its own.
    #[must_use]
    pub fn source(mut self, name: impl Into<String>, source: impl Into<Source>) -> Self {
        self.sources.push((name.into(), source.into()));
        self
    }

    /// The most rows of one group over all sources; beyond it, running the plan fails with `LimitExceeded`. [`DEFAULT_MAX_GROUP_ROWS`] by
    /// default. Does not concern chunks.
    #[must_use]
    pub fn with_max_group_rows(mut self, rows: usize) -> Self {
        self.max_group_rows = rows;
        self
    }

    /// Sets how the plan runs.
    #[must_use]
    pub fn with_options(mut self, options: PlanOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes a plan that yields [`CoGroupBatch`]es of whole groups.
    ///
    /// # Errors
    /// As [`Join::plan`]; `InvalidInput` also for no source or two of the same name.
    pub fn plan(self) -> Result<CoGroupPlan> {
        let (resolved, schema) = self.resolve()?;
        Ok(Plan { operation: self, resolved, schema })
    }

    /// Makes a plan that yields [`CoGroupChunk`]s, which may end inside a group.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_chunks(self) -> Result<CoGroupChunkPlan> {
        let (resolved, schema) = self.resolve()?;
        Ok(Plan { operation: CoGroupChunks(self), resolved, schema })
    }

    /// The sources; notes if there are none or two of one name.
    pub(super) fn named_sources(&self, problems: &mut Problems) -> Vec<(String, Source)> {
        if self.sources.is_empty() {
            problems.invalid("a co-group needs at least one source".to_owned());
        }
        for (at, (name, _)) in self.sources.iter().enumerate() {
            if self.sources[..at].iter().any(|(other, _)| other == name) {
                problems.invalid(format!("two sources have the same name, source=`{name}`"));
            }
        }
        self.sources.clone()
    }

    /// Everything that aggregates of the groups depend on beside the datasets: which source they mean by a name.
    pub(super) fn describe_fully(&self) -> String {
        let names = self.sources.iter().map(|(name, _)| name).collect::<Vec<_>>();
        let restricted = self.sources.iter().map(|(name, source)| (name, source.describe_restriction()));
        let restricted = restricted.filter(|(_, some)| !some.is_empty());
        let restricted: String = restricted.map(|(name, some)| format!(", {name} {some}")).collect();
        format!("co-group of {names:?}{restricted}")
    }

    fn resolve(&self) -> Result<(Arc<Resolved>, SchemaRef)> {
        let mut problems = Problems::default();
        let resolved = resolve(self.named_sources(&mut problems), 0, self.options.clone(), &mut problems);
        problems.into_result()?;
        let resolved = resolved.ok_or_else(|| Error::internal("a plan without sources"))?;
        let schema = key_schema(&resolved);
        Ok((Arc::new(resolved), schema))
    }

    fn inputs(&self, sources: Vec<SourceInputs>, resolved: &Resolved) -> CoGroupInputs {
        let names: SourceNames = resolved.sources.iter().map(|source| source.name.clone()).collect();
        CoGroupInputs {
            names,
            key_schema: key_schema(resolved),
            sources,
            max_group_rows: self.max_group_rows,
            batch_size: resolved.options.batch_size,
        }
    }
}

/// The key columns of a co-group.
fn key_schema(resolved: &Resolved) -> SchemaRef {
    let schemas: Vec<SchemaRef> = resolved.sources.iter().map(|source| Arc::clone(&source.schema)).collect();
    Arc::new(Schema::new(key_fields(&resolved.key, &schemas)))
}

/// Key columns, which are the first ones of every source, null where any source's may be. There is at least one source.
pub(super) fn key_fields(key: &[String], schemas: &[SchemaRef]) -> Vec<Field> {
    let field = |(at, name): (usize, &String)| {
        let nullable = schemas.iter().any(|schema| schema.field(at).is_nullable());
        Field::new(name, schemas[0].field(at).data_type().clone(), nullable)
    };
    key.iter().enumerate().map(field).collect()
}

impl sealed::Sealed for CoGroup {}

impl PlanOperation for CoGroup {
    type Item = CoGroupBatch;

    fn describe(&self) -> String {
        "co-group".to_owned()
    }

    fn rows(item: &CoGroupBatch) -> usize {
        item.len()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        _counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = CoGroupBatch>>> {
        whole_kernel(self.inputs(sources, resolved))
    }
}

/// A co-group in chunks: what [`CoGroup::plan_chunks`] makes a plan of.
#[derive(Debug, Clone)]
pub struct CoGroupChunks(CoGroup);

impl sealed::Sealed for CoGroupChunks {}

impl PlanOperation for CoGroupChunks {
    type Item = CoGroupChunk;

    fn describe(&self) -> String {
        "co-group in chunks".to_owned()
    }

    fn rows(item: &CoGroupChunk) -> usize {
        item.groups().len()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        _counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = CoGroupChunk>>> {
        chunk_kernel(self.0.inputs(sources, resolved))
    }
}
