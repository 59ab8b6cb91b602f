//! Servers, hosts, devices and tables that mean us harm, or are beyond repair.

mod bombs;
mod names;
mod redirects;
mod tables;

use serde_json::Value;

use crate::process::Process;

/// The longest text that may come out: a serial of 255 characters, each of which is written as an escape of ten.
const TEXT_CHARS: usize = 3_000;

/// That all texts in an answer, a record or a log line are of one line, bounded, and do nothing to what shows them.
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

/// That each line of the log is one object, fit like everything else.
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

/// The most memory that a process ever had, in bytes, as the system counts it.
fn peak_memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}
