//! Tests of run files: what other readers see, and what the run writer refuses.

use std::sync::Mutex;

use parquet::basic::Compression;
use parquet::file::metadata::{RowGroupMetaData, SortingColumn};

use super::*;
use crate::write::run_encoder::RunEncoder;

fn schema() -> SchemaRef {
    let fields = vec![Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))), true)];
    let struct_fields = vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)];
    let more = vec![
        Field::new("pair", DataType::Struct(struct_fields.into()), true),
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8View, true),
    ];
    Arc::new(Schema::new([fields, more].concat()))
}

type Key<'a> = (Option<i64>, Option<&'a str>);

fn batch(keys: &[Key<'_>]) -> RecordBatch {
    let schema = schema();
    let k: ArrayRef = Arc::new(keys.iter().map(|(k, _)| *k).collect::<Int64Array>());
    let s: ArrayRef = Arc::new(keys.iter().map(|(_, s)| *s).collect::<StringViewArray>());
    let columns = schema.fields().iter().map(|f| match f.name().as_str() {
        "k" => Arc::clone(&k),
        "s" => Arc::clone(&s),
        _ => new_null_array(f.data_type(), keys.len()),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

fn spec() -> BucketSpec {
    BucketSpec::new(["k"], 1).unwrap().with_sort_columns(["s"]).unwrap()
}

async fn write_run(
    store: &Arc<dyn ObjectStore>,
    options: &WriteOptions,
    batches: &[RecordBatch],
) -> Result<Option<Run>> {
    let mut writer = RunFileWriter::new(
        &target(store, &schema(), &spec(), options)?,
        0,
        "00000-00000000-000001",
        &Feedback::default(),
        Crew::new(1).seat(),
    )?;
    for batch in batches {
        if let Err(e) = writer.write(batch).await {
            writer.abort().await;
            return Err(e);
        }
    }
    writer.close().await
}

#[tokio::test]
async fn a_plain_parquet_reader_sees_order_statistics_and_identity() {
    let store = in_memory();
    let keys: Vec<Key<'_>> = (0..1000).map(|i| (Some(i / 2), if i % 2 == 0 { Some("x") } else { None })).collect();
    let options = WriteOptions::default().with_max_row_group_rows(400).with_page_rows(100);
    let run = write_run(&store, &options, &[batch(&keys)]).await.unwrap().unwrap();
    assert_eq!(run.path, "data/w1/bucket-00000-of-00001-00000-00000000-000001.parquet");

    let bytes = bytes_of(&store, &run).await;
    let options = parquet::arrow::arrow_reader::ArrowReaderOptions::new()
        .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options).unwrap();
    let metadata = reader.metadata();
    let rows: Vec<i64> = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [400, 400, 200]);
    for group in metadata.row_groups() {
        // Leaves: tags, pair.a, pair.b, k, s.
        let ascending = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
        assert_eq!(group.sorting_columns(), Some(&vec![ascending(3), ascending(4)]));
        assert_eq!(group.column(3).compression(), Compression::ZSTD(Default::default()));
        assert!(group.column(3).statistics().is_some());
    }
    assert_eq!(metadata.offset_index().unwrap()[0][3].page_locations().len(), 4);
    let footer: BTreeMap<&str, &str> = metadata
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|kv| (kv.key.as_str(), kv.value.as_deref().unwrap()))
        .collect();
    let id = DatasetId::generate(clock(), &WriteId::new("w1").unwrap());
    for (key, value) in [
        ("smb.format", "1"),
        ("smb.dataset_id", id.as_str()),
        ("smb.write_id", "w1"),
        ("smb.run_id", "00000-00000000-000001"),
        ("smb.bucket", "0"),
        ("smb.buckets", "1"),
    ] {
        assert_eq!(footer[key], value);
    }
    // The promised range is exactly the footer.
    let tail = bytes.slice(bytes.len() - run.footer_bytes as usize..);
    parquet::file::metadata::ParquetMetaDataReader::decode_metadata(&tail[..tail.len() - 8]).unwrap();
}

#[tokio::test]
async fn a_run_without_rows_is_no_run() {
    let store = in_memory();
    assert!(write_run(&store, &WriteOptions::default(), &[batch(&[])]).await.unwrap().is_none());
    let listed: Vec<_> = futures::StreamExt::collect(store.list(None)).await;
    assert!(listed.is_empty());
}

#[tokio::test]
async fn rows_out_of_order_are_refused_with_row_and_both_keys() {
    let cases: [(&[&[Key<'_>]], u64, &str); 8] = [
        (&[&[(Some(1), None), (Some(3), None), (Some(2), None)]], 2, "previous=`3, null`, key=`2, null`"),
        (&[&[(Some(1), Some("a")), (Some(5), Some("a"))], &[(Some(4), Some("z"))]], 2, "previous=`5, a`, key=`4, z`"),
        (&[&[(Some(1), Some("b")), (Some(1), Some("a"))]], 1, "previous=`1, b`, key=`1, a`"),
        (
            &[&[(Some(1), Some("a")), (Some(2), Some("b")), (Some(2), Some("a")), (Some(1), Some("c"))]],
            2,
            "previous=`2, b`, key=`2, a`",
        ),
        (&[&[(Some(2), Some("a")), (Some(1), Some("b")), (Some(1), Some("a"))]], 1, "previous=`2, a`, key=`1, b`"),
        (&[&[(None, Some("b"))], &[(Some(1), Some("b"))]], 1, "previous=`null, b`, key=`1, b`"),
        (&[&[(None, Some("b")), (Some(-1), Some("b"))]], 1, "previous=`null, b`, key=`-1, b`"),
        (&[&[(Some(1), None)], &[], &[(Some(1), Some("é"))]], 1, "previous=`1, null`, key=`1, é`"),
    ];
    for (batches, row, keys) in cases {
        let store = in_memory();
        let batches: Vec<RecordBatch> = batches.iter().map(|keys| batch(keys)).collect();
        let error = write_run(&store, &WriteOptions::default(), &batches).await.unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::Unsorted, Some(row)), "{error}");
        assert!(error.to_string().contains(keys), "{error} should say {keys}");
        assert_eq!(error.path(), Some("plays/data/w1/bucket-00000-of-00001-00000-00000000-000001.parquet"));
        let listed: Vec<_> = futures::StreamExt::collect(store.list(None)).await;
        assert!(listed.is_empty());
    }
}

#[tokio::test]
async fn long_keys_in_messages_are_cut() {
    let long = "é".repeat(500);
    let batches = [batch(&[(Some(1), Some(&long)), (Some(1), Some("a"))])];
    let error = write_run(&in_memory(), &WriteOptions::default(), &batches).await.unwrap_err();
    assert!(error.to_string().len() < 400, "{error}");
}

#[tokio::test]
async fn a_run_writer_that_failed_stays_failed() {
    let store = in_memory();
    let target = target(&store, &schema(), &spec(), &WriteOptions::default()).unwrap();
    let mut writer = RunFileWriter::new(&target, 0, "r", &Feedback::default(), Crew::new(1).seat()).unwrap();
    assert!(writer.write(&batch(&[(Some(2), None), (Some(1), None)])).await.is_err());
    assert_eq!(writer.write(&batch(&[(Some(9), None)])).await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(writer.close().await.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn law_a_runs_bytes_do_not_depend_on_how_its_rows_are_cut() {
    let store = in_memory();
    let mut random = Random(11);
    let mut keys: Vec<(Option<i64>, String)> =
        (0..20_000).map(|_| (Some((random.next() % 5000) as i64), format!("{}", random.next() % 100_000))).collect();
    keys.sort();
    let keys: Vec<Key<'_>> = keys.iter().map(|(k, s)| (*k, Some(s.as_str()))).collect();
    let whole = batch(&keys);
    let options = WriteOptions::default().with_row_group_bytes(50_000).with_page_rows(1000);
    let target = target(&store, &schema(), &spec(), &options).unwrap();
    let encode = |sizes: &[usize]| {
        let mut encoder = RunEncoder::new(&target, 0, "r").unwrap();
        let mut bytes = vec![];
        let mut start = 0;
        for size in sizes.iter().cycle() {
            if start == whole.num_rows() {
                break;
            }
            let rows = (*size).min(whole.num_rows() - start);
            encoder.write(&whole.slice(start, rows)).unwrap();
            bytes.extend(encoder.take_bytes().unwrap());
            start += rows;
        }
        let (last, run) = encoder.finish().unwrap().unwrap();
        bytes.extend(last);
        (bytes, run)
    };
    let first = encode(&[20_000]);
    assert!(first.1.fences.len() >= 8);
    for sizes in [&[1][..], &[8192], &[7, 3000, 1], &[8191, 2]] {
        assert!(encode(sizes) == first, "sizes {sizes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_runs_are_uploaded_in_parts() {
    // More than two parts of bytes that do not compress.
    let mut random = Random(5);
    let rows = 40_000_i64;
    let texts: Vec<String> = (0..rows).map(|_| (0..40).map(|_| format!("{:016x}", random.next())).collect()).collect();
    let batches: Vec<RecordBatch> = (0..rows as usize)
        .step_by(4000)
        .map(|start| {
            let keys: Vec<_> = (start..start + 4000).map(|i| (Some(i as i64), Some(texts[i].as_str()))).collect();
            batch(&keys)
        })
        .collect();
    let options = WriteOptions::default().with_compression(Compression::UNCOMPRESSED).with_row_group_bytes(3 << 20);
    let dir = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> =
        Arc::new(object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    for store in [in_memory(), local] {
        let run = write_run(&store, &options, &batches).await.unwrap().unwrap();
        let bytes = bytes_of(&store, &run).await;
        assert!(bytes.len() > 20 << 20);
        assert_eq!(run.bytes, bytes.len() as u64);
        assert_eq!(run.checksum.value, format!("{:016x}", twox_hash::XxHash64::oneshot(0, &bytes)));
        assert_eq!(read(&bytes).iter().map(RecordBatch::num_rows).sum::<usize>(), rows as usize);
    }
}

#[test]
fn an_aborted_large_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let done = Mutex::new(false);
    tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
        let store: Arc<dyn ObjectStore> =
            Arc::new(object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let mut upload = crate::write::upload::Upload::new(store, Path::from("plays/data/x.parquet"));
        for _ in 0..4 {
            upload.push(Bytes::from(vec![7; 5 << 20])).await.unwrap();
        }
        upload.abort().await;
        *done.lock().unwrap() = true;
    });
    assert!(done.into_inner().unwrap());
    let data = dir.path().join("plays/data");
    assert_eq!(std::fs::read_dir(data).map_or(0, Iterator::count), 0);
}
