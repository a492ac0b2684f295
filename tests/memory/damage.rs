//! What damaged and hostile objects make a reader hold: bounded by what `docs/format.md` section 9 says, whatever they claim.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use parquet::file::metadata::ParquetMetaDataReader;
use serde_json::{Value, json};
use sort_merge_bucket::{
    BucketSpec, Dataset, DatasetWriter, Error, ErrorKind, Parallelism, PlanOptions, Scan, Source, Verification,
    WriteOptions,
};

use crate::MEMORY;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a manifest takes at most while it is opened, for each of its bytes.
const PER_MANIFEST_BYTE: usize = 160;

/// What a footer takes at most, for each of its bytes.
const PER_FOOTER_BYTE: usize = 100;

/// A dataset of one run in a folder, of which objects are overwritten.
struct Damaged {
    folder: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
    dataset: Dataset,
    manifest: Value,
}

impl Damaged {
    async fn new(rows: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("k", keys)]).unwrap();
        let spec = BucketSpec::new(["k"], 1).unwrap();
        let options = WriteOptions::default().with_page_rows(16);
        let builder = DatasetWriter::builder(Arc::clone(&store), "d", batch.schema(), spec).with_options(options);
        let mut writer = builder.build().await.unwrap();
        writer.write(&batch).await.unwrap();
        let dataset = writer.commit().await.unwrap();
        let manifest = serde_json::from_slice(&std::fs::read(folder.path().join(MANIFEST)).unwrap()).unwrap();
        Self { folder, store, dataset, manifest }
    }

    fn put(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(path), bytes).unwrap();
    }

    fn run(&self) -> String {
        self.dataset.run_paths().next().unwrap().to_string()
    }

    /// Opens and reads it, and says what that took at most.
    async fn read(&self, options: PlanOptions) -> (usize, Result<usize, Error>) {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let store = Arc::clone(&self.store);
        let read = async {
            let dataset = Dataset::open(store, "d").await?;
            let wanted: ArrayRef = Arc::new(Int64Array::from(vec![17, 40]));
            for source in [Source::from(&dataset), Source::from(&dataset).with_keys(wanted)] {
                let plan = Scan::new(source).with_options(options.clone()).plan()?;
                plan.stream(Parallelism::Slots(std::num::NonZeroUsize::MIN)).try_collect::<Vec<_>>().await?;
            }
            Ok(dataset.runs().len())
        };
        let outcome = read.await;
        (MEMORY.peak_usage().saturating_sub(before), outcome)
    }

    /// Puts a footer in the place of the run's, which the manifest agrees with.
    fn forge_footer(&self, body: &[u8]) {
        let run = &self.dataset.runs()[0];
        let path = self.folder.path().join(self.run());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate((run.bytes - run.footer_bytes) as usize);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(b"PAR1");
        let mut manifest = self.manifest.clone();
        manifest["runs"][0]["bytes"] = bytes.len().into();
        manifest["runs"][0]["footer_bytes"] = (body.len() + 8).into();
        std::fs::write(path, bytes).unwrap();
        self.put(MANIFEST, serde_json::to_vec(&manifest).unwrap());
    }
}

const MANIFEST: &str = "d/_smb/00000000000000000001.json";

/// An error of damage that names the object.
fn assert_refused(outcome: Result<usize, Error>, path: &str, what: &str) {
    let error = outcome.expect_err(what);
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(path)), "{what}: {error}");
}

pub(crate) async fn what_damage_claims_is_not_taken() {
    manifests_take_a_multiple_of_their_size().await;
    objects_larger_than_any_are_not_read().await;
    footers_take_a_multiple_of_their_size().await;
    a_checksum_takes_a_mebibyte().await;
}

async fn manifests_take_a_multiple_of_their_size() {
    let damaged = Damaged::new(100).await;
    let size = 2 * MIB;
    let filled = |item: &str| format!("[{item}0]", item = format!("{item},").repeat(size / (item.len() + 1)));
    let good = serde_json::to_string(&damaged.manifest).unwrap();
    let with = |name: &str, value: &str| format!("{{\"{name}\": {value}, {}", &good[1..]);
    let deep = format!("{}{}", "[".repeat(size / 2), "]".repeat(size / 2));
    let objects = format!("{}0{}", "{\"\":".repeat(size / 5), "}".repeat(size / 5));
    let items = ["0", "[]", "{}", "\"\"", "null", "[[]]", "{\"\":0}", "{\"a\":{\"b\":[]}}", "1e9"];
    let mut texts: Vec<String> = items.iter().map(|item| with("later", &filled(item))).collect();
    texts.extend([deep, objects, format!("\"{}\"", "x".repeat(size))].iter().map(|value| with("later", value)));
    texts.extend(items.iter().map(|item| {
        let run = good.replacen("\"exact\"", &format!("\"later\": {}, \"exact\"", filled(item)), 1);
        run.replacen("\"values\":[", &format!("\"values\":[{},", filled(item)), 1)
    }));
    let huge = [json!(u64::MAX), json!(i64::MAX), json!(1_u64 << 40), json!(u32::MAX)];
    for count in &huge {
        for field in ["rows", "bytes", "footer_bytes", "bucket", "buckets"] {
            let mut manifest = damaged.manifest.clone();
            manifest["runs"][0][field] = count.clone();
            texts.push(manifest.to_string());
        }
        let mut manifest = damaged.manifest.clone();
        (manifest["spec"]["buckets"], manifest["runs"]) = (count.clone(), json!([]));
        texts.push(manifest.to_string());
    }
    let mut most = 0.0_f64;
    for text in &texts {
        damaged.put(MANIFEST, text);
        let (peak, outcome) = damaged.read(PlanOptions::default()).await;
        if let Err(error) = outcome {
            let expected = [ErrorKind::Corrupt, ErrorKind::InvalidInput].contains(&error.kind());
            assert!(expected, "{text:.200}: {error:?}");
        }
        let allowed = PER_MANIFEST_BYTE * text.len() + MIB;
        assert!(peak <= allowed, "{peak} of at most {allowed} bytes: {text:.200}");
        if text.len() > size / 2 {
            most = most.max(peak as f64 / text.len() as f64);
        }
    }
    println!("{} hostile manifests: at most {most:.0} bytes for each of theirs", texts.len());
}

async fn objects_larger_than_any_are_not_read() {
    for (path, size) in [("d/_smb/latest", 1_u64 << 30), (MANIFEST, 1 << 40)] {
        let damaged = Damaged::new(100).await;
        let file = std::fs::File::options().write(true).open(damaged.folder.path().join(path)).unwrap();
        file.set_len(size).unwrap();
        let (peak, outcome) = damaged.read(PlanOptions::default()).await;
        assert!(peak <= MIB, "{peak} bytes for {path}");
        if path == MANIFEST {
            assert_refused(outcome, path, path);
        } else {
            assert_eq!(outcome.unwrap(), 1);
        }
    }
}

async fn footers_take_a_multiple_of_their_size() {
    let damaged = Damaged::new(100).await;
    let version: &[u8] = &[0x15, 2];
    // A root without columns, then the number of rows.
    let schema: &[u8] = &[0x19, 0x1c, 0x48, 1, b's', 0, 0x16, 2];
    let claimed: &[u8] = &[0xfc, 0xff, 0xff, 0xff, 0xff, 0x07];
    let bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x07];
    let nested = |depth: usize| {
        let length = [0x80 | depth as u8 & 0x7f, 0x80 | (depth >> 7) as u8 & 0x7f, (depth >> 14) as u8];
        [version, &[0x19, 0xfc], &length, &[0x35, 0, 0x18, 1, b's', 0x15, 2, 0].repeat(depth)].concat()
    };
    let zeros = vec![0; MIB];
    let long = [0xfc, 0x80, 0x80, 0x20];
    let footers = [
        ("columns", [version, &[0x19], claimed].concat()),
        ("columns of one", [version, &[0x19, 0x1c, 0x48, 1, b's', 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0]].concat()),
        ("row groups", [version, schema, &[0x19], claimed].concat()),
        ("pairs", [version, schema, &[0x29], claimed].concat()),
        ("bytes of a name", [version, schema, &[0x38], bytes].concat()),
        ("something unknown", [version, &[0xa9], claimed].concat()),
        ("nothing but columns", [version, &[0x19], &long, &zeros].concat()),
        ("nothing but row groups", [version, schema, &[0x19], &long, &zeros].concat()),
        ("nothing but pairs", [version, schema, &[0x29], &long, &zeros].concat()),
        ("columns in each other", nested(100_000)),
        ("lists in each other", [version, &[0xa9], [0x19].repeat(MIB).as_slice()].concat()),
        ("structures in each other", [version, &[0xac], [0x1c].repeat(MIB).as_slice()].concat()),
        ("nothing", vec![]),
    ];
    let mut most = 0.0_f64;
    for (what, body) in &footers {
        damaged.forge_footer(body);
        let (peak, outcome) = damaged.read(PlanOptions::default()).await;
        assert_refused(outcome, &damaged.run(), what);
        let allowed = PER_FOOTER_BYTE * body.len() + MIB;
        assert!(peak <= allowed, "{what}: {peak} of at most {allowed} bytes");
        if body.len() > MIB / 2 {
            most = most.max(peak as f64 / body.len() as f64);
        }
        let opened = Dataset::open(Arc::clone(&damaged.store), "d").await.unwrap();
        assert!(!opened.validate().await.unwrap().is_valid(), "{what}");
    }
    println!("{} hostile footers: at most {most:.0} bytes for each of theirs", footers.len());

    // A page index that claims two thousand million pages.
    let damaged = Damaged::new(100).await;
    let path = damaged.folder.path().join(damaged.run());
    let mut bytes = std::fs::read(&path).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes.clone())).unwrap();
    let at = metadata.row_group(0).column(0).offset_index_offset().unwrap() as usize;
    bytes[at + 1..at + 1 + claimed.len()].copy_from_slice(claimed);
    std::fs::write(&path, bytes).unwrap();
    let (peak, outcome) = damaged.read(PlanOptions::default()).await;
    assert_refused(outcome, &damaged.run(), "pages");
    assert!(peak <= MIB, "{peak} bytes");
    assert!(!damaged.dataset.validate().await.unwrap().is_valid());
}

async fn a_checksum_takes_a_mebibyte() {
    let damaged = Damaged::new(4_000_000).await;
    let size = damaged.dataset.statistics().bytes as usize;
    assert!(size > 8 * MIB, "{size} bytes would not show it");
    let path = damaged.folder.path().join(damaged.run());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[size / 2] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (peak, outcome) = damaged.read(PlanOptions::default().with_verification(Verification::Full)).await;
    assert_refused(outcome, &damaged.run(), "a flipped bit");
    assert!(peak <= MIB + 512 * KIB, "{peak} bytes to hash {size}");
}
