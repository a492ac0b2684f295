//! Tests of partition listings.

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::manifest::encode;
use crate::manifest::tests::example;

/// Weeks 1 to 5, of which week 3 is dropped, and folders that are no datasets.
async fn plays() -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for week in 1..=5 {
        let path = format!("plays/week=2025-W0{week}/_smb/00000000000000000001.json");
        store.put(&path.into(), encode(&example()).unwrap().into()).await.unwrap();
    }
    for other in ["plays/_tmp/x", "plays/.hidden/x", "plays/notes/x", "plays/file", "played/week=1/x"] {
        store.put(&other.into(), "x".into()).await.unwrap();
    }
    Dataset::open(Arc::clone(&store), "plays/week=2025-W03").await.unwrap().drop_dataset().await.unwrap();
    store
}

async fn opened(partitions: Partitions) -> Vec<String> {
    partitions.open().await.unwrap().iter().map(|d| d.path().filename().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn partitions_are_listed_by_name_and_opened_without_dropped_ones() {
    let all = Partitions::list(plays().await, "plays").await.unwrap();
    assert_eq!(
        all.names(),
        ["notes", "week=2025-W01", "week=2025-W02", "week=2025-W03", "week=2025-W04", "week=2025-W05"]
    );
    assert_eq!(opened(all).await, ["week=2025-W01", "week=2025-W02", "week=2025-W04", "week=2025-W05"]);
}

#[tokio::test]
async fn partitions_are_chosen_by_range_and_name() {
    let store = plays().await;
    let all = Partitions::list(Arc::clone(&store), "plays").await.unwrap();
    assert_eq!(opened(all.clone().range("week=2025-W02"..="week=2025-W04")).await, ["week=2025-W02", "week=2025-W04"]);
    assert_eq!(opened(all.clone().range("week=2025-W04"..)).await, ["week=2025-W04", "week=2025-W05"]);
    assert_eq!(opened(all.clone().range(.."week=2025-W02")).await, ["week=2025-W01"]);
    let named = all.clone().named(["week=2025-W05", "week=2025-W01", "week=2025-W05"]).unwrap();
    assert_eq!(opened(named).await, ["week=2025-W01", "week=2025-W05"]);
    assert!(opened(Partitions::list(store, "absent").await.unwrap()).await.is_empty());
}

#[tokio::test]
async fn partitions_that_were_named_must_all_be_there() {
    let all = Partitions::list(plays().await, "plays").await.unwrap();
    let error = all.clone().named(["week=2025-W01", "week=2026-W02", "week=2026-W01"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("names=`week=2026-W01, week=2026-W02`"), "{error}");
    let error = all.named(["week=2025-W01", "week=2025-W03", "notes"]).unwrap().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("names=`notes, week=2025-W03`"), "{error}");
}

#[tokio::test]
async fn partitions_have_the_names_that_they_were_written_under() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let put = async |folder: Path| {
        let path = folder.join("_smb").join("00000000000000000001.json");
        store.put(&path, encode(&example()).unwrap().into()).await.unwrap();
    };
    // What a path encodes, and what looks as if it were encoded.
    let mut names = ["week=1", "week 1", "a#b", "50%", "%41", "what?", "ü", "..", "x%2Fy", "[1]", "~"];
    for name in names {
        put(Path::from_iter(["plays", name])).await;
    }
    names.sort_unstable();
    let all = Partitions::list(Arc::clone(&store), "plays").await.unwrap();
    // Two dots are encoded in a path, so that they lead nowhere; a name that begins with a dot is hidden.
    let shown: Vec<&str> = names.into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(all.names(), shown);
    assert_eq!(all.open().await.unwrap().len(), shown.len());
    for name in shown {
        let one = all.clone().named([name]).unwrap().open().await.unwrap();
        assert_eq!(*one[0].path(), Path::from_iter(["plays", name]));
        assert_eq!(all.clone().range(name..=name).names(), [name]);
    }
    // Folders that others made are called what they are called.
    for folder in ["a#b", "%zz", "%E9", "%2e"] {
        put(Path::parse(format!("foreign/{folder}")).unwrap()).await;
    }
    let foreign = Partitions::list(store, "foreign").await.unwrap();
    assert_eq!(foreign.names(), ["%2e", "%E9", "%zz", "a#b"]);
    assert_eq!(foreign.open().await.unwrap().len(), 4);
}
