//! A hundred thousand generated damages: every byte of manifests, hints, footers, page indexes and pages, every value of a manifest, every run in the
//! place of every other. Each is an error of the right kind that names the object, or changes no row; what an ordinary read cannot notice, a
//! verified read or a validation must find, as `docs/format.md` section 9 says.
//!
//! Each test prints what it tried; together they are held to [`LEAST`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData};
use serde_json::Value as Json;
use sort_merge_bucket::{
    Aggregate, CoGroup, Count, Dataset, DatasetWriter, Error, ErrorKind, Join, Plan, PlanOperation, PlanOptions,
    Predicate, Result, Scan, ScanPlan, SlotDescriptor, Source, Verification, WriteMode,
};

use crate::support::data::{DatasetData, Write, batch_of};
use crate::support::field;
use crate::support::forge::{edit_manifest, encode_run, manifest_path, read_run, replace_run, run_paths};
use crate::support::mutations::{
    Damage, added, deep, extended, hostile_values, of_text, places, raw, removed, repeated, replaced, resized, set,
    text_of,
};
use crate::support::oracle::{Row, Value, all_rows, bucket_of, int, sorted, text};
use crate::support::stores::{put, read};

/// How many damages each family tries at least.
const LEAST: [(&str, usize); 6] = [
    ("manifest bytes", 90_000),
    ("hints", 2_000),
    ("manifest values", 30_000),
    ("footers", 23_000),
    ("pages", 4_000),
    ("runs", 250),
];

const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < LEAST.len() {
        sum += LEAST[at].1;
        at += 1;
    }
    assert!(sum >= 100_000, "the tests must try a hundred thousand damages");
};

/// What became of the damages of a family.
#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    /// Errors of ordinary reads, by kind.
    refused: BTreeMap<&'static str, usize>,
    /// The rows are what they were.
    harmless: usize,
    /// An ordinary read returned other rows, and others found the damage.
    found_otherwise: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tried, refused, harmless, found_otherwise } = self;
        write!(f, "{tried} tried, refused {refused:?}, {harmless} harmless, {found_otherwise} found otherwise")
    }
}

/// The error is of an expected kind and names the object: its kind.
fn kind_of(error: &Error, expected: &[ErrorKind], path: impl Fn(&str) -> bool, what: &str) -> &'static str {
    let kind = [
        (ErrorKind::Corrupt, "corrupt"),
        (ErrorKind::UnsupportedVersion, "unsupported version"),
        (ErrorKind::Unsorted, "unsorted"),
        (ErrorKind::Misplaced, "misplaced"),
    ];
    let kind = kind.iter().find(|(kind, _)| *kind == error.kind() && expected.contains(kind));
    let named = error.path().is_some_and(|named| path(named) && error.to_string().contains(named));
    kind.filter(|_| named).unwrap_or_else(|| panic!("{what}: {error:?}")).1
}

impl Tally {
    fn refused(&mut self, kind: &'static str) {
        *self.refused.entry(kind).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.harmless += other.harmless;
        self.found_otherwise += other.found_otherwise;
        other.refused.into_iter().for_each(|(kind, count)| *self.refused.entry(kind).or_default() += count);
    }

    fn finish(&self, family: &str) {
        println!("{family}: {self}");
        let least = LEAST.iter().find(|(name, _)| *name == family).unwrap().1;
        assert!(self.tried >= least, "{family}: {} damages, expected at least {least}", self.tried);
    }
}

const DAMAGED: &[ErrorKind] = &[ErrorKind::Corrupt, ErrorKind::Unsorted, ErrorKind::Misplaced];
const UNREADABLE: &[ErrorKind] = &[ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];

/// Damages are about bytes, not about stores.
fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// Two buckets; with a second write, two runs in each. Row groups and pages of a few rows.
fn data(writes: usize) -> DatasetData {
    let fields = vec![
        field("k", DataType::Int64, true),
        field("name", DataType::Utf8, true),
        field("n", DataType::Int32, false),
    ];
    let row = |at: i128| -> Row {
        vec![int(at % 11 - 3), if at % 5 == 0 { Value::Null } else { text(&format!("name {}", at % 7)) }, int(at)]
    };
    let mut data = DatasetData::new(fields, &["k"], 2, (0..24).map(row).collect()).with_sort(&["n"]);
    if writes > 1 {
        data.writes.push(Write::new(2, (24..40).map(row).collect()));
    }
    for write in &mut data.writes {
        write.options = write.options.clone().with_max_row_group_rows(8).with_page_rows(4);
    }
    data
}

async fn collect<O: PlanOperation>(plan: &Plan<O>, slots: &[SlotDescriptor]) -> Result<Vec<O::Item>> {
    let mut items = vec![];
    for slot in slots {
        items.extend(plan.execute(slot)?.try_collect::<Vec<_>>().await?);
    }
    Ok(items)
}

fn slots<O: PlanOperation>(plan: &Plan<O>) -> Vec<SlotDescriptor> {
    (0..plan.slots().get()).map(|slot| plan.slot(slot).unwrap()).collect()
}

async fn rows_of_plan<O: PlanOperation<Item = RecordBatch>>(plan: &Plan<O>) -> Result<Vec<Row>> {
    Ok(sorted(all_rows(&collect(plan, &slots(plan)).await?)))
}

/// Everything, by a scan and by a join with itself.
async fn read_all(dataset: &Dataset) -> Result<(Vec<Row>, Vec<Row>)> {
    let join = Join::inner(dataset, dataset).with_right_prefix("r.").plan()?;
    Ok((rows_of_plan(&Scan::new(dataset).plan()?).await?, rows_of_plan(&join).await?))
}

/// A dataset whose newest manifest is damaged over and over.
struct Damaged {
    store: Arc<dyn ObjectStore>,
    dataset: Dataset,
    expected: (Vec<Row>, Vec<Row>),
    path: String,
    tally: Tally,
}

impl Damaged {
    async fn new(data: &DatasetData) -> Self {
        let store = memory();
        let dataset = data.write_fixed(&store, "d").await;
        let expected = read_all(&dataset).await.unwrap();
        let path = manifest_path("d", dataset.version());
        Self { store, dataset, expected, path, tally: Tally::default() }
    }

    async fn manifest(&self) -> Bytes {
        read(&self.store, &self.path).await
    }

    async fn open(&self, bytes: Bytes) -> Result<Dataset> {
        put(&self.store, &self.path, bytes).await;
        Dataset::open(Arc::clone(&self.store), "d").await
    }

    /// Opens it with other bytes as its manifest, and reads it if they mean something else.
    async fn try_manifest(&mut self, what: &str, bytes: Bytes) {
        self.tally.tried += 1;
        let opened = match self.open(bytes).await {
            Ok(opened) => opened,
            Err(error) => return self.tally.refused(kind_of(&error, UNREADABLE, |path| path == self.path, what)),
        };
        let known = &self.dataset;
        let same = opened.runs() == known.runs()
            && opened.schema() == known.schema()
            && (opened.spec(), opened.id()) == (known.spec(), known.id());
        if same {
            self.tally.harmless += 1;
            return;
        }
        match read_all(&opened).await {
            Ok(found) => {
                assert!(found == self.expected, "other rows: {what}");
                self.tally.harmless += 1;
            }
            Err(error) => self.tally.refused(kind_of(&error, DAMAGED, |path| path.starts_with("d/data/"), what)),
        }
    }
}

#[tokio::test]
async fn damage_at_any_byte_of_a_manifest_is_an_error_or_changes_no_row() {
    let mut damaged = Damaged::new(&data(2)).await;
    let good = damaged.manifest().await;
    for (what, bytes) in extended(&good) {
        damaged.try_manifest(&what, bytes).await;
    }
    for at in 0..good.len() {
        for (what, bytes) in of_text(&good, at) {
            damaged.try_manifest(&what, bytes).await;
        }
    }
    // Times, lineage, write ids, fences: little of a manifest has no meaning for reading.
    assert!(damaged.tally.harmless * 3 < damaged.tally.tried, "{}", damaged.tally);
    damaged.tally.finish("manifest bytes");
}

#[tokio::test]
async fn whatever_the_hint_says_the_newest_version_is_opened() {
    let mut damaged = Damaged::new(&data(2)).await;
    let good = read(&damaged.store, "d/_smb/latest").await;
    let mut hints: Vec<Bytes> = extended(&good).into_iter().map(|(_, bytes)| bytes).collect();
    for at in 0..good.len() {
        let any: Vec<u8> = (0..=255).collect();
        hints.extend(replaced(&good, at, &any).into_iter().chain(resized(&good, at, &any)).map(|(_, bytes)| bytes));
    }
    let mut versions: Vec<u64> = (0..1_500).collect();
    versions.extend((0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, u64::MAX - (1 << bit)]));
    hints.extend(versions.iter().map(|version| format!("{version}\n").into()));
    let texts = ["", "-1", "18446744073709551616", "2 ", "00002", "+2", "2.0", "0x2", "\u{662}", "../2", "d/2"];
    hints.extend(texts.iter().map(|text| Bytes::from(*text)));
    hints.push("9".repeat(1 << 20).into());
    for hint in hints {
        put(&damaged.store, "d/_smb/latest", hint.clone()).await;
        let opened = Dataset::open(Arc::clone(&damaged.store), "d").await;
        assert_eq!(opened.unwrap().version(), 2, "{hint:?}");
        damaged.tally.tried += 1;
        damaged.tally.harmless += 1;
    }
    damaged.tally.finish("hints");
}

/// Columns of many types.
fn of_many_types() -> DatasetData {
    let at = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let types = [
        DataType::Int64,
        DataType::Int16,
        DataType::UInt32,
        DataType::Decimal128(10, 2),
        at(TimeUnit::Microsecond, None),
        at(TimeUnit::Millisecond, Some("UTC")),
        DataType::Date32,
        DataType::Utf8,
        DataType::Binary,
        DataType::FixedSizeBinary(2),
        DataType::Boolean,
        DataType::UInt64,
    ];
    let value = |data_type: &DataType, n: i128| match data_type {
        DataType::Utf8 => text(&format!("text {n}")),
        DataType::Binary | DataType::FixedSizeBinary(_) => Value::Bytes(vec![200, n as u8]),
        DataType::Boolean => Value::Bool(n % 2 == 0),
        _ => int(n),
    };
    let rows =
        (0..6).map(|n| types.iter().zip(0..).map(|(data_type, at)| value(data_type, n + 10 * at)).collect()).collect();
    let fields =
        types.iter().enumerate().map(|(at, data_type)| field(&format!("c{at}"), data_type.clone(), at % 2 == 0));
    DatasetData::new(fields.collect(), &["c0"], 1, rows)
}

/// Every name of a type, and some that are none.
const TYPES: &[&str] = &[
    "boolean",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "decimal128(10,2)",
    "decimal128(10,3)",
    "decimal128(9,2)",
    "decimal128(38,0)",
    "decimal128(39,0)",
    "decimal128(0,0)",
    "decimal128(10,-2)",
    "decimal256(10,2)",
    "decimal256(76,0)",
    "date32",
    "time32(ms)",
    "time64(us)",
    "time64(ns)",
    "timestamp(ms)",
    "timestamp(us)",
    "timestamp(ns)",
    "timestamp(s)",
    "timestamp(ms,UTC)",
    "timestamp(us,UTC)",
    "timestamp(ns,UTC)",
    "timestamp(us,Europe/Stockholm)",
    "timestamp(us,nowhere)",
    "utf8",
    "binary",
    "fixed_size_binary(2)",
    "fixed_size_binary(3)",
    "fixed_size_binary(0)",
    "fixed_size_binary(-1)",
    "fixed_size_binary(2147483647)",
    "list",
    "struct",
    "map",
    "",
    "int",
    "INT64",
];

/// Paths that lead out of the dataset, or to no run of it.
fn hostile_paths(good: &str) -> Vec<String> {
    let name = good.rsplit('/').next().unwrap();
    let mut all: Vec<String> = vec![];
    let steps = [
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E%2E",
        "..%2f",
        "%2e",
        "~",
        "\\..",
        "..\\",
        "\u{2025}",
        "\u{ff0e}\u{ff0e}",
        "*",
        "c:",
    ];
    for step in steps {
        for depth in 1..4 {
            let steps = vec![step; depth].join("/");
            all.extend([
                format!("{steps}/{good}"),
                format!("data/{steps}/{name}"),
                format!("data/{steps}/other/{name}"),
                format!("data/w/{steps}/{name}"),
                format!("data/w/{steps}"),
                format!("{good}/{steps}"),
                format!("data/{steps}/../d/{good}"),
                steps,
            ]);
        }
    }
    let roots = [
        "/",
        "//",
        "file:///",
        "http://example.org/",
        "https://example.org/",
        "s3://bucket/",
        "memory://",
        "memory:///",
        "C:\\",
        "\\\\host\\share\\",
        "d/",
        "/d/",
        "./",
        "data//",
        "data/./",
        "DATA/",
        "data\\",
        " ",
        "\0",
        "\u{feff}",
        "_smb/",
        "_smb/../",
        "data",
        "data%2f",
        "?",
        "#",
        "data?",
        "data#",
        "//example.org/",
        "@",
        "$HOME/",
        "~/",
    ];
    for root in roots {
        all.extend([format!("{root}{good}"), format!("{root}{name}"), root.to_owned(), format!("{root}etc/passwd")]);
    }
    all.extend(
        ["?", "#", "/", "\0", " ", "%00", "\n", "/.", "/..", ";", "\\", "%2f..", "\u{202e}"]
            .map(|end| format!("{good}{end}")),
    );
    all
}

#[tokio::test]
async fn hostile_values_anywhere_in_a_manifest_are_an_error_or_change_no_row() {
    let mut tally = Tally::default();
    for (data, all) in [(data(2), true), (of_many_types(), false)] {
        let mut damaged = Damaged::new(&data).await;
        let good: Json = serde_json::from_slice(&damaged.manifest().await).unwrap();
        let mut edits: Vec<(String, Json)> = vec![];
        let values = if all { hostile_values() } else { vec![] };
        for place in places(&good) {
            // Nothing but the manifest itself says how many runs there are.
            let names_runs = place.strip_prefix("/runs").is_some_and(|rest| rest.matches('/').count() < 2);
            for value in &values {
                if !(names_runs && *value == raw("[]")) {
                    edits.push((format!("{value:.60} at {place}"), set(&good, &place, value.clone())));
                }
            }
            if !names_runs {
                edits.push((format!("no {place}"), removed(&good, &place)));
            }
            let own = good.pointer(&place).unwrap();
            for again in [own.clone(), Json::Null, 0.into(), "".into(), raw("[]")] {
                edits.extend(repeated(&good, &place, again).map(|edit| (format!("{place} twice"), edit)));
            }
            if let Json::String(number) = own
                && let Ok(number) = number.parse::<i128>()
            {
                for delta in [-(1 << 70), -1000, -11, -3, -2, -1, 1, 2, 3, 11, 1000, 1 << 70] {
                    let edit = set(&good, &place, (number + delta).to_string().into());
                    edits.push((format!("{delta:+} at {place}"), edit));
                }
            }
            if let Some(number) = own.as_u64() {
                for delta in
                    [-1000, -9, -8, -4, -3, -2, -1, 1, 2, 3, 4, 8, 9, 1000, 1 << 20, 1 << 31, 1 << 40, i64::MAX]
                {
                    let value = raw(&(i128::from(number) + i128::from(delta)).to_string());
                    edits.push((format!("{delta:+} at {place}"), set(&good, &place, value)));
                }
            }
        }
        for depth in [1, 30, 60, 120, 126, 127, 128, 129, 1_000, 100_000] {
            for place in ["", "/runs/0", "/spec", "/runs/0/checksum", "/schema/0", "/runs/0/first_key"] {
                let edit = added(&good, place, "later", deep(depth));
                edits.push((format!("{depth} arrays in {place}"), edit));
                let objects = raw(&["{\u{1}a\u{1}:".repeat(depth), "0".to_owned(), "}".repeat(depth)].concat());
                edits.push((format!("{depth} objects in {place}"), added(&good, place, "later", objects)));
            }
        }
        for (name, value) in [("tombstone", true.into()), ("tombstone", 1.into()), ("reader_features", "x".into())] {
            edits.push((format!("{name} added"), added(&good, "", name, value)));
        }
        // Columns of other types, names and order.
        let columns = good["schema"].as_array().unwrap().len();
        for at in 0..columns {
            for name in TYPES {
                let edit = set(&good, &format!("/schema/{at}/type"), (*name).into());
                edits.push((format!("column {at} as {name}"), edit));
            }
            for other in (0..columns).filter(|other| *other != at) {
                let mut edit = good.clone();
                edit["schema"].as_array_mut().unwrap().swap(at, other);
                edits.push((format!("columns {at} and {other} swapped"), edit));
                let name = good["schema"][other]["name"].clone();
                edits.push((
                    format!("column {at} named as {other}"),
                    set(&good, &format!("/schema/{at}/name"), name.clone()),
                ));
                let mut edit = set(&good, &format!("/schema/{at}/name"), name);
                edit["schema"][other]["name"] = good["schema"][at]["name"].clone();
                edits.push((format!("names of columns {at} and {other} swapped"), edit));
            }
            let name = &good["schema"][at]["name"];
            edits.push((format!("column {at} as key"), set(&good, "/spec/key", Json::Array(vec![name.clone()]))));
            let sort = serde_json::json!([{"name": name, "direction": "ascending", "nulls": "last"}]);
            edits.push((format!("sorted by column {at}"), set(&good, "/spec/sort", sort)));
        }
        // What is said of one run, said of another.
        let runs = good["runs"].as_array().unwrap();
        for a in 0..runs.len() {
            for b in (0..runs.len()).filter(|b| *b != a) {
                for name in runs[a].as_object().unwrap().keys() {
                    let mut edit = good.clone();
                    edit["runs"][a][name] = runs[b][name].clone();
                    edits.push((format!("{name} of run {b} at run {a}"), edit.clone()));
                    edit["runs"][b][name] = runs[a][name].clone();
                    edits.push((format!("{name} of runs {a} and {b} swapped"), edit));
                }
            }
        }
        for (what, edit) in &edits {
            damaged.try_manifest(what, text_of(edit)).await;
        }
        // Runs elsewhere.
        for (run, entry) in runs.iter().enumerate() {
            let own = entry["path"].as_str().unwrap();
            for path in hostile_paths(own) {
                let edit = set(&good, &format!("/runs/{run}/path"), path.clone().into());
                damaged.tally.tried += 1;
                let error = match damaged.open(text_of(&edit)).await {
                    Ok(opened) => {
                        let root = opened.run_paths().nth(run).unwrap();
                        assert!(root.as_ref().starts_with("d/data/"), "{path} is read at {root}");
                        read_all(&opened).await.unwrap_err()
                    }
                    Err(error) => error,
                };
                let kind = kind_of(&error, &[ErrorKind::Corrupt], |named| named.starts_with("d/"), &path);
                damaged.tally.refused(kind);
            }
        }
        tally.add(damaged.tally);
    }
    tally.finish("manifest values");
}

/// One run whose file is damaged over and over, with plans that read its slot in three ways.
struct DamagedRun {
    store: Arc<dyn ObjectStore>,
    dataset: Dataset,
    path: String,
    good: Bytes,
    scan: (ScanPlan, Vec<Row>),
    look_up: (ScanPlan, Vec<Row>),
    verified: ScanPlan,
    slot: Vec<SlotDescriptor>,
    tally: Tally,
}

impl DamagedRun {
    async fn new(data: &DatasetData, run: usize) -> Self {
        let store = memory();
        let dataset = data.write_fixed(&store, "d").await;
        let path = run_paths(&dataset)[run].clone();
        let good = read(&store, &path).await;
        let scan = Scan::new(&dataset).plan().unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values([-3, 0, 1, 2, 5]));
        let some = Source::from(&dataset).with_keys(keys).with_filter(Predicate::ge("n", 4));
        let look_up = Scan::new(some).plan().unwrap();
        let options = PlanOptions::default().with_verification(Verification::Full);
        let verified = Scan::new(&dataset).with_options(options).plan().unwrap();
        let slot = vec![scan.slot(dataset.runs()[run].bucket % scan.slots().get()).unwrap()];
        let rows = |batches: Vec<RecordBatch>| all_rows(&batches);
        let all = rows(collect(&scan, &slot).await.unwrap());
        let found = rows(collect(&look_up, &slot).await.unwrap());
        assert!(!found.is_empty() && found.len() < all.len(), "a look-up that finds some rows and not all");
        let (scan, look_up) = ((scan, all), (look_up, found));
        Self { store, dataset, path, good, scan, look_up, verified, slot, tally: Tally::default() }
    }

    /// Where the page index begins.
    fn page_index(&self) -> usize {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&self.good).unwrap();
        let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        columns.filter_map(ColumnChunkMetaData::column_index_offset).min().unwrap() as usize
    }

    /// Whether a read returned what it should have, or the kind of the error, which must name the file.
    async fn outcome(&self, (plan, expected): &(ScanPlan, Vec<Row>), what: &str) -> Result<bool, &'static str> {
        let found = collect(plan, &self.slot).await;
        let kind = |error| kind_of(&error, DAMAGED, |path| path == self.path, what);
        found.map(|found| all_rows(&found) == *expected).map_err(kind)
    }

    /// Other bytes in the place of the file. In pages, a scan may overlook the damage; a look-up may, in statistics, anywhere.
    async fn try_bytes(&mut self, what: &str, bytes: Bytes, in_pages: bool, validate: bool) {
        put(&self.store, &self.path, bytes).await;
        self.tally.tried += 1;
        let outcomes = [self.outcome(&self.scan, what).await, self.outcome(&self.look_up, what).await];
        assert!(in_pages || outcomes[0] != Ok(false), "a scan returned other rows: {what}");
        let overlooked = outcomes.contains(&Ok(false));
        match outcomes.iter().find_map(|outcome| outcome.err()) {
            _ if overlooked => self.tally.found_otherwise += 1,
            Some(kind) => self.tally.refused(kind),
            None => self.tally.harmless += 1,
        }
        let error = collect(&self.verified, &self.slot).await.unwrap_err();
        kind_of(&error, &[ErrorKind::Corrupt], |path| path == self.path, what);
        if overlooked || validate {
            let report = self.dataset.validate().await.unwrap();
            let own = report.violations.iter().filter_map(|violation| violation.path.as_ref());
            assert!(own.into_iter().any(|path| self.path.ends_with(path.as_str())), "{what}: {report}");
        }
    }
}

#[tokio::test]
async fn damage_at_any_byte_of_a_footer_or_page_index_is_an_error_or_changes_no_row() {
    let mut damaged = DamagedRun::new(&data(1), 0).await;
    let good = damaged.good.clone();
    for (at, (what, bytes)) in extended(&good).into_iter().enumerate() {
        damaged.try_bytes(&what, bytes, false, at == 0).await;
    }
    for at in damaged.page_index()..good.len() {
        // Among others: lists, and counts of many bytes.
        let mut damages: Vec<Damage> = replaced(&good, at, &[0, 0x19, 0xf8, 0xfc]);
        damages.extend(resized(&good, at, &[]));
        for (number, (what, bytes)) in damages.into_iter().enumerate() {
            damaged.try_bytes(&what, bytes, false, number == at % 200).await;
        }
    }
    damaged.tally.finish("footers");
}

#[tokio::test]
async fn damage_at_any_byte_of_a_page_is_never_a_panic_and_found_by_a_verified_read() {
    let mut damaged = DamagedRun::new(&data(1), 0).await;
    let good = damaged.good.clone();
    for at in 0..damaged.page_index() {
        for (number, (what, bytes)) in replaced(&good, at, &[0, 0x7f]).into_iter().enumerate() {
            damaged.try_bytes(&what, bytes, true, number == at % 16).await;
        }
    }
    damaged.tally.finish("pages");
}

/// Two versions: the second replaces the first by rows with the same keys, in the same buckets.
async fn replaced_dataset(store: &Arc<dyn ObjectStore>) -> [Dataset; 2] {
    let mut versions = vec![];
    for (mode, first) in [(WriteMode::Create, 0), (WriteMode::Replace, 100)] {
        let mut data = data(1);
        data.writes[0].rows.iter_mut().enumerate().for_each(|(at, row)| row[2] = int(first + at as i128));
        let builder = DatasetWriter::builder(Arc::clone(store), "d", data.schema(), data.spec(2)).with_mode(mode);
        let mut writer = builder.build().await.unwrap();
        writer.write(&batch_of(&data.schema(), &data.writes[0].rows)).await.unwrap();
        versions.push(writer.commit().await.unwrap());
    }
    versions.try_into().unwrap()
}

#[tokio::test]
async fn any_run_in_the_place_of_any_other_is_refused() {
    let mut tally = Tally::default();
    // Of other writes and buckets, of other versions, of another dataset with the same rows.
    let store = memory();
    let appended = data(2).write(&store, "other").await;
    let [old, new] = replaced_dataset(&store).await;
    let mut sources: Vec<(String, Bytes, Json)> = vec![];
    for dataset in [&appended, &old, &new] {
        let manifest = read(&store, &manifest_path(dataset.path().as_ref(), dataset.version())).await;
        let manifest: Json = serde_json::from_slice(&manifest).unwrap();
        for (run, path) in run_paths(dataset).into_iter().enumerate() {
            sources.push((path.clone(), read(&store, &path).await, manifest["runs"][run].clone()));
        }
    }
    for dataset in [&appended, &new] {
        let manifest = manifest_path(dataset.path().as_ref(), dataset.version());
        let good_manifest = read(&store, &manifest).await;
        for (run, path) in run_paths(dataset).into_iter().enumerate() {
            let good = read(&store, &path).await;
            for (other, bytes, entry) in sources.iter().filter(|(other, ..)| *other != path) {
                put(&store, &path, bytes.clone()).await;
                let document: Json = serde_json::from_slice(&good_manifest).unwrap();
                // As the manifest was; with the other file's entry but for its path, so that sizes, keys and checksum agree; and for its bucket.
                let own = document["runs"][run].clone();
                let mut agreeing = entry.clone();
                agreeing["path"] = own["path"].clone();
                let mut of_bucket = agreeing.clone();
                of_bucket["bucket"] = own["bucket"].clone();
                for (kind, entry) in [("bytes", own.clone()), ("entry", agreeing), ("entry but its bucket", of_bucket)]
                {
                    let edit = set(&document, &format!("/runs/{run}"), entry);
                    put(&store, &manifest, serde_json::to_vec(&edit).unwrap()).await;
                    let what = format!("{kind} of {other} at {path}");
                    let opened = Dataset::open(Arc::clone(&store), dataset.path().clone()).await.unwrap();
                    let error = read_all(&opened).await.expect_err(&what);
                    tally.refused(kind_of(&error, &[ErrorKind::Corrupt], |named| named == path, &what));
                    tally.tried += 1;
                }
                put(&store, &manifest, good_manifest.clone()).await;
            }
            put(&store, &path, good).await;
        }
    }

    // Rows in another order, and everything said of them right.
    let store = memory();
    let dataset = data(1).write(&store, "d").await;
    let paths = run_paths(&dataset);
    for (run, own) in paths.iter().enumerate() {
        let (rows, identity) = read_run(&store, own).await;
        for at in 0..rows.len() - 1 {
            for to in at + 1..rows.len() {
                let mut moved = rows.clone();
                let row = moved.remove(at);
                moved.insert(to, row);
                let sorted = moved.is_sorted_by(|a, b| a[0] <= b[0]);
                let bytes = encode_run(&dataset, &moved, identity.clone(), 8);
                replace_run(&store, &dataset, run, bytes, rows.len()).await;
                let opened = Dataset::open(Arc::clone(&store), "d").await.unwrap();
                tally.tried += 1;
                match read_all(&opened).await {
                    // Rows of one key may come in any order.
                    Ok(_) => {
                        assert!(sorted, "row {at} of run {run} moved to {to}");
                        tally.harmless += 1;
                    }
                    Err(error) => tally.refused(kind_of(&error, DAMAGED, |path| path == own, "rows moved")),
                }
            }
        }
    }
    tally.finish("runs");
}

/// Every kind of plan over a dataset, until one fails.
async fn read_in_every_way(dataset: &Dataset, options: &PlanOptions) -> Vec<(&'static str, Option<Error>)> {
    async fn failure<O: PlanOperation>(plan: &Plan<O>) -> Option<Error> {
        collect(plan, &slots(plan)).await.err()
    }
    let with = || options.clone();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(-3..30));
    let look_up = Source::from(dataset).with_keys(keys);
    let join = Join::inner(dataset, dataset).with_right_prefix("r.").with_options(with());
    let groups = CoGroup::new().source("d", dataset).with_options(with());
    let aggregate = Aggregate::over(dataset).aggregate("rows", Count::rows()).with_options(with());
    vec![
        ("scan", failure(&Scan::new(dataset).with_options(with()).plan().unwrap()).await),
        ("look-up", failure(&Scan::new(look_up).with_options(with()).plan().unwrap()).await),
        ("join", failure(&join.plan().unwrap()).await),
        ("co-group", failure(&groups.clone().plan().unwrap()).await),
        ("co-group in chunks", failure(&groups.plan_chunks().unwrap()).await),
        ("aggregate", failure(&aggregate.plan().unwrap()).await),
    ]
}

#[tokio::test]
async fn a_row_in_a_wrong_bucket_is_found_by_every_read_that_hashes_all_keys() {
    let store = memory();
    let mut data = data(1);
    data.writes[0].rows.iter_mut().zip(0..).for_each(|(row, k)| row[0] = int(k));
    let dataset = data.write(&store, "d").await;
    let paths = run_paths(&dataset);
    let (rows, identity) = read_run(&store, &paths[0]).await;
    let keys = PlanOptions::default().with_verification(Verification::Keys);
    let ordinary = PlanOptions::default();
    let mut overlooked = 0;
    for at in 0..=rows.len() {
        // A key of the other bucket that keeps the order.
        let (low, high) = (at.checked_sub(1).map(|before| &rows[before][0]), rows.get(at).map(|after| &after[0]));
        let fits = |k: i128| low.is_none_or(|low| *low <= int(k)) && high.is_none_or(|high| int(k) <= *high);
        let wrong = (-3..30).find(|k| fits(*k) && bucket_of(&[DataType::Int64], &[int(*k)], 2) == 1);
        let Some(k) = wrong else { continue };
        let mut misplaced = rows.clone();
        misplaced.insert(at, vec![int(k), Value::Null, int(1000)]);
        let bytes = encode_run(&dataset, &misplaced, identity.clone(), 100);
        replace_run(&store, &dataset, 0, bytes, misplaced.len()).await;
        let bound = |row: &Row| serde_json::json!({"values": [if let Value::Int(k) = row[0] { k.to_string() } else { unreachable!() }], "exact": true});
        edit_manifest(&store, "d", 1, |manifest| {
            manifest["runs"][0]["first_key"] = bound(&misplaced[0]);
            manifest["runs"][0]["last_key"] = bound(&misplaced[misplaced.len() - 1]);
        })
        .await;
        let dataset = Dataset::open(Arc::clone(&store), "d").await.unwrap();
        for (how, error) in read_in_every_way(&dataset, &keys).await {
            let error = error.unwrap_or_else(|| panic!("{how} with a row in a wrong bucket at {at}"));
            assert_eq!((error.kind(), error.path()), (ErrorKind::Misplaced, Some(paths[0].as_str())), "{how}: {error}");
            assert!(how == "look-up" || error.row() == Some(at as u64), "{how}: {error}");
        }
        overlooked += usize::from(read_in_every_way(&dataset, &ordinary).await[0].1.is_none());
        let report = dataset.validate().await.unwrap();
        assert!(report.violations.iter().any(|found| found.invariant == "INV-24" && found.row == Some(at as u64)));
    }
    assert!(overlooked > 1, "an ordinary read looks at the ends of row groups only");
}

#[tokio::test]
async fn every_read_with_full_verification_refuses_a_flipped_byte_of_a_value() {
    let store = memory();
    let dataset = data(1).write(&store, "d").await;
    let full = PlanOptions::default().with_verification(Verification::Full);
    for (how, error) in read_in_every_way(&dataset, &full).await {
        assert!(error.is_none(), "{how} of a sound dataset: {error:?}");
    }
    let path = &run_paths(&dataset)[0];
    let mut bytes = read(&store, path).await.to_vec();
    // The text of a value.
    let at = bytes.windows(5).position(|window| window == b"name ").unwrap();
    bytes[at] = b'g';
    put(&store, path, bytes).await;
    for (how, error) in read_in_every_way(&dataset, &full).await {
        let error = error.unwrap_or_else(|| panic!("{how} with a flipped byte"));
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(path.as_str())), "{how}: {error}");
        assert!(error.to_string().contains("checksum"), "{how}: {error}");
    }
    for (how, error) in read_in_every_way(&dataset, &PlanOptions::default()).await {
        assert!(error.is_none(), "{how} looks at the bytes of values: {error:?}");
    }
}
