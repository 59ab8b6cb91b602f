"""Each file of events/, as a person would send it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from local_aws import EVENTS, Json, event, wait_until
from worlds import World, load, unload

if TYPE_CHECKING:
    from local_aws import LocalAws, Simulators

# What each is answered with, in an order in which all of them make sense; of a text, how it begins.
ANSWERS: dict[str, Json | str] = {
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


def settle(world: World) -> None:
    """Wait until no run of it is under way or due."""

    def settled() -> bool:
        item = world.aws.integrations().get(world.name, {"configVersion": None})
        return "lease" not in item and item.get("status", {}).get("configVersion") == item["configVersion"]

    wait_until("the runs of corp", settled)


def send(world: World, name: str) -> Json:
    """Send a payload file when nothing else is under way."""
    settle(world)
    if name == "remove":
        world.aws.invoke(event("connect"))
        settle(world)
    return world.aws.invoke(event(name))


def part(answer: Json | str, told: Json | str) -> Json | str:
    """Of an answer what is told of it."""
    if isinstance(told, str):
        return answer[: len(told)]
    return {field: answer.get(field) for field in told}


def test_every_payload_file_is_answered(aws: LocalAws, sims: Simulators) -> None:
    assert sorted(ANSWERS) == sorted(file.stem for file in EVENTS.glob("*.json"))
    load(aws, sims, "corp", "us-2", {"seed": 21, "hosts": 24, "devices": 12})
    scored = next(host for host in sims.hosts("corp") if host["device_id"] in sims.scores("corp"))
    node, device = event("audit-device")["device"], {"postureIdentity": {"serialNumbers": [scored["serial_number"]]}}
    sims.ask("PUT", f"/tailscale/tailnets/corp/devices/{node}", device)
    world = World(aws, sims, "corp", {})
    try:
        # One by the tool that the README names, the others as it would send them.
        answers = {"connect": json.loads(aws.make("connect", CONFIG=EVENTS / "connect.json"))}
        answers |= {name: send(world, name) for name in ANSWERS if name != "connect"}
    finally:
        unload(aws, sims, "corp")
    assert {name: part(answers[name], told) for name, told in ANSWERS.items()} == ANSWERS
    assert not [name for name, answer in answers.items() if "error" in answer]

    assert [one["id"] for one in answers["status"]["integrations"]] == ["corp"]
    assert len(answers["audit"]["records"]) <= event("audit")["limit"]
    (record,) = answers["audit-device"]["records"]
    assert (record["target"]["id"], record["details"]["aid"]) == (node, scored["device_id"])
    exported = [entry["target"]["type"] for entry in answers["audit-export"]["records"]]
    assert exported.count("TAILNET") >= 2
