//! The manifest as JSON and back, as `docs/format.md` section 4 says.
//!
//! Encoding is deterministic. Decoding trusts nothing: whatever bytes come in, the result is a manifest, a tombstone or an error, and the
//! format version and features are looked at before anything that a newer version might have changed.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::invariants;
use super::json::to_lines;
use super::model::{
    Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, MAX_MANIFEST_BYTES, Manifest, Operation, RecentWrite,
    Run,
};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{DatasetId, WriteId};
use crate::schema::{FieldDef, schema_of};
use crate::spec::{BucketCount, BucketSpec};

/// Features that a reader must know to read a dataset that lists them. Version 1 starts without any.
pub(crate) const READER_FEATURES: &[&str] = &[];

/// Features that a writer must know to commit to a dataset that lists them. Version 1 starts without any.
pub(crate) const WRITER_FEATURES: &[&str] = &[];

/// What an object under `_smb/` with a version's name holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    /// A version.
    Manifest(Box<Manifest>),
    /// What vacuum leaves of an old version.
    Tombstone(Tombstone),
}

impl Document {
    /// The write that made the version.
    pub(crate) fn write_id(&self) -> &WriteId {
        match self {
            Self::Manifest(manifest) => &manifest.write_id,
            Self::Tombstone(tombstone) => &tombstone.write_id,
        }
    }
}

/// An old version whose manifest was emptied, so that numbers stay dense.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tombstone {
    pub(crate) dataset_id: DatasetId,
    pub(crate) version: u64,
    pub(crate) write_id: WriteId,
    pub(crate) committed_at: DateTime<Utc>,
}

/// What is looked at before anything else is decoded.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    tombstone: bool,
    #[serde(default)]
    reader_features: Vec<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    spec: Option<SpecHeader>,
}

#[derive(Deserialize)]
struct SpecHeader {
    function: String,
    key_order: String,
    sort: Vec<SortHeader>,
}

#[derive(Deserialize)]
struct SortHeader {
    direction: String,
    nulls: String,
}

/// The format version alone: nothing else need be as this library expects it.
#[derive(Deserialize)]
struct VersionHeader {
    format_version: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct ManifestJson {
    format_version: u32,
    reader_features: Vec<String>,
    writer_features: Vec<String>,
    dataset_id: DatasetId,
    version: u64,
    base: Option<u64>,
    operation: Operation,
    write_id: WriteId,
    committed_at: String,
    data_version: u64,
    #[serde(default)]
    dropped: bool,
    spec: BucketSpec,
    schema: Vec<FieldDef>,
    runs: Vec<RunJson>,
    lineage: Vec<Lineage>,
    properties: BTreeMap<String, String>,
    recent_writes: Vec<RecentWrite>,
    fenced_write_ids: Vec<WriteId>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct TombstoneJson {
    format_version: u32,
    tombstone: bool,
    dataset_id: DatasetId,
    version: u64,
    write_id: WriteId,
    committed_at: String,
}

/// A run as JSON: independent of the key types, which decoding then checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunJson {
    bucket: u32,
    buckets: BucketCount,
    path: String,
    bytes: u64,
    footer_bytes: u64,
    rows: u64,
    first_key: BoundJson,
    last_key: BoundJson,
    fences: Vec<FenceJson>,
    checksum: Checksum,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BoundJson {
    values: Vec<Value>,
    exact: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FenceJson {
    key: BoundJson,
    row: u64,
}

/// Encodes a manifest, and makes sure that it can be read back.
///
/// # Errors
/// `Internal` if this manifest is not one that [`decode`] accepts, `LimitExceeded` if it is too large: nothing unreadable may ever be committed.
pub(crate) fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let Manifest {
        reader_features,
        writer_features,
        dataset_id,
        version,
        base,
        operation,
        write_id,
        committed_at,
        data_version,
        dropped,
        spec,
        schema,
        runs,
        lineage,
        properties,
        recent_writes,
        fenced_write_ids,
        unknown,
    } = manifest.clone();
    let bytes = to_lines(&ManifestJson {
        format_version: FORMAT_VERSION,
        reader_features,
        writer_features,
        dataset_id,
        version,
        base,
        operation,
        write_id,
        committed_at: encode_time(committed_at),
        data_version,
        dropped,
        spec,
        schema,
        runs: encode_runs(&runs),
        lineage,
        properties,
        recent_writes,
        fenced_write_ids,
        unknown,
    })?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "the manifest would be larger than readers accept: the dataset has too many runs, write it anew, bytes=`{}`, at most=`{MAX_MANIFEST_BYTES}`",
                bytes.len()
            ),
        ));
    }
    match decode(&bytes) {
        Ok(Document::Manifest(read)) if *read == *manifest => Ok(bytes),
        Ok(_) => Err(Error::internal("a manifest changed when it was encoded and read back")),
        Err(e) => Err(Error::internal("a manifest that cannot be read back was about to be committed").with_source(e)),
    }
}

/// Encodes a tombstone.
pub(crate) fn encode_tombstone(tombstone: &Tombstone) -> Result<Vec<u8>> {
    let Tombstone { dataset_id, version, write_id, committed_at } = tombstone.clone();
    let committed_at = encode_time(committed_at);
    to_lines(&TombstoneJson {
        format_version: FORMAT_VERSION,
        tombstone: true,
        dataset_id,
        version,
        write_id,
        committed_at,
    })
}

impl From<&Manifest> for Tombstone {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { dataset_id, version, write_id, committed_at, .. } = manifest;
        Self {
            dataset_id: dataset_id.clone(),
            version: *version,
            write_id: write_id.clone(),
            committed_at: *committed_at,
        }
    }
}

/// Decodes what an object under `_smb/` holds.
///
/// # Errors
/// `UnsupportedVersion` if it needs a newer library, `Corrupt` if it is not a manifest, or one that breaks an invariant.
pub(crate) fn decode(bytes: &[u8]) -> Result<Document> {
    let header = check_header(bytes)?;
    if header.tombstone {
        let TombstoneJson { dataset_id, version, write_id, committed_at, .. } = parse(bytes)?;
        let committed_at = decode_time(&committed_at)?;
        return Ok(Document::Tombstone(Tombstone { dataset_id, version, write_id, committed_at }));
    }
    let ManifestJson {
        format_version: _,
        reader_features,
        writer_features,
        dataset_id,
        version,
        base,
        operation,
        write_id,
        committed_at,
        data_version,
        dropped,
        spec,
        schema,
        runs,
        lineage,
        properties,
        recent_writes,
        fenced_write_ids,
        unknown,
    } = parse(bytes)?;
    let runs = decode_runs(runs, &schema, &spec)?;
    let manifest = Manifest {
        reader_features,
        writer_features,
        dataset_id,
        version,
        base,
        operation,
        write_id,
        committed_at: decode_time(&committed_at)?,
        data_version,
        dropped,
        spec,
        schema,
        runs,
        lineage,
        properties,
        recent_writes,
        fenced_write_ids,
        unknown,
    };
    invariants::require(&manifest)?;
    Ok(Document::Manifest(Box::new(manifest)))
}

/// Refuses to commit to a dataset that needs a newer writer.
pub(crate) fn check_writable(manifest: &Manifest) -> Result<()> {
    check_features("writer", &manifest.writer_features, WRITER_FEATURES)
}

fn check_features(what: &str, needed: &[String], known: &[&str]) -> Result<()> {
    let missing: Vec<&str> = needed.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(unsupported(format!(
        "the dataset needs {what} features that this library does not know, features=`{}`",
        missing.join(", ")
    )))
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::UnsupportedVersion, message)
}

/// Format version, features, then the names that a later version of the format may add to.
fn check_header(bytes: &[u8]) -> Result<Header> {
    match parse::<VersionHeader>(bytes)?.format_version {
        Some(found) if found == u64::from(FORMAT_VERSION) => {}
        Some(found) => {
            return Err(unsupported(format!(
                "the dataset has another format version, use a library that knows it, found=`{found}`, supported=`{FORMAT_VERSION}`"
            )));
        }
        None => return Err(Error::corrupt("the object is not a manifest: it has no format version")),
    }
    let header: Header = parse(bytes)?;
    check_features("reader", &header.reader_features, READER_FEATURES)?;
    let mut names = vec![];
    if let Some(operation) = &header.operation {
        names.push(known::<Operation>("operation", operation));
    }
    if let Some(spec) = &header.spec {
        names.push(known::<crate::spec::BucketFunction>("bucket function", &spec.function));
        names.push(known::<crate::spec::KeyOrder>("key order", &spec.key_order));
        for sort in &spec.sort {
            names.push(known::<crate::spec::SortDirection>("sort direction", &sort.direction));
            names.push(known::<crate::spec::NullPlacement>("null placement", &sort.nulls));
        }
    }
    let unknown: Vec<String> = names.into_iter().flatten().collect();
    if unknown.is_empty() {
        return Ok(header);
    }
    Err(unsupported(format!(
        "the dataset uses what this library does not know, upgrade it, unknown=`{}`",
        unknown.join(", ")
    )))
}

/// `None` if `name` is one of `T`'s, else what to call it in a message.
fn known<T: for<'de> Deserialize<'de>>(what: &str, name: &str) -> Option<String> {
    T::deserialize(Value::from(name)).err().map(|_| format!("{what} {name}"))
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::corrupt("the object is not a manifest").with_source(e))
}

fn encode_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn decode_time(text: &str) -> Result<DateTime<Utc>> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.with_timezone(&Utc).trunc_subsecs(3)),
        Err(e) => Err(Error::corrupt(format!("a time is not of RFC 3339, value=`{text}`")).with_source(e)),
    }
}

/// Runs as JSON, in their order.
pub(crate) fn encode_runs(runs: &[Run]) -> Vec<RunJson> {
    runs.iter()
        .cloned()
        .map(|run| {
            let Run {
                bucket,
                buckets,
                path,
                bytes,
                footer_bytes,
                rows,
                first_key,
                last_key,
                fences,
                checksum,
                unknown,
            } = run;
            RunJson {
                bucket,
                buckets,
                path,
                bytes,
                footer_bytes,
                rows,
                first_key: encode_bound(&first_key),
                last_key: encode_bound(&last_key),
                fences: fences
                    .iter()
                    .map(|fence| FenceJson { key: encode_bound(&fence.key), row: fence.row })
                    .collect(),
                checksum,
                unknown,
            }
        })
        .collect()
}

/// Runs from JSON, their keys read by the types of the spec's key columns.
///
/// # Errors
/// `Corrupt` if a key is not of its column's type; the invariants of runs are not checked here.
pub(crate) fn decode_runs(runs: Vec<RunJson>, schema: &[FieldDef], spec: &BucketSpec) -> Result<Vec<Run>> {
    let types = key_types(schema, spec)?;
    runs.into_iter()
        .map(|run| {
            let RunJson {
                bucket,
                buckets,
                path,
                bytes,
                footer_bytes,
                rows,
                first_key,
                last_key,
                fences,
                checksum,
                unknown,
            } = run;
            let first_key = decode_bound(first_key, &types, &path)?;
            let last_key = decode_bound(last_key, &types, &path)?;
            let fences = fences
                .into_iter()
                .map(|fence| Ok(Fence { key: decode_bound(fence.key, &types, &path)?, row: fence.row }))
                .collect::<Result<Vec<_>>>()?;
            Ok(Run { bucket, buckets, path, bytes, footer_bytes, rows, first_key, last_key, fences, checksum, unknown })
        })
        .collect()
}

/// The canonical types of the key columns.
pub(crate) fn key_types(schema: &[FieldDef], spec: &BucketSpec) -> Result<Vec<DataType>> {
    let schema = schema_of(schema)?;
    let indices = spec
        .key_indices(&schema)
        .map_err(|e| Error::corrupt("INV-03: the bucket spec does not fit the schema").with_source(e))?;
    Ok(indices.into_iter().map(|i| schema.field(i).data_type().clone()).collect())
}

fn encode_bound(bound: &KeyBound) -> BoundJson {
    let values = bound
        .values
        .iter()
        .map(|value| match value {
            KeyValue::Boolean(value) => Value::Bool(*value),
            KeyValue::Integer(value) => Value::String(value.to_string()),
            KeyValue::Utf8(value) => Value::String(value.clone()),
            KeyValue::Binary(value) => Value::String(BASE64.encode(value)),
            KeyValue::Null => Value::Null,
        })
        .collect();
    BoundJson { values, exact: bound.exact }
}

/// `run` is the run's path, for messages: the path of an error is that of the manifest.
fn decode_bound(bound: BoundJson, types: &[DataType], run: &str) -> Result<KeyBound> {
    let BoundJson { values, exact } = bound;
    if values.len() > types.len() {
        return Err(Error::corrupt(format!(
            "INV-13: a key has more values than key columns, values=`{}`, columns=`{}`, run=`{run}`",
            values.len(),
            types.len()
        )));
    }
    let values = values
        .into_iter()
        .zip(types)
        .map(|(value, data_type)| decode_value(value, data_type, run))
        .collect::<Result<_>>()?;
    Ok(KeyBound { values, exact })
}

fn decode_value(value: Value, data_type: &DataType, run: &str) -> Result<KeyValue> {
    use DataType as D;
    let decoded = match (&value, data_type) {
        (Value::Null, _) => Some(KeyValue::Null),
        (Value::Bool(value), D::Boolean) => Some(KeyValue::Boolean(*value)),
        (Value::String(_), D::Boolean) => None,
        (Value::String(text), D::Utf8View) => Some(KeyValue::Utf8(text.clone())),
        (Value::String(text), D::BinaryView | D::FixedSizeBinary(_)) => BASE64.decode(text).ok().map(KeyValue::Binary),
        // One spelling only, so that equal keys are equal text.
        (Value::String(text), _) => text.parse().ok().filter(|n: &i128| n.to_string() == *text).map(KeyValue::Integer),
        _ => None,
    };
    decoded.ok_or_else(|| {
        Error::corrupt(format!(
            "INV-13: a key value is not of its column's type, value=`{value}`, type=`{data_type}`, run=`{run}`"
        ))
    })
}
