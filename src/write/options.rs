//! How a dataset is written: the mode of a write and its tuning. Plain data, serialisable; every default is a named constant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parquet::basic::{Compression, ZstdLevel};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Default of [`WriteOptions::memory_budget`]: 1 GiB.
pub const DEFAULT_MEMORY_BUDGET: usize = 1 << 30;

/// Default of [`WriteOptions::max_row_group_rows`]: 131 072 rows. A reader of a slot holds one or two row groups per open run, so that
/// this bounds its memory.
pub const DEFAULT_MAX_ROW_GROUP_ROWS: usize = 131_072;

/// Default of [`WriteOptions::row_group_bytes`]: 8 MiB, about the size from which object stores answer range reads at full speed.
pub const DEFAULT_ROW_GROUP_BYTES: usize = 8 << 20;

/// Default of [`WriteOptions::page_rows`]: 2048 rows. A selective read decodes whole pages; much smaller ones cost more in bytes, page
/// headers and page index than they save.
pub const DEFAULT_PAGE_ROWS: usize = 2048;

/// Default of [`WriteOptions::page_bytes`]: 24 KiB. Values of a dozen bytes and less fill a page by its rows; a selective read of longer texts,
/// the dearest to decompress, then takes fewer of them along.
pub const DEFAULT_PAGE_BYTES: usize = 24 << 10;

/// Default of [`WriteOptions::compression_threshold`]: 0.8, a saving of a fifth.
pub const DEFAULT_COMPRESSION_THRESHOLD: f64 = 0.8;

/// Default of [`WriteOptions::encoding`]: chosen by the first rows of each run.
pub const DEFAULT_ENCODING: Encoding = Encoding::Auto;

/// Default of [`WriteOptions::compression`]: zstd at its own default level. Little of a run is left to the codec after the encodings, so that
/// level 1 writes no faster, and takes a few percent more bytes.
pub const DEFAULT_COMPRESSION: &str = "zstd(3)";

/// What a write does to what the dataset holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WriteMode {
    /// Makes the dataset. `Conflict` if there is one already, unless it was dropped.
    #[default]
    Create,
    /// Adds the rows to those that are there, or makes the dataset if there is none. The schema and the bucket spec must be those of the
    /// dataset, but for the bucket count, else `Incompatible`. Commits made meanwhile by others are kept, unless one of them replaced
    /// the rows or changed spec or schema (`Conflict`).
    Append,
    /// Puts the rows in the place of all that are there, or makes the dataset if there is none. Schema and spec may be others than
    /// before. A commit made meanwhile by anyone else is a `Conflict`.
    Replace,
}

/// How the values of a column are written before the codec sees them. Every Parquet reader reads all of them; they differ in bytes and speed.
///
/// Of a column with nested values, what is said here holds for each of its leaf columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encoding {
    /// `Dictionary` or `Direct`, whichever is estimated to be smaller: chosen for each run and leaf by the run's first rows (8192, or some
    /// 4 MiB). A dictionary that outgrows the estimate, 4 MiB (of numbers 1 MiB), is followed by `Direct` in the rest of its row group. Of runs with more leaf columns than
    /// a quarter of the memory budget has mebibytes, and more than 32, it is `Dictionary` or `Plain`: packing takes a mebibyte for each.
    #[default]
    Auto,
    /// No dictionary: integers, decimals of up to 18 digits, dates and times as packed differences (`DELTA_BINARY_PACKED`), which makes
    /// sorted keys small; strings and binary with packed lengths (`DELTA_LENGTH_BYTE_ARRAY`); anything else, floats above all,
    /// `Plain`.
    Direct,
    /// A dictionary until it has 4 MiB (of numbers 1 MiB), then `Plain`: what most writers do, whatever the values are.
    Dictionary,
    /// The values as they are.
    Plain,
}

/// The order in which rows come to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InputOrder {
    /// Any: the rows are sorted. Rows that happen to be sorted cost little more than `Sorted` ones until they exceed the memory budget.
    #[default]
    Any,
    /// By the key columns, then the sort columns, ascending with nulls last, over all batches that a writer is given. Nothing is sorted, and what
    /// was spilled is read one spill after the other, however many there are. The bytes written are those of `Any`. Every row is compared with the
    /// one before it; a smaller one fails the write with `Unsorted`.
    Sorted,
}

/// Tuning of a write.
///
/// # Memory
/// Three eighths of [`memory_budget`](Self::memory_budget) buffer rows, what sorting them takes included, and as much is being sorted and spilled at
/// the same time. In the end, when no more rows come, merging takes a quarter and encoding another, of which as many runs are encoded at once as
/// fit. What the caller hands in is the caller's own, and so are the manifest's entries, some kilobytes for each run. One run is always encoded, which
/// takes two row groups and, for each leaf column, about a mebibyte, or a third of one where nothing is packed (see [`Encoding::Auto`]): a budget of less
/// than four times that is exceeded.
///
/// ```
/// use sort_merge_bucket::WriteOptions;
/// let options = WriteOptions::default().with_memory_budget(256 << 20).with_page_rows(4096);
/// let text = serde_json::to_string(&options)?;
/// assert!(text.contains(r#""compression":"zstd(3)""#));
/// assert_eq!(serde_json::from_str::<WriteOptions>(&text)?, options);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Bytes of memory for buffering, sorting and merging rows; any number works, small ones spill often. Default
    /// [`DEFAULT_MEMORY_BUDGET`].
    pub memory_budget: usize,
    /// The local folder for spill files, which exist only as long as the writer; `None` is the system's folder for temporary files.
    pub spill_dir: Option<PathBuf>,
    /// The order in which the rows come. Default [`InputOrder::Any`]. What [`Plan::transform`](crate::Plan::transform) writes is in order anyhow,
    /// and checked whatever is said here.
    pub input_order: InputOrder,
    /// The most rows of a row group, at least 1. Default [`DEFAULT_MAX_ROW_GROUP_ROWS`].
    pub max_row_group_rows: usize,
    /// The encoded and compressed size in bytes at which a row group ends, at least 1. Default [`DEFAULT_ROW_GROUP_BYTES`]. It also ends when the
    /// values have eight times as many bytes before they are encoded.
    pub row_group_bytes: usize,
    /// The most rows of a data page, at least 1: the unit that a selective read skips. Default [`DEFAULT_PAGE_ROWS`].
    pub page_rows: usize,
    /// The encoded size in bytes, before compression, at which a data page ends, at least 1. Default [`DEFAULT_PAGE_BYTES`].
    pub page_bytes: usize,
    /// The codec of the pages. Default [`DEFAULT_COMPRESSION`].
    #[serde(with = "compression_text")]
    pub compression: Compression,
    /// A page is stored compressed only if that leaves less than this share of its bytes, else as it is, which is read faster; greater than
    /// 0, and at 1 whatever gets smaller is compressed. Default [`DEFAULT_COMPRESSION_THRESHOLD`].
    pub compression_threshold: f64,
    /// The encoding of the columns that [`column_encodings`](Self::column_encodings) does not name. Default [`DEFAULT_ENCODING`].
    pub encoding: Encoding,
    /// The encodings of single columns, by name. Default none.
    pub column_encodings: BTreeMap<String, Encoding>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            memory_budget: DEFAULT_MEMORY_BUDGET,
            spill_dir: None,
            input_order: InputOrder::default(),
            max_row_group_rows: DEFAULT_MAX_ROW_GROUP_ROWS,
            row_group_bytes: DEFAULT_ROW_GROUP_BYTES,
            page_rows: DEFAULT_PAGE_ROWS,
            page_bytes: DEFAULT_PAGE_BYTES,
            compression: Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()),
            compression_threshold: DEFAULT_COMPRESSION_THRESHOLD,
            encoding: DEFAULT_ENCODING,
            column_encodings: BTreeMap::new(),
        }
    }
}

impl WriteOptions {
    /// Sets [`memory_budget`](Self::memory_budget), by default [`DEFAULT_MEMORY_BUDGET`].
    #[must_use]
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Sets [`spill_dir`](Self::spill_dir), by default the system's folder for temporary files.
    #[must_use]
    pub fn with_spill_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.spill_dir = Some(dir.as_ref().to_path_buf());
        self
    }

    /// Sets [`input_order`](Self::input_order), by default [`InputOrder::Any`].
    #[must_use]
    pub fn with_input_order(mut self, order: InputOrder) -> Self {
        self.input_order = order;
        self
    }

    /// Sets [`max_row_group_rows`](Self::max_row_group_rows), by default [`DEFAULT_MAX_ROW_GROUP_ROWS`].
    #[must_use]
    pub fn with_max_row_group_rows(mut self, rows: usize) -> Self {
        self.max_row_group_rows = rows;
        self
    }

    /// Sets [`row_group_bytes`](Self::row_group_bytes), by default [`DEFAULT_ROW_GROUP_BYTES`].
    #[must_use]
    pub fn with_row_group_bytes(mut self, bytes: usize) -> Self {
        self.row_group_bytes = bytes;
        self
    }

    /// Sets [`page_rows`](Self::page_rows), by default [`DEFAULT_PAGE_ROWS`].
    #[must_use]
    pub fn with_page_rows(mut self, rows: usize) -> Self {
        self.page_rows = rows;
        self
    }

    /// Sets [`page_bytes`](Self::page_bytes), by default [`DEFAULT_PAGE_BYTES`].
    #[must_use]
    pub fn with_page_bytes(mut self, bytes: usize) -> Self {
        self.page_bytes = bytes;
        self
    }

    /// Sets [`compression`](Self::compression), by default [`DEFAULT_COMPRESSION`].
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets [`compression_threshold`](Self::compression_threshold), by default [`DEFAULT_COMPRESSION_THRESHOLD`].
    #[must_use]
    pub fn with_compression_threshold(mut self, share: f64) -> Self {
        self.compression_threshold = share;
        self
    }

    /// Sets [`encoding`](Self::encoding), by default [`DEFAULT_ENCODING`].
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sets the encoding of one column in [`column_encodings`](Self::column_encodings).
    #[must_use]
    pub fn with_column_encoding(mut self, column: impl Into<String>, encoding: Encoding) -> Self {
        self.column_encodings.insert(column.into(), encoding);
        self
    }

    /// Checks what has a lower bound. Whether the codec is compiled in is found when a target is made of the options.
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            memory_budget: _,
            spill_dir: _,
            input_order: _,
            max_row_group_rows,
            row_group_bytes,
            page_rows,
            page_bytes,
            compression: _,
            compression_threshold,
            encoding: _,
            column_encodings: _,
        } = self;
        for (name, value) in [
            ("max_row_group_rows", max_row_group_rows),
            ("row_group_bytes", row_group_bytes),
            ("page_rows", page_rows),
            ("page_bytes", page_bytes),
        ] {
            if *value == 0 {
                return Err(Error::invalid_input(format!("a write option must be at least 1, {name}=`0`")));
            }
        }
        if !(compression_threshold.is_finite() && *compression_threshold > 0.0) {
            return Err(Error::invalid_input(format!(
                "a write option must be greater than 0, compression_threshold=`{compression_threshold}`"
            )));
        }
        Ok(())
    }
}

/// A codec as text, such as `zstd(1)` or `lz4_raw`: the form that parquet's own parser of codecs reads.
mod compression_text {
    use parquet::basic::Compression;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn text(compression: Compression) -> String {
        match compression {
            Compression::UNCOMPRESSED => "uncompressed".into(),
            Compression::SNAPPY => "snappy".into(),
            Compression::LZO => "lzo".into(),
            Compression::LZ4 => "lz4".into(),
            Compression::LZ4_RAW => "lz4_raw".into(),
            Compression::GZIP(level) => format!("gzip({})", level.compression_level()),
            Compression::BROTLI(level) => format!("brotli({})", level.compression_level()),
            Compression::ZSTD(level) => format!("zstd({})", level.compression_level()),
        }
    }

    pub(super) fn serialize<S: Serializer>(compression: &Compression, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*compression))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Compression, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
