//! What each column of some Parquet files takes.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value, json};

use crate::Failure;

/// The compressed bytes of each column in all Parquet files below `folder`, and the bytes of these files, which have footers and indexes as well.
pub(crate) fn columns(folder: &Path) -> Result<Value, Failure> {
    let mut columns = Map::new();
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files += path.metadata()?.len();
                add(&path, &mut columns)?;
            }
        }
    }
    Ok(json!({ "columns": columns, "files": files }))
}

fn add(path: &Path, columns: &mut Map<String, Value>) -> Result<(), Failure> {
    let file = SerializedFileReader::new(File::open(path)?)?;
    for column in file.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        let bytes = columns.entry(column.column_path().string()).or_insert(Value::from(0_u64));
        *bytes = Value::from(bytes.as_u64().unwrap_or(0) + u64::try_from(column.compressed_size())?);
    }
    Ok(())
}
