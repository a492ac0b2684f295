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

pub use cogroup::{CoGroupBatch, CoGroupChunk, KeyGroup};
pub use dataset::Dataset;
pub use error::{Error, ErrorKind, Result};
pub use join::JoinKind;
pub use layout::{Clock, DatasetId, WriteId};
pub use manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub use plan::{
    CoGroup, CoGroupChunkPlan, CoGroupChunks, CoGroupPlan, DEFAULT_BATCH_SIZE, DEFAULT_MAX_GROUP_ROWS, Join, JoinPlan, Operation as PlanOperation,
    PinnedDataset, Plan, PlanOptions, Scan, ScanPlan, SlotDescriptor,
};
pub use read::Source;
pub use run::{Parallelism, PlanStream, SlotItem, SlotStream};
pub use spec::{BucketCount, BucketFunction, BucketSpec, KeyOrder, NullPlacement, SortColumn, SortDirection};
