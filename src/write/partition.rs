//! Partition and sort: buffered batches in any order become rows in the order (bucket, key, sort columns, arrival).
//!
//! Only references to rows move: bucket ids are computed per batch, a counting partition puts the references of each bucket side by
//! side in order of arrival, and each bucket is sorted for itself. Rows are gathered at the end, piece by piece.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::{ArrowNativeType, DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use crate::bucket::bucket_ids;
use crate::error::Result;
use crate::footprint::{Cutter, RowSizes};
use crate::spec::BucketSpec;
use crate::write::parallel::{PIECE_ROWS, in_parallel, split_evenly};

/// Buffers of fewer rows are sorted by one thread.
const MIN_ROWS_PER_JOB: usize = 16 << 10;

/// Where rows go and in which order they stand there.
#[derive(Debug)]
pub(super) struct Placement {
    spec: BucketSpec,
    key: Vec<usize>,
    order: Vec<usize>,
    sort_fields: Vec<SortField>,
    /// The order is that of one integer, date or timestamp column.
    by_integer: bool,
}

impl Placement {
    /// `schema` is canonical.
    pub(super) fn new(schema: &SchemaRef, spec: &BucketSpec) -> Result<Self> {
        let order = spec.order_indices(schema)?;
        let by_integer = matches!(order.as_slice(), [only] if is_integer(schema.field(*only).data_type()));
        Ok(Self {
            spec: spec.clone(),
            key: spec.key_indices(schema)?,
            sort_fields: sort_fields(schema, &order),
            order,
            by_integer,
        })
    }

    fn place(&self, batch: &RecordBatch) -> Result<Placed> {
        let columns =
            |indices: &[usize]| indices.iter().map(|i| Arc::clone(batch.column(*i))).collect::<Vec<ArrayRef>>();
        let buckets = bucket_ids(self.spec.function(), &columns(&self.key), self.spec.buckets())?;
        let keys = if self.by_integer {
            let column = batch.column(self.order[0]);
            Keys::Integers(integers(column), column.nulls().filter(|n| n.null_count() > 0).cloned())
        } else {
            Keys::Rows(RowConverter::new(self.sort_fields.clone())?.convert_columns(&columns(&self.order))?)
        };
        Ok(Placed { buckets, keys, sizes: RowSizes::of_batch(batch) })
    }
}

/// The fields of a row converter that orders as a run is ordered: ascending, nulls last.
pub(super) fn sort_fields(schema: &SchemaRef, order: &[usize]) -> Vec<SortField> {
    let ascending = SortOptions { descending: false, nulls_first: false };
    order.iter().map(|i| SortField::new_with_options(schema.field(*i).data_type().clone(), ascending)).collect()
}

/// What is known of a batch's rows.
struct Placed {
    buckets: Vec<u32>,
    keys: Keys,
    sizes: RowSizes,
}

/// The order of a batch's rows in comparable form.
enum Keys {
    /// Values that order as the column does; meaningless where the column is null.
    Integers(ScalarBuffer<i64>, Option<NullBuffer>),
    Rows(Rows),
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Date32 | DataType::Timestamp(_, _))
}

/// The values of an integer, date or timestamp column as `i64` of the same order.
fn integers(column: &ArrayRef) -> ScalarBuffer<i64> {
    fn widen<T: ArrowNativeType>(column: &ArrayRef, to: impl Fn(T) -> i64) -> ScalarBuffer<i64> {
        native::<T>(column).iter().map(|v| to(*v)).collect()
    }
    fn native<T: ArrowNativeType>(column: &ArrayRef) -> ScalarBuffer<T> {
        let data = column.to_data();
        ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
    }
    match column.data_type() {
        DataType::Int8 => widen::<i8>(column, i64::from),
        DataType::Int16 => widen::<i16>(column, i64::from),
        DataType::Int32 | DataType::Date32 => widen::<i32>(column, i64::from),
        DataType::UInt8 => widen::<u8>(column, i64::from),
        DataType::UInt16 => widen::<u16>(column, i64::from),
        DataType::UInt32 => widen::<u32>(column, i64::from),
        // Flipping the top bit maps unsigned order onto signed order.
        DataType::UInt64 => widen::<u64>(column, |v| (v ^ (1 << 63)) as i64),
        _ => native::<i64>(column),
    }
}

/// A row of the buffer.
#[derive(Debug, Clone, Copy, Default)]
struct RowRef {
    batch: u32,
    row: u32,
}

/// Buffered rows in their order: by bucket, then key and sort columns, then arrival.
#[derive(Debug)]
pub(super) struct SortedRows {
    batches: Vec<RecordBatch>,
    sizes: Vec<RowSizes>,
    order: Vec<RowRef>,
    /// The buckets that have rows, ascending, with their ranges of `order`.
    buckets: Vec<(u32, Range<usize>)>,
    piece_bytes: u64,
}

impl SortedRows {
    /// Sorts the rows of canonical `batches`, with up to `jobs` threads.
    ///
    /// Time is that of hashing and sorting; memory beyond the batches is 8 bytes per row, and while sorting 24 for an integer key, else
    /// 32 and the encoded order columns.
    pub(super) async fn sort(
        placement: Arc<Placement>,
        batches: Vec<RecordBatch>,
        jobs: usize,
        piece_bytes: u64,
    ) -> Result<Self> {
        let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
        let jobs = jobs.min(rows.iter().sum::<usize>() / MIN_ROWS_PER_JOB).max(1);

        let parts = split_evenly(&rows, jobs).into_iter().map(|range| batches[range].to_vec()).collect();
        let place = {
            let placement = Arc::clone(&placement);
            move |part: Vec<RecordBatch>| part.iter().map(|batch| placement.place(batch)).collect::<Result<Vec<_>>>()
        };
        let placed: Arc<Vec<Placed>> = Arc::new(in_parallel(parts, place).await?.into_iter().flatten().collect());

        let bucket_count = placement.spec.buckets().get() as usize;
        let (refs, buckets) = {
            let placed = Arc::clone(&placed);
            crate::task::spawn_blocking(move || Ok(partition(&placed, bucket_count))).await?
        };

        let weights: Vec<usize> = buckets.iter().map(|(_, range)| range.len()).collect();
        let parts = split_evenly(&weights, jobs)
            .into_iter()
            .map(|part| {
                let buckets = buckets[part].to_vec();
                let rows = buckets[0].1.start..buckets[buckets.len() - 1].1.end;
                (refs[rows].to_vec(), buckets)
            })
            .collect();
        drop(refs);
        let sort = {
            let placed = Arc::clone(&placed);
            move |(mut refs, buckets): (Vec<RowRef>, Vec<(u32, Range<usize>)>)| {
                let start = buckets[0].1.start;
                for (_, range) in buckets {
                    sort_bucket(&placed, &mut refs[range.start - start..range.end - start]);
                }
                Ok(refs)
            }
        };
        let order = in_parallel(parts, sort).await?.concat();
        let sizes = match Arc::try_unwrap(placed) {
            Ok(placed) => placed.into_iter().map(|p| p.sizes).collect(),
            Err(placed) => placed.iter().map(|p| p.sizes.clone()).collect(),
        };
        Ok(Self { batches, sizes, order, buckets, piece_bytes })
    }

    /// The buckets that have rows, ascending.
    pub(super) fn buckets(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().map(|(bucket, _)| *bucket)
    }

    /// Ranges of [`buckets`](Self::buckets) with about the same number of rows, at most `parts`.
    pub(super) fn split(&self, parts: usize) -> Vec<Range<usize>> {
        let weights: Vec<usize> = self.buckets.iter().map(|(_, range)| range.len()).collect();
        split_evenly(&weights, parts.min(self.order.len() / MIN_ROWS_PER_JOB).max(1))
    }

    /// The rows of these positions in [`buckets`](Self::buckets), in order.
    pub(super) fn pieces(self: &Arc<Self>, buckets: Range<usize>) -> Pieces {
        Pieces { rows: Arc::clone(self), buckets, at: 0, ready: vec![].into_iter() }
    }

    /// The rows of one bucket, in order.
    pub(super) fn bucket(self: &Arc<Self>, bucket: u32) -> Pieces {
        let buckets = match self.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(i) => i..i + 1,
            Err(_) => 0..0,
        };
        self.pieces(buckets)
    }

    fn gather(&self, refs: &[RowRef]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let indices: Vec<(usize, usize)> = refs.iter().map(|r| (r.batch as usize, r.row as usize)).collect();
        Ok(interleave_record_batch(&batches, &indices)?)
    }
}

/// Puts the rows of each bucket side by side, in order of arrival.
fn partition(placed: &[Placed], bucket_count: usize) -> (Vec<RowRef>, Vec<(u32, Range<usize>)>) {
    let mut counts = vec![0_usize; bucket_count];
    for bucket in placed.iter().flat_map(|p| &p.buckets) {
        counts[*bucket as usize] += 1;
    }
    let mut buckets = vec![];
    let mut next = vec![0_usize; bucket_count];
    let mut end = 0;
    for (bucket, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        next[bucket] = end;
        buckets.push((bucket as u32, end..end + count));
        end += count;
    }
    let mut refs = vec![RowRef::default(); end];
    for (batch, placed) in placed.iter().enumerate() {
        for (row, bucket) in placed.buckets.iter().enumerate() {
            let slot = &mut next[*bucket as usize];
            refs[*slot] = RowRef { batch: batch as u32, row: row as u32 };
            *slot += 1;
        }
    }
    (refs, buckets)
}

/// Sorts the rows of one bucket by their keys; those of equal keys stay in order of arrival.
fn sort_bucket(placed: &[Placed], refs: &mut [RowRef]) {
    let sorted: Vec<RowRef> = match &placed[0].keys {
        Keys::Integers(_, _) => {
            let mut values = Vec::with_capacity(refs.len());
            let mut nulls = vec![];
            for (i, r) in refs.iter().enumerate() {
                match &placed[r.batch as usize].keys {
                    Keys::Integers(_, Some(valid)) if valid.is_null(r.row as usize) => nulls.push(*r),
                    Keys::Integers(keys, _) => values.push((keys[r.row as usize], i as u32)),
                    Keys::Rows(_) => {}
                }
            }
            values.sort_unstable();
            values.into_iter().map(|(_, i)| refs[i as usize]).chain(nulls).collect()
        }
        Keys::Rows(_) => {
            let row = |r: &RowRef| match &placed[r.batch as usize].keys {
                Keys::Rows(rows) => rows.row(r.row as usize).data(),
                Keys::Integers(_, _) => &[],
            };
            // The first bytes settle most comparisons without a visit to the rows. Padding with zeros never contradicts their order.
            let prefix = |bytes: &[u8]| {
                let mut padded = [0; 8];
                let len = bytes.len().min(8);
                padded[..len].copy_from_slice(&bytes[..len]);
                u64::from_be_bytes(padded)
            };
            let mut keys: Vec<(u64, u32)> = refs.iter().enumerate().map(|(i, r)| (prefix(row(r)), i as u32)).collect();
            keys.sort_unstable_by(|a, b| {
                let rows = || row(&refs[a.1 as usize]).cmp(row(&refs[b.1 as usize]));
                a.0.cmp(&b.0).then_with(rows).then_with(|| a.1.cmp(&b.1))
            });
            keys.into_iter().map(|(_, i)| refs[i as usize]).collect()
        }
    };
    refs.copy_from_slice(&sorted);
}

/// Sorted rows, gathered piece by piece.
///
/// A piece has rows of one bucket. Small ones are gathered together, for a gather has a cost per buffered batch that many buckets with
/// few rows each would pay again and again.
#[derive(Debug)]
pub(super) struct Pieces {
    rows: Arc<SortedRows>,
    /// The buckets whose pieces are not cut yet, as positions.
    buckets: Range<usize>,
    /// How many rows of the first of them are gathered already.
    at: usize,
    ready: std::vec::IntoIter<(u32, RecordBatch)>,
}

impl Pieces {
    /// The next piece and its bucket.
    pub(super) fn next(&mut self) -> Result<Option<(u32, RecordBatch)>> {
        loop {
            if let Some(piece) = self.ready.next() {
                return Ok(Some(piece));
            }
            if self.buckets.is_empty() {
                return Ok(None);
            }
            self.ready = self.gather()?.into_iter();
        }
    }

    fn gather(&mut self) -> Result<Vec<(u32, RecordBatch)>> {
        let rows = Arc::clone(&self.rows);
        let start = rows.buckets[self.buckets.start].1.start + self.at;
        let mut together = Cutter::new(PIECE_ROWS, rows.piece_bytes);
        let mut pieces = vec![];
        let mut end = start;
        let mut full = false;
        while !full && !self.buckets.is_empty() {
            let (bucket, range) = &rows.buckets[self.buckets.start];
            let begin = range.start + self.at;
            let cut = rows.order[begin..range.end]
                .iter()
                .position(|r| together.push(rows.sizes[r.batch as usize].row(r.row as usize)));
            full = cut.is_some();
            end = cut.map_or(range.end, |at| begin + at + 1);
            pieces.push((*bucket, end - begin));
            if end == range.end {
                self.buckets.start += 1;
                self.at = 0;
            } else {
                self.at = end - range.start;
            }
        }
        let gathered = rows.gather(&rows.order[start..end])?;
        let mut offset = 0;
        let slice = |(bucket, rows)| {
            offset += rows;
            (bucket, gathered.slice(offset - rows, rows))
        };
        Ok(pieces.into_iter().map(slice).collect())
    }
}
