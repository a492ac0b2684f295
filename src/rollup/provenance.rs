//! What a partial was made from, as a property of its dataset: it is up to date as long as the same would be written again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::aggregate::Definition;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::layout::{DatasetId, WriteId};
use crate::plan::{AggregatePlan, Named};

/// The property of a partial that holds its provenance, as JSON.
pub(super) const PROPERTY: &str = "sort-merge-bucket.rollup";

/// A provenance, and of which write it tells.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    write_id: WriteId,
    #[serde(flatten)]
    provenance: Provenance,
}

/// Everything that the rows of a partial depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provenance {
    /// By the names of their columns.
    aggregates: BTreeMap<String, Of>,
    /// How the rows came from the sources.
    input: String,
    /// Per source, its datasets in order, at the versions of their rows: a compaction changes none of this.
    sources: Vec<Vec<Rows>>,
    /// The updated periods that the partial stands for; itself, if it was made from rows.
    pub(super) covers: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    definition: Definition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rows {
    dataset_id: DatasetId,
    data_version: u64,
}

impl Rows {
    fn of(dataset: &Dataset) -> Self {
        Self { dataset_id: dataset.id().clone(), data_version: dataset.data_version() }
    }
}

fn aggregates(named: &[Named]) -> BTreeMap<String, Of> {
    named
        .iter()
        .map(|named| (named.name.clone(), Of { definition: named.definition(), source: named.source.clone() }))
        .collect()
}

/// How two provenances differ, the most telling way.
#[derive(Debug)]
pub(super) enum Change {
    /// In these aggregates.
    Definitions(Vec<String>),
    /// In how rows came from the sources, or in their number.
    Input,
    /// In the datasets or their rows.
    Rows,
}

/// What stands for the input of a partial that was merged from others.
const PARTS: &str = "parts";

impl Provenance {
    pub(super) fn of(plan: &AggregatePlan, named: &[Named], covers: BTreeSet<String>) -> Self {
        Self {
            aggregates: aggregates(named),
            input: plan.operation.describe_input(),
            sources: plan
                .resolved
                .sources
                .iter()
                .map(|source| source.datasets.iter().map(Rows::of).collect())
                .collect(),
            covers,
        }
    }

    /// That of a partial merged from these ones, in the order of their names, whichever of them were merged before.
    pub(super) fn of_parts(named: &[Named], parts: &[Dataset], covers: BTreeSet<String>) -> Self {
        let sources = vec![parts.iter().map(Rows::of).collect()];
        Self { aggregates: aggregates(named), input: PARTS.to_owned(), sources, covers }
    }

    /// How what would be made `now` differs from this; `None` if it does not.
    pub(super) fn change(&self, now: &Self) -> Option<Change> {
        if self.aggregates != now.aggregates {
            let names: BTreeSet<&String> = self.aggregates.keys().chain(now.aggregates.keys()).collect();
            let differs = |name: &&&String| self.aggregates.get(**name) != now.aggregates.get(**name);
            return Some(Change::Definitions(names.iter().filter(differs).map(|name| (*name).clone()).collect()));
        }
        if self.input != now.input || self.sources.len() != now.sources.len() {
            return Some(Change::Input);
        }
        (self != now).then_some(Change::Rows)
    }

    /// If all that this was merged from is still there `now`: which parts are new, as positions.
    pub(super) fn added(&self, now: &Self) -> Option<Vec<usize>> {
        let ([before], [parts], PARTS) = (self.sources.as_slice(), now.sources.as_slice(), self.input.as_str()) else {
            return None;
        };
        let comparable = self.input == now.input && self.aggregates == now.aggregates;
        if !comparable || before.is_empty() || !before.iter().all(|rows| parts.contains(rows)) {
            return None;
        }
        Some((0..parts.len()).filter(|at| !before.contains(&parts[*at])).collect())
    }

    /// That of a dataset; `None` if it is not a partial, or others have changed its rows.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read.
    pub(super) fn read(dataset: &Dataset) -> Result<Option<Self>> {
        let Some(text) = dataset.properties().get(PROPERTY) else { return Ok(None) };
        let stored: Stored = serde_json::from_str(text).map_err(|e| {
            Error::corrupt(format!("a property cannot be read, property=`{PROPERTY}`"))
                .with_source(e)
                .with_path(dataset.path())
        })?;
        // Whoever appends rows keeps the property, which does not tell of them.
        Ok((dataset.rows_written_by() == Some(&stored.write_id)).then_some(stored.provenance))
    }

    /// The property of a partial whose rows are written by `write_id`.
    pub(super) fn to_text(&self, write_id: &WriteId) -> Result<String> {
        let stored = Stored { write_id: write_id.clone(), provenance: self.clone() };
        serde_json::to_string(&stored).map_err(|e| Error::internal("a provenance cannot be written").with_source(e))
    }

    /// Whether a partial holds the states of these aggregates.
    pub(super) fn is_of(&self, named: &[Named]) -> bool {
        self.aggregates == aggregates(named)
    }
}
