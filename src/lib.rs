//! Sort-merge-bucket (SMB) joins: datasets that are bucketed by key and sorted when they are written, and joined, co-grouped and rewritten
//! ever after without a shuffle, a hash table or a sort; on Arrow, Parquet and any [`object_store`].
//!
//! # What a dataset is
//!
//! A [`Dataset`] is a prefix in an object store. Its rows lie in N buckets, `bucket = hash(key) mod N`, each a number of Parquet files
//! (**runs**) sorted by key. An immutable JSON manifest per version says which runs there are.
//!
//! ```text
//! users/_smb/00000000000000000001.json                       version 1: spec, schema, runs with statistics
//! users/data/<write id>/bucket-00000-of-00002-….parquet      keys  2 4 4 9     ┐ sorted; each key in one bucket
//! users/data/<write id>/bucket-00001-of-00002-….parquet      keys  1 3 7       ┘
//! ```
//!
//! Two datasets that are bucketed by the same key join bucket by bucket. Bucket counts may differ: with 4 and 6 buckets, the greatest
//! common divisor 2 is the number of **slots**, and slot 1 reads buckets 1 and 3 of one and 1, 3 and 5 of the other.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
//! use futures::TryStreamExt;
//! use object_store::{ObjectStore, memory::InMemory};
//! use sort_merge_bucket::{BucketSpec, DatasetWriter, Join, Parallelism, Source};
//!
//! # #[tokio::main] async fn main() -> sort_merge_bucket::Result<()> {
//! let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
//!
//! // Rows come in any order; the writer buckets and sorts them within a memory budget.
//! let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 1, 7, 3]));
//! let tracks: ArrayRef = Arc::new(StringArray::from(vec!["Naima", "Spain", "So What", "Gloria"]));
//! let batch = RecordBatch::try_from_iter([("user_id", Arc::clone(&ids)), ("track", tracks)])?;
//! let spec = BucketSpec::new(["user_id"], 4)?;
//! let mut writer = DatasetWriter::builder(store.clone(), "plays", batch.schema(), spec).build().await?;
//! writer.write(&batch).await?;
//! let plays = writer.commit().await?;
//!
//! let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 3, 9]));
//! let regions: ArrayRef = Arc::new(StringArray::from(vec!["SE", "IT", "JP"]));
//! let batch = RecordBatch::try_from_iter([("user_id", ids), ("region", regions)])?;
//! let spec = BucketSpec::new(["user_id"], 6)?;
//! let mut writer = DatasetWriter::builder(store.clone(), "users", batch.schema(), spec).build().await?;
//! writer.write(&batch).await?;
//! let users = writer.commit().await?;
//!
//! // A plan is pure: it pins versions, reports every incompatibility at once and explains itself.
//! let plan = Join::left(&plays, Source::from(&users).with_columns(["region"])).plan()?;
//! assert_eq!(plan.slots().get(), 2);
//! assert!(plan.to_string().starts_with("left join on [user_id]"));
//!
//! // Every slot is a merge of matching buckets; all of them run in parallel.
//! let items: Vec<_> = plan.stream(Parallelism::Available).try_collect().await?;
//! let rows: usize = items.iter().map(|slot| slot.item.num_rows()).sum();
//! assert_eq!(rows, 4);
//! # Ok(()) }
//! ```
//!
//! # Should you use this crate?
//!
//! Yes, if the same big datasets are joined or aggregated by the same key again and again: writing them sorted and bucketed costs one sort, and
//! every read after that is a merge. No, for one-off joins of data that is not bucketed yet, for joins on ever-changing keys, and for data that a
//! hash join handles in memory anyway.
//!
//! # Guarantees
//!
//! 1. **Placement.** Every row lies in the bucket that its key hashes to, by a named, versioned function of the *logical* value: `Int32` and
//!    `Int64`, or `Utf8`, `Utf8View` and dictionaries, agree. Writers place rows so; reading re-hashes the first and last key of every row group,
//!    [`Dataset::validate`] every row.
//! 2. **Order.** Rows of a slot come sorted by key, nulls last. Each run's order is checked row by row while it is merged; a run out of order is an
//!    [`ErrorKind::Unsorted`] that names file, row and both keys.
//! 3. **Atomic versions.** A write is visible as a whole or not at all. A plan keeps the versions that it was made with.
//! 4. **Identity.** Opening a run checks its size, its row count and the dataset, write, run and bucket that its footer names. Damage inside a page
//!    is found by decoding, or by [`Dataset::validate`], which compares checksums.
//! 5. **Skipping.** What is skipped is skipped by the manifest's bounds and Parquet's statistics. Those of runs and row groups are held against
//!    the rows that are decoded of them; that they hold everywhere, pages included, [`Dataset::validate`] checks.
//! 6. **Bounded memory.** Nothing grows with a dataset, a bucket or the number of buckets; each streaming type says what it holds.
//!    A join holds of a key that is spread over many batches what its budget allows, and the rest on local disk; whole co-groups have a limit, chunks have none.
//!
//! # Quirks
//!
//! * A null key equals nothing in a join, and is a group of its own in a co-group or aggregation.
//! * Floats cannot be keys: they have no equality that survives hashing.
//! * Strings and binary come back as `Utf8View` and `BinaryView`, dictionaries as their values, timestamps in seconds as milliseconds.
//! * `UInt64` keys meet only `UInt64` keys; all other integers meet each other.
//! * Everything that reads or writes runs inside a tokio runtime.
//!
//! # Where things are
//!
//! | to | use |
//! | --- | --- |
//! | name a place by a URL | [`Location`] |
//! | describe buckets, keys and order | [`BucketSpec`]; how many buckets: `docs/buckets.md` |
//! | write | [`DatasetWriter`], [`WriteOptions`], [`WriteMode`]; over many processes [`WriteTicket`] |
//! | write rows that are in order already | [`InputOrder`] |
//! | watch a write | [`DatasetWriterBuilder::with_progress`], [`WriteSummary`], `tracing` spans |
//! | open, inspect, check | [`Dataset`], [`Partitions`] |
//! | remove old versions and what failed writes left | [`Dataset::vacuum`], [`VacuumOptions`] |
//! | choose what to read | [`Source`] with its columns, a [`Predicate`], a [`KeyRange`] or a [`KeySet`] |
//! | look up a few keys | [`Dataset::get`] |
//! | scan, join, co-group | [`Scan`], [`Join`], [`CoGroup`], which make a [`Plan`] |
//! | join by more than equal keys | [`JoinCondition`] |
//! | run a plan | [`Plan::stream`], [`Plan::execute`]; [`Plan::split`] for workers of one's own |
//! | see what it cost | [`PlanStream::metrics`] |
//! | trust the store or the disk less | [`PlanOptions::with_verification`]; [`Dataset::validate`] |
//! | aggregate by key | [`Aggregate`] with [`Count`], [`Sum`], [`Min`], [`Max`], [`Mean`], [`Variance`], [`StdDev`], [`Any`], [`All`], [`First`], [`Last`], [`Collect`], [`CountDistinct`], [`ApproxCountDistinct`], [`SumMap`], [`TopK`], an [`Aggregator`] or [`Fold`] of your own |
//! | aggregate by week, merge into years | [`Rollup`], kept up to date by [`Rollup::refresh`]; the guide is `docs/rollups.md` |
//! | keep some rows of an aggregate | [`Aggregator::filter`] with a [`Predicate`] |
//! | write a plan's result | [`Plan::transform`], [`Target`] |
//! | handle failure | [`Error`], [`ErrorKind`] |
//!
//! # Features
//!
//! None is on by default. `aws`, `gcp` and `azure` enable the features of the same names of [`object_store`], so that a [`Location`] can be one of S3,
//! Google Cloud Storage or Azure Blob Storage; each brings an HTTP client. A store that you set up yourself needs none of them.
//!
//! Format version 1 is specified in `docs/format.md`; the crate's version and the format's move independently.

mod aggregate;
#[doc(hidden)]
pub mod benchmarks;
mod bucket;
mod cogroup;
mod dataset;
mod error;
mod footprint;
mod join;
mod layout;
mod location;
mod manifest;
mod merge;
mod metrics;
mod partitions;
mod plan;
mod predicate;
mod read;
mod rollup;
mod run;
mod schema;
mod select;
mod spec;
mod spill;
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

pub use aggregate::{
    Aggregator, All, Any, ApproxCountDistinct, Collect, Count, CountDistinct, Definition, Filtered, First, Fold, Last,
    Max, Mean, Min, OrderedBy, Segments, StdDev, Sum, SumMap, TopK, Variance, check_laws,
};
pub use cogroup::{CoGroupBatch, CoGroupChunk, KeyGroup};
pub use dataset::{BucketSize, BucketSizes, Dataset, DatasetStatistics};
pub use error::{Error, ErrorKind, Result};
pub use join::{JoinCondition, JoinKind};
pub use layout::{Clock, DatasetId, WriteId};
pub use location::Location;
pub use manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run, Violation};
pub use metrics::{PlanMetrics, SlotMetrics};
pub use partitions::Partitions;
pub use plan::{
    Aggregate, AggregateInput, AggregatePlan, CoGroup, CoGroupChunkPlan, CoGroupChunks, CoGroupPlan,
    DEFAULT_BATCH_SIZE, DEFAULT_CARRY_BUDGET, DEFAULT_MAX_GROUP_ROWS, DEFAULT_PREFETCH, DynamicFilters, Join, JoinPlan,
    PinnedDataset, Plan, PlanOperation, PlanOptions, Scan, ScanPlan, SlotDescriptor,
};
pub use predicate::{Comparison, Literal, Predicate};
pub use read::{Source, Verification};
pub use rollup::{Periods, Refresh, RefreshAction, RefreshReason, RefreshStep, Rollup, RollupBuilder};
pub use run::{Parallelism, PlanStream, SlotItem, SlotStream};
pub use select::{KeyRange, KeySet};
pub use spec::{
    BucketCount, BucketFunction, BucketSpec, DEFAULT_TARGET_RUN_BYTES, KeyOrder, MAX_PROPOSED_BUCKETS, NullPlacement,
    SortColumn, SortDirection,
};
pub use store::{DEFAULT_GRACE_PERIOD, DEFAULT_RETENTION, VacuumOptions, VacuumReport};
pub use transform::Target;
pub use validate::ValidationReport;
pub use write::{
    DEFAULT_COMPRESSION, DEFAULT_COMPRESSION_THRESHOLD, DEFAULT_ENCODING, DEFAULT_MAX_ROW_GROUP_ROWS,
    DEFAULT_MEMORY_BUDGET, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_ROWS, DEFAULT_ROW_GROUP_BYTES, DatasetWriter,
    DatasetWriterBuilder, Encoding, InputOrder, WriteMode, WriteOptions, WritePhase, WriteProgress, WriteSummary,
    WriteTicket, WrittenRuns,
};

/// The README's example, compiled and run with the examples of the docs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the guide to rollups.
#[cfg(doctest)]
#[doc = include_str!("../docs/rollups.md")]
struct Rollups;

/// The examples of the chapter on bucket counts.
#[cfg(doctest)]
#[doc = include_str!("../docs/buckets.md")]
struct Buckets;
