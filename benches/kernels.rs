//! The kernels by themselves, over batches in memory: bucket ids, the sort of a write, merging the runs of a source, pairing, co-groups, gathering.
//! Every result is asserted.
//!
//! Rows per second are those that go in. `cargo bench --bench kernels -- merge` runs a part.

#![expect(clippy::expect_used, reason = "a benchmark whose result is wrong must stop")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sort_merge_bucket::benchmarks::{Runs, co_group, gather, join, merge, sort};
use sort_merge_bucket::{BucketSpec, DEFAULT_BATCH_SIZE, JoinKind};

/// Rows of a source, whatever the number of its runs.
const ROWS: usize = 1 << 20;

/// What the key of a source is made of.
#[derive(Clone, Copy)]
enum Key {
    Integer,
    Text,
}

/// A source whose keys come `duplicates` times each, dealt out to its runs row by row.
fn source(key: Key, runs: usize, duplicates: usize) -> Runs {
    let run = |run: usize| {
        let keys: Vec<i64> = (run..ROWS).step_by(runs).map(|row| (row / duplicates) as i64).collect();
        let batch = |keys: &[i64]| {
            let column: ArrayRef = match key {
                Key::Integer => Arc::new(Int64Array::from(keys.to_vec())),
                Key::Text => Arc::new(StringViewArray::from_iter_values(keys.iter().map(|k| format!("user-{k:012}")))),
            };
            let payload: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            RecordBatch::try_from_iter([("k", column), ("v", payload)]).expect("columns of one length")
        };
        keys.chunks(DEFAULT_BATCH_SIZE).map(batch).collect()
    };
    (0..runs).map(run).collect()
}

fn merging(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    for duplicates in [1, 10, 1000] {
        for runs in [1, 2, 4, 8, 16, 52, 64] {
            let source = source(Key::Integer, runs, duplicates);
            group.bench_with_input(
                BenchmarkId::new(format!("{duplicates} rows per key"), runs),
                &source,
                |b, source| {
                    b.iter(|| assert_eq!(merge(black_box(source), DEFAULT_BATCH_SIZE).expect("sorted runs"), ROWS));
                },
            );
        }
    }
    let source = source(Key::Text, 4, 10);
    group.bench_with_input(BenchmarkId::new("text, 10 rows per key", 4), &source, |b, source| {
        b.iter(|| assert_eq!(merge(black_box(source), DEFAULT_BATCH_SIZE).expect("sorted runs"), ROWS));
    });
    group.finish();
}

fn pairing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    group.sample_size(10);
    for (left, right) in [(1, 1), (1, 4), (1, 1000), (10, 10), (1000, 1000)] {
        let sources = (source(Key::Integer, 1, left), source(Key::Integer, 1, right));
        // Keys are 0, 1, 2 …; the side with more rows per key has fewer of them, and of the last fewer rows.
        let (few, many) = (left.min(right), left.max(right));
        let last = ROWS % many;
        let expected = ROWS / many * few * many + last * if few == many { last } else { few };
        group.throughput(Throughput::Elements(2 * ROWS as u64));
        group.bench_with_input(BenchmarkId::new("inner", format!("{left} x {right}")), &sources, |b, (l, r)| {
            b.iter(|| {
                let rows = join(JoinKind::Inner, black_box(l), black_box(r), DEFAULT_BATCH_SIZE).expect("sorted runs");
                assert_eq!(rows, expected);
            });
        });
    }
    for kind in [JoinKind::Left, JoinKind::Full] {
        let sources = (source(Key::Integer, 1, 1), source(Key::Integer, 1, 2));
        group.throughput(Throughput::Elements(2 * ROWS as u64));
        group.bench_with_input(BenchmarkId::new(kind.to_string(), "1 x 2"), &sources, |b, (l, r)| {
            b.iter(|| {
                let rows = join(kind, black_box(l), black_box(r), DEFAULT_BATCH_SIZE).expect("sorted runs");
                assert_eq!(rows, ROWS + ROWS / 2);
            });
        });
    }
    group.finish();
}

fn co_groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("co-group");
    group.throughput(Throughput::Elements(2 * ROWS as u64)).sample_size(10);
    for (left, right) in [(1, 1), (1, 4), (10, 10), (1000, 1000)] {
        let sources = (source(Key::Integer, 1, left), source(Key::Integer, 1, right));
        let expected = ROWS.div_ceil(left.min(right));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{left} x {right}")), &sources, |b, (l, r)| {
            b.iter(|| {
                let groups = co_group(black_box(l), black_box(r), DEFAULT_BATCH_SIZE).expect("sorted runs");
                assert_eq!(groups, expected);
            });
        });
    }
    group.finish();
}

fn gathering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gather");
    group.throughput(Throughput::Elements(DEFAULT_BATCH_SIZE as u64));
    for (name, key) in [("integers", Key::Integer), ("text", Key::Text)] {
        let runs = source(key, 4, 1);
        let batches: Vec<&RecordBatch> = runs.iter().map(|run| &run[0]).collect();
        let rows: Vec<(usize, usize)> = (0..DEFAULT_BATCH_SIZE).map(|row| (row % 4, row / 4)).collect();
        group.bench_function(BenchmarkId::new(name, "4 batches"), |b| {
            b.iter(|| {
                let gathered = gather(black_box(&batches), black_box(&rows)).expect("rows that are there");
                assert_eq!(gathered.num_rows(), DEFAULT_BATCH_SIZE);
            });
        });
    }
    group.finish();
}

/// Bucket ids of single columns, beside the same by the crate `murmur3`, which reads its bytes through a reader.
fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bucket ids");
    group.throughput(Throughput::Elements(DEFAULT_BATCH_SIZE as u64)).sample_size(10);
    for (name, key) in [("integers", Key::Integer), ("text", Key::Text)] {
        let batch = source(key, 1, 1).remove(0).remove(0);
        let values: Vec<Vec<u8>> = match key {
            Key::Integer => (0..DEFAULT_BATCH_SIZE as i64).map(|k| k.to_le_bytes().to_vec()).collect(),
            Key::Text => (0..DEFAULT_BATCH_SIZE).map(|k| format!("user-{k:012}").into_bytes()).collect(),
        };
        let reference = |buckets: u32| -> Vec<u32> {
            let hash = |bytes: &Vec<u8>| murmur3::murmur3_32(&mut bytes.as_slice(), 0).expect("bytes in memory");
            values.iter().map(|bytes| (hash(bytes) & 0x7fff_ffff) % buckets).collect()
        };
        for buckets in [64, 1000] {
            let spec = BucketSpec::new(["k"], buckets).expect("a spec");
            assert_eq!(spec.bucket_ids(&batch).expect("a key"), reference(buckets));
            group.bench_function(BenchmarkId::new(name, buckets), |b| {
                b.iter(|| spec.bucket_ids(black_box(&batch)).expect("a key"));
            });
        }
        group.bench_function(BenchmarkId::new(format!("{name}, crate"), 64), |b| b.iter(|| reference(black_box(64))));
    }
    group.finish();
}

/// A well-spread number for each row.
fn spread(row: usize) -> i64 {
    ((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64
}

/// Rows as a write buffers them: a key of this kind, a time and some payload.
fn buffered(key: Key, in_order: bool) -> Vec<RecordBatch> {
    let rows: Vec<usize> = (0..ROWS).collect();
    let batch = |rows: &[usize]| {
        let keys: Vec<i64> = rows.iter().map(|row| if in_order { *row as i64 } else { spread(*row) }).collect();
        let key: ArrayRef = match key {
            Key::Integer => Arc::new(Int64Array::from(keys)),
            Key::Text => Arc::new(StringViewArray::from_iter_values(keys.iter().map(|k| format!("user-{k:012}")))),
        };
        let time: ArrayRef = Arc::new(rows.iter().map(|row| *row as i64).collect::<Int64Array>());
        let text: ArrayRef =
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| format!("played from list {row}"))));
        RecordBatch::try_from_iter([
            ("k", key),
            ("t", Arc::clone(&time)),
            ("a", Arc::clone(&time)),
            ("b", time),
            ("c", text),
        ])
        .expect("columns of one length")
    };
    rows.chunks(DEFAULT_BATCH_SIZE).map(batch).collect()
}

/// The sort of a write's buffer with one thread, and how much gathering the rows adds to it.
fn sorting(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("sort");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    let spec = |buckets: u32| BucketSpec::new(["k"], buckets).expect("a spec");
    let by_time = |buckets: u32| spec(buckets).with_sort_columns(["t"]).expect("a sort column");
    let (integers, text) = (buffered(Key::Integer, false), buffered(Key::Text, false));
    let in_order = buffered(Key::Integer, true);
    for (name, batches, spec, gather) in [
        ("integers, 64 buckets", &integers, spec(64), false),
        ("integers, 4096 buckets", &integers, spec(4096), false),
        ("integers in order, 64 buckets", &in_order, spec(64), false),
        ("text, 64 buckets", &text, spec(64), false),
        ("integers and times, 64 buckets", &integers, by_time(64), false),
        ("text and times, 64 buckets", &text, by_time(64), false),
        ("integers and gathered, 64 buckets", &integers, spec(64), true),
        ("integers and gathered, 4096 buckets", &integers, spec(4096), true),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let rows = runtime.block_on(sort(black_box(batches), &spec, gather)).expect("a spec that fits");
                assert_eq!(rows, ROWS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hashing, sorting, merging, pairing, co_groups, gathering);
criterion_main!(benches);
