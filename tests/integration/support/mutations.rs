//! Damages to bytes and to JSON, generated: every byte of an object, every value of a document.

use bytes::Bytes;
use serde_json::{Map, Value as Json};

/// What a byte of a text is replaced by: what has a meaning in JSON, and what has none.
const OF_TEXT: &[u8] = b"\"{],09-\0";

/// Bytes put before a byte of a text.
const INTO_TEXT: &[u8] = b"0\"-[";

/// One damage: what it is, and the bytes with it.
pub(crate) type Damage = (String, Bytes);

fn with(bytes: &[u8], at: usize, remove: usize, insert: &[u8]) -> Bytes {
    [&bytes[..at], insert, &bytes[at + remove..]].concat().into()
}

/// Damages that keep the length, at one byte: each bit flipped, all flipped, and the byte replaced.
pub(crate) fn replaced(bytes: &[u8], at: usize, by: &[u8]) -> Vec<Damage> {
    let byte = bytes[at];
    let mut all: Vec<u8> = (0..8).map(|bit| byte ^ 1 << bit).chain([!byte]).chain(by.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|other| *other != byte);
    all.into_iter()
        .map(|new| (format!("byte {at} from {byte:#04x} to {new:#04x}"), with(bytes, at, 1, &[new])))
        .collect()
}

/// Damages that change the length, at one byte: cut before it, removed, doubled, others put before it.
pub(crate) fn resized(bytes: &[u8], at: usize, insert: &[u8]) -> Vec<Damage> {
    let mut all = vec![
        (format!("cut to {at} bytes"), Bytes::copy_from_slice(&bytes[..at])),
        (format!("byte {at} removed"), with(bytes, at, 1, b"")),
        (format!("byte {at} doubled"), with(bytes, at, 0, &bytes[at..=at])),
    ];
    all.extend(insert.iter().map(|new| (format!("{new:#04x} before byte {at}"), with(bytes, at, 0, &[*new]))));
    all
}

/// Bytes that are lengthened.
pub(crate) fn extended(bytes: &[u8]) -> Vec<Damage> {
    let tails: [&[u8]; 10] =
        [b"\0", b"}", b"{}", b",", b"\n\n", b" ", b"PAR1", b"\xff\xff\xff\xff", b"{\"format_version\": 1}", &[0; 4096]];
    tails.iter().map(|tail| (format!("{} bytes appended", tail.len()), [bytes, tail].concat().into())).collect()
}

/// Every damage of a text at one byte.
pub(crate) fn of_text(bytes: &[u8], at: usize) -> Vec<Damage> {
    let mut all = replaced(bytes, at, OF_TEXT);
    all.extend(resized(bytes, at, INTO_TEXT));
    all
}

/// The places of a document's values, the document itself not among them, as JSON pointers.
pub(crate) fn places(document: &Json) -> Vec<String> {
    fn walk(value: &Json, place: &str, all: &mut Vec<String>) {
        let children: Vec<(String, &Json)> = match value {
            Json::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
            Json::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
            _ => vec![],
        };
        for (name, child) in children {
            let place = format!("{place}/{name}");
            walk(child, &place, all);
            all.push(place);
        }
    }
    let mut all = vec![];
    walk(document, "", &mut all);
    all
}

/// The object or array around a place, and the name or number in it.
fn around<'a, 'b>(document: &'a mut Json, place: &'b str) -> (&'a mut Json, &'b str) {
    let (parent, name) = place.rsplit_once('/').unwrap();
    (document.pointer_mut(parent).unwrap(), name)
}

/// The document with another value at a place.
pub(crate) fn set(document: &Json, place: &str, value: Json) -> Json {
    let mut changed = document.clone();
    *changed.pointer_mut(place).unwrap() = value;
    changed
}

/// The document without the value at a place.
pub(crate) fn removed(document: &Json, place: &str) -> Json {
    let mut changed = document.clone();
    match around(&mut changed, place) {
        (Json::Object(fields), name) => drop(fields.remove(name)),
        (Json::Array(items), at) => drop(items.remove(at.parse().unwrap())),
        _ => unreachable!(),
    }
    changed
}

/// Marks text that is to stand in a document as it is, be it JSON or not; `\u{1}` is a quote.
pub(crate) fn raw(text: &str) -> Json {
    Json::String(format!("@raw {text} raw@"))
}

/// A field that the object at a place has a second time, if there is an object around the place.
pub(crate) fn repeated(document: &Json, place: &str, value: Json) -> Option<Json> {
    let mut changed = document.clone();
    let (Json::Object(fields), name) = around(&mut changed, place) else { return None };
    fields.insert(format!("{name}@again"), value);
    Some(changed)
}

/// A new field of the object at a place.
pub(crate) fn added(document: &Json, place: &str, name: &str, value: Json) -> Json {
    let mut changed = document.clone();
    let fields: &mut Map<String, Json> = changed.pointer_mut(place).unwrap().as_object_mut().unwrap();
    fields.insert(name.to_owned(), value);
    changed
}

/// The text of a document with [`raw`] parts and [`repeated`] fields. No raw part has a quote or backslash of its own.
pub(crate) fn text_of(document: &Json) -> Bytes {
    let text = serde_json::to_string(document).unwrap();
    text.replace("\"@raw ", "").replace(" raw@\"", "").replace("@again\":", "\":").replace("\\u0001", "\"").into()
}

/// Values that do not belong where they are put.
pub(crate) fn hostile_values() -> Vec<Json> {
    let numbers = [
        "0",
        "1",
        "2",
        "3",
        "7",
        "-1",
        "-0",
        "1.5",
        "1e3",
        "255",
        "256",
        "32768",
        "65536",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        "-1e-400",
        "00",
        "+1",
        "0x10",
        "NaN",
        "Infinity",
    ];
    let texts = [
        "",
        " ",
        "0",
        "1",
        "-1",
        "01",
        "1.0",
        "true",
        "x",
        "9223372036854775808",
        "-170141183460469231731687303715884105729",
        "../../x",
        "\u{0}",
        "\u{fffd}",
        "\u{1f600}",
        "append",
        "vacuum",
        "drop",
        "int64",
        "utf8",
        "k",
        "name",
    ];
    let mut all: Vec<Json> = numbers.iter().map(|number| raw(number)).collect();
    all.extend(texts.iter().map(|text| Json::from(*text)));
    all.push("y".repeat(5_000).into());
    all.extend([Json::Null, true.into(), false.into()]);
    all.extend(["[]", "{}", "[null]", "[[]]", "[{}]", "[0, 0, 0]", "nul", "", ",", "]", "}"].map(raw));
    all.extend([60, 127, 128, 5_000].map(deep));
    all
}

/// Arrays in each other.
pub(crate) fn deep(depth: usize) -> Json {
    raw(&["[".repeat(depth), "]".repeat(depth)].concat())
}
