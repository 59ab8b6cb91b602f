//! Renders the form that asks about a device, and the explanation.

use maud::{Markup, html};
use serde_json::json;

use super::audit::{value, when};
use super::page::{Severity, WidgetContext, notice, truncate, untrusted};
use crate::domain::audit::AuditRecord;
use crate::domain::explain::explanation::{ExplainedHost, Explanation, ReportedSerial};
use crate::domain::inventory::record::NodeRecord;
use crate::domain::matching::reasons::Verdict;
use crate::explain::{ExplainResponse, RecordedDevice};
use crate::render::text::score_or_none;
use crate::settings::IntegrationId;
use crate::status::IntegrationView;

/// Renders the form with its present values. `answered` is the device that was asked about, with the answer.
pub(crate) fn form(
    frame: &WidgetContext<'_>,
    integrations: &[IntegrationView],
    chosen: Option<&IntegrationId>,
    answered: Option<(&str, &Markup)>,
) -> Markup {
    let parameters = match integrations {
        [one] => json!({ "view": "explain", "action": "explain", "integration": one.id }),
        _ => json!({ "view": "explain", "action": "explain" }),
    };
    html! {
        form.fps-f {
            @if integrations.len() > 1 {
                label { "Integration"
                    select name="integration" {
                        @for one in integrations {
                            option value=(one.id) selected[chosen.is_some_and(|id| id.as_str() == one.id)] { (one.id) }
                        }
                    }
                }
            }
            label { "Device: node id, name or serial number"
                input type="text" name="device" value=[answered.map(|(device, _)| truncate(device))] maxlength="255" autocomplete="off";
            }
            // The Enter key would submit the form and leave the dashboard. A disabled submit button prevents that.
            button type="submit" disabled hidden { "Explain" }
        }
        div.fps-go {
            button type="button" { "Explain" }
            cwdb-action action="call" display="widget" endpoint=(frame.endpoint) { (parameters.to_string()) }
        }
        @if let Some((_, answer)) = answered { (answer) }
    }
}

pub(crate) fn result(frame: &WidgetContext<'_>, answer: &ExplainResponse) -> Markup {
    html! {
        @for text in answer.error.iter().chain(&answer.note) { (notice(text)) }
        @for explanation in &answer.explanations { (device(frame, explanation)) }
        @if !answer.hosts.is_empty() { dl {
            (hosts(frame, &answer.hosts, answer.hosts_omitted))
        } }
        @for device in &answer.recorded { (recorded_device(frame, device)) }
        @if answer.omitted > 0 { p.fps-m { "and " (answer.omitted) " more" } }
    }
}

fn device(frame: &WidgetContext<'_>, explanation: &Explanation) -> Markup {
    let severity = match explanation.verdict {
        Verdict::Scored => Severity::Ok,
        Verdict::External => Severity::Off,
        _ => Severity::Failing,
    };
    html! {
        div.fps-item {
            h3 { (untrusted(&explanation.name)) }
            div.fps-score { (severity.badge(score_or_none(explanation.score))) }
            p { "Because " (truncate(&explanation.reason)) "." }
            @if let Some(remedy) = &explanation.remedy { (notice(remedy)) }
            dl {
                (written(frame, explanation.written.as_ref()))
                dt { "Next sync" } dd { (truncate(&explanation.next)) }
                dt { "Device" } dd {
                    (untrusted(&explanation.hostname)) ", " (untrusted(&explanation.os)) ", " (untrusted(&explanation.user))
                    div.fps-m { "node " (untrusted(&explanation.node_id.0)) }
                }
                (serials(&explanation.serials, explanation.serials_omitted))
                (hosts(frame, &explanation.hosts, explanation.hosts_omitted))
                (history(frame, &explanation.history))
            }
        }
    }
}

fn recorded_device(frame: &WidgetContext<'_>, device: &RecordedDevice) -> Markup {
    html! {
        div.fps-item {
            h3 { @if !device.name.is_empty() { (untrusted(&device.name)) } span.fps-m { "node " (untrusted(&device.node_id.0)) } }
            dl {
                (written(frame, device.written.as_ref()))
                (history(frame, &device.history))
            }
        }
    }
}

fn written(frame: &WidgetContext<'_>, written: Option<&NodeRecord>) -> Markup {
    html! {
        dt { "Written" }
        dd {
            @match written {
                None => { "nothing" }
                Some(written) => {
                    (written.key) " " b { (written.score) }
                    @if let Some(at) = written.written_at { " " (frame.relative_time(at)) }
                    @if let Some(end) = written.expiry { div.fps-m { "ends " (frame.relative_time(end)) } }
                    div.fps-m { "by run " (untrusted(&written.run_id)) }
                }
            }
        }
    }
}

fn serials(serials: &[ReportedSerial], omitted: usize) -> Markup {
    html! {
        dt { "Serials" }
        dd {
            @if serials.is_empty() { "none reported" }
            @for serial in serials {
                div {
                    (untrusted(&serial.reported))
                    @if let Some(normal) = serial.serial.as_ref().filter(|normal| **normal != serial.reported) {
                        span.fps-m { " means " (untrusted(normal)) }
                    }
                    @if let Some(problem) = &serial.problem { span.fps-m { " is not a serial number: " (truncate(problem)) } }
                }
            }
            (more(omitted))
        }
    }
}

fn hosts(frame: &WidgetContext<'_>, hosts: &[ExplainedHost], omitted: usize) -> Markup {
    html! {
        dt { "Falcon hosts" }
        dd {
            @if hosts.is_empty() { "none with its serial numbers" }
            @for host in hosts {
                div {
                    (untrusted(host.hostname.as_deref().unwrap_or("a host without a name"))) ", "
                    (score_or_none(host.score)) ", "
                    @match host.last_seen {
                        Some(seen) => { "seen " (frame.relative_time(seen)) }
                        None => { "never seen at a known time" }
                    }
                    div.fps-m {
                        @if host.is_deciding { "Counts: " } @else { "Does not count: " }
                        (truncate(&host.reason)) ". Serial " (untrusted(&host.serial)) ", aid " (untrusted(&host.aid.to_string())) "."
                    }
                }
            }
            (more(omitted))
        }
    }
}

fn history(frame: &WidgetContext<'_>, history: &[AuditRecord]) -> Markup {
    html! {
        dt { "Changes" }
        dd {
            @if history.is_empty() { "none recorded" }
            @for record in history {
                div {
                    (when(frame, record)) ": " (value(&record.old)) " to " (value(&record.new))
                    @if let Some(reason) = record.details["reason"].as_str() { div.fps-m { (truncate(reason)) } }
                }
            }
        }
    }
}

fn more(omitted: usize) -> Markup {
    html! { @if omitted > 0 { div.fps-m { "and " (omitted) " more" } } }
}
