"""Computes the score that each device should have, slowly and simply. Shares no code with the function."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

PLACEHOLDERS = {
    "0123456789",
    "123456789",
    "1234567890",
    "base board serial number",
    "chassis serial number",
    "default string",
    "defaultstring",
    "invalid",
    "n/a",
    "na",
    "none",
    "not applicable",
    "not available",
    "not present",
    "not specified",
    "null",
    "o.e.m.",
    "serial number",
    "serialnumber",
    "system serial number",
    "to be filled by o.e.m.",
    "unknown",
}


def serial(text: str) -> str | None:
    """Normalize a serial number. Return None if it does not identify a machine."""
    text = text.strip().lower()
    one_character = len(set(text)) <= 1
    return None if one_character or text in PLACEHOLDERS else text


def time(host: dict[str, str], field: str) -> datetime:
    """Return a time of a host."""
    return datetime.fromisoformat(host[field].replace("Z", "+00:00"))


def lowest_score(wanted: str, hosts: list[Any], scores: dict[str, int], os: str) -> int | None:
    """Return the lowest score of the live hosts with this serial and of this platform, as with onSharedSerial lowest.

    A host is live if it was seen within a day of the newest one, and if no other one was first seen after that.
    """
    candidates = [host for host in hosts if serial(host.get("serial_number", "")) == wanted]
    newest = max((time(host, "last_seen") for host in candidates), default=None)
    restart = max((time(host, "first_seen") for host in candidates), default=None)
    platform = {"Windows": "windows", "Mac": "macos", "Linux": "linux"}
    live_scores = [
        scores[host["device_id"]]
        for host in candidates
        if newest
        and restart
        and newest - time(host, "last_seen") <= timedelta(hours=24)
        and restart <= time(host, "last_seen")
        and (not os or platform[host["platform_name"]] == os.lower())
        and host["device_id"] in scores
    ]
    return min(live_scores, default=None)


def expected_scores(hosts: list[Any], scores: dict[str, int], devices: dict[str, Any]) -> dict[str, int]:
    """Return the scores that devices should have by node id."""
    expected = {}
    for node, device in devices.items():
        if device["isExternal"]:
            continue
        reported = (device.get("postureIdentity") or {}).get("serialNumbers", [])
        serials = [wanted for wanted in map(serial, reported) if wanted]
        by_serial = [lowest_score(wanted, hosts, scores, device["os"]) for wanted in serials]
        lowest = min((score for score in by_serial if score is not None), default=None)
        if lowest is not None:
            expected[node] = lowest
    return expected
