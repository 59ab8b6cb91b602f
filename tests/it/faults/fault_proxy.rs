//! A proxy between the function and the four servers that injects faults.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::header;
use posture_simulators::{Effect, LateRequests};

use super::call_sites::{CallSite, Classifier, Server};
use super::kinds::Kind;
use crate::environment::TestEnvironment;
use crate::process::relay::{Answered, Asked, Delivery, Relay, Watch};

/// A fault, and the calls that it affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) call_site: CallSite,
    pub(crate) kind: Kind,
    /// The number of calls that pass first.
    pub(crate) after: usize,
    /// Maximum number of faulty calls; `None` for all.
    pub(crate) times: Option<usize>,
    /// Says if and when the call takes effect in spite of the fault. A kind that damages the response implies an effect at
    /// once. A kind that denies the call excludes any effect. Only writes to Tailscale can come late.
    pub(crate) effect: Effect,
}

impl Fault {
    /// Affects every such call.
    pub(crate) fn always(call_site: CallSite, kind: Kind) -> Self {
        Self {
            call_site,
            kind,
            after: 0,
            times: None,
            effect: Effect::Never,
        }
    }

    fn is_processed(&self) -> bool {
        let is_given = matches!(self.effect, Effect::Now | Effect::Twice);
        (self.kind.spoils() && !self.is_late()) || (is_given && !self.is_denied())
    }

    /// Returns whether the call takes effect when the simulators release it.
    fn is_late(&self) -> bool {
        let is_given = matches!(self.effect, Effect::Late | Effect::Twice);
        // The service sent a response to these, if a damaged one, so the request does not take effect again.
        let is_answered = matches!(self.kind, Kind::Truncated | Kind::WrongJson | Kind::Empty);
        is_given
            && matches!(self.call_site, CallSite::Patch(_))
            && !is_answered
            && !self.is_denied()
    }

    /// Returns whether the service says that it did not carry out the call.
    fn is_denied(&self) -> bool {
        self.kind.denies()
            || (self.call_site.server() == Server::Tailscale
                && matches!(self.kind, Kind::Unauthorized | Kind::TooMany))
    }
}

/// A call with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) call_site: CallSite,
    pub(crate) kind: Kind,
    /// True if the call took effect, or may still take effect.
    pub(crate) processed: bool,
}

/// The faults to inject, and the calls that had one.
#[derive(Clone, Default)]
pub(crate) struct FaultProxy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    classifier: Classifier,
    faults: Vec<Fault>,
    met: Vec<Met>,
}

/// The relays in front of the servers.
pub(crate) struct Relays {
    relays: Vec<(Server, Relay)>,
}

impl FaultProxy {
    pub(crate) fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state();
        state.faults.extend(faults);
        state.met.clear();
    }

    /// Removes the faults. Returns the calls that had one.
    pub(crate) fn disarm(&self) -> Vec<Met> {
        let mut state = self.state();
        state.faults.clear();
        std::mem::take(&mut state.met)
    }

    /// Sets the devices of the first batch of changes.
    pub(crate) fn expect_first_batch(&self, nodes: impl IntoIterator<Item = String>) {
        self.state().classifier.expect_first_batch(nodes);
    }

    /// Sets the device whose calls have call sites of their own.
    pub(crate) fn expect_odd(&self, node: Option<String>) {
        self.state().classifier.expect_odd(node);
    }

    /// Starts the relays between the function and its servers.
    pub(crate) async fn between(&self, env: &TestEnvironment) -> Relays {
        let mut relays = Vec::new();
        for (server, base) in [
            (Server::Falcon, env.sims.falcon_url("us-1")),
            (Server::Tailscale, env.sims.tailscale_url()),
            (Server::DynamoDb, env.dynamodb.url().to_owned()),
            (Server::Services, env.services.url()),
        ] {
            let watch = At {
                server,
                proxy: self.clone(),
                late: env.sims.late_requests().clone(),
            };
            relays.push((server, Relay::to(&base, Arc::new(watch)).await));
        }
        Relays { relays }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Relays {
    pub(crate) fn url(&self, server: Server) -> String {
        let relay = self.relays.iter().find(|(name, _)| *name == server);
        relay.unwrap().1.url()
    }

    /// Waits until no request is in flight, and accepts connections again.
    pub(crate) async fn up(&self) {
        for (_, relay) in &self.relays {
            relay.quiet().await;
            relay.up().await;
        }
    }
}

/// The proxy in front of one server.
struct At {
    server: Server,
    proxy: FaultProxy,
    late: LateRequests,
}

/// The request header that carries the chosen fault to the response.
const CHOSEN: &str = "x-fault";

impl At {
    fn choose(&self, asked: &Asked) -> Option<usize> {
        let mut state = self.proxy.state();
        let call_site = state.classifier.read(asked)?;
        let mut due = None;
        for (index, fault) in state.faults.iter_mut().enumerate() {
            if fault.call_site != call_site || fault.times == Some(0) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            due = Some((index, *fault));
            break;
        }
        let (index, fault) = due?;
        state.met.push(Met {
            call_site,
            kind: fault.kind,
            processed: fault.is_processed() || fault.is_late(),
        });
        Some(index)
    }

    fn chosen(&self, asked: &Asked) -> Option<Fault> {
        let index: usize = asked
            .headers
            .get(CHOSEN)?
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        // The faults are gone if the run ended without waiting for the response.
        self.proxy.state().faults.get(index).copied()
    }
}

impl Watch for At {
    fn before(&self, asked: &mut Asked) -> Option<Answered> {
        // Responses that will be damaged must not be compressed.
        asked.headers.remove(header::ACCEPT_ENCODING);
        let index = self.choose(asked)?;
        asked.headers.insert(CHOSEN, index.into());
        let fault = self.chosen(asked)?;
        if fault.is_late() {
            let (headers, body) = (asked.headers.clone(), asked.body.clone());
            self.late
                .add(asked.method.as_str(), &asked.path, headers, body);
        }
        (!fault.is_processed()).then(Answered::nothing)
    }

    fn after(&self, _: &Asked, _: &Answered) {}

    fn deliver(&self, asked: &Asked, answered: Answered) -> Delivery {
        match self.chosen(asked) {
            Some(fault) => fault.kind.deliver(self.server, answered),
            None => Delivery::Whole(answered),
        }
    }
}
