//! The trait of aggregates, and the segments of rows or states that it works on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use crate::aggregate::Filtered;
use crate::error::{Error, Result};
use crate::predicate::Predicate;

/// What states of an aggregate mean. Two aggregates with equal definitions make and understand the same states.
///
/// It is stored beside partials, and a partial whose definition has changed is stale. What concerns only
/// [`finish`](Aggregator::finish), such as the K of a top-K, is left out of it, so that changing it keeps partials alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Definition {
    /// The name of the layout of the states. Names without a dot are this crate's; put a prefix of your own before yours (`acme.streaks`).
    pub name: String,
    /// The version of the layout, from 1 on: another one whenever states of the same name change their layout or meaning.
    pub version: u32,
    /// What else states depend on, the input columns above all.
    pub parameters: BTreeMap<String, String>,
}

impl Definition {
    /// A definition without parameters yet.
    pub fn new(name: impl Into<String>, version: u32) -> Self {
        Self { name: name.into(), version, parameters: BTreeMap::new() }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }
}

/// A summary that is built piece by piece: rows become states, states merge, a state becomes a result.
///
/// ```text
/// rows of a key   3 1 │ 4 1 5 │           update, one state per segment
/// states          4     10      0         (a sum; the empty segment gives the identity)
/// merged          14                      merge, one state per segment of states
/// result          14                      finish
/// ```
///
/// All three work on whole columns: `update` and `merge` get many [`Segments`] at once, each to become one state. Implementations hold no
/// data of their own and may be called from several threads. Everything stored, partials above all, is states.
///
/// # Laws
/// With `u` for `update` of one segment, `m` for `merge` of one segment of states, `e = u()` of no rows:
///
/// 1. **Shape.** One state per segment, of type [`state_type`](Self::state_type); one result per state, of type
///    [`output_type`](Self::output_type) of the state's type.
/// 2. **Identity.** `m(e, s) = m(s, e) = m(s) = s`, and `m() = e`.
/// 3. **Associativity.** `m(m(a, b), c) = m(a, m(b, c)) = m(a, b, c)`.
/// 4. **Commutativity.** `m(a, b) = m(b, a)`: how rows are divided into runs and weeks has no meaning.
/// 5. **Split.** `u(x ++ y) = m(u(x), u(y))`: states know all that `finish` needs.
/// 6. **Independence.** A segment's state does not depend on the segments beside it.
///
/// Equal means equal arrays: states are canonical, so that the same rows give the same partial. [`check_laws`](crate::check_laws) checks an
/// implementation against rows of your own. All functions of this crate keep them to the last bit, those of float columns
/// too, unless a sum of finite values is beyond the range of floats.
///
/// # Types
/// Columns come in canonical types: strings as `Utf8View`, binary as `BinaryView`, lists as `List`, no dictionaries. States and results may
/// be of any type that a dataset can store; states come back to `merge` and `finish` in the canonical form of theirs.
pub trait Aggregator: Debug + Send + Sync + 'static {
    /// What its states mean.
    fn definition(&self) -> Definition;

    /// The names of the columns that it reads, in the order in which [`update`](Self::update) gets them. A name may occur twice.
    fn inputs(&self) -> Vec<String>;

    /// The type of states, given those of the inputs.
    ///
    /// # Errors
    /// `InvalidInput`, or [`Error::external`], for inputs of a type that it cannot work on. Nothing has been read by then.
    fn state_type(&self, inputs: &[DataType]) -> Result<DataType>;

    /// The type of results, given that of states: partials are finished without their rows.
    ///
    /// # Errors
    /// As [`state_type`](Self::state_type), for states that are not its own.
    fn output_type(&self, state: &DataType) -> Result<DataType>;

    /// One state per segment of rows, from the input columns. Segments may be empty.
    ///
    /// # Errors
    /// `LimitExceeded` if a state cannot hold its value: it never wraps around.
    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef>;

    /// One state per segment of states, which are column 0. Segments may be empty.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef>;

    /// One result per state.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef>;

    /// The same aggregate over the rows that `predicate` keeps.
    fn filter(self, predicate: Predicate) -> Filtered<Self>
    where
        Self: Sized,
    {
        Filtered::new(self, predicate)
    }
}

impl<A: Aggregator + ?Sized> Aggregator for Arc<A> {
    fn definition(&self) -> Definition {
        self.as_ref().definition()
    }

    fn inputs(&self) -> Vec<String> {
        self.as_ref().inputs()
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        self.as_ref().state_type(inputs)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        self.as_ref().output_type(state)
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        self.as_ref().update(rows)
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        self.as_ref().merge(states)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        self.as_ref().finish(states)
    }
}

/// Columns of equal length and where they are cut: segment `i` is rows `offsets[i]..offsets[i + 1]`.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array};
/// use sort_merge_bucket::Segments;
///
/// let columns = [Arc::new(Int64Array::from(vec![3, 1, 4])) as ArrayRef];
/// let segments = Segments::new(&columns, &[0, 2, 2, 3])?;
/// assert_eq!(segments.ranges().collect::<Vec<_>>(), [0..2, 2..2, 2..3]);
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    columns: &'a [ArrayRef],
    offsets: &'a [usize],
}

impl<'a> Segments<'a> {
    /// Cuts columns at offsets, one more than there are segments. Rows before the first and after the last offset belong to none.
    ///
    /// # Errors
    /// `InvalidInput` if there are no offsets, if they descend, or if columns differ in length or end before the last of them.
    pub fn new(columns: &'a [ArrayRef], offsets: &'a [usize]) -> Result<Self> {
        let Some(end) = offsets.last() else {
            return Err(Error::invalid_input("segments need at least one offset"));
        };
        if !offsets.is_sorted() {
            return Err(Error::invalid_input("the offsets of segments descend"));
        }
        if columns.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
            return Err(Error::invalid_input("the columns of segments have different lengths"));
        }
        match columns.iter().find(|column| column.len() < *end) {
            Some(column) => Err(Error::invalid_input(format!(
                "a column ends before the last segment, rows=`{}`, offset=`{end}`",
                column.len()
            ))),
            None => Ok(Self { columns, offsets }),
        }
    }

    /// The number of segments.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no segments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All columns.
    pub fn columns(&self) -> &'a [ArrayRef] {
        self.columns
    }

    /// A column, all rows of it.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, index: usize) -> &'a ArrayRef {
        &self.columns[index]
    }

    /// Where segments begin and end: ascending, one more than segments.
    pub fn offsets(&self) -> &'a [usize] {
        self.offsets
    }

    /// The rows of each segment.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + 'a {
        self.offsets.windows(2).map(|ends| ends[0]..ends[1])
    }
}
