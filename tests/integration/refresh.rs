//! Refreshing a rollup: after any edits every period is the group-by over its events, what is made anew is what was stale, and it is said before.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::chrono::{DateTime, TimeDelta, Utc};
use sort_merge_bucket::{
    Clock, Count, Dataset, DatasetWriter, ErrorKind, Parallelism, Periods, Predicate, Refresh, RefreshAction,
    RefreshReason, Rollup, Scan, Source, Sum, TopK, VacuumOptions, WriteMode,
};

use crate::rollups::{assert_results, buckets, builder, changes, event, events, put, three_weeks};
use crate::support::oracle::Row;
use crate::support::stores::{TestStore, When, put as put_object};
use crate::support::{assert_error, block_on, config, everywhere};

const SEEDS: &str = "proptest-regressions/integration/refresh.txt";

/// Pairs of weeks, the year over the pairs, the year to date over the weeks, and a window of the last three of them.
fn tree(weeks: &BTreeMap<usize, Dataset>) -> Periods {
    let week = |at: &usize| format!("w{at}");
    let pair = |period: &str| Some(format!("pair{}", period.strip_prefix('w')?.parse::<usize>().ok()? / 2));
    let periods = weeks.iter().fold(Periods::new(), |all, (at, dataset)| all.with_rows(week(at), dataset));
    let periods = periods.grouped_by(pair).grouped_by(|period| period.starts_with("pair").then(|| "year".to_owned()));
    let last: Vec<String> = weeks.keys().rev().take(3).map(week).collect();
    periods.with_merged("to-date", weeks.keys().map(week)).with_merged("window", last)
}

async fn assert_tree(rollup: &Rollup, weeks: &BTreeMap<usize, Vec<Row>>) {
    let of = |weeks: &[usize], all: &BTreeMap<usize, Vec<Row>>| -> Vec<Row> {
        weeks.iter().flat_map(|at| all[at].clone()).collect()
    };
    let names: Vec<usize> = weeks.keys().copied().collect();
    for at in &names {
        assert_results(rollup, [format!("w{at}")], &weeks[at]).await;
        let pair: Vec<usize> = names.iter().copied().filter(|other| other / 2 == at / 2).collect();
        assert_results(rollup, [format!("pair{}", at / 2)], &of(&pair, weeks)).await;
    }
    let last: Vec<usize> = names.iter().rev().take(3).copied().collect();
    assert_results(rollup, ["window"], &of(&last, weeks)).await;
    for all in ["year", "to-date"] {
        assert_results(rollup, [all], &of(&names, weeks)).await;
    }
}

fn one() -> Parallelism {
    Parallelism::Slots(NonZeroUsize::MIN)
}

fn actions(refresh: &Refresh) -> Vec<(&str, RefreshAction)> {
    refresh.steps().iter().map(|step| (step.period.as_str(), step.action)).collect()
}

/// Makes a version that has the same rows: one that fences a write that was given up.
async fn vacuum(dataset: &Dataset) {
    let (store, path, version) = (dataset.store(), dataset.path(), dataset.version());
    let given_up = format!("{path}/data/given-up-{version}/bucket-00000-of-00001-00000-0123abcd-000001.parquet");
    put_object(store, &given_up, "PAR1").await;
    let tomorrow = DateTime::<Utc>::from(SystemTime::now()) + TimeDelta::days(1);
    let options = VacuumOptions::default().with_grace_period(Duration::ZERO).with_clock(Clock::Fixed(tomorrow));
    Dataset::vacuum(Arc::clone(store), path.clone(), &options).await.unwrap();
    let after = Dataset::open(Arc::clone(store), path.clone()).await.unwrap();
    assert!(after.version() > version && after.data_version() == dataset.data_version());
}

#[derive(Debug, Clone)]
enum Edit {
    Append(usize, Vec<Row>),
    Replace(usize, Vec<Row>),
    /// The week is no longer a part of anything.
    Remove(usize),
    Redefine,
    /// A version without a change of rows.
    Vacuum(usize),
    /// A refresh that fails at a request.
    Crash(usize, bool),
    Refresh,
}

fn edits() -> impl Strategy<Value = Edit> {
    let rows = || prop::collection::vec(events(), 1..6);
    prop_oneof![
        4 => (0..5_usize, rows()).prop_map(|(at, rows)| Edit::Append(at, rows)),
        2 => (0..5_usize, rows()).prop_map(|(at, rows)| Edit::Replace(at, rows)),
        1 => (0..5_usize).prop_map(Edit::Remove),
        1 => Just(Edit::Redefine),
        1 => (0..5_usize).prop_map(Edit::Vacuum),
        2 => (0..60_usize, any::<bool>()).prop_map(|(at, after)| Edit::Crash(at, after)),
        3 => Just(Edit::Refresh),
    ]
}

proptest! {
    #![proptest_config(config(24, SEEDS))]

    #[test]
    fn oracle_a_refreshed_tree_is_the_group_by_over_all_events_after_any_edits(
        first in prop::collection::vec(events(), 1..10),
        history in prop::collection::vec(edits(), 1..12),
        count in buckets(),
    ) {
        block_on(async {
            let faulty = TestStore::new();
            let store: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
            let [plain, other] = [builder(&store), builder(&store).aggregate("more", Count::rows())]
                .map(|builder| builder.with_parallelism(one()).build().unwrap());
            let mut rollup = &plain;
            let mut weeks = BTreeMap::from([(0, first)]);
            put(&store, "week=0", WriteMode::Create, count, &weeks[&0]).await;
            for edit in history.into_iter().chain([Edit::Refresh]) {
                let mut datasets = BTreeMap::new();
                for at in weeks.keys() {
                    datasets.insert(*at, Dataset::open(Arc::clone(&store), format!("week={at}")).await.unwrap());
                }
                match edit {
                    Edit::Append(at, rows) if weeks.contains_key(&at) => {
                        put(&store, &format!("week={at}"), WriteMode::Append, count, &rows).await;
                        weeks.entry(at).or_default().extend(rows);
                    }
                    Edit::Append(at, rows) | Edit::Replace(at, rows) => {
                        // A week that was removed before may come back.
                        put(&store, &format!("week={at}"), WriteMode::Replace, count, &rows).await;
                        weeks.insert(at, rows);
                    }
                    Edit::Remove(at) => {
                        if weeks.len() > 1 {
                            weeks.remove(&at);
                        }
                    }
                    Edit::Redefine => rollup = if std::ptr::eq(rollup, &plain) { &other } else { &plain },
                    Edit::Vacuum(at) => {
                        let Some(dataset) = datasets.get(&at) else { continue };
                        let partial = rollup.partial(&format!("w{at}")).await;
                        for dataset in [Some(dataset.clone()), partial.ok()].into_iter().flatten() {
                            vacuum(&dataset).await;
                        }
                    }
                    Edit::Crash(at, after) => {
                        faulty.heal();
                        faulty.fail(at..at + 1, if after { When::After } else { When::Before });
                        if let Ok(refresh) = rollup.refresh(tree(&datasets)).await {
                            drop(refresh.run().await);
                        }
                        faulty.heal();
                    }
                    Edit::Refresh => {
                        let refresh = rollup.refresh(tree(&datasets)).await.unwrap();
                        let planned: Vec<_> = refresh.steps().iter().map(|s| (s.period.clone(), s.action)).collect();
                        let done = refresh.run().await.unwrap();
                        let done: Vec<_> = done.into_iter().map(|s| (s.period, s.action)).collect();
                        assert_eq!(done, planned);
                        // The second aggregate set has one more column, which the oracle does not know.
                        if std::ptr::eq(rollup, &plain) {
                            assert_tree(rollup, &weeks).await;
                        }
                        faulty.take_log();
                        let again = rollup.refresh(tree(&datasets)).await.unwrap();
                        assert!(again.is_up_to_date(), "{again}");
                        again.run().await.unwrap();
                        assert_eq!(changes(&faulty), Vec::<String>::new());
                    }
                }
            }
            let mut datasets = BTreeMap::new();
            for at in weeks.keys() {
                datasets.insert(*at, Dataset::open(Arc::clone(&store), format!("week={at}")).await.unwrap());
            }
            plain.refresh(tree(&datasets)).await.unwrap().run().await.unwrap();
            assert_tree(&plain, &weeks).await;
        });
    }
}

fn simple(store: &Arc<dyn ObjectStore>, limit: usize) -> Rollup {
    let builder = Rollup::builder(Arc::clone(store), "r").aggregate("ms", Sum::of("ms"));
    builder.aggregate("top", TopK::of("artist").with_limit(limit)).aggregate("n", Count::rows()).build().unwrap()
}

fn weeks_of(datasets: &[Dataset]) -> BTreeMap<usize, Dataset> {
    datasets.iter().cloned().enumerate().collect()
}

#[tokio::test]
async fn a_refresh_says_what_it_will_do_and_why() {
    use RefreshAction as A;
    let (store, dynamic, datasets, _) = three_weeks().await;
    let rollup = simple(&dynamic, 2);
    let mut weeks = weeks_of(&datasets);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    let all = ["w0", "w1", "w2", "pair0", "pair1", "to-date", "window", "year"];
    let expected =
        all.map(|period| (period, if period.starts_with('w') && period != "window" { A::Compute } else { A::Merge }));
    assert_eq!(actions(&refresh), expected);
    assert!(refresh.steps().iter().all(|step| step.reason == RefreshReason::Missing));
    let mut told = vec![];
    let done = refresh.run_with(|step| told.push(step.clone())).await.unwrap();
    assert_eq!(told, done);
    assert!(done.iter().all(|step| step.input_bytes > 0 && step.written_bytes > 0), "{done:?}");

    // Nothing changed.
    store.take_log();
    assert!(rollup.refresh(tree(&weeks)).await.unwrap().is_up_to_date());
    assert!(
        store.take_log().iter().all(|request| !request.path.ends_with(".parquet")),
        "planning reads manifests alone"
    );

    // A new week: what it is a part of, and of the year to date its own state and the week alone.
    weeks.insert(3, put(&dynamic, "week=4", WriteMode::Create, 4, &[event(1, 2, 3)]).await);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    let expected = [
        ("w0", A::Reuse),
        ("w1", A::Reuse),
        ("w2", A::Reuse),
        ("w3", A::Compute),
        ("pair0", A::Reuse),
        ("pair1", A::Extend),
        ("to-date", A::Extend),
        ("window", A::Merge),
        ("year", A::Merge),
    ];
    // Whether extending pays depends on bytes: pair1 is as large as its one part.
    let found: Vec<_> = actions(&refresh).into_iter().filter(|(period, _)| *period != "pair1").collect();
    assert_eq!(found, expected.into_iter().filter(|(period, _)| *period != "pair1").collect::<Vec<_>>());
    let text = refresh.to_string();
    assert!(text.contains("compute  w3: it is not there"), "{text}");
    assert!(text.contains("extend   to-date: its parts change: w3"), "{text}");
    store.take_log();
    refresh.run().await.unwrap();
    let log = store.take_log();
    let data_read: BTreeSet<&str> = log
        .iter()
        .filter(|request| request.path.ends_with(".parquet") && request.verb != "PUT")
        .filter_map(|request| request.path.split("/data/").next())
        .collect();
    assert!(!data_read.contains("week=1") && !data_read.contains("r/period=w0"), "{data_read:?}");

    // Late events of the first week.
    weeks.insert(0, put(&dynamic, "week=1", WriteMode::Append, 4, &[event(1, 2, 3)]).await);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    let stale: Vec<_> = refresh.steps().iter().filter(|step| step.action != A::Reuse).collect();
    let names: Vec<&str> = stale.iter().map(|step| step.period.as_str()).collect();
    assert_eq!(names, ["w0", "pair0", "to-date", "year"]);
    assert_eq!(stale[0].reason, RefreshReason::Rows);
    assert!(stale[1..].iter().all(|step| step.action == A::Merge), "{refresh}");
    assert_eq!(stale[3].reason, RefreshReason::Parts(vec!["pair0".to_owned()]));
    refresh.run().await.unwrap();

    // Other rows of a week, chosen in another way.
    let narrowed = Source::from(&weeks[&1]).with_filter(Predicate::eq("device", "mobile"));
    let refresh = rollup.refresh(tree(&weeks).with_rows("w1", narrowed)).await.unwrap();
    assert_eq!(refresh.steps()[1].reason, RefreshReason::Input);

    // Another definition.
    let other = Rollup::builder(Arc::clone(&dynamic), "r")
        .aggregate("ms", Sum::of("ms"))
        .aggregate("top", TopK::of("device"))
        .build()
        .unwrap();
    let refresh = other.refresh(tree(&weeks)).await.unwrap();
    assert!(refresh.steps().iter().all(|step| !matches!(step.action, A::Reuse | A::Extend)), "{refresh}");
    let definitions = RefreshReason::Definitions(vec!["n".to_owned(), "top".to_owned()]);
    assert!(refresh.steps().iter().all(|step| step.reason == definitions), "{refresh}");

    // A week less: what is left behind stays, unless it is to go.
    weeks.remove(&1);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    assert!(actions(&refresh).contains(&("w1", A::Leave)), "{refresh}");
    assert!(actions(&refresh).contains(&("to-date", A::Merge)), "{refresh}");
    refresh.with_others_dropped().run().await.unwrap();
    assert_eq!(rollup.partial("w1").await.unwrap_err().kind(), ErrorKind::NotFound);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    assert!(refresh.is_up_to_date(), "{refresh}");
}

#[tokio::test]
async fn what_others_wrote_to_a_period_is_made_anew() {
    let (_, dynamic, datasets, _) = three_weeks().await;
    let rollup = simple(&dynamic, 2);
    let weeks = weeks_of(&datasets);
    rollup.refresh(tree(&weeks)).await.unwrap().run().await.unwrap();
    let partial = rollup.partial("w0").await.unwrap();
    let scan = Scan::new(&partial).plan().unwrap();
    let batch = scan.stream(one()).try_next().await.unwrap().unwrap().item;
    let builder = DatasetWriter::builder(
        Arc::clone(&dynamic),
        "r/period=w0",
        Arc::clone(partial.schema()),
        partial.spec().clone(),
    );
    let mut writer = builder.with_mode(WriteMode::Append).build().await.unwrap();
    writer.write(&batch).await.unwrap();
    // Its property is still there, also after a version of somebody who changes no rows.
    vacuum(&writer.commit().await.unwrap()).await;
    assert_eq!(rollup.partial("w0").await.unwrap_err().kind(), ErrorKind::Incompatible);
    let refresh = rollup.refresh(tree(&weeks)).await.unwrap();
    assert_eq!(refresh.steps()[0].reason, RefreshReason::Foreign);
    refresh.run().await.unwrap();
    assert!(rollup.refresh(tree(&weeks)).await.unwrap().is_up_to_date());
}

#[tokio::test]
async fn periods_that_make_no_tree_are_refused() {
    let (_, dynamic, datasets, _) = three_weeks().await;
    let rollup = simple(&dynamic, 2);
    let start = || Periods::new().with_rows("w0", &datasets[0]);
    let cycle = start().with_merged("a", ["b", "w0"]).with_merged("b", ["a"]);
    let error = rollup.refresh(cycle).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["made of themselves", "a, b"]);
    let error = rollup.refresh(start().with_merged("a", ["w0", "w7", "w8"])).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["w7, w8"]);
    let error = rollup.refresh(start().with_merged("a/b", ["w0"])).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["a/b"]);
    let into_rows = start().with_rows("w1", &datasets[1]).grouped_by(|_| Some("w0".to_owned()));
    let error = rollup.refresh(into_rows).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["made of rows", "w0, w1"]);
    // What would count twice fails before it is written.
    let twice = start().with_merged("a", ["w0"]).with_merged("b", ["a", "w0"]);
    let error = rollup.refresh(twice).await.unwrap().run().await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["twice"]);
}

#[tokio::test]
async fn windows_are_covered_by_the_fewest_periods() {
    let (_, _, datasets, _) = three_weeks().await;
    let weeks: BTreeMap<usize, Dataset> = (0..9).map(|at| (at, datasets[at % 3].clone())).collect();
    let pair = |period: &str| Some(format!("pair{}", period.strip_prefix('w')?.parse::<usize>().ok()? / 2));
    let periods = weeks.iter().fold(Periods::new(), |all, (at, week)| all.with_rows(format!("w{at}"), week));
    let half = |pair: &str| Some(format!("half{}", pair.strip_prefix("pair")?.parse::<usize>().ok()? / 2));
    let periods = periods.grouped_by(pair).grouped_by(half);
    let cover = |from: usize, to: usize| periods.cover((from..to).map(|at| format!("w{at}")));
    assert_eq!(cover(1, 9).unwrap(), ["half1", "half2", "pair1", "w1"]);
    assert_eq!(cover(0, 9).unwrap(), ["half0", "half1", "half2"]);
    assert_eq!(cover(3, 4).unwrap(), ["w3"]);
    assert_eq!(cover(4, 4).unwrap(), Vec::<String>::new());
    let error = periods.cover(["w1", "w77", "half0"]).unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["half0, w77"]);
}

everywhere!(
    oracle_a_refreshed_tree_is_the_group_by_over_all_events_after_any_edits,
    a_refresh_says_what_it_will_do_and_why,
    what_others_wrote_to_a_period_is_made_anew,
);
