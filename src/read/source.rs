//! Sources: one dataset, or several read as one, with the columns and the rows that are wanted of them.

use std::collections::BTreeSet;

use crate::dataset::Dataset;
use crate::predicate::Predicate;
use crate::select::{KeyRange, KeySet};

/// What a plan reads on one side: one dataset, or several (date partitions, say) read as one.
///
/// Datasets of one source have the same key columns and may differ in bucket count and schema: columns are matched by name, a column that a
/// dataset lacks is null there, integers widen (as do decimals in precision). Anything else is reported when the plan is made.
///
/// ```text
/// plays/week=2025-W01   64 buckets ┐
/// plays/week=2025-W02   64 buckets ├─ one source, its rows merged by key
/// plays/week=2025-W03  128 buckets ┘
/// ```
///
/// # Choosing rows
/// A source can be restricted to rows with certain keys and to rows that pass a predicate; rows must satisfy every restriction. What is left
/// out is left out as early as possible: slots and runs by the manifest, row groups and pages by Parquet's statistics, rows by their keys and the
/// predicate's columns, which are decoded first; the other columns are decoded only where rows are left. Statistics of row groups are held against
/// what is decoded of them (`Corrupt` if they do not hold); [`Dataset::validate`] checks all.
///
/// ```
/// # use sort_merge_bucket::{Dataset, KeyRange, Predicate, Source};
/// # fn example(users: &Dataset) {
/// let source = Source::from(users)
///     .with_columns(["region"])
///     .with_filter(Predicate::eq("tier", "premium").and(Predicate::ge("age", 30)))
///     .with_key_range(KeyRange::all().starting_at([1_000]).below([2_000]));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) datasets: Vec<Dataset>,
    /// The wanted columns; `None` is all.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) filter: Option<Predicate>,
    pub(crate) range: KeyRange,
    pub(crate) keys: Vec<KeySet>,
}

impl Source {
    /// A source of several datasets. Rows of one key come in the order of the datasets.
    pub fn new(datasets: impl IntoIterator<Item = Dataset>) -> Self {
        Self {
            datasets: datasets.into_iter().collect(),
            columns: None,
            filter: None,
            range: KeyRange::all(),
            keys: vec![],
        }
    }

    /// Reads these columns only, in this order, after the key columns, which are always read.
    #[must_use]
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Reads only rows for which `predicate` is true, not false or null. It may look at columns that are not among those wanted.
    #[must_use]
    pub fn with_filter(mut self, predicate: Predicate) -> Self {
        self.filter = Some(match self.filter.take() {
            Some(before) => before.and(predicate),
            None => predicate,
        });
        self
    }

    /// Reads only rows with a key of this range.
    #[must_use]
    pub fn with_key_range(mut self, range: KeyRange) -> Self {
        self.range = self.range.intersect(&range);
        self
    }

    /// Reads only rows with one of these keys, which are values of the key columns in their order.
    #[must_use]
    pub fn with_keys(mut self, keys: impl Into<KeySet>) -> Self {
        self.keys.push(keys.into());
        self
    }

    /// Everything that its rows depend on beside the datasets and columns; empty if that is nothing.
    pub(crate) fn describe_restriction(&self) -> String {
        let mut parts = vec![];
        parts.extend(self.filter.iter().map(|filter| format!("filter {filter}")));
        if !self.range.is_all() {
            parts.push(format!("keys in {}", self.range));
        }
        for keys in &self.keys {
            // Columns that cannot be keys are refused by every plan.
            let fingerprint = keys.fingerprint().unwrap_or_else(|e| e.to_string());
            parts.push(format!("keys among {fingerprint}"));
        }
        parts.join(", ")
    }

    /// Reads only those of its columns that are `needed`. Columns that no dataset has stay, for whoever resolves the source to report.
    #[must_use]
    pub(crate) fn restricted(self, needed: impl Fn(&str) -> bool) -> Self {
        let fields = self.datasets.iter().flat_map(|dataset| dataset.schema().fields());
        let there: BTreeSet<&String> = fields.map(|field| field.name()).collect();
        let columns: BTreeSet<String> = match &self.columns {
            None => there.into_iter().filter(|name| needed(name)).cloned().collect(),
            Some(wanted) => wanted.iter().filter(|name| needed(name) || !there.contains(name)).cloned().collect(),
        };
        self.with_columns(columns)
    }

    /// The datasets, at the versions they were opened at.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }
}

impl From<&Dataset> for Source {
    fn from(dataset: &Dataset) -> Self {
        Self::new([dataset.clone()])
    }
}

impl From<Dataset> for Source {
    fn from(dataset: Dataset) -> Self {
        Self::new([dataset])
    }
}

impl From<Vec<Dataset>> for Source {
    fn from(datasets: Vec<Dataset>) -> Self {
        Self::new(datasets)
    }
}

impl From<&[Dataset]> for Source {
    fn from(datasets: &[Dataset]) -> Self {
        Self::new(datasets.to_vec())
    }
}
