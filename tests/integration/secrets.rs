//! Credentials stay where they belong: they are in no error, log, object, plan or debug output, whatever goes wrong.

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::TryStreamExt;
use hyper::StatusCode;
use object_store::aws::AwsCredential;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, CredentialProvider, ObjectStore, ObjectStoreExt, RetryConfig};
use sort_merge_bucket::{
    CoGroup, Dataset, DatasetWriter, Error, ErrorKind, Join, Location, Partitions, Result, Rollup, Scan, Source, Sum,
    Target, WriteMode,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::support::data::{DatasetData, batch_of};
use crate::support::oracle::{int, text};
use crate::support::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, SESSION_TOKEN, Server};
use crate::support::{field, try_run};

const WRONG_KEY: &str = "smb/wrong+secret0key1that2nobody3may4see";

/// Credentials that can be exchanged, as those that renew themselves.
#[derive(Debug)]
struct Credentials(Mutex<AwsCredential>);

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let AwsCredential { key_id, secret_key, token } = &*self.0.lock().unwrap();
        Ok(Arc::new(AwsCredential { key_id: key_id.clone(), secret_key: secret_key.clone(), token: token.clone() }))
    }
}

fn credential(user: &str, secret: &str) -> AwsCredential {
    AwsCredential { key_id: user.to_owned(), secret_key: secret.to_owned(), token: Some(SESSION_TOKEN.to_owned()) }
}

/// Everything that was said, by whomever.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Heard {
    fn add(&self, said: &str) {
        let mut heard = self.0.lock().unwrap();
        heard.push_str(said);
        heard.push('\n');
    }

    fn show(&self, shown: &(impl Debug + ?Sized)) {
        self.add(&format!("{shown:?} {shown:#?}"));
    }

    /// An error in all its forms, with what caused it.
    fn error(&self, error: &Error) {
        self.add(&format!("{error} {error:?} {error:#?}"));
        let mut source = error.source();
        while let Some(cause) = source {
            self.add(&format!("{cause} {cause:?}"));
            source = cause.source();
        }
    }

    fn assert_no_secrets(&self, what: &str) {
        let heard = self.0.lock().unwrap();
        for secret in [SECRET_KEY, WRONG_KEY, SESSION_TOKEN] {
            if let Some(at) = heard.find(secret) {
                let from = heard[..at].rfind('\n').map_or(0, |from| from + 1);
                panic!("{what}: a secret was told: {}", &heard[from..at + secret.len()]);
            }
        }
    }
}

impl Visit for &Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(&format!("{}={value:?}", field.name()));
    }
}

/// Hears spans and events of all crates at all levels.
impl Subscriber for Heard {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.add(span.metadata().target());
        span.record(&mut &*self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.add(event.metadata().target());
        event.record(&mut &*self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn current_span(&self) -> Current {
        Current::none()
    }
}

fn data() -> DatasetData {
    let fields = vec![field("k", DataType::Int64, false), field("v", DataType::Utf8, false)];
    DatasetData::new(fields, &["k"], 2, (0..10).map(|k| vec![int(k), text("x")]).collect())
}

async fn write(store: &Arc<dyn ObjectStore>, mode: WriteMode) -> Result<Dataset> {
    let data = data();
    let builder = DatasetWriter::builder(Arc::clone(store), "d", data.schema(), data.spec(2));
    let mut writer = builder.with_mode(mode).build().await?;
    writer.write(&batch_of(&data.schema(), &data.writes[0].rows)).await?;
    writer.commit().await
}

/// Does everything that talks to a store, with a dataset that was opened while it worked, and tells every error; how many there were.
async fn provoke(heard: &Heard, store: &Arc<dyn ObjectStore>, dataset: &Dataset) -> usize {
    // Spans and events that a thread of another test met first, where nobody listens, count as unwanted until they are asked again.
    tracing_core::callsite::rebuild_interest_cache();
    let rollup = Rollup::builder(Arc::clone(store), "r").aggregate("sum", Sum::of("k")).build().unwrap();
    let scan = Scan::new(dataset).plan().unwrap();
    let join = Join::inner(dataset, Source::from(dataset).with_columns(Vec::<String>::new())).plan().unwrap();
    let groups = CoGroup::new().source("a", dataset).source("b", dataset).plan().unwrap();
    heard.add(&format!("{scan} {join} {groups}"));
    heard.show(&scan);
    heard.show(&Target::new(Arc::clone(store), "copy"));
    heard.show(&DatasetWriter::builder(Arc::clone(store), "d", data().schema(), data().spec(2)));
    let outcomes = [
        Dataset::open(Arc::clone(store), "d").await.err(),
        Dataset::open_version(Arc::clone(store), "d", 1).await.err(),
        write(store, WriteMode::Create).await.err(),
        write(store, WriteMode::Append).await.err(),
        Partitions::list(Arc::clone(store), "").await.err(),
        try_run(&scan, 1).await.err(),
        try_run(&join, 1).await.err(),
        try_run(&groups, 1).await.err(),
        dataset.validate().await.err(),
        scan.transform(Target::new(Arc::clone(store), "copy"), Ok).await.err(),
        rollup.update("p", Source::from(dataset)).await.err(),
        rollup.merge("all", ["p"]).await.err(),
        dataset.clone().drop_dataset().await.err(),
    ];
    let errors: Vec<&Error> = outcomes.iter().flatten().collect();
    errors.iter().for_each(|error| heard.error(error));
    errors.len()
}

#[tokio::test]
async fn no_failure_tells_the_credentials_it_was_made_with() {
    let heard = Heard::default();
    let _hearing = tracing::subscriber::set_default(heard.clone());
    let server = Server::start();
    // Once, and soon: what a client says of it is heard.
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(1), ..BackoffConfig::default() };
    let retry = RetryConfig { max_retries: 1, backoff, ..RetryConfig::default() };
    let builder = || server.builder().with_retry(retry.clone());
    let credentials = Arc::new(Credentials(Mutex::new(credential(ACCESS_KEY, SECRET_KEY))));
    let store: Arc<dyn ObjectStore> =
        Arc::new(builder().with_credentials(Arc::clone(&credentials) as _).build().unwrap());

    // All is well: what is written, printed and logged.
    let dataset = write(&store, WriteMode::Create).await.unwrap();
    assert_eq!(
        provoke(&heard, &store, &dataset).await,
        2,
        "creating what exists, appending to what another one dropped"
    );
    heard.show(&dataset);
    heard.show(&Location::with_options(&format!("s3://{BUCKET}/x"), server.options()).unwrap());
    for object in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        heard.add(object.location.as_ref());
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        heard.add(&String::from_utf8_lossy(&bytes));
    }
    heard.assert_no_secrets("all is well");

    for (what, user, secret) in [("wrong key", ACCESS_KEY, WRONG_KEY), ("unknown user", "SOMEBODYELSE", SECRET_KEY)] {
        *credentials.0.lock().unwrap() = credential(user, secret);
        assert_eq!(provoke(&heard, &store, &dataset).await, 13, "{what}");
        heard.assert_no_secrets(what);
    }
    *credentials.0.lock().unwrap() = credential(ACCESS_KEY, SECRET_KEY);
    let nowhere: Arc<dyn ObjectStore> = Arc::new(builder().with_bucket_name("no-such-bucket").build().unwrap());
    // What reads the dataset, which is elsewhere, does not fail; but that it was dropped already.
    assert_eq!(provoke(&heard, &nowhere, &dataset).await, 9);
    heard.assert_no_secrets("missing bucket");

    // S3 repeats a token that it refuses; a proxy may repeat whatever it got.
    for (what, status) in [("expired token", StatusCode::BAD_REQUEST), ("refused token", StatusCode::FORBIDDEN)] {
        server.answer(
            status,
            &format!("<Error><Code>ExpiredToken</Code><Token-0>{SESSION_TOKEN}</Token-0><HostId>h</HostId></Error>"),
        );
        assert_eq!(provoke(&heard, &store, &dataset).await, 13, "{what}");
        heard.assert_no_secrets(what);
        let all = heard.0.lock().unwrap();
        assert!(all.contains("<Code>ExpiredToken</Code><Token-0>******</Token-0><HostId>h</HostId>"), "{what}");
    }
    drop(server);
    assert_eq!(provoke(&heard, &store, &dataset).await, 13, "nobody there");
    heard.assert_no_secrets("nobody there");
    // The test hears what is logged, and would hear a secret.
    let all = heard.0.lock().unwrap();
    for part in ["sort_merge_bucket", "object_store", "SignatureDoesNotMatch", "Connection refused", "dataset_id"] {
        assert!(all.contains(part), "{part} was not heard");
    }
}

#[tokio::test]
async fn a_refused_request_is_an_error_of_the_store_that_says_why() {
    let server = Server::start();
    let store: Arc<dyn ObjectStore> = Arc::new(server.builder().with_secret_access_key("wrong").build().unwrap());
    let error = Dataset::open(Arc::clone(&store), "d").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    let heard = Heard::default();
    heard.error(&error);
    let told = heard.0.lock().unwrap().clone();
    for part in ["d/_smb/00000000000000000001.json", "403", "SignatureDoesNotMatch"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Some stores show credentials in their debug output, and a store in memory all that it holds.
#[tokio::test]
async fn debug_output_shows_nothing_of_what_the_store_shows_of_itself() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    store.put(&"hunter2".into(), "hunter2".into()).await.unwrap();
    let dataset = write(&store, WriteMode::Create).await.unwrap();
    let heard = Heard::default();
    heard.show(&store);
    assert!(heard.0.lock().unwrap().contains("hunter2"));
    let heard = Heard::default();
    heard.show(&dataset);
    heard.show(&Source::from(&dataset));
    heard.show(&Scan::new(&dataset).plan().unwrap());
    heard.show(&Partitions::list(Arc::clone(&store), "x").await.unwrap());
    let rollup = Rollup::builder(Arc::clone(&store), "r").aggregate("sum", Sum::of("k"));
    heard.show(&rollup);
    heard.show(&rollup.build().unwrap());
    heard.show(&Location::local(".").unwrap());
    assert!(!heard.0.lock().unwrap().contains("hunter2"));
}
