//! Conditions on pairs of rows beyond equal keys.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;

use crate::error::{Error, Result};
use crate::join::output::OutputLayout;

type Evaluate = dyn Fn(&RecordBatch) -> Result<BooleanArray> + Send + Sync;

/// What a pair of rows with equal keys must fulfil besides, as further terms of SQL's `ON`; see
/// [`Join::with_condition`](crate::Join::with_condition).
///
/// The function is given candidate pairs as a batch and returns one value per row: `true` keeps the pair, `false` and null do not. A row
/// has a partner if at least one of its pairs is kept, so an outer join returns a row whose pairs all failed once, with nulls, and a semi or anti join
/// returns each row at most once.
///
/// The batch has the join columns once, under the names that they have in the join's output, then the left side's other columns, then the right
/// side's, each with its side's prefix; both sides' also in semi and anti joins, which return only one. Every row has a left and a right row:
/// nothing is null that is not null in its source. Which pairs come together in a batch, and in which order, is not defined, and the function may
/// be called from several tasks at once, so it should depend on nothing but the row.
///
/// ```
/// use sort_merge_bucket::arrow::compute::kernels::cmp::lt_eq;
/// use sort_merge_bucket::{Dataset, Join, JoinCondition, Source};
///
/// # fn example(plays: &Dataset, campaigns: &Dataset) -> sort_merge_bucket::Result<()> {
/// // Plays of users that were in a campaign by then.
/// let started = JoinCondition::new("started", |pairs| Ok(lt_eq(pairs.column(0), pairs.column(1))?))
///     .with_columns(["starts", "played_at"]);
/// let plan = Join::left_semi(plays, campaigns).with_condition(started).plan()?;
/// println!("{plan}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct JoinCondition {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) columns: Option<Vec<String>>,
    evaluate: Arc<Evaluate>,
}

impl JoinCondition {
    /// A condition under a name, which explaining a plan shows.
    ///
    /// Errors of the function pass through as they are; [`Error::external`] wraps those of other types.
    pub fn new(
        name: impl Into<String>,
        evaluate: impl Fn(&RecordBatch) -> Result<BooleanArray> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), version: 1, columns: None, evaluate: Arc::new(evaluate) }
    }

    /// Says that the same name now means another function: rollups over a join know a condition by name, version and columns alone, and are
    /// made again if one of them changes. 1 by default.
    #[must_use]
    pub fn with_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Gives the function these columns only, in this order. Columns are copied for every candidate pair, so naming those that are needed makes
    /// the join faster. All by default.
    #[must_use]
    pub fn with_columns(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }
}

impl fmt::Debug for JoinCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, columns, evaluate: _ } = self;
        f.debug_struct("JoinCondition")
            .field("name", name)
            .field("version", version)
            .field("columns", columns)
            .finish_non_exhaustive()
    }
}

/// A condition with the layout of the batches that it sees.
#[derive(Debug, Clone)]
pub(crate) struct BoundCondition {
    pub(crate) condition: JoinCondition,
    pub(crate) layout: OutputLayout,
}

impl BoundCondition {
    /// Which of the pairs pass.
    pub(super) fn evaluate(&self, pairs: &RecordBatch) -> Result<BooleanBuffer> {
        let values = (self.condition.evaluate)(pairs)?;
        let (rows, name) = (pairs.num_rows(), &self.condition.name);
        let (values, nulls) = values.into_parts();
        if values.len() != rows {
            return Err(Error::invalid_input(format!(
                "a join condition must return one value per row, condition=`{name}`, rows=`{rows}`, values=`{}`",
                values.len()
            )));
        }
        Ok(match nulls {
            None => values,
            Some(nulls) => &values & nulls.inner(),
        })
    }
}
