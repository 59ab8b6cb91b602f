//! Both running services: start, addresses, latency, faults, the request log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use serde::Serialize;

use crate::clock::Clock;
use crate::control;
use crate::exchange::{Endpoint, RequestHandler};
use crate::falcon::Falcon;
use crate::faults::Faults;
use crate::hooks::{Hooks, Script, SimulatorState};
use crate::late::LateRequests;
use crate::lock;
use crate::matching::{Matcher, RequestInfo, Side};
use crate::net::{Bound, Connection, Server};
use crate::request_log::RequestLog;
use crate::tailscale::Tailscale;

/// The simulators' addresses, as the binary prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Urls {
    /// Falcon's base URLs by region.
    pub falcon: BTreeMap<String, String>,
    /// Tailscale's API; paths start with `/api/v2`.
    pub tailscale: String,
    /// The control interface, if it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
}

/// Options of a start. The system chooses a port for 0.
#[derive(Clone, Debug)]
pub struct Builder {
    regions: Vec<String>,
    falcon_port: u16,
    tailscale_port: u16,
    control_port: Option<u16>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            regions: vec!["us-1".to_owned()],
            falcon_port: 0,
            tailscale_port: 0,
            control_port: None,
        }
    }
}

impl Builder {
    /// Starts one Falcon server for each of these regions, instead of one for `us-1`.
    #[must_use]
    pub fn regions<S: Into<String>>(mut self, regions: impl IntoIterator<Item = S>) -> Self {
        self.regions = regions.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the port of the first region; the others follow it.
    #[must_use]
    pub fn falcon_port(mut self, port: u16) -> Self {
        self.falcon_port = port;
        self
    }

    /// Sets the port of the Tailscale side.
    #[must_use]
    pub fn tailscale_port(mut self, port: u16) -> Self {
        self.tailscale_port = port;
        self
    }

    /// Adds the control interface on this port.
    #[must_use]
    pub fn control_port(mut self, port: u16) -> Self {
        self.control_port = Some(port);
        self
    }

    /// Starts all servers.
    ///
    /// # Errors
    /// A port is in use.
    pub async fn start(self) -> io::Result<Simulators> {
        let mut listeners = Vec::new();
        for (port, region) in (self.falcon_port..).zip(&self.regions) {
            let port = if self.falcon_port == 0 { 0 } else { port };
            listeners.push((region.clone(), Bound::to(port).await?));
        }
        let regions = listeners
            .iter()
            .map(|(region, listener)| (region.clone(), listener.url()))
            .collect();
        let clock = Clock::default();
        let falcon = Falcon::new(clock.clone(), regions);
        let tailscale = Tailscale::new(clock.clone());
        let late = LateRequests::new(falcon.clone(), tailscale.clone());
        let state = SimulatorState {
            clock,
            falcon,
            tailscale,
            faults: Faults::default(),
            late,
        };
        let handler = RequestHandler {
            state,
            hooks: Hooks::default(),
            log: RequestLog::default(),
            latency: Arc::default(),
            answer_times: Arc::default(),
        };

        let mut falcon = BTreeMap::new();
        for (region, listener) in listeners {
            let endpoint = Endpoint::Falcon {
                region: region.as_str().into(),
            };
            falcon.insert(region, Server::start(listener, router(&handler, endpoint)));
        }
        let listener = Bound::to(self.tailscale_port).await?;
        let tailscale = Server::start(listener, router(&handler, Endpoint::Tailscale));
        let core = Arc::new(Core {
            handler,
            servers: Servers { falcon, tailscale },
        });

        let control = match self.control_port {
            None => None,
            Some(port) => {
                let listener = Bound::to(port).await?;
                Some(Server::start(listener, control::router(Arc::clone(&core))))
            }
        };
        Ok(Simulators { control, core })
    }
}

fn router(handler: &RequestHandler, endpoint: Endpoint) -> Router {
    let handler = handler.clone();
    Router::new().fallback(
        move |ConnectInfo(connection): ConnectInfo<Connection>, request: Request| {
            let (handler, endpoint) = (handler.clone(), endpoint.clone());
            async move { handler.handle(&endpoint, connection, request).await }
        },
    )
}

#[derive(Debug)]
struct Servers {
    falcon: BTreeMap<String, Server>,
    tailscale: Server,
}

/// The state that tests and the control interface change.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) handler: RequestHandler,
    servers: Servers,
}

impl Core {
    pub(crate) fn urls(&self) -> Urls {
        let falcon = self
            .servers
            .falcon
            .iter()
            .map(|(region, server)| (region.clone(), server.url()))
            .collect();
        Urls {
            falcon,
            tailscale: self.servers.tailscale.url(),
            control: None,
        }
    }

    pub(crate) async fn refuse_connections(&self, side: Side) {
        for server in self.of(side) {
            server.stop().await;
        }
    }

    pub(crate) async fn accept_connections(&self, side: Side) -> io::Result<()> {
        for server in self.of(side) {
            server.resume().await?;
        }
        Ok(())
    }

    fn of(&self, side: Side) -> Vec<&Server> {
        match side {
            Side::Falcon => self.servers.falcon.values().collect(),
            Side::Tailscale => vec![&self.servers.tailscale],
        }
    }

    pub(crate) fn set_latency(&self, side: Side, latency: Duration) {
        let latencies: &Mutex<_> = &self.handler.latency;
        lock(latencies).insert(side, latency);
    }

    fn set_answer_time(&self, side: Side, time: Duration) {
        lock(&self.handler.answer_times).insert(side, time);
    }

    pub(crate) fn reset(&self) {
        let RequestHandler {
            state,
            hooks,
            log,
            latency,
            answer_times,
        } = &self.handler;
        state.falcon.reset();
        state.tailscale.reset();
        state.faults.clear();
        state.late.clear();
        state.clock.reset();
        hooks.clear();
        log.clear();
        lock(latency).clear();
        lock(answer_times).clear();
    }
}

/// Both services, listening until this is dropped.
#[derive(Debug)]
pub struct Simulators {
    // first, since its requests hold the rest
    control: Option<Server>,
    core: Arc<Core>,
}

impl Simulators {
    /// Starts Falcon in `us-1` and Tailscale, on free ports, without the control interface.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> io::Result<Self> {
        Builder::default().start().await
    }

    /// Returns a builder for other regions, fixed ports, or the control interface.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns all addresses.
    pub fn urls(&self) -> Urls {
        Urls {
            control: self.control.as_ref().map(Server::url),
            ..self.core.urls()
        }
    }

    /// Returns the base URL of a Falcon region, or `""` if no server serves it.
    pub fn falcon_url(&self, region: &str) -> String {
        self.core
            .servers
            .falcon
            .get(region)
            .map(Server::url)
            .unwrap_or_default()
    }

    /// Returns the base URL of Tailscale's API, without `/api/v2`.
    pub fn tailscale_url(&self) -> String {
        self.core.servers.tailscale.url()
    }

    /// Returns the base URL of the control interface, or `""` without one.
    pub fn control_url(&self) -> String {
        self.control.as_ref().map(Server::url).unwrap_or_default()
    }

    /// Returns the Falcon side's state.
    pub fn falcon(&self) -> &Falcon {
        &self.core.handler.state.falcon
    }

    /// Returns the Tailscale side's state.
    pub fn tailscale(&self) -> &Tailscale {
        &self.core.handler.state.tailscale
    }

    /// Returns the pending faults.
    pub fn faults(&self) -> &Faults {
        &self.core.handler.state.faults
    }

    /// Returns the requests that take effect later.
    pub fn late_requests(&self) -> &LateRequests {
        &self.core.handler.state.late
    }

    /// Returns the request log.
    pub fn requests(&self) -> &RequestLog {
        &self.core.handler.log
    }

    /// Returns the clock of both sides.
    pub fn clock(&self) -> &Clock {
        &self.core.handler.state.clock
    }

    /// Sets the time from a request to its response, for requests without a fault. It includes the
    /// simulator's own work, unlike a latency, so that work does not affect a measured client.
    pub fn set_answer_time(&self, side: Side, time: Duration) {
        self.core.set_answer_time(side, time);
    }

    /// Sets the delay of every response of a side.
    pub fn set_latency(&self, side: Side, latency: Duration) {
        self.core.set_latency(side, latency);
    }

    /// Calls this before each selected request is answered, to change state in the middle of a
    /// listing. The closure can own clones of [`Falcon`] and [`Tailscale`].
    pub fn on_request(
        &self,
        requests: Matcher,
        closure: impl Fn(&RequestInfo) + Send + Sync + 'static,
    ) {
        self.core.handler.hooks.on_request(requests, closure);
    }

    /// Runs actions at a later moment.
    pub fn script(&self, script: Script) {
        self.core.handler.hooks.add(script);
    }

    /// Stops listening and resets all connections: clients get "connection refused".
    pub async fn refuse_connections(&self, side: Side) {
        self.core.refuse_connections(side).await;
    }

    /// Listens again on the same ports.
    ///
    /// # Errors
    /// A port is in use.
    pub async fn accept_connections(&self, side: Side) -> io::Result<()> {
        self.core.accept_connections(side).await
    }

    /// Restores the state after the start: no data, no faults, no hooks, an empty log.
    pub fn reset(&self) {
        self.core.reset();
    }
}
