//! The commit protocol: one create-if-absent of the next manifest, and what to do when its answer is "taken" or does not come.
//!
//! ```text
//!   runs uploaded ──> put n if absent ──┬─ ok ───────────────> committed, write the hint
//!                        ^      ^       ├─ no clear answer ──> put the same bytes at n again (bounded, then unknown)
//!                        │      └───────┘
//!                        │              └─ taken: read n ──┬─ own write id ──> committed, write the hint
//!                        └── append: rebase on the newest ─┴─ foreign ───────> follow the versions from n to the newest
//! ```
//!
//! Runs come first and the manifest after them, so that a reader never sees the name of a run that is not there. Every version from the base on
//! has been seen before a number is tried, so that a fence or a conflicting change cannot be missed: it would have taken the number.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Clock, DatasetId, WriteId};
use crate::manifest::{
    Document, Lineage, Manifest, Operation, RECENT_WRITE_IDS, RecentWrite, Run, check_writable, encode,
};
use crate::schema::FieldDef;
use crate::spec::BucketSpec;
use crate::store::Place;

/// How often a manifest is put at one number before its fate is called unknown. Stores' clients retry what is worth waiting for themselves.
const PUT_ATTEMPTS: usize = 4;

/// What a commit wants to do.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// `Create`, `Append`, `Replace` or `Drop`.
    pub(crate) operation: Operation,
    /// The id that the runs carry: that of the base if there is one.
    pub(crate) dataset_id: DatasetId,
    pub(crate) write_id: WriteId,
    /// The version that the writer started from, dropped or not; `None` if there was no dataset.
    pub(crate) base: Option<Arc<Manifest>>,
    pub(crate) spec: BucketSpec,
    pub(crate) schema: Vec<FieldDef>,
    pub(crate) runs: Vec<Run>,
    pub(crate) lineage: Vec<Lineage>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) clock: Clock,
}

/// Makes `change` the next version, and returns it. If a commit of the same write id is found, that one is returned and nothing is done.
///
/// * `Create` wants no dataset or a dropped one, which it brings back under its id. `Append` takes place after whatever newer versions came,
///   as long as spec and schema agree. `Replace` and `Drop` want the base to be the newest version still.
/// * `Append` keeps runs and lineage and overrides single properties; `Drop` keeps the properties; `Create` and `Replace` begin anew.
///
/// # Errors
/// * `Conflict`: another version came first that this change cannot follow, there is a live dataset to be created, or the write id is fenced.
///   Only after this kind may the uploaded runs be deleted: a foreign manifest holds the number that was tried, or none was tried.
/// * `CommitUnknown`: the store left it open whether the manifest was written.
/// * `Store`: the store refused, or ignores the condition that commits rest on. Nothing became visible.
/// * `NotFound`: append, replace or drop of what does not exist or was dropped. `Incompatible`: appended runs of another spec or schema.
///   `UnsupportedVersion`: the dataset needs a newer writer. `Corrupt`: a manifest that was met is damaged. Nothing became visible.
pub(crate) async fn commit(place: &Place, change: Change) -> Result<Manifest> {
    let mut newest = change.base.clone();
    if let Some(base) = &newest
        && let Some(own) = own_version(place, base, &change.write_id).await?
    {
        return Ok(own);
    }
    check_start(place, &change)?;
    loop {
        let next = change.next(newest.as_deref()).map_err(|e| e.with_path(place.layout.root()))?;
        let bytes = Bytes::from(encode(&next)?);
        let foreign = match put(place, &next, &bytes).await? {
            Put::Done => {
                if next.version == 1 {
                    require_conditions(place, &bytes, &change.write_id).await?;
                }
                place.write_hint(next.version).await;
                return Ok(next);
            }
            Put::Found(Document::Manifest(found)) if found.write_id == change.write_id => {
                place.write_hint(found.version).await;
                return Ok(*found);
            }
            Put::Found(foreign) => foreign,
        };
        newest = match follow(place, &change, next.version, foreign).await? {
            Followed::Own(own) => return Ok(own),
            Followed::Newest(manifest) => Some(Arc::new(manifest)),
        };
    }
}

/// Whether the change can start from its base at all.
fn check_start(place: &Place, change: &Change) -> Result<()> {
    let live = change.base.as_ref().is_some_and(|base| !base.dropped);
    let error = match (change.operation, &change.base) {
        (Operation::Rewrite | Operation::Vacuum, _) => Error::internal("this operation has a commit of its own"),
        (Operation::Create, Some(_)) if live => conflict("the dataset exists already", change),
        (Operation::Append | Operation::Replace | Operation::Drop, Some(_)) if !live => {
            Error::not_found("the dataset was dropped")
        }
        (Operation::Append | Operation::Replace | Operation::Drop, None) => Error::not_found("there is no dataset"),
        (_, Some(base)) if base.dataset_id != change.dataset_id => {
            Error::internal("a change carries another dataset id than its base")
        }
        (_, Some(base)) if base.fenced_write_ids.contains(&change.write_id) => fenced(change),
        (Operation::Append, Some(base)) if !change.follows(base) => Error::incompatible(format!(
            "appended rows need the dataset's spec and schema, dataset=`{}`, appended=`{}`, same schema=`{}`",
            base.spec,
            change.spec,
            base.schema == change.schema
        )),
        (_, Some(base)) => return check_writable(base).map_err(|e| e.with_path(place.layout.root())),
        (Operation::Create, None) => return Ok(()),
    };
    Err(error.with_path(place.layout.root()))
}

impl Change {
    /// Whether appended runs fit a version: all of spec (bucket count aside, for each run states its own) and schema.
    fn follows(&self, manifest: &Manifest) -> bool {
        self.spec.agrees_with(&manifest.spec) && self.schema == manifest.schema
    }

    /// The manifest that makes this change the version after `newest`.
    fn next(&self, newest: Option<&Manifest>) -> Result<Manifest> {
        let Self { operation, dataset_id, write_id, base, spec, schema, runs, lineage, properties, clock } =
            self.clone();
        let version = newest.map_or(Ok(1), next_version)?;
        let mut next = Manifest {
            reader_features: vec![],
            writer_features: vec![],
            dataset_id,
            version,
            base: base.map(|base| base.version),
            operation,
            write_id: write_id.clone(),
            committed_at: clock.now(),
            data_version: version,
            dropped: operation == Operation::Drop,
            spec,
            schema,
            runs,
            lineage,
            properties,
            recent_writes: vec![RecentWrite { write_id, version }],
            fenced_write_ids: vec![],
            unknown: serde_json::Map::new(),
        };
        if let Some(newest) = newest.cloned() {
            next.reader_features = newest.reader_features;
            next.writer_features = newest.writer_features;
            next.fenced_write_ids = newest.fenced_write_ids;
            next.unknown = newest.unknown;
            next.recent_writes = with_own_write(&newest.recent_writes, &next.write_id, version);
            match operation {
                Operation::Append => {
                    next.runs = [newest.runs, next.runs].concat();
                    let added: Vec<Lineage> =
                        next.lineage.into_iter().filter(|input| !newest.lineage.contains(input)).collect();
                    next.lineage = [newest.lineage, added].concat();
                    let mut properties = newest.properties;
                    properties.append(&mut next.properties);
                    next.properties = properties;
                }
                Operation::Drop => {
                    next.spec = newest.spec;
                    next.schema = newest.schema;
                    next.runs = vec![];
                    next.properties = newest.properties;
                }
                Operation::Create | Operation::Replace | Operation::Rewrite | Operation::Vacuum => {}
            }
        }
        Ok(next)
    }
}

/// The number after `newest`.
pub(super) fn next_version(newest: &Manifest) -> Result<u64> {
    newest.version.checked_add(1).ok_or_else(|| Error::corrupt("the version numbers are used up"))
}

/// The newest write ids, a version's own last.
pub(super) fn with_own_write(recent: &[RecentWrite], write_id: &WriteId, version: u64) -> Vec<RecentWrite> {
    let dropped = recent.len().saturating_sub(RECENT_WRITE_IDS - 1);
    let own = RecentWrite { write_id: write_id.clone(), version };
    recent[dropped..].iter().cloned().chain([own]).collect()
}

/// How an attempt to take a number ended.
pub(super) enum Put {
    /// The store says that it wrote our bytes.
    Done,
    /// The number is taken, by this.
    Found(Document),
}

/// Tries to take `manifest`'s number until an answer is clear.
pub(super) async fn put(place: &Place, manifest: &Manifest, bytes: &Bytes) -> Result<Put> {
    let path = place.layout.manifest(manifest.version);
    let mut unclear = None;
    for _ in 0..PUT_ATTEMPTS {
        match place.store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => return Ok(Put::Done),
            // An earlier attempt of ours, or one that the store's client repeated by itself, may be what took the number.
            Err(e) if is_taken(&e) => match place.read(manifest.version).await {
                Ok(Some(document)) => return Ok(Put::Found(document)),
                Ok(None) => unclear = Some(Error::from(e)),
                Err(e) if e.kind() == ErrorKind::Store => unclear = Some(e),
                Err(e) => return Err(e),
            },
            Err(e) if is_refusal(&e) && unclear.is_none() => {
                return Err(Error::new(ErrorKind::Store, "the store refused to create a manifest")
                    .with_source(e)
                    .with_path(path));
            }
            Err(e) => unclear = Some(Error::from(e)),
        }
    }
    // A put that is still on its way could land after this; only what is there decides.
    match place.read(manifest.version).await {
        Ok(Some(document)) => Ok(Put::Found(document)),
        Ok(None) => Err(unknown(&manifest.write_id, unclear).with_path(path)),
        Err(e) => Err(unknown(&manifest.write_id, Some(e)).with_path(path)),
    }
}

fn is_taken(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

/// Whether the store answered that it did nothing.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        error,
        E::NotFound { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::UnknownConfigurationKey { .. }
    )
}

fn unknown(write_id: &WriteId, cause: Option<Error>) -> Error {
    let error = Error::new(
        ErrorKind::CommitUnknown,
        format!(
            "the store did not say whether the manifest was created; write again with the same write id, write_id=`{write_id}`"
        ),
    );
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// Puts manifest 1, which was just created, once more, and wants to be told that it exists: a store that ignores the condition would let two
/// writers overwrite each other's versions, so that no dataset may live there.
async fn require_conditions(place: &Place, bytes: &Bytes, write_id: &WriteId) -> Result<()> {
    let path = place.layout.manifest(1);
    let mut cause = None;
    for _ in 0..PUT_ATTEMPTS {
        match place.store.put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await {
            Err(e) if is_taken(&e) => return Ok(()),
            Err(e) => cause = Some(Error::from(e)),
            Ok(_) => {
                // Best effort: what is left would be a dataset that nothing protects.
                let _ = place.store.delete(&path).await;
                return Err(Error::new(
                    ErrorKind::Store,
                    "the store ignores create-if-absent (conditional put), which commits rest on; use a store or client setting that honours it",
                )
                .with_path(path));
            }
        }
    }
    Err(unknown(write_id, cause).with_path(path))
}

/// Where a change stands after others took its number.
enum Followed {
    /// It had been committed before.
    Own(Manifest),
    /// It can be tried after this version.
    Newest(Manifest),
}

/// Looks at every version from `version`, which is `document`, to the newest.
async fn follow(place: &Place, change: &Change, mut version: u64, mut document: Document) -> Result<Followed> {
    let mut obstacle = None;
    // The own version was found, but a vacuum has emptied it since.
    let mut vacuumed = false;
    loop {
        let dataset_id = match &document {
            Document::Manifest(manifest) => &manifest.dataset_id,
            Document::Tombstone(tombstone) => &tombstone.dataset_id,
        };
        if change.base.is_some() && *dataset_id != change.dataset_id {
            return Err(Error::corrupt(format!(
                "INV-16: a version is of another dataset, expected=`{}`, found=`{dataset_id}`",
                change.dataset_id
            ))
            .with_path(place.layout.manifest(version)));
        }
        let is_own = *document.write_id() == change.write_id;
        vacuumed |= is_own && matches!(document, Document::Tombstone(_));
        obstacle = obstacle.or_else(|| obstacle_in(change, &document));
        let next = version.saturating_add(1);
        match (place.read(next).await?, document) {
            (_, Document::Manifest(own)) if is_own => return Ok(Followed::Own(*own)),
            (Some(newer), _) => {
                document = newer;
                version = next;
            }
            (None, Document::Manifest(newest)) if vacuumed => return Ok(Followed::Own(*newest)),
            (None, Document::Manifest(newest)) => {
                if let Some(own) = own_version(place, &newest, &change.write_id).await? {
                    return Ok(Followed::Own(own));
                }
                if newest.fenced_write_ids.contains(&change.write_id) {
                    return Err(fenced(change).with_path(place.layout.root()));
                }
                if let Some(obstacle) = obstacle {
                    return Err(conflict(obstacle, change).with_path(place.layout.root()));
                }
                check_writable(&newest).map_err(|e| e.with_path(place.layout.root()))?;
                return Ok(Followed::Newest(*newest));
            }
            (None, Document::Tombstone(_)) => {
                return Err(Error::corrupt("the newest version is a tombstone, which only old ones may be")
                    .with_path(place.layout.manifest(version)));
            }
        }
    }
}

/// Why the change cannot come after a version that its writer did not know, if it cannot.
fn obstacle_in(change: &Change, document: &Document) -> Option<&'static str> {
    let Document::Manifest(manifest) = document else {
        return Some("newer versions came and were vacuumed since the write began");
    };
    match (change.operation, manifest.operation) {
        (Operation::Create, _) => Some("the dataset was created by another write"),
        (Operation::Append, Operation::Append | Operation::Rewrite | Operation::Vacuum) if change.follows(manifest) => {
            None
        }
        (Operation::Append, Operation::Append | Operation::Rewrite | Operation::Vacuum) => {
            Some("the dataset's spec or schema changed since the write began")
        }
        (Operation::Append, _) => Some("the dataset was replaced, dropped or created anew since the write began"),
        _ => Some("another version was committed since the write began"),
    }
}

/// The version that `write_id` made, if `newest` knows of it.
async fn own_version(place: &Place, newest: &Manifest, write_id: &WriteId) -> Result<Option<Manifest>> {
    let Some(own) = newest.recent_writes.iter().find(|write| write.write_id == *write_id) else { return Ok(None) };
    match place.version(own.version).await {
        Ok(manifest) => Ok(Some(manifest)),
        // Vacuumed since: what is left of it is in the newest version.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(newest.clone())),
        Err(e) => Err(e),
    }
}

fn conflict(message: &str, change: &Change) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{message}, operation=`{:?}`, write_id=`{}`", change.operation, change.write_id),
    )
}

fn fenced(change: &Change) -> Error {
    conflict("the write took so long that a vacuum has fenced it; write again with a new write id", change)
}
