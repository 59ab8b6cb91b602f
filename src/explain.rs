//! Explains why a device has its score, or none. Reads only.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::app::{App, Invocation};
use crate::domain::audit::{AuditRecord, TargetKind};
use crate::domain::explain::explanation::{ExplainedHost, Explanation};
use crate::domain::explain::{ExplainContext, find_devices, find_in_records};
use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::record::{NodeRecord, NodeRecords};
use crate::domain::inventory::serial::Serial;
use crate::domain::is_default;
use crate::domain::matching::reasons::truncate;
use crate::domain::snapshot::Snapshot;
use crate::settings::{IgnoredSerials, IntegrationId};
use crate::store::{AuditQuery, StoreError};
use crate::sync::{Subject, Unavailable, inspect_devices};

/// Maximum devices in a response: a text that means more is too vague.
const MAX_DEVICES: usize = 10;
/// Maximum changes per device, the latest.
const MAX_CHANGES: usize = 10;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainResponse {
    pub(crate) integration: IntegrationId,
    /// The device as the person named it.
    pub(crate) device: String,
    pub(crate) at: Timestamp,
    /// Why there is no snapshot. The response then holds only what is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// A message about the search, unless it simply found one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// The devices found in the tailnet, the best match first.
    pub(crate) explanations: Vec<Explanation>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) omitted: usize,
    /// The Falcon hosts with the serial, if no device reports it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<ExplainedHost>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hosts_omitted: usize,
    /// The devices that are only found in the records.
    #[serde(rename = "traces", skip_serializing_if = "Vec::is_empty")]
    pub(crate) recorded: Vec<RecordedDevice>,
}

/// The records of a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecordedDevice {
    pub(crate) node_id: NodeId,
    /// The name when the device was last written to.
    pub(crate) name: String,
    /// The written attribute; `None` once it is removed.
    pub(crate) written: Option<NodeRecord>,
    /// The latest changes, newest first.
    pub(crate) history: Vec<AuditRecord>,
}

/// Explains the devices that a text means: a node id, a name or a serial.
///
/// # Errors
/// DynamoDB failed, or the integration does not exist. The response holds every other failure.
pub(crate) async fn explain(
    app: &App,
    integration: &IntegrationId,
    device: &str,
    invocation: &Invocation,
) -> Result<ExplainResponse, StoreError> {
    let search = DeviceSearch {
        app,
        integration,
        device,
    };
    let mut found = None;
    let find = async |devices: &Devices, records: &NodeRecords, ignored: &IgnoredSerials| {
        let named = search.find(devices, records, ignored).await?;
        let subject = search.subject(&named, ignored);
        found = Some(named);
        Ok(subject)
    };
    // Boxed: the future of the concurrent listings is large.
    let snapshot = Box::pin(inspect_devices(app, integration, invocation, find)).await?;
    let response = ExplainResponse {
        integration: integration.clone(),
        device: truncate(device),
        at: app.clock.now(),
        error: None,
        note: None,
        explanations: Vec::new(),
        omitted: 0,
        hosts: Vec::new(),
        hosts_omitted: 0,
        recorded: Vec::new(),
    };
    match snapshot {
        Ok(snapshot) => {
            let context = ExplainContext::new(&snapshot);
            let found = if let Some(found) = found {
                found
            } else {
                let ignored = &snapshot.rules.ignored_serials;
                let (devices, records) = (&snapshot.devices, &snapshot.records);
                search.find(devices, records, ignored).await?
            };
            search.explain_live(&context, found, response).await
        }
        Err(unavailable) => search.explain_from_records(&unavailable, response).await,
    }
}

/// The devices that a text means.
#[derive(Debug, Default)]
struct FoundDevices {
    /// Devices of the tailnet, the best match first.
    nodes: Vec<NodeId>,
    /// Devices that have left the tailnet.
    gone: Vec<NodeId>,
    /// True if they were found in the records only.
    are_recorded: bool,
}

/// A search for devices by a text.
struct DeviceSearch<'a> {
    app: &'a App,
    integration: &'a IntegrationId,
    device: &'a str,
}

impl DeviceSearch<'_> {
    /// Finds the devices that the text means: in the tailnet, else in the records.
    async fn find(
        &self,
        devices: &Devices,
        records: &NodeRecords,
        ignored: &IgnoredSerials,
    ) -> Result<FoundDevices, StoreError> {
        let nodes = find_devices(devices, self.device, ignored);
        if !nodes.is_empty() {
            return Ok(FoundDevices {
                nodes,
                ..FoundDevices::default()
            });
        }
        let recorded = self.nodes_in_records(records).await?.into_iter();
        let (nodes, gone) = recorded.partition(|node| devices.contains_key(node));
        Ok(FoundDevices {
            nodes,
            gone,
            are_recorded: true,
        })
    }

    /// Returns the devices to explain. If there are none, the text may be the serial of a host.
    fn subject(&self, found: &FoundDevices, ignored: &IgnoredSerials) -> Subject {
        let serial = Serial::identify(self.device, ignored).ok();
        Subject {
            nodes: found.nodes.iter().take(MAX_DEVICES).cloned().collect(),
            serial: serial.filter(|_| found.nodes.is_empty()),
        }
    }

    async fn explain_live(
        &self,
        context: &ExplainContext<'_>,
        found: FoundDevices,
        mut response: ExplainResponse,
    ) -> Result<ExplainResponse, StoreError> {
        let FoundDevices {
            nodes,
            gone,
            are_recorded,
        } = found;
        let mut messages = Vec::new();
        if are_recorded && !nodes.is_empty() {
            messages.push(
                "No device matches now. By the records, one matched when it was last written."
                    .to_owned(),
            );
        }
        if !gone.is_empty() {
            messages
                .push("The device that matches in the records has left the tailnet.".to_owned());
            let records = &context.snapshot.records;
            response.recorded = self.recorded_devices(records, gone).await?;
        }
        response.omitted = nodes.len().saturating_sub(MAX_DEVICES);
        for node_id in nodes.iter().take(MAX_DEVICES) {
            let history = self.history(node_id).await?;
            response
                .explanations
                .extend(context.explain(node_id, history));
        }
        match nodes.len() {
            0 => messages.extend(self.find_hosts(context, &mut response)),
            1 => {}
            several => messages.push(format!(
                "{several} devices match; use a node id for one of them."
            )),
        }
        if messages.is_empty() && nodes.is_empty() {
            messages.push(self.not_found_message(context.snapshot));
        }
        response.note = (!messages.is_empty()).then(|| messages.join(" "));
        Ok(response)
    }

    /// Adds the hosts with the serial, which no device reports. Returns a message if there are any.
    fn find_hosts(
        &self,
        context: &ExplainContext<'_>,
        response: &mut ExplainResponse,
    ) -> Option<String> {
        let ignored = &context.snapshot.rules.ignored_serials;
        let serial = Serial::identify(self.device, ignored).ok()?;
        (response.hosts, response.hosts_omitted) = context.hosts_with_serial(&serial);
        let hosts = match response.hosts.len() + response.hosts_omitted {
            0 => return None,
            1 => "a host".to_owned(),
            hosts => format!("{hosts} hosts"),
        };
        Some(format!(
            "No device of the tailnet reports the serial number {serial}, but Falcon has {hosts} with it. Check \
             whether the device is in the tailnet and reports its posture identity."
        ))
    }

    fn not_found_message(&self, snapshot: &Snapshot) -> String {
        let (devices, hosts) = (snapshot.devices.len(), snapshot.falcon.hosts.len());
        let no_serial = Serial::identify(self.device, &snapshot.rules.ignored_serials)
            .err()
            .map(|why| format!(" As a serial number it is {why}, so it identifies no machine."))
            .unwrap_or_default();
        format!(
            "No device, host or record matches (searched {devices} devices by node id, name, host name and serial \
             number, and {hosts} Falcon hosts by serial number).{no_serial} Node ids are case-sensitive. Give \
             names in full or without the tailnet's domain."
        )
    }

    async fn explain_from_records(
        &self,
        unavailable: &Unavailable,
        mut response: ExplainResponse,
    ) -> Result<ExplainResponse, StoreError> {
        response.error = Some(unavailable.message(self.integration));
        let records = self.app.store.nodes(self.integration).await?.records;
        let nodes = self.nodes_in_records(&records).await?;
        response.omitted = nodes.len().saturating_sub(MAX_DEVICES);
        response.note = Some(if nodes.is_empty() {
            "There are no records of a device with that node id, name or serial number.".to_owned()
        } else {
            "These are the records. Falcon and the tailnet were not read.".to_owned()
        });
        response.recorded = self.recorded_devices(&records, nodes).await?;
        Ok(response)
    }

    /// Finds devices in the node records, else in the audit records: those outlive the former.
    async fn nodes_in_records(&self, records: &NodeRecords) -> Result<Vec<NodeId>, StoreError> {
        let nodes = find_in_records(records, self.device);
        if !nodes.is_empty() {
            return Ok(nodes);
        }
        let query = AuditQuery {
            integration: Some(self.integration.clone()),
            device: Some(self.device.trim().to_owned()),
            limit: MAX_DEVICES * MAX_CHANGES,
            ..AuditQuery::default()
        };
        let found = self.app.store.search_audit(&query).await?.records;
        let nodes = found
            .into_iter()
            .filter(|record| record.target.kind == TargetKind::Node)
            .map(|record| NodeId(record.target.id.into()));
        Ok(nodes.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn recorded_devices(
        &self,
        records: &NodeRecords,
        nodes: Vec<NodeId>,
    ) -> Result<Vec<RecordedDevice>, StoreError> {
        let mut devices = Vec::new();
        for node_id in nodes.into_iter().take(MAX_DEVICES) {
            let history = self.history(&node_id).await?;
            let written = records.get(&node_id);
            let name = match (written, history.first()) {
                (Some(written), _) => written.name.as_str(),
                (None, Some(record)) => record.target.name.as_str(),
                (None, None) => "",
            };
            devices.push(RecordedDevice {
                name: truncate(name),
                written: written.cloned(),
                history,
                node_id,
            });
        }
        Ok(devices)
    }

    async fn history(&self, node_id: &NodeId) -> Result<Vec<AuditRecord>, StoreError> {
        let (store, id) = (&self.app.store, self.integration);
        store.node_history(id, node_id, MAX_CHANGES).await
    }
}
