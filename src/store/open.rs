//! Finding and reading versions: a constant number of requests, never a listing.
//!
//! Version numbers are dense and manifests are never deleted, so that a version exists exactly if the newest is not older. The hint says where
//! to begin; that it may be missing, stale, too high or garbage costs requests, never the right answer.

use bytes::Bytes;
use futures::future::try_join;
use object_store::{GetOptions, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::manifest::{Document, MAX_MANIFEST_BYTES, Manifest, decode};
use crate::store::Place;

/// How many versions past the hint are read one by one before the search goes on in growing steps. Commits write the hint, so that it is
/// hardly ever further behind than the writers that race at this moment.
const DENSE_PROBES: u32 = 2;

/// How often the newest version is looked for if each time it is a tombstone when it is read.
const SEARCHES: usize = 3;

/// The longest hint: the digits of the largest version and a newline.
const MAX_HINT_BYTES: u64 = 21;

impl Place {
    /// The newest version, dropped or not; `None` if there is no dataset.
    ///
    /// # Errors
    /// `Store`; `Corrupt` or `UnsupportedVersion` if the newest manifest is damaged or too new.
    pub(crate) async fn newest(&self) -> Result<Option<Manifest>> {
        let mut emptied = 0;
        for _ in 0..SEARCHES {
            let Some((version, bytes)) = self.newest_bytes().await? else { return Ok(None) };
            match self.decode(version, &bytes)? {
                Document::Manifest(manifest) => return Ok(Some(*manifest)),
                // It may have been the newest when the search found that, and emptied before it was read.
                Document::Tombstone(_) => emptied = version,
            }
        }
        Err(Error::corrupt("the newest version is a tombstone, which only old ones may be")
            .with_path(self.layout.manifest(emptied)))
    }

    /// One version.
    ///
    /// # Errors
    /// `NotFound` if it does not exist or was vacuumed; else as [`newest`](Self::newest).
    pub(crate) async fn version(&self, version: u64) -> Result<Manifest> {
        let found = match self.read(version).await? {
            Some(Document::Manifest(manifest)) => return Ok(*manifest),
            Some(Document::Tombstone(_)) => "the version was vacuumed: only its number and time are left",
            None => "there is no such version",
        };
        Err(Error::not_found(format!("{found}, version=`{version}`")).with_path(self.layout.root()))
    }

    /// What is stored under a version's number, if anything.
    pub(crate) async fn read(&self, version: u64) -> Result<Option<Document>> {
        match self.get(version).await? {
            Some(bytes) => self.decode(version, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Decodes a manifest and holds it to its object's name.
    fn decode(&self, version: u64, bytes: &[u8]) -> Result<Document> {
        let path = self.layout.manifest(version);
        let document = decode(bytes).map_err(|e| e.with_path(&path))?;
        let found = match &document {
            Document::Manifest(manifest) => manifest.version,
            Document::Tombstone(tombstone) => tombstone.version,
        };
        if found == version {
            return Ok(document);
        }
        Err(Error::corrupt(format!(
            "INV-01: a manifest is not of the version in its name, found=`{found}`, expected=`{version}`"
        ))
        .with_path(path))
    }

    async fn newest_bytes(&self) -> Result<Option<(u64, Bytes)>> {
        let mut newest = None;
        if let Some(hint) = self.hint().await {
            newest = match try_join(self.get(hint), self.get(hint.saturating_add(1))).await? {
                (Some(bytes), None) => return Ok(Some((hint, bytes))),
                (_, Some(bytes)) => Some((hint.saturating_add(1), bytes)),
                (None, None) => None,
            };
        }
        for _ in 0..DENSE_PROBES {
            let next = newest.as_ref().map_or(1, |(version, _)| version.saturating_add(1));
            match self.get(next).await? {
                Some(bytes) => newest = Some((next, bytes)),
                None => return Ok(newest),
            }
        }
        let found = newest.as_ref().map_or(0, |(version, _)| *version);
        let version = self.last_from(found).await?;
        if version == found {
            return Ok(newest);
        }
        let bytes = self.get(version).await?.ok_or_else(|| {
            Error::corrupt("a manifest disappeared while the dataset was opened")
                .with_path(self.layout.manifest(version))
        })?;
        Ok(Some((version, bytes)))
    }

    /// The last version, given one that exists: gallop, then bisect.
    async fn last_from(&self, mut exists: u64) -> Result<u64> {
        let mut step = 1_u64;
        let mut missing = loop {
            let Some(next) = exists.checked_add(step) else { return Ok(exists) };
            if !self.exists(next).await? {
                break next;
            }
            exists = next;
            step = step.saturating_mul(2);
        };
        while missing - exists > 1 {
            let middle = exists + (missing - exists) / 2;
            if self.exists(middle).await? { exists = middle } else { missing = middle }
        }
        Ok(exists)
    }

    /// The version that the hint names. Whatever is wrong with it, it only hints.
    async fn hint(&self) -> Option<u64> {
        let found = self.store.get(&self.layout.hint()).await.ok()?;
        if found.meta.size > MAX_HINT_BYTES {
            return None;
        }
        let bytes = found.bytes().await.ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let version = text.trim_ascii_end().parse().ok()?;
        (version > 0).then_some(version)
    }

    /// Points the hint at a version that was committed just now. Whether this works is of no consequence.
    pub(super) async fn write_hint(&self, version: u64) {
        let _ = self.store.put(&self.layout.hint(), format!("{version}\n").into()).await;
    }

    async fn get(&self, version: u64) -> Result<Option<Bytes>> {
        let path = self.layout.manifest(version);
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(Error::from(e).with_path(path)),
        };
        if found.meta.size > MAX_MANIFEST_BYTES {
            return Err(Error::corrupt(format!(
                "the object is not a manifest: it is larger than any may be, size=`{}`, at most=`{MAX_MANIFEST_BYTES}`",
                found.meta.size
            ))
            .with_path(path));
        }
        match found.bytes().await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::from(e).with_path(path)),
        }
    }

    async fn exists(&self, version: u64) -> Result<bool> {
        let path = self.layout.manifest(version);
        match self.store.get_opts(&path, GetOptions::new().with_head(true)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(Error::from(e).with_path(path)),
        }
    }
}
