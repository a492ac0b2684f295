//! Placement: which bucket a row lies in (`function`) and which buckets of different datasets meet (`align`).

mod align;
mod function;
#[cfg(test)]
mod tests;

pub(crate) use align::{greatest_common_count, slot_of};
pub(crate) use function::{bucket_ids, bucket_of, hash_rows};
