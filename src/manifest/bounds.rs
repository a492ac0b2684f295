//! Key tuples and bounds of them: taken from arrays, cut to a bounded length, compared, printed.
//!
//! Cutting keeps order: a lower bound of a smaller key never exceeds that of a larger one, for strings are cut after a number of code points
//! (not bytes), and UTF-8 orders code points as their numbers.

use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};

use super::model::{KeyBound, KeyValue, MAX_BOUND_LENGTH};
use crate::error::{Error, Result};

/// The key tuple of one row of canonical key columns.
pub(crate) fn key_at(key: &[ArrayRef], row: usize) -> Result<Vec<KeyValue>> {
    key.iter().map(|column| value_at(column, row)).collect()
}

fn value_at(column: &ArrayRef, row: usize) -> Result<KeyValue> {
    use DataType as D;
    if column.is_null(row) {
        return Ok(KeyValue::Null);
    }
    macro_rules! integer {
        ($type:ty) => {
            KeyValue::Integer(i128::from(column.as_primitive::<$type>().value(row)))
        };
    }
    Ok(match column.data_type() {
        D::Boolean => KeyValue::Boolean(column.as_boolean().value(row)),
        D::Int8 => integer!(Int8Type),
        D::Int16 => integer!(Int16Type),
        D::Int32 => integer!(Int32Type),
        D::Int64 => integer!(Int64Type),
        D::UInt8 => integer!(UInt8Type),
        D::UInt16 => integer!(UInt16Type),
        D::UInt32 => integer!(UInt32Type),
        D::UInt64 => integer!(UInt64Type),
        D::Date32 => integer!(Date32Type),
        D::Timestamp(TimeUnit::Millisecond, _) => integer!(TimestampMillisecondType),
        D::Timestamp(TimeUnit::Microsecond, _) => integer!(TimestampMicrosecondType),
        D::Timestamp(TimeUnit::Nanosecond, _) => integer!(TimestampNanosecondType),
        D::Decimal128(_, _) => integer!(Decimal128Type),
        D::Utf8View => KeyValue::Utf8(column.as_string_view().value(row).to_owned()),
        D::BinaryView => KeyValue::Binary(column.as_binary_view().value(row).to_vec()),
        D::FixedSizeBinary(_) => KeyValue::Binary(column.as_fixed_size_binary().value(row).to_vec()),
        other => return Err(Error::internal(format!("a key column is not of a canonical key type, type=`{other}`"))),
    })
}

/// The smallest and largest integer of a key type whose values are [`KeyValue::Integer`].
pub(crate) fn integer_range(data_type: &DataType) -> Option<(i128, i128)> {
    use DataType as D;
    let signed = |bits: u32| (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1);
    let unsigned = |bits: u32| (0, (1_i128 << bits) - 1);
    Some(match data_type {
        D::Int8 => signed(8),
        D::Int16 => signed(16),
        D::Int32 | D::Date32 => signed(32),
        D::Int64 | D::Timestamp(_, _) => signed(64),
        D::UInt8 => unsigned(8),
        D::UInt16 => unsigned(16),
        D::UInt32 => unsigned(32),
        D::UInt64 => unsigned(64),
        D::Decimal128(precision, _) if *precision <= Decimal128Type::MAX_PRECISION => {
            let limit = 10_i128.pow(u32::from(*precision)) - 1;
            (-limit, limit)
        }
        _ => return None,
    })
}

impl KeyValue {
    /// Whether this can be a value of a column of a canonical key type, or (`cut`) a value of it that was cut.
    pub(crate) fn is_of(&self, data_type: &DataType, cut: bool) -> bool {
        match (self, data_type) {
            (Self::Null, _) | (Self::Boolean(_), DataType::Boolean) => true,
            (Self::Integer(value), _) => {
                integer_range(data_type).is_some_and(|(low, high)| (low..=high).contains(value))
            }
            (Self::Utf8(_), DataType::Utf8View) | (Self::Binary(_), DataType::BinaryView) => true,
            (Self::Binary(bytes), DataType::FixedSizeBinary(size)) => {
                let size = usize::try_from(*size).unwrap_or(0);
                bytes.len() == size || cut && bytes.len() < size
            }
            _ => false,
        }
    }

    /// Whether it has a place in the order of a column of a canonical key type, be it a value of the type or not.
    pub(crate) fn compares_with(&self, data_type: &DataType) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(_) => *data_type == DataType::Boolean,
            Self::Integer(_) => integer_range(data_type).is_some(),
            Self::Utf8(_) => *data_type == DataType::Utf8View,
            Self::Binary(_) => matches!(data_type, DataType::BinaryView | DataType::FixedSizeBinary(_)),
        }
    }

    /// The value cut to a prefix that is not larger, if it is too long for a bound.
    fn cut_down(&self) -> Option<Self> {
        match self {
            Self::Utf8(text) => {
                text.char_indices().nth(MAX_BOUND_LENGTH).map(|(end, _)| Self::Utf8(text[..end].to_owned()))
            }
            Self::Binary(bytes) => {
                (bytes.len() > MAX_BOUND_LENGTH).then(|| Self::Binary(bytes[..MAX_BOUND_LENGTH].to_vec()))
            }
            Self::Boolean(_) | Self::Integer(_) | Self::Null => None,
        }
    }

    /// The value cut to a short one that is larger, if it is too long for a bound and there is such a value.
    fn cut_up(&self) -> Option<Self> {
        match self.cut_down()? {
            Self::Utf8(mut text) => {
                while let Some(last) = text.pop() {
                    if let Some(next) = successor(last) {
                        text.push(next);
                        return Some(Self::Utf8(text));
                    }
                }
                None
            }
            Self::Binary(mut bytes) => {
                while let Some(last) = bytes.pop() {
                    if let Some(next) = last.checked_add(1) {
                        bytes.push(next);
                        return Some(Self::Binary(bytes));
                    }
                }
                None
            }
            Self::Boolean(_) | Self::Integer(_) | Self::Null => None,
        }
    }
}

/// The code point after `c`; surrogates are not code points of text.
fn successor(c: char) -> Option<char> {
    match c {
        char::MAX => None,
        '\u{d7ff}' => Some('\u{e000}'),
        _ => char::from_u32(u32::from(c) + 1),
    }
}

impl KeyBound {
    /// A bound that is not larger than `key`, and `key` itself if it is short.
    pub(crate) fn lower(key: &[KeyValue]) -> Self {
        Self::bound(key, KeyValue::cut_down)
    }

    /// A bound that is not smaller than `key`, and `key` itself if it is short. A long value that nothing short exceeds is kept whole.
    pub(crate) fn upper(key: &[KeyValue]) -> Self {
        Self::bound(key, KeyValue::cut_up)
    }

    fn bound(key: &[KeyValue], cut: impl Fn(&KeyValue) -> Option<KeyValue>) -> Self {
        let mut values = Vec::with_capacity(key.len());
        for value in key {
            if let Some(short) = cut(value) {
                values.push(short);
                return Self { values, exact: false };
            }
            values.push(value.clone());
        }
        Self { values, exact: true }
    }

    /// Compares with a key, or another bound's values, as far as both go. A lower bound is never `Greater`, an upper bound never `Less` than
    /// a key that it bounds.
    pub(crate) fn compare(&self, key: &[KeyValue]) -> Ordering {
        let common = self.values.len().min(key.len());
        self.values[..common].cmp(&key[..common])
    }

    /// Whether the values can be a bound of keys of these canonical types.
    pub(crate) fn is_of(&self, types: &[DataType]) -> bool {
        let columns = self.values.len();
        (1..=types.len()).contains(&columns)
            && (columns == types.len() || !self.exact)
            && self
                .values
                .iter()
                .zip(types)
                .enumerate()
                .all(|(i, (value, data_type))| value.is_of(data_type, !self.exact && i + 1 == columns))
    }
}

impl fmt::Display for KeyValue {
    /// Text is quoted, binary hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Utf8(value) => write!(f, "{value:?}"),
            Self::Binary(value) => {
                f.write_str("0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Null => f.write_str("null"),
        }
    }
}

/// Prints a key tuple: the value alone if there is one, else all of them in parentheses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DisplayKey<'a>(pub(crate) &'a [KeyValue]);

impl fmt::Display for DisplayKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [value] => write!(f, "{value}"),
            values => {
                f.write_str("(")?;
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{value}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for KeyBound {
    /// As the key; a bound that is not exact begins with `~`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exact {
            f.write_str("~")?;
        }
        DisplayKey(&self.values).fmt(f)
    }
}
