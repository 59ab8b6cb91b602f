//! The built binary as a process of its own, behind as much of Lambda's runtime API as it needs.

pub(crate) mod relay;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use falcon_posture_sync::clock::Clock;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::aws::{self, Server};
use crate::world::Stage;

const NAME: &str = "falcon-posture-sync";

/// The function's AWS credentials; all three go with the environment, and none of them anywhere else.
pub(crate) const ACCESS_KEY: &str = "AKIAEXAMPLE";
pub(crate) const SECRET_KEY: &str = "m4rk3d-aws-secret-access-key";
pub(crate) const SESSION_TOKEN: &str = "m4rk3d-aws-session-token";

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The function's own error: `errorType`, `errorMessage`.
    Error(Value),
    /// The process ended.
    Died,
}

/// The function, running.
#[derive(Debug)]
pub(crate) struct Process {
    life: Life,
    printed: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    lambda: Arc<Lambda>,
    invocations: mpsc::UnboundedSender<Invocation>,
    caller: Option<String>,
    _server: Server,
}

/// What ends a process from anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    child: Arc<Mutex<Child>>,
    over: watch::Receiver<bool>,
}

impl Life {
    /// SIGKILL. When this returns, nothing runs any more and no socket is open.
    pub(crate) fn end(&self) {
        let mut child = self.child.lock().unwrap();
        // It fails for a process that has ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
    }

    async fn over(&self) {
        let mut over = self.over.clone();
        over.wait_for(|over| *over).await.unwrap();
    }
}

#[derive(Debug)]
struct Invocation {
    id: String,
    /// Who invokes, where Lambda tells it.
    caller: Option<String>,
    payload: String,
    deadline_ms: i64,
}

type Outcome = Result<Value, Value>;

/// Lambda's side of the runtime API.
#[derive(Debug)]
struct Lambda {
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    waiting: Mutex<BTreeMap<String, oneshot::Sender<Outcome>>>,
}

impl Process {
    /// Starts the function for the world of `stage`, with these variables added to its environment or in place of
    /// others.
    pub(crate) async fn start(stage: &Stage, variables: &[(&str, String)]) -> Self {
        let (invocations, next) = mpsc::unbounded_channel();
        let lambda = Arc::new(Lambda {
            next: tokio::sync::Mutex::new(next),
            waiting: Mutex::default(),
        });
        let server = aws::serve(runtime_api(Arc::clone(&lambda))).await;
        let api = server.url.trim_start_matches("http://").to_owned();
        let mut child = Command::new(env!("CARGO_BIN_EXE_falcon-posture-sync"))
            .env_clear()
            .envs(lambdas_own(api))
            .envs(aws_clients(stage))
            .envs(stage.variables())
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let (ending, over) = watch::channel(false);
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = vec![
            collect(stdout, &printed, Some(ending)),
            collect(stderr, &printed, None),
        ];
        let child = Arc::new(Mutex::new(child));
        Self {
            life: Life { child, over },
            printed,
            readers,
            lambda,
            invocations,
            caller: stage.caller.clone(),
            _server: server,
        }
    }

    pub(crate) fn life(&self) -> Life {
        self.life.clone()
    }

    /// The system's number for it.
    pub(crate) fn id(&self) -> u32 {
        self.life.child.lock().unwrap().id()
    }

    /// Invokes the function, with so much time.
    pub(crate) async fn invoke(
        &self,
        id: &str,
        payload: &Value,
        time: Duration,
    ) -> Result<Value, NoAnswer> {
        let (sender, outcome) = oneshot::channel();
        self.lambda
            .waiting
            .lock()
            .unwrap()
            .insert(id.to_owned(), sender);
        let time = SignedDuration::try_from(time).unwrap();
        let deadline = Clock::system().now().checked_add(time).unwrap();
        let invocation = Invocation {
            id: id.to_owned(),
            caller: self.caller.clone(),
            payload: payload.to_string(),
            deadline_ms: deadline.as_millisecond(),
        };
        self.invocations.send(invocation).unwrap();
        tokio::select! {
            biased;
            outcome = outcome => outcome.unwrap().map_err(NoAnswer::Error),
            () = self.life.over() => Err(NoAnswer::Died),
        }
    }

    /// Invokes the function, which must be able to answer, with all the time there is.
    pub(crate) async fn ask(&self, id: &str, payload: &Value) -> Value {
        let answer = self.invoke(id, payload, Duration::from_mins(15)).await;
        answer.unwrap_or_else(|trouble| panic!("{payload}: {trouble:?}\n{}", self.output()))
    }

    /// What it has printed so far, on either of the two.
    pub(crate) fn output(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Ends it. All that it ever printed.
    pub(crate) fn end(mut self) -> String {
        self.life.end();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
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
        while from.read_until(b'\n', &mut line).unwrap() > 0 {
            let text = String::from_utf8_lossy(&line);
            into.lock().unwrap().push_str(&text);
            line.clear();
        }
        // The process has no children, so nobody else holds its standard output open.
        if let Some(ending) = ending {
            ending.send_replace(true);
        }
    })
}

fn lambdas_own(api: String) -> [(&'static str, String); 6] {
    [
        ("AWS_LAMBDA_RUNTIME_API", api),
        ("AWS_LAMBDA_FUNCTION_NAME", NAME.to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("AWS_LAMBDA_LOG_LEVEL", "INFO".to_owned()),
    ]
}

fn aws_clients(stage: &Stage) -> [(&'static str, String); 8] {
    let others = stage.services.url().to_owned();
    [
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", stage.dynamodb.url.clone()),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", others.clone()),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", others),
    ]
}

fn runtime_api(lambda: Arc<Lambda>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route(
            "/2018-06-01/runtime/invocation/{id}/response",
            post(answered),
        )
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(StatusCode::ACCEPTED))
        .with_state(lambda)
}

async fn next(State(lambda): State<Arc<Lambda>>) -> Response<Body> {
    let Some(invocation) = lambda.next.lock().await.recv().await else {
        // The test is over, and the process about to be ended.
        return std::future::pending().await;
    };
    let mut response = Response::builder();
    if let Some(id) = invocation.caller {
        let identity =
            json!({"cognitoIdentityId": id, "cognitoIdentityPoolId": "eu-central-1:pool"});
        response = response.header("lambda-runtime-cognito-identity", identity.to_string());
    }
    response
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
        )
        .body(Body::from(invocation.payload))
        .unwrap()
}

async fn answered(
    State(lambda): State<Arc<Lambda>>,
    Path(id): Path<String>,
    body: Bytes,
) -> StatusCode {
    lambda.done(&id, Ok(serde_json::from_slice(&body).unwrap()))
}

async fn failed(
    State(lambda): State<Arc<Lambda>>,
    Path(id): Path<String>,
    body: Bytes,
) -> StatusCode {
    lambda.done(&id, Err(serde_json::from_slice(&body).unwrap()))
}

impl Lambda {
    fn done(&self, id: &str, outcome: Outcome) -> StatusCode {
        let waiting = self.waiting.lock().unwrap().remove(id).unwrap();
        // Nobody waits any more where the process was ended in the same moment.
        let _ = waiting.send(outcome);
        StatusCode::ACCEPTED
    }
}
