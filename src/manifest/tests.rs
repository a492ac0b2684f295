//! Tests of the codec, the bounds and the invariants, and the example manifest that other tests build on.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int8Array, StringViewArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bounds::integer_range;
use super::invariants::require;
use super::*;
use crate::error::ErrorKind;
use crate::layout::{Clock, DatasetId, Layout, WriteId};
use crate::schema::field_defs;
use crate::spec::{BucketCount, BucketSpec};

pub(crate) fn write_id(id: &str) -> WriteId {
    WriteId::new(id).unwrap()
}

/// A run of `bucket` of 4 with int64 and string keys.
pub(crate) fn example_run(write: &str, bucket: u32) -> Run {
    let buckets = BucketCount::new(4).unwrap();
    let key = |id: i128, name: &str| vec![KeyValue::Integer(id), KeyValue::Utf8(name.to_owned())];
    let lower = |id, name| KeyBound::lower(&key(id, name));
    Run {
        bucket,
        buckets,
        path: Layout::new_run(&write_id(write), bucket, buckets, "00000-00000000-000001"),
        bytes: 5_000,
        footer_bytes: 700,
        rows: 1_000,
        first_key: lower(-5, "a"),
        last_key: KeyBound::upper(&key(7, &"z".repeat(100))),
        fences: vec![Fence { key: lower(-5, "a"), row: 0 }, Fence { key: lower(2, "\"\\\n"), row: 500 }],
        checksum: Checksum::xxh64(0xfe),
        unknown: serde_json::Map::new(),
    }
}

/// A creation with two runs.
pub(crate) fn example() -> Manifest {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8View, false),
        Field::new("price", DataType::Decimal128(12, 2), true),
    ]);
    let clock = Clock::Fixed(DateTime::from_timestamp_millis(1_735_689_600_123).unwrap());
    let own = write_id("w1");
    Manifest {
        reader_features: vec![],
        writer_features: vec![],
        dataset_id: DatasetId::generate(clock, &own),
        version: 1,
        base: None,
        operation: Operation::Create,
        write_id: own.clone(),
        committed_at: clock.now(),
        data_version: 1,
        dropped: false,
        spec: BucketSpec::new(["id", "name"], 4).unwrap().with_sort_columns(["price"]).unwrap(),
        schema: field_defs(&schema).unwrap(),
        runs: vec![example_run("w1", 0), example_run("w1", 3)],
        lineage: vec![],
        properties: BTreeMap::from([("owner".to_owned(), "tests".to_owned())]),
        recent_writes: vec![RecentWrite { write_id: own, version: 1 }],
        fenced_write_ids: vec![write_id("gone")],
        unknown: serde_json::Map::new(),
    }
}

fn decoded(bytes: &[u8]) -> Manifest {
    match decode(bytes).unwrap() {
        Document::Manifest(manifest) => *manifest,
        Document::Tombstone(_) => panic!("a tombstone"),
    }
}

/// The example as JSON after an edit.
fn edited(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = serde_json::from_slice(&encode(&example()).unwrap()).unwrap();
    edit(&mut document);
    serde_json::to_vec(&document).unwrap()
}

fn refusal(edit: impl FnOnce(&mut Value)) -> (ErrorKind, String) {
    let error = decode(&edited(edit)).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn a_manifest_is_text_with_a_run_per_line_and_reads_back_equal() {
    let bytes = encode(&example()).unwrap();
    assert_eq!(decoded(&bytes), example());
    assert_eq!(encode(&example()).unwrap(), bytes, "encoding is deterministic");
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("{\n  \"format_version\": 1,\n  \"reader_features\": [],\n"), "{text}");
    assert!(text.ends_with("}\n") && !text.ends_with("\n\n"));
    let line = text.lines().find(|line| line.contains("bucket-00003-of-00004")).unwrap();
    assert!(
        line.starts_with("    {\"bucket\": 3, ")
            && line.contains("\"first_key\": {\"values\": [\"-5\", \"a\"], \"exact\": true}"),
        "{line}"
    );
    assert!(text.contains("\"committed_at\": \"2025-01-01T00:00:00.123Z\""), "{text}");
}

#[test]
fn fields_of_a_newer_library_are_ignored_and_kept() {
    let bytes = edited(|m| {
        m["zones"] = json!([{"a": 1.1, "b": null}, 18_446_744_073_709_551_615_u64]);
        m["runs"][1]["bloom"] = json!("x");
    });
    let manifest = decoded(&bytes);
    assert_eq!(manifest.unknown["zones"][0]["a"], json!(1.1));
    assert_eq!(manifest.runs[1].unknown["bloom"], json!("x"));
    assert_eq!(decoded(&encode(&manifest).unwrap()), manifest);
}

#[test]
fn what_needs_a_newer_library_is_refused_with_its_name() {
    let unsupported = |edit: fn(&mut Value), name: &str| {
        let (kind, message) = refusal(edit);
        assert_eq!(kind, ErrorKind::UnsupportedVersion, "{message}");
        assert!(message.contains(name), "{message}");
    };
    // Nothing else of a later format version need be recognisable.
    unsupported(|m| *m = json!({"format_version": 2, "runs": "elsewhere"}), "found=`2`, supported=`1`");
    unsupported(|m| m["reader_features"] = json!(["deletion-vectors"]), "deletion-vectors");
    unsupported(|m| m["spec"]["function"] = json!("scio-v1"), "bucket function scio-v1");
    unsupported(|m| m["spec"]["key_order"] = json!("avro"), "key order avro");
    unsupported(|m| m["spec"]["sort"][0]["direction"] = json!("descending"), "sort direction descending");
    unsupported(|m| m["spec"]["sort"][0]["nulls"] = json!("first"), "null placement first");
    unsupported(|m| m["operation"] = json!("merge"), "operation merge");
    unsupported(|m| m["schema"][2]["type"] = json!("variant"), "variant");
}

#[test]
fn an_unknown_writer_feature_refuses_writing_only() {
    let manifest = decoded(&edited(|m| m["writer_features"] = json!(["row-ids"])));
    let error = check_writable(&manifest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("row-ids"), "{error}");
    check_writable(&example()).unwrap();
}

#[test]
fn a_tombstone_keeps_its_version_and_nothing_of_the_rows() {
    let Manifest { dataset_id, version, write_id, committed_at, .. } = example();
    let tombstone = Tombstone { dataset_id, version, write_id, committed_at };
    let bytes = encode_tombstone(&tombstone).unwrap();
    assert_eq!(decode(&bytes).unwrap(), Document::Tombstone(tombstone));
    assert!(!String::from_utf8(bytes).unwrap().contains("key"));
}

#[test]
fn bytes_that_are_no_manifest_are_corrupt() {
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"{\"format_version\":\"1\"}",
        b"{\"format_version\":1}",
        b"\xff\xfe",
        b"{\"format_version\":1,\"tombstone\":true}",
    ] {
        assert_eq!(decode(bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        decode(format!("{{\"format_version\":1,\"x\":{deep}").as_bytes()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn damage_at_any_byte_is_an_error_or_another_valid_manifest() {
    fn survives(bytes: &[u8]) {
        match decode(bytes) {
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion), "{e}"),
            Ok(Document::Tombstone(_)) => {}
            Ok(Document::Manifest(manifest)) => {
                assert_eq!(check(&manifest), []);
                encode(&manifest).unwrap();
            }
        }
    }
    let whole = encode(&example()).unwrap();
    for at in 0..whole.len() {
        survives(&whole[..at]);
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            survives(&bytes);
        }
        let mut bytes = whole.clone();
        bytes.remove(at);
        survives(&bytes);
        for extra in *b"0,\"{}[-\n" {
            let mut bytes = whole.clone();
            bytes.insert(at, extra);
            survives(&bytes);
        }
    }
    for at in 0..whole.len() - 1 {
        assert!(decode(&whole[..at]).is_err(), "cut to {at} bytes");
    }
    for extra in [&b"}"[..], b"{}", b"\0", b"x"] {
        assert!(decode(&[whole.as_slice(), extra].concat()).is_err());
    }
}

#[test]
fn key_values_of_every_type_read_back() {
    let types = [
        (DataType::Boolean, KeyValue::Boolean(true), json!(true)),
        (DataType::Int8, KeyValue::Integer(-128), json!("-128")),
        (DataType::UInt64, KeyValue::Integer(u64::MAX.into()), json!("18446744073709551615")),
        (DataType::Date32, KeyValue::Integer(-1), json!("-1")),
        (DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), KeyValue::Integer(5), json!("5")),
        (
            DataType::Decimal128(38, 10),
            KeyValue::Integer(10_i128.pow(38) - 1),
            json!("99999999999999999999999999999999999999"),
        ),
        (DataType::Utf8View, KeyValue::Utf8("å\"".into()), json!("å\"")),
        (DataType::BinaryView, KeyValue::Binary(vec![0, 255]), json!("AP8=")),
        (DataType::FixedSizeBinary(2), KeyValue::Binary(vec![1, 2]), json!("AQI=")),
        (DataType::Int64, KeyValue::Null, json!(null)),
    ];
    for (data_type, value, text) in types {
        let spec = BucketSpec::new(["k"], 4).unwrap();
        let schema = field_defs(&Schema::new(vec![Field::new("k", data_type, true)])).unwrap();
        let key = KeyBound { values: vec![value], exact: true };
        let run = Run {
            first_key: key.clone(),
            last_key: key.clone(),
            fences: vec![Fence { key, row: 0 }],
            ..example_run("w", 1)
        };
        let encoded = serde_json::to_value(encode_runs(std::slice::from_ref(&run))).unwrap();
        assert_eq!(encoded[0]["fences"][0]["key"]["values"][0], text);
        assert_eq!(decode_runs(serde_json::from_value(encoded).unwrap(), &schema, &spec).unwrap(), [run]);
    }
}

#[test]
fn key_values_of_another_type_are_corrupt() {
    for value in [
        json!(5),
        json!("5.0"),
        json!("05"),
        json!("+5"),
        json!("9223372036854775808"),
        json!(true),
        json!([]),
        json!("x"),
    ] {
        let (kind, message) = refusal(|m| m["runs"][0]["first_key"]["values"][0] = value.clone());
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(message.contains("INV-13"), "{message}");
    }
    assert_eq!(integer_range(&DataType::Decimal128(3, 1)), Some((-999, 999)));
}

#[test]
fn every_invariant_of_a_manifest_is_checked() {
    type Break = fn(&mut Manifest);
    let breaks: &[(&str, Break)] = &[
        ("INV-01", |m| m.version = 0),
        ("INV-02", |m| m.base = Some(1)),
        ("INV-02", |m| m.operation = Operation::Append),
        ("INV-02", |m| m.version = 2),
        ("INV-03", |m| m.spec = BucketSpec::new(["absent"], 4).unwrap()),
        ("INV-03", |m| m.schema.push(m.schema[0].clone())),
        ("INV-03", |m| m.schema[0].type_name = "float64".into()),
        ("INV-04", |m| m.data_version = 2),
        ("INV-05", |m| m.dropped = true),
        ("INV-06", |m| m.recent_writes.clear()),
        ("INV-06", |m| m.recent_writes.push(m.recent_writes[0].clone())),
        ("INV-06", |m| m.recent_writes[0].write_id = write_id("other")),
        ("INV-07", |m| m.fenced_write_ids.push(m.write_id.clone())),
        ("INV-07", |m| m.runs[1].path = "data/gone/bucket.parquet".into()),
        ("INV-08", |m| m.runs[1].bucket = 4),
        ("INV-09", |m| m.runs[1].path = m.runs[0].path.clone()),
        ("INV-09", |m| m.runs[1].path = "../other/data/w1/x.parquet".into()),
        ("INV-09", |m| m.runs[1].path = "data/w1/../../x.parquet".into()),
        ("INV-09", |m| m.runs[1].path = "data/x.parquet".into()),
        ("INV-09", |m| m.runs[1].path = "/data/w1/x.parquet".into()),
        ("INV-10", |m| m.runs[0].rows = 0),
        ("INV-11", |m| m.runs[0].footer_bytes = 4_997),
        ("INV-11", |m| m.runs[0].footer_bytes = 7),
        ("INV-12", |m| m.runs[0].checksum.value = "FE".into()),
        ("INV-13", |m| m.runs[0].first_key.values[0] = KeyValue::Utf8("5".into())),
        ("INV-13", |m| m.runs[0].first_key.values.truncate(1)),
        ("INV-13", |m| m.runs[0].last_key.values.clear()),
        ("INV-14", |m| m.runs[0].first_key.values[0] = KeyValue::Integer(8)),
        ("INV-15", |m| m.runs[0].fences[1].row = 1_000),
        ("INV-15", |m| m.runs[0].fences[1].row = 0),
        ("INV-15", |m| m.runs[0].fences.swap(0, 1)),
        ("INV-15", |m| m.runs[0].fences[0].key.values[0] = KeyValue::Integer(-6)),
        ("INV-15", |m| m.runs[0].fences[1].key.values[0] = KeyValue::Null),
        ("INV-15", |m| m.runs[0].fences = (0..17).map(|row| Fence { key: m.runs[0].first_key.clone(), row }).collect()),
    ];
    assert_eq!(check(&example()), []);
    for (number, change) in breaks {
        let mut manifest = example();
        change(&mut manifest);
        let found = check(&manifest);
        assert!(found.iter().any(|v| v.invariant == *number), "{number}: {found:?}");
        assert_eq!(require(&manifest).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(encode(&manifest).unwrap_err().kind(), ErrorKind::Internal, "what breaks {number} is not written");
    }
}

#[test]
fn a_manifest_with_many_faults_lists_them_all() {
    let mut manifest = example();
    manifest.runs[0].bucket = 9;
    manifest.runs[1].rows = 0;
    let message = require(&manifest).unwrap_err().to_string();
    assert!(
        message.contains("INV-08") && message.contains("INV-10") && message.contains(&manifest.runs[1].path),
        "{message}"
    );
}

#[test]
fn keys_are_taken_from_every_canonical_array() {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![-3, 4])),
        Arc::new(UInt64Array::from(vec![u64::MAX, 0])),
        Arc::new(TimestampNanosecondArray::from(vec![-7, 0]).with_timezone("UTC")),
        Arc::new(Decimal128Array::from(vec![-5, 1])),
        Arc::new(StringViewArray::from(vec![Some("a\"b"), None])),
        Arc::new(BinaryViewArray::from(vec![&b"\x00\xff"[..], b""])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([b"xy", b"zz"].into_iter()).unwrap()),
    ];
    let first = key_at(&columns, 0).unwrap();
    let expected = "(true, -3, 18446744073709551615, -7, -5, \"a\\\"b\", 0x00ff, 0x7879)";
    assert_eq!(DisplayKey(&first).to_string(), expected);
    assert_eq!(DisplayKey(&key_at(&columns, 1).unwrap()).to_string(), "(null, 4, 0, 0, 1, null, 0x, 0x7a7a)");
    assert_eq!(DisplayKey(&first[..1]).to_string(), "true");
    for (value, column) in first.iter().zip(&columns) {
        assert!(value.is_of(column.data_type(), false));
        assert!(!KeyValue::Integer(i128::MAX).is_of(column.data_type(), false));
    }
}

#[test]
fn upper_bounds_round_up_past_surrogates_and_keep_what_nothing_short_exceeds() {
    let upper = |text: String| KeyBound::upper(&[KeyValue::Utf8(text), KeyValue::Integer(1)]);
    let cut = |text: String| KeyBound { values: vec![KeyValue::Utf8(text)], exact: false };
    let a63 = "a".repeat(63);
    assert_eq!(upper(format!("{a63}bc")), cut(format!("{a63}c")));
    assert_eq!(upper(format!("{a63}\u{d7ff}c")), cut(format!("{a63}\u{e000}")));
    assert_eq!(upper(format!("{a63}{}c", char::MAX)), cut(format!("{}b", "a".repeat(62))));
    let largest = char::MAX.to_string().repeat(65);
    assert_eq!(
        upper(largest.clone()),
        KeyBound { values: vec![KeyValue::Utf8(largest), KeyValue::Integer(1)], exact: true }
    );
    assert_eq!(
        KeyBound::upper(&[KeyValue::Binary([vec![7; 63], vec![255, 1]].concat())]).values,
        [KeyValue::Binary([vec![7; 62], vec![8]].concat())]
    );
    assert_eq!(upper(a63.clone()).to_string(), format!("(\"{a63}\", 1)"));
    assert_eq!(upper(format!("{a63}bc")).to_string(), format!("~\"{a63}c\""));
}

fn any_value() -> impl Strategy<Value = KeyValue> {
    let letter = prop::sample::select(vec!['a', 'b', '\u{7f}', 'é', '\u{d7ff}', '\u{e000}', char::MAX]);
    let text = prop::collection::vec(letter, 60..70).prop_map(|c| KeyValue::Utf8(c.into_iter().collect()));
    prop_oneof![
        8 => text,
        1 => Just(KeyValue::Utf8(char::MAX.to_string().repeat(66))),
        2 => "[a-c]{0,3}".prop_map(KeyValue::Utf8),
        1 => Just(KeyValue::Null),
    ]
}

/// Keys of a string and a binary column; prefixes in common are likely.
fn any_key() -> impl Strategy<Value = Vec<KeyValue>> {
    let bytes = prop::collection::vec(prop::sample::select(vec![0_u8, 1, 254, 255]), 62..67).prop_map(KeyValue::Binary);
    let prefix = prop_oneof![Just(String::new()), Just("a".repeat(62)), Just("a".repeat(64))];
    (any_value(), bytes, prefix).prop_map(|(value, bytes, prefix)| match value {
        KeyValue::Utf8(text) => vec![KeyValue::Utf8(prefix + &text), bytes],
        other => vec![other, bytes],
    })
}

proptest! {
    #[test]
    fn law_bounds_enclose_their_key_and_are_short_or_exact(key in any_key()) {
        let types = [DataType::Utf8View, DataType::BinaryView];
        for (bound, side) in [(KeyBound::lower(&key), Ordering::Less), (KeyBound::upper(&key), Ordering::Greater)] {
            let order = bound.compare(&key);
            prop_assert!(order == side || order == Ordering::Equal);
            prop_assert!(bound.is_of(&types));
            prop_assert_eq!(bound.exact, bound.values == key);
        }
    }

    #[test]
    fn law_lower_bounds_keep_the_order_of_their_keys(a in any_key(), b in any_key()) {
        let (small, large) = if a <= b { (a, b) } else { (b, a) };
        prop_assert_ne!(KeyBound::lower(&small).compare(&KeyBound::lower(&large).values), Ordering::Greater);
        prop_assert_ne!(KeyBound::lower(&small).compare(&KeyBound::upper(&large).values), Ordering::Greater);
    }
}
