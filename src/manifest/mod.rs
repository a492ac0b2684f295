//! What a version of a dataset is: the `model`, its JSON `codec` (on the text form of `json`), key `bounds` and the `invariants`. Knows no I/O.

mod bounds;
mod codec;
mod invariants;
mod json;
mod model;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use bounds::{DisplayKey, key_at};
pub(crate) use codec::{Document, RunJson, check_writable, decode, decode_runs, encode, encode_runs};
#[cfg(test)]
pub(crate) use codec::{Tombstone, encode_tombstone};
pub use invariants::Violation;
pub(crate) use invariants::{Violations, check};
pub use model::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub(crate) use model::{MAX_FENCES, Manifest, RECENT_WRITE_IDS, RecentWrite};
