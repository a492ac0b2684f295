//! Tests of proposed bucket counts.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn proposals_are_those_of_the_guide() {
    let proposed = |bytes| BucketSpec::buckets_for(bytes, DEFAULT_TARGET_RUN_BYTES).get();
    assert_eq!([0, 1, GIB / 8, GIB / 8 + 1, GIB, 40 * GIB].map(proposed), [1, 1, 1, 2, 8, 512]);
    assert_eq!([2048 * GIB, 2048 * GIB + 1, u64::MAX].map(proposed), [16_384; 3]);
    assert_eq!(BucketSpec::buckets_for(GIB, 64 << 20).get(), 16);
    assert_eq!(BucketSpec::buckets_for(1000, 0).get(), 1024);
}

proptest! {
    #[test]
    fn law_proposed_runs_are_between_half_of_the_target_and_the_target(bytes: u64, shift in 0_u32..64, target: u64, down in 0_u32..64) {
        let (bytes, target) = (bytes >> shift, target >> down);
        let buckets = BucketSpec::buckets_for(bytes, target);
        prop_assert!(buckets.get().is_power_of_two() && buckets.get() <= MAX_PROPOSED_BUCKETS);
        let (n, target) = (u128::from(buckets.get()), u128::from(target.max(1)));
        prop_assert!(n * target >= u128::from(bytes) || buckets.get() == MAX_PROPOSED_BUCKETS);
        prop_assert!(n == 1 || n / 2 * target < u128::from(bytes), "half as many would do");
    }
}
