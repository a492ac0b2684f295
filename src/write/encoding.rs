//! How the leaf columns of a run are encoded: chosen by column, or from the first rows of the run.
//!
//! A choice depends on the options and on the logical values of the sample alone, so that equal rows make equal bytes however they
//! arrived. It decides how many bytes a run has and how fast it is read, never what it holds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::basic::{Encoding as Physical, Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use twox_hash::XxHash64;

use crate::error::{Error, Result};
use crate::write::options::{Encoding, WriteOptions};

/// A dictionary that reaches this many bytes is abandoned for the rest of its row group: indices get wide, and a look-up reads all of it. Four times
/// parquet's own limit, which the items of a bucket's states exceed: with 1 MiB, a year by user and artist took 2.3 times the bytes.
///
/// Of numbers it is parquet's own limit: each takes several times its bytes in the encoder.
const DICTIONARY_BYTES: usize = 4 << 20;
const DICTIONARY_BYTES_OF_NUMBERS: usize = 1 << 20;

/// Strings and binary get a dictionary if that is estimated to take at most one part in so many of what the values take themselves. More than
/// one, because the codec, which is not estimated, makes strings smaller, but indices hardly.
const DICTIONARY_OF_BYTES: f64 = 2.0;

/// Of lists and maps so many items are looked at: states are large maps, of which looking at all takes longer than compressing them.
const SAMPLE_ITEMS: usize = 1 << 16;

/// What a leaf takes while a run is encoded: the codec's state, a page, a dictionary as it grows. Measured with 500 columns.
const LEAF_BYTES: usize = 320 << 10;

/// The same of a leaf whose differences may be packed: parquet's encoder has a buffer of this size, most of which is never touched.
const PACKED_LEAF_BYTES: usize = 1 << 20;

/// Runs of no more leaves may have all of them packed, however small the memory budget is.
const PACKED_LEAVES: usize = 32;

/// Numbers of which the packed differences take at least this share of the plain values are left plain, which is read faster.
const PLAIN_FROM: f64 = 7.0 / 8.0;

/// What is needed to choose how the runs of one write are encoded.
#[derive(Debug)]
pub(super) struct Encodings {
    properties: WriterPropertiesBuilder,
    /// Every leaf with the choice for the column that it belongs to.
    leaves: Vec<(ColumnDescPtr, Encoding)>,
    /// Whether `Auto` may pack differences: with hundreds of columns, the packers alone would take more than the budget.
    packs: bool,
    max_row_group_rows: usize,
    row_group_bytes: usize,
}

impl Encodings {
    /// `properties` are those that no sample decides, `schema` is that of the runs.
    ///
    /// # Errors
    /// `InvalidInput` if the options choose an encoding for a column that is not there.
    pub(super) fn new(
        properties: WriterPropertiesBuilder,
        schema: &SchemaDescriptor,
        options: &WriteOptions,
    ) -> Result<Self> {
        let root = |leaf: &ColumnDescPtr| leaf.path().parts().first().cloned().unwrap_or_default();
        for name in options.column_encodings.keys() {
            if !schema.columns().iter().any(|leaf| root(leaf) == *name) {
                return Err(Error::invalid_input(format!(
                    "a write option chooses the encoding of a column that the schema lacks, column=`{name}`"
                )));
            }
        }
        let choice = |leaf: &ColumnDescPtr| {
            let of_column = options.column_encodings.get(&root(leaf));
            (Arc::clone(leaf), of_column.copied().unwrap_or(options.encoding))
        };
        let leaves: Vec<_> = schema.columns().iter().map(choice).collect();
        let WriteOptions { max_row_group_rows, row_group_bytes, memory_budget, .. } = *options;
        let packs = leaves.len() <= (memory_budget / 4 / PACKED_LEAF_BYTES).max(PACKED_LEAVES);
        Ok(Self { properties, leaves, packs, max_row_group_rows, row_group_bytes })
    }

    /// About the memory that encoding a run takes for its columns, beside the row group.
    pub(super) fn leaf_bytes(&self) -> usize {
        let of_leaf = |(_, choice): &(ColumnDescPtr, Encoding)| match choice {
            Encoding::Auto if self.packs => PACKED_LEAF_BYTES,
            Encoding::Direct => PACKED_LEAF_BYTES,
            Encoding::Auto | Encoding::Dictionary | Encoding::Plain => LEAF_BYTES,
        };
        self.leaves.iter().map(of_leaf).sum()
    }

    /// The properties of a run that begins with the rows of `sample`, or (`whole`) has no others.
    pub(super) fn of_run(&self, sample: &RecordBatch, whole: bool) -> Result<WriterProperties> {
        let mut samples = Vec::with_capacity(self.leaves.len());
        let rows: Vec<usize> = (0..sample.num_rows()).collect();
        for column in sample.columns() {
            sample_leaves(column, rows.clone(), 1.0, &mut samples);
        }
        if samples.len() != self.leaves.len() {
            return Err(Error::internal("a batch has other leaf columns than the schema of its run"));
        }
        // A dictionary is of a row group, so what it costs depends on how many rows that will have.
        let bits: f64 = samples.iter().map(|sample| sample.direct_bits * sample.stands_for).sum();
        let scale = if whole {
            1.0
        } else {
            let rows = self.max_row_group_rows as f64 / sample.num_rows().max(1) as f64;
            rows.min(8.0 * self.row_group_bytes as f64 / bits.max(1.0)).max(1.0)
        };
        let mut properties = self.properties.clone();
        for ((leaf, choice), sample) in self.leaves.iter().zip(&samples) {
            let (dictionary, otherwise) =
                encoding(leaf.physical_type(), *choice, self.packs, sample, scale * sample.stands_for);
            properties = properties
                .set_column_dictionary_enabled(leaf.path().clone(), dictionary)
                .set_column_dictionary_page_size_limit(leaf.path().clone(), sample.dictionary_limit())
                .set_column_encoding(leaf.path().clone(), otherwise);
        }
        Ok(properties.build())
    }
}

/// Whether a leaf begins with a dictionary, and its encoding without one.
fn encoding(physical: Type, choice: Encoding, packs: bool, sample: &LeafSample, scale: f64) -> (bool, Physical) {
    let direct = match physical {
        Type::INT32 | Type::INT64 => Physical::DELTA_BINARY_PACKED,
        Type::BYTE_ARRAY => Physical::DELTA_LENGTH_BYTE_ARRAY,
        // Floats split by byte were larger as often as smaller, and are always slower to read.
        Type::BOOLEAN | Type::INT96 | Type::FLOAT | Type::DOUBLE | Type::FIXED_LEN_BYTE_ARRAY => Physical::PLAIN,
    };
    match choice {
        Encoding::Plain => (false, Physical::PLAIN),
        Encoding::Direct => (false, direct),
        Encoding::Dictionary => (true, Physical::PLAIN),
        Encoding::Auto => {
            let wide = direct == Physical::DELTA_BINARY_PACKED && sample.direct_bits >= PLAIN_FROM * sample.plain_bits;
            let direct = if wide || !packs { Physical::PLAIN } else { direct };
            (sample.dictionary_pays(scale), direct)
        }
    }
}

/// What the values of a leaf that are not null say about its encodings.
#[derive(Debug, Default)]
struct LeafSample {
    values: usize,
    /// How many values of the rows each of them stands for.
    stands_for: f64,
    /// Different values among the first half, and among all.
    distinct: [usize; 2],
    /// Bits of all values: plain, and as differences (numbers) or with packed lengths (bytes).
    plain_bits: f64,
    direct_bits: f64,
    /// Whether the values are byte strings.
    bytes: bool,
}

impl LeafSample {
    /// The bytes of a dictionary that it is given up at.
    fn dictionary_limit(&self) -> usize {
        if self.bytes { DICTIONARY_BYTES } else { DICTIONARY_BYTES_OF_NUMBERS }
    }

    /// Whether a dictionary would take less than the values, in a row group of `scale` times the values of the sample.
    fn dictionary_pays(&self, scale: f64) -> bool {
        let [half, all] = self.distinct.map(|n| n.max(1) as f64);
        // The number of different values grows with a power of the number of values (Heaps' law), which the sample's halves give.
        let all = all * scale.powf((all / half).log2().clamp(0.0, 1.0));
        let value_bits = self.plain_bits / self.values.max(1) as f64;
        let dictionary = all * value_bits;
        let indices = scale * self.values as f64 * all.log2().ceil();
        let direct = scale * self.direct_bits / if self.bytes { DICTIONARY_OF_BYTES } else { 1.0 };
        dictionary <= 8.0 * self.dictionary_limit() as f64 && dictionary + indices < direct
    }
}

/// Samples the leaves below `array` in Parquet's order, of these rows of it, each of which stands for so many.
fn sample_leaves(array: &ArrayRef, mut rows: Vec<usize>, stands_for: f64, samples: &mut Vec<LeafSample>) {
    if array.null_count() > 0 {
        rows.retain(|row| array.is_valid(*row));
    }
    // The items of the first lists, and for how many of all each stands.
    let items = |offsets: &[i32]| {
        let all: usize = rows.iter().map(|row| (offsets[*row + 1] - offsets[*row]) as usize).sum();
        let items = rows.iter().flat_map(|row| offsets[*row] as usize..offsets[*row + 1] as usize);
        let items: Vec<usize> = items.take(SAMPLE_ITEMS).collect();
        let stand_for = stands_for * all as f64 / items.len().max(1) as f64;
        (items, stand_for)
    };
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (items, stands_for) = items(list.value_offsets());
            sample_leaves(list.values(), items, stands_for, samples);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (items, stands_for) = items(map.value_offsets());
            let leaves = map.entries().columns().iter();
            leaves.for_each(|column| sample_leaves(column, items.clone(), stands_for, samples));
        }
        DataType::Struct(_) => {
            let leaves = array.as_struct().columns().iter();
            leaves.for_each(|column| sample_leaves(column, rows.clone(), stands_for, samples));
        }
        _ => samples.push(LeafSample { stands_for, ..sample_leaf(array, &rows) }),
    }
}

fn sample_leaf(array: &ArrayRef, rows: &[usize]) -> LeafSample {
    match array.data_type() {
        DataType::Utf8View => {
            let strings = array.as_string_view();
            sample_bytes(rows.iter().map(|row| strings.value(*row).as_bytes()))
        }
        DataType::BinaryView => {
            let binary = array.as_binary_view();
            sample_bytes(rows.iter().map(|row| binary.value(*row)))
        }
        DataType::Boolean => LeafSample::default(),
        _ => sample_fixed(array, rows),
    }
}

fn sample_bytes<'a>(values: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> LeafSample {
    let count = values.len();
    let bytes: usize = values.clone().map(<[u8]>::len).sum();
    let lengths = delta_bits(values.clone().map(|value| value.len() as i64), 32);
    LeafSample {
        values: count,
        distinct: distinct(values.map(|value| XxHash64::oneshot(0, value)), count),
        plain_bits: 8.0 * bytes as f64 + 32.0 * count as f64,
        direct_bits: 8.0 * bytes as f64 + lengths,
        bytes: true,
        ..LeafSample::default()
    }
}

/// Samples values of a fixed width: numbers of all kinds and binary.
fn sample_fixed(array: &ArrayRef, rows: &[usize]) -> LeafSample {
    let data = array.to_data();
    let width = match array.data_type() {
        DataType::FixedSizeBinary(width) => width.unsigned_abs() as usize,
        other => other.primitive_width().unwrap_or(0),
    };
    let (start, Some(buffer)) = (data.offset(), data.buffers().first()) else { return LeafSample::default() };
    let value = |row: usize| buffer.get((start + row) * width..(start + row + 1) * width).unwrap_or_default();
    let float = array.data_type().is_floating();
    let signed = !array.data_type().is_unsigned_integer();
    let number = |row: &usize| {
        let value = value(*row);
        let value = &value[..value.len().min(8)];
        let mut bytes = [if signed && value.last().is_some_and(|top| *top >= 0x80) { 0xff } else { 0 }; 8];
        bytes[..value.len()].copy_from_slice(value);
        i64::from_le_bytes(bytes)
    };
    let hashes = rows.iter().map(|row| if width <= 8 { mix(number(row)) } else { XxHash64::oneshot(0, value(*row)) });
    // Decimals of up to 18 digits are numbers of at most 8 bytes in the file, larger ones are bytes.
    let (plain_width, bytes) = match array.data_type() {
        DataType::Decimal128(..=9, _) => (4, false),
        DataType::Decimal128(..=18, _) => (8, false),
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::FixedSizeBinary(_) => (width, true),
        _ => (width.max(4), false),
    };
    let plain_bits = 8.0 * (plain_width * rows.len()) as f64;
    let direct_bits =
        if float || bytes { plain_bits } else { delta_bits(rows.iter().map(number), 8 * plain_width as u32) };
    LeafSample {
        values: rows.len(),
        distinct: distinct(hashes, rows.len()),
        plain_bits,
        direct_bits,
        bytes,
        ..LeafSample::default()
    }
}

/// The bits of numbers as Parquet packs their differences: in blocks of four parts, each as wide as its largest difference needs.
fn delta_bits(values: impl Iterator<Item = i64>, physical_bits: u32) -> f64 {
    const PARTS: usize = 4;
    const BLOCK_HEADER_BITS: u32 = 48;
    let part = if physical_bits > 32 { 64 } else { 32 };
    let mut block: Vec<i64> = Vec::with_capacity(PARTS * part);
    let mut bits = 0;
    let close = |block: &mut Vec<i64>| {
        let least = block.iter().copied().min().unwrap_or(0);
        let widths = block.chunks(part).map(|deltas| {
            let most = deltas.iter().copied().max().unwrap_or(0);
            (u64::BITS - (most.wrapping_sub(least) as u64).leading_zeros()).min(physical_bits)
        });
        let packed: u32 = widths.map(|width| width * part as u32).sum();
        block.clear();
        u64::from(packed + BLOCK_HEADER_BITS)
    };
    let mut last = None;
    for value in values {
        if let Some(last) = last.replace(value) {
            block.push(value.wrapping_sub(last));
        }
        if block.len() == PARTS * part {
            bits += close(&mut block);
        }
    }
    if !block.is_empty() {
        bits += close(&mut block);
    }
    bits as f64
}

/// How many of `count` values, given by their hashes, are different: among the first half, and among all.
fn distinct(hashes: impl Iterator<Item = u64>, count: usize) -> [usize; 2] {
    // Open addressing; an empty place is 0, which no hash is.
    let mut places = vec![0_u64; (2 * count).next_power_of_two()];
    let (mut half, mut all) = (0, 0);
    for (i, hash) in hashes.enumerate() {
        if i == count / 2 {
            half = all;
        }
        let hash = hash.max(1);
        let mut place = hash as usize & (places.len() - 1);
        while places[place] != 0 && places[place] != hash {
            place = (place + 1) & (places.len() - 1);
        }
        if places[place] == 0 {
            places[place] = hash;
            all += 1;
        }
    }
    [half, all]
}

/// Spreads the bits of a number; different numbers stay different.
fn mix(number: i64) -> u64 {
    let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits ^= bits >> 32;
    bits
}
