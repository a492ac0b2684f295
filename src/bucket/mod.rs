//! Placement: which bucket a row lies in (`function`) and which buckets of different datasets meet (`align`).

use arrow::array::ArrayRef;

use crate::error::{Error, Result};
use crate::spec::{BucketCount, BucketFunction};

/// The bucket of each row, from its canonical key columns.
pub(crate) fn bucket_ids(_function: BucketFunction, _key: &[ArrayRef], _buckets: BucketCount) -> Result<Vec<u32>> {
    Err(Error::internal("stub"))
}
