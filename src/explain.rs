//! Why a device has the score it has, or none: what `explain` answers and the dashboard shows. Reads only.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Invocation};
use crate::domain::audit::{AuditRecord, TargetKind};
use crate::domain::explain::explanation::{ExplainedHost, Explanation, is_zero};
use crate::domain::explain::{ExplainContext, TEXT_CHARS, find, recorded};
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::serial::Serial;
use crate::domain::plan::{NodeRecord, NodeRecords};
use crate::settings::IntegrationId;
use crate::store::{AuditQuery, StoreError};
use crate::sync::{Inspection, SyncError, Unavailable, inspect};
use crate::text::sanitize;

/// So many devices are explained: who means one of more than that can name it better.
const DEVICES: usize = 10;

/// So many changes of each are told, the newest.
const CHANGES: usize = 10;

/// The answer to whoever asks about a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainResponse {
    /// The integration.
    pub integration: IntegrationId,
    /// The device, as it was asked for.
    pub device: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// Why nothing could be looked at; then there is only what the records hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What there is to say about the search, where it did not simply find the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The devices of the tailnet that are meant, the best match first.
    pub explanations: Vec<Explanation>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: usize,
    /// The Falcon hosts with the serial that was asked for, where no device reports it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<ExplainedHost>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub hosts_omitted: usize,
    /// What the records hold of devices that are not to be seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<RecordedDevice>,
}

/// What the records hold of a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedDevice {
    /// The device.
    pub node_id: NodeId,
    /// Its name when it was last written.
    pub name: String,
    /// What was last written to it; nothing if that was taken away.
    pub written: Option<NodeRecord>,
    /// What was changed, newest first.
    pub history: Vec<AuditRecord>,
}

/// Explains the devices that a text means: a node id, a name or a serial.
///
/// # Errors
/// Only for faults of our own, and for an integration that does not exist. What keeps it from looking is in the answer.
pub async fn explain(
    world: &App,
    integration: &IntegrationId,
    device: &str,
    invocation: &Invocation,
) -> Result<ExplainResponse, StoreError> {
    let Inspection {
        integration: stored,
        at,
        snapshot,
    } = inspect(world, integration, false, invocation).await?;
    let search = DeviceSearch {
        world,
        integration,
        device,
    };
    let answer = ExplainResponse {
        integration: integration.clone(),
        device: sanitize(device, TEXT_CHARS),
        at,
        error: None,
        note: None,
        explanations: Vec::new(),
        omitted: 0,
        hosts: Vec::new(),
        hosts_omitted: 0,
        traces: Vec::new(),
    };
    match snapshot {
        Ok(snapshot) => {
            search
                .seen(&snapshot.explain_context(&stored.pending), answer)
                .await
        }
        Err(Unavailable::Failed(SyncError::Store(fault))) => Err(fault),
        Err(blind) => search.unseen(&blind, answer).await,
    }
}

/// The records, and what is looked for in them.
struct DeviceSearch<'a> {
    world: &'a App,
    integration: &'a IntegrationId,
    device: &'a str,
}

impl DeviceSearch<'_> {
    async fn seen(
        &self,
        scene: &ExplainContext<'_>,
        mut answer: ExplainResponse,
    ) -> Result<ExplainResponse, StoreError> {
        let mut nodes: Vec<NodeId> = find(scene.devices, self.device)
            .into_iter()
            .cloned()
            .collect();
        let mut remarks = Vec::new();
        if nodes.is_empty() {
            let (present, gone): (Vec<NodeId>, Vec<NodeId>) = self
                .formerly(scene.records)
                .await?
                .into_iter()
                .partition(|node| scene.devices.contains_key(node));
            if !present.is_empty() {
                remarks.push(
                    "No device goes by that now; by the records, one did when it was last written."
                        .to_owned(),
                );
            }
            if !gone.is_empty() {
                remarks.push(
                    "The device that the records know by that is not in the tailnet any more."
                        .to_owned(),
                );
            }
            answer.traces = self.traces(scene.records, gone).await?;
            nodes = present;
        }
        answer.omitted = nodes.len().saturating_sub(DEVICES);
        for node_id in nodes.iter().take(DEVICES) {
            let history = self.history(node_id).await?;
            answer.explanations.extend(scene.explain(node_id, history));
        }
        match nodes.len() {
            0 => remarks.extend(self.among_hosts(scene, &mut answer)),
            1 => {}
            several => remarks.push(format!(
                "{several} devices go by that; a node id means one of them."
            )),
        }
        if remarks.is_empty() && nodes.is_empty() {
            remarks.push(self.nothing(scene));
        }
        answer.note = (!remarks.is_empty()).then(|| remarks.join(" "));
        Ok(answer)
    }

    /// Looks for hosts with the serial that no device reports, and says what was found.
    fn among_hosts(
        &self,
        scene: &ExplainContext<'_>,
        answer: &mut ExplainResponse,
    ) -> Option<String> {
        let serial = Serial::parse(self.device).ok()?;
        (answer.hosts, answer.hosts_omitted) = scene.hosts_with(&serial);
        let hosts = match answer.hosts.len() + answer.hosts_omitted {
            0 => return None,
            1 => "a host".to_owned(),
            hosts => format!("{hosts} hosts"),
        };
        Some(format!(
            "No device of the tailnet reports the serial number {serial}, but Falcon has {hosts} with it: see whether the \
             device is in the tailnet and reports its posture identity."
        ))
    }

    fn nothing(&self, scene: &ExplainContext<'_>) -> String {
        let (devices, hosts) = (scene.devices.len(), scene.falcon.hosts.len());
        let no_serial = Serial::parse(self.device)
            .err()
            .map(|why| format!(" As a serial number it is {why}, and means no machine."))
            .unwrap_or_default();
        format!(
            "Nothing is known by that: none of the tailnet's {devices} devices has it as its node id, name, host name or \
             serial number, none of the {hosts} Falcon hosts as its serial number, and there are no records of \
             it.{no_serial} A node id is told as it is, in its own case; a name in full or without the tailnet's domain."
        )
    }

    async fn unseen(
        &self,
        blind: &Unavailable,
        mut answer: ExplainResponse,
    ) -> Result<ExplainResponse, StoreError> {
        answer.error = Some(blind.message(self.integration));
        let records = self.world.store.node_records(self.integration).await?;
        let nodes = self.formerly(&records).await?;
        answer.omitted = nodes.len().saturating_sub(DEVICES);
        answer.note = Some(if nodes.is_empty() {
            "There are no records of a device with that node id, name or serial number.".to_owned()
        } else {
            "This is what the records hold; what Falcon and the tailnet hold now was not looked at."
                .to_owned()
        });
        answer.traces = self.traces(&records, nodes).await?;
        Ok(answer)
    }

    /// The devices that the records know by the text, or the audit records do where those are gone.
    async fn formerly(&self, records: &NodeRecords) -> Result<Vec<NodeId>, StoreError> {
        let nodes = recorded(records, self.device);
        if !nodes.is_empty() {
            return Ok(nodes.into_iter().cloned().collect());
        }
        let search = AuditQuery {
            integration: Some(self.integration.clone()),
            device: Some(self.device.trim().to_owned()),
            limit: DEVICES * CHANGES,
            ..AuditQuery::default()
        };
        let found = self.world.store.search_audit(&search).await?.records;
        let nodes = found
            .into_iter()
            .filter(|record| record.target.kind == TargetKind::Node)
            .map(|record| NodeId(record.target.id.into()));
        Ok(nodes.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn traces(
        &self,
        records: &NodeRecords,
        nodes: Vec<NodeId>,
    ) -> Result<Vec<RecordedDevice>, StoreError> {
        let mut traces = Vec::new();
        for node_id in nodes.into_iter().take(DEVICES) {
            let history = self.history(&node_id).await?;
            let written = records.get(&node_id);
            let name = written.map(|written| written.name.as_str());
            let name = name.or_else(|| history.first().map(|record| record.target.name.as_str()));
            traces.push(RecordedDevice {
                name: sanitize(name.unwrap_or_default(), TEXT_CHARS),
                written: written.cloned(),
                history,
                node_id,
            });
        }
        Ok(traces)
    }

    async fn history(&self, node_id: &NodeId) -> Result<Vec<AuditRecord>, StoreError> {
        let store = &self.world.store;
        store.node_history(self.integration, node_id, CHANGES).await
    }
}
