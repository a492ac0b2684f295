//! The yardstick: parquet's own reader over the same files, columns and threads, with the same reductions, and no join.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sort_merge_bucket::DEFAULT_BATCH_SIZE;

use crate::Failure;
use crate::query::{Answer, Query};

/// The runs of one dataset, with its key column.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) key: &'static str,
    pub(crate) runs: Vec<PathBuf>,
}

/// Reads and reduces both tables, file by file on `threads` threads. Returns an answer per table, and the bytes of the column chunks.
pub(crate) fn scan(query: Query, tables: &[Table; 2], threads: NonZeroUsize) -> Result<([Answer; 2], u64), Failure> {
    let files: Vec<(usize, &PathBuf)> =
        tables.iter().enumerate().flat_map(|(i, table)| table.runs.iter().map(move |run| (i, run))).collect();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> Result<[Answer; 2], Failure> {
        let mut answers = <[Answer; 2]>::default();
        while let Some((table, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
            let mask = match query.payload() {
                Some(payload) => {
                    ProjectionMask::columns(reader.parquet_schema(), payload.into_iter().chain([tables[*table].key]))
                }
                None => ProjectionMask::all(),
            };
            for group in reader.metadata().row_groups() {
                let chunks = group.columns().iter().enumerate().filter(|(i, _)| mask.leaf_included(*i));
                let size: u64 = chunks.map(|(_, chunk)| chunk.compressed_size() as u64).sum();
                bytes.fetch_add(size, Ordering::Relaxed);
            }
            // Parquet's own default of 1024 rows is slower.
            let reader = reader.with_projection(mask).with_batch_size(DEFAULT_BATCH_SIZE).build()?;
            for batch in reader {
                query.reduce(&mut answers[*table], &batch?)?;
            }
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
