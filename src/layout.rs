//! Names: the one place that knows how objects of a dataset are called, and where ids and the time come from.
//!
//! ```text
//! <dataset>/_smb/00000000000000000001.json                              manifest of version 1
//! <dataset>/_smb/latest                                                 hint: newest version known to its writer
//! <dataset>/data/<write id>/bucket-00007-of-00064-<run id>.parquet      one run
//! ```

use std::fmt;

use chrono::{DateTime, SubsecRound, Utc};
use object_store::path::{Path, PathPart};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::BucketCount;

/// The folder of manifests and the hint.
pub(crate) const MANIFEST_FOLDER: &str = "_smb";
/// The folder of runs.
pub(crate) const DATA_FOLDER: &str = "data";

/// Identifies a dataset for its whole life, whatever its path; a UUID in hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatasetId(String);

impl DatasetId {
    pub(crate) fn generate(clock: Clock, write_id: &WriteId) -> Self {
        Self(match clock {
            Clock::System => random_uuid().hyphenated().to_string(),
            // A fixed clock replays: the id follows from the write id.
            Clock::Fixed(_) => {
                let bytes = write_id.0.as_bytes();
                let half = |seed| u128::from(twox_hash::XxHash64::oneshot(seed, bytes));
                uuid::Uuid::from_u128(half(0) << 64 | half(1)).hyphenated().to_string()
            }
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies one write, from its first uploaded run to its commit. A job that sets its own finds its own commit when it runs again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WriteId(String);

impl WriteId {
    /// A caller's own write id: 1 to 100 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    ///
    /// # Errors
    /// `InvalidInput` if it is not of that form.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=100).contains(&id.len()) && id.bytes().all(ok) && id.as_bytes()[0].is_ascii_alphanumeric() {
            return Ok(Self(id));
        }
        Err(Error::invalid_input(format!(
            "a write id is 1 to 100 letters, digits, `.`, `_`, `-`, beginning with a letter or digit, write_id=`{id}`"
        )))
    }

    pub(crate) fn generate() -> Self {
        Self(random_uuid().simple().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WriteId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl From<WriteId> for String {
    fn from(id: WriteId) -> Self {
        id.0
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the runs of one writer: `<task>-<attempt>-<sequence>`. The attempt is random, so that a job that is run again under the same
/// write id, or a stalled twin of a task, never writes to a name that was used before.
#[derive(Debug, Clone)]
pub(crate) struct RunIds {
    prefix: String,
    next: u32,
}

impl RunIds {
    pub(crate) fn new(clock: Clock, task: u32) -> Self {
        let attempt = match clock {
            Clock::System => random_uuid().as_fields().0,
            Clock::Fixed(_) => 0,
        };
        Self { prefix: format!("{task:05}-{attempt:08x}"), next: 0 }
    }

    pub(crate) fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{:06}", self.prefix, self.next)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that draws ids")]
fn random_uuid() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// Where the time of commits and the randomness of names come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Clock {
    /// The system's time, random names.
    #[default]
    System,
    /// A time standing still, and names that follow from the write id alone: the same input, options, write id and clock give the same
    /// bytes. For tests and reproducible builds; two writers with the same write id and task would overwrite each other.
    Fixed(DateTime<Utc>),
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    pub(crate) fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Fixed(time) => time,
        }
        .trunc_subsecs(3)
    }
}

/// The names of one dataset's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    root: Path,
}

impl Layout {
    pub(crate) fn new(root: Path) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn manifest(&self, version: u64) -> Path {
        self.root.clone().join(MANIFEST_FOLDER).join(format!("{version:020}.json"))
    }

    pub(crate) fn hint(&self) -> Path {
        self.root.clone().join(MANIFEST_FOLDER).join("latest")
    }

    /// The folder of all runs.
    pub(crate) fn data(&self) -> Path {
        self.root.clone().join(DATA_FOLDER)
    }

    /// The path of an object relative to the dataset; `None` if it is not inside.
    pub(crate) fn relative(&self, object: &Path) -> Option<String> {
        let parts: Vec<String> = object.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
        Some(parts.join("/"))
    }

    /// The object of a run, from its path in the manifest. The path must have passed [`is_run_path`].
    pub(crate) fn run(&self, relative: &str) -> Path {
        relative.split('/').fold(self.root.clone(), Path::join)
    }

    /// The relative path of a new run.
    pub(crate) fn new_run(write_id: &WriteId, bucket: u32, buckets: BucketCount, run_id: &str) -> String {
        format!("{DATA_FOLDER}/{write_id}/bucket-{bucket:05}-of-{buckets:05}-{run_id}.parquet")
    }
}

/// The name that a folder was made from. A path encodes some characters of what it is made from; a folder whose name it would not have made,
/// because something else put it there, is called what it is called.
pub(crate) fn name_of_folder(folder: &str) -> String {
    decode(folder).filter(|name| PathPart::from(name.as_str()).as_ref() == folder).unwrap_or_else(|| folder.to_owned())
}

/// Undoes percent-encoding, if text comes of it.
fn decode(part: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// Whether a manifest's run path stays inside `data/` and has no empty, `.` or `..` part; anything else could point outside the dataset.
pub(crate) fn is_run_path(relative: &str) -> bool {
    let mut parts = relative.split('/');
    parts.next() == Some(DATA_FOLDER)
        && relative.len() > DATA_FOLDER.len() + 1
        && parts.all(|part| {
            !part.is_empty() && part != "." && part != ".." && Path::parse(part).is_ok_and(|p| p.as_ref() == part)
        })
}

/// The write that made an object, if its path relative to the dataset is exactly one that [`Layout::new_run`] gives.
pub(crate) fn run_writer(relative: &str) -> Option<WriteId> {
    let mut parts = relative.split('/');
    let (Some(DATA_FOLDER), Some(write_id), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let (bucket, rest) = name.strip_prefix("bucket-")?.split_once("-of-")?;
    let mut ids = rest.strip_suffix(".parquet")?.split('-');
    let (Some(buckets), Some(task), Some(attempt), Some(sequence), None) =
        (ids.next(), ids.next(), ids.next(), ids.next(), ids.next())
    else {
        return None;
    };
    let decimal = |text: &str, least: usize| text.len() >= least && text.bytes().all(|b| b.is_ascii_digit());
    let is_run = decimal(bucket, 5)
        && decimal(buckets, 5)
        && decimal(task, 5)
        && attempt.len() == 8
        && attempt.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && decimal(sequence, 6);
    if is_run { WriteId::new(write_id).ok() } else { None }
}
