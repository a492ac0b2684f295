//! What is verified on request, beyond what every read verifies: the bucket of every key that is decoded, the checksum of every run that is opened.

use arrow::array::ArrayRef;

use crate::bucket::bucket_ids;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Run;
use crate::spec::{BucketCount, BucketFunction};

/// How much of what a plan reads is verified. Damage is an error in any case, never other rows, where it is found; what is found is the question.
///
/// | | finds | costs |
/// | --- | --- | --- |
/// | [`Basic`](Self::Basic) | files that are missing, cut, exchanged or of other columns; rows out of order; a first or last row of a row group in a wrong bucket; bytes that cannot be decoded | nothing |
/// | [`Keys`](Self::Keys) | also every row in a wrong bucket | a hash for every row: some 4 ns for an integer key |
/// | [`Full`](Self::Full) | also every other change of a byte since the run was written | the bytes of every run that is opened are read once more, all columns |
///
/// `docs/format.md` section 9 says what each finds, damage by damage. Only [`Dataset::validate`](crate::Dataset::validate) looks at what a read
/// leaves out, and finds statistics that were written wrong.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// # use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
/// use futures::TryStreamExt;
/// use sort_merge_bucket::{ErrorKind, Parallelism, PlanOptions, Scan, Verification};
/// # use sort_merge_bucket::{BucketSpec, DatasetWriter};
/// # #[tokio::main] async fn main() -> sort_merge_bucket::Result<()> {
/// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// # let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
/// # let batch = RecordBatch::try_from_iter([("user_id", ids)])?;
/// # let spec = BucketSpec::new(["user_id"], 1)?;
/// # let mut writer = DatasetWriter::builder(Arc::clone(&store), "users", batch.schema(), spec).build().await?;
/// # writer.write(&batch).await?;
/// # let users = writer.commit().await?;
/// // Somewhere in the dataset, a byte of a page was flipped.
/// # let path = users.run_paths().next().unwrap();
/// # let mut bytes = store.get(&path).await?.bytes().await?.to_vec();
/// # bytes[200] ^= 1;
/// # store.put(&path, bytes.into()).await?;
/// let options = PlanOptions::default().with_verification(Verification::Full);
/// let plan = Scan::new(&users).with_options(options).plan()?;
/// let error = plan.stream(Parallelism::Available).try_collect::<Vec<_>>().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Corrupt);
/// assert_eq!(error.path(), Some(path.as_ref()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Verification {
    /// What can be checked of the bytes that are read in any case.
    #[default]
    Basic,
    /// Also that each row whose key is decoded lies in the bucket that the key hashes to: `Misplaced`, with file and row. A row elsewhere would be missing
    /// from look-ups of its key, and from joins.
    Keys,
    /// Also that the bytes of each run that is opened are those that were written, by the manifest's checksum: `Corrupt`, before anything of the run is
    /// decoded. The file is streamed through, in memory of a mebibyte or what the store hands out at once, and then read as usual; what a store
    /// answers rightly once and wrongly later is not noticed. A run that is opened several times, by slots that were cut into key ranges or by a
    /// join that reads one side first, is streamed each time. A checksum of an algorithm that this library does not know is not looked at.
    Full,
}

/// Where rows of a run belong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    function: BucketFunction,
    bucket: u32,
    buckets: BucketCount,
}

impl Placement {
    pub(super) fn new(function: BucketFunction, run: &Run) -> Self {
        Self { function, bucket: run.bucket, buckets: run.buckets }
    }

    /// All rows of these key columns hash to the bucket. `first` is the number of the first of them in the run, if that is known.
    pub(super) fn check(&self, key: &[ArrayRef], first: Option<u64>) -> Result<()> {
        let found = bucket_ids(self.function, key, self.buckets)?;
        let Some(row) = found.iter().position(|bucket| *bucket != self.bucket) else { return Ok(()) };
        let error = Error::new(
            ErrorKind::Misplaced,
            format!(
                "a row lies in another bucket than its key hashes to, rewrite the dataset from its source, expected=`{}`, actual=`{}`",
                found[row], self.bucket
            ),
        );
        Err(match first {
            Some(first) => error.with_row(first + row as u64),
            None => error,
        })
    }
}
