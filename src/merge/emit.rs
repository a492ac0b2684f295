//! Batches on their way out: small ones are joined, large ones pass untouched.

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

/// Turns batches of any size into batches of a useful size, in order.
///
/// # Memory
/// At most `batch_size` rows, copied; strings of few rows do not keep large buffers alive.
#[derive(Debug)]
pub(crate) struct Emit {
    coalescer: BatchCoalescer,
    /// Batches with more rows than this are not worth a copy.
    large: usize,
}

impl Emit {
    pub(crate) fn new(schema: SchemaRef, batch_size: usize) -> Self {
        let large = batch_size / 2;
        let coalescer = BatchCoalescer::new(schema, batch_size).with_biggest_coalesce_batch_size(Some(large));
        Self { coalescer, large }
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > self.large {
            // Left to itself, the coalescer would fill up what it holds from this batch, and from then on copy every batch.
            self.coalescer.finish_buffered_batch()?;
        }
        Ok(self.coalescer.push_batch(batch)?)
    }

    /// The next finished batch.
    pub(crate) fn pop(&mut self) -> Option<RecordBatch> {
        self.coalescer.next_completed_batch()
    }

    /// Finishes what is held and returns the next batch, after the last push.
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        self.coalescer.finish_buffered_batch()?;
        Ok(self.pop())
    }
}
