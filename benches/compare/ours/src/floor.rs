//! The floor: parquet's own reader over the same run files, columns and threads, with the same reductions over the source columns, and
//! no join. What nobody who reads these files can do without.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use sort_merge_bucket::{DEFAULT_BATCH_SIZE, Dataset};

use crate::Failure;
use crate::question::{Answer, Question};
use crate::reduce::{Reduce, Reduced};

/// The run files of every dataset that a question is about; where there is a Parquet file of that name instead, it alone.
pub(crate) async fn runs(question: Question, folder: &Path) -> Result<Vec<Vec<PathBuf>>, Failure> {
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
    let mut files = vec![];
    for (table, _) in question.tables() {
        let file = folder.join(format!("{table}.parquet"));
        if file.is_file() {
            files.push(vec![file]);
            continue;
        }
        let dataset = Dataset::open(Arc::clone(&store), *table).await?;
        files.push(dataset.run_paths().map(|path| folder.join(path.as_ref())).collect());
    }
    Ok(files)
}

/// Reads and reduces all tables, file by file and whole. What is not over the rows that were asked for is named accordingly.
pub(crate) fn scan(question: Question, datasets: &[Vec<PathBuf>], threads: NonZeroUsize) -> Result<Answer, Failure> {
    let files: Vec<(usize, &PathBuf)> =
        datasets.iter().enumerate().flat_map(|(table, runs)| runs.iter().map(move |run| (table, run))).collect();
    let next = AtomicUsize::new(0);
    let nothing = || -> Vec<Option<Reduced>> { datasets.iter().map(|_| None).collect() };
    let work = || -> Result<Vec<Option<Reduced>>, Failure> {
        let mut tables = nothing();
        while let Some((table, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            read(question, *table, path, &mut tables[*table])?;
        }
        Ok(tables)
    };
    let mut totals = nothing();
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

    let totals = totals.into_iter().collect::<Option<Vec<_>>>().ok_or("a dataset has no runs")?;
    let mut answer = Answer::new();
    for ((table, _), total) in question.tables().iter().zip(&totals) {
        answer.insert(format!("rows of {table}"), total.rows.to_string());
        for (name, value) in total.answer() {
            // Maxima over all rows are those of the join, in which all have partners, and so are sums over the many side.
            let same = matches!(question, Question::Wide | Question::Plays)
                || question == Question::Narrow && *table == "lineitem";
            answer.insert(if same { name } else { format!("{name} of {table}") }, value);
        }
    }
    Ok(answer)
}

fn read(question: Question, table: usize, path: &Path, reduced: &mut Option<Reduced>) -> Result<(), Failure> {
    let file = File::open(path)?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    let mask = match question.payload() {
        Some(payload) => {
            let columns = [question.tables()[table].1].into_iter().chain(payload[table].iter().copied());
            let columns = columns.chain(question.chosen_by()[table].iter().copied());
            ProjectionMask::columns(metadata.parquet_schema(), columns)
        }
        None => ProjectionMask::all(),
    };
    // Not the reader of files, which asks for some kilobytes around every page header and then for the page.
    let mut decoder = ParquetPushDecoderBuilder::new_with_metadata(metadata)
        .with_projection(mask)
        // Parquet's own default of 1024 rows is slower.
        .with_batch_size(DEFAULT_BATCH_SIZE)
        .build()?;
    loop {
        match decoder.try_decode()? {
            DecodeResult::NeedsData(ranges) => {
                let bytes = ranges.iter().map(|range| fetch(&file, range)).collect::<Result<Vec<_>, _>>()?;
                decoder.push_ranges(ranges, bytes)?;
            }
            DecodeResult::Data(batch) => {
                reduced.get_or_insert_with(|| Reduced::new(question, batch.schema())).add(&batch)?;
            }
            DecodeResult::Finished => return Ok(()),
        }
    }
}

fn fetch(file: &File, range: &Range<u64>) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}
