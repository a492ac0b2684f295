//! What must hold in every manifest, by the numbers of `docs/format.md` section 9. Pure: what needs other objects is checked elsewhere.
//!
//! Every manifest passes through [`require`] before anyone sees it, when it is read and before it is written, so that all later code may rely
//! on these. [`Violation`] is also what `validate` reports.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow::datatypes::DataType;

use super::codec::key_types;
use super::model::{Checksum, MAX_FENCES, MAX_FOOTER_BYTES, Manifest, Operation, RECENT_WRITE_IDS, Run};
use crate::error::{Error, Result};
use crate::layout::{WriteId, is_run_path};
use crate::schema::schema_of;

/// The smallest number of bytes outside a Parquet footer: the magic at the beginning.
const PARQUET_MAGIC_BYTES: u64 = 4;

/// The smallest footer: its length and the magic at the end.
const PARQUET_TAIL_BYTES: u64 = 8;

/// An invariant of the format that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The number of the invariant in `docs/format.md`, such as `INV-07`.
    pub invariant: &'static str,
    /// The object concerned: a run's path relative to the dataset; `None` for the manifest itself.
    pub path: Option<String>,
    /// The row of that run, counted from 0, if it is about one row.
    pub row: Option<u64>,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)?;
        if let Some(path) = &self.path {
            write!(f, ", path=`{path}`")?;
        }
        if let Some(row) = self.row {
            write!(f, ", row=`{row}`")?;
        }
        Ok(())
    }
}

/// How many violations of one invariant are listed per run; a wrong bucket function would name every row.
const LISTED_PER_RUN: u64 = 100;

/// Collects violations about a manifest and its runs, so many of each kind and run that memory stays bounded.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    list: Vec<Violation>,
    /// How often an invariant is violated in a run.
    counts: BTreeMap<(&'static str, Option<String>), u64>,
}

impl Violations {
    pub(crate) fn manifest(&mut self, invariant: &'static str, message: String) {
        self.add(Violation { invariant, path: None, row: None, message });
    }

    pub(crate) fn run(&mut self, invariant: &'static str, run: &Run, message: String) {
        self.add(Violation { invariant, path: Some(run.path.clone()), row: None, message });
    }

    pub(crate) fn row(&mut self, invariant: &'static str, run: &Run, row: u64, message: String) {
        self.add(Violation { invariant, path: Some(run.path.clone()), row: Some(row), message });
    }

    fn add(&mut self, violation: Violation) {
        let count = self.counts.entry((violation.invariant, violation.path.clone())).or_default();
        *count += 1;
        if *count <= LISTED_PER_RUN {
            self.list.push(violation);
        }
    }

    /// All of them; where only the first were listed, one more says how many were not.
    pub(crate) fn finish(self) -> Vec<Violation> {
        let Self { mut list, counts } = self;
        for ((invariant, path), count) in counts {
            if let Some(more) = count.checked_sub(LISTED_PER_RUN).filter(|more| *more > 0) {
                list.push(Violation {
                    invariant,
                    path,
                    row: None,
                    message: format!("and more of this kind, not_listed=`{more}`"),
                });
            }
        }
        list
    }
}

/// `Corrupt`, naming every violation, unless all invariants hold.
pub(crate) fn require(manifest: &Manifest) -> Result<()> {
    let violations = check(manifest);
    if violations.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = violations.iter().map(Violation::to_string).collect();
    Err(Error::corrupt(format!("the manifest breaks the format's invariants: {}", all.join("; "))))
}

/// All violations of one manifest.
pub(crate) fn check(manifest: &Manifest) -> Vec<Violation> {
    let mut found = Violations::default();
    check_versions(manifest, &mut found);
    check_writes(manifest, &mut found);
    let types = check_spec(manifest, &mut found);
    let mut paths = BTreeSet::new();
    for run in &manifest.runs {
        check_run(run, &mut found);
        check_path(manifest, run, &mut found);
        if !paths.insert(&run.path) {
            found.run("INV-09", run, "two runs have the same path".to_owned());
        }
        if let Some(types) = &types {
            check_keys(run, types, &mut found);
        }
    }
    found.finish()
}

fn check_versions(manifest: &Manifest, found: &mut Violations) {
    let Manifest { version, base, operation, data_version, dropped, runs, .. } = manifest;
    if *version == 0 {
        found.manifest("INV-01", "versions are counted from 1, version=`0`".to_owned());
    }
    let first = *version == 1;
    if first != base.is_none()
        || first && *operation != Operation::Create
        || base.is_some_and(|base| base == 0 || base >= *version)
    {
        let base = base.map_or("null".to_owned(), |base| base.to_string());
        found.manifest(
            "INV-02",
            format!("version 1 is a creation without a base, later ones have an earlier base, version=`{version}`, base=`{base}`"),
        );
    }
    let keeps_rows = match operation {
        Operation::Create | Operation::Append | Operation::Replace | Operation::Drop => *data_version == *version,
        Operation::Rewrite => (1..=*version).contains(data_version),
        Operation::Vacuum => (1..*version).contains(data_version),
    };
    if !keeps_rows {
        found.manifest(
            "INV-04",
            format!("the data version is not what the operation makes it, version=`{version}`, data_version=`{data_version}`"),
        );
    }
    let marked = match operation {
        Operation::Drop => *dropped,
        Operation::Vacuum => true,
        Operation::Create | Operation::Append | Operation::Replace | Operation::Rewrite => !*dropped,
    };
    if !marked || *dropped && !runs.is_empty() {
        found.manifest(
            "INV-05",
            format!("a dropped dataset is marked so and has no runs, dropped=`{dropped}`, runs=`{}`", runs.len()),
        );
    }
}

fn check_writes(manifest: &Manifest, found: &mut Violations) {
    let Manifest { version, write_id, recent_writes, fenced_write_ids, .. } = manifest;
    let ids: BTreeSet<&WriteId> = recent_writes.iter().map(|write| &write.write_id).collect();
    let own_is_last = recent_writes.last().is_some_and(|own| own.write_id == *write_id && own.version == *version);
    let ascending =
        recent_writes.is_sorted_by(|a, b| a.version < b.version) && recent_writes.first().is_none_or(|w| w.version > 0);
    if !own_is_last || !ascending || ids.len() != recent_writes.len() || ids.len() > RECENT_WRITE_IDS {
        found.manifest(
            "INV-06",
            format!("the recent writes are not up to {RECENT_WRITE_IDS} different ones by version with this write last, write_id=`{write_id}`"),
        );
    }
    if fenced_write_ids.contains(write_id) {
        found.manifest("INV-07", format!("a write was committed although its id is fenced, write_id=`{write_id}`"));
    }
}

/// The canonical key types, unless the spec does not fit the schema.
fn check_spec(manifest: &Manifest, found: &mut Violations) -> Option<Vec<DataType>> {
    let Manifest { spec, schema, .. } = manifest;
    let mut names = BTreeSet::new();
    for field in schema {
        if !names.insert(&field.name) {
            found.manifest("INV-03", format!("two columns have the same name, column=`{}`", field.name));
        }
    }
    let fits =
        spec.check().and_then(|()| spec.order_indices(&schema_of(schema)?)).and_then(|_| key_types(schema, spec));
    fits.map_err(|e| found.manifest("INV-03", format!("the bucket spec does not fit the schema, cause=`{e}`"))).ok()
}

fn check_run(run: &Run, found: &mut Violations) {
    let Run { bucket, buckets, bytes, footer_bytes, rows, checksum, .. } = run;
    if *bucket >= buckets.get() {
        found.run("INV-08", run, format!("there is no such bucket, bucket=`{bucket}`, buckets=`{buckets}`"));
    }
    if *rows == 0 {
        found.run("INV-10", run, "a run has no rows".to_owned());
    }
    let room = bytes.saturating_sub(PARQUET_MAGIC_BYTES).min(MAX_FOOTER_BYTES);
    if !(PARQUET_TAIL_BYTES..=room).contains(footer_bytes) {
        found.run(
            "INV-11",
            run,
            format!("the footer does not fit into the file, or is larger than any may be, bytes=`{bytes}`, footer_bytes=`{footer_bytes}`"),
        );
    }
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if checksum.algorithm == Checksum::XXH64 && (checksum.value.len() != 16 || !checksum.value.bytes().all(is_digit)) {
        found.run("INV-12", run, format!("a checksum is not 16 hexadecimal digits, value=`{}`", checksum.value));
    }
}

fn check_path(manifest: &Manifest, run: &Run, found: &mut Violations) {
    let mut parts = run.path.split('/').skip(1);
    let write_id = parts.next().and_then(|part| WriteId::new(part).ok());
    match write_id {
        Some(write_id) if is_run_path(&run.path) && parts.next().is_some() => {
            if manifest.fenced_write_ids.contains(&write_id) {
                found.run("INV-07", run, format!("a run belongs to a fenced write, write_id=`{write_id}`"));
            }
        }
        _ => found.run("INV-09", run, "a run's path is not `data/<write id>/<name>`".to_owned()),
    }
}

fn check_keys(run: &Run, types: &[DataType], found: &mut Violations) {
    let Run { rows, first_key, last_key, fences, .. } = run;
    for bound in [first_key, last_key].into_iter().chain(fences.iter().map(|fence| &fence.key)) {
        if !bound.is_of(types) {
            found.run("INV-13", run, format!("a key is not of the key columns' types, key=`{bound}`"));
        }
    }
    if first_key.compare(&last_key.values) == Ordering::Greater {
        found.run("INV-14", run, format!("the first key is after the last, first=`{first_key}`, last=`{last_key}`"));
    }
    let spread = fences.is_sorted_by(|a, b| a.row < b.row) && fences.last().is_none_or(|fence| fence.row < *rows);
    let ordered = fences.is_sorted_by(|a, b| a.key.compare(&b.key.values) != Ordering::Greater);
    let inside = fences.first().is_none_or(|fence| first_key.compare(&fence.key.values) != Ordering::Greater)
        && fences.iter().all(|fence| fence.key.compare(&last_key.values) != Ordering::Greater);
    if fences.len() > MAX_FENCES || !spread || !ordered || !inside {
        found.run(
            "INV-15",
            run,
            format!("the fences are not up to {MAX_FENCES} of the run's rows with ascending keys inside the run's"),
        );
    }
}
