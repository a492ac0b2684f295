//! What is held in memory, by an allocator that counts the whole process: a binary of its own, so that nothing else runs meanwhile.
//!
//! * `plans`: joins, merges and writes, against what their docs say; `damage`: what damaged and hostile objects can make a reader hold.
//!
//! The allocator counts the whole process, so that the cases run one after the other, in one test.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod plans;

#[cfg(test)]
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
