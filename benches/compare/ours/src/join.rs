//! The workloads by this crate: opens, plans and runs the join. Every thread takes the next slot, joins it and reduces it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use sort_merge_bucket::{Dataset, Join, JoinPlan, Source};

use crate::question::{Answer, Question, Reduction};
use crate::reduce::Reduced;
use crate::{Failure, TABLES};

/// Answers a question from the datasets in a folder.
pub(crate) async fn join(question: Question, folder: &Path, threads: NonZeroUsize) -> Result<Answer, Failure> {
    let plan = Arc::new(plan(question, folder).await?);
    let next = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> =
        (0..threads.get()).map(|_| tokio::spawn(join_slots(question, Arc::clone(&plan), Arc::clone(&next)))).collect();
    let mut total = Reduced::new(question, Arc::clone(plan.schema()));
    for task in tasks {
        total.merge(task.await??);
    }

    let mut answer = total.answer();
    answer.insert("rows".into(), total.rows.to_string());
    // A join has the key once, under the left side's name.
    let [left, right] = TABLES.map(|(_, key)| Reduction::Max.name(key));
    if let Some(key) = answer.get(&left).cloned() {
        answer.insert(right, key);
    }
    Ok(answer)
}

async fn plan(question: Question, folder: &Path) -> Result<JoinPlan, Failure> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
    let [(orders, _), (lineitem, _)] = TABLES;
    let (orders, lineitem) =
        futures::try_join!(Dataset::open(Arc::clone(&store), orders), Dataset::open(Arc::clone(&store), lineitem))?;
    let (mut left, mut right) = (Source::from(&orders), Source::from(&lineitem));
    if let Some([of_orders, of_lineitem]) = question.payload() {
        (left, right) = (left.with_columns([of_orders]), right.with_columns([of_lineitem]));
    }
    Ok(Join::inner(left, right).plan()?)
}

async fn join_slots(question: Question, plan: Arc<JoinPlan>, next: Arc<AtomicU32>) -> Result<Reduced, Failure> {
    let mut reduced = Reduced::new(question, Arc::clone(plan.schema()));
    loop {
        let slot = next.fetch_add(1, Ordering::Relaxed);
        if slot >= plan.slots().get() {
            return Ok(reduced);
        }
        let mut rows = plan.execute(&plan.slot(slot)?)?;
        while let Some(batch) = rows.try_next().await? {
            reduced.add(&batch)?;
        }
    }
}
