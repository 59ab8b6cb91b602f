//! Renders the custom widgets of a CloudWatch dashboard as HTML.
//!
//! The dashboard calls the function with a widget's parameters at the top level and a `widgetContext` beside them, and
//! shows the HTML that comes back. What is relied on here, and where it is written:
//!
//! - The shape of `widgetContext` (`theme`, `timezone`, `forms.all`): *Details about custom widgets in CloudWatch*. A
//!   single element of the class `cwdb-no-default-styles` switches the dashboard's own styles off; `<style>` may be used.
//! - `<cwdb-action>` acts on the element right before it, and holds the parameters of the next call as JSON:
//!   *Interactivity in the custom widget in CloudWatch*.
//! - Scripts, `<iframe>` and `<use>` are taken out of what is answered: *Security and JavaScript for custom widgets*.
//! - `{"describe":true}` asks for the widget's documentation, as Markdown; inputs stand in a `<form>`, the button that sends
//!   them after it: aws-samples/cloudwatch-custom-widgets-samples.
//! - Not written anywhere: the sign of `timezone.offsetInMinutes`, so `offsetISO` goes before it; how long a dashboard
//!   waits, so only `explain` and `check` call Falcon and Tailscale.
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

/// The answer to `{"describe":true}`: the widget's documentation, as Markdown.
pub(crate) const DESCRIPTION: &str = include_str!("html/describe.md");
