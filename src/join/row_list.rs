//! Rows of one side, entry by entry of the output: a stretch while they follow one another, indices from then on.
//!
//! Most joins are of a table with its facts: the facts' rows all appear, once and in order, and a stretch of them is sliced without a copy.

use std::ops::Range;

/// The index that stands for "no row on this side".
pub(super) const NONE: u32 = u32::MAX;

/// As many entries are written at a time, and what is too much cut off: a few stores, without a loop whose end is mispredicted.
const SHORT: usize = 8;

/// Row indices of one side; [`NONE`] among them stands for "no row".
#[derive(Debug, Clone, Default)]
pub(super) struct RowList {
    /// The entries, while `rows` is empty.
    stretch: Range<u32>,
    rows: Vec<u32>,
    absent: usize,
    /// How many entries may come, about.
    expected: usize,
}

impl RowList {
    /// An empty list that will have about so many entries.
    pub(super) fn expecting(entries: usize) -> Self {
        Self { expected: entries, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        if self.rows.is_empty() { self.stretch.len() } else { self.rows.len() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries are [`NONE`].
    pub(super) fn absent(&self) -> usize {
        self.absent
    }

    /// The entries, if they are rows that follow one another.
    pub(super) fn stretch(&self) -> Option<Range<u32>> {
        self.rows.is_empty().then(|| self.stretch.clone())
    }

    pub(super) fn get(&self, entry: usize) -> u32 {
        if self.rows.is_empty() { self.stretch.start + entry as u32 } else { self.rows[entry] }
    }

    /// The entries as indices.
    pub(super) fn into_rows(mut self) -> Vec<u32> {
        self.write_out();
        self.rows
    }

    /// Some of the entries.
    pub(super) fn slice(&self, entries: Range<usize>) -> Self {
        if self.rows.is_empty() {
            let start = self.stretch.start;
            return Self { stretch: start + entries.start as u32..start + entries.end as u32, ..Self::default() };
        }
        let rows = self.rows[entries].to_vec();
        Self { absent: rows.iter().filter(|&&row| row == NONE).count(), rows, ..Self::default() }
    }

    /// Adds rows that follow one another.
    #[inline]
    pub(super) fn push_run(&mut self, start: u32, rows: usize) {
        if self.rows.is_empty() {
            if self.stretch.is_empty() {
                self.stretch = start..start;
            }
            if self.stretch.end == start {
                self.stretch.end += rows as u32;
                return;
            }
            self.write_out();
        }
        if rows <= SHORT {
            self.push_short(std::array::from_fn(|at| start.wrapping_add(at as u32)), rows);
        } else {
            self.rows.extend(start..start + rows as u32);
        }
    }

    /// Adds one row several times.
    #[inline]
    pub(super) fn push_repeated(&mut self, row: u32, times: usize) {
        if self.rows.is_empty() {
            if times == 1 {
                return self.push_run(row, 1);
            }
            self.write_out();
        }
        if times <= SHORT {
            self.push_short([row; SHORT], times);
        } else {
            self.rows.extend(std::iter::repeat_n(row, times));
        }
    }

    /// Adds rows that follow one another, each as often as `starts`, which are ascending, are apart.
    pub(super) fn push_each(&mut self, first: u32, starts: &[u32]) {
        let (Some(&begin), Some(&end)) = (starts.first(), starts.last()) else { return };
        self.write_out();
        let (at, entries) = (self.rows.len(), (end - begin) as usize);
        // With room for the last row to be written too often.
        self.rows.resize(at + entries + SHORT, 0);
        let list = &mut self.rows[at..];
        for (row, pair) in (first..).zip(starts.windows(2)) {
            let (from, to) = ((pair[0] - begin) as usize, (pair[1] - begin) as usize);
            if to - from <= SHORT {
                list[from..from + SHORT].copy_from_slice(&[row; SHORT]);
            } else {
                list[from..to].fill(row);
            }
        }
        self.rows.truncate(at + entries);
    }

    /// Adds entries that are no row.
    pub(super) fn push_absent(&mut self, entries: usize) {
        self.absent += entries;
        self.write_out();
        self.rows.extend(std::iter::repeat_n(NONE, entries));
    }

    #[inline]
    fn push_short(&mut self, entries: [u32; SHORT], count: usize) {
        let end = self.rows.len() + count;
        self.rows.extend_from_slice(&entries);
        self.rows.truncate(end);
    }

    #[cold]
    fn write_out(&mut self) {
        if self.rows.is_empty() {
            self.rows.reserve(self.expected.max(self.stretch.len()) + SHORT);
            self.rows.extend(std::mem::take(&mut self.stretch));
        }
    }
}
