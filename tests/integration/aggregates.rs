//! Aggregates over sources, joins and co-groups, against loops over plain rows; predicates, errors, and aggregates of a user's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate};
use object_store::ObjectStore;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use sort_merge_bucket::{
    Aggregate, Aggregator, All, Any, ApproxCountDistinct, CoGroup, Collect, Count, CountDistinct, Dataset, Definition,
    Encoding, Error, ErrorKind, Filtered, First, Fold, Join, JoinKind, Last, Literal, Max, Mean, Min, PlanOptions,
    Predicate, Result, Segments, Source, StdDev, Sum, SumMap, Target, TopK, Variance, check_laws,
};

use crate::support::aggregates::{Asked, Function, Recipe, aggregate, all_functions, assert_same, recipes};
use crate::support::data::{DatasetData, Names, Shape, SourceData, Write, shapes, sources};
use crate::support::forge::{edit_run, run_paths};
use crate::support::oracle::{Row, Value, int, sorted, text};
use crate::support::stores::TestStore;
use crate::support::{
    assert_error, assert_valid, block_on, config, everywhere, failure, field, rows, rows_by_slot, store, try_run,
};

const SEEDS: &str = "proptest-regressions/integration/aggregates.txt";
const LEFT: Names = Names { order: "", payload: "p" };
const RIGHT: Names = Names { order: "r", payload: "q" };

fn batch_sizes() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1_usize, 2, 3, 7, 50, 8192])
}

/// All columns of a random source; in some cases the second dataset lacks a column of the first.
fn one_source(shape: Shape, names: Names, most_rows: usize) -> impl Strategy<Value = SourceData> {
    (sources(shape, names, most_rows), any::<bool>()).prop_map(move |(mut source, drop)| {
        source.columns = None;
        let dropped = format!("{}0", names.payload);
        if let Some(second) = source.datasets.get_mut(1).filter(|_| drop)
            && let Some(at) = second.fields.iter().position(|field| *field.name() == dropped)
        {
            second.fields.remove(at);
            for row in second.writes.iter_mut().flat_map(|write| &mut write.rows) {
                row.remove(at);
            }
        }
        source
    })
}

/// Every function that the columns allow; every other one under one of the conditions.
fn ask(fields: &[Field], rows: &[Row], recipes: &[Recipe]) -> Vec<Asked> {
    let all = all_functions(fields, rows).into_iter().enumerate();
    all.map(|(at, function)| {
        let recipe = recipes.get(at % (2 * recipes.len().max(1)));
        Asked { function, condition: recipe.map(|recipe| recipe.condition(fields, rows)) }
    })
    .collect()
}

fn asking(start: Aggregate, fields: &[Field], asked: &[Asked]) -> Aggregate {
    asked.iter().enumerate().fold(start, |all, (at, asked)| all.aggregate(format!("a{at}"), asked.aggregator(fields)))
}

proptest! {
    #![proptest_config(config(48, SEEDS))]

    #[test]
    fn oracle_aggregates_of_a_source_equal_loops_over_its_rows(
        (shape, data) in shapes().prop_flat_map(|shape| (Just(shape.clone()), one_source(shape, LEFT, 24))),
        recipes in prop::collection::vec(recipes(), 1..4),
        batch_size in batch_sizes(),
    ) {
        block_on(async {
            let store = store();
            let source = data.write(&store, "source").await;
            let (fields, all) = (data.fields(shape.keys), data.side(shape.keys).rows);
            let asked = ask(&fields, &all, &recipes);
            let expected = aggregate(&fields, shape.keys, &all, &asked);
            let options = PlanOptions::default().with_batch_size(batch_size);
            let aggregation = asking(Aggregate::over(source), &fields, &asked).with_options(options.clone());
            let plan = aggregation.clone().plan().unwrap();
            let keys: Vec<Field> = plan.schema().fields()[..shape.keys].iter().map(|f| f.as_ref().clone()).collect();
            assert_eq!(keys, fields[..shape.keys]);
            assert_same(&sorted(rows(&plan).await), &expected, &asked);
            assert_same(&sorted(rows_by_slot(&plan).await), &expected, &asked);

            // The same by way of stored states.
            let states = aggregation.plan_states().unwrap();
            let target = Target::new(Arc::clone(&store), "states");
            let stored = states.transform(target, Ok).await.unwrap();
            assert_valid(&stored).await;
            assert_eq!(stored.statistics().rows, expected.len() as u64);
            let merged = asking(Aggregate::over_states(&stored), &fields, &asked).with_options(options).plan().unwrap();
            assert_eq!(merged.schema(), plan.schema());
            assert_same(&sorted(rows(&merged).await), &expected, &asked);
        });
    }

    #[test]
    fn oracle_aggregates_of_a_join_equal_loops_over_the_joined_rows(
        (left, right) in shapes().prop_flat_map(|shape| {
            (one_source(shape.clone(), LEFT, 12), one_source(shape, RIGHT, 12))
        }),
        kind in prop::sample::select(JoinKind::ALL.to_vec()),
        sort_columns in 0..=2_usize,
        prefixed in any::<bool>(),
        recipes in prop::collection::vec(recipes(), 1..4),
        batch_size in batch_sizes(),
    ) {
        block_on(async {
            let store = store();
            let keys = left.datasets[0].key.len();
            let sort_columns = sort_columns.min(left.datasets[0].sort.len());
            let (left, right) = (left.write(&store, "left").await, right.write(&store, "right").await);
            let mut join = Join::new(kind, left, right).with_sort_columns(sort_columns);
            if prefixed {
                join = join.with_left_prefix("l.").with_right_prefix("r.");
            }
            let joined = join.clone().plan().unwrap();
            let fields: Vec<Field> = joined.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
            let all = rows(&joined).await;
            let asked = ask(&fields, &all, &recipes);
            let options = PlanOptions::default().with_batch_size(batch_size);
            let plan = asking(Aggregate::over(join), &fields, &asked).with_options(options).plan().unwrap();
            assert_eq!((plan.key().len(), plan.slots()), (keys, joined.slots()));
            assert_same(&sorted(rows(&plan).await), &aggregate(&fields, keys, &all, &asked), &asked);
        });
    }

    #[test]
    fn oracle_aggregates_of_a_co_group_equal_loops_over_each_of_its_sources(
        (shape, data) in shapes().prop_flat_map(|shape| {
            let source = one_source(shape.clone(), LEFT, 16);
            (Just(shape), prop::collection::vec(source, 1..=3))
        }),
        recipes in prop::collection::vec(recipes(), 1..4),
        batch_size in batch_sizes(),
    ) {
        block_on(async {
            const NAMES: [&str; 3] = ["plays", "users", "contexts"];
            let store = store();
            let mut group = CoGroup::new();
            for (name, source) in NAMES.into_iter().zip(&data) {
                group = group.source(name, source.write(&store, name).await);
            }
            // Per source, what is asked of it and what comes out by key; a key that the source lacks gets the result of no rows.
            let mut aggregation = Aggregate::over(group).with_options(PlanOptions::default().with_batch_size(batch_size));
            let mut keys: BTreeMap<Row, Row> = BTreeMap::new();
            for source in &data {
                keys.extend(source.side(shape.keys).rows.iter().map(|row| (row[..shape.keys].to_vec(), vec![])));
            }
            let mut all_asked = vec![];
            for (name, source) in NAMES.into_iter().zip(&data) {
                let (fields, all) = (source.fields(shape.keys), source.side(shape.keys).rows);
                let asked = ask(&fields, &all, &recipes);
                for (at, asked) in asked.iter().enumerate() {
                    aggregation = aggregation.aggregate_of(name, format!("{name}{at}"), asked.aggregator(&fields));
                }
                let own = aggregate(&fields, shape.keys, &all, &asked);
                let own: BTreeMap<&[Value], &[Value]> = own.iter().map(|row| row.split_at(shape.keys)).collect();
                let nothing: Row = asked.iter().map(|asked| asked.value(&fields, &[])).collect();
                for (key, results) in &mut keys {
                    results.extend_from_slice(own.get(key.as_slice()).copied().unwrap_or(&nothing));
                }
                all_asked.extend(asked);
            }
            let expected: Vec<Row> = keys.into_iter().map(|(key, results)| [key, results].concat()).collect();
            assert_same(&sorted(rows(&aggregation.plan().unwrap()).await), &expected, &all_asked);
        });
    }
}

/// Fields `k`, `v` and rows of them.
fn pairs(key: DataType, value: DataType, rows: Vec<Row>) -> DatasetData {
    DatasetData::new(vec![field("k", key, true), field("v", value, true)], &["k"], 4, rows)
}

async fn results(aggregation: Aggregate) -> Vec<Row> {
    sorted(rows(&aggregation.plan().unwrap()).await)
}

#[tokio::test]
async fn a_group_larger_than_any_batch_is_one_row() {
    let store = store();
    let hot = |from: i128, count: i128| (from..from + count).map(|at| vec![int(7), int(at % 1000)]).collect::<Vec<_>>();
    let mut first = vec![vec![int(6), int(-5)]];
    first.extend(hot(0, 4000));
    first.push(vec![int(8), int(5)]);
    let data = pairs(DataType::Int64, DataType::Int64, first).and_write(4, hot(3000, 2500)).and_write(6, hot(1, 1));
    let dataset = data.write(&store, "d").await;
    let source: SourceData = data.into();
    let (fields, all) = (source.fields(1), source.side(1).rows);
    let asked: Vec<Asked> = all_functions(&fields, &all).into_iter().map(Asked::from).collect();
    let expected = aggregate(&fields, 1, &all, &asked);
    assert_eq!(expected[1][1], int(6501));
    for batch_size in [1, 7, 64, 1000, 8192] {
        let options = PlanOptions::default().with_batch_size(batch_size);
        let found = results(asking(Aggregate::over(&dataset), &fields, &asked).with_options(options)).await;
        assert_same(&found, &expected, &asked);
    }
    // Of a join, too: 6,501 rows of the key meet 3 others.
    let users = pairs(DataType::Int32, DataType::Utf8, ["a", "b", "c"].map(|v| vec![int(7), text(v)]).to_vec());
    let users = users.write(&store, "users").await;
    let joined = Aggregate::over(Join::left(&dataset, &users).with_right_prefix("u."))
        .aggregate("rows", Count::rows())
        .aggregate("names", SumMap::of("u.v"))
        .with_options(PlanOptions::default().with_batch_size(50));
    let map = ["a", "b", "c"].map(|v| Value::Many(vec![text(v), int(6501)])).to_vec();
    let one = |k| vec![int(k), int(1), Value::Many(vec![])];
    assert_eq!(results(joined).await, [one(6), vec![int(7), int(3 * 6501), Value::Many(map)], one(8)]);
}

#[tokio::test]
async fn null_keys_are_a_group_and_never_lost() {
    let store = store();
    let null = Value::Null;
    let rows = vec![vec![null.clone(), int(1)], vec![int(1), int(2)], vec![null.clone(), null.clone()]];
    let plays = pairs(DataType::Int64, DataType::Int64, rows)
        .and_write(3, vec![vec![null.clone(), int(4)]])
        .write(&store, "plays")
        .await;
    let count_and_sum = |aggregation: Aggregate| {
        aggregation.aggregate("n", Count::rows()).aggregate("values", Count::of("v")).aggregate("sum", Sum::of("v"))
    };
    let expected = [vec![int(1), int(1), int(1), int(2)], vec![null.clone(), int(3), int(2), int(5)]];
    assert_eq!(results(count_and_sum(Aggregate::over(&plays))).await, expected);
    let states = count_and_sum(Aggregate::over(&plays)).plan_states().unwrap();
    let stored = states.transform(Target::new(Arc::clone(&store), "states"), Ok).await.unwrap();
    assert_eq!(results(count_and_sum(Aggregate::over_states(&stored))).await, expected);
    let twice = Source::new([stored.clone(), stored]);
    let doubled = [vec![int(1), int(2), int(2), int(4)], vec![null.clone(), int(6), int(4), int(10)]];
    assert_eq!(results(count_and_sum(Aggregate::over_states(twice))).await, doubled);

    // An outer join keeps null keys, apart from each other; grouped, they are one.
    let users = pairs(DataType::Int64, DataType::Utf8, vec![vec![null.clone(), text("?")], vec![int(1), text("a")]]);
    let users = users.write(&store, "users").await;
    let full = Aggregate::over(Join::full(&plays, &users).with_right_prefix("u."))
        .aggregate("n", Count::rows())
        .aggregate("users", Count::of("u.v"));
    assert_eq!(results(full).await, [vec![int(1), int(1), int(1)], vec![null.clone(), int(4), int(1)]]);
    let inner = Aggregate::over(Join::inner(&plays, &users).with_right_prefix("u.")).aggregate("n", Count::rows());
    assert_eq!(results(inner).await, [vec![int(1), int(1)]]);
    let group = CoGroup::new().source("plays", &plays).source("users", &users);
    let both = Aggregate::over(group).aggregate_of("users", "users", Count::rows()).aggregate_of(
        "plays",
        "plays",
        Count::rows(),
    );
    assert_eq!(results(both).await, [vec![int(1), int(1), int(1)], vec![null, int(1), int(3)]]);
}

#[tokio::test]
async fn null_in_one_of_two_key_columns_is_a_value_like_any_other() {
    let store = store();
    let fields = vec![field("a", DataType::Int64, true), field("b", DataType::Utf8, true)];
    let keys = [(Some(1), Some("x")), (None, Some("x")), (Some(1), None), (None, None)];
    let row = |(a, b): (Option<i128>, Option<&str>)| vec![a.map_or(Value::Null, int), b.map_or(Value::Null, text)];
    let all: Vec<Row> = (0..40).map(|at| row(keys[at % 4])).collect();
    let data = DatasetData::new(fields, &["a", "b"], 3, all).and_write(5, keys.map(row).to_vec());
    let dataset = data.write(&store, "d").await;
    for batch_size in [1, 3, 8192] {
        let options = PlanOptions::default().with_batch_size(batch_size);
        let counts = Aggregate::over(&dataset).aggregate("n", Count::rows()).aggregate("a2", Count::of("a"));
        let found = results(counts.with_options(options)).await;
        let expected = |(a, b): (Option<i128>, _)| [row((a, b)), vec![int(11), int(a.map_or(0, |_| 11))]].concat();
        assert_eq!(found, sorted(keys.map(expected).to_vec()));
    }
}

#[tokio::test]
async fn floats_follow_the_stated_rules_for_zeros_and_nan() {
    let store = store();
    let float = |v: f64| Value::Float(v.to_bits());
    let nan = f64::NAN;
    let groups: [&[f64]; 6] =
        [&[0.0, -0.0], &[-0.0, 0.0], &[nan, 1.0], &[1.0, nan, -1.0], &[-0.0], &[f64::INFINITY, 1.5]];
    let row = |k: usize, v: f64| vec![int(k as i128), float(v)];
    let all = groups.iter().enumerate().flat_map(|(k, group)| group.iter().map(move |v| row(k, *v)));
    let mut all: Vec<Row> = all.collect();
    all.push(vec![int(6), Value::Null]);
    let dataset = pairs(DataType::Int64, DataType::Float64, all).write(&store, "d").await;
    let found = results(
        Aggregate::over(&dataset)
            .aggregate("min", Min::of("v"))
            .aggregate("max", Max::of("v"))
            .aggregate("sum", Sum::of("v"))
            .aggregate("mean", Mean::of("v"))
            .aggregate("zeros", Count::rows().filter(Predicate::eq("v", 0.0)))
            .aggregate("negative_zeros", Count::rows().filter(Predicate::eq("v", -0.0)))
            .aggregate("nans", Count::rows().filter(Predicate::eq("v", nan)))
            .aggregate("large", Count::rows().filter(Predicate::gt("v", f64::INFINITY))),
    )
    .await;
    let expect = |k: i128, floats: [f64; 4], counts: [i128; 4]| -> Row {
        [vec![int(k)], floats.map(float).to_vec(), counts.map(int).to_vec()].concat()
    };
    let nulls = vec![Value::Null; 4];
    assert_eq!(
        found,
        [
            expect(0, [-0.0, 0.0, 0.0, 0.0], [2, 2, 0, 0]),
            expect(1, [-0.0, 0.0, 0.0, 0.0], [2, 2, 0, 0]),
            expect(2, [1.0, nan, nan, nan], [0, 0, 1, 1]),
            expect(3, [-1.0, nan, nan, nan], [0, 0, 1, 1]),
            expect(4, [-0.0, -0.0, 0.0, 0.0], [1, 1, 0, 0]),
            expect(5, [1.5, f64::INFINITY, f64::INFINITY, f64::INFINITY], [0, 0, 0, 0]),
            [vec![int(6)], nulls, vec![int(0); 4]].concat(),
        ]
    );
}

#[tokio::test]
async fn nan_and_signed_zeros_have_one_place_in_the_order_of_values_and_of_sums() {
    let store = store();
    let float = |v: f64| Value::Float(v.to_bits());
    let fields = vec![
        field("k", DataType::Int64, false),
        field("item", DataType::Utf8, false),
        field("v", DataType::Float64, true),
    ];
    let values = [("a", f64::NAN), ("b", f64::INFINITY), ("c", 0.0), ("d", -0.0), ("e", -f64::NAN), ("f", 1.0)];
    let row = |(item, v): (&str, f64)| vec![int(1), text(item), float(v)];
    let (first, second) = values.split_at(3);
    let data = DatasetData::new(fields, &["k"], 2, first.iter().copied().map(row).collect());
    let data = data.and_write(2, second.iter().copied().map(row).collect());
    let dataset = data.write(&store, "d").await;
    let found = results(
        Aggregate::over(&dataset)
            .aggregate("min", Min::of("v"))
            .aggregate("max", Max::of("v"))
            .aggregate("plain_max", Max::of("v").filter(Predicate::lt("v", f64::INFINITY)))
            .aggregate("plain_min", Min::of("v").filter(Predicate::lt("v", f64::INFINITY)))
            .aggregate("count", Count::of("v"))
            .aggregate("top", TopK::of("item").weighted_by("v").with_limit(5)),
    )
    .await;
    // Extremes and ranks by IEEE 754's total order, in which a NaN's sign counts.
    let top = [("a", f64::NAN), ("b", f64::INFINITY), ("f", 1.0), ("c", 0.0), ("d", -0.0)];
    let Value::Many(ranked) = found[0][6].clone() else { unreachable!() };
    let names: Vec<&Value> =
        ranked.iter().map(|entry| if let Value::Many(e) = entry { &e[0] } else { entry }).collect();
    // A sum begins at 0.0, so that the sum of −0.0 alone is 0.0 and the lesser item is first.
    assert_eq!(names, top.map(|(item, _)| text(item)).iter().collect::<Vec<_>>());
    let expected = [int(1), float(-f64::NAN), float(f64::NAN), float(1.0), float(-0.0), int(6)];
    assert_eq!(found[0][..6], expected);
}

/// Rows of one key with a column per type, and how many of them each predicate keeps.
async fn kept(store: &Arc<dyn ObjectStore>, column: (DataType, Vec<Value>), predicates: &[(Predicate, i128)]) {
    let path = format!("kept/{}", store_name(&column.0));
    let rows = column.1.into_iter().map(|v| vec![int(1), v]).collect();
    let dataset = pairs(DataType::Int64, column.0, rows).write(store, &path).await;
    let mut aggregation = Aggregate::over(&dataset);
    for (at, (predicate, _)) in predicates.iter().enumerate() {
        aggregation = aggregation.aggregate(format!("p{at}"), Count::rows().filter(predicate.clone()));
    }
    let found = results(aggregation).await;
    for ((predicate, expected), found) in predicates.iter().zip(&found[0][1..]) {
        assert_eq!(*found, int(*expected), "{predicate}");
    }
}

fn eq(column: &str, literal: impl Into<Literal>) -> Predicate {
    Predicate::eq(column, literal)
}

fn store_name(data_type: &DataType) -> String {
    data_type.to_string().chars().filter(char::is_ascii_alphanumeric).collect()
}

#[tokio::test]
async fn predicates_follow_sql_when_values_are_null() {
    let p = Predicate::eq;
    let (unknown, yes, no) = (|| p("v", 3), || Predicate::And(vec![]), || Predicate::Or(vec![]));
    // Of a null alone, only what is true without knowing it is kept.
    let of_null = [
        (unknown(), 0),
        (unknown().negate(), 0),
        (Predicate::not_eq("v", 3), 0),
        (unknown().or(yes()), 1),
        (unknown().and(yes()), 0),
        (unknown().and(no()), 0),
        (unknown().and(no()).negate(), 1),
        (unknown().or(no()).negate(), 0),
        (Predicate::is_in("v", [3, 4]), 0),
        (Predicate::is_in("v", [3, 4]).negate(), 0),
        (Predicate::is_in("v", [0; 0]), 0),
        (Predicate::is_in("v", [0; 0]).negate(), 1),
        (Predicate::is_null("v"), 1),
        (Predicate::is_null("v").negate(), 0),
        (Predicate::is_not_null("v"), 0),
        (yes(), 1),
        (no(), 0),
    ];
    kept(&store(), (DataType::Int64, vec![Value::Null]), &of_null).await;
    let mixed = vec![int(3), Value::Null, int(4), int(3), int(9)];
    let counts = [
        (p("v", 3), 2),
        (p("v", 3).negate(), 2),
        (Predicate::lt("v", 4), 2),
        (Predicate::le("v", 4), 3),
        (Predicate::gt("v", 4), 1),
        (Predicate::ge("v", 4), 2),
        (Predicate::is_in("v", [9, 4]), 2),
        (Predicate::is_in("v", [9, 4]).or(Predicate::is_null("v")), 3),
        (p("v", 3).and(p("k", 1)), 2),
        (p("k", 2).or(Predicate::is_not_null("k").and(p("v", 9))), 1),
    ];
    kept(&store(), (DataType::Int8, mixed), &counts).await;
}

#[tokio::test]
async fn predicates_compare_every_type_by_value() {
    let store = store();
    let float = |v: f64| Value::Float(v.to_bits());
    // A NaN of either sign is the one NaN: which sign a computation makes is the processor's affair.
    let floats = [0.0, -0.0, 1.5, f64::NAN, -f64::NAN, f64::NEG_INFINITY].map(float).to_vec();
    let counts = [
        (eq("v", 0), 2),
        (Predicate::lt("v", -0.0), 1),
        (Predicate::ge("v", 0.0), 5),
        (eq("v", f64::NAN), 2),
        (eq("v", -f64::NAN), 2),
        (Predicate::gt("v", f64::INFINITY), 2),
        (Predicate::lt("v", f64::NAN), 4),
        (Predicate::not_eq("v", f64::NAN), 4),
        (Predicate::is_in("v", [-0.0, 1.5]), 3),
    ];
    kept(&store, (DataType::Float64, floats), &counts).await;

    let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).unwrap();
    let dates = [-1, 0, 1, 20_454].map(int).to_vec();
    let counts = [
        (eq("v", day(1969, 12, 31)), 1),
        (Predicate::lt("v", day(1970, 1, 1)), 1),
        (Predicate::ge("v", day(1970, 1, 2)), 2),
        (eq("v", day(2026, 1, 1)), 1),
        (Predicate::lt("v", day(262_000, 1, 1)), 4),
    ];
    kept(&store, (DataType::Date32, dates), &counts).await;

    let at = |micros: i64| DateTime::from_timestamp_micros(micros).unwrap();
    let times = |unit| DataType::Timestamp(unit, None);
    let counts = [(eq("v", at(-1000)), 1), (Predicate::gt("v", at(-1000)), 2), (Predicate::le("v", at(1000)), 3)];
    kept(&store, (times(TimeUnit::Millisecond), [-1, 0, 1].map(int).to_vec()), &counts).await;
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    kept(
        &store,
        (zoned, [-1000, 1, 1001].map(int).to_vec()),
        &[(eq("v", at(-1000)), 1), (Predicate::gt("v", at(1000)), 1)],
    )
    .await;
    let nanos = DateTime::from_timestamp_nanos;
    let counts = [(eq("v", nanos(-1)), 1), (Predicate::gt("v", nanos(1)), 1), (eq("v", at(1)), 1)];
    kept(&store, (times(TimeUnit::Nanosecond), [-1, 1, 1000].map(int).to_vec()), &counts).await;

    let decimals = [-150, 100, 0, 99, 999_999].map(int).to_vec();
    let counts =
        [(eq("v", 1), 1), (Predicate::lt("v", 0), 1), (Predicate::gt("v", 0_u64), 3), (Predicate::lt("v", 9999), 4)];
    kept(&store, (DataType::Decimal128(6, 2), decimals), &counts).await;
    let large = [0, i128::from(u64::MAX)].map(int).to_vec();
    kept(&store, (DataType::UInt64, large), &[(eq("v", u64::MAX), 1), (Predicate::ge("v", 0), 2)]).await;
    let strings = ["", "a", "B", "é", "日本"].map(text).to_vec();
    let counts = [(eq("v", ""), 1), (Predicate::gt("v", "a"), 2), (Predicate::lt("v", "a"), 2), (eq("v", "日本"), 1)];
    kept(&store, (DataType::Utf8, strings), &counts).await;
    let binary = [vec![], vec![0xff], vec![0x7f, 0]].map(Value::Bytes).to_vec();
    kept(&store, (DataType::Binary, binary), &[(Predicate::gt("v", vec![0x7f_u8]), 2), (eq("v", vec![]), 1)]).await;
    let fixed = [vec![1, 2], vec![1, 3]].map(Value::Bytes).to_vec();
    kept(&store, (DataType::FixedSizeBinary(2), fixed), &[(Predicate::lt("v", vec![1, 3]), 1)]).await;
    let booleans = [true, false, false].map(Value::Bool).to_vec();
    kept(&store, (DataType::Boolean, booleans), &[(eq("v", false), 2), (Predicate::gt("v", false), 1)]).await;
}

#[tokio::test]
async fn literals_that_are_no_value_of_the_column_are_refused() {
    let store = store();
    let micro = DateTime::from_timestamp_micros(1).unwrap();
    let nano = DateTime::from_timestamp_nanos(1);
    let far = DateTime::from_timestamp(10_000_000_000, 0).unwrap();
    let refused: [(DataType, Vec<Literal>); 12] = [
        (DataType::Int8, vec![300.into(), (-129).into(), 1.0.into(), "1".into(), true.into()]),
        (DataType::UInt32, vec![(-1).into(), (1_u64 << 32).into()]),
        (DataType::UInt64, vec![(-1).into()]),
        (DataType::Int64, vec![u64::MAX.into(), micro.into()]),
        (DataType::Float64, vec![((1_i64 << 53) + 1).into(), u64::MAX.into(), "NaN".into()]),
        (DataType::Decimal128(4, 2), vec![100.into(), i64::MAX.into(), 0.5.into()]),
        (DataType::Utf8, vec![1.into(), vec![1_u8].into()]),
        (DataType::FixedSizeBinary(2), vec![vec![1_u8].into(), vec![1_u8, 2, 3].into(), "ab".into()]),
        (DataType::Date32, vec![micro.into(), 1.into()]),
        (DataType::Timestamp(TimeUnit::Millisecond, None), vec![micro.into(), 1.into(), NaiveDate::default().into()]),
        (DataType::Timestamp(TimeUnit::Microsecond, None), vec![nano.into()]),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), vec![far.into()]),
    ];
    for (data_type, literals) in refused {
        let data = pairs(DataType::Int64, data_type.clone(), vec![]);
        let dataset = data.write(&store, &format!("d/{}", store_name(&data_type))).await;
        for literal in literals {
            for predicate in [Predicate::eq("v", literal.clone()), Predicate::is_in("v", [literal.clone()]).negate()] {
                let plan = Aggregate::over(&dataset).aggregate("n", Count::rows().filter(predicate.clone())).plan();
                let Err(error) = plan else { panic!("{data_type} with {predicate} was planned") };
                assert_error(
                    &error,
                    ErrorKind::InvalidInput,
                    &["aggregate `n`", "column=`v`", &format!("literal=`{literal}`")],
                );
            }
        }
    }
}

fn users() -> DatasetData {
    let fields = vec![
        field("k", DataType::Int32, false),
        field("name", DataType::Utf8, true),
        field("score", DataType::Float64, true),
    ];
    let row = |k: i128| vec![int(k), text("x"), Value::Float(0.5_f64.to_bits())];
    DatasetData::new(fields, &["k"], 8, (0..30).map(row).collect())
}

fn plays() -> DatasetData {
    let fields = vec![
        field("k", DataType::Int64, true),
        field("at", DataType::Int64, false),
        field("track", DataType::Utf8, false),
        field("ms", DataType::Int64, false),
        field("wide", DataType::Utf8, false),
    ];
    let row = |at: i128| -> Row {
        vec![int(at % 41), int(at), text(&format!("track {}", at % 7)), int(at * 10), text(&"w".repeat(50))]
    };
    let write = |from: i128| Write::new(4, (from..from + 300).map(row).collect());
    DatasetData {
        writes: vec![write(0), write(1000)],
        ..DatasetData::new(fields, &["k"], 4, vec![]).with_sort(&["at"])
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_an_aggregation_is_said_at_once() {
    let store = store();
    let (plays, users) = (plays().write(&store, "plays").await, users().write(&store, "users").await);
    let wrong = |aggregation: Aggregate| {
        aggregation
            .aggregate("one", Sum::of("nowhere"))
            .aggregate("two", Sum::of("track"))
            .aggregate("three", CountDistinct::of("ms").filter(Predicate::eq("no_such", 1)))
            .aggregate("k", Count::rows())
            .aggregate("five", TopK::of("track").weighted_by("track"))
            .aggregate("five", Count::rows())
    };
    let parts = [
        "aggregate `one`",
        "`nowhere`",
        "aggregate `two`",
        "column=`track`",
        "aggregate `three`",
        "`no_such`",
        "name of a key column, aggregate=`k`",
        "aggregate `five`",
        "the same name, aggregate=`five`",
    ];
    for states in [false, true] {
        let plan = wrong(Aggregate::over(&plays));
        let error = if states { plan.plan_states() } else { plan.plan() }.unwrap_err();
        assert_error(&error, ErrorKind::InvalidInput, &parts);
    }
    let error = wrong(Aggregate::over(Join::inner(&plays, &users))).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &parts);

    let group = || CoGroup::new().source("plays", &plays).source("users", &users);
    let error = Aggregate::over(group())
        .aggregate("whose", Count::rows())
        .aggregate_of("nobody", "theirs", Count::rows())
        .aggregate_of("users", "track", Max::of("track"))
        .aggregate_of("users", "distinct", CountDistinct::of("score"))
        .plan()
        .unwrap_err();
    let parts = ["aggregate `whose`", "aggregate_of", "source=`nobody`", "aggregate `track`", "column=`score`"];
    assert_error(&error, ErrorKind::InvalidInput, &parts);
    // With one source there is nothing to name.
    let one = Aggregate::over(CoGroup::new().source("plays", &plays)).aggregate("n", Count::rows());
    assert_eq!(results(one).await.len(), 41);
    let error = Aggregate::over(&plays).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["at least one aggregate"]);
    let error = Aggregate::over(CoGroup::new()).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["at least one aggregate", "at least one source"]);
    let error = Aggregate::over(Source::new([])).aggregate("n", Count::rows()).plan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");

    // What does not fit together is told with what is wrong by itself.
    let names =
        DatasetData::new(vec![field("k", DataType::Utf8, false)], &["k"], 2, vec![]).write(&store, "names").await;
    let error = Aggregate::over(Join::inner(&plays, &names)).aggregate("n", Count::rows()).plan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    // A column that was left out of the source is not there.
    let narrow = Source::from(&plays).with_columns(["track"]);
    let error = Aggregate::over(narrow).aggregate("ms", Sum::of("ms")).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["aggregate `ms`", "`ms`"]);
    // States under a name that is not there, or of another aggregate.
    let states = Aggregate::over(&plays).aggregate("n", Count::rows()).plan_states().unwrap();
    let states = states.transform(Target::new(Arc::clone(&store), "states"), Ok).await.unwrap();
    let error = Aggregate::over_states(&states)
        .aggregate("n", TopK::of("track"))
        .aggregate("m", Count::rows())
        .plan()
        .unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["aggregate `n`", "`top_k`"]);
    assert!(error.to_string().contains("`m`"), "{error}");
}

#[tokio::test]
async fn an_aggregation_is_explained_as_its_input() {
    let store = store();
    let (plays, users) = (plays().write(&store, "plays").await, users().write(&store, "users").await);
    let lines = |plan: &dyn std::fmt::Display| -> Vec<String> { plan.to_string().lines().map(str::to_owned).collect() };
    let aggregation = |input: Aggregate| input.aggregate("ms", Sum::of("ms").filter(Predicate::eq("track", "track 1")));
    let shown = lines(&aggregation(Aggregate::over(&plays)).plan().unwrap());
    assert_eq!(shown[..2], ["aggregate of a scan on [k]", "  slots: 4, bucket function: iceberg-murmur3-v1"]);
    assert_eq!(shown[3..5], ["    columns: [k, ms, track]", "    plays version 2"]);
    assert_eq!(shown[5..], ["  result: [k, ms]", "  order within a slot: [k], value, nulls last"]);
    let joined = lines(&aggregation(Aggregate::over(Join::left(&plays, &users))).plan().unwrap());
    assert_eq!(joined[0], "aggregate of a left join on [k]");
    assert!(joined.contains(&"    columns: [k]".to_owned()), "{joined:?}");
    let group = Aggregate::over(CoGroup::new().source("plays", &plays).source("users", &users));
    let plan = group.aggregate_of("users", "n", Count::rows()).plan_states().unwrap();
    assert!(plan.to_string().starts_with("aggregate of a co-group on [k]"), "{plan}");
    let states = plan.transform(Target::new(store, "states"), Ok).await.unwrap();
    let plan = Aggregate::over_states(&states).aggregate("n", Count::rows()).plan().unwrap();
    assert!(plan.to_string().starts_with("merge of states on [k]\n"), "{plan}");
}

/// The bytes that a plan's range reads ask for.
async fn bytes_read(store: &TestStore, aggregation: Aggregate) -> u64 {
    let plan = aggregation.plan().unwrap();
    assert!(store.take_log().is_empty(), "planning reads nothing");
    try_run(&plan, 1).await.unwrap();
    let log = store.take_log();
    assert!(log.iter().all(|request| ["GET", "RANGES"].contains(&request.verb) && !request.ranges.is_empty()));
    log.iter().flat_map(|request| &request.ranges).map(|range| range.end - range.start).sum()
}

#[tokio::test]
async fn only_the_columns_that_aggregates_name_are_read() {
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let mut data = plays();
    for write in &mut data.writes {
        write.options = write.options.clone().with_encoding(Encoding::Plain);
        // Text that no codec shortens much.
        for (at, row) in write.rows.iter_mut().enumerate() {
            row[4] =
                text(&(0..80).map(|n| char::from(b'!' + ((at * 7919 + n * n * 31) % 90) as u8)).collect::<String>());
        }
    }
    let plays = data.write(&dynamic, "plays").await;
    let users = users().write(&dynamic, "users").await;
    store.take_log();
    let footers = |dataset: &Dataset| dataset.runs().iter().map(|run| run.footer_bytes).sum::<u64>();
    let everything = |dataset: &Dataset| dataset.runs().iter().map(|run| run.bytes).sum::<u64>();
    let scan = |columns: &[&str]| {
        let plan = sort_merge_bucket::Scan::new(Source::from(&plays).with_columns(columns.to_vec())).plan().unwrap();
        let store = Arc::clone(&store);
        async move {
            try_run(&plan, 1).await.unwrap();
            let log = store.take_log();
            log.iter().flat_map(|request| &request.ranges).map(|range| range.end - range.start).sum::<u64>()
        }
    };
    let (key, ms, track) = (scan(&["k"]).await, scan(&["k", "ms"]).await, scan(&["k", "ms", "track"]).await);
    assert!(footers(&plays) < key && key < ms && ms < track && track < everything(&plays) / 2);
    assert_eq!(bytes_read(&store, Aggregate::over(&plays).aggregate("n", Count::rows())).await, key);
    let sum = || Aggregate::over(&plays).aggregate("ms", Sum::of("ms")).aggregate("mean", Mean::of("ms"));
    assert_eq!(bytes_read(&store, sum()).await, ms);
    let filtered = sum().aggregate("n", Count::rows().filter(Predicate::eq("track", "track 1")));
    assert_eq!(bytes_read(&store, filtered).await, track);
    // Of a join and a co-group each side by itself.
    let other = {
        let plan = sort_merge_bucket::Scan::new(Source::from(&users).with_columns(["k"])).plan().unwrap();
        try_run(&plan, 1).await.unwrap();
        store.take_log().iter().flat_map(|request| &request.ranges).map(|range| range.end - range.start).sum::<u64>()
    };
    let joined = Aggregate::over(Join::inner(&plays, &users)).aggregate("ms", Sum::of("ms"));
    assert_eq!(bytes_read(&store, joined).await, ms + other);
    let group = CoGroup::new().source("plays", &plays).source("users", &users);
    let grouped =
        Aggregate::over(group).aggregate_of("plays", "ms", Sum::of("ms")).aggregate_of("users", "n", Count::rows());
    assert_eq!(bytes_read(&store, grouped).await, ms + other);
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_an_error_wherever_it_comes_about() {
    let store = store();
    let row = |v: i128| vec![int(1), int(v)];
    let max = i128::from(i64::MAX);
    // In one batch, in two batches of a run, in two runs, and in two stored partials.
    let one = pairs(DataType::Int64, DataType::Int64, vec![row(max), row(1)]).write(&store, "one").await;
    let two = pairs(DataType::Int64, DataType::Int64, vec![row(max)]).and_write(4, vec![row(1)]);
    let two = two.write(&store, "two").await;
    for (dataset, batch_size) in [(&one, 8192), (&one, 1), (&two, 8192), (&two, 1)] {
        for asked in [Function::Sum(1), Function::Mean(1), Function::Sums(0, Some(1)), Function::Top(0, Some(1), 1)] {
            let fields = [field("k", DataType::Int64, true), field("v", DataType::Int64, true)];
            let plan = asking(Aggregate::over(dataset), &fields, &[asked.into()])
                .with_options(PlanOptions::default().with_batch_size(batch_size))
                .plan()
                .unwrap();
            assert_error(&failure(&plan).await, ErrorKind::LimitExceeded, &["too large"]);
        }
    }
    let sum = |aggregation: Aggregate| aggregation.aggregate("sum", Sum::of("v"));
    let full = pairs(DataType::Int64, DataType::Int64, vec![row(max)]).write(&store, "full").await;
    let plan = sum(Aggregate::over(&full)).plan_states().unwrap();
    let partial = plan.transform(Target::new(Arc::clone(&store), "partial"), Ok).await.unwrap();
    assert_eq!(results(sum(Aggregate::over_states(&partial))).await, [row(max)]);
    let plan = sum(Aggregate::over_states(Source::new([partial.clone(), partial]))).plan().unwrap();
    assert_error(&failure(&plan).await, ErrorKind::LimitExceeded, &["too large"]);
    // A decimal of 38 digits holds it.
    let wide = pairs(DataType::Int64, DataType::Decimal128(19, 0), vec![row(max), row(1)]).write(&store, "wide").await;
    assert_eq!(results(sum(Aggregate::over(&wide))).await, [row(max + 1)]);
}

#[tokio::test]
async fn rows_out_of_order_and_rows_misplaced_are_errors_not_results() {
    let store = store();
    let keys = |keys: std::ops::Range<i128>| keys.map(|k| vec![int(k), int(1)]).collect::<Vec<_>>();
    let data = DatasetData::new(
        vec![field("k", DataType::Int64, true), field("v", DataType::Int64, true)],
        &["k"],
        1,
        keys(0..50),
    );
    let dataset = data.write(&store, "d").await;
    let plan = |dataset: &Dataset| Aggregate::over(dataset).aggregate("sum", Sum::of("v")).plan().unwrap();
    let forged = edit_run(&store, &dataset, 0, |rows| rows.swap(20, 21)).await;
    let error = failure(&plan(&forged)).await;
    assert_error(&error, ErrorKind::Unsorted, &["previous=`21`", "offending=`20`"]);
    assert_eq!((error.path(), error.row()), (Some(run_paths(&forged)[0].as_str()), Some(21)));
    let data = DatasetData { writes: vec![Write::new(4, keys(0..50))], ..data };
    let dataset = data.write(&store, "e").await;
    let forged = edit_run(&store, &dataset, 1, |rows| {
        let last = rows.len() - 1;
        rows[last][0] =
            int((1000..).find(|k| crate::support::oracle::bucket_of(&[DataType::Int64], &[int(*k)], 4) != 1).unwrap());
    })
    .await;
    assert_error(&failure(&plan(&forged)).await, ErrorKind::Misplaced, &["actual=`1`"]);
}

/// An aggregate of a user's own that does one thing wrong.
#[derive(Debug)]
struct Careless(&'static str);

impl Careless {
    fn column(&self, step: &str, rows: usize) -> ArrayRef {
        if self.0 == format!("too few in {step}") {
            return Arc::new(Int64Array::from(vec![0; rows.saturating_sub(1)]));
        }
        if self.0 == format!("too many in {step}") {
            return Arc::new(Int64Array::from(vec![0; rows + 1]));
        }
        if self.0 == format!("another type in {step}") {
            return Arc::new(StringArray::from(vec!["many"; rows]));
        }
        Arc::new(Int64Array::from(vec![0; rows]))
    }
}

impl Aggregator for Careless {
    fn definition(&self) -> Definition {
        Definition::new("test.careless", 1)
    }

    fn inputs(&self) -> Vec<String> {
        vec!["v".into()]
    }

    fn state_type(&self, _inputs: &[DataType]) -> Result<DataType> {
        if self.0 == "fails" { Err(Error::external("not today")) } else { Ok(DataType::Int64) }
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        Ok(state.clone())
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        if self.0 == "fails in update" {
            return Err(Error::external("not now"));
        }
        Ok(self.column("update", rows.len()))
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        assert!(self.0 != "panics", "a bug of the user's");
        Ok(self.column("merge", states.len()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(self.column("finish", states.len()))
    }
}

#[tokio::test]
async fn an_aggregate_that_returns_what_it_should_not_is_named() {
    let store = store();
    let row = |k: i128| vec![int(k), int(1)];
    // Two runs, so that states merge.
    let data =
        pairs(DataType::Int64, DataType::Int64, (0..20).map(row).collect()).and_write(4, (0..20).map(row).collect());
    let dataset = data.write(&store, "d").await;
    let plan = |how| Aggregate::over(&dataset).aggregate("mine", Careless(how)).plan();
    assert_eq!(rows(&plan("nothing").unwrap()).await.len(), 20);
    for how in [
        "too few in update",
        "too few in merge",
        "too few in finish",
        "too many in update",
        "too many in merge",
        "too many in finish",
    ] {
        let error = failure(&plan(how).unwrap()).await;
        assert_error(&error, ErrorKind::InvalidInput, &["another number of values", "aggregate=`mine`"]);
    }
    for how in ["another type in update", "another type in merge", "another type in finish"] {
        let error = failure(&plan(how).unwrap()).await;
        assert_error(&error, ErrorKind::InvalidInput, &["`mine`"]);
    }
    assert_error(&plan("fails").unwrap_err(), ErrorKind::InvalidInput, &["aggregate `mine`"]);
    let error = failure(&plan("fails in update").unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::External);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "not now");
    assert_eq!(failure(&plan("panics").unwrap()).await.kind(), ErrorKind::Internal);
}

#[derive(Debug, Deserialize)]
struct Listen {
    v: Option<i32>,
    name: String,
}

/// The longest name and how many values there were.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Longest {
    name: Option<String>,
    values: u64,
    by_length: BTreeMap<u32, i64>,
}

impl Longest {
    fn take(&mut self, other: Self) {
        let rank = |name: &Option<String>| name.as_ref().map(|name| (name.len(), std::cmp::Reverse(name.clone())));
        if rank(&other.name) > rank(&self.name) {
            self.name = other.name;
        }
        self.values += other.values;
        for (length, count) in other.by_length {
            *self.by_length.entry(length).or_default() += count;
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    longest: Option<String>,
    values: u64,
    lengths: Vec<u32>,
}

fn longest() -> impl Aggregator {
    let update = |state: &mut Longest, row: Listen| {
        let by_length = BTreeMap::from([(row.name.len() as u32, 1)]);
        state.take(Longest { values: u64::from(row.v.is_some()), by_length, name: Some(row.name) });
        Ok(())
    };
    let merge = |state: &mut Longest, other| {
        state.take(other);
        Ok(())
    };
    let finish = |state: Longest| {
        Ok(Summary { longest: state.name, values: state.values, lengths: state.by_length.into_keys().collect() })
    };
    Fold::new(Definition::new("test.longest", 1), ["v", "name"], update, merge, finish).unwrap()
}

#[tokio::test]
async fn a_fold_over_rows_of_a_users_type_works_from_rows_to_stored_states_to_results() {
    let store = store();
    let fields =
        vec![field("k", DataType::Utf8, true), field("v", DataType::Int32, true), field("name", DataType::Utf8, false)];
    let names = ["a", "bb", "cc", "日", "", "dddd", "a name of more than twelve bytes"];
    let row = |at: i128| -> Row {
        let key = if at % 9 == 8 { Value::Null } else { text(&format!("key {}", at % 9)) };
        vec![key, if at % 3 == 0 { Value::Null } else { int(at) }, text(names[(at * at % 7) as usize])]
    };
    let all: Vec<Row> = (0..120).map(row).collect();
    let data = DatasetData::new(fields, &["k"], 3, all[..70].to_vec()).and_write(2, all[70..].to_vec());
    let dataset = data.write(&store, "d").await;
    let mut groups: BTreeMap<Value, Vec<&Row>> = BTreeMap::new();
    for row in &all {
        groups.entry(row[0].clone()).or_default().push(row);
    }
    let name = |row: &Row| if let Value::Text(name) = &row[2] { name.clone() } else { unreachable!() };
    let expected: Vec<Row> = groups
        .into_iter()
        .map(|(key, rows)| {
            let mut by_rank: Vec<String> = rows.iter().map(|row| name(row)).collect();
            by_rank.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
            let values = rows.iter().filter(|row| row[1] != Value::Null).count() as i128;
            let mut lengths: Vec<i128> = by_rank.iter().map(|name| name.len() as i128).collect();
            lengths.sort_unstable();
            lengths.dedup();
            let lengths = Value::Many(lengths.into_iter().map(int).collect());
            vec![key, Value::Many(vec![text(&by_rank[0]), int(values), lengths])]
        })
        .collect();
    for batch_size in [1, 5, 8192] {
        let options = PlanOptions::default().with_batch_size(batch_size);
        let found = results(Aggregate::over(&dataset).aggregate("longest", longest()).with_options(options)).await;
        assert_eq!(found, expected);
    }
    let plan = Aggregate::over(&dataset).aggregate("longest", longest()).plan_states().unwrap();
    let states = plan.transform(Target::new(Arc::clone(&store), "states"), Ok).await.unwrap();
    assert_valid(&states).await;
    assert_eq!(results(Aggregate::over_states(&states).aggregate("longest", longest())).await, expected);

    let batch = RecordBatch::try_from_iter([
        ("v", Arc::new(Int32Array::from(vec![Some(1), None, Some(3), None])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec!["a", "bb", "", "cc"]))),
    ]);
    check_laws(&longest(), &batch.unwrap()).unwrap();

    // A column that the row type cannot hold, and one that is not there.
    let other = pairs(DataType::Int64, DataType::Int64, vec![vec![int(1), int(1)]]).write(&store, "other").await;
    let error = Aggregate::over(&other).aggregate("longest", longest()).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["aggregate `longest`", "`name`"]);
    let fields = vec![
        field("k", DataType::Int64, false),
        field("v", DataType::Utf8, false),
        field("name", DataType::Utf8, false),
    ];
    let texts =
        DatasetData::new(fields, &["k"], 1, vec![vec![int(1), text("one"), text("x")]]).write(&store, "texts").await;
    let error = failure(&Aggregate::over(&texts).aggregate("longest", longest()).plan().unwrap()).await;
    assert_error(&error, ErrorKind::InvalidInput, &["aggregate=`test.longest`"]);
}

#[tokio::test]
async fn weeks_with_other_buckets_types_and_columns_are_one_source() {
    let store = store();
    let week = |buckets: u32, value: DataType, extra: bool| {
        let mut fields = vec![field("k", DataType::Int64, false), field("v", value, false)];
        if extra {
            fields.push(field("device", DataType::Utf8, false));
        }
        let row = |at: i128| {
            [
                vec![int(at % 10), int(at)],
                extra.then(|| text(["mobile", "desk"][at as usize % 2])).into_iter().collect(),
            ]
            .concat()
        };
        DatasetData::new(fields, &["k"], buckets, (0..60).map(row).collect())
    };
    let weeks = [
        week(4, DataType::Int32, false).write(&store, "week=1").await,
        week(6, DataType::Int64, true).write(&store, "week=2").await,
        week(5, DataType::Int16, true).write_fixed(&store, "week=3").await,
    ];
    let plan = Aggregate::over(weeks.to_vec())
        .aggregate("n", Count::rows())
        .aggregate("sum", Sum::of("v"))
        .aggregate("mobile", Sum::of("v").filter(Predicate::eq("device", "mobile")))
        .aggregate("unknown", Count::rows().filter(Predicate::is_null("device")))
        .aggregate("devices", SumMap::of("device"))
        .plan()
        .unwrap();
    assert_eq!(plan.slots().get(), 1);
    let expected: Vec<Row> = (0..10)
        .map(|k| {
            let own: i128 = (0..60).filter(|at| at % 10 == k).sum();
            let even = k % 2 == 0;
            let devices = Value::Many(vec![Value::Many(vec![text(if even { "mobile" } else { "desk" }), int(12)])]);
            vec![int(k), int(18), int(3 * own), if even { int(2 * own) } else { Value::Null }, int(6), devices]
        })
        .collect();
    assert_eq!(sorted(rows(&plan).await), expected);
}

#[test]
fn a_filter_of_a_filter_keeps_what_both_keep_and_says_so() {
    let once: Filtered<Sum> = Sum::of("v").filter(Predicate::gt("v", 1));
    let twice = once.clone().filter(Predicate::is_not_null("w"));
    assert_eq!(twice.inputs(), ["v", "v", "w"]);
    let (one, two) = (once.definition(), twice.definition());
    assert_eq!((one.parameters.len(), two.parameters.len()), (2, 3));
    assert_ne!(once.definition(), Sum::of("v").filter(Predicate::ge("v", 1)).definition());
    let columns: [ArrayRef; 3] = [
        Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
        Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
        Arc::new(Float64Array::from(vec![Some(0.0), None, Some(0.0), Some(0.0)])),
    ];
    let sums = twice.update(&Segments::new(&columns, &[0, 3, 3, 4]).unwrap()).unwrap();
    assert_eq!(sums.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(3), None, Some(4)]);
    // Segments need not begin at the first row.
    let sums = twice.update(&Segments::new(&columns, &[2, 3, 4]).unwrap()).unwrap();
    assert_eq!(sums.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(3), Some(4)]);
}

#[test]
fn predicates_survive_as_text_and_differ_as_text() {
    let p = |literal: f64| Predicate::gt("v", literal);
    let all = [p(f64::NAN), p(f64::INFINITY), p(f64::NEG_INFINITY), p(0.1), p(1e300), p(1.0), Predicate::gt("v", 1)];
    let mut texts = vec![];
    for predicate in &all {
        let text = serde_json::to_string(predicate).unwrap();
        let back: Predicate = serde_json::from_str(&text).unwrap();
        assert_eq!(back.to_string(), predicate.to_string());
        assert!(!texts.contains(&text), "{text}");
        texts.push(text);
    }
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            assert_ne!(
                Count::rows().filter(one.clone()).definition(),
                Count::rows().filter(other.clone()).definition()
            );
        }
    }
    let time = DateTime::from_timestamp_nanos(1_700_000_000_000_000_001);
    let rest = Predicate::is_in("a", ["x", "\"y\\"])
        .or(Predicate::eq("b", vec![0_u8, 255]).and(Predicate::le("c", time)))
        .or(Predicate::is_null("d").negate().and(Predicate::not_eq("e", NaiveDate::default())))
        .and(Predicate::ge("f", u64::MAX).or(Predicate::lt("g", true)));
    assert_eq!(serde_json::from_str::<Predicate>(&serde_json::to_string(&rest).unwrap()).unwrap(), rest);
}

#[tokio::test]
async fn datasets_without_rows_have_no_results() {
    let store = store();
    let nothing = plays();
    let nothing = DatasetData { writes: vec![Write::new(4, vec![])], ..nothing }.write(&store, "nothing").await;
    let users = users().write(&store, "users").await;
    let plan = Aggregate::over(&nothing).aggregate("n", Count::rows()).plan().unwrap();
    assert!(rows(&plan).await.is_empty());
    let schema = Schema::new(vec![field("k", DataType::Int64, true), field("n", DataType::Int64, true)]);
    assert_eq!(plan.schema().as_ref(), &schema);
    // Keys of the other source have the results of no rows.
    let group = CoGroup::new().source("plays", &nothing).source("users", &users);
    let plan = Aggregate::over(group)
        .aggregate_of("plays", "n", Count::rows())
        .aggregate_of("plays", "ms", Sum::of("ms"))
        .aggregate_of("plays", "top", TopK::of("track"))
        .aggregate_of("plays", "distinct", CountDistinct::of("track"));
    let found = results(plan).await;
    assert_eq!(found.len(), 30);
    assert_eq!(found[3], [int(3), int(0), Value::Null, Value::Many(vec![]), int(0)]);
}

/// Keys and floats of all sizes, in a few runs.
fn float_rows() -> Vec<Row> {
    let sizes = [1e16, 1.0, -1e16, 0.1, 1e-9, -3.0, 1e300, -1e300, 7e5, f64::from(f32::MIN_POSITIVE)];
    let row = |at: i128| vec![int(at % 5), Value::Float((sizes[(at * 7 % 10) as usize] * (at as f64)).to_bits())];
    (0..300).map(row).collect()
}

#[tokio::test]
async fn results_of_floats_do_not_depend_on_how_rows_were_divided() {
    let store = store();
    let all = float_rows();
    let asking = |aggregation: Aggregate| {
        aggregation
            .aggregate("sum", Sum::of("v"))
            .aggregate("mean", Mean::of("v"))
            .aggregate("variance", Variance::of("v").population())
            .aggregate("deviation", StdDev::of("v").filter(Predicate::lt("v", 1e100)))
            .aggregate("sums", SumMap::of("k").weighted_by("v"))
            .aggregate("top", TopK::of("k").weighted_by("v"))
    };
    let one = pairs(DataType::Int64, DataType::Float64, all.clone()).write(&store, "one").await;
    let expected = results(asking(Aggregate::over(&one))).await;
    assert_eq!(expected.len(), 5);
    for (name, cut, buckets) in [("a", 1, 1), ("b", 100, 6), ("c", 299, 4)] {
        let (first, second) = all.split_at(cut);
        let data = pairs(DataType::Int64, DataType::Float64, second.iter().rev().cloned().collect());
        let dataset = data.and_write(buckets, first.to_vec()).write(&store, name).await;
        for batch_size in [1, 7, 8192] {
            let options = PlanOptions::default().with_batch_size(batch_size);
            // To the last bit.
            assert_eq!(results(asking(Aggregate::over(&dataset)).with_options(options)).await, expected);
        }
        let states = asking(Aggregate::over(&dataset)).plan_states().unwrap();
        let stored = states.transform(Target::new(Arc::clone(&store), format!("states {name}")), Ok).await.unwrap();
        assert_eq!(results(asking(Aggregate::over_states(&stored))).await, expected);
    }
}

#[tokio::test]
async fn every_function_over_stored_weeks_equals_it_over_all_rows() {
    let store = store();
    let fields = vec![
        field("user", DataType::Int64, false),
        field("track", DataType::Utf8, true),
        field("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        field("skipped", DataType::Boolean, true),
        field("ms", DataType::Int32, true),
    ];
    let row = |at: i128| -> Row {
        let some = |value: Value, every: i128| if at % every == 0 { Value::Null } else { value };
        let track = text(&format!("a track with a long name {}", at * at % 900));
        vec![
            int(at % 3),
            some(track, 7),
            some(int(at * 31 % 101), 11),
            some(Value::Bool(at % 17 == 1), 5),
            some(int(at % 250), 13),
        ]
    };
    let rows: Vec<Row> = (0..3000).map(row).collect();
    let write = |name: &'static str, rows: &[Row]| {
        let data = DatasetData::new(fields.clone(), &["user"], 2, rows.to_vec());
        let store = Arc::clone(&store);
        async move { data.write(&store, name).await }
    };
    let all = write("all", &rows).await;
    let weeks = [
        write("week 1", &rows[..900]).await,
        write("week 2", &rows[900..910]).await,
        write("week 3", &rows[910..]).await,
    ];
    let asking = |aggregation: Aggregate| {
        aggregation
            .aggregate("first", First::of("track").by("at"))
            .aggregate("last", Last::of("track").by("at"))
            .aggregate("latest", Collect::of("track").by("at").descending().with_limit(5))
            .aggregate("least", Collect::of("ms").with_limit(4))
            .aggregate("tracks", ApproxCountDistinct::of("track"))
            .aggregate("lengths", ApproxCountDistinct::of("ms").with_precision(8))
            .aggregate("any", Any::of("skipped"))
            .aggregate("all", All::of("skipped"))
            .aggregate("spread", StdDev::of("ms"))
    };
    let expected = results(asking(Aggregate::over(&all))).await;
    let mut partials = vec![];
    for (at, week) in weeks.iter().enumerate() {
        let target = Target::new(Arc::clone(&store), format!("partial {at}"));
        let stored = asking(Aggregate::over(week)).plan_states().unwrap().transform(target, Ok).await.unwrap();
        assert_valid(&stored).await;
        partials.push(stored);
    }
    assert_eq!(results(asking(Aggregate::over_states(partials))).await, expected);
    // Some of it, in plain words.
    for user in &expected {
        let of = |column: usize| rows.iter().filter(|row| row[0] == user[0]).map(move |row| row[column].clone());
        let tracks =
            of(1).filter(|track| *track != Value::Null).collect::<std::collections::BTreeSet<_>>().len() as f64;
        let Value::Int(estimate) = user[5] else { unreachable!() };
        assert!((estimate as f64 / tracks - 1.0).abs() < 0.05, "{estimate} of {tracks}");
        assert_eq!(user[7..9], [Value::Bool(true), Value::Bool(false)]);
    }

    // A sketch that was damaged, by whoever wrote the dataset, is an error and no count.
    let fields = vec![field("k", DataType::Int64, false), field("tracks", DataType::Binary, false)];
    let bad = DatasetData::new(fields, &["k"], 1, vec![vec![int(1), Value::Bytes(vec![2, 1, 7, 12, 3, 8, 9, 8])]]);
    let bad = bad.write(&store, "bad").await;
    let plan = Aggregate::over_states(&bad).aggregate("tracks", ApproxCountDistinct::of("track")).plan().unwrap();
    assert_error(&failure(&plan).await, ErrorKind::Corrupt, &["aggregate=`approx_count_distinct`"]);
}

everywhere!(
    oracle_aggregates_of_a_source_equal_loops_over_its_rows,
    oracle_aggregates_of_a_join_equal_loops_over_the_joined_rows,
    oracle_aggregates_of_a_co_group_equal_loops_over_each_of_its_sources,
    weeks_with_other_buckets_types_and_columns_are_one_source,
);
