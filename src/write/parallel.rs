//! How the writer uses the machine: how much at once, in pieces of which size, and how work is split.

use crate::write::options::WriteOptions;

/// The most rows of a piece that is gathered, spilled, merged or encoded at once.
pub(super) const PIECE_ROWS: usize = 8192;

/// The most bytes of a piece, whatever the budget: past this size pieces gain nothing.
const MAX_PIECE_BYTES: u64 = 4 << 20;

/// The least bytes of a piece: below this size the cost of handling a piece outweighs the memory it saves.
const MIN_PIECE_BYTES: u64 = 16 << 10;

/// What part of the budget a piece is. A merge holds a piece of every input and as much again of output, in a quarter of the budget: 128
/// inputs for one bucket at once, 16 for eight.
const PIECES_PER_BUDGET: u64 = 1024;

/// What the encoding of one run needs besides its input, in row groups: the open one with pages as they were before compression, and the finished one.
const ROW_GROUPS_PER_ENCODER: usize = 2;

/// How the memory budget is divided: while rows come, three eighths are filled and as much is being sorted and spilled; in the end, beside a buffer
/// that is not full, a quarter merges and a quarter encodes.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Rows are sorted and spilled when the buffer holds this many bytes, those counted that sorting them takes.
    pub(super) buffer_bytes: usize,
    /// A piece ends with the row that reaches this many bytes.
    pub(super) piece_bytes: u64,
    /// How many computations run at once.
    pub(super) jobs: usize,
    /// How many buckets are merged or encoded at once.
    pub(super) encoders: usize,
    /// How many spills are merged at once.
    pub(super) fan_in: usize,
    /// How many bytes of finished runs may wait for the store.
    pub(super) upload_bytes: usize,
}

impl Limits {
    /// For runs whose columns take `leaf_bytes` while they are encoded, beside the row group.
    pub(super) fn new(options: &WriteOptions, leaf_bytes: usize) -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let quarter = options.memory_budget / 4;
        let piece_bytes = (options.memory_budget as u64 / PIECES_PER_BUDGET).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES);
        let encoder_bytes = options.row_group_bytes.saturating_mul(ROW_GROUPS_PER_ENCODER).saturating_add(leaf_bytes);
        let encoders = (quarter / encoder_bytes.max(1)).clamp(1, jobs);
        let fan_in = (quarter as u64 / (2 * piece_bytes * encoders as u64)).clamp(4, 1024) as usize;
        let upload_bytes = options.row_group_bytes.saturating_mul(2 * encoders).min(u32::MAX as usize);
        Self { buffer_bytes: (quarter + quarter / 2).max(1), piece_bytes, jobs, encoders, fan_in, upload_bytes }
    }
}

/// Splits `weights` into at most `parts` consecutive ranges of about the same weight, none empty.
pub(super) fn split_evenly(weights: &[usize], parts: usize) -> Vec<std::ops::Range<usize>> {
    let total: usize = weights.iter().sum();
    let share = total.div_ceil(parts.max(1)).max(1);
    let mut ranges = vec![];
    let (mut start, mut weight) = (0, 0);
    for (i, w) in weights.iter().enumerate() {
        weight += w;
        if weight >= share {
            ranges.push(start..i + 1);
            (start, weight) = (i + 1, 0);
        }
    }
    if start < weights.len() {
        ranges.push(start..weights.len());
    }
    ranges
}
