//! Device records.

use serde_json::{Map, Value, json};

use super::model::Device;
use super::routes::message;
use super::state::Tenant;
use crate::reply::Reply;

/// Fields that `fields=default` omits (the schema lists those it includes).
const ONLY_WITH_ALL: [&str; 6] = [
    "advertisedRoutes",
    "enabledRoutes",
    "clientConnectivity",
    "postureIdentity",
    "sshEnabled",
    "distro",
];

/// `GET /tailnet/{tailnet}/devices`: all devices in one response; the API does not page.
pub(crate) fn list(tenant: &mut Tenant, query: &[(String, String)]) -> Reply {
    let all = match fields(query) {
        Ok(all) => all,
        Err(refusal) => return refusal,
    };
    let filters: Vec<_> = query.iter().filter(|(name, _)| name != "fields").collect();
    if filters.is_empty() {
        let index = usize::from(all);
        if let Some(Some(body)) = tenant.lists.get(index) {
            return Reply::typed(200, "application/json", body.clone());
        }
        let body = axum::body::Bytes::from(body(
            tenant
                .devices
                .values()
                .filter(|device| !device.is_unlisted)
                .map(|device| record(device, all, tenant.config.identity_collection)),
        ));
        if let Some(kept) = tenant.lists.get_mut(index) {
            *kept = Some(body.clone());
        }
        return Reply::typed(200, "application/json", body);
    }
    if let Some((name, _)) = filters
        .iter()
        .find(|(name, _)| !FILTERABLE.contains(&name.as_str()))
    {
        return message(400, &format!("unsupported filter: {name}"));
    }
    let records = tenant
        .devices
        .values()
        .map(|device| record(device, true, tenant.config.identity_collection));
    let selected = records.filter(|record| {
        filters
            .iter()
            .all(|(name, value)| selects(record.get(name), value))
    });
    let shown = selected.map(|record| if all { record } else { without_details(record) });
    Reply::typed(200, "application/json", body(shown))
}

/// Top-level fields of simple or list type.
const FILTERABLE: [&str; 20] = [
    "addresses",
    "authorized",
    "blocksIncomingConnections",
    "clientVersion",
    "connectedToControl",
    "created",
    "enabledRoutes",
    "expires",
    "hostname",
    "id",
    "isEphemeral",
    "isExternal",
    "keyExpiryDisabled",
    "lastSeen",
    "name",
    "nodeId",
    "os",
    "tags",
    "updateAvailable",
    "user",
];

fn selects(actual: Option<&Value>, wanted: &str) -> bool {
    let equals = |value: &Value| match value {
        Value::String(text) => text == wanted,
        Value::Bool(flag) => (if *flag { "true" } else { "false" }) == wanted,
        _ => false,
    };
    match actual {
        Some(Value::Array(values)) => values.iter().any(equals),
        Some(value) => equals(value),
        None => false,
    }
}

/// The message about a device that the caller's credential may not manage, such as one with other tags.
pub(crate) const UNMANAGEABLE: &str = "no manageable device matching this ID found";

/// Returns the response to a call about such a device.
pub(crate) fn unmanageable() -> Reply {
    message(403, UNMANAGEABLE)
}

/// `GET /device/{id}`.
pub(crate) fn one(tenant: &Tenant, id: &str, query: &[(String, String)]) -> Reply {
    match fields(query) {
        Err(refusal) => refusal,
        Ok(all) => match tenant.device(id) {
            None => message(404, "device not found"),
            Some(device) if device.is_unmanageable => unmanageable(),
            Some(device) => {
                Reply::json(200, &record(device, all, tenant.config.identity_collection))
            }
        },
    }
}

/// Returns whether the query has `fields=all`.
fn fields(query: &[(String, String)]) -> Result<bool, Reply> {
    match query
        .iter()
        .find(|(name, _)| name == "fields")
        .map(|(_, value)| value.as_str())
    {
        Some("all") => Ok(true),
        Some("default" | "") | None => Ok(false),
        Some(other) => Err(message(400, &format!("invalid fields: {other}"))),
    }
}

fn body(records: impl Iterator<Item = Value>) -> String {
    let mut body = String::from(r#"{"devices":["#);
    for (index, record) in records.enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&record.to_string());
    }
    body.push_str("]}");
    body
}

/// Returns a record of about 1.8 kB with all fields, as measured of real tailnets.
fn record(device: &Device, all: bool, identity_collection: bool) -> Value {
    let number: u64 = device.id.parse().unwrap_or(7);
    let octet = |shift: u32| (number >> shift) & 0xff;
    let key = format!("{number:064x}");
    // another tailnet's private fields are empty
    let own = |text: &str| {
        if device.is_external {
            String::new()
        } else {
            text.to_owned()
        }
    };
    let latency = |base: u64| json!({"latencyMs": 10 + (number + base) % 170});
    let mut record = json!({
        "addresses": [format!("100.{}.{}.{}", 64 + octet(16) % 64, octet(8), octet(0)), format!("fd7a:115c:a1e0::{:x}:{:x}", number >> 16 & 0xffff, number & 0xffff)],
        "id": device.id,
        "nodeId": device.node_id,
        "user": device.user,
        "name": device.name,
        "hostname": device.hostname,
        "clientVersion": own("1.90.6-t2d1f7b8c1-g8e6a1c2f3"),
        "updateAvailable": false,
        "os": device.os,
        "created": own(&device.created),
        "connectedToControl": device.connected_to_control,
        "keyExpiryDisabled": false,
        "expires": own("2026-12-01T09:00:00Z"),
        "authorized": true,
        "isExternal": device.is_external,
        "machineKey": own(&format!("mkey:{key}")),
        "nodeKey": format!("nodekey:{key}"),
        "blocksIncomingConnections": false,
        "tailnetLockKey": own(&format!("nlpub:{key}")),
        "tailnetLockError": "",
        "isEphemeral": device.is_ephemeral,
        "sshEnabled": false,
        "enabledRoutes": [],
        "advertisedRoutes": [],
        "clientConnectivity": {
            "endpoints": [format!("203.0.113.{}:41641", octet(0)), format!("192.168.{}.{}:41641", octet(8), octet(0)), format!("10.{}.{}.7:41641", octet(16), octet(0))],
            "mappingVariesByDestIP": false,
            "latency": {
                "Amsterdam": latency(3), "Frankfurt": {"preferred": true, "latencyMs": 9}, "London": latency(41), "New York City": latency(97),
                "Paris": latency(13), "San Francisco": latency(151), "Singapore": latency(166), "Tokyo": latency(169), "Warsaw": latency(24),
            },
            "clientSupports": {"hairPinning": null, "ipv6": true, "pcp": false, "pmp": false, "udp": true, "upnp": false},
        },
    });
    if let Some(fields) = record.as_object_mut() {
        complete(fields, device, identity_collection);
    }
    if all { record } else { without_details(record) }
}

/// Adds the fields that not every record has.
fn complete(fields: &mut Map<String, Value>, device: &Device, identity_collection: bool) {
    let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(seen) = device
        .last_seen
        .as_ref()
        .filter(|_| !device.connected_to_control)
    {
        add("lastSeen", json!(seen));
    }
    if !device.tags.is_empty() {
        add("tags", json!(device.tags));
    }
    if device.multiple_connections {
        add("multipleConnections", json!(true));
    }
    if device.os == "linux" {
        add(
            "distro",
            json!({"name": "ubuntu", "version": "24.04", "codeName": "noble"}),
        );
    }
    if let Some(identity) = device
        .posture_identity
        .as_ref()
        .filter(|_| identity_collection)
    {
        add("postureIdentity", json!(identity));
    }
    for (name, value) in &device.extra {
        add(name, value.clone());
    }
}

fn without_details(mut record: Value) -> Value {
    if let Some(fields) = record.as_object_mut() {
        for name in ONLY_WITH_ALL {
            fields.remove(name);
        }
    }
    record
}
