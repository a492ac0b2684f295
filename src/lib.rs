//! Sort-merge-bucket joins on Arrow, Parquet and object storage.

mod bucket;
mod cogroup;
mod dataset;
mod error;
mod join;
mod layout;
mod manifest;
mod merge;
mod partitions;
mod plan;
mod read;
mod run;
mod schema;
mod spec;
mod store;
mod task;
mod transform;
mod validate;
mod write;

/// The batches and schemas of this crate's API are arrow's.
pub use arrow;
/// Times of commits are chrono's.
pub use chrono;
/// Datasets live in its stores, at its paths.
pub use object_store;
/// Its compression settings are options of writers; runs are its files.
pub use parquet;

pub use cogroup::{CoGroupBatch, CoGroupChunk, KeyGroup};
pub use dataset::{Dataset, DatasetStatistics};
pub use error::{Error, ErrorKind, Result};
pub use join::JoinKind;
pub use layout::{Clock, DatasetId, WriteId};
pub use manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run, Violation};
pub use partitions::Partitions;
pub use plan::{
    CoGroup, CoGroupChunkPlan, CoGroupChunks, CoGroupPlan, DEFAULT_BATCH_SIZE, DEFAULT_MAX_GROUP_ROWS, Join, JoinPlan,
    PinnedDataset, Plan, PlanOperation, PlanOptions, Scan, ScanPlan, SlotDescriptor,
};
pub use read::Source;
pub use run::{Parallelism, PlanStream, SlotItem, SlotStream};
pub use spec::{BucketCount, BucketFunction, BucketSpec, KeyOrder, NullPlacement, SortColumn, SortDirection};
pub use transform::Target;
pub use validate::ValidationReport;
pub use write::{
    DEFAULT_COMPRESSION, DEFAULT_DICTIONARY, DEFAULT_MAX_ROW_GROUP_ROWS, DEFAULT_MEMORY_BUDGET, DEFAULT_PAGE_ROWS,
    DEFAULT_ROW_GROUP_BYTES, DatasetWriter, DatasetWriterBuilder, WriteMode, WriteOptions, WriteTicket, WrittenRuns,
};
