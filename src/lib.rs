//! Sort-merge-bucket joins on Arrow, Parquet and object storage.

mod bucket;
mod cogroup;
mod dataset;
mod error;
mod join;
mod layout;
mod manifest;
mod merge;
mod plan;
mod read;
mod run;
mod schema;
mod spec;
mod store;
mod task;
mod write;

pub use error::{Error, ErrorKind, Result};
pub use layout::{Clock, DatasetId, WriteId};
pub use manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub use spec::{BucketCount, BucketFunction, BucketSpec, KeyOrder, NullPlacement, SortColumn, SortDirection};
