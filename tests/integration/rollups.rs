//! Rollups: whatever weeks, groupings and histories there are, the year is the group-by over all events; nothing counts twice, nothing is stale.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type};
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{
    Aggregator, CoGroup, Comparison, Count, CountDistinct, Dataset, DatasetWriter, ErrorKind, Join, JoinCondition, Max,
    Min, Parallelism, PlanOptions, Predicate, Rollup, RollupBuilder, Scan, Source, Sum, SumMap, TopK, WriteMode,
    WriteOptions,
};

use crate::support::aggregates::{Asked, Condition, Function, aggregate, assert_same};
use crate::support::data::{DatasetData, Write, batch_of, fixed_clock};
use crate::support::forge::edit_manifest;
use crate::support::oracle::{Row, Value, all_rows, int, sorted, text};
use crate::support::stores::{TestStore, When};
use crate::support::{assert_error, assert_valid, block_on, config, everywhere, field, rows, store, try_run};

const SEEDS: &str = "proptest-regressions/integration/rollups.txt";

/// An event: user, artist, milliseconds, device.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        field("user", DataType::Int64, true),
        field("artist", DataType::Int64, true),
        field("ms", DataType::Int64, false),
        field("device", DataType::Utf8, true),
    ]
}

pub(crate) fn event(user: i128, artist: i128, ms: i128) -> Row {
    vec![int(user), int(artist), int(ms), text(if ms % 2 == 0 { "mobile" } else { "desk" })]
}

pub(crate) fn events() -> impl Strategy<Value = Row> {
    (0..7_i128, 0..5_i128, -3..100_i128, 0..4_usize).prop_map(|(user, artist, ms, device)| {
        let or_null = |value: i128, null: i128| if value == null { Value::Null } else { int(value) };
        let device = [text("mobile"), text("desk"), text(""), Value::Null][device].clone();
        vec![or_null(user, 6), or_null(artist, 4), int(ms), device]
    })
}

pub(crate) fn asked() -> Vec<Asked> {
    let mobile = Condition::Compare(3, Comparison::Eq, text("mobile"));
    let long = Condition::Not(Box::new(Condition::Or(vec![
        Condition::Compare(2, Comparison::Lt, int(50)),
        Condition::IsNull(1),
    ])));
    let plain = [
        Function::Rows,
        Function::Count(1),
        Function::Sum(2),
        Function::Mean(2),
        Function::Min(3),
        Function::Max(1),
        Function::Distinct(3),
        Function::Sums(1, Some(2)),
        Function::Top(1, Some(2), 2),
        Function::Top(3, None, 1),
    ];
    let mut all: Vec<Asked> = plain.into_iter().map(Asked::from).collect();
    all.push(Asked { function: Function::Sum(2), condition: Some(mobile.clone()) });
    all.push(Asked { function: Function::Distinct(1), condition: Some(long) });
    all.push(Asked { function: Function::Top(1, None, 1), condition: Some(mobile) });
    all
}

pub(crate) fn builder(store: &Arc<dyn ObjectStore>) -> RollupBuilder {
    let start = Rollup::builder(Arc::clone(store), "listening");
    let all = asked().into_iter().enumerate();
    all.fold(start, |all, (at, asked)| all.aggregate(format!("a{at}"), asked.aggregator(&fields())))
}

pub(crate) fn expected(events: &[Row]) -> Vec<Row> {
    aggregate(&fields(), 1, events, &asked())
}

/// The results of these periods together are those of the events.
pub(crate) async fn assert_results<S: Into<String>>(
    rollup: &Rollup,
    periods: impl IntoIterator<Item = S>,
    events: &[Row],
) {
    let plan = rollup.plan(periods).await.unwrap();
    assert_same(&sorted(rows(&plan).await), &expected(events), &asked());
}

pub(crate) fn week(buckets: u32, events: Vec<Row>) -> DatasetData {
    DatasetData::new(fields(), &["user"], buckets, events)
}

/// Writes events to a dataset that may be there already.
pub(crate) async fn put(
    store: &Arc<dyn ObjectStore>,
    path: &str,
    mode: WriteMode,
    buckets: u32,
    events: &[Row],
) -> Dataset {
    let data = week(buckets, vec![]);
    let builder = DatasetWriter::builder(Arc::clone(store), path, data.schema(), data.spec(buckets)).with_mode(mode);
    let mut writer = builder.build().await.unwrap();
    writer.write(&batch_of(&data.schema(), events)).await.unwrap();
    writer.commit().await.unwrap()
}

pub(crate) fn buckets() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1_u32, 2, 3, 4, 6, 8])
}

/// A week in one or two writes.
fn weeks() -> impl Strategy<Value = DatasetData> {
    let write = (prop::collection::vec(events(), 0..25), 1..9_usize, 1..9_usize);
    (buckets(), prop::collection::vec(write, 1..=2)).prop_map(|(buckets, writes)| {
        let write = |(rows, chunk, row_group): (Vec<Row>, usize, usize)| Write {
            chunk,
            options: WriteOptions::default().with_max_row_group_rows(row_group),
            ..Write::new(buckets, rows)
        };
        DatasetData { writes: writes.into_iter().map(write).collect(), ..week(buckets, vec![]) }
    })
}

proptest! {
    #![proptest_config(config(40, SEEDS))]

    #[test]
    fn oracle_a_year_merged_in_any_grouping_and_order_is_the_group_by_over_all_events(
        data in prop::collection::vec(weeks(), 1..=5),
        order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 1..=3_usize,
        batch_size in prop::sample::select(vec![1_usize, 2, 7, 8192]),
    ) {
        block_on(async {
            let store = store();
            let rollup = builder(&store)
                .with_plan_options(PlanOptions::default().with_batch_size(batch_size))
                .with_write_options(WriteOptions::default().with_max_row_group_rows(batch_size.max(3)))
                .build()
                .unwrap();
            let mut all = vec![];
            let mut names = vec![];
            for (at, week) in data.iter().enumerate() {
                let dataset = week.write(&store, &format!("plays/week={at}")).await;
                let name = format!("week-{at}");
                let partial = rollup.update(&name, &dataset).await.unwrap();
                assert_eq!(partial.spec().buckets(), dataset.spec().buckets());
                assert_eq!(partial.spec().key(), dataset.spec().key());
                assert_valid(&partial).await;
                let own: Vec<Row> = week.writes.iter().flat_map(|write| write.rows.clone()).collect();
                assert_results(&rollup, [&name], &own).await;
                all.extend(own);
                names.push(name);
            }
            let year = rollup.merge("year", names.clone()).await.unwrap();
            assert_valid(&year).await;
            assert_results(&rollup, ["year"], &all).await;
            // In another order, and on the fly.
            let shuffled: Vec<String> = order.into_iter().filter_map(|at| names.get(at).cloned()).collect();
            rollup.merge("shuffled", shuffled.clone()).await.unwrap();
            assert_results(&rollup, ["shuffled"], &all).await;
            assert_results(&rollup, shuffled.clone(), &all).await;
            // By way of quarters, some of them as weeks.
            let mut quarters = vec![];
            let mut mixed = vec![];
            for (at, weeks) in shuffled.chunks(cut).enumerate() {
                let quarter = format!("quarter-{at}");
                rollup.merge(&quarter, weeks.to_vec()).await.unwrap();
                if at % 2 == 0 { mixed.push(quarter.clone()) } else { mixed.extend(weeks.iter().cloned()) }
                quarters.insert(0, quarter);
            }
            rollup.merge("by-quarters", quarters.clone()).await.unwrap();
            assert_results(&rollup, ["by-quarters"], &all).await;
            assert_results(&rollup, quarters, &all).await;
            assert_results(&rollup, mixed, &all).await;
            // Partials straight from all weeks, as one source.
            let mut datasets = vec![];
            for at in 0..data.len() {
                datasets.push(Dataset::open(Arc::clone(&store), format!("plays/week={at}")).await.unwrap());
            }
            let at_once = rollup.update("at-once", datasets).await.unwrap();
            assert_results(&rollup, ["at-once"], &all).await;
            // However it came about, the same states.
            let states = |dataset: &Dataset| Scan::new(dataset).plan().unwrap();
            assert_same(&sorted(rows(&states(&year)).await), &sorted(rows(&states(&at_once)).await), &asked());
        });
    }

    /// After any history of appends, replacements, updates and merges, a period is what was last computed, and was written only when that changed.
    #[test]
    fn oracle_periods_follow_their_inputs_through_any_history(
        history in prop::collection::vec((0..6_u8, 0..3_usize, prop::collection::vec(events(), 1..6)), 1..16),
        counts in prop::collection::vec(buckets(), 3),
    ) {
        block_on(async {
            let store = store();
            let rollup = builder(&store).build().unwrap();
            // Per week: the events, how often they changed, what the partial was made from and how often it was written.
            let mut current = vec![(vec![], 0); 3];
            let mut partials: Vec<(Vec<Row>, usize, u64)> = vec![(vec![], usize::MAX, 0); 3];
            let mut year = (vec![0; 3], 0_u64);
            for (at, count) in counts.iter().enumerate() {
                put(&store, &format!("week={at}"), WriteMode::Create, *count, &[]).await;
            }
            for (action, at, events) in history {
                let path = format!("week={at}");
                match action {
                    0 => {
                        put(&store, &path, WriteMode::Append, counts[at], &events).await;
                        current[at].0.extend(events);
                        current[at].1 += 1;
                    }
                    1 => {
                        put(&store, &path, WriteMode::Replace, counts[at], &events).await;
                        current[at] = (events, current[at].1 + 1);
                    }
                    2..=4 => {
                        let dataset = Dataset::open(Arc::clone(&store), path).await.unwrap();
                        let partial = rollup.update(&at.to_string(), &dataset).await.unwrap();
                        if partials[at].1 != current[at].1 {
                            partials[at] = (current[at].0.clone(), current[at].1, partials[at].2 + 1);
                        }
                        assert_eq!(partial.version(), partials[at].2);
                        assert_results(&rollup, [at.to_string()], &partials[at].0).await;
                    }
                    _ => {
                        let merged = rollup.merge("year", ["0", "1", "2"]).await;
                        let missing: Vec<String> = (0..3).filter(|&at| partials[at].2 == 0).map(|at| format!("period={at}")).collect();
                        if !missing.is_empty() {
                            assert_error(&merged.unwrap_err(), ErrorKind::NotFound, &[&missing.join(", ")]);
                            continue;
                        }
                        let versions: Vec<u64> = partials.iter().map(|partial| partial.2).collect();
                        if year.0 != versions {
                            year = (versions, year.1 + 1);
                        }
                        assert_eq!(merged.unwrap().version(), year.1);
                        let all: Vec<Row> = partials.iter().flat_map(|partial| partial.0.clone()).collect();
                        assert_results(&rollup, ["year"], &all).await;
                    }
                }
            }
        });
    }
}

/// A store with the datasets `week=1` to `week=3`, of 4, 4 and 6 buckets, and their events.
pub(crate) async fn three_weeks() -> (Arc<TestStore>, Arc<dyn ObjectStore>, Vec<Dataset>, Vec<Vec<Row>>) {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let events: Vec<Vec<Row>> =
        (1..=3).map(|week| (0..40).map(|at| event(at % 9, (at * week) % 5, at * 7 % 90)).collect()).collect();
    let mut datasets = vec![];
    for (at, events) in events.iter().enumerate() {
        let dataset = week([4, 4, 6][at], events.clone()).write(&dynamic, &format!("week={}", at + 1)).await;
        datasets.push(dataset);
    }
    (store, dynamic, datasets, events)
}

async fn update_all(rollup: &Rollup, datasets: &[Dataset]) -> Vec<Dataset> {
    let mut partials = vec![];
    for (at, dataset) in datasets.iter().enumerate() {
        partials.push(rollup.update(&format!("w{}", at + 1), dataset).await.unwrap());
    }
    partials
}

/// The requests since the last call that change the store.
pub(crate) fn changes(store: &TestStore) -> Vec<String> {
    let log = store.take_log();
    log.iter().filter(|r| !["GET", "RANGES", "HEAD", "LIST"].contains(&r.verb)).map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_item_that_is_number_k_plus_1_every_week_may_be_the_first_of_the_year() {
    let store = store();
    let rollup = Rollup::builder(Arc::clone(&store), "top")
        .aggregate("top", TopK::of("artist").weighted_by("ms").with_limit(3))
        .build()
        .unwrap();
    let mut names = vec![];
    for number in 0..12_i128 {
        // Three artists of the week with 10 each, artist 0 with 9.
        let mut events: Vec<Row> = (1..=3).map(|n| event(1, 10 * number + n, 10)).collect();
        events.push(event(1, 0, 9));
        let dataset = week(2, events).write(&store, &format!("week={number}")).await;
        names.push(format!("w{number}"));
        rollup.update(&names[number as usize], &dataset).await.unwrap();
        let found = rows(&rollup.plan([&names[number as usize]]).await.unwrap()).await;
        let Value::Many(top) = &found[0][1] else { unreachable!() };
        assert!(top.len() == 3 && !top.contains(&Value::Many(vec![int(0), int(9)])));
    }
    let quarters = names.chunks(3).enumerate().map(|(at, weeks)| (format!("q{at}"), weeks.to_vec()));
    let mut quarter_names = vec![];
    for (quarter, weeks) in quarters {
        rollup.merge(&quarter, weeks).await.unwrap();
        quarter_names.push(quarter);
    }
    rollup.merge("year", quarter_names).await.unwrap();
    let found = rows(&rollup.plan(["year"]).await.unwrap()).await;
    let entry = |item, sum| Value::Many(vec![int(item), int(sum)]);
    // Ties go to the lesser item.
    assert_eq!(found, [vec![int(1), Value::Many(vec![entry(0, 108), entry(1, 10), entry(2, 10)])]]);
}

#[tokio::test]
async fn a_period_made_again_from_the_same_writes_nothing_and_counts_nothing_twice() {
    let (store, dynamic, weeks, events) = three_weeks().await;
    let rollup = builder(&dynamic).build().unwrap();
    let partials = update_all(&rollup, &weeks).await;
    let year = rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    assert!(!changes(&store).is_empty());
    for _ in 0..2 {
        for (again, partial) in update_all(&rollup, &weeks).await.iter().zip(&partials) {
            assert_eq!((again.version(), again.id()), (partial.version(), partial.id()));
        }
        // Another process has a rollup of its own.
        let other = builder(&dynamic).build().unwrap();
        let again = other.merge("year", ["w1", "w2", "w3"]).await.unwrap();
        assert_eq!((again.version(), again.id()), (year.version(), year.id()));
    }
    let written: Vec<String> = changes(&store);
    assert!(written.is_empty(), "{written:?}");
    assert_results(&rollup, ["year"], &events.concat()).await;
    // Rows written anew are other rows, even if they are equal.
    let replaced = put(&dynamic, "week=1", WriteMode::Replace, 4, &events[0]).await;
    assert_eq!(rollup.update("w1", &replaced).await.unwrap().version(), 2);
    assert_eq!(rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap().version(), 2);
    assert_results(&rollup, ["year"], &events.concat()).await;
}

#[tokio::test]
async fn late_and_replaced_events_reach_the_year_once() {
    let (_, store, weeks, mut events) = three_weeks().await;
    let rollup = builder(&store).build().unwrap();
    update_all(&rollup, &weeks).await;
    rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    let late = vec![event(3, 77, 1000), event(99, 1, 1)];
    let week_2 = put(&store, "week=2", WriteMode::Append, 4, &late).await;
    assert_eq!(rollup.update("w2", &week_2).await.unwrap().version(), 2);
    // The year is what it was until it is merged again.
    assert_results(&rollup, ["year"], &events.concat()).await;
    events[1].extend(late);
    assert_results(&rollup, ["w2"], &events[1]).await;
    assert_eq!(rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap().version(), 2);
    assert_results(&rollup, ["year"], &events.concat()).await;
    // Replaced by less: users that are gone leave the year.
    events[0] = vec![event(1, 1, 1)];
    let week_1 = put(&store, "week=1", WriteMode::Replace, 8, &events[0]).await;
    assert_eq!(rollup.update("w1", &week_1).await.unwrap().version(), 2);
    assert_eq!(rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap().version(), 3);
    assert_results(&rollup, ["year"], &events.concat()).await;
    // An older version of the week is another input.
    let old = Dataset::open_version(Arc::clone(&store), "week=1", 1).await.unwrap();
    let partial = rollup.update("w1", &old).await.unwrap();
    assert_eq!((partial.version(), partial.spec().buckets().get()), (3, 4));
    // And a year of fewer weeks is another year.
    assert_eq!(rollup.merge("year", ["w2", "w3"]).await.unwrap().version(), 4);
    assert_results(&rollup, ["year"], &events[1..].concat()).await;
}

fn simple(store: &Arc<dyn ObjectStore>, ms: impl Aggregator, top: usize) -> Rollup {
    let builder = Rollup::builder(Arc::clone(store), "listening").aggregate("ms", ms);
    builder.aggregate("top", TopK::of("artist").weighted_by("ms").with_limit(top)).build().unwrap()
}

#[tokio::test]
async fn periods_of_a_changed_definition_are_refused_by_name_until_they_are_updated() {
    let (store, dynamic, weeks, events) = three_weeks().await;
    let first = simple(&dynamic, Sum::of("ms"), 3);
    update_all(&first, &weeks).await;
    first.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    let changed: [Rollup; 4] = [
        simple(&dynamic, Sum::of("artist"), 3),
        simple(&dynamic, Sum::of("ms").filter(Predicate::eq("device", "mobile")), 3),
        simple(&dynamic, Max::of("ms"), 3),
        Rollup::builder(Arc::clone(&dynamic), "listening").aggregate("ms", Sum::of("ms")).build().unwrap(),
    ];
    store.take_log();
    for rollup in changed {
        let errors = [
            rollup.merge("year", ["w1", "w3"]).await.unwrap_err(),
            rollup.merge("other", ["w1", "w3"]).await.unwrap_err(),
            rollup.plan(["w1", "w3"]).await.unwrap_err(),
        ];
        for error in errors {
            assert_error(&error, ErrorKind::Incompatible, &["periods=`w1, w3`", "path=`listening`"]);
        }
        assert_error(&rollup.partial("year").await.unwrap_err(), ErrorKind::Incompatible, &["periods=`year`"]);
    }
    assert!(changes(&store).is_empty());
    let mobile = simple(&dynamic, Sum::of("ms").filter(Predicate::eq("device", "mobile")), 3);
    assert_eq!(mobile.update("w1", &weeks[0]).await.unwrap().version(), 2);
    let error = mobile.plan(["w1", "w2", "w3"]).await.unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["periods=`w2, w3`"]);
    update_all(&mobile, &weeks).await;
    assert_eq!(mobile.merge("year", ["w1", "w2", "w3"]).await.unwrap().version(), 2);
    let sum: i128 = rows(&mobile.plan(["year"]).await.unwrap()).await.iter().map(number).sum();
    let ms = |row: &Row| if let Value::Int(ms) = row[2] { ms } else { unreachable!() };
    assert_eq!(sum, events.concat().iter().map(ms).filter(|ms| ms % 2 == 0).sum::<i128>());
    assert_eq!(first.partial("w1").await.unwrap_err().kind(), ErrorKind::Incompatible);
}

/// The number in the first column of states or results.
fn number(row: &Row) -> i128 {
    if let Value::Int(v) = row[1] { v } else { 0 }
}

#[tokio::test]
async fn another_limit_of_a_top_k_keeps_partials() {
    let (store, dynamic, weeks, _) = three_weeks().await;
    update_all(&simple(&dynamic, Sum::of("ms"), 1), &weeks).await;
    store.take_log();
    let wide = simple(&dynamic, Sum::of("ms"), 4);
    assert!(update_all(&wide, &weeks).await.iter().all(|partial| partial.version() == 1));
    assert!(changes(&store).is_empty());
    let lengths = rows(&wide.plan(["w1", "w2"]).await.unwrap()).await;
    let most = lengths.iter().map(|row| if let Value::Many(top) = &row[2] { top.len() } else { 0 }).max();
    assert_eq!(most, Some(4));
}

#[tokio::test]
async fn rows_that_would_count_twice_are_refused() {
    let (store, dynamic, weeks, events) = three_weeks().await;
    let rollup = builder(&dynamic).build().unwrap();
    update_all(&rollup, &weeks).await;
    rollup.merge("q1", ["w1", "w2"]).await.unwrap();
    rollup.merge("half", ["q1", "w3"]).await.unwrap();
    store.take_log();
    let refused: [(&[&str], &str); 7] = [
        (&["w1", "w1"], "periods=`w1`"),
        (&["q1", "w1"], "periods=`w1`"),
        (&["w2", "q1"], "periods=`w2 in q1`"),
        (&["half", "w1"], "periods=`w1`"),
        (&["w3", "half"], "periods=`w3 in half`"),
        (&["half", "q1"], "periods=`w1 in q1, w2 in q1`"),
        (&["w1", "half", "w1"], "periods=`w1, w1 in half`"),
    ];
    for (parts, named) in refused {
        let parts = parts.to_vec();
        assert_error(
            &rollup.merge("year", parts.clone()).await.unwrap_err(),
            ErrorKind::InvalidInput,
            &[named, "twice"],
        );
        assert_error(&rollup.plan(parts).await.unwrap_err(), ErrorKind::InvalidInput, &[named, "twice"]);
    }
    for parts in [vec!["year"], vec!["w1", "year"]] {
        let error = rollup.merge("year", parts).await.unwrap_err();
        assert_error(&error, ErrorKind::InvalidInput, &["into itself", "period=`year`"]);
    }
    let none: [&str; 0] = [];
    assert_error(&rollup.merge("year", none).await.unwrap_err(), ErrorKind::InvalidInput, &["no periods"]);
    assert_error(&rollup.plan(none).await.unwrap_err(), ErrorKind::InvalidInput, &["no periods"]);
    assert!(changes(&store).is_empty());
    assert_results(&rollup, ["half"], &events.concat()).await;
}

#[tokio::test]
async fn missing_periods_are_named_all_at_once_and_bad_names_refused() {
    let (store, dynamic, weeks, _) = three_weeks().await;
    let rollup = builder(&dynamic).build().unwrap();
    assert!(rollup.periods().await.unwrap().is_empty());
    update_all(&rollup, &weeks[..1]).await;
    for error in [
        rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap_err(),
        rollup.plan(["w3", "w1", "w2"]).await.unwrap_err(),
    ] {
        assert_error(&error, ErrorKind::NotFound, &["w2", "w3"]);
        assert!(!error.to_string().contains("w1"), "{error}");
    }
    assert_error(&rollup.partial("w2").await.unwrap_err(), ErrorKind::NotFound, &["w2"]);
    store.take_log();
    for name in ["", "a/b", "..", "ü", "a b", "a%2Fb", "w1\n"] {
        let errors = [
            rollup.update(name, &weeks[0]).await,
            rollup.merge(name, ["w1"]).await,
            rollup.merge("year", ["w1", name]).await,
            rollup.partial(name).await,
        ];
        // Two dots are a name like any other below the prefix of the folder.
        if name != ".." {
            for error in errors {
                assert_error(&error.unwrap_err(), ErrorKind::InvalidInput, &["name of a period"]);
            }
            assert!(changes(&store).is_empty());
        } else {
            rollup.partial("..").await.unwrap().drop_dataset().await.unwrap();
            store.take_log();
        }
    }
    for name in ["2025-W01", "2025.1+2_b", "period=1", "2025", "10", "9"] {
        rollup.update(name, &weeks[0]).await.unwrap();
        rollup.partial(name).await.unwrap();
    }
    let names = rollup.periods().await.unwrap();
    assert!(names.is_sorted());
    for name in ["10", "2025", "2025-W01", "2025.1+2_b", "9", "period=1", "w1"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    let error = simple(&dynamic, Sum::of("ms"), 1).plan(["w1", "period=1"]).await.unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["periods=`w1, period=1`"]);
    let twice = Rollup::builder(Arc::clone(&dynamic), "x").aggregate("n", Count::rows()).aggregate("n", Sum::of("ms"));
    assert_error(&twice.build().unwrap_err(), ErrorKind::InvalidInput, &["aggregate=`n`"]);
    let none = Rollup::builder(dynamic, "x").build().unwrap_err();
    assert_error(&none, ErrorKind::InvalidInput, &["at least one aggregate"]);
}

#[tokio::test]
async fn a_partial_is_a_dataset_that_names_its_inputs() {
    let (_, store, weeks, _) = three_weeks().await;
    let rollup = builder(&store).with_clock(fixed_clock()).build().unwrap();
    let partials = update_all(&rollup, &weeks).await;
    let both = rollup.update("both", vec![weeks[0].clone(), weeks[2].clone()]).await.unwrap();
    let year = rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    let lineage = |dataset: &Dataset| -> Vec<(String, String, u64)> {
        dataset.lineage().iter().map(|l| (l.path.clone(), l.dataset_id.to_string(), l.version)).collect()
    };
    let of = |dataset: &Dataset| (dataset.path().to_string(), dataset.id().to_string(), dataset.version());
    for (partial, week) in partials.iter().zip(&weeks) {
        assert_eq!(lineage(partial), [of(week)]);
        assert_eq!(partial.spec().buckets(), week.spec().buckets());
        assert_eq!(partial.spec().key(), ["user"]);
        assert_valid(partial).await;
    }
    // 4 and 6 buckets meet in 2 slots.
    assert_eq!((lineage(&both), both.spec().buckets().get()), (vec![of(&weeks[0]), of(&weeks[2])], 2));
    assert_eq!(lineage(&year), partials.iter().map(of).collect::<Vec<_>>());
    assert_eq!((year.spec().buckets().get(), year.path().as_ref()), (2, "listening/period=year"));
    assert_valid(&year).await;
    assert_eq!(year.committed_at().timestamp(), 1_735_689_600);
    assert_eq!(rollup.partial("year").await.unwrap().id(), year.id());
}

#[tokio::test]
async fn keys_without_a_state_have_a_null_result() {
    let (_, store, weeks, events) = three_weeks().await;
    let rollup = builder(&store).build().unwrap();
    update_all(&rollup, &weeks).await;
    let year = rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    let users = vec![field("user", DataType::Int64, false), field("name", DataType::Utf8, false)];
    let users =
        DatasetData::new(users, &["user"], 4, (0..13).map(|u| vec![int(u), text(&format!("user {u}"))]).collect());
    let users = users.write(&store, "users").await;
    let plan = Join::left(&users, &year).with_options(PlanOptions::default().with_batch_size(5)).plan().unwrap();
    let schema = rollup.finished_schema(plan.schema()).unwrap();
    let batches: Vec<RecordBatch> = try_run(&plan, 1).await.unwrap().into_values().flatten().collect();
    let finished: Vec<RecordBatch> = batches.iter().map(|batch| rollup.finish(batch).unwrap()).collect();
    assert!(finished.iter().all(|batch| batch.schema() == schema));
    let found = sorted(all_rows(&finished));
    let of_events = expected(&events.concat());
    let expected: Vec<Row> = (0..13_usize)
        .map(|user| {
            let results = match of_events.iter().find(|row| row[0] == int(user as i128)) {
                Some(row) => row[1..].to_vec(),
                None => vec![Value::Null; asked().len()],
            };
            [vec![int(user as i128), text(&format!("user {user}"))], results].concat()
        })
        .collect();
    assert_eq!(expected[12][2..], vec![Value::Null; asked().len()]);
    assert_same(&found, &expected, &asked());
    // All states null, and no rows.
    let anti = Join::left_anti(&users, &year).plan().unwrap();
    let error = rollup.finished_schema(anti.schema()).unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["aggregate=`a0`"]);
    assert_error(
        &rollup.finish(&batches[0].project(&[0, 1]).unwrap()).unwrap_err(),
        ErrorKind::InvalidInput,
        &["`a0`"],
    );
    assert_eq!(rollup.finish(&batches[0].slice(0, 0)).unwrap().schema(), schema);
    // Results are not states.
    assert_eq!(rollup.finish(&finished[0]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn joins_and_co_groups_roll_up_and_every_part_of_them_counts() {
    let (_, store, weeks, events) = three_weeks().await;
    let users = vec![field("user", DataType::Int64, true), field("ms", DataType::Int64, false)];
    let users = DatasetData::new(users, &["user"], 8, (0..6).map(|u| vec![int(u), int(1)]).collect());
    let users = users.write(&store, "users").await;
    let rollup = Rollup::builder(Arc::clone(&store), "joined").aggregate("ms", Sum::of("ms")).build().unwrap();
    let join = || Join::inner(&weeks[0], &users);
    let left = || join().with_right_prefix("u.");
    let right = || join().with_left_prefix("p.");
    let sum = |events: &[Row], user: i128| -> i128 {
        events.iter().filter(|e| e[0] == int(user)).map(|e| if let Value::Int(ms) = e[2] { ms } else { 0 }).sum()
    };
    let count = |user: i128| events[0].iter().filter(|e| e[0] == int(user)).count() as i128;
    let results = async |rollup: &Rollup, period: &str| sorted(rows(&rollup.plan([period]).await.unwrap()).await);
    // The same datasets, and every time another join.
    assert_eq!(rollup.update("w1", left()).await.unwrap().version(), 1);
    assert_eq!(rollup.update("w1", left()).await.unwrap().version(), 1);
    assert_eq!(results(&rollup, "w1").await, (0..6).map(|u| vec![int(u), int(sum(&events[0], u))]).collect::<Vec<_>>());
    assert_eq!(rollup.update("w1", right()).await.unwrap().version(), 2);
    assert_eq!(results(&rollup, "w1").await, (0..6).map(|u| vec![int(u), int(count(u))]).collect::<Vec<_>>());
    let outer = Join::left(&weeks[0], &users).with_right_prefix("u.");
    assert_eq!(rollup.update("w1", outer).await.unwrap().version(), 3);
    assert_eq!(results(&rollup, "w1").await.len(), 9);
    // A name that both sides have is the column of the side that reads it.
    let of_left = Join::inner(&weeks[0], Source::from(&users).with_columns(["user"]));
    let of_right = Join::inner(Source::from(&weeks[0]).with_columns(["artist"]), &users);
    assert_eq!(rollup.update("w1", of_left.clone()).await.unwrap().version(), 4);
    assert_eq!(rollup.update("w1", of_left).await.unwrap().version(), 4);
    assert_eq!(rollup.update("w1", of_right).await.unwrap().version(), 5);
    assert_eq!(results(&rollup, "w1").await, (0..6).map(|u| vec![int(u), int(count(u))]).collect::<Vec<_>>());
    // And a scan of the same.
    assert_eq!(rollup.update("w1", &weeks[0]).await.unwrap().version(), 6);
    assert_eq!(rollup.update("w1", vec![weeks[0].clone(), weeks[1].clone()]).await.unwrap().version(), 7);

    // A condition counts by its name, version and columns.
    let long = |name: &str, at_least: i64| {
        JoinCondition::new(name, move |pairs| {
            Ok(pairs.column(0).as_primitive::<Int64Type>().iter().map(|ms| ms.map(|ms| ms >= at_least)).collect())
        })
        .with_columns(["ms"])
    };
    let of_left = || Join::inner(&weeks[0], Source::from(&users).with_columns(["user"]));
    assert_eq!(rollup.update("w1", of_left().with_condition(long("long", 0))).await.unwrap().version(), 8);
    assert_eq!(rollup.update("w1", of_left().with_condition(long("long", 5))).await.unwrap().version(), 8);
    let changed = of_left().with_condition(long("long", 1 << 40).with_version(2));
    assert_eq!(rollup.update("w1", changed).await.unwrap().version(), 9);
    assert!(results(&rollup, "w1").await.is_empty());
    assert_eq!(rollup.update("w1", of_left().with_condition(long("longer", 0))).await.unwrap().version(), 10);
    assert_eq!(rollup.update("w1", of_left()).await.unwrap().version(), 11);

    let grouped = Rollup::builder(Arc::clone(&store), "grouped")
        .aggregate_of("plays", "plays", Count::rows())
        .aggregate_of("others", "others", Sum::of("ms"))
        .build()
        .unwrap();
    let group = |plays: &str, others: &str| CoGroup::new().source(plays, &weeks[0]).source(others, &users);
    assert_eq!(grouped.update("w1", group("plays", "others")).await.unwrap().version(), 1);
    assert_eq!(grouped.update("w1", group("plays", "others")).await.unwrap().version(), 1);
    let row = |u: i128| vec![int(u), int(count(u)), if u < 6 { int(1) } else { Value::Null }];
    assert_eq!(results(&grouped, "w1").await, (0..9).map(row).collect::<Vec<_>>());
    // The same sources under each other's names.
    assert_eq!(grouped.update("w1", group("others", "plays")).await.unwrap().version(), 2);
    let row = |u: i128| vec![int(u), int(i128::from(u < 6)), int(sum(&events[0], u))];
    assert_eq!(results(&grouped, "w1").await, (0..9).map(row).collect::<Vec<_>>());
    // Partials of co-groups merge as any others.
    grouped.update("w2", CoGroup::new().source("plays", &weeks[1]).source("others", &users)).await.unwrap();
    let year = grouped.merge("year", ["w1", "w2"]).await.unwrap();
    assert_eq!(grouped.merge("year", ["w1", "w2"]).await.unwrap().version(), year.version());
    let plays_2 = |user: i128| events[1].iter().filter(|e| e[0] == int(user)).count() as i128;
    let present = |u: i128| i128::from(u < 6);
    let row = |u: i128| vec![int(u), int(present(u) + plays_2(u)), int(present(u) + sum(&events[0], u))];
    assert_eq!(results(&grouped, "year").await, (0..9).map(row).collect::<Vec<_>>());
    let error = grouped.update("w3", &weeks[1]).await.unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["source=`plays`", "source=`others`"]);
}

#[tokio::test]
async fn weeks_of_other_integer_widths_merge() {
    let store = store();
    let rollup = Rollup::builder(Arc::clone(&store), "r")
        .aggregate("n", Count::rows())
        .aggregate("sum", Sum::of("v"))
        .aggregate("min", Min::of("v"))
        .build()
        .unwrap();
    for (name, data_type) in [("w1", DataType::Int16), ("w2", DataType::Int64), ("w3", DataType::Int32)] {
        let fields = vec![field("k", data_type.clone(), true), field("v", data_type, false)];
        let rows = (-3..4).map(|v| vec![int(v), int(v * 2)]).collect();
        let dataset = DatasetData::new(fields, &["k"], 4, rows).write(&store, name).await;
        rollup.update(name, &dataset).await.unwrap();
    }
    let year = rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    assert_eq!(*year.schema().field(0).data_type(), DataType::Int64);
    let found = sorted(rows(&rollup.plan(["year"]).await.unwrap()).await);
    assert_eq!(found, (-3..4).map(|v| vec![int(v), int(3), int(6 * v), int(2 * v)]).collect::<Vec<_>>());
    // Sets of values of other types are told apart.
    let distinct = Rollup::builder(Arc::clone(&store), "d").aggregate("d", CountDistinct::of("v")).build().unwrap();
    for name in ["w1", "w2"] {
        distinct.update(name, &Dataset::open(Arc::clone(&store), name).await.unwrap()).await.unwrap();
    }
    let error = distinct.merge("year", ["w1", "w2"]).await.unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["d"]);
}

#[tokio::test]
async fn periods_of_composite_keys_with_nulls_merge() {
    let store = store();
    let fields = vec![
        field("name", DataType::Utf8, true),
        field("v", DataType::Decimal128(9, 2), true),
        field("day", DataType::Date32, true),
    ];
    let or_null = |value: Value, null: bool| if null { Value::Null } else { value };
    let row = |at: i128| {
        let name = or_null(text(["a", "b", "c"][at as usize % 3]), at % 4 == 3);
        vec![name, or_null(int(at * 7), at % 6 == 5), or_null(int(at % 2 + 20_000), at % 5 == 4)]
    };
    // The oracle wants the key first.
    let keyed = |row: &Row| vec![row[0].clone(), row[2].clone(), row[1].clone()];
    let columns = [fields[0].clone(), fields[2].clone(), fields[1].clone()];
    let functions = [Function::Rows, Function::Sum(2), Function::Mean(2), Function::Top(2, None, 2), Function::Max(0)];
    let asked: Vec<Asked> = functions.into_iter().map(Asked::from).collect();
    let rollup = asked.iter().enumerate().fold(Rollup::builder(Arc::clone(&store), "r"), |all, (at, asked)| {
        all.aggregate(format!("a{at}"), asked.aggregator(&columns))
    });
    let rollup = rollup.with_plan_options(PlanOptions::default().with_batch_size(3)).build().unwrap();
    let mut all = vec![];
    for (at, buckets) in [6_u32, 4, 6, 1].into_iter().enumerate() {
        let events: Vec<Row> = (0..40 + at as i128).map(|n| row(n * (at as i128 + 1))).collect();
        all.extend(events.iter().map(keyed));
        let data = DatasetData::new(fields.clone(), &["name", "day"], buckets, events);
        let dataset = data.write(&store, &format!("week={at}")).await;
        assert_valid(&rollup.update(&format!("w{at}"), &dataset).await.unwrap()).await;
    }
    let expected = aggregate(&columns, 2, &all, &asked);
    rollup.merge("half", ["w0", "w2"]).await.unwrap();
    let year = rollup.merge("year", ["w3", "half", "w1"]).await.unwrap();
    assert_valid(&year).await;
    assert_eq!((year.spec().key(), year.spec().buckets().get()), (&["name".to_owned(), "day".to_owned()][..], 1));
    assert_same(&sorted(rows(&rollup.plan(["year"]).await.unwrap()).await), &expected, &asked);
    assert_same(&sorted(rows(&rollup.plan(["w1", "half", "w3"]).await.unwrap()).await), &expected, &asked);
}

#[tokio::test]
async fn a_dropped_period_is_missing_until_it_is_updated() {
    let (_, store, weeks, events) = three_weeks().await;
    let rollup = builder(&store).build().unwrap();
    let partials = update_all(&rollup, &weeks).await;
    partials[1].clone().drop_dataset().await.unwrap();
    assert_error(&rollup.merge("year", ["w1", "w2"]).await.unwrap_err(), ErrorKind::NotFound, &["w2"]);
    let again = rollup.update("w2", &weeks[1]).await.unwrap();
    assert_ne!(again.id(), partials[0].id());
    assert_results(&rollup, ["w1", "w2", "w3"], &events.concat()).await;
    // A dataset of somebody else's in the folder of a period is no partial.
    week(4, events[0].clone()).write(&store, "listening/period=mine").await;
    for error in [rollup.partial("mine").await.unwrap_err(), rollup.plan(["w1", "mine"]).await.unwrap_err()] {
        assert_error(&error, ErrorKind::Incompatible, &["periods=`mine`"]);
    }
}

#[tokio::test]
async fn damaged_provenance_is_corrupt_and_never_a_panic() {
    let (_, store, weeks, _) = three_weeks().await;
    let rollup = builder(&store).build().unwrap();
    let partials = update_all(&rollup, &weeks).await;
    let good = partials[0].properties()["sort-merge-bucket.rollup"].clone();
    let half = good[..good.len() / 2].to_owned();
    let other_type = good.replace("\"version\":1", "\"version\":-1");
    assert_ne!(other_type, good);
    let damaged =
        ["", "{}", "[]", "null", "7", "\u{0}", half.as_str(), other_type.as_str(), "{\"aggregates\":{},\"covers\":7}"];
    for text in damaged {
        edit_manifest(&store, "listening/period=w1", 1, |manifest| {
            manifest["properties"]["sort-merge-bucket.rollup"] = text.into();
        })
        .await;
        for error in [
            rollup.partial("w1").await.unwrap_err(),
            rollup.plan(["w2", "w1"]).await.unwrap_err(),
            rollup.merge("year", ["w1", "w2"]).await.unwrap_err(),
            rollup.update("w1", &weeks[0]).await.unwrap_err(),
        ] {
            assert_error(
                &error,
                ErrorKind::Corrupt,
                &["property=`sort-merge-bucket.rollup`", "path=`listening/period=w1`"],
            );
        }
    }
    edit_manifest(&store, "listening/period=w1", 1, |manifest| {
        manifest["properties"]["sort-merge-bucket.rollup"] = good.into();
    })
    .await;
    assert_eq!(rollup.update("w1", &weeks[0]).await.unwrap().version(), 1);
}

#[tokio::test]
async fn an_update_that_fails_anywhere_leaves_the_old_partial_or_the_new_one() {
    let late = vec![event(1, 1, 1), event(50, 2, 2)];
    let before: Vec<Row> = (0..20).map(|at| event(at % 5, at % 3, at)).collect();
    let after = [before.clone(), late.clone()].concat();
    let setup = async || {
        let store = TestStore::new();
        let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
        let dataset = week(2, before.clone()).write(&dynamic, "week").await;
        let rollup =
            builder(&dynamic).with_parallelism(Parallelism::Slots(std::num::NonZeroUsize::MIN)).build().unwrap();
        rollup.update("w", &dataset).await.unwrap();
        let dataset = put(&dynamic, "week", WriteMode::Append, 2, &late).await;
        store.heal();
        (store, rollup, dataset)
    };
    let (store, rollup, dataset) = setup().await;
    rollup.update("w", &dataset).await.unwrap();
    let requests = store.requests();
    assert!(requests > 8);
    let mut failures = 0;
    for number in 0..requests {
        for when in [When::Before, When::After] {
            let (store, rollup, dataset) = setup().await;
            store.fail(number..number + 1, when);
            let outcome = rollup.update("w", &dataset).await;
            store.heal();
            let version = rollup.partial("w").await.unwrap().version();
            match outcome {
                Ok(partial) => assert_eq!((partial.version(), version), (2, 2)),
                Err(error) => {
                    failures += 1;
                    assert_eq!((error.kind(), version), (ErrorKind::Store, 1), "{error}");
                }
            }
            let events = if version == 1 { &before } else { &after };
            assert_results(&rollup, ["w"], events).await;
            assert_eq!(rollup.update("w", &dataset).await.unwrap().version(), 2);
            assert_results(&rollup, ["w"], &after).await;
        }
    }
    assert!(failures > requests / 2, "{failures} of {requests}");
    // Rows that cannot be aggregated are a failure like any other.
    let (_, store, weeks, events) = three_weeks().await;
    let rollup = simple(&store, Sum::of("ms"), 1);
    rollup.update("w", &weeks[0]).await.unwrap();
    let max = || vec![int(1), int(1), int(i128::from(i64::MAX)), Value::Null];
    let too_large = put(&store, "week=1", WriteMode::Append, 4, &[max(), max()]).await;
    let error = rollup.update("w", &too_large).await.unwrap_err();
    assert_error(&error, ErrorKind::LimitExceeded, &["too large"]);
    assert_eq!(rollup.partial("w").await.unwrap().version(), 1);
    let sum: i128 = rows(&rollup.plan(["w"]).await.unwrap()).await.iter().map(number).sum();
    assert_eq!(sum, events[0].iter().map(|e| if let Value::Int(ms) = e[2] { ms } else { 0 }).sum::<i128>());
}

#[tokio::test]
async fn updates_at_the_same_time_end_as_one_of_them() {
    let (_, store, weeks, events) = three_weeks().await;
    let rollup = builder(&store).build().unwrap();
    let (a, b) = tokio::join!(rollup.update("w", &weeks[0]), rollup.update("w", &weeks[1]));
    let newest = rollup.partial("w").await.unwrap();
    assert!(a.is_ok() || b.is_ok());
    for outcome in [&a, &b] {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
    }
    let of = |week: usize| newest.lineage()[0].dataset_id == *weeks[week].id();
    assert_eq!(newest.lineage().len(), 1);
    assert_results(&rollup, ["w"], &events[if of(0) { 0 } else { 1 }]).await;
    assert_valid(&newest).await;
}

#[tokio::test]
async fn merging_reads_partials_and_never_the_events() {
    let (store, dynamic, weeks, _) = three_weeks().await;
    let rollup = Rollup::builder(Arc::clone(&dynamic), "r")
        .aggregate("n", Count::rows())
        .aggregate("artists", SumMap::of("artist"))
        .build()
        .unwrap();
    update_all(&rollup, &weeks).await;
    store.take_log();
    rollup.merge("year", ["w1", "w2", "w3"]).await.unwrap();
    rows(&rollup.plan(["year"]).await.unwrap()).await;
    let log = store.take_log();
    assert!(log.iter().all(|request| request.path.starts_with("r/period=") && request.verb != "LIST"), "{log:?}");
    // A source may be narrowed: what the aggregates need is there.
    let narrow = Source::from(&weeks[0]).with_columns(["artist"]);
    assert_eq!(rollup.update("w1", narrow).await.unwrap().version(), 1);
}

everywhere!(
    oracle_a_year_merged_in_any_grouping_and_order_is_the_group_by_over_all_events,
    oracle_periods_follow_their_inputs_through_any_history,
    a_period_made_again_from_the_same_writes_nothing_and_counts_nothing_twice,
    late_and_replaced_events_reach_the_year_once,
    a_partial_is_a_dataset_that_names_its_inputs,
    a_dropped_period_is_missing_until_it_is_updated,
    an_update_that_fails_anywhere_leaves_the_old_partial_or_the_new_one,
    updates_at_the_same_time_end_as_one_of_them,
    merging_reads_partials_and_never_the_events,
);
