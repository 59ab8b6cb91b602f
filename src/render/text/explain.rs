//! Renders an explanation as text: for each device its score, the reason, and the recorded changes.

use jiff::Timestamp;
use serde_json::Value;
use textwrap::{Options, WordSplitter};

use super::{score_or_none, time_with_age};
use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{ExplainedHost, Explanation, ReportedSerial};
use crate::domain::inventory::record::NodeRecord;
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
    let mut lines = Lines {
        text: String::new(),
        now: response.at,
    };
    for message in response.error.iter().chain(&response.note) {
        lines.title(message);
    }
    for explanation in &response.explanations {
        lines.separate();
        lines.device(explanation);
    }
    if !response.hosts.is_empty() {
        lines.separate();
        lines.hosts(&response.hosts, response.hosts_omitted);
    }
    for device in &response.recorded {
        lines.separate();
        lines.recorded_device(device);
    }
    if response.omitted > 0 {
        lines.separate();
        lines.title(&format!("{} more are left out.", response.omitted));
    }
    lines.text
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
        Value::Object(fields) => {
            let each = fields.iter().map(|(key, value)| format!("{key} {value}"));
            each.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

struct Lines {
    text: String,
    now: Timestamp,
}

impl Lines {
    fn device(&mut self, explanation: &Explanation) {
        let score = score_or_none(explanation.score);
        self.title(&format!("{}: {score}", explanation.name));
        self.block("because", &explanation.reason);
        if let Some(remedy) = &explanation.remedy {
            self.block("to do", remedy);
        }
        self.written(explanation.written.as_ref());
        self.block("next sync", &explanation.next);
        let node = format!("node {}", explanation.node_id);
        let Explanation {
            hostname, os, user, ..
        } = explanation;
        let facts = [hostname, os, user, &node].map(String::as_str);
        let facts: Vec<&str> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
        self.block("device", &facts.join(", "));
        let serials = explanation.serials.iter();
        let serials = serials.map(|serial| (reported(serial), None));
        let omitted = explanation.serials_omitted;
        self.list("serials", serials, omitted, "none reported");
        let has_serial = explanation.serials.iter().any(|one| one.serial.is_some());
        if explanation.hosts.is_empty() && !has_serial {
            self.block("hosts", "none, without a serial number to find them by");
        } else {
            self.hosts(&explanation.hosts, explanation.hosts_omitted);
        }
        self.history(&explanation.history);
    }

    fn recorded_device(&mut self, device: &RecordedDevice) {
        if device.name.is_empty() {
            self.title(&device.node_id.to_string());
        } else {
            self.title(&format!("{}, node {}", device.name, device.node_id));
        }
        self.written(device.written.as_ref());
        self.history(&device.history);
    }

    fn written(&mut self, record: Option<&NodeRecord>) {
        let Some(record) = record else {
            return self.block("written", "nothing");
        };
        let time = |word: &str, time| format!("{word} {}", time_with_age(time, self.now));
        // A renewal is a write, too, so this is not since when the value stands.
        let at = record.written_at.map(|at| time(" at", at));
        let until = record.expiry.map(|end| time(", until", end));
        let value = format!(
            "{} {}{}{}, by run {} from host {}",
            record.key,
            record.score,
            at.unwrap_or_default(),
            until.unwrap_or_default(),
            record.run_id,
            record.aid
        );
        self.block("written", &value);
    }

    fn hosts(&mut self, hosts: &[ExplainedHost], omitted: usize) {
        let now = self.now;
        let values = hosts.iter().map(|host| {
            let score = score_or_none(host.score);
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
        let if_empty = "none in Falcon with its serial numbers";
        self.list("hosts", values, omitted, if_empty);
    }

    fn history(&mut self, history: &[AuditRecord]) {
        let now = self.now;
        let values = history.iter().map(|record| {
            let when = match record.event_time.parse() {
                Ok(time) => time_with_age(time, now),
                Err(_) => record.event_time.clone(),
            };
            let (old, new) = (attributes(&record.old), attributes(&record.new));
            let reason = record.details["reason"].as_str().unwrap_or("no reason");
            (
                format!("{when}: {old} -> {new}"),
                Some(format!("{reason}; {}, run {}", record.actor, record.run_id)),
            )
        });
        self.list("history", values, 0, "no change is recorded");
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

    /// Adds a blank line, unless the text is empty.
    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    fn title(&mut self, text: &str) {
        self.wrap("", 0, text);
    }

    fn block(&mut self, name: &str, value: &str) {
        self.wrap(&format!("  {name:<10} "), VALUE_COLUMN, value);
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
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }
}
