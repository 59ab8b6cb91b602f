"""Credentials: `make secret` stores them, and a new version takes effect at once."""

from __future__ import annotations

import json
import os
import pty
import select
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integrations import Integration, connected, secret_name
from local_aws import REPOSITORY, CommandFailedError, Json, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_aws import LocalAws, Simulators

# Characters that are special to a shell, make, JSON, printf or a terminal.
HOSTILE = r""" "quoted" 'single' \back\\slash\n $HOME $(shell x) $(id) `id` %s {"a":1} !! # ;|&<>* üñ✓  end"""
SECRET_EVENTS = ("secret-label-updated", "secret-put", "secret-rotated")


@pytest.fixture(scope="module")
def integration(aws: LocalAws, sims: Simulators) -> Iterator[Integration]:
    """Yield a connected integration."""
    with connected(aws, sims, "gate") as integration:
        yield integration


def make_secret(aws: LocalAws, name: str, side: str, *lines: str) -> str:
    """Run `make secret` with these lines as input and return its output."""
    return aws.make("secret", stdin=lines, INTEGRATION=name, SIDE=side)


def processes() -> str:
    """Return the arguments and environments of all processes that may be read."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "environ"):
            with suppress(OSError):
                texts.append((process / file).read_bytes().decode(errors="replace"))
    return "\n".join(texts)


def watch_processes(action: Callable[[], str]) -> tuple[str, str]:
    """Run an action, and return its result and the arguments and environments of all processes in the meantime."""
    texts, done = [], threading.Event()

    def poll() -> None:
        while not done.wait(0.01):
            texts.append(processes())

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        result = action()
    finally:
        done.set()
        poller.join()
    return result, "\n".join(texts)


def test_make_secret_creates_a_secret_and_then_new_versions(aws: LocalAws) -> None:
    name = secret_name("vault", "falcon")
    assert make_secret(aws, "vault", "falcon", "id", "first", "") == f"Created the secret {name}.\n"
    value, version = aws.secret(name)
    assert value == {"clientId": "id", "clientSecret": "first"}

    assert f"Stored a new version of the secret {name}." in make_secret(aws, "vault", "falcon", "id", "second", "child")
    value, other_version = aws.secret(name)
    assert value == {"clientId": "id", "clientSecret": "second", "memberCid": "child"}
    assert other_version != version


def test_every_character_of_a_secret_is_stored_and_none_is_shown(aws: LocalAws) -> None:
    output, seen = watch_processes(lambda: make_secret(aws, "hush", "tailscale", "the id", HOSTILE))
    assert aws.secret(secret_name("hush", "tailscale"))[0] == {"clientId": "the id", "clientSecret": HOSTILE}
    assert "INTEGRATION=hush" in seen
    assert "put-secret-value" in seen
    for text in ("quoted", "back", "$(shell x)", "üñ✓", "the id"):
        assert text not in output
    assert "üñ✓" not in seen
    assert json.dumps("üñ✓").strip('"') not in seen


def test_prompts_on_a_terminal_do_not_show_the_secret(aws: LocalAws) -> None:
    """Stores an API access token instead of an OAuth client."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(REPOSITORY)
        make = ["make", "secret", "INTEGRATION=typed", "SIDE=tailscale"]
        os.execvpe(make[0], make, os.environ | aws.environment)  # noqa: S606
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            readable, _, _ = select.select([terminal], [], [], 30)
            assert readable, f"no {text!r} in {shown!r}"
            shown += os.read(terminal, 1024).decode()

    for prompt, line in (("OAuth client id", ""), ("API access token (not shown): ", "tskey-api-x")):
        read_until(prompt)
        os.write(terminal, f"{line}\n".encode())
    read_until("Created the secret falcon-posture-sync/typed/tailscale.")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert "tskey" not in shown
    assert aws.secret(secret_name("typed", "tailscale"))[0] == {"apiKey": "tskey-api-x"}


@pytest.mark.parametrize(
    ("name", "side", "lines", "message"),
    [
        ("void", "falcon", ["id", " ", ""], "Nothing was stored: clientSecret must not be empty."),
        ("void", "tailscale", [], "Nothing was stored: apiKey must not be empty."),
        ("Void", "falcon", ["id", "secret", ""], "INTEGRATION: must be 1 to 64 lower-case letters"),
        ("void", "falcon tailscale", ["id", "secret"], "SIDE: must be falcon or tailscale"),
    ],
)
def test_an_invalid_credential_is_not_stored(
    aws: LocalAws, name: str, side: str, lines: list[str], message: str
) -> None:
    with pytest.raises(CommandFailedError) as failure:
        make_secret(aws, name, side, *lines)
    assert message in failure.value.error
    stored = aws.client("secretsmanager").list_secrets()["SecretList"]
    assert not [secret for secret in stored if "oid" in secret["Name"]]


@pytest.mark.parametrize("side", ["falcon", "tailscale"])
def test_a_new_version_ends_a_pause_at_once(integration: Integration, side: str) -> None:
    """The event of Secrets Manager starts both runs: one with the wrong credential, one with the right one."""
    integration.put_credential(side, clientSecret="0" * 40)
    assert integration.wait_for_outcome("paused")["pause"]["side"] == side
    node, score = integration.change_score()

    right = integration.credentials[side]
    make_secret(integration.aws, integration.name, side, right["clientId"], right["clientSecret"], "")
    assert "pause" not in integration.wait_for_outcome("synced")
    assert integration.attributes()[node] == score


@pytest.mark.parametrize("name", SECRET_EVENTS)
def test_each_event_of_a_secret_starts_a_sync_and_its_repetition_writes_nothing(
    integration: Integration, name: str
) -> None:
    """Invokes the function directly: the local AWS sends only the first kind, and accepts none from clients."""
    node, score = integration.change_score()
    payload = event(name, corp=integration.name)
    response = integration.aws.invoke(payload)
    assert (response["integration"], response["outcome"], response["written"]) == (integration.name, "synced", 1)
    assert integration.attributes()[node] == score

    audit, writes = integration.audit(), len(integration.sims.writes())
    response = integration.aws.invoke(payload)
    assert (response["outcome"], response["written"]) == ("unchanged", 0)
    assert (integration.audit(), len(integration.sims.writes())) == (audit, writes)


def test_an_event_of_an_unused_secret_starts_nothing(integration: Integration) -> None:
    before = integration.item()
    for name in SECRET_EVENTS:
        assert integration.aws.invoke(event(name, corp="nobody")) == {"requested": []}
    assert integration.item() == before


def with_account(aws: LocalAws, name: str, **replacements: str) -> str:
    """Return a payload of events/ with the id of this account."""
    account = aws.client("sts").get_caller_identity()["Account"]
    return json.dumps(event(name, **{"123456789012": account} | replacements))


def matching_rules(aws: LocalAws, payload: str) -> list[str]:
    """Return the descriptions of the rules on the default bus that match an event."""
    events = aws.client("events")
    return [
        rule["Description"]
        for rule in events.list_rules(EventBusName="default")["Rules"]
        if events.test_event_pattern(EventPattern=rule["EventPattern"], Event=payload)["Result"]
    ]


DIRECT = ["Sync the integrations that use a secret with a new current version"]
CLOUDTRAIL = ["Sync the integrations that use a changed secret, as CloudTrail reports it"]


@pytest.mark.parametrize(
    ("name", "replacements", "rules"),
    [
        ("secret-label-updated", {}, DIRECT),
        ("secret-label-updated", {"AWSCURRENT": "mine"}, []),
        ("secret-label-updated", {"falcon-posture-sync/": "other/"}, []),
        ("secret-label-updated", {"falcon-posture-sync/": "falcon-posture-sync-2/"}, []),
        ("secret-put", {}, CLOUDTRAIL),
        ("secret-put", {"PutSecretValue": "UpdateSecret"}, CLOUDTRAIL),
        ("secret-put", {"PutSecretValue": "UpdateSecretVersionStage"}, CLOUDTRAIL),
        # Calls of the function itself must not start it.
        ("secret-put", {"PutSecretValue": "GetSecretValue"}, []),
        ("secret-put", {"PutSecretValue": "DescribeSecret"}, []),
        ("secret-put", {"falcon-posture-sync/": "other/"}, []),
        ("secret-put", {'"readOnly"': '"errorCode":"AccessDenied","readOnly"'}, []),
        ("secret-rotated", {}, CLOUDTRAIL),
        ("secret-rotated", {"RotationSucceeded": "RotationFailed"}, []),
        ("secret-rotated", {"falcon-posture-sync/": "other/"}, []),
    ],
)
def test_the_rules_match_only_events_of_the_prefix(
    aws: LocalAws, name: str, replacements: dict[str, str], rules: list[str]
) -> None:
    assert matching_rules(aws, with_account(aws, name, **replacements)) == rules


def test_the_rules_match_a_secret_by_its_arn(aws: LocalAws) -> None:
    payload: Json = json.loads(with_account(aws, "secret-put"))
    payload["detail"]["requestParameters"]["secretId"] = payload["detail"]["responseElements"]["arn"]
    assert matching_rules(aws, json.dumps(payload)) == CLOUDTRAIL
