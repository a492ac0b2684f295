//! This crate's answers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use sort_merge_bucket::{
    Dataset, Join, JoinPlan, Parallelism, Plan, PlanOperation, PlanOptions, Predicate, Scan, SlotDescriptor, Source,
};
use tokio::sync::Mutex;

use crate::question::{Answer, Question, Reduction, keys};
use crate::reduce::{Reduce, Reduced};
use crate::skew;
use crate::{Failure, Options, TABLES};

/// The store of a folder: its files, or, if reading is to take longer than that, copies of them in memory behind a delay.
pub(crate) async fn store(options: &Options) -> Result<Arc<dyn ObjectStore>, Failure> {
    let files = LocalFileSystem::new_with_prefix(&options.from)?;
    if options.latency.is_zero() {
        return Ok(Arc::new(files));
    }
    let memory = InMemory::new();
    let mut listed = files.list(None);
    while let Some(file) = listed.try_next().await? {
        let bytes = files.get(&file.location).await?.bytes().await?;
        memory.put(&file.location, bytes.into()).await?;
    }
    let config = ThrottleConfig { wait_get_per_call: options.latency, ..ThrottleConfig::default() };
    Ok(Arc::new(ThrottledStore::new(memory, config)))
}

/// Answers a question from the datasets in a store.
pub(crate) async fn join(
    question: Question,
    store: &Arc<dyn ObjectStore>,
    options: &Options,
    threads: NonZeroUsize,
) -> Result<Answer, Failure> {
    let opening = question.tables().iter().map(|(table, _)| Dataset::open(Arc::clone(store), *table));
    let datasets = futures::future::try_join_all(opening).await?;
    let mut sources: Vec<Source> = datasets.iter().map(Source::from).collect();
    if let Some(payload) = question.payload() {
        let wanted = sources.into_iter().zip(payload);
        sources = wanted.map(|(source, columns)| source.with_columns(columns.iter().copied())).collect();
    }
    match question {
        Question::LookUp { scale_factor } => {
            let wanted: ArrayRef = Arc::new(Int64Array::from(keys(scale_factor)));
            let lines = sources.remove(0).with_keys(wanted);
            reduce(question, Scan::new(lines).plan()?, threads).await
        }
        Question::Written | Question::Plays => reduce(question, Scan::new(sources.remove(0)).plan()?, threads).await,
        Question::Selective { most_customer } => {
            let orders = sources.remove(0).with_filter(Predicate::le("o_custkey", most_customer));
            let how = PlanOptions::default().with_dynamic_filters(options.filters);
            reduce(question, Join::inner(orders, sources.remove(0)).with_options(how).plan()?, threads).await
        }
        Question::Skew => {
            let plan = Join::inner(sources.remove(0), sources.remove(0)).plan()?;
            let answer = reduce_stream(question, plan, threads).await?;
            skew::check(&options.from, &answer)?;
            Ok(answer)
        }
        Question::Narrow | Question::Wide => {
            let plan = Join::inner(sources.remove(0), sources.remove(0)).plan()?;
            // A stream fetches ahead, which matters if fetching takes long; without it, threads need not meet.
            let mut answer = match options.latency.is_zero() {
                true => reduce(question, plan, threads).await?,
                false => reduce_stream(question, plan, threads).await?,
            };
            // A join has the key once, under the left side's name.
            let [left, right] = TABLES.map(|(_, key)| Reduction::Max.name(key));
            if let Some(key) = answer.get(&left).cloned() {
                answer.insert(right, key);
            }
            Ok(answer)
        }
    }
}

async fn reduce<O>(question: Question, plan: Plan<O>, threads: NonZeroUsize) -> Result<Answer, Failure>
where
    O: PlanOperation<Item = RecordBatch>,
{
    let schema = Arc::clone(plan.schema());
    let reduced = reduce_slots(plan, threads, || Reduced::new(question, Arc::clone(&schema))).await?;
    Ok(answer(&reduced))
}

fn answer(reduced: &Reduced) -> Answer {
    let mut answer = reduced.answer();
    answer.insert("rows".into(), reduced.rows.to_string());
    answer
}

/// Runs the plan as one stream, whose batches are reduced by as many tasks.
async fn reduce_stream(question: Question, plan: JoinPlan, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let schema = Arc::clone(plan.schema());
    let rows = Arc::new(Mutex::new(plan.stream(Parallelism::Slots(threads))));
    let reduce = || {
        let (rows, schema) = (Arc::clone(&rows), Arc::clone(&schema));
        tokio::spawn(async move {
            let mut reduced = Reduced::new(question, schema);
            loop {
                let next = rows.lock().await.try_next().await?;
                let Some(slot) = next else { return Ok::<_, Failure>(reduced) };
                reduced.add(&slot.item)?;
            }
        })
    };
    let tasks: Vec<_> = (0..threads.get()).map(|_| reduce()).collect();
    let mut total = Reduced::new(question, schema);
    for task in tasks {
        total.merge(task.await??);
    }
    Ok(answer(&total))
}

/// Runs slot after slot on every thread, which reduces what it has made.
pub(crate) async fn reduce_slots<O, R>(
    plan: Plan<O>,
    threads: NonZeroUsize,
    empty: impl Fn() -> R,
) -> Result<R, Failure>
where
    O: PlanOperation<Item = RecordBatch>,
    R: Reduce,
{
    let slots = (0..plan.slots().get()).map(|slot| plan.slot(slot)).collect::<Result<Vec<_>, _>>()?;
    let mut total = empty();
    let work = Arc::new((plan, slots, AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..threads.get()).map(|_| tokio::spawn(reduce_some(empty(), Arc::clone(&work)))).collect();
    for task in tasks {
        total.merge(task.await??);
    }
    Ok(total)
}

async fn reduce_some<O, R>(mut reduced: R, work: Arc<(Plan<O>, Vec<SlotDescriptor>, AtomicUsize)>) -> Result<R, Failure>
where
    O: PlanOperation<Item = RecordBatch>,
    R: Reduce,
{
    let (plan, slots, next) = work.as_ref();
    while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut rows = plan.execute(slot)?;
        while let Some(batch) = rows.try_next().await? {
            reduced.add(&batch)?;
        }
    }
    Ok(reduced)
}
