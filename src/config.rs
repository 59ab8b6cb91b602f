//! The settings of the deployment. This module alone reads the environment.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use reqwest::Url;
use tracing::level_filters::LevelFilter;

use crate::settings::{CloudId, FieldError, Settings};

/// The settings of the deployment. Addresses that receive credentials are here, and never in an integration's item: a person
/// who may edit an item must not be able to send a secret elsewhere.
#[derive(Clone, Debug)]
pub struct Config {
    /// `AWS_LAMBDA_FUNCTION_NAME`, which Lambda sets; default `falcon-posture-sync`.
    pub function: String,
    /// `INTEGRATIONS_TABLE`.
    pub integrations_table: String,
    /// `NODES_TABLE`.
    pub nodes_table: String,
    /// `AUDIT_TABLE`.
    pub audit_table: String,
    /// `EVENT_BUS_NAME`, default `default`.
    pub event_bus: String,
    /// `TAILSCALE_API_URL`, default Tailscale's public API.
    pub tailscale_api: Url,
    /// The built-in CrowdStrike clouds and those of `FALCON_CLOUDS_EXTRA`, by name.
    pub clouds: BTreeMap<CloudId, Url>,
    /// `AUDIT_RETENTION_DAYS`, default 365.
    pub audit_retention_days: NonZeroU32,
    /// `SYNC_INTERVAL_MINUTES`, default 15.
    pub sync_interval_minutes: NonZeroU16,
    /// `CONSOLE_BUTTONS`, default `false`: allows the dashboard to request a sync or a check.
    pub console_buttons: bool,
    /// Access to AWS.
    pub aws: Aws,
}

/// Access to AWS, by the variables that all AWS SDKs share.
#[derive(Clone, Debug, Default)]
pub struct Aws {
    /// `AWS_REGION`, which Lambda sets, or `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `AWS_USE_FIPS_ENDPOINT`, default `false`.
    pub fips: bool,
    /// `AWS_USE_DUALSTACK_ENDPOINT`, default `false`.
    pub dual_stack: bool,
    /// `AWS_ENDPOINT_URL_DYNAMODB`, or `AWS_ENDPOINT_URL`; default AWS's own.
    pub dynamodb: Option<String>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`, or `AWS_ENDPOINT_URL`; default AWS's own.
    pub secrets_manager: Option<String>,
    /// `AWS_ENDPOINT_URL_EVENTBRIDGE`, or `AWS_ENDPOINT_URL`; default AWS's own.
    pub event_bridge: Option<String>,
}

/// An unusable environment variable.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {variable}: {problem}")]
pub struct InvalidEnvironment {
    variable: &'static str,
    problem: String,
}

const TAILSCALE_API: &str = "https://api.tailscale.com";

/// Fewest intervals of the schedule that a score lasts: it is renewed after the first of them, and two runs may fail.
const MIN_INTERVALS_OF_SCORE: u32 = 4;

/// CrowdStrike's clouds (CrowdStrike/gofalcon `falcon/cloud.go`, with the names it accepts for the government ones).
const CLOUDS: [(&str, &str); 8] = [
    ("us-1", "https://api.crowdstrike.com"),
    ("us-2", "https://api.us-2.crowdstrike.com"),
    ("us-3", "https://api.us-3.crowdstrike.com"),
    ("eu-1", "https://api.eu-1.crowdstrike.com"),
    ("us-gov-1", "https://api.laggar.gcw.crowdstrike.com"),
    ("gov1", "https://api.laggar.gcw.crowdstrike.com"),
    ("us-gov-2", "https://api.us-gov-2.crowdstrike.mil"),
    ("gov2", "https://api.us-gov-2.crowdstrike.mil"),
];

impl Config {
    /// Reads the environment of the function.
    ///
    /// # Errors
    /// Names the variable and the problem.
    pub fn from_env() -> Result<Self, InvalidEnvironment> {
        Self::from_lookup(env_var)
    }

    /// Reads variables with any lookup. An empty variable counts as absent.
    ///
    /// # Errors
    /// Names the variable and the problem.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidEnvironment> {
        let optional = &|name: &str| lookup(name).filter(|value| !value.is_empty());
        let or_default =
            |name: &str, default: &str| optional(name).unwrap_or_else(|| default.to_owned());
        let required = |variable: &'static str| {
            optional(variable).ok_or_else(|| InvalidEnvironment {
                variable,
                problem: "is not set".to_owned(),
            })
        };
        Ok(Self {
            function: or_default("AWS_LAMBDA_FUNCTION_NAME", "falcon-posture-sync"),
            integrations_table: required("INTEGRATIONS_TABLE")?,
            nodes_table: required("NODES_TABLE")?,
            audit_table: required("AUDIT_TABLE")?,
            event_bus: or_default("EVENT_BUS_NAME", "default"),
            tailscale_api: parse(optional, "TAILSCALE_API_URL", TAILSCALE_API, parse_api_url)?,
            clouds: parse(optional, "FALCON_CLOUDS_EXTRA", "", parse_clouds)?,
            audit_retention_days: parse(optional, "AUDIT_RETENTION_DAYS", "365", parse_number)?,
            sync_interval_minutes: parse(optional, "SYNC_INTERVAL_MINUTES", "15", parse_number)?,
            console_buttons: parse(optional, "CONSOLE_BUTTONS", "false", parse_flag)?,
            aws: Aws::from_lookup(optional),
        })
    }

    /// Checks that this deployment can serve an integration: the cloud exists, and Tailscale lets API clients write the
    /// attribute. The error names the field and the accepted values.
    pub(crate) fn validate(&self, settings: &Settings) -> Result<(), FieldError> {
        if !self.clouds.contains_key(&settings.cloud_id) {
            let known: Vec<&str> = self.clouds.keys().map(CloudId::as_str).collect();
            let message = format!(
                "unknown CrowdStrike cloud {:?}: must be one of {}",
                settings.cloud_id.as_str(),
                known.join(", ")
            );
            return Err(FieldError::new("integration.cloudId", message));
        }
        let is_public = self.tailscale_api.host_str() == Some("api.tailscale.com");
        if is_public && !settings.attribute_key.is_custom() {
            let message = format!(
                "{:?} is in a namespace that Tailscale's API reserves: must be a key that starts with \"custom:\"",
                settings.attribute_key.as_str()
            );
            return Err(FieldError::new("integration.attributeKey", message));
        }
        let interval = self.sync_interval_minutes.get();
        let min_hours = (u32::from(interval) * MIN_INTERVALS_OF_SCORE).div_ceil(60);
        if u32::from(settings.score_ttl_hours) < min_hours {
            let message = format!(
                "scores would end between two runs, which are {interval} minutes apart: must be an integer from {min_hours} to 8760"
            );
            return Err(FieldError::new("integration.scoreTtlHours", message));
        }
        Ok(())
    }
}

/// Logging, by the variables of Lambda's logging controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// `AWS_LAMBDA_LOG_LEVEL`, default `INFO`.
    pub(crate) level: LevelFilter,
    /// `AWS_LAMBDA_LOG_FORMAT` is `JSON`, default `false`.
    pub(crate) json: bool,
}

impl Logging {
    /// Reads the environment of the function. An unusable value counts as absent.
    pub fn from_env() -> Self {
        let level = env_var("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok());
        let format = env_var("AWS_LAMBDA_LOG_FORMAT");
        Self {
            level: level.unwrap_or(LevelFilter::INFO),
            json: format.is_some_and(|format| format.eq_ignore_ascii_case("json")),
        }
    }
}

impl Aws {
    fn from_lookup(optional: impl Fn(&str) -> Option<String>) -> Self {
        let is_true = |name| optional(name).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let endpoint = |name| optional(name).or_else(|| optional("AWS_ENDPOINT_URL"));
        Self {
            region: optional("AWS_REGION").or_else(|| optional("AWS_DEFAULT_REGION")),
            fips: is_true("AWS_USE_FIPS_ENDPOINT"),
            dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
            dynamodb: endpoint("AWS_ENDPOINT_URL_DYNAMODB"),
            secrets_manager: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            event_bridge: endpoint("AWS_ENDPOINT_URL_EVENTBRIDGE"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Parses a variable, or the default if it is absent.
fn parse<T>(
    optional: impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, InvalidEnvironment> {
    let text = optional(variable);
    parse(text.as_deref().unwrap_or(default))
        .map_err(|problem| InvalidEnvironment { variable, problem })
}

fn parse_number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("must be an integer of at least 1, not {text:?}"))
}

fn parse_flag(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("must be \"true\" or \"false\", not {text:?}"))
}

/// Parses the address of an API that receives credentials: https, or http to this machine (a test's server).
fn parse_api_url(text: &str) -> Result<Url, String> {
    // The text is not repeated: it may hold a password.
    let invalid = |why: &str| format!("contains an invalid address: {why}");
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    let is_loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        _ => return Err(invalid("must be an https address")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(invalid(
            "must be an address without user, password or query",
        ));
    }
    Ok(url)
}

/// Parses further clouds, `name=url` separated by commas, and adds them to the built-in ones.
fn parse_clouds(extra: &str) -> Result<BTreeMap<CloudId, Url>, String> {
    let extra = extra
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            pair.split_once('=')
                .ok_or("must be name=url, separated by commas")
        });
    let mut clouds = BTreeMap::new();
    for pair in CLOUDS.into_iter().map(Ok).chain(extra) {
        let (name, url) = pair?;
        clouds.insert(CloudId::try_from(name.to_owned())?, parse_api_url(url)?);
    }
    Ok(clouds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(extra: &[(&str, &str)]) -> Result<Config, String> {
        let tables = [
            ("INTEGRATIONS_TABLE", "integrations"),
            ("NODES_TABLE", "nodes"),
            ("AUDIT_TABLE", "audit"),
        ];
        let all: BTreeMap<&str, &str> = tables.into_iter().chain(extra.iter().copied()).collect();
        Config::from_lookup(|name| all.get(name).map(|v| (*v).to_owned()))
            .map_err(|e| e.to_string())
    }

    fn settings(field: &str, value: &str) -> Settings {
        let mut settings = json!({
            "id": "corp", "provider": "falcon", "cloudId": "us-1", "falconSecret": "s/f", "tailscaleSecret": "s/t"
        });
        settings[field] = json!(value);
        Settings::parse(settings, "integration").unwrap()
    }

    #[test]
    fn defaults_are_the_public_ones() {
        let config = config(&[("EVENT_BUS_NAME", "")]).unwrap();
        assert_eq!(config.event_bus, "default");
        assert_eq!(config.tailscale_api.as_str(), "https://api.tailscale.com/");
        assert_eq!(config.audit_retention_days.get(), 365);
        assert_eq!(config.clouds.len(), CLOUDS.len());
    }

    #[test]
    fn aws_has_the_variables_of_its_sdks() {
        let aws = |variables: &[(&str, &str)]| config(variables).unwrap().aws;
        let own = aws(&[("AWS_REGION", "eu-central-1")]);
        assert_eq!(own.region.as_deref(), Some("eu-central-1"));
        assert_eq!(
            (own.dynamodb, own.fips, own.dual_stack),
            (None, false, false)
        );
        let local = aws(&[
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", "http://localhost:1"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "http://localhost:2"),
            ("AWS_USE_FIPS_ENDPOINT", "TRUE"),
        ]);
        assert_eq!(local.region.as_deref(), Some("us-east-1"));
        assert_eq!(local.dynamodb.as_deref(), Some("http://localhost:2"));
        assert_eq!(local.event_bridge.as_deref(), Some("http://localhost:1"));
        assert_eq!(local.secrets_manager, local.event_bridge);
        assert!(local.fips);
    }

    #[test]
    fn each_bad_variable_is_named() {
        for (name, value, expect) in [
            ("INTEGRATIONS_TABLE", "", "INTEGRATIONS_TABLE: is not set"),
            (
                "AUDIT_RETENTION_DAYS",
                "0",
                "AUDIT_RETENTION_DAYS: must be an integer of at least 1, not \"0\"",
            ),
            (
                "SYNC_INTERVAL_MINUTES",
                "often",
                "must be an integer of at least 1",
            ),
            ("CONSOLE_BUTTONS", "yes", "must be \"true\" or"),
            (
                "TAILSCALE_API_URL",
                "http://example.com",
                "must be an https address",
            ),
            (
                "TAILSCALE_API_URL",
                "https://u:p@example.com",
                "without user",
            ),
            ("FALCON_CLOUDS_EXTRA", "lab", "must be name=url"),
            (
                "FALCON_CLOUDS_EXTRA",
                "lab=ftp://x",
                "must be an https address",
            ),
        ] {
            let error = config(&[(name, value)]).expect_err(name);
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn an_unknown_cloud_is_rejected_with_the_list_of_the_known() {
        let config = config(&[("FALCON_CLOUDS_EXTRA", "lab=http://127.0.0.1:9000")]).unwrap();
        assert!(config.validate(&settings("cloudId", "lab")).is_ok());
        let error = config
            .validate(&settings("cloudId", "us-9"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("integration.cloudId") && error.contains("us-gov-2"),
            "{error}"
        );
    }

    #[test]
    fn the_native_namespace_needs_another_control_plane() {
        let native = settings("attributeKey", "falcon:ztaScore");
        let error = config(&[])
            .unwrap()
            .validate(&native)
            .unwrap_err()
            .to_string();
        assert!(error.contains("reserves"), "{error}");
        let own = config(&[("TAILSCALE_API_URL", "https://headscale.example.com")]).unwrap();
        assert!(own.validate(&native).is_ok());
    }
}
