//! The number of distinct values, estimated by a HyperLogLog sketch of small and bounded size.
//!
//! Hashes and estimates are those of the crate `datasketches`. What is stored are the bytes of its sketches, in the one form of several that the values
//! alone determine; merging works on these bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BinaryViewBuilder, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{Coupon, HllSketch, HllType};

use crate::aggregate::segments::{bad_input, not_state_type, one_type};
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::{Error, Result};
use crate::schema::is_key_type;

/// The default of [`ApproxCountDistinct::with_precision`].
const DEFAULT_PRECISION: u8 = 12;

/// Estimates the number of distinct values of a column, nulls left out, with a state that does not grow with it.
///
/// For columns of key types. With precision p, the state is a HyperLogLog sketch of 2ᵖ registers. Up to 3 × 2ᵖ⁻⁵ distinct values (384) it is a list of their
/// hashes, and the result is exact but for collisions of 26-bit hashes (for 384 values, one result in a thousand is less by one). Beyond, the
/// relative standard error of the result is 1.04 ÷ √2ᵖ: 1.6 % for the default p = 12; two results in three are within it, and all but three in a thousand within three
/// times it. Merging costs no accuracy: the result is that of one sketch of all rows.
///
/// State `approx_count_distinct`, version 1: `Binary`, not null. Bytes per key: 8 without values, 8 + 4 n for n up to 7, 12 + 4 n up to 384, then 4,136 (40 + 2ᵖ), of which
/// compression leaves some two fifths. They are a sketch of [Apache DataSketches](https://datasketches.apache.org) (`HLL_8`, compact, out of order, with its default
/// seed; hashes in ascending order), which its libraries for other languages read too. Result: `Int64`, 0 without values.
///
/// What is hashed is the value, not its layout: integers, dates and booleans as 64 bits, timestamps as 64 bits in the unit of their column, decimals as 128
/// bits in its scale, all with the least byte first; strings as UTF-8, binary as it is. So partials from before a column of integers became wider merge
/// with later ones. A column that changes its unit, its scale or its kind of type counts its values anew, without an error: a sketch does not know
/// what it was made from.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array};
/// use arrow::datatypes::Int64Type;
/// use sort_merge_bucket::{Aggregator, ApproxCountDistinct, Segments};
///
/// let columns = [Arc::new(Int64Array::from_iter_values((0..100_000).map(|v| v % 50_000))) as ArrayRef];
/// let artists = ApproxCountDistinct::of("artist_id");
/// let results = artists.finish(&artists.update(&Segments::new(&columns, &[0, 10, 100_000])?)?)?;
/// let [few, many] = results.as_primitive::<Int64Type>().values()[..] else { unreachable!() };
/// assert_eq!(few, 10);
/// assert!((47_500..52_500).contains(&many));
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproxCountDistinct {
    column: String,
    precision: u8,
}

impl ApproxCountDistinct {
    /// Of `column`.
    pub fn of(column: impl Into<String>) -> Self {
        Self { column: column.into(), precision: DEFAULT_PRECISION }
    }

    /// The binary logarithm of the number of registers, from 8 (error 6.5 %, at most 296 bytes) to 16 (0.41 %, 65,576 bytes); 12 by default (1.6 %, 4,136 bytes).
    /// Part of the definition.
    #[must_use]
    pub fn with_precision(mut self, precision: u8) -> Self {
        self.precision = precision;
        self
    }

    fn check(&self) -> Result<()> {
        if (8..=16).contains(&self.precision) {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "the precision of a sketch is out of range, aggregate=`approx_count_distinct`, least=`8`, greatest=`16`, found=`{}`",
            self.precision
        )))
    }

    /// Per segment, the sketch of the values that `coupon` hashes.
    fn sketches(
        &self,
        rows: &Segments<'_>,
        nulls: Option<&NullBuffer>,
        coupon: impl Fn(usize) -> Coupon,
    ) -> Result<ArrayRef> {
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let mut states = BinaryViewBuilder::with_capacity(rows.len());
        for range in rows.ranges() {
            let mut sketch = HllSketch::new(self.precision, HllType::Hll8).map_err(internal)?;
            for row in range.filter(|row| nulls.is_none_or(|nulls| nulls.is_valid(*row))) {
                sketch.update_with_coupon(coupon(row));
            }
            let mut bytes = sketch.serialize();
            make_canonical(&mut bytes);
            states.append_value(bytes);
        }
        Ok(Arc::new(states.finish()))
    }
}

impl Aggregator for ApproxCountDistinct {
    fn definition(&self) -> Definition {
        Definition::new("approx_count_distinct", 1)
            .with_parameter("column", &self.column)
            .with_parameter("precision", self.precision.to_string())
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let input = one_type(inputs, "approx_count_distinct")?;
        if !is_key_type(input) {
            return Err(bad_input("approx_count_distinct", &self.column, input));
        }
        self.check()?;
        Ok(DataType::BinaryView)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        self.check()?;
        match state {
            DataType::BinaryView => Ok(DataType::Int64),
            _ => Err(not_state_type("approx_count_distinct", state)),
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        use DataType as D;
        let column = rows.column(0);
        let nulls = column.nulls();
        let hash = |bytes: &[u8]| Coupon::from_value(raw_bytes::from_slice(bytes));
        match column.data_type() {
            D::Utf8View => {
                let values = column.as_string_view();
                self.sketches(rows, nulls, |row| hash(values.value(row).as_bytes()))
            }
            D::BinaryView => {
                let values = column.as_binary_view();
                self.sketches(rows, nulls, |row| hash(values.value(row)))
            }
            D::FixedSizeBinary(_) => {
                let values = column.as_fixed_size_binary();
                self.sketches(rows, nulls, |row| hash(values.value(row)))
            }
            D::Decimal128(_, _) => {
                let values = column.as_primitive::<Decimal128Type>().values();
                self.sketches(rows, nulls, |row| hash(&values[row].to_le_bytes()))
            }
            D::UInt64 => {
                let values = column.as_primitive::<UInt64Type>().values();
                self.sketches(rows, nulls, |row| hash(&values[row].to_le_bytes()))
            }
            other => {
                let narrow = if *other == D::Date32 { cast(column, &D::Int32)? } else { Arc::clone(column) };
                let values = cast(&narrow, &D::Int64)?;
                let values = values.as_primitive::<Int64Type>().values();
                self.sketches(rows, nulls, |row| hash(&values[row].to_le_bytes()))
            }
        }
    }

    fn merge(&self, segments: &Segments<'_>) -> Result<ArrayRef> {
        self.check()?;
        let images = images(segments.column(0))?;
        let mut union = Union { precision: self.precision, hashes: vec![], registers: vec![] };
        let mut bytes = vec![];
        let mut states = BinaryViewBuilder::with_capacity(segments.len());
        for range in segments.ranges() {
            for row in range {
                union.add(Image::of(images.value(row), self.precision)?);
            }
            union.take(&mut bytes);
            states.append_value(&bytes);
        }
        Ok(Arc::new(states.finish()))
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        self.check()?;
        let estimate = |bytes: Option<&[u8]>| -> Result<i64> {
            let bytes = bytes.unwrap_or_default();
            if let Image::Registers(registers) = Image::of(bytes, self.precision)?
                && bytes[..HEADER] != registers_header(self.precision, registers)
            {
                return Err(damaged());
            }
            let sketch = HllSketch::deserialize(bytes).map_err(|e| damaged().with_source(e))?;
            Ok(sketch.composite_estimate().round() as i64)
        };
        Ok(Arc::new(images(states)?.iter().map(estimate).collect::<Result<Int64Array>>()?))
    }
}

fn images(states: &ArrayRef) -> Result<&BinaryViewArray> {
    match states.as_binary_view_opt() {
        Some(images) if images.null_count() == 0 => Ok(images),
        _ => Err(not_state_type("approx_count_distinct", states.data_type())),
    }
}

fn damaged() -> Error {
    Error::corrupt("a state is not a sketch of this aggregate, aggregate=`approx_count_distinct`")
}

fn internal(source: datasketches::error::Error) -> Error {
    Error::internal("a sketch of a precision that was checked").with_source(source)
}

/// How many hashes are kept as they are.
fn most_hashes(precision: u8) -> usize {
    3 << (precision - 5)
}

/// How many bytes come before registers.
const HEADER: usize = 40;

/// The bits of a hash that number a register; those above are what the register counts.
const SLOT: u32 = (1 << 26) - 1;

/// Brings the bytes of a sketch of the crate into the form that its values determine.
fn make_canonical(bytes: &mut [u8]) {
    match bytes.get(7) {
        // Registers: without the estimate that depends on the order in which values came, and marked so.
        Some(10) => {
            bytes[5] |= 16;
            bytes[8..16].fill(0);
        }
        mode => {
            let start = if mode == Some(&9) { 12 } else { 8 };
            let (hashes, _) = bytes[start..].as_chunks_mut::<4>();
            hashes.sort_unstable_by_key(|hash| u32::from_le_bytes(*hash));
        }
    }
}

/// What comes before so many hashes.
fn hashes_header(precision: u8, hashes: usize) -> ([u8; 12], usize) {
    let count = hashes as u32;
    let [a, b, c, d] = count.to_le_bytes();
    if hashes < 8 {
        let flags = if hashes == 0 { 12 } else { 8 };
        return ([2, 1, 7, precision, 3, flags, a, 8, 0, 0, 0, 0], 8);
    }
    // The size of the crate's hash table, which is at most three quarters full.
    let table = (count * 4).div_ceil(3).next_power_of_two().ilog2().max(5) as u8;
    ([3, 1, 7, precision, table, 8, 0, 9, a, b, c, d], 12)
}

/// What comes before these registers.
fn registers_header(precision: u8, registers: &[u8]) -> [u8; HEADER] {
    let mut counts = [0_u32; 64];
    registers.iter().for_each(|register| counts[usize::from(register & 63)] += 1);
    // Sums of 2^-register, below 32 and from there on: exact, as they have fewer than 53 digits.
    let sum =
        |from: usize, to: usize| -> f64 { (from..to).map(|at| f64::from(counts[at]) / (1_u64 << at) as f64).sum() };
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&[10, 1, 7, precision, 0, 16, 0, 10]);
    header[16..24].copy_from_slice(&sum(0, 32).to_le_bytes());
    header[24..32].copy_from_slice(&sum(32, 64).to_le_bytes());
    header[32..36].copy_from_slice(&counts[0].to_le_bytes());
    header
}

/// A state, opened up.
enum Image<'a> {
    /// Hashes in ascending order, as bytes of integers.
    Hashes(&'a [[u8; 4]]),
    Registers(&'a [u8]),
}

impl<'a> Image<'a> {
    /// `Corrupt` for bytes that are no state of this precision. What precedes registers follows from them and is not looked at.
    fn of(bytes: &'a [u8], precision: u8) -> Result<Self> {
        let mode = *bytes.get(7).ok_or_else(damaged)?;
        if mode == 10 {
            let registers = bytes.get(HEADER..).ok_or_else(damaged)?;
            let fits = bytes[..8] == [10, 1, 7, precision, 0, 16, 0, 10] && registers.len() == 1 << precision;
            // No register counts beyond 63.
            let all = registers.iter().fold(0, |all, register| all | register);
            return if fits && all < 64 { Ok(Self::Registers(registers)) } else { Err(damaged()) };
        }
        let start = if mode == 9 { 12 } else { 8 };
        let (hashes, rest) = bytes.get(start..).ok_or_else(damaged)?.as_chunks::<4>();
        let (header, length) = hashes_header(precision, hashes.len().min(most_hashes(precision)));
        let number = |hash: &[u8; 4]| u32::from_le_bytes(*hash);
        let fits = rest.is_empty()
            && length == start
            && bytes[..start] == header[..length]
            && hashes.len() <= most_hashes(precision)
            && hashes.first().is_none_or(|hash| number(hash) > SLOT)
            && hashes.is_sorted_by(|a, b| number(a) < number(b));
        if fits { Ok(Self::Hashes(hashes)) } else { Err(damaged()) }
    }
}

/// States in the course of being merged.
struct Union {
    precision: u8,
    hashes: Vec<u32>,
    /// Empty as long as there are few values.
    registers: Vec<u8>,
}

impl Union {
    fn add(&mut self, image: Image<'_>) {
        match image {
            Image::Hashes(hashes) => self.hashes.extend(hashes.iter().map(|hash| u32::from_le_bytes(*hash))),
            Image::Registers(registers) if self.registers.is_empty() => self.registers.extend_from_slice(registers),
            Image::Registers(registers) => {
                for (register, other) in self.registers.iter_mut().zip(registers) {
                    *register = (*register).max(*other);
                }
            }
        }
    }

    /// The state of all that was added, after which there is nothing.
    fn take(&mut self, bytes: &mut Vec<u8>) {
        bytes.clear();
        self.hashes.sort_unstable();
        self.hashes.dedup();
        if self.registers.is_empty() && self.hashes.len() <= most_hashes(self.precision) {
            let (header, length) = hashes_header(self.precision, self.hashes.len());
            bytes.extend_from_slice(&header[..length]);
            self.hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.to_le_bytes()));
        } else {
            self.registers.resize(1 << self.precision, 0);
            let mask = (1 << self.precision) - 1;
            for hash in &self.hashes {
                let register = &mut self.registers[(hash & mask) as usize];
                *register = (*register).max((hash >> 26) as u8);
            }
            bytes.extend_from_slice(&registers_header(self.precision, &self.registers));
            bytes.extend_from_slice(&self.registers);
        }
        self.hashes.clear();
        self.registers.clear();
    }
}
