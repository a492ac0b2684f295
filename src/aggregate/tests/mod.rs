//! The laws of all aggregates of this crate, what the checker finds, and the kernel against plain loops; `exact`: sums of floats;
//! `functions`: what single functions promise; `items`: rows by item; `sketch`: the error and the bytes of sketches.

mod exact;
mod functions;
mod items;
mod sketch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array,
    Int8Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringViewArray, StringViewBuilder, StructArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use proptest::prelude::*;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::merge::SourceInputs;
use crate::merge::tests::drive_batches;
use crate::predicate::Predicate;

/// Rows with nulls, repeated values and extremes, one column per type.
fn rows() -> RecordBatch {
    let strings = ["b", "", "é", "b", "zz", "a", "b", "long enough to be out of line", "a", "b"];
    let string = |at: usize| (at % 4 != 2).then_some(strings[at]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i64", Arc::new(Int64Array::from_iter((0..10).map(|v| (v % 3 != 1).then_some(v * 7 % 4 - 2))))),
        ("i8", Arc::new(Int8Array::from_iter((0..10).map(|v| (v != 4).then_some((v - 5) * 25))))),
        ("u64", Arc::new(UInt64Array::from_iter((0..10).map(|v| (v != 9).then_some(v % 3 * (u64::MAX / 32)))))),
        ("f64", Arc::new(Float64Array::from_iter((0..10).map(|v| (v != 3).then_some(f64::from(v % 4) * 0.5 - 0.5))))),
        ("rounded", {
            let floats = [0.1, 1e16, 1.0, f64::MIN_POSITIVE, -1e16, -0.1, 1.0 / 3.0, -0.0, 1e-300, 7e9];
            Arc::new(Float64Array::from_iter((0..10).map(|v| (v != 5).then_some(floats[v]))))
        }),
        ("special", {
            let floats = [f64::NAN, f64::INFINITY, 1.0, f64::NEG_INFINITY, -0.0, 0.0, 2.5, -f64::NAN, 1e300, 7e9];
            Arc::new(Float64Array::from_iter((0..10).map(|v| (v != 2).then_some(floats[v]))))
        }),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from_iter((0..10).map(|v| (v != 6).then_some(v * 100 - 450)))
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
        ),
        ("utf8", Arc::new((0..10).map(string).collect::<StringArray>())),
        ("view", Arc::new((0..10).rev().map(string).collect::<StringViewArray>())),
        ("binary", Arc::new((0..10).map(|at| string(at).map(str::as_bytes)).collect::<BinaryArray>())),
        ("fixed", {
            let pairs = (0..10u8).map(|v| (v != 0).then_some([v % 3, 255]));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(pairs, 2).unwrap())
        }),
        ("list", {
            let lists = (0..10).map(|at| (at != 7).then(|| (0..at % 3).map(|v| string(at + v)).collect::<Vec<_>>()));
            let mut builder = ListBuilder::new(StringViewBuilder::new());
            lists.for_each(|list| builder.append_option(list));
            Arc::new(builder.finish())
        }),
        ("struct", {
            let a: ArrayRef =
                Arc::new(Float64Array::from_iter((0..10).map(|v| (v % 4 != 0).then_some(-f64::from(v % 3)))));
            let b: ArrayRef = Arc::new((0..10).map(string).collect::<StringArray>());
            let fields = vec![Field::new("a", DataType::Float64, true), Field::new("b", DataType::Utf8, true)];
            let nulls = (0..10).map(|at| at != 8).collect();
            Arc::new(StructArray::new(fields.into(), vec![a, b], Some(nulls)))
        }),
        ("bool", Arc::new((0..10).map(|v| (v % 5 != 0).then_some(v % 2 == 0)).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

const NUMBERS: [&str; 7] = ["i64", "i8", "u64", "f64", "rounded", "special", "decimal"];
const ITEMS: [&str; 9] = ["i64", "i8", "u64", "decimal", "utf8", "view", "binary", "fixed", "bool"];

#[test]
fn law_every_aggregate_over_every_type() {
    let rows = rows();
    let check = |aggregator: &dyn Aggregator| {
        check_laws(aggregator, &rows).unwrap_or_else(|e| panic!("{aggregator:?}: {e}"));
    };
    check(&Count::rows());
    for number in NUMBERS {
        check(&Sum::of(number));
        check(&Mean::of(number));
        check(&Sum::of(number).filter(Predicate::eq("bool", true)));
        check(&Variance::of(number));
        check(&StdDev::of(number).population());
    }
    for item in ITEMS.into_iter().chain(["f64", "special"]) {
        check(&Count::of(item));
        check(&Min::of(item));
        check(&Max::of(item));
        check(&Collect::of(item).with_limit(3));
        check(&Collect::of(item).descending());
        for value in ["i64", "special", "view", "list", "struct", "bool", "decimal"] {
            check(&First::of(value).by(item));
            check(&Last::of(value).by(item));
            check(&Collect::of(value).by(item).with_limit(2));
            check(&Collect::of(value).by(item).descending().with_limit(4));
        }
    }
    for item in ITEMS {
        check(&CountDistinct::of(item));
        check(&ApproxCountDistinct::of(item));
        check(&SumMap::of(item));
        check(&TopK::of(item).with_limit(2));
        for weight in NUMBERS {
            check(&SumMap::of(item).weighted_by(weight));
            check(&TopK::of(item).weighted_by(weight).with_limit(1));
        }
    }
    check(&Any::of("bool"));
    check(&All::of("bool"));
    check(&Count::rows().filter(Predicate::is_null("i64").or(Predicate::gt("f64", 0.0))));
    check(&Count::of("utf8").filter(Predicate::is_not_null("i64")).filter(Predicate::eq("bool", false)));
}

/// An aggregate that breaks one law.
#[derive(Debug)]
struct Bad(&'static str);

impl Aggregator for Bad {
    fn definition(&self) -> Definition {
        Definition::new("test.bad", 1)
    }

    fn inputs(&self) -> Vec<String> {
        vec!["i64".into()]
    }

    fn state_type(&self, _inputs: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn output_type(&self, _state: &DataType) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let values = rows.column(0).as_primitive::<Int64Type>();
        let mut count = 0;
        let state = |rows: std::ops::Range<usize>| -> i64 {
            count += 1;
            match self.0 {
                "commutativity" | "associativity" => rows.fold(0, |_, row| values.value(row)),
                "split" => rows.len() as i64 / 2,
                "independence" => rows.len() as i64 + i64::from(count == 2),
                "identity" => rows.len() as i64 + 1,
                _ => rows.len() as i64,
            }
        };
        let states: Int64Array = rows.ranges().map(state).map(Some).collect();
        Ok(if self.0 == "shape" { Arc::new(states.slice(0, states.len().min(1))) } else { Arc::new(states) })
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        let values = states.column(0).as_primitive::<Int64Type>().values();
        let merge = |rows: std::ops::Range<usize>| -> i64 {
            let mut parts = values[rows].iter().copied();
            match self.0 {
                "commutativity" => parts.rfind(|v| *v != 0).unwrap_or(0),
                "associativity" if parts.len() == 3 => parts.sum::<i64>() + 1,
                _ => parts.sum(),
            }
        };
        Ok(Arc::new(states.ranges().map(merge).map(Some).collect::<Int64Array>()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::clone(states))
    }
}

#[test]
fn a_broken_law_is_named() {
    check_laws(&Bad(""), &rows()).unwrap();
    for law in ["shape", "split", "independence", "commutativity", "associativity"] {
        let error = check_laws(&Bad(law), &rows()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // An aggregate that goes wrong on one law may be caught at another one first, but these begin as told.
        let named = match law {
            "associativity" => "split",
            other => other,
        };
        assert!(error.to_string().contains(&format!("law=`{named}`")), "{law}: {error}");
    }
    let error = check_laws(&Bad("identity"), &rows()).unwrap_err();
    assert!(error.to_string().contains("law=`identity`"), "{error}");
}

#[test]
fn inputs_that_an_aggregate_cannot_work_on_are_named() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let refused: [(&dyn Aggregator, &[DataType]); 15] = [
        (&Sum::of("x"), &[DataType::Utf8View]),
        (&Mean::of("x"), &[DataType::Boolean]),
        (&Min::of("x"), std::slice::from_ref(&list)),
        (&Max::of("x"), std::slice::from_ref(&list)),
        (&CountDistinct::of("x"), &[DataType::Float64]),
        (&SumMap::of("x"), &[DataType::Float32]),
        (&TopK::of("i").weighted_by("x"), &[DataType::Int64, DataType::Utf8View]),
        (&Variance::of("x"), &[DataType::Boolean]),
        (&StdDev::of("x"), &[DataType::Date32]),
        (&Any::of("x"), &[DataType::Int64]),
        (&All::of("x"), &[DataType::Utf8View]),
        (&First::of("i").by("x"), &[DataType::Int64, list.clone()]),
        (&Last::of("i").by("x"), &[DataType::Int64, list.clone()]),
        (&Collect::of("x"), std::slice::from_ref(&list)),
        (&ApproxCountDistinct::of("x"), &[DataType::Float64]),
    ];
    for (aggregator, inputs) in refused {
        let error = aggregator.state_type(inputs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("column=`x`"), "{error}");
    }
}

#[test]
fn states_of_another_aggregate_are_refused() {
    let all: [&dyn Aggregator; 15] = [
        &Count::rows(),
        &Sum::of("x"),
        &Mean::of("x"),
        &CountDistinct::of("x"),
        &SumMap::of("x"),
        &TopK::of("x"),
        &Variance::of("x"),
        &StdDev::of("x"),
        &Any::of("x"),
        &All::of("x"),
        &First::of("x").by("y"),
        &Last::of("x").by("y"),
        &Collect::of("x"),
        &Collect::of("x").by("y"),
        &ApproxCountDistinct::of("x"),
    ];
    for aggregator in all {
        assert_eq!(aggregator.output_type(&DataType::Utf8View).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let strings: ArrayRef = Arc::new(StringViewArray::from(vec!["x"]));
    let columns = [Arc::clone(&strings)];
    let segments = Segments::new(&columns, &[0, 1]).unwrap();
    let listed = all.iter().filter(|aggregator| aggregator.definition().name != "sum");
    for aggregator in listed {
        assert_eq!(aggregator.merge(&segments).unwrap_err().kind(), ErrorKind::InvalidInput, "{aggregator:?}");
    }
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_and_one_that_returns_into_its_range_is_not() {
    let sum = |column: ArrayRef| {
        let columns = [column];
        let rows = columns[0].len();
        Sum::of("x").update(&Segments::new(&columns, &[0, rows]).unwrap())
    };
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
    assert_eq!(sum(wide).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let back: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1, -2]));
    assert_eq!(sum(back).unwrap().as_primitive::<Int64Type>().value(0), i64::MAX - 1);
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 0]));
    assert_eq!(sum(unsigned).unwrap().as_primitive::<UInt64Type>().value(0), u64::MAX);
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
    assert_eq!(sum(unsigned).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let digits = Decimal128Array::from(vec![10_i128.pow(38) - 1, 1]).with_precision_and_scale(38, 0).unwrap();
    assert_eq!(sum(Arc::new(digits)).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let weights: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -1]));
    let columns: [ArrayRef; 2] = [Arc::new(Int64Array::from(vec![5, 5])), weights];
    let segments = Segments::new(&columns, &[0, 2]).unwrap();
    let error = SumMap::of("i").weighted_by("x").update(&segments).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn ties_of_a_top_k_go_to_the_lesser_item() {
    let columns: [ArrayRef; 2] = [
        Arc::new(StringViewArray::from(vec!["c", "a", "b", "d", "a"])),
        Arc::new(Int64Array::from(vec![5, 2, 5, 9, 3])),
    ];
    let top = TopK::of("i").weighted_by("w").with_limit(3);
    let states = top.update(&Segments::new(&columns, &[0, 5, 5]).unwrap()).unwrap();
    let results = top.finish(&states).unwrap();
    let list = results.as_list::<i32>();
    let first = list.value(0);
    let items: Vec<_> = first.as_struct().column(0).as_string_view().iter().flatten().map(str::to_owned).collect();
    assert_eq!(items, ["d", "a", "b"]);
    assert_eq!(first.as_struct().column(1).as_primitive::<Int64Type>().values(), &[9, 5, 5]);
    assert!(list.is_valid(1) && list.value(1).is_empty());
    assert!(TopK::of("i").with_limit(0).finish(&states).unwrap().as_list::<i32>().values().is_empty());
}

type Key = Option<i64>;
/// Rows, sum, and sums by item.
type Of = (i64, Option<i64>, BTreeMap<i64, i64>);
/// The same by key, nulls last.
type Expected = BTreeMap<(bool, Key), Of>;

/// A run: sorted keys, an item and a value each.
fn runs() -> impl Strategy<Value = Vec<Vec<(Key, i64, i64)>>> {
    let row = (prop_oneof![9 => (0..6_i64).prop_map(Some), 1 => Just(None)], 0..4_i64, -9..9_i64);
    prop::collection::vec(prop::collection::vec(row, 0..40), 1..5).prop_map(|mut runs| {
        runs.iter_mut().for_each(|run| run.sort_by_key(|(key, ..)| (key.is_none(), *key)));
        runs
    })
}

fn batch(rows: &[(Key, i64, i64)]) -> RecordBatch {
    let fields = ["key", "item", "value"].map(|name| Field::new(name, DataType::Int64, true));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap()
}

fn spec(finished: bool, batch_size: usize) -> AggregateSpec {
    let rows = batch(&[]).schema();
    let aggregates: [(&str, Arc<dyn Aggregator>, Vec<usize>); 3] = [
        ("rows", Arc::new(Count::rows()), vec![]),
        ("sum", Arc::new(Sum::of("value")), vec![2]),
        ("items", Arc::new(SumMap::of("item").weighted_by("value")), vec![1, 2]),
    ];
    let mut states = vec![rows.field(0).clone()];
    let mut bound = vec![];
    for (name, aggregator, columns) in aggregates {
        let types: Vec<DataType> = columns.iter().map(|_| DataType::Int64).collect();
        states.push(Field::new(name, aggregator.state_type(&types).unwrap(), true));
        bound.push(Bound { name: name.into(), aggregator, source: 0, columns });
    }
    let states = Arc::new(Schema::new(states));
    AggregateSpec {
        aggregates: bound,
        key: 1,
        output: finished.then(|| Arc::clone(&states)),
        states,
        source_types: vec![vec![DataType::Int64; 3]],
        batch_size,
    }
}

fn expected(runs: &[Vec<(Key, i64, i64)>]) -> Expected {
    let mut expected = Expected::new();
    for (key, item, value) in runs.iter().flatten() {
        let (rows, sum, items) = expected.entry((key.is_none(), *key)).or_default();
        *rows += 1;
        *sum = Some(sum.unwrap_or(0) + value);
        *items.entry(*item).or_insert(0) += value;
    }
    expected
}

fn read(batches: &[RecordBatch]) -> Vec<((bool, Key), Of)> {
    let mut rows = vec![];
    for batch in batches {
        let column = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        let maps = batch.column(3).as_map();
        for row in 0..batch.num_rows() {
            let key = column(0).is_valid(row).then(|| column(0).value(row));
            let entries = maps.value(row);
            let items = entries.column(0).as_primitive::<Int64Type>().values().iter();
            let sums = entries.column(1).as_primitive::<Int64Type>().values().iter();
            let map = items.copied().zip(sums.copied()).collect();
            let sum = column(2).is_valid(row).then(|| column(2).value(row));
            rows.push(((key.is_none(), key), (column(1).value(row), sum, map)));
        }
    }
    rows
}

fn drive(spec: AggregateSpec, states: bool, inputs: &[RecordBatch], feed: usize) -> Result<Vec<RecordBatch>> {
    let source = SourceInputs {
        schema: inputs.first().map_or_else(|| batch(&[]).schema(), RecordBatch::schema),
        order: vec![0],
        runs: (0..inputs.len()).map(|run| format!("run {run}").into()).collect(),
    };
    let feeding = if states { Feeding::States(source) } else { Feeding::Rows(vec![source]) };
    let mut batches = vec![];
    drive_batches(aggregate_kernel(Arc::new(spec), feeding)?.as_mut(), inputs, feed, |batch| batches.push(batch))?;
    Ok(batches)
}

proptest! {
    #[test]
    fn oracle_aggregates_equal_a_map_of_keys(runs in runs(), feed in 1..20usize, batch_size in 1..20usize) {
        let inputs: Vec<RecordBatch> = runs.iter().map(|run| batch(run)).collect();
        let result = drive(spec(true, batch_size), false, &inputs, feed.min(batch_size)).unwrap();
        let expected: Vec<_> = expected(&runs).into_iter().collect();
        prop_assert_eq!(read(&result), expected);
        prop_assert!(result.iter().all(|batch| batch.num_rows() <= batch_size));
    }

    #[test]
    fn law_partials_of_runs_merge_into_the_whole(runs in runs(), feed in 1..20usize, batch_size in 1..20usize, cut in 0..5usize) {
        let inputs: Vec<RecordBatch> = runs.iter().map(|run| batch(run)).collect();
        let cut = cut.min(inputs.len());
        let partial = |inputs: &[RecordBatch]| -> RecordBatch {
            let states = drive(spec(false, batch_size), false, inputs, feed).unwrap();
            arrow::compute::concat_batches(&spec(false, 1).states, &states).unwrap()
        };
        let partials = [partial(&inputs[..cut]), partial(&inputs[cut..])];
        let result = drive(spec(true, batch_size), true, &partials, feed).unwrap();
        prop_assert_eq!(read(&result), expected(&runs).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_group_of_a_thousand_batches_holds_few_states() {
    let rows: Vec<(Key, i64, i64)> = (0..4096).map(|at| (Some(1), at % 7, 1)).collect();
    let result = drive(spec(true, 8), false, &[batch(&rows)], 4).unwrap();
    assert_eq!(read(&result), expected(&[rows]).into_iter().collect::<Vec<_>>());
}

#[test]
fn rows_out_of_order_are_an_error_with_their_row() {
    let rows = [(Some(1), 0, 0), (Some(1), 0, 0), (Some(3), 0, 0), (Some(2), 0, 0)];
    let error = drive(spec(true, 8), false, &[batch(&rows)], 2).unwrap_err();
    assert_eq!((error.kind(), error.path(), error.row()), (ErrorKind::Unsorted, Some("run 0"), Some(3)));
}

#[test]
fn states_hold_no_batch_that_they_were_made_from() {
    let fields = vec![
        Field::new("key", DataType::Utf8View, true),
        Field::new("item", DataType::Utf8View, true),
        Field::new("text", DataType::Utf8View, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let aggregates: [(&str, Arc<dyn Aggregator>, Vec<usize>); 3] = [
        ("items", Arc::new(SumMap::of("item")), vec![1]),
        ("set", Arc::new(CountDistinct::of("item")), vec![1]),
        ("least", Arc::new(Min::of("text")), vec![2]),
    ];
    let mut states = vec![schema.field(0).clone()];
    let mut bound = vec![];
    for (name, aggregator, columns) in aggregates {
        states.push(Field::new(name, aggregator.state_type(&[DataType::Utf8View]).unwrap(), true));
        bound.push(Bound { name: name.into(), aggregator, source: 0, columns });
    }
    let spec = AggregateSpec {
        aggregates: bound,
        key: 1,
        states: Arc::new(Schema::new(states)),
        output: None,
        source_types: vec![vec![DataType::Utf8View; 3]],
        batch_size: 1024,
    };
    let source = SourceInputs { schema: Arc::clone(&schema), order: vec![0], runs: vec!["run".into()] };
    let mut kernel = aggregate_kernel(Arc::new(spec), Feeding::Rows(vec![source])).unwrap();
    let mut left = 50;
    let states = loop {
        match kernel.step().unwrap() {
            crate::merge::Step::Needs(_) if left == 0 => kernel.finish(0),
            crate::merge::Step::Needs(_) => {
                left -= 1;
                // A batch of 100 KB, of one key and one item.
                let constant = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from(vec![text; 100])) };
                let texts = (0..100).map(|row| format!("{left} {row} {}", "x".repeat(1000)));
                let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
                let columns =
                    vec![constant("a key of more than a view"), constant("an item of more than a view"), texts];
                kernel.push(0, RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
            }
            crate::merge::Step::Item(states) => break states,
            crate::merge::Step::Done => panic!("no states"),
        }
    };
    assert_eq!(states.num_rows(), 1);
    assert_eq!(states["items"].as_map().values().as_primitive::<Int64Type>().values(), &[5000]);
    assert!(states.get_array_memory_size() < 100_000, "{}", states.get_array_memory_size());
}

#[test]
fn sorted_maps_of_an_aggregate_are_states_like_any_other() {
    let columns: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![1, 2, 1]))];
    let made = SumMap::of("x").update(&Segments::new(&columns, &[0, 3]).unwrap()).unwrap();
    let (field, offsets, entries, nulls, _) = made.as_map().clone().into_parts();
    let sorted: ArrayRef = Arc::new(arrow::array::MapArray::try_new(field, offsets, entries, nulls, true).unwrap());
    assert_eq!(&crate::schema::canonical_array(&sorted, made.data_type(), "test").unwrap(), &made);
}
