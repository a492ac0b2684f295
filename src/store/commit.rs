//! The commit protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::layout::{Clock, DatasetId, WriteId};
use crate::manifest::{Lineage, Manifest, Operation, Run};
use crate::schema::FieldDef;
use crate::spec::BucketSpec;
use crate::store::Place;

/// What a commit wants to do.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// `Create`, `Append`, `Replace` or `Drop`.
    pub(crate) operation: Operation,
    pub(crate) dataset_id: DatasetId,
    pub(crate) write_id: WriteId,
    /// The version that the writer started from; `None` if there was no dataset.
    pub(crate) base: Option<Arc<Manifest>>,
    pub(crate) spec: BucketSpec,
    pub(crate) schema: Vec<FieldDef>,
    pub(crate) runs: Vec<Run>,
    pub(crate) lineage: Vec<Lineage>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) clock: Clock,
}

/// Makes `change` the next version, and returns it.
pub(crate) async fn commit(_place: &Place, _change: Change) -> Result<Manifest> {
    Err(Error::internal("stub"))
}
