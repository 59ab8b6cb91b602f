"""The audit trail: filtered by integration, device and time, exported, and append-only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from integrations import Integration, connected
from local_aws import CommandFailedError, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws, Simulators

# The fields of an event in Tailscale's configuration audit log.
TAILSCALE_FIELDS = {
    *("eventTime", "type", "deferredAt", "eventGroupID", "origin", "actor"),
    *("target", "action", "old", "new", "actionDetails"),
}


@pytest.fixture(scope="module")
def integration(aws: LocalAws, sims: Simulators) -> Iterator[Integration]:
    """Yield an integration with three runs. The second and the third changed one score each."""
    with connected(aws, sims, "book") as integration:
        for _ in range(2):
            integration.change_score()
            assert integration.make("sync")["written"] == 1
        yield integration


@pytest.fixture(scope="module")
def trail(integration: Integration) -> list[Json]:
    """Return the audit records of the integration, newest first."""
    return integration.audit()[::-1]


def find_records(integration: Integration, **filters: object) -> list[Json]:
    """Return the records that `make audit` prints."""
    records: list[Json] = integration.make("audit", **filters)["records"]
    return records


def test_records_are_listed_newest_first_and_in_pages(integration: Integration, trail: list[Json]) -> None:
    assert find_records(integration) == trail
    first = integration.make("audit", LIMIT=2)
    second = integration.make("audit", LIMIT=3, NEXT=first["next"])
    assert first["records"] + second["records"] == trail[:5]
    last = integration.make("audit", LIMIT=100, NEXT=second["next"])
    assert last == {"records": trail[5:]}


def test_records_of_a_device_are_found_by_node_id_name_and_serial(integration: Integration, trail: list[Json]) -> None:
    node, record = integration.device_with_own_host()
    history = [entry for entry in trail if entry["targetId"] == node]
    assert len(history) == 3
    for device in (node, record["name"], record["name"].partition(".")[0], record["serial"], record["serial"].lower()):
        assert find_records(integration, DEVICE=device) == history
    by_node = json.loads(integration.aws.make("audit", DEVICE=node))
    assert by_node["records"] == history
    assert find_records(integration, DEVICE="""none"such'$(id)""") == []


def test_a_device_is_explained_as_text_and_as_json(integration: Integration, trail: list[Json]) -> None:
    node, record = integration.device_with_own_host()
    written = [entry["eventTime"] for entry in trail if entry["targetId"] == node]
    for device in (node, record["name"], record["serial"].lower()):
        (explanation,) = integration.make("explain", DEVICE=device, FORMAT="json")["explanations"]
        assert (explanation["nodeId"], explanation["score"]) == (node, record["score"])
        assert [entry["eventTime"] for entry in explanation["history"]] == written
        verdict, *details = integration.aws.make("explain", INTEGRATION=integration.name, DEVICE=device).splitlines()
        assert verdict == f"{record['name']}: score {record['score']}"
        assert any(line.startswith("  history    ") for line in details)
    text = integration.aws.make("explain", INTEGRATION=integration.name, DEVICE="""none"such'$(id)""")
    assert text.startswith("No device, host or record matches ")
    with pytest.raises(CommandFailedError, match="DEVICE is required, for example DEVICE=bob-pc"):
        integration.make("explain")


def test_records_are_filtered_by_time(integration: Integration, trail: list[Json]) -> None:
    newest, middle, *_, oldest = trail
    assert find_records(integration, SINCE=newest["eventTime"]) == [newest]
    assert find_records(integration, SINCE=middle["eventTime"], UNTIL=newest["eventTime"]) == [middle]
    assert find_records(integration, UNTIL=middle["eventTime"]) == trail[2:]
    assert find_records(integration, SINCE=oldest["eventTime"][:10]) == trail
    assert find_records(integration, UNTIL="2020-01-01") == []
    with pytest.raises(CommandFailedError, match="since"):
        find_records(integration, SINCE="yesterday")
    with pytest.raises(CommandFailedError, match="LIMIT: must be JSON"):
        find_records(integration, LIMIT="all")
    with pytest.raises(CommandFailedError, match="INTEGRATION or DEVICE is required"):
        integration.aws.make("audit")


def is_same(event: Json, record: Json) -> bool:
    """Return whether an exported event is this record."""
    return (
        (event["eventTime"], event["eventGroupID"], event["actor"]["id"])
        == (record["eventTime"], record["runId"], record["actor"])
        and (event["target"]["id"], event["target"]["name"]) == (record["target"]["id"], record["target"]["name"])
        and (event["old"], event["new"]) == (record["old"], record["new"])
    )


def test_the_export_has_each_record_once_in_tailscales_format(integration: Integration, trail: list[Json]) -> None:
    lines = integration.aws.make("audit-export", INTEGRATION=integration.name, EXPORT_PAGE=4).splitlines()
    events = [json.loads(line) for line in lines]
    assert all(is_same(event, record) for event, record in zip(events, trail, strict=True))
    assert {frozenset(event) for event in events} == {frozenset(TAILSCALE_FIELDS)}
    assert {(event["target"]["type"], event["action"]) for event in events} == {
        ("TAILNET", "CREATE"),
        ("NODE", "CREATE"),
        ("NODE", "UPDATE"),
    }
    assert integration.aws.make("audit-export", INTEGRATION=integration.name, UNTIL="2020-01-01") == ""


def test_the_role_may_only_read_and_add_records(aws: LocalAws) -> None:
    function = aws.client("lambda").get_function_configuration(FunctionName=aws.function)
    table = aws.client("dynamodb").describe_table(TableName=f"{aws.function}-audit")["Table"]["TableArn"]
    operations = ("PutItem", "Query", "UpdateItem", "DeleteItem", "Scan", "BatchWriteItem", "PartiQLDelete")
    results_by_resource = {
        resource: aws.client("iam").simulate_principal_policy(
            PolicySourceArn=function["Role"],
            ActionNames=[f"dynamodb:{operation}" for operation in operations],
            ResourceArns=[resource],
        )["EvaluationResults"]
        for resource in (table, f"{table}/index/target")
    }
    allowed = {
        resource: {result["EvalActionName"] for result in results if result["EvalDecision"] == "allowed"}
        for resource, results in results_by_resource.items()
    }
    assert allowed[table] == {"dynamodb:PutItem", "dynamodb:Query"}
    assert "dynamodb:Query" in allowed[f"{table}/index/target"]
    assert not allowed[f"{table}/index/target"] & {"dynamodb:UpdateItem", "dynamodb:DeleteItem"}
