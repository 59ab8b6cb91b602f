//! From a request to its endpoint.

use jiff::Timestamp;
use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::{Value, json};

use super::access::{self, INVALID, NOT_PERMITTED};
use super::model::BatchEndpoint;
use super::state::{State, Tenant};
use super::{attributes, devices};
use crate::reply::{Call, Reply};

/// `{"message": …}`: every error of the API.
pub(crate) fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({"message": text}))
}

/// The plain text that a router returns before the API is reached.
fn plain(status: u16) -> Reply {
    let text = if status == 405 {
        "Method Not Allowed\n"
    } else {
        "404 page not found\n"
    };
    Reply::typed(status, "text/plain; charset=utf-8", text)
}

pub(crate) fn answer(state: &mut State, call: &Call, now: Timestamp) -> Reply {
    let segments = call.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["api", "v2", rest @ ..] = segments.as_slice() else {
        return plain(404);
    };
    let method = call.seen.method.as_str();
    match rest {
        ["oauth", "token"] if method == "POST" => return access::token(state, call, now),
        ["oauth", "token-exchange"] if method == "POST" => {
            return access::exchange(state, call, now);
        }
        ["oauth", "token" | "token-exchange"] => return plain(405),
        _ => {}
    }

    let Some(caller) = access::caller(state, call, now) else {
        return message(401, INVALID);
    };
    let Some(tenant) = state.tailnets.get_mut(&caller.tailnet) else {
        return message(401, INVALID);
    };
    tenant.expire(now);
    if let ["tailnet", name, ..] = rest
        && *name != "-"
        && *name != tenant.config.name
    {
        return message(404, "tailnet not found");
    }
    let (scope, answer): (&str, Answer<'_>) = match (method, rest) {
        (_, ["tailnet", _, "device-attributes"])
            if tenant.config.switches.batch == BatchEndpoint::NotFound =>
        {
            return plain(404);
        }
        (_, ["tailnet", _, "device-attributes"])
            if tenant.config.switches.batch == BatchEndpoint::MethodNotAllowed =>
        {
            return plain(405);
        }
        ("PATCH", ["tailnet", _, "device-attributes"]) => (
            "devices:posture_attributes",
            Box::new(|tenant| attributes::batch(tenant, call, now)),
        ),
        ("GET", ["tailnet", _, "devices"]) => (
            "devices:core:read",
            Box::new(|tenant| devices::list(tenant, &call.query())),
        ),
        ("GET", ["device", id]) => (
            "devices:core:read",
            Box::new(|tenant| devices::one(tenant, id, &call.query())),
        ),
        ("GET", ["device", id, "attributes"]) => (
            "devices:posture_attributes:read",
            Box::new(|tenant| attributes::read(tenant, id)),
        ),
        ("POST", ["device", id, "attributes", key]) => (
            "devices:posture_attributes",
            Box::new(|tenant| attributes::set(tenant, id, key, call, now)),
        ),
        ("DELETE", ["device", id, "attributes", key]) => (
            "devices:posture_attributes",
            Box::new(|tenant| attributes::delete(tenant, id, key, now)),
        ),
        ("GET", ["tailnet", _, "settings"]) => {
            ("feature_settings:read", Box::new(|tenant| settings(tenant)))
        }
        ("GET", ["tailnet", _, "posture", "integrations"]) => (
            "feature_settings:read",
            Box::new(|tenant| {
                Reply::json(200, &json!({"integrations": tenant.config.integrations}))
            }),
        ),
        ("GET", ["posture", "integrations", id]) => (
            "feature_settings:read",
            Box::new(|tenant| integration(tenant, id)),
        ),
        ("GET", ["tailnet", _, "acl"]) => {
            ("policy_file:read", Box::new(|tenant| policy(tenant, call)))
        }
        (
            _,
            [
                "tailnet",
                _,
                "device-attributes" | "devices" | "settings" | "acl",
            ]
            | ["tailnet", _, "posture", "integrations"]
            | ["posture", "integrations", _]
            | ["device", _]
            | ["device", _, "attributes"]
            | ["device", _, "attributes", _],
        ) => return plain(405),
        _ => return plain(404),
    };
    if !caller.has_scope(scope) {
        return message(403, NOT_PERMITTED);
    }
    answer(tenant)
}

type Answer<'a> = Box<dyn FnOnce(&mut Tenant) -> Reply + 'a>;

fn settings(tenant: &Tenant) -> Reply {
    Reply::json(
        200,
        &json!({
            "aclsExternallyManagedOn": false,
            "aclsExternalLink": "",
            "devicesApprovalOn": false,
            "devicesAutoUpdatesOn": true,
            "devicesKeyDurationDays": 180,
            "usersApprovalOn": true,
            "usersRoleAllowedToJoinExternalTailnets": "admin",
            "networkFlowLoggingOn": false,
            "regionalRoutingOn": false,
            "postureIdentityCollectionOn": tenant.config.identity_collection,
            "httpsEnabled": true,
        }),
    )
}

fn integration(tenant: &Tenant, id: &str) -> Reply {
    let found = tenant
        .config
        .integrations
        .iter()
        .find(|integration| integration.get("id").and_then(Value::as_str) == Some(id));
    found.map_or_else(
        || message(404, "posture integration not found"),
        |integration| Reply::json(200, integration),
    )
}

/// The policy file: as it is written, or as plain JSON to a client that asks for that. A text that is no policy file is
/// never converted.
fn policy(tenant: &Tenant, call: &Call) -> Reply {
    let text = &tenant.config.policy;
    if call
        .header("accept")
        .is_some_and(|kind| kind.contains("application/json"))
    {
        return parse_to_serde_value::<Value>(text, &HUJSON).map_or_else(
            |_| Reply::typed(200, "application/json", text.clone()),
            |policy| Reply::json(200, &policy),
        );
    }
    Reply::typed(200, "application/hujson", text.clone())
}

/// JSON with comments and trailing commas, and with no other extension.
const HUJSON: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};
