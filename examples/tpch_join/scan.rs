//! The yardstick: parquet's own reader over the same files, columns and threads, with the same reductions, and no join.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use object_store::{GetResult, GetResultPayload, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use sort_merge_bucket::{DEFAULT_BATCH_SIZE, Dataset};
use tokio::runtime::Handle;

use crate::Failure;
use crate::query::{Answer, Query};

/// Reads and reduces both tables, each with its key column, file by file on `threads` threads. Returns an answer per table, and the bytes of the
/// column chunks. What the store has no file of is fetched as a whole.
pub(crate) fn scan(
    query: Query,
    tables: &[(&Dataset, &str); 2],
    threads: NonZeroUsize,
    runtime: &Handle,
) -> Result<([Answer; 2], u64), Failure> {
    let runs = |i: usize| tables[i].0.run_paths().map(move |path| (i, path));
    let files: Vec<_> = (0..tables.len()).flat_map(runs).collect();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> Result<[Answer; 2], Failure> {
        let mut answers = <[Answer; 2]>::default();
        while let Some((table, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (dataset, key) = tables[*table];
            let found = runtime.block_on(dataset.store().get(path))?;
            let answer = &mut answers[*table];
            let size = match found {
                GetResult { payload: GetResultPayload::File(file, _), .. } => reduce(query, answer, key, file)?,
                found => reduce(query, answer, key, runtime.block_on(found.bytes())?)?,
            };
            bytes.fetch_add(size, Ordering::Relaxed);
        }
        Ok(answers)
    };
    let mut total = <[Answer; 2]>::default();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let answers = worker.join().map_err(|_| "a scanning thread panicked")??;
            for (total, answer) in total.iter_mut().zip(answers) {
                query.add(total, answer);
            }
        }
        Ok(())
    })?;
    Ok((total, bytes.into_inner()))
}

/// Reads and reduces one file; the bytes of its column chunks.
fn reduce(query: Query, answer: &mut Answer, key: &str, file: impl ChunkReader + 'static) -> Result<u64, Failure> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = match query.payload() {
        Some(payload) => ProjectionMask::columns(reader.parquet_schema(), payload.into_iter().chain([key])),
        None => ProjectionMask::all(),
    };
    let mut bytes = 0;
    for group in reader.metadata().row_groups() {
        let chunks = group.columns().iter().enumerate().filter(|(i, _)| mask.leaf_included(*i));
        bytes += chunks.map(|(_, chunk)| chunk.compressed_size() as u64).sum::<u64>();
    }
    // Parquet's own default of 1024 rows is slower.
    for batch in reader.with_projection(mask).with_batch_size(DEFAULT_BATCH_SIZE).build()? {
        query.reduce(answer, &batch?)?;
    }
    Ok(bytes)
}
