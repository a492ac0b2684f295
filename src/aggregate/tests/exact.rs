//! Exact sums against schoolbook arithmetic, bit by bit.

use proptest::prelude::*;

use crate::aggregate::exact::{Accumulator, float};

/// Bit `i` counts 2^(i - 1074).
const BITS: usize = 2200;

/// The sum of finite floats, rounded to the nearest float, ties to even, in the most obvious way.
fn schoolbook(values: &[f64]) -> f64 {
    let mut digits = vec![0_i64; BITS];
    for value in values {
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as usize;
        let mantissa = bits & ((1 << 52) - 1) | u64::from(exponent > 0) << 52;
        for bit in (0..53).filter(|bit| mantissa >> bit & 1 == 1) {
            digits[exponent.max(1) - 1 + bit] += if value.is_sign_negative() { -1 } else { 1 };
        }
    }
    let carry = |digits: &mut [i64]| {
        let mut carry = 0;
        for digit in digits.iter_mut() {
            let sum = *digit + carry;
            (*digit, carry) = (sum & 1, sum >> 1);
        }
        carry < 0
    };
    let negative = carry(&mut digits);
    if negative {
        digits.iter_mut().for_each(|digit| *digit = 1 - *digit);
        digits[0] += 1;
        carry(&mut digits);
    }
    let Some(top) = digits.iter().rposition(|digit| *digit == 1) else { return 0.0 };
    let low = top.saturating_sub(52);
    let mut mantissa = (low..=top).rev().fold(0_u64, |all, at| all << 1 | digits[at] as u64);
    if low > 0 && digits[low - 1] == 1 {
        let above_half = digits[..low - 1].contains(&1);
        mantissa += u64::from(above_half || mantissa & 1 == 1);
    }
    let magnitude = if low + 1 >= 0x7ff - 1 && mantissa >> 53 == 1 || low + 1 >= 0x7ff {
        f64::INFINITY
    } else {
        // Exact: the mantissa has 53 bits or is a power of two, and powers of two are exact.
        let mut value = mantissa as f64;
        let mut exponent = low as i32 - 1074;
        while exponent > 0 {
            value *= 2.0;
            exponent -= 1;
        }
        while exponent < 0 {
            value /= 2.0;
            exponent += 1;
        }
        value
    };
    if negative { -magnitude } else { magnitude }
}

fn parts(values: &[f64]) -> Vec<f64> {
    let mut sum = Accumulator::new();
    values.iter().for_each(|value| sum.add(*value));
    let mut parts = vec![];
    sum.take_parts(&mut parts);
    // Nothing is left over for the next one.
    let mut again = vec![];
    sum.take_parts(&mut again);
    assert!(again.is_empty());
    parts
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Floats of all sizes, and of few, so that they cancel.
fn floats() -> impl Strategy<Value = Vec<f64>> {
    let any = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite());
    let near = (-1000..1000_i32).prop_map(|value| f64::from(value) * 0.1);
    let edges = prop::sample::select(vec![
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        f64::MIN_POSITIVE,
        f64::MAX / 64.0,
        -f64::MAX / 64.0,
        1e16,
        -1e16,
        1.0,
        2.0_f64.powi(-53),
        9007199254740993.0,
    ]);
    prop::collection::vec(prop_oneof![any.prop_map(|value| value / 64.0), near, edges], 0..20)
}

proptest! {
    #[test]
    fn oracle_sums_are_the_nearest_floats_to_what_they_are(mut values in floats(), cancel in any::<bool>()) {
        if cancel {
            let back: Vec<f64> = values.iter().skip(1).map(|value| -value).collect();
            values.extend(back);
        }
        let parts = parts(&values);
        prop_assert_eq!(parts.first().copied().unwrap_or(0.0).to_bits(), schoolbook(&values).to_bits());
        // Each part is the nearest to what is left, and at the end nothing is.
        let mut rest = values.clone();
        for part in &parts {
            prop_assert_eq!(part.to_bits(), schoolbook(&rest).to_bits());
            rest.push(-part);
        }
        prop_assert_eq!(schoolbook(&rest), 0.0);
    }

    #[test]
    fn law_sums_do_not_depend_on_order_or_parts(values in floats(), cut in 0..20usize, rotate in 0..20usize) {
        let whole = parts(&values);
        let mut turned = values.clone();
        turned.rotate_left(rotate % values.len().max(1));
        prop_assert_eq!(bits(&parts(&turned)), bits(&whole));
        let (left, right) = values.split_at(cut.min(values.len()));
        let merged = [parts(right), parts(left)].concat();
        prop_assert_eq!(bits(&parts(&merged)), bits(&whole));
    }

    #[test]
    fn oracle_squares_and_products_are_exact(values in prop::collection::vec(-(1_i64 << 53)..1 << 53, 0..20)) {
        let mut sum = Accumulator::new();
        let mut expected = 0_i128;
        for value in &values {
            sum.add_square(*value as f64);
            sum.subtract_product(*value as f64, 3.0);
            sum.add_times(*value as f64, 1_000_003);
            expected += i128::from(*value) * i128::from(*value) + 1_000_000 * i128::from(*value);
        }
        let (mantissa, exponent) = sum.take_rounded();
        prop_assert_eq!(mantissa * 2.0_f64.powi(exponent), expected as f64);
    }
}

#[test]
fn cancelled_digits_come_back() {
    assert_eq!(parts(&[1e16, 1.0, -1e16]), [1.0]);
    assert_eq!(parts(&[1e16, 1.0]), [1e16, 1.0]);
    assert_eq!(parts(&[1e300, 1.0, 1e-300]), [1e300, 1.0, 1e-300]);
    assert_eq!(parts(&[1e300, 1.0, 1e-300, -1.0, -1e300]), [1e-300]);
    assert_eq!(parts(&[0.1; 10])[0], 1.0);
    // What a sum that is rounded as it goes on says.
    assert_eq!([1e16, 1.0, -1e16].iter().sum::<f64>(), 0.0);
}

#[test]
fn specials_are_one_part() {
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    assert_eq!(bits(&parts(&[-nan, 1.0])), bits(&[-nan]));
    assert_eq!(bits(&parts(&[-nan, nan, 1.0])), bits(&[nan]));
    assert_eq!(bits(&parts(&[infinity, -infinity])), bits(&[-nan]));
    // However it came about.
    assert_eq!(bits(&parts(&[infinity, -infinity, nan])), bits(&[nan]));
    assert_eq!(bits(&parts(&[infinity, -nan, -infinity])), bits(&[-nan]));
    assert_eq!(parts(&[infinity, -1e308]), [infinity]);
    assert_eq!(parts(&[-infinity, 3.0]), [-infinity]);
    assert_eq!(parts(&[f64::MAX, f64::MAX]), [infinity]);
    assert_eq!(parts(&[-f64::MAX, -f64::MAX]), [-infinity]);
    assert_eq!(parts(&[f64::MAX, f64::MAX, -f64::MAX]), [f64::MAX]);
    assert!(parts(&[-0.0]).is_empty());
    assert_eq!(parts(&[f64::MAX, 5e-324]), [f64::MAX, 5e-324]);
    assert_eq!(float(1 << 53, 0), 9007199254740992.0);
    assert_eq!(float(1, -1074), 5e-324);
}

#[test]
fn squares_out_of_range_are_infinite_and_tiny_ones_vanish() {
    let square = |values: &[f64]| {
        let mut sum = Accumulator::new();
        values.iter().for_each(|value| sum.add_square(*value));
        let mut parts = vec![];
        sum.take_parts(&mut parts);
        parts
    };
    assert_eq!(square(&[1e155, 1.0]), [f64::INFINITY]);
    assert_eq!(square(&[-f64::INFINITY]), [f64::INFINITY]);
    assert_eq!(square(&[-3.0, 1e-200]), [9.0]);
    assert_eq!(square(&[2.0_f64.powi(-537)]), [5e-324]);
    assert_eq!(square(&[2.0_f64.powi(511) * 1.5])[0], 2.0_f64.powi(1022) * 2.25);
    // Products beyond the range, of sums that no values have, are infinite and no panic.
    let mut sum = Accumulator::new();
    sum.subtract_product(f64::MAX, f64::MAX);
    assert!(sum.take_rounded().0.is_nan());
    sum.add_times(f64::MAX, u64::MAX);
    let (mantissa, exponent) = sum.take_rounded();
    assert!(mantissa >= 2.0_f64.powi(52) && exponent == 971 + 64);
}
