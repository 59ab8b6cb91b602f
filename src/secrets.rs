//! The API credentials: what a secret holds, and how it is fetched.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::aws::aws_error;
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::json::lenient::LenientObject;
use crate::settings::SecretName;

/// A Falcon API client.
#[derive(Clone, Debug)]
pub struct FalconCredentials {
    /// 32 hexadecimal digits.
    pub client_id: String,
    /// 40 characters.
    pub client_secret: SecretString,
    /// With Flight Control: the child account to act for.
    pub member_cid: Option<String>,
}

/// A Tailscale credential.
#[derive(Clone, Debug)]
pub enum TailscaleCredentials {
    /// An OAuth client (`tskey-client-…`): the recommended one, bound to no person and with no end.
    OAuth {
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: SecretString,
    },
    /// An API access token (`tskey-api-…`): a person's, and it ends after 90 days at most.
    ApiKey(SecretString),
}

/// What is wrong with a secret. None of it tells what the secret holds.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is none of that name, or the function's role may not read it.
    #[error("Secrets Manager does not give the secret {name} ({code})")]
    Refused {
        /// The secret.
        name: SecretName,
        /// The service's error code.
        code: String,
    },
    /// The secret is there, but does not hold what it should.
    #[error("the secret {name} is not usable: {problem}")]
    Malformed {
        /// The secret.
        name: SecretName,
        /// Its version.
        version: Option<String>,
        /// What is wrong, by field name.
        problem: String,
        /// What it must hold.
        expected: &'static str,
    },
    /// Secrets Manager did not answer.
    #[error("Secrets Manager is not reachable for the secret {name}")]
    Unavailable {
        /// The secret.
        name: SecretName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SecretError {
    /// Its class: what only a person can mend counts as a refused credential.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } | Self::Malformed { .. } => ErrorKind::Authentication,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }

    /// What to do, as half a sentence.
    pub fn remedy(&self) -> String {
        match self {
            Self::Refused { code, .. } => advice(code).to_owned(),
            Self::Malformed { expected, .. } => {
                format!("store it again with `make secret`: it must hold {expected}")
            }
            Self::Unavailable { .. } => {
                "the next run tries again; if it stays, see the AWS Health Dashboard".to_owned()
            }
        }
    }
}

/// A credential and the version of the secret it came from.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    /// The credential.
    pub value: T,
    /// Secrets Manager's id of the version.
    pub version: Option<String>,
}

/// Secrets, kept across warm invocations for as long as their version stays the current one.
#[derive(Debug)]
pub struct Secrets {
    client: Client,
    /// No lock is held while a request is under way.
    cache: Mutex<BTreeMap<SecretName, Versioned<SecretString>>>,
}

impl Secrets {
    /// Secrets by this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            cache: Mutex::default(),
        }
    }

    /// The Falcon API client that a secret holds.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn falcon(
        &self,
        name: &SecretName,
    ) -> Result<Versioned<FalconCredentials>, SecretError> {
        let text = self.text(name).await?;
        decode(name, &text, Service::Falcon, falcon_credentials)
    }

    /// The Tailscale credential that a secret holds.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn tailscale(
        &self,
        name: &SecretName,
    ) -> Result<Versioned<TailscaleCredentials>, SecretError> {
        let text = self.text(name).await?;
        decode(name, &text, Service::Tailscale, tailscale_credentials)
    }

    /// The id of a secret's current version, by one call that does not fetch the secret. None if there is no such
    /// secret for us.
    ///
    /// # Errors
    /// When Secrets Manager is out of reach.
    pub async fn current_version(&self, name: &SecretName) -> Result<Option<String>, SecretError> {
        let answer = self
            .client
            .describe_secret()
            .secret_id(name.as_str())
            .send()
            .await;
        match answer.map_err(|error| refused(name, &error)) {
            Ok(answer) => Ok(answer
                .version_ids_to_stages
                .unwrap_or_default()
                .into_iter()
                .find(|(_, stages)| stages.iter().any(|stage| stage == "AWSCURRENT"))
                .map(|(id, _)| id)),
            Err(SecretError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn text(&self, name: &SecretName) -> Result<Versioned<SecretString>, SecretError> {
        if let Some(cached) = self.cached(name)
            && self.current_version(name).await? == cached.version
        {
            return Ok(cached);
        }
        let answer = self
            .client
            .get_secret_value()
            .secret_id(name.as_str())
            .send()
            .await
            .map_err(|error| refused(name, &error))?;
        if answer.name.is_none() {
            return Err(SecretError::Unavailable {
                name: name.clone(),
                source: "the answer is empty".into(),
            });
        }
        let version = answer.version_id;
        let Some(text) = answer.secret_string else {
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
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), fresh.clone());
        Ok(fresh)
    }

    fn cached(&self, name: &SecretName) -> Option<Versioned<SecretString>> {
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .filter(|cached| cached.version.is_some())
            .cloned()
    }
}

fn advice(code: &str) -> &'static str {
    match code {
        "ResourceNotFoundException" => {
            "create it with `make secret`, or correct its name: there is none of that name in this region"
        }
        "AccessDeniedException" | "AccessDenied" => {
            "give it a name with the deployment's prefix (SECRET_PREFIX): the function's role may read no other"
        }
        "DecryptionFailure" => {
            "encrypt it with the default key: the function's role may not use the one that it is encrypted with"
        }
        _ => "see whether it is about to be deleted: it cannot be read now",
    }
}

/// A service's refusal is the user's to mend; anything else is an outage.
fn refused<E>(name: &SecretName, error: &SdkError<E>) -> SecretError
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
        ) => SecretError::Refused {
            name: name.clone(),
            code: code.to_owned(),
        },
        _ => SecretError::Unavailable {
            name: name.clone(),
            source: aws_error(error),
        },
    }
}

fn decode<T>(
    name: &SecretName,
    text: &Versioned<SecretString>,
    side: Service,
    read: fn(&str) -> Result<T, String>,
) -> Result<Versioned<T>, SecretError> {
    match read(text.value.expose_secret()) {
        Ok(value) => Ok(Versioned {
            value,
            version: text.version.clone(),
        }),
        Err(problem) => Err(SecretError::Malformed {
            name: name.clone(),
            version: text.version.clone(),
            problem,
            expected: match side {
                Service::Falcon => {
                    r#"{"clientId":"…","clientSecret":"…"}, and "memberCid" if it acts for a child account"#
                }
                Service::Tailscale | Service::Secrets => {
                    r#"{"clientId":"…","clientSecret":"…"} of an OAuth client, or {"apiKey":"…"}"#
                }
            },
        }),
    }
}

/// Every field is optional here, so that a missing one can be named without the decoder quoting the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretFields {
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    member_cid: Option<String>,
    api_key: Option<SecretString>,
}

impl SecretFields {
    fn parse(text: &str) -> Result<Self, String> {
        // The decoder's own message could quote a value: only the kind of fault is passed on.
        let LenientObject(fields) =
            serde_json::from_str(text).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => {
                    "a field is not a text, or there twice".to_owned()
                }
                _ => format!(
                    "it is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            })?;
        // A list of the values in their order would do for the decoder.
        fields.ok_or_else(|| "it is no JSON object".to_owned())
    }
}

fn present(field: &str, value: Option<String>) -> Result<String, String> {
    value
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .ok_or_else(|| format!("it lacks the field {field}"))
}

fn secret(field: &str, value: Option<SecretString>) -> Result<SecretString, String> {
    value
        .map(|text| SecretString::from(text.expose_secret().trim()))
        .filter(|text| !text.expose_secret().is_empty())
        .ok_or_else(|| format!("it lacks the field {field}"))
}

fn falcon_credentials(text: &str) -> Result<FalconCredentials, String> {
    let fields = SecretFields::parse(text)?;
    let client_id = present("clientId", fields.client_id)?;
    let client_secret = secret("clientSecret", fields.client_secret)?;
    if client_secret.expose_secret().starts_with(TAILSCALES) {
        return Err("it holds a Tailscale credential, which must not go to Falcon".to_owned());
    }
    Ok(FalconCredentials {
        client_id,
        client_secret,
        member_cid: fields.member_cid.filter(|cid| !cid.trim().is_empty()),
    })
}

fn tailscale_credentials(text: &str) -> Result<TailscaleCredentials, String> {
    let fields = SecretFields::parse(text)?;
    if let Some(key) = fields.api_key {
        return Ok(TailscaleCredentials::ApiKey(secret("apiKey", Some(key))?));
    }
    let client_id = present("clientId", fields.client_id)?;
    let client_secret = secret("clientSecret", fields.client_secret)?;
    if is_falcons(&client_id, client_secret.expose_secret()) {
        return Err("it holds a Falcon API client, which must not go to Tailscale".to_owned());
    }
    Ok(TailscaleCredentials::OAuth {
        client_id,
        client_secret,
    })
}

/// The beginning of all of Tailscale's keys and secrets.
const TAILSCALES: &str = "tskey-";

/// Both sides' secrets have the same fields. An integration whose two secrets are exchanged, by mistake or by somebody who
/// may edit it, must not carry one side's credential to the other. (The forms are those that psfalcon checks for.)
fn is_falcons(client_id: &str, client_secret: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    client_id.len() == 32
        && client_id.bytes().all(|b| b.is_ascii_hexdigit())
        && client_secret.len() == 40
        && client_secret.bytes().all(is_word)
}
