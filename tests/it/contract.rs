//! Files outside the code that must agree with it: the payload files, the templates, the role's policy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use falcon_posture_sync::command::Command;
use falcon_posture_sync::sync::Trigger;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_payload_file_is_understood() {
    let mut kinds = BTreeSet::new();
    for file in files("events", "json") {
        let payload: Value = serde_json::from_str(&text(&file)).unwrap();
        let command =
            Command::parse(payload).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        kinds.insert(match command {
            Command::SyncAll => "sync all",
            Command::Sync(request) if request.trigger == Trigger::Automatic => "event",
            Command::Sync(_) => "sync one",
            Command::Connect { .. } => "connect",
            Command::Update { .. } => "update",
            Command::Remove { .. } => "remove",
            Command::Check { .. } => "check",
            Command::SecretChanged { .. } => "secret",
            Command::Audit { .. } => "audit",
            Command::Explain { .. } => "explain",
            Command::Preview { .. } => "preview",
            Command::Status { .. } => "status",
            Command::Widget(_) => "widget",
        });
    }
    assert_eq!(
        kinds,
        BTreeSet::from([
            "audit", "check", "connect", "event", "explain", "preview", "remove", "secret",
            "status", "sync all", "sync one", "update", "widget"
        ])
    );
}

/// The calls that the code makes, as the names of its SDK methods, and the action that each needs. A transaction needs
/// the actions of its items.
const ACTIONS: [(&str, &str); 11] = [
    (".get_item()", "dynamodb:GetItem"),
    (".update_item()", "dynamodb:UpdateItem"),
    (".scan()", "dynamodb:Scan"),
    (".query()", "dynamodb:Query"),
    (".delete_item()", "dynamodb:DeleteItem"),
    ("Put::builder()", "dynamodb:PutItem"),
    ("Update::builder()", "dynamodb:UpdateItem"),
    ("Delete::builder()", "dynamodb:DeleteItem"),
    (".get_secret_value()", "secretsmanager:GetSecretValue"),
    (".describe_secret()", "secretsmanager:DescribeSecret"),
    (".put_events()", "events:PutEvents"),
];

#[test]
fn the_roles_actions_are_the_calls_of_the_code() {
    let source: String = files("src", "rs").iter().map(text).collect();
    let called: BTreeSet<&str> = ACTIONS
        .iter()
        .filter(|(call, _)| source.contains(call))
        .map(|(_, action)| *action)
        .collect();
    let template = text("infra/state.yaml");
    let granted: BTreeSet<&str> = template
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == ':' || c == '*'))
        .filter(|word| {
            ["dynamodb:", "secretsmanager:", "events:"]
                .iter()
                .any(|service| {
                    word.strip_prefix(service).is_some_and(|a| {
                        a.starts_with(|c: char| c.is_ascii_uppercase() || c == '*')
                    })
                })
        })
        .collect();
    assert_eq!(granted, called);
    // No call of the SDK escapes the list above.
    for other in [
        ".put_item()",
        ".batch_write_item()",
        ".batch_get_item()",
        ".put_secret_value()",
        "ConditionCheck::builder()",
    ] {
        assert!(!source.contains(other), "{other} needs an action");
    }
}

/// The variables that `config.rs` reads are those that a deployment sets.
#[test]
fn the_deployment_sets_the_variables_that_the_code_reads() {
    let config = text("src/config.rs");
    let tests = config.find("#[cfg(test)]").unwrap();
    let read: BTreeSet<&str> = config[..tests]
        .split('"')
        .filter(|word| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
        // Lambda's own.
        .filter(|word| !word.starts_with("AWS_"))
        .collect();
    let makefile = text("Makefile") + &text("infra/state.yaml") + &text("Cargo.toml");
    for variable in &read {
        assert!(makefile.contains(variable), "{variable} is set nowhere");
    }
    let contract = BTreeSet::from([
        "AUDIT_RETENTION_DAYS",
        "AUDIT_TABLE",
        "CONSOLE_BUTTONS",
        "EVENT_BUS_NAME",
        "FALCON_CLOUDS_EXTRA",
        "INTEGRATIONS_TABLE",
        "NODES_TABLE",
        "SYNC_INTERVAL_MINUTES",
        "TAILSCALE_API_URL",
    ]);
    assert_eq!(read, contract);
}

/// The schedule and the rules send what the payload files hold.
#[test]
fn the_triggers_send_what_the_payload_files_hold() {
    let template = text("infra/triggers.yaml");
    let sync: Value = serde_json::from_str(&text("events/sync.json")).unwrap();
    assert!(
        template.contains(&sync.to_string()),
        "the schedule sends events/sync.json"
    );
    for file in [
        "events/integration-changed.json",
        "events/sync-requested.json",
    ] {
        let event: Value = serde_json::from_str(&text(file)).unwrap();
        for field in ["source", "detail-type"] {
            assert!(
                template.contains(event[field].as_str().unwrap()),
                "{file}: {field}"
            );
        }
    }
}
