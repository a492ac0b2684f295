//! Artists and their tracks. All about them follows from their numbers: nothing is stored.
//!
//! Artists are numbered from 1 by popularity. Track `n` of artist `a` is `100 * a + n`, its album `10 * a + n / 10`.

/// Artists in the catalogue, fewer than there are names.
pub(crate) const ARTISTS: usize = 8_000;

/// The most tracks of an artist.
pub(crate) const MAX_TRACKS: usize = 30;

/// The most common first.
pub(crate) const GENRES: [&str; 25] = [
    "pop", "hip hop", "rock", "indie", "electro", "latin", "r&b", "house", "metal", "jazz", "folk", "country", "soul",
    "techno", "punk", "dembow", "k-pop", "ambient", "opera", "blues", "afrobeat", "jungle", "reggae", "bossa", "tango",
];

pub(crate) fn artist_of(track: i64) -> i64 {
    track / 100
}

pub(crate) fn track(artist: i64, n: usize) -> i64 {
    100 * artist + n as i64
}

pub(crate) fn album_of(track: i64) -> i64 {
    track / 10
}

/// From 10 to [`MAX_TRACKS`].
pub(crate) fn tracks_of(artist: i64) -> usize {
    10 + pick(hash([1, artist as u64]), MAX_TRACKS - 9)
}

pub(crate) fn genre_of(artist: i64) -> &'static str {
    let i = pick(hash([2, artist as u64]), 1000);
    // Squares are dense near 0.
    GENRES[(1000 * i + i * i) * GENRES.len() / 2_000_000]
}

/// Two to five minutes.
pub(crate) fn duration_ms(track: i64) -> i64 {
    120_000 + pick(hash([3, track as u64]), 180_000) as i64
}

/// Mixes numbers into one that looks random, the same on every machine.
pub(crate) fn hash<const N: usize>(parts: [u64; N]) -> u64 {
    // The step and the finaliser of splitmix64.
    parts.into_iter().fold(0, |hash, part| {
        let mut z = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// One of 0 .. `count`.
pub(crate) fn pick(hash: u64, count: usize) -> usize {
    (hash % count as u64) as usize
}
