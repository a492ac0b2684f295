//! The scan kernel: one source in key order, its small windows joined into batches of a useful size.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::merge::align::SourceInputs;
use crate::merge::kway::SortedMerge;
use crate::merge::{Emit, Kernel, Step};

/// The kernel of a scan of one source.
pub(crate) fn scan_kernel(source: SourceInputs, batch_size: usize) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
    let out = Emit::new(Arc::clone(&source.schema), batch_size);
    let merge = SortedMerge::with_labels(&source.schema, &source.order, source.runs, batch_size)?;
    Ok(Box::new(ScanKernel { merge, out }))
}

struct ScanKernel {
    merge: SortedMerge,
    out: Emit,
}

impl Kernel for ScanKernel {
    type Item = RecordBatch;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.merge.push(input, batch)
    }

    fn finish(&mut self, input: usize) {
        self.merge.finish(input);
    }

    fn step(&mut self) -> Result<Step<RecordBatch>> {
        loop {
            if let Some(batch) = self.out.pop() {
                return Ok(Step::Item(batch));
            }
            match self.merge.step()? {
                Step::Item(batch) => self.out.push(batch)?,
                Step::Needs(input) => return Ok(Step::Needs(input)),
                Step::Done => return Ok(self.out.finish()?.map_or(Step::Done, Step::Item)),
            }
        }
    }
}
