//! One row group of a run: what of it is wanted, by statistics first, by decoded keys and predicates next; the other columns are decoded only
//! where rows are left.
//!
//! ```text
//! row group statistics ─> page index ─> key columns ─> predicate columns ─> all columns of the rows that are left
//! ```
//!
//! Without a selection, the last step is the only one. The steps are those of parquet's own decoder, which is asked what it needs and is
//! given bytes; here it is told what to look for.

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ParquetRecordBatchReader, RowFilter, RowSelection,
};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::ParquetMetaData;

use crate::error::{Error, Result};
use crate::manifest::{KeyValue, key_at};
use crate::metrics::Counters;
use crate::read::page_index::{PageIndexRequest, with_schema_of};
use crate::read::verify::Verification;
use crate::read::{Adapt, RunReader};
use crate::select::{ColumnStatistics, Coverage, KeyRange, conjuncts, may_hold, order_matcher};
use crate::task::guard;

/// A decoded batch has about this many bytes at most: rows with large values, such as the maps of partials, come in smaller batches. Above what a
/// batch of the default size has of 256 bytes per row, so that ordinary rows are not concerned.
const BATCH_BYTES: u64 = 2 << 20;

/// Columns that rows are chosen by and that are returned as well are kept decoded up to this many bytes, else decoded again.
const PREDICATE_CACHE_BYTES: usize = 8 << 20;

/// What a decoded value takes at least, about.
const VALUE_BYTES: u64 = 8;

/// The decoder of a row group's rows, given bytes whenever it asks for them.
pub(super) struct RowGroup {
    decoder: ParquetPushDecoder,
    batches: Option<ParquetRecordBatchReader>,
    /// Rows that are still to come: exactly so many, or at most if there is a selection.
    left: u64,
    /// Whether all rows of the row group come.
    pub(super) whole: bool,
    /// Why a step that parquet runs for us failed: it knows errors of arrow only.
    failure: Failure,
    file_bytes: u64,
}

type Failure = Arc<Mutex<Option<Error>>>;

/// Chooses among the rows of a batch.
type Passes = Box<dyn FnMut(&RecordBatch) -> Result<BooleanBuffer> + Send>;

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowGroup").field("left", &self.left).field("whole", &self.whole).finish_non_exhaustive()
    }
}

/// What a row group does next.
#[derive(Debug)]
pub(super) enum Progress {
    /// It must be given these ranges of the file.
    Needs(Vec<Range<u64>>),
    Batch(RecordBatch),
    Done,
}

impl RowGroup {
    /// How many rows are still to come, at most.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Gives it the first bytes that it asks for.
    pub(super) async fn begin<F, O>(&mut self, fetch: F) -> Result<()>
    where
        F: FnOnce(Vec<Range<u64>>) -> O,
        O: Future<Output = Result<(Vec<Range<u64>>, Vec<Bytes>)>>,
    {
        debug_assert!(self.batches.is_none(), "a row group begins once");
        match guard(|| Ok(self.decoder.try_next_reader()?))? {
            DecodeResult::NeedsData(ranges) => {
                self.check_ranges(&ranges)?;
                let (ranges, bytes) = fetch(ranges).await?;
                self.push(ranges, bytes)
            }
            DecodeResult::Data(batches) => {
                self.batches = Some(batches);
                Ok(())
            }
            DecodeResult::Finished => Ok(()),
        }
    }

    fn check_ranges(&self, ranges: &[Range<u64>]) -> Result<()> {
        // Stores refuse to read nothing.
        if ranges.iter().any(|range| range.is_empty() || range.end > self.file_bytes) {
            return Err(Error::corrupt("a page is empty or lies outside its file"));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, ranges: Vec<Range<u64>>, bytes: Vec<Bytes>) -> Result<()> {
        guard(|| Ok(self.decoder.push_ranges(ranges, bytes)?))
    }

    pub(super) fn step(&mut self) -> Result<Progress> {
        let next = guard(|| self.decode()).map_err(|e| self.reason().unwrap_or(e))?;
        match &next {
            Progress::Batch(batch) => {
                let rows = batch.num_rows() as u64;
                let left = self.left.checked_sub(rows);
                self.left = left.ok_or_else(|| Error::corrupt("a row group has more rows than its metadata says"))?;
            }
            Progress::Done if self.whole && self.left > 0 => {
                return Err(Error::corrupt("a row group has fewer rows than its metadata says"));
            }
            Progress::Done => {}
            Progress::Needs(ranges) => self.check_ranges(ranges)?,
        }
        Ok(next)
    }

    fn decode(&mut self) -> Result<Progress> {
        loop {
            if let Some(batches) = &mut self.batches {
                return match batches.next().transpose() {
                    Ok(Some(batch)) => Ok(Progress::Batch(batch)),
                    Ok(None) => Ok(Progress::Done),
                    Err(e) => Err(Error::corrupt("a run could not be decoded").with_source(e)),
                };
            }
            match self.decoder.try_next_reader()? {
                DecodeResult::Data(batches) => self.batches = Some(batches),
                DecodeResult::Finished => return Ok(Progress::Done),
                DecodeResult::NeedsData(ranges) => return Ok(Progress::Needs(ranges)),
            }
        }
    }

    fn reason(&self) -> Option<Error> {
        self.failure.lock().ok()?.take()
    }
}

/// What comes of a row group at first sight.
pub(super) enum Beginning {
    /// Nothing of it is wanted.
    Nothing,
    Rows(Box<RowGroup>),
    /// Its page index is needed first.
    PageIndex(Box<Planning>),
}

/// A row group between its statistics and its page index.
pub(super) struct Planning {
    pub(super) request: PageIndexRequest,
    statistics: Vec<(String, ColumnStatistics)>,
    keys_decided: bool,
}

/// Looks at the statistics of a row group.
pub(super) fn begin(reader: &RunReader, metadata: &ArrowReaderMetadata, row_group: usize) -> Result<Beginning> {
    check_chunks(reader, metadata, row_group)?;
    if reader.selection.is_all() {
        return Ok(Beginning::Rows(Box::new(decoder(reader, metadata, row_group, None, Filters::default())?)));
    }
    let group = Group { reader, metadata, row_group };
    let statistics = group.statistics()?;
    let (wanted, keys_decided) = group.wanted(&statistics)?;
    if !wanted {
        reader.counters.row_groups_pruned.add(1);
        return Ok(Beginning::Nothing);
    }
    if keys_decided && reader.selection.filter.is_none() {
        return Ok(Beginning::Rows(Box::new(decoder(reader, metadata, row_group, None, Filters::default())?)));
    }
    let schema = metadata.parquet_schema();
    let chosen: Vec<usize> = statistics.iter().filter_map(|(name, _)| group.leaf(name)).collect();
    let read = ProjectionMask::roots(schema, group.read_columns());
    let request = PageIndexRequest::new(
        metadata.metadata(),
        row_group,
        |leaf| chosen.contains(&leaf),
        |leaf| read.leaf_included(leaf),
        reader.run.bytes,
    )?;
    match request {
        Some(request) => Ok(Beginning::PageIndex(Box::new(Planning { request, statistics, keys_decided }))),
        None => {
            let filters = filters(reader, metadata, &statistics, keys_decided)?;
            Ok(Beginning::Rows(Box::new(decoder(reader, metadata, row_group, None, filters)?)))
        }
    }
}

impl Planning {
    /// Chooses pages, now that their index is here. `None` if none is wanted.
    pub(super) fn finish(
        self,
        reader: &RunReader,
        whole: &ArrowReaderMetadata,
        pieces: &[Bytes],
    ) -> Result<Option<RowGroup>> {
        let metadata = with_schema_of(self.request.decode(pieces, reader.run.bytes)?, whole)?;
        let group = Group { reader, metadata: &metadata, row_group: 0 };
        let rows = group.rows();
        let selection = group.pages(self.keys_decided)?;
        if let Some(selection) = &selection {
            reader.counters.rows_pruned.add((rows.saturating_sub(selection.row_count())) as u64);
            if !selection.selects_any() {
                return Ok(None);
            }
        }
        let filters = filters(reader, &metadata, &self.statistics, self.keys_decided)?;
        Ok(Some(decoder(reader, &metadata, 0, selection, filters)?))
    }
}

/// The steps that choose rows by decoded columns, and where they say why they failed.
#[derive(Default)]
struct Filters {
    steps: Vec<Box<dyn ArrowPredicate>>,
    failure: Failure,
}

/// A decoder of the rows of a row group that a selection by pages and filters leave.
fn decoder(
    reader: &RunReader,
    metadata: &ArrowReaderMetadata,
    row_group: usize,
    selection: Option<RowSelection>,
    filters: Filters,
) -> Result<RowGroup> {
    let Filters { steps, failure } = filters;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), reader.adapt.projection().iter().copied());
    let rows = metadata.metadata().row_group(row_group).num_rows() as u64;
    // Columns that rows are chosen by are decoded in batches of the same size.
    let group = Group { reader, metadata, row_group };
    let read = ProjectionMask::roots(metadata.parquet_schema(), group.read_columns());
    let batch_size = batch_rows(metadata.metadata(), &read, row_group, reader.batch_size);
    let whole = selection.is_none() && steps.is_empty();
    let left = selection.as_ref().map_or(rows, |selection| selection.row_count() as u64);
    let mut builder = ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
        .with_row_groups(vec![row_group])
        .with_projection(mask)
        .with_max_predicate_cache_size(PREDICATE_CACHE_BYTES)
        .with_batch_size(batch_size);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    if !steps.is_empty() {
        builder = builder.with_row_filter(RowFilter::new(steps));
    }
    let decoder = builder.build()?;
    reader.counters.row_groups.add(1);
    Ok(RowGroup { decoder, batches: None, left, whole, failure, file_bytes: reader.run.bytes })
}

/// The column chunks that are read lie in the file: parquet panics on some that do not.
fn check_chunks(reader: &RunReader, metadata: &ArrowReaderMetadata, row_group: usize) -> Result<()> {
    let mask = ProjectionMask::roots(metadata.parquet_schema(), Group { reader, metadata, row_group }.read_columns());
    let columns = metadata.metadata().row_group(row_group).columns().iter().enumerate();
    for (_, chunk) in columns.filter(|(leaf, _)| mask.leaf_included(*leaf)) {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
        let end = range.and_then(|(start, length)| start.checked_add(length));
        if end.is_none_or(|end| end > reader.run.bytes) {
            return Err(Error::corrupt("a column chunk lies outside its file"));
        }
    }
    Ok(())
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

/// A row group seen by its statistics.
struct Group<'a> {
    reader: &'a RunReader,
    metadata: &'a ArrowReaderMetadata,
    row_group: usize,
}

impl Group<'_> {
    fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().row_group(self.row_group).num_rows()).unwrap_or(0)
    }

    /// The positions of all columns that are read, for rows or for choosing them.
    fn read_columns(&self) -> Vec<usize> {
        let RunReader { adapt, key_adapt, filter_adapt, selection, .. } = self.reader;
        let mut columns = adapt.projection().to_vec();
        if !selection.is_all() {
            columns.extend_from_slice(key_adapt.projection());
            columns.extend(filter_adapt.iter().flat_map(|adapt| adapt.projection()));
        }
        columns
    }

    /// The columns that rows are chosen by, in the types of the source.
    fn chosen_by(&self) -> Vec<&Field> {
        let selection = &self.reader.selection;
        let mut fields: Vec<&Field> = vec![];
        if selection.keys.is_some() || !selection.range.is_all() {
            fields.push(self.reader.key_adapt.schema().field(0));
        }
        for field in selection.filter.iter().flat_map(|filter| filter.schema.fields()) {
            if fields.iter().all(|known| known.name() != field.name()) {
                fields.push(field);
            }
        }
        fields
    }

    fn converter(&self, column: &str) -> Result<Option<StatisticsConverter<'_>>> {
        let (schema, parquet) = (self.metadata.schema(), self.metadata.parquet_schema());
        match schema.field_with_name(column) {
            Ok(field) if !field.data_type().is_nested() => {
                Ok(Some(StatisticsConverter::try_new(column, schema, parquet)?.with_missing_null_counts_as_zero(false)))
            }
            _ => Ok(None),
        }
    }

    fn leaf(&self, column: &str) -> Option<usize> {
        self.converter(column).ok()??.parquet_column_index()
    }

    /// The statistics of the row group, of the columns that rows are chosen by.
    fn statistics(&self) -> Result<Vec<(String, ColumnStatistics)>> {
        let group = self.metadata.metadata().row_group(self.row_group);
        let mut all = vec![];
        for field in self.chosen_by() {
            let Some(converter) = self.converter(field.name())? else { continue };
            let rows = vec![u64::try_from(group.num_rows()).unwrap_or(0)];
            let (least, greatest) = (converter.row_group_mins([group])?, converter.row_group_maxes([group])?);
            let nulls = converter.row_group_null_counts([group])?;
            all.push((field.name().clone(), column_statistics(field, least, greatest, nulls, rows)?));
        }
        Ok(all)
    }

    /// Whether some row may be wanted, and whether all rows have wanted keys.
    fn wanted(&self, statistics: &[(String, ColumnStatistics)]) -> Result<(bool, bool)> {
        let selection = &self.reader.selection;
        let mut decided = true;
        if selection.keys.is_some() || !selection.range.is_all() {
            let keys = self.reader.key_adapt.schema().field(0).name();
            match find(statistics, keys) {
                None => decided = false,
                Some(found) => {
                    match coverage(&selection.range, found, 0)? {
                        Coverage::Nothing => return Ok((false, false)),
                        Coverage::Something => decided = false,
                        Coverage::Everything => {}
                    }
                    if let Some(keys) = &selection.keys {
                        decided = false;
                        if !keys.may_be_within(&found.least, &found.greatest)?.value(0) {
                            return Ok((false, false));
                        }
                    }
                }
            }
        }
        if let Some(filter) = &selection.filter
            && !may_hold(&filter.predicate, true, 1, &|column| find(statistics, column))?.value(0)
        {
            return Ok((false, decided));
        }
        Ok((true, decided))
    }

    /// The pages that may have wanted rows, as rows; `None` if that is all or unknown.
    fn pages(&self, keys_decided: bool) -> Result<Option<RowSelection>> {
        let metadata = self.metadata.metadata();
        let (Some(columns), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) else {
            return Ok(None);
        };
        let selection = &self.reader.selection;
        let key = self.reader.key_adapt.schema().field(0).name();
        let mut rows: Option<RowSelection> = None;
        for field in self.chosen_by() {
            let Some(converter) = self.converter(field.name())? else { continue };
            let Some(leaf) = converter.parquet_column_index() else { continue };
            let starts = self.page_starts(offsets[0][leaf].page_locations().iter().map(|page| page.first_row_index))?;
            let lengths = starts.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect();
            let least = converter.data_page_mins(columns, offsets, &[0])?;
            let greatest = converter.data_page_maxes(columns, offsets, &[0])?;
            let nulls = converter.data_page_null_counts(columns, offsets, &[0])?;
            let pages = column_statistics(field, least, greatest, nulls, lengths)?;
            let count = pages.rows.len();
            let mut wanted = BooleanBuffer::new_set(count);
            if field.name() == key && !keys_decided {
                let in_range =
                    (0..count).map(|page| Ok(coverage(&selection.range, &pages, page)? != Coverage::Nothing));
                wanted = &wanted & &in_range.collect::<Result<Vec<bool>>>()?.into();
                if let Some(keys) = &selection.keys {
                    wanted = &wanted & &keys.may_be_within(&pages.least, &pages.greatest)?;
                }
            }
            let of_filter = selection.filter.iter().flat_map(|filter| conjuncts(&filter.predicate));
            for conjunct in of_filter.filter(|conjunct| conjunct.columns().iter().eq([field.name()])) {
                let found = |column: &str| (column == field.name()).then_some(&pages);
                wanted = &wanted & &may_hold(conjunct, true, count, &found)?;
            }
            if wanted.count_set_bits() < count {
                let ranges = wanted.set_slices().map(|(start, end)| starts[start]..starts[end]);
                let of_column = RowSelection::from_consecutive_ranges(ranges, self.rows());
                rows = Some(rows.map_or(of_column.clone(), |rows| rows.intersection(&of_column)));
            }
        }
        Ok(rows)
    }

    /// Where pages begin, and the end of the last.
    fn page_starts(&self, first_rows: impl Iterator<Item = i64>) -> Result<Vec<usize>> {
        let mut starts = first_rows.map(usize::try_from).collect::<Result<Vec<_>, _>>().unwrap_or_default();
        starts.push(self.rows());
        if starts[0] != 0 || !starts.is_sorted_by(|a, b| a < b) {
            return Err(Error::corrupt("a page index does not divide its row group into pages"));
        }
        Ok(starts)
    }
}

fn find<'a>(statistics: &'a [(String, ColumnStatistics)], column: &str) -> Option<&'a ColumnStatistics> {
    statistics.iter().find(|(name, _)| name == column).map(|(_, found)| found)
}

/// Statistics in the type of the source's column, held to their form.
fn column_statistics(
    field: &Field,
    least: ArrayRef,
    greatest: ArrayRef,
    nulls: UInt64Array,
    rows: Vec<u64>,
) -> Result<ColumnStatistics> {
    let too_many = |piece: usize| nulls.is_valid(piece) && nulls.value(piece) > rows[piece];
    if [least.len(), greatest.len(), nulls.len()] != [rows.len(); 3] || (0..rows.len()).any(too_many) {
        return Err(Error::corrupt(format!("statistics do not fit what they are of, column=`{}`", field.name())));
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let least = cast_with_options(&least, field.data_type(), &options)?;
    let greatest = cast_with_options(&greatest, field.data_type(), &options)?;
    Ok(ColumnStatistics { least, greatest, nulls, rows })
}

/// How much of a stretch lies in a key range; null is the greatest key.
fn coverage(range: &KeyRange, key: &ColumnStatistics, stretch: usize) -> Result<Coverage> {
    let value = |bound: &ArrayRef| -> Result<Option<KeyValue>> {
        Ok(key_at(std::slice::from_ref(bound), stretch)?.pop().filter(|value| *value != KeyValue::Null))
    };
    let all_null = key.nulls.is_valid(stretch) && key.nulls.value(stretch) >= key.rows[stretch];
    let no_null = key.nulls.is_valid(stretch) && key.nulls.value(stretch) == 0;
    let least = if all_null { Some(KeyValue::Null) } else { value(&key.least)? };
    let greatest = if no_null { value(&key.greatest)? } else { Some(KeyValue::Null) };
    Ok(range.covers(least, greatest))
}

/// The steps that choose rows by decoded columns.
fn filters(
    reader: &RunReader,
    metadata: &ArrowReaderMetadata,
    statistics: &[(String, ColumnStatistics)],
    keys_decided: bool,
) -> Result<Filters> {
    let failure = Failure::default();
    let statistics: Arc<[(String, ColumnStatistics)]> = statistics.into();
    let mut steps: Vec<Box<dyn ArrowPredicate>> = vec![];
    let mask = |adapt: &Adapt| ProjectionMask::roots(metadata.parquet_schema(), adapt.projection().iter().copied());
    let mut add = |adapt: &Arc<Adapt>, mut passes: Passes| {
        let (adapt, failure, counters) = (Arc::clone(adapt), Arc::clone(&failure), Arc::clone(&reader.counters));
        let bounds = Arc::clone(&statistics);
        steps.push(Box::new(ArrowPredicateFn::new(mask(&adapt), move |batch: RecordBatch| {
            let rows = batch.num_rows();
            let outcome = adapt.apply(batch).and_then(|batch| {
                check_within(&batch, &bounds)?;
                passes(&batch)
            });
            outcome
                .map(|passed| {
                    note(&counters, rows, &passed);
                    BooleanArray::new(passed, None)
                })
                .map_err(|e| {
                    if let Ok(mut failure) = failure.lock() {
                        *failure = Some(e);
                    }
                    ArrowError::ComputeError("rows could not be chosen".to_owned())
                })
        })));
    };
    let selection = &reader.selection;
    if !keys_decided {
        let label: Arc<str> = reader.path().as_ref().into();
        let types: Vec<DataType> =
            reader.key_adapt.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let mut matcher = match &selection.keys {
            Some(keys) => keys.matcher(label),
            None => order_matcher(&types, label)?,
        };
        let range = selection.range.clone();
        let path = reader.path();
        // Those that are left are hashed once more when they are delivered: few, and without another case.
        let placement = (reader.verification >= Verification::Keys).then(|| reader.placement());
        let passes = move |batch: &RecordBatch| {
            placement.map_or(Ok(()), |placement| placement.check(batch.columns(), None))?;
            // Which row of the file it is is not known: pages were left out.
            let found = matcher.matches(batch.columns()).map_err(|e| e.relocated(&path, None))?;
            if range.is_all() {
                return Ok(found);
            }
            let rows = range.rows_of(batch.columns())?;
            Ok(&found & &BooleanBuffer::collect_bool(batch.num_rows(), |row| rows.contains(&row)))
        };
        add(&reader.key_adapt, Box::new(passes));
    }
    if let (Some(filter), Some(adapt)) = (&selection.filter, &reader.filter_adapt) {
        let filter = Arc::clone(filter);
        add(adapt, Box::new(move |batch| filter.passes(batch)));
    }
    Ok(Filters { steps, failure })
}

fn note(counters: &Counters, rows: usize, passed: &BooleanBuffer) {
    counters.rows_filtered.add((rows - passed.count_set_bits()) as u64);
}

/// Statistics by which something was left out must hold for what is there.
fn check_within(batch: &RecordBatch, statistics: &[(String, ColumnStatistics)]) -> Result<()> {
    for (name, found) in statistics {
        let Some(column) = batch.column_by_name(name) else { continue };
        let nulls = found.nulls.is_valid(0) && found.nulls.value(0) == 0 && column.null_count() > 0;
        if nulls {
            return Err(outside_statistics(name));
        }
        if column.data_type().is_floating() || column.data_type().is_nested() {
            continue;
        }
        let (least, greatest) = (Scalar::new(Arc::clone(&found.least)), Scalar::new(Arc::clone(&found.greatest)));
        let outside = |mask: BooleanArray| mask.true_count() > 0;
        if outside(lt(column, &least)?) || outside(gt(column, &greatest)?) {
            return Err(outside_statistics(name));
        }
    }
    Ok(())
}

fn outside_statistics(column: &str) -> Error {
    Error::corrupt(format!(
        "a value lies outside the statistics of its row group, by which readers skip rows, column=`{column}`"
    ))
}
