//! The manifest as values: what one version of a dataset is. `codec` turns it into JSON and back, `invariants` checks it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::layout::{DatasetId, WriteId};
use crate::schema::FieldDef;
use crate::spec::{BucketCount, BucketSpec};

/// The format version that this library writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The most fences of a run.
pub(crate) const MAX_FENCES: usize = 16;

/// The size of the largest manifest: one of some 300,000 runs. Readers refuse a larger object before they read it.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// The size of the largest footer of a run, which is read at once.
pub(crate) const MAX_FOOTER_BYTES: u64 = 256 << 20;

/// How many of the newest write ids a manifest carries forward, so that a job that runs again finds its own commit.
pub(crate) const RECENT_WRITE_IDS: usize = 100;

/// Key values in bounds are cut after this many code points (strings) or bytes (binary).
pub(crate) const MAX_BOUND_LENGTH: usize = 64;

/// One version of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) reader_features: Vec<String>,
    pub(crate) writer_features: Vec<String>,
    pub(crate) dataset_id: DatasetId,
    pub(crate) version: u64,
    /// The version that the writer started from; `None` for a creation.
    pub(crate) base: Option<u64>,
    pub(crate) operation: Operation,
    pub(crate) write_id: WriteId,
    pub(crate) committed_at: DateTime<Utc>,
    /// The last version that changed rows; equal to `version` but for compactions and vacuums.
    pub(crate) data_version: u64,
    /// The dataset was dropped: no runs, skipped by partition listings.
    pub(crate) dropped: bool,
    pub(crate) spec: BucketSpec,
    pub(crate) schema: Vec<FieldDef>,
    pub(crate) runs: Vec<Run>,
    /// What the rows were derived from, at which versions.
    pub(crate) lineage: Vec<Lineage>,
    pub(crate) properties: BTreeMap<String, String>,
    /// The newest write ids with the versions they made, newest last, this version's own included.
    pub(crate) recent_writes: Vec<RecentWrite>,
    /// Write ids whose files a vacuum has deleted or is about to delete: a commit with one of them fails.
    pub(crate) fenced_write_ids: Vec<WriteId>,
    /// Fields that this library does not know, kept for those that do.
    pub(crate) unknown: serde_json::Map<String, serde_json::Value>,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// Made the dataset.
    Create,
    /// Added runs.
    Append,
    /// Put new runs in the place of all old ones.
    Replace,
    /// Put other runs with the same rows in the place of some (compaction, erasure).
    Rewrite,
    /// Removed all runs and marked the dataset as dropped.
    Drop,
    /// Fenced write ids before their files are deleted.
    Vacuum,
}

/// One input that a dataset was derived from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lineage {
    /// The path of the input when it was read.
    pub path: String,
    /// The id of the input dataset.
    pub dataset_id: DatasetId,
    /// The version that was read.
    pub version: u64,
    /// The data version of what was read: unchanged by a compaction of the input.
    pub data_version: u64,
}

/// A write id and the version it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecentWrite {
    pub(crate) write_id: WriteId,
    pub(crate) version: u64,
}

/// One run: a Parquet file with rows of one bucket, sorted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// The bucket, `0 ≤ bucket < buckets`.
    pub bucket: u32,
    /// The bucket count it was written under; may differ between runs of one dataset.
    pub buckets: BucketCount,
    /// The path relative to the dataset.
    pub path: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The size of the Parquet footer at its end in bytes: metadata, its length and the magic.
    pub footer_bytes: u64,
    /// Rows; at least one, for empty buckets have no run.
    pub rows: u64,
    /// The key of the first row, or a lower bound of it.
    pub first_key: KeyBound,
    /// The key of the last row, or an upper bound of it.
    pub last_key: KeyBound,
    /// Up to 16 evenly spaced rows with their keys, for splitting the run.
    pub fences: Vec<Fence>,
    /// The checksum of the whole file.
    pub checksum: Checksum,
    /// Fields that this library does not know, kept for those that do.
    pub(crate) unknown: serde_json::Map<String, serde_json::Value>,
}

/// A key tuple that is exact or a bound.
///
/// Strings beyond 64 code points and binary beyond 64 bytes are cut: to a prefix in lower bounds, rounded up in upper bounds. The values after
/// a cut one are left out, so `values` may be shorter than the key; comparisons stop where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyBound {
    /// One value per key column, or fewer after a cut one.
    pub values: Vec<KeyValue>,
    /// Whether this is the key itself.
    pub exact: bool,
}

/// A value of a key column, by logical type. Ordered by the key order `value`, nulls last; values of one column are of one variant.
///
/// Its serde form is for requests, such as a [`SlotDescriptor`](crate::SlotDescriptor); manifests have their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyValue {
    /// Booleans.
    Boolean(bool),
    /// Integers; days of dates, units since the epoch of timestamps, unscaled decimals.
    Integer(#[serde(with = "decimal_text")] i128),
    /// Strings.
    Utf8(String),
    /// Binary, of fixed size or not.
    Binary(Vec<u8>),
    /// Null, after all values.
    Null,
}

/// A key at a row of a run: where the run can be split.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fence {
    /// The key of `row`, or a lower bound of it.
    pub key: KeyBound,
    /// The row, counted from 0.
    pub row: u64,
}

/// Integers as decimal text: not every JSON reader keeps 128 bits.
mod decimal_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

macro_rules! key_value_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for KeyValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}

key_value_from!(
    bool => Boolean, i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer, i128 => Integer, u8 => Integer,
    u16 => Integer, u32 => Integer, u64 => Integer, &str => Utf8, String => Utf8, Vec<u8> => Binary, &[u8] => Binary,
);

/// The checksum of a file with the name of its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checksum {
    /// `xxh64`: XXH64 with seed 0.
    pub algorithm: String,
    /// 16 lower-case hexadecimal digits.
    pub value: String,
}

impl Checksum {
    /// The algorithm that this library writes and verifies.
    pub(crate) const XXH64: &'static str = "xxh64";

    pub(crate) fn xxh64(digest: u64) -> Self {
        Self { algorithm: Self::XXH64.to_owned(), value: format!("{digest:016x}") }
    }
}
