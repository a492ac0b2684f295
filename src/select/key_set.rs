//! Sets of keys: given by a caller, or found in one source of a join and looked for in the other.

use std::fmt::Debug;
use std::hash::Hasher as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, UInt32Array, new_empty_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{
    CastOptions, SortColumn, SortOptions, cast_with_options, concat, filter, lexsort_to_indices, take,
};
use arrow::datatypes::DataType;
use twox_hash::XxHash64;

use crate::bucket::{bucket_of, hash_rows};
use crate::error::{Error, Result};
use crate::manifest::{KeyBound, KeyValue, key_at};
use crate::merge::{Extract, ForKeys, Input, Keys, Order, dispatch};
use crate::schema::{canonical_type, common_type};
use crate::select::KeyRange;
use crate::spec::{BucketCount, BucketFunction};

/// Keys to look for: one array per key column, all of one length, in any order. Duplicates do no harm; a key with a null matches nothing.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, StringArray};
/// use sort_merge_bucket::KeySet;
/// let one_column = KeySet::from(Arc::new(Int64Array::from(vec![7, 3, 7])) as ArrayRef);
/// let two_columns = KeySet::try_new([
///     Arc::new(StringArray::from(vec!["SE", "JP"])) as ArrayRef,
///     Arc::new(Int64Array::from(vec![1, 2])),
/// ])?;
/// assert_eq!((one_column.len(), two_columns.len()), (3, 2));
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct KeySet {
    columns: Vec<ArrayRef>,
}

impl KeySet {
    /// A set of the rows of these columns.
    ///
    /// # Errors
    /// `InvalidInput` for no column, or columns of different lengths.
    pub fn try_new(columns: impl IntoIterator<Item = ArrayRef>) -> Result<Self> {
        let columns: Vec<ArrayRef> = columns.into_iter().collect();
        let lengths: Vec<usize> = columns.iter().map(Array::len).collect();
        if lengths.is_empty() || lengths.iter().any(|length| *length != lengths[0]) {
            return Err(Error::invalid_input(format!("a key set needs columns of one length, lengths=`{lengths:?}`")));
        }
        Ok(Self { columns })
    }

    /// The number of keys given, duplicates and nulls included.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Array::len)
    }

    /// Whether no key was given.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells this set from others: equal for equal sets of keys, whatever their order and layout.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let types = self.columns.iter().map(|column| canonical_type(column.data_type()));
        SortedKeys::try_new(&self.of_types(&types.collect::<Result<Vec<_>>>()?)?)?.fingerprint()
    }

    /// The keys in the key types of a source; what cannot be a value of them is in no row, and left out.
    ///
    /// # Errors
    /// `InvalidInput` if the columns are not those of the key.
    pub(crate) fn of_types(&self, types: &[DataType]) -> Result<Vec<ArrayRef>> {
        let given: Vec<String> = self.columns.iter().map(|column| column.data_type().to_string()).collect();
        let wrong = || {
            let wanted: Vec<String> = types.iter().map(ToString::to_string).collect();
            Error::invalid_input(format!(
                "the columns of a key set are not those of the key, expected=`{}`, found=`{}`",
                wanted.join(", "),
                given.join(", ")
            ))
        };
        if self.columns.len() != types.len() {
            return Err(wrong());
        }
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let canonical = |(column, data_type): (&ArrayRef, &DataType)| {
            let own = canonical_type(column.data_type()).map_err(|_| wrong())?;
            if common_type(&own, data_type).is_none() {
                return Err(wrong());
            }
            Ok(cast_with_options(&cast_with_options(column, &own, &options)?, data_type, &options)?)
        };
        self.columns.iter().zip(types).map(canonical).collect()
    }
}

impl From<ArrayRef> for KeySet {
    fn from(column: ArrayRef) -> Self {
        Self { columns: vec![column] }
    }
}

/// Keys of canonical types, ascending and distinct, none with a null.
///
/// # Memory
/// The key columns; composite keys once more in arrow's row format.
#[derive(Debug, Clone)]
pub(crate) struct SortedKeys {
    columns: Vec<ArrayRef>,
    all: Arc<dyn Matching>,
    /// The values of the first column, ascending.
    first: Arc<dyn Matching>,
}

impl SortedKeys {
    pub(crate) fn try_new(columns: &[ArrayRef]) -> Result<Self> {
        let complete =
            columns.iter().fold(None, |all, column| NullBuffer::union(all.as_ref(), column.logical_nulls().as_ref()));
        let columns: Vec<ArrayRef> = match complete {
            None => columns.to_vec(),
            Some(complete) => masked(columns, complete.into_inner())?,
        };
        let sort = |column: &ArrayRef| SortColumn { values: Arc::clone(column), options: Some(SortOptions::default()) };
        let order = lexsort_to_indices(&columns.iter().map(sort).collect::<Vec<_>>(), None)?;
        let columns = columns.iter().map(|column| take(column, &order, None)).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let distinct = dispatch(&types, Distinct(&columns))?;
        Self::of_sorted(columns.iter().map(|column| take(column, &distinct, None)).collect::<Result<_, _>>()?)
    }

    fn of_sorted(columns: Vec<ArrayRef>) -> Result<Self> {
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let all = dispatch(&types, MakeMatching(&columns))?;
        let first = dispatch(&types[..1], MakeMatching(&columns[..1]))?;
        Ok(Self { columns, all, first })
    }

    /// The keys of several batches of key columns, of which there is at least one.
    pub(crate) fn of_batches(batches: &[Vec<ArrayRef>]) -> Result<Self> {
        let columns = (0..batches[0].len()).map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch[column].as_ref()).collect();
            concat(&arrays)
        });
        Self::try_new(&columns.collect::<Result<Vec<_>, _>>()?)
    }

    /// No key, of whatever type.
    pub(crate) fn none() -> Result<Self> {
        Self::of_sorted(vec![new_empty_array(&DataType::Boolean)])
    }

    pub(crate) fn len(&self) -> usize {
        self.columns[0].len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }

    /// The keys that are in both.
    pub(crate) fn intersect(&self, other: &Self) -> Result<Self> {
        self.only(other.matcher("a key set".into()).matches(&self.columns)?)
    }

    /// The keys that a mask names.
    fn only(&self, mask: BooleanBuffer) -> Result<Self> {
        Self::of_sorted(masked(&self.columns, mask)?)
    }

    /// The keys at these positions, which ascend.
    pub(crate) fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let rows = UInt32Array::from(rows);
        Self::of_sorted(self.columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?)
    }

    /// The keys of a range.
    pub(crate) fn within(&self, range: &KeyRange) -> Result<Self> {
        let rows = range.rows_of(&self.columns)?;
        Self::of_sorted(self.columns.iter().map(|column| column.slice(rows.start, rows.len())).collect())
    }

    /// The keys that hash to this remainder.
    pub(crate) fn of_bucket(&self, function: BucketFunction, bucket: u32, buckets: BucketCount) -> Result<Self> {
        let hashes = hash_rows(function, &self.columns)?;
        self.only(BooleanBuffer::collect_bool(hashes.len(), |row| bucket_of(hashes[row], buckets) == bucket))
    }

    /// A matcher for the keys of one sorted input, which errors name as `label`.
    pub(crate) fn matcher(&self, label: Arc<str>) -> Box<dyn KeyMatcher> {
        self.all.matcher(label)
    }

    /// For each stretch of rows whose first key values lie between `least` and `greatest` (null is unknown), whether a key may be in it.
    pub(crate) fn may_be_within(&self, least: &ArrayRef, greatest: &ArrayRef) -> Result<BooleanBuffer> {
        self.first.within(least, greatest)
    }

    /// Whether a key lies between the bounds of a run.
    pub(crate) fn may_overlap(&self, first: &KeyBound, last: &KeyBound) -> Result<bool> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let key: Vec<KeyValue> = key_at(&self.columns, middle)?;
            if first.compare(&key).is_gt() { low = middle + 1 } else { high = middle }
        }
        Ok(low < self.len() && !last.compare(&key_at(&self.columns, low)?).is_lt())
    }

    fn fingerprint(&self) -> Result<String> {
        let mut hash = XxHash64::with_seed(0);
        for row in 0..self.len() {
            for value in key_at(&self.columns, row)? {
                let text = value.to_string();
                hash.write(&(text.len() as u64).to_le_bytes());
                hash.write(text.as_bytes());
            }
        }
        Ok(format!("{} keys, xxh64 {:016x}", self.len(), hash.finish()))
    }
}

/// The rows of columns that a mask names.
fn masked(columns: &[ArrayRef], mask: BooleanBuffer) -> Result<Vec<ArrayRef>> {
    let mask = BooleanArray::new(mask, None);
    Ok(columns.iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?)
}

/// Finds the rows of a sorted input that have a key of a set.
pub(crate) trait KeyMatcher: Send {
    /// The next rows of the input: for each whether its key is in the set.
    ///
    /// # Errors
    /// `Unsorted` if the rows are not in order.
    fn matches(&mut self, key: &[ArrayRef]) -> Result<BooleanBuffer>;
}

/// A sorted set with its kind of keys known.
trait Matching: Debug + Send + Sync {
    fn matcher(&self, label: Arc<str>) -> Box<dyn KeyMatcher>;

    fn within(&self, least: &ArrayRef, greatest: &ArrayRef) -> Result<BooleanBuffer>;
}

struct MakeMatching<'a>(&'a [ArrayRef]);

impl ForKeys for MakeMatching<'_> {
    type Output = Arc<dyn Matching>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let keys = extract.extract(self.0)?;
        Ok(Arc::new(Set { extract, keys, columns: self.0.len() }))
    }
}

#[derive(Debug)]
struct Set<E: Extract> {
    extract: E,
    keys: E::Keys,
    columns: usize,
}

impl<E: Extract> Matching for Set<E> {
    fn matcher(&self, label: Arc<str>) -> Box<dyn KeyMatcher> {
        let order = Order { extract: self.extract.clone(), columns: (0..self.columns).collect() };
        Box::new(SetMatcher { order, input: Input::new(label), keys: Some(self.keys.clone()), at: 0 })
    }

    fn within(&self, least: &ArrayRef, greatest: &ArrayRef) -> Result<BooleanBuffer> {
        let known = NullBuffer::union(least.nulls(), greatest.nulls());
        let (lows, highs) =
            (self.extract.extract(std::slice::from_ref(least))?, self.extract.extract(std::slice::from_ref(greatest))?);
        Ok(BooleanBuffer::collect_bool(least.len(), |stretch| {
            if known.as_ref().is_some_and(|known| known.is_null(stretch)) {
                return true;
            }
            let at = self.keys.count_up_to(0, lows.value(stretch), false);
            at < self.keys.len() && self.keys.value(at) <= highs.value(stretch)
        }))
    }
}

/// A matcher that finds every row, and only checks their order.
pub(crate) fn order_matcher(types: &[DataType], label: Arc<str>) -> Result<Box<dyn KeyMatcher>> {
    dispatch(types, MakeOrderMatcher { columns: types.len(), label })
}

struct MakeOrderMatcher {
    columns: usize,
    label: Arc<str>,
}

impl ForKeys for MakeOrderMatcher {
    type Output = Box<dyn KeyMatcher>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let order = Order { extract, columns: (0..self.columns).collect() };
        Ok(Box::new(SetMatcher { order, input: Input::new(self.label), keys: None, at: 0 }))
    }
}

struct SetMatcher<E: Extract> {
    order: Order<E>,
    /// Checks the order of the rows, on which the walk below relies.
    input: Input<E>,
    /// `None` is every key.
    keys: Option<E::Keys>,
    /// The first key of the set that later rows may have.
    at: usize,
}

impl<E: Extract> KeyMatcher for SetMatcher<E> {
    fn matches(&mut self, key: &[ArrayRef]) -> Result<BooleanBuffer> {
        let rows = key.first().map_or(0, Array::len);
        let batch = RecordBatch::try_from_iter_with_nullable(
            key.iter().enumerate().map(|(at, column)| (at.to_string(), Arc::clone(column), true)),
        )?;
        self.input.push(&self.order, batch)?;
        let mut found = BooleanBufferBuilder::new(rows);
        while let Some(segment) = self.input.take_head() {
            match (&self.keys, &segment.keys) {
                (None, _) => found.append_n(segment.len(), true),
                (Some(wanted), Some(keys)) => self.at = walk(wanted, self.at, keys, &mut found),
                (Some(_), None) => found.append_n(segment.len(), false),
            }
        }
        Ok(found.finish())
    }
}

/// Appends for each of `rows` whether its key is in `wanted`, from `at` on; returns the first key that later rows may have.
fn walk<K: Keys>(wanted: &K, mut at: usize, rows: &K, found: &mut BooleanBufferBuilder) -> usize {
    let mut row = 0;
    while row < rows.len() && at < wanted.len() {
        let before = rows.count_up_to(row, wanted.value(at), false);
        found.append_n(before, false);
        row += before;
        if row < rows.len() && rows.value(row) == wanted.value(at) {
            let end = rows.group_end(row);
            found.append_n(end - row, true);
            row = end;
        }
        // At the end of these rows the key stays: the next ones may have it.
        if row < rows.len() {
            at += wanted.count_up_to(at, rows.value(row), false);
        }
    }
    found.append_n(rows.len() - row, false);
    at
}

/// The rows of sorted columns that differ from the one before.
struct Distinct<'a>(&'a [ArrayRef]);

impl ForKeys for Distinct<'_> {
    type Output = UInt32Array;

    fn run<E: Extract>(self, extract: E) -> Result<UInt32Array> {
        let keys = extract.extract(self.0)?;
        let mut starts = keys.group_offsets();
        starts.pop();
        Ok(starts.into())
    }
}
