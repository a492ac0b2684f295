//! The two queries, and how batches are reduced to a checkable answer. Generator, scan and join share this code, so that all
//! of them do the same work per row and can be compared by `==`.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{max, max_string_view, sum};
use arrow::datatypes::{ArrowNumericType, DataType, Date32Type, Decimal128Type, Int32Type, Int64Type};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// A query over orders joined with lineitem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// Count, `sum(o_totalprice)`, `sum(l_quantity)`: one payload column of either side.
    Narrow,
    /// Count and the maximum of every column of both tables.
    Wide,
}

impl Query {
    pub(crate) const ALL: [Self; 2] = [Self::Narrow, Self::Wide];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Wide => "wide",
        }
    }

    /// The columns that the narrow query sums; `None` stands for all.
    pub(crate) fn payload(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Narrow => Some(["o_totalprice", "l_quantity"]),
            Self::Wide => None,
        }
    }

    /// Adds the rows of `batch` to `answer`, with Arrow's own kernels.
    pub(crate) fn reduce(self, answer: &mut Answer, batch: &RecordBatch) -> Result<(), Failure> {
        answer.rows += batch.num_rows() as u64;
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if self.payload().is_some_and(|payload| !payload.contains(&field.name().as_str())) {
                continue;
            }
            let value = match self {
                Self::Narrow => sum(column.as_primitive::<Decimal128Type>()).map(Value::Number),
                Self::Wide => maximum(column)?,
            };
            if let Some(value) = value {
                self.merge(answer, field.name(), value);
            }
        }
        Ok(())
    }

    /// Adds one thread's answer to that of all.
    pub(crate) fn add(self, answer: &mut Answer, part: Answer) {
        answer.rows += part.rows;
        for (name, value) in part.columns {
            self.merge(answer, &name, value);
        }
    }

    fn merge(self, answer: &mut Answer, name: &str, value: Value) {
        let Some(so_far) = answer.columns.get_mut(name) else {
            answer.columns.insert(name.to_owned(), value);
            return;
        };
        match (self, so_far, value) {
            (Self::Narrow, Value::Number(so_far), Value::Number(value)) => *so_far += value,
            (_, so_far, value) if *so_far < value => *so_far = value,
            _ => {}
        }
    }
}

/// The answer to a query: exact, so equal or wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) rows: u64,
    /// By column: its sum or its maximum.
    pub(crate) columns: BTreeMap<String, Value>,
}

/// A sum or maximum. Decimals are in units of their last digit, dates in days.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Value {
    Number(i128),
    Text(String),
}

fn maximum(column: &dyn Array) -> Result<Option<Value>, Failure> {
    fn number<T: ArrowNumericType<Native: Into<i128>>>(column: &dyn Array) -> Option<Value> {
        max(column.as_primitive::<T>()).map(|v| Value::Number(v.into()))
    }
    Ok(match column.data_type() {
        DataType::Int32 => number::<Int32Type>(column),
        DataType::Int64 => number::<Int64Type>(column),
        DataType::Date32 => number::<Date32Type>(column),
        DataType::Decimal128(..) => number::<Decimal128Type>(column),
        DataType::Utf8View => max_string_view(column.as_string_view()).map(|v| Value::Text(v.to_owned())),
        other => return Err(format!("TPC-H has no column of type {other}").into()),
    })
}
