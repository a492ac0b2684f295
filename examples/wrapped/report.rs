//! What is printed: a line per step, and progress bars on a terminal.

use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressStyle};

/// A step that is done. What is 0 is not printed.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) rows: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) time: Duration,
    /// What else there is to say.
    pub(crate) remark: String,
}

impl Step {
    /// Prints the titles of the columns that [`print`](Self::print) fills.
    pub(crate) fn print_titles() {
        println!("\n{:<18}{:>14}{:>12}{:>12}{:>10}", "step", "rows", "read", "written", "seconds");
    }

    pub(crate) fn print(&self) {
        let Self { name, rows, bytes_read, bytes_written, time, remark } = self;
        let unless_0 = |number: u64, text: String| if number == 0 { String::new() } else { text };
        let rows = unless_0(*rows, HumanCount(*rows).to_string());
        let [read, written] =
            [*bytes_read, *bytes_written].map(|bytes| unless_0(bytes, DecimalBytes(bytes).to_string()));
        let line = format!("{name:<18}{rows:>14}{read:>12}{written:>12}{:>10.2}  {remark}", time.as_secs_f64());
        println!("{}", line.trim_end());
    }
}

/// A bar over `weeks` weeks; hidden where standard error is not a terminal.
pub(crate) fn progress(name: &'static str, weeks: u32) -> ProgressBar {
    let bar = ProgressBar::new(weeks.into()).with_message(name);
    let template = "{msg:18} {wide_bar} week {pos} of {len}, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
