//! The scan kernel: one source in key order, its small windows joined into batches of a useful size.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;

use crate::error::Result;
use crate::merge::align::SourceInputs;
use crate::merge::kway::SortedMerge;
use crate::merge::{Kernel, Step};

/// The kernel of a scan of one source.
pub(crate) fn scan_kernel(source: SourceInputs, batch_size: usize) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
    // Larger batches pass through the coalescer without a copy.
    let coalescer = BatchCoalescer::new(Arc::clone(&source.schema), batch_size).with_biggest_coalesce_batch_size(Some(batch_size / 2));
    let merge = SortedMerge::with_labels(&source.schema, &source.order, source.runs, batch_size)?;
    Ok(Box::new(ScanKernel { merge, coalescer }))
}

struct ScanKernel {
    merge: SortedMerge,
    coalescer: BatchCoalescer,
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
            if let Some(batch) = self.coalescer.next_completed_batch() {
                return Ok(Step::Item(batch));
            }
            match self.merge.step()? {
                Step::Item(batch) => self.coalescer.push_batch(batch)?,
                Step::Needs(input) => return Ok(Step::Needs(input)),
                Step::Done => {
                    self.coalescer.finish_buffered_batch()?;
                    return Ok(self.coalescer.next_completed_batch().map_or(Step::Done, Step::Item));
                }
            }
        }
    }
}
