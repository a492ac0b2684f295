//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Failure;

const HELP: &str = "\
Writes TPC-H orders and lineitem as sort-merge-bucket datasets, joins them on the order key without a shuffle, checks the
result against the generator's rows and prints what each step took.

  --scale-factor F       1.5 million orders and 6 million lines per unit [default: 1]
  --buckets N            buckets of both datasets [default: 64]
  --out DIR              folder of the datasets, some 230 MB per unit of scale factor [default: data/tpch]
  --store URL            where the datasets lie instead, such as s3://bucket/tpch, with the usual AWS_* settings in the
                         environment; --out is then only for the files of writes that exceed their memory budget, and the
                         scan fetches whole files first
  --memory-budget-mb N   memory that a write may use for buffering and sorting [default: 1024]
  --threads N            threads of writes, scans and joins [default: all cores]
  --repeat N             how often scans and joins run, in turn; the median counts [default: 3]
  --reuse                join what an earlier run of the same scale factor and bucket count left there
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) scale_factor: f64,
    pub(crate) buckets: u32,
    pub(crate) out: PathBuf,
    /// A URL, or `out` if there is none.
    pub(crate) store: Option<String>,
    /// Bytes.
    pub(crate) memory_budget: usize,
    pub(crate) threads: NonZeroUsize,
    pub(crate) repeat: NonZeroUsize,
    pub(crate) reuse: bool,
}

impl Options {
    /// The options, or `None` if only help was wanted.
    pub(crate) fn from_args() -> Result<Option<Self>, Failure> {
        let mut options = Self {
            scale_factor: 1.0,
            buckets: 64,
            out: "data/tpch".into(),
            store: None,
            memory_budget: sort_merge_bucket::DEFAULT_MEMORY_BUDGET,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            repeat: NonZeroUsize::MIN.saturating_add(2),
            reuse: false,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("scale-factor") => options.scale_factor = args.value()?.parse()?,
                Long("buckets") => options.buckets = args.value()?.parse()?,
                Long("out") => options.out = args.value()?.into(),
                Long("store") => options.store = Some(args.value()?.string()?),
                Long("memory-budget-mb") => {
                    let megabytes: usize = args.value()?.parse()?;
                    options.memory_budget = megabytes.checked_mul(1 << 20).ok_or("--memory-budget-mb is too large")?;
                }
                Long("threads") => options.threads = args.value()?.parse()?,
                Long("repeat") => options.repeat = args.value()?.parse()?,
                Long("reuse") => options.reuse = true,
                Long("help") | Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        // Also refuses NaN. Below this the generator's 16 parts have no orders each.
        if !(options.scale_factor >= 0.001 && options.scale_factor.is_finite()) {
            return Err("--scale-factor is a number from 0.001".into());
        }
        Ok(Some(options))
    }
}
