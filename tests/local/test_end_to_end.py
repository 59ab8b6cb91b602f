"""The deployed function, with its templates, events, binary and the enforced policy of its role."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from integrations import KEY, Integration, clean_up, create_accounts, statuses, wait_for_run
from local_aws import EVENTS, CommandFailedError, FunctionError, Json, event
from oracle import expected_scores, serial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws, Simulators

EDGE_CASES = {
    "overlap": 0.7,
    "duplicate_serial": 0.15,
    "multi_serial": 0.3,
    "placeholder_serial": 0.15,
    "unassessed": 0.1,
    "external": 0.1,
    "several_nodes": 0.1,
    "odd_spelling": 0.4,
}
INTEGRATIONS = {
    "corp": ("us-2", {"seed": 11, "hosts": 200, "devices": 80, **EDGE_CASES}),
    "labs": ("us-1", {"seed": 12, "hosts": 40, "devices": 20}),
    "shop": ("us-1", {"seed": 13, "hosts": 30, "devices": 15}),
}


@dataclass
class FirstSyncs:
    """The state after the first syncs, before any test changes it."""

    secrets: list[str]
    attributes: dict[str, dict[str, int]]
    expected: dict[str, dict[str, int]]
    changes: dict[str, list[Json]]
    nodes: dict[str, dict[str, Json]]
    audit: dict[str, list[Json]]
    integrations: dict[str, Json]
    log: list[str]


@pytest.fixture(scope="module")
def first_syncs(aws: LocalAws, sims: Simulators) -> Iterator[FirstSyncs]:
    """Connect three integrations, one by a payload of events/ and two by `make`, and wait for their first syncs."""
    secrets = []
    for name, (cloud, spec) in INTEGRATIONS.items():
        secrets += [side["clientSecret"] for side in create_accounts(aws, sims, name, cloud, spec).values()]
    add_devices_with_several_serials(sims)
    log_start = len(aws.function_log())
    connect = event("connect")
    # Several nodes of this tailnet report one serial number each.
    connect["integration"]["onSharedSerial"] = "lowest"
    aws.invoke(connect)
    for name in ("labs", "shop"):
        aws.make("connect", INTEGRATION=name, CLOUD=INTEGRATIONS[name][0])
    for name in INTEGRATIONS:
        wait_for_run(aws, name, {})
    yield FirstSyncs(
        secrets=secrets,
        attributes={name: sims.attributes(name) for name in INTEGRATIONS},
        expected={
            name: expected_scores(sims.hosts(name), sims.scores(name), sims.devices(name)) for name in INTEGRATIONS
        },
        changes={name: sims.changes(name) for name in INTEGRATIONS},
        nodes={name: aws.nodes(name) for name in INTEGRATIONS},
        audit={name: aws.audit(name) for name in INTEGRATIONS},
        integrations=aws.integrations(),
        log=aws.function_log()[log_start:],
    )
    for name in INTEGRATIONS:
        clean_up(aws, sims, name)


def add_devices_with_several_serials(sims: Simulators) -> None:
    """Add devices to corp that the generator does not make: the matching serial is the second, or two serials match."""
    scores = sims.scores("corp")
    # A first score needs a sensor that was seen lately.
    hosts = sorted(sims.hosts("corp"), key=lambda host: host["last_seen"])[-60:]
    by_score = {
        scores[host["device_id"]]: serial(host.get("serial_number", ""))
        for host in hosts
        if host["device_id"] in scores
    }
    serials = [number for _, number in sorted(by_score.items()) if number]
    lowest, highest = serials[0], serials[-1]
    for node, numbers in {
        "nSecondCNTRL": ["Default string", f" {highest.title()} "],
        "nLowestFirstCNTRL": [lowest, highest],
        "nHighestFirstCNTRL": [highest, "0", lowest],
    }.items():
        device = {"hostname": node, "os": "", "postureIdentity": {"serialNumbers": numbers}}
        sims.call("PUT", f"/tailscale/tailnets/corp/devices/{node}", device)


def device_with_own_host(aws: LocalAws, sims: Simulators, name: str) -> tuple[str, Json]:
    """Return the node id and record of a device that shares its Falcon host with no other device."""
    return Integration(aws, sims, name, {}).device_with_own_host()


def count_writes(sims: Simulators) -> int:
    """Count the write requests to Tailscale."""
    return len(sims.writes())


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_the_first_sync_gives_every_device_its_score(first_syncs: FirstSyncs, name: str) -> None:
    assert first_syncs.attributes[name]
    assert first_syncs.attributes[name] == first_syncs.expected[name]
    assert first_syncs.integrations[name]["status"]["outcome"] == "synced"


def test_the_data_contains_all_edge_cases(first_syncs: FirstSyncs, sims: Simulators) -> None:
    findings = first_syncs.integrations["corp"]["status"]["findings"]
    kinds = {finding["kind"] for finding in findings}
    assert kinds >= {"noIdentity", "unmatched", "unassessed", "placeholderSerials", "sharedSerials"}
    assert any(device["isExternal"] for device in sims.devices("corp").values())
    devices = Counter(record["aid"] for record in first_syncs.nodes["corp"].values())
    assert max(devices.values()) > 1
    scores = first_syncs.expected["corp"]
    assert scores["nLowestFirstCNTRL"] == scores["nHighestFirstCNTRL"] < scores["nSecondCNTRL"]


def test_events_started_the_first_syncs(first_syncs: FirstSyncs) -> None:
    """Each integration had a run, and the schedule requested none of them."""
    assert not any("requested a sync" in line for line in first_syncs.log)
    runs = [first_syncs.integrations[name]["status"]["runId"] for name in INTEGRATIONS]
    assert len(set(runs)) == len(INTEGRATIONS)


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_each_change_has_exactly_one_audit_record(first_syncs: FirstSyncs, name: str) -> None:
    created, *updated = first_syncs.audit[name]
    assert (created["action"], created["target"]["type"]) == ("Create posture integration", "Integration")
    assert Counter(
        (record["action"], record["target"]["type"], record["target"]["id"], record["old"], record["new"][KEY])
        for record in updated
    ) == Counter(
        ("Update node attribute", "Node", change["node_id"], change["old"], change["new"])
        for change in first_syncs.changes[name]
        if change["key"] == KEY
    )


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_the_node_records_equal_the_attributes_of_the_devices(first_syncs: FirstSyncs, name: str) -> None:
    recorded = {node: (record["attributeKey"], record["score"]) for node, record in first_syncs.nodes[name].items()}
    assert recorded == {node: (KEY, score) for node, score in first_syncs.attributes[name].items()}


@pytest.mark.usefixtures("first_syncs")
def test_a_forced_sync_writes_a_changed_score_and_a_second_one_writes_nothing(aws: LocalAws, sims: Simulators) -> None:
    node, record = device_with_own_host(aws, sims, "corp")
    sims.set_score("corp", record["aid"], 1)
    before = len(aws.audit("corp"))

    response = json.loads(aws.make("sync", INTEGRATION="corp", FORCE=1))
    assert (response["integration"], response["outcome"]) == ("corp", "synced")
    assert (response["written"], response["removed"]) == (1, 0)
    assert sims.attributes("corp")[node] == 1
    *_, newest = audit = aws.audit("corp")
    assert len(audit) == before + 1
    assert (newest["runId"], newest["new"]) == (response["runId"], {KEY: 1})

    writes = count_writes(sims)
    response = json.loads(aws.make("sync", INTEGRATION="corp", FORCE=1))
    assert (response["outcome"], response["written"]) == ("unchanged", 0)
    assert (count_writes(sims), len(aws.audit("corp"))) == (writes, before + 1)


@pytest.mark.usefixtures("first_syncs")
def test_a_dry_run_returns_the_plan_and_writes_nothing(aws: LocalAws, sims: Simulators) -> None:
    node, record = device_with_own_host(aws, sims, "labs")
    sims.set_score("labs", record["aid"], 2)
    before = aws.integrations()["labs"], aws.nodes("labs"), aws.audit("labs"), count_writes(sims)

    response = json.loads(aws.make("sync", INTEGRATION="labs", DRY_RUN=1))
    assert (response["outcome"], [change["nodeId"] for change in response["plan"]]) == ("planned", [node])
    assert (aws.integrations()["labs"], aws.nodes("labs"), aws.audit("labs"), count_writes(sims)) == before


@pytest.mark.usefixtures("first_syncs")
def test_a_failed_sync_is_recorded_and_make_sync_fails(aws: LocalAws, sims: Simulators) -> None:
    fault = {"side": "falcon", "path_prefix": "/devices", "times": None, "kind": {"status": {"code": 400}}}
    sims.call("POST", "/faults", fault)
    try:
        with pytest.raises(CommandFailedError) as failure:
            aws.make("sync", INTEGRATION="shop")
    finally:
        sims.call("DELETE", "/faults")
    response = json.loads(failure.value.stdout)
    assert response["outcome"] == "failed"
    status = aws.integrations()["shop"]["status"]
    assert (status["outcome"], status["runId"], status["error"]) == ("failed", response["runId"], response["error"])


@pytest.mark.usefixtures("first_syncs")
def test_status_shows_all_integrations_or_one(aws: LocalAws) -> None:
    views = json.loads(aws.make("status", FORMAT="json"))["integrations"]
    assert [view["id"] for view in views] == list(INTEGRATIONS)
    corp = json.loads(aws.make("status", INTEGRATION="corp", FORMAT="json"))
    assert corp == views[0]
    assert (corp["cloudId"], corp["attributeKey"], corp["overdue"]) == ("us-2", KEY, False)
    assert (corp["status"]["providerHostCount"], corp["configUpdatedBy"]) == (200, "admin@example.com")


@pytest.mark.usefixtures("first_syncs")
def test_a_sync_of_several_integrations_starts_a_run_for_each(aws: LocalAws) -> None:
    before = statuses(aws)
    assert aws.invoke(event("sync")) == {"requested": list(INTEGRATIONS)}
    after = {name: wait_for_run(aws, name, before) for name in INTEGRATIONS}
    runs = [status["runId"] for status in after.values()]
    assert len(set(runs)) == len(INTEGRATIONS)
    assert all(status["lastSync"] > before[name]["lastSync"] for name, status in after.items())
    assert {status["outcome"] for status in after.values()} <= {"synced", "unchanged"}


@pytest.mark.usefixtures("first_syncs")
def test_the_schedule_writes_a_changed_score_and_then_nothing(aws: LocalAws, sims: Simulators) -> None:
    node, record = device_with_own_host(aws, sims, "corp")
    score = 0 if record["score"] else 3
    before = statuses(aws)
    sims.set_score("corp", record["aid"], score)
    aws.set_schedule_state("ENABLED")
    try:
        first = {name: wait_for_run(aws, name, before, seconds=180) for name in INTEGRATIONS}
        assert sims.attributes("corp")[node] == score
        assert aws.nodes("corp")[node]["runId"] == first["corp"]["runId"]
        writes, audit = count_writes(sims), aws.table("audit")

        second = {name: wait_for_run(aws, name, first, seconds=180) for name in INTEGRATIONS}
    finally:
        aws.set_schedule_state("DISABLED")
    assert {status["outcome"] for status in second.values()} == {"unchanged"}
    assert count_writes(sims) == writes
    assert aws.table("audit") == audit
    assert sum("requested a sync of each of 3" in line for line in aws.function_log()) >= 2


@pytest.mark.parametrize("payload", [{"command": "sink"}, {"detail-type": "Object Created"}, [], "sync", 7, {}])
def test_an_unsupported_payload_is_rejected_with_the_list_of_commands(aws: LocalAws, payload: Json) -> None:
    with pytest.raises(FunctionError) as error:
        aws.invoke(payload)
    assert error.value.type == "BadInput"
    commands = {event(file.stem).get("command", "sync") for file in EVENTS.glob("*.json")}
    assert [command for command in commands if f'"{command}"' not in str(error.value)] == []


def test_an_unknown_cloud_is_rejected_with_the_list_of_clouds(aws: LocalAws) -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)integration\.cloudId.*us-9.*us-1.*us-2"):
        aws.make("connect", INTEGRATION="lost", CLOUD="us-9")
    assert "lost" not in aws.integrations()


def test_the_log_contains_no_secret(first_syncs: FirstSyncs, aws: LocalAws) -> None:
    log = "\n".join(aws.function_log())
    assert "corp is synced" in log
    assert len(first_syncs.secrets) == 2 * len(INTEGRATIONS)
    assert not [secret for secret in first_syncs.secrets if secret in log]
