//! What a version of a dataset is: the `model`, its JSON `codec` (on the text form of `json`), key `bounds` and the `invariants`. Knows no I/O.

mod bounds;
mod codec;
mod invariants;
mod json;
mod model;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use bounds::{DisplayKey, key_at};
pub(crate) use codec::{
    Document, RunJson, Tombstone, check_writable, decode, decode_runs, encode, encode_runs, encode_tombstone, key_types,
};
pub use invariants::Violation;
pub(crate) use invariants::{Violations, check, require};
pub use model::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub(crate) use model::{MAX_BOUND_LENGTH, MAX_FENCES, Manifest, RECENT_WRITE_IDS, RecentWrite};
