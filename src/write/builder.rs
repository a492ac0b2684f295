//! What a write is to be, checked against what is there: the builder reads the newest version once, which stays the write's base.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Clock, DatasetId, WriteId};
use crate::manifest::{Lineage, Manifest, Operation, check_writable};
use crate::schema::{FieldDef, canonical_schema, field_defs};
use crate::spec::BucketSpec;
use crate::store::Place;
use crate::write::options::{WriteMode, WriteOptions};
use crate::write::progress::{ProgressFn, WriteProgress};
use crate::write::ticket::WriteTicket;
use crate::write::writer::DatasetWriter;

/// Builds a [`DatasetWriter`], or a [`WriteTicket`] for a write of many processes.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct DatasetWriterBuilder {
    place: Place,
    schema: SchemaRef,
    spec: BucketSpec,
    mode: WriteMode,
    write_id: Option<WriteId>,
    options: WriteOptions,
    properties: BTreeMap<String, String>,
    lineage: Vec<Lineage>,
    clock: Clock,
    base: Option<u64>,
    progress: Option<ProgressFn>,
}

impl DatasetWriterBuilder {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, schema: SchemaRef, spec: BucketSpec) -> Self {
        Self {
            place: Place::new(store, path),
            schema,
            spec,
            mode: WriteMode::default(),
            write_id: None,
            options: WriteOptions::default(),
            properties: BTreeMap::new(),
            lineage: vec![],
            clock: Clock::default(),
            base: None,
            progress: None,
        }
    }

    /// Sets what happens to rows that are there already; by default [`WriteMode::Create`].
    pub fn with_mode(mut self, mode: WriteMode) -> Self {
        self.mode = mode;
        self
    }

    /// Names the write, by default at random. A job that runs again under the same name finds its own commit and does nothing: rows are
    /// taken and discarded, and the commit returns the version that was made before. This holds while the name is among the dataset's
    /// 100 newest.
    pub fn with_write_id(mut self, write_id: WriteId) -> Self {
        self.write_id = Some(write_id);
        self
    }

    /// Sets the tuning; by default [`WriteOptions::default`].
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a property, a text of the caller's own that is kept in the manifest. An append overrides single properties, other modes
    /// begin anew.
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Sets where the time and random names come from; by default [`Clock::System`].
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Has `function` called with the progress of the write: every few thousand rows taken, whenever the phase changes, whenever about a
    /// mebibyte of a run is encoded, and for every run that is uploaded; the last time in the phase [`Done`](crate::WritePhase::Done).
    ///
    /// Calls come one after the other, from the task that drives the writer, which waits for them: the function should return soon. If it
    /// panics, it is not called again and the write fails with `Internal`, unless the commit was made already, which stays.
    ///
    /// A ticket has no function: [`begin`](Self::begin) leaves it out, and each writer of the ticket takes
    /// [one of its own](DatasetWriter::with_progress).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use arrow::array::{Int64Array, RecordBatch};
    /// # use object_store::{ObjectStore, memory::InMemory};
    /// # use sort_merge_bucket::{BucketSpec, DatasetWriter};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    /// # let batch = RecordBatch::try_from_iter([("user_id", Arc::new(Int64Array::from_iter_values(0..100_000)) as _)])?;
    /// # let spec = BucketSpec::new(["user_id"], 4)?;
    /// // Each row counts once when it is taken and once when it is encoded.
    /// let bar = indicatif::ProgressBar::new(2 * 100_000);
    /// let shown = bar.clone();
    /// let mut writer = DatasetWriter::builder(store, "plays", batch.schema(), spec)
    ///     .with_progress(move |now| {
    ///         shown.set_position(now.rows_taken + now.rows_encoded);
    ///         shown.set_message(now.phase.to_string());
    ///     })
    ///     .build()
    ///     .await?;
    /// writer.write(&batch).await?;
    /// writer.commit().await?;
    /// assert_eq!((bar.position(), bar.message().as_str()), (200_000, "done"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_progress(mut self, function: impl Fn(&WriteProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(function));
        self
    }

    /// Says what the rows are derived from.
    pub(crate) fn with_lineage(mut self, lineage: Vec<Lineage>) -> Self {
        self.lineage = lineage;
        self
    }

    /// Starts from this version instead of the newest.
    pub(crate) fn with_base(mut self, version: u64) -> Self {
        self.base = Some(version);
        self
    }

    /// Reads the newest version, which stays the base of the write, and checks everything that needs no rows.
    ///
    /// # Errors
    /// * `InvalidInput`: columns of the same name or of a type that cannot be stored; a key or sort column that is missing, a float or
    ///   nested; an option out of its range or a codec that is not compiled in.
    /// * `Conflict`: there is a dataset, and the mode is [`WriteMode::Create`]; or a vacuum has fenced the write id.
    /// * `Incompatible`: [`WriteMode::Append`] with another schema or spec than the dataset's; the message lists every difference.
    /// * `UnsupportedVersion`, `Corrupt`, `Store`: the dataset cannot be opened, or not be written to.
    pub async fn build(mut self) -> Result<DatasetWriter> {
        let store = Arc::clone(&self.place.store);
        let progress = self.progress.take();
        let (ticket, base) = self.start().await?;
        let writer = DatasetWriter::new(store, ticket, base)?;
        Ok(match progress {
            Some(function) => writer.report_to(function),
            None => writer,
        })
    }

    /// The same for a write of many processes: the ticket is serialisable, makes a writer in each of them, and commits once.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub async fn begin(self) -> Result<WriteTicket> {
        Ok(self.start().await?.0)
    }

    async fn start(self) -> Result<(WriteTicket, Option<Arc<Manifest>>)> {
        let Self { place, schema, spec, mode, write_id, options, properties, lineage, clock, base, progress: _ } = self;
        let (store, path) = (Arc::clone(&place.store), place.layout.root().clone());
        let write_id = write_id.unwrap_or_else(WriteId::generate);
        let schema = field_defs(&canonical_schema(&schema)?.as_ref().clone())?;

        let base = match base {
            Some(version) => Some(place.version(version).await?),
            None => place.newest().await?,
        };
        let operation = operation(mode, base.as_ref().is_some_and(|base| !base.dropped));
        let done = base.as_ref().is_some_and(|base| base.recent_writes.iter().any(|write| write.write_id == write_id));
        if let Some(base) = &base
            && !done
        {
            check_base(base, mode, operation, &write_id, &schema, &spec).map_err(|e| e.with_path(&path))?;
        }
        let dataset_id = match &base {
            Some(base) => base.dataset_id.clone(),
            None => DatasetId::generate(clock, &write_id),
        };
        let ticket = WriteTicket {
            path: path.to_string(),
            operation,
            dataset_id,
            base: base.as_ref().map(|base| base.version),
            write_id,
            done,
            schema,
            spec,
            options,
            properties,
            lineage,
            clock,
        };
        // Finds what is wrong with spec and options before any row is taken.
        ticket.run_target(&store)?;
        Ok((ticket, base.map(Arc::new)))
    }
}

fn operation(mode: WriteMode, live: bool) -> Operation {
    match mode {
        WriteMode::Append if live => Operation::Append,
        WriteMode::Replace if live => Operation::Replace,
        WriteMode::Create | WriteMode::Append | WriteMode::Replace => Operation::Create,
    }
}

fn check_base(
    base: &Manifest,
    mode: WriteMode,
    operation: Operation,
    write_id: &WriteId,
    schema: &[FieldDef],
    spec: &BucketSpec,
) -> Result<()> {
    check_writable(base)?;
    let conflict = |message| {
        Error::new(ErrorKind::Conflict, format!("{message}, version=`{}`, write_id=`{write_id}`", base.version))
    };
    if base.fenced_write_ids.contains(write_id) {
        return Err(conflict("a vacuum has fenced this write id; use a new one"));
    }
    if mode == WriteMode::Create && !base.dropped {
        return Err(conflict("the dataset exists already; append to it or replace it"));
    }
    if operation == Operation::Append {
        let mut differences = schema_differences(schema, &base.schema);
        if !spec.agrees_with(&base.spec) {
            differences.push(format!("the bucket spec is `{spec}` instead of `{}`", base.spec));
        }
        if !differences.is_empty() {
            let message = format!("rows to append do not fit the dataset: {}", differences.join("; "));
            return Err(Error::incompatible(message));
        }
    }
    Ok(())
}

fn schema_differences(new: &[FieldDef], old: &[FieldDef]) -> Vec<String> {
    if new.len() != old.len() {
        return vec![format!("there are {} columns instead of {}", new.len(), old.len())];
    }
    let describe = |field: &FieldDef| {
        let nulls = if field.nullable { "nullable" } else { "not nullable" };
        let children: Vec<String> = field.children.iter().map(|c| format!("`{}` {}", c.name, c.type_name)).collect();
        let children = if children.is_empty() { String::new() } else { format!(" of [{}]", children.join(", ")) };
        format!("`{}` of type `{}`{children}, {nulls}", field.name, field.type_name)
    };
    let pairs = new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old);
    pairs.map(|(i, (new, old))| format!("column {i} is {} instead of {}", describe(new), describe(old))).collect()
}
