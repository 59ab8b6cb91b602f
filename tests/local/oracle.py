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


def lowest_score(wanted: str, hosts: list[Any], scores: dict[str, int]) -> int | None:
    """Return the lowest score of the hosts with this serial that were seen within a day of the newest of them."""
    candidates = [
        (datetime.fromisoformat(host["last_seen"].replace("Z", "+00:00")), scores.get(host["device_id"]))
        for host in hosts
        if serial(host.get("serial_number", "")) == wanted
    ]
    newest = max((seen for seen, _ in candidates), default=None)
    live_scores = [
        score for seen, score in candidates if newest and newest - seen <= timedelta(hours=24) and score is not None
    ]
    return min(live_scores, default=None)


def expected_scores(hosts: list[Any], scores: dict[str, int], devices: dict[str, Any]) -> dict[str, int]:
    """Return the scores that devices should have by node id."""
    expected = {}
    for node, device in devices.items():
        if device["isExternal"]:
            continue
        reported = (device.get("postureIdentity") or {}).get("serialNumbers", [])
        by_serial = [lowest_score(wanted, hosts, scores) for wanted in map(serial, reported) if wanted]
        lowest = min((score for score in by_serial if score is not None), default=None)
        if lowest is not None:
            expected[node] = lowest
    return expected
