//! The kernels by themselves, over batches in memory: bucket ids, the sort of a write, merging the runs of a source, pairing, co-groups, gathering,
//! aggregates.
//! Every result is asserted.
//!
//! Rows per second are those that go in, or states. `cargo bench --bench kernels -- merge` runs a part.

#![expect(clippy::expect_used, reason = "a benchmark whose result is wrong must stop")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::{cast, interleave, sum};
use arrow::datatypes::{DataType, Float64Type};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sort_merge_bucket::benchmarks::{Runs, co_group, gather, join, merge, sort};
use sort_merge_bucket::{
    Aggregator, ApproxCountDistinct, BucketSpec, CountDistinct, DEFAULT_BATCH_SIZE, JoinKind, Segments, Sum, SumMap,
    Variance,
};

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

/// Rows of a key in a batch, as many as a user's week has.
const ROWS_OF_KEY: usize = 60;

/// States of a key that are merged.
const WEEKS: usize = 52;

/// Items among the rows of a key.
const ITEMS_OF_KEY: usize = 40;

/// States of a batch of rows, and of a batch of such states, of which 52 are of one key. Each result is the sum of all keys' results.
fn aggregating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(DEFAULT_BATCH_SIZE as u64));
    let offsets: Vec<usize> = (0..DEFAULT_BATCH_SIZE).step_by(ROWS_OF_KEY).chain([DEFAULT_BATCH_SIZE]).collect();
    let item = |row: usize| row / ROWS_OF_KEY * ITEMS_OF_KEY + spread(row) as usize % ITEMS_OF_KEY;
    let items: Vec<usize> = (0..DEFAULT_BATCH_SIZE).map(item).collect();
    let numbers: Vec<i64> = (0..DEFAULT_BATCH_SIZE).map(|row| spread(row) % 200_000).collect();
    // Eighths, so that a plain sum is exact, too.
    let floats: Vec<f64> = numbers.iter().map(|number| *number as f64 / 8.0).collect();
    let columns: [ArrayRef; 4] = [
        Arc::new(Int64Array::from(numbers.clone())),
        Arc::new(Float64Array::from(floats.clone())),
        Arc::new(items.iter().map(|item| spread(*item)).collect::<Int64Array>()),
        Arc::new(StringViewArray::from_iter_values(items.iter().map(|item| format!("{:022x}", spread(*item))))),
    ];
    let [integer, float, item, text] = columns;

    let total = numbers.iter().sum::<i64>() as f64;
    let distinct =
        items.chunks(ROWS_OF_KEY).map(|items| items.iter().collect::<BTreeSet<_>>().len()).sum::<usize>() as f64;
    let variance = |floats: &[f64]| {
        let mean = floats.iter().sum::<f64>() / floats.len() as f64;
        floats.iter().map(|float| (float - mean).powi(2)).sum::<f64>() / (floats.len() - 1) as f64
    };
    let variances: f64 = floats.chunks(ROWS_OF_KEY).map(variance).sum();
    group.bench_function("plain sums of floats", |b| {
        let sums = || -> f64 { floats.chunks(ROWS_OF_KEY).map(|floats| black_box(floats.iter().sum::<f64>())).sum() };
        b.iter(|| assert_eq!(black_box(sums()), total / 8.0));
    });

    let weighted = || SumMap::of("item").weighted_by("weight");
    let cases: [(&str, &dyn Aggregator, Vec<&ArrayRef>, f64); 8] = [
        ("sum of integers", &Sum::of("v"), vec![&integer], total),
        ("sum of floats", &Sum::of("v"), vec![&float], total / 8.0),
        ("variance of floats", &Variance::of("v"), vec![&float], variances),
        ("sums by integer", &weighted(), vec![&item, &integer], total),
        ("sums by text", &weighted(), vec![&text, &integer], total),
        ("sums of floats by text", &weighted(), vec![&text, &float], total / 8.0),
        ("distinct texts", &CountDistinct::of("v"), vec![&text], distinct),
        ("distinct texts, by sketch", &ApproxCountDistinct::of("v"), vec![&text], distinct),
    ];
    for (name, aggregator, inputs, expected) in cases {
        let inputs: Vec<ArrayRef> = inputs.into_iter().map(Arc::clone).collect();
        let rows = Segments::new(&inputs, &offsets).expect("offsets of the batch");
        let states = aggregator.update(&rows).expect("sums that fit");
        let check = |states: &ArrayRef, times: f64| {
            let result = total_of(&aggregator.finish(states).expect("states"));
            assert!(
                (result - times * expected).abs() <= times * expected * 1e-12,
                "{result} is not {times} x {expected}"
            );
        };
        check(&states, 1.0);
        group.throughput(Throughput::Elements(DEFAULT_BATCH_SIZE as u64));
        group.bench_function(BenchmarkId::new(name, "rows"), |b| {
            b.iter(|| aggregator.update(black_box(&rows)).expect("sums that fit"));
        });

        if name.starts_with("variance") {
            // Values that come 52 times have another variance.
            continue;
        }
        let weeks: Vec<&dyn Array> = vec![states.as_ref(); WEEKS];
        let by_key: Vec<(usize, usize)> =
            (0..states.len()).flat_map(|key| (0..WEEKS).map(move |week| (week, key))).collect();
        let weeks = [interleave(&weeks, &by_key).expect("states of one type")];
        let ends: Vec<usize> = (0..=states.len()).map(|key| key * WEEKS).collect();
        let weeks = Segments::new(&weeks, &ends).expect("offsets of the states");
        let times = if name.starts_with("distinct") { 1.0 } else { WEEKS as f64 };
        check(&aggregator.merge(&weeks).expect("sums that fit"), times);
        group.throughput(Throughput::Elements(by_key.len() as u64));
        group.bench_function(BenchmarkId::new(name, "states"), |b| {
            b.iter(|| aggregator.merge(black_box(&weeks)).expect("sums that fit"));
        });
    }
    group.finish();
}

/// The sum of all numbers in a column, of the values of maps.
fn total_of(results: &ArrayRef) -> f64 {
    let numbers = match results.as_map_opt() {
        Some(maps) => maps.values(),
        None => results,
    };
    sum(cast(numbers, &DataType::Float64).expect("numbers").as_primitive::<Float64Type>()).unwrap_or_default()
}

criterion_group!(benches, hashing, sorting, merging, pairing, co_groups, gathering, aggregating);
criterion_main!(benches);
