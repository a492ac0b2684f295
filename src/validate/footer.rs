//! What a run's footer promises, held to the manifest: identity, rows, columns, order.

use std::sync::Arc;

use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{ParquetMetaData, SortingColumn};

use crate::dataset::Dataset;
use crate::layout::{Layout, WriteId};
use crate::manifest::{FORMAT_VERSION, Run, Violations};
use crate::schema::canonical_schema;

/// Checks a footer. `None` if the columns are not such that the rows can be looked at.
pub(super) fn check(
    dataset: &Dataset,
    run: &Run,
    metadata: &ParquetMetaData,
    found: &mut Violations,
) -> Option<ArrowReaderMetadata> {
    check_identity(dataset, run, metadata, found);
    check_rows(run, metadata, found);
    check_sorting(dataset, run, metadata, found);
    check_columns(dataset, run, metadata, found)
}

fn check_identity(dataset: &Dataset, run: &Run, metadata: &ParquetMetaData, found: &mut Violations) {
    let pairs = metadata.file_metadata().key_value_metadata();
    let value =
        |key: &str| pairs.into_iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    for (key, expected) in [
        ("smb.format", FORMAT_VERSION.to_string()),
        ("smb.dataset_id", dataset.id().to_string()),
        ("smb.bucket", run.bucket.to_string()),
        ("smb.buckets", run.buckets.to_string()),
    ] {
        let value = value(key).unwrap_or("nothing");
        if value != expected {
            found.run(
                "INV-19",
                run,
                format!("the footer is not this run's, key=`{key}`, expected=`{expected}`, found=`{value}`"),
            );
        }
    }
    let write_id = value("smb.write_id").and_then(|id| WriteId::new(id).ok());
    let path = write_id
        .zip(value("smb.run_id"))
        .map(|(write_id, run_id)| Layout::new_run(&write_id, run.bucket, run.buckets, run_id));
    if path.as_deref() != Some(run.path.as_str()) {
        let path = path.as_deref().unwrap_or("nothing");
        found.run(
            "INV-19",
            run,
            format!("the write id and run id in the footer are not those of the path, found=`{path}`"),
        );
    }
}

fn check_rows(run: &Run, metadata: &ParquetMetaData, found: &mut Violations) {
    let rows: i128 = metadata.row_groups().iter().map(|group| i128::from(group.num_rows())).sum();
    if rows != i128::from(run.rows) || i128::from(metadata.file_metadata().num_rows()) != rows {
        found.run(
            "INV-20",
            run,
            format!("the row groups have another number of rows, expected=`{}`, found=`{rows}`", run.rows),
        );
    }
}

fn check_sorting(dataset: &Dataset, run: &Run, metadata: &ParquetMetaData, found: &mut Violations) {
    let leaves = metadata.file_metadata().schema_descr();
    let mut expected = vec![];
    for name in dataset.spec().order() {
        let leaf =
            leaves.columns().iter().position(|leaf| leaf.path().parts().first().is_some_and(|root| root == name));
        let Some(column_idx) = leaf.and_then(|leaf| i32::try_from(leaf).ok()) else { return };
        expected.push(SortingColumn { column_idx, descending: false, nulls_first: false });
    }
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if group.sorting_columns() != Some(&expected) {
            found.run("INV-22", run, format!("a row group does not state the order of the spec, row_group=`{number}`"));
        }
    }
}

fn check_columns(
    dataset: &Dataset,
    run: &Run,
    metadata: &ParquetMetaData,
    found: &mut Violations,
) -> Option<ArrowReaderMetadata> {
    let arrow = match ArrowReaderMetadata::try_new(Arc::new(metadata.clone()), ArrowReaderOptions::new()) {
        Ok(arrow) => arrow,
        Err(e) => {
            found.run("INV-21", run, format!("the columns cannot be read, cause=`{e}`"));
            return None;
        }
    };
    let canonical = match canonical_schema(arrow.schema()) {
        Ok(canonical) => canonical,
        Err(e) => {
            found.run("INV-21", run, format!("the columns cannot be a dataset's, cause=`{e}`"));
            return None;
        }
    };
    let expected = dataset.schema().fields();
    let same = canonical.fields().len() == expected.len()
        && canonical
            .fields()
            .iter()
            .zip(expected)
            .all(|(a, b)| a.name() == b.name() && same_type(a.data_type(), b.data_type()));
    if same {
        return Some(arrow);
    }
    let show = |fields: &arrow::datatypes::Fields| {
        fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
    };
    found.run(
        "INV-21",
        run,
        format!("the columns are others, expected=`{}`, found=`{}`", show(expected), show(canonical.fields())),
    );
    None
}

/// Parquet knows whether a timestamp has a zone, not which.
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::Timestamp(a, Some(_)), DataType::Timestamp(b, Some(_))) => a == b,
        _ => a == b,
    }
}
