//! What is printed: a table of steps, progress bars on a terminal.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that was measured.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cost: Cost,
    /// Rows that went in (writes, scans) or came out (joins).
    pub(crate) rows: u64,
    /// Bytes of the files written, or of the column chunks read.
    pub(crate) bytes: u64,
    /// What else there is to say.
    pub(crate) remark: String,
}

/// What a step took. What only Linux tells is missing elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Processor time of all threads: unlike `time`, hardly longer on a busy machine.
    pub(crate) processor: Option<Duration>,
    /// The highest resident memory of the process during the step, in bytes.
    pub(crate) peak_memory: Option<u64>,
}

impl Cost {
    /// The median times and the highest memory of several runs.
    pub(crate) fn typical(runs: &[Self]) -> Self {
        Self {
            time: median(runs.iter().map(|run| run.time)).unwrap_or_default(),
            processor: median(runs.iter().filter_map(|run| run.processor)),
            peak_memory: runs.iter().filter_map(|run| run.peak_memory).max(),
        }
    }
}

/// The middle one; of an even number, the smaller of the two.
fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied()
}

/// Measures a step from its start to its end.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    started: Instant,
    processor: Option<Duration>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        // Linux: 5 sets the high-water mark of memory back to what is in use now.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { started: Instant::now(), processor: processor_time() }
    }

    pub(crate) fn stop(self) -> Cost {
        let Self { started, processor } = self;
        Cost {
            time: started.elapsed(),
            processor: processor_time().zip(processor).map(|(now, then)| now.saturating_sub(then)),
            peak_memory: peak_memory(),
        }
    }
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// User and system time of the process so far.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the program's name in parentheses, the 12th and 13th fields, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(10 * ticks))
}

/// A bar over `rows` rows; hidden where standard error is not a terminal.
pub(crate) fn progress(name: &str, rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows).with_message(name.to_owned());
    let template = "{msg:24} {wide_bar} {human_pos} rows, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Steps as a table.
#[derive(Debug)]
pub(crate) struct Table<'a>(pub(crate) &'a [Step]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["seconds", "CPU s", "rows", "Mrows/s", "MB"].map(|title| format!("{title:>10}")).concat();
        writeln!(f, "{:<16}{titles} {:>12}", "step", "peak memory")?;
        for Step { name, cost, rows, bytes, remark } in self.0 {
            let seconds = cost.time.as_secs_f64();
            let processor = cost.processor.map_or_else(unknown, |time| format!("{:.2}", time.as_secs_f64()));
            let speed = *rows as f64 / 1e6 / seconds;
            let megabytes = *bytes as f64 / 1e6;
            let memory = cost.peak_memory.map_or_else(unknown, |bytes| format!("{} MB", bytes / 1_000_000));
            let line = format!(
                "{name:<16}{seconds:>10.2}{processor:>10}{rows:>10}{speed:>10.1}{megabytes:>10.0} {memory:>12}  {remark}"
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}
