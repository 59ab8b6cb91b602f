//! Posture attributes: read, set one, set many.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::devices::{UNMANAGEABLE, unmanageable};
use super::model::{Attribute, OmittedExpiry, UnknownNode};
use super::routes::message;
use super::state::{Keys, Kind, Tenant};
use crate::reply::{Call, Reply};

/// "up to 2^53 - 1".
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A rejection: status and message.
type Rejection = (u16, String);

fn reject<T>(text: impl Into<String>) -> Result<T, Rejection> {
    Err((400, text.into()))
}

/// `GET /device/{id}/attributes`: the built-in attributes and those that clients set.
pub(crate) fn read(tenant: &Tenant, id: &str) -> Reply {
    let Some(device) = tenant.device(id) else {
        return message(404, "device not found");
    };
    if device.is_unmanageable {
        return unmanageable();
    }
    let mut values = Map::from_iter([
        ("node:os".to_owned(), json!(device.os.to_lowercase())),
        ("node:osVersion".to_owned(), json!("15.1.0")),
        ("node:tsAutoUpdate".to_owned(), json!(true)),
        ("node:tsReleaseTrack".to_owned(), json!("stable")),
        ("node:tsStateEncrypted".to_owned(), json!(true)),
        ("node:tsVersion".to_owned(), json!("1.90.6")),
    ]);
    let mut expiries = Map::new();
    for (key, attribute) in tenant.attributes.get(&device.node_id).into_iter().flatten() {
        values.insert(key.clone(), attribute.value.clone());
        expiries.extend(attribute.expiry.map(|expiry| (key.clone(), json!(expiry))));
    }
    let mut body = json!({"attributes": values});
    // "If there are no attributes with expiries, the entire `expiries` field is omitted"
    if let Some(body) = body.as_object_mut().filter(|_| !expiries.is_empty()) {
        body.insert("expiries".to_owned(), Value::Object(expiries));
    }
    Reply::json(200, &body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Single {
    value: Value,
    #[serde(default)]
    expiry: Option<String>,
    #[serde(default)]
    comment: Option<String>,
}

/// `POST /device/{id}/attributes/{key}`.
pub(crate) fn set(tenant: &mut Tenant, id: &str, key: &str, call: &Call, now: Timestamp) -> Reply {
    tenant.writes.post_calls += 1;
    let written = own_node(tenant, id)
        .ok_or_else(|| (404, "device not found".to_owned()))
        .and_then(|node| manageable(tenant, node))
        .and_then(|node| {
            let Single {
                value,
                expiry,
                comment,
            } = decode(&call.body)?;
            check_comment(comment.as_deref())?;
            let expiry = expiry
                .map(|expiry| check_expiry(&expiry, now))
                .transpose()?;
            check_key(tenant, &tenant.keys, key)?;
            check_value(&tenant.keys, key, &value)?;
            Ok((node, Attribute { value, expiry }, comment))
        });
    match written {
        Ok((node, attribute, comment)) => {
            tenant.write(&node, key, Some(attribute), comment.as_deref(), now);
            null_response()
        }
        Err((status, text)) => message(status, &text),
    }
}

/// `DELETE /device/{id}/attributes/{key}`; deleting an unset attribute succeeds too.
pub(crate) fn delete(tenant: &mut Tenant, id: &str, key: &str, now: Timestamp) -> Reply {
    tenant.writes.delete_calls += 1;
    let Some(node) = own_node(tenant, id) else {
        return message(404, "device not found");
    };
    let node = match manageable(tenant, node) {
        Ok(node) => node,
        Err((status, text)) => return message(status, &text),
    };
    match check_key(tenant, &tenant.keys, key) {
        Ok(()) => {
            tenant.write(&node, key, None, None, now);
            null_response()
        }
        Err((status, text)) => message(status, &text),
    }
}

/// The schema promises the attributes; the real body is `null` (tailscale/tailscale#18253).
fn null_response() -> Reply {
    Reply::json(200, &Value::Null)
}

/// Returns a node's id by either id. A shared-in node belongs to another tailnet. The documentation
/// does not say that this tailnet cannot write its attributes; that rule is inferred.
fn own_node(tenant: &Tenant, id: &str) -> Option<String> {
    tenant
        .device(id)
        .filter(|device| !device.is_external)
        .map(|device| device.node_id.clone())
}

/// Returns the node unless no client may manage it.
fn manageable(tenant: &Tenant, node: String) -> Result<String, Rejection> {
    match tenant.device(&node) {
        Some(device) if device.is_unmanageable => Err((403, UNMANAGEABLE.to_owned())),
        _ => Ok(node),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    nodes: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    comment: Option<String>,
}

/// A node's validated entries: the new state of each key.
type Writes = Vec<(String, Option<Attribute>)>;

/// `PATCH /tailnet/{tailnet}/device-attributes`: JSON Merge Patch (RFC 7396).
pub(crate) fn batch(tenant: &mut Tenant, call: &Call, now: Timestamp) -> Reply {
    tenant.writes.patch_calls += 1;
    let Batch { nodes, comment } = match decode::<Batch>(&call.body) {
        Ok(batch) => batch,
        Err((status, text)) => return message(status, &text),
    };
    tenant.writes.patch_nodes += u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    if let Err((status, text)) = check_comment(comment.as_deref()) {
        return message(status, &text);
    }
    if tenant
        .config
        .switches
        .most_batch_nodes
        .is_some_and(|max| nodes.len() > max)
    {
        return message(400, "too many nodes in request");
    }

    // new keys within this batch must agree with each other too
    let mut keys = tenant.keys.clone();
    let mut accepted: Vec<(String, Writes)> = Vec::new();
    let mut rejection = None;
    for (id, entries) in &nodes {
        match check_node(tenant, &mut keys, id, entries, now) {
            Ok(writes) => accepted.extend(writes),
            Err(reason) => {
                rejection.get_or_insert(reason);
            }
        }
    }
    if rejection.is_some() && tenant.config.switches.all_or_nothing {
        accepted.clear();
    }
    for (node, writes) in accepted {
        for (key, attribute) in writes {
            tenant.write(&node, &key, attribute, comment.as_deref(), now);
        }
    }
    rejection.map_or_else(null_response, |(status, text)| message(status, &text))
}

/// `None`: the batch ignores the node.
fn check_node(
    tenant: &Tenant,
    keys: &mut Keys,
    id: &str,
    entries: &BTreeMap<String, Value>,
    now: Timestamp,
) -> Result<Option<(String, Writes)>, Rejection> {
    let Some(node) = own_node(tenant, id) else {
        let text = format!("node not found: {id}");
        return match tenant.config.switches.unknown_node {
            UnknownNode::BadRequest => Err((400, text)),
            UnknownNode::NotFound => Err((404, text)),
            UnknownNode::Ignored => Ok(None),
        };
    };
    let node = manageable(tenant, node)?;
    let mut writes = Writes::new();
    let mut seen = BTreeSet::new();
    for (key, entry) in entries {
        check_key(tenant, keys, key)?;
        if !seen.insert(key.to_lowercase()) {
            return reject(format!("attribute key {key} is not unique"));
        }
        let present = tenant.attributes.get(&node).and_then(|set| set.get(key));
        let attribute = if entry.is_null() {
            None
        } else {
            Some(merge(tenant, keys, key, entry, present, now)?)
        };
        if let Some(attribute) = attribute.as_ref().filter(|_| present.is_none()) {
            keys.acquire(key, &attribute.value);
        }
        writes.push((key.clone(), attribute));
    }
    Ok(Some((node, writes)))
}

/// Merges `{"value", "expiry"?}` into the present attribute. A bare value is rejected.
fn merge(
    tenant: &Tenant,
    keys: &Keys,
    key: &str,
    entry: &Value,
    present: Option<&Attribute>,
    now: Timestamp,
) -> Result<Attribute, Rejection> {
    let Some(fields) = entry.as_object() else {
        return reject(format!("{key}: expected an object with a value, or null"));
    };
    if let Some(unknown) = fields
        .keys()
        .find(|name| !matches!(name.as_str(), "value" | "expiry"))
    {
        return reject(format!("json: unknown field {unknown:?}"));
    }
    let Some(value) = fields.get("value").cloned() else {
        return reject(format!("{key}: value is required"));
    };
    check_value(keys, key, &value)?;
    let expiry = match (fields.get("expiry"), tenant.config.switches.omitted_expiry) {
        (None, OmittedExpiry::Kept) => present.and_then(|present| present.expiry),
        (None, OmittedExpiry::Cleared) | (Some(Value::Null), _) => None,
        (Some(Value::String(expiry)), _) => Some(check_expiry(expiry, now)?),
        (Some(_), _) => return reject(format!("{key}: expiry must be a string")),
    };
    Ok(Attribute { value, expiry })
}

fn decode<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Rejection> {
    if body.is_empty() {
        return reject("unexpected end of JSON input");
    }
    serde_json::from_slice(body).map_err(|error| (400, format!("invalid request body: {error}")))
}

fn check_comment(comment: Option<&str>) -> Result<(), Rejection> {
    if comment.is_some_and(|comment| comment.chars().count() > 200) {
        reject("comment must be at most 200 characters")
    } else {
        Ok(())
    }
}

fn check_expiry(expiry: &str, now: Timestamp) -> Result<Timestamp, Rejection> {
    match expiry.parse::<Timestamp>() {
        Err(_) => reject("expiry must be an RFC 3339 time"),
        Ok(expiry) if expiry <= now => reject("expiry must be in the future"),
        Ok(expiry) => Ok(expiry),
    }
}

/// Checks length, characters, namespace and uniqueness. The status and message for a wrong
/// namespace are not documented.
fn check_key(tenant: &Tenant, keys: &Keys, key: &str) -> Result<(), Rejection> {
    if key.len() > 128 {
        return reject("attribute key must be at most 128 characters");
    }
    if !key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
    {
        return reject(format!(
            "attribute key {key:?} can only contain letters, numbers, underscores, and colon"
        ));
    }
    let namespace = key
        .split_once(':')
        .filter(|(_, name)| !name.is_empty())
        .map(|(namespace, _)| namespace);
    if !namespace.is_some_and(|namespace| {
        tenant
            .config
            .switches
            .writable_namespaces
            .contains(namespace)
    }) {
        return reject(format!(
            "attribute key {key:?} must be in the custom namespace"
        ));
    }
    match keys.conflicting_spelling(key) {
        Some(other) => reject(format!(
            "attribute key {key:?} conflicts with {other:?}: keys are unique without regard to case"
        )),
        None => Ok(()),
    }
}

fn check_value(keys: &Keys, key: &str, value: &Value) -> Result<(), Rejection> {
    let Some(kind) = Kind::of(value) else {
        return reject(format!(
            "{key}: value must be a string, a number or a boolean"
        ));
    };
    if keys.kind(key).is_some_and(|known| known != kind) {
        return reject(format!(
            "{key}: all values of a key must have the same type"
        ));
    }
    match kind {
        Kind::Flag => Ok(()),
        Kind::Number
            if value
                .as_i64()
                .is_some_and(|number| (-MAX_INTEGER..=MAX_INTEGER).contains(&number)) =>
        {
            Ok(())
        }
        Kind::Number => reject(format!(
            "{key}: a number must be an integer of at most 2^53 - 1"
        )),
        Kind::Text => {
            let text = value.as_str().unwrap_or_default();
            let legal = text.chars().count() <= 50
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
            if legal {
                Ok(())
            } else {
                reject(format!(
                    "{key}: a string has at most 50 letters, numbers, underscores, and periods"
                ))
            }
        }
    }
}
