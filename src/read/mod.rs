//! Reading: what a plan reads (`source`), how a dataset's columns become those of its source (`adapt`), and the rows of one run as a stream of
//! batches (`run_stream`).

mod adapt;
mod run_stream;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use adapt::Adapt;
pub(crate) use run_stream::{RunReader, RunStream};
pub use source::Source;
