//! Variance and standard deviation.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type};

use crate::aggregate::exact::{Accumulator, SumLists, float, sum_list_type, sum_lists};
use crate::aggregate::segments::{bad_input, inner_offsets, not_state_type, one_type, states};
use crate::aggregate::sum::sum_type;
use crate::aggregate::{Aggregator, Definition, Segments, count};
use crate::error::Result;

/// The variance of a column's values, nulls left out: of a sample (divided by n − 1, null for fewer than two values), or of a
/// [`population`](Self::population) (divided by n, null without values).
///
/// For integers, decimals and floats, each converted to `Float64` first. State `variance`, version 1: `Struct { count, sum, squares }`, not null: how many
/// values, and the exact sums of them and of their squares as in a [`Sum`](crate::Sum) of floats. Result: `Float64`.
///
/// A sum of squares is a bad way to a variance only if it is rounded: what is left of it after the mean is taken off may be nothing but the rounding. Here
/// neither sum is, nor is their difference, so that the result is that of exact arithmetic but for four roundings at its end (a relative error of at most
/// 5 × 10⁻¹⁶), whatever the values are and however rows were divided. It is never negative. NaN if there is a NaN, an infinity, or a value of 2⁵¹² (1.3 × 10¹⁵⁴)
/// or more, whose square is no `Float64`; of a square, what is less than 5 × 10⁻³²⁴ does not count.
///
/// The kind is not part of the definition: sample and population, [`Variance`] and [`StdDev`] read the same partials.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Float64Array};
/// use arrow::datatypes::Float64Type;
/// use sort_merge_bucket::{Aggregator, Segments, StdDev, Variance};
///
/// let columns = [Arc::new(Float64Array::from(vec![1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0])) as ArrayRef];
/// let states = Variance::of("x").update(&Segments::new(&columns, &[0, 4])?)?;
/// let result = |aggregator: &dyn Aggregator| Ok::<_, sort_merge_bucket::Error>(aggregator.finish(&states)?.as_primitive::<Float64Type>().value(0));
/// assert_eq!(result(&Variance::of("x"))?, 30.0);
/// assert_eq!(result(&Variance::of("x").population())?, 22.5);
/// assert_eq!(result(&StdDev::of("x"))?, 30_f64.sqrt());
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variance {
    column: String,
    population: bool,
}

/// The standard deviation of a column's values: the square root of its [`Variance`], of which it has the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdDev {
    variance: Variance,
}

impl Variance {
    /// The variance of a sample: of the values of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into(), population: false }
    }

    /// The variance of a population instead.
    #[must_use]
    pub fn population(mut self) -> Self {
        self.population = true;
        self
    }

    fn results(&self, states: &ArrayRef) -> Result<Float64Array> {
        let state = State::of(states)?;
        let mut work = Accumulator::new();
        let variance = |row: usize| {
            let n = state.counts.value(row).unsigned_abs();
            let divisor = if self.population { n } else { n.saturating_sub(1) };
            if n == 0 || divisor == 0 {
                return None;
            }
            // n Σx² − (Σx)², which is n² times the variance of the population.
            let (sum, squares) = (parts(&state.sums, row), parts(&state.squares, row));
            squares.iter().for_each(|part| work.add_times(*part, n));
            for a in sum {
                sum.iter().for_each(|b| work.subtract_product(*a, *b));
            }
            let (mantissa, exponent) = work.take_rounded();
            // In two steps, since the exponent may lie beyond those of floats where the result does not.
            let half = exponent.div_euclid(2);
            let variance = mantissa / n as f64 / divisor as f64 * power_of_two(half) * power_of_two(exponent - half);
            // Of squares, what no float can hold was cut off.
            Some(if variance < 0.0 { 0.0 } else { variance })
        };
        Ok((0..states.len()).map(variance).collect())
    }
}

impl StdDev {
    /// The standard deviation of a sample: of the values of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { variance: Variance::of(column) }
    }

    /// The standard deviation of a population instead.
    #[must_use]
    pub fn population(mut self) -> Self {
        self.variance = self.variance.population();
        self
    }
}

impl Aggregator for Variance {
    fn definition(&self) -> Definition {
        Definition::new("variance", 1).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "variance")?;
        if sum_type(input).is_none() {
            return Err(bad_input("variance", &self.column, input));
        }
        Ok(DataType::Struct(state_fields()))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        match state {
            DataType::Struct(fields) if *fields == state_fields() => Ok(DataType::Float64),
            _ => Err(not_state_type("variance", state)),
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let column = rows.column(0);
        let values: Float64Array = match column.as_primitive_opt::<Decimal128Type>() {
            Some(unscaled) => {
                let scale = 10_f64.powi(i32::from(unscaled.scale()));
                unscaled.unary(|v| v as f64 / scale)
            }
            None => cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
        };
        let counts = count::values(rows, Some(column));
        let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
        let valid = |row: &usize| nulls.is_none_or(|nulls| nulls.is_valid(*row));
        let values = values.values();
        let add = |rows: Range<usize>, sum: &mut Accumulator, squares: &mut Accumulator| {
            for row in rows.filter(valid) {
                sum.add(values[row]);
                squares.add_square(values[row]);
            }
        };
        accumulate(rows.ranges(), counts, add)
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let state = State::of(states(segments.columns(), "variance")?)?;
        let counts = count::merge(segments, &(Arc::new(state.counts.clone()) as ArrayRef))?;
        let of_sums = inner_offsets(state.sums.offsets(), segments.offsets());
        let of_squares = inner_offsets(state.squares.offsets(), segments.offsets());
        let (sums, squares) = (floats(&state.sums), floats(&state.squares));
        let add = |at: usize, sum: &mut Accumulator, square: &mut Accumulator| {
            sums[of_sums[at]..of_sums[at + 1]].iter().for_each(|part| sum.add(*part));
            squares[of_squares[at]..of_squares[at + 1]].iter().for_each(|part| square.add(*part));
        };
        accumulate(0..segments.len(), counts.as_primitive::<Int64Type>().clone(), add)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::new(self.results(states)?))
    }
}

impl Aggregator for StdDev {
    fn definition(&self) -> Definition {
        self.variance.definition()
    }

    fn inputs(&self) -> Vec<String> {
        self.variance.inputs()
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        self.variance.state_type(inputs)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        self.variance.output_type(state)
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        self.variance.update(rows)
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        self.variance.merge(states)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::new(self.variance.results(states)?.unary::<_, Float64Type>(f64::sqrt)))
    }
}

fn state_fields() -> Fields {
    Fields::from(vec![
        Field::new("count", DataType::Int64, true),
        Field::new("sum", sum_list_type(), true),
        Field::new("squares", sum_list_type(), true),
    ])
}

/// 2^`exponent`, of a float that has a leading one.
fn power_of_two(exponent: i32) -> f64 {
    float(1 << 52, exponent - 52)
}

/// States, opened up.
struct State {
    counts: Int64Array,
    sums: ListArray,
    squares: ListArray,
}

impl State {
    fn of(states: &ArrayRef) -> Result<Self> {
        let bad = || not_state_type("variance", states.data_type());
        let Some([counts, sums, squares]) = states.as_struct_opt().map(StructArray::columns) else { return Err(bad()) };
        Ok(Self {
            counts: counts.as_primitive_opt::<Int64Type>().ok_or_else(bad)?.clone(),
            sums: sum_lists(sums, "variance")?.clone(),
            squares: sum_lists(squares, "variance")?.clone(),
        })
    }
}

fn floats(lists: &ListArray) -> &[f64] {
    lists.values().as_primitive::<Float64Type>().values()
}

fn parts(lists: &ListArray, row: usize) -> &[f64] {
    let ends = lists.offsets();
    &floats(lists)[ends[row] as usize..ends[row + 1] as usize]
}

/// One state per segment, of whose values or states `add` makes sums.
fn accumulate<S>(
    segments: impl ExactSizeIterator<Item = S>,
    counts: Int64Array,
    add: impl Fn(S, &mut Accumulator, &mut Accumulator),
) -> Result<ArrayRef> {
    let (mut sum, mut square) = (Accumulator::new(), Accumulator::new());
    let mut sums = SumLists::with_capacity(segments.len());
    let mut squares = SumLists::with_capacity(segments.len());
    for segment in segments {
        add(segment, &mut sum, &mut square);
        sums.push(&mut sum);
        squares.push(&mut square);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(counts), sums.finish(None)?, squares.finish(None)?];
    Ok(Arc::new(StructArray::try_new(state_fields(), columns, None)?))
}
