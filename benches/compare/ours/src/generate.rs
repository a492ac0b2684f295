//! TPC-H orders and lineitem as Parquet files in key order, which is the order they are generated in.

use std::fs::File;
use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use tpchgen::generators::{LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{LineItemArrow, OrderArrow, RecordBatchIterator};

use crate::Failure;

/// Rows of a row group: DuckDB's default, which suits readers that work by row group.
const ROW_GROUP_ROWS: usize = 122_880;

/// Writes both tables, each in a thread of its own.
pub(crate) fn generate(scale_factor: f64, folder: &Path) -> Result<Value, Failure> {
    if !(scale_factor > 0.0 && scale_factor.is_finite()) {
        return Err("--sf is a positive number".into());
    }
    std::fs::create_dir_all(folder)?;
    let orders = OrderArrow::new(OrderGenerator::new(scale_factor, 1, 1));
    let lineitem = LineItemArrow::new(LineItemGenerator::new(scale_factor, 1, 1));
    let (orders, lineitem) = std::thread::scope(|scope| {
        let orders = scope.spawn(|| write(orders, &folder.join("orders.parquet")));
        let lineitem = write(lineitem, &folder.join("lineitem.parquet"));
        (orders.join(), lineitem)
    });
    let orders = orders.map_err(|_| "the thread that writes orders panicked")??;
    Ok(json!({ "orders": { "rows": orders }, "lineitem": { "rows": lineitem? } }))
}

fn write(batches: impl RecordBatchIterator, path: &Path) -> Result<u64, Failure> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batches.schema().clone(), Some(properties))?;
    let mut rows = 0;
    for batch in batches {
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(rows)
}
