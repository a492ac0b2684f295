//! This crate's side of the comparison: prepares data, and runs one workload once. Prints one line of JSON.
//!
//! `--help` lists the commands.

mod bucket;
mod columns;
mod floor;
mod generate;
mod join;
mod listening;
mod plays;
mod question;
mod reduce;
mod select;
mod skew;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use serde_json::{Value, json};
use sort_merge_bucket::{DEFAULT_BATCH_SIZE, Dataset, DynamicFilters, WriteOptions};

use question::Question;

/// Whatever went wrong; the program ends with it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The two tables and their keys, in the order of the join.
const TABLES: [(&str, &str); 2] = [("orders", "o_orderkey"), ("lineitem", "l_orderkey")];

/// The table of T4, in the form of `--table`.
const LINEITEM: &str = "lineitem=l_orderkey";

const HELP: &str = "\
compare-ours COMMAND [OPTION]...

  generate --sf F --to DIR              write TPC-H orders and lineitem, ordered by key, as two Parquet files
  plays --users N --weeks N --to DIR    write the plays of N users [default: 20000] in N weeks [default: 1] as a Parquet file, ordered by time
         [--weekly]                     as a file per week
  columns --from DIR                    the bytes of each column of all Parquet files below a folder, and of all files
  bucket --from DIR --to DIR            write the Parquet files of a folder as two datasets
         [--buckets N] [--budget-mb N]  buckets of each [default: 64], and memory of the write [default: 1024]
         [--table NAME=KEY[,SORT]...]   a file, with its key and sort columns [default: the two of TPC-H]
         [--batch-rows N]               rows that the writer is given at once [default: 8192]
         [--options JSON]               what differs from the crate's default options of a write
  write T4 --from DIR --to DIR          write lineitem alone, and answer T4 from what was written
  skew CASE --sf F --to DIR             write two datasets with a hot key: even (none), 5kx5k, 12Mx1 or 3Mx3k
  join QUESTION --from DIR --sf F       answer T1, T2, T3-0.1, T3-1, T3-keys or T7-CASE from the datasets in a folder
         [--filters auto|always|never]  whether the keys of one side choose the rows of the other [default: auto]
         [--latency-ms N]               how long the store takes for every read, beside reading [default: 0]
  listening T5 --from DIR               the year of every user, from 52 weekly datasets in a folder
  listening states --from DIR --to DIR  store the states of 51 weeks, and what is merged of them
  listening T6-read|T6-store|T6-tree --from DIR --states DIR --to DIR
                                        the year of every user, from the plays of week 52 and a copy of the stored states
  scan QUESTION --from DIR --sf F       the same columns and reductions by parquet's own reader, and no join; `plays` reads all columns of plays
  select --every N --from DIR           price and comment of the lines of one in N orders [default: 100], by parquet's own reader

  --threads N                           threads of every command but generate [default: 2]
";

#[derive(Debug, Default)]
struct Options {
    command: Vec<String>,
    from: PathBuf,
    to: PathBuf,
    /// Of stored states, which stay as they are.
    states: PathBuf,
    scale_factor: f64,
    buckets: u32,
    /// Bytes.
    budget: usize,
    /// Of a write, but for its budget and folder.
    write: WriteOptions,
    threads: usize,
    every: u64,
    filters: DynamicFilters,
    latency: Duration,
    users: u64,
    weeks: u64,
    weekly: bool,
    batch_rows: usize,
    /// Tables with their key and sort columns, if not those of TPC-H.
    tables: Vec<(String, Vec<String>)>,
}

impl Options {
    /// The options, or `None` if only help was wanted.
    fn from_args() -> Result<Option<Self>, Failure> {
        let mut options = Self {
            buckets: 64,
            budget: 1 << 30,
            threads: 2,
            every: 100,
            users: 20_000,
            weeks: 1,
            batch_rows: DEFAULT_BATCH_SIZE,
            ..Self::default()
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Value(word) => options.command.push(word.string()?),
                Long("from") => options.from = args.value()?.into(),
                Long("to") => options.to = args.value()?.into(),
                Long("states") => options.states = args.value()?.into(),
                Long("sf") => options.scale_factor = args.value()?.parse()?,
                Long("buckets") => options.buckets = args.value()?.parse()?,
                Long("budget-mb") => options.budget = args.value()?.parse::<usize>()? << 20,
                Long("users") => options.users = args.value()?.parse()?,
                Long("weeks") => options.weeks = args.value()?.parse()?,
                Long("weekly") => options.weekly = true,
                Long("batch-rows") => options.batch_rows = args.value()?.parse()?,
                Long("table") => {
                    let table = args.value()?.string()?;
                    let (name, columns) = table.split_once('=').ok_or("--table is NAME=KEY[,SORT]...")?;
                    options.tables.push((name.into(), columns.split(',').map(String::from).collect()));
                }
                Long("filters") => {
                    options.filters = match args.value()?.string()?.as_str() {
                        "auto" => DynamicFilters::Auto,
                        "always" => DynamicFilters::Always,
                        "never" => DynamicFilters::Never,
                        other => return Err(format!("--filters is auto, always or never, not {other}").into()),
                    }
                }
                Long("latency-ms") => options.latency = Duration::from_millis(args.value()?.parse()?),
                Long("every") => options.every = args.value()?.parse()?,
                Long("options") => options.write = serde_json::from_str(&args.value()?.string()?)?,
                Long("threads") => options.threads = args.value()?.parse()?,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Some(options))
    }
}

fn main() -> Result<(), Failure> {
    let Some(mut options) = Options::from_args()? else {
        print!("{HELP}");
        return Ok(());
    };
    let threads = NonZeroUsize::new(options.threads).ok_or("--threads is at least 1")?;
    let words: Vec<&str> = options.command.iter().map(String::as_str).collect();
    let line = match words[..] {
        ["generate"] => generate::generate(options.scale_factor, &options.to)?,
        ["plays"] => plays::plays(options.users, options.weeks, options.weekly, &options.to)?,
        ["columns"] => columns::columns(&options.from)?,
        ["bucket"] => runtime(threads)?.block_on(bucket::bucket(&options))?,
        ["skew", case] => runtime(threads)?.block_on(skew::skew(case, &options))?,
        ["join", question] => {
            let question = Question::parse(question, options.scale_factor)?;
            let runtime = runtime(threads)?;
            let store = runtime.block_on(join::store(&options))?;
            measure(|| runtime.block_on(join::join(question, &store, &options, threads)))?
        }
        ["write", "T4"] => {
            let runtime = runtime(threads)?;
            let line = LINEITEM.split_once('=').map(|(table, key)| (table.to_owned(), vec![key.to_owned()]));
            options.tables = line.into_iter().collect();
            if options.to.exists() {
                std::fs::remove_dir_all(&options.to)?;
            }
            let mut line = measure(|| runtime.block_on(bucket::bucket(&options)).map(|_| question::Answer::new()))?;
            options.from.clone_from(&options.to);
            let store = runtime.block_on(join::store(&options))?;
            let dataset = runtime.block_on(Dataset::open(Arc::clone(&store), "lineitem"))?;
            line["bytes_written"] = dataset.statistics().bytes.into();
            line["answer"] = json!(runtime.block_on(join::join(Question::Written, &store, &options, threads))?);
            line
        }
        ["listening", "T5"] => {
            let runtime = runtime(threads)?;
            measure(|| runtime.block_on(listening::from_plays(&options, threads)))?
        }
        ["listening", "states"] => runtime(threads)?.block_on(listening::store_states(&options, threads))?,
        ["listening", question] => {
            let runtime = runtime(threads)?;
            listening::copy(&options.states, &options.to)?;
            let mut found = None;
            let mut line = measure(|| {
                let refreshed = runtime.block_on(listening::from_states(question, &options, threads))?;
                let answer = refreshed.answer.clone();
                found = Some(refreshed);
                Ok(answer)
            })?;
            let found = found.ok_or("nothing was measured")?;
            line["bytes_written"] = found.written.into();
            line["phases"] = found.phases.into();
            line
        }
        ["scan", question] => {
            let question = Question::parse(question, options.scale_factor)?;
            let datasets = runtime(threads)?.block_on(floor::runs(question, &options.from))?;
            measure(|| floor::scan(question, &datasets, threads))?
        }
        ["select"] => {
            let mut runs = runtime(threads)?.block_on(floor::runs(Question::Narrow, &options.from))?;
            let lineitem = runs.pop().ok_or("no lineitem")?;
            let wanted = select::find(&lineitem, options.every)?;
            measure(|| select::read(&wanted, threads))?
        }
        _ => return Err(format!("no such command\n\n{HELP}").into()),
    };
    println!("{line}");
    Ok(())
}

fn runtime(threads: NonZeroUsize) -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_time().build()?)
}

/// Runs `work` and says how long it took, on the clock and of all processors, what it answered and how much it read.
fn measure(work: impl FnOnce() -> Result<question::Answer, Failure>) -> Result<Value, Failure> {
    let (read, busy, started) = (bytes_read(), processor_seconds(), Instant::now());
    let answer = work()?;
    let seconds = started.elapsed().as_secs_f64();
    let read = bytes_read().zip(read).map(|(now, before)| now - before);
    let busy = processor_seconds().zip(busy).map(|(now, before)| now - before);
    Ok(json!({ "seconds": seconds, "processor_seconds": busy, "bytes_read": read, "answer": answer }))
}

/// What the process has read from files so far, out of the page cache or not. Only Linux tells.
fn bytes_read() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

/// What all threads of the process have computed so far, to a hundredth. Only Linux tells.
pub(crate) fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name of the program, which may hold anything, `utime` and `stime` are the 12th and 13th.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}
