//! A plan as text: what it reads, in how many slots, in which order the result comes.

use std::fmt;

use crate::plan::advice::{Read, advice};
use crate::plan::{Plan, PlanOperation, Resolved, ResolvedSource};
use crate::read::Verification;
use crate::select::KeyRange;

impl<O: PlanOperation> fmt::Display for Plan<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resolved = &self.resolved;
        let slots = resolved.slots.get();
        writeln!(f, "{} on [{}]", self.operation.describe(), self.key().join(", "))?;
        let skipped = (0..slots).filter(|&slot| self.is_skipped(slot).unwrap_or(false)).count();
        write!(f, "  slots: {slots}")?;
        if skipped > 0 {
            write!(f, " ({skipped} skipped: they yield nothing)")?;
        }
        writeln!(f, ", bucket function: {}", resolved.function)?;
        if let Some(driver) = self.operation.driver(resolved) {
            let name = |source: usize| &resolved.sources[source].name;
            writeln!(f, "  dynamic filter: keys of {} are looked for in {}", name(driver.from), name(driver.of))?;
        }
        match resolved.options.verification {
            Verification::Basic => {}
            Verification::Keys => writeln!(f, "  verified: the bucket of every row")?,
            Verification::Full => writeln!(f, "  verified: the bucket of every row, the checksum of every run")?,
        }
        let read: Vec<Read> = resolved.sources.iter().map(|source| read(source, resolved)).collect();
        let all = read.iter().copied().fold(Read::default(), Read::plus);
        for (source, own) in resolved.sources.iter().zip(read) {
            describe_source(f, source, own)?;
            for line in advice(&source.datasets, own, all) {
                writeln!(f, "    warning: {line}")?;
            }
        }
        let columns: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        writeln!(f, "  result: [{}]", columns.join(", "))?;
        write!(f, "  order within a slot: [{}], {}, nulls last", self.key().join(", "), resolved.key_order)
    }
}

/// The runs of a source that its restriction leaves.
fn read(source: &ResolvedSource, plan: &Resolved) -> Read {
    let runs = (0..plan.slots.get()).filter_map(|slot| source.runs_of(slot, plan, &KeyRange::all()).ok()).flatten();
    runs.map(|(at, _)| Read { runs: 1, bytes: source.run(at).bytes }).fold(Read::default(), Read::plus)
}

fn describe_source(f: &mut fmt::Formatter<'_>, source: &ResolvedSource, read: Read) -> fmt::Result {
    let (mut runs, mut rows, mut bytes) = (0u64, 0u64, 0u64);
    for (_, run) in source.runs() {
        runs += 1;
        rows = rows.saturating_add(run.rows);
        bytes = bytes.saturating_add(run.bytes);
    }
    let mut counts: Vec<u32> = source.datasets.iter().map(|dataset| dataset.spec().buckets().get()).collect();
    counts.extend(source.runs().map(|(_, run)| run.buckets.get()));
    counts.sort_unstable();
    counts.dedup();
    let counts: Vec<String> = counts.iter().map(u32::to_string).collect();
    let columns: Vec<&str> = source.schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(
        f,
        "  source {}: {runs} runs, {rows} rows, {bytes} bytes, buckets: {}",
        source.name,
        counts.join(" and ")
    )?;
    writeln!(f, "    columns: [{}]", columns.join(", "))?;
    if !source.restriction.is_all() {
        writeln!(f, "    restricted to {}: {} runs pruned", source.restriction, runs - read.runs)?;
    }
    // A year of daily partitions should not fill the screen.
    const SHOWN: usize = 4;
    for dataset in source.datasets.iter().take(SHOWN) {
        writeln!(f, "    {} version {}", dataset.place().layout.root(), dataset.version())?;
    }
    if source.datasets.len() > SHOWN {
        writeln!(f, "    and {} more datasets", source.datasets.len() - SHOWN)?;
    }
    Ok(())
}
