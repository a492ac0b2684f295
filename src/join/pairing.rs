//! Pairing: the rows of one window that meet, as row indices.
//!
//! Both sides are walked once with two positions. What is found goes into two index lists of equal length; the walk stops when the lists are
//! full and resumes where it stopped. A group with more pairs than the lists hold is not written out but handed back, see [`Filled::Large`].
//!
//! Without a condition the lists are the output, and [`NONE`] in one of them stands for "no row". With a condition they are candidates, and
//! whether a row ends up without a partner is seen later: the walk tells at which place in the lists it is, see [`Decided`].
//!
//! Indices count rows of a side as **carried rows, then the window's rows**: the carried rows are those of the group that was open at the end of
//! the previous window (see `kernel`).

use std::cmp::Ordering;
use std::ops::Range;

use crate::join::Shape;
use crate::merge::Keys;

/// The index that stands for "no row on this side".
pub(crate) const NONE: u32 = u32::MAX;

/// Rows of either side, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) left: Vec<u32>,
    pub(super) right: Vec<u32>,
}

/// Rows whose candidates are all in the lists before entry `at`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) at: usize,
    pub(super) left: Range<u32>,
    pub(super) right: Range<u32>,
}

/// Why [`Pairing::fill`] stopped.
#[derive(Debug)]
pub(super) enum Filled {
    /// The lists are full.
    Full,
    /// The lists are empty, and the next group, of these rows of the window, has more pairs than they hold. The walk is behind it.
    Large { left: Range<usize>, right: Range<usize> },
    /// The window is used up.
    UsedUp,
}

/// One side of a window, as far as pairing is concerned.
#[derive(Debug)]
pub(super) struct PairSide<'a, K> {
    /// `None`: no rows.
    pub(super) keys: Option<&'a K>,
    /// More rows of the last key may follow.
    pub(super) open: bool,
}

/// A side's rows of the group that goes on from the previous window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Continued {
    /// Rows carried from earlier windows, which have the first indices.
    pub(super) carried: u32,
    /// Whether the side had any row of the group before, carried or not.
    pub(super) seen: bool,
    /// Rows at the start of this window that belong to the group.
    pub(super) rows: u32,
}

impl Continued {
    pub(super) fn has_rows(&self) -> bool {
        self.seen || self.rows > 0
    }

    fn all(&self) -> u32 {
        self.carried + self.rows
    }
}

/// How many pairs a group still has, those of two carried rows left out.
pub(super) fn pairs_to_come(left: Continued, right: Continued) -> u64 {
    u64::from(left.all()) * u64::from(right.all()) - u64::from(left.carried) * u64::from(right.carried)
}

/// The walk over one window.
#[derive(Debug)]
pub(super) struct Pairing {
    shape: Shape,
    /// There is a condition: the lists hold candidates.
    conditional: bool,
    /// Added to a window's row to make its index.
    base: (u32, u32),
    /// The window's rows to look at next.
    at: (u32, u32),
    /// Rows to write out that stand without a partner in the output: a range of the left or of the right side.
    alone: [Range<u32>; 2],
    pub(super) lists: Lists,
    pub(super) decided: Vec<Decided>,
}

impl Pairing {
    /// Starts on a window behind its first rows `at`.
    pub(super) fn new(shape: Shape, conditional: bool, at: (u32, u32)) -> Self {
        Self { shape, conditional, base: (0, 0), at, alone: [0..0, 0..0], lists: Lists::default(), decided: vec![] }
    }

    /// Starts on a window whose first rows go on with the group of the previous one, and end it if they have partners. Its pairs, all but those of two
    /// carried rows, must fit the lists.
    ///
    /// With `matchable` false the group's key is null: its rows have no partners whatever stands on the other side.
    pub(super) fn continuing(
        shape: Shape,
        conditional: bool,
        left: Continued,
        right: Continued,
        matchable: bool,
    ) -> Self {
        let mut pairing = Self::new(shape, conditional, (left.rows, right.rows));
        pairing.base = (left.carried, right.carried);
        let matched = matchable && left.has_rows() && right.has_rows();
        if matched && (shape.pairs || conditional) {
            for row in 0..left.all() {
                let from = if row < left.carried { right.carried } else { 0 };
                pairing.pair(row..row + 1, from..right.all());
            }
            if conditional {
                pairing.decide(0..left.all(), 0..right.all());
            }
        } else {
            let new = |side: Continued| side.carried..side.all();
            pairing.alone(new(left), new(right), matched);
        }
        pairing
    }

    /// Every left row with every right row.
    fn pair(&mut self, left: Range<u32>, right: Range<u32>) {
        let others = right.len();
        for row in left {
            self.lists.left.extend(std::iter::repeat_n(row, others));
            self.lists.right.extend(right.clone());
        }
    }

    /// Rows whose pairs are all in the lists.
    fn decide(&mut self, left: Range<u32>, right: Range<u32>) {
        let at = self.lists.left.len();
        // Neighbours without a partner come one by one.
        if let Some(last) = self.decided.last_mut()
            && last.at == at
        {
            if right.is_empty() && last.right.is_empty() && last.left.end == left.start {
                last.left.end = left.end;
                return;
            }
            if left.is_empty() && last.left.is_empty() && last.right.end == right.start {
                last.right.end = right.end;
                return;
            }
        }
        self.decided.push(Decided { at, left, right });
    }

    /// Rows that the output has by themselves, or not at all: none of them has a partner, or every one has.
    fn alone(&mut self, left: Range<u32>, right: Range<u32>, matched: bool) {
        if self.conditional {
            self.decide(left, right);
            return;
        }
        let shape = self.shape;
        if if matched { shape.left_matched } else { shape.left_unmatched } {
            self.alone[0] = left;
        }
        if if matched { shape.right_matched } else { shape.right_unmatched } {
            self.alone[1] = right;
        }
    }

    /// Goes on until the lists hold `target` entries, or nearly so many that the next group does not fit, or the window is used up.
    pub(super) fn fill<K: Keys>(&mut self, left: &PairSide<'_, K>, right: &PairSide<'_, K>, target: usize) -> Filled {
        let rows = |side: &PairSide<'_, K>| side.keys.map_or(0, Keys::len) as u32;
        let (left_rows, right_rows) = (rows(left), rows(right));
        loop {
            if !self.drain(target) || self.lists.left.len() >= target {
                return Filled::Full;
            }
            let (i, j) = self.at;
            if let (Some(l), Some(r)) = (left.keys, right.keys)
                && i < left_rows
                && j < right_rows
            {
                if let Some(stopped) = self.walk(l, r, (left.open, right.open), target) {
                    return stopped;
                }
                continue;
            }
            // A window of null keys has no keys to walk; its rows were all part of the continued group.
            if i >= left_rows && j >= right_rows {
                return Filled::UsedUp;
            }
            // One side is used up: the rest of the other has no partner in this window, and by the window's bound none elsewhere.
            self.at = (left_rows, right_rows);
            let (left, right) = self.base;
            self.alone(left + i..left + left_rows, right + j..right + right_rows, false);
        }
    }

    /// The hot loop: walks both sides while both have rows and the lists have room, or until rows are left for `drain`.
    fn walk<K: Keys>(&mut self, l: &K, r: &K, open: (bool, bool), target: usize) -> Option<Filled> {
        let (left_rows, right_rows) = (l.len(), r.len());
        let (base_left, base_right) = self.base;
        let (mut i, mut j) = (self.at.0 as usize, self.at.1 as usize);
        let (shape, conditional) = (self.shape, self.conditional);
        let mut stopped = None;
        while i < left_rows && j < right_rows && self.lists.left.len() < target {
            match l.value(i).cmp(&r.value(j)) {
                Ordering::Less => {
                    let row = base_left + i as u32;
                    if conditional {
                        self.decide(row..row + 1, 0..0);
                    } else if shape.left_unmatched {
                        self.lists.left.push(row);
                        self.lists.right.push(NONE);
                    }
                    i += 1;
                }
                Ordering::Greater => {
                    let row = base_right + j as u32;
                    if conditional {
                        self.decide(0..0, row..row + 1);
                    } else if shape.right_unmatched {
                        self.lists.left.push(NONE);
                        self.lists.right.push(row);
                    }
                    j += 1;
                }
                Ordering::Equal => {
                    let (left_end, right_end) = (l.group_end(i), r.group_end(j));
                    let null = l.has_null(i);
                    let left = base_left + i as u32..base_left + left_end as u32;
                    let right = base_right + j as u32..base_right + right_end as u32;
                    if null || !(shape.pairs || conditional) {
                        self.alone(left, right, !null);
                        (i, j) = (left_end, right_end);
                        if conditional {
                            continue;
                        }
                        break;
                    }
                    if (left_end - i) * (right_end - j) > target - self.lists.left.len() {
                        // What was found before comes first.
                        stopped = Some(Filled::Full);
                        if self.lists.left.is_empty() && self.decided.is_empty() {
                            stopped = Some(Filled::Large { left: i..left_end, right: j..right_end });
                            (i, j) = (left_end, right_end);
                        }
                        break;
                    }
                    self.pair(left.clone(), right.clone());
                    if conditional {
                        // Rows are decided when the other side has no more of the group.
                        let (left_open, right_open) =
                            (open.0 && left_end == left_rows, open.1 && right_end == right_rows);
                        self.decide(if right_open { 0..0 } else { left }, if left_open { 0..0 } else { right });
                    }
                    (i, j) = (left_end, right_end);
                }
            }
        }
        self.at = (i as u32, j as u32);
        stopped
    }

    /// Writes out the rows that are alone; `false` if the lists filled up before their end.
    fn drain(&mut self, target: usize) -> bool {
        for side in 0..2 {
            let room = u32::try_from(target.saturating_sub(self.lists.left.len())).unwrap_or(u32::MAX);
            let range = &mut self.alone[side];
            let now = range.start..range.end.min(range.start.saturating_add(room));
            range.start = now.end;
            let rows = now.len();
            let Lists { left, right } = &mut self.lists;
            let (own, other) = if side == 0 { (left, right) } else { (right, left) };
            own.extend(now);
            other.extend(std::iter::repeat_n(NONE, rows));
            if range.start < range.end {
                return false;
            }
        }
        true
    }
}
