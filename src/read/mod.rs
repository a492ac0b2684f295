//! Reading: what a plan reads (`source`), which rows of it (`selection`), how a dataset's columns become those of its source (`adapt`), and the
//! rows of one run as a stream of batches (`run_stream`): opened (`footer`), and read row group by row group (`row_group`, `page_index`). What the file's
//! metadata claims is first held to its bytes (`thrift`); what is verified on request is in `verify`. Runs that do not overlap are read one after the other (`chain`).

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
mod thrift;
mod verify;

pub(crate) use adapt::Adapt;
pub(crate) use chain::{Chain, ChainStream, chains};
pub(crate) use run_stream::{RunReader, RunStream};
pub(crate) use selection::{Filter, Selection};
pub use source::Source;
pub(crate) use thrift::{check_footer, check_struct};
pub use verify::Verification;
