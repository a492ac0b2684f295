//! Every invariant of `docs/format.md` section 9, broken in the stored bytes: opening refuses it, or validation names it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use sort_merge_bucket::{BucketSpec, Dataset, DatasetWriter, ErrorKind, WriteId, WriteMode};

use crate::support::store;

const MANIFEST: &str = "users/_smb/00000000000000000002.json";

/// Two versions: a creation with ids 0 to 99 and an append of 100 to 199, in two buckets.
async fn users() -> Arc<dyn ObjectStore> {
    let store = store();
    for (n, mode) in [(0, WriteMode::Create), (1, WriteMode::Append)] {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(n * 100..n * 100 + 100));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|i| format!("user {i}"))));
        let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
        let spec = BucketSpec::new(["id"], 2).unwrap();
        let builder = DatasetWriter::builder(Arc::clone(&store), "users", batch.schema(), spec);
        let mut writer =
            builder.with_mode(mode).with_write_id(WriteId::new(format!("write-{n}")).unwrap()).build().await.unwrap();
        writer.write(&batch).await.unwrap();
        writer.commit().await.unwrap();
    }
    store
}

async fn get(store: &dyn ObjectStore, path: &str) -> Vec<u8> {
    store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn edit_manifest(store: &dyn ObjectStore, edit: impl FnOnce(&mut Value)) {
    let mut manifest: Value = serde_json::from_slice(&get(store, MANIFEST).await).unwrap();
    edit(&mut manifest);
    store.put(&Path::from(MANIFEST), serde_json::to_vec(&manifest).unwrap().into()).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_breaks_an_invariant_is_not_opened() {
    type Edit = fn(&mut Value);
    let edits: &[(&str, Edit)] = &[
        // Sound by itself, but under the name of version 2.
        ("INV-01", |m| {
            m["version"] = json!(3);
            m["data_version"] = json!(3);
            m["recent_writes"][1]["version"] = json!(3);
        }),
        ("INV-02", |m| m["base"] = json!(null)),
        ("INV-02", |m| m["base"] = json!(2)),
        ("INV-03", |m| m["spec"]["key"] = json!(["nobody"])),
        ("INV-03", |m| m["schema"][0]["type"] = json!("float64")),
        ("INV-03", |m| m["schema"][1]["name"] = json!("id")),
        ("INV-04", |m| m["data_version"] = json!(1)),
        ("INV-05", |m| m["dropped"] = json!(true)),
        ("INV-06", |m| m["recent_writes"] = json!([])),
        ("INV-07", |m| m["fenced_write_ids"] = json!(["write-0"])),
        ("INV-07", |m| m["fenced_write_ids"] = json!(["write-1"])),
        ("INV-08", |m| m["runs"][0]["bucket"] = json!(2)),
        ("INV-09", |m| m["runs"][0]["path"] = json!("data/../../secrets/data/x.parquet")),
        ("INV-09", |m| m["runs"][0]["path"] = m["runs"][1]["path"].clone()),
        ("INV-10", |m| m["runs"][0]["rows"] = json!(0)),
        ("INV-11", |m| m["runs"][0]["footer_bytes"] = m["runs"][0]["bytes"].clone()),
        ("INV-12", |m| m["runs"][0]["checksum"]["value"] = json!("zz")),
        ("INV-13", |m| m["runs"][0]["first_key"]["values"] = json!(["one"])),
        ("INV-13", |m| m["runs"][0]["last_key"]["values"] = json!([])),
        ("INV-14", |m| m["runs"][0]["first_key"]["values"] = json!(["1000"])),
        ("INV-15", |m| m["runs"][0]["fences"][0]["row"] = json!(1000)),
    ];
    for (number, edit) in edits {
        let store = users().await;
        edit_manifest(&store, edit).await;
        let error = Dataset::open(Arc::clone(&store), "users").await.unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(MANIFEST)), "{error}");
        assert!(error.to_string().contains(number), "{number}: {error}");
    }
}

/// The invariants that validation finds broken.
async fn found(store: &Arc<dyn ObjectStore>) -> Vec<&'static str> {
    let dataset = Dataset::open(Arc::clone(store), "users").await.unwrap();
    let mut numbers: Vec<&str> = dataset.validate().await.unwrap().violations.iter().map(|v| v.invariant).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[tokio::test]
async fn a_manifest_that_is_wrong_about_other_objects_is_named_by_validation() {
    type Edit = fn(&mut Value);
    let edits: &[(&str, Edit)] = &[
        ("INV-16", |m| m["dataset_id"] = json!("00000000-0000-4000-8000-000000000000")),
        ("INV-17", |m| m["runs"][0]["bytes"] = json!(m["runs"][0]["bytes"].as_u64().unwrap() + 1)),
        ("INV-18", |m| m["runs"][0]["footer_bytes"] = json!(m["runs"][0]["footer_bytes"].as_u64().unwrap() + 1)),
        ("INV-19", |m| m["runs"][0]["buckets"] = json!(4)),
        ("INV-20", |m| m["runs"][0]["rows"] = json!(m["runs"][0]["rows"].as_u64().unwrap() + 1)),
        ("INV-21", |m| m["schema"][1]["type"] = json!("binary")),
        ("INV-22", |m| m["spec"]["sort"] = json!([{"name": "name", "direction": "ascending", "nulls": "last"}])),
        ("INV-25", |m| m["runs"][0]["fences"][0]["key"]["values"] = m["runs"][0]["first_key"]["values"].clone()),
        ("INV-26", |m| m["runs"][0]["checksum"]["value"] = json!("0000000000000000")),
    ];
    assert_eq!(found(&users().await).await, [""; 0]);
    for (number, edit) in edits {
        let store = users().await;
        edit_manifest(&store, edit).await;
        let found = found(&store).await;
        assert!(found.contains(number), "{number}: {found:?}");
    }
}

/// Puts a file of these ids into the place of the first run, with a manifest that means it.
async fn replace_run(store: &Arc<dyn ObjectStore>, ids: Vec<i64>, damage: Option<(&[u8], &[u8])>) {
    let dataset = Dataset::open(Arc::clone(store), "users").await.unwrap();
    let run = dataset.runs()[0].clone();
    let path = dataset.run_paths().next().unwrap();
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("user {id}"))));
    let (first, last, rows) = (ids[0], ids[ids.len() - 1], ids.len());
    let batch =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(ids)) as ArrayRef), ("name", names)]).unwrap();
    let sorting = vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }];
    let properties = WriterProperties::builder().set_sorting_columns(Some(sorting)).build();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let run_id = run.path.rsplit_once("bucket-00000-of-00002-").unwrap().1.strip_suffix(".parquet").unwrap();
    for (key, value) in [
        ("smb.format", "1"),
        ("smb.dataset_id", dataset.id().as_str()),
        ("smb.write_id", "write-0"),
        ("smb.run_id", run_id),
        ("smb.bucket", "0"),
        ("smb.buckets", "2"),
    ] {
        writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value.to_owned()));
    }
    let mut bytes = writer.into_inner().unwrap();
    if let Some((from, to)) = damage {
        let at = bytes.windows(from.len()).rposition(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    let metadata = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap());
    edit_manifest(store, |m| {
        let bound = |id: i64| json!({"values": [id.to_string()], "exact": true});
        let run = &mut m["runs"][0];
        run["bytes"] = json!(bytes.len());
        run["footer_bytes"] = json!(metadata + 8);
        run["rows"] = json!(rows);
        run["first_key"] = bound(first);
        run["last_key"] = bound(last);
        run["fences"] = json!([]);
        // Of an algorithm that is skipped.
        run["checksum"] = json!({"algorithm": "none", "value": ""});
    })
    .await;
    store.put(&path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn rows_that_break_an_invariant_are_named_by_validation() {
    let spec = BucketSpec::new(["id"], 2).unwrap();
    let all: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let buckets = spec.bucket_ids(&RecordBatch::try_from_iter([("id", all)]).unwrap()).unwrap();
    let of = |bucket: u32| (0..100_i64).filter(|id| buckets[*id as usize] == bucket).take(9).collect::<Vec<_>>();

    let store = users().await;
    replace_run(&store, of(0), None).await;
    assert_eq!(found(&store).await, [""; 0]);
    let mut unsorted = of(0);
    unsorted.swap(3, 4);
    replace_run(&store, unsorted, None).await;
    assert_eq!(found(&store).await, ["INV-23"]);
    replace_run(&store, of(1), None).await;
    assert_eq!(found(&store).await, ["INV-24"]);
    // The last place of a name in the file is the least name in its footer.
    replace_run(&store, of(0), Some((b"user ", b"usez "))).await;
    assert_eq!(found(&store).await, ["INV-27"]);
}
