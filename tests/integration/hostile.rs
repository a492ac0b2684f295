//! Damaged bytes: whatever stands in the place of a manifest, a hint or a footer, the outcome is an error of the right kind or the right rows,
//! never a panic and never other rows.

use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::Bytes;
use object_store::ObjectStore;
use proptest::prelude::*;
use sort_merge_bucket::{Dataset, Error, ErrorKind, Join, Result, Scan};

use crate::support::data::{DatasetData, Write};
use crate::support::forge::{manifest_path, run_paths};
use crate::support::oracle::{Row, Value, all_rows, int, sorted, text};
use crate::support::stores::{put, read};
use crate::support::{block_on, config, field, store, try_run_slots};

const SEEDS: &str = "proptest-regressions/integration/hostile.txt";

fn data() -> DatasetData {
    let fields = vec![
        field("k", DataType::Int64, true),
        field("name", DataType::Utf8, true),
        field("n", DataType::Int32, false),
    ];
    let row = |at: i128| -> Row {
        vec![int(at % 13 - 3), if at % 5 == 0 { Value::Null } else { text(&format!("name {}", at % 7)) }, int(at)]
    };
    let mut data = DatasetData::new(fields, &["k"], 2, (0..60).map(row).collect()).with_sort(&["n"]);
    data.writes.push(Write::new(3, (60..90).map(row).collect()));
    for write in &mut data.writes {
        write.options = write.options.clone().with_max_row_group_rows(20).with_page_rows(8);
    }
    data
}

/// Opens the newest version and reads it, alone and joined with itself.
async fn open_and_read(store: &Arc<dyn ObjectStore>) -> Result<(Vec<Row>, Vec<Row>)> {
    let dataset = Dataset::open(Arc::clone(store), "d").await?;
    let scan = Scan::new(&dataset).plan()?;
    let join = Join::inner(&dataset, &dataset).with_sort_columns(1).with_right_prefix("r.").plan()?;
    let scanned = sorted(all_rows(try_run_slots(&scan).await?.values().flatten()));
    Ok((scanned, sorted(all_rows(try_run_slots(&join).await?.values().flatten()))))
}

fn is_expected(error: &Error) -> bool {
    use ErrorKind as E;
    [E::Corrupt, E::UnsupportedVersion, E::NotFound, E::Unsorted, E::Misplaced].contains(&error.kind())
}

/// All the ways to damage `bytes` a little: cut, lengthened, and at every `step`th byte some bits flipped or the byte replaced.
fn damages(bytes: &[u8], range: std::ops::Range<usize>, step: usize) -> Vec<(String, Bytes)> {
    let mut all = vec![];
    for at in range.clone().step_by(step * 4) {
        all.push((format!("cut to {at}"), Bytes::copy_from_slice(&bytes[..at])));
    }
    for tail in [&b"\0"[..], b"}", b"PAR1", b"\n\n"] {
        all.push((format!("{tail:?} appended"), [bytes, tail].concat().into()));
    }
    for at in range.step_by(step) {
        for (what, byte) in [
            ("lowest bit", bytes[at] ^ 1),
            ("highest bit", bytes[at] ^ 0x80),
            ("all bits", !bytes[at]),
            ("another bit", bytes[at] ^ 1 << (at % 6 + 1)),
        ] {
            let mut damaged = bytes.to_vec();
            damaged[at] = byte;
            all.push((format!("{what} of byte {at}"), damaged.into()));
        }
    }
    all
}

/// How many bytes to go on after each that was damaged; `HOSTILE_EVERY_BYTE` takes minutes and leaves none out.
fn step(usual: usize) -> usize {
    if std::env::var_os("HOSTILE_EVERY_BYTE").is_some() { 1 } else { usual }
}

#[test]
fn a_damaged_manifest_is_an_error_or_harmless() {
    block_on(async {
        let store = store();
        data().write_fixed(&store, "d").await;
        let expected = open_and_read(&store).await.unwrap();
        let path = manifest_path("d", 2);
        let good = read(&store, &path).await;
        let mut harmless = 0;
        let all = damages(&good, 0..good.len(), step(3));
        for (what, bytes) in &all {
            put(&store, &path, bytes.clone()).await;
            match open_and_read(&store).await {
                Ok(found) => {
                    assert!(found == expected, "other rows: {what} of {}", String::from_utf8_lossy(&good));
                    harmless += 1;
                }
                Err(error) => assert!(is_expected(&error), "{what}: {error:?}"),
            }
        }
        // Times, lineage, properties: little of a manifest has no meaning for reading.
        assert!(harmless * 3 < all.len(), "{harmless} of {} damages changed nothing", all.len());
    });
}

#[test]
fn a_damaged_hint_never_changes_what_is_opened() {
    block_on(async {
        let store = store();
        data().write_fixed(&store, "d").await;
        let expected = open_and_read(&store).await.unwrap();
        let good = read(&store, "d/_smb/latest").await;
        let mut hints: Vec<Bytes> = damages(&good, 0..good.len(), 1).into_iter().map(|(_, bytes)| bytes).collect();
        let texts = [
            "",
            "0",
            "1",
            "3",
            "00002",
            "-1",
            "18446744073709551615",
            "18446744073709551616",
            "2 ",
            "9".repeat(5000).leak(),
        ];
        hints.extend(texts.map(Bytes::from));
        for hint in hints {
            put(&store, "d/_smb/latest", hint.clone()).await;
            let dataset = Dataset::open(Arc::clone(&store), "d").await;
            assert_eq!(dataset.unwrap().version(), 2, "{hint:?}");
        }
        assert_eq!(open_and_read(&store).await.unwrap(), expected);
    });
}

#[test]
fn a_damaged_footer_is_an_error_or_harmless() {
    block_on(async {
        let store = store();
        let dataset = data().write_fixed(&store, "d").await;
        let expected = open_and_read(&store).await.unwrap();
        let path = &run_paths(&dataset)[1];
        let run = &dataset.runs()[1];
        let good = read(&store, path).await;
        let footer = (run.bytes - run.footer_bytes) as usize..run.bytes as usize;
        let mut wrong = vec![];
        for (what, bytes) in damages(&good, footer, step(5)) {
            put(&store, path, bytes).await;
            match open_and_read(&store).await {
                Ok(found) if found == expected => {}
                Ok(_) => wrong.push(format!("{what}: other rows")),
                Err(error) if is_expected(&error) => {}
                Err(error) => wrong.push(format!("{what}: {error:?}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Damage inside pages is found by validation, whose checksums cover every byte; reading never panics over it.
#[test]
fn a_damaged_page_is_found_by_validation_and_never_a_panic() {
    block_on(async {
        let store = store();
        let dataset = data().write_fixed(&store, "d").await;
        let path = &run_paths(&dataset)[1];
        let run = &dataset.runs()[1];
        let good = read(&store, path).await;
        let pages = 0..(run.bytes - run.footer_bytes) as usize;
        for (at, (what, bytes)) in damages(&good, pages, step(11)).into_iter().enumerate() {
            put(&store, path, bytes).await;
            if let Err(error) = open_and_read(&store).await {
                assert!(is_expected(&error), "{what}: {error:?}");
            }
            if at % 10 == 0 {
                let report = dataset.validate().await.unwrap();
                assert!(!report.is_valid(), "{what}");
            }
        }
    });
}

proptest! {
    #![proptest_config(config(300, SEEDS))]

    /// Any bytes at all in the place of any object.
    #[test]
    fn any_bytes_in_the_place_of_any_object_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), pick in any::<prop::sample::Index>()) {
        block_on(async {
            let store = store();
            let dataset = data().write_fixed(&store, "d").await;
            let mut paths = run_paths(&dataset);
            paths.push(manifest_path("d", 2));
            put(&store, &paths[pick.index(paths.len())], bytes).await;
            let error = open_and_read(&store).await.unwrap_err();
            assert!(is_expected(&error), "{error:?}");
        });
    }
}
