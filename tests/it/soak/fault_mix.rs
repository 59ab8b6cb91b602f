//! Random faults between a function and the four services.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_simulators::endpoints;
use axum::http::{Method, StatusCode};
use falcon_posture_sync::clock::Clock;
use serde_json::json;

use super::rng::Rng;
use crate::concurrency::busy::Refusal;
use crate::environment::TestEnvironment;
use crate::process::relay::{Answered, Asked, Delivery, Relay, Watch};

/// Percentage of requests that fail.
const FAULT_PERCENT: usize = 2;

/// The request header that carries the fault to the response.
const FATE: &str = "x-fate";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Falcon,
    Tailscale,
    DynamoDb,
    Others,
}

impl Service {
    fn is_aws(self) -> bool {
        matches!(self, Self::DynamoDb | Self::Others)
    }
}

/// A fault of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// This status; the request is not carried out.
    Status(u16),
    /// The connection is reset; the request is not carried out.
    Reset,
    /// The request is carried out, then the connection is reset.
    ResetAfter,
    /// The request is carried out, then the response breaks off.
    Half,
    /// The request is carried out, and the response is truncated JSON.
    Truncated,
    /// A complete response with wrong JSON.
    Garbled,
    /// A throttling error of AWS.
    Throttled,
    /// A transaction conflict of DynamoDB.
    Conflict,
}

const COMMON_FAULTS: [Fate; 8] = [
    Fate::Status(500),
    Fate::Status(503),
    Fate::Reset,
    Fate::Reset,
    Fate::ResetAfter,
    Fate::ResetAfter,
    Fate::Half,
    Fate::Truncated,
];

/// Requests and faults of a function so far.
#[derive(Debug)]
struct Met {
    rng: Rng,
    requests: BTreeMap<Service, usize>,
    faults: BTreeMap<Fate, usize>,
}

/// Chooses the faults of one function.
#[derive(Clone, Debug)]
pub(super) struct FaultMix {
    met: Arc<Mutex<Met>>,
    is_stopped: Arc<AtomicBool>,
}

/// Applies the faults to the requests to one service.
struct ServiceWatch {
    service: Service,
    fault_mix: FaultMix,
}

/// The relays to the four services.
pub(super) struct Relays {
    falcon: Relay,
    tailscale: Relay,
    dynamodb: Relay,
    others: Relay,
}

impl FaultMix {
    pub(super) fn new(seed: u64) -> Self {
        let met = Met {
            rng: Rng::new(seed),
            requests: BTreeMap::new(),
            faults: BTreeMap::new(),
        };
        Self {
            met: Arc::new(Mutex::new(met)),
            is_stopped: Arc::default(),
        }
    }

    pub(super) async fn relays(&self, env: &TestEnvironment) -> Relays {
        let to = async |base: &str, service| {
            let fault_mix = self.clone();
            Relay::to(base, Arc::new(ServiceWatch { service, fault_mix })).await
        };
        Relays {
            falcon: to(&env.sims.falcon_url("us-1"), Service::Falcon).await,
            tailscale: to(&env.sims.tailscale_url(), Service::Tailscale).await,
            dynamodb: to(env.dynamodb.url(), Service::DynamoDb).await,
            others: to(&env.services.url(), Service::Others).await,
        }
    }

    /// Stops all faults.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn requests(&self) -> usize {
        self.met.lock().unwrap().requests.values().sum()
    }

    pub(super) fn faults(&self) -> usize {
        self.met.lock().unwrap().faults.values().sum()
    }

    pub(super) fn summary(&self) -> String {
        let met = self.met.lock().unwrap();
        format!("requests {:?}, faults {:?}", met.requests, met.faults)
    }

    fn fate(&self, service: Service, asked: &Asked) -> Option<Fate> {
        let mut met = self.met.lock().unwrap();
        *met.requests.entry(service).or_default() += 1;
        if self.is_stopped.load(Ordering::SeqCst) || !met.rng.chance(FAULT_PERCENT) {
            return None;
        }
        let mut fates = COMMON_FAULTS.to_vec();
        if service.is_aws() {
            fates.extend([Fate::Throttled; 2]);
        } else {
            fates.push(Fate::Status(429));
        }
        let writes = ["TransactWriteItems", "UpdateItem"];
        if asked.aws_operation().is_some_and(|o| writes.contains(&o)) {
            fates.extend([Fate::Conflict; 2]);
        }
        if asked.method == Method::GET {
            fates.push(Fate::Garbled);
        }
        let fate = *met.rng.choose(&fates);
        *met.faults.entry(fate).or_default() += 1;
        Some(fate)
    }
}

impl Relays {
    /// The function's variables that lead to these relays.
    pub(super) fn variables(&self) -> [(&'static str, String); 5] {
        let [dynamodb, secrets, events] = endpoints(&self.dynamodb.url(), &self.others.url());
        [
            ("FALCON_CLOUDS_EXTRA", format!("us-1={}", self.falcon.url())),
            ("TAILSCALE_API_URL", self.tailscale.url()),
            dynamodb,
            secrets,
            events,
        ]
    }
}

fn refusal(status: u16) -> Answered {
    let mut answered = Answered {
        status: StatusCode::from_u16(status).unwrap(),
        ..Answered::nothing()
    };
    if status == 429 {
        // Both APIs' headers for the time of the next try. It is soon, so that the test stays short.
        let now = Clock::system().now().as_second();
        answered
            .headers
            .insert("x-ratelimit-retryafter", now.into());
        answered.headers.insert("retry-after", 0.into());
    }
    answered
}

impl Watch for ServiceWatch {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        let fate = self.fault_mix.fate(self.service, asked)?;
        let note = |asked: &mut Asked, fate: &'static str| {
            asked.headers.insert(FATE, fate.parse().unwrap());
        };
        match fate {
            Fate::Status(status) => Some(refusal(status)),
            Fate::Throttled => Some(Refusal::Exception("ThrottlingException").answer(asked)),
            Fate::Conflict if asked.aws_operation() == Some("UpdateItem") => {
                Some(Refusal::Exception("TransactionConflictException").answer(asked))
            }
            Fate::Conflict => Some(Refusal::Cancelled("TransactionConflict").answer(asked)),
            Fate::Garbled => Some(Answered {
                status: StatusCode::OK,
                body: json!({"resources": "none", "devices": 7})
                    .to_string()
                    .into(),
                ..Answered::nothing()
            }),
            Fate::Reset => {
                note(asked, "reset");
                Some(Answered::nothing())
            }
            Fate::ResetAfter => {
                note(asked, "reset");
                None
            }
            Fate::Half => {
                note(asked, "half");
                None
            }
            Fate::Truncated => {
                note(asked, "truncated");
                None
            }
        }
    }

    fn after(&self, _: &Asked, _: &Answered) {}

    fn deliver(&self, asked: &Asked, mut answered: Answered) -> Delivery {
        match asked.header(FATE) {
            "reset" => Delivery::Reset,
            "half" => Delivery::Half(answered),
            "truncated" => {
                answered.body.truncate(answered.body.len() / 2);
                Delivery::Whole(answered)
            }
            _ => Delivery::Whole(answered),
        }
    }
}
