//! Two small datasets and a join, in four steps:
//!
//! 1. describe how rows are bucketed: by `user_id`, into 8 buckets for users and 4 for plays;
//! 2. write both datasets, here into memory, in any row order;
//! 3. plan the join: nothing is read yet, and the plan prints itself;
//! 4. stream the result: bucket meets bucket, no row is shuffled or sorted again.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, Join, Parallelism, Result, Source};

#[tokio::main]
async fn main() -> Result<()> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let users = rows([3, 1, 2], "name", ["Chiyo", "Ada", "Bo"])?;
    let plays = rows([2, 3, 1, 2, 9], "track", ["Oblivion", "Gloria", "Nardis", "Spain", "Naima"])?;
    let users = write(&store, "users", &users, BucketSpec::new(["user_id"], 8)?).await?;
    let plays = write(&store, "plays", &plays, BucketSpec::new(["user_id"], 4)?).await?;

    let plan = Join::inner(Source::from(&plays), Source::from(&users)).plan()?;
    println!("{plan}\n");

    let mut found = vec![];
    let mut joined = plan.stream(Parallelism::Available);
    while let Some(slot) = joined.try_next().await? {
        let text = |column| slot.item.column(column).as_string_view().iter().flatten();
        // The key comes first, then the columns of the left side, then those of the right.
        found.extend(text(2).zip(text(1)).map(|(name, track)| format!("{name} played {track}")));
    }
    found.sort();
    println!("{}", found.join("\n"));
    // Nobody knows user 9: an inner join leaves that play out.
    assert_eq!(found, ["Ada played Nardis", "Bo played Oblivion", "Bo played Spain", "Chiyo played Gloria"]);
    Ok(())
}

fn rows<const N: usize>(user_ids: [i64; N], name: &str, values: [&str; N]) -> Result<RecordBatch> {
    let user_ids: ArrayRef = Arc::new(Int64Array::from_iter_values(user_ids));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    Ok(RecordBatch::try_from_iter([("user_id", user_ids), (name, values)])?)
}

async fn write(store: &Arc<dyn ObjectStore>, path: &str, rows: &RecordBatch, spec: BucketSpec) -> Result<Dataset> {
    let mut writer = DatasetWriter::builder(Arc::clone(store), path, rows.schema(), spec).build().await?;
    writer.write(rows).await?;
    writer.commit().await
}
