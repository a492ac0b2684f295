//! The bucket spec: how rows are assigned to buckets and ordered inside them.

use std::fmt;
use std::num::NonZeroU32;

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::{is_key_type, type_name};

#[cfg(test)]
mod tests;

/// The number of buckets of a dataset or run: any N ≥ 1.
pub type BucketCount = NonZeroU32;

/// A good size of a run, in compressed bytes of its file: 128 MiB, 16 row groups of [`DEFAULT_ROW_GROUP_BYTES`](crate::DEFAULT_ROW_GROUP_BYTES).
///
/// Large enough that row groups are full, and that a run's footer, the request for it and its kilobyte in the manifest do not count. Small enough
/// that slots are many and short, and that the up to 16 keys that the manifest has of a run cut it at about every row group.
pub const DEFAULT_TARGET_RUN_BYTES: u64 = 128 << 20;

/// The most buckets that [`BucketSpec::buckets_for`] proposes: 16 384. A manifest of as many runs has some 16 MB, which every opening reads.
pub const MAX_PROPOSED_BUCKETS: u32 = 1 << 14;

/// A named, versioned bucket function. Files written under one are readable forever; a change of behaviour would be a new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BucketFunction {
    /// Iceberg's `bucket[N]` transform: `(murmur3_x86_32(bytes, 0) & 0x7fffffff) mod N` over the canonical bytes of the logical value,
    /// chained over several key columns by using the hash so far as the seed of the next. `docs/format.md` section 5.
    #[default]
    #[serde(rename = "iceberg-murmur3-v1")]
    IcebergMurmur3V1,
}

impl fmt::Display for BucketFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IcebergMurmur3V1 => "iceberg-murmur3-v1",
        })
    }
}

/// The order of key values inside a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyOrder {
    /// Value order: numbers, dates and times numerically, `false` before `true`, strings and binary by unsigned bytes; nulls last.
    #[default]
    #[serde(rename = "value")]
    Value,
}

impl fmt::Display for KeyOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
        })
    }
}

/// The direction of a sort column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SortDirection {
    /// Smallest first.
    #[default]
    Ascending,
}

/// Where nulls stand in a sort column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NullPlacement {
    /// After every value.
    #[default]
    Last,
}

/// A column that orders the rows of one key, after the key columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SortColumn {
    /// The column's name.
    pub name: String,
    /// Its direction; version 1 of the format knows only ascending.
    pub direction: SortDirection,
    /// Its null placement; version 1 of the format knows only nulls last.
    pub nulls: NullPlacement,
}

impl From<&str> for SortColumn {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), direction: SortDirection::Ascending, nulls: NullPlacement::Last }
    }
}

impl From<String> for SortColumn {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

/// How a dataset is bucketed and ordered: key columns, further sort columns, bucket function, key order and bucket count.
///
/// Keys are integers, strings, binary, dates, timestamps, `Decimal128` or booleans; whether the columns exist and have such types is
/// checked when the spec meets a schema.
///
/// ```
/// use sort_merge_bucket::BucketSpec;
/// let spec = BucketSpec::new(["user_id"], 64)?.with_sort_columns(["played_at"])?;
/// assert_eq!(spec.buckets().get(), 64);
/// assert_eq!(spec.to_string(), "key=[user_id], sort=[played_at], buckets=64, function=iceberg-murmur3-v1, order=value");
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BucketSpec {
    key: Vec<String>,
    sort: Vec<SortColumn>,
    key_order: KeyOrder,
    function: BucketFunction,
    buckets: BucketCount,
}

impl BucketSpec {
    /// A spec with these key columns and `buckets` buckets.
    ///
    /// # Errors
    /// `InvalidInput` for zero buckets, no key column, or a repeated column.
    pub fn new<S: Into<String>>(key: impl IntoIterator<Item = S>, buckets: u32) -> Result<Self> {
        let buckets = BucketCount::new(buckets)
            .ok_or_else(|| Error::invalid_input("a dataset needs at least one bucket, buckets=`0`"))?;
        let spec = Self {
            key: key.into_iter().map(Into::into).collect(),
            sort: vec![],
            key_order: KeyOrder::default(),
            function: BucketFunction::default(),
            buckets,
        };
        spec.check()?;
        Ok(spec)
    }

    /// Orders the rows of one key by further columns, ascending with nulls last.
    ///
    /// # Errors
    /// `InvalidInput` if a column occurs twice or is a key column.
    pub fn with_sort_columns<S: Into<SortColumn>>(mut self, columns: impl IntoIterator<Item = S>) -> Result<Self> {
        self.sort = columns.into_iter().map(Into::into).collect();
        self.check()?;
        Ok(self)
    }

    /// The same spec with another bucket count.
    #[must_use]
    pub fn with_buckets(mut self, buckets: BucketCount) -> Self {
        self.buckets = buckets;
        self
    }

    /// Proposes a bucket count for a dataset of about `expected_bytes` that is written at once, so that runs have at most, and on average more than half of,
    /// `target_run_bytes`: both as the files will have them, compressed. [`DEFAULT_TARGET_RUN_BYTES`] suits most.
    ///
    /// Always a power of two, so that any two proposals divide one another: datasets of different sizes join in as many slots as the smaller
    /// count has. At least 1 and at most [`MAX_PROPOSED_BUCKETS`]; a target of 0 is taken as 1.
    ///
    /// A small dataset that is going to be joined with a large one deserves more buckets than its own bytes ask for: `docs/buckets.md`.
    ///
    /// ```
    /// use sort_merge_bucket::{BucketSpec, DEFAULT_TARGET_RUN_BYTES};
    /// // A week of events, 40 GiB of files: 512 runs of 80 MiB.
    /// let buckets = BucketSpec::buckets_for(40 << 30, DEFAULT_TARGET_RUN_BYTES);
    /// assert_eq!(buckets.get(), 512);
    /// let spec = BucketSpec::new(["user_id"], buckets.get())?;
    /// # Ok::<(), sort_merge_bucket::Error>(())
    /// ```
    pub fn buckets_for(expected_bytes: u64, target_run_bytes: u64) -> BucketCount {
        let runs = expected_bytes.div_ceil(target_run_bytes.max(1)).clamp(1, u64::from(MAX_PROPOSED_BUCKETS));
        // A power of two at most, since the clamp's upper end is one.
        BucketCount::new(runs.next_power_of_two() as u32).unwrap_or(BucketCount::MIN)
    }

    /// The same spec with another bucket function.
    pub(crate) fn with_function(mut self, function: BucketFunction) -> Self {
        self.function = function;
        self
    }

    /// The names of the key columns, in hash and sort order.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The further sort columns.
    pub fn sort_columns(&self) -> &[SortColumn] {
        &self.sort
    }

    /// The order of key values.
    pub fn key_order(&self) -> KeyOrder {
        self.key_order
    }

    /// The bucket function.
    pub fn function(&self) -> BucketFunction {
        self.function
    }

    /// The bucket count N.
    pub fn buckets(&self) -> BucketCount {
        self.buckets
    }

    /// Key columns, then sort columns: the whole order of a run.
    pub fn order(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(String::as_str).chain(self.sort.iter().map(|s| s.name.as_str()))
    }

    /// Whether both specs place and order rows alike, bucket counts aside.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let Self { key, sort, key_order, function, buckets: _ } = self;
        (key, sort, key_order, function) == (&other.key, &other.sort, &other.key_order, &other.function)
    }

    /// Checks what needs no schema; also run on what a manifest says.
    pub(crate) fn check(&self) -> Result<()> {
        if self.key.is_empty() {
            return Err(Error::invalid_input("a bucket spec needs at least one key column"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for name in self.order() {
            if !seen.insert(name) {
                return Err(Error::invalid_input(format!("a column occurs twice in the bucket spec, column=`{name}`")));
            }
        }
        Ok(())
    }

    /// The positions of the order columns in a canonical schema, key columns first.
    ///
    /// # Errors
    /// `InvalidInput` naming **all** missing columns and all columns whose type cannot be a key.
    pub(crate) fn order_indices(&self, schema: &SchemaRef) -> Result<Vec<usize>> {
        let mut problems = vec![];
        let mut indices = vec![];
        for name in self.order() {
            match schema.index_of(name) {
                Err(_) => problems.push(format!("column `{name}` is not in the schema")),
                Ok(i) if !is_key_type(schema.field(i).data_type()) => problems.push(format!(
                    "column `{name}` of type `{}` cannot be a key or sort column (floats have no exact equality, nested types no order)",
                    type_name(schema.field(i).data_type()).unwrap_or_else(|_| schema.field(i).data_type().to_string())
                )),
                Ok(i) => indices.push(i),
            }
        }
        if problems.is_empty() { Ok(indices) } else { Err(Error::invalid_input(problems.join("; "))) }
    }

    /// The positions of the key columns alone.
    pub(crate) fn key_indices(&self, schema: &Schema) -> Result<Vec<usize>> {
        self.key
            .iter()
            .map(|name| {
                schema.index_of(name).map_err(|_| Error::invalid_input(format!("column `{name}` is not in the schema")))
            })
            .collect()
    }
}

impl fmt::Display for BucketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key=[{}]", self.key.join(", "))?;
        if !self.sort.is_empty() {
            let names: Vec<&str> = self.sort.iter().map(|s| s.name.as_str()).collect();
            write!(f, ", sort=[{}]", names.join(", "))?;
        }
        write!(f, ", buckets={}, function={}, order={}", self.buckets, self.function, self.key_order)
    }
}
