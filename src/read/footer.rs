//! The footer of a run: decoded, and held to what the manifest says of the run.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::{Error, Result};
use crate::read::{RunReader, thrift};

/// The size of the Parquet trailer: the footer's length and the magic.
const TRAILER: usize = 8;

/// Decodes the footer and holds the file to the manifest.
pub(super) fn check_footer(reader: &RunReader, footer: &Bytes) -> Result<ArrowReaderMetadata> {
    let run = &reader.run;
    let body = footer.len().checked_sub(TRAILER).ok_or_else(|| Error::corrupt("a run's footer is too short"))?;
    let (body, trailer) = footer.split_at(body);
    if trailer[..4] != (body.len() as u32).to_le_bytes() || &trailer[4..] != b"PAR1" {
        return Err(Error::corrupt("a run does not end with the parquet footer that the manifest says"));
    }
    thrift::check_footer(body)?;
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(body)?);
    check_identity(reader, &metadata)?;
    let of_groups = metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
    let found = of_groups.reduce(|sum, rows| sum?.checked_add(rows?)).flatten().unwrap_or(0);
    // Both numbers: nothing else makes sure that a footer lists all row groups.
    if found != run.rows || metadata.file_metadata().num_rows() as u64 != run.rows {
        return Err(Error::corrupt(format!(
            "a run has another number of rows than the manifest says, expected=`{}`, found=`{found}`",
            run.rows
        )));
    }
    // The manifest's schema decides; the Arrow schema that a writer may have put into the file is not looked at. Parquet wants to be told the
    // very nullability and field ids of the file, which are the file's own affair: values are checked against the manifest's later.
    let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let of_file = ArrowReaderMetadata::try_new(Arc::clone(&metadata), plain.clone())?;
    let like_file = |(wanted, found): (&FieldRef, &FieldRef)| {
        wanted.as_ref().clone().with_nullable(found.is_nullable()).with_metadata(found.metadata().clone())
    };
    // Parquet takes the wanted types for hints, and would return any bytes as text and any numbers as times.
    let mut pairs = of_file.schema().fields().iter().zip(reader.schema.fields());
    let differs = |(found, expected): &(&FieldRef, &FieldRef)| !is_stored_as(expected.data_type(), found.data_type());
    if let Some((found, expected)) = pairs.find(differs) {
        return Err(Error::corrupt(format!(
            "a column of a run is of another type than the manifest says, column=`{}`, expected=`{}`, found=`{}`",
            expected.name(),
            expected.data_type(),
            found.data_type()
        )));
    }
    let fields: Vec<Field> = reader.schema.fields().iter().zip(of_file.schema().fields()).map(like_file).collect();
    let metadata = ArrowReaderMetadata::try_new(metadata, plain.with_schema(Arc::new(Schema::new(fields))))
        .map_err(|e| Error::corrupt("a run has other columns than the manifest says").with_source(e))?;
    let same = metadata.schema().fields().len() == reader.schema.fields().len()
        && metadata
            .schema()
            .fields()
            .iter()
            .zip(reader.schema.fields())
            .all(|(found, expected)| found.name() == expected.name() && found.data_type() == expected.data_type());
    if !same {
        return Err(Error::corrupt(format!(
            "a run has other columns than the manifest says, expected=`{}`, found=`{}`",
            reader.schema,
            metadata.schema()
        )));
    }
    Ok(metadata)
}

/// Whether values of a canonical type are stored as what Parquet, not told what to expect, takes for `found`.
fn is_stored_as(canonical: &DataType, found: &DataType) -> bool {
    use DataType as D;
    match (canonical, found) {
        (D::Utf8View, D::Utf8) | (D::BinaryView, D::Binary) => true,
        (D::Decimal256(precision, scale), D::Decimal128(p, s)) => (precision, scale) == (p, s),
        // Parquet knows whether there is a zone, not which.
        (D::Timestamp(unit, zone), D::Timestamp(u, z)) => unit == u && zone.is_some() == z.is_some(),
        (D::List(item), D::List(i)) | (D::Map(item, _), D::Map(i, _)) => is_stored_as(item.data_type(), i.data_type()),
        (D::Struct(fields), D::Struct(found)) => {
            fields.len() == found.len()
                && fields.iter().zip(found).all(|(field, f)| is_stored_as(field.data_type(), f.data_type()))
        }
        _ => canonical == found,
    }
}

/// The footer says which dataset, write, run and bucket the file belongs to; a file put in another's place is found by it.
fn check_identity(reader: &RunReader, metadata: &ParquetMetaData) -> Result<()> {
    let run = &reader.run;
    let pairs = metadata.file_metadata().key_value_metadata();
    let found =
        |key: &str| pairs.into_iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    let (folder, file) = run.path.rsplit_once('/').unwrap_or_default();
    let stem = format!("bucket-{:05}-of-{:05}-", run.bucket, run.buckets);
    let run_id = file.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(".parquet")).unwrap_or(file);
    let expected = [
        ("smb.format", "1".to_owned()),
        ("smb.dataset_id", reader.dataset_id.to_string()),
        ("smb.write_id", folder.rsplit('/').next().unwrap_or_default().to_owned()),
        ("smb.run_id", run_id.to_owned()),
        ("smb.bucket", run.bucket.to_string()),
        ("smb.buckets", run.buckets.to_string()),
    ];
    let differing: Vec<String> = expected
        .iter()
        .filter(|(key, value)| found(key) != Some(value))
        .map(|(key, value)| format!("{key}: expected=`{value}`, found=`{}`", found(key).unwrap_or("nothing")))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::corrupt(format!("a run's file is not the one that the manifest means: {}", differing.join("; "))))
}
