//! What a version of a dataset is: the `model`, its JSON `codec` (on the text form of `json`), key `bounds`, the `invariants`,
//! and what of old versions a `vacuum` may remove. Knows no I/O.

mod bounds;
mod codec;
mod invariants;
mod json;
mod model;
#[cfg(test)]
pub(crate) mod tests;
mod vacuum;

pub(crate) use bounds::{DisplayKey, key_at};
pub(crate) use codec::{
    Document, RunJson, Tombstone, check_writable, decode, decode_runs, encode, encode_runs, encode_tombstone,
};
pub use invariants::Violation;
pub(crate) use invariants::{Violations, check};
pub use model::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub(crate) use model::{MAX_FENCES, MAX_MANIFEST_BYTES, Manifest, RECENT_WRITE_IDS, RecentWrite};
pub(crate) use vacuum::{Cutoffs, History, Listed, Removal};
