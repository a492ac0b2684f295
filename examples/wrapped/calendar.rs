//! ISO weeks and their hours, counted from 2025-W01.

use std::fmt;

use sort_merge_bucket::chrono::{Datelike, Days, NaiveDate};

/// Monday 2024-12-30, the first day of 2025-W01, in days since 1970-01-01.
const FIRST_DAY: u32 = 20_087;

pub(crate) const HOURS_PER_WEEK: u32 = 7 * 24;
pub(crate) const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// A week, printed as `2025-W01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Week(u32);

impl Week {
    /// The first `count` weeks.
    pub(crate) fn first(count: u32) -> impl ExactSizeIterator<Item = Self> {
        (0..count).map(Self)
    }

    /// 0 is 2025-W01.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// Monday midnight, UTC, in microseconds since 1970.
    pub(crate) fn start(self) -> i64 {
        i64::from(FIRST_DAY + 7 * self.0) * 24 * MICROS_PER_HOUR
    }

    /// Monday midnight of the next week.
    pub(crate) fn end(self) -> i64 {
        Self(self.0 + 1).start()
    }

    /// The hour of the week that a time lies in.
    pub(crate) fn hour_of(self, micros: i64) -> usize {
        ((micros - self.start()) / MICROS_PER_HOUR) as usize
    }

    /// Day and hour of the day of an hour of the week.
    pub(crate) fn day_and_hour(self, hour: u32) -> (NaiveDate, u32) {
        (self.monday() + Days::new(u64::from(hour / 24)), hour % 24)
    }

    fn monday(self) -> NaiveDate {
        // The default is 1970-01-01.
        NaiveDate::default() + Days::new(u64::from(FIRST_DAY + 7 * self.0))
    }
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let week = self.monday().iso_week();
        write!(f, "{}-W{:02}", week.year(), week.week())
    }
}
