//! Two datasets of which one key has many rows: 6 million × scale factor rows on the left, each with a partner among 1.5 million × scale factor
//! different keys on the right; in a skewed case, some of the left rows have the hot key instead, as do further rows on the right.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde_json::{Value, json};
use sort_merge_bucket::{BucketSpec, DatasetWriter, WriteOptions};

use crate::question::Answer;
use crate::{Failure, Options};

const BATCH: i64 = 8192;

/// Rows of the hot key, left and right, at a scale factor.
fn hot_rows(case: &str, scale_factor: f64) -> Result<(i64, i64), Failure> {
    let scaled = |at_ten: f64| (at_ten * scale_factor / 10.0).round() as i64;
    match case {
        "even" => Ok((0, 0)),
        "5kx5k" => Ok((scaled(5e3), scaled(5e3))),
        "12Mx1" => Ok((scaled(12e6), 1)),
        "3Mx3k" => Ok((scaled(3e6), scaled(3e3))),
        _ => Err(format!("no case {case} of skew").into()),
    }
}

/// Writes both datasets, and the answer that their join must give.
pub(crate) async fn skew(case: &str, options: &Options) -> Result<Value, Failure> {
    std::fs::create_dir_all(&options.to)?;
    let (left, keys) = ((6e6 * options.scale_factor) as i64, (1.5e6 * options.scale_factor) as i64);
    let (hot_left, hot_right) = hot_rows(case, options.scale_factor)?;
    // A factor without a common divisor spreads rows over all keys, in no order.
    let key_of = |row: i64| if row < hot_left { keys } else { row * 7919 % keys };
    write(options, "left", left, |row| (key_of(row), row)).await?;
    write(options, "right", keys + hot_right, |row| (row.min(keys), row)).await?;
    let (mut rows, mut of_left, mut of_right) = (0_i128, 0_i128, 0_i128);
    for row in 0..left {
        let partners = if row < hot_left { hot_right } else { 1 };
        rows += i128::from(partners);
        of_left += i128::from(row) * i128::from(partners);
        if row >= hot_left {
            of_right += i128::from(key_of(row));
        }
    }
    of_right += i128::from(hot_left) * (keys..keys + hot_right).map(i128::from).sum::<i128>();
    let expected = json!({ "rows": rows.to_string(), "sum(v)": of_left.to_string(), "sum(w)": of_right.to_string() });
    std::fs::write(options.to.join("expected.json"), expected.to_string())?;
    Ok(expected)
}

async fn write(options: &Options, name: &str, rows: i64, row: impl Fn(i64) -> (i64, i64)) -> Result<(), Failure> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&options.to)?);
    let value = if name == "left" { "v" } else { "w" };
    let schema = Arc::new(Schema::new(
        [("k", DataType::Int64), (value, DataType::Int64)].map(|(n, t)| Field::new(n, t, false)).to_vec(),
    ));
    let spec = BucketSpec::new(["k"], options.buckets)?;
    let write_options = WriteOptions::default().with_memory_budget(options.budget).with_spill_dir(&options.to);
    let mut writer =
        DatasetWriter::builder(store, name, Arc::clone(&schema), spec).with_options(write_options).build().await?;
    let mut start = 0;
    while start < rows {
        let end = (start + BATCH).min(rows);
        let (keys, values): (Vec<i64>, Vec<i64>) = (start..end).map(&row).unzip();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(values))];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?).await?;
        start = end;
    }
    writer.commit().await?;
    Ok(())
}

/// Compares an answer with the one that was worked out when the data were written.
pub(crate) fn check(folder: &Path, answer: &Answer) -> Result<(), Failure> {
    let expected: Answer = serde_json::from_slice(&std::fs::read(folder.join("expected.json"))?)?;
    if *answer == expected { Ok(()) } else { Err(format!("expected {expected:?}, found {answer:?}").into()) }
}
