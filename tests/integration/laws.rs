//! What holds whatever the data are: laws between plans, and between what is written and what is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use proptest::prelude::*;
use sort_merge_bucket::{
    Dataset, DatasetWriter, Join, JoinKind, KeyBound, KeyValue, Plan, PlanOperation, PlanOptions, Scan, Source,
    WriteId, WriteOptions,
};

use crate::support::data::{DatasetData, Names, Shape, SourceData, Write, batch_of, fixed_clock, shapes, sources};
use crate::support::oracle::{Row, Value, bucket_of, int, rows_of, sorted, stored_type};
use crate::support::stores::{TestStore, read};
use crate::support::{assert_valid, block_on, config, everywhere, field, rows, rows_by_slot, store, try_run};

const SEEDS: &str = "proptest-regressions/integration/laws.txt";
const LEFT: Names = Names { order: "", payload: "p" };
const RIGHT: Names = Names { order: "r", payload: "q" };

/// Two sources that join, all columns wanted.
fn pairs() -> impl Strategy<Value = (Shape, SourceData, SourceData)> {
    shapes().prop_flat_map(|shape| {
        (sources(shape.clone(), LEFT, 20), sources(shape.clone(), RIGHT, 20)).prop_map(move |(mut left, mut right)| {
            (left.columns, right.columns) = (None, None);
            (shape.clone(), left, right)
        })
    })
}

async fn join(kind: JoinKind, left: &Source, right: &Source) -> Vec<Row> {
    sorted(rows(&Join::new(kind, left.clone(), right.clone()).plan().unwrap()).await)
}

/// The rows of both, as a multiset.
fn union(a: &[Row], b: impl IntoIterator<Item = Row>) -> Vec<Row> {
    sorted(a.iter().cloned().chain(b).collect())
}

proptest! {
    #![proptest_config(config(40, SEEDS))]

    #[test]
    fn law_join_kinds_are_made_of_each_other((shape, left, right) in pairs()) {
        block_on(async {
            let store = store();
            let (left, right) = (left.write(&store, "left").await, right.write(&store, "right").await);
            let keys = shape.keys;
            let mut by_kind = BTreeMap::new();
            for kind in JoinKind::ALL {
                by_kind.insert(kind.to_string(), join(kind, &left, &right).await);
            }
            let of = |kind: JoinKind| by_kind[&kind.to_string()].as_slice();
            let scan_left = sorted(rows(&Scan::new(left.clone()).plan().unwrap()).await);
            let scan_right = sorted(rows(&Scan::new(right.clone()).plan().unwrap()).await);
            let left_width = Scan::new(left.clone()).plan().unwrap().schema().fields().len();
            let right_width = Scan::new(right.clone()).plan().unwrap().schema().fields().len();
            let pad_right = |row: &Row| -> Row {
                row.iter().cloned().chain(vec![Value::Null; right_width - keys]).collect()
            };
            let pad_left = |row: &Row| -> Row {
                let nothing = vec![Value::Null; left_width - keys];
                row[..keys].iter().cloned().chain(nothing).chain(row[keys..].iter().cloned()).collect()
            };
            use JoinKind as J;
            let padded_left_anti: Vec<Row> = of(J::LeftAnti).iter().map(pad_right).collect();
            let padded_right_anti: Vec<Row> = of(J::RightAnti).iter().map(pad_left).collect();
            assert_eq!(union(of(J::Inner), padded_left_anti), of(J::Left), "left = inner and left anti");
            assert_eq!(union(of(J::Inner), padded_right_anti.clone()), of(J::Right), "right = inner and right anti");
            assert_eq!(union(of(J::Left), padded_right_anti), of(J::Full), "full = left and right anti");
            assert_eq!(union(of(J::LeftSemi), of(J::LeftAnti).to_vec()), scan_left, "left semi and anti are the left side");
            assert_eq!(union(of(J::RightSemi), of(J::RightAnti).to_vec()), scan_right, "right semi and anti are the right side");

            // Swapped sides: the same rows, the sides' columns swapped.
            let swap = |rows: Vec<Row>| -> Vec<Row> {
                let middle = right_width - keys;
                let swap = |row: &Row| -> Row {
                    let (key, rest) = row.split_at(keys);
                    key.iter().chain(&rest[middle..]).chain(&rest[..middle]).cloned().collect()
                };
                sorted(rows.iter().map(swap).collect())
            };
            for (kind, swapped) in [(J::Inner, J::Inner), (J::Left, J::Right), (J::Right, J::Left), (J::Full, J::Full)] {
                assert_eq!(swap(join(swapped, &right, &left).await), of(kind), "{kind}");
            }
            for (kind, swapped) in [(J::LeftSemi, J::RightSemi), (J::LeftAnti, J::RightAnti)] {
                assert_eq!(join(swapped, &right, &left).await, of(kind), "{kind}");
                assert_eq!(join(kind, &right, &left).await, of(swapped), "{swapped}");
            }
        });
    }

    #[test]
    fn law_a_result_depends_on_the_rows_alone(
        (_, left, right) in pairs(),
        layouts in prop::collection::vec((1_u32..17, 1_usize..6, any::<u64>(), 1_usize..30), 2),
        batch_size in prop::sample::select(vec![1_usize, 2, 7, 49, 50, 51, 100]),
    ) {
        block_on(async {
            let store = store();
            // The plainest form: one bucket, one run, one row group.
            let plain = |source: &SourceData, buckets, runs, shuffle, row_group| SourceData {
                datasets: source.datasets.iter().map(|dataset| rewritten(dataset, buckets, runs, shuffle, row_group)).collect(),
                columns: None,
            };
            let plain_left = plain(&left, 1, 1, 0, 100_000).write(&store, "plain-left").await;
            let plain_right = plain(&right, 1, 1, 0, 100_000).write(&store, "plain-right").await;
            let [(n, runs, shuffle, row_group), (m, right_runs, right_shuffle, right_row_group)] = layouts[..] else { unreachable!() };
            let other_left = plain(&left, n, runs, shuffle, row_group).write(&store, "other-left").await;
            let other_right = plain(&right, m, right_runs, right_shuffle, right_row_group).write(&store, "other-right").await;
            for kind in JoinKind::ALL {
                let options = PlanOptions::default().with_batch_size(batch_size);
                let other = Join::new(kind, other_left.clone(), other_right.clone()).with_options(options).plan().unwrap();
                prop_assert_eq!(sorted(rows(&other).await), join(kind, &plain_left, &plain_right).await, "{}", kind);
            }
            Ok(())
        })?;
    }

    #[test]
    fn law_reading_what_was_written_gives_the_rows_in_order((_, source, _) in pairs(), batch_size in 1_usize..60) {
        block_on(async {
            let store = store();
            let written = source.write(&store, "source").await;
            let keys = source.datasets[0].key.len();
            let plan = Scan::new(written).with_options(PlanOptions::default().with_batch_size(batch_size)).plan().unwrap();
            assert_eq!(plan.schema().fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>(), source.fields(keys));
            // Rows of one key come by dataset, then write, then stored order: a stable sort of what was written.
            let mut expected = source.side(keys).rows;
            expected.sort_by(|a, b| a[..keys].cmp(&b[..keys]));
            let mut found = rows(&plan).await;
            found.sort_by(|a, b| a[..keys].cmp(&b[..keys]));
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn law_every_row_is_in_the_bucket_of_its_hash_and_runs_are_sorted((_, source, _) in pairs()) {
        block_on(async {
            let store = store();
            let written = source.write(&store, "source").await;
            for (dataset, data) in written.datasets().iter().zip(&source.datasets) {
                check_files(&store, dataset, data).await;
                assert_valid(dataset).await;
            }
        });
    }

    #[test]
    fn law_any_number_of_workers_read_each_row_once((_, left, right) in pairs(), workers in 1_usize..6) {
        block_on(async {
            let store = store();
            let (left, right) = (left.write(&store, "left").await, right.write(&store, "right").await);
            let scan = Scan::new(left.clone()).plan().unwrap();
            assert_eq!(dealt(&scan, workers).await, sorted(rows(&scan).await));
            let join = Join::full(left, right).plan().unwrap();
            assert_eq!(dealt(&join, workers).await, sorted(rows_by_slot(&join).await));
        });
    }

    #[test]
    fn law_the_same_input_gives_the_same_bytes((_, source, _) in pairs(), chunk in 1_usize..30, name in "[a-z]{1,8}") {
        block_on(async {
            let (data, name) = (&source.datasets[0], &name);
            let write = |chunk: usize| async move {
                let store = TestStore::new();
                for (at, write) in data.writes.iter().enumerate() {
                    let schema = data.schema();
                    let builder = DatasetWriter::builder(Arc::clone(&store) as _, "twice", Arc::clone(&schema), data.spec(write.buckets));
                    let mut writer = builder
                        .with_mode(sort_merge_bucket::WriteMode::Append)
                        .with_clock(fixed_clock())
                        .with_write_id(WriteId::new(format!("{name}-{at}")).unwrap())
                        .with_options(write.options.clone())
                        .build()
                        .await
                        .unwrap();
                    for rows in write.rows.chunks(chunk) {
                        writer.write(&batch_of(&schema, rows)).await.unwrap();
                    }
                    writer.commit().await.unwrap();
                }
                contents(&store).await
            };
            assert_eq!(write(chunk).await, write(1000).await);
        });
    }
}

/// The same rows in `runs` writes of other options, in another order.
fn rewritten(dataset: &DatasetData, buckets: u32, runs: usize, shuffle: u64, row_group: usize) -> DatasetData {
    let mut rows: Vec<Row> = dataset.writes.iter().flat_map(|write| write.rows.clone()).collect();
    // A permutation that is random enough and needs no generator.
    let mut state = shuffle;
    for at in (1..rows.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        rows.swap(at, (state >> 33) as usize % (at + 1));
    }
    let per_run = rows.len().div_ceil(runs).max(1);
    let mut writes: Vec<Write> = rows.chunks(per_run).map(|rows| Write::new(buckets, rows.to_vec())).collect();
    if writes.is_empty() {
        writes.push(Write::new(buckets, vec![]));
    }
    for write in &mut writes {
        write.options = WriteOptions::default().with_max_row_group_rows(row_group).with_page_rows(row_group);
    }
    DatasetData { writes, ..dataset.clone() }
}

/// Every object of a store with its bytes.
async fn contents(store: &Arc<TestStore>) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for path in store.objects().await {
        let bytes = read(&(Arc::clone(store) as _), &path).await;
        contents.insert(path, bytes.to_vec());
    }
    contents
}

/// Deals the slots over workers, each with its own copy of the plan and descriptors as JSON.
async fn dealt<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>, workers: usize) -> Vec<Row> {
    let descriptors: Vec<String> =
        (0..plan.slots().get()).map(|slot| serde_json::to_string(&plan.slot(slot).unwrap()).unwrap()).collect();
    let work = (0..workers).map(|worker| {
        let own: Vec<String> = descriptors.iter().skip(worker).step_by(workers).cloned().collect();
        let plan = plan.clone();
        async move {
            let mut rows = vec![];
            for descriptor in own {
                let stream = plan.execute(&serde_json::from_str(&descriptor).unwrap()).unwrap();
                let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(stream).await.unwrap();
                rows.extend(batches.iter().flat_map(rows_of));
            }
            rows
        }
    });
    sorted(futures::future::join_all(work).await.into_iter().flatten().collect())
}

fn key_value(value: &KeyValue) -> Value {
    match value {
        KeyValue::Boolean(v) => Value::Bool(*v),
        KeyValue::Integer(v) => Value::Int(*v),
        KeyValue::Utf8(v) => Value::Text(v.clone()),
        KeyValue::Binary(v) => Value::Bytes(v.clone()),
        KeyValue::Null => Value::Null,
        other => panic!("an unknown kind of key: {other:?}"),
    }
}

/// Reads every run as any Parquet reader would, and holds it to the manifest.
async fn check_files(store: &Arc<dyn ObjectStore>, dataset: &Dataset, data: &DatasetData) {
    let types: Vec<DataType> = {
        let of = |name: &String| data.fields.iter().find(|f| f.name() == name).unwrap();
        data.key.iter().map(|name| stored_type(of(name).data_type())).collect()
    };
    let mut all = vec![];
    for (run, path) in dataset.runs().iter().zip(dataset.run_paths()) {
        let bytes = read(store, path.as_ref()).await;
        assert_eq!(bytes.len() as u64, run.bytes);
        let footer_length = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap());
        assert_eq!(u64::from(footer_length) + 8, run.footer_bytes);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let metadata: Arc<ParquetMetaData> = Arc::clone(builder.metadata());
        let at = |name: &str| dataset.schema().index_of(name).unwrap();
        let key: Vec<usize> = dataset.spec().key().iter().map(|name| at(name)).collect();
        let order: Vec<usize> = dataset.spec().order().map(at).collect();
        for group in metadata.row_groups() {
            let sorting = group.sorting_columns().unwrap();
            assert!(sorting.iter().all(|column| !column.descending && !column.nulls_first));
            assert_eq!(sorting.len(), order.len());
        }
        let rows: Vec<Row> = builder.build().unwrap().flat_map(|batch| rows_of(&batch.unwrap())).collect();
        let tuple = |row: &Row, at: &[usize]| -> Row { at.iter().map(|&at| row[at].clone()).collect() };
        assert_eq!(rows.len() as u64, run.rows);
        for pair in rows.windows(2) {
            assert!(tuple(&pair[0], &order) <= tuple(&pair[1], &order));
        }
        for row in &rows {
            assert_eq!(bucket_of(&types, &tuple(row, &key), run.buckets.get()), run.bucket);
        }
        let bound = |bound: &KeyBound| -> Row { bound.values.iter().map(key_value).collect() };
        let (first, last) = (tuple(&rows[0], &key), tuple(rows.last().unwrap(), &key));
        if run.first_key.exact {
            assert_eq!(bound(&run.first_key), first);
        }
        if run.last_key.exact {
            assert_eq!(bound(&run.last_key), last);
        }
        // Bounds are compared as far as they go.
        assert!(bound(&run.first_key) <= first[..run.first_key.values.len()].to_vec());
        assert!(bound(&run.last_key) >= last[..run.last_key.values.len()].to_vec());
        for fence in &run.fences {
            let key = tuple(&rows[fence.row as usize], &key);
            let values = bound(&fence.key);
            assert!(if fence.key.exact { values == key } else { values <= key[..values.len()].to_vec() });
        }
        all.extend(rows);
    }
    let written: Vec<Row> = data.writes.iter().flat_map(|write| write.rows.clone()).collect();
    assert_eq!(sorted(all), sorted(written));
    assert_eq!(dataset.statistics().rows, dataset.runs().iter().map(|run| run.rows).sum::<u64>());
}

/// Single keys have kernels of their own, composite keys go through row encoding: the same rows come out.
#[test]
fn differential_a_key_alone_and_with_a_constant_beside_it_join_alike() {
    block_on(async {
        let store = store();
        let side = |count: i128, modulus: i128, columns: &[&str; 3]| -> (Vec<Field>, Vec<Row>) {
            let fields = vec![
                field(columns[0], DataType::Int64, true),
                field(columns[1], DataType::Int32, false),
                field(columns[2], DataType::Int64, false),
            ];
            let key = |at: i128| if at % 11 == 0 { Value::Null } else { int(at * 7919 % modulus - modulus / 2) };
            (fields, (0..count).map(|at| vec![key(at), int(5), int(at)]).collect())
        };
        let (left_fields, left_rows) = side(300, 61, &["k", "c", "l"]);
        let (right_fields, right_rows) = side(200, 53, &["k", "c", "r"]);
        let mut sources = vec![];
        for (at, key) in [&["k"][..], &["k", "c"], &["c", "k"]].into_iter().enumerate() {
            let left = DatasetData::new(left_fields.clone(), key, 4, left_rows.clone());
            let right = DatasetData::new(right_fields.clone(), key, 6, right_rows.clone());
            let left = left.write(&store, &format!("left-{at}")).await;
            let right = right.write(&store, &format!("right-{at}")).await;
            sources.push((left, right));
        }
        for kind in JoinKind::ALL {
            let mut results = vec![];
            for (left, right) in &sources {
                let join = Join::new(kind, left, right).with_left_prefix("l.").with_right_prefix("r.");
                let plan = join.with_options(PlanOptions::default().with_batch_size(50)).plan().unwrap();
                let at = |name: &str| plan.schema().index_of(name).ok();
                let wanted: Vec<usize> = ["k", "l.l", "r.r"].into_iter().filter_map(at).collect();
                let rows = rows(&plan).await;
                results
                    .push(sorted(rows.iter().map(|row| wanted.iter().map(|&at| row[at].clone()).collect()).collect()));
            }
            assert!(results[0].len() > 10);
            assert_eq!(results[0], results[1], "{kind}");
            assert_eq!(results[0], results[2], "{kind}");
        }
    });
}

/// One bucket against 64 of the same rows, and one task against many.
#[test]
fn differential_one_bucket_and_64_buckets_hold_the_same() {
    block_on(async {
        let store = store();
        let fields = vec![field("k", DataType::Utf8, true), field("v", DataType::Int64, false)];
        let row = |at: i128| vec![Value::Text(format!("user {}", at * 31 % 500)), int(at)];
        let rows_of_all: Vec<Row> = (0..2000).map(row).collect();
        let one = DatasetData::new(fields.clone(), &["k"], 1, rows_of_all.clone()).write(&store, "one").await;
        let many = DatasetData::new(fields, &["k"], 64, rows_of_all.clone()).write(&store, "many").await;
        let scan = |dataset: &Dataset| Scan::new(dataset).plan().unwrap();
        let (one, many) = (scan(&one), scan(&many));
        assert_eq!((one.slots().get(), many.slots().get()), (1, 64));
        let expected = sorted(rows(&one).await);
        assert_eq!(expected, sorted(rows_of_all));
        for tasks in [1, 2, 7, 100] {
            let slots = try_run(&many, tasks).await.unwrap();
            let found: Vec<Row> = slots.values().flatten().flat_map(rows_of).collect();
            assert_eq!(sorted(found), expected, "{tasks} tasks");
        }
    });
}

everywhere!(
    law_reading_what_was_written_gives_the_rows_in_order,
    law_every_row_is_in_the_bucket_of_its_hash_and_runs_are_sorted,
    law_any_number_of_workers_read_each_row_once,
    law_the_same_input_gives_the_same_bytes,
);
