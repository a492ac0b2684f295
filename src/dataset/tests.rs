//! Tests of opened datasets, and datasets without files that other tests build on.

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::error::ErrorKind;
use crate::manifest::encode;
use crate::manifest::tests::{example, example_run};
use crate::spec::BucketCount;

async fn stored() -> Arc<dyn ObjectStore> {
    let store = Arc::new(InMemory::new());
    let bytes = encode(&example()).unwrap();
    store.put(&Path::from("plays/_smb/00000000000000000001.json"), bytes.into()).await.unwrap();
    store
}

/// A dataset that is nothing but a manifest, with a run for each bucket, number of rows and number of bytes.
pub(crate) fn of_runs(path: &str, buckets: u32, runs: impl IntoIterator<Item = (u32, u64, u64)>) -> Dataset {
    let buckets = BucketCount::new(buckets).unwrap();
    let mut manifest = example();
    let run = |(bucket, rows, bytes)| Run { buckets, rows, bytes, ..example_run("w1", bucket) };
    manifest.spec = manifest.spec.with_buckets(buckets);
    manifest.runs = runs.into_iter().map(run).collect();
    Dataset::from_manifest(Place::new(Arc::new(InMemory::new()), path), Arc::new(manifest)).unwrap()
}

#[test]
fn sizes_of_buckets_are_sums_over_their_runs() {
    let sizes = of_runs("plays", 8, [(1, 10, 100), (5, 1, 900), (1, 20, 50), (7, 1, 1)]).bucket_sizes();
    let filled: Vec<_> = sizes.filled.iter().map(|size| (size.bucket, size.runs, size.rows, size.bytes)).collect();
    assert_eq!(filled, [(1, 2, 30, 150), (5, 1, 1, 900), (7, 1, 1, 1)]);
    assert_eq!((sizes.buckets.get(), sizes.runs(), sizes.rows(), sizes.bytes()), (8, 4, 32, 1051));
    assert_eq!((sizes.largest().unwrap().bucket, sizes.mean_rows(), sizes.skew()), (1, 4.0, 7.5));
    assert_eq!(
        sizes.to_string(),
        "8 buckets, 5 of them empty, 4 runs; on average 4 rows, 131 bytes; largest bucket 1: 30 rows, 150 bytes, skew 7.50"
    );
}

#[test]
fn buckets_of_different_counts_are_counted_as_a_plan_reads_them() {
    let mut manifest = of_runs("plays", 6, [(1, 10, 100), (5, 1, 900)]).manifest().as_ref().clone();
    manifest.runs.push(Run { buckets: BucketCount::new(4).unwrap(), ..example_run("w2", 3) });
    let dataset = Dataset::from_manifest(Place::new(Arc::new(InMemory::new()), "plays"), Arc::new(manifest)).unwrap();
    let sizes = dataset.bucket_sizes();
    assert_eq!(sizes.buckets, crate::Scan::new(&dataset).plan().unwrap().slots());
    assert_eq!((sizes.buckets.get(), sizes.filled.len()), (2, 1), "all three in bucket 1 of 2");
    assert_eq!((sizes.rows(), sizes.skew()), (1_011, 2.0));
}

#[test]
fn a_dataset_without_rows_is_even_and_huge_numbers_do_not_overflow() {
    let empty = of_runs("plays", u32::MAX, []).bucket_sizes();
    assert_eq!((empty.rows(), empty.largest(), empty.skew()), (0, None, 1.0));
    assert_eq!(empty.to_string(), "4294967295 buckets, 4294967295 of them empty, 0 runs; on average 0 rows, 0 bytes");
    let huge = of_runs("plays", 2, [(0, u64::MAX, u64::MAX), (0, u64::MAX, 1)]).bucket_sizes();
    assert_eq!((huge.rows(), huge.bytes(), huge.skew()), (u64::MAX, u64::MAX, 2.0));
}

#[tokio::test]
async fn a_dataset_shows_what_its_manifest_says() {
    let store = stored().await;
    let manifest = example();
    let dataset = Dataset::open(Arc::clone(&store), "plays").await.unwrap();
    assert_eq!((dataset.version(), dataset.data_version(), dataset.operation()), (1, 1, Operation::Create));
    assert_eq!(
        (dataset.id(), dataset.write_id(), dataset.spec()),
        (&manifest.dataset_id, &manifest.write_id, &manifest.spec)
    );
    assert_eq!((dataset.runs(), dataset.committed_at()), (manifest.runs.as_slice(), manifest.committed_at));
    assert_eq!((dataset.properties(), dataset.lineage()), (&manifest.properties, [].as_slice()));
    let names: Vec<&str> = dataset.schema().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "name", "price"]);
    let paths: Vec<String> = dataset.run_paths().map(|p| p.to_string()).collect();
    assert_eq!(paths[1], "plays/data/w1/bucket-00003-of-00004-00000-00000000-000001.parquet");
    let expected =
        DatasetStatistics { runs: 2, rows: 2_000, bytes: 10_000, largest_run_rows: 1_000, largest_run_bytes: 5_000 };
    assert_eq!(dataset.statistics(), expected);
    assert_eq!(
        dataset.to_string(),
        "plays version 1: 2 runs, 2000 rows, 10000 bytes, key=[id, name], sort=[price], buckets=4, function=iceberg-murmur3-v1, order=value"
    );
}

#[tokio::test]
async fn a_dropped_dataset_is_not_found_and_its_versions_are() {
    let store = stored().await;
    let dataset = Dataset::open(Arc::clone(&store), "plays").await.unwrap();
    dataset.clone().drop_dataset().await.unwrap();
    let error = Dataset::open(Arc::clone(&store), "plays").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("was dropped"), "{error}");
    assert_eq!(Dataset::open_version(Arc::clone(&store), "plays", 2).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Dataset::open_version(Arc::clone(&store), "plays", 1).await.unwrap().version(), 1);
    assert_eq!(dataset.drop_dataset().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_with_its_path() {
    let error = Dataset::open(stored().await, "users").await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some("users")));
    let error = Dataset::open_version(stored().await, "plays", 7).await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some("plays")));
}
