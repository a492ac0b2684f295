//! Tests of how the leaves of runs are encoded: what the first rows of a run choose, and what options choose instead.

use parquet::basic::Encoding as Physical;
use parquet::file::metadata::RowGroupMetaData;

use super::*;
use crate::write::options::{DEFAULT_ENCODING, Encoding};
use crate::write::run_encoder::RunEncoder;

const ROWS: usize = 30_000;

/// Columns of which the best encoding is known, in the order of the key.
fn batch() -> RecordBatch {
    let mut random = Random(3);
    let mut numbers = || (0..ROWS).map(|_| random.next() as i64).collect::<Vec<_>>();
    let (noise, more) = (numbers(), numbers());
    let key: Int64Array = (0..ROWS as i64).map(|i| i / 3 * 7).collect();
    let price: Decimal128Array = noise.iter().map(|n| i128::from(n.rem_euclid(10_000_000))).collect();
    let country = |n: &i64| ["Sweden", "Brazil", "Japan", "Kenya"][n.rem_euclid(4) as usize];
    let score: Float64Array = noise.iter().map(|n| *n as f64 / 1000.0).collect();
    let keys: StringViewArray = noise.iter().map(|n| Some(format!("artist {:05}", n.rem_euclid(300)))).collect();
    let counts: Int64Array = more.iter().map(|n| n.rem_euclid(1_000_000)).collect();
    let field = |name, data_type| Field::new(name, data_type, true);
    let entries = Fields::from(vec![Field::new("key", DataType::Utf8View, false), field("value", DataType::Int64)]);
    let entries = StructArray::new(entries, vec![Arc::new(keys), Arc::new(counts)], None);
    let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let one_each = arrow::buffer::OffsetBuffer::from_lengths(vec![1; ROWS]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("sorted", Arc::new(key)),
        ("price", Arc::new(price.with_precision_and_scale(15, 2).unwrap())),
        ("hash", Arc::new(Int64Array::from(more.clone()))),
        ("quantity", Arc::new(more.iter().map(|n| Some(n.rem_euclid(50) * 100)).collect::<Int64Array>())),
        ("country", Arc::new(noise.iter().map(|n| Some(country(n))).collect::<StringViewArray>())),
        ("comment", Arc::new(noise.iter().map(|n| Some(format!("this was number {n}"))).collect::<StringViewArray>())),
        ("score", Arc::new(score)),
        ("flag", Arc::new(noise.iter().map(|n| Some(n % 2 == 0)).collect::<BooleanArray>())),
        ("nothing", Arc::new(StringViewArray::new_null(ROWS))),
        ("counts", Arc::new(MapArray::new(entry, one_each, entries, None, false))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// The bytes of a run of these rows, which come in batches of `sizes`.
fn encode(batch: &RecordBatch, options: &WriteOptions, sizes: &[usize]) -> Bytes {
    let spec = BucketSpec::new(["sorted"], 1).unwrap();
    let target = target(&in_memory(), &batch.schema(), &spec, options).unwrap();
    let mut encoder = RunEncoder::new(&target, 0, "r").unwrap();
    let (mut bytes, mut start) = (vec![], 0);
    for size in sizes.iter().cycle() {
        let rows = (*size).min(batch.num_rows() - start);
        if rows == 0 {
            break;
        }
        encoder.write(&batch.slice(start, rows)).unwrap();
        bytes.extend(encoder.take_bytes().unwrap());
        start += rows;
    }
    bytes.extend(encoder.finish().unwrap().unwrap().0);
    bytes.into()
}

/// The encodings of the data pages of each leaf, by path, that occur in any row group.
fn encodings(bytes: &Bytes) -> BTreeMap<String, Vec<Physical>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let mut found: BTreeMap<String, Vec<Physical>> = BTreeMap::new();
    for chunk in reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let of_leaf = found.entry(chunk.column_path().string()).or_default();
        of_leaf.extend(chunk.page_encoding_stats_mask().unwrap().encodings());
    }
    found
}

#[test]
fn the_first_rows_choose_an_encoding_for_each_leaf() {
    let batch = batch();
    let bytes = encode(&batch, &WriteOptions::default(), &[ROWS]);
    let found = encodings(&bytes);
    for (leaf, expected) in [
        ("sorted", Physical::DELTA_BINARY_PACKED),
        ("price", Physical::DELTA_BINARY_PACKED),
        ("hash", Physical::PLAIN),
        ("quantity", Physical::RLE_DICTIONARY),
        ("country", Physical::RLE_DICTIONARY),
        ("comment", Physical::DELTA_LENGTH_BYTE_ARRAY),
        ("score", Physical::PLAIN),
        ("flag", Physical::PLAIN),
        ("counts.entries.key", Physical::RLE_DICTIONARY),
        ("counts.entries.value", Physical::DELTA_BINARY_PACKED),
    ] {
        assert_eq!(found[leaf], [expected], "{leaf}");
    }
    let read = arrow::compute::concat_batches(&batch.schema(), &read(&bytes)).unwrap();
    assert_eq!(read, batch);
}

#[test]
fn law_the_choice_does_not_depend_on_how_rows_are_cut() {
    let batch = batch();
    let options = WriteOptions::default().with_max_row_group_rows(12_000);
    let whole = encode(&batch, &options, &[ROWS]);
    for sizes in [&[1][..], &[8192], &[5, 4000, 1], &[8191, 2]] {
        assert!(encode(&batch, &options, sizes) == whole, "sizes {sizes:?}");
    }
}

#[test]
fn values_under_nulls_choose_nothing() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2000).map(|i| i % 2)));
    let noise: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2000).map(|i: i64| i % 2 + i % 4 / 2 * i * i * i)));
    // Every other pair of rows has no struct; what its child holds there is noise.
    let valid: arrow::buffer::NullBuffer = (0..2000).map(|i| i % 4 / 2 == 0).collect();
    let key: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2000));
    let encode = |child: ArrayRef| {
        let field = Field::new("child", DataType::Int64, true);
        let pair: ArrayRef = Arc::new(StructArray::new(vec![field].into(), vec![child], Some(valid.clone())));
        let batch = RecordBatch::try_from_iter([("sorted", Arc::clone(&key)), ("pair", pair)]).unwrap();
        encode(&batch, &WriteOptions::default(), &[2000])
    };
    let clean = encode(numbers);
    assert_eq!(encodings(&clean)["pair.child"], [Physical::RLE_DICTIONARY]);
    assert!(encode(noise) == clean);
}

/// More items than are looked at, in one portion; those that are stand for all, else the dictionary of 20 000 would seem too large.
#[test]
fn the_first_items_of_long_lists_choose_for_all() {
    const LISTS: usize = 1000;
    const ITEMS: usize = 200;
    let mut random = Random(5);
    let mut lists = |number: &dyn Fn(u64) -> u64| -> ArrayRef {
        let text = |number: u64| Some(format!("{number:012}"));
        let items: StringViewArray = (0..LISTS * ITEMS).map(|_| text(number(random.next()))).collect();
        let lengths = arrow::buffer::OffsetBuffer::from_lengths(vec![ITEMS; LISTS]);
        let item = Arc::new(Field::new_list_field(DataType::Utf8View, true));
        Arc::new(ListArray::new(item, lengths, Arc::new(items), None))
    };
    let columns = [
        ("sorted", Arc::new(Int64Array::from_iter_values(0..LISTS as i64)) as ArrayRef),
        ("artists", lists(&|number| number % 20_000)),
        ("plays", lists(&|number| number % 1_000_000_000_000)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let bytes = encode(&batch, &WriteOptions::default(), &[LISTS]);
    let found = encodings(&bytes);
    assert_eq!(found["artists.list.item"], [Physical::RLE_DICTIONARY]);
    assert_eq!(found["plays.list.item"], [Physical::DELTA_LENGTH_BYTE_ARRAY]);
}

#[test]
fn options_choose_for_all_columns_or_for_one() {
    let batch = batch();
    let options = WriteOptions::default()
        .with_encoding(Encoding::Plain)
        .with_column_encoding("sorted", Encoding::Dictionary)
        .with_column_encoding("comment", Encoding::Auto)
        .with_column_encoding("counts", Encoding::Direct);
    let found = encodings(&encode(&batch, &options, &[ROWS]));
    for (leaf, expected) in [
        ("sorted", Physical::RLE_DICTIONARY),
        ("price", Physical::PLAIN),
        ("country", Physical::PLAIN),
        ("comment", Physical::DELTA_LENGTH_BYTE_ARRAY),
        ("score", Physical::PLAIN),
        ("counts.entries.key", Physical::DELTA_LENGTH_BYTE_ARRAY),
        ("counts.entries.value", Physical::DELTA_BINARY_PACKED),
    ] {
        assert_eq!(found[leaf], [expected], "{leaf}");
    }

    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<WriteOptions>(&text).unwrap(), options);
    assert!(text.contains(r#""encoding":"plain""#) && text.contains(r#""sorted":"dictionary""#), "{text}");
    assert_eq!(serde_json::from_str::<WriteOptions>("{}").unwrap(), WriteOptions::default());
    assert_eq!(WriteOptions::default().encoding, DEFAULT_ENCODING);
}

#[test]
fn an_encoding_for_a_column_that_is_not_there_is_refused() {
    let batch = batch();
    let options = WriteOptions::default().with_column_encoding("kountry", Encoding::Plain);
    let spec = BucketSpec::new(["sorted"], 1).unwrap();
    let error = target(&in_memory(), &batch.schema(), &spec, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("column=`kountry`"), "{error}");
}

#[test]
fn pages_that_hardly_compress_are_stored_as_they_are() {
    let batch = batch();
    let bytes_of = |threshold: f64| {
        let options = WriteOptions::default().with_compression_threshold(threshold);
        let bytes = encode(&batch, &options, &[ROWS]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let of_chunk = |leaf: usize| {
            let chunk = reader.metadata().row_group(0).column(leaf);
            (chunk.compressed_size(), chunk.uncompressed_size())
        };
        (of_chunk(1), of_chunk(5))
    };
    let ((price, price_plain), (comment, comment_plain)) = bytes_of(0.8);
    assert_eq!(price, price_plain);
    assert!(comment < comment_plain * 8 / 10);
    let (_, (comment, _)) = bytes_of(0.01);
    assert_eq!(comment, comment_plain);
}
