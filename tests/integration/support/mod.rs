//! What the tests share: random data, an oracle, stores, and ways to run a plan to its end.

pub(crate) mod aggregates;
pub(crate) mod data;
pub(crate) mod faulty;
pub(crate) mod forge;
pub(crate) mod gated;
pub(crate) mod history;
pub(crate) mod mutations;
pub(crate) mod named;
pub(crate) mod oracle;
pub(crate) mod places;
pub(crate) mod s3;
pub(crate) mod stores;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use futures::{StreamExt, TryStreamExt};
use proptest::test_runner::{Config, FileFailurePersistence};
use sort_merge_bucket::{Dataset, Error, ErrorKind, Parallelism, Plan, PlanOperation, Result};

use oracle::{Row, all_rows};
pub(crate) use places::{everywhere, store, store as memory};

/// Runs a future of a property test, which is not async itself.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(future)
}

/// So many cases, or `PROPTEST_CASES`, and fewer where a test runs [`everywhere!`]; failures are kept in `proptest-regressions/integration/`.
pub(crate) fn config(cases: u32, seeds: &'static str) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let cases = if places::is_repeated() { cases.div_ceil(40) } else { cases };
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(seeds)) as _);
    Config { cases, failure_persistence, max_shrink_iters: 2000, ..Config::default() }
}

/// The items of every slot that yields any, all slots run by `tasks` tasks.
pub(crate) async fn try_run<O: PlanOperation>(plan: &Plan<O>, tasks: usize) -> Result<BTreeMap<u32, Vec<O::Item>>> {
    let mut slots: BTreeMap<u32, Vec<O::Item>> = BTreeMap::new();
    let mut items = plan.stream(Parallelism::Slots(NonZeroUsize::new(tasks).unwrap()));
    while let Some(item) = items.next().await {
        let item = item?;
        slots.entry(item.slot).or_default().push(item.item);
    }
    Ok(slots)
}

/// The same, slot by slot from descriptors that went through JSON, as another machine would.
pub(crate) async fn try_run_slots<O: PlanOperation>(plan: &Plan<O>) -> Result<BTreeMap<u32, Vec<O::Item>>> {
    let mut slots = BTreeMap::new();
    for slot in 0..plan.slots().get() {
        let descriptor = serde_json::to_string(&plan.slot(slot)?).unwrap();
        let items: Vec<O::Item> = plan.execute(&serde_json::from_str(&descriptor).unwrap())?.try_collect().await?;
        if !items.is_empty() {
            slots.insert(slot, items);
        }
    }
    Ok(slots)
}

/// Runs a scan or join; checks that every batch is of the plan's schema and size and that slots are sorted by key. The rows, slot after slot.
pub(crate) async fn rows<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>) -> Vec<Row> {
    check_batches(plan, &try_run(plan, 2).await.unwrap())
}

/// As [`rows`], slot by slot.
pub(crate) async fn rows_by_slot<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>) -> Vec<Row> {
    check_batches(plan, &try_run_slots(plan).await.unwrap())
}

fn check_batches<O>(plan: &Plan<O>, slots: &BTreeMap<u32, Vec<RecordBatch>>) -> Vec<Row>
where
    O: PlanOperation<Item = RecordBatch>,
{
    let mut all = vec![];
    for (slot, batches) in slots {
        assert!(*slot < plan.slots().get());
        for batch in batches {
            assert_eq!(batch.schema_ref(), plan.schema(), "a batch is of another schema than the plan says");
            assert!((1..=plan.options().batch_size).contains(&batch.num_rows()), "{} rows", batch.num_rows());
        }
        let rows = all_rows(batches);
        let keys = plan.key().len();
        for pair in rows.windows(2) {
            assert!(
                pair[0][..keys] <= pair[1][..keys],
                "slot {slot} is not sorted: {:?} before {:?}",
                pair[0],
                pair[1]
            );
        }
        all.extend(rows);
    }
    all
}

/// The first error of a plan that must fail.
pub(crate) async fn failure<O: PlanOperation>(plan: &Plan<O>) -> Error {
    match try_run(plan, 1).await {
        Ok(_) => panic!("the plan succeeded: {plan}"),
        Err(error) => error,
    }
}

/// Asserts the kind of a failure and that its text has all of `parts`.
pub(crate) fn assert_error(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let shown = error.to_string();
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
}

/// Asserts that every invariant of the dataset holds.
pub(crate) async fn assert_valid(dataset: &Dataset) {
    let report = dataset.validate().await.unwrap();
    assert!(report.is_valid(), "{report}");
    assert_eq!((report.rows, report.runs), (dataset.statistics().rows, dataset.statistics().runs));
}

/// `name` of type and nullability, for schemas.
pub(crate) fn field(name: &str, data_type: arrow::datatypes::DataType, nullable: bool) -> Field {
    Field::new(name, data_type, nullable)
}
