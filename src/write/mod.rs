//! Writing: rows in any order become N buckets of sorted runs.
//!
//! * `options`: mode and tuning of a write; `parallel`: how the memory budget and the processors are divided.
//! * `builder`: a write checked against what is there; `ticket`: a write as data; `writer`: the [`DatasetWriter`].
//! * `intake`: batches as they come, checked, made canonical and buffered.
//! * `partition`: a full buffer in the order (bucket, key) by its `sort_keys`, which `crate::spill` puts on local disk.
//! * `bucket_rows`: all rows of a bucket, merged or one part after the other; `order_check`: their order, checked; `run_encoder`: their Parquet bytes, in the encodings of `encoding`;
//!   `upload`: bytes into the store; `run_file`: the last two as one; `sorter`: all of it together.
//! * `progress`: what a writer tells of its work, to a function, to `tracing` and in a summary.

mod bucket_rows;
mod builder;
mod encoding;
mod intake;
mod options;
mod order_check;
mod parallel;
mod partition;
mod progress;
mod run_encoder;
mod run_file;
mod sort_keys;
mod sorter;
mod ticket;
mod upload;
mod writer;

#[cfg(test)]
mod tests;

pub use builder::DatasetWriterBuilder;
pub use options::{
    DEFAULT_COMPRESSION, DEFAULT_COMPRESSION_THRESHOLD, DEFAULT_ENCODING, DEFAULT_MAX_ROW_GROUP_ROWS,
    DEFAULT_MEMORY_BUDGET, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_ROWS, DEFAULT_ROW_GROUP_BYTES, Encoding, InputOrder,
    WriteMode, WriteOptions,
};
pub(crate) use partition::{Placement, SortedRows};
pub(crate) use progress::{Feedback, ProgressFn};
pub use progress::{WritePhase, WriteProgress, WriteSummary};
pub(crate) use run_encoder::RunTarget;
pub(crate) use run_file::RunFileWriter;
pub use ticket::{WriteTicket, WrittenRuns};
pub use writer::DatasetWriter;
