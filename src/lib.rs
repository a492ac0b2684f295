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
mod write;

pub use dataset::{Dataset, DatasetStatistics};
pub use error::{Error, ErrorKind, Result};
pub use layout::{Clock, DatasetId, WriteId};
pub use manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run, Violation};
pub use partitions::Partitions;
pub use spec::{BucketCount, BucketFunction, BucketSpec, KeyOrder, NullPlacement, SortColumn, SortDirection};
pub use write::{
    DEFAULT_COMPRESSION, DEFAULT_DICTIONARY, DEFAULT_MAX_ROW_GROUP_ROWS, DEFAULT_MEMORY_BUDGET, DEFAULT_PAGE_ROWS,
    DEFAULT_ROW_GROUP_BYTES, DatasetWriter, DatasetWriterBuilder, WriteMode, WriteOptions, WriteTicket, WrittenRuns,
};
