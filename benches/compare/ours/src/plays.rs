//! Weeks of listening as an event-delivery system leaves them: plays in order of time, with identifiers as text.
//!
//! Made of a hash of (user, number of the play, purpose) alone, so that every machine makes the same rows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::Failure;

/// 2025-01-06, a Monday, in microseconds since 1970.
const MONDAY: u64 = 1_736_121_600_000_000;
const WEEK_MICROSECONDS: u64 = 7 * 24 * 3_600_000_000;
const MEAN_PLAYS: f64 = 58.0;
const PLAYS_OF_SESSION: u64 = 10;
const FAVOURITES: f64 = 60.0;
/// Songs that each user hears again and again, of which some are exchanged every few weeks.
const ROTATION: f64 = 10.0;
const WEEKS_OF_ROTATION: u64 = 4;
const EXCHANGED: u64 = 5;
/// Numbers of songs from here on are those of no rotation.
const OTHER_SONGS: u64 = 1000;
/// More than a user has in a week.
const SESSIONS_OF_WEEK: u64 = 1000;
const ARTISTS: f64 = 50_000.0;
const TRACKS_OF_ARTIST: f64 = 40.0;
const DEVICES: [&str; 6] = ["mobile", "desktop", "speaker", "car", "tv", "web"];
const COUNTRIES: [&str; 12] = ["US", "BR", "GB", "DE", "MX", "IN", "FR", "ES", "IT", "SE", "PH", "ID"];

struct Play {
    played_at: u64,
    user: u64,
    track: u64,
    artist: u64,
    playlist: u64,
    device: usize,
    country: usize,
    ms_played: u64,
    shuffle: bool,
}

/// Writes `plays.parquet`, or `week-01.parquet` and so on.
pub(crate) fn plays(users: u64, weeks: u64, weekly: bool, folder: &Path) -> Result<Value, Failure> {
    std::fs::create_dir_all(folder)?;
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3)?);
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let schema = batch(&[])?.schema();
    let create = |name: String| -> Result<_, Failure> {
        let file = File::create(folder.join(name).with_extension("parquet"))?;
        Ok(ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties.clone()))?)
    };
    let mut writer = create(if weekly { week_name(1) } else { "plays".into() })?;
    let (mut rows, mut plays) = (0, vec![]);
    for week in 0..weeks {
        if weekly && week > 0 {
            std::mem::replace(&mut writer, create(week_name(week + 1))?).close()?;
        }
        plays.extend((0..users).flat_map(|user| of_user(user, week)));
        plays.sort_by_key(|play: &Play| (play.played_at, play.user));
        // Sessions may go on into the next week.
        let end = if week + 1 < weeks { MONDAY + (week + 1) * WEEK_MICROSECONDS } else { u64::MAX };
        let later = plays.split_off(plays.partition_point(|play| play.played_at < end));
        writer.write(&batch(&plays)?)?;
        rows += plays.len();
        plays = later;
    }
    writer.close()?;
    Ok(json!({ "rows": rows }))
}

/// The name of a week's file and dataset; weeks are numbered from 1.
pub(crate) fn week_name(week: u64) -> String {
    format!("week-{week:02}")
}

fn batch(plays: &[Play]) -> Result<RecordBatch, Failure> {
    let number = |value: fn(&Play) -> u64| plays.iter().map(move |play| value(play) as i64);
    let text = |value: fn(&Play) -> String| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(plays.iter().map(value)))
    };
    let shuffle: BooleanArray = plays.iter().map(|play| Some(play.shuffle)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "played_at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(number(|play| play.played_at)).with_timezone("UTC")),
        ),
        ("user_id", text(|play| id(1, play.user))),
        ("track_id", text(|play| id(2, play.track))),
        ("artist_id", text(|play| id(3, play.artist))),
        ("context", text(|play| format!("playlist:{}", id(4, play.playlist)))),
        ("device", text(|play| DEVICES[play.device].into())),
        ("country", text(|play| COUNTRIES[play.country].into())),
        ("ms_played", Arc::new(Int64Array::from_iter_values(number(|play| play.ms_played)))),
        ("shuffle", Arc::new(shuffle)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A user has favourite artists, some songs that are heard again and again, and now and then hears something else that is popular.
fn of_user(user: u64, week: u64) -> Vec<Play> {
    // Half of the users hear less than the mean, few much more.
    let activity = ((0.5 / share([user, 0, 0]).sqrt()).min(10.0) - 0.35) / 0.625;
    let sessions = ((activity * MEAN_PLAYS) as u64).div_ceil(PLAYS_OF_SESSION);
    let favourite = |rank: f64| skewed(ARTISTS, share([user, rank as u64, 1]));
    let mut plays = vec![];
    for session in week * SESSIONS_OF_WEEK..week * SESSIONS_OF_WEEK + sessions {
        let of_session = |purpose| share([user, session, purpose]);
        let start = (of_session(2) * WEEK_MICROSECONDS as f64) as u64 / 1_000_000 * 1_000_000;
        let mut played_at = MONDAY + week * WEEK_MICROSECONDS + start;
        let main_device = (share([user, 0, 3]) * 3.0) as usize;
        let device = if of_session(4) < 0.8 { main_device } else { (of_session(5) * DEVICES.len() as f64) as usize };
        let playlist = (of_session(6) * 5.0) as u64 + 5 * user;
        for play in 0..PLAYS_OF_SESSION {
            let of_play = |purpose| share([user, session * PLAYS_OF_SESSION + play, purpose]);
            let heard = if of_play(7) < 0.4 {
                week / WEEKS_OF_ROTATION * EXCHANGED + (of_play(8) * ROTATION) as u64
            } else {
                OTHER_SONGS + session * 100 + play
            };
            let of_song = |purpose| share([user, heard, purpose]);
            let tail = of_song(9) < 0.1;
            let artist = if tail { skewed(ARTISTS, of_song(10)) } else { favourite(FAVOURITES * of_song(11).powi(2)) };
            let track = artist * TRACKS_OF_ARTIST as u64 + (TRACKS_OF_ARTIST * of_song(12).powi(2)) as u64;
            let length = 120_000 + hash([track, 0, 13]) % 180_000;
            let ms_played = if of_play(14) < 0.12 { (of_play(15) * 30_000.0) as u64 } else { length };
            let country = skewed(COUNTRIES.len() as f64, share([user, 0, 16])) as usize;
            let shuffle = of_session(17) < 0.4;
            plays.push(Play { played_at, user, track, artist, playlist, device, country, ms_played, shuffle });
            played_at += ms_played * 1000 + hash([user, played_at, 18]) % 1_000_000;
        }
    }
    plays
}

/// A rank, low ones more often.
fn skewed(count: f64, share: f64) -> u64 {
    (count * share.powi(3)) as u64
}

fn share(of: [u64; 3]) -> f64 {
    (hash(of) >> 11) as f64 / (1_u64 << 53) as f64
}

fn hash(of: [u64; 3]) -> u64 {
    of.into_iter().fold(0, |hash: u64, value| {
        let mut bits = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

/// An identifier of 22 letters and digits.
fn id(kind: u64, number: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut bits = u128::from(hash([kind, number, 0])) << 64 | u128::from(hash([kind, number, 1]));
    let digit = |_| {
        let digit = DIGITS[(bits % 62) as usize];
        bits /= 62;
        char::from(digit)
    };
    (0..22).map(digit).collect()
}
