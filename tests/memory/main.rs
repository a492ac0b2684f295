//! What is held in memory, by an allocator that counts the whole process: a binary of its own, so that nothing else runs meanwhile.
//!
//! * `plans`: joins, merges and writes, against what their docs say.

#[cfg(test)]
mod plans;
