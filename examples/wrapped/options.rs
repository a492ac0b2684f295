//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Failure;
use crate::calendar::Week;

const HELP: &str = "\
Simulates a year of listening as raw events, writes it as weekly sort-merge-bucket datasets, and makes of them what every user hears at
the end of the year: minutes, top songs, top artists, top genres.

  --users N     users, about 3,000 plays a year each [default: 1000]
  --weeks N     ISO weeks, beginning with 2025-W01 [default: 52]
  --late WEEK   events of this week, such as 2025-W07, that come only now: some more in every run
  --seed N      the same seed gives the same rows [default: 2025]
  --out DIR     folder of everything that is written, some 220 KB per user and year [default: target/wrapped]
  --store URL   where the datasets lie instead, such as s3://bucket/wrapped, with the usual AWS_* settings in the environment;
                raw events and the files of writes that exceed their memory budget stay in --out
  --buckets N   buckets of each dataset [default: 32]

What an earlier run of the same seed, users and buckets left in --out is used again: raw events, datasets and partials. So a second run with
one more week (--weeks 53), or with --late, does what is new and says so.
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) users: u32,
    pub(crate) weeks: u32,
    pub(crate) late: Option<Week>,
    pub(crate) seed: u64,
    pub(crate) out: PathBuf,
    /// A URL, or `out` if there is none.
    pub(crate) store: Option<String>,
    pub(crate) buckets: u32,
}

impl Options {
    /// The options, or `None` if only help was wanted.
    pub(crate) fn from_args() -> Result<Option<Self>, Failure> {
        let mut options = Self {
            users: 1000,
            weeks: 52,
            late: None,
            seed: 2025,
            out: "target/wrapped".into(),
            store: None,
            buckets: 32,
        };
        let mut late: Option<String> = None;
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("users") => options.users = args.value()?.parse()?,
                Long("weeks") => options.weeks = args.value()?.parse()?,
                Long("late") => late = Some(args.value()?.string()?),
                Long("seed") => options.seed = args.value()?.parse()?,
                Long("out") => options.out = args.value()?.into(),
                Long("store") => options.store = Some(args.value()?.string()?),
                Long("buckets") => options.buckets = args.value()?.parse()?,
                Long("help") | Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if options.users == 0 || options.weeks == 0 || options.buckets == 0 {
            return Err("--users, --weeks and --buckets are at least 1".into());
        }
        if options.weeks > 999 {
            return Err("--weeks is at most 999".into());
        }
        if let Some(name) = late {
            let week = Week::first(options.weeks).find(|week| week.to_string() == name);
            options.late = Some(week.ok_or_else(|| format!("--late is none of the weeks: {name}"))?);
        }
        Ok(Some(options))
    }
}
