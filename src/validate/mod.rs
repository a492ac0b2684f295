//! Validation: every invariant of `docs/format.md` section 9, checked again from the stored bytes, all violations in one report.
//!
//! * `footer`: what a run's Parquet footer promises; `rows`: order, placement and keys of its rows; `statistics`: least and greatest values.
//!
//! This module fetches; the others only compute. Decoding runs on the runtime's blocking threads, where a panic over damaged bytes becomes an
//! error and then a violation.

mod footer;
mod rows;
mod statistics;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;
use object_store::{GetResult, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, ParquetMetaDataReader,
    RowGroupMetaData,
};

use crate::dataset::Dataset;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Document, Run, Violation, Violations, check};
use crate::read::{check_footer, check_struct};
use crate::store::{Place, digest, fetch_ranges};
use crate::task::spawn_blocking;
use crate::validate::rows::RowCheck;

/// Rows that are decoded and checked at once.
const BATCH_ROWS: usize = 8192;

/// The size of the Parquet trailer: the length of the metadata and the magic.
const TRAILER_BYTES: u64 = 8;

/// What a validation found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ValidationReport {
    /// Every violation; of one kind in one run the first hundred, and then how many more there are.
    pub violations: Vec<Violation>,
    /// How many runs were checked.
    pub runs: u64,
    /// How many rows were decoded and checked.
    pub rows: u64,
    /// How many bytes were checksummed.
    pub bytes: u64,
}

impl ValidationReport {
    /// Whether every invariant holds.
    pub fn is_valid(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for ValidationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violations, runs, rows, bytes } = self;
        write!(f, "{runs} runs, {rows} rows, {bytes} bytes: ")?;
        match violations.len() {
            0 => f.write_str("valid"),
            1 => f.write_str("1 violation"),
            n => write!(f, "{n} violations"),
        }?;
        violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

impl Dataset {
    /// Reads everything that this version consists of and checks every invariant of the format: the manifest, and of each run its size, checksum,
    /// footer, columns, order, the bucket of every row, keys, fences and all statistics.
    ///
    /// Reads each run twice, one run after the other: once for its checksum, once for its rows.
    ///
    /// # Memory
    /// The fetched bytes of one row group and a batch of 8192 decoded rows.
    ///
    /// # Errors
    /// `Store` if the store fails. Damage is no error but a violation in the report.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::array::{Int64Array, RecordBatch};
    /// use object_store::memory::InMemory;
    /// use sort_merge_bucket::{BucketSpec, DatasetWriter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![3, 1, 2])) as _)])?;
    /// let spec = BucketSpec::new(["id"], 4)?;
    /// let mut writer = DatasetWriter::builder(Arc::new(InMemory::new()), "ids", batch.schema(), spec).build().await?;
    /// writer.write(&batch).await?;
    /// let report = writer.commit().await?.validate().await?;
    /// assert!(report.is_valid(), "{report}");
    /// assert_eq!(report.rows, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate(&self) -> Result<ValidationReport> {
        let found = Found::default();
        check_manifests(self, &found).await?;
        let mut report = ValidationReport::default();
        for run in self.runs() {
            let checked =
                check_run(self, run, &found).await.map_err(|e| e.with_path(self.place().layout.run(&run.path)))?;
            report.runs += 1;
            report.rows += checked.rows;
            report.bytes += checked.bytes;
        }
        report.violations = found.take().finish();
        Ok(report)
    }
}

/// The violations so far, shared with the blocking threads so that a panic there loses none.
#[derive(Debug, Clone, Default)]
struct Found(Arc<Mutex<Violations>>);

impl Found {
    fn with<T>(&self, add: impl FnOnce(&mut Violations) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Violations {
        self.with(std::mem::take)
    }

    /// Makes a violation of anything but a failure of the store.
    fn damage<T>(&self, run: &Run, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == ErrorKind::Store => Err(e),
            Err(e) => {
                self.with(|found| {
                    found.run("INV-18", run, format!("the file cannot be decoded, cause=`{}`", chain(&e)));
                });
                Ok(None)
            }
        }
    }
}

/// An error with its sources on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// The manifest by itself, as it is stored now, and as the successor of the version before.
async fn check_manifests(dataset: &Dataset, found: &Found) -> Result<()> {
    let (place, manifest) = (dataset.place(), dataset.manifest());
    for Violation { invariant, message, .. } in check(manifest) {
        found.with(|found| found.manifest(invariant, message));
    }
    let stored = read_document(place, manifest.version).await?;
    let is_same = match &stored {
        Ok(Some(Document::Manifest(stored))) => **stored == **manifest,
        // Vacuumed since it was opened.
        Ok(Some(Document::Tombstone(tombstone))) => tombstone.dataset_id == manifest.dataset_id,
        Ok(None) | Err(_) => false,
    };
    if !is_same {
        found.with(|found| found.manifest("INV-01", "the stored manifest is not the one that was opened".to_owned()));
    }
    if manifest.version == 1 {
        return Ok(());
    }
    let cause = match read_document(place, manifest.version - 1).await? {
        Ok(Some(Document::Manifest(before))) if before.dataset_id == manifest.dataset_id => return Ok(()),
        Ok(Some(Document::Tombstone(before))) if before.dataset_id == manifest.dataset_id => return Ok(()),
        Ok(Some(_)) => "it has another dataset id".to_owned(),
        Ok(None) => "it is missing".to_owned(),
        Err(e) => chain(&e),
    };
    found.with(|found| found.manifest("INV-16", format!("the version before is not of this dataset, cause=`{cause}`")));
    Ok(())
}

/// The outer error is the store's.
async fn read_document(place: &Place, version: u64) -> Result<Result<Option<Document>>> {
    match place.read(version).await {
        Err(e) if e.kind() == ErrorKind::Store => Err(e),
        other => Ok(other),
    }
}

/// How much of a run was checked.
#[derive(Debug, Default)]
struct Checked {
    rows: u64,
    bytes: u64,
}

async fn check_run(dataset: &Dataset, run: &Run, found: &Found) -> Result<Checked> {
    let mut checked = Checked::default();
    let path = dataset.place().layout.run(&run.path);
    let object = match dataset.store().get(&path).await {
        Ok(object) => object,
        Err(object_store::Error::NotFound { .. }) => {
            found.with(|found| found.run("INV-17", run, "the run is missing".to_owned()));
            return Ok(checked);
        }
        Err(e) => return Err(Error::from(e)),
    };
    let size = object.meta.size;
    if size != run.bytes {
        found.with(|found| {
            found.run("INV-17", run, format!("the file has another size, expected=`{}`, found=`{size}`", run.bytes));
        });
    }
    checked.bytes = check_bytes(object, run, found).await?;

    let file = File { dataset, path, size };
    let metadata = file.metadata(run, found).await;
    let Some(metadata) = found.damage(run, metadata)? else { return Ok(checked) };
    let opened = spawn_blocking({
        let (dataset, run, found) = (dataset.clone(), run.clone(), found.clone());
        move || {
            let arrow = found.with(|found| footer::check(&dataset, &run, &metadata, found));
            let rows = arrow.as_ref().map(|arrow| RowCheck::new(&dataset, &run, arrow, found.clone())).transpose()?;
            Ok(arrow.zip(rows))
        }
    });
    let Some(Some((arrow, rows))) = found.damage(run, opened.await)? else { return Ok(checked) };
    let decoder = ParquetPushDecoderBuilder::new_with_metadata(arrow).with_batch_size(BATCH_ROWS).build();
    let Some(decoder) = found.damage(run, decoder.map_err(Error::from))? else { return Ok(checked) };
    let read = file.check_rows(decoder, Box::new(rows)).await;
    checked.rows = found.damage(run, read)?.unwrap_or(0);
    Ok(checked)
}

/// Hashes the object as it streams in.
async fn check_bytes(object: GetResult, run: &Run, found: &Found) -> Result<u64> {
    let (checksum, bytes) = digest(object).await?;
    if run.checksum.algorithm == checksum.algorithm && run.checksum.value != checksum.value {
        let message =
            format!("the file has another checksum, expected=`{}`, found=`{}`", run.checksum.value, checksum.value);
        found.with(|found| found.run("INV-26", run, message));
    }
    Ok(bytes)
}

/// A run's object, read by ranges.
struct File<'a> {
    dataset: &'a Dataset,
    path: Path,
    size: u64,
}

impl File<'_> {
    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        if let Some(range) = ranges.iter().find(|range| range.is_empty() || range.end > self.size) {
            return Err(Error::corrupt(format!(
                "the file refers to bytes that it does not have, range=`{range:?}`, size=`{}`",
                self.size
            )));
        }
        fetch_ranges(self.dataset.store(), &self.path, ranges).await
    }

    /// The footer with the page index, where there is one.
    async fn metadata(&self, run: &Run, found: &Found) -> Result<ParquetMetaData> {
        let trailer = self.size.saturating_sub(TRAILER_BYTES)..self.size;
        let length = match self.fetch(&[trailer]).await?.concat().as_slice() {
            [a, b, c, d, b'P', b'A', b'R', b'1'] => {
                let length = u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + TRAILER_BYTES;
                if length != run.footer_bytes {
                    let message =
                        format!("the footer has another size, expected=`{}`, found=`{length}`", run.footer_bytes);
                    found.with(|found| found.run("INV-18", run, message));
                }
                if length > self.size {
                    return Err(Error::corrupt("the footer is larger than the file"));
                }
                length
            }
            _ => return Err(Error::corrupt("the file does not end as a parquet file")),
        };
        let body = self.size - length..self.size - TRAILER_BYTES;
        let footer = self.fetch(std::slice::from_ref(&body)).await?.concat();
        let decode = move || {
            check_footer(&footer)?;
            Ok(ParquetMetaDataReader::decode_metadata(&footer)?)
        };
        let metadata = spawn_blocking(decode).await?;
        // Where the pages are: lists whose lengths the decoder trusts.
        let chunks = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        let of_chunk = |chunk: &ColumnChunkMetaData| {
            let start = u64::try_from(chunk.offset_index_offset()?).ok()?;
            Some(start..start.checked_add(u64::try_from(chunk.offset_index_length()?).ok()?)?)
        };
        let locations: Vec<Range<u64>> = chunks.filter_map(of_chunk).collect();
        let mut decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(self.size, metadata)?
            .with_page_index_policy(PageIndexPolicy::Optional);
        loop {
            let step = move || {
                let result = decoder.try_decode()?;
                Ok((decoder, result))
            };
            let result;
            (decoder, result) = spawn_blocking(step).await?;
            match result {
                DecodeResult::NeedsData(ranges) => {
                    let bytes = self.fetch(&ranges).await?;
                    for (range, bytes) in ranges.iter().zip(&bytes) {
                        let inside = |own: &&Range<u64>| range.start <= own.start && own.end <= range.end;
                        for own in locations.iter().filter(inside) {
                            check_struct(&bytes[(own.start - range.start) as usize..(own.end - range.start) as usize])?;
                        }
                    }
                    decoder.push_ranges(ranges, bytes)?;
                }
                DecodeResult::Data(metadata) => return Ok(metadata),
                DecodeResult::Finished => return Err(Error::corrupt("the footer holds no metadata")),
            }
        }
    }

    /// Decodes all rows, one row group's bytes at a time, and returns how many there were.
    async fn check_rows(&self, mut decoder: ParquetPushDecoder, mut rows: Box<RowCheck>) -> Result<u64> {
        loop {
            let step = move || {
                let needs = loop {
                    match decoder.try_decode()? {
                        DecodeResult::Data(batch) => rows.check(&batch)?,
                        DecodeResult::NeedsData(ranges) => break Some(ranges),
                        DecodeResult::Finished => break None,
                    }
                };
                Ok((decoder, rows, needs))
            };
            let needs;
            (decoder, rows, needs) = spawn_blocking(step).await?;
            match needs {
                Some(ranges) => {
                    let bytes = self.fetch(&ranges).await?;
                    decoder.push_ranges(ranges, bytes)?;
                }
                None => return spawn_blocking(move || rows.finish()).await,
            }
        }
    }
}
