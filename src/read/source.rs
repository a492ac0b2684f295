//! Sources: one dataset, or several read as one, with the columns that are wanted of them.

use std::collections::BTreeSet;

use crate::dataset::Dataset;

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
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) datasets: Vec<Dataset>,
    /// The wanted columns; `None` is all.
    pub(crate) columns: Option<Vec<String>>,
}

impl Source {
    /// A source of several datasets. Rows of one key come in the order of the datasets.
    pub fn new(datasets: impl IntoIterator<Item = Dataset>) -> Self {
        Self { datasets: datasets.into_iter().collect(), columns: None }
    }

    /// Reads these columns only, in this order, after the key columns, which are always read.
    #[must_use]
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
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
