//! Plans: what will be read, merged and returned, decided without I/O.
//!
//! * `operation`: what a plan computes, and the kernel that it becomes. The builders are such operations: `scan`: [`Scan`]; `join`: [`Join`];
//!   `cogroup`: [`CoGroup`]; `aggregate`: [`Aggregate`], and how aggregates are bound to columns.
//! * `resolve`: sources brought onto common keys and schemas; collects every incompatibility.
//! * `restrict`: the rows that sources are restricted to.
//! * `split`: slots cut into key ranges.
//! * `explain`: a plan as text; `advice`: what it says of buckets of an unfortunate size.
//!
//! A [`Plan`] pins the versions of all its datasets. It is pure and cheap; `run` executes it.

mod advice;
mod aggregate;
mod cogroup;
mod explain;
mod join;
mod operation;
mod resolve;
mod restrict;
mod scan;
mod split;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::layout::DatasetId;
use crate::manifest::Lineage;
use crate::merge::SourceInputs;
use crate::metrics::Counters;
use crate::read::{Chain, Verification, chains};
use crate::select::KeyRange;
use crate::spec::BucketCount;

pub(crate) use aggregate::Named;
pub use aggregate::{Aggregate, AggregateInput};
pub use cogroup::{CoGroup, CoGroupChunks, DEFAULT_MAX_GROUP_ROWS};
pub use join::Join;
pub use operation::PlanOperation;
pub(crate) use resolve::{Problems, Resolved, ResolvedSource};
pub use scan::Scan;
pub(crate) use split::{Part, parts};

/// The default of [`PlanOptions::batch_size`]: what arrow's and parquet's readers use as well, small enough to stay in a core's cache.
pub const DEFAULT_BATCH_SIZE: usize = 8192;

/// The default of [`PlanOptions::prefetch`]: with two fetches in a row per slot (a footer, then rows), enough to keep a processor busy behind a
/// latency of about as long as a slot takes.
pub const DEFAULT_PREFETCH: usize = 2;

/// The largest batch size: beyond it batches only cost memory, and row numbers inside one must fit 32 bits.
pub(crate) const MAX_BATCH_SIZE: usize = 1 << 20;

/// The most slots of a plan, each of which takes some hundred bytes whether it has rows or not.
pub(crate) const MAX_SLOTS: u32 = 1 << 20;

/// The default of [`PlanOptions::carry_budget`]: 64 MiB.
pub const DEFAULT_CARRY_BUDGET: usize = 64 << 20;

/// Settings of a plan that change how it runs, never what it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Rows per batch, about: batches read have at most so many, results at most as many. Taken as 1 if it is 0 and as 2²⁰ if it is more.
    pub batch_size: usize,
    /// How many slots, for each that runs, may have begun to fetch already. Default [`DEFAULT_PREFETCH`].
    pub prefetch: usize,
    /// When joins look for the keys of one side in the other before they read more of it. Default [`DynamicFilters::Auto`].
    pub dynamic_filters: DynamicFilters,
    /// Bytes of rows of one key that a join holds in memory in each running slot; more go to local disk. Any number works. Default
    /// [`DEFAULT_CARRY_BUDGET`].
    pub carry_budget: usize,
    /// The local folder for the files of such rows, which exist only as long as the key is being joined; `None` is the system's folder for
    /// temporary files.
    pub spill_dir: Option<PathBuf>,
    /// How much of what is read is verified. Default [`Verification::Basic`].
    pub verification: Verification,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            batch_size: DEFAULT_BATCH_SIZE,
            prefetch: DEFAULT_PREFETCH,
            dynamic_filters: DynamicFilters::default(),
            carry_budget: DEFAULT_CARRY_BUDGET,
            spill_dir: None,
            verification: Verification::default(),
        }
    }
}

/// When a join reads the keys of one side first and of the other side only what has one of them.
///
/// The side that is read first must be one whose keys decide about the other's rows: either side of an inner or semi join, the left side of a left join,
/// and so on; never in a full join. The keys of a slot are held in memory, up to a million; if there are more, or more than the other side has pages (which are
/// then nearly all read in any case), or more than half as many as the rows of their own side, the other side is read as without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DynamicFilters {
    /// If one side is restricted by a filter, a key range or keys.
    #[default]
    Auto,
    /// Wherever the join's kind allows it, the left side first. For tests, and for joins with a side known to be small.
    Always,
    /// Never.
    Never,
}

impl PlanOptions {
    /// Rows per batch; [`DEFAULT_BATCH_SIZE`] by default, at least 1.
    #[must_use]
    pub fn with_batch_size(mut self, rows: usize) -> Self {
        self.batch_size = rows.max(1);
        self
    }

    /// Sets [`prefetch`](Self::prefetch), by default [`DEFAULT_PREFETCH`]; 0 fetches for running slots only.
    #[must_use]
    pub fn with_prefetch(mut self, slots: usize) -> Self {
        self.prefetch = slots;
        self
    }

    /// Sets [`dynamic_filters`](Self::dynamic_filters), by default [`DynamicFilters::Auto`].
    #[must_use]
    pub fn with_dynamic_filters(mut self, when: DynamicFilters) -> Self {
        self.dynamic_filters = when;
        self
    }

    /// Sets [`carry_budget`](Self::carry_budget), by default [`DEFAULT_CARRY_BUDGET`].
    #[must_use]
    pub fn with_carry_budget(mut self, bytes: usize) -> Self {
        self.carry_budget = bytes;
        self
    }

    /// Sets [`spill_dir`](Self::spill_dir), by default the system's folder for temporary files.
    #[must_use]
    pub fn with_spill_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.spill_dir = Some(dir.as_ref().to_path_buf());
        self
    }

    /// Sets [`verification`](Self::verification), by default [`Verification::Basic`].
    #[must_use]
    pub fn with_verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }
}

/// A plan of an operation: [`Scan`], [`Join`], [`CoGroup`], [`CoGroupChunks`] or [`Aggregate`].
///
/// Made by the operations' `plan()`, which reads nothing and reports every incompatibility of the sources at once. The datasets are pinned at the
/// versions they were opened at: a plan returns the same rows however often it runs, whatever is committed meanwhile.
///
/// A plan consists of [`slots`](Self::slots), which share no key and can run anywhere in any order. Printing a plan explains it.
#[derive(Debug, Clone)]
pub struct Plan<O> {
    pub(crate) operation: O,
    pub(crate) resolved: Arc<Resolved>,
    pub(crate) schema: SchemaRef,
}

/// The plan of a [`Scan`].
pub type ScanPlan = Plan<Scan>;
/// The plan of a [`Join`].
pub type JoinPlan = Plan<Join>;
/// The plan of a [`CoGroup`] of whole groups.
pub type CoGroupPlan = Plan<CoGroup>;
/// The plan of a co-group in chunks.
pub type CoGroupChunkPlan = Plan<CoGroupChunks>;

/// The plan of an [`Aggregate`].
pub type AggregatePlan = Plan<Aggregate>;

/// A dataset at a version, as a [`SlotDescriptor`] pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PinnedDataset {
    /// The dataset's path when the plan was made.
    pub path: String,
    /// Its id.
    pub dataset_id: DatasetId,
    /// The version.
    pub version: u64,
}

/// One unit of a plan's work, to be serialised and run elsewhere: by a plan made there of the same operation over the same versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotDescriptor {
    /// The datasets of every source, in order.
    pub sources: Vec<Vec<PinnedDataset>>,
    /// The slot.
    pub slot: u32,
    /// The number of slots.
    pub slots: BucketCount,
    /// The keys of the slot that are meant.
    #[serde(default, skip_serializing_if = "KeyRange::is_all")]
    pub key_range: KeyRange,
}

impl<O: PlanOperation> Plan<O> {
    /// The schema of the batches that a scan, join or aggregation returns, exactly; for co-groups, that of the keys.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of slots G: the greatest common divisor of the bucket counts of all runs and datasets.
    pub fn slots(&self) -> BucketCount {
        self.resolved.slots
    }

    /// The columns whose equality makes a key group, by their names in the output.
    pub fn key(&self) -> &[String] {
        self.operation.key(&self.resolved)
    }

    /// The settings that the plan was made with.
    pub fn options(&self) -> &PlanOptions {
        &self.resolved.options
    }

    /// Describes a slot for running it elsewhere.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such slot.
    pub fn slot(&self, slot: u32) -> Result<SlotDescriptor> {
        if slot >= self.slots().get() {
            return Err(Error::invalid_input(format!(
                "there is no such slot, slot=`{slot}`, slots=`{}`",
                self.slots()
            )));
        }
        let pin = |dataset: &Dataset| PinnedDataset {
            path: dataset.place().layout.root().to_string(),
            dataset_id: dataset.id().clone(),
            version: dataset.version(),
        };
        let sources = self.resolved.sources.iter().map(|source| source.datasets.iter().map(pin).collect()).collect();
        Ok(SlotDescriptor { sources, slot, slots: self.slots(), key_range: KeyRange::all() })
    }

    /// Describes the whole plan in pieces for so many workers: its slots, those cut into key ranges that are much larger than a worker's share.
    /// A slot's pieces come in key order. The row groups at the ends of a key range are read for both its neighbours.
    ///
    /// # Errors
    /// None of ordinary plans.
    pub fn split(&self, workers: usize) -> Result<Vec<SlotDescriptor>> {
        let cut = split::cut(&self.resolved, |total| total / workers.max(1) as u64)?;
        cut.into_iter().map(|part| Ok(SlotDescriptor { key_range: part.range, ..self.slot(part.slot)? })).collect()
    }

    /// What a descriptor means, if it was made by a plan over the same versions.
    pub(crate) fn check_descriptor(&self, descriptor: &SlotDescriptor) -> Result<Part> {
        let own = self.slot(descriptor.slot)?;
        let ids = |d: &SlotDescriptor| -> Vec<Vec<(DatasetId, u64)>> {
            d.sources.iter().map(|s| s.iter().map(|p| (p.dataset_id.clone(), p.version)).collect()).collect()
        };
        // Paths may differ: another machine may see the store under another prefix.
        if own.slots != descriptor.slots || ids(&own) != ids(descriptor) {
            return Err(Error::incompatible(format!(
                "the slot descriptor belongs to a plan over other datasets or versions, plan=`{}`, descriptor=`{}`",
                show_pins(&own),
                show_pins(descriptor)
            )));
        }
        descriptor.key_range.check(&self.resolved.key_types())?;
        Ok(Part { range: descriptor.key_range.clone(), ..Part::whole(descriptor.slot) })
    }

    /// Per source, what the kernel needs to know, and the readers of the part's runs in the chains that are its inputs.
    pub(crate) fn inputs(&self, part: &Part, counters: &Arc<Counters>) -> Result<(Vec<SourceInputs>, Vec<Vec<Chain>>)> {
        let mut inputs = vec![];
        let mut readers = vec![];
        for source in &self.resolved.sources {
            let own = chains(source.readers(part.slot, &self.resolved, &part.range, counters)?);
            inputs.push(SourceInputs {
                schema: Arc::clone(&source.schema),
                order: (0..self.resolved.key.len()).collect(),
                runs: own.iter().map(|chain| chain[0].path().as_ref().into()).collect(),
            });
            readers.push(own);
        }
        Ok((inputs, readers))
    }

    /// Whether a slot yields nothing, known without reading it.
    pub(crate) fn is_skipped(&self, slot: u32) -> Result<bool> {
        let has_runs = self
            .resolved
            .sources
            .iter()
            .map(|source| source.runs_of(slot, &self.resolved, &KeyRange::all()).map(|runs| !runs.is_empty()));
        Ok(self.operation.yields_nothing(&has_runs.collect::<Result<Vec<bool>>>()?))
    }

    /// What the result is derived from.
    pub(crate) fn lineage(&self) -> Vec<Lineage> {
        let datasets = self.resolved.sources.iter().flat_map(|source| &source.datasets);
        let mut lineage: Vec<Lineage> = vec![];
        for dataset in datasets {
            let manifest = dataset.manifest();
            let input = Lineage {
                path: dataset.place().layout.root().to_string(),
                dataset_id: manifest.dataset_id.clone(),
                version: manifest.version,
                data_version: manifest.data_version,
            };
            if !lineage.contains(&input) {
                lineage.push(input);
            }
        }
        lineage
    }
}

fn show_pins(descriptor: &SlotDescriptor) -> String {
    let sources: Vec<String> = descriptor
        .sources
        .iter()
        .map(|source| source.iter().map(|pin| format!("{}@{}", pin.path, pin.version)).collect::<Vec<_>>().join("+"))
        .collect();
    format!("{} of {} slots", sources.join(", "), descriptor.slots)
}
