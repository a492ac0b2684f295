//! Tests of opened datasets.

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::error::ErrorKind;
use crate::manifest::encode;
use crate::manifest::tests::example;

async fn stored() -> Arc<dyn ObjectStore> {
    let store = Arc::new(InMemory::new());
    let bytes = encode(&example()).unwrap();
    store.put(&Path::from("plays/_smb/00000000000000000001.json"), bytes.into()).await.unwrap();
    store
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
