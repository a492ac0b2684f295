//! Runs plans: the async shell around the kernels, which feeds them from run streams and hands on what they make.
//!
//! * `stream`: all slots over several tasks, or one slot in the caller's own.
//! * `slot`: one part of a plan: its runs and its kernel.
//! * `look_up`: the rows of a few keys.
//! * `probe`: the keys of one side of a join, read before the other side.

mod look_up;
mod probe;
mod slot;
mod stream;

pub(crate) use slot::SlotRun;
pub use stream::{Parallelism, PlanStream, SlotItem, SlotStream};
