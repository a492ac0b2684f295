//! The rows of one run, read ahead by one row group.
//!
//! Opening checks that the file is the one that the manifest means: size, footer, identity, row count, schema. Of every row group read, the
//! first and the last key are hashed again. Order is checked by the merge that the batches go into.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use object_store::path::Path;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::bucket::bucket_ids;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::DatasetId;
use crate::manifest::Run;
use crate::read::Adapt;
use crate::spec::BucketFunction;
use crate::store::{Place, fetch_footer, fetch_ranges};
use crate::task::{Task, guard, spawn};

/// The size of the Parquet trailer: the footer's length and the magic.
const TRAILER: usize = 8;

/// A decoded batch has about this many bytes at most: rows with large values, such as the maps of partials, come in smaller batches. Above what a
/// batch of the default size has of 256 bytes per row, so that ordinary rows are not concerned.
const BATCH_BYTES: u64 = 2 << 20;

/// What a decoded value takes at least, about.
const VALUE_BYTES: u64 = 8;

/// Everything needed to read one run as batches of its source.
#[derive(Debug, Clone)]
pub(crate) struct RunReader {
    pub(crate) place: Place,
    pub(crate) dataset_id: DatasetId,
    /// The dataset's canonical schema, which the file must have.
    pub(crate) schema: SchemaRef,
    pub(crate) run: Run,
    pub(crate) adapt: Arc<Adapt>,
    pub(crate) function: BucketFunction,
    /// The positions of the key columns in the source's schema.
    pub(crate) key: Arc<[usize]>,
    pub(crate) batch_size: usize,
}

impl RunReader {
    /// Begins to open the run and to fetch its first row group.
    pub(crate) fn start(self) -> RunStream {
        let path = self.place.layout.run(&self.run.path);
        let opening = spawn(open(self.clone(), path.clone()));
        RunStream { reader: self, path, state: State::Opening(opening), rows: 0 }
    }

    fn fetch(&self, path: &Path, ranges: Vec<Range<u64>>) -> Task<Fetched> {
        let (store, path) = (Arc::clone(&self.place.store), path.clone());
        spawn(async move {
            let bytes = fetch_ranges(&store, &path, &ranges).await?;
            Ok((ranges, bytes))
        })
    }
}

type Fetched = (Vec<Range<u64>>, Vec<Bytes>);

/// An opened run.
#[derive(Debug)]
struct Opened {
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// The first row group's bytes; `None` if the run has none.
    first: Option<Fetched>,
}

async fn open(reader: RunReader, path: Path) -> Result<Opened> {
    let footer = fetch_footer(&reader.place.store, &path, &reader.run).await?;
    let metadata = guard(|| check_footer(&reader, &footer)).map_err(|e| e.with_path(&path))?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), reader.adapt.projection().iter().copied());
    let first = match metadata.metadata().num_row_groups() {
        0 => None,
        _ => {
            let ranges = chunk_ranges(metadata.metadata(), &mask, 0, reader.run.bytes)?;
            let bytes = fetch_ranges(&reader.place.store, &path, &ranges).await?;
            Some((ranges, bytes))
        }
    };
    Ok(Opened { metadata, mask, first })
}

/// Decodes the footer and holds the file to the manifest.
fn check_footer(reader: &RunReader, footer: &Bytes) -> Result<ArrowReaderMetadata> {
    let run = &reader.run;
    let body = footer.len().checked_sub(TRAILER).ok_or_else(|| Error::corrupt("a run's footer is too short"))?;
    let (body, trailer) = footer.split_at(body);
    if trailer[..4] != (body.len() as u32).to_le_bytes() || &trailer[4..] != b"PAR1" {
        return Err(Error::corrupt("a run does not end with the parquet footer that the manifest says"));
    }
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(body)?);
    check_identity(reader, &metadata)?;
    let of_groups = metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
    let found = of_groups.reduce(|sum, rows| sum?.checked_add(rows?)).flatten().unwrap_or(0);
    // Both numbers: nothing else makes sure that a footer lists all row groups.
    if found != run.rows || metadata.file_metadata().num_rows() as u64 != run.rows {
        return Err(Error::corrupt(format!(
            "a run has another number of rows than the manifest says, expected=`{}`, found=`{found}`",
            run.rows
        )));
    }
    // The manifest's schema decides; the Arrow schema that a writer may have put into the file is not looked at. Parquet wants to be told the
    // very nullability and field ids of the file, which are the file's own affair: values are checked against the manifest's later.
    let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let of_file = ArrowReaderMetadata::try_new(Arc::clone(&metadata), plain.clone())?;
    let like_file = |(wanted, found): (&FieldRef, &FieldRef)| {
        wanted.as_ref().clone().with_nullable(found.is_nullable()).with_metadata(found.metadata().clone())
    };
    let fields: Vec<Field> = reader.schema.fields().iter().zip(of_file.schema().fields()).map(like_file).collect();
    let metadata = ArrowReaderMetadata::try_new(metadata, plain.with_schema(Arc::new(Schema::new(fields))))
        .map_err(|e| Error::corrupt("a run has other columns than the manifest says").with_source(e))?;
    let same = metadata.schema().fields().len() == reader.schema.fields().len()
        && metadata
            .schema()
            .fields()
            .iter()
            .zip(reader.schema.fields())
            .all(|(found, expected)| found.name() == expected.name() && found.data_type() == expected.data_type());
    if !same {
        return Err(Error::corrupt(format!(
            "a run has other columns than the manifest says, expected=`{}`, found=`{}`",
            reader.schema,
            metadata.schema()
        )));
    }
    Ok(metadata)
}

/// The footer says which dataset, write, run and bucket the file belongs to; a file put in another's place is found by it.
fn check_identity(reader: &RunReader, metadata: &ParquetMetaData) -> Result<()> {
    let run = &reader.run;
    let pairs = metadata.file_metadata().key_value_metadata();
    let found =
        |key: &str| pairs.into_iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    let (folder, file) = run.path.rsplit_once('/').unwrap_or_default();
    let stem = format!("bucket-{:05}-of-{:05}-", run.bucket, run.buckets);
    let run_id = file.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(".parquet")).unwrap_or(file);
    let expected = [
        ("smb.format", "1".to_owned()),
        ("smb.dataset_id", reader.dataset_id.to_string()),
        ("smb.write_id", folder.rsplit('/').next().unwrap_or_default().to_owned()),
        ("smb.run_id", run_id.to_owned()),
        ("smb.bucket", run.bucket.to_string()),
        ("smb.buckets", run.buckets.to_string()),
    ];
    let differing: Vec<String> = expected
        .iter()
        .filter(|(key, value)| found(key) != Some(value))
        .map(|(key, value)| format!("{key}: expected=`{value}`, found=`{}`", found(key).unwrap_or("nothing")))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::corrupt(format!("a run's file is not the one that the manifest means: {}", differing.join("; "))))
}

/// The byte ranges of a row group's projected column chunks.
fn chunk_ranges(
    metadata: &ParquetMetaData,
    mask: &ProjectionMask,
    row_group: usize,
    file_bytes: u64,
) -> Result<Vec<Range<u64>>> {
    let columns = metadata.row_group(row_group).columns().iter().enumerate();
    columns
        .filter(|(leaf, _)| mask.leaf_included(*leaf))
        .map(|(_, chunk)| {
            // Not `ColumnChunkMetaData::byte_range`, which panics on negative numbers.
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
            let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
            range
                .filter(|range| range.end <= file_bytes)
                .ok_or_else(|| Error::corrupt("a column chunk lies outside its file"))
        })
        .collect()
}

/// The rows of a batch of a row group: as many as wanted, or fewer if they are large.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask, row_group: usize, wanted: usize) -> usize {
    let group = metadata.row_group(row_group);
    let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
    // Dictionaries and runs of equal values grow when they are decoded: at least a view or a number per value.
    let bytes = columns.fold(0_u64, |sum, (_, chunk)| {
        let values = u64::try_from(chunk.num_values()).unwrap_or(0).saturating_mul(VALUE_BYTES);
        sum.saturating_add(values.max(u64::try_from(chunk.uncompressed_size()).unwrap_or(0)))
    });
    let per_row = bytes / u64::try_from(group.num_rows()).unwrap_or(0).max(1);
    let rows = usize::try_from(BATCH_BYTES / per_row.max(1)).unwrap_or(wanted);
    rows.clamp(1, wanted.max(1))
}

/// Streams the rows of one run, in batches of its source.
///
/// # Memory
/// The fetched bytes of up to two row groups (projected columns only) and what their decoder holds: one page per column, dictionaries.
#[derive(Debug)]
pub(crate) struct RunStream {
    reader: RunReader,
    path: Path,
    state: State,
    /// Rows returned so far.
    rows: u64,
}

#[derive(Debug)]
enum State {
    Opening(Task<Opened>),
    Reading(Reading),
    Done,
}

#[derive(Debug)]
struct Reading {
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// The row group being decoded, or to be decoded next.
    row_group: usize,
    /// Rows of it that are still to come.
    left: u64,
    decoder: Option<RowGroupDecoder>,
    /// The bytes of `row_group` while there is no decoder, else of the one after it.
    ahead: Option<Ahead>,
}

#[derive(Debug)]
enum Ahead {
    Here(Fetched),
    Fetching(Task<Fetched>),
}

/// Arrow's reader of one row group's bytes.
struct RowGroupDecoder(ParquetRecordBatchReader);

impl std::fmt::Debug for RowGroupDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowGroupDecoder")
    }
}

impl RunStream {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt`, `Misplaced`, `Store`, naming the file.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self.advance().await {
            Ok(batch) => Ok(batch),
            Err(error) => {
                self.state = State::Done;
                Err(error.with_path(&self.path))
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match &mut self.state {
                State::Done => return Ok(None),
                State::Opening(opening) => {
                    let Opened { metadata, mask, first } = opening.await?;
                    let ahead = first.map(Ahead::Here);
                    self.state =
                        State::Reading(Reading { metadata, mask, row_group: 0, left: 0, decoder: None, ahead });
                }
                State::Reading(reading) => {
                    if let Some(RowGroupDecoder(decoder)) = &mut reading.decoder {
                        let batch = guard(|| {
                            let next = decoder.next().transpose();
                            next.map_err(|e| Error::corrupt("a run could not be decoded").with_source(e))
                        })?;
                        match batch {
                            Some(batch) => return self.deliver(batch).map(Some),
                            None if reading.left > 0 => {
                                return Err(Error::corrupt("a row group has fewer rows than its metadata says"));
                            }
                            None => {
                                reading.decoder = None;
                                reading.row_group += 1;
                            }
                        }
                    } else {
                        let Some(ahead) = reading.ahead.take() else {
                            self.state = State::Done;
                            continue;
                        };
                        let fetched = match ahead {
                            Ahead::Here(fetched) => fetched,
                            Ahead::Fetching(task) => task.await?,
                        };
                        reading.read_ahead(&self.reader, &self.path)?;
                        guard(|| reading.decode(&self.reader, fetched))?;
                    }
                }
            }
        }
    }

    /// Adapts a decoded batch and checks the placement of a row group's first and last row.
    fn deliver(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let State::Reading(reading) = &mut self.state else {
            return Err(Error::internal("a batch without a reader"));
        };
        let rows = batch.num_rows() as u64;
        let of_group = reading.metadata.metadata().row_group(reading.row_group).num_rows() as u64;
        let first = reading.left == of_group;
        reading.left = reading
            .left
            .checked_sub(rows)
            .ok_or_else(|| Error::corrupt("a row group has more rows than its metadata says"))?;
        let last = reading.left == 0;
        let batch = self.reader.adapt.apply(batch)?;
        if rows > 0 && first {
            self.check_placement(&batch, 0)?;
        }
        if rows > 0 && last {
            self.check_placement(&batch, batch.num_rows() - 1)?;
        }
        self.rows += rows;
        Ok(batch)
    }

    fn check_placement(&self, batch: &RecordBatch, row: usize) -> Result<()> {
        let RunReader { run, key, function, .. } = &self.reader;
        let key: Vec<ArrayRef> = key.iter().map(|&column| batch.column(column).slice(row, 1)).collect();
        let bucket = bucket_ids(*function, &key, run.buckets)?;
        if bucket == [run.bucket] {
            return Ok(());
        }
        let message = format!(
            "a row lies in another bucket than its key hashes to, rewrite the dataset from its source, expected=`{}`, actual=`{}`",
            bucket[0], run.bucket
        );
        Err(Error::new(ErrorKind::Misplaced, message).with_path(&self.path).with_row(self.rows + row as u64))
    }
}

impl Reading {
    /// Starts to fetch the row group after the current one.
    fn read_ahead(&mut self, reader: &RunReader, path: &Path) -> Result<()> {
        let next = self.row_group + 1;
        if next < self.metadata.metadata().num_row_groups() {
            let ranges = chunk_ranges(self.metadata.metadata(), &self.mask, next, reader.run.bytes)?;
            self.ahead = Some(Ahead::Fetching(reader.fetch(path, ranges)));
        }
        Ok(())
    }

    fn decode(&mut self, reader: &RunReader, (ranges, bytes): Fetched) -> Result<()> {
        let mut decoder = ParquetPushDecoderBuilder::new_with_metadata(self.metadata.clone())
            .with_row_groups(vec![self.row_group])
            .with_projection(self.mask.clone())
            .with_batch_size(batch_rows(self.metadata.metadata(), &self.mask, self.row_group, reader.batch_size))
            .build()?;
        decoder.push_ranges(ranges, bytes)?;
        self.left = self.metadata.metadata().row_group(self.row_group).num_rows() as u64;
        match decoder.try_next_reader()? {
            DecodeResult::Data(rows) => self.decoder = Some(RowGroupDecoder(rows)),
            DecodeResult::Finished if self.left == 0 => self.row_group += 1,
            DecodeResult::Finished => return Err(Error::corrupt("a row group has fewer rows than its metadata says")),
            DecodeResult::NeedsData(_) => {
                return Err(Error::corrupt("a row group's data lies outside its column chunks"));
            }
        }
        Ok(())
    }
}
