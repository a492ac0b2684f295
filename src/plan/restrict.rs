//! The rows that a source is restricted to, brought onto the keys and slots of its plan.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};

use crate::bucket::{bucket_of, hash_rows};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::plan::Problems;
use crate::plan::resolve::Keys;
use crate::predicate::Predicate;
use crate::read::{Filter, Selection};
use crate::select::{KeyRange, KeySet, SortedKeys, key_hints};

/// What a plan reads of a source.
#[derive(Debug, Default)]
pub(crate) struct Restriction {
    /// Rows of all slots.
    whole: Selection,
    /// The keys as they were asked for, by slot; empty if there are none.
    by_slot: Vec<Arc<SortedKeys>>,
    /// The positions of datasets none of whose rows can pass the filter.
    pub(crate) never: Vec<usize>,
}

impl Restriction {
    /// What is read in a slot, of a key range.
    pub(crate) fn of_slot(&self, slot: u32, range: &KeyRange) -> Result<Selection> {
        let range = self.whole.range.clone().intersect(range);
        let keys = match self.by_slot.get(slot as usize) {
            None => None,
            Some(keys) if range.is_all() => Some(Arc::clone(keys)),
            Some(keys) => Some(Arc::new(keys.within(&range)?)),
        };
        Ok(Selection { range, keys, filter: self.whole.filter.clone() })
    }

    /// Whether rows are looked for by their keys.
    pub(crate) fn has_keys(&self) -> bool {
        !self.by_slot.is_empty()
    }

    pub(crate) fn filter(&self) -> Option<&Arc<Filter>> {
        self.whole.filter.as_ref()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.whole.is_all() && self.by_slot.is_empty()
    }
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![];
        if let Some(filter) = self.filter() {
            parts.push(format!("filter: {}", filter.predicate));
        }
        if !self.whole.range.is_all() {
            parts.push(format!("keys in {}", self.whole.range));
        }
        if !self.by_slot.is_empty() {
            parts.push(format!("one of {} keys", self.by_slot.iter().map(|keys| keys.len()).sum::<usize>()));
        }
        f.write_str(&parts.join(", "))
    }
}

/// Resolves what a source is restricted to; `known` are all columns that it has, its merge columns first.
pub(super) fn restrict(
    source: &str,
    known: &[Field],
    (filter, range, key_sets): (Option<Predicate>, KeyRange, Vec<KeySet>),
    common: &Keys<'_>,
    datasets: &[Dataset],
    problems: &mut Problems,
) -> Restriction {
    let attempt = || -> Result<Restriction> {
        let key = &known[..common.hashed];
        let types: Vec<DataType> = key.iter().map(|field| field.data_type().clone()).collect();
        range.check(&types)?;
        let mut restriction = Restriction::default();
        let mut range = range.clone();
        let mut sets = key_sets.iter().map(|keys| keys.of_types(&types)).collect::<Result<Vec<_>>>()?;
        if let Some(predicate) = &filter {
            let columns = predicate.columns();
            let fields: Vec<Field> = known.iter().filter(|f| columns.contains(f.name().as_str())).cloned().collect();
            let schema = Arc::new(Schema::new(fields));
            predicate.check(&schema)?;
            let names: Vec<(String, DataType)> =
                key.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
            let hints = key_hints(predicate, &names)?;
            range = range.intersect(&hints.range);
            sets.extend(hints.keys);
            let filter = Filter { predicate: predicate.clone(), schema };
            let passes_nulls = passes_nulls(&filter)?;
            let lacks = |dataset: &Dataset| {
                filter.schema.fields().iter().all(|field| dataset.schema().field_with_name(field.name()).is_err())
            };
            let lacking = datasets.iter().enumerate().filter(|(_, dataset)| !passes_nulls && lacks(dataset));
            restriction.never = lacking.map(|(at, _)| at).collect();
            restriction.whole.filter = Some(Arc::new(filter));
        }
        restriction.whole.range = range;
        restriction.by_slot = keys_by_slot(&sets, common)?;
        Ok(restriction)
    };
    attempt().unwrap_or_else(|e| {
        problems.invalid(format!("source `{source}`: {}", e.message()));
        Restriction::default()
    })
}

/// Whether a row passes that has none of the columns.
fn passes_nulls(filter: &Filter) -> Result<bool> {
    let columns: Vec<ArrayRef> =
        filter.schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let fields: Vec<Field> =
        filter.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    Ok(filter.passes(&row)?.value(0))
}

/// The keys that all sets have, by slot.
fn keys_by_slot(sets: &[Vec<ArrayRef>], common: &Keys<'_>) -> Result<Vec<Arc<SortedKeys>>> {
    let Some((first, others)) = sets.split_first() else { return Ok(vec![]) };
    let mut keys = SortedKeys::try_new(first)?;
    for other in others {
        keys = keys.intersect(&SortedKeys::try_new(other)?)?;
    }
    let mut rows: Vec<Vec<u32>> = vec![vec![]; common.slots.get() as usize];
    for (row, hash) in hash_rows(common.function, keys.columns())?.into_iter().enumerate() {
        rows[bucket_of(hash, common.slots) as usize].push(row as u32);
    }
    rows.into_iter().map(|rows| Ok(Arc::new(keys.take(rows)?))).collect()
}
