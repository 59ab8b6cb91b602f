"""Runs a local AWS (ministack) and the simulators as context managers, which stop all processes at the end."""

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
# Key and secret of the account's root user. With `auth`, policies apply to every other key.
ROOT_KEY = "test"

T = TypeVar("T")
Json = Any

# Whether the function is built with the release profile, as for AWS, instead of the profile of the tests.
AS_DEPLOYED = os.environ.get("AS_DEPLOYED", "")

# The AWS and make settings of the user must not affect a deployment to the local AWS.
_MAKEFILE = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
_SETTINGS = set(re.findall(r"^([A-Z_]+) \?=", _MAKEFILE, re.MULTILINE))
_SETTINGS |= set(re.findall(r"^ARGUMENTS := (.*)", _MAKEFILE, re.MULTILINE)[0].split())
for _name in [name for name in os.environ if name.startswith(("AWS_", "MAKE", "MFLAGS")) or name in _SETTINGS]:
    del os.environ[_name]
os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


class CommandFailedError(Exception):
    """A make target failed. The message contains its output."""

    def __init__(self, target: str, stdout: str, stderr: str) -> None:
        """Keep the output, because it may contain a response."""
        super().__init__(f"make {target} failed\n{stdout}{stderr}".rstrip())
        self.stdout = stdout
        # The text of the error, without cargo-lambda's frame and line breaks.
        self.error = " ".join(re.sub("[\u2502\u00d7]", " ", stderr).split())


class FunctionError(Exception):
    """The function returned an error."""

    def __init__(self, response: Json) -> None:
        """Keep the type of the error."""
        super().__init__(response.get("errorMessage"))
        self.type: str = response.get("errorType", "")


def wait_until(what: str, probe: Callable[[], T], *, seconds: float = 30, every: float = 0.2) -> T:
    """Return the first truthy result of `probe`."""
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s; last seen: {result!r}")
        time.sleep(every)
    return result


def event(name: str, **replacements: str) -> Json:
    """Read a payload of events/, and replace texts in it: `old="new"`."""
    text = (EVENTS / f"{name}.json").read_text()
    for old, new in replacements.items():
        text = text.replace(old, new)
    return json.loads(text)


def to_json(value: Json) -> Json:
    """Convert DynamoDB's numbers and sets to numbers and lists."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, set):
        return sorted(to_json(item) for item in value)
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
        """Environment variables that direct a program to this AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:  # noqa: ANN401
        """Return a client of one service. It waits for an invocation and never repeats it."""
        config = Config(read_timeout=900, retries={"total_max_attempts": 1})
        return self.session.client(service, endpoint_url=self.url, config=config)

    def make(self, target: str, *, log: IO[bytes] | None = None, stdin: Sequence[str] = (), **variables: object) -> str:
        """Run a make target against this AWS, with these lines as input.

        Returns the output, unless it goes to `log`.
        """
        settings = {"REGION": REGION, "FUNCTION": self.function, "ARCH": ARCH, "AS_DEPLOYED": AS_DEPLOYED} | variables
        done = subprocess.run(
            ["make", target, *(f"{name}={value}" for name, value in settings.items())],
            cwd=REPOSITORY,
            env=os.environ | self.environment,
            input="".join(f"{line}\n" for line in stdin),
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailedError(target, done.stdout or "", done.stderr or "")
        return done.stdout or ""

    def put_secret(self, name: str, value: Json) -> str:
        """Store a secret or a new version of a secret, and return the version's id."""
        secrets, text = self.client("secretsmanager"), json.dumps(value)
        try:
            stored = secrets.create_secret(Name=name, SecretString=text)
        except secrets.exceptions.ResourceExistsException:
            stored = secrets.put_secret_value(SecretId=name, SecretString=text)
        version: str = stored["VersionId"]
        return version

    def secret(self, name: str) -> tuple[Json, str]:
        """Return the current value of a secret and the id of its version."""
        stored = self.client("secretsmanager").get_secret_value(SecretId=name)
        return json.loads(stored["SecretString"]), stored["VersionId"]

    def invoke(self, payload: Json) -> Json:
        """Invoke the function and return its response."""
        invocation = self.client("lambda").invoke(FunctionName=self.function, Payload=json.dumps(payload))
        response = json.load(invocation["Payload"])
        if "FunctionError" in invocation:
            raise FunctionError(response)
        return response

    def set_schedule_state(self, state: str) -> None:
        """Set the deployed schedule to ENABLED or DISABLED. Its other settings stay."""
        scheduler = self.client("scheduler")
        current = scheduler.get_schedule(Name=self.function)
        unchanged = ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")
        scheduler.update_schedule(**{field: current[field] for field in unchanged}, State=state)

    def table(self, kind: str) -> list[Json]:
        """Read all items of the integrations, nodes or audit table."""
        pages = self.session.resource("dynamodb", endpoint_url=self.url).meta.client.get_paginator("scan")
        return [to_json(item) for page in pages.paginate(TableName=f"{self.function}-{kind}") for item in page["Items"]]

    def integrations(self) -> dict[str, Json]:
        """Read the integrations table by id."""
        return {item["id"]: item for item in self.table("integrations")}

    def nodes(self, integration: str) -> dict[str, Json]:
        """Read the node records of an integration by node id."""
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
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that started processes are stopped."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# Replaces itself with the server, in an own process group. A watcher in the group reads the pipe from this program and
# stops the group when the pipe closes, which happens even if this program is killed.
SERVER_WRAPPER = 'exec 3<&0; (cat <&3 >/dev/null; kill -TERM -$$) & exec "$@" 3<&- </dev/null'


@contextlib.contextmanager
def server(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401
    """Run a server, and stop it and its child processes at the end."""
    wrapped = ["sh", "-c", SERVER_WRAPPER, "sh", *command]
    with subprocess.Popen(wrapped, stdin=subprocess.PIPE, start_new_session=True, **options) as child:
        try:
            yield child
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=5)


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def local_aws(*, auth: bool = False) -> Iterator[LocalAws]:
    """Run a local AWS. With `auth`, it enforces the policies of the roles in the templates."""
    with tempfile.TemporaryDirectory(prefix="local-aws-") as directory:
        port = free_port()
        aws = LocalAws(url=f"http://127.0.0.1:{port}", log=Path(directory) / "log")
        # The functions inherit this environment, so it contains no variables of the user.
        environment = aws.environment | {
            "AUTH": str(auth).lower(),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "HOME": directory,
            "TMPDIR": directory,
            "PATH": os.environ["PATH"],
            # Lambda sets this if the function's log format is JSON.
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
        }
        with (
            aws.log.open("wb") as log,
            server([TOOLS / "ministack"], env=environment, cwd=directory, stdout=log, stderr=log) as child,
        ):

            def healthy() -> bool:
                if child.poll() is not None:
                    raise RuntimeError(f"the local AWS exited:\n{aws.log.read_text()}")
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"{aws.url}/_ministack/health", timeout=5).close()
                    return True
                return False

            wait_until("the local AWS", healthy)
            yield aws


@dataclass
class Simulators:
    """The running simulators of Falcon and Tailscale."""

    falcon: dict[str, str]
    tailscale: str
    control: str

    @property
    def settings(self) -> dict[str, str]:
        """Variables of `make deploy` that direct the function to the simulators."""
        clouds = ",".join(f"{name}={url}" for name, url in self.falcon.items())
        return {"TAILSCALE_API_URL": self.tailscale, "FALCON_CLOUDS_EXTRA": clouds}

    def call(self, method: str, path: str, body: Json = None) -> Json:
        """Call the control interface of the simulators."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.control}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def generate(self, name: str, spec: Json, *, region: str) -> dict[str, Json]:
        """Create a Falcon account and a tailnet with generated data, and return their credentials by side.

        The credentials have the form of the secrets.
        """
        created = self.call(
            "POST",
            "/generate",
            {
                "spec": {"now": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")} | spec,
                "account": {"name": name, "region": region},
                "tailnet": {"name": name},
            },
        )
        clients = {"falcon": created["account"], "tailscale": created["tailnet"]["oauth_clients"][0]}
        return {
            side: {"clientId": client["client_id"], "clientSecret": client["client_secret"]}
            for side, client in clients.items()
        }

    def hosts(self, account: str) -> list[Json]:
        """Return the hosts of a Falcon account."""
        hosts: list[Json] = self.call("GET", f"/falcon/accounts/{account}/hosts")
        return hosts

    def scores(self, account: str) -> dict[str, int]:
        """Return the scores of a Falcon account by host id (aid)."""
        scores: dict[str, int] = self.call("GET", f"/falcon/accounts/{account}/scores")
        return scores

    def set_score(self, account: str, aid: str, score: int) -> None:
        """Change the score of a host in Falcon."""
        self.call("PUT", f"/falcon/accounts/{account}/scores/{aid}", score)

    def set_latency(self, milliseconds: int) -> None:
        """Set the latency of each response of Falcon and Tailscale."""
        self.call("PUT", "/latency", {"falcon_ms": milliseconds, "tailscale_ms": milliseconds})

    def devices(self, tailnet: str) -> dict[str, Json]:
        """Return the devices of a tailnet by node id."""
        return {device["nodeId"]: device for device in self.call("GET", f"/tailscale/tailnets/{tailnet}/devices")}

    def attributes(self, tailnet: str, key: str = "custom:ztaScore") -> dict[str, int]:
        """Return the values of an attribute in a tailnet by node id."""
        by_node = self.call("GET", f"/tailscale/tailnets/{tailnet}/attributes")
        return {node: attributes[key] for node, attributes in by_node.items() if key in attributes}

    def changes(self, tailnet: str) -> list[Json]:
        """Return all changes of attributes in a tailnet, oldest first."""
        changes: list[Json] = self.call("GET", f"/tailscale/tailnets/{tailnet}/changes")
        return changes

    def writes(self) -> list[Json]:
        """Return all write requests to Tailscale, with the failed ones."""
        requests = self.call("GET", "/requests")["requests"]
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
            raise RuntimeError(f"the simulators exited:\n{log.read().decode()}")
        yield Simulators(**json.loads(line))
