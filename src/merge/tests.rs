//! Tests of the merge core against plain sorting.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn schema(key: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", key, true), Field::new("v", DataType::Int64, false)]))
}

/// A batch of keys with values that say where the row was: input and position.
fn batch(keys: &[Option<i64>], input: usize) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let values = Int64Array::from_iter_values((0..keys.len()).map(|i| (input * 1_000_000 + i) as i64));
    RecordBatch::try_new(schema(DataType::Int64), vec![keys, Arc::new(values)]).unwrap()
}

type Rows = Vec<(Option<i64>, i64)>;

fn rows(batch: &RecordBatch) -> Rows {
    let values = batch.column(1).as_primitive::<Int64Type>();
    batch.column(0).as_primitive::<Int64Type>().iter().zip(values.values().iter().copied()).collect()
}

/// Feeds each input in pieces of `piece` rows, on demand.
pub(crate) fn drive_batches<T>(
    kernel: &mut dyn Kernel<Item = T>,
    inputs: &[RecordBatch],
    piece: usize,
    mut each: impl FnMut(T),
) -> Result<()> {
    let mut fed = vec![0; inputs.len()];
    loop {
        match kernel.step()? {
            Step::Done => return Ok(()),
            Step::Item(item) => each(item),
            Step::Needs(input) if fed[input] == inputs[input].num_rows() => kernel.finish(input),
            Step::Needs(input) => {
                let rows = piece.min(inputs[input].num_rows() - fed[input]);
                kernel.push(input, inputs[input].slice(fed[input], rows))?;
                fed[input] += rows;
            }
        }
    }
}

fn drive<T>(
    kernel: &mut dyn Kernel<Item = T>,
    inputs: &[Vec<Option<i64>>],
    piece: usize,
    each: impl FnMut(T),
) -> Result<()> {
    let batches: Vec<_> = inputs.iter().enumerate().map(|(input, keys)| batch(keys, input)).collect();
    drive_batches(kernel, &batches, piece, each)
}

fn null_last(key: Option<i64>) -> (bool, Option<i64>) {
    (key.is_none(), key)
}

/// All rows sorted by key (nulls last), then input, then position: what a merge must give.
fn expected(inputs: &[Vec<Option<i64>>]) -> Rows {
    let mut all: Rows = vec![];
    for (input, keys) in inputs.iter().enumerate() {
        all.extend(keys.iter().enumerate().map(|(at, key)| (*key, (input * 1_000_000 + at) as i64)));
    }
    all.sort_by_key(|(key, value)| (null_last(*key), *value));
    all
}

fn sorted_inputs(max: usize) -> impl Strategy<Value = Vec<Vec<Option<i64>>>> {
    let input = prop::collection::vec(prop::option::weighted(0.9, -3i64..6), 0..40).prop_map(|mut keys| {
        keys.sort_by_key(|k| null_last(*k));
        keys
    });
    prop::collection::vec(input, 1..max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn oracle_k_way_merge_is_a_stable_sort(inputs in sorted_inputs(7), piece in 1usize..9, batch_size in 1usize..9) {
        let mut merge = SortedMerge::new(&schema(DataType::Int64), &[0], inputs.len(), batch_size).unwrap();
        let mut out = vec![];
        drive(&mut *merge.0, &inputs, piece, |batch| out.extend(rows(&batch))).unwrap();
        prop_assert_eq!(out, expected(&inputs));
    }

    #[test]
    fn oracle_composite_keys_merge_like_tuples(inputs in sorted_inputs(5), piece in 1usize..9) {
        // Ordering by (k, v) exercises the row encoding, nulls included; v increases within an input, so inputs stay sorted.
        let mut merge = SortedMerge::new(&schema(DataType::Int64), &[0, 1], inputs.len(), 4).unwrap();
        let mut out = vec![];
        drive(&mut *merge.0, &inputs, piece, |batch| out.extend(rows(&batch))).unwrap();
        prop_assert_eq!(out, expected(&inputs));
    }

    #[test]
    fn law_windows_are_complete_up_to_their_bound(
        inputs in sorted_inputs(6), piece in 1usize..9, split in 0usize..6, in_source_order in any::<bool>(),
    ) {
        let split = split.min(inputs.len());
        let ties = if in_source_order { Ties::InSourceOrder } else { Ties::Together };
        let (left, right) = inputs.split_at(split);
        let source = |inputs: &[Vec<Option<i64>>]| SourceInputs {
            schema: schema(DataType::Int64), order: vec![0],
            runs: inputs.iter().map(|_| Arc::from("run")).collect(),
        };
        let windows = dispatch(&[DataType::Int64], Windows { sources: vec![source(left), source(right)], ties, inputs: inputs.clone(), piece }).unwrap();

        // Per source, the windows hold the merge of its runs.
        for (source, inputs) in [left, right].into_iter().enumerate() {
            let got: Rows = windows.iter().flat_map(|w| w[source].0.clone()).collect();
            let offset = (source * split * 1_000_000) as i64;
            let want: Rows = expected(inputs).into_iter().map(|(k, v)| (k, v + offset)).collect();
            prop_assert_eq!(got, want);
        }
        // Across windows, keys never go back; a source that says it is closed has no more of its last key.
        for (at, window) in windows.iter().enumerate() {
            let last = |rows: &Rows| rows.last().map(|(k, _)| null_last(*k));
            let bound = window.iter().filter_map(|(rows, _)| last(rows)).max();
            for later in &windows[at + 1..] {
                for (source, (rows, _)) in later.iter().enumerate() {
                    for (key, _) in rows {
                        prop_assert!(Some(null_last(*key)) >= bound);
                        if !window[source].1 {
                            prop_assert_ne!(last(&window[source].0), Some(null_last(*key)), "closed");
                        }
                        // Together: a source without rows of the bound in this window has none later either.
                        if ties == Ties::Together && Some(null_last(*key)) == bound && key.is_some() {
                            prop_assert_eq!(last(&window[source].0), bound);
                        }
                    }
                }
            }
        }
        if in_source_order {
            let all: Vec<_> = windows.iter().flat_map(|w| {
                let mut rows: Vec<_> = w.iter().enumerate().flat_map(|(s, (rows, _))| rows.iter().map(move |(k, v)| (null_last(*k), s, *v))).collect();
                rows.sort();
                rows
            }).collect();
            prop_assert!(all.is_sorted(), "strictly by key, source, position: {:?}", all);
        }
    }
}

struct Windows {
    sources: Vec<SourceInputs>,
    ties: Ties,
    inputs: Vec<Vec<Option<i64>>>,
    piece: usize,
}

struct AlignKernel<E: Extract>(Align<E>);

impl<E: Extract> Kernel for AlignKernel<E> {
    type Item = Window<E::Keys>;
    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.0.push(input, batch)
    }
    fn finish(&mut self, input: usize) {
        self.0.finish(input);
    }
    fn step(&mut self) -> Result<Step<Self::Item>> {
        self.0.step()
    }
}

impl ForKeys for Windows {
    /// Per window, per source: rows and the open flag.
    type Output = Vec<Vec<(Rows, bool)>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let mut kernel = AlignKernel(Align::new(&extract, self.sources, self.ties, 4));
        let mut windows = vec![];
        drive(&mut kernel, &self.inputs, self.piece, |window| {
            assert!(window.sources.iter().any(|s| s.len() > 0), "a window without rows");
            windows.push(window.sources.iter().map(|s| (rows(&s.batch), s.open)).collect());
        })?;
        Ok(windows)
    }
}

fn unsorted(inputs: &[Vec<Option<i64>>], piece: usize) -> crate::Error {
    let mut merge = SortedMerge::new(&schema(DataType::Int64), &[0], inputs.len(), 4).unwrap();
    drive(&mut *merge.0, inputs, piece, drop).unwrap_err()
}

#[test]
fn an_unsorted_input_is_an_error_with_row_and_both_keys() {
    for piece in 1..5 {
        let error = unsorted(&[vec![Some(1), Some(2)], vec![Some(1), Some(5), Some(4), Some(6)]], piece);
        assert_eq!(error.kind(), ErrorKind::Unsorted);
        assert_eq!((error.path(), error.row()), (Some("input 1"), Some(2)), "{error}");
        assert!(error.to_string().contains("previous=`5`, offending=`4`"), "{error}");
    }
}

#[test]
fn a_value_after_a_null_key_is_unsorted() {
    for piece in 1..5 {
        let error = unsorted(&[vec![Some(1), None, Some(2)]], piece);
        assert_eq!((error.kind(), error.row()), (ErrorKind::Unsorted, Some(2)), "{error}");
        assert!(error.to_string().contains("previous=`null`, offending=`2`"), "{error}");
    }
}

#[test]
fn strings_order_by_bytes_whatever_their_length() {
    let inputs = [vec!["", "a", "ab", "b"], vec!["a", "aaaaaaaaaaaaaaaaaaaaaaaa", "é", "日本"]];
    let schema = schema(DataType::Utf8View);
    let mut merge = SortedMerge::new(&schema, &[0], 2, 3).unwrap();
    for (input, keys) in inputs.iter().enumerate() {
        let values = Int64Array::from_iter_values(keys.iter().map(|_| input as i64));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![Arc::new(StringViewArray::from(keys.clone())), Arc::new(values)],
        );
        merge.push(input, batch.unwrap()).unwrap();
        merge.finish(input);
    }
    let mut out = vec![];
    while let Step::Item(batch) = merge.step().unwrap() {
        out.extend(batch.column(0).as_string_view().iter().map(|s| s.unwrap().to_owned()));
    }
    assert_eq!(out, ["", "a", "a", "aaaaaaaaaaaaaaaaaaaaaaaa", "ab", "b", "é", "日本"]);
}

#[test]
fn one_input_passes_its_batches_on_without_a_copy() {
    let mut merge = SortedMerge::new(&schema(DataType::Int64), &[0], 2, 2).unwrap();
    let fed = batch(&[Some(1), Some(2), Some(3)], 0);
    merge.push(0, fed.clone()).unwrap();
    merge.finish(1);
    let Step::Item(out) = merge.step().unwrap() else { panic!("no item") };
    assert_eq!(out.column(1).to_data().buffers()[0].as_ptr(), fed.column(1).to_data().buffers()[0].as_ptr());
}
