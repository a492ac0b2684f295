//! Tests of what a vacuum decides, on made-up histories.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::layout::{DatasetId, Layout};
use crate::manifest::tests::{example, example_run, write_id};
use crate::manifest::{Operation, RecentWrite};
use crate::spec::BucketCount;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_735_689_600_000).unwrap() + TimeDelta::minutes(minute)
}

/// A version that names the runs of some writes, committed at a minute.
fn version(version: u64, minute: i64, own: &str, runs: &[&str]) -> Manifest {
    Manifest {
        version,
        base: version.checked_sub(1).filter(|base| *base > 0),
        operation: if version == 1 { Operation::Create } else { Operation::Append },
        write_id: write_id(own),
        committed_at: at(minute),
        data_version: version,
        runs: runs.iter().map(|write| example_run(write, 0)).collect(),
        recent_writes: vec![RecentWrite { write_id: write_id(own), version }],
        fenced_write_ids: vec![],
        ..example()
    }
}

fn tombstone(number: u64, minute: i64) -> Document {
    Document::Tombstone(Tombstone::from(&version(number, minute, "emptied", &[])))
}

fn history(versions: &[Manifest]) -> History {
    let mut history = History::default();
    for manifest in versions {
        history.add(Document::Manifest(Box::new(manifest.clone()))).unwrap();
    }
    history
}

/// The run of a write that [`version`] names.
fn run(write: &str, minute: i64) -> Listed {
    Listed { path: example_run(write, 0).path, modified: at(minute) }
}

/// Another file of a write, which no version names.
fn leftover(write: &str, minute: i64) -> Listed {
    let buckets = BucketCount::new(4).unwrap();
    let path = Layout::new_run(&write_id(write), 1, buckets, "00001-0badcafe-000001");
    Listed { path, modified: at(minute) }
}

fn cutoffs(superseded: i64, modified: i64) -> Cutoffs {
    Cutoffs { superseded: at(superseded), modified: at(modified) }
}

/// What is decided, with versions and paths instead of positions.
fn decide(
    versions: &[Manifest],
    listed: &[Listed],
    cutoffs: Cutoffs,
) -> (Vec<u64>, Vec<String>, Vec<String>, Vec<String>) {
    let removal = Removal::decide(versions.last().unwrap(), &history(versions), listed, cutoffs);
    let writer = |&at: &usize| run_writer(&listed[at].path).unwrap().to_string();
    (
        removal.empty.iter().map(|tombstone| tombstone.version).collect(),
        removal.fence.iter().map(ToString::to_string).collect(),
        removal.delete.iter().map(writer).collect(),
        removal.waiting.iter().map(writer).collect(),
    )
}

fn none() -> Vec<String> {
    vec![]
}

#[test]
fn a_version_is_kept_until_the_retention_after_its_successor() {
    // Version 1 was committed long ago, but was the newest until minute 100.
    let versions = [version(1, 0, "a", &["a"]), version(2, 100, "b", &["b"]), version(3, 110, "c", &["c"])];
    let listed = [run("a", 0), run("b", 99), run("c", 109)];
    for (superseded, emptied, deleted) in
        [(50, vec![], vec![]), (99, vec![], vec![]), (100, vec![1], vec!["a"]), (110, vec![1, 2], vec!["a", "b"])]
    {
        let found = decide(&versions, &listed, cutoffs(superseded, 1000));
        assert_eq!((found.0, found.1), (emptied, none()), "{superseded}");
        assert_eq!(found.2, deleted, "{superseded}");
    }
    let far = decide(&versions, &listed, cutoffs(1_000_000, 1_000_000));
    assert_eq!(far.0, [1, 2], "the newest version is kept for ever");
    assert_eq!(far.2, ["a", "b"]);
}

#[test]
fn runs_of_any_kept_version_stay() {
    let versions = [version(1, 0, "a", &["a"]), version(2, 10, "b", &["a", "b"]), version(3, 20, "c", &["c"])];
    let listed = [run("a", 0), run("b", 0), run("c", 0)];
    assert_eq!(decide(&versions, &listed, cutoffs(10, 1000)), (vec![1], none(), none(), none()));
    assert_eq!(decide(&versions, &listed, cutoffs(20, 1000)).2, ["a", "b"]);
}

#[test]
fn what_is_emptied_has_no_gaps_whatever_the_clocks_said() {
    let versions =
        [version(1, 0, "a", &[]), version(2, 500, "b", &[]), version(3, 10, "c", &[]), version(4, 20, "d", &[])];
    assert_eq!(decide(&versions, &[], cutoffs(100, 0)).0, [0; 0], "version 2 came at 500, so 1 was in use till then");
    assert_eq!(decide(&versions, &[], cutoffs(500, 0)).0, [1, 2, 3]);
    // A vacuum that died left a version between tombstones.
    let mut history = history(&versions[1..]);
    history.add(tombstone(1, 0)).unwrap();
    history.whole.remove(&3);
    let removal = Removal::decide(&versions[3], &history, &[], cutoffs(500, 0));
    assert_eq!(removal.empty.iter().map(|tombstone| tombstone.version).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_write_that_no_manifest_knows_is_fenced_once_all_its_files_are_old() {
    let versions = [version(1, 0, "a", &["a"])];
    let listed = [run("a", 0), leftover("lost", 10), run("lost", 20)];
    let lost = |n| vec!["lost".to_owned(); n];
    assert_eq!(decide(&versions, &listed, cutoffs(0, 20)), (vec![], lost(1), lost(2), none()));
    assert_eq!(decide(&versions, &listed, cutoffs(0, 19)), (vec![], none(), none(), lost(2)), "it may be under way");
    assert_eq!(decide(&versions, &listed, cutoffs(0, 9)).3, lost(2));
    let mut fenced = versions;
    fenced[0].fenced_write_ids.push(write_id("lost"));
    assert_eq!(decide(&fenced, &listed, cutoffs(0, 20)), (vec![], none(), lost(2), none()), "fenced once is enough");
}

#[test]
fn a_write_whose_runs_are_in_use_is_never_fenced() {
    let mut versions = [version(1, 0, "a", &["a"]), version(2, 10, "b", &["a", "b"])];
    let listed = [run("a", 0), leftover("a", 0), leftover("b", 0)];
    // Version 2 no longer tells that `a` was committed: another attempt of it might be at work.
    let a = || vec!["a".to_owned()];
    assert_eq!(decide(&versions, &listed, cutoffs(10, 100)), (vec![1], none(), vec!["b".to_owned()], a()));
    versions[1].recent_writes.insert(0, RecentWrite { write_id: write_id("a"), version: 1 });
    let found = decide(&versions, &listed, cutoffs(10, 100));
    assert_eq!((found.1, found.2), (none(), vec!["a".to_owned(), "b".to_owned()]), "whoever tries finds the commit");
}

#[test]
fn what_is_no_run_by_its_name_is_left_alone() {
    let versions = [version(1, 0, "a", &[])];
    let names = [
        "data/x.parquet",
        "data/w/part-0.parquet",
        "data/w/bucket-00001-of-00004-00001-0badcafe-000001.parquet.tmp",
        "data/w/bucket-1-of-4-00001-0badcafe-000001.parquet",
        "data/w/bucket-00001-of-00004-00001-0BADCAFE-000001.parquet",
        "data/w/bucket-00001-of-00004-00001-0badcafe-000001-1.parquet",
        "data/w/x/bucket-00001-of-00004-00001-0badcafe-000001.parquet",
        "data/-w/bucket-00001-of-00004-00001-0badcafe-000001.parquet",
        "other/w/bucket-00001-of-00004-00001-0badcafe-000001.parquet",
    ];
    let listed: Vec<Listed> = names.map(|path| Listed { path: path.to_owned(), modified: at(0) }).into();
    let removal = Removal::decide(&versions[0], &history(&versions), &listed, cutoffs(100, 100));
    assert_eq!(removal.unknown.len(), names.len());
    assert_eq!((removal.fence.len(), removal.delete.len(), removal.waiting.len()), (0, 0, 0));
}

#[test]
fn versions_of_two_datasets_are_refused() {
    let mut history = history(&[version(1, 0, "a", &[])]);
    let other = crate::layout::Clock::Fixed(at(0));
    let foreign = Manifest { dataset_id: DatasetId::generate(other, &write_id("b")), ..version(2, 1, "b", &[]) };
    let error = history.add(Document::Manifest(Box::new(foreign))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("INV-16"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn law_nothing_that_is_needed_goes_and_nothing_that_is_not_stays_for_ever(
        steps in prop::collection::vec((0_i64..50, prop::collection::vec(0_usize..12, 0..4)), 1..8),
        emptied in 0_usize..4,
        files in prop::collection::vec((0_usize..12, any::<bool>(), 0_i64..400), 0..20),
        (superseded, modified) in (0_i64..400, 0_i64..400),
    ) {
        let name = |n: usize| format!("w{n}");
        let mut minute = 0;
        let mut versions: Vec<Manifest> = vec![];
        for (pause, runs) in steps {
            minute += pause;
            let number = versions.len() as u64 + 1;
            let mut runs: Vec<String> = runs.into_iter().map(name).chain([name(number as usize)]).collect();
            runs.sort();
            runs.dedup();
            let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
            versions.push(version(number, minute, runs[0], &runs));
        }
        let emptied = emptied.min(versions.len() - 1);
        let newest = versions.last().unwrap();
        let mut history = history(&versions[emptied..]);
        for old in &versions[..emptied] {
            history.add(tombstone(old.version, 0)).unwrap();
        }
        let mut listed: BTreeMap<String, Listed> = BTreeMap::new();
        for (n, is_run, minute) in files {
            let file = if is_run { run(&name(n), minute) } else { leftover(&name(n), minute) };
            listed.insert(file.path.clone(), file);
        }
        let listed: Vec<Listed> = listed.into_values().collect();
        let cutoffs = cutoffs(superseded, modified);
        let removal = Removal::decide(newest, &history, &listed, cutoffs);

        let gone: BTreeSet<u64> = removal.empty.iter().map(|tombstone| tombstone.version).collect();
        prop_assert!(!gone.contains(&newest.version));
        let kept: Vec<&Manifest> = versions[emptied..].iter().filter(|v| !gone.contains(&v.version)).collect();
        for pair in versions.windows(2).filter(|pair| gone.contains(&pair[0].version)) {
            prop_assert!(pair[1].committed_at <= cutoffs.superseded);
        }
        let names = |path: &str| kept.iter().any(|v| v.runs.iter().any(|run| run.path == path));
        let writes = |id: &WriteId| kept.iter().any(|v| v.runs.iter().any(|run| run_writer(&run.path).unwrap() == *id));
        for &at in &removal.delete {
            prop_assert!(!names(&listed[at].path) && listed[at].modified <= cutoffs.modified);
        }
        for &at in &removal.waiting {
            prop_assert!(!names(&listed[at].path));
        }
        for id in &removal.fence {
            prop_assert!(!writes(id));
        }
        for (at, file) in listed.iter().enumerate() {
            let decided = removal.delete.contains(&at) || removal.waiting.contains(&at);
            prop_assert_eq!(decided, !names(&file.path));
        }
        // When everything is old, only writes with runs in use leave something.
        let late = Cutoffs { superseded: at(10_000), modified: at(10_000) };
        let late = Removal::decide(newest, &history, &listed, late);
        for at in late.waiting {
            let id = run_writer(&listed[at].path).unwrap();
            prop_assert!(newest.runs.iter().any(|run| run_writer(&run.path).unwrap() == id));
        }
    }
}
