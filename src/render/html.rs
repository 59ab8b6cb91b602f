//! Renders the custom widgets of a CloudWatch dashboard as HTML.
//!
//! The dashboard calls the function with the widget's parameters and a `widgetContext` in one payload, and shows the HTML of
//! the response. This code relies on these facts:
//!
//! - The shape of `widgetContext` (`theme`, `timezone`, `forms.all`): *Details about custom widgets in CloudWatch*. A
//!   single element of the class `cwdb-no-default-styles` switches the dashboard's own styles off; `<style>` is allowed.
//! - `<cwdb-action>` acts on the element right before it, and holds the parameters of the next call as JSON:
//!   *Interactivity in the custom widget in CloudWatch*.
//! - The dashboard removes scripts, `<iframe>` and `<use>` from the response: *Security and JavaScript for custom widgets*.
//! - `{"describe":true}` requests the widget's documentation, as Markdown. The button that sends a `<form>` follows it:
//!   aws-samples/cloudwatch-custom-widgets-samples.
//! - Undocumented: the sign of `timezone.offsetInMinutes`, so `offsetISO` is preferred; how long a dashboard waits, so only
//!   `explain` and `check` call Falcon and Tailscale.
//!
//! No element has an `id`: several widgets share a page.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod findings;
pub(crate) mod history;
pub(crate) mod page;
pub(crate) mod scores;
pub(crate) mod status;
#[cfg(test)]
mod tests;

/// The response to `{"describe":true}`.
pub(crate) const DESCRIPTION: &str = include_str!("html/describe.md");
