//! Sums and means.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, PrimitiveArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Field, Fields, Float64Type, Int64Type, UInt64Type};

use crate::aggregate::segments::{bad_input, not_state_type, one_type, states};
use crate::aggregate::{Aggregator, Definition, Segments, count};
use crate::error::{Error, ErrorKind, Result};

/// Adds up the values of a column, nulls left out.
///
/// State `sum`, version 1, and result, null without values:
///
/// | column | state |
/// | --- | --- |
/// | `Int8` … `Int64`, `UInt8` … `UInt32` | `Int64` |
/// | `UInt64` | `UInt64` |
/// | `Decimal128(p, s)` | `Decimal128(38, s)` |
/// | `Float16`, `Float32`, `Float64` | `Float64` |
///
/// A sum that its type cannot hold is `LimitExceeded`, never a wrapped value; cast such a column to `Decimal128` before it is written. Only
/// states must fit: within a batch, sums of integers are wider, those of decimals go up to 1.7 × 10³⁸. Floats are added in `Float64`, in the order of rows, runs and partials, so that the last
/// digits depend on how rows were divided; NaN makes the sum NaN.
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
        Definition::new("sum", 1).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "sum")?;
        sum_type(input).ok_or_else(|| bad_input("sum", &self.column, input))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        if sum_type(state).as_ref() == Some(state) { Ok(state.clone()) } else { Err(not_state_type("sum", state)) }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        sum(rows, rows.column(0))
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        // A sum of sums; the null of no values is left out as any other.
        sum(states, states.column(0))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::clone(states))
    }
}

/// The mean of a column's values, nulls left out.
///
/// State `mean`, version 1: `Struct { sum, count }`, the states of [`Sum`] and [`Count`](crate::Count). Result: `Float64`, the sum divided by the count, each
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
        Definition::new("mean", 1).with_parameter("column", &self.column)
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "mean")?;
        let sum = sum_type(input).ok_or_else(|| bad_input("mean", &self.column, input))?;
        Ok(DataType::Struct(mean_fields(sum)))
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        match state {
            DataType::Struct(fields)
                if fields.len() == 2
                    && sum_type(fields[0].data_type()).as_ref() == Some(fields[0].data_type())
                    && *fields[1].data_type() == DataType::Int64 =>
            {
                Ok(DataType::Float64)
            }
            _ => Err(not_state_type("mean", state)),
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let column = rows.column(0);
        mean_state(sum(rows, column)?, Arc::new(count::values(rows, Some(column))))
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        let (sums, counts) = mean_parts(states(segments.columns(), "mean")?)?;
        mean_state(sum(segments, &sums)?, count::merge(segments, &counts)?)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let (sums, counts) = mean_parts(states)?;
        let scale = match sums.data_type() {
            DataType::Decimal128(_, scale) => 10_f64.powi(i32::from(*scale)),
            _ => 1.0,
        };
        let sums: Float64Array = match sums.as_primitive_opt::<Decimal128Type>() {
            Some(unscaled) => unscaled.unary(|v| v as f64 / scale),
            None => cast(&sums, &DataType::Float64)?.as_primitive::<Float64Type>().clone(),
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

/// Per segment, the sum of `column`; null where there are no values.
fn sum(rows: &Segments<'_>, column: &ArrayRef) -> Result<ArrayRef> {
    with_summands(column, Sums(rows))
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

/// A type that values are added up in, with room to spare while they are.
pub(super) trait Summand: ArrowPrimitiveType {
    type Wide: Copy + Send;

    const ZERO: Self::Wide;

    fn widen(value: Self::Native) -> Self::Wide;

    fn add(a: Self::Wide, b: Self::Wide) -> Result<Self::Wide>;

    /// `LimitExceeded` if the type cannot hold the sum.
    fn narrow(sum: Self::Wide) -> Result<Self::Native>;

    /// Orders values; floats by IEEE 754's total order.
    fn order(a: Self::Native, b: Self::Native) -> std::cmp::Ordering;
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

            fn order(a: Self::Native, b: Self::Native) -> std::cmp::Ordering {
                a.cmp(&b)
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

    fn order(a: i128, b: i128) -> std::cmp::Ordering {
        a.cmp(&b)
    }
}

impl Summand for Float64Type {
    type Wide = f64;

    const ZERO: f64 = 0.0;

    #[inline]
    fn widen(value: f64) -> f64 {
        value
    }

    #[inline]
    fn add(a: f64, b: f64) -> Result<f64> {
        Ok(a + b)
    }

    fn narrow(sum: f64) -> Result<f64> {
        Ok(sum)
    }

    fn order(a: f64, b: f64) -> std::cmp::Ordering {
        a.total_cmp(&b)
    }
}

/// A computation that is generic over the type in which values are added up.
pub(super) trait WithSummands {
    type Output;

    fn run<T: Summand>(self, values: &PrimitiveArray<T>) -> Result<Self::Output>;
}

/// Runs `work` with the values of a column in the type of its sum.
pub(super) fn with_summands<W: WithSummands>(column: &ArrayRef, work: W) -> Result<W::Output> {
    let wide = sum_type(column.data_type())
        .ok_or_else(|| Error::internal(format!("no column to add up, type=`{}`", column.data_type())))?;
    match &wide {
        DataType::Int64 => work.run(cast(column, &wide)?.as_primitive::<Int64Type>()),
        DataType::UInt64 => work.run(column.as_primitive::<UInt64Type>()),
        DataType::Float64 => work.run(cast(column, &wide)?.as_primitive::<Float64Type>()),
        // The values are those of the narrower precision.
        _ => work.run(&column.as_primitive::<Decimal128Type>().clone().with_data_type(wide)),
    }
}
