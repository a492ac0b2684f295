//! The join's state machine: windows in, batches out.
//!
//! A window may end inside a key group. Whether the group's rows have rows of their key on the other side at all is known at once (see
//! `Ties::Together`); what may still come is *more* rows of a side that is still open. So the rows of the other side are **carried** into the
//! next window:
//!
//! ```text
//! window 1   left  [… 7]          right [… 7 7] open      carried: left 7
//! window 2   left  [8 9]          right [7 7 8]           7 × the two new 7s, then nothing carried
//! ```
//!
//! That is for groups that end in the next window with few pairs. All others, those that span more windows and those that have more pairs than fit
//! an output batch, are **large** and have a machine of their own, see `large`. There is at most one at a time, and windows wait for it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{Error, Result};
use crate::join::JoinKind;
use crate::join::condition::BoundCondition;
use crate::join::kept::{CarryBudget, Kept};
use crate::join::large::{LargeGroup, LargeSide, Progress};
use crate::join::outlet::{Matched, Outlet, Side};
use crate::join::output::{OutputLayout, SideRows};
use crate::join::pairing::{Continued, Filled, PairSide, Pairing, pairs_to_come};
use crate::merge::{Align, Extract, ForKeys, Kernel, Keys, SourceInputs, SourceRows, Step, Ties, Window, dispatch};

/// What a join kernel is made of.
#[derive(Debug, Clone)]
pub(crate) struct JoinInputs {
    pub(crate) kind: JoinKind,
    /// The canonical types of the join columns.
    pub(crate) key_types: Vec<DataType>,
    pub(crate) left: SourceInputs,
    pub(crate) right: SourceInputs,
    pub(crate) output: OutputLayout,
    pub(crate) condition: Option<BoundCondition>,
    /// Rows per output batch, about.
    pub(crate) batch_size: usize,
    pub(crate) budget: CarryBudget,
}

/// The kernel of a join, for its key types.
pub(crate) fn join_kernel(inputs: JoinInputs) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
    let types = inputs.key_types.clone();
    dispatch(&types, inputs)
}

impl ForKeys for JoinInputs {
    type Output = Box<dyn Kernel<Item = RecordBatch>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let Self { kind, key_types: _, left, right, output, condition, batch_size, budget } = self;
        Ok(Box::new(JoinKernel {
            schemas: [Arc::clone(&left.schema), Arc::clone(&right.schema)],
            align: Align::new(&extract, vec![left, right], Ties::Together, batch_size),
            carried: None,
            large: None,
            current: None,
            outlet: Outlet::new(kind.shape(), output, condition, batch_size),
            budget,
        }))
    }
}

/// A side's share of the group that a window left open.
#[derive(Debug, Default)]
struct CarriedSide {
    /// Its rows, if the other side may still bring more.
    rows: Option<RecordBatch>,
    /// Which of them have found a partner, if that is remembered.
    matched: Option<BooleanBuffer>,
    /// Whether it had any.
    seen: bool,
}

impl CarriedSide {
    fn continued(&self, rows: usize) -> Continued {
        Continued {
            carried: self.rows.as_ref().map_or(0, |rows| rows.num_rows() as u32),
            seen: self.seen,
            rows: rows as u32,
        }
    }
}

/// The group that a window left open: its rows have met each other.
#[derive(Debug)]
struct Carried<K> {
    /// Its key, one row.
    key: K,
    left: CarriedSide,
    right: CarriedSide,
}

/// A large group; with its key if windows may bring more of it.
#[derive(Debug)]
struct Large<K> {
    group: LargeGroup,
    key: Option<K>,
}

/// A window that is being paired.
#[derive(Debug)]
struct Current<K> {
    pairing: Pairing,
    left: WindowSide<K>,
    right: WindowSide<K>,
    /// The key of the group that came in open, and whether each side had rows of it.
    continued: Option<(K, bool, bool)>,
}

#[derive(Debug)]
struct WindowSide<K> {
    rows: SideRows,
    /// Of the carried rows and the window's.
    matched: Matched,
    keys: Option<K>,
    /// Where the groups of equal keys begin, and the number of rows with keys.
    offsets: Vec<u32>,
    open: bool,
}

impl<K: Keys> WindowSide<K> {
    fn new(carried: CarriedSide, rows: SourceRows<K>, remembers: bool) -> Self {
        let rows_of = |batch: &Option<RecordBatch>| batch.as_ref().map_or(0, RecordBatch::num_rows);
        Self {
            matched: Matched::new(remembers, carried.matched, rows_of(&carried.rows) + rows.len()),
            rows: SideRows::new(carried.rows, rows.batch),
            offsets: rows.keys.as_ref().map_or_else(|| vec![0], Keys::group_offsets),
            keys: rows.keys,
            open: rows.open,
        }
    }

    fn pair_side(&self) -> PairSide<'_, K> {
        PairSide { keys: self.keys.as_ref(), offsets: &self.offsets, open: self.open }
    }

    fn outlet_side(&mut self) -> Side<'_> {
        Side { rows: &mut self.rows, matched: &mut self.matched, first_row: 0 }
    }

    /// The rows at the end of this window that have this key, if the window ends with it.
    fn tail(&self, key: &K) -> usize {
        match &self.keys {
            Some(keys) if keys.value(keys.len() - 1) == key.value(0) => {
                keys.len() - keys.count_up_to(0, key.value(0), false)
            }
            _ => 0,
        }
    }

    fn last_key(&self) -> Option<K> {
        self.keys.as_ref().map(|keys| keys.slice(keys.len() - 1, 1))
    }
}

/// How many rows at the start of a window have this key.
fn head<K: Keys>(rows: &SourceRows<K>, key: &K) -> usize {
    match &rows.keys {
        Some(keys) if keys.value(0) == key.value(0) => keys.count_up_to(0, key.value(0), true),
        _ => 0,
    }
}

struct JoinKernel<E: Extract> {
    /// Of the left and the right side.
    schemas: [SchemaRef; 2],
    align: Align<E>,
    carried: Option<Carried<E::Keys>>,
    large: Option<Large<E::Keys>>,
    current: Option<Current<E::Keys>>,
    outlet: Outlet,
    budget: CarryBudget,
}

impl<E: Extract> Kernel for JoinKernel<E> {
    type Item = RecordBatch;

    fn push(&mut self, input: usize, batch: RecordBatch) -> Result<()> {
        self.align.push(input, batch)
    }

    fn finish(&mut self, input: usize) {
        self.align.finish(input);
    }

    fn step(&mut self) -> Result<Step<RecordBatch>> {
        loop {
            if let Some(batch) = self.outlet.pop() {
                return Ok(Step::Item(batch));
            }
            if let Some(large) = &mut self.large {
                match large.group.step(&mut self.outlet, &self.budget)? {
                    Progress::More => continue,
                    Progress::Done => self.large = None,
                    Progress::Starved => {}
                }
            }
            if self.current.is_some() {
                self.emit_some()?;
                continue;
            }
            match self.align.step()? {
                Step::Item(window) => self.start(window)?,
                Step::Needs(input) if !self.is_settled() => return Ok(Step::Needs(input)),
                Step::Needs(_) | Step::Done => {
                    if !self.end_group()? {
                        return Ok(self.outlet.finish()?.map_or(Step::Done, Step::Item));
                    }
                }
            }
        }
    }
}

impl<E: Extract> JoinKernel<E> {
    /// Whether nothing that may still come can change the output: one side is at its end and the other alone contributes nothing.
    fn is_settled(&self) -> bool {
        let shape = self.outlet.shape();
        self.carried.is_none()
            && self.large.is_none()
            && (self.align.is_exhausted(0) && !shape.right_unmatched
                || self.align.is_exhausted(1) && !shape.left_unmatched)
    }

    /// Says that the group that was left open has ended; `false` if there is nothing more to return of it.
    fn end_group(&mut self) -> Result<bool> {
        if let Some(large) = &mut self.large {
            large.group.close();
            return Ok(true);
        }
        let Some(Carried { left, right, .. }) = self.carried.take().filter(|_| self.outlet.is_conditional()) else {
            return Ok(false);
        };
        let mut group = self.large_group(left, right)?;
        group.close();
        self.large = Some(Large { group, key: None });
        Ok(true)
    }

    /// Makes `window` the current one.
    fn start(&mut self, window: Window<E::Keys>) -> Result<()> {
        let Ok([left, right]) = <[SourceRows<E::Keys>; 2]>::try_from(window.sources) else {
            return Err(Error::internal("a join window has not two sides"));
        };
        if window.null_key {
            self.end_group()?;
            return self.start_null(left, right);
        }
        if let Some(Large { key: Some(key), .. }) = &self.large {
            let key = key.clone();
            return self.start_in_large(&key, left, right);
        }
        let Some(Carried { key, left: carried_left, right: carried_right }) = self.carried.take() else {
            let pairing = self.pairing((0, 0));
            self.set_current(pairing, (CarriedSide::default(), left), (CarriedSide::default(), right), None);
            return Ok(());
        };
        // A null component equals nothing, so a group that holds one never pairs, however often it is continued.
        let matchable = !key.has_null(0);
        let on_left = carried_left.continued(head(&left, &key));
        let on_right = carried_right.continued(head(&right, &key));
        let goes_on = |rows: &SourceRows<E::Keys>, here: Continued| rows.open && here.rows as usize == rows.len();
        let pairs = matchable && on_left.has_rows() && on_right.has_rows() && self.outlet.needs_pairs();
        let few = pairs_to_come(on_left, on_right) <= self.outlet.batch_size() as u64;
        if pairs && (!few || goes_on(&left, on_left) || goes_on(&right, on_right)) {
            let group = self.large_group(carried_left, carried_right)?;
            self.large = Some(Large { group, key: Some(key.clone()) });
            return self.start_in_large(&key, left, right);
        }
        let pairing =
            Pairing::continuing(self.outlet.shape(), self.outlet.is_conditional(), on_left, on_right, matchable);
        let continued = Some((key, on_left.has_rows(), on_right.has_rows()));
        self.set_current(pairing, (carried_left, left), (carried_right, right), continued);
        Ok(())
    }

    fn pairing(&self, at: (u32, u32)) -> Pairing {
        Pairing::new(self.outlet.shape(), self.outlet.is_conditional(), at)
    }

    fn set_current(
        &mut self,
        pairing: Pairing,
        left: (CarriedSide, SourceRows<E::Keys>),
        right: (CarriedSide, SourceRows<E::Keys>),
        continued: Option<(E::Keys, bool, bool)>,
    ) {
        let [on_left, on_right] = self.outlet.remembers();
        self.current = Some(Current {
            pairing,
            left: WindowSide::new(left.0, left.1, on_left),
            right: WindowSide::new(right.0, right.1, on_right),
            continued,
        });
    }

    /// The first rows of a window are of a large group, the others come behind it.
    fn start_in_large(&mut self, key: &E::Keys, left: SourceRows<E::Keys>, right: SourceRows<E::Keys>) -> Result<()> {
        let Some(Large { group, .. }) = &mut self.large else { return Ok(()) };
        let heads = (head(&left, key), head(&right, key));
        let rows = [left.batch.slice(0, heads.0), right.batch.slice(0, heads.1)];
        let open = [left.open && heads.0 == left.len(), right.open && heads.1 == right.len()];
        group.push(rows, open, &self.budget)?;
        let pairing = self.pairing((heads.0 as u32, heads.1 as u32));
        self.set_current(pairing, (CarriedSide::default(), left), (CarriedSide::default(), right), None);
        Ok(())
    }

    /// Rows with a null key have no partners.
    fn start_null(&mut self, left: SourceRows<E::Keys>, right: SourceRows<E::Keys>) -> Result<()> {
        self.carried = None;
        let rows = |rows: &SourceRows<E::Keys>| Continued { carried: 0, seen: false, rows: rows.len() as u32 };
        let pairing =
            Pairing::continuing(self.outlet.shape(), self.outlet.is_conditional(), rows(&left), rows(&right), false);
        let closed =
            |rows: SourceRows<E::Keys>| (CarriedSide::default(), SourceRows { open: false, keys: None, ..rows });
        self.set_current(pairing, closed(left), closed(right), None);
        Ok(())
    }

    /// Emits the next rows of the current window; after the last ones, decides what to carry.
    fn emit_some(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let Current { pairing, left, right, .. } = &mut current;
        let filled = pairing.fill(&left.pair_side(), &right.pair_side(), self.outlet.batch_size());
        let (lists, decided) = (std::mem::take(&mut pairing.lists), std::mem::take(&mut pairing.decided));
        self.outlet.put(&mut left.outlet_side(), &mut right.outlet_side(), lists, &decided)?;
        match filled {
            Filled::UsedUp => self.carried = self.carry(current)?,
            Filled::Full => self.current = Some(current),
            Filled::Large { left, right } => {
                self.large = Some(self.large_in(&current, [left, right])?);
                self.current = Some(current);
            }
        }
        Ok(())
    }

    /// A large group of these carried rows, which have met each other.
    fn large_group(&self, left: CarriedSide, right: CarriedSide) -> Result<LargeGroup> {
        let met = left.rows.is_some() && right.rows.is_some();
        let side = |carried: CarriedSide, schema: &SchemaRef| {
            let mut rows = Kept::new(Arc::clone(schema), self.outlet.batch_size());
            if let Some(batch) = carried.rows {
                rows.push_chunk(&batch)?;
            }
            Ok::<_, Error>(LargeSide { rows, open: true, matched: carried.matched })
        };
        Ok(LargeGroup::new(side(left, &self.schemas[0])?, side(right, &self.schemas[1])?, met))
    }

    /// A large group of these rows of a window.
    fn large_in(&self, current: &Current<E::Keys>, [left, right]: [Range<usize>; 2]) -> Result<Large<E::Keys>> {
        let mut open = false;
        let mut side = |side: &WindowSide<E::Keys>, range: Range<usize>, schema: &SchemaRef| {
            let window = side.rows.window();
            let mut rows = Kept::new(Arc::clone(schema), self.outlet.batch_size());
            let goes_on = side.open && range.end == window.num_rows();
            open |= goes_on;
            rows.push_chunk(&window.slice(range.start, range.len()))?;
            Ok::<_, Error>(LargeSide { rows, open: goes_on, matched: None })
        };
        let key = current.left.keys.as_ref().map(|keys| keys.slice(left.start, 1));
        let sides = (side(&current.left, left, &self.schemas[0])?, side(&current.right, right, &self.schemas[1])?);
        Ok(Large { group: LargeGroup::new(sides.0, sides.1, false), key: key.filter(|_| open) })
    }

    /// The group at the end of a window, if a side may bring more of it.
    fn carry(&self, current: Current<E::Keys>) -> Result<Option<Carried<E::Keys>>> {
        if self.large.is_some() {
            return Ok(None);
        }
        let Current { left, right, continued, .. } = current;
        let open = |side: &WindowSide<E::Keys>| if side.open { side.last_key() } else { None };
        // If both are open, both end with the bound.
        let Some(key) = open(&left).or_else(|| open(&right)) else { return Ok(None) };
        let (had_left, had_right) = match continued {
            Some((old, left, right)) if old.value(0) == key.value(0) => (left, right),
            _ => (false, false),
        };
        let carry = |side: &WindowSide<E::Keys>, had: bool, other_open: bool| {
            let tail = side.tail(&key);
            let seen = had || tail > 0;
            // Only pairs need the rows themselves, and a null key never pairs.
            if tail == 0 || !(other_open && self.outlet.needs_pairs()) || key.has_null(0) {
                return CarriedSide { seen, ..CarriedSide::default() };
            }
            let window = side.rows.window();
            let from = window.num_rows() - tail;
            let matched = side.matched.slice(side.rows.carried_rows() + from, tail);
            CarriedSide { rows: Some(window.slice(from, tail)), matched, seen }
        };
        let (left, right) = (carry(&left, had_left, right.open), carry(&right, had_right, left.open));
        Ok(Some(Carried { key, left, right }))
    }
}
