//! Tests of what plans say of themselves, over datasets that are nothing but a manifest.

use crate::dataset::Dataset;
use crate::dataset::tests::of_runs;
use crate::error::ErrorKind;
use crate::plan::{Join, MAX_SLOTS, PlanOptions, Scan};
use crate::predicate::Predicate;
use crate::read::{Source, Verification};

const MIB: u64 = 1 << 20;

/// A run of `bytes` and 1000 rows in every bucket.
fn even(path: &str, buckets: u32, bytes: u64) -> Dataset {
    of_runs(path, buckets, (0..buckets).map(|bucket| (bucket, 1000, bytes)))
}

fn warnings(plan: impl std::fmt::Display) -> Vec<String> {
    plan.to_string().lines().filter_map(|line| line.strip_prefix("    warning: ").map(str::to_owned)).collect()
}

fn warnings_of(source: impl Into<Source>) -> Vec<String> {
    warnings(Scan::new(source).plan().unwrap())
}

#[test]
fn buckets_of_a_good_size_give_no_warning() {
    assert_eq!(warnings_of(even("plays", 64, 128 * MIB)), [""; 0]);
    assert_eq!(warnings_of(even("plays", 4096, MIB)), [""; 0]);
    assert_eq!(warnings_of(even("plays", 1, 1024 * MIB)), [""; 0]);
    assert_eq!(warnings_of(of_runs("plays", 4, [])), [""; 0]);
}

#[test]
fn few_small_runs_are_passed_over_and_many_are_not() {
    assert_eq!(warnings_of(even("plays", 255, 1000)), [""; 0]);
    let expected = ["runs are small, 1000 bytes on average: use fewer buckets or larger writes"];
    assert_eq!(warnings_of(even("plays", 256, 1000)), expected);
    let weeks: Vec<Dataset> = (0..52).map(|week| even(&format!("plays/{week}"), 8, 1000)).collect();
    assert_eq!(warnings_of(weeks), expected);
}

#[test]
fn small_runs_beside_large_ones_are_passed_over() {
    let (plays, users) = (even("plays", 512, 128 * MIB), even("users", 512, MIB / 2));
    let keys = Source::from(&users).with_columns(Vec::<String>::new());
    assert_eq!(warnings(Join::inner(&plays, keys.clone()).plan().unwrap()), [""; 0]);
    assert_eq!(warnings(Join::inner(&users, keys).plan().unwrap()).len(), 2);
}

#[test]
fn runs_that_a_restriction_leaves_out_do_not_count() {
    let users = even("users", 1024, 1000);
    let all = Source::from(&users).with_filter(Predicate::is_null("price"));
    assert_eq!(warnings_of(all).len(), 1);
    let few = Source::from(&users).with_filter(Predicate::gt("id", 100));
    assert_eq!(warnings_of(few), [""; 0]);
}

#[test]
fn large_buckets_are_named_with_a_better_count() {
    assert_eq!(
        warnings_of(even("plays", 2, 1025 * MIB)),
        ["buckets are large, 1074790400 bytes on average: use about 32 buckets"]
    );
    // A small first week does not hide a large second one.
    let weeks = vec![even("plays/1", 2, MIB), even("plays/2", 1, 2048 * MIB)];
    assert_eq!(warnings_of(weeks), ["buckets are large, 2147483648 bytes on average: use about 16 buckets"]);
    assert_eq!(
        warnings_of(of_runs("plays", 16_384, (0..16_384).map(|bucket| (bucket, 1, 1025 * MIB)))),
        ["buckets are large, 1074790400 bytes on average: use a dataset per period"]
    );
}

#[test]
fn a_bucket_far_above_the_mean_is_named_if_it_is_large() {
    let skewed = |mib: u64| {
        let runs = (0..16).map(|bucket| if bucket == 3 { (3, 1_000_000, mib * MIB) } else { (bucket, 1000, MIB) });
        of_runs("plays", 16, runs)
    };
    assert_eq!(warnings_of(skewed(128)), [""; 0]);
    let expected = "bucket 3 of plays has 15.8 times the mean rows: look for a key, or null, that has most of them";
    assert_eq!(warnings_of(skewed(129)), [expected]);
    assert_eq!(warnings_of(vec![even("weeks/1", 16, 200 * MIB), skewed(129)]), [expected]);
}

#[test]
fn a_plan_says_what_it_verifies_beyond_the_usual() {
    let lines = |verification| {
        let options = PlanOptions::default().with_verification(verification);
        let plan = Scan::new(even("plays", 4, MIB)).with_options(options).plan().unwrap().to_string();
        plan.lines().filter(|line| line.starts_with("  verified: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(Verification::Basic), [""; 0]);
    assert_eq!(lines(Verification::Keys), ["  verified: the bucket of every row"]);
    assert_eq!(lines(Verification::Full), ["  verified: the bucket of every row, the checksum of every run"]);
}

#[test]
fn a_bucket_count_that_no_plan_could_have_slots_for_is_refused() {
    let plan = |buckets| Scan::new(of_runs("plays", buckets, [])).plan();
    assert_eq!(plan(MAX_SLOTS).unwrap().slots().get(), MAX_SLOTS);
    let error = plan(u32::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`4294967295`"), "{error}");
}
