//! The kinds of calls to the two APIs.

use crate::domain::status::error_kind::Service;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) service: Service,
    /// The name for readers, such as "the host listing".
    pub(crate) name: &'static str,
    /// The scope that the credential needs, as the service names it.
    pub(crate) scope: &'static str,
}

impl Operation {
    pub(crate) const fn new(service: Service, name: &'static str, scope: &'static str) -> Self {
        Self {
            service,
            name,
            scope,
        }
    }
}
