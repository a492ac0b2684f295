//! A co-group as a plan, of whole groups or of chunks.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::cogroup::{CoGroupBatch, CoGroupChunk, CoGroupInputs, SourceNames, chunk_kernel, whole_kernel};
use crate::error::{Error, Result};
use crate::merge::{Kernel, SourceInputs};
use crate::metrics::Counters;
use crate::plan::operation::{PlanOperation, sealed};
use crate::plan::resolve::{Problems, Resolved, resolve};
use crate::plan::{CoGroupChunkPlan, CoGroupPlan, Plan, PlanOptions};
use crate::read::Source;

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
    /// As [`Join::plan`](crate::Join::plan); `InvalidInput` also for no source or two of the same name.
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
