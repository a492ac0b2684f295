//! Pairing: the rows of one window that meet, as row indices.
//!
//! Both sides are walked once with two positions. What is found goes into two index lists of equal length; the walk stops when the lists are
//! full and resumes where it stopped. A group with more pairs than the lists hold is not written out but handed back, see [`Filled::Large`].
//!
//! Without a condition the lists are the output, and `NONE` in one of them stands for "no row". With a condition they are candidates, and
//! whether a row ends up without a partner is seen later: the walk tells at which place in the lists it is, see [`Decided`].
//!
//! Indices count rows of a side as **carried rows, then the window's rows**: the carried rows are those of the group that was open at the end of
//! the previous window (see `kernel`).

use std::cmp::Ordering;
use std::ops::Range;

use crate::join::Shape;
use crate::join::row_list::RowList;
use crate::merge::Keys;

/// Rows of either side, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) left: RowList,
    pub(super) right: RowList,
}

impl Lists {
    /// Empty lists that will have about so many entries.
    pub(super) fn expecting(entries: usize) -> Self {
        Self { left: RowList::expecting(entries), right: RowList::expecting(entries) }
    }

    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
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
    /// Where the groups of equal keys begin, and the number of rows.
    pub(super) offsets: &'a [u32],
    /// More rows of the last key may follow.
    pub(super) open: bool,
}

impl<K> PairSide<'_, K> {
    fn groups(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The first row of a group, or the number of rows behind the last.
    fn start(&self, group: usize) -> u32 {
        self.offsets[group.min(self.groups())]
    }

    fn rows(&self) -> u32 {
        self.start(self.groups())
    }
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
    /// The window's groups to look at next.
    at: (usize, usize),
    /// Rows to write out that stand without a partner in the output: a range of the left or of the right side.
    alone: [Range<u32>; 2],
    pub(super) lists: Lists,
    pub(super) decided: Vec<Decided>,
}

impl Pairing {
    /// Starts on a window behind so many of its first rows, none or a group.
    pub(super) fn new(shape: Shape, conditional: bool, behind: (u32, u32)) -> Self {
        let at = (usize::from(behind.0 > 0), usize::from(behind.1 > 0));
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
    #[inline]
    fn pair(&mut self, left: Range<u32>, right: Range<u32>) {
        for row in left {
            self.lists.left.push_repeated(row, right.len());
            self.lists.right.push_run(right.start, right.len());
        }
    }

    /// Groups that meet, one after the other, given by where they begin and where the last ends; the first has at most `room` pairs. Returns of how many
    /// groups the pairs fit into the room, and how many pairs these are.
    fn pair_groups(&mut self, left: &[u32], right: &[u32], room: usize) -> (usize, usize) {
        let (base_left, base_right) = self.base;
        let (first_left, first_right) = (base_left + left[0], base_right + right[0]);
        let rows = |starts: &[u32], groups: usize| (starts[groups] - starts[0]) as usize;
        let all = left.len() - 1;
        let that_fit = |starts: &[u32]| starts[1..].partition_point(|end| (end - starts[0]) as usize <= room);
        match (rows(left, all) == all, rows(right, all) == all) {
            (true, true) => {
                let groups = all.min(room);
                self.lists.left.push_run(first_left, groups);
                self.lists.right.push_run(first_right, groups);
                (groups, groups)
            }
            // Of a unique key and its rows on the other side, these are a stretch.
            (true, false) => {
                let groups = that_fit(right);
                let pairs = rows(right, groups);
                self.lists.left.push_each(first_left, &right[..=groups]);
                self.lists.right.push_run(first_right, pairs);
                (groups, pairs)
            }
            (false, true) => {
                let groups = that_fit(left);
                let pairs = rows(left, groups);
                self.lists.left.push_run(first_left, pairs);
                self.lists.right.push_each(first_right, &left[..=groups]);
                (groups, pairs)
            }
            (false, false) => {
                let (mut groups, mut pairs) = (0, 0);
                for (left, right) in left.windows(2).zip(right.windows(2)) {
                    let more = rows(left, 1) * rows(right, 1);
                    if pairs + more > room {
                        break;
                    }
                    self.pair(base_left + left[0]..base_left + left[1], base_right + right[0]..base_right + right[1]);
                    (groups, pairs) = (groups + 1, pairs + more);
                }
                (groups, pairs)
            }
        }
    }

    /// Rows whose pairs are all in the lists.
    fn decide(&mut self, left: Range<u32>, right: Range<u32>) {
        let at = self.lists.len();
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
        let (left_groups, right_groups) = (left.groups(), right.groups());
        if self.lists.is_empty() {
            let rows = left.rows() - left.start(self.at.0) + right.rows() - right.start(self.at.1);
            self.lists = Lists::expecting(target.min(rows as usize));
        }
        loop {
            if !self.drain(target) || self.lists.len() >= target {
                return Filled::Full;
            }
            let (i, j) = self.at;
            if let (Some(l), Some(r)) = (left.keys, right.keys)
                && i < left_groups
                && j < right_groups
            {
                if let Some(stopped) = self.walk((l, left), (r, right), target) {
                    return stopped;
                }
                continue;
            }
            // A window of null keys has no keys to walk; its rows were all part of the continued group.
            if i >= left_groups && j >= right_groups {
                return Filled::UsedUp;
            }
            // One side is used up: the rest of the other has no partner in this window, and by the window's bound none elsewhere.
            self.at = (left_groups, right_groups);
            let (base_left, base_right) = self.base;
            self.alone(
                base_left + left.start(i)..base_left + left.rows(),
                base_right + right.start(j)..base_right + right.rows(),
                false,
            );
        }
    }

    /// The hot loop: walks both sides while both have groups and the lists have room, or until rows are left for `drain`.
    fn walk<K: Keys>(
        &mut self,
        (l, left): (&K, &PairSide<'_, K>),
        (r, right): (&K, &PairSide<'_, K>),
        target: usize,
    ) -> Option<Filled> {
        let (base_left, base_right) = self.base;
        let (mut i, mut j) = self.at;
        let (shape, conditional) = (self.shape, self.conditional);
        let mut room = target - self.lists.len();
        let mut stopped = None;
        while let (&[left_start, left_end, ..], &[right_start, right_end, ..]) =
            (&left.offsets[i..], &right.offsets[j..])
            && room > 0
        {
            let left_rows = base_left + left_start..base_left + left_end;
            let right_rows = base_right + right_start..base_right + right_end;
            match l.value(left_start as usize).cmp(&r.value(right_start as usize)) {
                Ordering::Less => {
                    i += 1;
                    match self.unmatched(0, left_rows, room) {
                        Some(entries) => room -= entries,
                        None => break,
                    }
                }
                Ordering::Greater => {
                    j += 1;
                    match self.unmatched(1, right_rows, room) {
                        Some(entries) => room -= entries,
                        None => break,
                    }
                }
                Ordering::Equal => {
                    let null = l.has_null(left_start as usize);
                    if null || !(shape.pairs || conditional) {
                        (i, j) = (i + 1, j + 1);
                        self.alone(left_rows, right_rows, !null);
                        if conditional {
                            continue;
                        }
                        break;
                    }
                    let pairs = left_rows.len() * right_rows.len();
                    if pairs > room {
                        // What was found before comes first.
                        stopped = Some(Filled::Full);
                        if self.lists.is_empty() && self.decided.is_empty() {
                            let rows = |start: u32, end: u32| start as usize..end as usize;
                            let (left, right) = (rows(left_start, left_end), rows(right_start, right_end));
                            stopped = Some(Filled::Large { left, right });
                            (i, j) = (i + 1, j + 1);
                        }
                        break;
                    }
                    if conditional {
                        (i, j) = (i + 1, j + 1);
                        self.pair(left_rows.clone(), right_rows.clone());
                        room -= pairs;
                        // Rows are decided when the other side has no more of the group.
                        let (left_open, right_open) =
                            (left.open && i == left.groups(), right.open && j == right.groups());
                        self.decide(
                            if right_open { 0..0 } else { left_rows },
                            if left_open { 0..0 } else { right_rows },
                        );
                    } else {
                        // Where one group has a partner, the next ones mostly have.
                        let following =
                            left.offsets[i + 1..left.groups()].iter().zip(&right.offsets[j + 1..right.groups()]);
                        let meet = |(a, b): &(&u32, &u32)| {
                            let (a, b) = (**a as usize, **b as usize);
                            l.value(a) == r.value(b) && !l.has_null(a)
                        };
                        let end = 2 + following.take(room).take_while(meet).count();
                        let (groups, pairs) =
                            self.pair_groups(&left.offsets[i..i + end], &right.offsets[j..j + end], room);
                        (i, j) = (i + groups, j + groups);
                        room -= pairs;
                    }
                }
            }
        }
        self.at = (i, j);
        stopped
    }

    /// Rows of the left (0) or right side (1) without a partner. How many entries they took; `None` if they need more room and wait for `drain`.
    fn unmatched(&mut self, side: usize, rows: Range<u32>, room: usize) -> Option<usize> {
        if self.conditional {
            let [left, right] = if side == 0 { [rows, 0..0] } else { [0..0, rows] };
            self.decide(left, right);
            return Some(0);
        }
        if ![self.shape.left_unmatched, self.shape.right_unmatched][side] {
            return Some(0);
        }
        let entries = rows.len();
        if entries > room {
            self.alone[side] = rows;
            return None;
        }
        self.put_alone(side, rows);
        Some(entries)
    }

    /// Writes out rows of a side beside no rows of the other.
    fn put_alone(&mut self, side: usize, rows: Range<u32>) {
        let Lists { left, right } = &mut self.lists;
        let (own, other) = if side == 0 { (left, right) } else { (right, left) };
        own.push_run(rows.start, rows.len());
        other.push_absent(rows.len());
    }

    /// Writes out the rows that are alone; `false` if the lists filled up before their end.
    fn drain(&mut self, target: usize) -> bool {
        for side in 0..2 {
            let room = u32::try_from(target.saturating_sub(self.lists.len())).unwrap_or(u32::MAX);
            let range = &mut self.alone[side];
            let now = range.start..range.end.min(range.start.saturating_add(room));
            range.start = now.end;
            let waiting = range.start < range.end;
            if !now.is_empty() {
                self.put_alone(side, now);
            }
            if waiting {
                return false;
            }
        }
        true
    }
}
