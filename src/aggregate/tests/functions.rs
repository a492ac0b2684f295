//! What single functions promise: roundings, ties, limits, and states that hold nothing else alive.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use proptest::prelude::*;

use super::*;

/// The results of segments of columns.
fn results(aggregator: &dyn Aggregator, columns: &[ArrayRef], offsets: &[usize]) -> ArrayRef {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let states = aggregator.update(&Segments::new(columns, offsets).unwrap()).unwrap();
    assert_eq!(*states.data_type(), aggregator.state_type(&types).unwrap());
    let results = aggregator.finish(&states).unwrap();
    assert_eq!(*results.data_type(), aggregator.output_type(states.data_type()).unwrap());
    results
}

fn float(aggregator: &dyn Aggregator, values: &[f64]) -> Option<f64> {
    let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let results = results(aggregator, &[column], &[0, values.len()]);
    let results = results.as_primitive::<Float64Type>();
    results.is_valid(0).then(|| results.value(0))
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[test]
fn sums_of_floats_are_rounded_once() {
    let all = [0.1; 10];
    assert_eq!(float(&Sum::of("x"), &all), Some(1.0));
    assert_ne!(all.iter().sum::<f64>(), 1.0);
    assert_eq!(float(&Sum::of("x"), &[1e16, 1.0, -1e16]), Some(1.0));
    assert_eq!(float(&Mean::of("x"), &[1e16, 2.0, -1e16, 0.0]), Some(0.5));
    assert_eq!(float(&Sum::of("x"), &[-0.0]).map(f64::to_bits), Some(0));
    assert_eq!(float(&Sum::of("x"), &[]), None);
    assert_eq!(float(&Mean::of("x"), &[]), None);
    assert_eq!(float(&Sum::of("x"), &[f64::MAX, f64::MAX]), Some(f64::INFINITY));
    // By item as well, whatever lies between.
    let columns = [ints(&[1, 2, 1, 2, 1]), Arc::new(Float64Array::from(vec![1e16, 3.0, 1.0, 0.5, -1e16])) as ArrayRef];
    let maps = results(&SumMap::of("i").weighted_by("x"), &columns, &[0, 5]);
    assert_eq!(maps.as_map().values().as_primitive::<Float64Type>().values(), &[1.0, 3.5]);
    let top = results(&TopK::of("i").weighted_by("x").with_limit(1), &columns, &[0, 5]);
    assert_eq!(top.as_list::<i32>().values().as_struct().column(1).as_primitive::<Float64Type>().values(), &[3.5]);
}

#[test]
fn variances_of_few_values_are_those_of_sql() {
    let (sample, population) = (Variance::of("x"), Variance::of("x").population());
    assert_eq!((float(&sample, &[]), float(&population, &[])), (None, None));
    assert_eq!((float(&sample, &[7.0]), float(&population, &[7.0])), (None, Some(0.0)));
    assert_eq!((float(&sample, &[1.0, 3.0]), float(&population, &[1.0, 3.0])), (Some(2.0), Some(1.0)));
    assert_eq!(float(&StdDev::of("x"), &[1.0, 3.0]), Some(2_f64.sqrt()));
    assert_eq!(float(&StdDev::of("x").population(), &[1.0, 3.0]), Some(1.0));
    // Where a sum of squares that is rounded, or a mean, has no digit left.
    assert_eq!(float(&population, &[0.1; 7]), Some(0.0));
    assert_eq!(float(&sample, &[1e16, 1e16 + 2.0]), Some(2.0));
    assert_eq!(float(&sample, &[1e150, 1e150 * (1.0 + f64::EPSILON)]).map(f64::is_finite), Some(true));
    let tiny = float(&population, &[0.0, 2e-150]).unwrap();
    assert!((tiny / 1e-300 - 1.0).abs() < 1e-15, "{tiny}");
    for values in [[f64::NAN, 1.0], [f64::INFINITY, 1.0], [1e200, 1.0]] {
        assert!(float(&sample, &values).unwrap().is_nan());
    }
    let decimals = Decimal128Array::from(vec![Some(150), None, Some(450)]).with_precision_and_scale(10, 2).unwrap();
    let found = results(&population, &[Arc::new(decimals)], &[0, 3]);
    assert_eq!(found.as_primitive::<Float64Type>().values(), &[2.25]);
    let found = results(&population, &[ints(&[i64::MAX, i64::MIN])], &[0, 2]);
    assert_eq!(found.as_primitive::<Float64Type>().values(), &[2_f64.powi(126)]);
    // One layout of states.
    assert_eq!(sample.definition(), StdDev::of("x").population().definition());
}

proptest! {
    #[test]
    fn oracle_variances_equal_those_of_differences(
        base in prop::sample::select(vec![0.0, 1.0, -1e6, 1e9, 1e15]),
        values in prop::collection::vec(-1000..1000_i32, 2..30),
    ) {
        let values: Vec<f64> = values.iter().map(|value| base + f64::from(*value) * 0.125).collect();
        // Differences of such values are exact, and so are their squares and the sum of them.
        let squares: f64 = values.iter().flat_map(|a| values.iter().map(move |b| (a - b) * (a - b))).sum();
        let n = values.len() as f64;
        let expected = squares / 2.0 / n / (n - 1.0);
        let found = float(&Variance::of("x"), &values).unwrap();
        prop_assert!((found - expected).abs() <= 4.0 * f64::EPSILON * expected, "{} {}", found, expected);
    }
}

#[test]
fn quantifiers_know_nulls_and_nothing() {
    let column: ArrayRef = Arc::new(BooleanArray::from(vec![
        Some(true),
        None,
        Some(true),
        Some(false),
        None,
        Some(true),
        None,
        Some(false),
        Some(false),
    ]));
    let offsets = [0, 3, 4, 5, 7, 7, 9];
    let found = |aggregator: &dyn Aggregator| -> Vec<Option<bool>> {
        results(aggregator, std::slice::from_ref(&column), &offsets).as_boolean().iter().collect()
    };
    assert_eq!(found(&Any::of("x")), [Some(true), Some(false), None, Some(true), None, Some(false)]);
    assert_eq!(found(&All::of("x")), [Some(true), Some(false), None, Some(true), None, Some(false)]);
    let mixed = [Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef];
    assert!(results(&Any::of("x"), &mixed, &[0, 2]).as_boolean().value(0));
    assert!(!results(&All::of("x"), &mixed, &[0, 2]).as_boolean().value(0));
}

#[test]
fn first_and_last_break_ties_by_value_and_leave_out_nulls() {
    let values: ArrayRef =
        Arc::new(StringViewArray::from(vec![Some("b"), Some("a"), None, Some("z"), Some("y"), Some("x")]));
    let times: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(0), Some(2), Some(2), None]));
    let found = |aggregator: &dyn Aggregator, columns: [&ArrayRef; 2]| -> Vec<Option<String>> {
        let results = results(aggregator, &columns.map(Arc::clone), &[0, 6, 6]);
        results.as_string_view().iter().map(|value| value.map(str::to_owned)).collect()
    };
    assert_eq!(found(&First::of("v").by("t"), [&values, &times]), [Some("a".to_owned()), None]);
    assert_eq!(found(&Last::of("v").by("t"), [&values, &times]), [Some("z".to_owned()), None]);
    // Values without an order of keys; a struct keeps what is null in it.
    let fields = vec![Field::new("v", DataType::Utf8View, true)];
    let structs: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![Arc::clone(&values)], None));
    let first = results(&First::of("v").by("t"), &[Arc::clone(&structs), Arc::clone(&times)], &[0, 6]);
    assert!(first.is_valid(0) && first.as_struct().column(0).is_null(0));
    let last = results(&Last::of("v").by("t"), &[structs, times], &[0, 6]);
    assert_eq!(last.as_struct().column(0).as_string_view().value(0), "z");
}

#[test]
fn a_collection_is_the_first_of_an_order_and_no_longer_than_its_limit() {
    let columns = [ints(&[5, 3, 5, 1, 4, 2]), ints(&[0, 9, 1, 1, 7, 7])];
    let found = |aggregator: &Collect, columns: &[ArrayRef]| -> Vec<Vec<i64>> {
        let lists = results(aggregator, columns, &[0, 4, 4, 6]);
        lists.as_list::<i32>().iter().map(|list| list.unwrap().as_primitive::<Int64Type>().values().to_vec()).collect()
    };
    let one = &columns[..1];
    assert_eq!(found(&Collect::of("x"), one), [vec![1, 3, 5, 5], vec![], vec![2, 4]]);
    assert_eq!(found(&Collect::of("x").with_limit(2), one), [vec![1, 3], vec![], vec![2, 4]]);
    assert_eq!(found(&Collect::of("x").descending().with_limit(3), one), [vec![5, 5, 3], vec![], vec![4, 2]]);
    assert_eq!(found(&Collect::of("x").with_limit(0), one), [vec![], vec![], vec![]] as [Vec<i64>; 3]);
    assert_eq!(found(&Collect::of("x").by("y"), &columns), [vec![5, 1, 5, 3], vec![], vec![2, 4]]);
    let last = Collect::of("x").by("y").descending().with_limit(1);
    assert_eq!(found(&last, &columns), [vec![3], vec![], vec![4]]);
    // What was left out cannot come back, so both are parts of the definition.
    let definitions =
        [Collect::of("x"), Collect::of("x").with_limit(5), Collect::of("x").descending(), Collect::of("x").by("y")];
    for (at, one) in definitions.iter().enumerate() {
        assert!(definitions[at + 1..].iter().all(|other| other.definition() != one.definition()));
    }
}

#[test]
fn states_of_nested_values_hold_no_batch_either() {
    let texts: ArrayRef =
        Arc::new(StringViewArray::from_iter_values((0..1000).map(|at| format!("{at} {}", "x".repeat(1000)))));
    let structs: ArrayRef =
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("a", DataType::Utf8View, true)), texts)]));
    let lists: ArrayRef = {
        let item = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([10; 100]);
        Arc::new(arrow::array::ListArray::new(item, offsets, structs, None))
    };
    let times = ints(&(0..100).collect::<Vec<_>>());
    let columns = [lists, times];
    let segments = Segments::new(&columns, &[0, 100]).unwrap();
    let aggregators: [&dyn Aggregator; 3] =
        [&First::of("v").by("t"), &Last::of("v").by("t"), &Collect::of("v").by("t").with_limit(2)];
    for aggregator in aggregators {
        let state = aggregator.update(&segments).unwrap();
        assert!(state.get_array_memory_size() < 100_000, "{aggregator:?}: {}", state.get_array_memory_size());
    }
}
