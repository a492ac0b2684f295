//! What minima, maxima and null counts say about a predicate, before any row is read.
//!
//! The question is always whether a predicate *may* be true (or false) for some row of a stretch: a row group, a page, a run. Unknown
//! statistics answer yes. Floats are not asked: Parquet's statistics leave out NaN, which predicates have as the greatest number.

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat;
use arrow::datatypes::DataType;

use crate::error::Result;
use crate::manifest::{KeyValue, key_at};
use crate::predicate::{Comparison, Literal, Predicate, compare};
use crate::select::{KeyRange, after};

/// Statistics of one column over consecutive stretches of rows.
#[derive(Debug, Clone)]
pub(crate) struct ColumnStatistics {
    /// Lower bounds of the values; null is unknown.
    pub(crate) least: ArrayRef,
    /// Upper bounds of the values; null is unknown.
    pub(crate) greatest: ArrayRef,
    /// The numbers of nulls; null is unknown.
    pub(crate) nulls: UInt64Array,
    /// The numbers of rows.
    pub(crate) rows: Vec<u64>,
}

impl ColumnStatistics {
    fn may_have_value(&self, stretch: usize) -> bool {
        self.nulls.is_null(stretch) || self.nulls.value(stretch) < self.rows[stretch]
    }

    fn may_have_null(&self, stretch: usize) -> bool {
        self.nulls.is_null(stretch) || self.nulls.value(stretch) > 0
    }
}

/// For each of a number of stretches, whether the predicate may be `wanted` for one of its rows. Columns without statistics answer yes.
///
/// # Errors
/// `InvalidInput` if a literal is no value of its column's type.
pub(crate) fn may_hold<'a>(
    predicate: &Predicate,
    wanted: bool,
    stretches: usize,
    statistics: &impl Fn(&str) -> Option<&'a ColumnStatistics>,
) -> Result<BooleanBuffer> {
    let all = |value| BooleanBuffer::collect_bool(stretches, |_| value);
    let fold = |inner: &[Predicate], every: bool| {
        inner.iter().try_fold(all(every), |sum, next| -> Result<_> {
            let next = may_hold(next, wanted, stretches, statistics)?;
            Ok(if every { &sum & &next } else { &sum | &next })
        })
    };
    Ok(match predicate {
        Predicate::Compare { column, comparison, literal } => match statistics(column) {
            Some(found) => {
                may_compare(found, if wanted { *comparison } else { comparison.opposite() }, literal, column)?
            }
            None => all(true),
        },
        Predicate::In { column, literals } => match statistics(column) {
            Some(found) if wanted => literals.iter().try_fold(all(false), |any, literal| -> Result<_> {
                Ok(&any | &may_compare(found, Comparison::Eq, literal, column)?)
            })?,
            // In no list is even null.
            Some(_) if literals.is_empty() => all(true),
            Some(found) => BooleanBuffer::collect_bool(stretches, |stretch| found.may_have_value(stretch)),
            None => all(true),
        },
        Predicate::IsNull { column } => match statistics(column) {
            Some(found) if wanted => BooleanBuffer::collect_bool(stretches, |stretch| found.may_have_null(stretch)),
            Some(found) => BooleanBuffer::collect_bool(stretches, |stretch| found.may_have_value(stretch)),
            None => all(true),
        },
        Predicate::And(inner) => fold(inner, wanted)?,
        Predicate::Or(inner) => fold(inner, !wanted)?,
        Predicate::Not(inner) => may_hold(inner, !wanted, stretches, statistics)?,
    })
}

fn may_compare(
    found: &ColumnStatistics,
    comparison: Comparison,
    literal: &Literal,
    column: &str,
) -> Result<BooleanBuffer> {
    let stretches = found.rows.len();
    let values = BooleanBuffer::collect_bool(stretches, |stretch| found.may_have_value(stretch));
    if matches!(found.least.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64) {
        return Ok(values);
    }
    let holds = |bound: &ArrayRef, comparison| Ok(unknown_is_true(&compare(bound, comparison, literal, column)?));
    let (least, greatest) = (&found.least, &found.greatest);
    let possible: Result<BooleanBuffer> = match comparison {
        Comparison::Eq => Ok(&holds(least, Comparison::LtEq)? & &holds(greatest, Comparison::GtEq)?),
        // Only if both bounds are the literal are all values: they lie between.
        Comparison::NotEq => Ok(&holds(least, Comparison::NotEq)? | &holds(greatest, Comparison::NotEq)?),
        Comparison::Lt | Comparison::LtEq => holds(least, comparison),
        Comparison::Gt | Comparison::GtEq => holds(greatest, comparison),
    };
    Ok(&values & &possible?)
}

fn unknown_is_true(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        Some(nulls) => mask.values() | &!nulls.inner(),
        None => mask.values().clone(),
    }
}

/// The predicates that must all hold for `predicate` to hold.
pub(crate) fn conjuncts(predicate: &Predicate) -> Vec<&Predicate> {
    match predicate {
        Predicate::And(inner) => inner.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// What a predicate says about keys: no row outside the range, or with a key that is not listed, can pass.
#[derive(Debug, Default)]
pub(crate) struct KeyHints {
    pub(crate) range: KeyRange,
    /// Key columns.
    pub(crate) keys: Vec<Vec<ArrayRef>>,
}

/// Finds the conditions on the key in a predicate whose literals are values of their columns' types.
pub(crate) fn key_hints(predicate: &Predicate, key: &[(String, DataType)]) -> Result<KeyHints> {
    let mut hints = KeyHints::default();
    let Some((first, data_type)) = key.first() else { return Ok(hints) };
    for conjunct in conjuncts(predicate) {
        match conjunct {
            Predicate::Compare { column, comparison, literal } if column == first => {
                let Some(values) = literal.to_array(data_type)? else { continue };
                let Some(value) = key_at(std::slice::from_ref(&values), 0)?.pop() else { continue };
                let range = KeyRange::all();
                let range = match comparison {
                    Comparison::Eq if key.len() == 1 => {
                        hints.keys.push(vec![values]);
                        range.below(after(std::slice::from_ref(&value))).starting_at([value])
                    }
                    Comparison::Eq => range.below(after(std::slice::from_ref(&value))).starting_at([value]),
                    Comparison::Lt => range.below([value]),
                    Comparison::LtEq => range.below(after(std::slice::from_ref(&value))),
                    Comparison::Gt => range.below([KeyValue::Null]).starting_at(after(std::slice::from_ref(&value))),
                    Comparison::GtEq => range.below([KeyValue::Null]).starting_at([value]),
                    Comparison::NotEq => range.below([KeyValue::Null]),
                };
                hints.range = std::mem::take(&mut hints.range).intersect(&range);
            }
            Predicate::In { column, literals } if column == first && key.len() == 1 => {
                let arrays = literals.iter().map(|literal| literal.to_array(data_type)).collect::<Result<Vec<_>>>()?;
                let arrays: Vec<&dyn Array> = arrays.iter().flatten().map(AsRef::as_ref).collect();
                hints.keys.push(vec![match arrays.as_slice() {
                    [] => arrow::array::new_empty_array(data_type),
                    _ => concat(&arrays)?,
                }]);
            }
            _ => {}
        }
    }
    Ok(hints)
}
