//! Renders an explanation as text: for each device its score, the reason, and the recorded changes.

use jiff::Timestamp;
use serde_json::Value;
use textwrap::{Options, WordSplitter};

use super::time_with_age;
use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{ExplainedHost, Explanation, ReportedSerial};
use crate::domain::plan::NodeRecord;
use crate::explain::{ExplainResponse, RecordedDevice};
use crate::text::sanitize;

/// Maximum characters of a line, except for longer words.
const LINE_CHARS: usize = 100;

/// The columns at which the values of a block start, and the details of a value.
const VALUE_COLUMN: usize = 13;
const DETAIL_COLUMN: usize = 17;

/// Maximum characters of a value: a hostile one could be longer.
const MAX_VALUE_CHARS: usize = 3_000;

/// Renders the response. Blank lines separate the devices.
pub(crate) fn explain(response: &ExplainResponse) -> String {
    let now = response.at;
    let mut messages = Lines::default();
    for message in response.error.iter().chain(&response.note) {
        messages.title(message);
    }
    let mut sections = vec![messages];
    for explanation in &response.explanations {
        sections.push(device(explanation, now));
    }
    let mut other_hosts = Lines::default();
    if !response.hosts.is_empty() {
        other_hosts.hosts(&response.hosts, response.hosts_omitted, now);
    }
    sections.push(other_hosts);
    for device in &response.recorded {
        sections.push(recorded_device(device, now));
    }
    let mut omitted = Lines::default();
    if response.omitted > 0 {
        omitted.title(&format!("{} more are left out.", response.omitted));
    }
    sections.push(omitted);
    let texts = sections.into_iter().map(|lines| lines.0);
    let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    texts.join("\n")
}

fn device(explanation: &Explanation, now: Timestamp) -> Lines {
    let Explanation {
        node_id,
        name,
        hostname,
        user,
        os,
        ..
    } = explanation;
    let mut lines = Lines::default();
    let came = match explanation.score {
        Some(score) => format!("score {score}"),
        None => "no score".to_owned(),
    };
    lines.title(&format!("{name}: {came}"));
    lines.block("because", &explanation.reason);
    if let Some(remedy) = &explanation.remedy {
        lines.block("to do", remedy);
    }
    lines.written(explanation.written.as_ref(), now);
    lines.block("next sync", &explanation.next);
    let node = format!("node {node_id}");
    let facts = [hostname, os, user, &node].into_iter().map(String::as_str);
    let facts: Vec<&str> = facts.filter(|fact| !fact.is_empty()).collect();
    lines.block("device", &facts.join(", "));
    let serials = explanation
        .serials
        .iter()
        .map(|serial| (reported(serial), None));
    lines.list(
        "serials",
        serials,
        explanation.serials_omitted,
        "none reported",
    );
    let has_serial = explanation.serials.iter().any(|one| one.serial.is_some());
    if explanation.hosts.is_empty() && !has_serial {
        lines.block("hosts", "none, without a serial number to find them by");
    } else {
        lines.hosts(&explanation.hosts, explanation.hosts_omitted, now);
    }
    lines.history(&explanation.history, now);
    lines
}

fn recorded_device(device: &RecordedDevice, now: Timestamp) -> Lines {
    let mut lines = Lines::default();
    if device.name.is_empty() {
        lines.title(&device.node_id.to_string());
    } else {
        lines.title(&format!("{}, node {}", device.name, device.node_id));
    }
    lines.written(device.written.as_ref(), now);
    lines.history(&device.history, now);
    lines
}

fn reported(serial: &ReportedSerial) -> String {
    match (&serial.serial, &serial.problem) {
        (Some(normal), _) if *normal == serial.reported => normal.clone(),
        (Some(normal), _) => format!("{normal}, reported as {:?}", serial.reported),
        (None, problem) => format!(
            "{:?} is not a serial number: {}",
            serial.reported,
            problem.as_deref().unwrap_or_default()
        ),
    }
}

/// Formats the old or the new value of an audit record: attributes by key.
fn attributes(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(attributes) => {
            let each = attributes
                .iter()
                .map(|(key, value)| format!("{key} {value}"));
            each.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// The lines of one device.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn title(&mut self, text: &str) {
        self.wrap("", 0, text);
    }

    fn block(&mut self, name: &str, value: &str) {
        self.wrap(&format!("  {name:<10} "), VALUE_COLUMN, value);
    }

    /// Adds values, each with its details, under one name.
    fn list(
        &mut self,
        name: &str,
        values: impl ExactSizeIterator<Item = (String, Option<String>)>,
        omitted: usize,
        if_empty: &str,
    ) {
        if values.len() == 0 {
            return self.block(name, if_empty);
        }
        for (position, (value, detail)) in values.enumerate() {
            self.block(if position == 0 { name } else { "" }, &value);
            if let Some(detail) = detail {
                self.wrap(&" ".repeat(DETAIL_COLUMN), DETAIL_COLUMN, &detail);
            }
        }
        if omitted > 0 {
            self.block("", &format!("and {omitted} more"));
        }
    }

    fn written(&mut self, record: Option<&NodeRecord>, now: Timestamp) {
        let Some(record) = record else {
            return self.block("written", "nothing");
        };
        let since = record
            .written_at
            .map(|at| format!(" since {}", time_with_age(at, now)));
        let value = format!(
            "{} {}{}, by run {} from host {}",
            record.key,
            record.score,
            since.unwrap_or_default(),
            record.run_id,
            record.aid
        );
        self.block("written", &value);
    }

    fn hosts(&mut self, hosts: &[ExplainedHost], omitted: usize, now: Timestamp) {
        let values = hosts.iter().map(|host| {
            let score = match host.score {
                Some(score) => format!("score {score}"),
                None => "no score".to_owned(),
            };
            let seen = match host.last_seen {
                Some(seen) => format!("seen {}", time_with_age(seen, now)),
                None => "never seen at a known time".to_owned(),
            };
            let hostname = host.hostname.as_deref().unwrap_or("a host without a name");
            let counts = if host.is_deciding {
                "counts"
            } else {
                "does not count"
            };
            (
                format!("{hostname}, {score}, {seen}, serial {}", host.serial),
                Some(format!("aid {} {counts}: {}", host.aid, host.reason)),
            )
        });
        self.list(
            "hosts",
            values,
            omitted,
            "none in Falcon with its serial numbers",
        );
    }

    fn history(&mut self, history: &[AuditRecord], now: Timestamp) {
        let values = history.iter().map(|record| {
            let when = match record.event_time.parse() {
                Ok(time) => time_with_age(time, now),
                Err(_) => record.event_time.clone(),
            };
            let reason = record.details["reason"].as_str().unwrap_or("no reason");
            (
                format!(
                    "{when}: {} -> {}",
                    attributes(&record.old),
                    attributes(&record.new)
                ),
                Some(format!("{reason}; {}, run {}", record.actor, record.run_id)),
            )
        });
        self.list("history", values, 0, "no change is recorded");
    }

    /// Adds a value in lines of [`LINE_CHARS`], all but the first indented. A value is sanitized, so it cannot start a line
    /// of its own.
    fn wrap(&mut self, start: &str, indent: usize, value: &str) {
        let indent = " ".repeat(indent);
        let options = Options::new(LINE_CHARS)
            .initial_indent(start)
            .subsequent_indent(&indent)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation);
        for line in textwrap::wrap(&sanitize(value, MAX_VALUE_CHARS), options) {
            self.0.push_str(line.trim_end());
            self.0.push('\n');
        }
    }
}
