//! Huge responses and compression bombs: the function reads a bounded part of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use futures::stream;
use posture_simulators::GeneratorSpec;
use serde_json::{Value, json};

use super::{assert_fit, peak_memory};
use crate::aws;
use crate::environment::TestEnvironment;
use crate::process::Process;
use crate::process::relay::{Answered, Asked, Relay, Watch};

/// Maximum bytes of a Falcon response, of a token response, and of a Tailscale error.
const PAGE: usize = 32 << 20;
const TOKEN: usize = 64 << 10;
const ERROR: usize = 1 << 20;

/// Bytes per chunk of an endless body.
const PIECE: usize = 8 << 10;
static SPACES: [u8; PIECE] = [b' '; PIECE];

/// Writes the bits of a deflate stream: the lowest bit of a byte first, codes with their highest bit first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    filled: u32,
}

impl Bits {
    fn code(&mut self, code: u32, length: u32) {
        for at in (0..length).rev() {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().unwrap();
            *last |= u8::from(code >> at & 1 == 1) << (self.filled % 8);
            self.filled += 1;
        }
    }
}

/// Returns a gzip stream without end: a beginning, then megabytes of one character. It has a 158th of the unpacked size.
fn bomb(beginning: &str, filler: u8, megabytes: usize) -> Bytes {
    // Without name and time; the first block is stored.
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0];
    let length = u16::try_from(beginning.len()).unwrap();
    packed.extend(length.to_le_bytes());
    packed.extend((!length).to_le_bytes());
    packed.extend(beginning.bytes());
    // The last block has fixed codes: the character, then repeated copies of the last 258 characters.
    let mut bits = Bits::default();
    bits.code(0b110, 3);
    bits.code(0x30 + u32::from(filler), 8);
    for _ in 0..megabytes * (1 << 20) / 258 {
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    packed.extend(bits.bytes);
    packed.into()
}

/// Answers some requests instead of the simulators.
#[derive(Default)]
struct Instead(Mutex<Option<(&'static str, Answered)>>);

impl Watch for Instead {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        let armed = self.0.lock().unwrap();
        let (path, answered) = armed.as_ref()?;
        asked.path.starts_with(path).then(|| answered.clone())
    }

    fn after(&self, _: &Asked, _: &Answered) {}
}

impl Instead {
    fn arm(&self, path: &'static str, status: u16, encoding: Option<&'static str>, body: Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.extend(
            encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding))),
        );
        let answered = Answered {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body,
        };
        *self.0.lock().unwrap() = Some((path, answered));
    }
}

/// A synced environment whose process calls both services through `Instead`.
struct Minefield {
    env: TestEnvironment,
    process: Process,
    instead: Arc<Instead>,
    _relays: [Relay; 2],
}

impl Minefield {
    async fn new() -> Self {
        let env = TestEnvironment::live(GeneratorSpec::plain(60, 40)).await;
        let instead = Arc::new(Instead::default());
        let falcon = Relay::to(&env.sims.falcon_url("us-1"), instead.clone()).await;
        let tailscale = Relay::to(&env.sims.tailscale_url(), instead.clone()).await;
        let variables = [
            ("FALCON_CLOUDS_EXTRA", format!("us-1={}", falcon.url())),
            ("TAILSCALE_API_URL", tailscale.url()),
        ];
        let process = Process::start(&env, &variables).await;
        let answer = process.ask("first", &sync()).await;
        assert_eq!(answer["outcome"], "synced", "{answer:#}");
        env.lower_a_score().await;
        Self {
            env,
            process,
            instead,
            _relays: [falcon, tailscale],
        }
    }

    /// Runs a sync against the response. It must fail with these words and change nothing.
    async fn meet(
        &self,
        path: &'static str,
        status: u16,
        encoding: Option<&'static str>,
        body: Bytes,
        words: &str,
    ) {
        let before = self.env.scores();
        self.instead.arm(path, status, encoding, body);
        let answer = self.process.ask("met", &sync()).await;
        assert_eq!(answer["outcome"], "failed", "{path}: {answer:#}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(words), "{path}: {error}");
        assert_fit(&answer);
        assert_eq!(self.env.corp().await["status"]["errorKind"], "protocol");
        assert_eq!(self.env.scores(), before);
        self.env.assert_sound().await;
    }
}

fn sync() -> Value {
    json!({"command": "sync", "integration": "corp", "force": true})
}

#[test]
fn the_bomb_is_one() {
    let packed = bomb("{\"a\":\"", b'a', 300);
    assert!(packed.len() < 2 << 20, "{} bytes", packed.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_unpacks_to_more_than_an_answer_may_have_is_given_up() {
    let field = Minefield::new().await;
    let ordinary = peak_memory(&field.process);
    let packed = bomb("{\"meta\":{\"x\":\"", b'a', 300);
    for (path, status, cap, whose) in [
        (
            "/oauth2/token",
            201,
            TOKEN,
            "Falcon: token request failed: invalid response",
        ),
        (
            "/oauth2/token",
            403,
            TOKEN,
            "Falcon: token request failed: invalid response",
        ),
        (
            "/api/v2/oauth/token",
            200,
            TOKEN,
            "Tailscale: token request failed: invalid response",
        ),
        (
            "/devices/combined",
            200,
            PAGE,
            "Falcon: host listing failed: invalid response",
        ),
        (
            "/zero-trust-assessment",
            400,
            PAGE,
            "Falcon: score listing failed: invalid response",
        ),
        (
            "/api/v2/tailnet/-/devices",
            403,
            ERROR,
            "Tailscale: device listing failed: invalid response",
        ),
        (
            "/api/v2/tailnet/-/device-attributes",
            200,
            ERROR,
            "Tailscale: attribute write failed: invalid response",
        ),
    ] {
        let words = format!("{whose}: it is larger than {cap} bytes");
        field
            .meet(path, status, Some("gzip"), packed.clone(), &words)
            .await;
    }
    let grown = peak_memory(&field.process) - ordinary;
    assert!(grown < 3 * PAGE, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_nothing_take_no_more_room_than_their_text() {
    const SIZE: usize = 3 << 20;
    let field = Minefield::new().await;
    let ordinary = peak_memory(&field.process);
    let page = r#"{"meta":{"pagination":{"total":1}},"errors":"#;
    let listing = r#"{"devices":[{"nodeId":"#;
    for (path, before, unit, after, words) in [
        (
            "/devices/combined",
            format!("{page}["),
            "0,",
            "0]}",
            "a successful response with an error",
        ),
        (
            "/devices/combined",
            format!("{page}[],\"resources\":["),
            "null,",
            "0]}",
            "unexpected value at resources",
        ),
        (
            "/zero-trust-assessment",
            format!("{page}[],\"resources\":[{{\"score\":["),
            "0,",
            "0]}]]",
            "unexpected value",
        ),
        (
            "/api/v2/tailnet/-/devices",
            format!("{listing}["),
            "0,",
            "0]}]]",
            "unexpected value",
        ),
        (
            "/api/v2/tailnet/-/devices",
            format!("{listing}1,\"postureIdentity\":{{\"serialNumbers\":["),
            "0,",
            "0]}}]]",
            "unexpected value",
        ),
        (
            "/api/v2/tailnet/-/devices",
            "{\"devices\":[".to_owned(),
            " ",
            "7]}",
            "unexpected value at devices",
        ),
    ] {
        let body = format!("{before}{}{after}", unit.repeat(SIZE / unit.len()));
        field.meet(path, 200, None, body.into(), words).await;
    }
    // If they were kept, the million zeros of one list would take some 50 megabytes.
    let grown = peak_memory(&field.process) - ordinary;
    assert!(grown < 6 * SIZE, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_body_without_end_no_more_is_taken_than_an_answer_may_have() {
    let taken = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&taken);
    let endless = aws::serve(Router::new().fallback(move |request: Request| {
        let given = Arc::clone(&given);
        let is_token = request.uri().path().ends_with("/token");
        async move {
            if is_token {
                let answer = json!({"access_token": "t0ken", "expires_in": 1799});
                return Response::new(Body::from(answer.to_string()));
            }
            let pieces = stream::repeat_with(move || {
                given.fetch_add(PIECE, Ordering::SeqCst);
                Ok::<_, std::io::Error>(Bytes::from_static(&SPACES))
            });
            Response::new(Body::from_stream(pieces))
        }
    }))
    .await;
    let env = TestEnvironment::live(GeneratorSpec::plain(60, 40)).await;
    assert_eq!(env.sync().await["outcome"], "synced");
    let before = env.scores();
    let variables = [("FALCON_CLOUDS_EXTRA", format!("us-1={}", endless.url()))];
    let process = Process::start(&env, &variables).await;
    let answer = process.ask("endless", &sync()).await;
    assert_eq!(answer["outcome"], "failed", "{answer:#}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("it is larger than 33554432 bytes"),
        "{answer:#}"
    );
    assert_eq!(env.scores(), before);
    // Two listings at the same time, and the buffers between them.
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < 3 * PAGE, "{taken} bytes");
    let peak = peak_memory(&process);
    assert!(peak < 256 << 20, "{peak} bytes");
}
