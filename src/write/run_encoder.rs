//! Rows of one bucket into the bytes of one run: checks their order, encodes Parquet, and keeps the books for the manifest. Knows no I/O.

use std::hash::Hasher as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;
use twox_hash::XxHash64;

use crate::error::{Error, Result};
use crate::footprint::{Cutter, RowSizes};
use crate::layout::{DatasetId, Layout, WriteId};
use crate::manifest::{Checksum, FORMAT_VERSION, Fence, KeyBound, MAX_FENCES, Run, key_at};
use crate::spec::BucketSpec;
use crate::store::Place;
use crate::write::encoding::Encodings;
use crate::write::options::WriteOptions;
use crate::write::order_check::OrderCheck;
use crate::write::parallel::PIECE_ROWS;

/// Rows are encoded in portions that end with the row that reaches this many bytes.
const PORTION_BYTES: u64 = 4 << 20;

/// A row group ends when its values have so many times its encoded bytes: parquet's writer keeps, until then, as much memory as pages had before they
/// were compressed.
const VALUES_PER_ENCODED: u64 = 8;

/// Statistics of strings and binary are cut after this many bytes.
const STATISTICS_BYTES: usize = 64;

/// What to do about a run that would not be in order. The writer sorts, so that only the results of a plan can be out of order.
const UNSORTED_RUN: &str = "return rows in the order of the item they are made of";

/// Parquet looks at the size of a page every so many rows.
const PAGE_CHECK_ROWS: usize = 1024;

/// What the runs of one write have in common. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RunTarget(Arc<Target>);

#[derive(Debug)]
struct Target {
    place: Place,
    dataset_id: DatasetId,
    write_id: WriteId,
    schema: SchemaRef,
    spec: BucketSpec,
    key: Vec<usize>,
    order: Vec<usize>,
    encodings: Encodings,
    /// The bytes of values at which a row group ends.
    row_group_values: u64,
}

impl RunTarget {
    /// `schema` is canonical.
    ///
    /// # Errors
    /// `InvalidInput` if the spec does not fit the schema, an option is out of its range, or the codec is not compiled in.
    pub(crate) fn new(
        place: Place,
        dataset_id: DatasetId,
        write_id: WriteId,
        schema: SchemaRef,
        spec: BucketSpec,
        options: &WriteOptions,
    ) -> Result<Self> {
        options.check()?;
        let order = spec.order_indices(&schema)?;
        let key = spec.key_indices(&schema)?;
        let leaves = ArrowSchemaConverter::new().convert(&schema).map_err(encoding)?;
        if let Some(column) = leaves.columns().first() {
            check_codec(options.compression, Arc::clone(column))?;
        }
        let sorting = order.iter().map(|i| {
            // Parquet numbers leaves, and nested columns have any number of them; an order column is its own and only leaf.
            let name = schema.field(*i).name();
            let leaf = leaves.columns().iter().position(|c| c.path().parts().first() == Some(name));
            let column_idx = i32::try_from(leaf.unwrap_or(*i)).unwrap_or(i32::MAX);
            SortingColumn { column_idx, descending: false, nulls_first: false }
        });
        let properties = WriterProperties::builder()
            .set_compression(options.compression)
            // Only pages of the second version can be left uncompressed one by one.
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_data_page_v2_compression_ratio_threshold(options.compression_threshold)
            .set_max_row_group_row_count(Some(options.max_row_group_rows))
            .set_max_row_group_bytes(Some(options.row_group_bytes))
            .set_data_page_row_count_limit(options.page_rows)
            .set_data_page_size_limit(options.page_bytes)
            .set_write_batch_size(options.page_rows.min(PAGE_CHECK_ROWS))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_statistics_truncate_length(Some(STATISTICS_BYTES))
            .set_column_index_truncate_length(Some(STATISTICS_BYTES))
            .set_sorting_columns(Some(sorting.collect()));
        let encodings = Encodings::new(properties, &leaves, options)?;
        let row_group_values = (options.row_group_bytes as u64).saturating_mul(VALUES_PER_ENCODED);
        let target = Target { place, dataset_id, write_id, schema, spec, key, order, encodings, row_group_values };
        Ok(Self(Arc::new(target)))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0.place
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    pub(crate) fn spec(&self) -> &BucketSpec {
        &self.0.spec
    }

    /// About the memory that encoding a run takes for its columns, beside the row group.
    pub(super) fn leaf_bytes(&self) -> usize {
        self.0.encodings.leaf_bytes()
    }

    /// The positions of the order columns.
    pub(crate) fn order(&self) -> &[usize] {
        &self.0.order
    }
}

/// Refuses a codec that is not compiled in, before any row is taken. Parquet's writer panics on such a codec; its reader of pages asks for
/// the same codec and returns an error, so that one of no pages is made here.
fn check_codec(compression: Compression, column: ColumnDescPtr) -> Result<()> {
    let refused = |e: ParquetError| {
        Error::invalid_input(format!("the codec cannot be used, compression=`{compression}`")).with_source(e)
    };
    let chunk = ColumnChunkMetaData::builder(column).set_compression(compression).build().map_err(refused)?;
    SerializedPageReader::new(Arc::new(Bytes::new()), &chunk, 0, None).map_err(refused)?;
    Ok(())
}

fn encoding(error: ParquetError) -> Error {
    Error::invalid_input("rows could not be encoded as parquet").with_source(error)
}

/// Encodes one run.
///
/// The bytes depend on the rows and the options, never on how the rows were cut into batches. Memory is one portion of rows (8192, or
/// about 4 MiB), the open row group, and what [`take_bytes`](Self::take_bytes) has not taken.
#[derive(Debug)]
pub(super) struct RunEncoder {
    target: RunTarget,
    bucket: u32,
    run_id: String,
    path: String,
    /// Made when the first portion is there, which decides how the columns are encoded.
    parquet: Option<ArrowWriter<Vec<u8>>>,
    order: OrderCheck,
    cutter: Cutter,
    /// The rows of the unfinished portion.
    pending: Vec<RecordBatch>,
    /// The bytes of the values of the unfinished portion, and of those before it in the open row group.
    pending_values: u64,
    row_group_values: u64,
    rows: u64,
    first: Option<KeyBound>,
    last: Option<KeyBound>,
    fences: Fences,
    bytes: u64,
    hash: XxHash64,
    /// The last bytes taken: a Parquet file ends with the length of its metadata.
    tail: Bytes,
}

impl RunEncoder {
    pub(super) fn new(target: &RunTarget, bucket: u32, run_id: &str) -> Result<Self> {
        let Target { write_id, schema, spec, order, .. } = target.0.as_ref();
        Ok(Self {
            target: target.clone(),
            bucket,
            run_id: run_id.to_owned(),
            path: Layout::new_run(write_id, bucket, spec.buckets(), run_id),
            parquet: None,
            order: OrderCheck::new(schema, order, UNSORTED_RUN)?,
            cutter: Cutter::new(PIECE_ROWS, PORTION_BYTES),
            pending: vec![],
            pending_values: 0,
            row_group_values: 0,
            rows: 0,
            first: None,
            last: None,
            fences: Fences::default(),
            bytes: 0,
            hash: XxHash64::with_seed(0),
            tail: Bytes::new(),
        })
    }

    /// The run's path, relative to the dataset.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The rows added so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows: canonical, of this bucket, in order.
    ///
    /// # Errors
    /// `Unsorted` with the row of this run and both keys.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        self.order.check(batch).map_err(|e| e.with_path(self.target.0.place.layout.run(&self.path)))?;
        self.note_keys(batch)?;
        let sizes = RowSizes::of_batch(batch);
        for (range, full) in self.cutter.cut(&sizes, rows) {
            self.pending_values += sizes.of_rows(range.clone());
            self.pending.push(batch.slice(range.start, range.len()));
            if full {
                self.encode_pending(false)?;
            }
        }
        self.rows += rows as u64;
        Ok(())
    }

    fn note_keys(&mut self, batch: &RecordBatch) -> Result<()> {
        let key: Vec<ArrayRef> = self.target.0.key.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        if self.first.is_none() {
            self.first = Some(KeyBound::lower(&key_at(&key, 0)?));
        }
        self.last = Some(KeyBound::upper(&key_at(&key, batch.num_rows() - 1)?));
        self.fences.sample(&key, self.rows, batch.num_rows() as u64)
    }

    /// Encodes the portion; `last` if no more rows will come.
    fn encode_pending(&mut self, last: bool) -> Result<()> {
        let portion = match self.pending.as_slice() {
            [] => return Ok(()),
            [only] => only.clone(),
            several => concat_batches(&self.target.0.schema, several)?,
        };
        self.pending.clear();
        let parquet = match self.parquet.take() {
            Some(parquet) => parquet,
            None => self.begin(self.target.0.encodings.of_run(&portion, last)?)?,
        };
        let parquet = self.parquet.insert(parquet);
        let goes_on = parquet.in_progress_rows() + portion.num_rows();
        parquet.write(&portion).map_err(encoding)?;
        self.row_group_values += self.pending_values;
        if parquet.in_progress_rows() < goes_on {
            // Another limit has ended the row group.
            self.row_group_values = self.pending_values;
        } else if self.row_group_values >= self.target.0.row_group_values {
            parquet.flush().map_err(encoding)?;
            self.row_group_values = 0;
        }
        self.pending_values = 0;
        Ok(())
    }

    fn begin(&self, properties: WriterProperties) -> Result<ArrowWriter<Vec<u8>>> {
        let Target { dataset_id, write_id, schema, spec, .. } = self.target.0.as_ref();
        let mut parquet = ArrowWriter::try_new(vec![], Arc::clone(schema), Some(properties)).map_err(encoding)?;
        for (key, value) in [
            ("smb.format", FORMAT_VERSION.to_string()),
            ("smb.dataset_id", dataset_id.to_string()),
            ("smb.write_id", write_id.to_string()),
            ("smb.run_id", self.run_id.clone()),
            ("smb.bucket", self.bucket.to_string()),
            ("smb.buckets", spec.buckets().to_string()),
        ] {
            parquet.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        Ok(parquet)
    }

    /// About how many bytes there are to take.
    pub(super) fn ready_bytes(&self) -> usize {
        self.parquet.as_ref().map_or(0, |parquet| parquet.inner().len())
    }

    /// Takes the bytes of finished row groups.
    pub(super) fn take_bytes(&mut self) -> Result<Bytes> {
        let Some(parquet) = &mut self.parquet else { return Ok(Bytes::new()) };
        parquet.sync()?;
        let bytes = Bytes::from(std::mem::take(parquet.inner_mut()));
        if !bytes.is_empty() {
            self.bytes += bytes.len() as u64;
            self.hash.write(&bytes);
            self.tail = bytes.slice(bytes.len().saturating_sub(8)..);
        }
        Ok(bytes)
    }

    /// Ends the run: its last bytes and its entry for the manifest, or `None` if it has no rows.
    pub(super) fn finish(mut self) -> Result<Option<(Bytes, Run)>> {
        self.encode_pending(true)?;
        let (Some(first_key), Some(last_key), Some(parquet)) =
            (self.first.take(), self.last.take(), self.parquet.as_mut())
        else {
            return Ok(None);
        };
        parquet.finish().map_err(encoding)?;
        let bytes = self.take_bytes()?;
        let footer_bytes = match self.tail.as_ref() {
            [a, b, c, d, b'P', b'A', b'R', b'1'] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 8,
            _ => return Err(Error::internal("a parquet file without its ending")),
        };
        let run = Run {
            bucket: self.bucket,
            buckets: self.target.0.spec.buckets(),
            path: self.path,
            bytes: self.bytes,
            footer_bytes,
            rows: self.rows,
            first_key,
            last_key,
            fences: self.fences.finish(),
            checksum: Checksum::xxh64(self.hash.finish()),
            unknown: serde_json::Map::new(),
        };
        Ok(Some((bytes, run)))
    }
}

/// Keys of evenly spaced rows, without knowing how many rows will come: every `step`-th is kept, and when there are too many, every
/// second goes and the step doubles.
#[derive(Debug)]
struct Fences {
    step: u64,
    kept: Vec<Fence>,
}

impl Default for Fences {
    fn default() -> Self {
        Self { step: 1, kept: vec![] }
    }
}

impl Fences {
    /// Looks at `rows` rows, the first of which is row `start` of the run. Row 0 is the run's first key and no fence.
    fn sample(&mut self, key: &[ArrayRef], start: u64, rows: u64) -> Result<()> {
        let mut row = start.max(1).next_multiple_of(self.step);
        while row < start + rows {
            self.kept.push(Fence { key: KeyBound::lower(&key_at(key, (row - start) as usize)?), row });
            if self.kept.len() > 2 * MAX_FENCES {
                self.halve();
            }
            row = (row + 1).next_multiple_of(self.step);
        }
        Ok(())
    }

    fn halve(&mut self) {
        self.step *= 2;
        self.kept.retain(|fence| fence.row.is_multiple_of(self.step));
    }

    fn finish(mut self) -> Vec<Fence> {
        while self.kept.len() > MAX_FENCES {
            self.halve();
        }
        self.kept
    }
}
