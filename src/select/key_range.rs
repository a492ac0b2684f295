//! A stretch of the key order, to restrict a source or to split a slot.

use std::fmt;
use std::ops::Range;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{DisplayKey, KeyBound, KeyValue, key_at};

/// The keys from one key (inclusive) to another (exclusive), in key order, nulls last.
///
/// An end may have fewer values than the key has columns; it then stands before all keys that begin with it. Dates, timestamps and decimals
/// are given as [`KeyValue`] has them: days, units of the column since the epoch, unscaled numbers.
///
/// ```
/// use sort_merge_bucket::{KeyRange, KeyValue};
/// let range = KeyRange::all().starting_at(["SE"]).below(["SF"]);
/// assert!(range.contains(&[KeyValue::from("SE"), KeyValue::from(7)]));
/// assert!(!range.contains(&[KeyValue::from("SF"), KeyValue::from(1)]));
/// assert_eq!(range.to_string(), r#"["SE", "SF")"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyRange {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Vec<KeyValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Vec<KeyValue>>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// Leaves out the keys before this one.
    #[must_use]
    pub fn starting_at<V: Into<KeyValue>>(self, key: impl IntoIterator<Item = V>) -> Self {
        let start = key.into_iter().map(Into::into).collect();
        self.intersect(&Self { start: Some(start), end: None })
    }

    /// Leaves out this key and all after it, null included.
    #[must_use]
    pub fn below<V: Into<KeyValue>>(self, key: impl IntoIterator<Item = V>) -> Self {
        let end = key.into_iter().map(Into::into).collect();
        self.intersect(&Self { start: None, end: Some(end) })
    }

    /// The keys of both.
    #[must_use]
    pub(crate) fn intersect(self, other: &Self) -> Self {
        let start = self.start.max(other.start.clone());
        let end = match (self.end, other.end.clone()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { start, end }
    }

    /// Whether it leaves out nothing.
    pub fn is_all(&self) -> bool {
        self.start.is_none() && self.end.is_none()
    }

    /// Whether a key of all its columns lies in it.
    pub fn contains(&self, key: &[KeyValue]) -> bool {
        self.starts_at_or_before(key) && self.end.as_deref().is_none_or(|end| key < end)
    }

    fn starts_at_or_before(&self, key: &[KeyValue]) -> bool {
        self.start.as_deref().is_none_or(|start| start <= key)
    }

    /// Whether no key lies in it.
    fn is_empty(&self) -> bool {
        self.start.as_ref().zip(self.end.as_ref()).is_some_and(|(start, end)| start >= end)
    }

    /// Whether a key between two bounds may lie in it.
    pub(crate) fn may_overlap(&self, first: &KeyBound, last: &KeyBound) -> bool {
        if self.is_empty() {
            return false;
        }
        let starts_after = self.start.as_deref().is_some_and(|start| last.compare(start).is_lt());
        let ends_before = self.end.as_deref().is_some_and(|end| first.values.as_slice() >= end);
        !(starts_after || ends_before)
    }

    /// How much of a stretch of keys lies in it whose first values lie between two. `None` is an unknown value.
    pub(crate) fn covers(&self, least: Option<KeyValue>, greatest: Option<KeyValue>) -> Coverage {
        // An end of one value stands before all keys that begin with it; a longer one somewhere among them.
        let (start, end) = (self.start.as_deref().unwrap_or_default(), self.end.as_deref().unwrap_or_default());
        let before = |a: &KeyValue, b: &KeyValue, or_equal: bool| if or_equal { a <= b } else { a < b };
        let outside = start.first().zip(greatest.as_ref()).is_some_and(|(start, greatest)| greatest < start)
            || end.first().zip(least.as_ref()).is_some_and(|(first, least)| before(first, least, end.len() == 1));
        if outside || self.is_empty() {
            return Coverage::Nothing;
        }
        let after_start = start
            .first()
            .is_none_or(|first| least.as_ref().is_some_and(|least| before(first, least, start.len() == 1)));
        let before_end = end.first().is_none_or(|end| greatest.as_ref().is_some_and(|greatest| greatest < end));
        if after_start && before_end { Coverage::Everything } else { Coverage::Something }
    }

    /// The rows of sorted key columns that lie in it.
    pub(crate) fn rows_of(&self, key: &[ArrayRef]) -> Result<Range<usize>> {
        let rows = key.first().map_or(0, Array::len);
        let before = |end: &Option<Vec<KeyValue>>, default| match end {
            None => Ok(default),
            Some(end) => {
                let (mut low, mut high) = (0, rows);
                while low < high {
                    let middle = low + (high - low) / 2;
                    if key_at(key, middle)?.as_slice() < end.as_slice() { low = middle + 1 } else { high = middle }
                }
                Ok(low)
            }
        };
        let (start, end): (usize, Result<usize>) = (before(&self.start, 0)?, before(&self.end, rows));
        Ok(start..end?.max(start))
    }

    /// Checks that its ends can be compared with keys of these canonical types.
    pub(crate) fn check(&self, types: &[DataType]) -> Result<()> {
        for end in [&self.start, &self.end].into_iter().flatten() {
            let fits = end.len() <= types.len() && end.iter().zip(types).all(|(v, t)| v.compares_with(t));
            if !fits || end.is_empty() {
                let types: Vec<String> = types.iter().map(ToString::to_string).collect();
                return Err(Error::invalid_input(format!(
                    "an end of a key range is of another type than the key, end=`{}`, types=`{}`",
                    DisplayKey(end),
                    types.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Splits at keys in ascending order.
    pub(crate) fn split(&self, at: Vec<Vec<KeyValue>>) -> Vec<Self> {
        let mut parts = vec![];
        let mut rest = self.clone();
        for key in at {
            parts.push(Self { start: rest.start.take(), end: Some(key.clone()) });
            rest.start = Some(key);
        }
        parts.push(rest);
        parts
    }
}

/// How much of a stretch of keys lies in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    Nothing,
    Something,
    Everything,
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Some(start) => write!(f, "[{}, ", DisplayKey(start))?,
            None => f.write_str("[first, ")?,
        }
        match &self.end {
            Some(end) => write!(f, "{})", DisplayKey(end)),
            None => f.write_str("last]"),
        }
    }
}

/// The end of the range that ends with this key: it comes after the key itself and those that begin with it, and before all others.
pub(crate) fn after(key: &[KeyValue]) -> Vec<KeyValue> {
    let mut after = key.to_vec();
    // A null is followed by what follows the values before it.
    while after.pop_if(|last| *last == KeyValue::Null).is_some() {}
    let Some(last) = after.last_mut() else { return key.to_vec() };
    *last = match &*last {
        KeyValue::Integer(value) => KeyValue::Integer(value.saturating_add(1)),
        KeyValue::Utf8(text) => KeyValue::Utf8(format!("{text}\0")),
        KeyValue::Binary(bytes) => KeyValue::Binary(bytes.iter().copied().chain([0]).collect()),
        KeyValue::Boolean(false) => KeyValue::Boolean(true),
        KeyValue::Boolean(true) | KeyValue::Null => KeyValue::Null,
    };
    after
}
