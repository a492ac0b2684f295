//! Bytes into one object of the store: a single put if they are few, else a multipart upload with parts under way while more come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::{Error, Result};
use crate::task::{self, Task};

/// The size of every part but the last: above the 5 MiB that stores ask for, and the same for all, as some demand. With the usual limit
/// of 10 000 parts a run may have 78 GiB.
const PART_BYTES: usize = 8 << 20;

/// How many parts are under way at once.
const PARTS_UNDER_WAY: usize = 2;

/// One object on its way into the store. Nothing is visible before [`finish`](Self::finish); dropping it gives up what is under way.
///
/// Memory: up to three parts.
#[derive(Debug)]
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Bytes that no part has taken yet.
    buffer: VecDeque<Bytes>,
    buffered: usize,
    multipart: Option<Box<dyn MultipartUpload>>,
    /// Each ends with the bytes of its part.
    under_way: VecDeque<Task<u64>>,
    /// Bytes that the store has confirmed since they were asked for last.
    stored: u64,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            store,
            path,
            buffer: VecDeque::new(),
            buffered: 0,
            multipart: None,
            under_way: VecDeque::new(),
            stored: 0,
        }
    }

    /// Adds bytes; waits while too many parts are under way.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.buffered += bytes.len();
        self.buffer.push_back(bytes);
        while self.buffered > PART_BYTES {
            let part = self.take(PART_BYTES);
            self.put_part(part).await?;
        }
        Ok(())
    }

    /// The bytes that the store has confirmed since this was asked last.
    pub(super) fn newly_stored(&mut self) -> u64 {
        std::mem::take(&mut self.stored)
    }

    /// Completes the object; returns the bytes that were [newly stored](Self::newly_stored).
    pub(super) async fn finish(mut self) -> Result<u64> {
        match self.complete().await {
            Ok(()) => Ok(self.stored),
            Err(e) => {
                self.abort().await;
                Err(e)
            }
        }
    }

    async fn complete(&mut self) -> Result<()> {
        let rest = self.take(self.buffered);
        if self.multipart.is_none() {
            let bytes = rest.content_length() as u64;
            self.store.put(&self.path, rest).await.map_err(|e| self.failed(e))?;
            self.stored += bytes;
            return Ok(());
        }
        self.put_part(rest).await?;
        while let Some(part) = self.under_way.pop_front() {
            self.stored += part.await?;
        }
        if let Some(multipart) = &mut self.multipart {
            let completed = multipart.complete().await;
            completed.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Gives up the upload and what the store holds of it, as far as it answers.
    pub(super) async fn abort(mut self) {
        self.under_way.clear();
        if let Some(mut multipart) = self.multipart {
            // Unfinished parts are invisible; what stays of them is the bucket's lifecycle rule to remove.
            drop(multipart.abort().await);
        }
    }

    async fn put_part(&mut self, part: PutPayload) -> Result<()> {
        if self.multipart.is_none() {
            let multipart = self.store.put_multipart(&self.path).await;
            self.multipart = Some(multipart.map_err(|e| self.failed(e))?);
        }
        if self.under_way.len() >= PARTS_UNDER_WAY
            && let Some(part) = self.under_way.pop_front()
        {
            self.stored += part.await?;
        }
        if let Some(multipart) = &mut self.multipart {
            let bytes = part.content_length() as u64;
            let put = multipart.put_part(part);
            let path = self.path.clone();
            self.under_way.push_back(task::spawn(async move {
                put.await.map(|()| bytes).map_err(|e| Error::from(e).with_path(path))
            }));
        }
        Ok(())
    }

    /// Takes the first `len` buffered bytes.
    fn take(&mut self, len: usize) -> PutPayload {
        let mut parts = vec![];
        let mut left = len;
        while left > 0
            && let Some(mut bytes) = self.buffer.pop_front()
        {
            if bytes.len() > left {
                self.buffer.push_front(bytes.split_off(left));
            }
            left -= bytes.len();
            parts.push(bytes);
        }
        self.buffered -= len - left;
        if let [only] = parts.as_mut_slice() {
            return PutPayload::from_bytes(std::mem::take(only));
        }
        // Many small pieces make slow requests.
        let mut joined = BytesMut::with_capacity(len - left);
        parts.iter().for_each(|part| joined.extend_from_slice(part));
        PutPayload::from_bytes(joined.freeze())
    }

    fn failed(&self, error: object_store::Error) -> Error {
        Error::from(error).with_path(&self.path)
    }
}
