//! Look-ups: the rows of a few keys.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::TryStreamExt;

use crate::dataset::Dataset;
use crate::error::Result;
use crate::plan::Scan;
use crate::read::Source;
use crate::run::Parallelism;
use crate::select::KeySet;

impl Dataset {
    /// The rows with one of these keys, which are values of the key columns in their order: the key columns first, then the others. Buckets come
    /// in order, the rows of one sorted by key. A key that no row has is no error, and a null matches nothing.
    ///
    /// Each key is looked for in the bucket that it hashes to; of its runs, footers are read, of the row groups whose statistics admit a key the page
    /// index, and the pages that may have one. For some of the columns, or more rows than memory holds, scan a [`Source`] with
    /// [`Source::with_keys`].
    ///
    /// # Memory
    /// The rows found, twice while they are put together.
    ///
    /// # Errors
    /// `InvalidInput` if the keys are not those of the dataset; those of [`Plan::execute`](crate::Plan::execute).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    /// # use sort_merge_bucket::{BucketSpec, DatasetWriter, object_store::memory::InMemory};
    /// # #[tokio::main] async fn main() -> sort_merge_bucket::Result<()> {
    /// # let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    /// # let batch = RecordBatch::try_from_iter([("user_id", ids)])?;
    /// # let spec = BucketSpec::new(["user_id"], 8)?;
    /// # let mut writer = DatasetWriter::builder(Arc::new(InMemory::new()), "users", batch.schema(), spec).build().await?;
    /// # writer.write(&batch).await?;
    /// let users = writer.commit().await?;
    /// let wanted: ArrayRef = Arc::new(Int64Array::from(vec![7, 42, 5_000]));
    /// assert_eq!(users.get(wanted).await?.num_rows(), 2);
    /// # Ok(()) }
    /// ```
    pub async fn get(&self, keys: impl Into<KeySet>) -> Result<RecordBatch> {
        let plan = Scan::new(Source::from(self).with_keys(keys)).plan()?;
        let mut items: Vec<_> = plan.stream(Parallelism::Available).try_collect().await?;
        // Stable: the items of one part come in order.
        items.sort_by_key(|item| (item.slot, item.part));
        Ok(concat_batches(plan.schema(), items.iter().map(|slot| &slot.item))?)
    }
}
