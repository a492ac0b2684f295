//! What holds on every kind of store: the life of a dataset, who wins, large runs, and any name.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, SchemaRef};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parquet::basic::Compression;
use sort_merge_bucket::{
    BucketSpec, CoGroup, CoGroupBatch, Dataset, DatasetWriter, ErrorKind, Join, Operation, Partitions, Result, Rollup,
    Scan, Source, Sum, Target, WriteId, WriteMode, WriteOptions,
};
use tokio::task::JoinSet;

use crate::support::data::{DatasetData, batch_of};
use crate::support::oracle::{Row, int, sorted, text};
use crate::support::{assert_error, assert_valid, everywhere, field, rows, store, try_run};

fn plays() -> DatasetData {
    let fields = vec![field("user", DataType::Int64, true), field("track", DataType::Utf8, false)];
    DatasetData::new(fields, &["user"], 4, vec![])
}

fn some(name: &str, count: i128) -> Vec<Row> {
    (0..count).map(|user| vec![int(user), text(name)]).collect()
}

async fn write(store: &Arc<dyn ObjectStore>, path: &str, mode: WriteMode, name: &str) -> Result<Dataset> {
    let schema: SchemaRef = plays().schema();
    let builder = DatasetWriter::builder(Arc::clone(store), path, Arc::clone(&schema), plays().spec(4));
    let mut writer = builder.with_mode(mode).build().await?;
    writer.write(&batch_of(&schema, &some(name, 9))).await?;
    writer.commit().await
}

async fn contents(store: &Arc<dyn ObjectStore>, path: &str) -> Vec<Row> {
    let dataset = Dataset::open(Arc::clone(store), path).await.unwrap();
    assert_valid(&dataset).await;
    sorted(rows(&Scan::new(&dataset).plan().unwrap()).await)
}

fn names(names: &[&str]) -> Vec<Row> {
    sorted(names.iter().flat_map(|name| some(name, 9)).collect())
}

#[tokio::test]
async fn a_dataset_is_created_appended_to_replaced_transformed_rolled_up_and_dropped() {
    let store = store();
    let missing = Dataset::open(Arc::clone(&store), "plays").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let first = write(&store, "plays", WriteMode::Create, "a").await.unwrap();
    let again = write(&store, "plays", WriteMode::Create, "b").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(contents(&store, "plays").await, names(&["a"]));
    let second = write(&store, "plays", WriteMode::Append, "b").await.unwrap();
    assert_eq!((second.version(), second.operation()), (2, Operation::Append));
    assert_eq!(contents(&store, "plays").await, names(&["a", "b"]));

    // Reading side by side: a join, a co-group, a look-up, an aggregate kept as a partial.
    let both = rows(&Join::inner(&first, &second).with_right_prefix("r_").plan().unwrap()).await;
    assert_eq!(both.len(), 9 * 2);
    let groups = CoGroup::new().source("first", &first).source("second", &second).plan().unwrap();
    let groups = try_run(&groups, 2).await.unwrap();
    assert_eq!(groups.values().flatten().map(CoGroupBatch::len).sum::<usize>(), 9);
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![3, 100]));
    assert_eq!(second.get(keys).await.unwrap().num_rows(), 2);
    let rollup = Rollup::builder(Arc::clone(&store), "sums").aggregate("users", Sum::of("user")).build().unwrap();
    rollup.update("one", Source::from(&first)).await.unwrap();
    rollup.update("two", Source::from(&second)).await.unwrap();
    assert_eq!(rollup.periods().await.unwrap(), ["one", "two"]);
    assert_valid(&rollup.merge("all", ["one"]).await.unwrap()).await;

    // A copy, and over it what it was made from.
    let copy = Scan::new(&second).plan().unwrap().transform(Target::new(Arc::clone(&store), "copy"), Ok).await.unwrap();
    assert_eq!(copy.lineage()[0].version, 2);
    assert_eq!(contents(&store, "copy").await, names(&["a", "b"]));
    let third = write(&store, "plays", WriteMode::Replace, "c").await.unwrap();
    assert_eq!(contents(&store, "plays").await, names(&["c"]));
    // Who opened an older version keeps it.
    assert_eq!(sorted(rows(&Scan::new(&second).plan().unwrap()).await), names(&["a", "b"]));
    third.drop_dataset().await.unwrap();
    assert_error(&Dataset::open(Arc::clone(&store), "plays").await.unwrap_err(), ErrorKind::NotFound, &["dropped"]);
    let fifth = write(&store, "plays", WriteMode::Create, "e").await.unwrap();
    assert_eq!((fifth.version(), fifth.id()), (5, first.id()));
}

#[tokio::test]
async fn a_store_creates_an_object_once_however_many_ask_for_it() {
    let store = store();
    for round in 0..10 {
        let mut asking = JoinSet::new();
        for own in 0..8_u8 {
            let store = Arc::clone(&store);
            let path = Path::from(format!("object {round}"));
            asking.spawn(
                async move { store.put_opts(&path, vec![own].into(), PutMode::Create.into()).await.map(|_| own) },
            );
        }
        let answers = asking.join_all().await;
        let won: Vec<u8> = answers.iter().flatten().copied().collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let refused = |e: &object_store::Error| matches!(e, object_store::Error::AlreadyExists { .. });
        assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(refused), "{answers:?}");
        let stored = store.get(&Path::from(format!("object {round}"))).await.unwrap().bytes().await.unwrap();
        assert_eq!(stored, won);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_at_the_same_time_one_creates_and_all_append() {
    let store = store();
    let mut writing = JoinSet::new();
    for name in ["a", "b", "c", "d"] {
        let store = Arc::clone(&store);
        writing.spawn(async move { write(&store, "plays", WriteMode::Create, name).await.map(|_| name) });
    }
    let answers = writing.join_all().await;
    let won: Vec<&str> = answers.iter().flatten().copied().collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|e| e.kind() == ErrorKind::Conflict));
    assert_eq!(contents(&store, "plays").await, names(&won));

    let mut writing = JoinSet::new();
    for name in ["e", "f", "g", "h"] {
        let store = Arc::clone(&store);
        writing.spawn(async move { write(&store, "plays", WriteMode::Append, name).await.unwrap().version() });
    }
    let mut versions = writing.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5]);
    assert_eq!(contents(&store, "plays").await, names(&[won[0], "e", "f", "g", "h"]));
}

#[tokio::test]
async fn a_large_run_is_uploaded_in_parts() {
    let store = store();
    let fields = vec![field("k", DataType::Int64, false), field("noise", DataType::Utf8, false)];
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 8
    };
    // Three parts of 8 MiB, of which the last is not full.
    let line = |noise: &mut dyn FnMut() -> u64| (0..100).map(|_| format!("{:014x}", noise())).collect::<String>();
    let all: Vec<Row> = (0..14_000).map(|k| vec![int(k), text(&line(&mut noise))]).collect();
    let mut data = DatasetData::new(fields, &["k"], 1, all.clone());
    data.writes[0].options = WriteOptions::default().with_compression(Compression::UNCOMPRESSED);
    let dataset = data.write(&store, "large").await;
    assert!(dataset.statistics().largest_run_bytes > 16 << 20, "{:?}", dataset.statistics());
    assert_valid(&dataset).await;
    assert_eq!(rows(&Scan::new(&dataset).plan().unwrap()).await, all);
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 3);
}

/// Names that would lead elsewhere, or be another name, if they were taken for a path or a URL.
const NAMES: [&str; 16] = [
    "plain",
    "a b",
    " a ",
    "50%",
    "%2e%2e",
    "%41",
    "a#b",
    "what?x=1",
    "a&b=c+d",
    "\"q\"'",
    "[x]{y}",
    "back\\slash",
    "~",
    "*",
    "ü ß 日本",
    "a\tb\u{7f}",
];

#[tokio::test]
async fn names_are_encoded_and_come_back() {
    let store = store();
    for name in NAMES {
        let (key, value) = (format!("{name} k"), format!("{name} v"));
        let fields = vec![field(&key, DataType::Int64, false), field(&value, DataType::Utf8, true)];
        let data = DatasetData::new(fields, &[&key], 2, (0..4).map(|k| vec![int(k), text(name)]).collect());
        let path = Path::from_iter(["week", name]);
        let spec = BucketSpec::new([key.clone()], 2).unwrap();
        let builder = DatasetWriter::builder(Arc::clone(&store), path.clone(), data.schema(), spec);
        let mut writer = builder.with_property(name, name).build().await.unwrap();
        writer.write(&batch_of(&data.schema(), &data.writes[0].rows)).await.unwrap();
        writer.commit().await.unwrap();

        let dataset = Dataset::open(Arc::clone(&store), path).await.unwrap();
        assert_valid(&dataset).await;
        assert_eq!(dataset.properties()[name], name);
        let columns: Vec<&str> = dataset.schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(columns, [&key, &value]);
        let source = Source::from(&dataset).with_columns([value]);
        assert_eq!(sorted(rows(&Scan::new(source).plan().unwrap()).await), data.writes[0].rows, "{name}");
    }
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    let all = Partitions::list(Arc::clone(&store), "week").await.unwrap();
    assert_eq!(all.names(), names);
    let found: Vec<Path> = all.open().await.unwrap().iter().map(|dataset| dataset.path().clone()).collect();
    assert_eq!(found, names.iter().map(|name| Path::from_iter(["week", name])).collect::<Vec<_>>());
    for name in NAMES {
        assert_eq!(all.clone().named([name]).unwrap().open().await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_where_it_is_told_to_be() {
    let store = store();
    for path in ["in/../out", "in/..", "in/../../out", "/in/./x", "in//y", "in/%2e%2e/out", "in/..%2f..%2fout"] {
        write(&store, path, WriteMode::Create, path).await.unwrap();
        assert_eq!(contents(&store, path).await, names(&[path]), "{path}");
    }
    for object in store.list(None).map_ok(|object| object.location).try_collect::<Vec<_>>().await.unwrap() {
        assert_eq!(object.parts().next().unwrap().as_ref(), "in", "{object}");
    }
    for id in ["..", "../x", "a/b", "a b", "a%20b", "a#b", "ü", ".hidden", ""] {
        assert_eq!(WriteId::new(id).unwrap_err().kind(), ErrorKind::InvalidInput, "{id}");
    }
}

everywhere!(
    a_dataset_is_created_appended_to_replaced_transformed_rolled_up_and_dropped,
    a_store_creates_an_object_once_however_many_ask_for_it,
    of_writers_at_the_same_time_one_creates_and_all_append,
    a_large_run_is_uploaded_in_parts,
    names_are_encoded_and_come_back,
    no_path_leads_out_of_where_it_is_told_to_be,
);
