//! The page index of one row group, of the columns that matter: which rows each page has, and the minima and maxima of the columns that rows
//! are chosen by.
//!
//! Parquet's decoder wants the indexes of all columns in one piece. A run with small pages has more of them than a selective read has data, so
//! only those needed are fetched, and the decoder is shown metadata that has no others.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataPushDecoder,
    RowGroupMetaData,
};

use crate::error::{Error, Result};
use crate::read::check_struct;

/// The most bytes that the page index of a row group may extend over. A row group of the default 128 Ki rows in pages of 1 Ki rows needs some
/// 10 kB per column; beyond this, the row group is read without.
const MAX_EXTENT: u64 = 64 << 20;

/// What to fetch for a row group's page index, and the metadata to decode it with.
pub(super) struct PageIndexRequest {
    metadata: ParquetMetaData,
    /// The pieces of the column indexes, and those of the offset indexes.
    statistics: Vec<Range<u64>>,
    locations: Vec<Range<u64>>,
}

impl PageIndexRequest {
    /// `None` if the run has no page locations of a column that is read.
    ///
    /// # Errors
    /// `Corrupt` if the index lies outside the file.
    pub(super) fn new(
        metadata: &ParquetMetaData,
        row_group: usize,
        statistics_of: impl Fn(usize) -> bool,
        locations_of: impl Fn(usize) -> bool,
        file_bytes: u64,
    ) -> Result<Option<Self>> {
        let mut group = metadata.row_group(row_group).clone();
        let leaves = 0..group.columns().len();
        let needed: Vec<usize> = leaves.filter(|leaf| locations_of(*leaf)).collect();
        let Some(&any) = needed.first() else { return Ok(None) };
        let (mut statistics, mut locations) = (vec![], vec![]);
        for &leaf in &needed {
            let chunk = group.column(leaf);
            match piece(chunk.offset_index_offset(), chunk.offset_index_length(), file_bytes)? {
                Some(range) => locations.push(range),
                None => return Ok(None),
            }
            if statistics_of(leaf) {
                statistics.extend(piece(chunk.column_index_offset(), chunk.column_index_length(), file_bytes)?);
            }
        }
        if extent(&statistics).is_some_and(|range| range.end - range.start > MAX_EXTENT)
            || extent(&locations).is_some_and(|range| range.end - range.start > MAX_EXTENT)
        {
            return Ok(None);
        }
        // The decoder insists on page locations of all columns: the others, which nobody asks for, get those of one that is there.
        let (offset, length) = (group.column(any).offset_index_offset(), group.column(any).offset_index_length());
        for (leaf, chunk) in group.columns_mut().iter_mut().enumerate() {
            *chunk = narrowed(chunk, statistics_of(leaf), (!locations_of(leaf)).then_some((offset, length)))?;
        }
        let metadata = of_one_group(metadata, group);
        Ok(Some(Self { metadata, statistics, locations }))
    }

    /// The bytes to fetch.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        self.statistics.iter().chain(&self.locations).cloned().collect()
    }

    /// The metadata of the row group alone, with its page index.
    pub(super) fn decode(self, pieces: &[Bytes], file_bytes: u64) -> Result<ParquetMetaData> {
        let (of_statistics, of_locations) = pieces.split_at(self.statistics.len());
        let skip = PageIndexPolicy::Skip;
        let metadata =
            load(self.metadata, (PageIndexPolicy::Optional, skip), (&self.statistics, of_statistics), file_bytes)?;
        load(metadata, (skip, PageIndexPolicy::Required), (&self.locations, of_locations), file_bytes)
    }
}

/// The metadata of one row group alone, in the same Arrow schema.
pub(super) fn with_schema_of(metadata: ParquetMetaData, whole: &ArrowReaderMetadata) -> Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::clone(whole.schema()));
    Ok(ArrowReaderMetadata::try_new(Arc::new(metadata), options)?)
}

fn of_one_group(metadata: &ParquetMetaData, group: RowGroupMetaData) -> ParquetMetaData {
    ParquetMetaDataBuilder::new(metadata.file_metadata().clone()).add_row_group(group).build()
}

fn narrowed(
    chunk: &ColumnChunkMetaData,
    statistics: bool,
    locations: Option<(Option<i64>, Option<i32>)>,
) -> Result<ColumnChunkMetaData> {
    let mut builder = chunk.clone().into_builder();
    if !statistics {
        builder = builder.set_column_index_offset(None).set_column_index_length(None);
    }
    if let Some((offset, length)) = locations {
        builder = builder.set_offset_index_offset(offset).set_offset_index_length(length);
    }
    Ok(builder.build()?)
}

/// A piece of the index; `None` if there is none.
fn piece(offset: Option<i64>, length: Option<i32>, file_bytes: u64) -> Result<Option<Range<u64>>> {
    let (Some(offset), Some(length)) = (offset, length) else { return Ok(None) };
    let range = u64::try_from(offset).ok().zip(u64::try_from(length).ok());
    let range = range.and_then(|(offset, length)| Some(offset..offset.checked_add(length)?));
    let range = range.filter(|range| !range.is_empty() && range.end <= file_bytes);
    range.map(Some).ok_or_else(|| Error::corrupt("a page index is empty or lies outside its file"))
}

fn extent(ranges: &[Range<u64>]) -> Option<Range<u64>> {
    ranges.iter().cloned().reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
}

/// Decodes one half of the index from its pieces, which are put where they stand in the file.
fn load(
    metadata: ParquetMetaData,
    (columns, offsets): (PageIndexPolicy, PageIndexPolicy),
    (ranges, pieces): (&[Range<u64>], &[Bytes]),
    file_bytes: u64,
) -> Result<ParquetMetaData> {
    let Some(extent) = extent(ranges) else { return Ok(metadata) };
    let length = usize::try_from(extent.end - extent.start).unwrap_or(usize::MAX);
    let mut whole = BytesMut::zeroed(length);
    for (range, piece) in ranges.iter().zip(pieces) {
        check_struct(piece)?;
        let start = (range.start - extent.start) as usize;
        whole[start..start + piece.len()].copy_from_slice(piece);
    }
    let mut decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(file_bytes, metadata)?
        .with_column_index_policy(columns)
        .with_offset_index_policy(offsets);
    decoder.push_range(extent, whole.freeze())?;
    match decoder.try_decode()? {
        DecodeResult::Data(metadata) => Ok(metadata),
        _ => Err(Error::corrupt("a page index lies outside its column's")),
    }
}
