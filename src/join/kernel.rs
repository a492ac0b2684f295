//! The join's state machine: windows in, batches out.
//!
//! A window may end inside a key group. Whether the group's rows have partners at all is known at once (see `Ties::Together`); what may
//! still come is *more* rows of a side that is still open. So the rows of the other side are **carried** until the open side has moved on:
//!
//! ```text
//! window 1   left  [… 7]          right [… 7 7] open      carried: left 7
//! window 2   left  [8 9]          right [7 7 8]           7 × the two new 7s, then nothing carried
//! ```
//!
//! A group of `l × r` rows carries the rows of the side that ends first, plus as many of the other as came meanwhile.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;

use crate::error::{Error, Result};
use crate::join::output::{OutputLayout, SideRows};
use crate::join::pairing::{Continued, PairSide, Pairing};
use crate::join::{JoinKind, Shape};
use crate::merge::{
    Align, Emit, Extract, ForKeys, Kernel, Keys, SourceInputs, SourceRows, Step, Ties, Window, dispatch,
};

/// What a join kernel is made of.
#[derive(Debug, Clone)]
pub(crate) struct JoinInputs {
    pub(crate) kind: JoinKind,
    /// The canonical types of the join columns.
    pub(crate) key_types: Vec<DataType>,
    pub(crate) left: SourceInputs,
    pub(crate) right: SourceInputs,
    pub(crate) output: OutputLayout,
    /// Rows per output batch, about.
    pub(crate) batch_size: usize,
}

/// The kernel of a join, for its key types.
pub(crate) fn join_kernel(inputs: JoinInputs) -> Result<Box<dyn Kernel<Item = RecordBatch>>> {
    let types = inputs.key_types.clone();
    dispatch(&types, inputs)
}

impl ForKeys for JoinInputs {
    type Output = Box<dyn Kernel<Item = RecordBatch>>;

    fn run<E: Extract>(self, extract: E) -> Result<Self::Output> {
        let Self { kind, key_types: _, left, right, output, batch_size } = self;
        Ok(Box::new(JoinKernel {
            shape: kind.shape(),
            align: Align::new(&extract, vec![left, right], Ties::Together, batch_size),
            carried: None,
            current: None,
            out: Emit::new(Arc::clone(&output.schema), batch_size),
            output,
            batch_size,
        }))
    }
}

/// A side's share of the group that a window left open.
#[derive(Debug, Default)]
struct CarriedSide {
    /// Its rows so far, if the other side may still bring more.
    rows: Option<RecordBatch>,
    /// Whether it had any.
    seen: bool,
}

/// The group that a window left open.
#[derive(Debug)]
struct Carried<K> {
    /// Its key, one row.
    key: K,
    left: CarriedSide,
    right: CarriedSide,
}

/// A window that is being paired.
#[derive(Debug)]
struct Current<K> {
    pairing: Pairing,
    left: Side<K>,
    right: Side<K>,
    /// The key of the group that came in open, and whether each side had rows of it.
    continued: Option<(K, bool, bool)>,
}

#[derive(Debug)]
struct Side<K> {
    rows: SideRows,
    keys: Option<K>,
    open: bool,
}

impl<K: Keys> Side<K> {
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

struct JoinKernel<E: Extract> {
    shape: Shape,
    align: Align<E>,
    carried: Option<Carried<E::Keys>>,
    current: Option<Current<E::Keys>>,
    output: OutputLayout,
    batch_size: usize,
    out: Emit,
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
            if let Some(batch) = self.out.pop() {
                return Ok(Step::Item(batch));
            }
            if self.current.is_some() {
                self.emit_some()?;
                continue;
            }
            match self.align.step()? {
                Step::Item(window) => self.start(window)?,
                Step::Needs(input) if !self.is_settled() => return Ok(Step::Needs(input)),
                Step::Needs(_) | Step::Done => return Ok(self.out.finish()?.map_or(Step::Done, Step::Item)),
            }
        }
    }
}

impl<E: Extract> JoinKernel<E> {
    /// Whether nothing that may still come can change the output: one side is at its end and the other alone contributes nothing.
    fn is_settled(&self) -> bool {
        self.carried.is_none()
            && (self.align.is_exhausted(0) && !self.shape.right_unmatched
                || self.align.is_exhausted(1) && !self.shape.left_unmatched)
    }

    /// Makes `window` the current one.
    fn start(&mut self, window: Window<E::Keys>) -> Result<()> {
        let Ok([left, right]) = <[SourceRows<E::Keys>; 2]>::try_from(window.sources) else {
            return Err(Error::internal("a join window has not two sides"));
        };
        if window.null_key {
            return self.start_null(left, right);
        }
        let carried = self.carried.take();
        let (key, carried_left, carried_right) = match carried {
            Some(Carried { key, left, right }) => (Some(key), left, right),
            None => (None, CarriedSide::default(), CarriedSide::default()),
        };
        // A null component equals nothing, so a group that holds one never pairs, however often it is continued.
        let matchable = key.as_ref().is_none_or(|key| !key.has_null(0));
        let continued = |carried: &CarriedSide, rows: &SourceRows<E::Keys>| Continued {
            carried: carried.rows.as_ref().map_or(0, |rows| rows.num_rows() as u32),
            seen: carried.seen,
            rows: match (&key, &rows.keys) {
                (Some(key), Some(keys)) if keys.value(0) == key.value(0) => keys.group_end(0) as u32,
                _ => 0,
            },
        };
        let (on_left, on_right) = (continued(&carried_left, &left), continued(&carried_right, &right));
        let pairing = Pairing::new(self.shape, on_left, on_right, matchable);
        let side = |carried: CarriedSide, rows: SourceRows<E::Keys>| Side {
            rows: SideRows::new(carried.rows, rows.batch),
            keys: rows.keys,
            open: rows.open,
        };
        let seen = |c: Continued| c.seen || c.rows > 0;
        self.current = Some(Current {
            pairing,
            left: side(carried_left, left),
            right: side(carried_right, right),
            continued: key.map(|key| (key, seen(on_left), seen(on_right))),
        });
        Ok(())
    }

    /// Rows with a null key have no partners.
    fn start_null(&mut self, left: SourceRows<E::Keys>, right: SourceRows<E::Keys>) -> Result<()> {
        self.carried = None;
        let rows = |rows: &SourceRows<E::Keys>| Continued { carried: 0, seen: false, rows: rows.len() as u32 };
        let pairing = Pairing::new(self.shape, rows(&left), rows(&right), false);
        let side = |rows: SourceRows<E::Keys>| Side { rows: SideRows::new(None, rows.batch), keys: None, open: false };
        self.current = Some(Current { pairing, left: side(left), right: side(right), continued: None });
        Ok(())
    }

    /// Emits the next rows of the current window; after the last ones, decides what to carry.
    fn emit_some(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let sides = (PairSide { keys: current.left.keys.as_ref() }, PairSide { keys: current.right.keys.as_ref() });
        let used_up = current.pairing.fill(&sides.0, &sides.1, self.batch_size);
        let (left, right) = (std::mem::take(&mut current.pairing.left), std::mem::take(&mut current.pairing.right));
        if !left.is_empty() {
            let batch = self.output.batch((&mut current.left.rows, left), (&mut current.right.rows, right))?;
            self.out.push(batch)?;
        }
        if used_up {
            self.carried = self.carry(current)?;
        } else {
            self.current = Some(current);
        }
        Ok(())
    }

    /// The group at the end of a window, if a side may bring more of it.
    fn carry(&self, current: Current<E::Keys>) -> Result<Option<Carried<E::Keys>>> {
        let Current { left, right, continued, .. } = current;
        let open = |side: &Side<E::Keys>| if side.open { side.last_key() } else { None };
        // If both are open, both end with the bound.
        let Some(key) = open(&left).or_else(|| open(&right)) else { return Ok(None) };
        let (had_left, had_right, same) = match continued {
            Some((old, left, right)) if old.value(0) == key.value(0) => (left, right, true),
            _ => (false, false, false),
        };
        let (left_open, right_open) = (left.open, right.open);
        let shape = self.shape;
        let carry = |side: Side<E::Keys>, had: bool, other_open: bool| -> Result<CarriedSide> {
            let tail = side.tail(&key);
            let seen = had || tail > 0;
            // Only pairs need the rows themselves, and a null key never pairs.
            if !(other_open && shape.pairs) || key.has_null(0) {
                return Ok(CarriedSide { rows: None, seen });
            }
            let window = side.rows.window();
            let new = window.slice(window.num_rows() - tail, tail);
            let rows = match side.rows.into_carried().filter(|_| same) {
                Some(old) => concat_batches(&old.schema(), [&old, &new])?,
                None => new,
            };
            Ok(CarriedSide { rows: (rows.num_rows() > 0).then_some(rows), seen })
        };
        let (left, right) = (carry(left, had_left, right_open)?, carry(right, had_right, left_open)?);
        Ok(Some(Carried { key, left, right }))
    }
}
