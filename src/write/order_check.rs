//! The check that rows come in the order of their run: key columns, then sort columns, ascending, nulls last.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::and;
use arrow::compute::kernels::cmp;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter};
use arrow::util::display::array_value_to_string;

use crate::error::{Error, ErrorKind, Result};
use crate::write::partition::sort_fields;

/// Characters of a value that a message shows.
const SHOWN_CHARS: usize = 64;

/// Checks the order of batches that follow each other. Costs a comparison kernel per order column that is reached.
#[derive(Debug)]
pub(super) struct OrderCheck {
    order: Vec<usize>,
    remedy: &'static str,
    converter: RowConverter,
    /// The last row of the batch before.
    last: Option<OwnedRow>,
    rows: u64,
}

impl OrderCheck {
    /// A check of the columns at `order`; `remedy` is what a message says to do.
    pub(super) fn new(schema: &SchemaRef, order: &[usize], remedy: &'static str) -> Result<Self> {
        Ok(Self {
            order: order.to_vec(),
            remedy,
            converter: RowConverter::new(sort_fields(schema, order))?,
            last: None,
            rows: 0,
        })
    }

    /// Checks a batch and its border to the one before. `Unsorted` names the row and both keys.
    pub(super) fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = self.order.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let at = |row: usize| columns.iter().map(|c| c.slice(row, 1)).collect::<Vec<_>>();

        if let Some(last) = &self.last {
            let first = self.converter.convert_columns(&at(0))?;
            if first.row(0) < last.row() {
                let last = self.converter.convert_rows([last.row()])?;
                return Err(self.unsorted(0, &last, &at(0)));
            }
        }
        if let Some(row) = self.first_descent(&columns)? {
            return Err(self.unsorted(row, &at(row - 1), &at(row)));
        }
        self.last = Some(self.converter.convert_columns(&at(rows - 1))?.row(0).owned());
        self.rows += rows as u64;
        Ok(())
    }

    /// The first row that is less than the one before it.
    fn first_descent(&self, columns: &[ArrayRef]) -> Result<Option<usize>> {
        let pairs = columns[0].len() - 1;
        if pairs == 0 {
            return Ok(None);
        }
        if columns.iter().any(|c| c.null_count() > 0) {
            // The kernels below know nothing of the place of nulls.
            let rows = self.converter.convert_columns(columns)?;
            return Ok((1..rows.num_rows()).find(|i| rows.row(*i) < rows.row(i - 1)));
        }
        let mut first: Option<usize> = None;
        // The pairs that are equal in all columns so far.
        let mut tied: Option<BooleanArray> = None;
        for (i, column) in columns.iter().enumerate() {
            let (previous, next) = (column.slice(0, pairs), column.slice(1, pairs));
            let mut descends = cmp::gt(&previous, &next)?;
            if let Some(tied) = &tied {
                descends = and(&descends, tied)?;
            }
            let at = descends.values().set_indices().next();
            first = first.into_iter().chain(at).min();
            if i + 1 == columns.len() {
                break;
            }
            let mut equal = cmp::eq(&previous, &next)?;
            if let Some(tied) = &tied {
                equal = and(&equal, tied)?;
            }
            if equal.true_count() == 0 {
                break;
            }
            tied = Some(equal);
        }
        Ok(first.map(|pair| pair + 1))
    }

    fn unsorted(&self, row: usize, previous: &[ArrayRef], key: &[ArrayRef]) -> Error {
        let message = format!(
            "a row is less than the one before it; {}, previous=`{}`, key=`{}`",
            self.remedy,
            show(previous),
            show(key)
        );
        Error::new(ErrorKind::Unsorted, message).with_row(self.rows + row as u64)
    }
}

/// The first row of these columns.
fn show(columns: &[ArrayRef]) -> String {
    let values = columns.iter().map(|column| {
        if column.is_null(0) {
            return "null".to_owned();
        }
        let text = array_value_to_string(column, 0).unwrap_or_else(|_| "?".to_owned());
        match text.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    });
    values.collect::<Vec<_>>().join(", ")
}
