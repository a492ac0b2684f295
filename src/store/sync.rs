//! Local files onto the disk. `object_store` syncs nothing, but hands out the open file of a local object, which can be synced; of any other store
//! it hands out a stream.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Place;
use crate::task::spawn_blocking;

/// How many files are synced at once.
const FILES_UNDER_WAY: usize = 16;

impl Place {
    /// Syncs objects in their order, as far as some go before others by more than [`FILES_UNDER_WAY`], then the folders that they are in. `false` if
    /// the store has no local files.
    pub(crate) async fn sync(&self, objects: Vec<Path>) -> Result<bool> {
        let sync = |object: Path| {
            let place = self.clone();
            async move { place.sync_file(object).await }
        };
        let syncing: Vec<_> = objects.into_iter().map(sync).collect();
        let mut files = stream::iter(syncing).buffered(FILES_UNDER_WAY);
        let mut folders = BTreeSet::new();
        while let Some(file) = files.try_next().await? {
            let Some(parents) = file else { return Ok(false) };
            folders.extend(parents);
        }
        spawn_blocking(move || {
            // A folder is no file to be opened elsewhere; there, names are the file system's affair.
            if cfg!(unix) {
                for folder in folders {
                    let synced = File::open(&folder).and_then(|folder| folder.sync_all());
                    synced.map_err(|e| failed(e, folder.display()))?;
                }
            }
            Ok(true)
        })
        .await
    }

    /// The folders above the file, up to where the store begins; `None` if it is no local file.
    async fn sync_file(&self, object: Path) -> Result<Option<Vec<PathBuf>>> {
        let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        let found = self.store.get_opts(&object, options).await.map_err(|e| Error::from(e).with_path(&object))?;
        let GetResultPayload::File(file, path) = found.payload else { return Ok(None) };
        let depth = object.parts().count();
        spawn_blocking(move || {
            file.sync_all().map_err(|e| failed(e, &object))?;
            Ok(Some(path.ancestors().skip(1).take(depth).map(PathBuf::from).collect()))
        })
        .await
    }
}

fn failed(error: std::io::Error, path: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Store, "a local file could not be synced to disk").with_source(error).with_path(path)
}
