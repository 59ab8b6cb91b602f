"""Properties of the templates that the local AWS cannot show: retries, dead letters, permissions."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from cfnlint.decode import cfn_yaml
from local_aws import REPOSITORY, event

STATE = cfn_yaml.load(str(REPOSITORY / "infra/state.yaml"))
TRIGGERS = cfn_yaml.load(str(REPOSITORY / "infra/triggers.yaml"))
CONSOLE = cfn_yaml.load(str(REPOSITORY / "infra/console.yaml"))
DEAD_LETTERS = {"Fn::ImportValue": {"Fn::Sub": "${StateStack}-DeadLetterQueueArn"}}
DEAD_LETTERS_NAMES = {"Fn::Sub": "${AWS::StackName}-DeadLetterQueueArn"}


def resources(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of all resources of one kind."""
    found = {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == f"AWS::{kind}"
    }
    assert found, f"no {kind} in the template"
    return found


def statements() -> dict[str, dict[str, Any]]:
    """Return the statements of the function's policy by Sid."""
    (policy,) = STATE["Resources"]["FunctionRole"]["Properties"]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def actions(statement: dict[str, Any]) -> set[str]:
    """Return the actions of a statement, which are a string or a list."""
    action = statement["Action"]
    return {action} if isinstance(action, str) else set(action)


def test_the_schedule_sends_the_sync_command() -> None:
    (schedule,) = resources(TRIGGERS, "Scheduler::Schedule").values()
    assert json.loads(schedule["Target"]["Input"]) == event("sync")
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["ScheduleExpression"]["Fn::If"][0] == "EveryMinute"
    assert TRIGGERS["Parameters"]["ScheduleMinutes"]["Default"] == 15


def test_rules_on_the_configured_bus_match_only_events_of_the_function() -> None:
    rules = [rule for rule in resources(TRIGGERS, "Events::Rule").values() if rule.get("EventBusName")]
    envelopes = [event("integration-changed"), event("sync-requested")]
    assert [rule["EventPattern"] for rule in rules] == [
        {"source": [e["source"]], "detail-type": [e["detail-type"]]} for e in envelopes
    ]
    assert [rule["EventBusName"] for rule in rules] == [{"Ref": "EventBusName"}] * 2


def test_rules_for_events_of_aws_are_on_the_default_bus() -> None:
    """`test_secrets.py` tests with the deployed rules which events the patterns match."""
    rules = [rule for rule in resources(TRIGGERS, "Events::Rule").values() if not rule.get("EventBusName")]
    kinds = [kind for rule in rules for kind in rule["EventPattern"]["detail-type"]]
    envelopes = [event(name) for name in ("secret-label-updated", "secret-put", "secret-rotated")]
    assert kinds == [envelope["detail-type"] for envelope in envelopes]
    assert {source for rule in rules for source in rule["EventPattern"]["source"]} == {"aws.secretsmanager"}


def test_every_target_retries_and_then_sends_to_the_dead_letter_queue() -> None:
    targets = [schedule["Target"] for schedule in resources(TRIGGERS, "Scheduler::Schedule").values()]
    targets += [target for rule in resources(TRIGGERS, "Events::Rule").values() for target in rule["Targets"]]
    for target in targets:
        assert target["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 900}
        assert target["DeadLetterConfig"] == {"Arn": DEAD_LETTERS}
    (invocations,) = resources(TRIGGERS, "Lambda::EventInvokeConfig").values()
    assert invocations["DestinationConfig"] == {"OnFailure": {"Destination": DEAD_LETTERS}}
    assert invocations["MaximumRetryAttempts"] == 2
    assert STATE["Outputs"]["DeadLetterQueueArn"]["Export"]["Name"] == DEAD_LETTERS_NAMES


def test_each_rule_may_start_the_function_and_send_dead_letters() -> None:
    rules = [{"Fn::GetAtt": [name, "Arn"]} for name in resources(TRIGGERS, "Events::Rule")]
    permissions = resources(TRIGGERS, "Lambda::Permission").values()
    assert [permission["SourceArn"] for permission in permissions] == rules
    assert {permission["Principal"] for permission in permissions} == {"events.amazonaws.com"}
    (policy,) = resources(TRIGGERS, "SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rules}}


def test_tables_outlive_their_stack() -> None:
    for name, table in resources(STATE, "DynamoDB::Table").items():
        assert STATE["Resources"][name]["DeletionPolicy"] == "Retain"
        assert STATE["Resources"][name]["UpdateReplacePolicy"] == "Retain"
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}
    assert STATE["Parameters"]["DeletionProtection"]["Default"] == "true"


def test_the_audit_trail_is_append_only() -> None:
    audit = statements()["Audit"]
    assert actions(audit) == {"dynamodb:PutItem", "dynamodb:Query"}
    assert audit["Resource"] == [
        {"Fn::GetAtt": ["AuditTable", "Arn"]},
        {"Fn::Sub": "${AuditTable.Arn}/index/target"},
    ]
    others = [statement for sid, statement in statements().items() if sid != "Audit"]
    assert "AuditTable" not in json.dumps(others)


@pytest.mark.parametrize("statement", statements().values(), ids=statements())
def test_no_permission_of_the_function_has_a_wildcard(statement: dict[str, Any]) -> None:
    assert not any("*" in action for action in actions(statement))
    assert statement["Resource"] != "*"


def test_the_function_may_do_exactly_what_its_code_calls() -> None:
    """Finds the calls in the source by the list of operations of the AWS SDK."""
    source = "\n".join(path.read_text() for path in sorted((REPOSITORY / "src").rglob("*.rs")))
    session = botocore.session.get_session()
    called = {
        f"{service}:{operation}"
        for service in ("dynamodb", "secretsmanager", "events")
        for operation in session.get_service_model(service).operation_names
        if re.search(rf"\.\s*{xform_name(operation)}\(\)", source)
    }
    # IAM has no action for a transaction, only for its parts.
    if "dynamodb:TransactWriteItems" in called:
        called.remove("dynamodb:TransactWriteItems")
        parts = {
            "Put": "PutItem",
            "Update": "UpdateItem",
            "Delete": "DeleteItem",
            "ConditionCheck": "ConditionCheckItem",
        }
        called |= {
            f"dynamodb:{action}" for part, action in parts.items() if re.search(rf"\b{part}::builder\(\)", source)
        }
    # Lambda writes the log and the dead letters with the function's role.
    allowed = {
        action
        for sid, statement in statements().items()
        if sid not in {"Logs", "DeadLetters"}
        for action in actions(statement)
    }
    assert allowed == called


def widgets() -> list[dict[str, Any]]:
    """Return the widgets of the dashboard, with a placeholder for each reference."""
    (dashboard,) = resources(CONSOLE, "CloudWatch::Dashboard").values()
    text = dashboard["DashboardBody"]["Fn::Sub"]
    names = set(CONSOLE["Parameters"]) | set(CONSOLE["Resources"])
    references = re.findall(r"\$\{([^}!]+)\}", text)
    assert {name.removesuffix(".Arn") for name in references} <= names | {"AWS::Region"}
    body = re.sub(r"\$\{MinScore\}", "70", text)
    return json.loads(re.sub(r"\$\{([^}!]+)\}", r"<\1>", body))["widgets"]


def test_the_widgets_of_the_dashboard_do_not_overlap() -> None:
    occupied: set[tuple[int, int]] = set()
    for widget in widgets():
        assert widget["x"] + widget["width"] <= 24
        fields = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not fields & occupied, widget
        occupied |= fields


def test_the_dashboard_invokes_the_function_through_the_alias() -> None:
    custom = [widget["properties"] for widget in widgets() if widget["type"] == "custom"]
    views = ["overview", "scores", "findings", "history", "explain", "audit"]
    assert [properties["params"]["view"] for properties in custom] == views
    assert {properties["endpoint"] for properties in custom} == {"<ConsoleAlias>"}
    (alias,) = resources(CONSOLE, "Lambda::Alias").values()
    assert (alias["Name"], alias["FunctionVersion"]) == ("console", "$LATEST")


def test_the_viewer_policy_allows_only_the_alias_and_reading() -> None:
    (policy,) = resources(CONSOLE, "IAM::ManagedPolicy").values()
    by_action = {
        action: statement["Resource"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in sorted(actions(statement))
    }
    assert by_action.pop("lambda:InvokeFunction") == {"Ref": "ConsoleAlias"}
    assert all(re.fullmatch("cloudwatch:(Get|List|Describe).*", action) for action in by_action)


def metrics() -> set[str]:
    """Return the names of the metrics that the function emits."""
    source = (REPOSITORY / "src/metrics.rs").read_text()
    return set(re.findall(r'Metric::new\(\s*"(\w+)"', source))


def test_alarms_and_graphs_use_metrics_that_the_function_emits() -> None:
    assert len(metrics()) > 10
    alarms = resources(CONSOLE, "CloudWatch::Alarm").values()
    own = {alarm["MetricName"] for alarm in alarms if alarm["Namespace"] == "FalconPostureSync"}
    assert own == {"SecondsSinceSuccess", "Integrations", "Paused", "Held", "ScoresEnding"}
    graphs = json.dumps([widget for widget in widgets() if widget["type"] == "metric"])
    drawn = set(re.findall(r'MetricName=[\\"]+(\w+)', graphs)) | set(re.findall(r'"([A-Z]\w+)", "function"', graphs))
    drawn |= set(re.findall(r'"\.", "(\w+)"', graphs))
    assert own | drawn <= metrics()
    assert {"Written", "DurationMs", "FalconRequests", "TailscaleRetries", "FalconQuotaRemaining"} <= drawn


def test_each_alarm_has_a_description_and_notifies_the_topic() -> None:
    topic = {"Fn::If": ["HasTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    alarms = resources(CONSOLE, "CloudWatch::Alarm")
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == topic
        assert len(alarm["AlarmDescription"]["Fn::Sub"]) > 100
    missing = {name: alarm["TreatMissingData"] for name, alarm in alarms.items()}
    assert missing["Silent"] == "breaching", "missing data means that the schedule does not run"
    assert {missing[name] for name in ("NoSuccess", "Paused", "Held", "ScoresEnding")} == {"ignore"}
    (alarm_widget,) = [widget for widget in widgets() if widget["type"] == "alarm"]
    assert alarm_widget["properties"]["alarms"] == [f"<{name}.Arn>" for name in alarms]
    names = {"Fn::Sub": "${AWS::StackName}-DeadLetterQueueName"}
    assert STATE["Outputs"]["DeadLetterQueueName"]["Export"]["Name"] == names
