//! A join as a plan: the builder, and where the output's columns come from.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::join::{
    BoundCondition, CarryBudget, JoinCondition, JoinInputs, JoinKind, OutputColumn, OutputLayout, Overflow, join_kernel,
};
use crate::merge::{Kernel, SourceInputs};
use crate::metrics::Counters;
use crate::plan::operation::{Driver, PlanOperation, sealed};
use crate::plan::resolve::{Problems, Resolved, resolve};
use crate::plan::{DynamicFilters, JoinPlan, Plan, PlanOptions};
use crate::read::Source;
use crate::spill::SpilledRows;

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
