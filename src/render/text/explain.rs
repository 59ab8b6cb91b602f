//! The explanation as a person reads it at a terminal: what came of the device, why, and what was changed.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde_json::Value;

use super::moment;
use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{ExplainedHost, Explanation, ReportedSerial};
use crate::domain::plan::NodeRecord;
use crate::explain::{ExplainResponse, RecordedDevice};
use crate::text::sanitize;

/// Lines are broken here, but for words that are longer.
const WIDTH: usize = 100;

/// Where the values of a block begin, and where what belongs to a value does.
const VALUE: usize = 13;
const MORE: usize = 17;

/// No value is longer; a hostile one could be.
const VALUE_CHARS: usize = 3_000;

/// The answer, to read.
pub(crate) fn explain(answer: &ExplainResponse) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, answer);
    text
}

fn write(text: &mut String, answer: &ExplainResponse) -> fmt::Result {
    let heads = answer.error.iter().chain(&answer.note);
    let mut blank = false;
    for head in heads {
        wrap(text, "", 0, head)?;
        blank = true;
    }
    for explanation in &answer.explanations {
        separate(text, &mut blank)?;
        device(text, explanation, answer.at)?;
    }
    if !answer.hosts.is_empty() {
        separate(text, &mut blank)?;
        hosts(text, &answer.hosts, answer.hosts_omitted, answer.at)?;
    }
    for trace in &answer.recorded {
        separate(text, &mut blank)?;
        gone(text, trace, answer.at)?;
    }
    if answer.omitted > 0 {
        separate(text, &mut blank)?;
        writeln!(text, "{} more are not told.", answer.omitted)?;
    }
    Ok(())
}

/// A blank line between blocks.
fn separate(text: &mut String, blank: &mut bool) -> fmt::Result {
    if std::mem::replace(blank, true) {
        writeln!(text)?;
    }
    Ok(())
}

fn device(text: &mut String, explanation: &Explanation, now: Timestamp) -> fmt::Result {
    let Explanation {
        node_id,
        name,
        hostname,
        user,
        os,
        ..
    } = explanation;
    let came = match explanation.score {
        Some(score) => format!("score {score}"),
        None => "no score".to_owned(),
    };
    wrap(text, "", 0, &format!("{name}: {came}"))?;
    block(text, "because", &explanation.reason)?;
    if let Some(remedy) = &explanation.remedy {
        block(text, "to do", remedy)?;
    }
    written(text, explanation.written.as_ref(), now)?;
    block(text, "next sync", &explanation.next)?;
    let about = [hostname.as_str(), os, user, &format!("node {node_id}")];
    let about: Vec<&str> = about
        .into_iter()
        .filter(|about| !about.is_empty())
        .collect();
    block(text, "device", &about.join(", "))?;
    serials(text, &explanation.serials, explanation.serials_omitted)?;
    let usable = explanation.serials.iter().any(|s| s.serial.is_some());
    if explanation.hosts.is_empty() && !usable {
        block(
            text,
            "hosts",
            "none, without a serial number to find them by",
        )?;
    } else {
        hosts(text, &explanation.hosts, explanation.hosts_omitted, now)?;
    }
    history(text, &explanation.history, now)
}

/// A device that is not to be seen.
fn gone(text: &mut String, trace: &RecordedDevice, now: Timestamp) -> fmt::Result {
    let title = if trace.name.is_empty() {
        trace.node_id.to_string()
    } else {
        format!("{}, node {}", trace.name, trace.node_id)
    };
    wrap(text, "", 0, &title)?;
    written(text, trace.written.as_ref(), now)?;
    history(text, &trace.history, now)
}

fn written(text: &mut String, written: Option<&NodeRecord>, now: Timestamp) -> fmt::Result {
    let value = match written {
        None => "nothing".to_owned(),
        Some(written) => {
            let since = written
                .written_at
                .map(|at| format!(" since {}", moment(at, now)));
            format!(
                "{} {}{}, by run {} from host {}",
                written.key,
                written.score,
                since.unwrap_or_default(),
                written.run_id,
                written.aid
            )
        }
    };
    block(text, "written", &value)
}

fn serials(text: &mut String, serials: &[ReportedSerial], omitted: usize) -> fmt::Result {
    let mut name = "serials";
    if serials.is_empty() {
        return block(text, name, "none reported");
    }
    for serial in serials {
        let value = match (&serial.serial, &serial.problem) {
            (Some(normal), _) if *normal == serial.reported => normal.clone(),
            (Some(normal), _) => format!("{normal}, reported as {:?}", serial.reported),
            (None, refused) => format!(
                "{:?} is no serial number: {}",
                serial.reported,
                refused.as_deref().unwrap_or_default()
            ),
        };
        block(text, std::mem::take(&mut name), &value)?;
    }
    more(text, omitted)
}

fn hosts(
    text: &mut String,
    hosts: &[ExplainedHost],
    omitted: usize,
    now: Timestamp,
) -> fmt::Result {
    let mut name = "hosts";
    if hosts.is_empty() {
        return block(text, name, "none in Falcon with its serial numbers");
    }
    for host in hosts {
        let score = match host.score {
            Some(score) => format!("score {score}"),
            None => "no score".to_owned(),
        };
        let seen = match host.last_seen {
            Some(seen) => format!("seen {}", moment(seen, now)),
            None => "never seen at a known time".to_owned(),
        };
        let hostname = host.hostname.as_deref().unwrap_or("a host without a name");
        let value = format!("{hostname}, {score}, {seen}, serial {}", host.serial);
        block(text, std::mem::take(&mut name), &value)?;
        let counts = if host.is_deciding {
            "counts"
        } else {
            "does not count"
        };
        let why = format!("aid {} {counts}: {}", host.aid, host.reason);
        wrap(text, &" ".repeat(MORE), MORE, &why)?;
    }
    more(text, omitted)
}

fn history(text: &mut String, history: &[AuditRecord], now: Timestamp) -> fmt::Result {
    let mut name = "history";
    if history.is_empty() {
        return block(text, name, "no change is recorded");
    }
    for record in history {
        let when = match record.event_time.parse() {
            Ok(time) => moment(time, now),
            Err(_) => record.event_time.clone(),
        };
        let value = format!("{when}: {} -> {}", value(&record.old), value(&record.new));
        block(text, std::mem::take(&mut name), &value)?;
        let reason = record.details["reason"].as_str().unwrap_or("no reason");
        let why = format!("{reason}; {}, run {}", record.actor, record.run_id);
        wrap(text, &" ".repeat(MORE), MORE, &why)?;
    }
    Ok(())
}

/// Formats the old or the new value of an audit record: attributes by key.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(attributes) => {
            let told = attributes
                .iter()
                .map(|(key, value)| format!("{key} {value}"));
            told.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn more(text: &mut String, omitted: usize) -> fmt::Result {
    match omitted {
        0 => Ok(()),
        omitted => block(text, "", &format!("and {omitted} more")),
    }
}

/// A named value, or one more of the same name.
fn block(text: &mut String, name: &str, value: &str) -> fmt::Result {
    wrap(text, &format!("  {name:<10} "), VALUE, value)
}

/// One value in lines of [`WIDTH`], of which all but the first are indented. Nothing in it can begin a line by itself.
fn wrap(text: &mut String, start: &str, indent: usize, value: &str) -> fmt::Result {
    let value = sanitize(value, VALUE_CHARS);
    let mut line = start.to_owned();
    let mut used = line.chars().count();
    let mut fresh = true;
    for word in value.split(' ') {
        let length = word.chars().count();
        if !fresh && used + 1 + length > WIDTH {
            writeln!(text, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            used = indent;
            fresh = true;
        }
        if !fresh {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
        fresh = false;
    }
    writeln!(text, "{}", line.trim_end())
}
