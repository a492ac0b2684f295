//! Which periods there are, and what each is made of: rows, or shorter periods. Plain data; reads nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::plan::AggregateInput;

/// The periods of a rollup: the shortest with the rows that they are computed from, longer ones with the periods that they are merged from.
///
/// Names are the caller's; nothing interprets them but the functions that group them.
///
/// ```
/// # use sort_merge_bucket::{Dataset, Periods};
/// # fn example(weeks: &[(String, Dataset)]) -> sort_merge_bucket::Result<()> {
/// // Weeks into quarters, quarters into years: `2025-W07` into `2025-Q1` into `2025`.
/// let quarter = |week: &str| Some(format!("{}-Q{}", &week[..4], (week[6..].parse::<u32>().ok()? - 1) / 13 + 1));
/// let periods = weeks
///     .iter()
///     .fold(Periods::new(), |all, (name, plays)| all.with_rows(name, plays))
///     .grouped_by(quarter)
///     .grouped_by(|quarter| Some(quarter[..4].to_owned()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Periods {
    made: BTreeMap<String, Made>,
    /// Those whose group is a period made of rows.
    ambiguous: BTreeSet<String>,
}

/// What a period is made of.
#[derive(Debug, Clone)]
pub(super) enum Made {
    Of(Box<AggregateInput>),
    From(BTreeSet<String>),
}

impl Periods {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a period that is computed from rows, or says anew what it is made of.
    pub fn with_rows(mut self, period: impl Into<String>, input: impl Into<AggregateInput>) -> Self {
        self.made.insert(period.into(), Made::Of(Box::new(input.into())));
        self
    }

    /// Adds a period that is merged from others, or says anew what it is made of. A period may be part of any number of others.
    pub fn with_merged<S: Into<String>>(
        mut self,
        period: impl Into<String>,
        parts: impl IntoIterator<Item = S>,
    ) -> Self {
        self.made.insert(period.into(), Made::From(parts.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds a level to the tree: every period that is part of no other becomes a part of the period that `longer` names, if it names one. A group
    /// that is made of rows is `InvalidInput` later.
    pub fn grouped_by(mut self, longer: impl Fn(&str) -> Option<String>) -> Self {
        let parts: BTreeSet<&String> = self.made.values().flat_map(Made::parts).collect();
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for period in self.made.keys().filter(|period| !parts.contains(period)) {
            if let Some(group) = longer(period) {
                groups.entry(group).or_default().insert(period.clone());
            }
        }
        for (group, members) in groups {
            match self.made.entry(group).or_insert_with(|| Made::From(BTreeSet::new())) {
                Made::From(parts) => parts.extend(members),
                Made::Of(_) => {
                    self.ambiguous.extend(members);
                }
            }
        }
        self
    }

    /// The fewest periods that together are exactly these ones made of rows, ascending: what a window over the tree is merged from.
    ///
    /// # Errors
    /// `InvalidInput` naming all that are not made of rows here; else as for the names in [`Rollup::refresh`](crate::Rollup::refresh).
    pub fn cover<S: Into<String>>(&self, rows: impl IntoIterator<Item = S>) -> Result<Vec<String>> {
        let mut left: BTreeSet<String> = rows.into_iter().map(Into::into).collect();
        let is_of_rows = |period: &&String| !matches!(self.made.get(*period), Some(Made::Of(_)));
        let unknown: Vec<&str> = left.iter().filter(is_of_rows).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(Error::invalid_input(format!(
                "no such periods made of rows, periods=`{}`",
                unknown.join(", ")
            )));
        }
        let mut covers: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (period, made) in self.in_order()? {
            let covered = match made {
                Made::Of(_) => BTreeSet::from([period]),
                Made::From(parts) => parts.iter().flat_map(|part| covers[part].iter().copied()).collect(),
            };
            covers.insert(period, covered);
        }
        // In a tree two periods are disjoint or one is in the other, so that taking the longest first takes the fewest.
        let mut longest: Vec<_> = covers.into_iter().filter(|(_, covered)| !covered.is_empty()).collect();
        longest.sort_by_key(|(_, covered)| std::cmp::Reverse(covered.len()));
        let mut chosen = vec![];
        for (period, covered) in longest {
            if covered.iter().all(|row| left.contains(*row)) {
                covered.into_iter().for_each(|row| {
                    left.remove(row);
                });
                chosen.push(period.clone());
            }
        }
        chosen.sort();
        Ok(chosen)
    }

    pub(super) fn get(&self, period: &str) -> Option<&Made> {
        self.made.get(period)
    }

    pub(super) fn contains(&self, period: &str) -> bool {
        self.made.contains_key(period)
    }

    /// The periods, parts before what is merged from them, else by name.
    ///
    /// # Errors
    /// `InvalidInput` naming all parts that are not there, the periods that are parts of themselves, or those whose group is made of rows.
    pub(super) fn in_order(&self) -> Result<Vec<(&String, &Made)>> {
        if !self.ambiguous.is_empty() {
            let parts: Vec<&str> = self.ambiguous.iter().map(String::as_str).collect();
            return Err(Error::invalid_input(format!(
                "periods are grouped into one that is made of rows, periods=`{}`",
                parts.join(", ")
            )));
        }
        let missing: BTreeSet<&str> =
            self.made.values().flat_map(Made::parts).filter(|part| !self.contains(part)).map(String::as_str).collect();
        if !missing.is_empty() {
            let missing: Vec<&str> = missing.into_iter().collect();
            return Err(Error::invalid_input(format!("parts are no periods, parts=`{}`", missing.join(", "))));
        }
        let mut order = vec![];
        let mut placed: BTreeSet<&String> = BTreeSet::new();
        let mut left: Vec<(&String, &Made)> = self.made.iter().collect();
        while !left.is_empty() {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(_, made)| made.parts().all(|part| placed.contains(part)));
            if ready.is_empty() {
                let cycle: Vec<&str> = waiting.iter().map(|(period, _)| period.as_str()).collect();
                return Err(Error::invalid_input(format!(
                    "periods are made of themselves, periods=`{}`",
                    cycle.join(", ")
                )));
            }
            placed.extend(ready.iter().map(|(period, _)| *period));
            order.extend(ready);
            left = waiting;
        }
        Ok(order)
    }
}

impl Made {
    fn parts(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::Of(_) => None,
            Self::From(parts) => Some(parts),
        }
        .into_iter()
        .flatten()
    }
}
