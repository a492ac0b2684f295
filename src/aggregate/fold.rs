//! Aggregates written row by row over plain Rust types; `serde_arrow` converts between those and columns.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_arrow::utils::{Item, Items};

use crate::aggregate::segments::not_state_type;
use crate::aggregate::{Aggregator, Definition, Segments};
use crate::error::{Error, Result};
use crate::schema::canonical_type;

type Update<R, S> = dyn Fn(&mut S, R) -> Result<()> + Send + Sync;
type Merge<S> = dyn Fn(&mut S, S) -> Result<()> + Send + Sync;
type Finish<S, O> = dyn Fn(S) -> Result<O> + Send + Sync;

/// An aggregate in a typed, row-level form: rows `R`, a state `S` that begins as its default, a result `O`.
///
/// `R` is a struct whose fields are named as the input columns. States and results become Arrow columns of the types that serde finds in `S` and
/// `O`: structs as `Struct`, sequences as `List`, maps as `Map` (use `BTreeMap`: states must be canonical, see [`Aggregator`]), numbers, strings, booleans
/// and `Option`s of those. The functions may fail with [`Error::external`]. Rows are converted one by one, so it is slower than the functions of this
/// crate by a factor of ten or more; write an [`Aggregator`] where that matters.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use sort_merge_bucket::{Definition, Fold};
///
/// #[derive(Deserialize)]
/// struct Play { track: String, ms_played: i64 }
///
/// /// The longest play, of equal ones the first track by name.
/// #[derive(Default, Serialize, Deserialize)]
/// struct Longest { ms: i64, track: Option<String> }
///
/// impl Longest {
///     fn take(&mut self, other: Longest) {
///         let better = other.ms > self.ms || other.ms == self.ms && (self.track.is_none() || other.track < self.track);
///         if other.track.is_some() && better { *self = other; }
///     }
/// }
///
/// let longest = Fold::new(
///     Definition::new("example.longest", 1),
///     ["track", "ms_played"],
///     |longest: &mut Longest, play: Play| Ok(longest.take(Longest { ms: play.ms_played, track: Some(play.track) })),
///     |longest, other| Ok(longest.take(other)),
///     |longest| Ok(longest.track),
/// )?;
/// # use std::sync::Arc;
/// # use arrow::array::{Int64Array, RecordBatch, StringArray};
/// # let rows = RecordBatch::try_from_iter([
/// #     ("track", Arc::new(StringArray::from(vec!["Naima", "Spain", "Gloria"])) as _),
/// #     ("ms_played", Arc::new(Int64Array::from(vec![5, 7, 7])) as _),
/// # ])?;
/// sort_merge_bucket::check_laws(&longest, &rows)?;
/// # Ok::<(), sort_merge_bucket::Error>(())
/// ```
pub struct Fold<R, S, O> {
    definition: Definition,
    inputs: Vec<String>,
    state: FieldRef,
    output: FieldRef,
    update: Arc<Update<R, S>>,
    merge: Arc<Merge<S>>,
    finish: Arc<Finish<S, O>>,
}

impl<R, S, O> fmt::Debug for Fold<R, S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold")
            .field("definition", &self.definition)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl<R, S, O> Fold<R, S, O>
where
    R: DeserializeOwned + 'static,
    S: Default + Serialize + DeserializeOwned + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    /// An aggregate of these functions. The input columns become parameter `inputs` of the definition.
    ///
    /// # Errors
    /// `InvalidInput` if no column type can be found for the state or the result.
    pub fn new<C: Into<String>>(
        definition: Definition,
        inputs: impl IntoIterator<Item = C>,
        update: impl Fn(&mut S, R) -> Result<()> + Send + Sync + 'static,
        merge: impl Fn(&mut S, S) -> Result<()> + Send + Sync + 'static,
        finish: impl Fn(S) -> Result<O> + Send + Sync + 'static,
    ) -> Result<Self> {
        let inputs: Vec<String> = inputs.into_iter().map(Into::into).collect();
        Ok(Self {
            definition: definition.with_parameter("inputs", format!("{inputs:?}")),
            inputs,
            state: field_of::<S>()?,
            output: field_of::<O>()?,
            update: Arc::new(update),
            merge: Arc::new(merge),
            finish: Arc::new(finish),
        })
    }

    fn states(&self, column: &ArrayRef) -> Result<Vec<S>> {
        if column.data_type() != self.state.data_type() {
            return Err(not_state_type(&self.definition.name, column.data_type()));
        }
        let Items(states) = serde_arrow::from_arrow(std::slice::from_ref(&self.state), std::slice::from_ref(column))
            .map_err(|e| self.failed("states cannot be read as the state's type", e))?;
        Ok(states)
    }

    fn column<T: Serialize>(&self, field: &FieldRef, values: &[T]) -> Result<ArrayRef> {
        let columns = serde_arrow::to_arrow(std::slice::from_ref(field), Items(values))
            .map_err(|e| self.failed("values cannot be made a column", e))?;
        columns.into_iter().next().ok_or_else(|| Error::internal("a conversion without a column"))
    }

    fn failed(&self, what: &str, source: serde_arrow::Error) -> Error {
        Error::invalid_input(format!("{what}, aggregate=`{}`", self.definition.name)).with_source(source)
    }
}

/// The canonical column that holds values of a type.
fn field_of<T: DeserializeOwned>() -> Result<FieldRef> {
    let options = TracingOptions::default().map_as_struct(false).sequence_as_large_list(false).allow_null_fields(true);
    let fields = Vec::<FieldRef>::from_type::<Item<T>>(options).map_err(|e| {
        let name = std::any::type_name::<T>();
        Error::invalid_input(format!("no column type holds values of this type, type=`{name}`")).with_source(e)
    })?;
    match fields.as_slice() {
        [field] => Ok(Arc::new(Field::new(field.name(), canonical_type(field.data_type())?, field.is_nullable()))),
        _ => Err(Error::internal("a type with several columns")),
    }
}

impl<R, S, O> Aggregator for Fold<R, S, O>
where
    R: DeserializeOwned + 'static,
    S: Default + Serialize + DeserializeOwned + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    fn definition(&self) -> Definition {
        self.definition.clone()
    }

    fn inputs(&self) -> Vec<String> {
        self.inputs.clone()
    }

    fn state_type(&self, _inputs: &[DataType]) -> Result<DataType> {
        Ok(self.state.data_type().clone())
    }

    fn output_type(&self, state: &DataType) -> Result<DataType> {
        if state == self.state.data_type() {
            Ok(self.output.data_type().clone())
        } else {
            Err(not_state_type(&self.definition.name, state))
        }
    }

    fn update(&self, rows: &Segments<'_>) -> Result<ArrayRef> {
        let (start, end) = match rows.offsets() {
            [start, .., end] => (*start, *end),
            _ => (0, 0),
        };
        let columns: Vec<ArrayRef> = rows.columns().iter().map(|column| column.slice(start, end - start)).collect();
        let fields: Vec<Field> = self
            .inputs
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(name, column.data_type().clone(), column.is_nullable()))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(end - start));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let converted: Vec<R> = serde_arrow::from_record_batch(&batch)
            .map_err(|e| self.failed("the input columns cannot be read as the row type", e))?;
        let mut converted = converted.into_iter();
        let mut states = Vec::with_capacity(rows.len());
        for range in rows.ranges() {
            let mut state = S::default();
            for row in converted.by_ref().take(range.len()) {
                (self.update)(&mut state, row)?;
            }
            states.push(state);
        }
        self.column(&self.state, &states)
    }

    fn merge(&self, states: &Segments<'_>) -> Result<ArrayRef> {
        let start = states.offsets().first().copied().unwrap_or(0);
        let mut parts = self.states(states.column(0))?.into_iter().skip(start);
        let mut merged = Vec::with_capacity(states.len());
        for range in states.ranges() {
            let mut state = S::default();
            for part in parts.by_ref().take(range.len()) {
                (self.merge)(&mut state, part)?;
            }
            merged.push(state);
        }
        self.column(&self.state, &merged)
    }

    fn finish(&self, states: &ArrayRef) -> Result<ArrayRef> {
        let results = self.states(states)?.into_iter().map(|state| (self.finish)(state)).collect::<Result<Vec<O>>>()?;
        self.column(&self.output, &results)
    }
}
