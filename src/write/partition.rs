//! Partition and sort: buffered batches in any order become rows in the order (bucket, key, sort columns, arrival).
//!
//! Only entries move, one per row, that say what the row is sorted by and where it lies (`sort_keys`). Each thread puts the entries of each bucket
//! of its batches side by side, in order of arrival; then each bucket is put together and sorted for itself. Rows are gathered at the end, piece
//! by piece.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::SortField;

use crate::bucket::bucket_ids;
use crate::error::Result;
use crate::footprint::{Cutter, RowSizes};
use crate::spec::BucketSpec;
use crate::task::Crew;
use crate::write::parallel::{PIECE_ROWS, split_evenly};
use crate::write::sort_keys::{Encoded, Encoding, Packed, Packing, RowRef, SortKeys, Span, is_integer};

/// Buffers of fewer rows are sorted by one thread.
const MIN_ROWS_PER_JOB: usize = 16 << 10;

/// Where rows go and in which order they stand there.
#[derive(Debug)]
pub(crate) struct Placement {
    spec: BucketSpec,
    key: Vec<usize>,
    order: Vec<usize>,
    sort_fields: Vec<SortField>,
    /// All order columns have types that can be packed.
    by_integers: bool,
}

impl Placement {
    /// Buckets by `spec` and orders by the columns at `order`; by none, rows stay in order of arrival. `schema` is canonical.
    pub(crate) fn new(schema: &SchemaRef, spec: &BucketSpec, order: &[usize]) -> Result<Self> {
        Ok(Self {
            spec: spec.clone(),
            key: spec.key_indices(schema)?,
            order: order.to_vec(),
            sort_fields: sort_fields(schema, order),
            by_integers: order.iter().all(|i| is_integer(schema.field(*i).data_type())),
        })
    }

    /// About the memory that sorting the rows of a batch takes beyond the batch, see [`SortedRows::sort`].
    pub(super) fn sorting_bytes(&self, batch: &RecordBatch) -> usize {
        const PACKED: usize = 24;
        const PACKED_WIDE: usize = 40;
        const ENCODED: usize = 48;
        let rows = batch.num_rows();
        if self.by_integers {
            return rows * if self.order.len() > 1 { PACKED_WIDE } else { PACKED };
        }
        // Of arrow-row, texts take their bytes, in blocks, and the lengths of those.
        let values = self.order.iter().map(|i| RowSizes::of(batch.column(*i)).of_rows(0..rows) as usize).sum::<usize>();
        rows * ENCODED + values + values / 4
    }

    fn bucket_ids(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        let key: Vec<ArrayRef> = self.key.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        bucket_ids(self.spec.function(), &key, self.spec.buckets())
    }
}

/// The fields of a row converter that orders as a run is ordered: ascending, nulls last.
pub(super) fn sort_fields(schema: &SchemaRef, order: &[usize]) -> Vec<SortField> {
    let ascending = SortOptions { descending: false, nulls_first: false };
    order.iter().map(|i| SortField::new_with_options(schema.field(*i).data_type().clone(), ascending)).collect()
}

/// Buffered rows in their order: by bucket, then key and sort columns, then arrival.
#[derive(Debug)]
pub(crate) struct SortedRows {
    batches: Arc<Vec<RecordBatch>>,
    sizes: Vec<RowSizes>,
    order: Vec<RowRef>,
    /// The buckets that have rows, ascending, with their ranges of `order`.
    buckets: Vec<(u32, Range<usize>)>,
    piece_bytes: u64,
}

/// Batches on their way to [`SortedRows`].
#[derive(Debug)]
struct Unsorted {
    placement: Arc<Placement>,
    batches: Arc<Vec<RecordBatch>>,
    /// Consecutive batches for each thread.
    parts: Vec<Range<usize>>,
    jobs: usize,
    crew: Crew,
    piece_bytes: u64,
}

impl SortedRows {
    /// Sorts the rows of canonical `batches`, on the threads of `crew`.
    ///
    /// Time is that of hashing and sorting. Memory beyond the batches is 8 bytes per row. While sorting it is 16 where key and position fit into 64
    /// bits, else 24, again 8 or 16 for the rows of the buckets at hand (all rows, if there is one bucket), and the encoded order columns if they are
    /// no integers or do not fit into 128 bits.
    pub(crate) async fn sort(
        placement: Arc<Placement>,
        batches: Vec<RecordBatch>,
        crew: Crew,
        piece_bytes: u64,
    ) -> Result<Self> {
        let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
        let jobs = crew.threads().min(rows.iter().sum::<usize>() / MIN_ROWS_PER_JOB).max(1);
        let parts = split_evenly(&rows, jobs);
        let unsorted = Unsorted { placement, batches: Arc::new(batches), parts, jobs, crew, piece_bytes };
        if unsorted.placement.by_integers {
            let spans = unsorted.survey(|batch, placement| Ok(Span::of_batch(batch, &placement.order))).await?;
            let packing = Packing::new(&unsorted.placement.order, &spans, &unsorted.batches);
            if let Some(keys) = Packed::<u64>::new(&packing) {
                return unsorted.sort(keys).await;
            }
            if let Some(keys) = Packed::<u128>::new(&packing) {
                return unsorted.sort(keys).await;
            }
        }
        let encode = |batch: &RecordBatch, placement: &Placement| {
            Encoding::of_batch(batch, &placement.order, &placement.sort_fields)
        };
        let keys = Encoded::new(unsorted.survey(encode).await?);
        unsorted.sort(keys).await
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.order.len()
    }

    /// The buckets that have rows, ascending.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().map(|(bucket, _)| *bucket)
    }

    /// Ranges of [`buckets`](Self::buckets) with about the same number of rows, at most `parts`.
    pub(super) fn split(&self, parts: usize) -> Vec<Range<usize>> {
        let weights: Vec<usize> = self.buckets.iter().map(|(_, range)| range.len()).collect();
        split_evenly(&weights, parts.min(self.order.len() / MIN_ROWS_PER_JOB).max(1))
    }

    /// The rows of these positions in [`buckets`](Self::buckets), in order.
    pub(crate) fn pieces(self: &Arc<Self>, buckets: Range<usize>) -> Pieces {
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

impl Unsorted {
    /// What `look` finds in each batch.
    async fn survey<T: Send + 'static>(
        &self,
        look: impl Fn(&RecordBatch, &Placement) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let (placement, batches) = (Arc::clone(&self.placement), Arc::clone(&self.batches));
        let look_at = move |part: Range<usize>| {
            batches[part].iter().map(|batch| look(batch, &placement)).collect::<Result<Vec<_>>>()
        };
        Ok(self.crew.run_all(self.parts.clone(), look_at).await?.into_iter().flatten().collect())
    }

    async fn sort<K: SortKeys>(self, keys: K) -> Result<SortedRows> {
        let Self { placement, batches, parts, jobs, crew, piece_bytes } = self;
        let keys = Arc::new(keys);
        let place = {
            let (keys, batches) = (Arc::clone(&keys), Arc::clone(&batches));
            move |part| Placed::new(keys.as_ref(), &placement, &batches, part)
        };
        let mut placed = crew.run_all(parts, place).await?;
        let sizes = placed.iter_mut().flat_map(|part| std::mem::take(&mut part.sizes)).collect();
        let placed = Arc::new(placed);

        let mut buckets = vec![];
        let mut end = 0;
        let bucket_count = placed.first().map_or(0, |part| part.ends.len());
        for bucket in 0..bucket_count {
            let start = end;
            end += placed.iter().map(|part| part.bucket(bucket).len()).sum::<usize>();
            if end > start {
                buckets.push((bucket as u32, start..end));
            }
        }

        let weights: Vec<usize> = buckets.iter().map(|(_, range)| range.len()).collect();
        let parts = split_evenly(&weights, jobs).into_iter().map(|part| buckets[part].to_vec()).collect();
        let sort = move |buckets: Vec<(u32, Range<usize>)>| {
            let mut refs = Vec::with_capacity(buckets.iter().map(|(_, range)| range.len()).sum());
            let (mut entries, mut spare) = (vec![], vec![]);
            for (bucket, _) in buckets {
                entries.clear();
                placed.iter().for_each(|part| entries.extend_from_slice(part.bucket(bucket as usize)));
                keys.sort(&mut entries, &mut spare);
                refs.extend(entries.iter().map(|entry| keys.row(*entry)));
            }
            Ok(refs)
        };
        let order = crew.run_all(parts, sort).await?.concat();
        Ok(SortedRows { batches, sizes, order, buckets, piece_bytes })
    }
}

/// The entries of some batches by bucket, in order of arrival.
struct Placed<E> {
    entries: Vec<E>,
    /// Where each bucket ends in `entries`.
    ends: Vec<usize>,
    sizes: Vec<RowSizes>,
}

impl<E: Copy + Default> Placed<E> {
    /// Places the batches of `part`.
    fn new(
        keys: &impl SortKeys<Entry = E>,
        placement: &Placement,
        batches: &[RecordBatch],
        part: Range<usize>,
    ) -> Result<Self> {
        let ids = batches[part.clone()].iter().map(|batch| placement.bucket_ids(batch)).collect::<Result<Vec<_>>>()?;
        let mut counts = vec![0_usize; placement.spec.buckets().get() as usize];
        for bucket in ids.iter().flatten() {
            counts[*bucket as usize] += 1;
        }
        let mut rows = 0;
        // Where the next row of each bucket goes; in the end, where the bucket ends.
        let mut ends = counts;
        for count in &mut ends {
            rows += std::mem::replace(count, rows);
        }
        let mut entries = vec![E::default(); rows];
        for (number, ids) in part.clone().zip(ids) {
            for (bucket, entry) in ids.into_iter().zip(keys.entries(number, &batches[number])) {
                let next = &mut ends[bucket as usize];
                entries[*next] = entry;
                *next += 1;
            }
        }
        let sizes = batches[part].iter().map(RowSizes::of_batch).collect();
        Ok(Self { entries, ends, sizes })
    }

    fn bucket(&self, bucket: usize) -> &[E] {
        let start = if bucket == 0 { 0 } else { self.ends[bucket - 1] };
        &self.entries[start..self.ends[bucket]]
    }
}

/// Sorted rows, gathered piece by piece.
///
/// A piece has rows of one bucket. Small ones are gathered together, for a gather has a cost per buffered batch that many buckets with
/// few rows each would pay again and again.
#[derive(Debug)]
pub(crate) struct Pieces {
    rows: Arc<SortedRows>,
    /// The buckets whose pieces are not cut yet, as positions.
    buckets: Range<usize>,
    /// How many rows of the first of them are gathered already.
    at: usize,
    ready: std::vec::IntoIter<(u32, RecordBatch)>,
}

impl Pieces {
    /// The next piece and its bucket.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, RecordBatch)>> {
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
