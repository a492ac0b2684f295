//! Tests of spilling and of what the buffer keeps alive.

use super::*;
use crate::footprint::{Cutter, RowSizes, Tolerance, compact};
use crate::spill::SpillDir;
use crate::write::intake::Intake;
use crate::write::parallel::{Limits, split_evenly};

fn entries(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Waits until the folder is empty: a spill that is under way ends first.
pub(super) async fn until_empty(dir: &std::path::Path) {
    let emptied = async {
        while entries(dir) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), emptied).await.unwrap();
}

fn plays(rows: usize, distinct: u64) -> Table {
    Table::random(vec![Kind::Int64, Kind::Utf8, Kind::Int32], rows, distinct, 3, 42)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_the_budget_are_spilled_and_merged() {
    let spec = BucketSpec::new(["c0"], 16).unwrap().with_sort_columns(["c2"]).unwrap();
    let table = plays(60_000, 500);
    for (budget, least) in [(1 << 20, 5), (1 << 18, 20)] {
        let dir = tempfile::tempdir().unwrap();
        let options = WriteOptions::default().with_memory_budget(budget).with_spill_dir(dir.path());
        let store = in_memory();
        let (runs, spills) =
            write(&store, &table.schema(), &spec, &options, &table.batches(&[5000, 1, 300])).await.unwrap();
        assert!(spills >= least, "{spills} spills within {budget} bytes");
        assert!(
            spills > Limits::new(&options, 2 << 20).fan_in || budget > 1 << 18,
            "{spills} spills are merged in one pass"
        );
        assert_written(&store, &table, &spec, &runs).await;
        assert_eq!(entries(dir.path()), 0, "spill files are left");
    }
}

#[tokio::test]
async fn rows_within_the_budget_are_not_spilled() {
    let table = plays(10_000, 500);
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions::default().with_spill_dir(dir.path());
    let mut sorter = Sorter::new(
        target(&in_memory(), &table.schema(), &BucketSpec::new(["c0"], 4).unwrap(), &options).unwrap(),
        &options,
    )
    .unwrap();
    for batch in table.batches(&[1000]) {
        sorter.write(&batch).await.unwrap();
    }
    assert_eq!((sorter.spill_count(), entries(dir.path())), (0, 0));
}

#[tokio::test]
async fn dropping_a_sorter_deletes_its_spill_files() {
    let table = plays(10_000, 500);
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions::default().with_spill_dir(dir.path()).with_memory_budget(1 << 16);
    let spec = BucketSpec::new(["c0"], 4).unwrap();
    let mut sorter = Sorter::new(target(&in_memory(), &table.schema(), &spec, &options).unwrap(), &options).unwrap();
    for batch in table.batches(&[1000]) {
        sorter.write(&batch).await.unwrap();
    }
    assert!(sorter.spill_count() > 1);
    assert_eq!(entries(dir.path()), 1);
    drop(sorter);
    until_empty(dir.path()).await;
}

#[tokio::test]
async fn a_spill_that_fails_while_more_rows_come_fails_the_write() {
    let table = plays(30_000, 500);
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions::default().with_spill_dir(dir.path()).with_memory_budget(1 << 16);
    let spec = BucketSpec::new(["c0"], 4).unwrap();
    let mut sorter = Sorter::new(target(&in_memory(), &table.schema(), &spec, &options).unwrap(), &options).unwrap();
    let mut batches = table.batches(&[1000]).into_iter();
    while sorter.spill_count() == 0 {
        sorter.write(&batches.next().unwrap()).await.unwrap();
    }
    // The folder of the writer's spills.
    let spills = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&spills).unwrap();
    let mut written = Ok(());
    for batch in batches {
        written = sorter.write(&batch).await;
        if written.is_err() {
            break;
        }
    }
    let error = written.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    assert!(error.path().is_some_and(|path| path.starts_with(spills.to_str().unwrap())), "{error}");
}

#[tokio::test]
async fn a_missing_spill_folder_is_named() {
    let table = plays(1000, 500);
    let options = WriteOptions::default().with_spill_dir("/nowhere/at/all").with_memory_budget(1024);
    let result =
        write(&in_memory(), &table.schema(), &BucketSpec::new(["c0"], 4).unwrap(), &options, &table.batches(&[100]))
            .await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Store, Some("/nowhere/at/all")));
}

#[tokio::test]
async fn many_buckets_with_few_rows_each() {
    let table = Table::random(vec![Kind::Int64, Kind::Utf8], 3000, u64::MAX, 0, 7);
    let spec = BucketSpec::new(["c0"], 16_384).unwrap();
    for budget in [1 << 17, 1 << 30] {
        let options = WriteOptions::default().with_memory_budget(budget);
        let store = in_memory();
        let (runs, spills) = write(&store, &table.schema(), &spec, &options, &table.batches(&[1000])).await.unwrap();
        assert!((spills > 1) == (budget == 1 << 17));
        assert!(runs.len() > 2500);
        assert_written(&store, &table, &spec, &runs).await;
    }
}

#[tokio::test]
async fn one_key_holds_every_row() {
    let table = Table::random(vec![Kind::Utf8, Kind::Utf8], 5000, 1, 0, 7);
    let spec = BucketSpec::new(["c0"], 64).unwrap();
    let options = WriteOptions::default().with_memory_budget(1 << 17);
    let store = in_memory();
    let (runs, spills) = write(&store, &table.schema(), &spec, &options, &table.batches(&[999])).await.unwrap();
    assert!(spills > 1);
    assert_eq!(runs.len(), 1);
    assert_written(&store, &table, &spec, &runs).await;
}

#[tokio::test]
async fn huge_strings_are_cut_into_pieces_of_few_rows() {
    let mut table = Table::random(vec![Kind::Int64, Kind::Utf8, Kind::Dictionary], 60, u64::MAX, 0, 7);
    for (i, row) in table.rows.iter_mut().enumerate() {
        row[1] = Value::Bytes(vec![b'a' + (i % 26) as u8; 1 << 18]);
        row[2] = Value::Bytes(vec![b'x'; 1 << 18]);
    }
    let spec = BucketSpec::new(["c0"], 2).unwrap();
    let options = WriteOptions::default().with_memory_budget(1 << 22).with_row_group_bytes(1 << 20);
    let store = in_memory();
    let (runs, spills) = write(&store, &table.schema(), &spec, &options, &table.batches(&[60])).await.unwrap();
    assert!(spills > 4, "{spills} spills");
    assert_written(&store, &table, &spec, &runs).await;
}

#[test]
fn slices_of_large_batches_are_copied_when_they_are_kept() {
    let table =
        Table::random(vec![Kind::Int64, Kind::Utf8View, Kind::List, Kind::Struct, Kind::Bool], 20_000, u64::MAX, 10, 3);
    let whole = cast_all(&table);
    let slice = whole.slice(10_000, 10);
    assert!(slice.get_array_memory_size() > 1 << 20);
    let kept = compact(&slice, Tolerance::SLICE).unwrap();
    assert_eq!(kept, slice);
    assert!(kept.get_array_memory_size() < 40_000, "{} bytes for ten rows", kept.get_array_memory_size());
    // What is compact already is not copied.
    let again = compact(&kept, Tolerance::SLICE).unwrap();
    let buffer = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
    assert_eq!(buffer(&kept), buffer(&again));
    assert_eq!(compact(&whole.slice(5, 0), Tolerance::WHOLE).unwrap().num_rows(), 0);
}

fn cast_all(table: &Table) -> RecordBatch {
    let schema = canonical_schema(&table.schema()).unwrap();
    crate::schema::cast_batch(&table.batches(&[usize::MAX])[0], &schema).unwrap()
}

#[test]
fn values_shared_by_many_views_are_not_multiplied() {
    let mut table = Table::random(vec![Kind::Dictionary], 5000, 1, 0, 3);
    table.rows.iter_mut().for_each(|row| row[0] = Value::Bytes(vec![b'x'; 10_000]));
    let batch = cast_all(&table);
    assert!(compact(&batch, Tolerance::WHOLE).unwrap().get_array_memory_size() < 1 << 20);
    assert_eq!(RowSizes::of_batch(&batch).of_rows(0..5000), 5000 * 10_016);
}

#[tokio::test]
async fn batches_of_one_row_are_joined() {
    let table = plays(20_000, 500);
    let limits = Limits::new(&WriteOptions::default(), 2 << 20);
    let mut intake = Intake::new(canonical_schema(&table.schema()).unwrap(), &limits);
    for batch in table.batches(&[1]) {
        intake.check(&batch).unwrap();
        for part in Intake::parts(&batch) {
            for piece in intake.pieces(&part).unwrap() {
                assert!(!intake.push(piece, 0).unwrap());
            }
        }
    }
    let batches = intake.take().unwrap();
    assert!(batches.len() <= 3, "{} batches", batches.len());
    let rows: Vec<Row> = batches.iter().flat_map(|b| table.read(b)).collect();
    assert!(rows == table.rows);
}

#[test]
fn a_buffer_is_full_before_it_exceeds_its_bytes_by_more_than_a_piece() {
    let table = plays(50_000, 500);
    let limits = Limits::new(&WriteOptions::default().with_memory_budget(1 << 20), 2 << 20);
    let mut intake = Intake::new(canonical_schema(&table.schema()).unwrap(), &limits);
    let mut held = 0;
    'full: for batch in table.batches(&[50_000]) {
        for part in Intake::parts(&batch) {
            for piece in intake.pieces(&part).unwrap() {
                held += piece.get_array_memory_size();
                if intake.push(piece, 0).unwrap() {
                    break 'full;
                }
            }
        }
    }
    // Three eighths of the budget; a piece is an eighth of that, and a copy keeps at most a quarter more alive than it holds.
    let (buffer, piece) = (3 << 17, 3 << 14);
    assert!((buffer..buffer + piece * 5 / 4).contains(&held), "{held} bytes");
}

#[test]
fn a_piece_ends_with_the_row_that_reaches_the_limit() {
    let cut = |sizes: &RowSizes, rows| Cutter::new(3, 10).cut(sizes, rows);
    assert_eq!(cut(&RowSizes::Fixed(1), 7), [(0..3, true), (3..6, true), (6..7, false)]);
    assert_eq!(cut(&RowSizes::Fixed(6), 5), [(0..2, true), (2..4, true), (4..5, false)]);
    assert_eq!(cut(&RowSizes::PerRow(vec![20, 4, 5, 1, 9, 2]), 6), [(0..1, true), (1..4, true), (4..6, true)]);
    // Cuts do not depend on how the rows arrive.
    let mut cutter = Cutter::new(3, 10);
    assert_eq!(cutter.cut(&RowSizes::Fixed(6), 1), [(0..1, false)]);
    assert_eq!(cutter.cut(&RowSizes::PerRow(vec![6, 6]), 2), [(0..1, true), (1..2, false)]);
    assert_eq!(cutter.cut(&RowSizes::Fixed(6), 1), [(0..1, true)]);
}

#[test]
fn work_is_split_into_ranges_of_like_weight() {
    assert_eq!(split_evenly(&[1, 1, 1, 1], 2), [0..2, 2..4]);
    assert_eq!(split_evenly(&[9, 1, 1], 3), [0..1, 1..3]);
    assert_eq!(split_evenly(&[0, 5, 0], 2), [0..2, 2..3]);
    assert!(split_evenly(&[], 4).is_empty());
}

#[test]
fn spilled_rows_come_back_by_bucket() {
    let table = Table::random(vec![Kind::Int64, Kind::Utf8View, Kind::List], 100, u64::MAX, 10, 3);
    let batch = cast_all(&table);
    let dir = SpillDir::create(None).unwrap();
    let mut file = dir.file(batch.schema_ref()).unwrap();
    for (bucket, range) in [(1, 0..10), (1, 10..30), (4, 30..31), (9, 31..100)] {
        file.write(bucket, &batch.slice(range.start, range.len())).unwrap();
    }
    let spill = file.finish().unwrap();
    assert_eq!(spill.buckets().map(|(b, _)| b).collect::<Vec<_>>(), [1, 4, 9]);
    for (bucket, range) in [(9, 31..100), (1, 0..30), (4, 30..31)] {
        let mut reader = spill.segment(bucket).unwrap().read().unwrap();
        let mut rows = vec![];
        while let Some(batch) = reader.next().unwrap() {
            rows.extend(table.read(&batch));
        }
        assert!(rows == table.rows[range]);
    }
    assert!(spill.segment(2).is_none());
    let mut apart = dir.file(batch.schema_ref()).unwrap();
    apart.write(1, &batch).unwrap();
    apart.write(2, &batch).unwrap();
    apart.write(1, &batch).unwrap();
    assert_eq!(apart.finish().unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn sizes_of_rows_are_those_of_their_values() {
    let texts = ["", "0123456789ab", "0123456789abc", &"x".repeat(1000)];
    let view: ArrayRef = Arc::new(texts.iter().map(Some).chain([None]).collect::<StringViewArray>());
    let list = |item: &ArrayRef, lengths: [usize; 3]| -> ArrayRef {
        let field = Arc::new(Field::new("item", item.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::try_new(field, offsets, Arc::clone(item), None).unwrap())
    };
    let sizes = |array: ArrayRef| RowSizes::of_batch(&RecordBatch::try_from_iter([("c", array)]).unwrap());
    assert_eq!(sizes(Arc::clone(&view)), RowSizes::PerRow(vec![16, 16, 29, 1016, 16]));
    assert_eq!(sizes(view.slice(2, 2)), RowSizes::PerRow(vec![29, 1016]));
    assert_eq!(sizes(list(&view, [2, 0, 3])), RowSizes::PerRow(vec![36, 4, 1065]));
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
    assert_eq!(sizes(Arc::clone(&ints)), RowSizes::Fixed(8));
    assert_eq!(sizes(list(&ints, [2, 0, 3]).slice(1, 2)), RowSizes::PerRow(vec![4, 28]));
    let both = RecordBatch::try_from_iter([("i", ints), ("v", view)]).unwrap();
    assert_eq!(RowSizes::of_batch(&both), RowSizes::PerRow(vec![24, 24, 37, 1024, 24]));
    assert_eq!(RowSizes::of_batch(&both).of_rows(0..5), 1133);
}

#[tokio::test]
async fn rows_of_equal_keys_keep_their_order_through_batches_of_any_size() {
    // Neither key nor sort column tells the rows apart, and small batches are joined.
    let table = Table::random(vec![Kind::Bool, Kind::Int64], 20_000, u64::MAX, 10, 9);
    let spec = BucketSpec::new(["c0"], 2).unwrap();
    for budget in [1 << 30, 1 << 18] {
        let options = WriteOptions::default().with_memory_budget(budget);
        let store = in_memory();
        let batches = table.batches(&[1, 3000, 5, 2000]);
        let (runs, _) = write(&store, &table.schema(), &spec, &options, &batches).await.unwrap();
        assert_written(&store, &table, &spec, &runs).await;
    }
}

#[tokio::test]
async fn slices_of_one_large_batch_are_counted_once() {
    // Ten slices keep the same buffers alive; if each counted all of them, the buffer would be full ten times too early.
    let table = plays(100_000, u64::MAX);
    let whole = cast_all(&table);
    let limits = Limits::new(&WriteOptions::default().with_memory_budget(1 << 26), 2 << 20);
    let mut intake = Intake::new(whole.schema(), &limits);
    assert!(whole.get_array_memory_size() * 3 > limits.buffer_bytes);
    for start in (0..100_000).step_by(10_000) {
        for piece in intake.pieces(&whole.slice(start, 10_000)).unwrap() {
            assert!(!intake.push(piece, 0).unwrap());
        }
    }
}
