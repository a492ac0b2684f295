//! Two small datasets and a join, in four steps:
//!
//! 1. describe how rows are bucketed: by `user_id`, into 8 buckets for users and 4 for plays;
//! 2. write both datasets, here into memory, in any row order;
//! 3. plan the join: nothing is read yet, and the plan prints itself;
//! 4. stream the result: bucket meets bucket, no row is shuffled or sorted again.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::sync::Arc;

use arrow::array::{RecordBatch, record_batch};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, Join, Parallelism, Result, Source};

#[tokio::main]
async fn main() -> Result<()> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let users = record_batch!(
        ("user_id", Int64, [3, 1, 2]),
        ("name", Utf8, ["Chiyo", "Ada", "Bo"])
    )?;
    let plays = record_batch!(
        ("user_id", Int64, [2, 3, 1, 2, 9]),
        ("track", Utf8, ["Oblivion", "Gloria", "Oblivion", "Spain", "Nardis"])
    )?;
    let users = write(&store, "users", &users, BucketSpec::new(["user_id"], 8)?).await?;
    let plays = write(&store, "plays", &plays, BucketSpec::new(["user_id"], 4)?).await?;

    let plan = Join::inner(Source::from(&plays), Source::from(&users)).plan()?;
    println!("{plan}");

    let mut joined = vec![];
    let mut stream = plan.stream(Parallelism::Available);
    while let Some(item) = stream.try_next().await? {
        joined.push(item.batch);
    }
    println!("{}", arrow::util::pretty::pretty_format_batches(&joined)?);
    // Tracks of the users 1, 2 and 3; user 9 has no name, so an inner join leaves that play out.
    assert_eq!(joined.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    Ok(())
}

async fn write(store: &Arc<dyn ObjectStore>, path: &str, rows: &RecordBatch, spec: BucketSpec) -> Result<Dataset> {
    let mut writer = DatasetWriter::builder(Arc::clone(store), path, rows.schema(), spec).build().await?;
    writer.write(rows).await?;
    writer.commit().await
}
