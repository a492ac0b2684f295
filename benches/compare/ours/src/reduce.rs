//! Batches reduced to an answer by Arrow's kernels; the join and the floor share this code, so that both do the same work per row.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, max_string_view, sum};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Decimal128Type, DecimalType, Int32Type, Int64Type, SchemaRef,
};
use arrow::temporal_conversions::date32_to_datetime;

use crate::Failure;
use crate::question::{Answer, Question, Reduction};

/// What becomes of batches, on every thread by itself at first.
pub(crate) trait Reduce: Send + 'static {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), Failure>;

    /// Adds what another thread reduced.
    fn merge(&mut self, other: Self);
}

/// The reduced columns of all batches so far, of one schema.
#[derive(Debug)]
pub(crate) struct Reduced {
    schema: SchemaRef,
    /// By column; `None` for those that do not count.
    columns: Vec<Option<Reduction>>,
    values: Vec<Option<Value>>,
    pub(crate) rows: u64,
}

/// Decimals in units of their last digit, dates in days.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i128),
    Text(String),
}

impl Reduced {
    pub(crate) fn new(question: Question, schema: SchemaRef) -> Self {
        let columns: Vec<_> = schema.fields().iter().map(|field| question.reduction(field.name())).collect();
        Self { schema, values: vec![None; columns.len()], columns, rows: 0 }
    }

    /// The values as text, without the number of rows.
    pub(crate) fn answer(&self) -> Answer {
        let columns = self.schema.fields().iter().zip(&self.columns).zip(&self.values);
        columns
            .filter_map(|((field, reduction), value)| {
                Some((reduction.as_ref()?.name(field.name()), text(value.as_ref()?, field.data_type())))
            })
            .collect()
    }
}

impl Reduce for Reduced {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        self.rows += batch.num_rows() as u64;
        for (i, (reduction, column)) in self.columns.iter().zip(batch.columns()).enumerate() {
            match reduction {
                Some(Reduction::Sum) => {
                    let value = match column.data_type() {
                        DataType::Int64 => sum(column.as_primitive::<Int64Type>()).map(i128::from),
                        _ => sum(column.as_primitive::<Decimal128Type>()),
                    };
                    merge(Reduction::Sum, &mut self.values[i], value.map(Value::Number));
                }
                Some(Reduction::Max) => maximum(column, &mut self.values[i])?,
                None => {}
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        for ((reduction, value), other) in self.columns.iter().zip(&mut self.values).zip(other.values) {
            if let Some(reduction) = reduction {
                merge(*reduction, value, other);
            }
        }
    }
}

fn merge(reduction: Reduction, so_far: &mut Option<Value>, value: Option<Value>) {
    match (reduction, so_far, value) {
        (Reduction::Sum, Some(Value::Number(so_far)), Some(Value::Number(value))) => *so_far += value,
        (_, so_far, value) if *so_far < value => *so_far = value,
        _ => {}
    }
}

fn maximum(column: &ArrayRef, so_far: &mut Option<Value>) -> Result<(), Failure> {
    fn number<T: ArrowNumericType<Native: Into<i128>>>(column: &ArrayRef, so_far: &mut Option<Value>) {
        merge(Reduction::Max, so_far, max(column.as_primitive::<T>()).map(|v| Value::Number(v.into())));
    }
    match column.data_type() {
        DataType::Int32 => number::<Int32Type>(column, so_far),
        DataType::Int64 => number::<Int64Type>(column, so_far),
        DataType::Date32 => number::<Date32Type>(column, so_far),
        DataType::Decimal128(..) => number::<Decimal128Type>(column, so_far),
        DataType::Utf8View => match (max_string_view(column.as_string_view()), so_far) {
            (Some(text), Some(Value::Text(so_far))) if so_far.as_str() >= text => {}
            (Some(text), so_far) => *so_far = Some(Value::Text(text.to_owned())),
            (None, _) => {}
        },
        other => return Err(format!("no reduction for columns of type {other}").into()),
    }
    Ok(())
}

fn text(value: &Value, data_type: &DataType) -> String {
    match (value, data_type) {
        (Value::Text(text), _) => text.clone(),
        (Value::Number(days), DataType::Date32) => {
            let date = i32::try_from(*days).ok().and_then(date32_to_datetime);
            date.map_or_else(|| format!("day {days}"), |date| date.date().to_string())
        }
        (Value::Number(units), DataType::Decimal128(_, scale)) => Decimal128Type::format_decimal(*units, 38, *scale),
        (Value::Number(number), _) => number.to_string(),
    }
}
