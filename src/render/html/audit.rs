//! Renders the newest audit records.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::page::{WidgetContext, notice, truncate, untrusted};
use crate::domain::audit::{Action, AuditRecord};

/// Renders the view. With `several`, each record names its integration.
pub(crate) fn view(widget: &WidgetContext<'_>, records: &[AuditRecord], several: bool) -> Markup {
    if records.is_empty() {
        return notice("No change is recorded.");
    }
    html! {
        table.fps-stack {
            caption { "Newest changes" }
            thead { tr {
                th scope="col" { "When" }
                th scope="col" { "What" }
                th scope="col" { "From" }
                th scope="col" { "To" }
                th.fps-wide scope="col" { "By" }
            } }
            tbody { @for record in records { (row(widget, record, several)) } }
        }
    }
}

fn row(widget: &WidgetContext<'_>, record: &AuditRecord, several: bool) -> Markup {
    let reason = record.details["reason"].as_str();
    let (from, to) = old_and_new(record);
    html! {
        tr {
            td { (when(widget, record)) }
            th.fps-row scope="row" {
                (untrusted(&record.target.name))
                div.fps-m {
                    @if several { (record.integration_id) ": " }
                    @match (record.action, reason) {
                        (Action::UpdateNodeAttribute, Some(reason)) => { (untrusted(reason)) }
                        (action, _) => { (action_name(action)) }
                    }
                }
            }
            td.fps-n data-l="From" { (from) }
            td.fps-n data-l="To" { (to) }
            td.fps-wide { (untrusted(&record.actor)) }
        }
    }
}

pub(crate) fn when(widget: &WidgetContext<'_>, record: &AuditRecord) -> Markup {
    let time = record
        .event_time
        .parse()
        .map(|time| widget.local_time(time));
    time.unwrap_or_else(|_| html! { (truncate(&record.event_time)) })
}

/// Renders the old and the new value. Of changed settings, only the differing fields are shown.
fn old_and_new(record: &AuditRecord) -> (Markup, Markup) {
    let (Action::UpdateIntegration, Value::Object(old), Value::Object(new)) =
        (record.action, &record.old, &record.new)
    else {
        return (value(&record.old), value(&record.new));
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let is_changed = |name: &&String| old.get(*name) != new.get(*name);
    let changed: Vec<&String> = names.into_iter().filter(is_changed).collect();
    let render_side = |settings: &Map<String, Value>| {
        html! { @for name in &changed {
            div.fps-any { (truncate(name)) ": " (settings.get(*name).map_or_else(|| html! { "default" }, value)) }
        } }
    };
    (render_side(old), render_side(new))
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::CreateIntegration => "connected",
        Action::UpdateIntegration => "settings changed",
        Action::RemoveIntegration => "removed",
        Action::UpdateNodeAttribute => "attribute changed",
    }
}

/// Renders the old or the new value of a change: the value of an attribute, or the number of settings.
pub(crate) fn value(value: &Value) -> Markup {
    match value {
        Value::Object(fields) if fields.values().all(Value::is_number) => html! {
            @for (key, value) in fields { span title=(truncate(key)) { (value) } " " }
        },
        Value::Object(fields) => html! { (fields.len()) " settings" },
        Value::Null => html! { "none" },
        other => html! { (truncate(&other.to_string())) },
    }
}
