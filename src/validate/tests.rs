//! Tests of validation: a sound dataset passes, and each kind of damage is named by its invariant.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::take;
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{KeyValue as FooterValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use twox_hash::XxHash64;

use super::*;
use crate::manifest::{Checksum, KeyBound, KeyValue, Manifest, encode};
use crate::spec::BucketSpec;
use crate::store::tests::{FaultStore, When};
use crate::write::{DatasetWriter, WriteMode, WriteOptions};

/// 500 rows with a column of every kind, nulls, NaN and both zeros; keys repeat.
fn rows() -> RecordBatch {
    let n = 500_i64;
    let some = |i: i64| i % 7 != 3;
    let column = |array: ArrayRef| array;
    let float = |i: i64| match i % 5 {
        0 => f64::NAN,
        1 => -0.0,
        2 => 0.0,
        _ => i as f64 / 3.0 - 50.0,
    };
    let lists = (0..n).map(|i| some(i).then(|| (0..i % 4).map(|j| Some(j as i32)).collect::<Vec<_>>()));
    RecordBatch::try_from_iter_with_nullable([
        ("id", column(Arc::new(Int64Array::from_iter((0..n).map(|i| (i % 50 != 9).then_some(i * 37 % 101))))), true),
        (
            "at",
            column(Arc::new(TimestampMillisecondArray::from_iter_values((0..n).map(|i| i * 7919 % 1000 - 500)))),
            false,
        ),
        (
            "name",
            column(Arc::new(StringArray::from_iter((0..n).map(|i| some(i).then(|| format!("name-{i}-é")))))),
            true,
        ),
        ("flag", column(Arc::new(BooleanArray::from_iter((0..n).map(|i| some(i).then_some(i % 2 == 0))))), true),
        ("day", column(Arc::new(Date32Array::from_iter((0..n).map(|i| some(i).then_some(i as i32 - 250))))), true),
        ("big", column(Arc::new(UInt64Array::from_iter_values((0..n).map(|i| u64::MAX - i as u64)))), false),
        (
            "price",
            column(Arc::new(Decimal128Array::from_iter((0..n).map(|i| some(i).then_some(i128::from(i) - 9))))),
            true,
        ),
        ("score", column(Arc::new(Float64Array::from_iter((0..n).map(|i| some(i).then(|| float(i)))))), true),
        ("ratio", column(Arc::new(Float32Array::from_iter_values((0..n).map(|i| float(i) as f32)))), false),
        (
            "raw",
            column(Arc::new(BinaryArray::from_iter((0..n).map(|i| some(i).then(|| vec![i as u8; i as usize % 90]))))),
            true,
        ),
        (
            "hash",
            column(Arc::new(FixedSizeBinaryArray::try_from_iter((0..n).map(|i| (i * 31).to_be_bytes())).unwrap())),
            false,
        ),
        ("tags", column(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))), true),
    ])
    .unwrap()
}

fn options() -> WriteOptions {
    WriteOptions::default().with_max_row_group_rows(90).with_page_rows(20)
}

async fn write(store: &Arc<dyn ObjectStore>, spec: BucketSpec, mode: WriteMode, rows: &RecordBatch) -> Dataset {
    let builder =
        DatasetWriter::builder(Arc::clone(store), "plays", rows.schema(), spec).with_mode(mode).with_options(options());
    let mut writer = builder.build().await.unwrap();
    writer.write(rows).await.unwrap();
    writer.commit().await.unwrap()
}

fn spec() -> BucketSpec {
    BucketSpec::new(["id"], 2).unwrap().with_sort_columns(["at"]).unwrap()
}

async fn written() -> (Arc<dyn ObjectStore>, Dataset) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dataset = write(&store, spec(), WriteMode::Create, &rows()).await;
    assert_eq!(dataset.runs().len(), 2);
    (store, dataset)
}

/// The dataset with an edited manifest in the place of its own.
async fn with_manifest(dataset: &Dataset, edit: impl FnOnce(&mut Manifest)) -> Dataset {
    let mut manifest = dataset.manifest().as_ref().clone();
    edit(&mut manifest);
    let path = dataset.place().layout.manifest(manifest.version);
    dataset.store().put(&path, encode(&manifest).unwrap().into()).await.unwrap();
    Dataset::from_manifest(dataset.place().clone(), Arc::new(manifest)).unwrap()
}

async fn bytes_of(dataset: &Dataset, run: usize) -> Bytes {
    let path = dataset.run_paths().nth(run).unwrap();
    dataset.store().get(&path).await.unwrap().bytes().await.unwrap()
}

/// The dataset with other bytes as one of its runs, and a manifest that means these bytes.
async fn with_file(dataset: &Dataset, run: usize, bytes: impl Into<Bytes>) -> Dataset {
    let bytes = bytes.into();
    dataset.store().put(&dataset.run_paths().nth(run).unwrap(), bytes.clone().into()).await.unwrap();
    with_manifest(dataset, |manifest| {
        let run = &mut manifest.runs[run];
        run.bytes = bytes.len() as u64;
        run.footer_bytes =
            u64::from(u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap())) + 8;
        run.checksum = Checksum::xxh64(XxHash64::oneshot(0, &bytes));
    })
    .await
}

fn decode(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// A Parquet file as the writer would make it, unless `edit` and `sorted` say otherwise.
fn encode_file(rows: &RecordBatch, from: &Bytes, sorted: bool, edit: impl Fn(&str, String) -> String) -> Vec<u8> {
    let sorting = [0, 1].map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: false });
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(90))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(sorted.then(|| sorting.to_vec()))
        .build();
    let mut writer = ArrowWriter::try_new(vec![], rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    let metadata = ParquetRecordBatchReaderBuilder::try_new(from.clone()).unwrap();
    for FooterValue { key, value } in metadata.metadata().file_metadata().key_value_metadata().unwrap() {
        if key.starts_with("smb.") {
            writer.append_key_value_metadata(FooterValue::new(key.clone(), edit(key, value.clone().unwrap())));
        }
    }
    writer.into_inner().unwrap()
}

fn unedited(_: &str, value: String) -> String {
    value
}

/// Validates, and gives the invariants that do not hold.
async fn broken(dataset: &Dataset) -> Vec<&'static str> {
    let report = dataset.validate().await.unwrap();
    assert_eq!(report.is_valid(), report.violations.is_empty());
    let numbers: BTreeSet<&str> = report.violations.iter().map(|violation| violation.invariant).collect();
    numbers.into_iter().collect()
}

#[tokio::test]
async fn a_sound_dataset_is_valid() {
    let (store, dataset) = written().await;
    let report = dataset.validate().await.unwrap();
    assert!(report.is_valid(), "{report}");
    assert_eq!((report.runs, report.rows, report.bytes), (2, 500, dataset.statistics().bytes));
    let spec = spec().with_buckets(3.try_into().unwrap());
    let appended = write(&store, spec, WriteMode::Append, &rows().slice(100, 300)).await;
    let report = appended.validate().await.unwrap();
    assert!(report.is_valid(), "{report}");
    assert_eq!((report.runs, report.rows), (5, 800));
    assert_eq!(report.to_string(), format!("5 runs, 800 rows, {} bytes: valid", report.bytes));
}

#[tokio::test]
async fn every_type_of_key_is_valid() {
    for key in ["at", "name", "flag", "day", "big", "price", "raw", "hash"] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let spec = BucketSpec::new([key, "id"], 3).unwrap();
        let report = write(&store, spec, WriteMode::Create, &rows()).await.validate().await.unwrap();
        assert!(report.is_valid(), "{report}");
        assert_eq!(report.rows, 500);
    }
}

#[tokio::test]
async fn a_missing_run_is_a_violation_with_its_path() {
    let (store, dataset) = written().await;
    store.delete(&dataset.run_paths().next().unwrap()).await.unwrap();
    let report = dataset.validate().await.unwrap();
    let expected = format!("INV-17: the run is missing, path=`{}`", dataset.runs()[0].path);
    assert_eq!(report.violations.iter().map(Violation::to_string).collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn damage_anywhere_in_a_file_is_found_and_never_panics_the_caller() {
    let (store, dataset) = written().await;
    let path = dataset.run_paths().next().unwrap();
    let whole = bytes_of(&dataset, 0).await;
    let footer = whole.len() - dataset.runs()[0].footer_bytes as usize;
    for at in (0..footer).step_by(131).chain((footer..whole.len()).step_by(7)) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x24;
        store.put(&path, bytes.into()).await.unwrap();
        assert!(broken(&dataset).await.contains(&"INV-26"), "byte {at}");
    }
    for length in [0, 3, 7, 8, 100, footer, whole.len() - 1] {
        store.put(&path, whole.slice(..length).into()).await.unwrap();
        assert_eq!(broken(&dataset).await, ["INV-17", "INV-18", "INV-26"], "cut to {length} bytes");
    }
    store.put(&path, [&whole[..], b"x"].concat().into()).await.unwrap();
    assert_eq!(broken(&dataset).await, ["INV-17", "INV-18", "INV-26"]);
}

#[tokio::test]
async fn a_manifest_that_is_wrong_about_its_runs_is_found() {
    type Edit = fn(&mut Manifest);
    let edits: &[(&str, Edit)] = &[
        ("INV-17", |m| m.runs[0].bytes += 1),
        ("INV-18", |m| m.runs[0].footer_bytes -= 1),
        ("INV-20", |m| m.runs[0].rows += 1),
        ("INV-21", |m| m.schema[2].name = "title".into()),
        ("INV-21", |m| m.schema[4].type_name = "int32".into()),
        ("INV-21", |m| m.schema[2].nullable = false),
        ("INV-25", |m| m.runs[0].first_key = KeyBound { values: vec![KeyValue::Integer(-1)], exact: true }),
        ("INV-25", |m| m.runs[0].last_key = KeyBound { values: vec![KeyValue::Integer(100)], exact: true }),
        ("INV-25", |m| m.runs[0].fences[1].key = m.runs[0].fences[0].key.clone()),
        ("INV-25", |m| {
            m.runs[0].fences.clear();
            m.runs[0].first_key = KeyBound { values: vec![KeyValue::Integer(50)], exact: false };
        }),
        ("INV-25", |m| m.runs[0].last_key = KeyBound { values: vec![KeyValue::Integer(100)], exact: false }),
        ("INV-26", |m| m.runs[0].checksum.value = "0123456789abcdef".into()),
    ];
    for (number, edit) in edits {
        let (_, dataset) = written().await;
        assert_eq!(broken(&with_manifest(&dataset, edit).await).await, [*number]);
    }
}

#[tokio::test]
async fn an_unknown_checksum_algorithm_and_a_wider_bound_are_no_violations() {
    let (_, dataset) = written().await;
    let dataset = with_manifest(&dataset, |manifest| {
        manifest.runs[0].checksum = Checksum { algorithm: "crc64".into(), value: "?".into() };
        manifest.runs[0].first_key = KeyBound { values: vec![KeyValue::Integer(-7)], exact: false };
    })
    .await;
    assert_eq!(broken(&dataset).await, [""; 0]);
}

#[tokio::test]
async fn a_file_in_the_place_of_another_is_found() {
    let (_, dataset) = written().await;
    let other = bytes_of(&dataset, 1).await;
    let dataset = with_file(&dataset, 0, other).await;
    let found = broken(&dataset).await;
    assert!(found.contains(&"INV-19") && found.contains(&"INV-24"), "{found:?}");
    for key in ["smb.format", "smb.dataset_id", "smb.write_id", "smb.run_id", "smb.bucket", "smb.buckets"] {
        let (_, dataset) = written().await;
        let bytes = bytes_of(&dataset, 0).await;
        let edit = |name: &str, value: String| if name == key { format!("1{value}") } else { value };
        let edited = encode_file(&decode(&bytes), &bytes, true, edit);
        assert_eq!(broken(&with_file(&dataset, 0, edited).await).await, ["INV-19"], "{key}");
    }
}

#[tokio::test]
async fn a_file_that_does_not_state_its_order_is_found() {
    let (_, dataset) = written().await;
    let bytes = bytes_of(&dataset, 0).await;
    let again = encode_file(&decode(&bytes), &bytes, true, unedited);
    assert_eq!(broken(&with_file(&dataset, 0, again).await).await, [""; 0], "other row groups are fine");
    let unsaid = encode_file(&decode(&bytes), &bytes, false, unedited);
    assert_eq!(broken(&with_file(&dataset, 0, unsaid).await).await, ["INV-22"]);
    let longer = with_manifest(&dataset, |m| m.spec = m.spec.clone().with_sort_columns(["at", "name"]).unwrap()).await;
    assert!(broken(&longer).await.contains(&"INV-22"));
}

#[tokio::test]
async fn unsorted_rows_are_found_with_both_keys_also_between_batches_and_row_groups() {
    for swap in [5_u64, 89, 90] {
        let (_, dataset) = written().await;
        let bytes = bytes_of(&dataset, 0).await;
        let rows = decode(&bytes);
        let order: Vec<u64> = (0..rows.num_rows() as u64)
            .map(|row| match row {
                row if row == swap => swap + 1,
                row if row == swap + 1 => swap,
                row => row,
            })
            .collect();
        let order = UInt64Array::from(order);
        let columns = rows.columns().iter().map(|column| take(column, &order, None).unwrap()).collect();
        let swapped = encode_file(&RecordBatch::try_new(rows.schema(), columns).unwrap(), &bytes, true, unedited);
        let report = with_file(&dataset, 0, swapped).await.validate().await.unwrap();
        let unsorted: Vec<&Violation> = report.violations.iter().filter(|v| v.invariant == "INV-23").collect();
        assert_eq!(unsorted.iter().map(|v| v.row).collect::<Vec<_>>(), [Some(swap + 1)], "{report}");
        assert!(unsorted[0].message.contains("previous=`(") && unsorted[0].message.contains("key=`("), "{report}");
    }
}

#[tokio::test]
async fn misplaced_rows_are_found_with_both_buckets_and_counted() {
    let (_, dataset) = written().await;
    let bytes = bytes_of(&dataset, 0).await;
    let rows = decode(&bytes);
    let id: ArrayRef = Arc::new(
        arrow::compute::kernels::numeric::add(rows.column(0), &Int64Array::new_scalar(1))
            .unwrap()
            .slice(0, rows.num_rows()),
    );
    let columns = std::iter::once(id).chain(rows.columns()[1..].iter().cloned()).collect();
    let moved = encode_file(&RecordBatch::try_new(rows.schema(), columns).unwrap(), &bytes, true, unedited);
    let report = with_file(&dataset, 0, moved).await.validate().await.unwrap();
    let misplaced: Vec<&Violation> = report.violations.iter().filter(|v| v.invariant == "INV-24").collect();
    assert_eq!(misplaced.len(), 101, "a hundred, and how many more");
    assert!(misplaced[0].message.contains("expected=`1`, found=`0`"), "{}", misplaced[0]);
    assert!(misplaced[100].message.contains("not_listed=`"), "{}", misplaced[100]);
}

#[tokio::test]
async fn statistics_that_are_not_true_are_found() {
    let (_, dataset) = written().await;
    let bytes = bytes_of(&dataset, 0).await;
    let footer = bytes.len() - dataset.runs()[0].footer_bytes as usize;
    // The least and greatest names stand in the footer and in the page index as they are.
    let name = b"name-";
    let places: Vec<usize> = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    let (in_footer, in_pages): (Vec<usize>, Vec<usize>) = places.into_iter().partition(|at| *at >= footer);
    assert!(in_footer.len() >= 2 && in_pages.len() > in_footer.len());
    for (at, piece) in [(in_footer[0], "row group"), (*in_pages.last().unwrap(), "page")] {
        let mut levels = BTreeSet::new();
        for letter in [b"zzzz-", b"aaaa-"] {
            let mut edited = bytes.to_vec();
            edited[at..at + name.len()].copy_from_slice(letter);
            let report = with_file(&dataset, 0, edited).await.validate().await.unwrap();
            levels.extend(
                report
                    .violations
                    .iter()
                    .map(|v| (v.invariant, v.message.contains(&format!("statistics of its {piece}, column=`name`")))),
            );
        }
        assert_eq!(levels, BTreeSet::from([("INV-27", true)]));
    }
}

#[tokio::test]
async fn a_manifest_that_changed_or_has_another_past_is_found() {
    let (store, dataset) = written().await;
    with_manifest(&dataset, |manifest| manifest.properties.extend([("a".to_owned(), "b".to_owned())])).await;
    assert_eq!(broken(&dataset).await, ["INV-01"]);
    store.delete(&dataset.place().layout.manifest(1)).await.unwrap();
    assert_eq!(broken(&dataset).await, ["INV-01"]);
    let (store, _) = written().await;
    let second = write(&store, spec(), WriteMode::Append, &rows()).await;
    assert_eq!(broken(&second).await, [""; 0]);
    store.put(&second.place().layout.manifest(1), "{}".into()).await.unwrap();
    assert_eq!(broken(&second).await, ["INV-16"]);
    store.delete(&second.place().layout.manifest(1)).await.unwrap();
    assert_eq!(broken(&second).await, ["INV-16"]);
}

#[tokio::test]
async fn an_outage_is_an_error_and_no_violation() {
    let faults = Arc::new(FaultStore::default());
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    let dataset = write(&store, spec(), WriteMode::Create, &rows()).await;
    faults.take_log();
    assert!(dataset.validate().await.unwrap().is_valid());
    let operations = faults.take_log().len();
    assert!(operations > 10);
    for k in 0..operations {
        faults.fail(k..k + 1, When::Before);
        assert_eq!(dataset.validate().await.unwrap_err().kind(), ErrorKind::Store, "operation {k}");
        faults.heal();
    }
}
