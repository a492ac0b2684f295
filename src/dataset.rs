//! A dataset opened at one version.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::manifest::Manifest;
use crate::store::Place;

/// A dataset, opened at one immutable version.
#[derive(Debug, Clone)]
pub struct Dataset {
    place: Place,
    manifest: Arc<Manifest>,
    schema: SchemaRef,
}

impl Dataset {
    pub(crate) fn from_manifest(place: Place, manifest: Arc<Manifest>) -> crate::Result<Self> {
        let schema = crate::schema::schema_of(&manifest.schema)?;
        Ok(Self { place, manifest, schema })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The columns and their types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How it is bucketed and ordered.
    pub fn spec(&self) -> &crate::BucketSpec {
        &self.manifest.spec
    }

    /// The version that was opened.
    pub fn version(&self) -> u64 {
        self.manifest.version
    }

    /// The id.
    pub fn id(&self) -> &crate::DatasetId {
        &self.manifest.dataset_id
    }

    /// The runs.
    pub fn runs(&self) -> &[crate::Run] {
        &self.manifest.runs
    }
}
