//! A scan as a plan: one source's datasets and runs, merged.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::merge::{Kernel, SourceInputs, scan_kernel};
use crate::metrics::Counters;
use crate::plan::operation::{PlanOperation, sealed};
use crate::plan::resolve::{Problems, Resolved, resolve};
use crate::plan::{Plan, PlanOptions, ScanPlan};
use crate::read::Source;

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
