//! What is right: counted from the raw events as they pass by, with plain maps and nothing of the library.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::sum;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use crate::Failure;
use crate::raw::Kind;
use crate::rollup::TOP;

/// Counts all plays, and in every detail those of a few users.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) plays: u64,
    pub(crate) ms_played: i64,
    watched: BTreeMap<i64, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    songs: BTreeMap<i64, i64>,
    artists: BTreeMap<i64, i64>,
    genres: BTreeMap<String, i64>,
    /// Milliseconds of the play at a time.
    plays: BTreeMap<i64, i64>,
    /// The device of the play at a time.
    devices: BTreeMap<i64, String>,
}

/// What a user listened to. All sums are milliseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Listening {
    pub(crate) plays: i64,
    pub(crate) ms_played: i64,
    /// At most [`TOP`], the greatest sum first.
    pub(crate) songs: Vec<(i64, i64)>,
    pub(crate) artists: Vec<(i64, i64)>,
    pub(crate) genres: Vec<(String, i64)>,
    /// All of them, by name. Plays without context are missing.
    pub(crate) devices: Vec<(String, i64)>,
}

impl Witness {
    pub(crate) fn of(users: impl IntoIterator<Item = i64>) -> Self {
        let watched = users.into_iter().map(|user| (user, Watched::default())).collect();
        Self { plays: 0, ms_played: 0, watched }
    }

    /// Takes events, in any order.
    pub(crate) fn observe(&mut self, kind: Kind, batch: &RecordBatch) -> Result<(), Failure> {
        if kind == Kind::Users {
            return Ok(());
        }
        let users = column(batch, "user_id")?.as_primitive::<Int64Type>();
        let times = column(batch, "played_at")?.as_primitive::<TimestampMicrosecondType>();
        let watched = users.values().iter().enumerate().filter(|(_, user)| self.watched.contains_key(user));
        let watched: Vec<(usize, i64)> = watched.map(|(row, user)| (row, *user)).collect();
        if kind == Kind::Contexts {
            let devices = column(batch, "device")?.as_string_view();
            for (row, user) in watched {
                let watched = self.watched.entry(user).or_default();
                watched.devices.insert(times.value(row), devices.value(row).to_owned());
            }
            return Ok(());
        }
        let [tracks, artists, ms] = ["track_id", "artist_id", "ms_played"].map(|name| column(batch, name));
        let [tracks, artists, ms] = [tracks?, artists?, ms?].map(AsArray::as_primitive::<Int64Type>);
        let genres = column(batch, "genre")?.as_string_view();
        self.plays += batch.num_rows() as u64;
        self.ms_played += sum(ms).unwrap_or(0);
        for (row, user) in watched {
            let watched = self.watched.entry(user).or_default();
            let ms = ms.value(row);
            *watched.songs.entry(tracks.value(row)).or_default() += ms;
            *watched.artists.entry(artists.value(row)).or_default() += ms;
            *watched.genres.entry(genres.value(row).to_owned()).or_default() += ms;
            watched.plays.insert(times.value(row), ms);
        }
        Ok(())
    }

    /// What each watched user listened to, if anything.
    pub(crate) fn listening(&self) -> impl Iterator<Item = (i64, Listening)> {
        self.watched.iter().filter(|(_, watched)| !watched.plays.is_empty()).map(|(user, watched)| {
            let Watched { songs, artists, genres, plays, devices } = watched;
            let mut by_device = BTreeMap::<String, i64>::new();
            for (time, device) in devices {
                *by_device.entry(device.clone()).or_default() += plays.get(time).copied().unwrap_or(0);
            }
            let listening = Listening {
                plays: plays.len() as i64,
                ms_played: plays.values().sum(),
                songs: top(songs),
                artists: top(artists),
                genres: top(genres),
                devices: by_device.into_iter().collect(),
            };
            (*user, listening)
        })
    }
}

fn top<T: Clone>(sums: &BTreeMap<T, i64>) -> Vec<(T, i64)> {
    let mut sums: Vec<_> = sums.iter().map(|(item, sum)| (item.clone(), *sum)).collect();
    // Stable: of equal sums, the lesser item is first.
    sums.sort_by_key(|(_, sum)| -sum);
    sums.truncate(TOP);
    sums
}

pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Failure> {
    Ok(batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?)
}
