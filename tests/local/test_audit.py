"""The audit trail: found again by integration, device and time, exported, and never altered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from local_aws import CommandFailedError, Json
from worlds import World, connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws, Simulators

# The fields of an event in Tailscale's configuration audit log.
TAILSCALE_FIELDS = {
    *("eventTime", "type", "deferredAt", "eventGroupID", "origin", "actor"),
    *("target", "action", "old", "new", "actionDetails"),
}


@pytest.fixture(scope="module")
def world(aws: LocalAws, sims: Simulators) -> Iterator[World]:
    """Yield an integration with some history: three runs, of which the latter two changed one score each."""
    with connected(aws, sims, "book") as world:
        for _ in range(2):
            world.another_score()
            assert world.make("sync")["written"] == 1
        yield world


@pytest.fixture(scope="module")
def trail(world: World) -> list[Json]:
    """Return its audit records, newest first."""
    return world.audit()[::-1]


def found(world: World, **filters: object) -> list[Json]:
    """Return the records that `make audit` finds."""
    records: list[Json] = world.make("audit", **filters)["records"]
    return records


def test_records_come_newest_first_and_in_pages(world: World, trail: list[Json]) -> None:
    assert found(world) == trail
    first = world.make("audit", LIMIT=2)
    second = world.make("audit", LIMIT=3, NEXT=first["next"])
    assert first["records"] + second["records"] == trail[:5]
    last = world.make("audit", LIMIT=100, NEXT=second["next"])
    assert last == {"records": trail[5:]}


def test_a_device_is_found_by_node_id_name_and_serial(world: World, trail: list[Json]) -> None:
    node, record = world.target()
    history = [entry for entry in trail if entry["targetId"] == node]
    assert len(history) == 3
    for device in (node, record["name"], record["name"].partition(".")[0], record["serial"], record["serial"].lower()):
        assert found(world, DEVICE=device) == history
    alone = json.loads(world.aws.make("audit", DEVICE=node))
    assert alone["records"] == history
    assert found(world, DEVICE="""none"such'$(id)""") == []


def test_a_device_is_explained_to_a_person_or_a_program(world: World, trail: list[Json]) -> None:
    node, record = world.target()
    written = [entry["eventTime"] for entry in trail if entry["targetId"] == node]
    for device in (node, record["name"], record["serial"].lower()):
        (explanation,) = world.make("explain", DEVICE=device, FORMAT="json")["explanations"]
        assert (explanation["nodeId"], explanation["score"]) == (node, record["score"])
        assert [entry["eventTime"] for entry in explanation["history"]] == written
        verdict, *chain = world.aws.make("explain", INTEGRATION=world.name, DEVICE=device).splitlines()
        assert verdict == f"{record['name']}: score {record['score']}"
        assert any(line.startswith("  history    ") for line in chain)
    text = world.aws.make("explain", INTEGRATION=world.name, DEVICE="""none"such'$(id)""")
    assert text.startswith("Nothing is known by that: ")
    with pytest.raises(CommandFailedError, match="DEVICE is required, for example DEVICE=bob-pc"):
        world.make("explain")


def test_a_span_of_time_is_found(world: World, trail: list[Json]) -> None:
    newest, middle, *_, oldest = trail
    assert found(world, SINCE=newest["eventTime"]) == [newest]
    assert found(world, SINCE=middle["eventTime"], UNTIL=newest["eventTime"]) == [middle]
    assert found(world, UNTIL=middle["eventTime"]) == trail[2:]
    assert found(world, SINCE=oldest["eventTime"][:10]) == trail
    assert found(world, UNTIL="2020-01-01") == []
    with pytest.raises(CommandFailedError, match="since"):
        found(world, SINCE="yesterday")
    with pytest.raises(CommandFailedError, match="LIMIT: must be JSON"):
        found(world, LIMIT="all")
    with pytest.raises(CommandFailedError, match="INTEGRATION or DEVICE is required"):
        world.aws.make("audit")


def same(event: Json, record: Json) -> bool:
    """Tell whether an exported event is this record."""
    return (
        (event["eventTime"], event["eventGroupID"], event["actor"]["id"])
        == (record["eventTime"], record["runId"], record["actor"])
        and (event["target"]["id"], event["target"]["name"]) == (record["target"]["id"], record["target"]["name"])
        and (event["old"], event["new"]) == (record["old"], record["new"])
    )


def test_the_export_has_each_record_once_in_tailscales_shape(world: World, trail: list[Json]) -> None:
    lines = world.aws.make("audit-export", INTEGRATION=world.name, EXPORT_PAGE=4).splitlines()
    events = [json.loads(line) for line in lines]
    assert all(same(event, record) for event, record in zip(events, trail, strict=True))
    assert {frozenset(event) for event in events} == {frozenset(TAILSCALE_FIELDS)}
    assert {(event["target"]["type"], event["action"]) for event in events} == {
        ("TAILNET", "CREATE"),
        ("NODE", "CREATE"),
        ("NODE", "UPDATE"),
    }
    assert world.aws.make("audit-export", INTEGRATION=world.name, UNTIL="2020-01-01") == ""


def test_the_role_may_read_and_add_records_and_nothing_else(aws: LocalAws) -> None:
    function = aws.client("lambda").get_function_configuration(FunctionName=aws.function)
    table = aws.client("dynamodb").describe_table(TableName=f"{aws.function}-audit")["Table"]["TableArn"]
    operations = ("PutItem", "Query", "UpdateItem", "DeleteItem", "Scan", "BatchWriteItem", "PartiQLDelete")
    decided = {
        resource: aws.client("iam").simulate_principal_policy(
            PolicySourceArn=function["Role"],
            ActionNames=[f"dynamodb:{operation}" for operation in operations],
            ResourceArns=[resource],
        )["EvaluationResults"]
        for resource in (table, f"{table}/index/target")
    }
    allowed = {
        resource: {result["EvalActionName"] for result in results if result["EvalDecision"] == "allowed"}
        for resource, results in decided.items()
    }
    assert allowed[table] == {"dynamodb:PutItem", "dynamodb:Query"}
    assert "dynamodb:Query" in allowed[f"{table}/index/target"]
    assert not allowed[f"{table}/index/target"] & {"dynamodb:UpdateItem", "dynamodb:DeleteItem"}
