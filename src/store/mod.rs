//! The dataset in its object store: finding and `open`ing versions, the `commit` protocol, `vacuum`, range `fetch`,
//! `sync` of local files.

mod commit;
mod fetch;
mod open;
mod sync;
#[cfg(test)]
pub(crate) mod tests;
mod vacuum;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use crate::layout::Layout;

pub(crate) use commit::{Change, commit};
pub(crate) use fetch::{check_checksum, digest, fetch_footer, fetch_ranges};
pub(crate) use vacuum::vacuum;
pub use vacuum::{DEFAULT_GRACE_PERIOD, DEFAULT_RETENTION, VacuumOptions, VacuumReport};

/// Where a dataset lives.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
}

impl Place {
    /// The dataset at `root`; nothing is read or written.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, root: impl Into<Path>) -> Self {
        Self { store, layout: Layout::new(root.into()) }
    }
}

/// The kind of store only: what its own output shows of it may be a credential, or all that it holds.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = format_args!("{}", self.store);
        f.debug_struct("Place").field("store", &store).field("layout", &self.layout).finish()
    }
}
