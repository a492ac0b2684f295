//! What a plan computes: what each kind of it tells of itself, and the kernel that it becomes.

use std::sync::Arc;

use crate::error::Result;
use crate::merge::{Kernel, SourceInputs};
use crate::metrics::Counters;
use crate::plan::resolve::Resolved;

pub(super) mod sealed {
    pub trait Sealed {}
}

/// Rows of the source `of` matter only if their key is in the source `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Driver {
    pub(crate) from: usize,
    pub(crate) of: usize,
    /// Whatever it brings.
    pub(crate) always: bool,
}

/// What a [`Plan`](crate::Plan) computes. Implemented by [`Scan`](crate::Scan), [`Join`](crate::Join), [`CoGroup`](crate::CoGroup),
/// [`CoGroupChunks`](crate::CoGroupChunks) and [`Aggregate`](crate::Aggregate), and by nothing else.
pub trait PlanOperation: sealed::Sealed + Clone + Send + Sync + 'static {
    /// What the plan yields.
    type Item: Send + 'static;

    /// The operation in a word or two, for explaining.
    #[doc(hidden)]
    fn describe(&self) -> String;

    /// The machine for one slot.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn kernel(
        &self,
        sources: Vec<SourceInputs>,
        resolved: &Resolved,
        counters: &Arc<Counters>,
    ) -> Result<Box<dyn Kernel<Item = Self::Item>>>;

    /// The columns whose equality makes a key group.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn key<'a>(&self, resolved: &'a Resolved) -> &'a [String] {
        &resolved.key
    }

    /// The number of rows of an item.
    #[doc(hidden)]
    fn rows(item: &Self::Item) -> usize;

    /// The source whose keys decide about another's rows, if it is worth reading them first.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: only this crate calls it")]
    fn driver(&self, _resolved: &Resolved) -> Option<Driver> {
        None
    }

    /// Whether a slot yields nothing, given which sources have runs in it.
    #[doc(hidden)]
    fn yields_nothing(&self, has_runs: &[bool]) -> bool {
        !has_runs.contains(&true)
    }
}
