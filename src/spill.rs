//! Spill files: rows on local disk, in segments of one bucket each. Writers keep rows sorted by (bucket, key) in them, joins the rows of one side
//! of a key group, see [`SpilledRows`].
//!
//! A segment is a self-contained Arrow IPC stream, LZ4-compressed; which lies where is kept in memory only. No file stays open between
//! two reads, so that the number of spills is not limited by the number of open files. Files are removed with their last segment, the
//! folder with the last file or writer, whichever goes last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use tempfile::TempDir;

use crate::error::{Error, ErrorKind, Result};
use crate::footprint::{Tolerance, compact};
use crate::join::Overflow;
use crate::metrics::Counters;

/// How much is read at once where a message's size is not known yet.
const READ_BYTES: usize = 16 << 10;

/// The folder of one writer's spill files; removed when dropped with all that holds a part of it.
#[derive(Debug, Clone)]
pub(crate) struct SpillDir(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    dir: TempDir,
    next: AtomicU64,
}

impl SpillDir {
    /// Makes a folder in `parent`, or in the system's folder for temporary files.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("smb-spill-");
        let dir = match parent {
            None => builder.tempdir(),
            Some(parent) => builder.tempdir_in(parent),
        };
        let dir = dir.map_err(|e| match parent {
            None => Error::from(e),
            Some(parent) => Error::from(e).with_path(parent.display()),
        })?;
        Ok(Self(Arc::new(Folder { dir, next: AtomicU64::new(0) })))
    }

    /// Removes the folder and what is in it, as far as the system allows that while files are open: whoever still writes there does so in vain.
    pub(crate) fn remove(&self) {
        // What stays goes with the last holder.
        drop(std::fs::remove_dir_all(self.0.dir.path()));
    }

    /// Begins a file.
    pub(crate) fn file(&self, schema: &SchemaRef) -> Result<SpillWriter> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let file =
            SpillFile { path: self.0.dir.path().join(format!("{number:06}.arrows")), _folder: Arc::clone(&self.0) };
        let output = Counted { inner: BufWriter::new(file.at(File::create_new(&file.path))?), written: 0 };
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        Ok(SpillWriter {
            file: Arc::new(file),
            schema: Arc::clone(schema),
            options,
            output: Output::Between(output),
            bucket: 0,
            start: 0,
            segments: BTreeMap::new(),
        })
    }
}

#[derive(Debug)]
struct SpillFile {
    path: PathBuf,
    /// Keeps the folder as long as the file.
    _folder: Arc<Folder>,
}

impl SpillFile {
    fn at<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|e| Error::from(e).with_path(self.path.display()))
    }

    fn arrow<T>(&self, result: Result<T, ArrowError>) -> Result<T> {
        result.map_err(|e| {
            Error::new(ErrorKind::Store, "a local spill file failed").with_path(self.path.display()).with_source(e)
        })
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // Disk space is given back early; what cannot be removed now goes with the folder.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Sorted rows on disk: one segment per bucket that has rows.
#[derive(Debug, Default)]
pub(crate) struct Spill(BTreeMap<u32, Segment>);

impl Spill {
    /// One spill of files that share no bucket.
    pub(crate) fn of_parts(parts: Vec<Self>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }

    /// The buckets that have rows, ascending, with their bytes on disk.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().map(|(bucket, segment)| (*bucket, segment.bytes))
    }

    /// The bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(|segment| segment.bytes).sum()
    }

    /// The rows of a bucket, if it has any; nothing is opened.
    pub(crate) fn segment(&self, bucket: u32) -> Option<Segment> {
        self.0.get(&bucket).cloned()
    }
}

/// One bucket's rows in a spill file.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    file: Arc<SpillFile>,
    offset: u64,
    bytes: u64,
}

impl Segment {
    /// Begins to read the rows.
    pub(crate) fn read(&self) -> Result<SegmentReader> {
        SegmentReader::new(self)
    }
}

/// Writes a spill file, bucket after bucket.
pub(crate) struct SpillWriter {
    file: Arc<SpillFile>,
    schema: SchemaRef,
    options: IpcWriteOptions,
    output: Output,
    bucket: u32,
    start: u64,
    segments: BTreeMap<u32, Segment>,
}

enum Output {
    Between(Counted),
    Inside(StreamWriter<Counted>),
    /// A write failed.
    Broken,
}

impl SpillWriter {
    /// Writes the next rows of `bucket`. All rows of a bucket must come one after the other.
    pub(crate) fn write(&mut self, bucket: u32, batch: &RecordBatch) -> Result<()> {
        if matches!(self.output, Output::Inside(_)) && self.bucket != bucket {
            self.end_segment()?;
        }
        if let Output::Between(_) = self.output {
            let Output::Between(output) = std::mem::replace(&mut self.output, Output::Broken) else {
                return Err(broken());
            };
            (self.bucket, self.start) = (bucket, output.written);
            let stream = StreamWriter::try_new_with_options(output, &self.schema, self.options.clone());
            self.output = Output::Inside(self.file.arrow(stream)?);
        }
        let Output::Inside(stream) = &mut self.output else { return Err(broken()) };
        let written = stream.write(&compact(batch, Tolerance::SLICE)?);
        self.file.arrow(written)
    }

    fn end_segment(&mut self) -> Result<()> {
        let Output::Inside(stream) = std::mem::replace(&mut self.output, Output::Broken) else {
            return Err(broken());
        };
        // Ends the stream with its marker, without which a reader takes the next segment for a part of this one.
        let output = self.file.arrow(stream.into_inner())?;
        let segment = Segment { file: Arc::clone(&self.file), offset: self.start, bytes: output.written - self.start };
        if self.segments.insert(self.bucket, segment).is_some() {
            return Err(Error::internal(format!("the rows of a bucket were spilled apart, bucket=`{}`", self.bucket)));
        }
        self.output = Output::Between(output);
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) -> Result<Spill> {
        if let Output::Inside(_) = self.output {
            self.end_segment()?;
        }
        let Output::Between(mut output) = self.output else { return Err(broken()) };
        self.file.at(output.flush())?;
        Ok(Spill(self.segments))
    }
}

fn broken() -> Error {
    Error::internal("a spill file was used after a failed write")
}

/// Counts what is written, for the offsets of segments.
struct Counted {
    inner: BufWriter<File>,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Reads one segment, batch by batch; holds one batch at a time and no open file.
pub(crate) struct SegmentReader {
    file: Arc<SpillFile>,
    stream: StreamReader<BufReader<SegmentBytes>>,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SegmentReader {
    fn new(segment: &Segment) -> Result<Self> {
        let Segment { file, offset, bytes } = segment;
        let bytes = SegmentBytes { file: Arc::clone(file), position: *offset, end: offset + bytes };
        let stream = StreamReader::try_new(BufReader::with_capacity(READ_BYTES, bytes), None);
        Ok(Self { stream: file.arrow(stream)?, file: Arc::clone(file) })
    }

    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.stream.next().transpose();
        self.file.arrow(batch)
    }
}

struct SegmentBytes {
    file: Arc<SpillFile>,
    position: u64,
    end: u64,
}

impl Read for SegmentBytes {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        if len == 0 {
            return Ok(0);
        }
        let mut file = File::open(&self.file.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let n = file.read(&mut buf[..len])?;
        self.position += n as u64;
        Ok(n)
    }
}

/// The one segment of [`SpilledRows`].
const ALL_ROWS: u32 = 0;

/// Rows in a file of their own, read in the order in which they were written.
pub(crate) struct SpilledRows {
    rows: Rows,
    counters: Arc<Counters>,
}

enum Rows {
    Written(SpillWriter),
    Read(Spill, Option<SegmentReader>),
    /// A write failed.
    Broken,
}

impl SpilledRows {
    /// Makes a folder and a file in `parent`, or in the system's folder for temporary files.
    pub(crate) fn create(parent: Option<&Path>, schema: &SchemaRef, counters: Arc<Counters>) -> Result<Self> {
        Ok(Self { rows: Rows::Written(SpillDir::create(parent)?.file(schema)?), counters })
    }
}

impl Overflow for SpilledRows {
    fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        self.counters.rows_spilled.add(batch.num_rows() as u64);
        match &mut self.rows {
            Rows::Written(file) => file.write(ALL_ROWS, batch),
            _ => Err(broken()),
        }
    }

    fn rewind(&mut self) -> Result<()> {
        let spill = match std::mem::replace(&mut self.rows, Rows::Broken) {
            Rows::Written(file) => file.finish()?,
            Rows::Read(spill, _) => spill,
            Rows::Broken => return Err(broken()),
        };
        let reader = spill.segment(ALL_ROWS).map(|segment| segment.read()).transpose()?;
        self.rows = Rows::Read(spill, reader);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.rows {
            Rows::Read(_, None) => Ok(None),
            Rows::Read(_, Some(reader)) => reader.next(),
            _ => Err(broken()),
        }
    }
}
