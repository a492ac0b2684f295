//! What a vacuum may remove, decided from the versions and a listing alone.
//!
//! An object goes only if no kept version names it, and no commit from now on can: its write is fenced, or was committed, so that whoever
//! still works on it finds that commit instead of making another one. `docs/format.md` section 8.3 has the argument.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::codec::{Document, Tombstone};
use super::model::Manifest;
use crate::error::{Error, Result};
use crate::layout::{WriteId, run_writer};

#[cfg(test)]
mod tests;

/// An object under `data/`.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Relative to the dataset.
    pub(crate) path: String,
    pub(crate) modified: DateTime<Utc>,
}

/// The times before which things are old.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutoffs {
    /// Of the commit that followed a version.
    pub(crate) superseded: DateTime<Utc>,
    /// Of an object's last change.
    pub(crate) modified: DateTime<Utc>,
}

/// The versions that a vacuum has read: all that are no tombstones yet, in any order.
///
/// Memory: the names of all runs of these versions, each once.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What would be left of each version that still has its manifest.
    whole: BTreeMap<u64, Tombstone>,
    /// When the versions were committed, tombstones included.
    committed_at: BTreeMap<u64, DateTime<Utc>>,
    /// The newest version that names a run.
    named: BTreeMap<String, u64>,
}

impl History {
    /// Takes a version.
    ///
    /// # Errors
    /// `Corrupt` if it is of another dataset than those before.
    pub(crate) fn add(&mut self, document: Document) -> Result<()> {
        let (tombstone, runs) = match document {
            Document::Manifest(manifest) => (Tombstone::from(manifest.as_ref()), Some(manifest.runs)),
            Document::Tombstone(tombstone) => (tombstone, None),
        };
        let Tombstone { dataset_id, version, committed_at, .. } = &tombstone;
        if let Some(other) = self.whole.values().next().filter(|other| other.dataset_id != *dataset_id) {
            return Err(Error::corrupt(format!(
                "INV-16: a version is of another dataset, version=`{version}`, expected=`{}`, found=`{dataset_id}`",
                other.dataset_id
            )));
        }
        self.committed_at.insert(*version, *committed_at);
        let Some(runs) = runs else { return Ok(()) };
        for run in runs {
            let newest = self.named.entry(run.path).or_default();
            *newest = (*newest).max(*version);
        }
        self.whole.insert(*version, tombstone);
        Ok(())
    }
}

/// What a vacuum is going to do.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Removal {
    /// The versions to be emptied, ascending.
    pub(crate) empty: Vec<Tombstone>,
    /// The writes to be fenced first.
    pub(crate) fence: BTreeSet<WriteId>,
    /// Positions in the listing of objects to be deleted.
    pub(crate) delete: Vec<usize>,
    /// Of objects that no kept version names, and that stay for now: too young, or of a write that may still be at work.
    pub(crate) waiting: Vec<usize>,
    /// Of objects that are no runs by their names.
    pub(crate) unknown: Vec<usize>,
}

impl Removal {
    /// Decides by `history`, which ends with `newest`, about objects that were listed before `newest` was found to be that.
    pub(crate) fn decide(newest: &Manifest, history: &History, listed: &[Listed], cutoffs: Cutoffs) -> Self {
        let mut removal = Self { empty: superseded(newest, history, cutoffs), ..Self::default() };
        let emptied: BTreeSet<u64> = removal.empty.iter().map(|tombstone| tombstone.version).collect();

        let mut unnamed: BTreeMap<WriteId, Vec<usize>> = BTreeMap::new();
        // Writes with runs that are in use, listed or not, or with objects so young that the write may be under way.
        let in_use = history.named.iter().filter(|(_, version)| !emptied.contains(version));
        let mut alive: BTreeSet<WriteId> =
            in_use.filter_map(|(path, _)| WriteId::new(path.split('/').nth(1)?).ok()).collect();
        for (at, object) in listed.iter().enumerate() {
            let Some(write_id) = run_writer(&object.path) else {
                removal.unknown.push(at);
                continue;
            };
            match history.named.get(&object.path) {
                Some(version) if !emptied.contains(version) => {}
                _ if object.modified > cutoffs.modified => {
                    alive.insert(write_id);
                    removal.waiting.push(at);
                }
                // It was committed, and goes with the last version that had it.
                Some(_) => removal.delete.push(at),
                None => unnamed.entry(write_id).or_default().push(at),
            }
        }
        for (write_id, objects) in unnamed {
            let committed = newest.recent_writes.iter().any(|write| write.write_id == write_id);
            if committed || newest.fenced_write_ids.contains(&write_id) {
                removal.delete.extend(objects);
            } else if alive.contains(&write_id) {
                removal.waiting.extend(objects);
            } else {
                removal.fence.insert(write_id);
                removal.delete.extend(objects);
            }
        }
        for positions in [&mut removal.delete, &mut removal.waiting] {
            positions.sort_unstable();
        }
        removal
    }
}

/// The versions that were followed by another one long enough ago. From the oldest on without a gap, whatever the clocks of writers said: what is
/// kept are the newest ones.
fn superseded(newest: &Manifest, history: &History, cutoffs: Cutoffs) -> Vec<Tombstone> {
    let is_old = |version: u64| {
        let next = version.checked_add(1).and_then(|next| history.committed_at.get(&next));
        version < newest.version && next.is_some_and(|time| *time <= cutoffs.superseded)
    };
    history.whole.iter().take_while(|(version, _)| is_old(**version)).map(|(_, tombstone)| tombstone.clone()).collect()
}
