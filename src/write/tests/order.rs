//! Tests of input that is declared to be in order: checked, not sorted, and of the same bytes.

use super::*;
use crate::spill::SpillDir;
use crate::write::bucket_rows::BucketRows;
use crate::write::parallel::Limits;
use crate::write::{DatasetWriter, InputOrder};

impl Case {
    /// The table with its rows in the order of the spec; rows of equal keys as they were.
    fn sorted_table(&self) -> Table {
        let mut table = self.table();
        table.rows.sort_by(|a, b| a[..self.keys + self.sorts].cmp(&b[..self.keys + self.sorts]));
        table
    }
}

async fn runs_and_bytes(
    table: &Table,
    spec: &BucketSpec,
    options: &WriteOptions,
    batch_rows: &[usize],
) -> (Vec<Run>, Vec<Bytes>, usize) {
    let store = in_memory();
    let (runs, spills) = write(&store, &table.schema(), spec, options, &table.batches(batch_rows)).await.unwrap();
    let mut files = vec![];
    for run in &runs {
        files.push(bytes_of(&store, run).await);
    }
    (runs, files, spills)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn differential_declared_order_makes_the_bytes_of_the_sort(case in cases()) {
        runtime().block_on(async {
            let (table, spec) = (case.sorted_table(), case.spec());
            let options = WriteOptions::default().with_page_rows(20).with_max_row_group_rows(60);
            let expected = runs_and_bytes(&table, &spec, &options, &[1000]).await;
            let tight = options.with_memory_budget(case.budget);
            for options in [tight.clone(), tight.with_input_order(InputOrder::Sorted)] {
                let found = runs_and_bytes(&table, &spec, &options, &case.batch_rows).await;
                assert_eq!(found.0, expected.0);
                assert!(found.1 == expected.1, "the same rows made other bytes: {options:?}");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn differential_any_number_of_spills_in_order_needs_no_merge() {
    let mut table = Table::random(vec![Kind::Int64, Kind::Utf8, Kind::Int32], 60_000, 500, 3, 42);
    table.rows.sort_by(|a, b| (&a[0], &a[2]).cmp(&(&b[0], &b[2])));
    let spec = BucketSpec::new(["c0"], 16).unwrap().with_sort_columns(["c2"]).unwrap();
    let expected = runs_and_bytes(&table, &spec, &WriteOptions::default(), &[60_000]).await;
    let options = WriteOptions::default().with_memory_budget(1 << 18).with_input_order(InputOrder::Sorted);
    let found = runs_and_bytes(&table, &spec, &options, &[5000, 1, 300]).await;
    assert!(found.2 > Limits::new(&options, 2 << 20).fan_in, "{} spills", found.2);
    assert_eq!(found.0, expected.0);
    assert!(found.1 == expected.1, "the same rows made other bytes");
}

fn numbers(keys: &[i64]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    RecordBatch::try_from_iter([("k", keys)]).unwrap()
}

#[test]
fn spills_in_order_are_opened_when_their_turn_comes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = SpillDir::create(Some(folder.path())).unwrap();
    let spills: Vec<_> = [[1, 2], [2, 5], [7, 9]]
        .map(|keys| {
            let batch = numbers(&keys);
            let mut file = dir.file(batch.schema_ref()).unwrap();
            file.write(3, &batch).unwrap();
            file.finish().unwrap()
        })
        .into();
    let schema = numbers(&[]).schema();
    let open = |input| BucketRows::open(input, &schema, &[0], &spills, None, 3).unwrap();
    let mut rows = open(InputOrder::Sorted);
    assert_eq!(rows.next().unwrap(), Some(numbers(&[1, 2])));

    // The files are gone: what is not open yet cannot be read any more.
    let files = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let third = files.join("000002.arrows");
    std::fs::rename(&third, files.join("away")).unwrap();
    assert_eq!(rows.next().unwrap(), Some(numbers(&[2, 5])));
    assert_eq!(rows.next().unwrap_err().kind(), ErrorKind::Store);
    let mut merged = open(InputOrder::Any);
    assert_eq!(merged.next().unwrap_err().kind(), ErrorKind::Store);

    std::fs::rename(files.join("away"), &third).unwrap();
    let mut rows = open(InputOrder::Sorted);
    let all: Vec<_> = std::iter::from_fn(|| rows.next().unwrap()).collect();
    assert_eq!(all, [numbers(&[1, 2]), numbers(&[2, 5]), numbers(&[7, 9])]);
}

#[tokio::test]
async fn rows_that_are_not_in_the_declared_order_end_the_write() {
    let batch = |keys: &[Option<i64>], names: &[&str]| {
        let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        RecordBatch::try_from_iter([("k", keys), ("s", names)]).unwrap()
    };
    let (one, two, three) = (Some(1), Some(2), Some(3));
    let good = batch(&[one, one, three], &["a", "b", "a"]);
    let cases = [
        // Within a batch, from one batch to the next, in the sort column only, and after a null.
        (batch(&[three, two], &["b", "a"]), 4, "previous=`3, b`, key=`2, a`"),
        (batch(&[two], &["z"]), 3, "previous=`3, a`, key=`2, z`"),
        (batch(&[three, three, three], &["b", "c", "b"]), 5, "previous=`3, c`, key=`3, b`"),
        (batch(&[None, three], &["a", "b"]), 4, "previous=`null, a`, key=`3, b`"),
    ];
    let spec = BucketSpec::new(["k"], 4).unwrap().with_sort_columns(["s"]).unwrap();
    for (bad, row, keys) in cases {
        // Also with a budget so small that every row is spilled before the next comes.
        for budget in [1, 1 << 30] {
            let store = in_memory();
            let options = WriteOptions::default().with_memory_budget(budget).with_input_order(InputOrder::Sorted);
            let builder = DatasetWriter::builder(Arc::clone(&store), "plays", bad.schema(), spec.clone());
            let mut writer = builder.with_options(options).build().await.unwrap();
            writer.write(&good).await.unwrap();
            writer.write(&good.slice(0, 0)).await.unwrap();
            let error = writer.write(&bad).await.unwrap_err();
            assert_eq!((error.kind(), error.row(), error.path()), (ErrorKind::Unsorted, Some(row), None), "{error}");
            assert!(error.to_string().contains(keys), "{error} should say {keys}");
            assert!(error.to_string().contains("InputOrder::Any"), "{error} should say what to do");
            assert_eq!(writer.write(&good).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(writer.commit().await.unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(place(&store).newest().await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn nulls_come_last_in_the_declared_order() {
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(-5), Some(9), None, None]));
    let batch = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let options = WriteOptions::default().with_input_order(InputOrder::Sorted);
    let spec = BucketSpec::new(["k"], 1).unwrap();
    let (runs, _) =
        write(&in_memory(), &batch.schema(), &spec, &options, &[batch.clone(), batch.slice(2, 2)]).await.unwrap();
    assert_eq!(runs[0].rows, 6);
}

#[test]
fn options_of_earlier_versions_say_nothing_of_the_order() {
    let options: WriteOptions = serde_json::from_str("{}").unwrap();
    assert_eq!(options.input_order, InputOrder::Any);
    let sorted = WriteOptions::default().with_input_order(InputOrder::Sorted);
    let text = serde_json::to_string(&sorted).unwrap();
    assert!(text.contains(r#""input_order":"sorted""#), "{text}");
    assert_eq!(serde_json::from_str::<WriteOptions>(&text).unwrap(), sorted);
}
