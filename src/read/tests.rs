//! Columns of a dataset brought to those of its source.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::*;

fn dataset() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("a", DataType::Int64),
        field("user", DataType::Int32),
        field("b", DataType::Utf8View),
        field("unused", DataType::Int64),
    ]))
}

/// What a Parquet reader returns for a projection: the columns in the file's order.
fn read(projection: &[usize]) -> RecordBatch {
    let columns: [Arc<dyn Array>; 4] = [
        Arc::new(Int64Array::from(vec![10, 20])),
        Arc::new(Int32Array::from(vec![-1, 2])),
        Arc::new(StringViewArray::from(vec!["x", "y"])),
        Arc::new(Int64Array::from(vec![0, 0])),
    ];
    RecordBatch::try_new(dataset(), columns.to_vec()).unwrap().project(projection).unwrap()
}

#[test]
fn columns_are_reordered_widened_and_filled_with_nulls() {
    let source = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("b", DataType::Utf8View, false),
        Field::new("later", DataType::Utf8View, true),
        Field::new("a", DataType::Int64, false),
    ]));
    // The source's key column is the dataset's column 1, whatever it is called.
    let adapt = Adapt::new(&source, &dataset(), &[1]);
    assert_eq!(adapt.projection(), [0, 1, 2], "an unused column is not read");
    let batch = adapt.apply(read(adapt.projection())).unwrap();
    assert_eq!(batch.schema(), source);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[-1, 2]);
    assert_eq!(batch.column(1).as_string_view().value(1), "y");
    assert_eq!(batch.column(2).null_count(), 2);
    assert_eq!(batch.column(3).as_primitive::<Int64Type>().values(), &[10, 20]);
}

#[test]
fn columns_that_fit_already_are_passed_on() {
    let source = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("user", DataType::Int32, false),
    ]));
    let adapt = Adapt::new(&source, &dataset(), &[0]);
    let read = read(adapt.projection());
    let batch = adapt.apply(read.clone()).unwrap();
    assert_eq!(batch.schema(), source);
    assert!(Arc::ptr_eq(batch.column(0), read.column(0)) && Arc::ptr_eq(batch.column(1), read.column(1)));
}

#[test]
fn a_source_of_keys_alone_reads_nothing_else() {
    let source = Arc::new(Schema::new(vec![Field::new("user", DataType::Int32, false)]));
    let adapt = Adapt::new(&source, &dataset(), &[1]);
    assert_eq!(adapt.projection(), [1]);
    assert_eq!(adapt.apply(read(&[1])).unwrap().num_rows(), 2);
}
