//! Faults: which requests go wrong, and how.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lock;
use crate::matching::{Matcher, Seen, Side};

/// How a request goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// This status, with the API's own shape of error unless a body is given.
    Status {
        /// The HTTP status.
        code: u16,
        /// Beside the usual ones.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// In place of the API's error.
        #[serde(default)]
        body: Option<String>,
    },
    /// The connection is reset before any byte of an answer.
    Reset,
    /// The head and half of the body arrive, then the connection is reset.
    ResetMidBody,
    /// No answer: until the client gives up, or a reset after `ms`.
    Stall {
        /// Milliseconds to the reset.
        #[serde(default)]
        ms: Option<u64>,
    },
    /// A complete answer whose JSON stops in the middle.
    TruncatedJson,
    /// A complete answer of valid JSON that is not what was asked for.
    WrongJson {
        /// In place of `{"resources":"none","devices":7,"attributes":[]}`.
        #[serde(default)]
        body: Option<Value>,
    },
    /// The status of the answer without its body.
    EmptyBody,
    /// A load balancer's 503 page.
    Html,
    /// The body trickles, over this time in all.
    SlowBody {
        /// Milliseconds from the first to the last byte.
        ms: u64,
    },
}

impl FaultKind {
    /// As noted in the request log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Reset => "reset",
            Self::ResetMidBody => "reset_mid_body",
            Self::Stall { .. } => "stall",
            Self::TruncatedJson => "truncated_json",
            Self::WrongJson { .. } => "wrong_json",
            Self::EmptyBody => "empty_body",
            Self::Html => "html",
            Self::SlowBody { .. } => "slow_body",
        }
    }

    /// Whether the fault spoils an answer, which must therefore be worked out first. The others
    /// take its place.
    pub(crate) fn spoils_answer(&self) -> bool {
        match self {
            Self::ResetMidBody | Self::TruncatedJson | Self::EmptyBody | Self::SlowBody { .. } => {
                true
            }
            Self::Status { .. }
            | Self::Reset
            | Self::Stall { .. }
            | Self::WrongJson { .. }
            | Self::Html => false,
        }
    }
}

/// A fault and the requests it befalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The service asked.
    pub side: Side,
    /// Only this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only paths that start like this.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// So many selected requests are let through first.
    #[serde(default)]
    pub nth: u64,
    /// How often it happens; `None` (JSON `null`) is for ever.
    #[serde(default = "once")]
    pub times: Option<u64>,
    /// The request takes effect all the same, and only its answer is lost. Always so for kinds
    /// that spoil an answer.
    #[serde(default)]
    pub processed: bool,
    /// How it goes wrong.
    pub kind: FaultKind,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the default of a field that can be null"
)]
fn once() -> Option<u64> {
    Some(1)
}

impl Fault {
    /// Befalls the next selected request, once.
    pub fn new(requests: Matcher, kind: FaultKind) -> Self {
        let Matcher {
            side,
            method,
            path_prefix,
        } = requests;
        Self {
            side,
            method,
            path_prefix,
            nth: 0,
            times: Some(1),
            processed: false,
            kind,
        }
    }

    /// A bare status.
    pub fn status(requests: Matcher, code: u16) -> Self {
        Self::new(
            requests,
            FaultKind::Status {
                code,
                headers: BTreeMap::new(),
                body: None,
            },
        )
    }

    /// Lets so many selected requests through first.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.nth = requests;
        self
    }

    /// Happens so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Happens until it is cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// The request takes effect, its answer is lost.
    #[must_use]
    pub fn processed(mut self) -> Self {
        self.processed = true;
        self
    }

    fn selects(&self, seen: &Seen) -> bool {
        let matcher = Matcher {
            side: self.side,
            method: self.method.clone(),
            path_prefix: self.path_prefix.clone(),
        };
        matcher.matches(seen)
    }
}

/// The ordered list of faults. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Adds a fault behind those present.
    pub fn add(&self, fault: Fault) {
        lock(&self.0).push(fault);
    }

    /// No more faults.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    /// What is still to come; `nth` and `times` count down.
    pub fn pending(&self) -> Vec<Fault> {
        lock(&self.0).clone()
    }

    /// The fault of this request: the first in the list whose turn it is. Rules passed over on
    /// the way count the request; rules behind it do not.
    pub(crate) fn take(&self, seen: &Seen) -> Option<Fault> {
        let mut faults = lock(&self.0);
        let mut due = None;
        for (index, fault) in faults.iter_mut().enumerate() {
            if !fault.selects(seen) {
                continue;
            }
            if fault.nth > 0 {
                fault.nth -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                if *times == 0 {
                    continue;
                }
                *times -= 1;
            }
            due = Some(index);
            break;
        }
        let index = due?;
        let fault = faults.get(index).cloned();
        faults.retain(|fault| fault.times != Some(0));
        fault
    }
}
