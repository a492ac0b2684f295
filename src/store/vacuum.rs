//! Removing what no kept version needs. `manifest::vacuum` decides; the order of the steps here makes each of them safe to die after:
//!
//! ```text
//!   list data/ ──> read the kept versions ──> fence, by a commit ──> empty old manifests, oldest first ──> delete objects
//!                        ^                        │
//!                        └── another commit came ─┘
//! ```
//!
//! Objects are listed before the versions are read: what a commit names meanwhile is then seen to be named, where the other way round the fence would
//! find its number taken. Whatever was left undone is old enough the next time as well.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::layout::{Clock, WriteId};
use crate::manifest::{
    Cutoffs, Document, History, Listed, Manifest, Operation, Removal, Tombstone, check_writable, encode,
    encode_tombstone,
};
use crate::store::Place;
use crate::store::commit::{Put, next_version, put, with_own_write};

/// Default of [`VacuumOptions::retention`]: seven days.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Default of [`VacuumOptions::grace_period`]: seven days.
pub const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many manifests are read or emptied at once. Emptying goes from the oldest up, so that where so many tombstones follow each other, nothing
/// but tombstones is below.
const MANIFESTS_UNDER_WAY: usize = 16;

/// What a vacuum keeps.
///
/// ```
/// use std::time::Duration;
/// use sort_merge_bucket::VacuumOptions;
/// let options = VacuumOptions::default().with_retention(Duration::from_secs(30 * 24 * 3600)).with_dry_run(true);
/// assert_eq!(options.grace_period, Duration::from_secs(7 * 24 * 3600));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumOptions {
    /// How long a version can be opened and read after the next one was committed, by the time in the next one's manifest. The newest version is
    /// kept for ever. Longer than the longest read and the longest write, and than the clocks of the writers differ: a write that began before a
    /// version which is gone by now fails with `Conflict`. Default [`DEFAULT_RETENTION`].
    pub retention: Duration,
    /// How long a file that belongs to no version is kept after it was written, by the store's clock: longer than the longest write. A write that
    /// takes longer is fenced: it fails with `Conflict` when it commits. Default [`DEFAULT_GRACE_PERIOD`].
    pub grace_period: Duration,
    /// Whether nothing is done but to report what would be. Default `false`.
    pub dry_run: bool,
    /// Where the time comes from. Default [`Clock::System`].
    pub clock: Clock,
}

impl Default for VacuumOptions {
    fn default() -> Self {
        Self {
            retention: DEFAULT_RETENTION,
            grace_period: DEFAULT_GRACE_PERIOD,
            dry_run: false,
            clock: Clock::default(),
        }
    }
}

impl VacuumOptions {
    /// Sets [`retention`](Self::retention), by default [`DEFAULT_RETENTION`].
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets [`grace_period`](Self::grace_period), by default [`DEFAULT_GRACE_PERIOD`].
    #[must_use]
    pub fn with_grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// Sets [`dry_run`](Self::dry_run), by default `false`.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets [`clock`](Self::clock), by default [`Clock::System`].
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    fn cutoffs(&self) -> Cutoffs {
        let now = self.clock.now();
        let before = |time: Duration| -> DateTime<Utc> {
            let earlier = TimeDelta::from_std(time).ok().and_then(|time| now.checked_sub_signed(time));
            earlier.unwrap_or(DateTime::<Utc>::MIN_UTC)
        };
        Cutoffs { superseded: before(self.retention), modified: before(self.grace_period) }
    }
}

/// What a vacuum has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumReport {
    /// The version that fences [`fenced_write_ids`](Self::fenced_write_ids); `None` if there was nothing to fence.
    pub version: Option<u64>,
    /// Writes that were never committed, or so long ago that no manifest tells, and cannot be any more.
    pub fenced_write_ids: Vec<WriteId>,
    /// Versions that can no longer be opened, ascending.
    pub emptied_versions: Vec<u64>,
    /// The deleted files, as paths in the store.
    pub deleted: Vec<Path>,
    /// Bytes of the deleted files.
    pub deleted_bytes: u64,
    /// Files that no kept version has, and that stay for now: younger than the grace period, or of a write that others of its files show to be
    /// under way or in use.
    pub waiting: Vec<Path>,
    /// Bytes of the waiting files.
    pub waiting_bytes: u64,
    /// Objects under `data/` that are no runs by their names. They are never deleted.
    pub unknown: Vec<Path>,
}

impl VacuumReport {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { fenced_write_ids, emptied_versions, deleted, .. } = self;
        fenced_write_ids.is_empty() && emptied_versions.is_empty() && deleted.is_empty()
    }

    fn new(version: Option<u64>, removal: &Removal, objects: &[ObjectMeta]) -> Self {
        let paths = |positions: &[usize]| positions.iter().map(|&at| objects[at].location.clone()).collect();
        let bytes = |positions: &[usize]| positions.iter().map(|&at| objects[at].size).fold(0, u64::saturating_add);
        Self {
            version,
            fenced_write_ids: removal.fence.iter().cloned().collect(),
            emptied_versions: removal.empty.iter().map(|tombstone| tombstone.version).collect(),
            deleted: paths(&removal.delete),
            deleted_bytes: bytes(&removal.delete),
            waiting: paths(&removal.waiting),
            waiting_bytes: bytes(&removal.waiting),
            unknown: paths(&removal.unknown),
        }
    }
}

impl fmt::Display for VacuumReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} versions emptied, {} writes fenced, {} files of {} bytes deleted, {} files of {} bytes waiting, {} unknown objects",
            self.emptied_versions.len(),
            self.fenced_write_ids.len(),
            self.deleted.len(),
            self.deleted_bytes,
            self.waiting.len(),
            self.waiting_bytes,
            self.unknown.len()
        )
    }
}

/// Does what [`Dataset::vacuum`](crate::Dataset::vacuum) says.
pub(crate) async fn vacuum(place: &Place, options: &VacuumOptions) -> Result<VacuumReport> {
    let cutoffs = options.cutoffs();
    let objects = list(place).await?;
    let listed: Vec<Listed> = objects
        .iter()
        .filter_map(|object| {
            let path = place.layout.relative(&object.location)?;
            // As exact as the clock.
            Some(Listed { path, modified: object.last_modified.trunc_subsecs(3) })
        })
        .collect();
    if listed.len() != objects.len() {
        return Err(Error::internal("the store listed objects outside the folder asked for"));
    }
    let mut history = History::default();
    let mut read = 0;
    let (removal, version) = loop {
        let Some(newest) = place.newest().await? else {
            return Err(Error::not_found("there is no dataset").with_path(place.layout.root()));
        };
        check_writable(&newest).map_err(|e| e.with_path(place.layout.root()))?;
        place.read_versions(&newest, read, &mut history).await?;
        read = newest.version;
        let removal = Removal::decide(&newest, &history, &listed, cutoffs);
        if removal.fence.is_empty() {
            break (removal, None);
        }
        if options.dry_run {
            break (removal, Some(next_version(&newest)?));
        }
        if let Some(version) = fence(place, &newest, &removal, options.clock).await? {
            break (removal, Some(version));
        }
    };
    if !options.dry_run {
        place.empty(&removal.empty).await?;
        let delete = removal.delete.iter().map(|&at| objects[at].location.clone()).collect();
        place.delete(delete).await?;
    }
    Ok(VacuumReport::new(version, &removal, &objects))
}

async fn list(place: &Place) -> Result<Vec<ObjectMeta>> {
    let folder = place.layout.data();
    let listed = place.store.list(Some(&folder)).try_collect().await;
    listed.map_err(|e| Error::from(e).with_path(folder))
}

/// Commits the fences as the version after `newest`; `None` if that number is taken by another.
async fn fence(place: &Place, newest: &Manifest, removal: &Removal, clock: Clock) -> Result<Option<u64>> {
    let write_id = WriteId::generate();
    let version = next_version(newest)?;
    let mut next = Manifest {
        version,
        base: Some(newest.version),
        operation: Operation::Vacuum,
        write_id: write_id.clone(),
        committed_at: clock.now(),
        recent_writes: with_own_write(&newest.recent_writes, &write_id, version),
        ..newest.clone()
    };
    next.fenced_write_ids.extend(removal.fence.iter().cloned());
    let bytes = Bytes::from(encode(&next)?);
    match put(place, &next, &bytes).await? {
        Put::Found(other) if *other.write_id() != write_id => Ok(None),
        Put::Done | Put::Found(_) => {
            place.write_hint(version).await;
            Ok(Some(version))
        }
    }
}

impl Place {
    /// Reads the versions after `from` up to `newest`, down to where only tombstones are left.
    async fn read_versions(&self, newest: &Manifest, from: u64, history: &mut History) -> Result<()> {
        let read = |version: u64| async move {
            self.read(version).await?.ok_or_else(|| {
                Error::corrupt("a manifest between others is missing").with_path(self.layout.manifest(version))
            })
        };
        history.add(Document::Manifest(Box::new(newest.clone())))?;
        let older = from.saturating_add(1)..newest.version;
        let mut documents = stream::iter(older.rev().map(read)).buffered(MANIFESTS_UNDER_WAY);
        let mut tombstones = 0;
        while let Some(document) = documents.try_next().await? {
            tombstones = if matches!(document, Document::Tombstone(_)) { tombstones + 1 } else { 0 };
            history.add(document).map_err(|e| e.with_path(self.layout.root()))?;
            if tombstones == MANIFESTS_UNDER_WAY {
                break;
            }
        }
        Ok(())
    }

    /// Overwrites old manifests, the oldest first.
    async fn empty(&self, tombstones: &[Tombstone]) -> Result<()> {
        let empty = |tombstone: Tombstone| {
            let (store, path) = (Arc::clone(&self.store), self.layout.manifest(tombstone.version));
            async move {
                let bytes = encode_tombstone(&tombstone)?;
                store.put(&path, bytes.into()).await.map_err(|e| Error::from(e).with_path(path))?;
                Ok::<_, Error>(())
            }
        };
        let puts: Vec<_> = tombstones.iter().cloned().map(empty).collect();
        stream::iter(puts).buffered(MANIFESTS_UNDER_WAY).try_collect().await
    }

    /// Deletes objects, all that can be even if some cannot.
    async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.delete_stream(paths);
        let mut failed = None;
        while let Some(result) = deleted.next().await {
            match result {
                // Another vacuum, or the write itself, was faster.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        match failed {
            Some(e) => Err(Error::from(e).with_path(self.layout.data())),
            None => Ok(()),
        }
    }
}
