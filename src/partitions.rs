//! Date partitions: datasets side by side under one prefix, found by listing it and chosen by name or range.
//!
//! Every partition is a dataset of its own, committed on its own. Nothing here interprets a name: partitions are in the order of their names, so
//! names that sort as their dates do (`week=2025-W01`) make ranges of dates.

use std::collections::BTreeSet;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};

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
#[derive(Debug, Clone)]
pub struct Partitions {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Ascending, without repetition.
    names: Vec<String>,
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
        let names: BTreeSet<String> = listed
            .common_prefixes
            .iter()
            .filter_map(Path::filename)
            .filter(|name| !name.starts_with(['_', '.']))
            .map(str::to_owned)
            .collect();
        Ok(Self { store, prefix, names: names.into_iter().collect(), named: false })
    }

    /// These folders, each of which must be a dataset. Lists nothing.
    pub(crate) fn of(store: Arc<dyn ObjectStore>, prefix: Path, names: Vec<String>) -> Self {
        Self { store, prefix, names, named: true }
    }

    /// The names of the chosen folders, ascending by their bytes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Keeps those whose names lie in `range`, compared by their bytes.
    #[must_use]
    pub fn range<'a>(mut self, range: impl RangeBounds<&'a str>) -> Self {
        self.names.retain(|name| range.contains(&name.as_str()));
        self
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
            return Ok(Self { names: wanted.into_iter().collect(), named: true, ..self });
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
        let open = |name: &String| {
            let dataset = Dataset::open(Arc::clone(&self.store), self.prefix.clone().join(name.as_str()));
            async move {
                match dataset.await {
                    Ok(dataset) => Ok(Some(dataset)),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e),
                }
            }
        };
        // Made before the stream, which would otherwise have to be told that the closure works for every lifetime.
        let opening: Vec<_> = self.names.iter().map(open).collect();
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

fn missing_partitions(names: &[&str], prefix: &Path) -> Error {
    Error::not_found(format!("there are no such partitions, or they were dropped, names=`{}`", names.join(", ")))
        .with_path(prefix)
}
