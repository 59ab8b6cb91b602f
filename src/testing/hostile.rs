//! Hostile input for the unit tests: bytes, odd JSON, mutated documents.

use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

use crate::testing::server::answer;
use crate::upstream::error::{UpstreamError, UpstreamErrorKind};

/// A part of many generated texts. Errors are searched for it, because they must not repeat content.
pub(crate) const MARK: &str = "m4rk3d";

/// Maximum characters of an error.
const MAX_ERROR_CHARS: usize = 1_000;

/// Returns a configuration that stores failed cases next to the test's file, and tries them first.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(cases)
    }
}

/// Asserts that a text is one line of at most `max` characters, all of them printable.
#[track_caller]
pub(crate) fn assert_fit(text: &str, max: usize) {
    let is_odd =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.contains(is_odd), "{text:?}");
    assert!(
        text.chars().count() <= max,
        "{} characters: {text:?}",
        text.len()
    );
}

/// Asserts that an error can be logged. Only the message of an upstream may be quoted.
#[track_caller]
pub(crate) fn assert_error(error: &UpstreamError) {
    let text = crate::text::error_chain(error);
    assert_fit(&text, MAX_ERROR_CHARS);
    let quotes = matches!(
        error.kind,
        UpstreamErrorKind::Rejected { .. }
            | UpstreamErrorKind::Unavailable { .. }
            | UpstreamErrorKind::MissingScope { .. }
            | UpstreamErrorKind::Misconfigured { .. }
    ) || text.contains("a successful response with an error");
    assert!(quotes || !text.contains(MARK), "{text:?}");
}

/// Asserts that a message can be shown. It may quote its input.
#[track_caller]
pub(crate) fn assert_message(text: &str) {
    assert_fit(text, MAX_ERROR_CHARS);
}

/// Checks an error with [`assert_error`], and a value with `accepted`.
#[track_caller]
pub(crate) fn check<T>(result: Result<T, UpstreamError>, accepted: impl FnOnce(T)) {
    match result {
        Ok(value) => accepted(value),
        Err(error) => assert_error(&error),
    }
}

/// Generates texts in the place of names, ids, serials and messages.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        2 => "[a-zA-Z0-9 ._/-]{0,40}",
        4 => select(vec![
            "",
            " ",
            "\u{0}",
            "m4rk3d\r\nX: y",
            "m4rk3d\u{1b}[31m",
            "m4rk3d \u{202e}gnp.exe\u{2066}",
            "\u{feff}\u{200b}",
            "../../etc",
            "..",
            "a/b?c#d%2e",
            "A'+platform_name:'x",
            "*",
            "<script>alert(1)</script>",
            "{\"$ne\":1}",
            "ŉŉŉŉ",
            "1e400",
            "9999-12-31T23:59:59Z",
            "2026-01-01T00:00:00Z",
            "true",
        ]).prop_map(str::to_owned),
        1 => (text_unit(), 100..3_000_usize).prop_map(|(unit, times)| unit.repeat(times)),
    ]
}

fn text_unit() -> impl Strategy<Value = &'static str> {
    select(vec![
        "x",
        "m4rk3d ",
        "\u{1f4a9}",
        "\n",
        "a\u{300}",
        "\u{202e}",
    ])
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        (-2..103_i64).prop_map(|n| n.to_string()),
        select(vec![
            "-0",
            "0.0",
            "55.5",
            "1e2",
            "1e400",
            "-1e-999",
            "18446744073709551616",
            "00",
            "+1",
            "NaN"
        ])
        .prop_map(str::to_owned),
        (1..500_usize).prop_map(|digits| "9".repeat(digits)),
    ]
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Generates the text of a JSON value: nested, with duplicate keys, huge numbers, and sometimes invalid.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        2 => select(vec!["null", "true", "false", "\"\\ud800\"", "\"\\u0000\"", "nul", ""])
            .prop_map(str::to_owned),
        3 => number(),
        4 => text().prop_map(|text| quoted(&text)),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|list| format!("[{}]", list.join(","))),
            vec((key(), inner.clone()), 0..6).prop_map(|fields| {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", quoted(key)))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }),
            (inner, 1..200_usize).prop_map(|(inner, depth)| {
                format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth))
            }),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec![
            "meta", "pagination", "total", "after", "next", "resources", "errors", "code", "message", "device_id", "aid",
            "serial_number", "hostname", "last_seen", "score", "assessment", "overall", "access_token", "expires_in",
            "scope", "devices", "nodeId", "id", "name", "isExternal", "postureIdentity", "disabled", "serialNumbers",
            "attributes", "integrations", "provider", "postureIdentityCollectionOn", "command", "integration", "changes",
            "actor", "detail-type", "detail", "source", "clientId", "clientSecret", "apiKey", "maxRemovals", "percent",
        ])
        .prop_map(str::to_owned),
        // An error may name the key where decoding stopped, but never a value.
        1 => text().prop_map(|text| text.replace(MARK, "")),
    ]
}

/// Generates one of these documents with some values replaced and some bytes changed.
pub(crate) fn mutated(valid: Vec<Value>) -> impl Strategy<Value = Vec<u8>> {
    let replaced =
        (select(valid), vec((any::<Index>(), json()), 0..3)).prop_map(|(document, values)| {
            values
                .iter()
                .fold(document.to_string(), |text, (at, value)| {
                    replace(&text, *at, value)
                })
        });
    (replaced, vec(mutation(), 0..3)).prop_map(|(text, mutations)| {
        mutations
            .into_iter()
            .fold(text.into_bytes(), |bytes, mutation| mutation.apply(bytes))
    })
}

/// Generates any bytes, but mostly mutations of these documents.
pub(crate) fn bytes(valid: Vec<Value>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        2 => json().prop_map(String::into_bytes),
        6 => mutated(valid),
    ]
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

impl Mutation {
    fn apply(self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let position = |index: &Index| index.index(bytes.len());
        match &self {
            Self::Flip(at, bits) => {
                let at = position(at);
                bytes[at] ^= bits;
            }
            Self::Cut(at) => bytes.truncate(position(at)),
            Self::Insert(at, more) => {
                let at = position(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Repeat(from, to) => {
                let (from, to) = (position(from), position(to));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part);
            }
        }
        bytes
    }
}

/// Marks the value to replace.
const PLACEHOLDER: &str = "\u{1}the place\u{1}";

/// Replaces one value of a document, at any depth.
fn replace(document: &str, at: Index, value: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(document) else {
        return document.to_owned();
    };
    let mut remaining = at.index(count_values(&document));
    mark(&mut document, &mut remaining);
    document.to_string().replace(&quoted(PLACEHOLDER), value)
}

fn count_values(value: &Value) -> usize {
    1 + children(value).map(count_values).sum::<usize>()
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Puts the placeholder in the place of the value with this number. Returns whether it was in this value.
fn mark(value: &mut Value, remaining: &mut usize) -> bool {
    if *remaining == 0 {
        *value = Value::from(PLACEHOLDER);
        return true;
    }
    *remaining -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|value| mark(value, remaining)),
        Value::Object(fields) => fields.values_mut().any(|value| mark(value, remaining)),
        _ => false,
    }
}

/// A cycle of responses.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<(usize, Vec<Vec<u8>>)>>);

impl Script {
    pub(crate) fn load(&self, responses: Vec<Vec<u8>>) {
        *self.0.lock().unwrap() = (0, responses);
    }

    pub(crate) fn next(&self) -> Vec<u8> {
        let (number, responses) = &mut *self.0.lock().unwrap();
        *number += 1;
        responses[(*number - 1) % responses.len()].clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.lock().unwrap().0
    }
}

/// Generates one to three responses of these statuses, headers and bodies.
pub(crate) fn answers(
    status: impl Strategy<Value = u16>,
    header: impl Strategy<Value = String>,
    body: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (status, vec(header, 0..3), body).prop_map(|(status, headers, body)| {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        answer(status, &headers, body)
    });
    vec(one, 1..4)
}
