//! What is printed: a table of steps, progress bars on a terminal.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that was measured.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) time: Duration,
    /// Rows that went in (writes, scans) or came out (joins).
    pub(crate) rows: u64,
    /// Bytes of the files written, or of the column chunks read.
    pub(crate) bytes: u64,
    /// The highest resident memory of the process during the step, where the system tells.
    pub(crate) peak_memory: Option<u64>,
    /// What else there is to say.
    pub(crate) remark: String,
}

/// A running clock, with the high-water mark of memory set back to what is in use now.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        // Linux: 5 resets the peak of the own process. Elsewhere there is no such file, and no figure later.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self(Instant::now())
    }

    pub(crate) fn stop(self) -> (Duration, Option<u64>) {
        (self.0.elapsed(), peak_memory())
    }
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The middle one; of an even number, the smaller of the two.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) / 2]
}

/// A bar over `rows` rows; hidden where standard error is not a terminal.
pub(crate) fn progress(name: &str, rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows).with_message(name.to_owned());
    let template = "{msg:16} {wide_bar} {human_pos} rows, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Steps as a table.
#[derive(Debug)]
pub(crate) struct Table<'a>(pub(crate) &'a [Step]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>9} {:>12} {:>9} {:>9} {:>12}",
            "step", "seconds", "rows", "Mrows/s", "MB", "peak memory"
        )?;
        for Step { name, time, rows, bytes, peak_memory, remark } in self.0 {
            let seconds = time.as_secs_f64();
            let speed = *rows as f64 / 1e6 / seconds;
            let megabytes = *bytes as f64 / 1e6;
            let memory = peak_memory.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MB", bytes / 1_000_000));
            writeln!(f, "{name:<16} {seconds:>9.2} {rows:>12} {speed:>9.1} {megabytes:>9.0} {memory:>12}  {remark}")?;
        }
        Ok(())
    }
}
