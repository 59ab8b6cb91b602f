//! The parts of all views: the page with its styles, times, states and buttons.

use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::Offset;
use maud::{Markup, PreEscaped, html};
use serde_json::json;

use crate::command::widget::DisplayContext;
use crate::domain::status::RunOutcome;
use crate::domain::status::outcome::SyncState;
use crate::render::text::distance;
use crate::status::IntegrationState;
use crate::text::sanitize;

/// No text is shown longer than that; a hostile one could be.
const TEXT_CHARS: usize = 1_000;

/// One widget's circumstances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WidgetContext<'a> {
    /// How the dashboard wants it.
    pub(crate) context: DisplayContext,
    /// The time.
    pub(crate) now: Timestamp,
    /// The ARN that the widget's call came by, and its buttons' calls shall.
    pub(crate) endpoint: &'a str,
    /// Buttons are enabled.
    pub(crate) buttons: bool,
}

/// The whole answer. Characters that do not show are none of it, wherever they came from.
pub(crate) fn page(widget: &WidgetContext<'_>, body: &Markup) -> String {
    let theme = if widget.context.dark {
        "fps fps-dark"
    } else {
        "fps fps-light"
    };
    let page = html! {
        style { (PreEscaped(include_str!("style.css"))) }
        div.cwdb-no-default-styles {}
        div class=(theme) lang="en" { (body) }
    };
    sanitize(&page.into_string(), usize::MAX)
}

/// A remark in the place of what was asked for.
pub(crate) fn notice(text: &str) -> Markup {
    html! { p.fps-notice { (truncate(text)) } }
}

/// Somebody else's text: set apart from the direction of what is around it, and not without end.
pub(crate) fn untrusted(text: &str) -> Markup {
    html! { bdi { (truncate(text)) } }
}

/// A text that is not without end.
pub(crate) fn truncate(text: &str) -> String {
    sanitize(text, TEXT_CHARS)
}

/// `1 device`, `2 devices`.
pub(crate) fn pluralize(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

impl WidgetContext<'_> {
    /// How far a time is from now; the time itself in both zones for who asks.
    pub(crate) fn ago(&self, time: Timestamp) -> Markup {
        self.time(time, distance(time, self.now))
    }

    /// A time in the dashboard's zone.
    pub(crate) fn at(&self, time: Timestamp) -> Markup {
        self.time(time, self.local(time, "%-d %b %H:%M"))
    }

    fn time(&self, time: Timestamp, shown: impl Display) -> Markup {
        let local = self.local(time, "%Y-%m-%d %H:%M:%S");
        let utc = Offset::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S");
        let iso = format!("{time:.0}");
        html! { time datetime=(iso) title={ (local) " here, " (utc) " UTC" } { (shown) } }
    }

    fn local(&self, time: Timestamp, format: &str) -> String {
        let offset = Offset::from_seconds(self.context.offset_minutes * 60).unwrap_or(Offset::UTC);
        offset.to_datetime(time).strftime(format).to_string()
    }

    /// A button whose call is answered in a window of its own.
    pub(crate) fn button(
        &self,
        label: &str,
        action: &str,
        integration: &str,
        confirmation: Option<&str>,
    ) -> Markup {
        let parameters = json!({ "action": action, "integration": integration }).to_string();
        html! {
            button type="button" aria-label={ (label) ": " (integration) } { (label) }
            cwdb-action action="call" display="popup" endpoint=(self.endpoint) confirmation=[confirmation] { (parameters) }
        }
    }
}

/// How good or bad something is: a colour, a shape, and never without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Failing,
    Paused,
    Held,
    Off,
    Ok,
}

impl Severity {
    /// Of an integration.
    pub(crate) fn of(state: IntegrationState) -> Self {
        match state {
            IntegrationState::After(SyncState::Failing) => Self::Failing,
            IntegrationState::After(SyncState::Paused) => Self::Paused,
            IntegrationState::After(SyncState::Held) => Self::Held,
            IntegrationState::After(SyncState::Ok) => Self::Ok,
            IntegrationState::New | IntegrationState::Disabled | IntegrationState::Removing => {
                Self::Off
            }
        }
    }

    /// Of a run.
    pub(crate) fn after(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Synced | RunOutcome::Unchanged => Self::Ok,
            RunOutcome::Paused => Self::Paused,
            RunOutcome::Held => Self::Held,
            RunOutcome::Failed => Self::Failing,
            RunOutcome::Planned | RunOutcome::Skipped => Self::Off,
        }
    }

    /// The class with its colour.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Ok => "fps-ok",
            Self::Failing => "fps-failing",
            Self::Paused => "fps-paused",
            Self::Held => "fps-held",
            Self::Off => "fps-off",
        }
    }

    /// A tick, a cross, two bars, a triangle, a dash.
    const fn shape(self) -> &'static str {
        match self {
            Self::Ok => "M3 8.5l3.2 3.5L13 4.5",
            Self::Failing => "M3.5 3.5l9 9M12.5 3.5l-9 9",
            Self::Paused => "M5.5 3v10M10.5 3v10",
            Self::Held => "M8 2.5L14 13.5H2zM8 7v2.6",
            Self::Off => "M3 8h10",
        }
    }

    /// The word with its shape and colour.
    pub(crate) fn badge(self, word: impl Display) -> Markup {
        html! {
            span class={ "fps-s " (self.class()) } {
                svg viewBox="0 0 16 16" aria-hidden="true" { path d=(self.shape()) {} }
                (word)
            }
        }
    }
}
