//! `docs/format.md` held to the code: its known answers, its example, and the numbers of its invariants.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::ObjectStoreExt;
use serde_json::Value;
use sort_merge_bucket::{BucketSpec, Dataset, ErrorKind, KeyValue, Operation};

use crate::support::store;

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap()
}

/// A column of one value, from a type of the schema table and a value as in a bound.
fn column(data_type: &str, value: &Value) -> ArrayRef {
    let (base, arguments) =
        data_type.split_once('(').map_or((data_type, ""), |(base, rest)| (base, rest.strip_suffix(')').unwrap()));
    let arguments: Vec<&str> = arguments.split(',').collect();
    let text = value.as_str();
    let integer = || -> ArrayRef { Arc::new(Int64Array::from(vec![text.map(|text| text.parse::<i64>().unwrap())])) };
    let bytes = text.map(|text| BASE64.decode(text));
    match base {
        "boolean" => Arc::new(BooleanArray::from(vec![value.as_bool()])),
        "uint64" => Arc::new(UInt64Array::from(vec![text.map(|text| text.parse::<u64>().unwrap())])),
        "int8" => cast(&integer(), &DataType::Int8).unwrap(),
        "int32" => cast(&integer(), &DataType::Int32).unwrap(),
        "int64" => integer(),
        "uint32" => cast(&integer(), &DataType::UInt32).unwrap(),
        "date32" => cast(&cast(&integer(), &DataType::Int32).unwrap(), &DataType::Date32).unwrap(),
        "timestamp" => {
            let unit = match arguments[0] {
                "ms" => TimeUnit::Millisecond,
                "us" => TimeUnit::Microsecond,
                "ns" => TimeUnit::Nanosecond,
                other => panic!("unknown unit {other}"),
            };
            cast(&integer(), &DataType::Timestamp(unit, arguments.get(1).map(|zone| (*zone).into()))).unwrap()
        }
        "decimal128" => {
            let array = Decimal128Array::from(vec![text.map(|text| text.parse::<i128>().unwrap())]);
            Arc::new(
                array.with_precision_and_scale(arguments[0].parse().unwrap(), arguments[1].parse().unwrap()).unwrap(),
            )
        }
        "utf8" => Arc::new(StringArray::from(vec![text])),
        "binary" => Arc::new(BinaryArray::from(vec![bytes.map(|b| b.unwrap()).as_deref()])),
        "fixed_size_binary" => {
            let bytes = bytes.map(|b| b.unwrap());
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [bytes].into_iter(),
                    arguments[0].parse().unwrap(),
                )
                .unwrap(),
            )
        }
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn the_known_answers_of_the_format_are_those_of_the_bucket_function() {
    let document = document();
    let table = document.split_once("| key types | key |").unwrap().1;
    let mut rows = 0;
    let mut columns_seen = BTreeSet::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [types, key, hash, of_64, of_1000] = cells[..] else { panic!("{line}") };
        let types: Vec<&str> = types.split("`, `").map(|t| t.trim_matches('`')).collect();
        let key: Vec<Value> = serde_json::from_str(key.trim_matches('`')).unwrap();
        assert_eq!(types.len(), key.len(), "{line}");

        let names: Vec<String> = (0..types.len()).map(|i| format!("k{i}")).collect();
        let columns = names.iter().zip(types.iter().zip(&key)).map(|(name, (t, value))| (name, column(t, value), true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let spec = |buckets| BucketSpec::new(names.clone(), buckets).unwrap();
        assert_eq!(spec(1).hashes(&batch).unwrap()[0].cast_signed(), hash.parse::<i32>().unwrap(), "{line}");
        assert_eq!(spec(64).bucket_ids(&batch).unwrap(), [of_64.parse::<u32>().unwrap()], "{line}");
        assert_eq!(spec(1000).bucket_ids(&batch).unwrap(), [of_1000.parse::<u32>().unwrap()], "{line}");
        rows += 1;
        columns_seen.insert((types.len(), key.iter().any(Value::is_null)));
    }
    assert!(rows >= 40, "the table has {rows} rows");
    assert_eq!(columns_seen, BTreeSet::from([(1, false), (1, true), (2, false), (2, true), (3, false), (3, true)]));
}

/// The blocks of JSON in the document.
fn json_blocks() -> Vec<String> {
    let document = document();
    let blocks = document.split("```json\n").skip(1).map(|block| block.split_once("```").unwrap().0.to_owned());
    blocks.collect()
}

#[tokio::test]
async fn the_example_of_the_format_can_be_opened() {
    let blocks = json_blocks();
    let [manifest, tombstone] = &blocks[..] else { panic!("{} examples", blocks.len()) };
    let store = store();
    let put = |version: u64, text: &String| {
        let (store, text) = (Arc::clone(&store), text.clone());
        async move { store.put(&format!("plays/_smb/{version:020}.json").into(), text.into()).await.unwrap() }
    };
    put(1, tombstone).await;
    put(2, &tombstone.replace("\"version\": 1", "\"version\": 2")).await;
    put(3, manifest).await;
    let dataset = Dataset::open(Arc::clone(&store), "plays").await.unwrap();
    assert_eq!((dataset.version(), dataset.operation(), dataset.runs().len()), (3, Operation::Append, 2));
    assert_eq!(dataset.runs()[0].first_key.values, [KeyValue::Utf8("0a1".into())]);
    assert_eq!(dataset.schema().field(2).data_type().to_string(), "List(Utf8View)");
    let vacuumed = Dataset::open_version(store, "plays", 1).await.unwrap_err();
    assert_eq!(vacuumed.kind(), ErrorKind::NotFound);
    assert!(vacuumed.to_string().contains("vacuumed"), "{vacuumed}");
}

fn invariants(text: &str) -> BTreeSet<String> {
    let numbers =
        text.split("INV-").skip(1).filter_map(|rest| rest.get(..2)).filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    numbers.map(|n| format!("INV-{n}")).collect()
}

/// All text of the Rust files below a folder.
fn sources(folder: PathBuf) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn every_invariant_of_the_format_is_named_where_it_is_checked_and_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = invariants(&document());
    let expected: BTreeSet<String> = (1..=listed.len()).map(|n| format!("INV-{n:02}")).collect();
    assert_eq!(listed, expected, "numbers have no gaps");
    assert_eq!(invariants(&sources(root.join("src"))), listed);
    assert_eq!(invariants(&sources(root.join("tests"))), listed);
}

#[test]
fn every_link_inside_the_format_leads_somewhere() {
    let document = document();
    let anchors: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-").replace(',', ""))
        .collect();
    let links: Vec<&str> = document.split("](#").skip(1).map(|rest| rest.split_once(')').unwrap().0).collect();
    assert_eq!(links.len(), 12);
    assert!(links.iter().all(|link| anchors.contains(*link)), "{links:?} {anchors:?}");
}
