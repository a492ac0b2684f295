//! Listening of simulated users.
//!
//! A user has favourite artists, songs of a week that are heard again and again, and now and then hears something else that is popular.
//! They listen in sessions on one device: an album, or a playlist. Plays of a user never overlap.
//!
//! What a user does in a week depends on the seed, the user and the week, and on nothing else, so that weeks can be made alone and in any
//! order. Only arithmetic that is exact everywhere is used, so that every machine makes the same rows.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::Failure;
use crate::calendar::{HOURS_PER_WEEK, MICROS_PER_HOUR, Week};
use crate::catalogue;

/// 3,000 a year.
pub(crate) const MEAN_PLAYS_PER_WEEK: f64 = 58.0;

const FAVOURITES: usize = 60;
/// Songs of the week.
const ROTATION: usize = 10;
/// How often a play of a playlist is a song of the week.
const FROM_ROTATION: f64 = 0.5;
/// How often a play of a playlist is by an artist that is not a favourite: 10 % of all plays, as albums are by favourites.
const FROM_TAIL: f64 = 0.15;
const ALBUM_SESSIONS: f64 = 0.35;
const SKIPPED: f64 = 0.12;
/// Plays whose context is lost on the way.
const CONTEXT_LOST: f64 = 0.01;

/// Of the plays of another device, one in so many comes late; the others never happened.
const ONE_LATE_IN: u32 = 20;

const DEVICES: [&str; 6] = ["mobile", "desktop", "speaker", "car", "tv", "web"];
const DEVICE_WEIGHTS: [f64; 6] = [50.0, 18.0, 12.0, 10.0, 4.0, 6.0];
const REGIONS: [&str; 24] = [
    "US", "BR", "GB", "DE", "MX", "IN", "FR", "ES", "IT", "SE", "PH", "ID", "NL", "AR", "PL", "AU", "CA", "TR", "JP",
    "CL", "NO", "DK", "NG", "ZA",
];
const TIERS: [&str; 4] = ["free", "premium", "family", "student"];
const TIER_WEIGHTS: [f64; 4] = [50.0, 28.0, 14.0, 8.0];
/// How often a session begins in an hour of the day.
const HOUR_WEIGHTS: [f64; 24] = [
    4.0, 2.0, 1.0, 1.0, 1.0, 2.0, 5.0, 9.0, 10.0, 8.0, 7.0, 7.0, 8.0, 8.0, 7.0, 8.0, 9.0, 11.0, 11.0, 10.0, 10.0, 9.0,
    8.0, 6.0,
];

/// One play.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Play {
    user_id: i64,
    /// Microseconds since 1970.
    played_at: i64,
    track_id: i64,
    ms_played: i64,
    context: Option<Context>,
}

#[derive(Debug, Clone, Copy)]
struct Context {
    session_id: i64,
    container_id: i64,
    is_album: bool,
    device: u8,
}

/// All users of a seed.
#[derive(Debug)]
pub(crate) struct Simulation {
    seed: u64,
    users: u32,
    artists: Weighted,
    favourites: Weighted,
    tracks: Weighted,
    devices: Weighted,
    hours: Weighted,
    regions: Weighted,
    tiers: Weighted,
}

impl Simulation {
    /// Counted up when the same seed gives other rows than before.
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn new(seed: u64, users: u32) -> Self {
        Self {
            seed,
            users,
            artists: Weighted::by_rank(catalogue::ARTISTS, 20.0),
            favourites: Weighted::by_rank(FAVOURITES, 3.0),
            tracks: Weighted::by_rank(catalogue::MAX_TRACKS, 2.0),
            devices: Weighted::new(DEVICE_WEIGHTS),
            hours: Weighted::new(HOUR_WEIGHTS),
            regions: Weighted::by_rank(REGIONS.len(), 2.0),
            tiers: Weighted::new(TIER_WEIGHTS),
        }
    }

    /// The plays of some users in one week, by hour of the week; in an hour, user after user.
    pub(crate) fn week(&self, week: Week, users: RangeInclusive<u32>) -> Vec<Vec<Play>> {
        let mut hours = vec![vec![]; HOURS_PER_WEEK as usize];
        for user in users {
            self.week_of(week, 0, &self.listener(user), &mut |play: Play| {
                hours[week.hour_of(play.played_at)].push(play);
            });
        }
        hours
    }

    /// Plays of one week that become known late, and without their contexts; `time` tells which time, from 1.
    pub(crate) fn late(&self, week: Week, time: u32) -> Vec<Play> {
        let mut plays = vec![];
        for user in 1..=self.users {
            let mut count = 0;
            self.week_of(week, time, &self.listener(user), &mut |play: Play| {
                if count % ONE_LATE_IN == 0 {
                    plays.push(Play { context: None, ..play });
                }
                count += 1;
            });
        }
        sort_by_time(&mut plays);
        plays
    }

    /// Region and tier of all users.
    pub(crate) fn users(&self) -> Result<RecordBatch, Failure> {
        let (regions, tiers): (Vec<_>, Vec<_>) = (1..=self.users)
            .map(|user| {
                let mut rng = self.rng([user, 0, 1]);
                (REGIONS[self.regions.draw(&mut rng)], TIERS[self.tiers.draw(&mut rng)])
            })
            .unzip();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values((1..=self.users).map(i64::from))),
            Arc::new(StringArray::from(regions)),
            Arc::new(StringArray::from(tiers)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&USERS), columns)?)
    }

    fn rng(&self, of: [u32; 3]) -> Xoshiro256PlusPlus {
        let [a, b, c] = of.map(u64::from);
        Xoshiro256PlusPlus::seed_from_u64(catalogue::hash([self.seed, a, b, c]))
    }

    fn listener(&self, user: u32) -> Listener {
        let mut rng = self.rng([user, 0, 0]);
        // 1 on average, from 0.24 to 15: half of the users hear less than 0.6 times the mean, one in a hundred more than seven times.
        let activity = ((0.5 / rng.random::<f64>().sqrt()).min(10.0) - 0.35) / 0.625;
        let taste: [i64; 3] = std::array::from_fn(|_| self.artist(&mut rng));
        let taste = taste.map(catalogue::genre_of);
        let favourites = std::array::from_fn(|_| {
            let mut artist = self.artist(&mut rng);
            for _ in 0..3 {
                if taste.contains(&catalogue::genre_of(artist)) {
                    break;
                }
                artist = self.artist(&mut rng);
            }
            artist
        });
        Listener { user, activity, favourites, device: self.devices.draw(&mut rng), hours_late: rng.random_range(0..6) }
    }

    /// An artist by popularity.
    fn artist(&self, rng: &mut Xoshiro256PlusPlus) -> i64 {
        self.artists.draw(rng) as i64 + 1
    }

    fn favourite_track(&self, listener: &Listener, rng: &mut Xoshiro256PlusPlus) -> i64 {
        self.track(listener, listener.favourites[self.favourites.draw(rng)], rng)
    }

    /// A track of an artist: one that all like, or one that this user likes.
    fn track(&self, listener: &Listener, artist: i64, rng: &mut Xoshiro256PlusPlus) -> i64 {
        let user = u64::from(listener.user);
        let shift = if rng.random() { 0 } else { catalogue::pick(catalogue::hash([user, artist as u64]), 100) };
        catalogue::track(artist, (self.tracks.draw(rng) + shift) % catalogue::tracks_of(artist))
    }

    /// What a user hears in a week, and (from `late` 1 on) what of other devices becomes known of it later.
    fn week_of(&self, week: Week, late: u32, listener: &Listener, emit: &mut impl FnMut(Play)) {
        let mut rng = self.rng([listener.user, week.number() + 1, late]);
        let mut plays = listener.activity * MEAN_PLAYS_PER_WEEK * rng.random_range(0.4..1.6);
        // In sum, fractions of a play count, too.
        plays += rng.random::<f64>();
        let rotation: [i64; ROTATION] = std::array::from_fn(|_| self.favourite_track(listener, &mut rng));

        let mut sessions: Vec<(i64, u64)> = vec![];
        let mut left = plays as u64;
        while left > 0 {
            let length = rng.random_range(2..=22).min(left);
            left -= length;
            let hour = 24 * rng.random_range(0..7) + self.hours.draw(&mut rng) as i64 + listener.hours_late;
            let start = hour * MICROS_PER_HOUR + rng.random_range(0..MICROS_PER_HOUR);
            sessions.push((week.start() + start % (week.end() - week.start()), length));
        }
        sessions.sort_unstable();

        let mut free = week.start();
        for (number, (start, length)) in sessions.into_iter().enumerate() {
            free = free.max(start);
            let session = Session { week, number, length, rotation: &rotation };
            self.session(&session, listener, &mut rng, &mut free, emit);
        }
    }

    /// Plays of one session, from `free` on, which becomes the time after them.
    fn session(
        &self,
        session: &Session<'_>,
        listener: &Listener,
        rng: &mut Xoshiro256PlusPlus,
        free: &mut i64,
        emit: &mut impl FnMut(Play),
    ) {
        let user_id = i64::from(listener.user);
        let favourite = listener.favourites[self.favourites.draw(rng)];
        let is_album = rng.random_bool(ALBUM_SESSIONS);
        let first = rng.random_range(0..catalogue::tracks_of(favourite));
        let container_id = if is_album {
            catalogue::album_of(catalogue::track(favourite, first))
        } else if rng.random_bool(0.7) {
            // Every user has eight playlists; 500 are for all.
            1000 + 8 * user_id + rng.random_range(0..8)
        } else {
            rng.random_range(1..=500)
        };
        let device = if rng.random_bool(0.65) { listener.device } else { self.devices.draw(rng) };
        let session_id = (user_id * 1000 + i64::from(session.week.number())) * 1000 + session.number as i64;
        let context = Context { session_id, container_id, is_album, device: device as u8 };

        for i in 0..session.length {
            let track_id = if is_album {
                let album = first / 10 * 10;
                let length = (catalogue::tracks_of(favourite) - album).min(10);
                catalogue::track(favourite, album + (first + i as usize) % length)
            } else {
                match rng.random::<f64>() {
                    which if which < FROM_TAIL => {
                        let artist = self.artist(rng);
                        self.track(listener, artist, rng)
                    }
                    which if which < FROM_TAIL + FROM_ROTATION => session.rotation[rng.random_range(0..ROTATION)],
                    _ => self.favourite_track(listener, rng),
                }
            };
            let duration = catalogue::duration_ms(track_id);
            let ms_played = match rng.random::<f64>() {
                which if which < SKIPPED => rng.random_range(2_000..20_000),
                which if which < SKIPPED + 0.04 => rng.random_range(20_000..duration),
                _ => duration,
            };
            let played_at = *free;
            let end = played_at + 1000 * ms_played;
            if end >= session.week.end() {
                // The week is over.
                *free = session.week.end();
                return;
            }
            *free = end + rng.random_range(1..2_000_000);
            let context = (!rng.random_bool(CONTEXT_LOST)).then_some(context);
            emit(Play { user_id, played_at, track_id, ms_played, context });
        }
    }
}

/// A user's habits.
#[derive(Debug)]
struct Listener {
    user: u32,
    /// Plays, as a multiple of the mean.
    activity: f64,
    favourites: [i64; FAVOURITES],
    /// The usual one.
    device: usize,
    hours_late: i64,
}

#[derive(Debug)]
struct Session<'a> {
    week: Week,
    /// Of this user in this week.
    number: usize,
    /// Plays.
    length: u64,
    rotation: &'a [i64; ROTATION],
}

/// Numbers from 0, drawn by weight.
#[derive(Debug)]
struct Weighted {
    cumulative: Vec<f64>,
    total: f64,
}

impl Weighted {
    fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut total = 0.0;
        let add = |weight| {
            total += weight;
            total
        };
        let cumulative = weights.into_iter().map(add).collect();
        Self { cumulative, total }
    }

    /// As of Zipf: the weight of rank r is 1 / (r + `offset`).
    fn by_rank(count: usize, offset: f64) -> Self {
        Self::new((0..count).map(|rank| 1.0 / (rank as f64 + offset)))
    }

    fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> usize {
        let at = rng.random::<f64>() * self.total;
        // Rounding may reach the total.
        self.cumulative.partition_point(|upper| *upper <= at).min(self.cumulative.len() - 1)
    }
}

fn column(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn played_at() -> Field {
    column("played_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
}

/// Columns of [`plays`].
pub(crate) static PLAYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("user_id", DataType::Int64),
        played_at(),
        column("track_id", DataType::Int64),
        column("artist_id", DataType::Int64),
        column("genre", DataType::Utf8),
        column("ms_played", DataType::Int64),
    ]))
});

/// Columns of [`contexts`].
pub(crate) static CONTEXTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("user_id", DataType::Int64),
        played_at(),
        column("device", DataType::Utf8),
        column("session_id", DataType::Int64),
        column("container", DataType::Utf8),
        column("container_id", DataType::Int64),
    ]))
});

/// Columns of [`Simulation::users`].
pub(crate) static USERS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("user_id", DataType::Int64),
        column("region", DataType::Utf8),
        column("tier", DataType::Utf8),
    ]))
});

/// Brings plays of several users into the order of time.
pub(crate) fn sort_by_time(plays: &mut [Play]) {
    plays.sort_unstable_by_key(|play| (play.played_at, play.user_id));
}

/// What was played.
pub(crate) fn plays(plays: &[Play]) -> Result<RecordBatch, Failure> {
    let artists = || plays.iter().map(|play| catalogue::artist_of(play.track_id));
    let columns: Vec<ArrayRef> = vec![
        numbers(plays.iter().map(|play| play.user_id)),
        times(plays.iter().map(|play| play.played_at)),
        numbers(plays.iter().map(|play| play.track_id)),
        numbers(artists()),
        Arc::new(StringArray::from_iter_values(artists().map(catalogue::genre_of))),
        numbers(plays.iter().map(|play| play.ms_played)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&PLAYS), columns)?)
}

/// On what, and from which playlist or album it was played, as far as it is known.
pub(crate) fn contexts(plays: &[Play]) -> Result<RecordBatch, Failure> {
    let known: Vec<(&Play, Context)> = plays.iter().filter_map(|play| Some((play, play.context?))).collect();
    let contexts = || known.iter().map(|(_, context)| context);
    let container = |context: &Context| if context.is_album { "album" } else { "playlist" };
    let columns: Vec<ArrayRef> = vec![
        numbers(known.iter().map(|(play, _)| play.user_id)),
        times(known.iter().map(|(play, _)| play.played_at)),
        Arc::new(StringArray::from_iter_values(contexts().map(|context| DEVICES[usize::from(context.device)]))),
        numbers(contexts().map(|context| context.session_id)),
        Arc::new(StringArray::from_iter_values(contexts().map(container))),
        numbers(contexts().map(|context| context.container_id)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&CONTEXTS), columns)?)
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}
