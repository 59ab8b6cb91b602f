//! The API credentials, from AWS Secrets Manager.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::{Client, config};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::aws::{ExpiredSignatureRetry, aws_error};
use crate::domain::status::error_kind::ErrorKind;
use crate::json::lenient::LenientObject;
use crate::settings::SecretName;

/// A Falcon API client.
#[derive(Clone, Debug)]
pub struct FalconCredentials {
    /// 32 hexadecimal digits.
    pub client_id: String,
    /// 40 characters.
    pub client_secret: SecretString,
    /// The child account to act for, with Flight Control.
    pub member_cid: Option<String>,
}

/// An OAuth client or an API key of Tailscale.
#[derive(Clone, Debug)]
pub enum TailscaleCredentials {
    /// An OAuth client (`tskey-client-…`), which is recommended: it belongs to no person and does not expire.
    OAuth {
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: SecretString,
    },
    /// An API access token (`tskey-api-…`). It belongs to a person and expires after at most 90 days.
    ApiKey(SecretString),
}

/// A failure to read a secret. No message quotes the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The secret does not exist, or the function's role may not read it.
    #[error("Secrets Manager: cannot read the secret {name} ({code})")]
    Rejected {
        /// The secret.
        name: SecretName,
        /// The service's error code.
        code: String,
    },
    /// The secret does not hold a usable credential.
    #[error("secret {name}: {problem}")]
    Malformed {
        /// The secret.
        name: SecretName,
        /// The version that was read, if Secrets Manager returned one.
        version: Option<String>,
        /// The problem, by field name.
        problem: String,
        /// The accepted content.
        expected: &'static str,
    },
    /// Secrets Manager did not respond.
    #[error("Secrets Manager: cannot read the secret {name}")]
    Unavailable {
        /// The secret.
        name: SecretName,
        /// The error of the SDK.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SecretError {
    /// Returns the class. A failure that only a person can fix counts as a rejected credential.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected { .. } | Self::Malformed { .. } => ErrorKind::Authentication,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }

    /// Returns the remedy, as half a sentence.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Rejected { code, .. } => match code.as_str() {
                "ResourceNotFoundException" => {
                    "create it with `make secret`, or correct its name: there is none of that name in this region"
                }
                "AccessDeniedException" | "AccessDenied" => {
                    "give it a name with the deployment's prefix (SECRET_PREFIX): the function's role cannot read others"
                }
                "DecryptionFailure" => {
                    "encrypt it with the default key: the function's role cannot use its present key"
                }
                _ => "check whether the secret is scheduled for deletion: it cannot be read now",
            },
            Self::Malformed { expected, .. } => {
                return format!("store it again with `make secret`: it must hold {expected}");
            }
            Self::Unavailable { .. } => {
                "wait for the next run; if it persists, check the AWS Health Dashboard"
            }
        }
        .to_owned()
    }
}

/// A value and the version of its secret.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    /// Secrets Manager's id of the version.
    pub(crate) version: Option<String>,
}

/// Secrets, cached across warm invocations while their version is the current one.
#[derive(Debug)]
pub struct Secrets {
    client: Client,
    /// The lock is never held during a request.
    cache: Mutex<BTreeMap<SecretName, Versioned<SecretString>>>,
}

impl Secrets {
    /// Creates an empty cache.
    pub fn new(sdk: &SdkConfig) -> Self {
        let client = config::Builder::from(sdk).retry_classifier(ExpiredSignatureRetry);
        Self {
            client: Client::from_conf(client.build()),
            cache: Mutex::default(),
        }
    }

    pub(crate) async fn falcon(
        &self,
        name: &SecretName,
    ) -> Result<Versioned<FalconCredentials>, SecretError> {
        self.read(name, falcon_credentials, FALCON_CONTENT).await
    }

    pub(crate) async fn tailscale(
        &self,
        name: &SecretName,
    ) -> Result<Versioned<TailscaleCredentials>, SecretError> {
        self.read(name, tailscale_credentials, TAILSCALE_CONTENT)
            .await
    }

    /// Returns the id of a secret's current version, with one call that does not fetch the secret. Returns `None` if the
    /// secret does not exist or may not be read.
    ///
    /// # Errors
    /// If Secrets Manager is unavailable.
    pub(crate) async fn current_version(
        &self,
        name: &SecretName,
    ) -> Result<Option<String>, SecretError> {
        let request = self.client.describe_secret().secret_id(name.as_str());
        match request.send().await.map_err(|error| classify(name, &error)) {
            Ok(secret) => Ok(secret
                .version_ids_to_stages
                .unwrap_or_default()
                .into_iter()
                .find(|(_, stages)| stages.iter().any(|stage| stage == "AWSCURRENT"))
                .map(|(id, _)| id)),
            Err(SecretError::Rejected { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read<T>(
        &self,
        name: &SecretName,
        parse: fn(&str) -> Result<T, String>,
        expected: &'static str,
    ) -> Result<Versioned<T>, SecretError> {
        let Versioned { value, version } = self.text(name).await?;
        match parse(value.expose_secret()) {
            Ok(value) => Ok(Versioned { value, version }),
            Err(problem) => Err(SecretError::Malformed {
                name: name.clone(),
                version,
                problem,
                expected,
            }),
        }
    }

    async fn text(&self, name: &SecretName) -> Result<Versioned<SecretString>, SecretError> {
        let cached = self.cache().get(name).cloned();
        if let Some(cached) = cached.filter(|cached| cached.version.is_some())
            && self.current_version(name).await? == cached.version
        {
            return Ok(cached);
        }
        let request = self.client.get_secret_value().secret_id(name.as_str());
        let response = request.send().await;
        let secret = response.map_err(|error| classify(name, &error))?;
        if secret.name.is_none() {
            return Err(SecretError::Unavailable {
                name: name.clone(),
                source: "the response is empty".into(),
            });
        }
        let version = secret.version_id;
        let Some(text) = secret.secret_string else {
            return Err(SecretError::Malformed {
                name: name.clone(),
                version,
                problem: "it is binary".to_owned(),
                expected: "JSON text",
            });
        };
        let fresh = Versioned {
            value: SecretString::from(text),
            version,
        };
        self.cache().insert(name.clone(), fresh.clone());
        Ok(fresh)
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<SecretName, Versioned<SecretString>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Classifies an SDK error: the user can fix these codes; anything else is an outage.
fn classify<E>(name: &SecretName, error: &SdkError<E>) -> SecretError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some(
            code @ ("ResourceNotFoundException"
            | "AccessDeniedException"
            | "AccessDenied"
            | "InvalidRequestException"
            | "DecryptionFailure"),
        ) => SecretError::Rejected {
            name: name.clone(),
            code: code.to_owned(),
        },
        _ => SecretError::Unavailable {
            name: name.clone(),
            source: aws_error(error),
        },
    }
}

/// The accepted content of the secrets.
const FALCON_CONTENT: &str =
    r#"{"clientId":"…","clientSecret":"…"}, and "memberCid" if it acts for a child account"#;
const TAILSCALE_CONTENT: &str =
    r#"{"clientId":"…","clientSecret":"…"} of an OAuth client, or {"apiKey":"…"}"#;

/// The fields of a secret. All are optional, so that our own message names a missing field without a quote of the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretFields {
    client_id: Option<SecretString>,
    client_secret: Option<SecretString>,
    member_cid: Option<String>,
    api_key: Option<SecretString>,
}

impl SecretFields {
    fn parse(text: &str) -> Result<Self, String> {
        // The decoder's own message can quote a value, so only the kind of problem is used.
        let LenientObject(fields) =
            serde_json::from_str(text).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => {
                    "a field is not a string, or occurs twice".to_owned()
                }
                _ => format!(
                    "it is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            })?;
        // The derived decoder would also accept a list of the values in their order.
        fields.ok_or_else(|| "it is not a JSON object".to_owned())
    }
}

fn required(field: &str, value: Option<SecretString>) -> Result<SecretString, String> {
    value
        .map(|text| SecretString::from(text.expose_secret().trim()))
        .filter(|text| !text.expose_secret().is_empty())
        .ok_or_else(|| format!("it lacks the field {field}"))
}

fn falcon_credentials(text: &str) -> Result<FalconCredentials, String> {
    let fields = SecretFields::parse(text)?;
    let client_id = required("clientId", fields.client_id)?;
    let client_secret = required("clientSecret", fields.client_secret)?;
    if client_secret.expose_secret().starts_with(TAILSCALE_PREFIX) {
        return Err("it holds a Tailscale credential, which must not go to Falcon".to_owned());
    }
    Ok(FalconCredentials {
        client_id: client_id.expose_secret().to_owned(),
        client_secret,
        member_cid: fields.member_cid.filter(|cid| !cid.trim().is_empty()),
    })
}

fn tailscale_credentials(text: &str) -> Result<TailscaleCredentials, String> {
    let fields = SecretFields::parse(text)?;
    if fields.api_key.is_some() {
        let key = required("apiKey", fields.api_key)?;
        check_kind("apiKey", &key, &NOT_API_KEYS)?;
        return Ok(TailscaleCredentials::ApiKey(key));
    }
    let client_id = required("clientId", fields.client_id)?;
    let client_secret = required("clientSecret", fields.client_secret)?;
    check_kind("clientSecret", &client_secret, &NOT_CLIENT_SECRETS)?;
    if looks_like_falcon(client_id.expose_secret(), client_secret.expose_secret()) {
        return Err("it holds a Falcon API client, which must not go to Tailscale".to_owned());
    }
    Ok(TailscaleCredentials::OAuth {
        client_id: client_id.expose_secret().to_owned(),
        client_secret,
    })
}

/// The prefixes of Tailscale's other credentials, each with what it is and what to do. Sending one would fail with an error
/// that names neither.
const NOT_API_KEYS: [(&str, &str); 4] = [
    (
        "tskey-client-",
        "it is the secret of an OAuth client; store it as clientSecret, with its clientId",
    ),
    AUTH_KEY,
    WEBHOOK_SECRET,
    SCIM_KEY,
];
const NOT_CLIENT_SECRETS: [(&str, &str); 4] = [
    ("tskey-api-", "it is an API key; store it as apiKey"),
    AUTH_KEY,
    WEBHOOK_SECRET,
    SCIM_KEY,
];
const AUTH_KEY: (&str, &str) = (
    "tskey-auth-",
    "it is an auth key, which only joins devices to a tailnet; create an OAuth client",
);
const WEBHOOK_SECRET: (&str, &str) = (
    "tskey-webhook-",
    "it is the secret of a webhook; create an OAuth client",
);
const SCIM_KEY: (&str, &str) = (
    "tskey-scim-",
    "it is a key for user provisioning; create an OAuth client",
);

/// Returns the problem of a credential of another kind.
fn check_kind(field: &str, secret: &SecretString, others: &[(&str, &str)]) -> Result<(), String> {
    let secret = secret.expose_secret();
    match others.iter().find(|(prefix, _)| secret.starts_with(prefix)) {
        Some((_, problem)) => Err(format!("{field}: {problem}")),
        None => Ok(()),
    }
}

/// The prefix of all Tailscale keys and secrets.
const TAILSCALE_PREFIX: &str = "tskey-";

/// Returns whether a credential has the form of a Falcon API client (as psfalcon checks it).
///
/// Both secrets have the same fields. If the secrets of an integration are exchanged, by mistake or by somebody who may edit
/// it, the credential of one service must not go to the other.
fn looks_like_falcon(client_id: &str, client_secret: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    client_id.len() == 32
        && client_id.bytes().all(|b| b.is_ascii_hexdigit())
        && client_secret.len() == 40
        && client_secret.bytes().all(is_word)
}
