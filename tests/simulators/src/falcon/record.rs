//! Host records: the fields that a test sets, and the rest derived from these.

use serde_json::{Value, json};

use super::model::Host;

/// The fields of a whole record, without those of `extra`.
const FIELDS: [&str; 31] = [
    "device_id",
    "cid",
    "agent_version",
    "bios_manufacturer",
    "chassis_type",
    "chassis_type_desc",
    "connection_ip",
    "connection_mac_address",
    "deployment_type",
    "device_policies",
    "external_ip",
    "filesystem_containment_status",
    "first_seen",
    "groups",
    "host_hidden_status",
    "hostname",
    "last_seen",
    "local_ip",
    "mac_address",
    "modified_timestamp",
    "os_version",
    "platform_id",
    "platform_name",
    "product_type_desc",
    "provision_status",
    "reduced_functionality_mode",
    "serial_number",
    "status",
    "system_manufacturer",
    "system_product_name",
    "tags",
];

/// The installation of a sensor whose time the test leaves open.
const FIRST_SEEN: &str = "2023-05-22T17:00:01Z";

/// Returns a record: whole, or with the named fields only.
pub(crate) fn record(host: &Host, cid: &str, fields: Option<&[String]>) -> Value {
    let pick = |name: &str| field(host, cid, name).map(|value| (name.to_owned(), value));
    Value::Object(match fields {
        Some(fields) => fields.iter().filter_map(|name| pick(name)).collect(),
        None => FIELDS
            .iter()
            .copied()
            .chain(host.extra.keys().map(String::as_str))
            .filter_map(pick)
            .collect(),
    })
}

/// Returns a field, or `None` if it is unknown: a record omits unknown fields instead of showing
/// null.
pub(crate) fn field(host: &Host, cid: &str, name: &str) -> Option<Value> {
    if let Some(value) = host.extra.get(name) {
        return Some(value.clone());
    }
    let known = |value: &Option<String>| value.as_ref().map(|value| json!(value));
    let mac = host.platform_name.as_deref() == Some("Mac");
    let octet = |from: usize| {
        host.device_id
            .get(from..from + 2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .unwrap_or(7)
    };
    let mac_address = || {
        format!(
            "14-7d-da-{:02x}-{:02x}-{:02x}",
            octet(0),
            octet(2),
            octet(4)
        )
    };
    match name {
        "device_id" => Some(json!(host.device_id)),
        "cid" => Some(json!(cid)),
        "serial_number" => known(&host.serial_number),
        "hostname" => known(&host.hostname),
        "last_seen" | "modified_timestamp" => known(&host.last_seen),
        "first_seen" => Some(json!(host.first_seen.as_deref().unwrap_or(FIRST_SEEN))),
        "platform_name" => known(&host.platform_name),
        "product_type_desc" => known(&host.product_type_desc),
        "platform_id" => Some(json!(if mac { "1" } else { "0" })),
        "os_version" => Some(json!(if mac { "Sequoia (15)" } else { "Windows 11" })),
        "system_manufacturer" | "bios_manufacturer" => {
            Some(json!(if mac { "Apple Inc." } else { "Dell Inc." }))
        }
        "system_product_name" => Some(json!(if mac {
            "MacBookPro18,3"
        } else {
            "Latitude 7440"
        })),
        "chassis_type" => Some(json!("9")),
        "chassis_type_desc" => Some(json!("Laptop")),
        "mac_address" | "connection_mac_address" => Some(json!(mac_address())),
        "local_ip" | "connection_ip" => {
            Some(json!(format!("10.{}.{}.{}", octet(0), octet(2), octet(4))))
        }
        "external_ip" => Some(json!(format!("203.0.113.{}", octet(0)))),
        "agent_version" => Some(json!("7.29.20008.0")),
        "deployment_type" => Some(json!("Standard")),
        "status" => Some(json!(host.status.as_deref().unwrap_or("normal"))),
        "filesystem_containment_status" => Some(json!("normal")),
        "host_hidden_status" => Some(json!("visible")),
        "provision_status" => Some(json!("Provisioned")),
        "reduced_functionality_mode" => Some(json!("no")),
        "groups" | "tags" => Some(json!([])),
        "device_policies" => Some(json!({
            "prevention": policy("prevention"), "sensor_update": policy("sensor-update"), "device_control": policy("device-control"),
            "global_config": policy("globalconfig"), "remote_response": policy("remote-response"), "firewall": policy("firewall"),
        })),
        _ => None,
    }
}

/// These policies are most of a real record's 3.7 kB.
fn policy(kind: &str) -> Value {
    json!({
        "policy_type": kind, "policy_id": "7b0a1e2f9c4d4f0d8f2a6f1b7a9c3d5e", "applied": true,
        "settings_hash": "b9a5e8c1", "assigned_date": "2023-05-22T17:05:12.301Z", "applied_date": "2023-05-22T17:06:40.114Z", "rule_groups": [],
    })
}
