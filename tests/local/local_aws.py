"""A local AWS (ministack) and the simulators as context managers that leave nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import build
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

REPOSITORY = build.REPOSITORY
EVENTS = REPOSITORY / "events"
TOOLS = Path(sys.executable).parent

REGION = "us-east-1"
ARCH = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
# Key and secret of the account's root user. With `auth` every other key is held to its policies.
ROOT_KEY = "test"

T = TypeVar("T")
Json = Any

# Whether the function is built as it is for AWS, and not as the tests are.
AS_DEPLOYED = os.environ.get("AS_DEPLOYED", "")

# The user's own AWS and make settings must not reach a deployment that is meant for the local AWS.
_MAKEFILE = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
_SETTINGS = set(re.findall(r"^([A-Z_]+) \?=", _MAKEFILE, re.MULTILINE))
_SETTINGS |= set(re.findall(r"^ARGUMENTS := (.*)", _MAKEFILE, re.MULTILINE)[0].split())
for _name in [name for name in os.environ if name.startswith(("AWS_", "MAKE", "MFLAGS")) or name in _SETTINGS]:
    del os.environ[_name]
os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


class CommandFailedError(Exception):
    """A make target failed; the message has what it printed."""

    def __init__(self, target: str, printed: str, complained: str) -> None:
        """Keep what it printed, since an answer may be in it."""
        super().__init__(f"make {target} failed\n{printed}{complained}".rstrip())
        self.printed = printed
        # The words of an error, without cargo-lambda's frame and line breaks.
        self.complaint = " ".join(re.sub("[\u2502\u00d7]", " ", complained).split())


class FunctionError(Exception):
    """The function answered with an error instead of a result."""

    def __init__(self, answer: Json) -> None:
        """Keep the error's type beside its message."""
        super().__init__(answer.get("errorMessage"))
        self.type: str = answer.get("errorType", "")


def wait_until(what: str, probe: Callable[[], T], *, seconds: float = 30, every: float = 0.2) -> T:
    """Return the first truthy result of `probe`."""
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s; last seen: {result!r}")
        time.sleep(every)
    return result


def event(name: str, **replacements: str) -> Json:
    """Read a payload of events/, with some words of it replaced by others, for `old="new"`."""
    text = (EVENTS / f"{name}.json").read_text()
    for old, new in replacements.items():
        text = text.replace(old, new)
    return json.loads(text)


def plain(value: Json) -> Json:
    """Turn DynamoDB's numbers and sets into ordinary ones."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, set):
        return sorted(plain(item) for item in value)
    return value


@dataclass
class LocalAws:
    """A running local AWS."""

    url: str
    log: Path
    function: str = "falcon-posture-sync"
    session: boto3.Session = field(default_factory=lambda: boto3.Session(ROOT_KEY, ROOT_KEY, region_name=REGION))

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to take this for AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:  # noqa: ANN401
        """Return a client of one service; an invocation is waited for and never sent twice."""
        config = Config(read_timeout=900, retries={"total_max_attempts": 1})
        return self.session.client(service, endpoint_url=self.url, config=config)

    def make(
        self, target: str, *, log: IO[bytes] | None = None, answers: Sequence[str] = (), **variables: object
    ) -> str:
        """Run a target of the Makefile against this AWS, as a person would who gives these answers to its questions.

        Returns what it printed, unless it prints to `log`.
        """
        settings = {"REGION": REGION, "FUNCTION": self.function, "ARCH": ARCH, "AS_DEPLOYED": AS_DEPLOYED} | variables
        done = subprocess.run(
            ["make", target, *(f"{name}={value}" for name, value in settings.items())],
            cwd=REPOSITORY,
            env=os.environ | self.environment,
            input="".join(f"{answer}\n" for answer in answers),
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailedError(target, done.stdout or "", done.stderr or "")
        return done.stdout or ""

    def put_secret(self, name: str, value: Json) -> str:
        """Store a secret, or a new version of it, and return the version's id."""
        secrets, text = self.client("secretsmanager"), json.dumps(value)
        try:
            stored = secrets.create_secret(Name=name, SecretString=text)
        except secrets.exceptions.ResourceExistsException:
            stored = secrets.put_secret_value(SecretId=name, SecretString=text)
        version: str = stored["VersionId"]
        return version

    def secret(self, name: str) -> tuple[Json, str]:
        """Read a secret and the id of its version."""
        stored = self.client("secretsmanager").get_secret_value(SecretId=name)
        return json.loads(stored["SecretString"]), stored["VersionId"]

    def invoke(self, payload: Json) -> Json:
        """Send the function a payload and return its answer."""
        response = self.client("lambda").invoke(FunctionName=self.function, Payload=json.dumps(payload))
        answer = json.load(response["Payload"])
        if "FunctionError" in response:
            raise FunctionError(answer)
        return answer

    def switch_schedule(self, state: str) -> None:
        """Switch the deployed schedule to ENABLED or DISABLED, and leave the rest of it as it is."""
        scheduler = self.client("scheduler")
        present = scheduler.get_schedule(Name=self.function)
        kept = ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")
        scheduler.update_schedule(**{field: present[field] for field in kept}, State=state)

    def table(self, kind: str) -> list[Json]:
        """Read all items of the integrations, nodes or audit table."""
        pages = self.session.resource("dynamodb", endpoint_url=self.url).meta.client.get_paginator("scan")
        return [plain(item) for page in pages.paginate(TableName=f"{self.function}-{kind}") for item in page["Items"]]

    def integrations(self) -> dict[str, Json]:
        """Read the integrations table, by id."""
        return {item["id"]: item for item in self.table("integrations")}

    def nodes(self, integration: str) -> dict[str, Json]:
        """Read the node records of an integration, by node id."""
        return {item["nodeId"]: item for item in self.table("nodes") if item["integrationId"] == integration}

    def audit(self, integration: str) -> list[Json]:
        """Read the audit records of an integration, oldest first."""
        records = [item for item in self.table("audit") if item["integrationId"] == integration]
        return sorted(records, key=lambda item: item["eventId"])

    def function_log(self) -> list[str]:
        """Return the lines of the function's log group."""
        pages = self.client("logs").get_paginator("filter_log_events")
        group = f"/aws/lambda/{self.function}"
        return [line["message"] for page in pages.paginate(logGroupName=group) for line in page["events"]]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that what was started is stopped."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# Becomes the server, in a process group of its own with a watcher that stops the group when this program is gone,
# however it went: then its end of the pipe is closed.
GUARDED = 'exec 3<&0; (cat <&3 >/dev/null; kill -TERM -$$) & exec "$@" 3<&- </dev/null'


@contextlib.contextmanager
def server(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401
    """Run a server and, at the end, stop it and the processes that it started."""
    guarded = ["sh", "-c", GUARDED, "sh", *command]
    with subprocess.Popen(guarded, stdin=subprocess.PIPE, start_new_session=True, **options) as child:
        try:
            yield child
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=5)


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def local_aws(*, auth: bool = False) -> Iterator[LocalAws]:
    """Run a local AWS; with `auth` it enforces the policies of the roles that the templates make."""
    with tempfile.TemporaryDirectory(prefix="local-aws-") as directory:
        port = free_port()
        aws = LocalAws(url=f"http://127.0.0.1:{port}", log=Path(directory) / "log")
        # The functions inherit this environment, so it has nothing of the user's.
        environment = aws.environment | {
            "AUTH": str(auth).lower(),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "HOME": directory,
            "TMPDIR": directory,
            "PATH": os.environ["PATH"],
            # What Lambda sets where the function's log format is JSON.
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
        }
        with (
            aws.log.open("wb") as log,
            server([TOOLS / "ministack"], env=environment, cwd=directory, stdout=log, stderr=log) as child,
        ):

            def healthy() -> bool:
                if child.poll() is not None:
                    raise RuntimeError(f"the local AWS ended:\n{aws.log.read_text()}")
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"{aws.url}/_ministack/health", timeout=5).close()
                    return True
                return False

            wait_until("local AWS", healthy)
            yield aws


@dataclass
class Simulators:
    """The running simulators of Falcon and Tailscale."""

    falcon: dict[str, str]
    tailscale: str
    control: str

    @property
    def settings(self) -> dict[str, str]:
        """Variables for `make deploy`, so that the function calls these instead of the real services."""
        clouds = ",".join(f"{name}={url}" for name, url in self.falcon.items())
        return {"TAILSCALE_API_URL": self.tailscale, "FALCON_CLOUDS_EXTRA": clouds}

    def ask(self, method: str, path: str, body: Json = None) -> Json:
        """Call the control interface."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.control}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def load(self, name: str, spec: Json, *, region: str) -> dict[str, Json]:
        """Make a Falcon account and a tailnet of this name with generated data, and return their credentials.

        They come as the two secrets of an integration hold them, by side.
        """
        made = self.ask(
            "POST",
            "/generate",
            {
                "spec": {"now": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")} | spec,
                "account": {"name": name, "region": region},
                "tailnet": {"name": name},
            },
        )
        clients = {"falcon": made["account"], "tailscale": made["tailnet"]["oauth_clients"][0]}
        return {
            side: {"clientId": client["client_id"], "clientSecret": client["client_secret"]}
            for side, client in clients.items()
        }

    def hosts(self, account: str) -> list[Json]:
        """Return the hosts of a Falcon account."""
        hosts: list[Json] = self.ask("GET", f"/falcon/accounts/{account}/hosts")
        return hosts

    def scores(self, account: str) -> dict[str, int]:
        """Return the scores of a Falcon account by sensor."""
        scores: dict[str, int] = self.ask("GET", f"/falcon/accounts/{account}/scores")
        return scores

    def set_score(self, account: str, aid: str, score: int) -> None:
        """Let Falcon come to another score."""
        self.ask("PUT", f"/falcon/accounts/{account}/scores/{aid}", score)

    def slow_down(self, milliseconds: int) -> None:
        """Let each answer of both sides take so long."""
        self.ask("PUT", "/latency", {"falcon_ms": milliseconds, "tailscale_ms": milliseconds})

    def devices(self, tailnet: str) -> dict[str, Json]:
        """Return the devices of a tailnet by node id."""
        return {device["nodeId"]: device for device in self.ask("GET", f"/tailscale/tailnets/{tailnet}/devices")}

    def attributes(self, tailnet: str, key: str = "custom:ztaScore") -> dict[str, int]:
        """Return the attribute of each device that has it, by node id."""
        everything = self.ask("GET", f"/tailscale/tailnets/{tailnet}/attributes")
        return {node: of_node[key] for node, of_node in everything.items() if key in of_node}

    def changes(self, tailnet: str) -> list[Json]:
        """Return all changes of attributes, oldest first."""
        changes: list[Json] = self.ask("GET", f"/tailscale/tailnets/{tailnet}/changes")
        return changes

    def writes(self) -> list[Json]:
        """Return the requests that would write to Tailscale, whatever came of them."""
        requests = self.ask("GET", "/requests")["requests"]
        return [
            request
            for request in requests
            if request["side"] == "tailscale" and request["method"] != "GET" and "attributes" in request["path"]
        ]


@contextlib.contextmanager
def simulators(regions: Sequence[str] = ("us-1", "us-2")) -> Iterator[Simulators]:
    """Build and run the simulators."""
    subprocess.run([*build.COMMAND, "--quiet"], cwd=REPOSITORY, check=True)
    command = [build.BINARIES / "posture-simulators", "--regions", ",".join(regions)]
    with (
        tempfile.TemporaryFile() as log,
        server(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log) as child,
    ):
        line = child.stdout.readline() if child.stdout else b""
        if not line:
            log.seek(0)
            raise RuntimeError(f"the simulators ended:\n{log.read().decode()}")
        yield Simulators(**json.loads(line))
