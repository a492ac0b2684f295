//! Index lists become output: conditions are evaluated here, and which rows have found a partner is remembered.

use std::sync::Arc;

use arrow::array::{BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::join::Shape;
use crate::join::condition::BoundCondition;
use crate::join::output::{OutputLayout, SideRows};
use crate::join::pairing::{Decided, Lists};
use crate::merge::Emit;

/// Which rows of a side have found a partner; a bit per row, and none if nothing depends on it.
#[derive(Debug, Default)]
pub(super) struct Matched(Option<BooleanBufferBuilder>);

impl Matched {
    /// The first rows are known, the others have found none yet.
    pub(super) fn new(wanted: bool, first: Option<BooleanBuffer>, rows: usize) -> Self {
        Self(wanted.then(|| {
            let mut bits = BooleanBufferBuilder::new(rows);
            if let Some(first) = first {
                bits.append_buffer(&first);
            }
            bits.append_n(rows.saturating_sub(bits.len()), false);
            bits
        }))
    }

    fn set(&mut self, row: usize) {
        if let Some(bits) = &mut self.0 {
            bits.set_bit(row, true);
        }
    }

    fn get(&self, row: usize) -> bool {
        self.0.as_ref().is_some_and(|bits| bits.get_bit(row))
    }

    /// The bits of some rows, if there are bits.
    pub(super) fn slice(&self, start: usize, rows: usize) -> Option<BooleanBuffer> {
        self.0.as_ref().map(|bits| BooleanBuffer::collect_bool(rows, |row| bits.get_bit(start + row)))
    }
}

/// One side of what index lists refer to.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub(super) rows: &'a mut SideRows,
    pub(super) matched: &'a mut Matched,
    /// Where in `matched` the first row is.
    pub(super) first_row: usize,
}

/// The end of a join: takes row indices, hands out batches.
#[derive(Debug)]
pub(super) struct Outlet {
    shape: Shape,
    layout: OutputLayout,
    condition: Option<BoundCondition>,
    batch_size: usize,
    out: Emit,
}

impl Outlet {
    pub(super) fn new(
        shape: Shape,
        layout: OutputLayout,
        condition: Option<BoundCondition>,
        batch_size: usize,
    ) -> Self {
        let out = Emit::new(Arc::clone(&layout.schema), batch_size);
        Self { shape, layout, condition, batch_size, out }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn is_conditional(&self) -> bool {
        self.condition.is_some()
    }

    /// Whether pairs have to be looked at one by one.
    pub(super) fn needs_pairs(&self) -> bool {
        self.shape.pairs || self.is_conditional()
    }

    /// Whether it has to be remembered which rows of the left and of the right side found a partner.
    pub(super) fn remembers(&self) -> [bool; 2] {
        let (shape, conditional) = (self.shape, self.is_conditional());
        [
            conditional && (shape.left_unmatched || shape.left_matched),
            conditional && (shape.right_unmatched || shape.right_matched),
        ]
    }

    pub(super) fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The next finished batch.
    pub(super) fn pop(&mut self) -> Option<RecordBatch> {
        self.out.pop()
    }

    /// After the last row: the rest.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        self.out.finish()
    }

    /// Returns the rows of a walk over a window: without a condition those in the lists, with one the candidates that pass and the rows that are
    /// decided to have no partner, or one, whichever the join is after.
    pub(super) fn put(
        &mut self,
        left: &mut Side<'_>,
        right: &mut Side<'_>,
        lists: Lists,
        decided: &[Decided],
    ) -> Result<()> {
        let Some(condition) = &self.condition else {
            return self.put_rows(left.rows, right.rows, lists);
        };
        let passing = if lists.is_empty() {
            BooleanBuffer::new_unset(0)
        } else {
            let of = (lists.left.clone(), lists.right.clone());
            condition.evaluate(&condition.layout.batch((&mut *left.rows, of.0), (&mut *right.rows, of.1))?)?
        };
        let shape = self.shape;
        let mut rows = Lists::default();
        let mut passing = passing.set_indices();
        let mut next = passing.next();
        for end in decided.iter().map(Some).chain([None]) {
            let at = end.map_or(lists.len(), |decided| decided.at);
            while let Some(entry) = next.filter(|&entry| entry < at) {
                let (l, r) = (lists.left.get(entry), lists.right.get(entry));
                left.matched.set(left.first_row + l as usize);
                right.matched.set(right.first_row + r as usize);
                if shape.pairs {
                    rows.left.push_run(l, 1);
                    rows.right.push_run(r, 1);
                }
                next = passing.next();
            }
            let Some(decided) = end else { break };
            let wanted = |matched: bool, one: bool, none: bool| if matched { one } else { none };
            for row in decided.left.clone() {
                if wanted(left.matched.get(left.first_row + row as usize), shape.left_matched, shape.left_unmatched) {
                    rows.left.push_run(row, 1);
                    rows.right.push_absent(1);
                }
            }
            for row in decided.right.clone() {
                if wanted(right.matched.get(right.first_row + row as usize), shape.right_matched, shape.right_unmatched)
                {
                    rows.left.push_absent(1);
                    rows.right.push_run(row, 1);
                }
            }
        }
        self.put_rows(left.rows, right.rows, rows)
    }

    /// Returns those rows of one side that are wanted, all of which have met all their partners.
    pub(super) fn let_go(
        &mut self,
        rows: &RecordBatch,
        matched: &mut Matched,
        first_row: usize,
        is_left: bool,
        absent: &SchemaRef,
    ) -> Result<()> {
        if matched.0.is_none() {
            return Ok(());
        }
        let count = rows.num_rows() as u32;
        let mut rows = SideRows::new(None, rows.clone());
        let mut nothing = (SideRows::new(None, RecordBatch::new_empty(Arc::clone(absent))), Matched::default());
        let mut own = Side { rows: &mut rows, matched, first_row };
        let mut other = Side { rows: &mut nothing.0, matched: &mut nothing.1, first_row: 0 };
        if is_left {
            let decided = Decided { at: 0, left: 0..count, right: 0..0 };
            self.put(&mut own, &mut other, Lists::default(), &[decided])
        } else {
            let decided = Decided { at: 0, left: 0..0, right: 0..count };
            self.put(&mut other, &mut own, Lists::default(), &[decided])
        }
    }

    /// Returns rows as they are, in batches that are not too large.
    fn put_rows(&mut self, left: &mut SideRows, right: &mut SideRows, lists: Lists) -> Result<()> {
        if lists.len() <= self.batch_size {
            return if lists.is_empty() {
                Ok(())
            } else {
                self.out.push(self.layout.batch((left, lists.left), (right, lists.right))?)
            };
        }
        for start in (0..lists.len()).step_by(self.batch_size) {
            let entries = start..lists.len().min(start + self.batch_size);
            let (l, r) = (lists.left.slice(entries.clone()), lists.right.slice(entries));
            self.out.push(self.layout.batch((&mut *left, l), (&mut *right, r))?)?;
        }
        Ok(())
    }
}
