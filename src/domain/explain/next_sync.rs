//! The next sync's action on a device.

use crate::domain::explain::explanation::NextAction;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::record::NodeRecord;
use crate::domain::matching::MatchOutcome;
use crate::domain::plan::Change;
use crate::settings::OnMissing;

use super::ExplainContext;

impl ExplainContext<'_> {
    /// Returns the next sync's action, also as half a sentence with the sync as its subject.
    pub(super) fn next_step(
        &self,
        node_id: &NodeId,
        outcome: &MatchOutcome,
    ) -> (NextAction, String) {
        let (action, mut words) = self.action(node_id, outcome);
        let mut journal = self.snapshot.journal.values();
        let unrecorded = journal.find(|entry| entry.writes.contains_key(node_id.0.as_str()));
        if let Some(entry) = unrecorded {
            let (run, from) = (&entry.run_id, entry.settles_at());
            words = format!(
                "first reads the attribute of the device, since run {run} may have written it without a record, and \
                 does so from {from:.0} on, when that write can take effect no more; then it {words}"
            );
        }
        if !self.snapshot.settings.enabled {
            words = format!("{words}, once the integration is enabled again");
        }
        (action, words)
    }

    fn action(&self, node_id: &NodeId, outcome: &MatchOutcome) -> (NextAction, String) {
        let (snapshot, settings) = (self.snapshot, &self.snapshot.settings);
        let key = &settings.attribute_key;
        if let Some(change) = snapshot.plan.change(node_id) {
            return describe(change);
        }
        let mut waiting = snapshot.waiting.iter();
        let waiting = waiting.find(|one| one.change.node_id == *node_id);
        if let (Some(waiting), Some(old)) = (waiting, snapshot.records.get(node_id)) {
            let words = format!(
                "keeps {} {} for now: it was found absent at {:.0}, and goes after {:.0} unless a run finds it \
                 present before",
                old.key, old.score, waiting.since, waiting.until
            );
            return (NextAction::Waits, words);
        }
        if snapshot.unresolved.contains(node_id) {
            let words = "changes nothing yet: the data for the change could not be looked up";
            return (NextAction::Waits, words.to_owned());
        }
        match (outcome, snapshot.records.get(node_id)) {
            (MatchOutcome::Scored(evidence), Some(old)) if evidence.unwitnessed.is_some() => (
                NextAction::Nothing,
                format!(
                    "changes nothing: {key} stays {}, until the sensor is seen",
                    old.score
                ),
            ),
            (MatchOutcome::Unwitnessed(_), None) => (
                NextAction::Waits,
                "sets no score yet: the first one waits until the sensor is seen".to_owned(),
            ),
            (MatchOutcome::Scored(_), Some(old)) => (
                NextAction::Nothing,
                format!(
                    "changes nothing: {key} is {}, which is up to date",
                    old.score
                ),
            ),
            (_, Some(old)) if settings.on_missing == OnMissing::Keep => (
                NextAction::Nothing,
                format!(
                    "keeps {} at {}, since onMissing is `keep`",
                    old.key, old.score
                ),
            ),
            (_, Some(NodeRecord { key, score, .. })) => {
                let held = snapshot.held.as_ref();
                let held = held.map_or("removals are held", |held| &held.why);
                let words = format!("keeps {key} {score} although it would be removed: {held}");
                (NextAction::Held, words)
            }
            (MatchOutcome::External, None) => (
                NextAction::NotOurs,
                "leaves it unchanged: the device belongs to another tailnet".to_owned(),
            ),
            (_, None) => (
                NextAction::Nothing,
                "changes nothing: there is no score to set and none to remove".to_owned(),
            ),
        }
    }
}

fn describe(change: &Change) -> (NextAction, String) {
    match (&change.old, &change.new) {
        (None, Some(new)) => (
            NextAction::Set,
            format!("sets {} to {}", new.key, new.score),
        ),
        (Some(old), Some(new)) if old.key == new.key => (
            NextAction::Change,
            format!("changes {} from {} to {}", new.key, old.score, new.score),
        ),
        (Some(old), Some(new)) => (
            NextAction::Move,
            format!(
                "sets {} to {} and deletes {}, which is {}",
                new.key, new.score, old.key, old.score
            ),
        ),
        (Some(old), None) => (
            NextAction::Remove,
            format!("removes {}, which is {}", old.key, old.score),
        ),
        (None, None) => (NextAction::Nothing, "changes nothing".to_owned()),
    }
}
