//! Date partitions: datasets side by side under one prefix, found by listing it and chosen by name or range.
//!
//! Every partition is a dataset of its own, committed on its own. Nothing here interprets a name: partitions are in the order of their names, so
//! names that sort as their dates do (`week=2025-W01`) make ranges of dates.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::name_of_folder;

#[cfg(test)]
mod tests;

/// How many partitions are opened at once.
const OPEN_CONCURRENCY: usize = 16;

/// The partitions under a prefix that were chosen so far.
///
/// ```
/// use std::sync::Arc;
/// use object_store::{ObjectStore, memory::InMemory};
/// use sort_merge_bucket::Partitions;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sort_merge_bucket::Error> {
/// let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let january = Partitions::list(store, "plays").await?.range("week=2025-W01"..="week=2025-W04");
/// assert!(january.open().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Partitions {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// As their makers wrote them, ascending.
    names: Vec<String>,
    /// Of the same partitions, as they are called in the store.
    folders: Vec<Path>,
    /// Whether the caller named them, so that each must be there.
    named: bool,
}

impl Partitions {
    /// Lists the folders directly under `prefix`, except those whose names begin with `_` or `.`. One listing; which of them are datasets shows
    /// when they are opened.
    ///
    /// # Errors
    /// `Store` if the store cannot list.
    pub async fn list(store: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Result<Self> {
        let prefix = prefix.into();
        let listed = store.list_with_delimiter(Some(&prefix)).await.map_err(|e| Error::from(e).with_path(&prefix))?;
        let named = |folder: Path| Some((name_of_folder(folder.filename()?), folder));
        let mut all: Vec<(String, Path)> = listed.common_prefixes.into_iter().filter_map(named).collect();
        all.retain(|(name, _)| !name.starts_with(['_', '.']));
        all.sort();
        let (names, folders) = all.into_iter().unzip();
        Ok(Self { store, prefix, names, folders, named: false })
    }

    /// These folders, each of which must be a dataset. Lists nothing.
    pub(crate) fn of(store: Arc<dyn ObjectStore>, prefix: Path, names: Vec<String>) -> Self {
        let folders = names.iter().map(|name| prefix.clone().join(name.as_str())).collect();
        Self { store, prefix, names, folders, named: true }
    }

    /// The names of the chosen folders, ascending by their bytes. What a path encodes (`#` as `%23`) is decoded: names are those that datasets were
    /// written under.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Keeps those whose names lie in `range`, compared by their bytes.
    #[must_use]
    pub fn range<'a>(self, range: impl RangeBounds<&'a str>) -> Self {
        self.retain(|name| range.contains(&name))
    }

    fn retain(self, keep: impl Fn(&str) -> bool) -> Self {
        let all = self.names.into_iter().zip(self.folders);
        let (names, folders) = all.filter(|(name, _)| keep(name)).unzip();
        Self { names, folders, ..self }
    }

    /// Keeps exactly these.
    ///
    /// # Errors
    /// `NotFound` naming **all** that are not there.
    pub fn named<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Result<Self> {
        let wanted: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        let missing: Vec<&str> =
            wanted.iter().filter(|name| self.names.binary_search(name).is_err()).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(Self { named: true, ..self.retain(|name| wanted.contains(name)) });
        }
        Err(missing_partitions(&missing, &self.prefix))
    }

    /// Opens the newest version of each, in the order of their names. Folders without a dataset and dropped datasets are skipped, unless they were
    /// [`named`](Self::named).
    ///
    /// Each partition is opened by itself: a commit that happens meanwhile is seen in one partition or not, never in half of one.
    ///
    /// # Errors
    /// `NotFound` naming **all** partitions that were asked for by name and are not there; else as [`Dataset::open`].
    pub async fn open(&self) -> Result<Vec<Dataset>> {
        let open = |folder: &Path| {
            let dataset = Dataset::open(Arc::clone(&self.store), folder.clone());
            async move {
                match dataset.await {
                    Ok(dataset) => Ok(Some(dataset)),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e),
                }
            }
        };
        // Made before the stream, which would otherwise have to be told that the closure works for every lifetime.
        let opening: Vec<_> = self.folders.iter().map(open).collect();
        let opened: Vec<Option<Dataset>> = stream::iter(opening).buffered(OPEN_CONCURRENCY).try_collect().await?;
        if self.named {
            let missing: Vec<&str> = self
                .names
                .iter()
                .zip(&opened)
                .filter(|(_, dataset)| dataset.is_none())
                .map(|(name, _)| name.as_str())
                .collect();
            if !missing.is_empty() {
                return Err(missing_partitions(&missing, &self.prefix));
            }
        }
        Ok(opened.into_iter().flatten().collect())
    }
}

/// Of the store, its kind alone.
impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, prefix, names, folders: _, named } = self;
        let store = format_args!("{store}");
        let mut shown = f.debug_struct("Partitions");
        shown.field("store", &store).field("prefix", prefix).field("names", names).field("named", named).finish()
    }
}

fn missing_partitions(names: &[&str], prefix: &Path) -> Error {
    Error::not_found(format!("there are no such partitions, or they were dropped, names=`{}`", names.join(", ")))
        .with_path(prefix)
}
