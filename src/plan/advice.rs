//! Which sizes of buckets make a plan slower than it could be, and what to do about it.
//!
//! A warning must be worth its line: what costs next to nothing, because there is little of it, is passed over.

use crate::dataset::{BucketSize, BucketSizes, Dataset};
use crate::spec::{BucketSpec, DEFAULT_TARGET_RUN_BYTES};

/// Below this average, in bytes, reading the footers of runs and waiting for them costs as much as reading their rows.
const SMALL_RUN_BYTES: u64 = 1 << 20;

/// Fewer runs cost little, however small they are.
const MANY_RUNS: u64 = 256;

/// Above this average, in bytes, buckets are a coarse unit of work: to share among threads, to write, to do again.
const LARGE_BUCKET_BYTES: f64 = (1_u64 << 30) as f64;

/// A bucket with more than so many times the mean rows is uneven, if it has more bytes than a run should have.
const UNEVEN: f64 = 4.0;

/// Runs and their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Read {
    pub(super) runs: u64,
    pub(super) bytes: u64,
}

impl Read {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { runs: self.runs.saturating_add(other.runs), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn is_small(self) -> bool {
        self.runs >= MANY_RUNS && self.mean() < SMALL_RUN_BYTES
    }

    fn mean(self) -> u64 {
        self.bytes / self.runs.max(1)
    }
}

/// What there is to say of the sizes in a source of which a plan reads `own`, and `all` of all sources.
pub(super) fn advice(datasets: &[Dataset], own: Read, all: Read) -> Vec<String> {
    let mut lines = vec![];
    // Beside large runs of another source small ones hardly count, and the other's count of buckets may be why there are so many.
    if own.is_small() && all.is_small() {
        lines.push(format!("runs are small, {} bytes on average: use fewer buckets or larger writes", own.mean()));
    }
    let sizes: Vec<BucketSizes> = datasets.iter().map(Dataset::bucket_sizes).collect();
    let largest = sizes.iter().max_by(|a, b| a.mean_bytes().total_cmp(&b.mean_bytes()));
    lines.extend(largest.and_then(large));
    let uneven = datasets.iter().zip(&sizes).filter_map(|(dataset, sizes)| Some((dataset, sizes, uneven(sizes)?)));
    if let Some((dataset, sizes, largest)) = uneven.max_by(|a, b| a.1.skew().total_cmp(&b.1.skew())) {
        lines.push(format!(
            "bucket {} of {} has {:.1} times the mean rows: look for a key, or null, that has most of them",
            largest.bucket,
            dataset.path(),
            sizes.skew()
        ));
    }
    lines
}

fn large(sizes: &BucketSizes) -> Option<String> {
    let mean = sizes.mean_bytes();
    if mean <= LARGE_BUCKET_BYTES {
        return None;
    }
    let proposed = BucketSpec::buckets_for(sizes.bytes(), DEFAULT_TARGET_RUN_BYTES);
    let remedy = if proposed > sizes.buckets {
        format!("use about {proposed} buckets")
    } else {
        "use a dataset per period".to_owned()
    };
    Some(format!("buckets are large, {mean:.0} bytes on average: {remedy}"))
}

fn uneven(sizes: &BucketSizes) -> Option<&BucketSize> {
    sizes.largest().filter(|largest| sizes.skew() > UNEVEN && largest.bytes > DEFAULT_TARGET_RUN_BYTES)
}
