//! Predicates as data: conditions on columns that can be shown, stored, compared and, unlike closures, understood.
//!
//! Logic is SQL's: a comparison with null is neither true nor false, and only rows for which a predicate is true are kept.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Datum, Decimal128Array, FixedSizeBinaryArray,
    Float64Array, Int64Array, RecordBatch, Scalar, StringViewArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{CastOptions, and_kleene, cast_with_options, is_null, not, or_kleene};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A condition on the columns of a row.
///
/// Floats compare as numbers, −0.0 equal to 0.0, and NaN equal to itself and greater than all others. Strings and binary compare by bytes.
///
/// ```
/// use sort_merge_bucket::Predicate;
/// let mobile = Predicate::eq("device", "mobile").and(Predicate::ge("ms_played", 30_000));
/// assert_eq!(mobile.to_string(), r#"(device = "mobile" AND ms_played >= 30000)"#);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Predicate {
    /// A column against a literal.
    Compare {
        /// The column.
        column: String,
        /// How.
        comparison: Comparison,
        /// With what.
        literal: Literal,
    },
    /// The column's value is one of these; false for none.
    In {
        /// The column.
        column: String,
        /// The values.
        literals: Vec<Literal>,
    },
    /// The column is null; never null itself.
    IsNull {
        /// The column.
        column: String,
    },
    /// All hold; true for none.
    And(Vec<Self>),
    /// At least one holds; false for none.
    Or(Vec<Self>),
    /// It does not hold; null where it is null.
    Not(Box<Self>),
}

/// How a column is compared with a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Comparison {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

impl Comparison {
    /// What holds where this one, of values that are not null, does not.
    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::Eq => Self::NotEq,
            Self::NotEq => Self::Eq,
            Self::Lt => Self::GtEq,
            Self::LtEq => Self::Gt,
            Self::Gt => Self::LtEq,
            Self::GtEq => Self::Lt,
        }
    }
}

/// A value that columns are compared with. It must be a value of the column's type: 3 of any number's, 300 not of an `Int8`'s, "a" of a
/// string's only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Literal {
    /// For booleans.
    Boolean(bool),
    /// For integers, decimals and floats.
    Int64(i64),
    /// For integers, decimals and floats.
    UInt64(u64),
    /// For floats.
    Float64(#[serde(with = "any_float")] f64),
    /// For strings.
    Utf8(String),
    /// For binary, of fixed size or not.
    Binary(Vec<u8>),
    /// For dates.
    Date(NaiveDate),
    /// For timestamps.
    Timestamp(DateTime<Utc>),
}

/// Floats as JSON numbers, and those that JSON has no numbers for as strings: they must be told apart where predicates are compared as text.
mod any_float {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Repr {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_str(&value.to_string()) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Repr::deserialize(deserializer)? {
            Repr::Number(value) => Ok(value),
            Repr::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

macro_rules! literal_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for Literal {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}

literal_from!(
    bool => Boolean, i8 => Int64, i16 => Int64, i32 => Int64, i64 => Int64, u8 => UInt64, u16 => UInt64, u32 => UInt64,
    u64 => UInt64, f32 => Float64, f64 => Float64, &str => Utf8, String => Utf8, Vec<u8> => Binary, &[u8] => Binary,
    NaiveDate => Date, DateTime<Utc> => Timestamp,
);

impl Predicate {
    fn compare(column: impl Into<String>, comparison: Comparison, literal: impl Into<Literal>) -> Self {
        Self::Compare { column: column.into(), comparison, literal: literal.into() }
    }

    /// `column = literal`
    pub fn eq(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::Eq, literal)
    }

    /// `column <> literal`
    pub fn not_eq(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::NotEq, literal)
    }

    /// `column < literal`
    pub fn lt(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::Lt, literal)
    }

    /// `column <= literal`
    pub fn le(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::LtEq, literal)
    }

    /// `column > literal`
    pub fn gt(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::Gt, literal)
    }

    /// `column >= literal`
    pub fn ge(column: impl Into<String>, literal: impl Into<Literal>) -> Self {
        Self::compare(column, Comparison::GtEq, literal)
    }

    /// `column IN (literals)`
    pub fn is_in<L: Into<Literal>>(column: impl Into<String>, literals: impl IntoIterator<Item = L>) -> Self {
        Self::In { column: column.into(), literals: literals.into_iter().map(Into::into).collect() }
    }

    /// `column IS NULL`
    pub fn is_null(column: impl Into<String>) -> Self {
        Self::IsNull { column: column.into() }
    }

    /// `column IS NOT NULL`
    pub fn is_not_null(column: impl Into<String>) -> Self {
        Self::is_null(column).negate()
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::And(vec![self, other])
    }

    /// At least one holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Or(vec![self, other])
    }

    /// It does not hold.
    #[must_use]
    pub fn negate(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// The columns that it looks at, in alphabetical order.
    pub fn columns(&self) -> BTreeSet<&str> {
        match self {
            Self::Compare { column, .. } | Self::In { column, .. } | Self::IsNull { column } => {
                BTreeSet::from([column.as_str()])
            }
            Self::And(all) | Self::Or(all) => all.iter().flat_map(Self::columns).collect(),
            Self::Not(inner) => inner.columns(),
        }
    }

    /// Checks that the columns are there and the literals are values of their types.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        self.evaluate(&RecordBatch::new_empty(Arc::new(schema.clone()))).map(|_| ())
    }

    /// For every row whether it holds: true, false or null. Rows are kept only if true.
    ///
    /// # Errors
    /// `InvalidInput` if a column is missing or a literal is no value of its type.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let constant = |value| BooleanArray::from(vec![value; batch.num_rows()]);
        Ok(match self {
            Self::Compare { column, comparison, literal } => {
                compare(&find(batch, column)?, *comparison, literal, column)?
            }
            Self::In { column, literals } => {
                let values = find(batch, column)?;
                literals.iter().try_fold(constant(false), |any, literal| -> Result<_> {
                    Ok(or_kleene(&any, &compare(&values, Comparison::Eq, literal, column)?)?)
                })?
            }
            Self::IsNull { column } => is_null(&find(batch, column)?)?,
            Self::And(all) => all
                .iter()
                .try_fold(constant(true), |all, next| -> Result<_> { Ok(and_kleene(&all, &next.evaluate(batch)?)?) })?,
            Self::Or(all) => all
                .iter()
                .try_fold(constant(false), |any, next| -> Result<_> { Ok(or_kleene(&any, &next.evaluate(batch)?)?) })?,
            Self::Not(inner) => not(&inner.evaluate(batch)?)?,
        })
    }
}

fn find(batch: &RecordBatch, column: &str) -> Result<ArrayRef> {
    let found = batch.column_by_name(column).cloned();
    found
        .ok_or_else(|| Error::invalid_input(format!("a predicate names a column that is not there, column=`{column}`")))
}

pub(crate) fn compare(
    values: &ArrayRef,
    comparison: Comparison,
    literal: &Literal,
    column: &str,
) -> Result<BooleanArray> {
    let data_type = values.data_type();
    let scalar = literal.to_array(data_type)?.ok_or_else(|| {
        let message = "a predicate compares a column with a literal that is no value of its type";
        Error::invalid_input(format!("{message}, column=`{column}`, type=`{data_type}`, literal=`{literal}`"))
    })?;
    // One zero and one NaN: arrow's total order tells −0.0 and 0.0 apart, and has NaNs with a sign before all numbers.
    let values: ArrayRef = match data_type {
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(plain)),
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
        ),
        _ => Arc::clone(values),
    };
    let values: &dyn Datum = &values;
    let scalar = Scalar::new(scalar);
    Ok(match comparison {
        Comparison::Eq => cmp::eq(values, &scalar),
        Comparison::NotEq => cmp::neq(values, &scalar),
        Comparison::Lt => cmp::lt(values, &scalar),
        Comparison::LtEq => cmp::lt_eq(values, &scalar),
        Comparison::Gt => cmp::gt(values, &scalar),
        Comparison::GtEq => cmp::gt_eq(values, &scalar),
    }?)
}

/// A float without the sign of a zero, and without that and the payload of a NaN.
fn plain(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

impl Literal {
    /// The literal as an array of one value of this canonical type; `None` if it is no value of it.
    pub(crate) fn to_array(&self, data_type: &DataType) -> Result<Option<ArrayRef>> {
        use DataType as D;
        let is_integer = data_type.is_integer();
        let is_float = matches!(data_type, D::Float32 | D::Float64);
        let own: ArrayRef = match (self, data_type) {
            (Self::Boolean(v), D::Boolean) => Arc::new(BooleanArray::from(vec![*v])),
            (Self::Int64(v), _) if is_integer => Arc::new(Int64Array::from(vec![*v])),
            (Self::UInt64(v), _) if is_integer => Arc::new(UInt64Array::from(vec![*v])),
            (Self::Int64(v), D::Decimal128(_, _)) => return decimal(i128::from(*v), data_type),
            (Self::UInt64(v), D::Decimal128(_, _)) => return decimal(i128::from(*v), data_type),
            // A float that is not the number itself would compare with another one.
            (Self::Int64(v), _) if is_float && (*v as f64) as i128 == i128::from(*v) => {
                Arc::new(Float64Array::from(vec![*v as f64]))
            }
            (Self::UInt64(v), _) if is_float && (*v as f64) as i128 == i128::from(*v) => {
                Arc::new(Float64Array::from(vec![*v as f64]))
            }
            (Self::Float64(v), _) if is_float => Arc::new(Float64Array::from(vec![plain(*v)])),
            (Self::Utf8(v), D::Utf8View) => Arc::new(StringViewArray::from(vec![v.as_str()])),
            (Self::Binary(v), D::BinaryView) => Arc::new(BinaryViewArray::from(vec![v.as_slice()])),
            (Self::Binary(v), D::FixedSizeBinary(width)) if usize::try_from(*width) == Ok(v.len()) => {
                Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(v))?)
            }
            (Self::Date(v), D::Date32) => {
                let days = v.signed_duration_since(NaiveDate::default()).num_days();
                match i32::try_from(days) {
                    Ok(days) => Arc::new(Date32Array::from(vec![days])),
                    Err(_) => return Ok(None),
                }
            }
            (Self::Timestamp(v), D::Timestamp(TimeUnit::Nanosecond, zone)) => match v.timestamp_nanos_opt() {
                Some(nanos) => Arc::new(TimestampNanosecondArray::from(vec![nanos]).with_timezone_opt(zone.clone())),
                None => return Ok(None),
            },
            (Self::Timestamp(v), D::Timestamp(_, zone)) => {
                if v.timestamp_subsec_nanos() % 1000 != 0 {
                    return Ok(None);
                }
                let micros = TimestampMicrosecondArray::from(vec![v.timestamp_micros()]);
                Arc::new(micros.with_timezone_opt(zone.clone()))
            }
            _ => return Ok(None),
        };
        if own.data_type() == data_type {
            return Ok(Some(own));
        }
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let there = cast_with_options(&own, data_type, &options)?;
        // Exact or not at all: NaN is the one value that differs from itself.
        let is_nan = matches!(self, Self::Float64(v) if v.is_nan());
        let back = cast_with_options(&there, own.data_type(), &options)?;
        Ok((there.is_valid(0) && (is_nan || *back == *own)).then_some(there))
    }
}

fn decimal(value: i128, data_type: &DataType) -> Result<Option<ArrayRef>> {
    let DataType::Decimal128(precision, scale) = data_type else { return Ok(None) };
    let Ok(digits) = u32::try_from(*scale) else { return Ok(None) };
    let unscaled = 10_i128.checked_pow(digits).and_then(|unit| value.checked_mul(unit));
    let array =
        unscaled.map(|unscaled| Decimal128Array::from(vec![unscaled]).with_precision_and_scale(*precision, *scale));
    let Some(array) = array.transpose()? else { return Ok(None) };
    Ok(array.validate_decimal_precision(*precision).is_ok().then(|| Arc::new(array) as ArrayRef))
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, all: &[Self], word: &str, none: &str| {
            if all.is_empty() {
                return f.write_str(none);
            }
            f.write_str("(")?;
            for (at, predicate) in all.iter().enumerate() {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                write!(f, "{predicate}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::Compare { column, comparison, literal } => write!(f, "{column} {comparison} {literal}"),
            Self::In { column, literals } => {
                let literals: Vec<String> = literals.iter().map(Literal::to_string).collect();
                write!(f, "{column} IN ({})", literals.join(", "))
            }
            Self::IsNull { column } => write!(f, "{column} IS NULL"),
            Self::And(all) => list(f, all, "AND", "TRUE"),
            Self::Or(all) => list(f, all, "OR", "FALSE"),
            Self::Not(inner) => write!(f, "NOT {inner}"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::NotEq => "<>",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
        })
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(v) => write!(f, "{v}"),
            Self::Int64(v) => write!(f, "{v}"),
            Self::UInt64(v) => write!(f, "{v}"),
            Self::Float64(v) => write!(f, "{v:?}"),
            Self::Utf8(v) => write!(f, "{v:?}"),
            Self::Binary(v) => {
                f.write_str("0x")?;
                v.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Date(v) => write!(f, "{v}"),
            Self::Timestamp(v) => f.write_str(&v.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}
