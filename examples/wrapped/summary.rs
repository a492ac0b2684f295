//! Summaries, read back from the dataset `wrapped` and printed.

use std::fmt;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use indicatif::HumanCount;
use sort_merge_bucket::{Dataset, Parallelism, Scan};

use crate::Failure;
use crate::names::{artist_name, track_title};
use crate::witness::{Listening, column};

/// What one user hears.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) user_id: i64,
    region: String,
    tier: String,
    minutes: i64,
    pub(crate) listening: Listening,
}

/// All summaries together, and those of some users.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub(crate) plays: i64,
    pub(crate) ms_played: i64,
    /// By user.
    pub(crate) some: Vec<Summary>,
}

impl Summaries {
    /// Reads all summaries and keeps those of users up to `last`.
    pub(crate) async fn read(wrapped: &Dataset, last: i64) -> Result<Self, Failure> {
        let plan = Scan::new(wrapped).plan()?;
        let mut summaries = Self::default();
        let mut rows = plan.stream(Parallelism::Available);
        while let Some(slot) = rows.try_next().await? {
            let batch = slot.item;
            let users = numbers(&batch, "user_id")?;
            let (plays, ms_played) = (numbers(&batch, "plays")?, numbers(&batch, "ms_played")?);
            for row in 0..batch.num_rows() {
                summaries.plays += plays[row];
                summaries.ms_played += ms_played[row];
                if users[row] <= last {
                    summaries.some.push(Summary::of(&batch, row)?);
                }
            }
        }
        summaries.some.sort_by_key(|summary| summary.user_id);
        Ok(summaries)
    }
}

impl Summary {
    fn of(batch: &RecordBatch, row: usize) -> Result<Self, Failure> {
        let number = |name| numbers(batch, name).map(|values| values[row]);
        let text = |name| column(batch, name).map(|values| values.as_string_view().value(row).to_owned());
        let list = |name| column(batch, name).map(|values| values.as_list::<i32>().value(row));
        let devices = column(batch, "devices")?.as_map().value(row);
        Ok(Self {
            user_id: number("user_id")?,
            region: text("region")?,
            tier: text("tier")?,
            minutes: number("minutes")?,
            listening: Listening {
                plays: number("plays")?,
                ms_played: number("ms_played")?,
                songs: with_sums(list("top_songs")?.as_struct(), ids),
                artists: with_sums(list("top_artists")?.as_struct(), ids),
                genres: with_sums(list("top_genres")?.as_struct(), texts),
                devices: with_sums(&devices, texts),
            },
        })
    }
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i64], Failure> {
    Ok(column(batch, name)?.as_primitive::<Int64Type>().values())
}

/// Items and sums, the two columns of what a top list or a sum map holds.
fn with_sums<T>(entries: &StructArray, items: impl Fn(&ArrayRef) -> Vec<T>) -> Vec<(T, i64)> {
    items(entries.column(0)).into_iter().zip(ids(entries.column(1))).collect()
}

fn ids(column: &ArrayRef) -> Vec<i64> {
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn texts(column: &ArrayRef) -> Vec<String> {
    column.as_string_view().iter().flatten().map(str::to_owned).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_id, region, tier, minutes, listening } = self;
        let Listening { plays, ms_played, songs, artists, genres, devices } = listening;
        let count = |number: i64| HumanCount(number.unsigned_abs());
        writeln!(f, "User {user_id} ({region}, {tier})")?;
        writeln!(f, "  {} minutes, {} plays", count(*minutes), count(*plays))?;
        let share = |(name, ms): &(String, i64)| {
            let percent = (100 * ms + ms_played / 2) / ms_played.max(&1);
            (percent > 0).then(|| format!("{name} {percent} %"))
        };
        let mut by_share = devices.clone();
        by_share.sort_by_key(|(_, ms)| -ms);
        for (title, shares) in [("genres", genres), ("devices", &by_share)] {
            writeln!(f, "  {title:<10}{}", shares.iter().filter_map(share).collect::<Vec<_>>().join(", "))?;
        }
        let lines = songs.iter().zip(artists).enumerate();
        writeln!(f, "     {:<60}artists", "songs")?;
        for (i, ((song, song_ms), (artist, artist_ms))) in lines {
            let song = format!("{} ({}), {} min", track_title(*song), artist_of(*song), song_ms / 60_000);
            writeln!(f, "  {:<3}{song:<60}{}, {} min", i + 1, artist_name(*artist), artist_ms / 60_000)?;
        }
        Ok(())
    }
}

fn artist_of(song: i64) -> String {
    artist_name(crate::catalogue::artist_of(song))
}
