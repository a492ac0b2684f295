//! The kernels by themselves, over batches in memory: merging the runs of a source, pairing, co-groups, gathering. Every result is asserted.
//!
//! Rows per second are those that go in. `cargo bench --bench kernels -- merge` runs a part.

#![expect(clippy::expect_used, reason = "a benchmark whose result is wrong must stop")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sort_merge_bucket::benchmarks::{Runs, co_group, gather, join, merge};
use sort_merge_bucket::{DEFAULT_BATCH_SIZE, JoinKind};

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

criterion_group!(benches, merging, pairing, co_groups, gathering);
criterion_main!(benches);
