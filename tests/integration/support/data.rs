//! Random data: schemas, rows and how they are cut into datasets, writes, buckets and row groups; and the same as plain rows for the oracle.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    FixedSizeBinaryArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray,
    LargeStringArray, ListArray, RecordBatch, RecordBatchOptions, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{BucketSpec, Clock, Dataset, DatasetWriter, Source, WriteId, WriteMode, WriteOptions};

use super::oracle::{Row, Side, Value, int, stored_type, text, wider_type};

/// The array of this type with these values.
pub(crate) fn array_of(data_type: &DataType, values: &[Value]) -> ArrayRef {
    use DataType as D;
    let ints = || values.iter().map(|v| if let Value::Int(v) = v { Some(*v) } else { None });
    let texts = || values.iter().map(|v| if let Value::Text(v) = v { Some(v.as_str()) } else { None });
    let bytes = || values.iter().map(|v| if let Value::Bytes(v) = v { Some(v.as_slice()) } else { None });
    macro_rules! integers {
        ($array:ident, $native:ty) => {
            Arc::new($array::from_iter(ints().map(|v| v.map(|v| <$native>::try_from(v).unwrap())))) as ArrayRef
        };
    }
    macro_rules! times {
        ($array:ident, $zone:expr, $unit:expr) => {
            Arc::new(
                $array::from_iter(ints().map(|v| v.map(|v| i64::try_from(v / $unit).unwrap())))
                    .with_timezone_opt($zone.clone()),
            )
        };
    }
    match data_type {
        D::Boolean => Arc::new(BooleanArray::from_iter(
            values.iter().map(|v| if let Value::Bool(v) = v { Some(*v) } else { None }),
        )),
        D::Int8 => integers!(Int8Array, i8),
        D::Int16 => integers!(Int16Array, i16),
        D::Int32 => integers!(Int32Array, i32),
        D::Int64 => integers!(Int64Array, i64),
        D::UInt8 => integers!(UInt8Array, u8),
        D::UInt16 => integers!(UInt16Array, u16),
        D::UInt32 => integers!(UInt32Array, u32),
        D::UInt64 => integers!(UInt64Array, u64),
        D::Date32 => integers!(Date32Array, i32),
        D::Decimal128(p, s) => Arc::new(Decimal128Array::from_iter(ints()).with_precision_and_scale(*p, *s).unwrap()),
        // The model holds what is stored: milliseconds.
        D::Timestamp(TimeUnit::Second, zone) => times!(TimestampSecondArray, zone, 1000),
        D::Timestamp(TimeUnit::Millisecond, zone) => times!(TimestampMillisecondArray, zone, 1),
        D::Timestamp(TimeUnit::Microsecond, zone) => times!(TimestampMicrosecondArray, zone, 1),
        D::Timestamp(TimeUnit::Nanosecond, zone) => times!(TimestampNanosecondArray, zone, 1),
        D::Float64 => {
            let floats = values.iter().map(|v| if let Value::Float(v) = v { Some(f64::from_bits(*v)) } else { None });
            Arc::new(Float64Array::from_iter(floats))
        }
        D::Utf8 => Arc::new(StringArray::from_iter(texts())),
        D::LargeUtf8 => Arc::new(LargeStringArray::from_iter(texts())),
        D::Utf8View => Arc::new(StringViewArray::from_iter(texts())),
        D::Dictionary(key, _) if **key == D::Int8 => Arc::new(DictionaryArray::<Int8Type>::from_iter(texts())),
        D::Dictionary(_, _) => Arc::new(DictionaryArray::<Int32Type>::from_iter(texts())),
        D::Binary => Arc::new(BinaryArray::from_iter(bytes())),
        D::LargeBinary => Arc::new(LargeBinaryArray::from_iter(bytes())),
        D::BinaryView => Arc::new(BinaryViewArray::from_iter(bytes())),
        D::FixedSizeBinary(n) => Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes(), *n).unwrap()),
        D::List(item) => {
            let lists = || values.iter().map(|v| if let Value::Many(items) = v { items.as_slice() } else { &[] });
            let items: Vec<Value> = lists().flatten().cloned().collect();
            let offsets = OffsetBuffer::from_lengths(lists().map(<[_]>::len));
            Arc::new(ListArray::new(Arc::clone(item), offsets, array_of(item.data_type(), &items), nulls(values)))
        }
        D::Struct(fields) => {
            let field = |at: usize| -> Vec<Value> {
                values.iter().map(|v| if let Value::Many(v) = v { v[at].clone() } else { Value::Null }).collect()
            };
            let columns = fields.iter().enumerate().map(|(at, f)| array_of(f.data_type(), &field(at))).collect();
            Arc::new(StructArray::new(fields.clone(), columns, nulls(values)))
        }
        other => panic!("no arrays of type {other}"),
    }
}

fn nulls(values: &[Value]) -> Option<NullBuffer> {
    Some(values.iter().map(|v| *v != Value::Null).collect())
}

/// A batch of these rows.
pub(crate) fn batch_of(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
    let columns = schema.fields().iter().enumerate().map(|(at, f)| array_of(f.data_type(), &column(at))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).unwrap()
}

/// Key types that join with each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Family {
    Integers,
    UInt64,
    Texts,
    Binaries,
    FixedBinary,
    Dates,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    ZonedTimes,
    Decimals,
    Booleans,
}

impl Family {
    pub(crate) const ALL: [Self; 12] = [
        Self::Integers,
        Self::Texts,
        Self::UInt64,
        Self::Binaries,
        Self::FixedBinary,
        Self::Dates,
        Self::Milliseconds,
        Self::Microseconds,
        Self::Nanoseconds,
        Self::ZonedTimes,
        Self::Decimals,
        Self::Booleans,
    ];

    /// The types of the family, as a writer may get them.
    pub(crate) fn types(self) -> Vec<DataType> {
        use DataType as D;
        let dictionary = |key: D, value: D| D::Dictionary(Box::new(key), Box::new(value));
        match self {
            Self::Integers => vec![D::Int64, D::Int32, D::Int16, D::Int8, D::UInt32, D::UInt16, D::UInt8],
            Self::UInt64 => vec![D::UInt64],
            Self::Texts => {
                vec![D::Utf8, D::Utf8View, D::LargeUtf8, dictionary(D::Int32, D::Utf8), dictionary(D::Int8, D::Utf8)]
            }
            Self::Binaries => vec![D::Binary, D::BinaryView, D::LargeBinary],
            Self::FixedBinary => vec![D::FixedSizeBinary(3)],
            Self::Dates => vec![D::Date32],
            Self::Milliseconds => vec![D::Timestamp(TimeUnit::Millisecond, None), D::Timestamp(TimeUnit::Second, None)],
            Self::Microseconds => vec![D::Timestamp(TimeUnit::Microsecond, None)],
            Self::Nanoseconds => vec![D::Timestamp(TimeUnit::Nanosecond, None)],
            Self::ZonedTimes => vec![D::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))],
            Self::Decimals => vec![D::Decimal128(38, 2), D::Decimal128(9, 2), D::Decimal128(3, 2)],
            Self::Booleans => vec![D::Boolean],
        }
    }

    /// Values that keys are drawn from, those that fit every type of the family first.
    pub(crate) fn pool(self) -> Vec<Value> {
        let ints = |values: &[i128]| values.iter().copied().map(int).collect::<Vec<_>>();
        let bytes = |values: &[&[u8]]| values.iter().map(|v| Value::Bytes(v.to_vec())).collect::<Vec<_>>();
        let times =
            [0, 1000, -1000, 1_510_871_468_000, -1, 1, -999, 1_510_871_468_001, 999, -1001, -62_135_596_800_000];
        match self {
            Self::Integers => ints(&[
                1,
                2,
                0,
                100,
                127,
                -1,
                -2,
                -128,
                128,
                255,
                -129,
                300,
                -32_768,
                65_535,
                65_536,
                -2_147_483_648,
                2_147_483_647,
                4_294_967_295,
                i128::from(i64::MAX),
                i128::from(i64::MIN),
            ]),
            Self::UInt64 => ints(&[0, 1, 2, 34, 1 << 63, (1 << 63) - 1, i128::from(u64::MAX)]),
            Self::Texts => {
                let long = "a".repeat(130);
                let other = format!("{}b", "a".repeat(129));
                let twelve = "abcdefghijkl";
                let values =
                    ["a", "", "b", "aa", "ab", "é", "日本", twelve, "abcdefghijklm", &long, &other, "\u{10ffff}", "Z"];
                values.into_iter().map(text).collect()
            }
            Self::Binaries => {
                bytes(&[b"a", b"", &[0], &[0, 0], &[0x80], &[0xff], &[0x7f, 0xff], &[0xff; 70], &[b'a'; 13]])
            }
            Self::FixedBinary => bytes(&[b"aaa", b"aab", &[0; 3], &[0xff; 3], &[0x80, 0, 0]]),
            Self::Dates => ints(&[0, 1, -1, 17_486, -719_162, 2_932_896]),
            Self::Milliseconds | Self::Microseconds | Self::Nanoseconds | Self::ZonedTimes => ints(&times),
            Self::Decimals => ints(&[
                100,
                0,
                -1,
                1,
                999,
                -999,
                1000,
                -128,
                128,
                999_999_999,
                -999_999_999,
                10_i128.pow(30),
                -(10_i128.pow(37)),
            ]),
            Self::Booleans => vec![Value::Bool(true), Value::Bool(false)],
        }
    }

    /// The first `domain` values of the pool that this type can hold.
    fn domain(self, data_type: &DataType, domain: usize) -> Vec<Value> {
        let pool = self.pool().into_iter().take(domain.max(1));
        let fitting: Vec<Value> = pool.filter(|value| holds(data_type, value)).collect();
        assert!(!fitting.is_empty(), "the first value of a pool fits every type");
        fitting
    }
}

pub(crate) fn holds(data_type: &DataType, value: &Value) -> bool {
    use DataType as D;
    let Value::Int(value) = value else { return true };
    let range: RangeInclusive<i128> = match data_type {
        D::Int8 => i8::MIN.into()..=i8::MAX.into(),
        D::Int16 => i16::MIN.into()..=i16::MAX.into(),
        D::Int32 => i32::MIN.into()..=i32::MAX.into(),
        D::UInt8 => 0..=u8::MAX.into(),
        D::UInt16 => 0..=u16::MAX.into(),
        D::UInt32 => 0..=u32::MAX.into(),
        D::Decimal128(p, _) => 1 - 10_i128.pow(u32::from(*p))..=10_i128.pow(u32::from(*p)) - 1,
        D::Timestamp(TimeUnit::Second, _) if value % 1000 != 0 => return false,
        _ => return true,
    };
    range.contains(value)
}

/// Types of columns that are neither key nor sort columns.
pub(crate) fn payload_types() -> Vec<DataType> {
    use DataType as D;
    let item = |name: &str, data_type| Field::new(name, data_type, true);
    vec![
        D::Utf8,
        D::Int32,
        D::Float64,
        D::Boolean,
        D::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        D::List(Arc::new(item("item", D::Utf8))),
        D::Struct(vec![item("a", D::Int64), item("b", D::Utf8)].into()),
        D::Dictionary(Box::new(D::Int32), Box::new(D::Utf8)),
        D::Decimal128(12, 3),
    ]
}

/// The value of a payload column in the row `id`.
fn payload(data_type: &DataType, nullable: bool, id: i128) -> Value {
    use DataType as D;
    if nullable && id % 4 == 1 {
        return Value::Null;
    }
    match data_type {
        D::Utf8 | D::Dictionary(_, _) => Value::Text(format!("row {}{}", id % 5, "x".repeat((id % 17) as usize))),
        D::Float64 => Value::Float((id as f64 / 3.0).to_bits()),
        D::Boolean => Value::Bool(id % 2 == 0),
        D::List(item) => Value::Many((0..id % 3).map(|n| payload(item.data_type(), true, id + n)).collect()),
        D::Struct(fields) => Value::Many(fields.iter().map(|f| payload(f.data_type(), true, id + 1)).collect()),
        _ => int(id * 7),
    }
}

/// The first moment of 2025, standing still.
pub(crate) fn fixed_clock() -> Clock {
    Clock::Fixed(DateTime::from_timestamp_millis(1_735_689_600_000).unwrap())
}

/// Rows that are written and committed together.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) buckets: u32,
    /// In the order in which they are written.
    pub(crate) rows: Vec<Row>,
    /// Rows per batch handed to the writer.
    pub(crate) chunk: usize,
    pub(crate) options: WriteOptions,
}

impl Write {
    pub(crate) fn new(buckets: u32, rows: Vec<Row>) -> Self {
        Self { buckets, rows, chunk: usize::MAX, options: WriteOptions::default() }
    }
}

/// One dataset: created by the first write, appended to by the others.
#[derive(Debug, Clone)]
pub(crate) struct DatasetData {
    /// As handed to the writer; rows have this order.
    pub(crate) fields: Vec<Field>,
    pub(crate) key: Vec<String>,
    pub(crate) sort: Vec<String>,
    pub(crate) writes: Vec<Write>,
}

impl DatasetData {
    /// A dataset of one write.
    pub(crate) fn new(fields: Vec<Field>, key: &[&str], buckets: u32, rows: Vec<Row>) -> Self {
        let key = key.iter().map(|&name| name.to_owned()).collect();
        Self { fields, key, sort: vec![], writes: vec![Write::new(buckets, rows)] }
    }

    pub(crate) fn with_sort(mut self, sort: &[&str]) -> Self {
        self.sort = sort.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn and_write(mut self, buckets: u32, rows: Vec<Row>) -> Self {
        self.writes.push(Write::new(buckets, rows));
        self
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    pub(crate) fn spec(&self, buckets: u32) -> BucketSpec {
        BucketSpec::new(self.key.clone(), buckets).unwrap().with_sort_columns(self.sort.clone()).unwrap()
    }

    /// The positions of key and sort columns.
    fn order(&self) -> Vec<usize> {
        let at = |name: &String| self.fields.iter().position(|f| f.name() == name).unwrap();
        self.key.iter().chain(&self.sort).map(at).collect()
    }

    pub(crate) async fn write(&self, store: &Arc<dyn ObjectStore>, path: &str) -> Dataset {
        self.write_with(store, path, false).await
    }

    /// The same bytes every time: fixed time and names.
    pub(crate) async fn write_fixed(&self, store: &Arc<dyn ObjectStore>, path: &str) -> Dataset {
        self.write_with(store, path, true).await
    }

    async fn write_with(&self, store: &Arc<dyn ObjectStore>, path: &str, fixed: bool) -> Dataset {
        let mut dataset = None;
        for (at, Write { buckets, rows, chunk, options }) in self.writes.iter().enumerate() {
            let mode = if dataset.is_none() { WriteMode::Create } else { WriteMode::Append };
            let mut builder = DatasetWriter::builder(Arc::clone(store), path, self.schema(), self.spec(*buckets))
                .with_mode(mode)
                .with_options(options.clone());
            if fixed {
                builder = builder.with_clock(fixed_clock()).with_write_id(WriteId::new(format!("write-{at}")).unwrap());
            }
            let mut writer = builder.build().await.unwrap();
            for rows in rows.chunks((*chunk).max(1)) {
                writer.write(&batch_of(&self.schema(), rows)).await.unwrap();
            }
            dataset = Some(writer.commit().await.unwrap());
        }
        dataset.unwrap()
    }
}

/// What one source of a plan consists of.
#[derive(Debug, Clone)]
pub(crate) struct SourceData {
    pub(crate) datasets: Vec<DatasetData>,
    /// The wanted columns; `None` is all.
    pub(crate) columns: Option<Vec<String>>,
}

impl From<DatasetData> for SourceData {
    fn from(dataset: DatasetData) -> Self {
        Self { datasets: vec![dataset], columns: None }
    }
}

impl SourceData {
    pub(crate) async fn write(&self, store: &Arc<dyn ObjectStore>, root: &str) -> Source {
        let mut datasets = vec![];
        for (at, dataset) in self.datasets.iter().enumerate() {
            datasets.push(dataset.write(store, &format!("{root}/part={at}")).await);
        }
        let source = Source::new(datasets);
        match &self.columns {
            None => source,
            Some(columns) => source.with_columns(columns.clone()),
        }
    }

    /// The columns that a plan reads of it when it merges by the first `merge` order columns: those, then the others.
    pub(crate) fn fields(&self, merge: usize) -> Vec<Field> {
        let mut all: Vec<Field> = vec![];
        for dataset in &self.datasets {
            for field in &dataset.fields {
                let data_type = stored_type(field.data_type());
                match all.iter_mut().find(|known| known.name() == field.name()) {
                    None => all.push(Field::new(field.name(), data_type, field.is_nullable())),
                    Some(known) => {
                        let nullable = known.is_nullable() || field.is_nullable();
                        *known = Field::new(field.name(), wider_type(known.data_type(), &data_type), nullable);
                    }
                }
            }
        }
        for field in &mut all {
            if self.datasets.iter().any(|dataset| dataset.fields.iter().all(|f| f.name() != field.name())) {
                field.set_nullable(true);
            }
        }
        let merged: Vec<String> = {
            let first = &self.datasets[0];
            first.key.iter().chain(&first.sort).take(merge).cloned().collect()
        };
        let rest = match &self.columns {
            None => all.iter().map(|f| f.name().clone()).collect(),
            Some(columns) => columns.clone(),
        };
        let names = merged.iter().cloned().chain(rest.into_iter().filter(|name| !merged.contains(name)));
        names.map(|name| all.iter().find(|f| *f.name() == name).unwrap().clone()).collect()
    }

    /// Its rows with the columns of [`fields`](Self::fields), write after write, those of a write in their stored order.
    pub(crate) fn side(&self, merge: usize) -> Side {
        let fields = self.fields(merge);
        let mut rows = vec![];
        for dataset in &self.datasets {
            let order = dataset.order();
            let at: Vec<Option<usize>> =
                fields.iter().map(|field| dataset.fields.iter().position(|f| f.name() == field.name())).collect();
            for write in &dataset.writes {
                let mut stored = write.rows.clone();
                stored.sort_by_key(|row| order.iter().map(|&at| row[at].clone()).collect::<Vec<_>>());
                let project = |row: &Row| at.iter().map(|at| at.map_or(Value::Null, |at| row[at].clone())).collect();
                rows.extend(stored.iter().map(project));
            }
        }
        Side { rows, width: fields.len() }
    }
}

/// What the sources of one plan have in common.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Key columns, then sort columns.
    pub(crate) families: Vec<Family>,
    /// Of how many values each of them has.
    domains: Vec<usize>,
    pub(crate) keys: usize,
}

/// Random shapes: one to three key columns, up to two sort columns.
pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let column = (prop::sample::select(Family::ALL.to_vec()), prop_oneof![Just(1_usize), 2..5_usize, 5..30_usize]);
    // One key column is the usual case, and has kernels of its own for every type.
    let keys = prop_oneof![3 => Just(1_usize), 1 => 2..=3_usize];
    (keys, 0..=2_usize).prop_flat_map(move |(keys, sort)| {
        prop::collection::vec(column.clone(), keys + sort).prop_map(move |columns| {
            let (families, domains) = columns.into_iter().unzip();
            Shape { families, domains, keys }
        })
    })
}

/// The names of a source's columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// Before the names of key and sort columns.
    pub(crate) order: &'static str,
    /// Before the names of the others.
    pub(crate) payload: &'static str,
}

/// Numbers from which a write is made.
type RawWrite = (u32, Vec<[u8; 6]>, usize, (usize, bool, usize));

fn raw_writes(most_rows: usize) -> impl Strategy<Value = Vec<RawWrite>> {
    let buckets = prop::sample::select(vec![1_u32, 2, 3, 4, 5, 6, 8, 12]);
    let rows = prop::collection::vec(any::<[u8; 6]>(), 0..=most_rows);
    let options =
        (prop::sample::select(vec![1_usize, 3, 17, 1000]), any::<bool>(), prop::sample::select(vec![1_usize, 5, 100]));
    prop::collection::vec((buckets, rows, prop::sample::select(vec![1_usize, 7, 1000]), options), 1..=3)
}

/// Random sources of a shape.
pub(crate) fn sources(shape: Shape, names: Names, most_rows: usize) -> impl Strategy<Value = SourceData> {
    let width = shape.families.len();
    let dataset = (prop::collection::vec((any::<u8>(), any::<bool>()), width), raw_writes(most_rows));
    let payload = prop::collection::vec((prop::sample::select(payload_types()), any::<bool>()), 0..=3);
    let projection = prop::option::of(any::<[bool; 8]>());
    (prop::collection::vec(dataset, 1..=2), payload, any::<bool>(), projection).prop_map(
        move |(datasets, payload, reversed, projection)| {
            let mut id = 0;
            let datasets = datasets
                .into_iter()
                .map(|(types, writes)| build(&shape, names, &types, &payload, reversed, writes, &mut id))
                .collect();
            let mut source = SourceData { datasets, columns: None };
            source.columns = projection.map(|wanted| {
                let fields = source.fields(shape.keys);
                let mut names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
                names.reverse();
                names
                    .into_iter()
                    .zip(wanted.into_iter().cycle())
                    .filter(|(_, wanted)| *wanted)
                    .map(|(name, _)| name)
                    .collect()
            });
            source
        },
    )
}

fn build(
    shape: &Shape,
    names: Names,
    types: &[(u8, bool)],
    payload_columns: &[(DataType, bool)],
    reversed: bool,
    writes: Vec<RawWrite>,
    id: &mut i128,
) -> DatasetData {
    let name = |at: usize| format!("{}{}{at}", names.order, if at < shape.keys { "k" } else { "s" });
    let mut fields = vec![];
    let mut domains = vec![];
    for (at, family) in shape.families.iter().enumerate() {
        let all = family.types();
        let data_type = all[usize::from(types[at].0) % all.len()].clone();
        domains.push(family.domain(&data_type, shape.domains[at]));
        fields.push(Field::new(name(at), data_type, types[at].1));
    }
    fields.push(Field::new(format!("{}id", names.payload), DataType::Int64, false));
    for (at, (data_type, nullable)) in payload_columns.iter().enumerate() {
        fields.push(Field::new(format!("{}{at}", names.payload), data_type.clone(), *nullable));
    }
    let mut row_of = |picks: [u8; 6]| {
        *id += 1;
        let mut row: Row = vec![];
        for (at, domain) in domains.iter().enumerate() {
            let null = types[at].1 && picks[at] >= 235;
            row.push(if null { Value::Null } else { domain[usize::from(picks[at]) % domain.len()].clone() });
        }
        row.push(int(*id));
        row.extend(payload_columns.iter().map(|(data_type, nullable)| payload(data_type, *nullable, *id)));
        if reversed {
            row.reverse();
        }
        row
    };
    let writes = writes
        .into_iter()
        .map(|(buckets, rows, chunk, (row_group, spill, page))| Write {
            buckets,
            rows: rows.into_iter().map(&mut row_of).collect(),
            chunk,
            options: WriteOptions::default()
                .with_max_row_group_rows(row_group)
                .with_page_rows(page)
                .with_memory_budget(if spill && chunk == 7 { 1 } else { 64 << 20 }),
        })
        .collect();
    if reversed {
        fields.reverse();
    }
    let (key, sort) = (0..shape.families.len()).map(name).partition(|name| name.contains('k'));
    DatasetData { fields, key, sort, writes }
}
