//! Range reads of runs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::manifest::Run;

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
