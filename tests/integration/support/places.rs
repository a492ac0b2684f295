//! Which kind of store a test runs on.
//!
//! A test asks [`store`] for a new and empty one and does not know its kind: memory, unless `SMB_TEST_STORE` says `file` or `s3`. The tests that a
//! module names in [`everywhere!`] run on files and on S3 in any case.
//!
//! S3 is a [server](super::s3) in this process, or the one at `SMB_TEST_S3_ENDPOINT` with the bucket `SMB_TEST_S3_BUCKET` (`smb-test`) and the usual
//! `AWS_*` settings. There, every store is a prefix of its own, which is emptied when the test ends.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use sort_merge_bucket::Location;

use super::s3::{self, Server};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    File,
    S3,
}

thread_local! {
    /// What [`on`] says; every test has a thread of its own.
    static KIND: Cell<Option<Kind>> = const { Cell::new(None) };
    /// What goes when the test ends: folders, servers, prefixes.
    static HELD: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(vec![]) };
}

/// The kind of all stores, unless a test is run [`on`] another one.
static USUAL: LazyLock<Kind> = LazyLock::new(|| match std::env::var("SMB_TEST_STORE").as_deref() {
    Err(_) | Ok("" | "memory") => Kind::Memory,
    Ok("file") => Kind::File,
    Ok("s3") => Kind::S3,
    Ok(other) => panic!("SMB_TEST_STORE is memory, file or s3, not {other}"),
});

/// Tells this run's prefixes from those of others.
static RUN: LazyLock<String> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{:x}-{:x}", since.as_secs(), std::process::id())
});

/// A new and empty store.
pub(crate) fn store() -> Arc<dyn ObjectStore> {
    match KIND.get().unwrap_or(*USUAL) {
        Kind::Memory => Arc::new(InMemory::new()),
        Kind::File => {
            let folder = tempfile::tempdir().unwrap();
            let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
            hold(folder);
            Arc::new(store)
        }
        Kind::S3 => {
            let place = s3_location();
            Arc::new(PrefixStore::new(place.store(), place.path().clone()))
        }
    }
}

/// A new and empty place on S3.
pub(crate) fn s3_location() -> Location {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    if let Ok(endpoint) = std::env::var("SMB_TEST_S3_ENDPOINT") {
        let mut options: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        options.extend([("AWS_ENDPOINT".to_owned(), endpoint), ("AWS_ALLOW_HTTP".to_owned(), "true".to_owned())]);
        let bucket = std::env::var("SMB_TEST_S3_BUCKET").unwrap_or_else(|_| s3::BUCKET.to_owned());
        let location = Location::with_options(&format!("s3://{bucket}/{}/{number}", *RUN), options).unwrap();
        hold(Emptied(location.clone()));
        location
    } else {
        let server = Server::shared();
        // Short, because s3s-fs makes file names of whole keys.
        let location = Location::with_options(&format!("s3://{}/{number}", s3::BUCKET), server.options()).unwrap();
        hold(server);
        location
    }
}

fn hold(resource: impl Any) {
    HELD.with_borrow_mut(|held| held.push(Box::new(resource)));
}

/// A place whose objects are deleted at the end.
struct Emptied(Location);

impl Drop for Emptied {
    fn drop(&mut self) {
        let (store, path) = (self.0.store(), self.0.path().clone());
        // On a thread of its own: this one may be in the middle of a runtime, or at its end.
        let emptied = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let all: Vec<_> = store.list(Some(&path)).try_collect().await?;
                let paths = futures::stream::iter(all.into_iter().map(|meta| Ok(meta.location)));
                store.delete_stream(Box::pin(paths)).try_collect::<Vec<_>>().await
            })
        });
        if let Ok(Err(error)) = emptied.join() {
            eprintln!("{:?} was not emptied: {error}", self.0);
        }
    }
}

/// Runs a test on stores of this kind.
pub(crate) fn on(kind: Kind, test: fn()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            KIND.set(None);
            HELD.take();
        }
    }
    let _reset = Reset;
    KIND.set(Some(kind));
    test();
}

/// Whether a test is run on this kind besides its usual one, where a part of its random cases will do.
pub(crate) fn is_repeated() -> bool {
    KIND.get().is_some()
}

/// Runs these tests of a module on files and on S3 too.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod on_files {
            $(#[test]
            fn $test() {
                $crate::support::places::on($crate::support::places::Kind::File, super::$test);
            })+
        }
        mod on_s3 {
            $(#[test]
            fn $test() {
                $crate::support::places::on($crate::support::places::Kind::S3, super::$test);
            })+
        }
    };
}
pub(crate) use everywhere;
