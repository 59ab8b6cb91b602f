//! Hostile or corrupt servers, hosts, devices and tables.

mod bombs;
mod names;
mod redirects;
mod tables;

use serde_json::Value;

use crate::process::Process;

/// Maximum length of a text: a serial of 255 characters, each written as an escape of ten characters.
const TEXT_CHARS: usize = 3_000;

/// Asserts that all texts of an answer, a record or a log line are single lines of bounded length without control
/// characters.
#[track_caller]
pub(crate) fn assert_fit(value: &Value) {
    match value {
        Value::String(text) => assert_text_fit(text),
        Value::Array(list) => list.iter().for_each(assert_fit),
        Value::Object(fields) => {
            for (name, value) in fields {
                assert_text_fit(name);
                assert_fit(value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[track_caller]
fn assert_text_fit(text: &str) {
    let odd =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.contains(odd), "{text:?}");
    assert!(text.chars().count() <= TEXT_CHARS, "{text:?}");
}

/// Asserts that each log line is one JSON object whose texts are bounded and printable.
#[track_caller]
fn assert_log_fit(printed: &str) {
    assert!(printed.contains("corp"), "it prints");
    for line in printed.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(line.is_object(), "{line}");
        assert_fit(&line);
    }
}

/// Peak of a process's resident memory, in bytes.
fn peak_memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}
