//! Sessions that a warm process holds for read-only looks, so that a second look costs no second token.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// A session with a token.
pub(crate) trait Session: Clone {
    /// Returns true if the token is known to be valid for the next calls.
    fn is_usable(&self, now: Timestamp) -> bool;
}

/// Sessions by the name of their secret, each with the version of the secret that it was signed in with.
#[derive(Debug)]
pub(crate) struct HeldSessions<K, S>(Mutex<BTreeMap<K, (String, S)>>);

impl<K, S> Default for HeldSessions<K, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, S: Session> HeldSessions<K, S> {
    /// Returns the usable session of this version. A secret without a known version has none.
    pub(crate) fn get(&self, key: &K, version: Option<&str>, now: Timestamp) -> Option<S> {
        let sessions = self.lock();
        let (held, session) = sessions.get(key)?;
        (Some(held.as_str()) == version && session.is_usable(now)).then(|| session.clone())
    }

    /// Holds a session in place of the former one, and drops those that are no longer usable.
    pub(crate) fn hold(&self, key: K, version: Option<String>, session: S, now: Timestamp) {
        let mut sessions = self.lock();
        sessions.remove(&key);
        sessions.extend(version.map(|version| (key, (version, session))));
        sessions.retain(|_, (_, session)| session.is_usable(now));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, (String, S)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
