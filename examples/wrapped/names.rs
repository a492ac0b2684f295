//! Names of artists and songs, made from their numbers.

use crate::catalogue::{hash, pick};

const ADJECTIVES: [&str; 32] = [
    "Amber", "Silent", "Velvet", "Golden", "Hollow", "Electric", "Distant", "Crimson", "Paper", "Midnight", "Wooden",
    "Gentle", "Broken", "Lunar", "Northern", "Restless", "Secret", "Silver", "Lonely", "Burning", "Frozen", "Roaming",
    "Hidden", "Endless", "Faded", "Little", "Marble", "Neon", "Quiet", "Rusty", "Sleepy", "Salted",
];
const NOUNS: [&str; 48] = [
    "Harbour", "Lantern", "River", "Garden", "Mirror", "Engine", "Orchard", "Sparrow", "Kite", "Window", "Meadow",
    "Signal", "Anchor", "Chapel", "Feather", "Island", "Kettle", "Ladder", "Mountain", "Notebook", "Ocean", "Parade",
    "Canyon", "Rocket", "Shadow", "Temple", "Umbrella", "Valley", "Whisper", "Avenue", "Terrace", "Candle", "Desert",
    "Comet", "Forest", "Glacier", "Horizon", "Jungle", "Kingdom", "Beacon", "Machine", "Robin", "Palace", "Railway",
    "Station", "Thunder", "Violin", "Willow",
];
const FIRST_NAMES: [&str; 40] = [
    "Ada", "Bruno", "Carla", "Dario", "Elin", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaori", "Lina", "Mateo",
    "Nora", "Otis", "Paula", "Quentin", "Rosa", "Selim", "Tara", "Ulla", "Viktor", "Wanda", "Xenia", "Yusuf", "Zora",
    "Aino", "Bela", "Chiyo", "Diego", "Esme", "Femi", "Gala", "Hana", "Ivo", "Juno", "Kofi", "Leila", "Milo", "Nadia",
];
const LAST_NAMES: [&str; 48] = [
    "Almeida", "Berg", "Castell", "Dahl", "Eriksen", "Fontaine", "Grieve", "Hartmann", "Ibarra", "Jansson", "Kimura",
    "Lindberg", "Moreau", "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Sandoval", "Takeda", "Urban", "Varga",
    "Weiss", "Xavier", "Yildiz", "Zeller", "Abara", "Bellini", "Cordova", "Delorme", "Eng", "Falk", "Garnier", "Holm",
    "Iversen", "Jimenez", "Koval", "Larsen", "Mbeki", "Nakamura", "Olsson", "Pereira", "Romero", "Silva", "Tanaka",
    "Ueda", "Vidal", "Winter",
];

/// No two artists share a name.
pub(crate) fn artist_name(artist: i64) -> String {
    let patterns = [
        (ADJECTIVES.len() * NOUNS.len(), adjective_and_noun as fn(usize) -> String),
        (FIRST_NAMES.len() * LAST_NAMES.len(), |i| {
            format!("{} {}", FIRST_NAMES[i % FIRST_NAMES.len()], LAST_NAMES[i / FIRST_NAMES.len()])
        }),
        (ADJECTIVES.len() * NOUNS.len(), |i| format!("The {}s", adjective_and_noun(i))),
        (FIRST_NAMES.len() * NOUNS.len(), |i| {
            format!("{} and the {}s", FIRST_NAMES[i % FIRST_NAMES.len()], NOUNS[i / FIRST_NAMES.len()])
        }),
        (NOUNS.len() * LAST_NAMES.len(), |i| format!("{} {}", LAST_NAMES[i / NOUNS.len()], NOUNS[i % NOUNS.len()])),
    ];
    let names: usize = patterns.iter().map(|(names, _)| names).sum();
    // A prime that does not divide the number of names: all numbers below it are met once.
    let mut i = artist as usize * 7919 % names;
    for (names, name) in patterns {
        if i < names {
            return name(i);
        }
        i -= names;
    }
    format!("Artist {artist}")
}

fn adjective_and_noun(i: usize) -> String {
    format!("{} {}", ADJECTIVES[i % ADJECTIVES.len()], NOUNS[i / ADJECTIVES.len()])
}

/// Songs of several artists may share a title.
pub(crate) fn track_title(track: i64) -> String {
    let words = hash([4, track as u64]);
    let noun = NOUNS[pick(words, NOUNS.len())];
    let other = NOUNS[pick(hash([5, words]), NOUNS.len())];
    let adjective = ADJECTIVES[pick(hash([6, words]), ADJECTIVES.len())];
    let name = FIRST_NAMES[pick(hash([7, words]), FIRST_NAMES.len())];
    match pick(hash([8, words]), 8) {
        0 => format!("{adjective} {noun}"),
        1 => format!("{noun} in the {other}"),
        2 => format!("{name}'s {noun}"),
        3 => format!("Letters to {name}"),
        4 => format!("Under the {adjective} {noun}"),
        5 => format!("Dance, {name}"),
        6 => format!("No More {noun}s"),
        _ => format!("My {adjective} {noun}"),
    }
}
