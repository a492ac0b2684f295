//! A year of listening, from raw events to what every user hears at the end of the year:
//!
//! 1. simulate what users listen to, week by week;
//! 2. write it as raw events: Avro files in hourly partitions, in order of time, as an event-delivery system leaves them;
//! 3. read them back and write a dataset of plays and one of playback contexts for each week, and one of users, all bucketed and sorted
//!    by user.
//!
//! Everything lies in one folder, so that other tools can check it. `cargo run --release --example wrapped -- --help` lists the options.
#![expect(clippy::print_stdout, reason = "a command-line program")]

mod calendar;
mod catalogue;
mod datasets;
mod events;
mod options;
mod raw;
mod report;
mod simulate;

use std::fs;
use std::sync::Arc;

use indicatif::HumanCount;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};

use options::Options;
use raw::{Kind, Raw};
use report::Step;
use simulate::Simulation;

/// Whatever went wrong; the program ends with it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let Some(options) = Options::from_args()? else { return Ok(()) };
    prepare(&options)?;
    let Options { users, weeks, seed, out, buckets } = &options;
    println!(
        "{} users, {weeks} weeks, seed {seed}, {buckets} buckets, in {}",
        HumanCount(u64::from(*users)),
        out.display()
    );
    let raw = Raw::new(out);
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(out)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;

    Step::print_titles();
    for step in events::write(&options, &raw)? {
        step.print();
    }
    let (datasets, step) = runtime.block_on(datasets::write(&options, &store, &raw))?;
    step.print();
    assert_eq!(datasets.users.statistics().rows, u64::from(*users), "every user is written");
    for (week, plays, contexts) in &datasets.weeks {
        assert!(contexts.statistics().rows <= plays.statistics().rows, "{week}: a play has at most one context");
    }
    Ok(())
}

/// What raw events depend on, remembered beside them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    simulation: u32,
    users: u32,
    seed: u64,
}

/// Makes the folder ready: raw events of the same simulation stay, everything else that an earlier run made goes.
fn prepare(options: &Options) -> Result<(), Failure> {
    let Options { users, seed, out, .. } = options;
    let record = Record { simulation: Simulation::VERSION, users: *users, seed: *seed };
    let file = out.join("simulation.json");
    fs::create_dir_all(out)?;
    let mut folders = vec![Kind::Plays.folder(), Kind::Contexts.folder(), Kind::Users.folder()];
    match fs::read_to_string(&file) {
        Ok(text) if serde_json::from_str::<Record>(&text).is_ok_and(|left| left == record) => {}
        Ok(_) => folders.push(Raw::FOLDER),
        // Nothing is removed from a folder that is not ours.
        Err(_) if fs::read_dir(out)?.next().is_none() => {}
        Err(_) => return Err(format!("--out is not empty and not of an earlier run: {}", out.display()).into()),
    }
    for folder in folders.into_iter().map(|folder| out.join(folder)).filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder)?;
    }
    fs::write(file, serde_json::to_string_pretty(&record)?)?;
    Ok(())
}
