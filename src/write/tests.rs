//! Tests of the writer against a model that shares no code with it: rows as plain values, sorted by the standard library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::*;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::options::WriteOptions;
use super::progress::Feedback;
use super::run_encoder::RunTarget;
use super::run_file::RunFileWriter;
use super::sorter::Sorter;
use crate::bucket::bucket_ids;
use crate::error::{ErrorKind, Result};
use crate::layout::{Clock, DatasetId, Layout, RunIds, WriteId};
use crate::manifest::{KeyValue, Run};
use crate::schema::canonical_schema;
use crate::spec::BucketSpec;
use crate::store::Place;
use crate::task::Crew;

mod api;
mod encodings;
mod feedback;
mod files;
mod memory;
mod model;
mod order;
mod sorting;

use model::{Kind, Random, Row, Table, Value};

fn clock() -> Clock {
    Clock::Fixed(chrono::DateTime::UNIX_EPOCH)
}

fn place(store: &Arc<dyn ObjectStore>) -> Place {
    Place { store: Arc::clone(store), layout: Layout::new(Path::from("plays")) }
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn target(
    store: &Arc<dyn ObjectStore>,
    schema: &Schema,
    spec: &BucketSpec,
    options: &WriteOptions,
) -> Result<RunTarget> {
    let write_id = WriteId::new("w1")?;
    let id = DatasetId::generate(clock(), &write_id);
    RunTarget::new(place(store), id, write_id, canonical_schema(schema)?, spec.clone(), options)
}

/// Sorts and uploads; says how often it spilled.
async fn write(
    store: &Arc<dyn ObjectStore>,
    schema: &Schema,
    spec: &BucketSpec,
    options: &WriteOptions,
    batches: &[RecordBatch],
) -> Result<(Vec<Run>, usize)> {
    let mut sorter = Sorter::new(target(store, schema, spec, options)?, options)?;
    for batch in batches {
        sorter.write(batch).await?;
    }
    let spills = sorter.spill_count();
    Ok((sorter.finish(RunIds::new(clock(), 0)).await.map_err(|(e, _)| e)?, spills))
}

async fn bytes_of(store: &Arc<dyn ObjectStore>, run: &Run) -> Bytes {
    store.get(&place(store).layout.run(&run.path)).await.unwrap().bytes().await.unwrap()
}

fn read(bytes: &Bytes) -> Vec<RecordBatch> {
    ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().build().unwrap().map(|b| b.unwrap()).collect()
}

/// Everything that must hold of the runs of a write of `table`.
async fn assert_written(store: &Arc<dyn ObjectStore>, table: &Table, spec: &BucketSpec, runs: &[Run]) {
    let mut expected: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    for (row, bucket) in table.rows.iter().zip(table.buckets(spec)) {
        expected.entry(bucket).or_default().push(row.clone());
    }
    let order = spec.order_indices(&canonical_schema(&table.schema()).unwrap()).unwrap();
    let key = spec.key().len();
    for rows in expected.values_mut() {
        rows.sort_by_key(|row| order.iter().map(|i| row[*i].clone()).collect::<Vec<_>>());
    }
    assert_eq!(runs.iter().map(|r| r.bucket).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
    for run in runs {
        let bytes = bytes_of(store, run).await;
        let rows: Vec<Row> = read(&bytes).iter().flat_map(|b| table.read(b)).collect();
        let expected = &expected[&run.bucket];
        assert!(rows == *expected, "bucket {}: {rows:?} instead of {expected:?}", run.bucket);
        assert_eq!(run.buckets, spec.buckets());
        assert_eq!(run.rows, rows.len() as u64);
        assert_eq!(run.bytes, bytes.len() as u64);
        assert_eq!(run.checksum.value, format!("{:016x}", twox_hash::XxHash64::oneshot(0, &bytes)));
        let metadata_len = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap());
        assert_eq!(run.footer_bytes, u64::from(metadata_len) + 8);

        let keys: Vec<Vec<KeyValue>> =
            rows.iter().map(|row| order[..key].iter().map(|i| row[*i].to_key(&table.columns[*i])).collect()).collect();
        assert!(run.first_key.compare(&keys[0]).is_le());
        assert!(run.last_key.compare(&keys[keys.len() - 1]).is_ge());
        assert!(run.fences.len() <= 16);
        assert!(run.fences.len() >= 8 || rows.len() < 17, "{} fences of {} rows", run.fences.len(), rows.len());
        let step = run.fences.first().map_or(0, |f| f.row);
        for (i, fence) in run.fences.iter().enumerate() {
            assert_eq!(fence.row, step * (i as u64 + 1), "evenly spaced");
            assert!(fence.key.compare(&keys[fence.row as usize]).is_le());
        }
        assert!(step.max(1) * (run.fences.len() as u64 + 1) >= run.rows, "fences reach the end");
    }
}

#[derive(Debug, Clone)]
struct Case {
    columns: Vec<Kind>,
    keys: usize,
    sorts: usize,
    rows: usize,
    buckets: u32,
    budget: usize,
    batch_rows: Vec<usize>,
    distinct: u64,
    nulls: u64,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let kind = proptest::sample::select(Kind::ALL);
    let columns =
        (proptest::collection::vec(proptest::sample::select(Kind::KEYS), 1..4), proptest::collection::vec(kind, 0..3));
    let sizes = (
        0_usize..300,
        proptest::sample::select(&[1_u32, 2, 3, 7, 64][..]),
        proptest::sample::select(&[1024_usize, 4096, 1 << 14, 1 << 16, 1 << 20][..]),
        proptest::collection::vec(proptest::sample::select(&[1_usize, 2, 7, 49, 50, 51, 1000][..]), 1..4),
    );
    let data = (
        proptest::sample::select(&[1_u64, 3, 50, u64::MAX][..]),
        proptest::sample::select(&[0_u64, 20, 100][..]),
        any::<u64>(),
    );
    (columns, 1_usize..4, sizes, data).prop_map(|((keys, payload), split, sizes, data)| {
        let (rows, buckets, budget, batch_rows) = sizes;
        let (distinct, nulls, seed) = data;
        let key_columns = split.min(keys.len());
        let sorts = keys.len() - key_columns;
        let columns = keys.into_iter().chain(payload).collect();
        Case { columns, keys: key_columns, sorts, rows, buckets, budget, batch_rows, distinct, nulls, seed }
    })
}

impl Case {
    fn table(&self) -> Table {
        Table::random(self.columns.clone(), self.rows, self.distinct, self.nulls, self.seed)
    }

    fn spec(&self) -> BucketSpec {
        let name = |i: usize| format!("c{i}");
        BucketSpec::new((0..self.keys).map(name), self.buckets)
            .unwrap()
            .with_sort_columns((self.keys..self.keys + self.sorts).map(name))
            .unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn oracle_runs_hold_every_row_in_its_bucket_and_order(case in cases()) {
        runtime().block_on(async {
            let (table, spec) = (case.table(), case.spec());
            let options = WriteOptions::default().with_memory_budget(case.budget).with_page_rows(20).with_max_row_group_rows(60);
            let store = in_memory();
            let (runs, _) = write(&store, &table.schema(), &spec, &options, &table.batches(&case.batch_rows)).await.unwrap();
            assert_written(&store, &table, &spec, &runs).await;
        });
    }

    #[test]
    fn law_bytes_depend_neither_on_the_budget_nor_on_the_batches(case in cases()) {
        runtime().block_on(async {
            let (table, spec) = (case.table(), case.spec());
            let mut seen: Option<(Vec<Run>, Vec<Bytes>)> = None;
            for (budget, batch_rows) in [(case.budget, &case.batch_rows), (1 << 30, &vec![1000])] {
                let options = WriteOptions::default().with_memory_budget(budget);
                let store = in_memory();
                let (runs, _) = write(&store, &table.schema(), &spec, &options, &table.batches(batch_rows)).await.unwrap();
                let mut files = vec![];
                for run in &runs {
                    files.push(bytes_of(&store, run).await);
                }
                match &seen {
                    None => seen = Some((runs, files)),
                    Some((first_runs, first_files)) => {
                        assert_eq!(first_runs, &runs);
                        assert!(first_files == &files, "the same rows made other bytes");
                    }
                }
            }
        });
    }
}
