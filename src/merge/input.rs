//! One sorted input: checks the order of what it is fed and hands it on in segments.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;

use crate::error::{Error, ErrorKind, Result};
use crate::merge::keys::{Extract, Keys};

/// A stretch of rows of one source in order, either all with keys or all with a null key.
#[derive(Debug, Clone)]
pub(crate) struct Segment<K> {
    pub(crate) batch: RecordBatch,
    /// `None`: a single key column, null in every row.
    pub(crate) keys: Option<K>,
}

impl<K: Keys> Segment<K> {
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Self {
        Self { batch: self.batch.slice(offset, len), keys: self.keys.as_ref().map(|k| k.slice(offset, len)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }
}

/// The columns that a merge orders by, and how to make keys of them.
#[derive(Debug, Clone)]
pub(crate) struct Order<E> {
    pub(crate) extract: E,
    pub(crate) columns: Vec<usize>,
}

impl<E: Extract> Order<E> {
    fn columns_of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.columns.iter().map(|&c| Arc::clone(batch.column(c))).collect()
    }

    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<E::Keys> {
        self.extract.extract(&self.columns_of(batch))
    }
}

/// A sorted input: rows fed but not yet taken, and what is needed to check the next ones.
#[derive(Debug)]
pub(crate) struct Input<E: Extract> {
    /// The file, for messages.
    label: Arc<str>,
    segments: VecDeque<Segment<E::Keys>>,
    /// Rows taken from the first segment.
    taken: usize,
    finished: bool,
    /// Rows fed so far: the row number in the file of the next one.
    rows: u64,
    /// The last row fed: its key, or `None` inside if null, and its key columns for messages.
    last: Option<(Option<E::Keys>, Vec<ArrayRef>)>,
}

impl<E: Extract> Input<E> {
    pub(crate) fn new(label: Arc<str>) -> Self {
        Self { label, segments: VecDeque::new(), taken: 0, finished: false, rows: 0, last: None }
    }

    /// Whether it must be fed or finished before the merge can go on.
    pub(crate) fn is_starved(&self) -> bool {
        self.segments.is_empty() && !self.finished
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// The rest of the first segment: the segment and how many of its rows were taken.
    pub(crate) fn head(&self) -> Option<(&Segment<E::Keys>, usize)> {
        self.segments.front().map(|segment| (segment, self.taken))
    }

    /// The next `rows` rows of the first segment, which has that many.
    pub(crate) fn take(&mut self, rows: usize) -> Option<Segment<E::Keys>> {
        let head = self.segments.front()?;
        let start = self.taken;
        if start + rows < head.len() {
            self.taken += rows;
            return Some(head.slice(start, rows));
        }
        self.taken = 0;
        let head = self.segments.pop_front()?;
        Some(if start == 0 { head } else { head.slice(start, rows) })
    }

    /// Everything left of the first segment.
    pub(crate) fn take_head(&mut self) -> Option<Segment<E::Keys>> {
        let rest = self.segments.front()?.len() - self.taken;
        self.take(rest)
    }

    /// Feeds rows, checking that they are in order and not before the last ones.
    pub(crate) fn push(&mut self, order: &Order<E>, batch: RecordBatch) -> Result<()> {
        if self.finished {
            return Err(Error::internal("an input was fed after its end"));
        }
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns = order.columns_of(&batch);
        let valid = match columns.as_slice() {
            [column] if !E::HOLDS_NULLS => self.valid_prefix(column)?,
            _ => rows,
        };
        if valid > 0 {
            let part: Vec<ArrayRef> =
                if valid == rows { columns.clone() } else { columns.iter().map(|c| c.slice(0, valid)).collect() };
            let keys = order.extract.extract(&part)?;
            self.check_order(&keys, &columns)?;
            let part = if valid == rows { batch.clone() } else { batch.slice(0, valid) };
            let last = keys.slice(valid - 1, 1);
            self.last = Some((Some(last), one_row(&columns, valid - 1)));
            self.segments.push_back(Segment { batch: part, keys: Some(keys) });
        }
        if valid < rows {
            self.last = Some((None, one_row(&columns, rows - 1)));
            self.segments.push_back(Segment { batch: batch.slice(valid, rows - valid), keys: None });
        }
        self.rows += rows as u64;
        Ok(())
    }

    /// The number of rows before the first null; after it there must be nothing but nulls.
    fn valid_prefix(&self, column: &ArrayRef) -> Result<usize> {
        let rows = column.len();
        let nulls = column.null_count();
        let valid = rows - nulls;
        if nulls > 0 && column.slice(valid, nulls).null_count() < nulls {
            let null = (0..rows).find(|&row| column.is_null(row)).unwrap_or(0);
            let value = (null..rows).find(|&row| column.is_valid(row)).unwrap_or(0);
            return Err(self.unsorted(
                value,
                &one_row(&[Arc::clone(column)], value - 1),
                &one_row(&[Arc::clone(column)], value),
            ));
        }
        Ok(valid)
    }

    fn check_order(&self, keys: &E::Keys, columns: &[ArrayRef]) -> Result<()> {
        if let Some((last, last_columns)) = &self.last {
            let descends = match last {
                None => true,
                Some(last) => keys.value(0) < last.value(0),
            };
            if descends {
                return Err(self.unsorted(0, last_columns, &one_row(columns, 0)));
            }
        }
        match keys.first_descent() {
            None => Ok(()),
            Some(row) => Err(self.unsorted(row, &one_row(columns, row - 1), &one_row(columns, row))),
        }
    }

    fn unsorted(&self, row: usize, previous: &[ArrayRef], offending: &[ArrayRef]) -> Error {
        let message = format!(
            "a row comes after a greater one, rewrite the dataset from its source, previous=`{}`, offending=`{}`",
            show(previous),
            show(offending)
        );
        Error::new(ErrorKind::Unsorted, message).with_path(&self.label).with_row(self.rows + row as u64)
    }
}

fn one_row(columns: &[ArrayRef], row: usize) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(row, 1)).collect()
}

/// A key tuple for messages.
fn show(columns: &[ArrayRef]) -> String {
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            if column.is_null(0) {
                "null".to_owned()
            } else {
                array_value_to_string(column, 0).unwrap_or_else(|e| e.to_string())
            }
        })
        .collect();
    if values.len() == 1 { values.concat() } else { format!("({})", values.join(", ")) }
}
