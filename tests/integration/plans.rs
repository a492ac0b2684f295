//! Plans: as text, what they refuse, and their slots as data.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, TimeUnit};
use sort_merge_bucket::{
    CoGroup, Dataset, DatasetWriter, ErrorKind, Join, JoinKind, PlanOptions, Scan, SlotDescriptor, Source, Target,
    WriteMode,
};

use crate::support::data::{DatasetData, batch_of};
use crate::support::oracle::{int, text};
use crate::support::{assert_error, field, rows, store};

/// An explanation with the sizes of files, which are the compressor's affair, left out.
fn explained(plan: impl std::fmt::Display) -> String {
    let shown = plan.to_string();
    let words: Vec<&str> = shown.split(' ').collect();
    let shown: Vec<&str> = words
        .iter()
        .enumerate()
        .map(|(at, word)| if words.get(at + 1) == Some(&"bytes,") { "N" } else { word })
        .collect();
    shown.join(" ")
}

fn plays(buckets: u32) -> DatasetData {
    let fields = vec![
        field("user", DataType::Int64, true),
        field("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        field("track", DataType::Utf8, true),
    ];
    let rows = (0..40).map(|at| vec![int(at % 13), int(at), text("track")]).collect();
    DatasetData::new(fields, &["user"], buckets, rows).with_sort(&["at"])
}

fn users(buckets: u32) -> DatasetData {
    let fields = vec![field("id", DataType::Int32, false), field("region", DataType::Utf8, false)];
    DatasetData::new(fields, &["id"], buckets, (0..10).map(|at| vec![int(at), text("se")]).collect())
}

#[tokio::test]
async fn explanations_say_what_is_read_and_what_comes_out() {
    let store = store();
    let plays = plays(4).and_write(6, vec![vec![int(1), int(0), text("late")]]).write(&store, "plays").await;
    let users = users(8).write(&store, "users").await;
    let plan = Join::left(&plays, Source::from(&users).with_columns(["region"])).plan().unwrap();
    assert_eq!(
        explained(&plan),
        "left join on [user]\n  \
           slots: 2, bucket function: iceberg-murmur3-v1\n  \
           source left: 5 runs, 41 rows, N bytes, buckets: 4 and 6\n    \
             columns: [user, at, track]\n    \
             plays version 2\n  \
           source right: 5 runs, 10 rows, N bytes, buckets: 8\n    \
             columns: [id, region]\n    \
             users version 1\n  \
           result: [user, at, track, region]\n  \
           order within a slot: [user], value, nulls last"
    );
    let plan = Scan::new(Source::new(vec![users.clone(); 6]).with_columns(Vec::<String>::new())).plan().unwrap();
    assert_eq!(
        explained(&plan),
        "scan on [id]\n  \
           slots: 8 (3 skipped: they yield nothing), bucket function: iceberg-murmur3-v1\n  \
           source source: 30 runs, 60 rows, N bytes, buckets: 8\n    \
             columns: [id]\n    \
             users version 1\n    users version 1\n    users version 1\n    users version 1\n    and 2 more datasets\n  \
           result: [id]\n  \
           order within a slot: [id], value, nulls last"
    );
    let plan = CoGroup::new().source("plays", &plays).source("users", &users).plan().unwrap();
    assert!(explained(&plan).starts_with("co-group on [user]\n  slots: 2,"), "{plan}");
    assert!(explained(&plan).contains("source plays: 5 runs") && explained(&plan).contains("source users: 5 runs"));
}

#[tokio::test]
async fn every_incompatibility_is_reported_at_once() {
    let store = store();
    let left = DatasetData::new(
        vec![field("a", DataType::Int64, false), field("b", DataType::Utf8, false), field("x", DataType::Int64, false)],
        &["a", "b"],
        4,
        vec![],
    );
    let right = DatasetData::new(
        vec![
            field("a", DataType::Utf8, false),
            field("b", DataType::Date32, false),
            field("x", DataType::Int64, false),
        ],
        &["a", "b"],
        4,
        vec![],
    );
    let (left, right) = (left.write(&store, "left").await, right.write(&store, "right").await);
    let error =
        Join::inner(&left, Source::from(&right).with_columns(["x", "nobody"])).with_sort_columns(1).plan().unwrap_err();
    assert_error(
        &error,
        ErrorKind::Incompatible,
        &[
            "`left` (left) column `a`: int64, `right` (right) column `a`: utf8",
            "`left` (left) column `b`: utf8, `right` (right) column `b`: date32",
            "`left` (left) has only `0`",
            "`right` (right) has only `0`",
        ],
    );
    let single = users(4).write(&store, "single").await;
    let error = Join::inner(&left, &single).plan().unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["numbers of key columns differ", "2", "1"]);

    // Without an incompatibility what is wrong by itself is listed, all of it.
    let other = left.clone();
    let error = Join::inner(&left, Source::from(&other).with_columns(["x", "y", "z"])).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["no column `y`", "no column `z`"]);
}

#[tokio::test]
async fn key_types_that_are_not_alike_are_refused_whatever_the_join() {
    use DataType as D;
    let store = store();
    let zone = |zone: &str| D::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
    let time = |unit| D::Timestamp(unit, None);
    let pairs = [
        (D::UInt64, D::Int64),
        (D::UInt64, D::UInt32),
        (D::Decimal128(9, 2), D::Decimal128(9, 3)),
        (D::Decimal128(9, 0), D::Int64),
        (time(TimeUnit::Millisecond), time(TimeUnit::Microsecond)),
        (time(TimeUnit::Microsecond), time(TimeUnit::Nanosecond)),
        (time(TimeUnit::Microsecond), zone("UTC")),
        (time(TimeUnit::Millisecond), D::Int64),
        (D::Utf8, D::Binary),
        (D::Binary, D::FixedSizeBinary(3)),
        (D::FixedSizeBinary(2), D::FixedSizeBinary(3)),
        (D::Date32, D::Int32),
        (D::Boolean, D::Int8),
        (D::Utf8, D::Int64),
    ];
    for (at, (a, b)) in pairs.into_iter().enumerate() {
        let dataset = |data_type: &D| DatasetData::new(vec![field("k", data_type.clone(), true)], &["k"], 2, vec![]);
        let left = dataset(&a).write(&store, &format!("left-{at}")).await;
        let right = dataset(&b).write(&store, &format!("right-{at}")).await;
        for kind in JoinKind::ALL {
            let error = Join::new(kind, &left, &right).plan().unwrap_err();
            assert_error(
                &error,
                ErrorKind::Incompatible,
                &["key types differ", &format!("left-{at}"), &format!("right-{at}")],
            );
        }
        let error = CoGroup::new().source("a", &right).source("b", &left).plan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
    }
}

#[tokio::test]
async fn floats_and_nested_types_cannot_be_keys() {
    let store = store();
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    for data_type in [DataType::Float64, DataType::Float32, DataType::List(item)] {
        let dataset =
            DatasetData::new(vec![field("k", data_type.clone(), true), field("l", data_type, true)], &["k"], 2, vec![]);
        let dataset = dataset.with_sort(&["l"]);
        let error = DatasetWriter::builder(Arc::clone(&store), "floats", dataset.schema(), dataset.spec(2))
            .build()
            .await
            .unwrap_err();
        assert_error(&error, ErrorKind::InvalidInput, &["column `k`", "column `l`"]);
        let batch = RecordBatch::new_empty(dataset.schema());
        assert_error(&dataset.spec(2).bucket_ids(&batch).unwrap_err(), ErrorKind::InvalidInput, &["column `k`"]);
    }
    assert_eq!(Dataset::open(store, "floats").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn equal_names_need_a_prefix() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let error = Join::inner(&plays, &plays).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["column=`at`", "column=`track`", "prefix"]);
    let plan = Join::inner(&plays, &plays).with_right_prefix("other_").plan().unwrap();
    let names: Vec<&str> = plan.schema().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["user", "at", "track", "other_at", "other_track"]);
    // A prefix can itself make names equal: also with the key.
    let us = DatasetData::new(
        vec![field("id", DataType::Int64, true), field("er", DataType::Int64, true)],
        &["id"],
        4,
        vec![],
    );
    let us = us.write(&store, "us").await;
    let error = Join::inner(&plays, &us).with_right_prefix("us").plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["column=`user`"]);
    assert!(Join::left_semi(&plays, &plays).plan().is_ok(), "one side's columns only");
}

/// Cause: a plan named its key as its first source does. Symptom: `key()` named columns that right semi and anti joins do not have, and their
/// results could not be transformed.
#[tokio::test]
async fn joins_of_the_right_side_alone_name_the_key_as_it_does() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let users = users(4).write(&store, "users").await;
    for (kind, name) in [
        (JoinKind::RightSemi, "id"),
        (JoinKind::RightAnti, "id"),
        (JoinKind::Right, "user"),
        (JoinKind::LeftAnti, "user"),
    ] {
        let plan = Join::new(kind, &plays, &users).plan().unwrap();
        assert_eq!((plan.key(), plan.schema().field(0).name().as_str()), (&[name.to_owned()][..], name), "{kind}");
        let result = plan.transform(Target::new(Arc::clone(&store), kind.to_string()), Ok).await.unwrap();
        assert_eq!(result.spec().key(), plan.key());
    }
}

#[tokio::test]
async fn slot_descriptors_survive_json_and_fit_only_their_plan() {
    let store = store();
    let plays = plays(4).write(&store, "plays").await;
    let users = users(6).write(&store, "users").await;
    let plan = Join::inner(&plays, &users).plan().unwrap();
    let slot = plan.slot(1).unwrap();
    let copy: SlotDescriptor = serde_json::from_str(&serde_json::to_string(&slot).unwrap()).unwrap();
    assert_eq!(copy, slot);
    assert!(plan.execute(&copy).is_ok());
    assert_error(&plan.slot(2).unwrap_err(), ErrorKind::InvalidInput, &["slot=`2`", "slots=`2`"]);

    let mut wrong = slot.clone();
    wrong.slot = 7;
    assert_eq!(plan.execute(&wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut wrong = slot.clone();
    wrong.sources[1][0].version = 2;
    assert_error(&plan.execute(&wrong).unwrap_err(), ErrorKind::Incompatible, &["users@1", "users@2"]);
    let mut wrong = slot.clone();
    wrong.sources.swap(0, 1);
    assert_eq!(plan.execute(&wrong).unwrap_err().kind(), ErrorKind::Incompatible);
    let mut moved = slot.clone();
    moved.sources[0][0].path = "mounted/elsewhere".to_owned();
    assert!(plan.execute(&moved).is_ok(), "another machine may see the store under another prefix");

    // The same query over a newer version is another plan.
    let mut writer = DatasetWriter::builder(Arc::clone(&store), "users", users_schema(), users.spec().clone())
        .with_mode(WriteMode::Append)
        .build()
        .await
        .unwrap();
    writer.write(&batch_of(&users_schema(), &[vec![int(99), text("dk")]])).await.unwrap();
    let newer = Join::inner(&plays, writer.commit().await.unwrap()).plan().unwrap();
    assert_error(&newer.execute(&slot).unwrap_err(), ErrorKind::Incompatible, &["users@2", "users@1"]);
}

fn users_schema() -> arrow::datatypes::SchemaRef {
    users(1).schema()
}

#[tokio::test]
async fn a_join_on_sort_columns_needs_them_on_both_sides() {
    let store = store();
    let with_sort = plays(4).write(&store, "plays").await;
    let without = users(4).write(&store, "users").await;
    let error = Join::inner(&with_sort, &without).with_sort_columns(1).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["`1` sort columns", "`right` (users) has only `0`"]);
    let plan = Join::inner(&with_sort, &with_sort).with_sort_columns(1).with_right_prefix("r_").plan().unwrap();
    assert_eq!(plan.key(), ["user", "at"]);
    assert_eq!(rows(&plan).await.len(), 40, "each row meets itself alone");
}

#[tokio::test]
async fn options_keep_batches_small_and_never_zero() {
    let store = store();
    let plays = plays(2).write(&store, "plays").await;
    assert_eq!(PlanOptions::default().batch_size, sort_merge_bucket::DEFAULT_BATCH_SIZE);
    let plan = Scan::new(&plays).with_options(PlanOptions::default().with_batch_size(0)).plan().unwrap();
    assert_eq!(plan.options().batch_size, 1);
    assert_eq!(rows(&plan).await.len(), 40);
}
