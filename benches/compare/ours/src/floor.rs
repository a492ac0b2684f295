//! The floor: parquet's own reader over the same run files, columns and threads, with the same reductions over the source columns, and
//! no join. What nobody who reads these files can do without.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sort_merge_bucket::{DEFAULT_BATCH_SIZE, Dataset};

use crate::question::{Answer, Question};
use crate::reduce::Reduced;
use crate::{Failure, TABLES};

/// The run files of both datasets in a folder.
pub(crate) async fn runs(folder: &Path) -> Result<[Vec<PathBuf>; 2], Failure> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
    let mut files = <[Vec<PathBuf>; 2]>::default();
    for ((table, _), files) in TABLES.into_iter().zip(&mut files) {
        let dataset = Dataset::open(Arc::clone(&store), table).await?;
        *files = dataset.run_paths().map(|path| folder.join(path.as_ref())).collect();
    }
    Ok(files)
}

/// Reads and reduces both tables, file by file. Sums of orders are over orders, not over the join, and named accordingly.
pub(crate) fn scan(question: Question, datasets: &[Vec<PathBuf>; 2], threads: NonZeroUsize) -> Result<Answer, Failure> {
    let files: Vec<(usize, &PathBuf)> =
        datasets.iter().enumerate().flat_map(|(table, runs)| runs.iter().map(move |run| (table, run))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<[Option<Reduced>; 2], Failure> {
        let mut tables = [None, None];
        while let Some((table, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            read(question, *table, path, &mut tables[*table])?;
        }
        Ok(tables)
    };
    let mut totals = [None, None];
    std::thread::scope(|scope| -> Result<(), Failure> {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let tables = worker.join().map_err(|_| "a scanning thread panicked")??;
            for (total, table) in totals.iter_mut().zip(tables) {
                match (total.as_mut(), table) {
                    (Some(total), Some(table)) => Reduced::merge(total, table),
                    (None, table) => *total = table,
                    (Some(_), None) => {}
                }
            }
        }
        Ok(())
    })?;

    let [Some(orders), Some(lineitem)] = totals else { return Err("a dataset has no runs".into()) };
    let mut answer = lineitem.answer();
    answer.insert("rows".into(), lineitem.rows.to_string());
    for (name, value) in orders.answer() {
        let name = if name.starts_with("sum") { format!("{name} of orders") } else { name };
        answer.insert(name, value);
    }
    Ok(answer)
}

fn read(question: Question, table: usize, path: &Path, reduced: &mut Option<Reduced>) -> Result<(), Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = match question.payload() {
        Some(payload) => ProjectionMask::columns(builder.parquet_schema(), [TABLES[table].1, payload[table]]),
        None => ProjectionMask::all(),
    };
    // Parquet's own default of 1024 rows is slower.
    let reader = builder.with_projection(mask).with_batch_size(DEFAULT_BATCH_SIZE).build()?;
    for batch in reader {
        let batch = batch?;
        reduced.get_or_insert_with(|| Reduced::new(question, batch.schema())).add(&batch)?;
    }
    Ok(())
}
