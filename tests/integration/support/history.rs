//! The versions of a dataset as their manifests say, read as plain JSON, and what must hold of them whoever wrote at once.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

/// One version, or what is left of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) write_id: String,
    pub(crate) committed_at: String,
    /// `None` for a tombstone.
    pub(crate) whole: Option<Whole>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Whole {
    pub(crate) operation: String,
    pub(crate) base: Option<u64>,
    pub(crate) runs: BTreeSet<String>,
    pub(crate) fenced: BTreeSet<String>,
}

/// The objects under a folder, relative to it, with their sizes.
pub(crate) async fn objects(store: &dyn ObjectStore, folder: &str) -> Vec<(String, u64)> {
    let folder = Path::from(folder);
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
    let relative =
        |path: &Path| path.as_ref().strip_prefix(folder.as_ref()).unwrap().trim_start_matches('/').to_owned();
    let mut objects: Vec<_> = listed.iter().map(|meta| (relative(&meta.location), meta.size)).collect();
    objects.sort();
    objects
}

/// The paths of the objects under `data/`, relative to the dataset.
pub(crate) async fn data(store: &dyn ObjectStore, root: &str) -> BTreeSet<String> {
    let objects = objects(store, &format!("{root}/data")).await;
    objects.into_iter().map(|(path, _)| format!("data/{path}")).collect()
}

/// All versions of the dataset, none if there is none.
pub(crate) async fn versions(store: &dyn ObjectStore, root: &str) -> Vec<Version> {
    let mut versions = vec![];
    for (name, _) in objects(store, &format!("{root}/_smb")).await {
        let Some(number) = name.strip_suffix(".json") else { continue };
        let bytes = store.get(&Path::from(format!("{root}/_smb/{name}"))).await.unwrap().bytes().await.unwrap();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let texts = |values: &Value| values.as_array().unwrap().iter().map(text).collect();
        assert_eq!(manifest["version"].as_u64(), number.parse().ok());
        let whole = || Whole {
            operation: text(&manifest["operation"]),
            base: manifest["base"].as_u64(),
            runs: manifest["runs"].as_array().unwrap().iter().map(|run| text(&run["path"])).collect(),
            fenced: texts(&manifest["fenced_write_ids"]),
        };
        versions.push(Version {
            number: number.parse().unwrap(),
            write_id: text(&manifest["write_id"]),
            committed_at: text(&manifest["committed_at"]),
            whole: (manifest["tombstone"] != Value::Bool(true)).then(whole),
        });
    }
    versions
}

/// Checks that numbers are dense, no write committed twice, every version follows from the one before as its operation says, and every run that a
/// version names is there. Returns the versions.
pub(crate) async fn check(store: &dyn ObjectStore, root: &str) -> Vec<Version> {
    let versions = versions(store, root).await;
    let data = data(store, root).await;
    let numbers: Vec<u64> = versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, (1..=versions.len() as u64).collect::<Vec<_>>());
    let writes: BTreeSet<&str> = versions.iter().map(|version| version.write_id.as_str()).collect();
    assert_eq!(writes.len(), versions.len(), "a write has made two versions: {versions:?}");
    assert!(versions.last().is_none_or(|newest| newest.whole.is_some()), "the newest version is a tombstone");
    for (at, version) in versions.iter().enumerate() {
        let Some(Whole { operation, base, runs, fenced }) = &version.whole else { continue };
        let missing: Vec<&String> = runs.difference(&data).collect();
        assert!(missing.is_empty(), "version {} names runs that are gone: {missing:?}", version.number);
        let own = |run: &String| run.split('/').nth(1) == Some(version.write_id.as_str());
        assert!(runs.iter().all(|run| !fenced.contains(run.split('/').nth(1).unwrap())), "a fenced run: {version:?}");
        let between = &versions[base.map_or(0, |base| base as usize)..at];
        let may_follow = match operation.as_str() {
            "append" => between.iter().all(|other| {
                other.whole.as_ref().is_none_or(|other| ["append", "vacuum"].contains(&other.operation.as_str()))
            }),
            "vacuum" => true,
            _ => between.is_empty(),
        };
        assert!(may_follow, "{version:?} follows {between:?}");
        let Some(before) = at.checked_sub(1).and_then(|at| versions[at].whole.as_ref()) else { continue };
        assert!(fenced.is_superset(&before.fenced), "fences are carried on: {versions:?}");
        let added: BTreeSet<String> = runs.difference(&before.runs).cloned().collect();
        let follows = match operation.as_str() {
            "create" | "replace" => runs.iter().all(own),
            "append" => runs.is_superset(&before.runs) && added.iter().all(own),
            "drop" => runs.is_empty(),
            "vacuum" => *runs == before.runs,
            other => panic!("nothing makes a {other}"),
        };
        assert!(follows, "{version:?} does not follow from {before:?}");
    }
    versions
}
