//! What plans and writes hold in memory: bounded by what their docs say, however many rows or files there are.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use sort_merge_bucket::{
    BucketSpec, Dataset, DatasetWriter, Join, Parallelism, Plan, PlanOperation, PlanOptions, Scan, Source, WriteOptions,
};

use crate::{MEMORY, damage};

const MIB: usize = 1 << 20;

/// Rows of a batch, and so of a window.
const BATCH: usize = 1024;

/// The size of a row group as it is fetched.
const ROW_GROUP: usize = MIB;

/// About the bytes of a row.
const ROW: usize = 200;

/// Tasks that run a plan.
const TASKS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_follows_what_is_open_and_not_what_there_is() {
    a_wide_join_holds_row_groups_and_not_tables().await;
    partitions_are_opened_one_after_the_other().await;
    a_write_keeps_its_budget_whatever_its_rows_are().await;
    damage::what_damage_claims_is_not_taken().await;
}

/// The most bytes that were allocated at once while the plan ran, beyond those before.
async fn peak_of<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>) -> (usize, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut batches = plan.stream(Parallelism::Slots(NonZeroUsize::new(TASKS).unwrap()));
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await.unwrap() {
        rows += batch.item.num_rows();
    }
    (MEMORY.peak_usage() - before, rows)
}

/// A dataset of rows with these keys and a text that hardly compresses.
async fn write(store: &Arc<dyn ObjectStore>, path: &str, buckets: u32, keys: std::ops::Range<i64>) -> Dataset {
    // Numbers without a pattern, by a linear congruence.
    let mut random = 7_u64;
    let mut letter = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (random >> 58) as u8)
    };
    let texts: Vec<String> = (0..BATCH).map(|_| (0..ROW).map(&mut letter).collect()).collect();
    let batch = |start: i64| {
        let end = keys.end.min(start + BATCH as i64);
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(start..end));
        let text = StringViewArray::from_iter_values(&texts[..(end - start) as usize]);
        RecordBatch::try_from_iter([("k", key), (path.rsplit('/').next().unwrap(), Arc::new(text) as ArrayRef)])
            .unwrap()
    };
    let spec = BucketSpec::new(["k"], buckets).unwrap();
    let options = WriteOptions::default().with_row_group_bytes(ROW_GROUP).with_memory_budget(64 * MIB);
    let mut writer = DatasetWriter::builder(Arc::clone(store), path, batch(keys.start).schema(), spec)
        .with_options(options)
        .build()
        .await
        .unwrap();
    for start in keys.clone().step_by(BATCH) {
        writer.write(&batch(start)).await.unwrap();
    }
    writer.commit().await.unwrap()
}

async fn a_wide_join_holds_row_groups_and_not_tables() {
    const BUCKETS: usize = 4;
    const ROW_GROUPS: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let options = PlanOptions::default();
    let rows = ROW_GROUPS * BUCKETS * ROW_GROUP / ROW;
    let left = write(&store, "left", BUCKETS as u32, 0..rows as i64).await;
    let right = write(&store, "right", BUCKETS as u32, 0..rows as i64).await;
    let plan = Join::inner(&left, &right).with_options(options.clone()).plan().unwrap();
    let (peak, joined) = peak_of(&plan).await;
    assert_eq!(joined, rows);
    // Of each task: two runs with two row groups each, and the first row group of the runs of the slots that come next; pages, windows and
    // batches beside them.
    let runs = TASKS * 2 * (2 + options.prefetch);
    let documented = runs * ROW_GROUP + TASKS * 2 * 8 * BATCH * ROW;
    assert!(peak <= documented, "{peak} bytes, expected at most {documented}");
    assert!(documented <= 2 * rows * ROW / 4, "a join that held a side would pass");
}

async fn partitions_are_opened_one_after_the_other() {
    const PARTITIONS: i64 = 300;
    const ROWS: i64 = 500;
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let mut datasets = vec![];
    for part in 0..PARTITIONS {
        datasets.push(write(&store, &format!("part={part}/text"), 2, part * ROWS..(part + 1) * ROWS).await);
    }
    let batches = PlanOptions::default().with_batch_size(BATCH);
    let plan = Scan::new(Source::new(datasets)).with_options(batches).plan().unwrap();
    let (peak, rows) = peak_of(&plan).await;
    assert_eq!(rows as i64, PARTITIONS * ROWS);
    let all = rows * ROW;
    assert!(peak <= all / 4, "{peak} bytes of {all} in {PARTITIONS} partitions without a common key");
}

/// What a write allocates at most, beyond the rows that it is given at once.
async fn peak_of_write(options: WriteOptions, buckets: u32, batches: impl Iterator<Item = RecordBatch>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let options = options.with_spill_dir(folder.path());
    let mut batches = batches.peekable();
    let schema = batches.peek().unwrap().schema();
    let given = batches.peek().unwrap().get_array_memory_size();
    let before = MEMORY.current_usage() - given;
    MEMORY.reset_peak_usage();
    let spec = BucketSpec::new(["k"], buckets).unwrap();
    let builder = DatasetWriter::builder(store, "rows", schema, spec).with_options(options);
    let mut writer = builder.build().await.unwrap();
    for batch in batches {
        writer.write(&batch).await.unwrap();
    }
    let (_, summary) = writer.commit_with_summary().await.unwrap();
    assert!(summary.spills > 4, "{summary}");
    MEMORY.peak_usage() - before - given
}

async fn a_write_keeps_its_budget_whatever_its_rows_are() {
    let budget = 64 * MIB;
    let options = WriteOptions::default().with_memory_budget(budget).with_row_group_bytes(2 * MIB);
    let keys = |rows: usize, batch: usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|row| ((batch * rows + row) as i64).wrapping_mul(0x9e37_79b9) % 1_000_003),
        ))
    };
    // Texts of a mebibyte, of which compression leaves nothing: a row group could have any number of them.
    let huge = |batch| {
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..4).map(|row| format!("{row:x}").repeat(MIB))));
        RecordBatch::try_from_iter([("k", keys(4, batch)), ("text", texts)]).unwrap()
    };
    // Rows of one number: sorting them takes more than they do.
    let narrow = |batch| RecordBatch::try_from_iter([("k", keys(65_536, batch))]).unwrap();
    let wide = |batch| {
        let columns = (0..100).map(|column| (format!("c{column}"), keys(128, batch * column + 1)));
        RecordBatch::try_from_iter([("k".to_owned(), keys(128, batch))].into_iter().chain(columns)).unwrap()
    };
    // Nothing of the wide rows is packed.
    let documented = |leaves: usize| {
        let leaf = if leaves > 32 { MIB / 3 } else { MIB };
        budget.max(budget / 4 * 3 + 2 * 2 * MIB + leaves * leaf)
    };
    for buckets in [1, 64] {
        for (name, leaves, peak) in [
            ("huge", 2, peak_of_write(options.clone(), buckets, (0..80).map(huge)).await),
            ("narrow", 1, peak_of_write(options.clone(), buckets, (0..300).map(narrow)).await),
            ("wide", 101, peak_of_write(options.clone(), buckets, (0..2000).map(wide)).await),
        ] {
            let most = documented(leaves) / 10 * 13;
            println!("{name} rows in {buckets} buckets: {peak} of at most {most} bytes");
            assert!(peak <= most, "{name} rows in {buckets} buckets: {peak} of at most {most} bytes");
        }
    }
}
