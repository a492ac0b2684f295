//! Batches on their way out: small ones are joined, large ones pass untouched.

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, SchemaRef, StringViewType};

use crate::error::Result;

/// Rows are joined up to about this many bytes: as many as a batch of half a kilobyte per row has by default, more than a core's cache holds.
const BATCH_BYTES: usize = 4 << 20;

/// Turns batches of any size into batches of a useful size, in order.
///
/// # Memory
/// At most `batch_size` rows, copied, and about 4 MiB unless a single batch was larger; strings of few rows do not keep large buffers alive.
#[derive(Debug)]
pub(crate) struct Emit {
    coalescer: BatchCoalescer,
    /// Batches with more rows than this are not worth a copy.
    large: usize,
    /// About the bytes that are held.
    held: usize,
}

impl Emit {
    pub(crate) fn new(schema: SchemaRef, batch_size: usize) -> Self {
        let large = batch_size / 2;
        let coalescer = BatchCoalescer::new(schema, batch_size).with_biggest_coalesce_batch_size(Some(large));
        Self { coalescer, large, held: 0 }
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let large = batch.num_rows() > self.large;
        let bytes = if large { 0 } else { batch.columns().iter().map(bytes_of).sum() };
        // Left to itself, the coalescer would fill up what it holds from a large batch, and from then on copy every batch.
        if large || self.held + bytes > BATCH_BYTES {
            self.coalescer.finish_buffered_batch()?;
            self.held = 0;
        }
        self.held += bytes;
        self.coalescer.push_batch(batch)?;
        if self.coalescer.has_completed_batch() {
            self.held = 0;
        }
        Ok(())
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

/// About the bytes of an array's own rows, whatever buffers they share.
fn bytes_of(array: &ArrayRef) -> usize {
    let inside = |offsets: &[i32], values: &ArrayRef| {
        let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        bytes_of(&values.slice(first, last - first)) + size_of_val(offsets)
    };
    match array.data_type() {
        DataType::Utf8View => bytes_of_views(array.as_byte_view::<StringViewType>()),
        DataType::BinaryView => bytes_of_views(array.as_byte_view::<BinaryViewType>()),
        DataType::List(_) => inside(array.as_list::<i32>().offsets(), array.as_list::<i32>().values()),
        DataType::Map(_, _) => {
            let map = array.as_map();
            inside(map.offsets(), map.keys()) + inside(map.offsets(), map.values())
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes_of).sum(),
        DataType::FixedSizeBinary(width) => array.len() * width.unsigned_abs() as usize,
        other => array.len() * other.primitive_width().unwrap_or(1),
    }
}

fn bytes_of_views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> usize {
    let views = array.len() * size_of::<u128>();
    if array.data_buffers().is_empty() {
        views
    } else {
        views + array.lengths().map(|length| length as usize).sum::<usize>()
    }
}
