//! Objects made by hand: runs with other rows or another identity, manifests that say something else.
//!
//! What is forged is consistent in every respect but the one under test: a run's new size, row count and checksum go into the manifest.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use object_store::ObjectStore;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use serde_json::Value as Json;
use sort_merge_bucket::Dataset;

use super::data::batch_of;
use super::oracle::{Row, rows_of};
use super::stores::{put, read};

/// The path of a version's manifest.
pub(crate) fn manifest_path(root: &str, version: u64) -> String {
    format!("{root}/_smb/{version:020}.json")
}

/// Changes the manifest of a version in place.
pub(crate) async fn edit_manifest(
    store: &Arc<dyn ObjectStore>,
    root: &str,
    version: u64,
    edit: impl FnOnce(&mut Json),
) {
    let path = manifest_path(root, version);
    let mut manifest: Json = serde_json::from_slice(&read(store, &path).await).unwrap();
    edit(&mut manifest);
    put(store, &path, serde_json::to_vec(&manifest).unwrap()).await;
}

/// The paths of a dataset's runs.
pub(crate) fn run_paths(dataset: &Dataset) -> Vec<String> {
    dataset.run_paths().map(|path| path.to_string()).collect()
}

/// The rows of a run and the pairs in its footer.
pub(crate) async fn read_run(store: &Arc<dyn ObjectStore>, path: &str) -> (Vec<Row>, Vec<KeyValue>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(read(store, path).await).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().unwrap();
    let identity = pairs.iter().filter(|pair| pair.key.starts_with("smb.")).cloned().collect();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    let rows = concat_batches(&batches[0].schema(), &batches).unwrap();
    (rows_of(&rows), identity)
}

/// Encodes rows as a run of this dataset.
pub(crate) fn encode_run(dataset: &Dataset, rows: &[Row], identity: Vec<KeyValue>, row_group: usize) -> Bytes {
    let order = dataset.spec().order().map(|name| dataset.schema().index_of(name).unwrap());
    let sorting = order.map(|at| SortingColumn { column_idx: at as i32, descending: false, nulls_first: false });
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(identity))
        .set_sorting_columns(Some(sorting.collect()))
        .set_max_row_group_row_count(Some(row_group))
        .build();
    let mut writer = ArrowWriter::try_new(vec![], Arc::clone(dataset.schema()), Some(properties)).unwrap();
    writer.write(&batch_of(dataset.schema(), rows)).unwrap();
    writer.into_inner().unwrap().into()
}

/// Puts `bytes` in the place of a run and makes the manifest agree with their size, rows and checksum.
pub(crate) async fn replace_run(
    store: &Arc<dyn ObjectStore>,
    dataset: &Dataset,
    run: usize,
    bytes: Bytes,
    rows: usize,
) {
    let trailer = &bytes[bytes.len() - 8..];
    let footer = u32::from_le_bytes(trailer[..4].try_into().unwrap()) + 8;
    let checksum = format!("{:016x}", twox_hash::XxHash64::oneshot(0, &bytes));
    let length = bytes.len();
    put(store, &run_paths(dataset)[run], bytes).await;
    edit_manifest(store, dataset.path().as_ref(), dataset.version(), |manifest| {
        let run = &mut manifest["runs"][run];
        run["bytes"] = length.into();
        run["footer_bytes"] = footer.into();
        run["rows"] = rows.into();
        run["checksum"]["value"] = checksum.into();
        // Fences may name rows that are gone.
        run["fences"] = Json::Array(vec![]);
    })
    .await;
}

/// Rewrites a run with other rows; the dataset as a reader opens it then.
pub(crate) async fn edit_run(
    store: &Arc<dyn ObjectStore>,
    dataset: &Dataset,
    run: usize,
    edit: impl FnOnce(&mut Vec<Row>),
) -> Dataset {
    let (mut rows, identity) = read_run(store, &run_paths(dataset)[run]).await;
    edit(&mut rows);
    let bytes = encode_run(dataset, &rows, identity, 1_000_000);
    replace_run(store, dataset, run, bytes, rows.len()).await;
    Dataset::open(Arc::clone(store), dataset.path().clone()).await.unwrap()
}
