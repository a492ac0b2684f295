//! A small dataset whose rows tell which write they came from.

use arrow::datatypes::{DataType, SchemaRef};

use crate::support::data::DatasetData;
use crate::support::field;
use crate::support::oracle::{Row, int, text};

/// Keys and names, in a few buckets.
pub(crate) fn data() -> DatasetData {
    let fields = vec![field("k", DataType::Int64, true), field("v", DataType::Utf8, false)];
    DatasetData::new(fields, &["k"], 2, vec![])
}

pub(crate) fn schema() -> SchemaRef {
    data().schema()
}

/// So many rows of one name.
pub(crate) fn some(name: &str, count: i128) -> Vec<Row> {
    (0..count).map(|k| vec![int(k), text(name)]).collect()
}
