//! What a version of a dataset is: the `model`, its JSON `codec` and its `invariants`. Knows no I/O.

mod model;

pub use model::{Checksum, FORMAT_VERSION, Fence, KeyBound, KeyValue, Lineage, Operation, Run};
pub(crate) use model::{MAX_BOUND_BYTES, MAX_FENCES, Manifest, RECENT_WRITE_IDS, RecentWrite};
