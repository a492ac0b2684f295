//! Bugs that were found by reading, each with its cause, what it did, and what holds since.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use sort_merge_bucket::{
    Aggregate, CoGroup, Count, ErrorKind, Join, JoinKind, Parallelism, PlanOptions, Rollup, Scan, Source, Sum, Target,
    WriteOptions,
};

use crate::support::data::DatasetData;
use crate::support::forge::{replace_run, run_paths};
use crate::support::oracle::{int, sorted, text};
use crate::support::stores::read;
use crate::support::{assert_error, failure, field, rows, store};

fn numbers(count: i128, buckets: u32) -> DatasetData {
    let fields = vec![field("k", DataType::Int64, false), field("v", DataType::Int64, false)];
    DatasetData::new(fields, &["k"], buckets, (0..count).map(|k| vec![int(k), int(k * 10)]).collect())
}

/// The row counts of a footer and of its row groups were never compared: a footer without its last row groups made a scan end early, without
/// an error. Both must be what the manifest says.
#[tokio::test]
async fn a_footer_that_leaves_out_row_groups_is_corrupt() {
    let store = store();
    let options = WriteOptions::default().with_max_row_group_rows(10);
    let data = numbers(25, 1);
    let spec = sort_merge_bucket::BucketSpec::new(["k"], 1).unwrap();
    let mut writer = sort_merge_bucket::DatasetWriter::builder(Arc::clone(&store), "d", data.schema(), spec)
        .with_options(options)
        .build()
        .await
        .unwrap();
    let batch: RecordBatch =
        crate::support::data::batch_of(&data.schema(), &(0..25).map(|k| vec![int(k), int(k)]).collect::<Vec<_>>());
    writer.write(&batch).await.unwrap();
    let dataset = writer.commit().await.unwrap();

    let file = read(&store, &run_paths(&dataset)[0]).await;
    let body = file.len() - dataset.runs()[0].footer_bytes as usize;
    let metadata = ParquetMetaDataReader::decode_metadata(&file[body..file.len() - 8]).unwrap();
    assert_eq!(metadata.num_row_groups(), 3);
    for kept in 0..3 {
        let groups = metadata.row_groups()[..kept].to_vec();
        let shortened = metadata.clone().into_builder().set_row_groups(groups).build();
        let mut forged = file[..body].to_vec();
        ParquetMetaDataWriter::new(&mut forged, &shortened).finish().unwrap();
        let mut files = vec![forged.clone()];
        if kept > 0 {
            // A footer that claims 25 rows all the same: its field 3, as Thrift's compact protocol writes it, followed by the list of groups.
            let rows = 10 * kept as u8;
            let at = body + forged[body..].windows(3).position(|bytes| bytes == [0x16, 2 * rows, 0x19]).unwrap();
            forged[at + 1] = 50;
            let claims = ParquetMetaDataReader::decode_metadata(&forged[body..forged.len() - 8]).unwrap();
            assert_eq!((claims.file_metadata().num_rows(), claims.num_row_groups()), (25, kept));
            files.push(forged);
        }
        for forged in files {
            replace_run(&store, &dataset, 0, forged.into(), 25).await;
            let opened = sort_merge_bucket::Dataset::open(Arc::clone(&store), "d").await.unwrap();
            let error = failure(&Scan::new(&opened).plan().unwrap()).await;
            assert_error(&error, ErrorKind::Corrupt, &["another number of rows", "expected=`25`"]);
        }
    }
}

/// Batch sizes were used as they came: 0 made Parquet's reader end at once, which looked like damage, and sizes beyond 32 bits wrapped row
/// numbers. They are brought into a range that works.
#[tokio::test]
async fn any_batch_size_gives_the_same_rows() {
    let store = store();
    let (left, right) = (numbers(100, 2).write(&store, "l").await, numbers(50, 3).write(&store, "r").await);
    for kind in JoinKind::ALL {
        let plan = |batch_size| {
            let mut options = PlanOptions::default();
            options.batch_size = batch_size;
            Join::new(kind, &left, Source::from(&right)).with_right_prefix("r_").with_options(options).plan().unwrap()
        };
        let want = sorted(rows(&plan(8192)).await);
        for batch_size in [0, 1, 1 << 32, usize::MAX] {
            assert_eq!(sorted(rows(&plan(batch_size)).await), want, "{kind}, {batch_size}");
        }
    }
}

/// Planning stopped at key types that do not fit and said nothing of what else was wrong.
#[tokio::test]
async fn other_key_types_do_not_hide_other_problems() {
    let store = store();
    let left = numbers(3, 2).write(&store, "l").await;
    let fields = vec![field("k", DataType::Utf8, false), field("w", DataType::Int64, false)];
    let right = DatasetData::new(fields, &["k"], 2, vec![vec![text("a"), int(1)]]).write(&store, "r").await;
    let error = Join::inner(&left, Source::from(&right).with_columns(["nope"])).plan().unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["key types differ", "no column `nope`"]);
}

/// A group of rows whose key has a null component was carried from window to window as if it could pair, in memory that grew with it.
#[tokio::test]
async fn a_hot_composite_key_with_a_null_pairs_with_nothing() {
    let store = store();
    let side = |name: &str| {
        let fields = vec![
            field("a", DataType::Int64, true),
            field("b", DataType::Int64, true),
            field(name, DataType::Int64, false),
        ];
        let hot = (0..3000).map(|v| vec![int(1), crate::support::oracle::Value::Null, int(v)]);
        let paired = (0..3).map(|v| vec![int(1), int(2), int(v)]);
        DatasetData::new(fields, &["a", "b"], 1, hot.chain(paired).collect())
    };
    let (left, right) = (side("l").write(&store, "l").await, side("r").write(&store, "r").await);
    for (kind, count) in
        [(JoinKind::Inner, 9), (JoinKind::Left, 3009), (JoinKind::Full, 6009), (JoinKind::LeftAnti, 3000)]
    {
        let options = PlanOptions::default().with_batch_size(50);
        let plan = Join::new(kind, &left, &right).with_options(options).plan().unwrap();
        assert_eq!(rows(&plan).await.len(), count, "{kind}");
    }
}

/// A function that failed in the middle of a slot left the slot's uploads unfinished in the store.
#[tokio::test]
async fn a_transform_that_fails_leaves_nothing() {
    let store = crate::support::stores::TestStore::new();
    let shared: Arc<dyn object_store::ObjectStore> = Arc::clone(&store) as _;
    let dataset = numbers(1000, 2).write(&shared, "d").await;
    let before = store.objects().await;
    let plan = Scan::new(&dataset).with_options(PlanOptions::default().with_batch_size(100)).plan().unwrap();
    let calls = std::sync::atomic::AtomicU32::new(0);
    let failed = plan.transform(Target::new(Arc::clone(&shared), "t"), move |batch: RecordBatch| {
        if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 7 {
            return Err(sort_merge_bucket::Error::external("enough"));
        }
        Ok(batch)
    });
    let error = failed.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::External);
    assert_eq!(store.objects().await, before);
}

/// Batches had 8192 rows however large the rows were, so that huge strings, or the maps of partials, made batches of any size.
#[tokio::test]
async fn huge_rows_come_in_batches_of_bounded_bytes() {
    const ROWS: i64 = 64;
    const BYTES: usize = 1 << 20;
    let store = store();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    // Not one value repeated, which a dictionary would hold once.
    let texts = (0..ROWS).map(|row| format!("{row:08}").repeat(BYTES / 8));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let batch = RecordBatch::try_from_iter([("k", keys), ("text", texts)]).unwrap();
    let mut datasets = vec![];
    // Two runs that interleave, and one alone.
    for (name, buckets) in [("a", 1), ("b", 2)] {
        let spec = sort_merge_bucket::BucketSpec::new(["k"], buckets).unwrap();
        let builder = sort_merge_bucket::DatasetWriter::builder(Arc::clone(&store), name, batch.schema(), spec);
        let mut writer = builder.build().await.unwrap();
        writer.write(&batch).await.unwrap();
        datasets.push(writer.commit().await.unwrap());
    }
    for source in [vec![datasets[0].clone()], datasets.clone()] {
        let expected = source.len() as i64 * ROWS;
        let plan = Scan::new(source).plan().unwrap();
        let batches: Vec<_> = plan.stream(Parallelism::Available).try_collect().await.unwrap();
        let mut rows = 0;
        for slot in &batches {
            rows += slot.item.num_rows() as i64;
            let bytes: usize = slot.item["text"].as_string_view().iter().flatten().map(str::len).sum();
            assert!(bytes <= 6 * BYTES, "{bytes} bytes in one batch");
        }
        assert_eq!(rows, expected);
    }
}

/// A co-group source without datasets was left out of what aggregates were bound to, which ended in a panic.
#[tokio::test]
async fn a_co_group_of_an_empty_source_is_an_error_that_names_it() {
    let store = store();
    let dataset = numbers(10, 2).write(&store, "d").await;
    for names in [["full", "empty"], ["empty", "full"]] {
        let group = names.into_iter().fold(CoGroup::new(), |group, name| {
            let datasets = if name == "full" { vec![dataset.clone()] } else { vec![] };
            group.source(name, datasets)
        });
        let aggregate = Aggregate::over(group).aggregate_of("full", "rows", Count::rows()).aggregate_of(
            "empty",
            "none",
            Count::of("v"),
        );
        assert_error(&aggregate.plan().unwrap_err(), ErrorKind::InvalidInput, &["source `empty` has no datasets"]);
    }
}

/// Columns that a caller misspelled were forgotten if no aggregate needed them; datasets that lack the states of an aggregate gave null states.
#[tokio::test]
async fn aggregates_report_columns_that_are_not_there() {
    let store = store();
    let dataset = numbers(10, 2).write(&store, "d").await;
    let misspelled = Source::from(&dataset).with_columns(["v", "vv"]);
    let over = [
        Aggregate::over(misspelled.clone()),
        Aggregate::over(Join::inner(misspelled.clone(), &dataset).with_right_prefix("r_")),
        Aggregate::over(Join::inner(&dataset, misspelled).with_right_prefix("r_")),
    ];
    for aggregate in over {
        let error = aggregate.aggregate("sum", Sum::of("v")).plan().unwrap_err();
        assert_error(&error, ErrorKind::InvalidInput, &["has no column `vv`"]);
    }
    let states = Aggregate::over(&dataset).aggregate("v", Sum::of("v")).plan_states().unwrap();
    let with_sum = states.transform(Target::new(Arc::clone(&store), "s"), Ok).await.unwrap();
    let merged = Aggregate::over_states(vec![with_sum, dataset]).aggregate("v", Sum::of("v"));
    assert_eq!(merged.clone().plan().unwrap().slots().get(), 2);
    let error = merged.aggregate("rows", Count::rows()).plan().unwrap_err();
    assert_error(&error, ErrorKind::InvalidInput, &["no states of `rows`", "dataset=`s`", "dataset=`d`"]);
}

/// Rows that were appended to a partial by hand were taken for its own.
#[tokio::test]
async fn a_partial_that_was_appended_to_is_made_again() {
    let store = store();
    let dataset = numbers(10, 2).write(&store, "d").await;
    let rollup = Rollup::builder(Arc::clone(&store), "r").aggregate("rows", Count::rows()).build().unwrap();
    let partial = rollup.update("p", &dataset).await.unwrap();
    let mut writer = sort_merge_bucket::DatasetWriter::builder(
        Arc::clone(&store),
        "r/period=p",
        Arc::clone(partial.schema()),
        partial.spec().clone(),
    )
    .with_mode(sort_merge_bucket::WriteMode::Append)
    .build()
    .await
    .unwrap();
    let row: [ArrayRef; 2] = [Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![100]))];
    writer.write(&RecordBatch::try_new(Arc::clone(partial.schema()), row.to_vec()).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    assert_error(&rollup.plan(["p"]).await.unwrap_err(), ErrorKind::Incompatible, &["periods=`p`"]);
    assert_eq!(rollup.update("p", &dataset).await.unwrap().version(), 3);
    assert_eq!(rows(&rollup.plan(["p"]).await.unwrap()).await.len(), 10);
}
