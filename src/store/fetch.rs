//! Range reads of runs, and their checksums.

use std::fs::File;
use std::hash::Hasher as _;
use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt};
use twox_hash::XxHash64;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Checksum, Run};
use crate::task::spawn_blocking;

/// What of a local file is hashed at once.
const HASHED_BYTES: usize = 1 << 20;

/// Reads the last `run.footer_bytes` bytes of a run's file, in one request, and checks the size of the file on the way.
///
/// # Errors
/// `Corrupt` if the file is missing or has another size than the manifest says; `Store`.
pub(crate) async fn fetch_footer(store: &Arc<dyn ObjectStore>, path: &Path, run: &Run) -> Result<Bytes> {
    let range = GetRange::Bounded(run.bytes.saturating_sub(run.footer_bytes)..run.bytes);
    let options = GetOptions { range: Some(range), ..GetOptions::default() };
    let size = |found: u64| {
        let message = format!(
            "a run's file has not the size that the manifest says: it was shortened, replaced or damaged, expected=`{}`, found=`{found}`",
            run.bytes
        );
        Error::corrupt(message).with_path(path)
    };
    let answer = match store.get_opts(path, options).await {
        Ok(answer) => answer,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Error::corrupt("a run that the manifest lists is missing").with_path(path));
        }
        // A file that ends before the range begins is an error of the store's own; say what it means.
        Err(error) => match store.head(path).await {
            Ok(meta) if meta.size != run.bytes => return Err(size(meta.size)),
            _ => return Err(Error::from(error).with_path(path)),
        },
    };
    if answer.meta.size != run.bytes {
        return Err(size(answer.meta.size));
    }
    let bytes = answer.bytes().await.map_err(|e| Error::from(e).with_path(path))?;
    if bytes.len() as u64 != run.footer_bytes {
        return Err(Error::corrupt("the store returned another range than asked for").with_path(path));
    }
    Ok(bytes)
}

/// Reads ranges of a run's file; the store merges those that are close to each other into one request.
pub(crate) async fn fetch_ranges(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    ranges: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    let bytes = store.get_ranges(path, ranges).await.map_err(|e| Error::from(e).with_path(path))?;
    if bytes.len() != ranges.len() || bytes.iter().zip(ranges).any(|(b, r)| b.len() as u64 != r.end - r.start) {
        return Err(Error::corrupt("the store returned other ranges than asked for").with_path(path));
    }
    Ok(bytes)
}

/// Streams the whole object through, to hold it to the manifest's checksum; returns how many bytes that were.
///
/// # Errors
/// `Corrupt` if it is another; `Store`.
pub(crate) async fn check_checksum(store: &Arc<dyn ObjectStore>, path: &Path, run: &Run) -> Result<u64> {
    if run.checksum.algorithm != Checksum::XXH64 {
        return Ok(0);
    }
    let object = store.get(path).await.map_err(|e| Error::from(e).with_path(path))?;
    let (found, bytes) = digest(object).await.map_err(|e| e.with_path(path))?;
    if found == run.checksum {
        return Ok(bytes);
    }
    let message = format!(
        "a run's bytes are not those that were written: it has another checksum, expected=`{}`, found=`{}`",
        run.checksum.value, found.value
    );
    Err(Error::corrupt(message).with_path(path))
}

/// The checksum of an object and its bytes, which stream through.
pub(crate) async fn digest(object: GetResult) -> Result<(Checksum, u64)> {
    if let GetResultPayload::File(file, _) = object.payload {
        return spawn_blocking(move || digest_file(file)).await;
    }
    let mut hash = XxHash64::with_seed(0);
    let mut bytes = 0;
    let mut stream = object.into_stream();
    while let Some(chunk) = stream.try_next().await? {
        hash.write(&chunk);
        bytes += chunk.len() as u64;
    }
    Ok((Checksum::xxh64(hash.finish()), bytes))
}

/// The store would hand out pieces of 8 KiB, each by another thread.
fn digest_file(mut file: File) -> Result<(Checksum, u64)> {
    let mut hash = XxHash64::with_seed(0);
    let mut bytes = 0;
    let mut piece = vec![0; HASHED_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((Checksum::xxh64(hash.finish()), bytes)),
            Ok(read) => {
                hash.write(&piece[..read]);
                bytes += read as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::new(ErrorKind::Store, "a local file could not be read").with_source(e)),
        }
    }
}
