//! Metrics in CloudWatch's Embedded Metric Format: a line of JSON on standard output, from which CloudWatch makes the
//! metrics. No call, no permission, and the line stays searchable.
//!
//! The format is that of the specification "Embedded metric format" in the CloudWatch guide: `_aws` names the metrics with
//! their units and the sets of dimensions, and the values stand at the root beside whatever else there is to say. Lambda
//! passes a custom runtime's own lines on as they are, also where its log format is JSON.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::settings::IntegrationId;

/// Of all our metrics. Alarms and the dashboard name it.
pub const NAMESPACE: &str = "FalconPostureSync";

/// The name of the function, as a dimension.
const FUNCTION: &str = "function";
/// The name of an integration, likewise.
const INTEGRATION: &str = "integration";

/// A metric: its name, and what it counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, one of CloudWatch's.
    pub unit: &'static str,
}

/// What there is to measure. Names are fixed: alarms and dashboards rely on them.
macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $unit:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $constant: Metric = Metric { name: $name, unit: $unit };
        )*

        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    /// How long a run took.
    DURATION = "DurationMs", "Milliseconds";
    /// HTTP requests to Falcon, repeated ones included.
    FALCON_REQUESTS = "FalconRequests", "Count";
    /// HTTP requests to Tailscale, repeated ones included.
    TAILSCALE_REQUESTS = "TailscaleRequests", "Count";
    /// Those of the requests to Falcon that repeat a failed one.
    FALCON_RETRIES = "FalconRetries", "Count";
    /// Those of the requests to Tailscale that repeat a failed one.
    TAILSCALE_RETRIES = "TailscaleRetries", "Count";
    /// Visible hosts of the Falcon account.
    FALCON_HOSTS = "FalconHosts", "Count";
    /// Own devices with a usable serial.
    POSSIBLE_MATCHED = "PossibleMatched", "Count";
    /// Devices with a Falcon host.
    MATCHED = "Matched", "Count";
    /// Attributes that were set or changed.
    WRITTEN = "Written", "Count";
    /// Attributes that were taken away.
    REMOVED = "Removed", "Count";
    /// Devices whose attribute Tailscale refused.
    REFUSED = "Refused", "Count";
    /// Kinds of findings.
    FINDINGS = "Findings", "Count";
    /// 1 while a refused credential pauses the integration, else 0.
    PAUSED = "Paused", "Count";
    /// 1 while removals wait, else 0.
    HELD = "Held", "Count";
    /// 1 of a run that failed, else 0. Of a tick: the integrations whose item cannot be read.
    FAILED = "Failed", "Count";
    /// 1 of a run that did all that it should, else 0.
    SUCCESS = "Success", "Count";
    /// What is left of Falcon's quota of requests a minute, as its latest answer says.
    FALCON_QUOTA_REMAINING = "FalconQuotaRemaining", "Count";
    /// How long ago the last success was, or the last change of the settings, whichever was later. Of a tick: the longest
    /// of all enabled integrations, those that cannot be read included.
    SECONDS_SINCE_SUCCESS = "SecondsSinceSuccess", "Seconds";
    /// Enabled integrations, at each tick of the schedule, those that cannot be read included.
    INTEGRATIONS = "Integrations", "Count";
}

/// What was measured at one time.
#[derive(Clone, Debug)]
pub struct MetricEvent {
    at: Timestamp,
    integration: Option<IntegrationId>,
    values: Vec<(Metric, u64)>,
    properties: Map<String, Value>,
}

impl MetricEvent {
    /// About the function as a whole.
    pub fn of_function(at: Timestamp) -> Self {
        Self {
            at,
            integration: None,
            values: Vec::new(),
            properties: Map::new(),
        }
    }

    /// About an integration, and so about the function, too.
    pub fn of_integration(at: Timestamp, integration: &IntegrationId) -> Self {
        Self {
            integration: Some(integration.clone()),
            ..Self::of_function(at)
        }
    }

    /// With a value.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: impl TryInto<u64>) -> Self {
        let value = value.try_into().unwrap_or(u64::MAX);
        self.values.push((metric, value));
        self
    }

    /// With something to search by, which is no metric.
    #[must_use]
    pub fn note(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    /// The line, for a function of this name.
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
        let metrics: Vec<Value> = self
            .values
            .iter()
            .map(|(metric, _)| json!({"Name": metric.name, "Unit": metric.unit}))
            .collect();
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

/// Where the lines go.
#[derive(Clone, Debug)]
pub struct Metrics {
    function: String,
    /// They are kept instead of printed, for those who look at them.
    kept: Option<Arc<Mutex<Vec<Value>>>>,
}

impl Metrics {
    /// To standard output, where Lambda collects them.
    pub fn printed(function: String) -> Self {
        Self {
            function,
            kept: None,
        }
    }

    /// To a list, which [`Metrics::taken`] empties.
    pub fn kept(function: String) -> Self {
        Self {
            function,
            kept: Some(Arc::default()),
        }
    }

    /// What was kept since the last time.
    pub fn taken(&self) -> Vec<Value> {
        let kept = self.kept.as_ref();
        kept.map_or_else(Vec::new, |kept| {
            std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Puts a line out. It goes in one write, so that lines of the log do not get into it.
    pub fn put(&self, line: &MetricEvent) {
        let line = line.to_json(&self.function);
        if let Some(kept) = &self.kept {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
            return;
        }
        let text = format!("{line}\n");
        // Without a standard output there is nobody to tell that there is none.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}
