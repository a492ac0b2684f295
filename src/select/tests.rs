//! Key ranges, key sets and pruning against obvious definitions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray, UInt64Array};
use arrow::datatypes::DataType;
use proptest::prelude::*;

use crate::manifest::{KeyBound, KeyValue};
use crate::predicate::{Comparison, Predicate};
use crate::select::{ColumnStatistics, Coverage, KeyRange, SortedKeys, after, key_hints, may_hold};

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn range(start: Option<i64>, end: Option<i64>) -> KeyRange {
    let range = KeyRange::all();
    let range = if let Some(start) = start { range.starting_at([start]) } else { range };
    if let Some(end) = end { range.below([end]) } else { range }
}

proptest! {
    #[test]
    fn oracle_a_matcher_finds_the_rows_whose_key_is_in_the_set(
        set in prop::collection::vec(0..40_i64, 0..20),
        mut rows in prop::collection::vec(0..40_i64, 0..60),
        cut in 0..60_usize,
    ) {
        rows.sort();
        let keys = SortedKeys::try_new(&[ints(set.clone())]).unwrap();
        let mut matcher = keys.matcher("rows".into());
        let cut = cut.min(rows.len());
        let mut found = vec![];
        // In two batches, so that a key may go on from one to the next.
        for part in [&rows[..cut], &rows[cut..]] {
            found.extend(matcher.matches(&[ints(part.iter().copied())]).unwrap().iter());
        }
        let expected: Vec<bool> = rows.iter().map(|row| set.contains(row)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn oracle_a_stretch_may_have_a_key_if_one_lies_between_its_bounds(
        set in prop::collection::vec(0..40_i64, 0..20),
        (low, width) in (0..40_i64, 0..10_i64),
    ) {
        let keys = SortedKeys::try_new(&[ints(set.clone())]).unwrap();
        let expected = set.iter().any(|key| (low..=low + width).contains(key));
        let found = keys.may_be_within(&ints([low]), &ints([low + width])).unwrap();
        prop_assert_eq!(found.value(0), expected);
        let bound = |value: i64| KeyBound { values: vec![value.into()], exact: true };
        prop_assert_eq!(keys.may_overlap(&bound(low), &bound(low + width)).unwrap(), expected);
    }

    #[test]
    fn oracle_what_a_range_covers_is_what_its_keys_say(
        start in prop::option::of(0..10_i64),
        end in prop::option::of(0..10_i64),
        (low, width) in (0..10_i64, 0..4_i64),
    ) {
        let range = range(start, end);
        let inside = (low..=low + width).filter(|key| range.contains(&[(*key).into()])).count();
        let covers = range.covers(Some(low.into()), Some((low + width).into()));
        match covers {
            Coverage::Nothing => prop_assert_eq!(inside, 0),
            Coverage::Everything => prop_assert_eq!(inside as i64, width + 1),
            Coverage::Something => prop_assert!(inside as i64 <= width, "an exact answer was possible"),
        }
        let sorted = ints(low..=low + width);
        prop_assert_eq!(range.rows_of(&[sorted]).unwrap().len(), inside);
    }

    #[test]
    fn law_a_stretch_that_has_a_row_for_which_a_predicate_holds_may_have_it(
        values in prop::collection::vec(prop::option::of(0..6_i64), 1..8),
        comparison in prop::sample::select(vec![
            Comparison::Eq, Comparison::NotEq, Comparison::Lt, Comparison::LtEq, Comparison::Gt, Comparison::GtEq,
        ]),
        literal in 0..6_i64,
        negated in any::<bool>(),
    ) {
        let known: Vec<i64> = values.iter().flatten().copied().collect();
        let statistics = ColumnStatistics {
            least: Arc::new(Int64Array::from(vec![known.iter().copied().min()])),
            greatest: Arc::new(Int64Array::from(vec![known.iter().copied().max()])),
            nulls: UInt64Array::from(vec![(values.len() - known.len()) as u64]),
            rows: vec![values.len() as u64],
        };
        let compare = Predicate::Compare { column: "v".to_owned(), comparison, literal: literal.into() };
        let predicate = if negated { compare.negate() } else { compare };
        let column: ArrayRef = Arc::new(Int64Array::from(values));
        let batch = arrow::array::RecordBatch::try_from_iter([("v", column)]).unwrap();
        let holds = predicate.evaluate(&batch).unwrap().iter().any(|row| row == Some(true));
        let may = may_hold(&predicate, true, 1, &|_| Some(&statistics)).unwrap().value(0);
        prop_assert!(may || !holds, "{predicate} was left out");
        // With one value only, the answer is exact.
        if known.windows(2).all(|pair| pair[0] == pair[1]) {
            prop_assert_eq!(may, holds, "{} was not left out", predicate);
        }
    }
}

#[test]
fn unknown_statistics_leave_out_nothing() {
    let unknown = ColumnStatistics {
        least: Arc::new(Int64Array::from(vec![None])),
        greatest: Arc::new(Int64Array::from(vec![None])),
        nulls: UInt64Array::from(vec![None]),
        rows: vec![5],
    };
    for predicate in [Predicate::eq("v", 1), Predicate::is_null("v"), Predicate::is_in("v", [1]), Predicate::lt("v", 0)]
    {
        for wanted in [true, false] {
            assert!(may_hold(&predicate, wanted, 1, &|_| Some(&unknown)).unwrap().value(0), "{predicate}");
            assert!(may_hold(&predicate, wanted, 1, &|_| None).unwrap().value(0), "{predicate}");
        }
    }
    let keys = SortedKeys::try_new(&[ints([7])]).unwrap();
    assert!(keys.may_be_within(&unknown.least, &ints([3])).unwrap().value(0));
    assert_eq!(range(Some(3), Some(5)).covers(None, None), Coverage::Something);
}

#[test]
fn composite_keys_are_sorted_distinct_and_without_nulls() {
    let first: ArrayRef = Arc::new(StringViewArray::from(vec![Some("b"), Some("a"), None, Some("b"), Some("a")]));
    let second: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), Some(1), None]));
    let keys = SortedKeys::try_new(&[first, second]).unwrap();
    assert_eq!(keys.len(), 2);
    let rows: Vec<Vec<KeyValue>> = (0..2).map(|row| crate::manifest::key_at(keys.columns(), row).unwrap()).collect();
    assert_eq!(rows, [vec!["a".into(), 2.into()], vec![KeyValue::from("b"), 1.into()]]);
}

#[test]
fn nothing_lies_between_a_key_and_what_comes_after_it() {
    let key = |values: &[KeyValue]| values.to_vec();
    for (before, expected) in [
        (key(&[5.into()]), key(&[6.into()])),
        (key(&["a".into()]), key(&["a\0".into()])),
        (key(&["a".into(), KeyValue::Null]), key(&["a\0".into()])),
        (key(&[false.into()]), key(&[true.into()])),
        (key(&[true.into()]), key(&[KeyValue::Null])),
        (key(&[vec![1_u8].into()]), key(&[vec![1_u8, 0].into()])),
    ] {
        assert_eq!(after(&before), expected);
    }
}

#[test]
fn predicates_on_the_key_become_ranges_and_keys() {
    let key = [("k".to_owned(), DataType::Int32)];
    let hints = |predicate: Predicate| key_hints(&predicate, &key).unwrap();
    let found = hints(Predicate::ge("k", 3).and(Predicate::lt("k", 9)).and(Predicate::eq("v", 1)));
    assert_eq!((found.range, found.keys.len()), (range(Some(3), Some(9)), 0));
    let found = hints(Predicate::eq("k", 3).and(Predicate::is_in("k", [3, 4])));
    assert_eq!((found.range, found.keys.len()), (range(Some(3), Some(4)), 2));
    let found = hints(Predicate::eq("k", 3).or(Predicate::eq("k", 4)));
    assert_eq!((found.range, found.keys.len()), (KeyRange::all(), 0));
}
