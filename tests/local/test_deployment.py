"""`make deploy`: repeated, with settings, and its dashboard and alarms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from local_aws import CommandFailedError

if TYPE_CHECKING:
    from local_aws import LocalAws, Simulators


def test_deploying_again_changes_nothing(aws: LocalAws, settings: dict[str, Any]) -> None:
    assert aws.make("deploy", **settings).count("No changes to deploy") == 3


def test_the_function_is_configured(aws: LocalAws, sims: Simulators) -> None:
    function = aws.client("lambda").get_function_configuration(FunctionName=aws.function)
    assert function["Runtime"] == "provided.al2023"
    assert (function["Timeout"], function["MemorySize"]) == (900, 256)
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert function["Environment"]["Variables"] == {
        "INTEGRATIONS_TABLE": f"{aws.function}-integrations",
        "NODES_TABLE": f"{aws.function}-nodes",
        "AUDIT_TABLE": f"{aws.function}-audit",
        "EVENT_BUS_NAME": "default",
        "AUDIT_RETENTION_DAYS": "365",
        "SYNC_INTERVAL_MINUTES": "1",
        "CONSOLE_BUTTONS": "false",
        # Set only if they differ from the default.
        **sims.settings,
    }


def test_a_missing_argument_is_named(aws: LocalAws) -> None:
    message = "INTEGRATION and CLOUD are required, for example INTEGRATION=corp CLOUD=us-2"
    with pytest.raises(CommandFailedError, match=message):
        aws.make("connect")


def test_the_dashboard_and_the_alarms_exist(aws: LocalAws) -> None:
    cloudwatch = aws.client("cloudwatch")
    body = json.loads(cloudwatch.get_dashboard(DashboardName=aws.function)["DashboardBody"])
    alarms = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    kinds = ["dead-letters", "errors", "held", "no-success", "paused", "scores-ending", "silent"]
    assert sorted(alarms) == [f"{aws.function}-{kind}" for kind in kinds]
    assert alarms[f"{aws.function}-no-success"]["Threshold"] == 3600
    shown = [widget["properties"]["alarms"] for widget in body["widgets"] if widget["type"] == "alarm"]
    assert sorted(shown[0]) == sorted(alarm["AlarmArn"] for alarm in alarms.values())
    endpoints = {widget["properties"]["endpoint"] for widget in body["widgets"] if widget["type"] == "custom"}
    (endpoint,) = endpoints
    assert endpoint.endswith(f":function:{aws.function}:console")
