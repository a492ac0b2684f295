//! The dataset in its object store: finding and opening versions, the `commit` protocol, range `fetch`.

mod commit;

use std::sync::Arc;

use object_store::ObjectStore;

use crate::layout::Layout;

pub(crate) use commit::{Change, commit};

/// Where a dataset lives.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
}
