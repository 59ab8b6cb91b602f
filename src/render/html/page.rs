//! Parts of all views: the page with its styles, times, states and buttons.

use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::Offset;
use maud::{Markup, PreEscaped, html};
use serde_json::json;

use crate::command::widget::DisplayContext;
use crate::domain::status::RunOutcome;
use crate::domain::status::outcome::SyncState;
use crate::render::text::age;
use crate::status::IntegrationState;
use crate::text::sanitize;

/// Maximum characters of a text from outside.
const MAX_TEXT_CHARS: usize = 1_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct WidgetContext<'a> {
    pub(crate) context: DisplayContext,
    pub(crate) now: Timestamp,
    /// The ARN that the dashboard called, which the buttons of the widget call again.
    pub(crate) endpoint: &'a str,
    pub(crate) has_buttons: bool,
}

/// Renders the whole page, without unprintable characters.
pub(crate) fn page(widget: &WidgetContext<'_>, body: &Markup) -> String {
    let theme = if widget.context.is_dark {
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

/// Renders a message in place of the requested content.
pub(crate) fn notice(text: &str) -> Markup {
    html! { p.fps-notice { (truncate(text)) } }
}

/// Renders a text from outside: truncated, and isolated from the text direction around it.
pub(crate) fn untrusted(text: &str) -> Markup {
    html! { bdi { (truncate(text)) } }
}

pub(crate) fn truncate(text: &str) -> String {
    sanitize(text, MAX_TEXT_CHARS)
}

/// Returns a number with its noun: `1 device`, `2 devices`.
pub(crate) fn pluralize<N: Copy + Display + PartialEq + From<u8>>(count: N, thing: &str) -> String {
    if count == N::from(1) {
        format!("1 {thing}")
    } else {
        format!("{count} {thing}s")
    }
}

impl WidgetContext<'_> {
    /// Renders the age of a time. The tooltip holds the time in both zones.
    pub(crate) fn relative_time(&self, time: Timestamp) -> Markup {
        self.render_time(time, age(time, self.now))
    }

    /// Renders a time in the dashboard's zone.
    pub(crate) fn local_time(&self, time: Timestamp) -> Markup {
        self.render_time(time, self.format_local(time, "%-d %b %H:%M"))
    }

    fn render_time(&self, time: Timestamp, shown: impl Display) -> Markup {
        let local = self.format_local(time, "%Y-%m-%d %H:%M:%S");
        let utc = Offset::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S");
        let iso = format!("{time:.0}");
        html! { time datetime=(iso) title={ (local) " here, " (utc) " UTC" } { (shown) } }
    }

    fn format_local(&self, time: Timestamp, format: &str) -> String {
        let offset = Offset::from_seconds(self.context.offset_minutes * 60).unwrap_or(Offset::UTC);
        offset.to_datetime(time).strftime(format).to_string()
    }

    /// Renders a button that shows the response to its call in a popup.
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

/// The severity of a state: a colour and a shape, always shown with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Failing,
    Paused,
    Held,
    Off,
    Ok,
}

impl Severity {
    pub(crate) fn from_state(state: IntegrationState) -> Self {
        match state {
            IntegrationState::After(state) => Self::from_sync(state),
            _ => Self::Off,
        }
    }

    pub(crate) fn from_outcome(outcome: RunOutcome) -> Self {
        SyncState::from_outcome(outcome).map_or(Self::Off, Self::from_sync)
    }

    fn from_sync(state: SyncState) -> Self {
        match state {
            SyncState::Ok => Self::Ok,
            SyncState::Failing => Self::Failing,
            SyncState::Paused => Self::Paused,
            SyncState::Held => Self::Held,
        }
    }

    pub(crate) const fn class(self) -> &'static str {
        self.style().0
    }

    /// Returns the CSS class with the colour, and the path of a tick, a cross, two bars, a triangle or a dash.
    const fn style(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("fps-ok", "M3 8.5l3.2 3.5L13 4.5"),
            Self::Failing => ("fps-failing", "M3.5 3.5l9 9M12.5 3.5l-9 9"),
            Self::Paused => ("fps-paused", "M5.5 3v10M10.5 3v10"),
            Self::Held => ("fps-held", "M8 2.5L14 13.5H2zM8 7v2.6"),
            Self::Off => ("fps-off", "M3 8h10"),
        }
    }

    /// Renders a word with the shape and the colour.
    pub(crate) fn badge(self, word: impl Display) -> Markup {
        let (class, shape) = self.style();
        html! {
            span class={ "fps-s " (class) } {
                svg viewBox="0 0 16 16" aria-hidden="true" { path d=(shape) {} }
                (word)
            }
        }
    }
}
