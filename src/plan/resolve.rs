//! Brings the sources of a plan onto common keys and schemas.
//!
//! Nothing stops at the first problem: every incompatibility of every pair of sources and of the datasets inside a source is collected, so
//! that a caller sees them all at once.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::bucket::{greatest_common_count, slot_of};
use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Run;
use crate::metrics::Counters;
use crate::plan::restrict::{Restriction, restrict};
use crate::plan::{MAX_BATCH_SIZE, MAX_SLOTS, PlanOptions};
use crate::read::{Adapt, RunReader, Selection, Source};
use crate::schema::{common_type, type_name};
use crate::select::KeyRange;
use crate::spec::{BucketCount, BucketFunction, BucketSpec, KeyOrder};

/// Everything a plan knows about its sources.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) sources: Vec<ResolvedSource>,
    pub(crate) slots: BucketCount,
    /// The columns that rows are merged by, named as in the first source: its key columns, then sort columns of the join key.
    pub(crate) key: Vec<String>,
    /// How many of them are key columns of the datasets.
    pub(crate) hashed: usize,
    pub(crate) function: BucketFunction,
    pub(crate) key_order: KeyOrder,
    pub(crate) options: PlanOptions,
}

impl Resolved {
    /// The types of the key columns.
    pub(crate) fn key_types(&self) -> Vec<DataType> {
        let fields = self.sources.iter().flat_map(|source| source.schema.fields().iter().take(self.hashed));
        fields.take(self.hashed).map(|field| field.data_type().clone()).collect()
    }
}

/// One source: its datasets and the schema that their batches are brought to.
#[derive(Debug)]
pub(crate) struct ResolvedSource {
    pub(crate) name: String,
    pub(crate) datasets: Vec<Dataset>,
    /// The merge columns, then the other wanted columns.
    pub(crate) schema: SchemaRef,
    /// Which rows are wanted.
    pub(crate) restriction: Restriction,
    /// Per dataset.
    adapts: Vec<Adapts>,
    /// By slot, the positions of datasets and of their runs, in the order in which rows of one key are returned.
    by_slot: Vec<Vec<(usize, usize)>>,
}

/// How the columns of one dataset become those of its source.
#[derive(Debug)]
struct Adapts {
    rows: Arc<Adapt>,
    keys: Arc<Adapt>,
    /// `None` if there is no filter, or the dataset has none of its columns.
    filter: Option<Arc<Adapt>>,
}

impl ResolvedSource {
    /// All runs with the positions of their datasets, in the order in which rows of one key are returned.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, &Run)> {
        self.datasets.iter().enumerate().flat_map(|(at, dataset)| dataset.runs().iter().map(move |run| (at, run)))
    }

    /// The rows of all runs.
    pub(crate) fn rows(&self) -> u64 {
        self.runs().map(|(_, run)| run.rows).fold(0, u64::saturating_add)
    }

    /// The run of that dataset at that position.
    pub(crate) fn run(&self, (dataset, run): (usize, usize)) -> &Run {
        &self.datasets[dataset].runs()[run]
    }

    /// The positions of the runs of a slot that may have wanted rows with a key of `range`, each with what is wanted of it.
    pub(crate) fn runs_of(
        &self,
        slot: u32,
        plan: &Resolved,
        range: &KeyRange,
    ) -> Result<Vec<((usize, usize), Selection)>> {
        let of_slot = self.restriction.of_slot(slot, range)?;
        let mut wanted = vec![];
        for &at in &self.by_slot[slot as usize] {
            let run = self.run(at);
            let mut selection = of_slot.clone();
            // The keys of a slot lie in several buckets if there are more buckets than slots.
            if let Some(keys) = selection.keys.as_mut().filter(|_| run.buckets != plan.slots) {
                *keys = Arc::new(keys.of_bucket(plan.function, run.bucket, run.buckets)?);
            }
            if selection.may_want(run)? {
                wanted.push((at, selection));
            }
        }
        Ok(wanted)
    }

    /// Readers of those runs, of all columns of the source.
    pub(crate) fn readers(
        &self,
        slot: u32,
        plan: &Resolved,
        range: &KeyRange,
        counters: &Arc<Counters>,
    ) -> Result<Vec<RunReader>> {
        let reader = |((at, run), mut selection): ((usize, usize), Selection)| {
            let dataset = &self.datasets[at];
            let Adapts { rows, keys, filter } = &self.adapts[at];
            if filter.is_none() {
                selection.filter = None;
            }
            RunReader {
                place: dataset.place().clone(),
                dataset_id: dataset.id().clone(),
                schema: Arc::clone(dataset.schema()),
                run: dataset.shared_run(run),
                adapt: Arc::clone(rows),
                key_adapt: Arc::clone(keys),
                filter_adapt: filter.clone(),
                selection,
                function: plan.function,
                batch_size: plan.options.batch_size,
                verification: plan.options.verification,
                counters: Arc::clone(counters),
            }
        };
        Ok(self.runs_of(slot, plan, range)?.into_iter().map(reader).collect())
    }
}

/// What is wrong with a plan, all of it.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    /// Wrong by itself.
    invalid: Vec<String>,
    /// Does not fit together.
    incompatible: Vec<String>,
}

impl Problems {
    pub(crate) fn invalid(&mut self, message: String) {
        self.invalid.push(message);
    }

    pub(crate) fn incompatible(&mut self, message: String) {
        self.incompatible.push(message);
    }

    pub(crate) fn into_result(self) -> Result<()> {
        let Self { invalid, incompatible } = self;
        let kind = if incompatible.is_empty() { ErrorKind::InvalidInput } else { ErrorKind::Incompatible };
        let all: Vec<String> = incompatible.into_iter().chain(invalid).collect();
        if all.is_empty() { Ok(()) } else { Err(Error::new(kind, all.join("; "))) }
    }
}

/// Resolves named sources, merged by their key columns and the first `sort_columns` sort columns.
pub(crate) fn resolve(
    sources: Vec<(String, Source)>,
    sort_columns: usize,
    options: PlanOptions,
    problems: &mut Problems,
) -> Option<Resolved> {
    for (name, source) in &sources {
        if source.datasets.is_empty() {
            problems.invalid(format!("source `{name}` has no datasets"));
        }
    }
    let first = sources.iter().find_map(|(name, source)| Some((name, source.datasets.first()?)))?;
    let reference = first.1.spec();
    for (name, source) in &sources {
        for dataset in &source.datasets {
            compare_specs((first.0, reference), (name, dataset), sort_columns, problems);
        }
        if let Some(own) = source.datasets.first() {
            for dataset in &source.datasets[1..] {
                compare_names(name, own, dataset, sort_columns, problems);
            }
        }
    }
    let batch_size = options.batch_size.clamp(1, MAX_BATCH_SIZE);
    let options = options.with_batch_size(batch_size);
    let width = reference.key().len() + sort_columns;
    let types: Vec<Option<DataType>> = (0..width).map(|at| key_type(&sources, at, problems)).collect();
    let types: Vec<DataType> = types.into_iter().collect::<Option<_>>()?;

    let key: Vec<String> = reference.order().take(width).map(str::to_owned).collect();
    let hashed = reference.key().len();
    let counts = sources.iter().flat_map(|(_, source)| &source.datasets).flat_map(|dataset| {
        std::iter::once(dataset.spec().buckets()).chain(dataset.runs().iter().map(|run| run.buckets))
    });
    let slots = greatest_common_count(counts)?;
    if slots.get() > MAX_SLOTS {
        problems.invalid(format!(
            "all bucket counts are multiples of `{slots}`, and a plan has at most `{MAX_SLOTS}` slots"
        ));
        return None;
    }
    let (function, key_order) = (reference.function(), reference.key_order());
    let keys = Keys { types: &types, hashed, function, slots };
    let sources: Vec<ResolvedSource> =
        sources.into_iter().filter_map(|(name, source)| resolve_source(name, source, &keys, problems)).collect();
    Some(Resolved { sources, slots, key, hashed, function, key_order, options })
}

fn root(dataset: &Dataset) -> String {
    dataset.place().layout.root().to_string()
}

/// Placement and order must be the same; names may differ between sources.
fn compare_specs(
    first: (&String, &BucketSpec),
    other: (&String, &Dataset),
    sort_columns: usize,
    problems: &mut Problems,
) {
    let (reference, spec) = (first.1, other.1.spec());
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            problems.incompatible(format!("{what} differ, `{}`: {a}, `{}` ({}): {b}", first.0, other.0, root(other.1)));
        }
    };
    differ("bucket functions", reference.function().to_string(), spec.function().to_string());
    differ("key orders", reference.key_order().to_string(), spec.key_order().to_string());
    differ("numbers of key columns", reference.key().len().to_string(), spec.key().len().to_string());
    let order = |spec: &BucketSpec| {
        let columns: Vec<String> = spec
            .sort_columns()
            .iter()
            .take(sort_columns)
            .map(|c| format!("{:?} nulls {:?}", c.direction, c.nulls).to_lowercase())
            .collect();
        format!("[{}]", columns.join(", "))
    };
    if spec.sort_columns().len() < sort_columns {
        problems.invalid(format!(
            "the join key has `{sort_columns}` sort columns, `{}` ({}) has only `{}`",
            other.0,
            root(other.1),
            spec.sort_columns().len()
        ));
    } else if reference.sort_columns().len() >= sort_columns {
        differ("sort columns of the join key", order(reference), order(spec));
    }
}

/// Inside one source the merge columns must have the same names.
fn compare_names(source: &str, a: &Dataset, b: &Dataset, sort_columns: usize, problems: &mut Problems) {
    let names = |dataset: &Dataset| -> Vec<String> {
        let spec = dataset.spec();
        spec.order().take(spec.key().len() + sort_columns).map(str::to_owned).collect()
    };
    let (x, y) = (names(a), names(b));
    if x != y {
        problems.incompatible(format!(
            "key columns differ inside source `{source}`, {}: [{}], {}: [{}]",
            root(a),
            x.join(", "),
            root(b),
            y.join(", ")
        ));
    }
}

/// A merge column of a dataset by position.
fn merge_column(dataset: &Dataset, at: usize) -> Option<&Field> {
    let name = dataset.spec().order().nth(at)?;
    dataset.schema().field_with_name(name).ok()
}

/// The type that a merge column has everywhere once widened; the first one if there is none, which is a problem by then.
fn key_type(sources: &[(String, Source)], at: usize, problems: &mut Problems) -> Option<DataType> {
    let mut common: Option<DataType> = None;
    let mut first: Option<String> = None;
    for (name, source) in sources {
        for dataset in &source.datasets {
            let field = merge_column(dataset, at)?;
            let here = format!("`{name}` ({}) column `{}`: {}", root(dataset), field.name(), show(field.data_type()));
            match common.take() {
                None => common = Some(field.data_type().clone()),
                Some(known) => match common_type(&known, field.data_type()) {
                    Some(wider) => common = Some(wider),
                    None => {
                        problems.incompatible(format!(
                            "key types differ, {}, {here}",
                            first.as_deref().unwrap_or_default()
                        ));
                        common = Some(known);
                    }
                },
            }
            first.get_or_insert(here);
        }
    }
    common
}

fn show(data_type: &DataType) -> String {
    type_name(data_type).unwrap_or_else(|_| data_type.to_string())
}

/// What the sources of a plan have in common.
pub(super) struct Keys<'a> {
    /// The types of the merge columns.
    types: &'a [DataType],
    /// How many of them are key columns.
    pub(super) hashed: usize,
    pub(super) function: BucketFunction,
    pub(super) slots: BucketCount,
}

/// Finds the source's schema: merge columns, then the wanted ones, each with a type that all its datasets widen to.
fn resolve_source(name: String, source: Source, common: &Keys<'_>, problems: &mut Problems) -> Option<ResolvedSource> {
    let Source { datasets, columns, filter, range, keys: key_sets } = source;
    let mut fields: Vec<Field> = vec![];
    for (at, data_type) in common.types.iter().enumerate() {
        let nullable = datasets.iter().any(|dataset| merge_column(dataset, at).is_none_or(Field::is_nullable));
        fields.push(Field::new(merge_column(datasets.first()?, at)?.name(), data_type.clone(), nullable));
    }
    let keys = fields.len();
    let is_read = |name: &String| {
        columns.as_ref().is_none_or(|columns| columns.contains(name))
            || filter.as_ref().is_some_and(|filter| filter.columns().contains(name.as_str()))
    };
    // All columns by name, in the order of their first appearance.
    let mut all: Vec<Field> = vec![];
    for dataset in &datasets {
        for field in dataset.schema().fields() {
            if fields[..keys].iter().any(|key| key.name() == field.name()) {
                continue;
            }
            match all.iter_mut().find(|known| known.name() == field.name()) {
                None => all.push(field.as_ref().clone()),
                Some(known) => match common_type(known.data_type(), field.data_type()) {
                    Some(wider) => *known = Field::new(field.name(), wider, known.is_nullable() || field.is_nullable()),
                    None if is_read(field.name()) => problems.incompatible(format!(
                        "types of column `{}` differ inside source `{name}`, {}: {}, before: {}",
                        field.name(),
                        root(dataset),
                        show(field.data_type()),
                        show(known.data_type())
                    )),
                    None => {}
                },
            }
        }
    }
    for field in &mut all {
        if datasets.iter().any(|dataset| dataset.schema().field_with_name(field.name()).is_err()) {
            field.set_nullable(true);
        }
    }
    let known: Vec<Field> = fields.iter().chain(&all).cloned().collect();
    let restriction = restrict(&name, &known, (filter, range, key_sets), common, &datasets, problems);
    match columns {
        None => fields.extend(all),
        Some(columns) => {
            for column in columns {
                if fields.iter().any(|field| *field.name() == column) {
                    continue;
                }
                match all.iter().find(|field| *field.name() == column) {
                    Some(field) => fields.push(field.clone()),
                    None => problems.invalid(format!("source `{name}` has no column `{column}`")),
                }
            }
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let adapts = datasets
        .iter()
        .map(|dataset| {
            let names = dataset.spec().order().take(keys);
            let own: Vec<usize> = names.filter_map(|name| dataset.schema().index_of(name).ok()).collect();
            let of_keys = Arc::new(Schema::new(schema.fields()[..common.hashed].to_vec()));
            let filter = restriction.filter().map(|filter| Adapt::new(&filter.schema, dataset.schema(), &[]));
            Adapts {
                rows: Arc::new(Adapt::new(&schema, dataset.schema(), &own)),
                keys: Arc::new(Adapt::new(&of_keys, dataset.schema(), &own[..common.hashed.min(own.len())])),
                filter: filter.filter(|adapt| !adapt.projection().is_empty()).map(Arc::new),
            }
        })
        .collect();
    let mut by_slot = vec![vec![]; common.slots.get() as usize];
    for (at, dataset) in datasets.iter().enumerate().filter(|(at, _)| !restriction.never.contains(at)) {
        for (number, run) in dataset.runs().iter().enumerate() {
            by_slot[slot_of(run.bucket, common.slots) as usize].push((at, number));
        }
    }
    Some(ResolvedSource { name, datasets, schema, restriction, adapts, by_slot })
}
