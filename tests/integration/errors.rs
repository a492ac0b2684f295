//! Every kind of error as a user sees it, from the situation that causes it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use object_store::ObjectStore;
use sort_merge_bucket::{
    BucketSpec, CoGroup, Dataset, DatasetWriter, Error, ErrorKind, Join, Scan, Target, WriteId, WriteMode,
};

use crate::support::data::{DatasetData, batch_of};
use crate::support::forge::{edit_manifest, edit_run, run_paths};
use crate::support::oracle::{Row, bucket_of, int, text};
use crate::support::stores::{TestStore, When, put};
use crate::support::{failure, field, store};

fn plays() -> DatasetData {
    let fields = vec![field("user", DataType::Int64, false), field("track", DataType::Utf8, false)];
    let rows: Vec<Row> = (0..20).map(|at| vec![int(at % 5), text(&format!("track {at}"))]).collect();
    DatasetData::new(fields, &["user"], 2, rows)
}

/// The text with N in the place of the number after `marker`.
fn without_number(text: &str, marker: &str) -> String {
    match text.split_once(marker) {
        Some((before, after)) => format!("{before}{marker}N{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => text.to_owned(),
    }
}

/// An error in full with its sources, without what differs between runs of the test or says nothing.
fn shown(error: &Error, dataset: &Dataset) -> String {
    let mut shown = error.to_string();
    for (at, path) in run_paths(dataset).iter().enumerate() {
        shown = shown.replace(path, &format!("<run {at}>"));
    }
    // The runtime numbers its tasks, and a compressor may get better.
    shown = without_number(&without_number(&shown, "cause=`task "), "damaged, expected=`");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        shown += &format!(" <- {cause}");
        source = cause.source();
    }
    shown
}

#[tokio::test]
async fn every_kind_is_printed_with_what_a_user_needs() {
    let mut all: Vec<(ErrorKind, String)> = vec![];
    let store = TestStore::new();
    let dynamic: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let dataset = plays().write_fixed(&dynamic, "plays").await;
    let mut note = |error: Error| all.push((error.kind(), shown(&error, &dataset)));

    note(BucketSpec::new(["user"], 0).unwrap_err());

    let names = DatasetData::new(vec![field("name", DataType::Utf8, false)], &["name"], 2, vec![])
        .write(&dynamic, "names")
        .await;
    note(Join::inner(&dataset, &names).plan().unwrap_err());

    note(Dataset::open(Arc::clone(&dynamic), "nowhere").await.unwrap_err());

    let builder = DatasetWriter::builder(Arc::clone(&dynamic), "plays", plays().schema(), plays().spec(2));
    note(builder.with_write_id(WriteId::new("plays-again").unwrap()).build().await.unwrap_err());

    let plan = Scan::new(&dataset).plan().unwrap();
    let target = Target::new(Arc::clone(&dynamic), "result");
    note(plan.transform(target, |_| Err(Error::external("the model did not load"))).await.unwrap_err());

    let target = Target::new(Arc::clone(&dynamic), "result");
    note(plan.transform(target, |_| panic!("index out of bounds")).await.unwrap_err());

    let groups = CoGroup::new().source("plays", &dataset).with_max_group_rows(3).plan().unwrap();
    note(groups.execute(&groups.slot(0).unwrap()).map(drop).err().unwrap_or(failure(&groups).await));

    store.fail(0..usize::MAX, When::Before);
    note(failure(&plan).await);
    store.heal();

    let builder = DatasetWriter::builder(Arc::clone(&dynamic), "plays", plays().schema(), plays().spec(2));
    let builder = builder.with_mode(WriteMode::Append).with_write_id(WriteId::new("late-plays").unwrap());
    let mut writer = builder.build().await.unwrap();
    writer.write(&batch_of(&plays().schema(), &plays().writes[0].rows)).await.unwrap();
    // Two runs are put, then the commit begins, and no answer comes any more.
    store.fail(2..usize::MAX, When::Before);
    note(writer.commit().await.unwrap_err());
    store.heal();

    let unsorted = edit_run(&dynamic, &dataset, 0, |rows| rows.reverse()).await;
    note(failure(&Scan::new(&unsorted).plan().unwrap()).await);

    let bucket = dataset.runs()[0].bucket;
    let foreign = (1..).map(|n| -n).find(|k| bucket_of(&[DataType::Int64], &[int(*k)], 2) != bucket).unwrap();
    let misplaced = edit_run(&dynamic, &dataset, 0, |rows| {
        rows.reverse();
        rows[0][0] = int(foreign);
    })
    .await;
    note(failure(&Scan::new(&misplaced).plan().unwrap()).await);

    put(&dynamic, &run_paths(&dataset)[0], "not a run").await;
    note(failure(&Scan::new(&misplaced).plan().unwrap()).await);

    edit_manifest(&dynamic, "plays", 1, |manifest| manifest["format_version"] = 9.into()).await;
    note(Dataset::open(Arc::clone(&dynamic), "plays").await.unwrap_err());

    let text: Vec<String> = all.iter().map(|(_, text)| text.clone()).collect();
    let kinds: Vec<ErrorKind> = all.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(text.join("\n"), EXPECTED.trim());
    use ErrorKind as E;
    assert_eq!(
        kinds,
        [
            E::InvalidInput,
            E::Incompatible,
            E::NotFound,
            E::Conflict,
            E::External,
            E::Internal,
            E::LimitExceeded,
            E::Store,
            E::CommitUnknown,
            E::Unsorted,
            E::Misplaced,
            E::Corrupt,
            E::UnsupportedVersion,
        ],
        "one of each"
    );
}

const EXPECTED: &str = "
invalid input: a dataset needs at least one bucket, buckets=`0`
incompatible: key types differ, `left` (plays) column `user`: int64, `right` (names) column `name`: utf8
not found: there is no dataset, path=`nowhere`
conflict: the dataset exists already; append to it or replace it, version=`1`, write_id=`plays-again`, path=`plays`
external: the caller's function failed <- the model did not load
internal: a task ended without a result, cause=`task N panicked with message \"index out of bounds\"`
limit exceeded: a key group is larger than the limit, raise it or read the co-group in chunks, key=`4`, rows>=`4`, max_group_rows=`3`
store: the object store failed, path=`<run 0>` <- Generic TestStore error: the connection was lost <- the connection was lost
commit unknown: the store did not say whether the manifest was created; write again with the same write id, write_id=`late-plays`, path=`plays/_smb/00000000000000000002.json` \
<- store: the object store failed, path=`plays/_smb/00000000000000000002.json` <- Generic TestStore error: the connection was lost <- the connection was lost
unsorted: a row comes after a greater one, rewrite the dataset from its source, previous=`4`, offending=`2`, path=`<run 0>`, row=`4`
misplaced: a row lies in another bucket than its key hashes to, rewrite the dataset from its source, expected=`1`, actual=`0`, path=`<run 0>`, row=`0`
corrupt: a run's file has not the size that the manifest says: it was shortened, replaced or damaged, expected=`N`, found=`9`, path=`<run 0>`
unsupported version: the dataset has another format version, use a library that knows it, found=`9`, supported=`1`, path=`plays/_smb/00000000000000000001.json`
";

#[tokio::test]
async fn messages_do_not_repeat_their_source_and_debug_shows_everything() {
    let store = store();
    let dataset = plays().write(&store, "plays").await;
    let plan = Scan::new(&dataset).plan().unwrap();
    let error =
        plan.transform(Target::new(store, "result"), |_| Err(Error::external("unique words"))).await.unwrap_err();
    assert!(!error.to_string().contains("unique words"));
    assert!(format!("{error:?}").contains("unique words"));
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}
