//! The function as a process of its own, behind as much of Lambda's runtime API as it needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use jiff::Timestamp;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use posture_simulators::net::{Bound, Server};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Trouble;

const NAME: &str = "falcon-posture-sync";
/// Of what the function logged, so much is kept to be shown when something goes wrong.
const KEPT_LOG: usize = 16 << 10;

/// An invocation to hand out.
#[derive(Debug)]
struct Invocation {
    id: String,
    payload: String,
    deadline: Timestamp,
}

/// What came back.
#[derive(Debug)]
struct Outcome {
    at: Instant,
    answer: Result<Value, Value>,
}

/// Lambda's side.
#[derive(Debug)]
struct Api {
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    /// When work was first asked for.
    ready: watch::Sender<Option<Instant>>,
}

/// What a process has logged.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// Bytes.
    pub(crate) bytes: AtomicU64,
    /// Lines.
    pub(crate) lines: AtomicU64,
    latest: Mutex<String>,
}

impl Logged {
    /// The end of it.
    pub(crate) fn latest(&self) -> String {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take(&self, line: &str) {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.lines.fetch_add(1, Ordering::Relaxed);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() > KEPT_LOG {
            latest.clear();
        }
        latest.push_str(line);
    }
}

/// A function's process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    cpu: ClockId,
    pid: u32,
    started: Instant,
    ready: watch::Receiver<Option<Instant>>,
    invocations: mpsc::UnboundedSender<Invocation>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// What it has logged.
    pub(crate) logged: Arc<Logged>,
    _api: Server,
}

impl Process {
    /// Starts a binary with these variables and nothing else but Lambda's own.
    pub(crate) async fn start(
        binary: &Path,
        memory_mb: u32,
        variables: &BTreeMap<&'static str, String>,
    ) -> Result<Self, Trouble> {
        let (invocations, next) = mpsc::unbounded_channel();
        let (outcomes_in, outcomes) = mpsc::unbounded_channel();
        let (ready_in, ready) = watch::channel(None);
        let api = Server::start(
            Bound::to(0).await?,
            runtime_api(Arc::new(Api {
                next: tokio::sync::Mutex::new(next),
                outcomes: outcomes_in,
                ready: ready_in,
            })),
        );
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs(lambdas_own(
                api.url().trim_start_matches("http://"),
                memory_mb,
            ))
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", binary.display()))?;
        let pid = child.id().ok_or("the process has ended")?;
        let cpu = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
        let logged = Arc::new(Logged::default());
        if let Some(out) = child.stdout.take() {
            collect(out, &logged);
        }
        if let Some(err) = child.stderr.take() {
            collect(err, &logged);
        }
        Ok(Self {
            child,
            cpu,
            pid,
            started,
            ready,
            invocations,
            outcomes,
            logged,
            _api: api,
        })
    }

    /// How long it took from exec until it asked for work, once it has.
    pub(crate) async fn ready(&mut self) -> Result<Duration, Trouble> {
        let at = tokio::select! {
            at = self.ready.wait_for(Option::is_some) => (*at?).ok_or("it never asked for work")?,
            status = self.child.wait() => {
                return Err(format!("the function ended ({}):\n{}", status?, self.logged.latest()).into());
            }
        };
        Ok(at.duration_since(self.started))
    }

    /// Hands an invocation out, without waiting for its answer.
    pub(crate) fn hand_out(
        &self,
        id: &str,
        payload: &Value,
        deadline: Timestamp,
    ) -> Result<(), Trouble> {
        self.invocations.send(Invocation {
            id: id.to_owned(),
            payload: payload.to_string(),
            deadline,
        })?;
        Ok(())
    }

    /// Invokes the function. Its answer, and how long it took.
    pub(crate) async fn invoke(
        &mut self,
        id: &str,
        payload: &Value,
        deadline: Timestamp,
    ) -> Result<(Value, Duration), Trouble> {
        let begun = Instant::now();
        self.hand_out(id, payload, deadline)?;
        let outcome = tokio::select! {
            outcome = self.outcomes.recv() => outcome.ok_or("nothing will come back")?,
            status = self.child.wait() => {
                return Err(format!("the function ended ({}):\n{}", status?, self.logged.latest()).into());
            }
        };
        match outcome.answer {
            Ok(answer) => Ok((answer, outcome.at.duration_since(begun))),
            Err(error) => Err(format!("{payload}: {error}\n{}", self.logged.latest()).into()),
        }
    }

    /// The CPU time of all its threads since it was started.
    pub(crate) fn cpu(&self) -> Result<Duration, Trouble> {
        Ok(Duration::from(self.cpu.now()?))
    }

    /// The most memory that was resident at once since the start, or the last [`Self::forget_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64, Trouble> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no VmHWM")?;
        Ok(peak.parse()?)
    }

    /// Lets the peak begin anew at what is resident now.
    pub(crate) fn forget_peak(&self) -> Result<(), Trouble> {
        Ok(std::fs::write(
            format!("/proc/{}/clear_refs", self.pid),
            "5",
        )?)
    }

    /// Ends it.
    pub(crate) async fn end(mut self) -> Result<(), Trouble> {
        Ok(self.child.kill().await?)
    }
}

fn collect(from: impl AsyncRead + Send + Unpin + 'static, into: &Arc<Logged>) {
    let into = Arc::clone(into);
    tokio::spawn(async move {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from
            .read_until(b'\n', &mut line)
            .await
            .is_ok_and(|read| read > 0)
        {
            into.take(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

fn lambdas_own(api: &str, memory_mb: u32) -> [(&'static str, String); 11] {
    [
        ("AWS_LAMBDA_RUNTIME_API", api.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", NAME.to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("AWS_LAMBDA_LOG_LEVEL", "INFO".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
        ("AWS_SESSION_TOKEN", "bench".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

fn runtime_api(api: Arc<Api>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route(
            "/2018-06-01/runtime/invocation/{id}/response",
            post(answered),
        )
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(StatusCode::ACCEPTED))
        .with_state(api)
}

async fn next(State(api): State<Arc<Api>>) -> Response<Body> {
    let now = Instant::now();
    api.ready.send_if_modified(|ready| {
        let first = ready.is_none();
        ready.get_or_insert(now);
        first
    });
    let Some(invocation) = api.next.lock().await.recv().await else {
        // The process is about to be ended.
        return std::future::pending().await;
    };
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", &invocation.id)
        .header(
            "lambda-runtime-deadline-ms",
            invocation.deadline.as_millisecond(),
        )
        .header(
            "lambda-runtime-invoked-function-arn",
            format!("arn:aws:lambda:us-east-1:123456789012:function:{NAME}"),
        )
        .header(
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
        )
        .body(Body::from(invocation.payload));
    response.unwrap_or_default()
}

async fn answered(State(api): State<Arc<Api>>, body: Bytes) -> StatusCode {
    api.done(&body, Ok)
}

async fn failed(State(api): State<Arc<Api>>, body: Bytes) -> StatusCode {
    api.done(&body, Err)
}

impl Api {
    fn done(&self, body: &Bytes, kind: fn(Value) -> Result<Value, Value>) -> StatusCode {
        let at = Instant::now();
        let answer = kind(serde_json::from_slice(body).unwrap_or_default());
        // Nobody waits for the answer of a process that is being ended.
        let _ = self.outcomes.send(Outcome { at, answer });
        StatusCode::ACCEPTED
    }
}
