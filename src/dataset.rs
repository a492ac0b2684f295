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
}
