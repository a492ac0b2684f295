//! Logical types: their names in the manifest, the one Arrow type each is read as, and which widen into which.
//!
//! A dataset stores *logical* types. Many Arrow types carry the same logical values (`Utf8`, `LargeUtf8`, `Utf8View`,
//! `Dictionary<_, Utf8>`); each logical type has exactly one **canonical** Arrow type, in which batches are hashed, sorted, stored,
//! merged and returned. Everything past the public boundary may therefore rely on canonical types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One column as the manifest writes it: a logical type by name, with children for nested types.
///
/// | `type` | canonical Arrow type | children |
/// | --- | --- | --- |
/// | `boolean`, `int8` … `int64`, `uint8` … `uint64`, `float16`, `float32`, `float64` | of the same name | |
/// | `decimal128(p,s)`, `decimal256(p,s)` | of the same name | |
/// | `date32` | `Date32` | |
/// | `time32(ms)`, `time64(us)`, `time64(ns)` | of the same name | |
/// | `timestamp(ms)`, `timestamp(us)`, `timestamp(ns)`, each also as `timestamp(us,ZONE)` | `Timestamp` | |
/// | `utf8` | `Utf8View` | |
/// | `binary` | `BinaryView` | |
/// | `fixed_size_binary(n)` | `FixedSizeBinary(n)` | |
/// | `list` | `List` | one, the item |
/// | `struct` | `Struct` | its fields |
/// | `map` | `Map` (unsorted) | two, key and value |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FieldDef {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    pub(crate) nullable: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) children: Vec<Self>,
}

impl FieldDef {
    /// Describes a canonical field.
    pub(crate) fn from_field(field: &Field) -> Result<Self> {
        let children = match field.data_type() {
            DataType::List(item) => vec![Self::from_field(item)?],
            DataType::Struct(fields) => fields.iter().map(|f| Self::from_field(f)).collect::<Result<_>>()?,
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => fields.iter().map(|f| Self::from_field(f)).collect::<Result<_>>()?,
                _ => return Err(Error::internal("a map without struct entries")),
            },
            _ => vec![],
        };
        Ok(Self {
            name: field.name().clone(),
            type_name: type_name(field.data_type())?,
            nullable: field.is_nullable(),
            children,
        })
    }

    /// The canonical Arrow field. Fails with `UnsupportedVersion` on a type name that this library does not know.
    pub(crate) fn to_field(&self) -> Result<Field> {
        let children = self.children.iter().map(|c| Ok(Arc::new(c.to_field()?))).collect::<Result<Vec<FieldRef>>>()?;
        let unknown = || {
            Error::new(
                crate::ErrorKind::UnsupportedVersion,
                format!("unknown column type, upgrade this library, column=`{}`, type=`{}`", self.name, self.type_name),
            )
        };
        let data_type = match (self.type_name.as_str(), children.as_slice()) {
            ("list", [item]) => DataType::List(Arc::clone(item)),
            ("struct", fields) => DataType::Struct(fields.to_vec().into()),
            ("map", [key, value]) => map_type(key, value),
            (name, []) => parse_type(name).ok_or_else(unknown)?,
            _ => return Err(unknown()),
        };
        Ok(Field::new(&self.name, data_type, self.nullable))
    }
}

fn map_type(key: &FieldRef, value: &FieldRef) -> DataType {
    let entries = DataType::Struct(vec![Arc::clone(key), Arc::clone(value)].into());
    DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
}

/// Describes a canonical schema, in column order.
pub(crate) fn field_defs(schema: &Schema) -> Result<Vec<FieldDef>> {
    schema.fields().iter().map(|f| FieldDef::from_field(f)).collect()
}

/// The canonical schema of `defs`.
pub(crate) fn schema_of(defs: &[FieldDef]) -> Result<SchemaRef> {
    Ok(Arc::new(Schema::new(defs.iter().map(FieldDef::to_field).collect::<Result<Vec<_>>>()?)))
}

/// The logical name of a canonical type, as listed at [`FieldDef`]. Also used in messages.
pub(crate) fn type_name(data_type: &DataType) -> Result<String> {
    use DataType as D;
    Ok(match data_type {
        D::Boolean => "boolean".into(),
        D::Int8 => "int8".into(),
        D::Int16 => "int16".into(),
        D::Int32 => "int32".into(),
        D::Int64 => "int64".into(),
        D::UInt8 => "uint8".into(),
        D::UInt16 => "uint16".into(),
        D::UInt32 => "uint32".into(),
        D::UInt64 => "uint64".into(),
        D::Float16 => "float16".into(),
        D::Float32 => "float32".into(),
        D::Float64 => "float64".into(),
        D::Decimal128(p, s) => format!("decimal128({p},{s})"),
        D::Decimal256(p, s) => format!("decimal256({p},{s})"),
        D::Date32 => "date32".into(),
        D::Time32(TimeUnit::Millisecond) => "time32(ms)".into(),
        D::Time64(TimeUnit::Microsecond) => "time64(us)".into(),
        D::Time64(TimeUnit::Nanosecond) => "time64(ns)".into(),
        D::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => return Err(unsupported(data_type)),
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "us",
                TimeUnit::Nanosecond => "ns",
            };
            match zone {
                None => format!("timestamp({unit})"),
                Some(zone) => format!("timestamp({unit},{zone})"),
            }
        }
        D::Utf8View => "utf8".into(),
        D::BinaryView => "binary".into(),
        D::FixedSizeBinary(n) => format!("fixed_size_binary({n})"),
        D::List(_) => "list".into(),
        D::Struct(_) => "struct".into(),
        D::Map(_, _) => "map".into(),
        other => return Err(unsupported(other)),
    })
}

fn parse_type(name: &str) -> Option<DataType> {
    use DataType as D;
    let (base, args) = match name.split_once('(') {
        None => (name, vec![]),
        Some((base, rest)) => (base, rest.strip_suffix(')')?.split(',').collect::<Vec<_>>()),
    };
    Some(match (base, args.as_slice()) {
        ("boolean", []) => D::Boolean,
        ("int8", []) => D::Int8,
        ("int16", []) => D::Int16,
        ("int32", []) => D::Int32,
        ("int64", []) => D::Int64,
        ("uint8", []) => D::UInt8,
        ("uint16", []) => D::UInt16,
        ("uint32", []) => D::UInt32,
        ("uint64", []) => D::UInt64,
        ("float16", []) => D::Float16,
        ("float32", []) => D::Float32,
        ("float64", []) => D::Float64,
        ("decimal128", [p, s]) => {
            let (p, s) = (p.parse().ok()?, s.parse().ok()?);
            ((1..=38).contains(&p) && s <= p as i8).then_some(D::Decimal128(p, s))?
        }
        ("decimal256", [p, s]) => {
            let (p, s) = (p.parse().ok()?, s.parse().ok()?);
            ((1..=76).contains(&p) && s <= p as i8).then_some(D::Decimal256(p, s))?
        }
        ("date32", []) => D::Date32,
        ("time32", ["ms"]) => D::Time32(TimeUnit::Millisecond),
        ("time64", ["us"]) => D::Time64(TimeUnit::Microsecond),
        ("time64", ["ns"]) => D::Time64(TimeUnit::Nanosecond),
        ("timestamp", [unit, zone @ ..]) => {
            let unit = match *unit {
                "ms" => TimeUnit::Millisecond,
                "us" => TimeUnit::Microsecond,
                "ns" => TimeUnit::Nanosecond,
                _ => return None,
            };
            match zone {
                [] => D::Timestamp(unit, None),
                [zone] => D::Timestamp(unit, Some((*zone).into())),
                _ => return None,
            }
        }
        ("utf8", []) => D::Utf8View,
        ("binary", []) => D::BinaryView,
        ("fixed_size_binary", [n]) => {
            let n: i32 = n.parse().ok()?;
            (n > 0).then_some(D::FixedSizeBinary(n))?
        }
        _ => return None,
    })
}

fn unsupported(data_type: &DataType) -> Error {
    Error::invalid_input(format!("columns of this type cannot be stored, type=`{data_type}`"))
}

/// The canonical type that values of `data_type` are stored and returned as; `InvalidInput` if there is none.
pub(crate) fn canonical_type(data_type: &DataType) -> Result<DataType> {
    use DataType as D;
    Ok(match data_type {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => D::Utf8View,
        D::Binary | D::LargeBinary | D::BinaryView => D::BinaryView,
        D::Dictionary(_, value) => canonical_type(value)?,
        D::Decimal32(p, s) | D::Decimal64(p, s) => D::Decimal128(*p, *s),
        // Parquet has no seconds.
        D::Time32(TimeUnit::Second) => D::Time32(TimeUnit::Millisecond),
        D::Timestamp(TimeUnit::Second, zone) => D::Timestamp(TimeUnit::Millisecond, zone.clone()),
        D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) => D::List(Arc::new(canonical_field(item)?)),
        D::Struct(fields) if !fields.is_empty() => {
            D::Struct(fields.iter().map(|f| canonical_field(f)).collect::<Result<Vec<_>>>()?.into())
        }
        D::Map(entries, _) => match entries.data_type() {
            D::Struct(fields) if fields.len() == 2 => {
                map_type(&Arc::new(canonical_field(&fields[0])?), &Arc::new(canonical_field(&fields[1])?))
            }
            _ => return Err(unsupported(data_type)),
        },
        other => {
            type_name(other)?;
            other.clone()
        }
    })
}

fn canonical_field(field: &Field) -> Result<Field> {
    Ok(Field::new(field.name(), canonical_type(field.data_type())?, field.is_nullable()))
}

/// The canonical form of a caller's schema. `InvalidInput` on types that cannot be stored and on repeated names.
pub(crate) fn canonical_schema(schema: &Schema) -> Result<SchemaRef> {
    let mut names = std::collections::BTreeSet::new();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if !names.insert(field.name()) {
            return Err(Error::invalid_input(format!("two columns have the same name, column=`{}`", field.name())));
        }
        let canonical = canonical_field(field).map_err(|e| {
            Error::invalid_input(format!("{e}, column=`{}`", field.name()).replacen("invalid input: ", "", 1))
        })?;
        fields.push(canonical);
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Casts `batch` to `target`, matching columns by position; every conversion is exact or an error, never a null or a wrapped value.
/// Columns that already have their type are passed on untouched.
///
/// # Errors
/// `InvalidInput` if a value does not fit (a timestamp in seconds beyond the milliseconds' range) or a non-nullable column holds a null.
pub(crate) fn cast_batch(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == target {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .zip(target.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast_exactly(column, field.data_type()).map_err(|e| {
                Error::invalid_input(format!("a column cannot be converted without loss, column=`{}`", field.name()))
                    .with_source(e)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)?)
}

/// A column that the caller's `function` made, in the canonical type that it was declared to have.
///
/// # Errors
/// `InvalidInput` if it is of another type, or a value cannot be converted.
pub(crate) fn canonical_array(array: &ArrayRef, canonical: &DataType, function: &str) -> Result<ArrayRef> {
    if array.data_type() == canonical {
        return Ok(Arc::clone(array));
    }
    if canonical_type(array.data_type())? != *canonical {
        return Err(Error::invalid_input(format!(
            "a column has another type than was declared, made by=`{function}`, declared=`{canonical}`, found=`{}`",
            array.data_type()
        )));
    }
    Ok(cast_exactly(array, canonical)?)
}

/// Converts every value or fails.
fn cast_exactly(array: &ArrayRef, canonical: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    if let Some(map) = array.as_map_opt()
        && let DataType::Map(entries, true) = map.data_type()
    {
        // Arrow casts maps only to maps of which the same is said about the order of their keys.
        let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
        let unsorted = MapArray::try_new(Arc::clone(entries), offsets, map.entries().clone(), nulls, false)?;
        return cast_with_options(&unsorted, canonical, &options);
    }
    cast_with_options(array, canonical, &options)
}

/// The canonical type that holds every value of both canonical types, if they differ at most in integer width or decimal precision.
///
/// `uint64` stands alone: its values have no signed type to widen to and hash by their own eight bytes.
pub(crate) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as D;
    if a == b {
        return Some(a.clone());
    }
    if let (D::Decimal128(p, s), D::Decimal128(q, t)) = (a, b) {
        return (s == t).then_some(D::Decimal128(*p.max(q), *s));
    }
    let ((signed_a, bits_a), (signed_b, bits_b)) = (integer(a)?, integer(b)?);
    let (signed, bits) = match (signed_a, signed_b) {
        (true, true) | (false, false) => (signed_a, bits_a.max(bits_b)),
        (true, false) => (true, bits_a.max(bits_b * 2)),
        (false, true) => (true, bits_b.max(bits_a * 2)),
    };
    if bits_a == 64 && !signed_a || bits_b == 64 && !signed_b {
        return None;
    }
    Some(match (signed, bits) {
        (true, 8) => D::Int8,
        (true, 16) => D::Int16,
        (true, 32) => D::Int32,
        (true, _) => D::Int64,
        (false, 8) => D::UInt8,
        (false, 16) => D::UInt16,
        (false, _) => D::UInt32,
    })
}

/// Signedness and width of an integer type.
fn integer(data_type: &DataType) -> Option<(bool, u32)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}

/// Whether a canonical type can be a key or sort column.
pub(crate) fn is_key_type(data_type: &DataType) -> bool {
    use DataType as D;
    integer(data_type).is_some()
        || matches!(
            data_type,
            D::Boolean
                | D::Date32
                | D::Timestamp(_, _)
                | D::Decimal128(_, _)
                | D::Utf8View
                | D::BinaryView
                | D::FixedSizeBinary(_)
        )
}
