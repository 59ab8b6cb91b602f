"""Sends each payload of events/ to the function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from integrations import Integration, clean_up, create_accounts
from local_aws import EVENTS, Json, event, wait_until

if TYPE_CHECKING:
    from local_aws import LocalAws, Simulators

# The expected fields of each response, or the start of a text response. The payloads are sent in this order.
RESPONSES: dict[str, Json | str] = {
    "connect": {"integration": "corp", "configVersion": 1},
    "integration-changed": {"integration": "corp", "outcome": "unchanged"},
    "sync": {"integration": "corp", "outcome": "unchanged"},
    "sync-one": {"integration": "corp", "outcome": "unchanged"},
    "sync-dry-run": {"integration": "corp", "outcome": "planned", "plan": []},
    "sync-force": {"integration": "corp", "outcome": "unchanged"},
    "sync-requested": {"integration": "corp", "outcome": "unchanged"},
    "status": {},
    "status-one": {"id": "corp", "configVersion": 1, "overdue": False},
    "check": {"integration": "corp", "ok": True},
    "update": {"integration": "corp", "configVersion": 2, "changed": ["maxHostAgeDays"]},
    "secret-label-updated": {"integration": "corp", "outcome": "unchanged"},
    "secret-put": {"integration": "corp", "outcome": "unchanged"},
    "secret-rotated": {"integration": "corp", "outcome": "unchanged"},
    "explain": {"integration": "corp", "explanations": []},
    "preview": {"integration": "corp"},
    "preview-policy": {"integration": "corp", "previews": []},
    "audit": {},
    "audit-device": {},
    "audit-export": {},
    "widget": "<",
    "widget-describe": "## Falcon posture sync",
    "remove-keep": {"integration": "corp", "removed": True, "attributes": "keep"},
    "remove": {"integration": "corp", "removed": True, "attributes": "delete"},
}


def wait_until_idle(integration: Integration) -> None:
    """Wait until no run of the integration is active or due."""

    def idle() -> bool:
        item = integration.aws.integrations().get(integration.name, {"configVersion": None})
        return "lease" not in item and item.get("status", {}).get("configVersion") == item["configVersion"]

    wait_until("the end of the runs of corp", idle)


def send(integration: Integration, name: str) -> Json:
    """Send a payload file while no run is active."""
    wait_until_idle(integration)
    if name == "remove":
        integration.aws.invoke(event("connect"))
        wait_until_idle(integration)
    return integration.aws.invoke(event(name))


def expected_part(response: Json | str, expected: Json | str) -> Json | str:
    """Return the fields or the start of a response that the expected response has."""
    if isinstance(expected, str):
        return response[: len(expected)]
    return {field: response.get(field) for field in expected}


def test_each_payload_file_gets_its_response(aws: LocalAws, sims: Simulators) -> None:
    assert sorted(RESPONSES) == sorted(file.stem for file in EVENTS.glob("*.json"))
    create_accounts(aws, sims, "corp", "us-2", {"seed": 21, "hosts": 24, "devices": 12})
    scores = sims.scores("corp")
    scored = max(
        (host for host in sims.hosts("corp") if host["device_id"] in scores), key=lambda host: host["last_seen"]
    )
    node, identity = event("audit-device")["device"], {"serialNumbers": [scored["serial_number"]]}
    device = {"hostname": scored["hostname"], "os": "", "postureIdentity": identity}
    sims.call("PUT", f"/tailscale/tailnets/corp/devices/{node}", device)
    integration = Integration(aws, sims, "corp", {})
    try:
        # `make connect` sends the first payload, as a user would. The others are sent directly.
        responses = {"connect": json.loads(aws.make("connect", CONFIG=EVENTS / "connect.json"))}
        responses |= {name: send(integration, name) for name in RESPONSES if name != "connect"}
    finally:
        clean_up(aws, sims, "corp")
    assert {name: expected_part(responses[name], expected) for name, expected in RESPONSES.items()} == RESPONSES
    assert not [name for name, response in responses.items() if "error" in response]

    assert [view["id"] for view in responses["status"]["integrations"]] == ["corp"]
    assert len(responses["audit"]["records"]) <= event("audit")["limit"]
    (record,) = responses["audit-device"]["records"]
    assert (record["target"]["id"], record["details"]["aid"]) == (node, scored["device_id"])
    exported = [entry["target"]["type"] for entry in responses["audit-export"]["records"]]
    assert exported.count("TAILNET") >= 2
