//! The one error type of the crate: a kind to act on, a message to read, and where it happened.
//!
//! Every failure is an [`Error`]: one pointer wide, with an [`ErrorKind`] whose documentation says what caused it,
//! what the library did about it and what to do next. Messages are lower-case, put the specifics last as
//! `` name=`value` `` and never repeat the text of [`source`](std::error::Error::source).

use std::fmt;

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed error type that foreign errors are carried in.
type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, option, schema or batch that no dataset could accept: a float key, zero buckets, a missing key column, a batch of
    /// another schema. Nothing was read or written because of it. Correct the call.
    InvalidInput,
    /// Things that are fine by themselves do not fit together: key types, bucket functions, orders or schemas of the inputs of a plan,
    /// or a slot descriptor and a plan. The message lists **every** difference with both sides. Cast, rename or rewrite one side.
    Incompatible,
    /// Rows are not in their declared order. Names the row, the previous and the offending key, and the file if the rows are those of a run: the
    /// result so far must be discarded; rewrite the run's dataset from its source. Of rows that are being written, nothing became visible; the
    /// message says what to do.
    Unsorted,
    /// A row is not in the bucket that its key hashes to. Names the file, the row and both buckets. Rewrite the dataset from its source.
    Misplaced,
    /// Bytes that are not what the format or the manifest promises: truncated, replaced, damaged or foreign. Nothing was returned from them.
    /// Restore the object, or open an earlier version.
    Corrupt,
    /// The dataset needs a newer library: an unknown format version or feature, named in the message. Nothing was read or written. Upgrade.
    UnsupportedVersion,
    /// Another commit came first and the operation cannot be rebased on it. Nothing became visible. Reopen the dataset and decide again.
    Conflict,
    /// The store never said whether the commit happened. It may be visible or not; uploaded files were left in place. Reopen the dataset and
    /// look for the write id named in the message, or run the same write again **with the same write id**: it finds its own commit.
    CommitUnknown,
    /// There is no such dataset, version or partition, or the dataset was dropped.
    NotFound,
    /// The object store, or the local disk that holds spill files, failed. The message says on which object; the source says why.
    /// Nothing half-written is visible; retry when the cause is gone.
    Store,
    /// Something legitimate is larger than a limit that the caller can raise, such as one key group beyond `max_group_rows`. The message names
    /// the limit.
    LimitExceeded,
    /// A closure or stream that the caller supplied failed; the source is the caller's own error.
    External,
    /// A bug in this crate or a panic in a task. Please report it.
    Internal,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::Incompatible => "incompatible",
            Self::Unsorted => "unsorted",
            Self::Misplaced => "misplaced",
            Self::Corrupt => "corrupt",
            Self::UnsupportedVersion => "unsupported version",
            Self::Conflict => "conflict",
            Self::CommitUnknown => "commit unknown",
            Self::NotFound => "not found",
            Self::Store => "store",
            Self::LimitExceeded => "limit exceeded",
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of this crate. See [`ErrorKind`] for what each kind means and what to do about it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    /// The object concerned, as its path in the store.
    path: Option<String>,
    /// The row of that object, counted from 0.
    row: Option<u64>,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), path: None, row: None, source: None }))
    }

    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn incompatible(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Incompatible, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Wraps an error of the caller's own, such as one raised inside a closure given to `transform`.
    pub fn external(source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>) -> Self {
        Self::new(ErrorKind::External, "the caller's function failed").with_source(source)
    }

    pub(crate) fn with_path(mut self, path: impl fmt::Display) -> Self {
        self.0.path.get_or_insert_with(|| path.to_string());
        self
    }

    pub(crate) fn with_row(mut self, row: u64) -> Self {
        self.0.row.get_or_insert(row);
        self
    }

    /// The same error of another place.
    pub(crate) fn relocated(mut self, path: impl fmt::Display, row: Option<u64>) -> Self {
        (self.0.path, self.0.row) = (Some(path.to_string()), row);
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(without_token(source.into()));
        self
    }

    /// What happened, without the kind and the place.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The kind of this error, to act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The object in the store that the error is about, if there is one.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// The row of [`path`](Self::path), or without one of the rows handed in, that the error is about, counted from 0, if there is one.
    pub fn row(&self) -> Option<u64> {
        self.0.row
    }
}

/// The element in which S3 repeats a session token that has expired or that it does not know.
const TOKEN: [&str; 2] = ["<Token-0>", "</Token-0>"];

/// The error itself; of one whose text has a session token, only the text without it. Errors end in logs.
fn without_token(source: Source) -> Source {
    let text = source.to_string();
    let Some((before, rest)) = text.split_once(TOKEN[0]) else { return source };
    let after = rest.split_once(TOKEN[1]).map_or("", |(_, after)| after);
    format!("{before}{}******{}{after}", TOKEN[0], TOKEN[1]).into()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, ", path=`{path}`")?;
        }
        if let Some(row) = self.0.row {
            write!(f, ", row=`{row}`")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, path, row, source } = self.0.as_ref();
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("path", path)
            .field("row", row)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}

/// Arrow's kernels fail here only on what the caller's data can cause (a cast that overflows, offsets beyond 2 GiB).
impl From<arrow::error::ArrowError> for Error {
    fn from(source: arrow::error::ArrowError) -> Self {
        Self::new(ErrorKind::InvalidInput, "an arrow operation failed").with_source(source)
    }
}

/// Whatever the Parquet reader refuses is damage or a foreign file.
impl From<parquet::errors::ParquetError> for Error {
    fn from(source: parquet::errors::ParquetError) -> Self {
        Self::new(ErrorKind::Corrupt, "a parquet file could not be decoded").with_source(source)
    }
}

impl From<object_store::Error> for Error {
    fn from(source: object_store::Error) -> Self {
        Self::new(ErrorKind::Store, "the object store failed").with_source(source)
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::new(ErrorKind::Store, "a local spill file failed").with_source(source)
    }
}
