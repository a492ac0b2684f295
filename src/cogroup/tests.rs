//! Co-group kernels against a map from key to rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::merge::SourceInputs;
use crate::merge::tests::drive_batches;

type Key = Option<i64>;
/// A key (nulls last) and the values of each source.
type Group = ((bool, Key), Vec<Vec<i64>>);
/// The same as a map.
type Groups = BTreeMap<(bool, Key), Vec<Vec<i64>>>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false), Field::new("k", DataType::Int64, true)]))
}

/// Sources of runs of keys; a row's value is its position among all rows of its source, run after run.
fn batches(sources: &[Vec<Vec<Key>>]) -> Vec<RecordBatch> {
    let mut out = vec![];
    for runs in sources {
        let mut name = 0;
        for keys in runs {
            let values = Int64Array::from_iter_values(name..name + keys.len() as i64);
            name += keys.len() as i64;
            let keys = Int64Array::from(keys.clone());
            out.push(RecordBatch::try_new(schema(), vec![Arc::new(values), Arc::new(keys)]).unwrap());
        }
    }
    out
}

fn oracle(sources: &[Vec<Vec<Key>>]) -> Groups {
    let mut groups = Groups::new();
    for (source, runs) in sources.iter().enumerate() {
        for (value, key) in runs.iter().flatten().enumerate() {
            let group = groups.entry((key.is_none(), *key)).or_insert_with(|| vec![vec![]; sources.len()]);
            group[source].push(value as i64);
        }
    }
    groups
}

fn inputs(sources: &[Vec<Vec<Key>>], max_group_rows: usize) -> CoGroupInputs {
    let source = |runs: &Vec<Vec<Key>>| SourceInputs {
        schema: schema(),
        order: vec![1],
        runs: runs.iter().map(|_| Arc::from("run")).collect(),
    };
    CoGroupInputs {
        names: (0..sources.len()).map(|s| format!("s{s}")).collect(),
        key_schema: Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)])),
        sources: sources.iter().map(source).collect(),
        max_group_rows,
        batch_size: 5,
    }
}

/// The groups of a batch, through the borrowed view.
fn read(batch: &CoGroupBatch, sources: usize) -> Vec<Group> {
    let keys = batch.keys().column(0).as_primitive::<Int64Type>().clone();
    batch
        .groups()
        .map(|group| {
            let key = keys.is_valid(group.index()).then(|| keys.value(group.index()));
            assert_eq!(group.key_has_null(), key.is_none());
            let values = |s: usize| {
                let rows = group.rows(&format!("s{s}")).unwrap();
                rows.column(0).as_primitive::<Int64Type>().values().to_vec()
            };
            ((key.is_none(), key), (0..sources).map(values).collect())
        })
        .collect()
}

fn whole(sources: &[Vec<Vec<Key>>], piece: usize, max_group_rows: usize) -> Result<Vec<Group>> {
    let mut kernel = whole_kernel(inputs(sources, max_group_rows))?;
    let mut out = vec![];
    drive_batches(&mut *kernel, &batches(sources), piece, |batch: CoGroupBatch| {
        out.extend(read(&batch, sources.len()));
    })?;
    Ok(out)
}

fn sources() -> impl Strategy<Value = Vec<Vec<Vec<Key>>>> {
    let run = prop::collection::vec(prop::option::weighted(0.8, 0i64..8), 0..25).prop_map(|mut keys| {
        keys.sort_by_key(|k| (k.is_none(), *k));
        keys
    });
    prop::collection::vec(prop::collection::vec(run, 0..3), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn oracle_whole_groups_equal_a_map(sources in sources(), piece in 1usize..9) {
        let got = whole(&sources, piece, 1000).unwrap();
        prop_assert!(got.is_sorted_by_key(|(key, _)| *key));
        let want: Vec<_> = oracle(&sources).into_iter().collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn oracle_chunks_put_together_equal_a_map(sources in sources(), piece in 1usize..9) {
        let mut kernel = chunk_kernel(inputs(&sources, 1)).unwrap();
        let mut got: Vec<Group> = vec![];
        let mut order: Vec<((bool, Key), usize, i64)> = vec![];
        drive_batches(&mut *kernel, &batches(&sources), piece, |chunk: CoGroupChunk| {
            for (at, (key, rows)) in read(chunk.groups(), sources.len()).into_iter().enumerate() {
                order.extend(rows.iter().enumerate().flat_map(|(s, values)| values.iter().map(move |v| (key, s, *v))));
                if at == 0 && chunk.continues() {
                    let (last, all) = got.last_mut().unwrap();
                    assert_eq!(*last, key);
                    all.iter_mut().zip(rows).for_each(|(all, rows)| all.extend(rows));
                } else {
                    got.push((key, rows));
                }
            }
        }).unwrap();
        let want: Vec<_> = oracle(&sources).into_iter().collect();
        prop_assert_eq!(got, want);
        prop_assert!(order.is_sorted(), "by key, source, run, position: {:?}", order);
    }
}

#[test]
fn a_group_beyond_the_limit_is_an_error_that_names_it() {
    let sources = [vec![vec![Some(1), Some(2), Some(2), Some(2)]], vec![vec![Some(2), Some(3)]]];
    for piece in 1..5 {
        assert_eq!(whole(&sources, piece, 4).unwrap().len(), 3);
        let error = whole(&sources, piece, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("key=`2`"), "{error}");
    }
}
