//! How rows are spread over buckets. Summed from runs as the manifest lists them: nothing is read.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::bucket::{greatest_common_count, slot_of};
use crate::manifest::Run;
use crate::spec::BucketCount;

/// The rows of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BucketSize {
    /// The bucket.
    pub bucket: u32,
    /// Its runs, at least one.
    pub runs: u64,
    /// Rows of its runs.
    pub rows: u64,
    /// Bytes of its runs' files.
    pub bytes: u64,
}

/// The sizes of all buckets of a dataset, from its manifest; made by [`Dataset::bucket_sizes`](crate::Dataset::bucket_sizes).
///
/// Printed it is one line. `docs/buckets.md` says which sizes are good ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BucketSizes {
    /// The number of buckets, empty ones included.
    pub buckets: BucketCount,
    /// The buckets that have rows, in ascending order.
    pub filled: Vec<BucketSize>,
}

impl BucketSizes {
    /// The sizes of `runs`, by bucket modulo the greatest common divisor of `buckets` and of the counts of all runs.
    pub(crate) fn new<'a>(buckets: BucketCount, runs: impl IntoIterator<Item = &'a Run> + Clone) -> Self {
        let counts = runs.clone().into_iter().map(|run| run.buckets).chain([buckets]);
        let buckets = greatest_common_count(counts).unwrap_or(buckets);
        // Only buckets that have rows: a manifest from outside may claim any count.
        let mut filled: BTreeMap<u32, BucketSize> = BTreeMap::new();
        for run in runs {
            let bucket = slot_of(run.bucket, buckets);
            let size = filled.entry(bucket).or_insert(BucketSize { bucket, runs: 0, rows: 0, bytes: 0 });
            size.runs += 1;
            size.rows = size.rows.saturating_add(run.rows);
            size.bytes = size.bytes.saturating_add(run.bytes);
        }
        Self { buckets, filled: filled.into_values().collect() }
    }

    /// Runs of all buckets.
    pub fn runs(&self) -> u64 {
        self.sum(|size| size.runs)
    }

    /// Rows of all buckets.
    pub fn rows(&self) -> u64 {
        self.sum(|size| size.rows)
    }

    /// Bytes of all buckets.
    pub fn bytes(&self) -> u64 {
        self.sum(|size| size.bytes)
    }

    fn sum(&self, of: impl Fn(&BucketSize) -> u64) -> u64 {
        self.filled.iter().map(of).fold(0, u64::saturating_add)
    }

    /// The bucket with the most rows; `None` without rows.
    pub fn largest(&self) -> Option<&BucketSize> {
        self.filled.iter().max_by_key(|size| size.rows)
    }

    /// Rows per bucket, empty buckets included.
    pub fn mean_rows(&self) -> f64 {
        self.rows() as f64 / f64::from(self.buckets.get())
    }

    /// Bytes per bucket, empty buckets included.
    pub fn mean_bytes(&self) -> f64 {
        self.bytes() as f64 / f64::from(self.buckets.get())
    }

    /// How many times the mean rows the [`largest`](Self::largest) bucket has: 1 if all are alike (or there are no rows), the number of buckets if one has
    /// all rows.
    pub fn skew(&self) -> f64 {
        self.largest().map_or(1.0, |largest| largest.rows as f64 / self.mean_rows())
    }
}

impl fmt::Display for BucketSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buckets, filled } = self;
        let (empty, runs) = (u64::from(buckets.get()) - filled.len() as u64, self.runs());
        let (rows, bytes) = (self.mean_rows(), self.mean_bytes());
        write!(
            f,
            "{buckets} buckets, {empty} of them empty, {runs} runs; on average {rows:.0} rows, {bytes:.0} bytes"
        )?;
        match self.largest() {
            None => Ok(()),
            Some(BucketSize { bucket, rows, bytes, .. }) => {
                write!(f, "; largest bucket {bucket}: {rows} rows, {bytes} bytes, skew {:.2}", self.skew())
            }
        }
    }
}
