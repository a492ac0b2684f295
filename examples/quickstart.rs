//! Two small datasets and a join, in four steps:
//!
//! 1. describe how rows are bucketed: by `user_id`, into 8 buckets for users and 4 for plays;
//! 2. write both datasets, in memory or wherever `--store` says, in any row order;
//! 3. plan the join: nothing is read yet, and the plan prints itself;
//! 4. stream the result: bucket meets bucket, no row is shuffled or sorted again.
//!
//! `--store URL` names another place, such as `file:///tmp/quickstart` or `s3://bucket/quickstart`, with the usual `AWS_*` settings in the
//! environment. It has no datasets `users` and `plays` yet.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, Error, Join, Location, Parallelism, Result, Source};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "memory://",
        ["--store", url] => url,
        _ => return Err(Error::external("usage: quickstart [--store URL]")),
    };
    let place = Location::from_env(url)?;
    let users = rows([3, 1, 2], "name", ["Chiyo", "Ada", "Bo"])?;
    let plays = rows([2, 3, 1, 2, 9], "track", ["Oblivion", "Gloria", "Nardis", "Spain", "Naima"])?;
    let users = write(&place, "users", &users, BucketSpec::new(["user_id"], 8)?).await?;
    let plays = write(&place, "plays", &plays, BucketSpec::new(["user_id"], 4)?).await?;

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

async fn write(place: &Location, name: &str, rows: &RecordBatch, spec: BucketSpec) -> Result<Dataset> {
    let mut writer = DatasetWriter::builder(place.store(), place.join(name), rows.schema(), spec).build().await?;
    writer.write(rows).await?;
    writer.commit().await
}
