//! Renders answers for people: text for a terminal, HTML for a dashboard.

pub(crate) mod html;
pub(crate) mod text;
