//! Rows as plain values, and their way into Arrow arrays of every accepted layout and back.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::bucket_ids;
use crate::manifest::KeyValue;
use crate::schema::{canonical_schema, cast_batch};
use crate::spec::BucketSpec;

/// A value; the derived order is the key order of values of one column, nulls last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Bool(bool),
    Int(i128),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Null,
}

pub(super) type Row = Vec<Value>;

/// A column's type, in the layout in which a caller hands it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt32,
    UInt64,
    Date,
    Seconds,
    Micros,
    Decimal,
    Utf8,
    LargeUtf8,
    Utf8View,
    Dictionary,
    Binary,
    Fixed,
    /// No key.
    List,
    /// No key.
    Struct,
}

impl Kind {
    pub(super) const KEYS: &[Self] = &[
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::UInt8,
        Self::UInt32,
        Self::UInt64,
        Self::Date,
        Self::Seconds,
        Self::Micros,
        Self::Decimal,
        Self::Utf8,
        Self::LargeUtf8,
        Self::Utf8View,
        Self::Dictionary,
        Self::Binary,
        Self::Fixed,
    ];
    pub(super) const ALL: &[Self] = &[
        Self::Int64,
        Self::Bool,
        Self::Utf8,
        Self::Utf8View,
        Self::Dictionary,
        Self::Binary,
        Self::List,
        Self::Struct,
    ];

    fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Date => DataType::Date32,
            Self::Seconds => DataType::Timestamp(TimeUnit::Second, None),
            Self::Micros => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal => DataType::Decimal128(20, 2),
            Self::Utf8 => DataType::Utf8,
            Self::LargeUtf8 => DataType::LargeUtf8,
            Self::Utf8View => DataType::Utf8View,
            Self::Dictionary => DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)),
            Self::Binary => DataType::Binary,
            Self::Fixed => DataType::FixedSizeBinary(3),
            Self::List => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
            Self::Struct => DataType::Struct(vec![Field::new("s", DataType::Utf8View, true)].into()),
        }
    }

    /// One of all values, chosen by `n`.
    fn value(self, n: u64) -> Value {
        // Spreads neighbours over the whole range, so that negative, large and long values occur.
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match self {
            Self::Bool => Value::Bool(spread & (1 << 40) != 0),
            Self::Int8 => Value::Int((spread as i8).into()),
            Self::Int16 => Value::Int((spread as i16).into()),
            Self::Int32 | Self::Date => Value::Int((spread as i32).into()),
            Self::Int64 | Self::Micros | Self::Decimal => Value::Int((spread as i64).into()),
            Self::UInt8 => Value::Int((spread as u8).into()),
            Self::UInt32 => Value::Int((spread as u32).into()),
            Self::UInt64 => Value::Int(spread.into()),
            // As stored, in milliseconds.
            Self::Seconds => Value::Int(i128::from(spread as i32) * 1000),
            Self::Utf8 | Self::LargeUtf8 | Self::Utf8View | Self::Dictionary => Value::Bytes(text(spread).into_bytes()),
            Self::Binary => Value::Bytes(spread.to_be_bytes()[..(spread % 9) as usize].to_vec()),
            Self::Fixed => Value::Bytes(spread.to_be_bytes()[..3].to_vec()),
            Self::List => Value::List(
                (0..spread % 4).map(|i| Value::Bytes(text(spread.rotate_left(i as u32)).into_bytes())).collect(),
            ),
            Self::Struct => Value::List(vec![Value::Bytes(text(spread).into_bytes())]),
        }
    }
}

/// Short and long texts, many with a long common prefix, some beyond ASCII.
fn text(n: u64) -> String {
    match n % 5 {
        0 => String::new(),
        1 => format!("{n:x}"),
        2 => format!("ünïcödé-{}", n % 1000),
        3 => format!("{}{}", "prefix".repeat(13), n % 1000),
        _ => format!("z{}", "y".repeat((n % 300) as usize)),
    }
}

/// A small deterministic generator of numbers (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<Kind>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// Values among `distinct` ones per column, `nulls` per cent of them null.
    pub(super) fn random(columns: Vec<Kind>, rows: usize, distinct: u64, nulls: u64, seed: u64) -> Self {
        let mut random = Random(seed | 1);
        let mut cell = |kind: &Kind| {
            if random.next() % 100 < nulls { Value::Null } else { kind.value(random.next() % distinct) }
        };
        let rows = (0..rows).map(|_| columns.iter().map(&mut cell).collect()).collect();
        Self { columns, rows }
    }

    /// Columns `c0`, `c1`, … as a caller hands them in.
    pub(super) fn schema(&self) -> SchemaRef {
        let fields =
            self.columns.iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind.data_type(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The rows in batches of these sizes, again and again.
    pub(super) fn batches(&self, sizes: &[usize]) -> Vec<RecordBatch> {
        let mut sizes = sizes.iter().cycle();
        let mut rest = self.rows.as_slice();
        let mut batches = vec![];
        while !rest.is_empty() {
            let (rows, more) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            let columns = self.columns.iter().enumerate().map(|(i, kind)| to_array(*kind, rows.iter().map(|r| &r[i])));
            batches.push(RecordBatch::try_new(self.schema(), columns.collect()).unwrap());
            rest = more;
        }
        batches
    }

    /// The bucket of every row.
    pub(super) fn buckets(&self, spec: &BucketSpec) -> Vec<u32> {
        let schema = canonical_schema(&self.schema()).unwrap();
        let key = spec.key_indices(&schema).unwrap();
        let place = |batch: RecordBatch| {
            let batch = cast_batch(&batch, &schema).unwrap();
            let key: Vec<ArrayRef> = key.iter().map(|i| Arc::clone(batch.column(*i))).collect();
            bucket_ids(spec.function(), &key, spec.buckets()).unwrap()
        };
        self.batches(&[1000]).into_iter().flat_map(place).collect()
    }

    /// The rows of a canonical batch.
    pub(super) fn read(&self, batch: &RecordBatch) -> Vec<Row> {
        let columns: Vec<Vec<Value>> = batch.columns().iter().map(from_array).collect();
        (0..batch.num_rows()).map(|row| columns.iter().map(|c| c[row].clone()).collect()).collect()
    }
}

impl Value {
    fn int(&self) -> Option<i128> {
        if let Self::Int(v) = self { Some(*v) } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(v) = self { Some(v) } else { None }
    }

    fn text(&self) -> Option<&str> {
        self.bytes().map(|b| std::str::from_utf8(b).unwrap())
    }

    pub(super) fn to_key(&self, kind: &Kind) -> KeyValue {
        match self {
            Self::Null => KeyValue::Null,
            Self::Bool(b) => KeyValue::Boolean(*b),
            Self::Int(i) => KeyValue::Integer(*i),
            Self::Bytes(b) if matches!(kind, Kind::Binary | Kind::Fixed) => KeyValue::Binary(b.clone()),
            Self::Bytes(b) => KeyValue::Utf8(String::from_utf8(b.clone()).unwrap()),
            Self::List(_) => panic!("a list is no key"),
        }
    }
}

fn to_array<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    fn ints<'a, T: ArrowPrimitiveType>(values: impl Iterator<Item = &'a Value>) -> PrimitiveArray<T>
    where
        T::Native: TryFrom<i128>,
    {
        values.map(|v| v.int().map(|i| T::Native::try_from(i).ok().unwrap())).collect()
    }
    match kind {
        Kind::Bool => {
            Arc::new(values.map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>())
        }
        Kind::Int8 => Arc::new(ints::<Int8Type>(values)),
        Kind::Int16 => Arc::new(ints::<Int16Type>(values)),
        Kind::Int32 => Arc::new(ints::<Int32Type>(values)),
        Kind::Int64 => Arc::new(ints::<Int64Type>(values)),
        Kind::UInt8 => Arc::new(ints::<UInt8Type>(values)),
        Kind::UInt32 => Arc::new(ints::<UInt32Type>(values)),
        Kind::UInt64 => Arc::new(ints::<UInt64Type>(values)),
        Kind::Date => Arc::new(ints::<Date32Type>(values)),
        Kind::Seconds => {
            let seconds = values.map(|v| v.int().map(|ms| (ms / 1000) as i64));
            Arc::new(seconds.collect::<TimestampSecondArray>())
        }
        Kind::Micros => Arc::new(ints::<TimestampMicrosecondType>(values).with_timezone("UTC")),
        Kind::Decimal => Arc::new(ints::<Decimal128Type>(values).with_precision_and_scale(20, 2).unwrap()),
        Kind::Utf8 => Arc::new(values.map(Value::text).collect::<StringArray>()),
        Kind::LargeUtf8 => Arc::new(values.map(Value::text).collect::<LargeStringArray>()),
        Kind::Utf8View => Arc::new(values.map(Value::text).collect::<StringViewArray>()),
        Kind::Dictionary => Arc::new(values.map(Value::text).collect::<DictionaryArray<Int16Type>>()),
        Kind::Binary => Arc::new(values.map(Value::bytes).collect::<BinaryArray>()),
        Kind::Fixed => {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.map(Value::bytes), 3).unwrap())
        }
        Kind::List => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for value in values {
                if let Value::List(items) = value {
                    items.iter().for_each(|item| builder.values().append_option(item.text()));
                }
                builder.append(matches!(value, Value::List(_)));
            }
            Arc::new(builder.finish())
        }
        Kind::Struct => {
            let mut builder = StructBuilder::from_fields(vec![Field::new("s", DataType::Utf8View, true)], 0);
            for value in values {
                let field = builder.field_builder::<StringViewBuilder>(0).unwrap();
                match value {
                    Value::List(items) => field.append_option(items[0].text()),
                    _ => field.append_null(),
                }
                builder.append(matches!(value, Value::List(_)));
            }
            Arc::new(builder.finish())
        }
    }
}

fn from_array(array: &ArrayRef) -> Vec<Value> {
    fn collect<T>(values: impl Iterator<Item = Option<T>>, to: impl Fn(T) -> Value) -> Vec<Value> {
        values.map(|v| v.map_or(Value::Null, &to)).collect()
    }
    fn ints<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<Value>
    where
        T::Native: Into<i128>,
    {
        collect(array.as_primitive::<T>().iter(), |v| Value::Int(v.into()))
    }
    match array.data_type() {
        DataType::Boolean => collect(array.as_boolean().iter(), Value::Bool),
        DataType::Int8 => ints::<Int8Type>(array),
        DataType::Int16 => ints::<Int16Type>(array),
        DataType::Int32 => ints::<Int32Type>(array),
        DataType::Int64 => ints::<Int64Type>(array),
        DataType::UInt8 => ints::<UInt8Type>(array),
        DataType::UInt32 => ints::<UInt32Type>(array),
        DataType::UInt64 => ints::<UInt64Type>(array),
        DataType::Date32 => ints::<Date32Type>(array),
        DataType::Timestamp(TimeUnit::Millisecond, _) => ints::<TimestampMillisecondType>(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => ints::<TimestampMicrosecondType>(array),
        DataType::Decimal128(_, _) => ints::<Decimal128Type>(array),
        DataType::Utf8View => collect(array.as_string_view().iter(), |v| Value::Bytes(v.as_bytes().to_vec())),
        DataType::BinaryView => collect(array.as_binary_view().iter(), |v| Value::Bytes(v.to_vec())),
        DataType::FixedSizeBinary(_) => collect(array.as_fixed_size_binary().iter(), |v| Value::Bytes(v.to_vec())),
        DataType::List(_) => collect(array.as_list::<i32>().iter(), |items| Value::List(from_array(&items))),
        DataType::Struct(_) => {
            let (array, fields) = (array.as_struct(), from_array(array.as_struct().column(0)));
            let row = |(i, field)| if array.is_null(i) { Value::Null } else { Value::List(vec![field]) };
            fields.into_iter().enumerate().map(row).collect()
        }
        other => panic!("not a canonical type of the model: {other}"),
    }
}
