//! Placement: which bucket a row lies in (`function`, by the hash in `murmur3`) and which buckets of different datasets meet (`align`).

mod align;
mod function;
mod murmur3;
#[cfg(test)]
mod tests;

pub(crate) use align::{greatest_common_count, slot_of};
pub(crate) use function::{bucket_ids, bucket_of, hash_rows};
