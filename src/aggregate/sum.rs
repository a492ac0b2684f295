//! Sums and means.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, PrimitiveArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Field, Fields, Float64Type, Int64Type, UInt64Type};

use crate::aggregate::exact::{rounded, sum_list_type, sum_lists, sums_of_lists, sums_of_values};
use crate::aggregate::segments::{bad_input, not_state_type, one_type, states};
use crate::aggregate::{Aggregator, Definition, Segments, count};
use crate::error::{Error, ErrorKind, Result};

/// Adds up the values of a column, nulls left out.
///
/// State `sum`, version 2, and result, null without values:
///
/// | column | state | result |
/// | --- | --- | --- |
/// | `Int8` … `Int64`, `UInt8` … `UInt32` | `Int64` | the same |
/// | `UInt64` | `UInt64` | the same |
/// | `Decimal128(p, s)` | `Decimal128(38, s)` | the same |
/// | `Float16`, `Float32`, `Float64` | `List` of `Float64` | `Float64` |
///
/// A sum that its type cannot hold is `LimitExceeded`, never a wrapped value; cast such a column to `Decimal128` before it is written. Only
/// states must fit: within a batch, sums of integers are wider, those of decimals go up to 1.7 × 10³⁸.
///
/// Sums of floats are exact too, and rounded once, in the result; so they do not depend on how rows were divided into batches, runs and periods. Their
/// state is the sum as a list of floats, each the nearest to what the ones before leave: mostly one to three, none for zero. NaN makes the sum
/// NaN, a negative one if all are; so do infinities of both signs, a negative one. A sum beyond the range of `Float64` is infinite, already
/// as a state. The sum of zeros is 0.0, of either sign.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Float64Array};
/// use arrow::datatypes::Float64Type;
/// use sort_merge_bucket::{Aggregator, Segments, Sum};
///
/// let columns = [Arc::new(Float64Array::from(vec![1e16, 1.0, -1e16])) as ArrayRef];
/// let sums = Sum::of("x").finish(&Sum::of("x").update(&Segments::new(&columns, &[0, 3])?)?)?;
/// assert_eq!(sums.as_primitive::<Float64Type>().value(0), 1.0);
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    column: String,
}

impl Sum {
    /// The sum of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into() }
    }
}

impl Aggregator for Sum {
    fn definition(&self) -> Definition {
        Definition::new("sum", 2).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "sum")?;
        sum_state_type(input).ok_or_else(|| bad_input("sum", &self.column, input))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        sum_of_state(state).ok_or_else(|| not_state_type("sum", state))
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        sum(rows, rows.column(0), "sum")
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        // A sum of sums; the null of no values is left out as any other.
        sum(states, states.column(0), "sum")
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        finished(states, "sum")
    }
}

/// The mean of a column's values, nulls left out.
///
/// State `mean`, version 2: `Struct { sum, count }`, the states of [`Sum`] and [`Count`](crate::Count). Result: `Float64`, the sum divided by the count, each
/// converted to `Float64` first; null without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mean {
    column: String,
}

impl Mean {
    /// The mean of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into() }
    }
}

impl Aggregator for Mean {
    fn definition(&self) -> Definition {
        Definition::new("mean", 2).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "mean")?;
        let sum = sum_state_type(input).ok_or_else(|| bad_input("mean", &self.column, input))?;
        Ok(DataType::Struct(mean_fields(sum)))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        match state {
            DataType::Struct(fields)
                if fields.len() == 2
                    && sum_of_state(fields[0].data_type()).is_some()
                    && *fields[1].data_type() == DataType::Int64 =>
            {
                Ok(DataType::Float64)
            }
            _ => Err(not_state_type("mean", state)),
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let column = rows.column(0);
        mean_state(sum(rows, column, "mean")?, Arc::new(count::values(rows, Some(column))))
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let (sums, counts) = mean_parts(states(segments.columns(), "mean")?)?;
        mean_state(sum(segments, &sums, "mean")?, count::merge(segments, &counts)?)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let (sums, counts) = mean_parts(states)?;
        let scale = match sums.data_type() {
            DataType::Decimal128(_, scale) => 10_f64.powi(i32::from(*scale)),
            _ => 1.0,
        };
        let sums: Float64Array = match sums.as_primitive_opt::<Decimal128Type>() {
            Some(unscaled) => unscaled.unary(|v| v as f64 / scale),
            None => cast(&finished(&sums, "mean")?, &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
        };
        let counts = counts.as_primitive::<Int64Type>();
        let mean = |(sum, count): (Option<f64>, &i64)| sum.filter(|_| *count > 0).map(|sum| sum / *count as f64);
        Ok(Arc::new(sums.iter().zip(counts.values()).map(mean).collect::<Float64Array>()))
    }
}

fn mean_fields(sum: DataType) -> Fields {
    Fields::from(vec![Field::new("sum", sum, true), Field::new("count", DataType::Int64, true)])
}

fn mean_state(sum: ArrayRef, count: ArrayRef) -> Result<ArrayRef> {
    Ok(Arc::new(StructArray::try_new(mean_fields(sum.data_type().clone()), vec![sum, count], None)?))
}

fn mean_parts(states: &ArrayRef) -> Result<(ArrayRef, ArrayRef)> {
    match states.as_struct_opt().map(StructArray::columns) {
        Some([sums, counts]) if *counts.data_type() == DataType::Int64 => Ok((Arc::clone(sums), Arc::clone(counts))),
        _ => Err(not_state_type("mean", states.data_type())),
    }
}

/// The type that values of a type are added up in.
pub(super) fn sum_type(input: &DataType) -> Option<DataType> {
    use DataType as D;
    Some(match input {
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => D::Int64,
        D::UInt64 => D::UInt64,
        D::Decimal128(_, scale) => D::Decimal128(38, *scale),
        D::Float16 | D::Float32 | D::Float64 => D::Float64,
        _ => return None,
    })
}

/// The type of the state in which values of a type are added up: of floats, exact sums.
pub(super) fn sum_state_type(input: &DataType) -> Option<DataType> {
    sum_type(input).map(|sum| if sum == DataType::Float64 { sum_list_type() } else { sum })
}

/// The type of the sum that a state of this type is, if it is one.
pub(super) fn sum_of_state(state: &DataType) -> Option<DataType> {
    if *state == sum_list_type() {
        return Some(DataType::Float64);
    }
    sum_type(state).filter(|sum| sum == state && *sum != DataType::Float64)
}

/// Sums of states of sums.
pub(super) fn finished(states: &ArrayRef, function: &str) -> Result<ArrayRef> {
    match states.data_type() {
        DataType::List(_) => Ok(Arc::new(rounded(sum_lists(states, function)?))),
        _ => Ok(Arc::clone(states)),
    }
}

/// Per segment, the sum of `column`, values or states; null where there are none.
fn sum(rows: &Segments<'_>, column: &ArrayRef, function: &str) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::List(_) => sums_of_lists(rows, sum_lists(column, function)?),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            sums_of_values(rows, cast(column, &DataType::Float64)?.as_primitive())
        }
        _ => with_summands(column, Sums(rows)),
    }
}

struct Sums<'a, 'b>(&'a Segments<'b>);

impl WithSummands for Sums<'_, '_> {
    type Output = ArrayRef;

    fn run<T: Summand>(self, values: &PrimitiveArray<T>) -> Result<ArrayRef> {
        let add = |range: Range<usize>| -> Result<Option<T::Native>> {
            let mut sum = T::ZERO;
            if values.null_count() == 0 {
                for value in &values.values()[range.clone()] {
                    sum = T::add(sum, T::widen(*value))?;
                }
                return if range.is_empty() { Ok(None) } else { T::narrow(sum).map(Some) };
            }
            let mut found = false;
            for row in range.filter(|row| values.is_valid(*row)) {
                sum = T::add(sum, T::widen(values.value(row)))?;
                found = true;
            }
            if found { T::narrow(sum).map(Some) } else { Ok(None) }
        };
        let sums = self.0.ranges().map(add).collect::<Result<PrimitiveArray<T>>>()?;
        Ok(Arc::new(sums.with_data_type(values.data_type().clone())))
    }
}

/// A type that integers and decimals are added up in, with room to spare while they are.
pub(super) trait Summand: ArrowPrimitiveType {
    type Wide: Copy + Send;

    const ZERO: Self::Wide;

    fn widen(value: Self::Native) -> Self::Wide;

    fn add(a: Self::Wide, b: Self::Wide) -> Result<Self::Wide>;

    /// `LimitExceeded` if the type cannot hold the sum.
    fn narrow(sum: Self::Wide) -> Result<Self::Native>;
}

fn too_large(data_type: &DataType) -> Error {
    let message = format!("a sum is too large for its type, store the column as a wider decimal, type=`{data_type}`");
    Error::new(ErrorKind::LimitExceeded, message)
}

macro_rules! integer_summand {
    ($arrow:ty) => {
        impl Summand for $arrow {
            type Wide = i128;

            const ZERO: i128 = 0;

            #[inline]
            fn widen(value: Self::Native) -> i128 {
                i128::from(value)
            }

            // 2⁶⁴ rows of 64-bit values do not fill 128 bits.
            #[inline]
            fn add(a: i128, b: i128) -> Result<i128> {
                Ok(a + b)
            }

            fn narrow(sum: i128) -> Result<Self::Native> {
                sum.try_into().map_err(|_| too_large(&Self::DATA_TYPE))
            }
        }
    };
}

integer_summand!(Int64Type);
integer_summand!(UInt64Type);

/// The largest value of 38 digits.
const MAX_DECIMAL: i128 = 10_i128.pow(38) - 1;

impl Summand for Decimal128Type {
    type Wide = i128;

    const ZERO: i128 = 0;

    #[inline]
    fn widen(value: i128) -> i128 {
        value
    }

    #[inline]
    fn add(a: i128, b: i128) -> Result<i128> {
        a.checked_add(b).ok_or_else(|| too_large(&Self::DEFAULT_TYPE))
    }

    fn narrow(sum: i128) -> Result<i128> {
        if (-MAX_DECIMAL..=MAX_DECIMAL).contains(&sum) { Ok(sum) } else { Err(too_large(&Self::DEFAULT_TYPE)) }
    }
}

/// A computation that is generic over the type in which values are added up.
pub(super) trait WithSummands {
    type Output;

    fn run<T: Summand>(self, values: &PrimitiveArray<T>) -> Result<Self::Output>;
}

/// Runs `work` with the values of a column of integers or decimals in the type of its sum.
pub(super) fn with_summands<W: WithSummands>(column: &ArrayRef, work: W) -> Result<W::Output> {
    let wide = sum_type(column.data_type()).ok_or_else(|| not_state_type("sum", column.data_type()))?;
    match &wide {
        DataType::Int64 => work.run(cast(column, &wide)?.as_primitive::<Int64Type>()),
        DataType::UInt64 => work.run(column.as_primitive::<UInt64Type>()),
        // The values are those of the narrower precision.
        DataType::Decimal128(_, _) => work.run(&column.as_primitive::<Decimal128Type>().clone().with_data_type(wide)),
        other => Err(Error::internal(format!("no column to add up, type=`{other}`"))),
    }
}
