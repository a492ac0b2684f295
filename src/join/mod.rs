//! Two-way joins on aligned windows.
//!
//! * `pairing`: which rows of a window meet, as row lists, in pieces of bounded size.
//! * `row_list`: row indices of one side, a stretch where they follow one another.
//! * `condition`: what pairs must fulfil beyond equal keys.
//! * `output`: row indices become batches, by slices where rows stand together and by `take` elsewhere.
//! * `outlet`: the way out for row indices: conditions evaluated, matches remembered, batches of a useful size.
//! * `kept`: rows that have to wait, in memory or beyond a budget elsewhere; `large`: the pairs of key groups that are large.
//! * `kernel`: the state machine that drives all and carries a key group from one window into the next.

mod condition;
mod kept;
mod kernel;
mod large;
mod outlet;
mod output;
mod pairing;
mod row_list;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use condition::BoundCondition;
pub use condition::JoinCondition;
pub(crate) use kept::{CarryBudget, Overflow};
pub(crate) use kernel::{JoinInputs, join_kernel};
pub(crate) use output::{OutputColumn, OutputLayout};

/// The kind of a join. A null key equals nothing, as in SQL: inner and semi joins drop its rows, outer and anti joins keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinKind {
    /// Every pair of a left and a right row with the same key.
    Inner,
    /// The pairs, and every left row without a partner, its right columns null.
    Left,
    /// The pairs, and every right row without a partner, its left columns null.
    Right,
    /// The pairs, and every row of either side without a partner.
    Full,
    /// Every left row that has a partner, once; no right columns.
    LeftSemi,
    /// Every right row that has a partner, once; no left columns.
    RightSemi,
    /// Every left row that has no partner; no right columns.
    LeftAnti,
    /// Every right row that has no partner; no left columns.
    RightAnti,
}

impl JoinKind {
    /// All kinds, for tests and tools.
    pub const ALL: [Self; 8] = [
        Self::Inner,
        Self::Left,
        Self::Right,
        Self::Full,
        Self::LeftSemi,
        Self::RightSemi,
        Self::LeftAnti,
        Self::RightAnti,
    ];

    pub(crate) fn shape(self) -> Shape {
        Shape {
            pairs: matches!(self, Self::Inner | Self::Left | Self::Right | Self::Full),
            left_unmatched: matches!(self, Self::Left | Self::Full | Self::LeftAnti),
            right_unmatched: matches!(self, Self::Right | Self::Full | Self::RightAnti),
            left_matched: self == Self::LeftSemi,
            right_matched: self == Self::RightSemi,
        }
    }

    /// Whether left columns are part of the output.
    pub(crate) fn has_left(self) -> bool {
        !matches!(self, Self::RightSemi | Self::RightAnti)
    }

    /// Whether right columns are part of the output.
    pub(crate) fn has_right(self) -> bool {
        !matches!(self, Self::LeftSemi | Self::LeftAnti)
    }
}

impl fmt::Display for JoinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::LeftSemi => "left semi",
            Self::RightSemi => "right semi",
            Self::LeftAnti => "left anti",
            Self::RightAnti => "right anti",
        })
    }
}

/// A join kind as what it emits for a key group with `l` left and `r` right rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The `l × r` pairs.
    pub(crate) pairs: bool,
    /// The left rows if `r = 0`.
    pub(crate) left_unmatched: bool,
    /// The right rows if `l = 0`.
    pub(crate) right_unmatched: bool,
    /// The left rows, once each, if `r > 0`.
    pub(crate) left_matched: bool,
    /// The right rows, once each, if `l > 0`.
    pub(crate) right_matched: bool,
}
