//! Metrics in CloudWatch's Embedded Metric Format: lines of JSON on standard output, from which CloudWatch makes metrics. They
//! need no call and no permission, and stay searchable.
//!
//! The specification is "Embedded metric format" in the CloudWatch guide. `_aws` names the metrics with their units and the
//! sets of dimensions; the values are at the root, together with any other properties. Lambda passes the lines of a custom
//! runtime on as they are, even if its log format is JSON.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::settings::IntegrationId;

/// The namespace of all metrics. Alarms and the dashboard name it.
const NAMESPACE: &str = "FalconPostureSync";

// The dimensions.
const FUNCTION: &str = "function";
const INTEGRATION: &str = "integration";

/// The name and the CloudWatch unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metric {
    name: &'static str,
    unit: &'static str,
}

impl Metric {
    const fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

// Names are fixed: alarms and dashboards rely on them.
pub(crate) const DURATION: Metric = Metric::new("DurationMs", "Milliseconds");
/// HTTP requests to Falcon, retries included.
pub(crate) const FALCON_REQUESTS: Metric = Metric::new("FalconRequests", "Count");
/// HTTP requests to Tailscale, retries included.
pub(crate) const TAILSCALE_REQUESTS: Metric = Metric::new("TailscaleRequests", "Count");
pub(crate) const FALCON_RETRIES: Metric = Metric::new("FalconRetries", "Count");
pub(crate) const TAILSCALE_RETRIES: Metric = Metric::new("TailscaleRetries", "Count");
/// Visible hosts of the Falcon account.
pub(crate) const FALCON_HOSTS: Metric = Metric::new("FalconHosts", "Count");
/// Own devices with a usable serial.
pub(crate) const POSSIBLE_MATCHED: Metric = Metric::new("PossibleMatched", "Count");
/// Devices with a Falcon host.
pub(crate) const MATCHED: Metric = Metric::new("Matched", "Count");
/// Attributes that were set or changed.
pub(crate) const WRITTEN: Metric = Metric::new("Written", "Count");
/// Attributes that were removed.
pub(crate) const REMOVED: Metric = Metric::new("Removed", "Count");
/// Attributes that kept their value and got another end.
pub(crate) const RENEWED: Metric = Metric::new("Renewed", "Count");
/// Devices whose attribute Tailscale rejected.
pub(crate) const REFUSED: Metric = Metric::new("Refused", "Count");
/// Kinds of findings.
pub(crate) const FINDINGS: Metric = Metric::new("Findings", "Count");
/// 1 while an unauthorized credential pauses the integration, else 0.
pub(crate) const PAUSED: Metric = Metric::new("Paused", "Count");
/// Devices of which the scores of the integration end soon, since no run renews them.
pub(crate) const SCORES_ENDING: Metric = Metric::new("ScoresEnding", "Count");
/// 1 while removals are held, else 0.
pub(crate) const HELD: Metric = Metric::new("Held", "Count");
/// 1 for a failed run, else 0. For a tick: integrations whose item cannot be read.
pub(crate) const FAILED: Metric = Metric::new("Failed", "Count");
/// 1 for a complete run, else 0.
pub(crate) const SUCCESS: Metric = Metric::new("Success", "Count");
/// Remaining requests per minute of Falcon's quota, by its latest response.
pub(crate) const FALCON_QUOTA_REMAINING: Metric = Metric::new("FalconQuotaRemaining", "Count");
/// Time since the last success or the last change of the settings, whichever was later. For a tick: the longest of all
/// enabled integrations, unreadable ones included.
pub(crate) const SECONDS_SINCE_SUCCESS: Metric = Metric::new("SecondsSinceSuccess", "Seconds");
/// Enabled integrations at each tick of the schedule, unreadable ones included.
pub(crate) const INTEGRATIONS: Metric = Metric::new("Integrations", "Count");

/// All metrics above.
pub const ALL: &[Metric] = &[
    DURATION,
    FALCON_REQUESTS,
    TAILSCALE_REQUESTS,
    FALCON_RETRIES,
    TAILSCALE_RETRIES,
    FALCON_HOSTS,
    POSSIBLE_MATCHED,
    MATCHED,
    WRITTEN,
    REMOVED,
    RENEWED,
    REFUSED,
    FINDINGS,
    PAUSED,
    SCORES_ENDING,
    HELD,
    FAILED,
    SUCCESS,
    FALCON_QUOTA_REMAINING,
    SECONDS_SINCE_SUCCESS,
    INTEGRATIONS,
];

/// Values measured at one time, about the function and possibly about one integration.
#[derive(Clone, Debug)]
pub struct MetricEvent {
    at: Timestamp,
    integration: Option<IntegrationId>,
    values: Vec<(Metric, u64)>,
    properties: Map<String, Value>,
}

impl MetricEvent {
    /// Starts an event without values.
    pub fn new(at: Timestamp, integration: Option<&IntegrationId>) -> Self {
        Self {
            at,
            integration: integration.cloned(),
            values: Vec::new(),
            properties: Map::new(),
        }
    }

    /// Adds a value.
    #[must_use]
    pub fn value(mut self, metric: Metric, value: impl TryInto<u64>) -> Self {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.values.push((metric, value));
        self
    }

    /// Adds a property, which is searchable and not a metric.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    /// Formats the line for a function of this name.
    pub fn to_json(&self, function: &str) -> Value {
        let mut root = self.properties.clone();
        root.insert(FUNCTION.to_owned(), function.into());
        let dimensions = match &self.integration {
            Some(integration) => {
                root.insert(INTEGRATION.to_owned(), integration.as_str().into());
                json!([[FUNCTION, INTEGRATION], [FUNCTION]])
            }
            None => json!([[FUNCTION]]),
        };
        let metrics: Vec<&Metric> = self.values.iter().map(|(metric, _)| metric).collect();
        for (metric, value) in &self.values {
            root.insert(metric.name.to_owned(), (*value).into());
        }
        root.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": self.at.as_millisecond(),
                "CloudWatchMetrics": [
                    {"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": metrics}
                ],
            }),
        );
        root.into()
    }
}

/// The output of metric lines.
#[derive(Clone, Debug)]
pub struct Metrics {
    function: String,
    /// Keeps the lines instead of printing them.
    memory: Option<Arc<Mutex<Vec<Value>>>>,
}

impl Metrics {
    /// Prints to standard output, which Lambda collects.
    pub fn to_stdout(function: String) -> Self {
        Self {
            function,
            memory: None,
        }
    }

    /// Keeps lines in memory until [`Metrics::drain`] takes them.
    pub fn in_memory(function: String) -> Self {
        Self {
            function,
            memory: Some(Arc::default()),
        }
    }

    /// Takes the lines kept since the last call.
    pub fn drain(&self) -> Vec<Value> {
        let Some(memory) = &self.memory else {
            return Vec::new();
        };
        std::mem::take(&mut *memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts out a line in one write, so that log lines do not mix with it.
    pub fn emit(&self, event: &MetricEvent) {
        let line = event.to_json(&self.function);
        if let Some(memory) = &self.memory {
            let mut lines = memory.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line);
            return;
        }
        let text = format!("{line}\n");
        // A failed write to stdout cannot be reported anywhere.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_metric_once() {
        let declared: Vec<&str> = include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub(crate) const ")?.split(['"']).nth(1))
            .collect();
        let listed: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(listed, declared);
    }
}
