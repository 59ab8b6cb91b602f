//! Hosts and devices with hostile names, ids, serials and scores, among honest ones.

use std::collections::{BTreeMap, BTreeSet};

use posture_simulators::{Device, GeneratorSpec, Host, Side};
use reqwest::Url;
use serde_json::{Value, json};

use super::{assert_fit, assert_log_fit, peak_memory};
use crate::environment::{TAILNET, TestEnvironment};
use crate::process::Process;
use crate::runs::finding;

const NAMES: [&str; 12] = [
    "\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}",
    "two\r\nlines",
    "\u{0}nothing",
    "\u{85}next\u{9b}31mline\u{7f}",
    "\u{202e}gpj.exe\u{202c}",
    "\u{2066}isolated\u{2069}\u{2067}",
    "<script>alert(1)</script>",
    "${jndi:ldap://127.0.0.1:9/x}",
    "{\"outcome\":\"synced\"}\n{\"level\":\"ERROR\"}",
    "%n%s%x'; DROP TABLE nodes; --",
    "",
    "=cmd|' /C calc'!A0",
];

/// Odd serials of both sides, and whether they match.
const SERIALS: [(&str, bool); 14] = [
    ("A'+platform_name:'x", true),
    ("A7C','B9D", true),
    ("*A7C*", true),
    ("A'],device_id:['", true),
    ("[\"A7C9\"]", true),
    ("{\"$ne\":1}", true),
    ("../../oauth2/token?x=1#y", true),
    ("a&limit=1&offset=2", true),
    ("a%27b%00", true),
    ("back\\slash\\", true),
    ("SN\u{0}1", false),
    ("SN\n1", false),
    ("SN\u{202e}1", false),
    ("SN\u{200b}1", false),
];

const SENSORS: [(&str, bool); 6] = [
    ("../../devices/entities", true),
    ("a/b?c=d#e", true),
    ("a','b", true),
    ("", false),
    ("with space", false),
    ("with\nline", false),
];

const NODES: [&str; 5] = ["../keys", "a/b", "n?fields=default", "n#x", "n%2e%2e"];

/// The hostile hosts and devices, with the expected score of each device.
struct HostileEntries<'a> {
    env: &'a TestEnvironment,
    seen: String,
    next: usize,
    expected: BTreeMap<String, i64>,
    sensors: BTreeSet<String>,
}

/// A host and a device with the same serial.
struct Pair {
    host: Host,
    device: Device,
    score: Value,
}

impl<'a> HostileEntries<'a> {
    fn among(env: &'a TestEnvironment) -> Self {
        Self {
            env,
            seen: env.app.clock.now().to_string(),
            next: 0,
            expected: env.expected(),
            sensors: BTreeSet::new(),
        }
    }

    fn pair(&mut self) -> Pair {
        self.next += 1;
        let n = self.next;
        let serial = format!("HSTL{n:04}");
        Pair {
            host: Host::new(&format!("{n:032x}"), &serial, "host", &self.seen),
            device: Device::new(&format!("nHostile{n}CNTRL"), "device", [serial]),
            score: json!(n % 101),
        }
    }

    /// Adds the pair. If it is `matched`, the device is expected to get the score.
    fn admit(&mut self, pair: Pair, matched: bool) {
        let Pair {
            host,
            device,
            score,
        } = pair;
        let sims = &self.env.sims;
        let aid = host.device_id.clone();
        if matched {
            self.expected
                .insert(device.node_id.clone(), score.as_i64().unwrap());
        }
        sims.falcon().put_host("corp", host).unwrap();
        sims.falcon().set_score("corp", &aid, score).unwrap();
        sims.tailscale().put_device(TAILNET, device).unwrap();
        self.sensors.insert(aid);
    }

    fn admit_names(&mut self) {
        let long = "\u{1f4a9}".repeat(10 << 18);
        for name in NAMES.into_iter().chain([long.as_str()]) {
            let mut pair = self.pair();
            pair.host.hostname = Some(name.to_owned());
            name.clone_into(&mut pair.device.name);
            name.clone_into(&mut pair.device.hostname);
            self.admit(pair, true);
        }
    }

    fn admit_serials(&mut self) {
        let long = "LONG".repeat(10 << 18);
        for (serial, is_one) in SERIALS.into_iter().chain([(long.as_str(), false)]) {
            let mut pair = self.pair();
            pair.host.serial_number = Some(serial.to_owned());
            pair.device = Device::new(&pair.device.node_id, "device", [serial]);
            self.admit(pair, is_one);
        }
        let mut pair = self.pair();
        let first = pair.host.serial_number.clone().unwrap();
        let serials = std::iter::once(first).chain((0..100_000).map(|n| format!("MANY{n:06}")));
        pair.device = Device::new(&pair.device.node_id, "device", serials);
        self.admit(pair, true);
    }

    fn admit_ids(&mut self) {
        for (aid, is_one) in SENSORS {
            let mut pair = self.pair();
            aid.clone_into(&mut pair.host.device_id);
            self.admit(pair, is_one);
        }
        // An id that cannot be in a path gives way to the older id. Without an older id, the device is skipped.
        for node in NODES {
            let mut pair = self.pair();
            node.clone_into(&mut pair.device.node_id);
            self.admit(pair, true);
            let mut pair = self.pair();
            pair.device.node_id = format!("{node}/");
            "../../acl".clone_into(&mut pair.device.id);
            self.admit(pair, false);
        }
    }

    fn admit_values(&mut self) -> usize {
        let none = [
            json!(-1),
            json!(101),
            json!(55.5),
            json!(null),
            json!("70"),
            json!(true),
            json!([]),
            json!({"overall": 70}),
            json!("1e400"),
            json!(-0.5),
            json!(1e300),
            json!(u64::MAX),
            json!("9".repeat(100_000)),
        ];
        let count = none.len();
        for score in none {
            let pair = self.pair();
            self.admit(Pair { score, ..pair }, false);
        }
        for (seen, is_recent) in [
            ("9999-12-30T00:00:00Z", true),
            // Beyond the last time that can be told from none.
            ("9999-12-31T23:59:59Z", false),
            ("-009999-01-01T00:00:00Z", false),
            ("yesterday\n", false),
            ("", false),
        ] {
            let mut pair = self.pair();
            pair.host.last_seen = Some(seen.to_owned());
            self.admit(pair, is_recent);
        }
        for (flag, is_ours) in [
            (json!("false"), true),
            (json!(0), true),
            (json!([true]), true),
            (json!(true), false),
        ] {
            let mut pair = self.pair();
            pair.device.extra.insert("isExternal".to_owned(), flag);
            self.admit(pair, is_ours);
        }
        count
    }
}

/// Returns all serials that devices report, in each form that is looked up.
fn reported(env: &TestEnvironment) -> BTreeSet<String> {
    let devices = env.sims.tailscale().devices(TAILNET).unwrap();
    let texts = devices
        .iter()
        .flat_map(Device::serials)
        .map(|text| text.trim().to_owned());
    let forms = |text: String| {
        [
            text.to_uppercase(),
            text.to_uppercase().to_lowercase(),
            text,
        ]
    };
    texts.flat_map(forms).collect()
}

/// Returns the values of a filter, which must be a list of texts of one field.
fn listed(filter: &str) -> Vec<&str> {
    let (_, list) = filter
        .split_once(":['")
        .filter(|(field, _)| ["serial_number", "device_id"].contains(field))
        .unwrap_or_else(|| panic!("{filter}"));
    let list = list
        .strip_suffix("']")
        .unwrap_or_else(|| panic!("{filter}"));
    let values: Vec<&str> = list.split("','").collect();
    assert!(
        values
            .iter()
            .all(|value| !value.contains(['\'', '\\', '*', '[', ']', '"'])),
        "{filter}"
    );
    values
}

/// Checks that a run sent only its usual requests. Returns the number of serials that were looked up.
fn assert_asked_properly(env: &TestEnvironment, serials: &BTreeSet<String>) -> usize {
    let mut looked_up = 0;
    for request in env.sims.requests().entries() {
        let url: Url = format!("http://sim{}?{}", request.path, request.query)
            .parse()
            .unwrap();
        let known = match request.side {
            Side::Falcon => [
                "/oauth2/token",
                "/devices/combined/devices/v1",
                "/zero-trust-assessment/queries/assessments/v1",
                "/zero-trust-assessment/entities/assessments/v1",
            ]
            .contains(&request.path.as_str()),
            Side::Tailscale => match request.path.strip_prefix("/api/v2/device/") {
                Some(id) => id.bytes().all(|b| b.is_ascii_alphanumeric()),
                None => [
                    "/api/v2/oauth/token",
                    "/api/v2/tailnet/-/devices",
                    "/api/v2/tailnet/-/device-attributes",
                    "/api/v2/tailnet/-/posture/integrations",
                ]
                .contains(&request.path.as_str()),
            },
        };
        assert!(known && url.path() == request.path, "{request:?}");
        for (name, value) in url.query_pairs() {
            match &*name {
                "fields" | "limit" | "offset" | "after" => {}
                "filter" if value == "score:>=0" => {}
                "filter" if value.starts_with("serial_number") => {
                    let values = listed(&value);
                    assert!(
                        values.iter().all(|serial| serials.contains(*serial)),
                        "{value}"
                    );
                    looked_up += values.len();
                }
                "filter" => assert!(listed(&value).iter().all(|aid| is_sensor(aid)), "{value}"),
                "ids" => assert!(is_sensor(&value), "{value}"),
                other => panic!("{other} in {request:?}"),
            }
        }
    }
    looked_up
}

fn is_sensor(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Checks that each change is recorded; under the older id if the node id is unusable.
async fn assert_recorded(env: &TestEnvironment) {
    let changes = env.sims.tailscale().changes(TAILNET).unwrap();
    assert_eq!(env.node_audit().await.len(), changes.len());
    assert_eq!(env.items("nodes").await.len(), env.scores().len());
}

/// Checks the responses of all commands that show stored values.
async fn assert_told_fit(process: &Process) {
    for (id, payload) in [
        ("status", json!({"command": "status"})),
        ("one", json!({"command": "status", "integration": "corp"})),
        (
            "audit",
            json!({"command": "audit", "integration": "corp", "limit": 1000}),
        ),
        (
            "export",
            json!({"command": "audit", "integration": "corp", "limit": 1000, "format": "tailscale"}),
        ),
        (
            "explain",
            json!({"command": "explain", "integration": "corp", "device": "device"}),
        ),
        (
            "dry",
            json!({"command": "sync", "integration": "corp", "dryRun": true, "force": true}),
        ),
    ] {
        assert_fit(&process.ask(id, &payload).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hostile_get_no_more_than_they_deserve_and_the_honest_no_less() {
    let env = TestEnvironment::live(GeneratorSpec::plain(60, 40)).await;
    let mut hostile = HostileEntries::among(&env);
    assert_eq!(hostile.expected.len(), 40);
    hostile.admit_names();
    hostile.admit_serials();
    hostile.admit_ids();
    let scoreless = hostile.admit_values();
    let HostileEntries {
        expected, sensors, ..
    } = hostile;
    let serials = reported(&env);
    env.update(json!({"maxHostAgeDays": 60})).await;
    env.requests();

    let process = Process::start(&env, &[]).await;
    let answer = process.ask("first", &json!({"command": "sync"})).await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), expected);
    assert_eq!(finding(&answer, "invalidScores")["count"], scoreless);
    assert_eq!(finding(&answer, "placeholderSerials")["count"], 5);
    assert_fit(&answer);
    assert_recorded(&env).await;
    assert_told_fit(&process).await;

    // When the hosts leave, their serials are looked up once more.
    for aid in &sensors {
        env.sims.falcon().remove_host("corp", aid).unwrap();
        env.sims.falcon().remove_score("corp", aid).unwrap();
    }
    let wish = json!({"command": "sync", "integration": "corp", "allowMassRemoval": 1000});
    let answer = process.ask("second", &wish).await;
    assert_eq!(answer["outcome"], "synced", "{answer:#}");
    assert_eq!(env.scores(), env.expected());
    assert_eq!(env.scores().len(), 40);
    assert_fit(&answer);
    assert!(
        assert_asked_properly(&env, &serials) > 30,
        "they are looked for"
    );
    assert_recorded(&env).await;
    assert_told_fit(&process).await;

    for table in ["integrations", "nodes", "audit"] {
        env.items(table).await.iter().for_each(assert_fit);
    }
    let check = json!({"command": "check", "integration": "corp"});
    assert_fit(&process.ask("check", &check).await);
    let peak = peak_memory(&process);
    assert!(peak < 256 << 20, "{peak} bytes");
    assert_log_fit(&process.end());
}
