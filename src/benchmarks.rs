//! The kernels driven over batches in memory, for `benches/`. No part of the public interface: anything here may change at any time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::cogroup::{CoGroupInputs, chunk_kernel};
use crate::error::Result;
use crate::join::{CarryBudget, JoinInputs, JoinKind, OutputColumn, OutputLayout, join_kernel};
use crate::merge::{Kernel, SourceInputs, Step, scan_kernel};
use crate::spec::BucketSpec;
use crate::spill::SpilledRows;
use crate::task::Crew;
use crate::write::{Placement, SortedRows};

/// A source: the batches of each of its runs. The first column is the key.
pub type Runs = Vec<Vec<RecordBatch>>;

fn inputs(runs: &Runs) -> SourceInputs {
    SourceInputs {
        schema: schema(runs),
        order: vec![0],
        runs: (0..runs.len()).map(|run| format!("run {run}").into()).collect(),
    }
}

fn schema(runs: &Runs) -> SchemaRef {
    runs[0][0].schema()
}

/// Feeds a kernel until it is done, and adds up what `count` says of its items.
fn drive<T>(mut kernel: Box<dyn Kernel<Item = T>>, sources: &[&Runs], count: impl Fn(&T) -> usize) -> Result<usize> {
    let mut feeds: Vec<_> = sources.iter().flat_map(|runs| runs.iter()).map(|run| run.iter()).collect();
    let mut total = 0;
    loop {
        match kernel.step()? {
            Step::Item(item) => total += count(&item),
            Step::Done => return Ok(total),
            Step::Needs(input) => match feeds[input].next() {
                Some(batch) => kernel.push(input, batch.clone())?,
                None => kernel.finish(input),
            },
        }
    }
}

/// Merges the runs of a source; the number of rows.
///
/// # Errors
/// `Unsorted`.
pub fn merge(runs: &Runs, batch_size: usize) -> Result<usize> {
    drive(scan_kernel(inputs(runs), batch_size)?, &[runs], RecordBatch::num_rows)
}

/// Joins two sources on their keys; the number of rows.
///
/// # Errors
/// `Unsorted`.
pub fn join(kind: JoinKind, left: &Runs, right: &Runs, batch_size: usize) -> Result<usize> {
    let (of_left, of_right) = (schema(left), schema(right));
    let mut columns = vec![OutputColumn::Key { left: 0, right: 0 }];
    columns.extend((1..of_left.fields().len()).map(OutputColumn::Left));
    columns.extend((1..of_right.fields().len()).map(OutputColumn::Right));
    let fields = of_left.fields().iter().chain(of_right.fields().iter().skip(1));
    // Whatever an outer join leaves out is null.
    let fields: Vec<Field> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let output = OutputLayout { schema: Arc::new(Schema::new(fields)), columns };
    let overflow = |schema: &SchemaRef| -> Result<Box<dyn crate::join::Overflow>> {
        Ok(Box::new(SpilledRows::create(None, schema, Arc::default())?))
    };
    let kernel = join_kernel(JoinInputs {
        kind,
        key_types: vec![of_left.field(0).data_type().clone()],
        left: inputs(left),
        right: inputs(right),
        output,
        condition: None,
        batch_size,
        budget: CarryBudget { bytes: crate::DEFAULT_CARRY_BUDGET, overflow: Arc::new(overflow) },
    })?;
    drive(kernel, &[left, right], RecordBatch::num_rows)
}

/// Groups two sources by key; the number of groups, those that go on from one chunk to the next counted once.
///
/// # Errors
/// `Unsorted`.
pub fn co_group(left: &Runs, right: &Runs, batch_size: usize) -> Result<usize> {
    let key = Arc::clone(&schema(left).fields()[0]);
    let kernel = chunk_kernel(CoGroupInputs {
        names: ["left".to_owned(), "right".to_owned()].into(),
        key_schema: Arc::new(Schema::new(vec![key])),
        sources: vec![inputs(left), inputs(right)],
        max_group_rows: usize::MAX,
        batch_size,
    })?;
    drive(kernel, &[left, right], |chunk| chunk.groups().len() - usize::from(chunk.continues()))
}

/// The rows `(batch, row)` of several batches as one batch.
///
/// # Errors
/// None of rows that are there.
pub fn gather(batches: &[&RecordBatch], rows: &[(usize, usize)]) -> Result<RecordBatch> {
    crate::merge::gather(batches, rows)
}

/// How many bytes of rows are gathered at once, as with the default memory budget.
const PIECE_BYTES: u64 = 1 << 20;

/// Puts canonical batches in the order of a write, with one thread, and gathers them in that order if asked to; the number of rows.
///
/// # Errors
/// `InvalidInput` if the spec does not fit.
pub async fn sort(batches: &[RecordBatch], spec: &BucketSpec, gather: bool) -> Result<usize> {
    let schema = batches[0].schema();
    let placement = Arc::new(Placement::new(&schema, spec, &spec.order_indices(&schema)?)?);
    let sorted = Arc::new(SortedRows::sort(placement, batches.to_vec(), Crew::new(1), PIECE_BYTES).await?);
    if !gather {
        return Ok(sorted.rows());
    }
    let mut pieces = sorted.pieces(0..sorted.buckets().count());
    let mut rows = 0;
    while let Some((_, piece)) = pieces.next()? {
        rows += piece.num_rows();
    }
    Ok(rows)
}
