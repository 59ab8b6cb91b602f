//! The function as a process, behind the used part of Lambda's runtime API.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as PathParameter, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use jiff::SignedDuration;
use posture_simulators::Clock;
use posture_simulators::net::{Bound, Server};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::{Error, lock};

const NAME: &str = "falcon-posture-sync";

/// The function's AWS credentials. Tests that look for leaked secrets look for `m4rk3d`.
const ACCESS_KEY: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "m4rk3d-aws-secret-access-key";
const SESSION_TOKEN: &str = "m4rk3d-aws-session-token";

/// The answer to an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The JSON of the answer.
    pub value: Value,
    /// From the invocation to the answer.
    pub took: Duration,
}

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The function reported an error: `errorType`, `errorMessage`.
    Error(Value),
    /// The process ended.
    Died,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "the function failed: {error}"),
            Self::Died => f.write_str("the function's process ended"),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// A running process of the function. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    life: Life,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    runtime: Arc<RuntimeApi>,
    invocations: mpsc::UnboundedSender<Invocation>,
    caller: Option<String>,
    started: Instant,
    _server: Server,
}

/// Kills a process, from any thread.
#[derive(Clone, Debug)]
pub struct Life {
    child: Arc<Mutex<Child>>,
    ended: watch::Receiver<bool>,
}

impl Life {
    /// Sends SIGKILL. When this returns, the process and its sockets are gone.
    pub fn end(&self) {
        let mut child = lock(&self.child);
        // Both fail only for a process that has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    async fn ended(&self) {
        // An error means that the reader of the output ended, which the process did, too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

#[derive(Debug)]
struct Invocation {
    id: String,
    caller: Option<String>,
    payload: String,
    deadline_ms: i64,
}

/// An outcome and its time of arrival.
type Outcome = (Result<Value, Value>, Instant);

/// Lambda's side of the runtime API.
#[derive(Debug)]
struct RuntimeApi {
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    pending: Mutex<BTreeMap<String, oneshot::Sender<Outcome>>>,
    /// The time of the first request for an invocation.
    ready: watch::Sender<Option<Instant>>,
}

impl Process {
    /// Starts a binary. Its environment is Lambda's own with these variables, which may replace Lambda's.
    ///
    /// # Errors
    /// No port is free, or the binary does not start.
    pub async fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        binary: &Path,
        memory_mb: u32,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Error> {
        let (invocations, next) = mpsc::unbounded_channel();
        let runtime = Arc::new(RuntimeApi {
            next: tokio::sync::Mutex::new(next),
            pending: Mutex::default(),
            ready: watch::Sender::new(None),
        });
        let server = Server::start(Bound::to(0).await?, runtime_api(Arc::clone(&runtime)));
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs(environment(&server.url(), memory_mb))
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", binary.display()))?;
        let output = Arc::new(Mutex::new(String::new()));
        let (ending, ended) = watch::channel(false);
        let out = child
            .stdout
            .take()
            .map(|out| collect(out, &output, Some(ending)));
        let err = child.stderr.take().map(|err| collect(err, &output, None));
        Ok(Self {
            life: Life {
                child: Arc::new(Mutex::new(child)),
                ended,
            },
            output,
            readers: out.into_iter().chain(err).collect(),
            runtime,
            invocations,
            caller: None,
            started,
            _server: server,
        })
    }

    /// Sets the Cognito identity that invokes the function from now on.
    pub fn set_caller(&mut self, identity: Option<String>) {
        self.caller = identity;
    }

    /// Returns a handle that kills the process.
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        lock(&self.life.child).id()
    }

    /// Waits until the function asks for its first invocation. Returns the time from exec to that request.
    ///
    /// # Errors
    /// The process ended before.
    pub async fn ready(&self) -> Result<Duration, NoAnswer> {
        let mut ready = self.runtime.ready.subscribe();
        let at = tokio::select! {
            biased;
            at = ready.wait_for(Option::is_some) => at.ok().and_then(|at| *at),
            () = self.life.ended() => None,
        };
        Ok(at.ok_or(NoAnswer::Died)?.duration_since(self.started))
    }

    /// Hands out an invocation with this much time, without waiting for the answer.
    ///
    /// # Panics
    /// The time is beyond what a timestamp can hold.
    pub fn hand_out(
        &self,
        id: &str,
        payload: &Value,
        time: Duration,
    ) -> impl Future<Output = Option<Outcome>> + use<> {
        let (sender, outcome) = oneshot::channel();
        lock(&self.runtime.pending).insert(id.to_owned(), sender);
        let time = SignedDuration::try_from(time);
        let deadline = time.map(|time| Clock::default().now().checked_add(time));
        let Ok(Ok(deadline)) = deadline else {
            panic!("no time is that far away");
        };
        let invocation = Invocation {
            id: id.to_owned(),
            caller: self.caller.clone(),
            payload: payload.to_string(),
            deadline_ms: deadline.as_millisecond(),
        };
        // The receiver lives as long as the runtime API, which this owns.
        let _ = self.invocations.send(invocation);
        async { outcome.await.ok() }
    }

    /// Invokes the function with this much time.
    ///
    /// # Errors
    /// The function reported an error, or the process ended.
    pub async fn invoke(
        &self,
        id: &str,
        payload: &Value,
        time: Duration,
    ) -> Result<Answer, NoAnswer> {
        let begun = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = self.hand_out(id, payload, time) => outcome,
            () = self.life.ended() => None,
        };
        let (outcome, at) = outcome.ok_or(NoAnswer::Died)?;
        let took = at.duration_since(begun);
        let value = outcome.map_err(NoAnswer::Error)?;
        Ok(Answer { value, took })
    }

    /// Returns what the process has printed so far, on both streams.
    pub fn output(&self) -> String {
        lock(&self.output).clone()
    }

    /// Kills the process. Returns all that it printed.
    pub fn end(mut self) -> String {
        self.life.end();
        for reader in self.readers.drain(..) {
            // A reader that panicked has printed why.
            let _ = reader.join();
        }
        self.output()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.life.end();
    }
}

fn collect(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<String>>,
    ending: Option<watch::Sender<bool>>,
) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
        // The process has no children, so its end alone closes its standard output.
        if let Some(ending) = ending {
            ending.send_replace(true);
        }
    })
}

/// The variables that Lambda itself sets.
fn environment(api: &str, memory_mb: u32) -> [(&'static str, String); 11] {
    let text = str::to_owned;
    [
        (
            "AWS_LAMBDA_RUNTIME_API",
            text(api.trim_start_matches("http://")),
        ),
        ("AWS_LAMBDA_FUNCTION_NAME", text(NAME)),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", text("$LATEST")),
        ("AWS_LAMBDA_LOG_FORMAT", text("JSON")),
        ("AWS_LAMBDA_LOG_LEVEL", text("INFO")),
        ("AWS_REGION", text("us-east-1")),
        ("AWS_ACCESS_KEY_ID", text(ACCESS_KEY)),
        ("AWS_SECRET_ACCESS_KEY", text(SECRET_KEY)),
        ("AWS_SESSION_TOKEN", text(SESSION_TOKEN)),
        ("AWS_EC2_METADATA_DISABLED", text("true")),
    ]
}

fn runtime_api(runtime: Arc<RuntimeApi>) -> Router {
    const INVOCATION: &str = "/2018-06-01/runtime/invocation";
    Router::new()
        .route(&format!("{INVOCATION}/next"), get(next))
        .route(&format!("{INVOCATION}/{{id}}/response"), post(respond))
        .route(&format!("{INVOCATION}/{{id}}/error"), post(fail))
        .route("/2018-06-01/runtime/init/error", post(StatusCode::ACCEPTED))
        .with_state(runtime)
}

async fn next(State(runtime): State<Arc<RuntimeApi>>) -> Response<Body> {
    let now = Instant::now();
    runtime.ready.send_if_modified(|ready| {
        let is_first = ready.is_none();
        ready.get_or_insert(now);
        is_first
    });
    let Some(invocation) = runtime.next.lock().await.recv().await else {
        // The process is about to be killed.
        return std::future::pending().await;
    };
    let mut response = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", &invocation.id)
        .header("lambda-runtime-deadline-ms", invocation.deadline_ms)
        .header(
            "lambda-runtime-invoked-function-arn",
            format!("arn:aws:lambda:us-east-1:123456789012:function:{NAME}"),
        )
        .header(
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
        );
    if let Some(id) = invocation.caller {
        let identity =
            json!({"cognitoIdentityId": id, "cognitoIdentityPoolId": "eu-central-1:pool"});
        response = response.header("lambda-runtime-cognito-identity", identity.to_string());
    }
    response
        .body(Body::from(invocation.payload))
        .unwrap_or_default()
}

async fn respond(
    State(runtime): State<Arc<RuntimeApi>>,
    PathParameter(id): PathParameter<String>,
    body: Bytes,
) -> StatusCode {
    runtime.finish(&id, &body, Ok)
}

async fn fail(
    State(runtime): State<Arc<RuntimeApi>>,
    PathParameter(id): PathParameter<String>,
    body: Bytes,
) -> StatusCode {
    runtime.finish(&id, &body, Err)
}

impl RuntimeApi {
    /// Passes an outcome on, once. Lambda answers 400 to an unknown id and to a body that is no JSON.
    fn finish(
        &self,
        id: &str,
        body: &Bytes,
        kind: fn(Value) -> Result<Value, Value>,
    ) -> StatusCode {
        let at = Instant::now();
        let Ok(value) = serde_json::from_slice(body) else {
            return StatusCode::BAD_REQUEST;
        };
        let Some(sender) = lock(&self.pending).remove(id) else {
            return StatusCode::BAD_REQUEST;
        };
        // The receiver may be gone: a caller can stop waiting when the process is killed.
        let _ = sender.send((kind(value), at));
        StatusCode::ACCEPTED
    }
}
