//! Alignment: which buckets of datasets with different bucket counts hold the same keys.
//!
//! `bucket = hash mod N`, so for every divisor G of N, `bucket mod G = hash mod G`. With G the greatest common divisor of all counts, a key
//! lies in slot `hash mod G` of every dataset: slot s reads the buckets b with b mod G = s of each.
//!
//! ```text
//! G = gcd(8, 12) = 4        slot 0          slot 1          slot 2           slot 3
//! 8 buckets                 0  4            1  5            2  6             3  7
//! 12 buckets                0  4  8         1  5  9         2  6  10         3  7  11
//! ```

use crate::spec::BucketCount;

/// The number of slots of these bucket counts: their greatest common divisor. `None` without any count.
pub(crate) fn greatest_common_count(counts: impl IntoIterator<Item = BucketCount>) -> Option<BucketCount> {
    counts.into_iter().reduce(|mut a, b| {
        let mut b = b.get();
        while let Some(divisor) = BucketCount::new(b) {
            b = a.get() % divisor;
            a = divisor;
        }
        a
    })
}

/// The slot that reads `bucket`.
pub(crate) fn slot_of(bucket: u32, slots: BucketCount) -> u32 {
    bucket % slots
}
