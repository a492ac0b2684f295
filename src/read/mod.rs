//! Reading: what a plan reads (`source`), which rows of it (`selection`), how a dataset's columns become those of its source (`adapt`), and the
//! rows of one run as a stream of batches (`run_stream`): opened (`footer`), and read row group by row group (`row_group`, `page_index`). Runs that do not
//! overlap are read one after the other (`chain`).

mod adapt;
mod chain;
mod footer;
mod page_index;
mod row_group;
mod run_stream;
mod selection;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use adapt::Adapt;
pub(crate) use chain::{Chain, ChainStream, chains};
pub(crate) use run_stream::{RunReader, RunStream};
pub(crate) use selection::{Filter, Selection};
pub use source::Source;
