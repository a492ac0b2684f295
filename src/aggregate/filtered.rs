//! An aggregate over some of the rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};

use crate::aggregate::segments::keep;
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::{Error, Result};
use crate::predicate::Predicate;

/// An aggregate over the rows that a predicate keeps: those for which it is true. Made by [`Aggregator::filter`].
///
/// State and result are those of the aggregate. Definition: that of the aggregate with the predicate, as JSON, as parameter `where`. A key
/// whose rows are all left out keeps its row in the result.
///
/// ```
/// use sort_merge_bucket::{Aggregator, Predicate, Sum};
/// let mobile = Sum::of("ms_played").filter(Predicate::eq("device", "mobile"));
/// assert_eq!(mobile.inputs(), ["ms_played", "device"]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Filtered<A> {
    aggregator: A,
    predicate: Predicate,
}

impl<A: Aggregator> Filtered<A> {
    pub(super) fn new(aggregator: A, predicate: Predicate) -> Self {
        Self { aggregator, predicate }
    }

    /// The first inputs are the aggregate's, the others the predicate's.
    fn split(&self, columns: usize) -> usize {
        columns.saturating_sub(self.predicate.columns().len())
    }
}

impl<A: Aggregator> Aggregator for Filtered<A> {
    fn definition(&self) -> Definition {
        let mut definition = self.aggregator.definition();
        // Aggregates can be filtered more than once.
        let mut name = "where".to_owned();
        while definition.parameters.contains_key(&name) {
            name.insert_str(0, "and_");
        }
        let predicate = serde_json::to_string(&self.predicate).unwrap_or_else(|_| self.predicate.to_string());
        definition.parameters.insert(name, predicate);
        definition
    }

    fn inputs(&self) -> Vec<String> {
        let mut inputs = self.aggregator.inputs();
        inputs.extend(self.predicate.columns().into_iter().map(str::to_owned));
        inputs
    }

    fn state_type(&self, inputs: &[DataType]) -> Result<DataType> {
        let (own, others) = inputs.split_at(self.split(inputs.len()));
        let columns: BTreeSet<&str> = self.predicate.columns();
        if columns.len() != others.len() {
            return Err(Error::invalid_input("a filtered aggregate has other inputs than it asked for"));
        }
        let fields: Vec<Field> =
            columns.into_iter().zip(others).map(|(name, other)| Field::new(name, other.clone(), true)).collect();
        self.predicate.check(&Schema::new(fields))?;
        self.aggregator.state_type(own)
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        self.aggregator.output_type(state)
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let (own, others) = rows.columns().split_at(self.split(rows.columns().len()));
        let length = rows.offsets().last().copied().unwrap_or(0);
        let names = self.predicate.columns().into_iter();
        let fields: Vec<Field> =
            names.zip(others).map(|(name, other)| Field::new(name, other.data_type().clone(), true)).collect();
        let others = others.iter().map(|column| column.slice(0, length)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), others, &options)?;
        let own: Vec<ArrayRef> = own.iter().map(|column| column.slice(0, length)).collect();
        let kept = keep(&own, rows.offsets(), &self.predicate.evaluate(&batch)?)?;
        self.aggregator.update(&Segments::new(&kept.columns, &kept.offsets)?)
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        self.aggregator.merge(states)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        self.aggregator.finish(states)
    }
}
