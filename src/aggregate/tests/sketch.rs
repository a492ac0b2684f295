//! The error of sketches against exact counts, and their bytes: known, canonical, checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, Int64Array, StringViewArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{HllSketch, HllType};
use proptest::prelude::*;

use super::*;

fn states(sketch: &ApproxCountDistinct, column: ArrayRef, offsets: &[usize]) -> ArrayRef {
    sketch.update(&Segments::new(&[column], offsets).unwrap()).unwrap()
}

fn merged(sketch: &ApproxCountDistinct, states: &ArrayRef) -> ArrayRef {
    let columns = [Arc::clone(states)];
    sketch.merge(&Segments::new(&columns, &[0, states.len()]).unwrap()).unwrap()
}

fn estimates(sketch: &ApproxCountDistinct, states: &ArrayRef) -> Vec<i64> {
    sketch.finish(states).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// Numbers that differ for different seeds, each of `count` once.
fn numbers(seed: i64, count: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(
        (0..count).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) ^ (seed << 40)),
    ))
}

fn state_bytes(states: &ArrayRef) -> &[u8] {
    assert_eq!(states.len(), 1);
    states.as_binary_view().value(0)
}

/// The root of the mean square of relative errors over seeds, and the greatest error.
fn errors(precision: u8, count: i64, seeds: i64) -> (f64, f64) {
    let sketch = ApproxCountDistinct::of("x").with_precision(precision);
    let error = |seed| -> f64 {
        // Parts that overlap, merged: as weeks are.
        let numbers = numbers(seed, count);
        let rows = count as usize;
        let halves =
            [states(&sketch, Arc::clone(&numbers), &[0, rows / 2]), states(&sketch, numbers, &[rows / 3, rows])];
        let both = arrow::compute::concat(&[halves[0].as_ref(), halves[1].as_ref()]).unwrap();
        let found = estimates(&sketch, &merged(&sketch, &both))[0];
        (found - count) as f64 / count as f64
    };
    let errors: Vec<f64> = (0..seeds).map(error).collect();
    let square: f64 = errors.iter().map(|error| error * error).sum();
    ((square / seeds as f64).sqrt(), errors.iter().fold(0.0, |most, error| error.abs().max(most)))
}

#[test]
fn counts_are_exact_while_there_are_few() {
    let sketch = ApproxCountDistinct::of("x");
    for count in [0, 1, 2, 7, 8, 24, 25, 100, 250] {
        for seed in 0..10 {
            let state = states(&sketch, numbers(seed, count), &[0, count as usize]);
            assert_eq!(estimates(&sketch, &state), [count], "seed {seed}");
        }
    }
    // Up to the last one, but for collisions.
    let found: i64 =
        (0..50).map(|seed| 384 - estimates(&sketch, &states(&sketch, numbers(seed, 384), &[0, 384]))[0]).sum();
    assert!((0..=2).contains(&found), "{found}");
}

#[test]
fn errors_are_within_what_is_stated() {
    for (precision, count, seeds) in [
        (12, 385, 100),
        (12, 1_000, 100),
        (12, 3_000, 100),
        (12, 10_000, 60),
        (12, 20_000, 40),
        (12, 100_000, 20),
        (12, 1_000_000, 3),
        (8, 25, 200),
        (8, 100, 200),
        (8, 700, 200),
        (8, 50_000, 40),
        (16, 100_000, 10),
        (16, 300_000, 5),
    ] {
        let (mean, greatest) = errors(precision, count, seeds);
        let stated = 1.04 / f64::from(1 << precision).sqrt();
        // The mean square of n errors itself has an error of about 1/√2n: three of those.
        let spread = 1.0 + 3.0 / (2.0 * seeds as f64).sqrt();
        assert!(mean <= stated * spread, "precision {precision}, {count} values: {mean} of {stated}");
        assert!(greatest <= 4.0 * stated, "precision {precision}, {count} values: {greatest} of {stated}");
    }
}

#[test]
fn states_are_as_small_as_stated() {
    let sketch = ApproxCountDistinct::of("x");
    let size = |count: i64| state_bytes(&states(&sketch, numbers(1, count), &[0, count as usize])).len();
    assert_eq!([0, 1, 7, 8, 384, 385].map(size), [8, 12, 36, 44, 12 + 4 * 384, 4136]);
    let sketch = ApproxCountDistinct::of("x").with_precision(8);
    let size = |count: i64| state_bytes(&states(&sketch, numbers(1, count), &[0, count as usize])).len();
    assert_eq!([24, 25, 1000].map(size), [108, 296, 296]);
}

#[test]
fn bytes_are_known() {
    let sketch = ApproxCountDistinct::of("x");
    let strings: ArrayRef = Arc::new(StringViewArray::from(vec!["Naima", "Spain"]));
    let hex = |state: &ArrayRef| state_bytes(state).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&states(&sketch, strings, &[0, 2])), "0201070c03080208345cfd049218db07");
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![34, -1]));
    assert_eq!(hex(&states(&sketch, ints, &[0, 2])), "0201070c03080208d964e70baa738716");
    // The value counts, not its layout.
    for same in [
        Arc::new(arrow::array::Int32Array::from(vec![34, -1])) as ArrayRef,
        Arc::new(Int8Array::from(vec![-1, 34])),
        Arc::new(TimestampMillisecondArray::from(vec![34, -1])),
        Arc::new(arrow::array::Date32Array::from(vec![34, -1])),
    ] {
        assert_eq!(hex(&states(&sketch, same, &[0, 2])), "0201070c03080208d964e70baa738716");
    }
}

#[test]
fn other_readers_of_the_format_get_the_same_sketch() {
    for count in [0, 3, 7, 8, 30, 384, 385, 5000] {
        let sketch = ApproxCountDistinct::of("x");
        let state = states(&sketch, numbers(3, count), &[0, count as usize]);
        let read = HllSketch::deserialize(state_bytes(&state)).unwrap();
        let mut own = HllSketch::new(12, HllType::Hll8).unwrap();
        for value in numbers(3, count).as_primitive::<Int64Type>().values() {
            own.update(raw_bytes::from_slice(&value.to_le_bytes()));
        }
        assert_eq!(read.composite_estimate(), own.composite_estimate());
        assert_eq!(read.estimate().round() as i64, estimates(&sketch, &state)[0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn law_merged_sketches_are_those_of_all_rows(
        parts in prop::collection::vec((0..3000_i64, 0..900_i64), 1..5),
        precision in 8..=12_u8,
    ) {
        let sketch = ApproxCountDistinct::of("x").with_precision(precision);
        let of = |values: Vec<i64>| { let rows = values.len(); states(&sketch, Arc::new(Int64Array::from(values)), &[0, rows]) };
        let all: Vec<i64> = parts.iter().flat_map(|(from, count)| *from..from + count).collect();
        let whole = of(all.clone());
        let states: Vec<ArrayRef> = parts.iter().map(|(from, count)| of((*from..from + count).collect())).collect();
        let states: Vec<&dyn Array> = states.iter().map(AsRef::as_ref).collect();
        let joined = merged(&sketch, &arrow::compute::concat(&states).unwrap());
        prop_assert_eq!(state_bytes(&joined), state_bytes(&whole));
        // In the order of values, backwards, each once.
        let distinct: BTreeSet<i64> = all.into_iter().collect();
        let sorted = of(distinct.iter().rev().copied().collect());
        prop_assert_eq!(state_bytes(&sorted), state_bytes(&whole));
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_sketch_but_never_a_panic(
        count in prop::sample::select(vec![0_i64, 1, 5, 7, 8, 40, 384, 385, 2000]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        more in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let sketch = ApproxCountDistinct::of("x");
        let state = states(&sketch, numbers(2, count), &[0, count as usize]);
        let mut bytes = state_bytes(&state).to_vec();
        for (at, byte) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(&more);
        let changed = bytes != state_bytes(&state);
        let damaged: ArrayRef = Arc::new(BinaryViewArray::from_iter_values([&bytes]));
        for result in [sketch.finish(&damaged), {
            let columns = [Arc::new(BinaryViewArray::from_iter_values([bytes.as_slice(), state_bytes(&state)])) as ArrayRef];
            sketch.merge(&Segments::new(&columns, &[0, 2]).unwrap())
        }] {
            match result {
                Ok(_) => {}
                Err(error) => {
                    prop_assert!(changed);
                    prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
                    prop_assert!(error.to_string().contains("approx_count_distinct"));
                }
            }
        }
    }
}

#[test]
fn what_no_sketch_can_be_is_corrupt() {
    let sketch = ApproxCountDistinct::of("x");
    let of = |count: i64| state_bytes(&states(&sketch, numbers(2, count), &[0, count as usize])).to_vec();
    let edit = |count, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = of(count);
        edit(&mut bytes);
        bytes
    };
    let cases = [
        vec![],
        edit(0, &|bytes| bytes[2] = 8),
        edit(3, &|bytes| bytes.truncate(19)),
        edit(3, &|bytes| bytes.extend([0; 4])),
        edit(3, &|bytes| bytes.copy_within(8..12, 12)),
        edit(3, &|bytes| bytes[8..12].fill(0)),
        edit(3, &|bytes| bytes[3] = 11),
        edit(9, &|bytes| bytes[8] = 10),
        edit(9, &|bytes| bytes[4] = 6),
        edit(385, &|bytes| bytes[100] = 64),
        edit(385, &|bytes| bytes.truncate(4000)),
        edit(385, &|bytes| bytes[3] = 13),
    ];
    for bytes in cases {
        let damaged: ArrayRef = Arc::new(BinaryViewArray::from_iter_values([&bytes]));
        assert_eq!(sketch.finish(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
        let columns = [damaged];
        let error = sketch.merge(&Segments::new(&columns, &[0, 1]).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bytes:?}");
    }
    // Registers and what was derived from them do not fit together.
    for at in [9, 20, 30, 33] {
        let bytes = edit(385, &|bytes| bytes[at] ^= 1);
        let damaged: ArrayRef = Arc::new(BinaryViewArray::from_iter_values([&bytes]));
        assert_eq!(sketch.finish(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
    }
    // Another precision is another definition, and refused before that.
    assert_ne!(sketch.definition(), sketch.clone().with_precision(11).definition());
    for precision in [0, 7, 17, 255] {
        let sketch = sketch.clone().with_precision(precision);
        assert_eq!(sketch.state_type(&[DataType::Int64]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(sketch.output_type(&DataType::BinaryView).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
