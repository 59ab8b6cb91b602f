"""The function as it is deployed: real templates, real events, the real binary, the role's policy in force."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from local_aws import EVENTS, CommandFailedError, FunctionError, Json, event
from oracle import expected, serial
from worlds import KEY, World, load, statuses, unload, wait_for_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws, Simulators

TRAPS = {
    "overlap": 0.7,
    "duplicate_serial": 0.15,
    "multi_serial": 0.3,
    "placeholder_serial": 0.15,
    "unassessed": 0.1,
    "external": 0.1,
    "several_nodes": 0.1,
    "odd_spelling": 0.4,
}
WORLDS = {
    "corp": ("us-2", {"seed": 11, "hosts": 200, "devices": 80, **TRAPS}),
    "labs": ("us-1", {"seed": 12, "hosts": 40, "devices": 20}),
    "shop": ("us-1", {"seed": 13, "hosts": 30, "devices": 15}),
}


@dataclass
class Connected:
    """What there was after the first syncs, before any test did something."""

    secrets: list[str]
    attributes: dict[str, dict[str, int]]
    expected: dict[str, dict[str, int]]
    changes: dict[str, list[Json]]
    nodes: dict[str, dict[str, Json]]
    audit: dict[str, list[Json]]
    integrations: dict[str, Json]
    log: list[str]


@pytest.fixture(scope="module")
def connected(aws: LocalAws, sims: Simulators) -> Iterator[Connected]:
    """Connect three integrations, one by a payload of events/, two by `make`, and wait for their first syncs."""
    secrets = []
    for name, (cloud, spec) in WORLDS.items():
        secrets += [side["clientSecret"] for side in load(aws, sims, name, cloud, spec).values()]
    add_devices_of_several_machines(sims)
    log = len(aws.function_log())
    aws.invoke(event("connect"))
    for name in ("labs", "shop"):
        aws.make("connect", INTEGRATION=name, CLOUD=WORLDS[name][0])
    for name in WORLDS:
        wait_for_run(aws, name, {})
    yield Connected(
        secrets=secrets,
        attributes={name: sims.attributes(name) for name in WORLDS},
        expected={name: expected(sims.hosts(name), sims.scores(name), sims.devices(name)) for name in WORLDS},
        changes={name: sims.changes(name) for name in WORLDS},
        nodes={name: aws.nodes(name) for name in WORLDS},
        audit={name: aws.audit(name) for name in WORLDS},
        integrations=aws.integrations(),
        log=aws.function_log()[log:],
    )
    for name in WORLDS:
        unload(aws, sims, name)


def add_devices_of_several_machines(sims: Simulators) -> None:
    """Put devices into corp that the generator does not make: the right serial is not the first, or there are two."""
    scores = sims.scores("corp")
    by_score = {
        scores[host["device_id"]]: serial(host.get("serial_number", ""))
        for host in sims.hosts("corp")[:100]
        if host["device_id"] in scores
    }
    serials = [found for _, found in sorted(by_score.items()) if found]
    worst, best = serials[0], serials[-1]
    for node, numbers in {
        "nSecondCNTRL": ["Default string", f" {best.title()} "],
        "nWorstFirstCNTRL": [worst, best],
        "nBestFirstCNTRL": [best, "0", worst],
    }.items():
        device = {"hostname": node, "postureIdentity": {"serialNumbers": numbers}}
        sims.ask("PUT", f"/tailscale/tailnets/corp/devices/{node}", device)


def target(aws: LocalAws, sims: Simulators, name: str) -> tuple[str, Json]:
    """Return the node record of a device whose Falcon host is no other device's."""
    return World(aws, sims, name, {}).target()


def seen_writes(sims: Simulators) -> int:
    """Count the requests so far that would write to Tailscale."""
    return len(sims.writes())


@pytest.mark.parametrize("name", WORLDS)
def test_connecting_brings_every_device_its_score(connected: Connected, name: str) -> None:
    assert connected.attributes[name]
    assert connected.attributes[name] == connected.expected[name]
    assert connected.integrations[name]["status"]["outcome"] == "synced"


def test_the_world_has_the_traps_that_the_oracle_is_about(connected: Connected, sims: Simulators) -> None:
    findings = connected.integrations["corp"]["status"]["findings"]
    kinds = {finding["kind"] for finding in findings}
    assert kinds >= {"noIdentity", "unmatched", "unassessed", "placeholderSerials", "sharedSerials"}
    assert any(device["isExternal"] for device in sims.devices("corp").values())
    sensors = Counter(record["aid"] for record in connected.nodes["corp"].values())
    assert max(sensors.values()) > 1
    scores = connected.expected["corp"]
    assert scores["nWorstFirstCNTRL"] == scores["nBestFirstCNTRL"] < scores["nSecondCNTRL"]


def test_the_events_did_it(connected: Connected) -> None:
    """Nothing but the connections' own events asked for a sync."""
    assert not any("requested a sync" in line for line in connected.log)
    runs = [connected.integrations[name]["status"]["runId"] for name in WORLDS]
    assert len(set(runs)) == len(WORLDS)


@pytest.mark.parametrize("name", WORLDS)
def test_each_change_has_exactly_one_audit_record(connected: Connected, name: str) -> None:
    created, *updated = connected.audit[name]
    assert (created["action"], created["target"]["type"]) == ("Create posture integration", "Integration")
    assert Counter(
        (record["action"], record["target"]["type"], record["target"]["id"], record["old"], record["new"][KEY])
        for record in updated
    ) == Counter(
        ("Update node attribute", "Node", change["node_id"], change["old"], change["new"])
        for change in connected.changes[name]
        if change["key"] == KEY
    )


@pytest.mark.parametrize("name", WORLDS)
def test_the_node_records_are_what_the_devices_have(connected: Connected, name: str) -> None:
    recorded = {node: (record["attributeKey"], record["score"]) for node, record in connected.nodes[name].items()}
    assert recorded == {node: (KEY, score) for node, score in connected.attributes[name].items()}


@pytest.mark.usefixtures("connected")
def test_a_forced_sync_carries_a_score_at_once_and_a_second_one_nothing(aws: LocalAws, sims: Simulators) -> None:
    node, record = target(aws, sims, "corp")
    sims.set_score("corp", record["aid"], 1)
    before = len(aws.audit("corp"))

    answer = json.loads(aws.make("sync", INTEGRATION="corp", FORCE=1))
    assert (answer["integration"], answer["outcome"], answer["written"], answer["removed"]) == ("corp", "synced", 1, 0)
    assert sims.attributes("corp")[node] == 1
    *_, newest = audit = aws.audit("corp")
    assert len(audit) == before + 1
    assert (newest["runId"], newest["new"]) == (answer["runId"], {KEY: 1})

    writes = seen_writes(sims)
    answer = json.loads(aws.make("sync", INTEGRATION="corp", FORCE=1))
    assert (answer["outcome"], answer["written"]) == ("unchanged", 0)
    assert (seen_writes(sims), len(aws.audit("corp"))) == (writes, before + 1)


@pytest.mark.usefixtures("connected")
def test_a_dry_run_answers_the_plan_and_writes_nothing(aws: LocalAws, sims: Simulators) -> None:
    node, record = target(aws, sims, "labs")
    sims.set_score("labs", record["aid"], 2)
    before = aws.integrations()["labs"], aws.nodes("labs"), aws.audit("labs"), seen_writes(sims)

    answer = json.loads(aws.make("sync", INTEGRATION="labs", DRY_RUN=1))
    assert (answer["outcome"], [change["nodeId"] for change in answer["plan"]]) == ("planned", [node])
    assert (aws.integrations()["labs"], aws.nodes("labs"), aws.audit("labs"), seen_writes(sims)) == before


@pytest.mark.usefixtures("connected")
def test_a_failed_sync_is_recorded_and_make_sync_fails(aws: LocalAws, sims: Simulators) -> None:
    refusal = {"side": "falcon", "path_prefix": "/devices", "times": None, "kind": {"status": {"code": 400}}}
    sims.ask("POST", "/faults", refusal)
    try:
        with pytest.raises(CommandFailedError) as failure:
            aws.make("sync", INTEGRATION="shop")
    finally:
        sims.ask("DELETE", "/faults")
    answer = json.loads(failure.value.printed)
    assert answer["outcome"] == "failed"
    status = aws.integrations()["shop"]["status"]
    assert (status["outcome"], status["runId"], status["error"]) == ("failed", answer["runId"], answer["error"])


@pytest.mark.usefixtures("connected")
def test_status_shows_what_was_done(aws: LocalAws) -> None:
    shown = json.loads(aws.make("status", FORMAT="json"))["integrations"]
    assert [one["id"] for one in shown] == list(WORLDS)
    one = json.loads(aws.make("status", INTEGRATION="corp", FORMAT="json"))
    assert one == shown[0]
    assert (one["cloudId"], one["attributeKey"], one["overdue"]) == ("us-2", KEY, False)
    assert (one["status"]["providerHostCount"], one["configUpdatedBy"]) == (200, "admin@example.com")


@pytest.mark.usefixtures("connected")
def test_a_sync_of_several_integrations_is_a_run_for_each(aws: LocalAws) -> None:
    before = statuses(aws)
    assert aws.invoke(event("sync")) == {"requested": list(WORLDS)}
    after = {name: wait_for_run(aws, name, before) for name in WORLDS}
    runs = [status["runId"] for status in after.values()]
    assert len(set(runs)) == len(WORLDS)
    assert all(status["lastSync"] > before[name]["lastSync"] for name, status in after.items())
    assert {status["outcome"] for status in after.values()} <= {"synced", "unchanged"}


@pytest.mark.usefixtures("connected")
def test_the_schedule_carries_a_changed_score_and_then_finds_nothing_to_do(aws: LocalAws, sims: Simulators) -> None:
    node, record = target(aws, sims, "corp")
    score = 0 if record["score"] else 3
    before = statuses(aws)
    sims.set_score("corp", record["aid"], score)
    aws.switch_schedule("ENABLED")
    try:
        first = {name: wait_for_run(aws, name, before, seconds=180) for name in WORLDS}
        assert sims.attributes("corp")[node] == score
        assert aws.nodes("corp")[node]["runId"] == first["corp"]["runId"]
        writes, audit = seen_writes(sims), aws.table("audit")

        second = {name: wait_for_run(aws, name, first, seconds=180) for name in WORLDS}
    finally:
        aws.switch_schedule("DISABLED")
    assert {status["outcome"] for status in second.values()} == {"unchanged"}
    assert seen_writes(sims) == writes
    assert aws.table("audit") == audit
    assert sum("requested a sync of each of 3" in line for line in aws.function_log()) >= 2


@pytest.mark.parametrize("payload", [{"command": "sink"}, {"detail-type": "Object Created"}, [], "sync", 7, {}])
def test_a_payload_that_is_none_is_told_what_is_accepted(aws: LocalAws, payload: Json) -> None:
    with pytest.raises(FunctionError) as error:
        aws.invoke(payload)
    assert error.value.type == "BadInput"
    commands = {event(file.stem).get("command", "sync") for file in EVENTS.glob("*.json")}
    assert [command for command in commands if f'"{command}"' not in str(error.value)] == []


def test_a_cloud_that_does_not_exist_is_refused_with_the_list(aws: LocalAws) -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)integration\.cloudId.*us-9.*us-1.*us-2"):
        aws.make("connect", INTEGRATION="lost", CLOUD="us-9")
    assert "lost" not in aws.integrations()


def test_no_secret_is_in_the_log(connected: Connected, aws: LocalAws) -> None:
    log = "\n".join(aws.function_log())
    assert "corp is synced" in log
    assert len(connected.secrets) == 2 * len(WORLDS)
    assert not [secret for secret in connected.secrets if secret in log]
