//! A year of listening, from raw events to what every user hears at its end:
//!
//! 1. simulate what users listen to, week by week;
//! 2. write it as raw events: Avro files in hourly partitions, in order of time, as an event-delivery system leaves them;
//! 3. read them back and write a dataset of plays and one of playback contexts for each week, and one of users, all bucketed and sorted
//!    by user;
//! 4. join plays and contexts of each week, and aggregate them by user: the week's partial, with the exact sums of every song;
//! 5. merge the partials into quarters and a year, without reading a play again;
//! 6. join users with their year, and write the summaries: minutes, top songs, artists and genres, devices;
//! 7. read them back, check them against what the raw events say, and print a few.
//!
//! A second run with one more week, or with late events of an old one, does only what that makes necessary, and says what.
//!
//! Everything lies in one folder, so that other tools can check it, or the datasets wherever `--store` says. `cargo run --release --example wrapped -- --help` lists the options.
#![expect(clippy::print_stdout, reason = "a command-line program")]

mod calendar;
mod catalogue;
mod datasets;
mod events;
mod metered;
mod names;
mod options;
mod raw;
mod report;
mod rollup;
mod simulate;
mod summary;
mod witness;

use std::fs;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use indicatif::{DecimalBytes, HumanCount};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sort_merge_bucket::Location;

use metered::{Meter, Metered};
use options::Options;
use raw::{Kind, Raw};
use report::Step;
use simulate::Simulation;
use summary::Summaries;
use witness::Witness;

/// Whatever went wrong; the program ends with it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Users 1 to this are printed, and checked in every detail.
const SHOWN: i64 = 3;

fn main() -> Result<(), Failure> {
    let Some(options) = Options::from_args()? else { return Ok(()) };
    prepare(&options)?;
    let Options { users, weeks, late, seed, out, store, buckets } = &options;
    let (place, shown) = match store {
        Some(url) => (Location::from_env(url)?, url.clone()),
        None => (Location::local(out)?, out.display().to_string()),
    };
    println!("{} users, {weeks} weeks, seed {seed}, {buckets} buckets, in {shown}", HumanCount(u64::from(*users)));
    if let Some(week) = late {
        println!("late events of {week}");
    }
    let (store, meter) = Metered::new(PrefixStore::new(place.store(), place.path().clone()));
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        clear(&options, &store).await?;
        run(&options, &store, &meter).await
    })
}

async fn run(options: &Options, store: &Arc<dyn ObjectStore>, meter: &Meter) -> Result<(), Failure> {
    let raw = Raw::new(&options.out);
    Step::print_titles();
    // Blocks, but nothing else runs yet.
    let [simulated, events] = events::write(options, &raw)?;
    simulated.print();
    events.print();

    let (datasets, witness, written) = datasets::write(options, store, &raw, Witness::of(1..=SHOWN), meter).await?;
    written.print();

    let listening = rollup::listening(store)?;
    let (year, partials, refreshed) = rollup::refresh(&listening, &datasets, meter).await?;
    refreshed.iter().for_each(Step::print);
    let (wrapped, summarised) = rollup::summaries(&listening, &datasets.users, &year, meter).await?;
    summarised.print();

    let summaries = Summaries::read(&wrapped, SHOWN).await?;
    assert_eq!(summaries.plays as u64, witness.plays, "every play counts once");
    assert_eq!(summaries.ms_played, witness.ms_played, "so does every millisecond");
    let found: Vec<_> = summaries.some.iter().map(|summary| (summary.user_id, &summary.listening)).collect();
    let expected: Vec<_> = witness.listening().collect();
    assert_eq!(found, expected.iter().map(|(user, listening)| (*user, listening)).collect::<Vec<_>>());

    let per_user = |bytes: u64| DecimalBytes(bytes / wrapped.statistics().rows.max(1));
    println!(
        "\nA user: {} of plays and contexts, {} of weekly partials, {} of the year, {} of the summary.\n",
        per_user(datasets.bytes()),
        per_user(partials),
        per_user(year.statistics().bytes),
        per_user(wrapped.statistics().bytes)
    );
    for summary in &summaries.some {
        println!("{summary}");
    }
    println!("All plays and minutes are those of the raw events; so is every number of these users.");
    Ok(())
}

/// What raw events and datasets depend on, remembered beside them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    simulation: u32,
    users: u32,
    seed: u64,
    /// Of the datasets alone.
    #[serde(default)]
    buckets: Option<u32>,
}

impl Record {
    fn new(options: &Options, buckets: Option<u32>) -> Self {
        Self { simulation: Simulation::VERSION, users: options.users, seed: options.seed, buckets }
    }
}

/// The file that tells a folder of ours, and of which raw events.
const RECORD: &str = "simulation.json";

/// The object that tells of which datasets.
const DATASETS_RECORD: &str = "datasets.json";

/// The folders of datasets.
const DATASETS: [&str; 5] =
    [Kind::Plays.folder(), Kind::Contexts.folder(), Kind::Users.folder(), rollup::LISTENING, rollup::WRAPPED];

/// Makes the folder ready: raw events of another simulation go.
fn prepare(options: &Options) -> Result<(), Failure> {
    let out = &options.out;
    let record = Record::new(options, None);
    let file = out.join(RECORD);
    fs::create_dir_all(out)?;
    match fs::read_to_string(&file) {
        Ok(text) if serde_json::from_str::<Record>(&text).is_ok_and(|left| left == record) => {}
        Ok(_) if out.join(Raw::FOLDER).exists() => fs::remove_dir_all(out.join(Raw::FOLDER))?,
        Ok(_) => {}
        // Nothing is removed from a folder that is not ours.
        Err(_) if fs::read_dir(out)?.next().is_none() => {}
        Err(_) => return Err(format!("--out is not empty and not of an earlier run: {}", out.display()).into()),
    }
    fs::write(file, serde_json::to_string_pretty(&record)?)?;
    Ok(())
}

/// Makes the store ready: datasets of other raw events or another bucket count go.
async fn clear(options: &Options, store: &Arc<dyn ObjectStore>) -> Result<(), Failure> {
    let record = Record::new(options, Some(options.buckets));
    let marker = Path::from(DATASETS_RECORD);
    match store.get(&marker).await {
        Ok(found) => {
            if serde_json::from_slice::<Record>(&found.bytes().await?).is_ok_and(|left| left == record) {
                return Ok(());
            }
        }
        // The folder of raw events was found to be ours.
        Err(object_store::Error::NotFound { .. })
            if options.store.is_none() || store.list(None).next().await.is_none() => {}
        Err(object_store::Error::NotFound { .. }) => {
            return Err("--store is not empty and not of an earlier run".into());
        }
        Err(e) => return Err(e.into()),
    }
    for folder in DATASETS.map(Path::from) {
        let objects = store.list(Some(&folder)).map_ok(|object| object.location).boxed();
        store.delete_stream(objects).try_collect::<Vec<_>>().await?;
    }
    store.put(&marker, serde_json::to_string_pretty(&record)?.into()).await?;
    Ok(())
}
