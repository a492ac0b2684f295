//! Exact sums of floats: an integer wide enough for every one of them, and sums as short lists of floats.
//!
//! Floating-point addition is not associative, so a sum that is rounded as it goes on depends on how rows were divided into runs, weeks and
//! batches; a compensated sum does so less often, but still does. Here nothing is rounded before the end: an [`Accumulator`] is an integer that
//! counts units of the least float, and what is stored is its value as a list of floats, each the nearest to what the ones before it leave.
//! The list is determined by the sum alone, mostly one to three floats long, and its first float is the correctly rounded sum.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};

use crate::aggregate::items::list_offsets;
use crate::aggregate::segments::{inner_offsets, not_state_type};
use crate::aggregate::{Segments, count};
use crate::error::Result;

/// Of `2^-OFFSET` there are as many as bit 0 of limb 0 says: less than the square of the least float.
const OFFSET: i32 = 2240;

/// Up to 2^1216: room for the square of a sum of which the mean square is finite, with any number of rows.
const LIMBS: usize = 108;

/// Such that the least and the greatest limb that is used from then on replace its ends.
const NO_LIMBS: Range<usize> = Range { start: LIMBS, end: 0 };

/// A value is spread over this many limbs at most: 128 bits, shifted by up to 31.
const SPREAD: usize = 5;

/// So many values of 32 bits never fill a limb of 64.
const ROUND: u32 = 1 << 30;

const MANTISSA: u64 = (1 << 52) - 1;

/// A sum of floats and of products of floats, without rounding.
#[derive(Debug)]
pub(super) struct Accumulator {
    /// Digits to the base 2^32, the least first; each may hold more, of either sign, until they are settled.
    limbs: [i64; LIMBS],
    /// The limbs that may not be zero.
    used: Range<usize>,
    /// How many values may still be added before limbs must be settled.
    room: u32,
    /// Negative and positive NaN.
    nan: [bool; 2],
    /// Negative and positive infinity.
    infinite: [bool; 2],
}

impl Accumulator {
    pub(super) fn new() -> Self {
        Self { limbs: [0; LIMBS], used: NO_LIMBS, room: ROUND, nan: [false; 2], infinite: [false; 2] }
    }

    fn clear(&mut self) {
        if !self.used.is_empty() {
            self.limbs[self.used.clone()].fill(0);
        }
        (self.used, self.room, self.nan, self.infinite) = (NO_LIMBS, ROUND, [false; 2], [false; 2]);
    }

    /// Adds `magnitude` × 2^`exponent`, or subtracts it.
    #[inline]
    fn add_scaled(&mut self, negative: bool, magnitude: u128, exponent: i32) {
        let position = exponent + OFFSET;
        let first = (position >> 5) as usize;
        let Some(limbs) = self.limbs.get_mut(first..first.wrapping_add(SPREAD)) else {
            self.infinite[usize::from(!negative)] = true;
            return;
        };
        let shift = position & 31;
        let low = magnitude << shift;
        // The bits that a shift to the left loses; in two steps, since a shift by 128 is none.
        let high = (magnitude >> 1 >> (127 - shift)) as i64;
        let sign = if negative { -1 } else { 1 };
        for (at, limb) in limbs[..SPREAD - 1].iter_mut().enumerate() {
            *limb += sign * i64::from((low >> (32 * at)) as u32);
        }
        limbs[SPREAD - 1] += sign * high;
        self.used = self.used.start.min(first)..self.used.end.max(first + SPREAD);
        self.room -= 1;
        if self.room == 0 {
            self.settle();
        }
    }

    /// Adds a float.
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        match Finite::of(value) {
            Some(value) => {
                // The same as `add_scaled`, with what is known of 53 bits.
                let position = value.exponent + OFFSET;
                let first = (position >> 5) as usize;
                let wide = u128::from(value.mantissa) << (position & 31);
                let sign = if value.negative { -1 } else { 1 };
                for (at, limb) in self.limbs[first..first + 3].iter_mut().enumerate() {
                    *limb += sign * i64::from((wide >> (32 * at)) as u32);
                }
                self.used = self.used.start.min(first)..self.used.end.max(first + 3);
                self.room -= 1;
                if self.room == 0 {
                    self.settle();
                }
            }
            None if value.is_nan() => self.nan[usize::from(value.is_sign_positive())] = true,
            None => self.infinite[usize::from(value > 0.0)] = true,
        }
    }

    /// Adds the square of a float, what is less than the least float cut off; that of 2^512 and more is infinite.
    #[inline]
    pub(super) fn add_square(&mut self, value: f64) {
        match Finite::of(value) {
            Some(_) if value.abs() >= SQUARE_LIMIT => self.infinite[1] = true,
            Some(value) => {
                let square = u128::from(value.mantissa) * u128::from(value.mantissa);
                let exponent = 2 * value.exponent;
                let below = LEAST - exponent;
                if below > 0 {
                    self.add_scaled(false, square.checked_shr(below.unsigned_abs()).unwrap_or(0), LEAST);
                } else {
                    self.add_scaled(false, square, exponent);
                }
            }
            None if value.is_nan() => self.nan[1] = true,
            None => self.infinite[1] = true,
        }
    }

    /// Adds the product of a float and a count.
    pub(super) fn add_times(&mut self, value: f64, count: u64) {
        match Finite::of(value) {
            Some(value) => {
                self.add_scaled(value.negative, u128::from(value.mantissa) * u128::from(count), value.exponent);
            }
            None => self.nan[1] = true,
        }
    }

    /// Subtracts the product of two floats.
    pub(super) fn subtract_product(&mut self, a: f64, b: f64) {
        match (Finite::of(a), Finite::of(b)) {
            (Some(a), Some(b)) => {
                let product = u128::from(a.mantissa) * u128::from(b.mantissa);
                self.add_scaled(a.negative == b.negative, product, a.exponent + b.exponent);
            }
            _ => self.nan[1] = true,
        }
    }

    /// Carries: afterwards limbs have 32 bits each, but for the last used one, which has the sign.
    fn settle(&mut self) {
        self.room = ROUND;
        let mut carry = 0;
        let mut at = self.used.start;
        while let Some(limb) = self.limbs.get_mut(at) {
            if at >= self.used.end && (carry == 0 || carry == -1) {
                break;
            }
            *limb += carry;
            carry = *limb >> 32;
            *limb &= 0xffff_ffff;
            at += 1;
        }
        self.used.end = self.used.end.max(at);
        if carry < 0
            && let Some(last) = at.checked_sub(1).and_then(|at| self.limbs.get_mut(at))
        {
            *last -= 1 << 32;
        }
        while !self.used.is_empty() && self.limbs[self.used.end - 1] == 0 {
            self.used.end -= 1;
        }
        // -1 before other limbs is the sign and nothing else.
        while self.used.len() > 1 && self.limbs[self.used.end - 1] == -1 {
            self.limbs[self.used.end - 1] = 0;
            self.used.end -= 1;
            self.limbs[self.used.end - 1] -= 1 << 32;
        }
    }

    /// Leaves the absolute value; whether it was negative.
    fn take_sign(&mut self) -> bool {
        self.settle();
        let negative = !self.used.is_empty() && self.limbs[self.used.end - 1] < 0;
        if negative {
            self.limbs[self.used.clone()].iter_mut().for_each(|limb| *limb = -*limb);
            self.settle();
        }
        negative
    }

    /// The value, which is settled and not negative, rounded to 53 bits, ties to even: a mantissa of 53 bits (or 2^53) and an exponent. `None` is zero.
    fn leading(&self) -> Option<(u64, i32)> {
        let top = self.used.end.checked_sub(1).filter(|top| self.limbs[*top] > 0)?;
        // The first limb's offset leaves two limbs below every value.
        let low = top.saturating_sub(2);
        let bits = self.limbs[low..=top]
            .iter()
            .rev()
            .fold(0_u128, |bits, limb| (bits << 32) | u128::from(limb.unsigned_abs()));
        let drop = (128 - bits.leading_zeros()).saturating_sub(53);
        let exponent = 32 * low as i32 - OFFSET;
        if drop == 0 {
            // Not so large that anything could be below.
            return Some((bits as u64, exponent));
        }
        let mantissa = (bits >> drop) as u64;
        let (rest, half) = (bits & ((1 << drop) - 1), 1 << (drop - 1));
        let below = || self.limbs[self.used.start.min(low)..low].iter().any(|limb| *limb != 0);
        let up = rest > half || rest == half && (mantissa & 1 == 1 || below());
        Some((mantissa + u64::from(up), exponent + drop as i32))
    }

    /// The value as floats, each the nearest to what the ones before leave, and zero again. NaN and infinities are one float; so is a sum beyond the range of floats, which is infinite.
    pub(super) fn take_parts(&mut self, parts: &mut Vec<f64>) {
        let first = parts.len();
        if self.nan[1] {
            parts.push(f64::NAN);
        } else if self.nan[0] || self.infinite == [true; 2] {
            // One of these must win over the other, or it would matter what was added first.
            parts.push(-f64::NAN);
        } else if self.infinite[1] {
            parts.push(f64::INFINITY);
        } else if self.infinite[0] {
            parts.push(f64::NEG_INFINITY);
        } else {
            let mut negative = self.take_sign();
            while let Some((mantissa, exponent)) = self.leading() {
                let part = float(mantissa, exponent);
                let signed = if negative { -part } else { part };
                if part.is_infinite() {
                    parts.truncate(first);
                    parts.push(signed);
                    break;
                }
                parts.push(signed);
                self.add(-part);
                negative ^= self.take_sign();
            }
        }
        self.clear();
    }

    /// The value as a float's mantissa and exponent, so that it may lie beyond the range of floats: value = mantissa × 2^exponent. Zero again
    /// afterwards. NaN for all that is not a number.
    pub(super) fn take_rounded(&mut self) -> (f64, i32) {
        let rounded = if self.nan.contains(&true) || self.infinite.contains(&true) {
            (f64::NAN, 0)
        } else {
            let negative = self.take_sign();
            let (mantissa, exponent) = self.leading().unwrap_or((0, 0));
            (if negative { -(mantissa as f64) } else { mantissa as f64 }, exponent)
        };
        self.clear();
        rounded
    }
}

/// The exponent of the least float.
const LEAST: i32 = -1074;

/// 2^512, the least power of two whose square is no float.
const SQUARE_LIMIT: f64 = float(1 << 52, 460);

/// A finite float: mantissa × 2^exponent.
struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl Finite {
    #[inline]
    fn of(value: f64) -> Option<Self> {
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32;
        if exponent == 0x7ff {
            return None;
        }
        // Floats without a leading one have the exponent of the least ones that have it.
        let leading = u64::from(exponent != 0) << 52;
        Some(Self {
            negative: value.is_sign_negative(),
            mantissa: (bits & MANTISSA) | leading,
            exponent: exponent.max(1) + (LEAST - 1),
        })
    }
}

/// The float mantissa × 2^exponent, which is not between floats: the mantissa has 53 bits or is 2^53, or the value is a multiple of the least float.
pub(super) const fn float(mantissa: u64, exponent: i32) -> f64 {
    let (mantissa, exponent) = if exponent < LEAST {
        let shift = LEAST - exponent;
        (if shift < 64 { mantissa >> shift } else { 0 }, LEAST)
    } else if mantissa == (MANTISSA + 1) << 1 {
        (mantissa >> 1, exponent + 1)
    } else {
        (mantissa, exponent)
    };
    let biased = exponent - LEAST + 1;
    if mantissa <= MANTISSA {
        f64::from_bits(mantissa)
    } else if biased >= 0x7ff {
        f64::INFINITY
    } else {
        f64::from_bits(((biased as u64) << 52) | (mantissa & MANTISSA))
    }
}

/// Lists of floats in the making: exact sums, one after the other.
#[derive(Debug, Default)]
pub(super) struct SumLists {
    parts: Vec<f64>,
    ends: Vec<usize>,
}

impl SumLists {
    pub(super) fn with_capacity(lists: usize) -> Self {
        let mut ends = Vec::with_capacity(lists + 1);
        ends.push(0);
        Self { parts: Vec::with_capacity(lists), ends }
    }

    /// The sum of an accumulator, which is zero afterwards.
    pub(super) fn push(&mut self, sum: &mut Accumulator) {
        sum.take_parts(&mut self.parts);
        self.ends.push(self.parts.len());
    }

    /// One list per push; `nulls` says which of them are null.
    ///
    /// # Errors
    /// As [`list_offsets`].
    pub(super) fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let parts = Arc::new(Float64Array::from(self.parts));
        Ok(Arc::new(ListArray::try_new(part_field(), list_offsets(&self.ends)?, parts, nulls)?))
    }
}

fn part_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, true))
}

/// The type of exact sums.
pub(super) fn sum_list_type() -> DataType {
    DataType::List(part_field())
}

/// Exact sums that were stored.
pub(super) fn sum_lists<'a>(column: &'a ArrayRef, function: &str) -> Result<&'a ListArray> {
    match column.as_list_opt::<i32>() {
        Some(lists) if lists.value_type() == DataType::Float64 => Ok(lists),
        _ => Err(not_state_type(function, column.data_type())),
    }
}

/// The sums of lists of parts, as floats: the first part is the rounded sum.
pub(super) fn rounded(lists: &ListArray) -> Float64Array {
    let parts = lists.values().as_primitive::<Float64Type>().values();
    let first = |ends: &[i32]| if ends[0] < ends[1] { parts[ends[0] as usize] } else { 0.0 };
    let sums: Vec<f64> = lists.offsets().windows(2).map(first).collect();
    Float64Array::new(sums.into(), lists.nulls().cloned())
}

/// Per segment of a column of floats, the exact sum of its values; null where there are none.
pub(super) fn sums_of_values(segments: &Segments<'_>, values: &Float64Array) -> Result<ArrayRef> {
    let counts = count::values(segments, Some(&(Arc::new(values.clone()) as ArrayRef)));
    let mut sum = Accumulator::new();
    let mut lists = SumLists::with_capacity(segments.len());
    for rows in segments.ranges() {
        match values.nulls() {
            None => values.values()[rows].iter().for_each(|value| sum.add(*value)),
            Some(nulls) => {
                rows.filter(|row| nulls.is_valid(*row)).for_each(|row| sum.add(values.value(row)));
            }
        }
        lists.push(&mut sum);
    }
    lists.finish(some(&counts))
}

/// Per segment of a column of exact sums, their exact sum; null where all are.
pub(super) fn sums_of_lists(segments: &Segments<'_>, lists: &ListArray) -> Result<ArrayRef> {
    let counts = count::values(segments, Some(&(Arc::new(lists.clone()) as ArrayRef)));
    let parts = lists.values().as_primitive::<Float64Type>().values();
    let mut sum = Accumulator::new();
    let mut sums = SumLists::with_capacity(segments.len());
    for ends in inner_offsets(lists.offsets(), segments.offsets()).windows(2) {
        parts[ends[0]..ends[1]].iter().for_each(|part| sum.add(*part));
        sums.push(&mut sum);
    }
    sums.finish(some(&counts))
}

/// Valid where there is a value.
fn some(counts: &Int64Array) -> Option<NullBuffer> {
    let nulls: NullBuffer = counts.values().iter().map(|count| *count > 0).collect();
    (nulls.null_count() > 0).then_some(nulls)
}
