//! A server that speaks S3 over HTTP, inside the test's own process: s3s checks signatures and reads requests, s3s-fs keeps objects as files.
//!
//! s3s-fs looks whether an object exists and then writes it, which is not atomic. Therefore a request with a condition has the server for itself:
//! of two conditional puts at the same time, one wins.
//!
//! A server can record its requests as they come over the wire, and answer whatever it is told to instead of serving.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderName, IF_MATCH, IF_NONE_MATCH, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::AmazonS3Builder;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, oneshot};
use tokio::task::JoinSet;

pub(crate) const BUCKET: &str = "smb-test";
pub(crate) const ACCESS_KEY: &str = "SMBTESTACCESSKEY";
pub(crate) const SECRET_KEY: &str = "smb/test+secret0key1that2nobody3may4see5";
pub(crate) const SESSION_TOKEN: &str = "smbTestSessionToken//that0nobody1may2see3==";

/// One request as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Method, `LIST` for a listing, and what a multipart upload calls its steps.
    pub(crate) verb: String,
    /// The key, percent-encoded as it came.
    pub(crate) key: String,
    pub(crate) range: Option<String>,
    pub(crate) status: u16,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.key, self.status)
    }
}

#[derive(Default)]
struct State {
    /// `None` if nothing is recorded.
    log: Mutex<Option<Vec<Exchange>>>,
    /// What is answered to everything.
    answer: Mutex<Option<(StatusCode, String)>>,
    /// Held for itself by a request with a condition.
    order: RwLock<()>,
}

/// A running server. Dropping it stops it and removes its objects.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _objects: TempDir,
}

impl Server {
    /// A server of one's own.
    pub(crate) fn start() -> Arc<Self> {
        let objects = tempfile::tempdir().unwrap();
        std::fs::create_dir(objects.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(objects.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let state = Arc::new(State::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, service, shared, stopped).await;
            });
        });
        let address = told.recv().unwrap();
        Arc::new(Self { address, state, stop: Some(stop), thread: Some(thread), _objects: objects })
    }

    /// The server that tests share; it runs while any of them uses it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let server = Self::start();
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Settings for clients, as in the environment.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address).as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", SESSION_TOKEN),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// A client as it can be set up by hand.
    pub(crate) fn builder(&self) -> AmazonS3Builder {
        let options = self.options();
        let set = |builder: AmazonS3Builder, (name, value): (String, String)| {
            builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value)
        };
        options.into_iter().fold(AmazonS3Builder::new().with_bucket_name(BUCKET), set)
    }

    /// The requests since the last call; the first call begins the record.
    pub(crate) fn take_log(&self) -> Vec<Exchange> {
        self.state.log.lock().unwrap().replace(vec![]).unwrap_or_default()
    }

    /// Answers everything with this from now on.
    pub(crate) fn answer(&self, status: StatusCode, body: &str) {
        *self.state.answer.lock().unwrap() = Some((status, body.to_owned()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, state: Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = &mut stopped => return,
        };
        // Without it, an answer waits for the acknowledgement of its own headers.
        stream.set_nodelay(true).unwrap();
        let (service, state) = (service.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let respond = service_fn(move |request| {
                let (service, state) = (service.clone(), Arc::clone(&state));
                async move { Ok::<_, Infallible>(respond(request, &service, &state).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // A client that goes away is none of the server's business.
            let _ = http.serve_connection(TokioIo::new(stream), respond).await;
        });
    }
}

async fn respond(request: Request<Incoming>, service: &S3Service, state: &State) -> Response<Body> {
    let mut exchange = describe(&request);
    let answer = state.answer.lock().unwrap().clone();
    let is_write = ![Method::GET, Method::HEAD].contains(request.method());
    let has_condition = [IF_NONE_MATCH, IF_MATCH].iter().any(|name| request.headers().contains_key(name));
    let request = request.map(Body::from);
    let response = match answer {
        // s3s-fs would make the bucket.
        None if request.uri().path().split('/').nth(1) != Some(BUCKET) => {
            let body = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
            Response::builder().status(StatusCode::NOT_FOUND).body(Body::from(body.to_owned())).unwrap()
        }
        Some((status, body)) => Response::builder().status(status).body(Body::from(body)).unwrap(),
        None if is_write && has_condition => {
            let _alone = state.order.write().await;
            service.call(request).await.unwrap()
        }
        None if is_write => {
            let _together = state.order.read().await;
            service.call(request).await.unwrap()
        }
        None => service.call(request).await.unwrap(),
    };
    exchange.status = response.status().as_u16();
    if exchange.verb != "HEAD" {
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        exchange.sent = length.or(response.body().size_hint().exact()).unwrap_or_default();
    }
    if let Some(log) = state.log.lock().unwrap().as_mut() {
        log.push(exchange);
    }
    response
}

fn describe(request: &Request<Incoming>) -> Exchange {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let verb = match request.method().as_str() {
        "GET" if has("list-type") => "LIST",
        "POST" if has("uploads") => "START",
        "PUT" if has("uploadId") => "PART",
        "POST" if has("uploadId") => "COMPLETE",
        "DELETE" if has("uploadId") => "ABORT",
        "POST" if has("delete") => "DELETE",
        other => other,
    };
    let path = request.uri().path();
    Exchange {
        verb: verb.to_owned(),
        key: path.strip_prefix(&format!("/{BUCKET}")).unwrap_or(path).trim_start_matches('/').to_owned(),
        range: header(RANGE).map(str::to_owned),
        status: 0,
        received: header(CONTENT_LENGTH).and_then(|value| value.parse().ok()).unwrap_or_default(),
        sent: 0,
    }
}
