//! Slots cut into key ranges, so that threads have work to share where slots are few or one is much larger than the others.
//!
//! Cuts lie at fences, the keys that manifests have of evenly spaced rows of each run, so that nothing is read to find them. A key that
//! fills the space between two fences gets a range of its own.
//!
//! ```text
//! run 0   1 . . . 5 . . . 5 . . . 5 . . . 9      fences 1 5 5 5 9
//! cuts                    [5          (5          the parts  …4 | 5 | 6…
//! ```

use crate::error::Result;
use crate::manifest::{KeyValue, Run};
use crate::plan::Resolved;
use crate::select::{KeyRange, after};

/// Parts per thread when slots are cut: the last to finish is then a small share of the whole.
const PARTS_PER_TASK: u64 = 4;

/// A part has at least about so many rows: below, opening runs and decoding the row groups at its ends twice costs more than sharing gains.
const MIN_PART_ROWS: u64 = 1 << 17;

/// A slot, or a key range of it: what one thread works on at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) slot: u32,
    /// The number of the part in its slot.
    pub(crate) part: u32,
    pub(crate) range: KeyRange,
    /// About how many rows its runs have.
    pub(crate) rows: u64,
}

impl Part {
    /// A slot in one part.
    pub(crate) fn whole(slot: u32) -> Self {
        Self { slot, part: 0, range: KeyRange::all(), rows: 0 }
    }
}

/// The parts for so many tasks, the largest first; slots in ascending order for one.
pub(crate) fn parts(plan: &Resolved, tasks: usize) -> Result<Vec<Part>> {
    let mut parts = if tasks <= 1 {
        (0..plan.slots.get()).map(Part::whole).collect()
    } else {
        cut(plan, |total| (total / (tasks as u64).saturating_mul(PARTS_PER_TASK)).max(MIN_PART_ROWS))?
    };
    if parts.iter().any(|part: &Part| part.part > 0) {
        parts.sort_by_key(|part| std::cmp::Reverse(part.rows));
    }
    Ok(parts)
}

/// The slots, those cut that have more than twice as many rows as a part should have.
pub(crate) fn cut(plan: &Resolved, part_rows: impl Fn(u64) -> u64) -> Result<Vec<Part>> {
    let mut slots: Vec<(Vec<&Run>, u64)> = vec![];
    for slot in 0..plan.slots.get() {
        let mut runs: Vec<&Run> = vec![];
        // Of a source in which rows are looked for by their keys, few rows are read.
        for source in plan.sources.iter().filter(|source| !source.restriction.has_keys()) {
            runs.extend(source.runs_of(slot, plan, &KeyRange::all())?.into_iter().map(|(at, _)| source.run(at)));
        }
        let rows = runs.iter().map(|run| run.rows).fold(0, u64::saturating_add);
        slots.push((runs, rows));
    }
    let wanted = part_rows(slots.iter().map(|(_, rows)| *rows).fold(0, u64::saturating_add)).max(1);
    let mut parts = vec![];
    for (slot, (runs, rows)) in (0..).zip(slots) {
        let cuts = if rows / 2 > wanted { cuts(&runs, wanted) } else { vec![] };
        let ranges = KeyRange::all().split(cuts);
        let each = rows / ranges.len() as u64;
        let of_slot = (0..).zip(ranges).map(|(part, range)| Part { slot, part, range, rows: each });
        parts.extend(of_slot);
    }
    Ok(parts)
}

/// Keys that divide the rows of runs into stretches of about `wanted` rows.
fn cuts(runs: &[&Run], wanted: u64) -> Vec<Vec<KeyValue>> {
    // Each fence with the rows of its run that come before it and after the one before.
    let mut fences: Vec<(&[KeyValue], u64)> = vec![];
    let mut hot: Vec<&[KeyValue]> = vec![];
    for run in runs {
        let (mut before, mut last) = (0, None);
        for fence in &run.fences {
            let key = fence.key.values.as_slice();
            // Of keys that were cut, different ones look the same.
            if last.replace(key) == Some(key) && fence.key.exact {
                hot.push(key);
            }
            fences.push((key, fence.row.saturating_sub(before)));
            before = fence.row;
        }
    }
    fences.sort();
    let first = runs.iter().map(|run| run.first_key.values.as_slice()).min().unwrap_or_default();
    let mut cuts: Vec<Vec<KeyValue>> = vec![];
    let mut rows = 0;
    for (key, own) in fences {
        rows = own.saturating_add(rows);
        if rows >= wanted {
            cuts.push(key.to_vec());
            rows = 0;
        }
    }
    for key in hot {
        cuts.push(key.to_vec());
        cuts.push(after(key));
    }
    cuts.retain(|cut| cut.as_slice() > first);
    cuts.sort();
    cuts.dedup();
    cuts
}
