//! This crate's answers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use sort_merge_bucket::{
    Dataset, Join, Parallelism, Plan, PlanOperation, PlanOptions, Predicate, Scan, SlotDescriptor, Source,
};

use crate::question::{Answer, Question, Reduction, keys};
use crate::reduce::Reduced;
use crate::skew;
use crate::{Failure, Options, TABLES};

/// Answers a question from the datasets in a folder.
pub(crate) async fn join(question: Question, options: &Options, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&options.from)?);
    let opening = question.tables().iter().map(|(table, _)| Dataset::open(Arc::clone(&store), *table));
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
            reduce_slots(question, Scan::new(lines).plan()?, threads).await
        }
        Question::Selective { most_customer } => {
            let orders = sources.remove(0).with_filter(Predicate::le("o_custkey", most_customer));
            let how = PlanOptions::default().with_dynamic_filters(options.filters);
            reduce_slots(question, Join::inner(orders, sources.remove(0)).with_options(how).plan()?, threads).await
        }
        Question::Skew => {
            let plan = Join::inner(sources.remove(0), sources.remove(0)).plan()?;
            let mut reduced = Reduced::new(question, Arc::clone(plan.schema()));
            let mut rows = plan.stream(Parallelism::Slots(threads));
            while let Some(slot) = rows.try_next().await? {
                reduced.add(&slot.item)?;
            }
            let answer = answer(&reduced);
            skew::check(&options.from, &answer)?;
            Ok(answer)
        }
        Question::Narrow | Question::Wide => {
            let plan = Join::inner(sources.remove(0), sources.remove(0)).plan()?;
            let mut answer = reduce_slots(question, plan, threads).await?;
            // A join has the key once, under the left side's name.
            let [left, right] = TABLES.map(|(_, key)| Reduction::Max.name(key));
            if let Some(key) = answer.get(&left).cloned() {
                answer.insert(right, key);
            }
            Ok(answer)
        }
    }
}

fn answer(reduced: &Reduced) -> Answer {
    let mut answer = reduced.answer();
    answer.insert("rows".into(), reduced.rows.to_string());
    answer
}

/// Runs slot after slot on every thread, which reduces what it has joined.
async fn reduce_slots<O>(question: Question, plan: Plan<O>, threads: NonZeroUsize) -> Result<Answer, Failure>
where
    O: PlanOperation<Item = RecordBatch>,
{
    let slots = (0..plan.slots().get()).map(|slot| plan.slot(slot)).collect::<Result<Vec<_>, _>>()?;
    let work = Arc::new((plan, slots, AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..threads.get()).map(|_| tokio::spawn(reduce_some(question, Arc::clone(&work)))).collect();
    let mut total = Reduced::new(question, Arc::clone(work.0.schema()));
    for task in tasks {
        total.merge(task.await??);
    }
    Ok(answer(&total))
}

async fn reduce_some<O>(
    question: Question,
    work: Arc<(Plan<O>, Vec<SlotDescriptor>, AtomicUsize)>,
) -> Result<Reduced, Failure>
where
    O: PlanOperation<Item = RecordBatch>,
{
    let (plan, slots, next) = work.as_ref();
    let mut reduced = Reduced::new(question, Arc::clone(plan.schema()));
    while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut rows = plan.execute(slot)?;
        while let Some(batch) = rows.try_next().await? {
            reduced.add(&batch)?;
        }
    }
    Ok(reduced)
}
