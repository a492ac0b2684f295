//! The ways in which systems of this kind are known to return wrong rows without an error: each is shown to be right, or detected, here; those of
//! aggregates in `aggregates` and `rollups`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, DictionaryArray, Int32Array, Int64Array, LargeStringArray,
    RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, Int8Type, Schema, TimeUnit};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value as Json, json};
use sort_merge_bucket::{
    BucketSpec, CoGroup, CoGroupBatch, Dataset, DatasetWriter, Error, ErrorKind, Join, JoinKind, Scan, Source,
    WriteMode,
};

use crate::support::data::{DatasetData, SourceData, Write, batch_of};
use crate::support::forge::{edit_manifest, edit_run, encode_run, manifest_path, read_run, replace_run, run_paths};
use crate::support::oracle::{Row, Value, bucket_of, int, shuffle_join, sorted, text};
use crate::support::stores::{put, read};
use crate::support::{assert_error, assert_valid, failure, field, rows, store, try_run};

/// A key, and the row's number to tell rows apart.
fn numbered(name: &str, keys: impl IntoIterator<Item = Value>, data_type: DataType, buckets: u32) -> DatasetData {
    let fields = vec![field("k", data_type, true), field(name, DataType::Int64, false)];
    let rows = keys.into_iter().enumerate().map(|(at, key)| vec![key, int(at as i128)]).collect();
    DatasetData::new(fields, &["k"], buckets, rows)
}

fn ints(keys: impl IntoIterator<Item = i128>) -> impl Iterator<Item = Value> {
    keys.into_iter().map(int)
}

/// 100 rows with 50 keys in this many buckets.
fn hundred(name: &str, buckets: u32) -> DatasetData {
    numbered(name, ints((0..100).map(|at| at % 50)), DataType::Int64, buckets)
}

async fn scan(dataset: &Dataset) -> Vec<Row> {
    sorted(rows(&Scan::new(dataset).plan().unwrap()).await)
}

async fn scan_fails(dataset: &Dataset) -> Error {
    failure(&Scan::new(dataset).plan().unwrap()).await
}

/// Joins in every way and compares with the oracle.
async fn check_joins(store: &Arc<dyn ObjectStore>, left: &SourceData, right: &SourceData, name: &str) {
    let (left_source, right_source) =
        (left.write(store, &format!("{name}/left")).await, right.write(store, &format!("{name}/right")).await);
    for kind in JoinKind::ALL {
        let plan = Join::new(kind, left_source.clone(), right_source.clone()).plan().unwrap();
        let expected = shuffle_join(kind, 1, &left.side(1), &right.side(1));
        assert_eq!(sorted(rows(&plan).await), sorted(expected), "{name}: {kind}");
    }
}

mod placement {
    use super::*;

    #[tokio::test]
    async fn a_misplaced_row_at_the_edge_of_a_row_group_is_an_error_when_read() {
        for last in [false, true] {
            let store = store();
            let dataset = hundred("v", 4).write(&store, "d").await;
            let bucket = dataset.runs()[1].bucket;
            let foreign = (0..)
                .find(|k| bucket_of(&[DataType::Int64], &[int(if last { 1000 + k } else { -1 - k })], 4) != bucket)
                .unwrap();
            let forged = edit_run(&store, &dataset, 1, |rows| {
                let at = if last { rows.len() - 1 } else { 0 };
                rows[at][0] = int(if last { 1000 + foreign } else { -1 - foreign });
            })
            .await;
            let path = &run_paths(&forged)[1];
            let error = scan_fails(&forged).await;
            let row = if last { forged.runs()[1].rows - 1 } else { 0 };
            assert_error(&error, ErrorKind::Misplaced, &["expected=`", &format!("actual=`{bucket}`")]);
            assert_eq!((error.path(), error.row()), (Some(path.as_str()), Some(row)));
        }
    }

    #[tokio::test]
    async fn validation_finds_a_misplaced_row_wherever_it_is_and_names_it() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        assert_valid(&dataset).await;
        let bucket = dataset.runs()[2].bucket;
        let mut at = None;
        let forged = edit_run(&store, &dataset, 2, |rows| {
            // A key between its neighbours that belongs elsewhere.
            let row = (1..rows.len() - 1).find(|&row| matches!((&rows[row - 1][0], &rows[row + 1][0]), (Value::Int(a), Value::Int(b)) if b - a > 1)).unwrap();
            let Value::Int(before) = rows[row - 1][0].clone() else { unreachable!() };
            let Value::Int(after) = rows[row + 1][0].clone() else { unreachable!() };
            let foreign = (before..=after).find(|k| bucket_of(&[DataType::Int64], &[int(*k)], 4) != bucket).unwrap();
            rows[row][0] = int(foreign);
            at = Some(row as u64);
        })
        .await;
        let report = forged.validate().await.unwrap();
        let found: Vec<_> = report.violations.iter().filter(|v| v.invariant == "INV-24").collect();
        assert_eq!(found.len(), 1, "{report}");
        assert_eq!((found[0].path.as_deref(), found[0].row), (Some(forged.runs()[2].path.as_str()), at));
        assert!(found[0].message.contains(&bucket.to_string()), "{}", found[0]);
    }

    #[tokio::test]
    async fn a_dataset_of_another_hash_or_order_is_refused_not_joined() {
        let changes: [fn(&mut Json); 5] = [
            |spec| spec["function"] = json!("spark-murmur3-v1"),
            |spec| spec["function"] = json!("iceberg-murmur3-v2"),
            |spec| spec["key_order"] = json!("unsigned-bytes"),
            |spec| spec["sort"] = json!([{"name": "v", "direction": "descending", "nulls": "last"}]),
            |spec| spec["sort"] = json!([{"name": "v", "direction": "ascending", "nulls": "first"}]),
        ];
        for change in changes {
            let store = store();
            hundred("v", 4).write(&store, "d").await;
            edit_manifest(&store, "d", 1, |manifest| change(&mut manifest["spec"])).await;
            let error = Dataset::open(store, "d").await.unwrap_err();
            assert_error(&error, ErrorKind::UnsupportedVersion, &["d/_smb/"]);
        }
    }

    #[tokio::test]
    async fn int32_and_int64_keys_join_negatives_included() {
        let store = store();
        let keys = [i128::from(i32::MIN), -1000, -2, -1, 0, 1, 2, 1000, i128::from(i32::MAX)];
        let wide = [i128::from(i64::MIN), i128::from(i64::MAX), 1 << 31, -(1 << 31) - 1];
        let narrow = SourceData::from(numbered("l", ints(keys), DataType::Int32, 8));
        let all = SourceData::from(numbered("r", ints(keys.into_iter().chain(wide)), DataType::Int64, 12));
        check_joins(&store, &narrow, &all, "widths").await;
        let plan = Join::inner(narrow.write(&store, "n").await, all.write(&store, "a").await).plan().unwrap();
        assert_eq!(rows(&plan).await.len(), keys.len());
    }

    #[tokio::test]
    async fn equal_values_lie_in_the_same_bucket_in_every_layout() {
        let long = "x".repeat(200);
        let values = ["", "a", "abcdefghijkl", "abcdefghijklm", "é", "日本語", &long];
        let padded: Vec<&str> = std::iter::once("no").chain(values).chain(["no"]).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(values.to_vec())),
            Arc::new(LargeStringArray::from(values.to_vec())),
            Arc::new(StringViewArray::from(values.to_vec())),
            Arc::new(DictionaryArray::<Int8Type>::from_iter(values)),
            Arc::new(StringArray::from(padded.clone()).slice(1, values.len())),
            Arc::new(StringViewArray::from(padded.clone()).slice(1, values.len())),
            Arc::new(DictionaryArray::<Int8Type>::from_iter(padded.iter().copied()).slice(1, values.len())),
            Arc::new(BinaryArray::from_iter_values(values.map(str::as_bytes))),
            Arc::new(BinaryViewArray::from_iter_values(values.map(str::as_bytes))),
        ];
        let spec = BucketSpec::new(["k"], 1009).unwrap();
        let expected: Vec<u32> = values.iter().map(|v| bucket_of(&[DataType::Utf8View], &[text(v)], 1009)).collect();
        for array in arrays {
            let name = array.data_type().clone();
            let batch = RecordBatch::try_from_iter([("k", array)]).unwrap();
            assert_eq!(spec.bucket_ids(&batch).unwrap(), expected, "{name}");
        }
        let narrow =
            RecordBatch::try_from_iter([("k", Arc::new(Int32Array::from(vec![i32::MIN, -1, 0])) as ArrayRef)]).unwrap();
        let wide = vec![i64::from(i32::MIN), -1, 0];
        let wide = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(wide)) as ArrayRef)]).unwrap();
        assert_eq!(spec.hashes(&narrow).unwrap(), spec.hashes(&wide).unwrap());
    }

    #[tokio::test]
    async fn rows_written_in_another_string_layout_by_a_later_append_meet_the_first_ones() {
        let store = store();
        let mut layouts = vec![];
        for (at, data_type) in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View].into_iter().enumerate() {
            let data = numbered("v", (0..30).map(|n| text(&format!("key {}", n % 7))), data_type, 4 + at as u32);
            let batch = batch_of(&data.schema(), &data.writes[0].rows);
            let builder = DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), data.spec(4 + at as u32));
            let mut writer = builder.with_mode(WriteMode::Append).build().await.unwrap();
            writer.write(&batch).await.unwrap();
            layouts.push(writer.commit().await.unwrap());
        }
        let plan = Join::inner(&layouts[0], &layouts[2]).with_right_prefix("r.").plan().unwrap();
        // 7 keys of 30 rows: two of 5 and five of 4, each with three times as many.
        assert_eq!(rows(&plan).await.len(), 3 * (2 * 25 + 5 * 16));
    }

    #[tokio::test]
    async fn times_that_share_a_bucket_by_truncation_stay_different_keys() {
        let store = store();
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let keys = [-1, -999, -1000, -1001, 0, 1, 999, 1000, 1_510_871_468_000_001_001, 1_510_871_468_000_001_999];
        let bucket = |k: i128| bucket_of(std::slice::from_ref(&nanos), &[int(k)], 1 << 20);
        assert!(bucket(-1) == bucket(-999) && bucket(-1) != bucket(0) && bucket(0) == bucket(999));
        let side = |name| SourceData::from(numbered(name, ints(keys), nanos.clone(), 1 << 10));
        check_joins(&store, &side("l"), &side("r"), "nanos").await;
        let written = side("l").write(&store, "d").await;
        assert_valid(&written.datasets()[0]).await;
        assert_eq!(
            rows(&Join::inner(written.clone(), written).with_right_prefix("r.").plan().unwrap()).await.len(),
            keys.len()
        );
    }

    #[tokio::test]
    async fn null_keys_lie_where_one_rule_puts_them_never_match_and_never_vanish() {
        let store = store();
        let keys = |nulls: usize| ints(0..10).chain(vec![Value::Null; nulls]);
        let (left, right) = (numbered("l", keys(3), DataType::Int64, 8), numbered("r", keys(2), DataType::Int64, 4));
        check_joins(&store, &left.clone().into(), &right.clone().into(), "nulls").await;
        let dataset = left.write(&store, "d").await;
        for path in run_paths(&dataset) {
            let (rows, _) = read_run(&store, &path).await;
            let has_null = rows.iter().any(|row| row[0] == Value::Null);
            assert_eq!(has_null, path.contains("bucket-00000-"), "{path}");
        }
        assert_valid(&dataset).await;

        // Of two columns, one null: the other decides, and the row equals nothing all the same.
        let fields = vec![
            field("a", DataType::Int64, true),
            field("b", DataType::Utf8, true),
            field("v", DataType::Int64, false),
        ];
        let values = [int(1), Value::Null];
        let row = |at: usize| {
            vec![values[at % 2].clone(), if at & 2 == 0 { text("x") } else { Value::Null }, int(at as i128)]
        };
        let data = DatasetData::new(fields, &["a", "b"], 16, (0..8).map(row).collect());
        let dataset = data.write(&store, "two").await;
        assert_valid(&dataset).await;
        let full = Join::full(&dataset, &dataset).with_right_prefix("r.").plan().unwrap();
        assert_eq!(rows(&full).await.len(), 4 + 6 + 6, "two rows with a whole key pair, the others stay alone");
        let groups = CoGroup::new().source("s", &dataset).plan().unwrap();
        let groups: usize = try_run(&groups, 1).await.unwrap().values().flatten().map(CoGroupBatch::len).sum();
        assert_eq!(groups, 4);
    }
}

mod order {
    use super::*;

    #[tokio::test]
    async fn an_unsorted_run_is_an_error_with_file_row_and_both_keys() {
        for source_of_two_runs in [false, true] {
            let store = store();
            let mut data = hundred("v", 2);
            if source_of_two_runs {
                data = data.and_write(2, ints(0..40).map(|k| vec![k, int(0)]).collect());
            }
            let dataset = data.write(&store, "d").await;
            let mut swapped = (0, String::new(), String::new());
            let forged = edit_run(&store, &dataset, 1, |rows| {
                let at = (1..rows.len() - 2).find(|&at| rows[at][0] != rows[at + 1][0]).unwrap();
                rows.swap(at, at + 1);
                let shown = |row: &Row| if let Value::Int(k) = row[0] { k.to_string() } else { unreachable!() };
                swapped = (at as u64 + 1, shown(&rows[at]), shown(&rows[at + 1]));
            })
            .await;
            let (row, previous, offending) = swapped;
            let other = hundred("w", 3).write(&store, "other").await;
            let checks = |error: Error| {
                assert_error(&error, ErrorKind::Unsorted, &[&format!("`{previous}`"), &format!("`{offending}`")]);
                assert_eq!((error.path(), error.row()), (Some(run_paths(&forged)[1].as_str()), Some(row)));
            };
            checks(scan_fails(&forged).await);
            for kind in JoinKind::ALL {
                checks(failure(&Join::new(kind, &forged, &other).plan().unwrap()).await);
            }
            checks(failure(&CoGroup::new().source("a", &other).source("b", &forged).plan().unwrap()).await);
            let report = forged.validate().await.unwrap();
            assert!(report.violations.iter().any(|v| v.invariant == "INV-23" && v.row == Some(row)), "{report}");
        }
    }

    #[tokio::test]
    async fn a_value_after_a_null_key_is_unsorted_too() {
        let store = store();
        let data = numbered("v", ints(0..20).chain([Value::Null, Value::Null]), DataType::Int64, 1);
        let forged = edit_run(&store, &data.write(&store, "d").await, 0, |rows| rows.swap(5, 21)).await;
        let error = scan_fails(&forged).await;
        assert_error(&error, ErrorKind::Unsorted, &["`6`"]);
        assert_eq!(error.row(), Some(6));
    }

    #[tokio::test]
    async fn overlapping_runs_of_a_bucket_are_merged_never_concatenated() {
        let store = store();
        let mut data = hundred("v", 1);
        for n in 1..6 {
            data = data.and_write(1, (0..20).map(|at| vec![int(at * n), int(1000 * n + at)]).collect());
        }
        let dataset = data.write(&store, "d").await;
        assert_eq!(dataset.statistics().runs, 6);
        // `rows` checks the order.
        let found = rows(&Scan::new(&dataset).plan().unwrap()).await;
        let mut expected = SourceData::from(data).side(1).rows;
        expected.sort_by(|a, b| a[0].cmp(&b[0]));
        assert_eq!(found, expected, "by key, and within a key run after run");
    }

    #[tokio::test]
    async fn strings_of_many_bytes_and_negative_numbers_sort_by_value() {
        let store = store();
        let words = ["Z", "a", "ab", "abc", "b", "zz", "é", "ÿ", "Ā", "日", "日本", "\u{ffff}", "\u{10000}", ""];
        let written = numbered("v", words.map(text), DataType::Utf8, 1).write(&store, "words").await;
        let mut expected = words.to_vec();
        expected.sort_by_key(|word| word.as_bytes().to_vec());
        let found: Vec<Value> =
            rows(&Scan::new(&written).plan().unwrap()).await.into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(found, expected.into_iter().map(text).collect::<Vec<_>>());

        let mut numbers = [5, -1, 0, i128::from(i64::MIN), i128::from(i64::MAX), -300, 255, -256];
        for data_type in [DataType::Int64, DataType::Decimal128(38, 4)] {
            let data = numbered("v", ints(numbers), data_type.clone(), 1);
            let written = data.write(&store, &format!("{data_type}")).await;
            let keys = rows(&Scan::new(&written).plan().unwrap()).await.into_iter().map(|row| row[0].clone());
            numbers.sort_unstable();
            assert_eq!(keys.collect::<Vec<_>>(), ints(numbers).collect::<Vec<_>>());
            numbers.reverse();
        }
    }
}

mod alignment {
    use super::*;

    #[tokio::test]
    async fn joins_of_8_buckets_with_4_6_5_and_mixtures_equal_the_naive_join() {
        let store = store();
        for buckets in [4, 6, 5, 8, 1, 16, 7] {
            check_joins(&store, &hundred("l", 8).into(), &hundred("r", buckets).into(), &format!("8-{buckets}")).await;
        }
        // One dataset whose runs have different counts, and one source of datasets with different counts.
        let mut appended = hundred("l", 8);
        for buckets in [4, 6, 12] {
            appended.writes.push(Write::new(buckets, ints(0..60).map(|k| vec![k, int(i128::from(buckets))]).collect()));
        }
        let mixed = SourceData { datasets: vec![hundred("r", 6), hundred("r", 9), hundred("r", 12)], columns: None };
        check_joins(&store, &appended.clone().into(), &hundred("r", 8).into(), "appended").await;
        check_joins(&store, &appended.clone().into(), &mixed, "appended-mixed").await;

        let three = [
            appended.write(&store, "a").await,
            hundred("r", 9).write(&store, "b").await,
            hundred("s", 6).write(&store, "c").await,
        ];
        let plan = CoGroup::new().source("a", &three[0]).source("b", &three[1]).source("c", &three[2]).plan().unwrap();
        assert_eq!(plan.slots().get(), 1, "8, 4, 6, 12 and 9 buckets have one slot in common");
        let slots = try_run(&plan, 1).await.unwrap();
        let groups: Vec<[usize; 3]> = slots[&0]
            .iter()
            .flat_map(|batch| {
                batch.groups().map(|g| ["a", "b", "c"].map(|name| g.range(name).unwrap().len())).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(groups.len(), 60);
        assert!(groups[..50].iter().all(|g| *g == [5, 2, 2]) && groups[50..].iter().all(|g| *g == [3, 0, 0]));
    }

    #[tokio::test]
    async fn empty_and_absent_buckets_on_any_side_shift_nothing() {
        let store = store();
        // Three keys in 64 buckets, three others, and nothing at all.
        let few = |name, keys: [i128; 3]| SourceData::from(numbered(name, ints(keys), DataType::Int64, 64));
        let none = |name| SourceData::from(numbered(name, vec![], DataType::Int64, 32));
        check_joins(&store, &few("l", [1, 2, 3]), &few("r", [2, 3, 4]), "few").await;
        check_joins(&store, &few("l", [1, 2, 3]), &hundred("r", 64).into(), "few-all").await;
        check_joins(&store, &hundred("l", 32).into(), &few("r", [2, 3, 4]), "all-few").await;
        check_joins(&store, &few("l", [1, 2, 3]), &none("r"), "few-none").await;
        check_joins(&store, &none("l"), &few("r", [1, 2, 3]), "none-few").await;
        check_joins(&store, &none("l"), &none("r"), "none").await;
    }

    #[tokio::test]
    async fn the_same_dataset_on_both_sides_is_two_sides() {
        let store = store();
        let data = SourceData::from(hundred("v", 6));
        let source = data.write(&store, "d").await;
        for kind in JoinKind::ALL {
            let plan = Join::new(kind, source.clone(), source.clone()).with_right_prefix("r.").plan().unwrap();
            let expected = shuffle_join(kind, 1, &data.side(1), &data.side(1));
            assert_eq!(sorted(rows(&plan).await), sorted(expected), "{kind}");
        }
    }
}

mod files {
    use super::*;

    #[tokio::test]
    async fn stray_stale_and_leftover_files_are_never_read() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        let before = scan(&dataset).await;
        let run = read(&store, &run_paths(&dataset)[0]).await;
        let stem = run_paths(&dataset)[0].rsplit_once('/').unwrap().0.to_owned();
        // A copy of a run beside it, a leftover of another write, foreign files everywhere.
        put(&store, &format!("{stem}/bucket-00000-of-00004-00000-ffffffff-000001.parquet"), run.clone()).await;
        put(&store, "d/data/crashed/bucket-00001-of-00004-00000-00000000-000001.parquet", run.clone()).await;
        put(&store, "d/data/part-00000.parquet", run.clone()).await;
        put(&store, "d/bucket-00000-of-00004.parquet", run).await;
        put(&store, "d/_smb/00000000000000000001.json.tmp", "{}").await;
        put(&store, "d/_smb/00000000000000000003.json", "{}").await;
        put(&store, "d/_SUCCESS", "").await;
        // A writer that uploaded and never committed.
        let data = hundred("v", 4);
        let ticket = DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), data.spec(4))
            .with_mode(WriteMode::Append)
            .begin()
            .await
            .unwrap();
        let mut writer = ticket.writer(Arc::clone(&store), 0).unwrap();
        writer.write(&batch_of(&data.schema(), &data.writes[0].rows)).await.unwrap();
        writer.finish().await.unwrap();

        let dataset = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        assert_eq!(dataset.version(), 1);
        assert_eq!(scan(&dataset).await, before);
        assert_valid(&dataset).await;
    }

    #[tokio::test]
    async fn a_listed_run_that_is_missing_shortened_grown_or_replaced_is_an_error_that_names_it() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        let twin = hundred("v", 4).write(&store, "twin").await;
        let (paths, twins) = (run_paths(&dataset), run_paths(&twin));
        let good = read(&store, &paths[2]).await;
        let mut damages: Vec<(&str, Vec<u8>)> = vec![("empty", vec![]), ("shortened", good[..good.len() - 1].to_vec())];
        damages.push(("halved", good[..good.len() / 2].to_vec()));
        damages.push(("grown", [&good[..], b"PAR1"].concat()));
        damages.push(("its end cut", [&good[..good.len() - 8], &[0; 8]].concat()));
        damages.push(("another bucket's", read(&store, &paths[1]).await.to_vec()));
        damages.push(("another dataset's run of the same rows", read(&store, &twins[2]).await.to_vec()));
        for (what, bytes) in damages {
            put(&store, &paths[2], bytes).await;
            let error = scan_fails(&dataset).await;
            assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(paths[2].as_str())), "{what}: {error}");
            assert!(!dataset.validate().await.unwrap().is_valid(), "{what}");
        }
        store.delete(&Path::from(paths[2].as_str())).await.unwrap();
        let error = scan_fails(&dataset).await;
        assert_error(&error, ErrorKind::Corrupt, &["missing", &paths[2]]);
        assert!(!dataset.validate().await.unwrap().is_valid());
        put(&store, &paths[2], good).await;
        assert_eq!(scan(&dataset).await, scan(&twin).await);
    }

    #[tokio::test]
    async fn a_file_of_the_right_size_and_the_wrong_identity_is_told_by_its_footer() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        let paths = run_paths(&dataset);
        let (run_rows, identity) = read_run(&store, &paths[1]).await;
        assert_eq!(identity.len(), 6);
        for at in 0..identity.len() {
            let mut other = identity.clone();
            let key = other[at].key.clone();
            let value = other[at].value.as_mut().unwrap();
            // Of the same length, so that nothing else differs.
            let last = if value.ends_with('7') { '8' } else { '7' };
            value.pop();
            value.push(last);
            replace_run(&store, &dataset, 1, encode_run(&dataset, &run_rows, other, 1000), run_rows.len()).await;
            let forged = Dataset::open(Arc::clone(&store), "d").await.unwrap();
            let error = scan_fails(&forged).await;
            assert_error(&error, ErrorKind::Corrupt, &[&key, &paths[1]]);
        }
    }

    #[tokio::test]
    async fn two_buckets_files_swapped_are_detected_even_if_the_manifest_agrees_with_their_sizes() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        let paths = run_paths(&dataset);
        let (a, b) = (read(&store, &paths[0]).await, read(&store, &paths[1]).await);
        put(&store, &paths[0], b).await;
        put(&store, &paths[1], a).await;
        edit_manifest(&store, "d", 1, |manifest| {
            let runs = manifest["runs"].as_array_mut().unwrap();
            for name in ["bytes", "footer_bytes", "rows", "checksum", "first_key", "last_key", "fences"] {
                let first = runs[0][name].take();
                runs[0][name] = std::mem::replace(&mut runs[1][name], first);
            }
        })
        .await;
        let forged = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        let error = scan_fails(&forged).await;
        assert_error(&error, ErrorKind::Corrupt, &["smb.bucket", "expected=`", "found=`"]);
    }

    #[tokio::test]
    async fn rows_that_are_missing_from_a_run_and_columns_that_are_others_are_detected() {
        let store = store();
        let dataset = hundred("v", 4).write(&store, "d").await;
        let paths = run_paths(&dataset);
        let (mut run_rows, identity) = read_run(&store, &paths[0]).await;
        let count = run_rows.len();
        run_rows.remove(3);
        let bytes = encode_run(&dataset, &run_rows, identity.clone(), 1000);
        replace_run(&store, &dataset, 0, bytes, count).await;
        let forged = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        assert_error(&scan_fails(&forged).await, ErrorKind::Corrupt, &["number of rows", &paths[0]]);

        let other = numbered("w", ints(0..50), DataType::Int64, 4).write(&store, "other").await;
        let bytes = encode_run(&other, &run_rows, identity, 1000);
        replace_run(&store, &dataset, 0, bytes, run_rows.len()).await;
        let forged = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        assert_error(&scan_fails(&forged).await, ErrorKind::Corrupt, &["other columns", &paths[0]]);
    }

    #[tokio::test]
    async fn wrong_key_statistics_in_a_manifest_are_found_by_validation() {
        for name in ["first_key", "last_key"] {
            let store = store();
            hundred("v", 4).write(&store, "d").await;
            edit_manifest(&store, "d", 1, |manifest| {
                let key = if name == "first_key" { "25" } else { "30" };
                manifest["runs"][0][name] = json!({"values": [key], "exact": true});
                manifest["runs"][0]["fences"] = json!([]);
            })
            .await;
            let forged = Dataset::open(Arc::clone(&store), "d").await.unwrap();
            let report = forged.validate().await.unwrap();
            assert!(report.violations.iter().any(|v| v.invariant == "INV-25"), "{name}: {report}");
        }
    }

    #[tokio::test]
    async fn a_run_path_that_leaves_the_dataset_is_refused() {
        for path in [
            "data/../../other/run.parquet",
            "/etc/passwd",
            "data/w/",
            "data//run.parquet",
            "../d2/data/w/run.parquet",
            "data/w/./r.parquet",
        ] {
            let store = store();
            hundred("v", 4).write(&store, "d").await;
            edit_manifest(&store, "d", 1, |manifest| manifest["runs"][0]["path"] = json!(path)).await;
            assert_error(&Dataset::open(store, "d").await.unwrap_err(), ErrorKind::Corrupt, &["INV-09"]);
        }
    }
}

mod versions {
    use super::*;

    async fn append(store: &Arc<dyn ObjectStore>, mode: WriteMode, buckets: u32, key: i128) -> Dataset {
        let data = hundred("v", buckets);
        let builder = DatasetWriter::builder(Arc::clone(store), "d", data.schema(), data.spec(buckets)).with_mode(mode);
        let mut writer = builder.build().await.unwrap();
        writer.write(&batch_of(&data.schema(), &[vec![int(key), int(-1)]])).await.unwrap();
        writer.commit().await.unwrap()
    }

    #[tokio::test]
    async fn a_reader_keeps_its_version_while_others_commit() {
        let store = store();
        let first = hundred("v", 4).write(&store, "d").await;
        let before = scan(&first).await;
        let plan = Join::inner(&first, &first).with_right_prefix("r.").plan().unwrap();
        let joined = sorted(rows(&plan).await);
        append(&store, WriteMode::Append, 4, 7).await;
        append(&store, WriteMode::Append, 6, 8).await;
        let replaced = append(&store, WriteMode::Replace, 3, 9).await;
        assert_eq!(scan(&replaced).await, [vec![int(9), int(-1)]]);
        replaced.drop_dataset().await.unwrap();
        assert_eq!(Dataset::open(Arc::clone(&store), "d").await.unwrap_err().kind(), ErrorKind::NotFound);

        assert_eq!(scan(&first).await, before);
        assert_eq!(sorted(rows(&plan).await), joined);
        let again = Dataset::open_version(Arc::clone(&store), "d", 1).await.unwrap();
        assert_eq!(scan(&again).await, before);
        for (version, count) in [(1, 100), (2, 101), (3, 102), (4, 1)] {
            let dataset = Dataset::open_version(Arc::clone(&store), "d", version).await.unwrap();
            assert_eq!(scan(&dataset).await.len(), count, "version {version}");
            assert_valid(&dataset).await;
        }
        assert_eq!(Dataset::open_version(store, "d", 6).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn unknown_fields_are_ignored_and_kept_by_those_who_write() {
        let store = store();
        let before = scan(&hundred("v", 4).write(&store, "d").await).await;
        let edit = |manifest: &mut Json| {
            manifest["sketches"] = json!({"distinct": 50});
            manifest["runs"][0]["bloom"] = json!([1, 2, 3]);
            manifest["writer_features"] = json!([]);
        };
        edit_manifest(&store, "d", 1, edit).await;
        let dataset = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        assert_eq!(scan(&dataset).await, before);
        append(&store, WriteMode::Append, 4, 7).await;
        let manifest: Json = serde_json::from_slice(&read(&store, &manifest_path("d", 2)).await).unwrap();
        assert_eq!(manifest["sketches"], json!({"distinct": 50}));
        assert_eq!(manifest["runs"][0]["bloom"], json!([1, 2, 3]));
    }

    #[tokio::test]
    async fn an_unknown_format_version_or_feature_is_refused_with_the_remedy() {
        let store = store();
        hundred("v", 4).write(&store, "d").await;
        let good = read(&store, &manifest_path("d", 1)).await;
        edit_manifest(&store, "d", 1, |manifest| *manifest = json!({"format_version": 2, "everything": "else"})).await;
        let error = Dataset::open(Arc::clone(&store), "d").await.unwrap_err();
        assert_error(
            &error,
            ErrorKind::UnsupportedVersion,
            &["use a library that knows it", "found=`2`", "supported=`1`", "d/_smb/"],
        );
        put(&store, &manifest_path("d", 1), good).await;

        edit_manifest(&store, "d", 1, |manifest| manifest["writer_features"] = json!(["row-ids"])).await;
        let dataset = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        assert_eq!(scan(&dataset).await.len(), 100, "who only reads need not know it");
        let data = hundred("v", 4);
        let builder = || DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), data.spec(4));
        for mode in [WriteMode::Append, WriteMode::Replace] {
            let error = builder().with_mode(mode).build().await.unwrap_err();
            assert_error(&error, ErrorKind::UnsupportedVersion, &["row-ids"]);
        }
        edit_manifest(&store, "d", 1, |manifest| manifest["reader_features"] = json!(["deletes"])).await;
        let error = Dataset::open(Arc::clone(&store), "d").await.unwrap_err();
        assert_error(&error, ErrorKind::UnsupportedVersion, &["deletes"]);
    }
}

mod size {
    use super::*;

    #[tokio::test]
    async fn a_hot_key_on_both_sides_pairs_every_row_with_every_row() {
        let store = store();
        let hot = |name, rows: i128, buckets| {
            SourceData::from(numbered(
                name,
                ints((0..rows).map(|at| if at % 10 == 0 { at } else { 7 })),
                DataType::Int64,
                buckets,
            ))
        };
        check_joins(&store, &hot("l", 300, 4), &hot("r", 200, 6), "hot").await;
    }

    #[tokio::test]
    async fn one_row_in_one_bucket_of_many_is_found() {
        let store = store();
        let one = SourceData::from(numbered("l", ints([33]), DataType::Int64, 1000));
        check_joins(&store, &one, &hundred("r", 10).into(), "one").await;
    }

    #[tokio::test]
    async fn thousands_of_runs_in_one_bucket_merge_in_order() {
        let store = store();
        let data = numbered("v", vec![], DataType::Int64, 1);
        let ticket =
            DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), data.spec(1)).begin().await.unwrap();
        let mut written = vec![];
        for task in 0..2000_u32 {
            let mut writer = ticket.writer(Arc::clone(&store), task).unwrap();
            let rows: Vec<Row> =
                (0..3).map(|n| vec![int(i128::from(task * 7919 % 997) + n), int(i128::from(task) * 3 + n)]).collect();
            writer.write(&batch_of(&data.schema(), &rows)).await.unwrap();
            written.push(writer.finish().await.unwrap());
        }
        let dataset = ticket.commit(Arc::clone(&store), written).await.unwrap();
        assert_eq!((dataset.statistics().runs, dataset.statistics().rows), (2000, 6000));
        let found = rows(&Scan::new(&dataset).plan().unwrap()).await;
        let ids: Vec<Row> = sorted(found.iter().map(|row| vec![row[1].clone()]).collect());
        assert_eq!(ids, (0..6000).map(|n| vec![int(n)]).collect::<Vec<_>>(), "each row once");
    }

    #[tokio::test]
    async fn a_dataset_without_rows_is_a_dataset() {
        let store = store();
        let empty = numbered("v", vec![], DataType::Int64, 4).write(&store, "empty").await;
        assert_eq!((empty.statistics().rows, empty.version()), (0, 1));
        assert!(scan(&empty).await.is_empty());
        assert_valid(&empty).await;
        let plan = Join::left(&hundred("l", 6).write(&store, "l").await, &empty).plan().unwrap();
        assert_eq!(plan.slots().get(), 2, "its bucket count still counts");
        assert_eq!(rows(&plan).await.len(), 100);
    }

    #[tokio::test]
    async fn a_dataset_of_key_columns_alone_joins() {
        let store = store();
        let fields = vec![field("k", DataType::Utf8, false)];
        let data = DatasetData::new(fields, &["k"], 4, (0..20).map(|n| vec![text(&format!("{}", n % 6))]).collect());
        let keys = data.write(&store, "keys").await;
        let plan = Join::inner(&keys, &keys).plan().unwrap();
        assert_eq!(plan.schema().as_ref(), &Schema::new(vec![field("k", DataType::Utf8View, false)]));
        assert_eq!(rows(&plan).await.len(), 2 * 16 + 4 * 9);
        let projected =
            Join::inner(&keys, Source::from(&hundred_text(&store).await).with_columns(Vec::<String>::new()));
        assert_eq!(rows(&projected.plan().unwrap()).await.len(), 20);
    }

    async fn hundred_text(store: &Arc<dyn ObjectStore>) -> Dataset {
        numbered("v", (0..100).map(|n| text(&n.to_string())), DataType::Utf8, 6).write(store, "texts").await
    }
}
