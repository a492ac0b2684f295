//! What a selective read costs, whoever asks for it: the rows of some order keys out of lineitem, by parquet's own reader and the page index.
//!
//! Which rows those are is found first, from the keys; that is not counted. What is left depends on how the runs are laid out.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::PageIndexPolicy;
use sort_merge_bucket::DEFAULT_BATCH_SIZE;

use crate::Failure;
use crate::question::{Answer, Question};
use crate::reduce::{Reduce, Reduced};

/// One number and one text.
const PAYLOAD: [&str; 2] = ["l_extendedprice", "l_comment"];

/// A run with the rows that are wanted of it.
pub(crate) type Wanted<'a> = (&'a PathBuf, ArrowReaderMetadata, RowSelection);

/// Finds the lines of one in `every` order keys.
pub(crate) fn find(runs: &[PathBuf], every: u64) -> Result<Vec<Wanted<'_>>, Failure> {
    runs.iter().map(|path| find_in(path, every)).collect()
}

fn find_in(path: &PathBuf, every: u64) -> Result<Wanted<'_>, Failure> {
    let file = File::open(path)?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&file, options)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["l_orderkey"]);
    let mut found: Vec<BooleanArray> = vec![];
    for batch in builder.with_projection(mask).with_batch_size(DEFAULT_BATCH_SIZE).build()? {
        let batch = batch?;
        let keys = batch.column(0).as_primitive::<Int64Type>().values();
        // Spread, for keys of one bucket have much in common.
        let wanted = |key: &i64| ((*key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(every);
        found.push(keys.iter().map(|key| Some(wanted(key))).collect());
    }
    Ok((path, metadata, RowSelection::from_filters(&found)))
}

/// Reads and reduces the payload of the wanted rows.
pub(crate) fn read(wanted: &[Wanted<'_>], threads: NonZeroUsize) -> Result<Answer, Failure> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Option<Reduced>, Failure> {
        let mut reduced = None;
        while let Some((path, metadata, selection)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            read_from(path, metadata, selection, &mut reduced)?;
        }
        Ok(reduced)
    };
    let mut total: Option<Reduced> = None;
    std::thread::scope(|scope| -> Result<(), Failure> {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let reduced = worker.join().map_err(|_| "a reading thread panicked")??;
            match (total.as_mut(), reduced) {
                (Some(total), Some(reduced)) => total.merge(reduced),
                (None, reduced) => total = reduced,
                (Some(_), None) => {}
            }
        }
        Ok(())
    })?;
    let total = total.ok_or("no row is wanted")?;
    let mut answer = total.answer();
    answer.insert("rows".into(), total.rows.to_string());
    Ok(answer)
}

fn read_from(
    path: &Path,
    metadata: &ArrowReaderMetadata,
    selection: &RowSelection,
    reduced: &mut Option<Reduced>,
) -> Result<(), Failure> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(path)?, metadata.clone());
    let mask = ProjectionMask::columns(builder.parquet_schema(), PAYLOAD);
    let reader = builder.with_projection(mask).with_row_selection(selection.clone());
    for batch in reader.with_batch_size(DEFAULT_BATCH_SIZE).build()? {
        let batch = batch?;
        reduced.get_or_insert_with(|| Reduced::new(Question::Wide, batch.schema())).add(&batch)?;
    }
    Ok(())
}
