//! Bringing a rollup up to date: what is stale and why, found out before anything is done, and then exactly that done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::Result;
use crate::partitions::Partitions;
use crate::plan::Aggregate;
use crate::rollup::periods::{Made, Periods};
use crate::rollup::provenance::{Change, Provenance};
use crate::rollup::{Rollup, period_of, sort_by_period, worth_extending};

/// What is done about a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshAction {
    /// Nothing: it is what would be made again.
    Reuse,
    /// It is computed from its rows.
    Compute,
    /// It is merged from all its parts.
    Merge,
    /// Its state and parts that are new are merged; the other parts are not read.
    Extend,
    /// It is dropped, see [`Refresh::with_others_dropped`].
    Drop,
    /// It is not among the periods asked for, and stays as it is.
    Leave,
}

impl fmt::Display for RefreshAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reuse => "reuse",
            Self::Compute => "compute",
            Self::Merge => "merge",
            Self::Extend => "extend",
            Self::Drop => "drop",
            Self::Leave => "leave",
        })
    }
}

/// Why it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshReason {
    /// Nothing that it depends on has changed.
    Unchanged,
    /// There is no such period yet, or it was dropped.
    Missing,
    /// What is there was not made by a rollup, or others appended to it.
    Foreign,
    /// Aggregates have other definitions, or are not the same ones; their names.
    Definitions(Vec<String>),
    /// It was made of something else: other datasets, or rows chosen or joined in another way.
    Input,
    /// Rows of its datasets were appended, replaced or dropped.
    Rows,
    /// Parts that are made anew, are new, or are gone; their names, where they are known.
    Parts(Vec<String>),
    /// It is not among the periods asked for.
    NotAsked,
}

impl fmt::Display for RefreshReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing has changed"),
            Self::Missing => f.write_str("it is not there"),
            Self::Foreign => f.write_str("others have written to it"),
            Self::Definitions(names) => write!(f, "other aggregates: {}", names.join(", ")),
            Self::Input => f.write_str("it is made of something else"),
            Self::Rows => f.write_str("its rows have changed"),
            Self::Parts(names) if names.is_empty() => f.write_str("its parts have changed"),
            Self::Parts(names) => write!(f, "its parts change: {}", names.join(", ")),
            Self::NotAsked => f.write_str("it is not among the periods"),
        }
    }
}

/// What a refresh does, or did, about one period.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshStep {
    /// The period.
    pub period: String,
    /// What is done about it.
    pub action: RefreshAction,
    /// Why.
    pub reason: RefreshReason,
    /// Bytes of the runs that it was made from, of which only the columns that the aggregates need are read; 0 before it is done.
    pub input_bytes: u64,
    /// Bytes of the runs that were written; 0 before it is done.
    pub written_bytes: u64,
}

impl fmt::Display for RefreshStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}: {}", self.action, self.period, self.reason)
    }
}

/// What a refresh will do, see [`Rollup::refresh`]. Printed, it says so line by line.
#[derive(Debug, Clone)]
#[must_use = "nothing is done before it runs"]
pub struct Refresh {
    rollup: Rollup,
    periods: Periods,
    steps: Vec<RefreshStep>,
}

impl Rollup {
    /// Finds out which periods are stale: compares what each was made from with what is there. Reads manifests alone, and changes nothing;
    /// [`Refresh::run`] does the work.
    ///
    /// A period computed from rows is stale if a dataset it was made from has other rows (its `data_version` differs: a rewrite that keeps
    /// all rows is none), if it was made of other datasets, another projection, filter or join, or if an aggregate's
    /// [`Definition`](crate::Definition) differs. A merged period is stale if one of its parts is, or it has others.
    ///
    /// # Errors
    /// `InvalidInput` for periods that are parts of themselves, parts that are no periods, groups made of rows, and names that cannot be a folder's; those of
    /// [`Aggregate::plan`]; `Corrupt`; `Store`.
    pub async fn refresh(&self, periods: Periods) -> Result<Refresh> {
        let order = periods.in_order()?;
        for (period, _) in &order {
            self.folder(period)?;
        }
        let listed = Partitions::list(Arc::clone(&self.store), self.root.clone()).await?;
        let mut there: BTreeMap<String, Dataset> = BTreeMap::new();
        for dataset in listed.open().await? {
            if let Some(period) = period_of(&dataset) {
                there.insert(period.to_owned(), dataset);
            }
        }
        let mut steps: Vec<RefreshStep> = vec![];
        for (period, made) in order {
            let found = match there.get(period) {
                None => None,
                Some(dataset) => Some((dataset, Provenance::read(dataset)?)),
            };
            let (action, reason) = match made {
                Made::Of(input) => {
                    let plan = self.aggregation(Aggregate::over(input.as_ref().clone())).plan_states()?;
                    computed(found, &Provenance::of(&plan, &self.aggregates, [period.clone()].into()))
                }
                Made::From(parts) => {
                    let is_kept = |step: &&RefreshStep| step.action == RefreshAction::Reuse;
                    let (kept, stale): (Vec<_>, Vec<_>) =
                        steps.iter().filter(|step| parts.contains(&step.period)).partition(is_kept);
                    let mut kept: Vec<Dataset> =
                        kept.iter().filter_map(|step| there.get(&step.period).cloned()).collect();
                    sort_by_period(&mut kept);
                    let stale = stale.into_iter().map(|step| step.period.clone()).collect();
                    self.merged(found, &kept, stale)?
                }
            };
            steps.push(RefreshStep { period: period.clone(), action, reason, input_bytes: 0, written_bytes: 0 });
        }
        for period in there.into_keys().filter(|period| !periods.contains(period)) {
            let (action, reason) = (RefreshAction::Leave, RefreshReason::NotAsked);
            steps.push(RefreshStep { period, action, reason, input_bytes: 0, written_bytes: 0 });
        }
        Ok(Refresh { rollup: self.clone(), periods, steps })
    }

    /// What to do about a period merged from parts of which `kept` stay as they are and `stale` do not.
    fn merged(&self, found: Found<'_>, kept: &[Dataset], stale: Vec<String>) -> Result<(RefreshAction, RefreshReason)> {
        let mut covers = BTreeSet::new();
        for part in kept {
            covers.extend(Provenance::read(part)?.into_iter().flat_map(|provenance| provenance.covers));
        }
        let now = Provenance::of_parts(&self.aggregates, kept, covers);
        let (dataset, before) = match found {
            None => return Ok((RefreshAction::Merge, RefreshReason::Missing)),
            Some((_, None)) => return Ok((RefreshAction::Merge, RefreshReason::Foreign)),
            Some((dataset, Some(before))) => (dataset, before),
        };
        let change = before.change(&now);
        if change.is_none() && stale.is_empty() {
            return Ok((RefreshAction::Reuse, RefreshReason::Unchanged));
        }
        let new = before.added(&now).unwrap_or_default().into_iter().filter_map(|at| period_of(&kept[at]));
        let reason = match change {
            None | Some(Change::Rows) => {
                RefreshReason::Parts(new.map(str::to_owned).chain(stale).collect::<BTreeSet<_>>().into_iter().collect())
            }
            Some(change) => change.into(),
        };
        let extends = worth_extending(dataset, &before, &now, kept).is_some();
        Ok((if extends { RefreshAction::Extend } else { RefreshAction::Merge }, reason))
    }
}

/// A period that is there, and what it was made from, if that can be told.
type Found<'a> = Option<(&'a Dataset, Option<Provenance>)>;

/// What to do about a period computed from rows.
fn computed(found: Found<'_>, now: &Provenance) -> (RefreshAction, RefreshReason) {
    let reason = match found {
        None => RefreshReason::Missing,
        Some((_, None)) => RefreshReason::Foreign,
        Some((_, Some(before))) => match before.change(now) {
            None => return (RefreshAction::Reuse, RefreshReason::Unchanged),
            Some(change) => change.into(),
        },
    };
    (RefreshAction::Compute, reason)
}

impl From<Change> for RefreshReason {
    fn from(change: Change) -> Self {
        match change {
            Change::Definitions(names) => Self::Definitions(names),
            Change::Input => Self::Input,
            Change::Rows => Self::Rows,
        }
    }
}

impl Refresh {
    /// What will be done, parts before what is merged from them.
    pub fn steps(&self) -> &[RefreshStep] {
        &self.steps
    }

    /// Whether nothing is to be done.
    pub fn is_up_to_date(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.action, RefreshAction::Reuse | RefreshAction::Leave))
    }

    /// Drops periods that are there but not among those asked for, instead of leaving them: for a rollup whose periods are all in one place.
    pub fn with_others_dropped(mut self) -> Self {
        for step in self.steps.iter_mut().filter(|step| step.action == RefreshAction::Leave) {
            step.action = RefreshAction::Drop;
        }
        self
    }

    /// Does it, period by period, and says what was done.
    ///
    /// Each period is replaced as a whole, parts before what is merged from them, so that readers see every period as it was or as it is to be; a
    /// longer period shows the old state of its parts until its own turn. After a crash or an error the periods done are done: refresh again, and only
    /// the others are left. The inputs are those that the periods were given, at their versions; what others made of periods since this was planned is taken in.
    ///
    /// # Errors
    /// Those of [`Rollup::update`] and [`Rollup::merge`]; periods before the failed one are done.
    pub async fn run(self) -> Result<Vec<RefreshStep>> {
        self.run_with(|_| ()).await
    }

    /// The same; `progress` is told each step when it is done.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with(self, mut progress: impl FnMut(&RefreshStep)) -> Result<Vec<RefreshStep>> {
        let Self { rollup, periods, mut steps } = self;
        for step in &mut steps {
            let written = match (step.action, periods.get(&step.period)) {
                (RefreshAction::Compute, Some(Made::Of(input))) => {
                    Some(rollup.update_period(&step.period, input.as_ref().clone()).await?)
                }
                (RefreshAction::Merge | RefreshAction::Extend, Some(Made::From(parts))) => {
                    Some(rollup.merge_period(&step.period, parts.iter().cloned().collect()).await?)
                }
                (RefreshAction::Drop, _) => {
                    rollup.drop_period(&step.period).await?;
                    None
                }
                _ => None,
            };
            if let Some(written) = written {
                (step.input_bytes, step.written_bytes) = (written.input_bytes, written.written_bytes);
            }
            progress(step);
        }
        Ok(steps)
    }
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{step}")?;
        }
        Ok(())
    }
}
