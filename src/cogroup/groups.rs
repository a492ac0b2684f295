//! What co-group plans yield: batches of groups, by offsets into the rows of each source.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};

/// The names of a plan's sources, in order.
pub(crate) type SourceNames = Arc<[String]>;

/// A batch of whole key groups: for each key, in key order, all rows of every source.
///
/// ```text
/// keys     plays.rows   plays offsets    users.rows   users offsets
/// 7        7 7 7        0..3             7            0..1
/// 9                     3..3             9            1..2
/// 12       12 12        3..5                          2..2
/// ```
///
/// Rows of one key stand by source, run and position. Null is a key of its own, as in GROUP BY, and comes last.
#[derive(Debug, Clone)]
pub struct CoGroupBatch {
    pub(crate) keys: RecordBatch,
    pub(crate) names: SourceNames,
    pub(crate) sources: Vec<SourceGroups>,
}

/// The rows of one source in a batch of groups.
#[derive(Debug, Clone)]
pub(crate) struct SourceGroups {
    pub(crate) rows: RecordBatch,
    /// Where each group's rows begin; one more entry than groups.
    pub(crate) offsets: Vec<usize>,
}

impl CoGroupBatch {
    /// The number of groups; at least one.
    pub fn len(&self) -> usize {
        self.keys.num_rows()
    }

    /// Whether there are no groups; never true for a batch that a plan yields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key columns, one row per group, in key order.
    pub fn keys(&self) -> &RecordBatch {
        &self.keys
    }

    /// All rows of a source in this batch, group after group. `None` if the plan has no source of this name.
    pub fn rows(&self, source: &str) -> Option<&RecordBatch> {
        Some(&self.sources[self.index_of(source)?].rows)
    }

    /// Where the groups begin and end in [`rows`](Self::rows): group `g` has the rows `offsets[g]..offsets[g + 1]`. `None` if the plan has no
    /// source of this name.
    pub fn offsets(&self, source: &str) -> Option<&[usize]> {
        Some(&self.sources[self.index_of(source)?].offsets)
    }

    /// The groups one by one, borrowed.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = KeyGroup<'_>> {
        (0..self.len()).map(|index| KeyGroup { batch: self, index })
    }

    fn index_of(&self, source: &str) -> Option<usize> {
        self.names.iter().position(|name| name == source)
    }
}

/// One key and the rows that each source has of it, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct KeyGroup<'a> {
    batch: &'a CoGroupBatch,
    index: usize,
}

impl<'a> KeyGroup<'a> {
    /// The position of this group in [`CoGroupBatch::keys`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// The key columns, one row.
    pub fn key(&self) -> RecordBatch {
        self.batch.keys.slice(self.index, 1)
    }

    /// Whether a component of the key is null.
    pub fn key_has_null(&self) -> bool {
        self.batch.keys.columns().iter().any(|column| column.is_null(self.index))
    }

    /// The positions of this group's rows in [`CoGroupBatch::rows`]; empty if the source has none. `None` if the plan has no source of this name.
    pub fn range(&self, source: &str) -> Option<Range<usize>> {
        let offsets = self.batch.offsets(source)?;
        Some(offsets[self.index]..offsets[self.index + 1])
    }

    /// This group's rows of a source: a slice without a copy. `None` if the plan has no source of this name.
    pub fn rows(&self, source: &str) -> Option<RecordBatch> {
        let range = self.range(source)?;
        Some(self.batch.rows(source)?.slice(range.start, range.len()))
    }
}

/// A stretch of key groups that may end inside a group, which the next chunk of the slot then continues.
///
/// Rows come strictly by key, then source, then run, then position: the chunks of one large group bring all rows of the first source before
/// any of the second. No group is too large for this form.
#[derive(Debug, Clone)]
pub struct CoGroupChunk {
    pub(crate) groups: CoGroupBatch,
    pub(crate) continues: bool,
}

impl CoGroupChunk {
    /// The groups, or what this chunk brings of them.
    pub fn groups(&self) -> &CoGroupBatch {
        &self.groups
    }

    /// Whether the first group is the last one of the slot's previous chunk, continued.
    pub fn continues(&self) -> bool {
        self.continues
    }
}
