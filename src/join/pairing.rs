//! Pairing: the rows of one window that meet, as row indices.
//!
//! Both sides are walked once with two positions. What is found goes into two index lists of equal length, where [`NONE`] stands for "no
//! row"; the walk stops when the lists are full and resumes where it stopped, also in the middle of a large `l × r` group.
//!
//! Indices count rows of a side as **carried rows, then the window's rows**: the carried rows are those of the group that was open at the end of
//! the previous window (see `kernel`).

use std::cmp::Ordering;
use std::ops::Range;

use crate::join::Shape;
use crate::merge::Keys;

/// The index that stands for "no row on this side".
pub(crate) const NONE: u32 = u32::MAX;

/// One side of a key group, as indices; the first `old` of them were paired among each other before.
#[derive(Debug, Clone, Default)]
struct Rows {
    range: Range<u32>,
    old: u32,
}

/// An `l × r` group that is being written out, left-major; `next` is the pair to write next.
#[derive(Debug)]
struct Group {
    left: Rows,
    right: Rows,
    next: (u32, u32),
}

/// One side of a window, as far as pairing is concerned.
#[derive(Debug)]
pub(crate) struct PairSide<'a, K> {
    /// `None`: no rows.
    pub(crate) keys: Option<&'a K>,
}

/// A side's rows of the group that goes on from the previous window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Continued {
    /// Rows carried from earlier windows, which have the first indices.
    pub(crate) carried: u32,
    /// Whether the side had any row of the group before, carried or not.
    pub(crate) seen: bool,
    /// Rows at the start of this window that belong to the group.
    pub(crate) rows: u32,
}

/// The walk over one window.
#[derive(Debug)]
pub(crate) struct Pairing {
    shape: Shape,
    /// Added to a window's row to make its index.
    base: (u32, u32),
    /// The window's rows to look at next.
    at: (u32, u32),
    group: Option<Group>,
    /// Rows to write out that stand without a partner in the output: a range of the left or of the right side.
    alone: [Range<u32>; 2],
    pub(crate) left: Vec<u32>,
    pub(crate) right: Vec<u32>,
}

impl Pairing {
    /// Starts on a window whose first `rows` rows of either side go on with the group of the previous one.
    ///
    /// With `matchable` false the group's key is null: its rows have no partners whatever stands on the other side.
    pub(crate) fn new(shape: Shape, left: Continued, right: Continued, matchable: bool) -> Self {
        let mut pairing = Self {
            shape,
            base: (left.carried, right.carried),
            at: (left.rows, right.rows),
            group: None,
            alone: [0..0, 0..0],
            left: vec![],
            right: vec![],
        };
        let rows = |side: Continued| Rows { range: 0..side.carried + side.rows, old: side.carried };
        let has = |side: Continued| matchable && (side.seen || side.rows > 0);
        pairing.start_group(rows(left), rows(right), has(left), has(right));
        pairing
    }

    /// Decides what a key group contributes. The sides tell whether they have rows of the key at all, in this window or before.
    fn start_group(&mut self, left: Rows, right: Rows, has_left: bool, has_right: bool) {
        let shape = self.shape;
        let new = |rows: &Rows| rows.range.start + rows.old..rows.range.end;
        if if has_right { shape.left_matched } else { shape.left_unmatched } {
            self.alone[0] = new(&left);
        }
        if if has_left { shape.right_matched } else { shape.right_unmatched } {
            self.alone[1] = new(&right);
        }
        if shape.pairs && has_left && has_right {
            let next = (left.range.start, right.range.start);
            self.group = Some(Group { left, right, next });
        }
    }

    /// Goes on until the index lists hold `target` entries or the window is used up; `true` means used up.
    pub(crate) fn fill<K: Keys>(&mut self, left: &PairSide<'_, K>, right: &PairSide<'_, K>, target: usize) -> bool {
        let rows = |side: &PairSide<'_, K>| side.keys.map_or(0, Keys::len) as u32;
        let (left_rows, right_rows) = (rows(left), rows(right));
        loop {
            if !self.drain(target) || self.left.len() >= target {
                return false;
            }
            let (i, j) = self.at;
            if let (Some(l), Some(r)) = (left.keys, right.keys)
                && i < left_rows
                && j < right_rows
            {
                self.walk(l, r, target);
                continue;
            }
            // A window of null keys has no keys to walk; its rows were all part of the continued group.
            if i >= left_rows && j >= right_rows {
                return true;
            }
            // One side is used up: the rest of the other has no partner in this window, and by the window's bound none elsewhere.
            self.at = (left_rows, right_rows);
            if self.shape.left_unmatched {
                self.alone[0] = self.base.0 + i..self.base.0 + left_rows;
            }
            if self.shape.right_unmatched {
                self.alone[1] = self.base.1 + j..self.base.1 + right_rows;
            }
        }
    }

    /// The hot loop: walks both sides while both have rows and the lists have room, or until a group is left for `drain`.
    fn walk<K: Keys>(&mut self, l: &K, r: &K, target: usize) {
        let (left_rows, right_rows) = (l.len(), r.len());
        let (base_left, base_right) = self.base;
        let (mut i, mut j) = (self.at.0 as usize, self.at.1 as usize);
        let shape = self.shape;
        while i < left_rows && j < right_rows && self.left.len() < target {
            match l.value(i).cmp(&r.value(j)) {
                Ordering::Less => {
                    if shape.left_unmatched {
                        self.left.push(base_left + i as u32);
                        self.right.push(NONE);
                    }
                    i += 1;
                }
                Ordering::Greater => {
                    if shape.right_unmatched {
                        self.left.push(NONE);
                        self.right.push(base_right + j as u32);
                    }
                    j += 1;
                }
                Ordering::Equal => {
                    let (left_end, right_end) = (l.group_end(i), r.group_end(j));
                    let null = l.has_null(i);
                    let (rows, others) = (left_end - i, right_end - j);
                    if shape.pairs && !null && rows * others <= target - self.left.len() {
                        for row in i..left_end {
                            self.left.extend(std::iter::repeat_n(base_left + row as u32, others));
                            self.right.extend(base_right + j as u32..base_right + right_end as u32);
                        }
                    } else {
                        let side = |base: u32, from: usize, to: usize| Rows {
                            range: base + from as u32..base + to as u32,
                            old: 0,
                        };
                        self.start_group(side(base_left, i, left_end), side(base_right, j, right_end), !null, !null);
                        (i, j) = (left_end, right_end);
                        break;
                    }
                    (i, j) = (left_end, right_end);
                }
            }
        }
        self.at = (i as u32, j as u32);
    }

    /// How many more entries the lists take.
    fn room(&self, target: usize) -> u32 {
        u32::try_from(target.saturating_sub(self.left.len())).unwrap_or(u32::MAX)
    }

    /// Writes out what is pending; `false` if the lists filled up before its end.
    fn drain(&mut self, target: usize) -> bool {
        while self.group.is_some() {
            let room = self.room(target);
            let Some(group) = &mut self.group else { break };
            if room == 0 {
                return false;
            }
            let (p, q) = group.next;
            if p >= group.left.range.end {
                self.group = None;
                break;
            }
            // Pairs of two old rows were written with an earlier window.
            let old_left = p < group.left.range.start + group.left.old;
            let q = if old_left { q.max(group.right.range.start + group.right.old) } else { q };
            let end = group.right.range.end.min(q.saturating_add(room));
            self.left.extend(std::iter::repeat_n(p, (end - q) as usize));
            self.right.extend(q..end);
            group.next = if end == group.right.range.end { (p + 1, group.right.range.start) } else { (p, end) };
        }
        for side in 0..2 {
            let room = self.room(target);
            let range = &mut self.alone[side];
            let now = range.start..range.end.min(range.start.saturating_add(room));
            range.start = now.end;
            let rows = now.len();
            let (own, other) =
                if side == 0 { (&mut self.left, &mut self.right) } else { (&mut self.right, &mut self.left) };
            own.extend(now);
            other.extend(std::iter::repeat_n(NONE, rows));
            if range.start < range.end {
                return false;
            }
        }
        true
    }
}
