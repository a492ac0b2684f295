//! Co-groups against a map from keys to rows: whole groups, chunks, limits, null keys, the same dataset twice.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use sort_merge_bucket::{
    CoGroup, CoGroupBatch, CoGroupChunkPlan, CoGroupPlan, ErrorKind, PlanOptions, SlotDescriptor, Source,
};

use crate::support::data::{DatasetData, Names, Shape, SourceData, shapes, sources};
use crate::support::oracle::{Row, Side, Value, int, rows_of, shuffle_groups, text, wider_type};
use crate::support::{assert_error, block_on, config, everywhere, failure, field, store, try_run, try_run_slots};

const SEEDS: &str = "proptest-regressions/integration/cogroups.txt";
const NAMES: [&str; 3] = ["plays", "users", "contexts"];

/// Per key, the rows of each source in their order.
type Groups = BTreeMap<Row, Vec<Vec<Row>>>;

fn cases() -> impl Strategy<Value = (Shape, Vec<SourceData>, usize)> {
    shapes().prop_flat_map(|shape| {
        let source = sources(shape.clone(), Names { order: "", payload: "p" }, 16);
        let size = prop::sample::select(vec![1_usize, 2, 7, 49, 50, 51, 100, 8192]);
        (Just(shape), prop::collection::vec(source, 1..=3), size)
    })
}

fn co_group(sources: &[Source], batch_size: usize) -> CoGroup {
    let start = CoGroup::new().with_options(PlanOptions::default().with_batch_size(batch_size));
    NAMES.into_iter().zip(sources).fold(start, |co_group, (name, source)| co_group.source(name, source.clone()))
}

fn expected_groups(keys: usize, sources: &[SourceData]) -> Groups {
    // A key lies in one slot, and a slot reads datasets and writes in their order: so come the rows of a key.
    shuffle_groups(keys, &sources.iter().map(|source| source.side(keys)).collect::<Vec<Side>>())
}

/// Checks a batch's own consistency; its groups in order.
fn groups_of(batch: &CoGroupBatch, keys: usize, sources: usize) -> Vec<(Row, Vec<Vec<Row>>)> {
    assert!(!batch.is_empty());
    assert!(batch.rows("nobody").is_none() && batch.offsets("nobody").is_none());
    let all_keys = rows_of(batch.keys());
    assert_eq!((all_keys.len(), batch.groups().len()), (batch.len(), batch.len()));
    let mut groups = vec![];
    for (at, group) in batch.groups().enumerate() {
        assert_eq!(group.index(), at);
        assert_eq!(rows_of(&group.key()), [all_keys[at].clone()]);
        assert_eq!(group.key_has_null(), all_keys[at].contains(&Value::Null));
        assert!(group.rows("nobody").is_none() && group.range("nobody").is_none());
        let rows: Vec<Vec<Row>> = NAMES[..sources].iter().map(|name| rows_of(&group.rows(name).unwrap())).collect();
        assert!(rows.iter().any(|rows| !rows.is_empty()), "a group of no rows");
        assert!(rows.iter().flatten().all(|row| row[..keys] == all_keys[at]), "a row of another key");
        groups.push((all_keys[at].clone(), rows));
    }
    for name in &NAMES[..sources] {
        let (rows, offsets) = (batch.rows(name).unwrap(), batch.offsets(name).unwrap());
        assert_eq!((offsets.len(), offsets[0], offsets[batch.len()]), (batch.len() + 1, 0, rows.num_rows()));
    }
    groups
}

/// All groups of a plan of whole groups; every group comes whole, in key order.
fn whole(plan: &CoGroupPlan, slots: &BTreeMap<u32, Vec<CoGroupBatch>>, sources: usize) -> Groups {
    let mut all = Groups::new();
    for batches in slots.values() {
        let mut last: Option<Row> = None;
        for batch in batches {
            assert_eq!(batch.keys().schema_ref(), plan.schema());
            for (key, rows) in groups_of(batch, plan.key().len(), sources) {
                assert!(last.as_ref().is_none_or(|last| *last < key), "{key:?} comes after {last:?}");
                last = Some(key.clone());
                assert!(all.insert(key, rows).is_none(), "a group comes twice");
            }
        }
    }
    all
}

async fn chunked(plan: &CoGroupChunkPlan, sources: usize) -> Groups {
    let mut all = Groups::new();
    for chunks in try_run(plan, 2).await.unwrap().into_values() {
        let mut last: Option<(Row, usize)> = None;
        for (number, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.groups().keys().schema_ref(), plan.schema());
            for (at, (key, rows)) in groups_of(chunk.groups(), plan.key().len(), sources).into_iter().enumerate() {
                let continues = at == 0 && chunk.continues();
                let first_source = rows.iter().position(|rows| !rows.is_empty()).unwrap();
                match &last {
                    Some((last, source)) if continues => {
                        assert_eq!(key, *last);
                        assert!(first_source >= *source, "a source's rows come after those of a later source");
                    }
                    Some((last, _)) => assert!(*last < key, "{key:?} comes after {last:?}"),
                    None => assert!(!continues && number == 0),
                }
                last = Some((key.clone(), rows.iter().rposition(|rows| !rows.is_empty()).unwrap()));
                if !continues {
                    assert!(!all.contains_key(&key), "a group comes twice");
                }
                let group = all.entry(key).or_insert_with(|| vec![vec![]; sources]);
                for (own, new) in group.iter_mut().zip(rows) {
                    own.extend(new);
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(config(64, SEEDS))]

    #[test]
    fn oracle_co_groups_equal_a_map_of_keys((shape, data, batch_size) in cases()) {
        block_on(async {
            let store = store();
            let mut sources = vec![];
            for (at, source) in data.iter().enumerate() {
                sources.push(source.write(&store, NAMES[at]).await);
            }
            let expected = expected_groups(shape.keys, &data);
            let plan = co_group(&sources, batch_size).plan().unwrap();
            let fields: Vec<Vec<Field>> = data.iter().map(|source| source.fields(shape.keys)).collect();
            let keys: Vec<Field> = (0..shape.keys)
                .map(|at| {
                    let widest = fields.iter().map(|f| f[at].data_type().clone()).reduce(|a, b| wider_type(&a, &b)).unwrap();
                    Field::new(fields[0][at].name(), widest, fields.iter().any(|f| f[at].is_nullable()))
                })
                .collect();
            assert_eq!(plan.schema().as_ref(), &Schema::new(keys));
            assert_eq!(whole(&plan, &try_run(&plan, 2).await.unwrap(), data.len()), expected);
            assert_eq!(whole(&plan, &try_run_slots(&plan).await.unwrap(), data.len()), expected);
            let chunks = co_group(&sources, batch_size).plan_chunks().unwrap();
            assert_eq!(chunked(&chunks, data.len()).await, expected);

            // The limit is on the rows of a group over all sources, whatever the batches are.
            let largest = expected.values().map(|rows| rows.iter().map(Vec::len).sum::<usize>()).max().unwrap_or(0);
            let enough = co_group(&sources, batch_size).with_max_group_rows(largest).plan().unwrap();
            assert!(try_run(&enough, 1).await.is_ok());
            if largest > 0 {
                let short = co_group(&sources, batch_size).with_max_group_rows(largest - 1).plan().unwrap();
                assert_error(&failure(&short).await, ErrorKind::LimitExceeded, &["max_group_rows"]);
            }
        });
    }
}

fn events(key: &[Option<i128>]) -> DatasetData {
    let fields = vec![field("k", DataType::Int64, true), field("v", DataType::Utf8, false)];
    let rows = key.iter().enumerate().map(|(at, k)| vec![k.map_or(Value::Null, int), text(&format!("event {at}"))]);
    DatasetData::new(fields, &["k"], 4, rows.collect())
}

#[tokio::test]
async fn null_is_a_group_of_its_own_over_all_sources() {
    let store = store();
    let plays = events(&[None, Some(1), None, None]).write(&store, "plays").await;
    let users = events(&[None, Some(2)]).write(&store, "users").await;
    let plan = CoGroup::new().source("plays", &plays).source("users", &users).plan().unwrap();
    let slots = try_run(&plan, 2).await.unwrap();
    let groups = whole(&plan, &slots, 2);
    assert_eq!(groups.len(), 3);
    let null = &groups[&vec![Value::Null]];
    assert_eq!((null[0].len(), null[1].len()), (3, 1));
    // It is the last of its slot.
    let last = slots[&0].last().unwrap();
    assert!(last.keys().column(0).is_null(last.len() - 1));
}

#[tokio::test]
async fn the_same_dataset_twice_is_two_sources_told_apart_by_their_names() {
    let store = store();
    let plays = events(&[Some(1), Some(1), Some(2)]).write(&store, "plays").await;
    let both = CoGroup::new()
        .source("plays", &plays)
        .source("users", Source::from(&plays).with_columns(["v"]))
        .plan()
        .unwrap();
    let groups = whole(&both, &try_run(&both, 1).await.unwrap(), 2);
    assert_eq!(groups[&vec![int(1)]].iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(groups[&vec![int(2)]][0], groups[&vec![int(2)]][1]);
    // Twice in one source its rows come twice.
    let twice = CoGroup::new().source("plays", vec![plays.clone(), plays.clone()]).plan().unwrap();
    let groups = whole(&twice, &try_run(&twice, 1).await.unwrap(), 1);
    assert_eq!(groups[&vec![int(1)]][0].len(), 4);

    let error = CoGroup::new().source("plays", &plays).source("plays", &plays).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["source=`plays`"]);
    assert_error(&CoGroup::new().plan().unwrap_err(), ErrorKind::InvalidInput, &["at least one source"]);
}

#[tokio::test]
async fn a_group_larger_than_any_batch_comes_whole_or_in_chunks_of_bounded_size() {
    let store = store();
    let hot = vec![Some(7); 5000];
    let plays = events(&hot).and_write(4, hot_rows(3000)).write(&store, "plays").await;
    let users = events(&[Some(7), Some(8)]).write(&store, "users").await;
    let co_group = || {
        CoGroup::new()
            .source("plays", &plays)
            .source("users", &users)
            .with_options(PlanOptions::default().with_batch_size(100))
    };
    let plan = co_group().plan().unwrap();
    let groups = whole(&plan, &try_run(&plan, 2).await.unwrap(), 2);
    assert_eq!(groups[&vec![int(7)]].iter().map(Vec::len).collect::<Vec<_>>(), [8000, 1]);
    let chunks = co_group().plan_chunks().unwrap();
    for chunk in try_run(&chunks, 2).await.unwrap().values().flatten() {
        let rows: usize = NAMES[..2].iter().map(|name| chunk.groups().rows(name).unwrap().num_rows()).sum();
        assert!(rows <= 2 * 2 * 100, "a chunk of {rows} rows for batches of 100");
    }
    assert_eq!(chunked(&chunks, 2).await, groups);
    let error = failure(&co_group().with_max_group_rows(7999).plan().unwrap()).await;
    assert_error(&error, ErrorKind::LimitExceeded, &["key=`7`", "max_group_rows=`7999`"]);
}

fn hot_rows(count: usize) -> Vec<Row> {
    (0..count).map(|at| vec![int(7), text(&format!("late {at}"))]).collect()
}

#[tokio::test]
async fn descriptors_of_co_groups_are_those_of_their_sources() {
    let store = store();
    let plays = events(&[Some(1)]).write(&store, "plays").await;
    let users = events(&[Some(1)]).write(&store, "users").await;
    let plan = CoGroup::new().source("plays", &plays).source("users", &users).plan().unwrap();
    let slot: SlotDescriptor = serde_json::from_str(&serde_json::to_string(&plan.slot(3).unwrap()).unwrap()).unwrap();
    assert_eq!((slot.sources.len(), slot.slot, slot.slots.get()), (2, 3, 4));
    // Sources in another order are another plan.
    let other = CoGroup::new().source("users", &users).source("plays", &plays).plan().unwrap();
    assert_error(&other.execute(&slot).map(drop).unwrap_err(), ErrorKind::Incompatible, &["plays@1", "users@1"]);
    let _: &RecordBatch = try_run(&plan, 1).await.unwrap().values().next().unwrap()[0].keys();
}

everywhere!(
    oracle_co_groups_equal_a_map_of_keys,
    null_is_a_group_of_its_own_over_all_sources,
    the_same_dataset_twice_is_two_sources_told_apart_by_their_names,
    a_group_larger_than_any_batch_comes_whole_or_in_chunks_of_bounded_size,
);
