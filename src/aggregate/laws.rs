//! Checks the laws of [`Aggregator`] for any implementation.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::DataType;

use crate::aggregate::{Aggregator, Segments};
use crate::error::{Error, Result};
use crate::schema::{canonical_array, canonical_schema, canonical_type, cast_batch};

/// Checks that an aggregate keeps the laws of [`Aggregator`] on these rows: cut at many places into three parts, parts and their states are
/// combined in every way that must make no difference, and compared. Meant for tests; a few dozen rows with nulls and repeated values find most
/// mistakes.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch};
/// use sort_merge_bucket::{Sum, check_laws};
///
/// let rows = RecordBatch::try_from_iter([("ms", Arc::new(Int64Array::from(vec![Some(3), None, Some(-4), Some(3)])) as _)])?;
/// check_laws(&Sum::of("ms"), &rows)?;
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` naming the first law that is broken, with the rows and both sides; `InvalidInput` if a column is missing; the aggregate's own errors.
pub fn check_laws(aggregator: &dyn Aggregator, rows: &RecordBatch) -> Result<()> {
    let schema = canonical_schema(rows.schema_ref())?;
    let rows = cast_batch(rows, &schema)?;
    let columns = columns(aggregator, &rows)?;
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let state_type = canonical_type(&aggregator.state_type(&types)?)?;
    let output_type = canonical_type(&aggregator.output_type(&state_type)?)?;
    let check = Check { aggregator, columns, state_type, output_type };
    let n = rows.num_rows();
    // All cuts of few rows, some of many.
    let step = (n / 12).max(1);
    let cuts: Vec<usize> = (0..=n).filter(|cut| cut % step == 0 || *cut == n).collect();
    for (at, &x) in cuts.iter().enumerate() {
        for &y in &cuts[at..] {
            check.cut(x, y, n).map_err(|e| match e {
                Broken::Law { law, left, right } => Error::invalid_input(format!(
                    "an aggregate breaks a law, aggregate=`{}`, law=`{law}`, parts=`0..{x}, {x}..{y}, {y}..{n}`, left=`{left:?}`, right=`{right:?}`",
                    aggregator.definition().name
                )),
                Broken::Error(e) => e,
            })?;
        }
    }
    Ok(())
}

fn columns(aggregator: &dyn Aggregator, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let find = |name: String| {
        rows.column_by_name(&name)
            .cloned()
            .ok_or_else(|| Error::invalid_input(format!("an input of the aggregate is not there, column=`{name}`")))
    };
    aggregator.inputs().into_iter().map(find).collect()
}

enum Broken {
    Law { law: &'static str, left: ArrayRef, right: ArrayRef },
    Error(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

struct Check<'a> {
    aggregator: &'a dyn Aggregator,
    columns: Vec<ArrayRef>,
    state_type: DataType,
    output_type: DataType,
}

impl Check<'_> {
    fn update(&self, offsets: &[usize]) -> Result<ArrayRef, Broken> {
        let states = self.aggregator.update(&Segments::new(&self.columns, offsets)?)?;
        self.shaped(states, offsets.len() - 1)
    }

    fn merge(&self, states: &[&ArrayRef]) -> Result<ArrayRef, Broken> {
        let parts: Vec<&dyn Array> = states.iter().map(AsRef::as_ref).collect();
        let all = concat(&parts).map_err(Error::from)?;
        self.merge_at(&all, &[0, all.len()])
    }

    fn merge_at(&self, states: &ArrayRef, offsets: &[usize]) -> Result<ArrayRef, Broken> {
        let columns = [Arc::clone(states)];
        let merged = self.aggregator.merge(&Segments::new(&columns, offsets)?)?;
        self.shaped(merged, offsets.len() - 1)
    }

    /// Law 1, and the way of states through storage: the canonical form.
    fn shaped(&self, states: ArrayRef, segments: usize) -> Result<ArrayRef, Broken> {
        if states.len() != segments {
            let message = "an aggregate breaks a law, law=`shape`: not one state per segment";
            return Err(
                Error::invalid_input(format!("{message}, segments=`{segments}`, states=`{}`", states.len())).into()
            );
        }
        let name = self.aggregator.definition().name;
        let states = canonical_array(&states, &self.state_type, &name)?;
        let results = self.aggregator.finish(&states)?;
        if results.len() != states.len() {
            let message = "an aggregate breaks a law, law=`shape`: not one result per state";
            return Err(
                Error::invalid_input(format!("{message}, states=`{segments}`, results=`{}`", results.len())).into()
            );
        }
        canonical_array(&results, &self.output_type, &name)?;
        Ok(states)
    }

    fn cut(&self, x: usize, y: usize, n: usize) -> Result<(), Broken> {
        let all = self.update(&[0, n])?;
        let parts = self.update(&[0, x, y, n])?;
        let empty = self.update(&[x, x])?;
        let [a, b, c] = [parts.slice(0, 1), parts.slice(1, 1), parts.slice(2, 1)];
        same("independence", &a, &self.update(&[0, x])?)?;
        same("independence", &b, &self.update(&[x, y])?)?;
        same("independence", &c, &self.update(&[y, n])?)?;
        same("identity", &self.merge_at(&parts, &[1, 1])?, &empty)?;
        for state in [&a, &b, &c] {
            same("identity", &self.merge(&[state])?, state)?;
            same("identity", &self.merge(&[&empty, state])?, state)?;
            same("identity", &self.merge(&[state, &empty])?, state)?;
        }
        let whole = self.merge(&[&a, &b, &c])?;
        same("split", &whole, &all)?;
        same("associativity", &self.merge(&[&self.merge(&[&a, &b])?, &c])?, &whole)?;
        same("associativity", &self.merge(&[&a, &self.merge(&[&b, &c])?])?, &whole)?;
        same("commutativity", &self.merge(&[&b, &a])?, &self.merge(&[&a, &b])?)?;
        same("commutativity", &self.merge(&[&c, &a, &b])?, &whole)?;
        let merged = self.merge_at(&parts, &[0, 2, 2, 3])?;
        same("independence", &merged.slice(0, 1), &self.merge(&[&a, &b])?)?;
        same("independence", &merged.slice(1, 1), &empty)?;
        same("independence", &merged.slice(2, 1), &c)?;
        Ok(())
    }
}

fn same(law: &'static str, left: &ArrayRef, right: &ArrayRef) -> Result<(), Broken> {
    if left == right {
        return Ok(());
    }
    Err(Broken::Law { law, left: Arc::clone(left), right: Arc::clone(right) })
}
