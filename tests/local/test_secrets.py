"""Credentials: stored by `make secret`, and in force as soon as they change."""

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
from local_aws import REPOSITORY, CommandFailedError, Json, event
from worlds import World, connected, secret_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_aws import LocalAws, Simulators

# Whatever a shell, make, JSON, printf or a terminal could take for something else.
HOSTILE = r""" "quoted" 'single' \back\\slash\n $HOME $(shell x) $(id) `id` %s {"a":1} !! # ;|&<>* üñ✓  end"""
SECRET_EVENTS = ("secret-label-updated", "secret-put", "secret-rotated")


@pytest.fixture(scope="module")
def world(aws: LocalAws, sims: Simulators) -> Iterator[World]:
    """Yield a connected integration."""
    with connected(aws, sims, "gate") as world:
        yield world


def store(aws: LocalAws, integration: str, side: str, *answers: str) -> str:
    """Answer the questions of `make secret` and return what it printed."""
    return aws.make("secret", answers=answers, INTEGRATION=integration, SIDE=side)


def processes() -> str:
    """Return the arguments and environments of all processes of this machine that may be read."""
    seen = []
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "environ"):
            with suppress(OSError):
                seen.append((process / file).read_bytes().decode(errors="replace"))
    return "\n".join(seen)


def watch(action: Callable[[], str]) -> tuple[str, str]:
    """Do something, and return what came of it and what all processes showed meanwhile."""
    seen, done = [], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            seen.append(processes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        result = action()
    finally:
        done.set()
        looking.join()
    return result, "\n".join(seen)


def test_a_secret_is_created_and_then_gets_new_versions(aws: LocalAws) -> None:
    name = secret_name("vault", "falcon")
    assert store(aws, "vault", "falcon", "id", "first", "") == f"Created the secret {name}.\n"
    value, version = aws.secret(name)
    assert value == {"clientId": "id", "clientSecret": "first"}

    assert f"Stored a new version of the secret {name}." in store(aws, "vault", "falcon", "id", "second", "child")
    value, other_version = aws.secret(name)
    assert value == {"clientId": "id", "clientSecret": "second", "memberCid": "child"}
    assert other_version != version


def test_no_character_of_a_secret_is_lost_and_none_is_shown(aws: LocalAws) -> None:
    printed, seen = watch(lambda: store(aws, "hush", "tailscale", "the id", HOSTILE))
    assert aws.secret(secret_name("hush", "tailscale"))[0] == {"clientId": "the id", "clientSecret": HOSTILE}
    assert "INTEGRATION=hush" in seen
    assert "put-secret-value" in seen
    for words in ("quoted", "back", "$(shell x)", "üñ✓", "the id"):
        assert words not in printed
    assert "üñ✓" not in seen
    assert json.dumps("üñ✓").strip('"') not in seen


def test_a_terminal_is_asked_and_does_not_show_the_secret(aws: LocalAws) -> None:
    """The answers are those of somebody who has an API access token and no OAuth client."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(REPOSITORY)
        make = ["make", "secret", "INTEGRATION=typed", "SIDE=tailscale"]
        os.execvpe(make[0], make, os.environ | aws.environment)  # noqa: S606
    shown = ""

    def until(words: str) -> None:
        nonlocal shown
        while words not in shown:
            readable, _, _ = select.select([terminal], [], [], 30)
            assert readable, f"no {words!r} in {shown!r}"
            shown += os.read(terminal, 1024).decode()

    for prompt, answer in (("OAuth client id", ""), ("API access token (not shown): ", "tskey-api-x")):
        until(prompt)
        os.write(terminal, f"{answer}\n".encode())
    until("Created the secret falcon-posture-sync/typed/tailscale.")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert "tskey" not in shown
    assert aws.secret(secret_name("typed", "tailscale"))[0] == {"apiKey": "tskey-api-x"}


@pytest.mark.parametrize(
    ("integration", "side", "answers", "complaint"),
    [
        ("void", "falcon", ["id", " ", ""], "Nothing was stored: clientSecret must not be empty."),
        ("void", "tailscale", [], "Nothing was stored: apiKey must not be empty."),
        ("Void", "falcon", ["id", "secret", ""], "INTEGRATION: must be 1 to 64 lower-case letters"),
        ("void", "falcon tailscale", ["id", "secret"], "SIDE: must be falcon or tailscale"),
    ],
)
def test_what_cannot_be_a_secret_is_not_stored(
    aws: LocalAws, integration: str, side: str, answers: list[str], complaint: str
) -> None:
    with pytest.raises(CommandFailedError) as failure:
        store(aws, integration, side, *answers)
    assert complaint in failure.value.complaint
    stored = aws.client("secretsmanager").list_secrets()["SecretList"]
    assert not [secret for secret in stored if "oid" in secret["Name"]]


@pytest.mark.parametrize("side", ["falcon", "tailscale"])
def test_a_new_version_ends_a_pause_at_once(world: World, side: str) -> None:
    """Secrets Manager's own event does it: once for the wrong credential, once for the right one."""
    world.new_version(side, clientSecret="0" * 40)
    assert world.wait_for_outcome("paused")["pause"]["side"] == side
    node, score = world.another_score()

    right = world.credentials[side]
    store(world.aws, world.name, side, right["clientId"], right["clientSecret"], "")
    assert "pause" not in world.wait_for_outcome("synced")
    assert world.attributes()[node] == score


@pytest.mark.parametrize("name", SECRET_EVENTS)
def test_each_event_of_a_secret_starts_a_sync_and_a_second_one_does_no_harm(world: World, name: str) -> None:
    """The local AWS sends the first kind only, and takes none from clients: the function is given what a rule gives."""
    node, score = world.another_score()
    payload = event(name, corp=world.name)
    answer = world.aws.invoke(payload)
    assert (answer["integration"], answer["outcome"], answer["written"]) == (world.name, "synced", 1)
    assert world.attributes()[node] == score

    audit, writes = world.audit(), len(world.sims.writes())
    answer = world.aws.invoke(payload)
    assert (answer["outcome"], answer["written"]) == ("unchanged", 0)
    assert (world.audit(), len(world.sims.writes())) == (audit, writes)


def test_an_event_of_a_secret_that_nobody_uses_starts_nothing(world: World) -> None:
    before = world.item()
    for name in SECRET_EVENTS:
        assert world.aws.invoke(event(name, corp="nobody")) == {"requested": []}
    assert world.item() == before


def with_account(aws: LocalAws, name: str, **replacements: str) -> str:
    """Return a payload of events/ as it would come in this account."""
    account = aws.client("sts").get_caller_identity()["Account"]
    return json.dumps(event(name, **{"123456789012": account} | replacements))


def matching_rules(aws: LocalAws, payload: str) -> list[str]:
    """Return the rules on the default bus that would send this event to the function."""
    events = aws.client("events")
    return [
        rule["Description"]
        for rule in events.list_rules(EventBusName="default")["Rules"]
        if events.test_event_pattern(EventPattern=rule["EventPattern"], Event=payload)["Result"]
    ]


NATIVE = ["Sync the integrations that use a secret with a new current version"]
TRAIL = ["Sync the integrations that use a changed secret, as CloudTrail reports it"]


@pytest.mark.parametrize(
    ("name", "replacements", "rules"),
    [
        ("secret-label-updated", {}, NATIVE),
        ("secret-label-updated", {"AWSCURRENT": "mine"}, []),
        ("secret-label-updated", {"falcon-posture-sync/": "other/"}, []),
        ("secret-label-updated", {"falcon-posture-sync/": "falcon-posture-sync-2/"}, []),
        ("secret-put", {}, TRAIL),
        ("secret-put", {"PutSecretValue": "UpdateSecret"}, TRAIL),
        ("secret-put", {"PutSecretValue": "UpdateSecretVersionStage"}, TRAIL),
        # What the function itself calls must not start it.
        ("secret-put", {"PutSecretValue": "GetSecretValue"}, []),
        ("secret-put", {"PutSecretValue": "DescribeSecret"}, []),
        ("secret-put", {"falcon-posture-sync/": "other/"}, []),
        ("secret-put", {'"readOnly"': '"errorCode":"AccessDenied","readOnly"'}, []),
        ("secret-rotated", {}, TRAIL),
        ("secret-rotated", {"RotationSucceeded": "RotationFailed"}, []),
        ("secret-rotated", {"falcon-posture-sync/": "other/"}, []),
    ],
)
def test_the_rules_take_the_events_of_our_secrets_and_only_those(
    aws: LocalAws, name: str, replacements: dict[str, str], rules: list[str]
) -> None:
    assert matching_rules(aws, with_account(aws, name, **replacements)) == rules


def test_a_secret_may_be_named_by_its_arn(aws: LocalAws) -> None:
    payload: Json = json.loads(with_account(aws, "secret-put"))
    payload["detail"]["requestParameters"]["secretId"] = payload["detail"]["responseElements"]["arn"]
    assert matching_rules(aws, json.dumps(payload)) == TRAIL
