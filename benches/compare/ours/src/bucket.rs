//! The Parquet files of a folder written as datasets: the price that is paid once, before the first join.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value, json};
use sort_merge_bucket::{BucketSpec, DatasetWriter, WriteMode};

use crate::{Failure, Options, TABLES, processor_seconds};

/// Writes the tables and says what each took, reading its source included.
pub(crate) async fn bucket(options: &Options) -> Result<Value, Failure> {
    std::fs::create_dir_all(&options.to)?;
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&options.to)?);
    let write_options = options.write.clone().with_memory_budget(options.budget).with_spill_dir(&options.to);
    let mut report = Map::new();
    let tpch = TABLES.map(|(table, key)| (table.to_owned(), vec![key.to_owned()]));
    let tables = if options.tables.is_empty() { tpch.as_slice() } else { &options.tables };
    for (table, columns) in tables {
        let (busy, started) = (processor_seconds(), Instant::now());
        let source = open(&options.from.join(format!("{table}.parquet")), options.batch_rows)?;
        let schema = views(&source.schema());
        let (key, sort) = columns.split_at(1);
        let spec = BucketSpec::new(key, options.buckets)?.with_sort_columns(sort.iter().map(String::as_str))?;
        let mut writer = DatasetWriter::builder(Arc::clone(&store), table.as_str(), Arc::clone(&schema), spec)
            .with_mode(WriteMode::Create)
            .with_options(write_options.clone())
            .build()
            .await?;
        for batch in source {
            writer.write(&convert(&batch?, &schema)?).await?;
        }
        let statistics = writer.commit().await?.statistics();
        let seconds = started.elapsed().as_secs_f64();
        let busy = processor_seconds().zip(busy).map(|(now, then)| now - then);
        let written = json!({
            "rows": statistics.rows,
            "bytes": statistics.bytes,
            "seconds": seconds,
            "processor_seconds": busy,
        });
        report.insert(table.clone(), written);
    }
    Ok(report.into())
}

fn open(path: &Path, batch_rows: usize) -> Result<ParquetRecordBatchReader, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    Ok(builder.with_batch_size(batch_rows).build()?)
}

/// The source's schema with text as views, which every column of TPC-H that is text has when it is generated, and with no nulls.
fn views(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &FieldRef| {
        let data_type = if *field.data_type() == DataType::Utf8 { &DataType::Utf8View } else { field.data_type() };
        Field::new(field.name(), data_type.clone(), false)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<ArrayRef> =
        columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
