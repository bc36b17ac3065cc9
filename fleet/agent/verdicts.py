"""What a history entry or a final event says about a prompt. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    success: bool = False
    interrupted: bool = False
    data: Mapping[str, Any] | None = None  # of the error or the interrupt


def from_history(entry: Mapping[str, Any]) -> Verdict:
    """The end of a prompt by its history entry, whose `messages` repeat the decisive event."""
    status = entry.get("status")
    if not isinstance(status, Mapping):
        return Verdict(success=bool(entry.get("outputs")))
    for message in reversed(status.get("messages") or []):
        if isinstance(message, list | tuple) and len(message) == 2 and message[0] in ("execution_error", "execution_interrupted"):
            return from_event(message[0], message[1])
    return Verdict(success=status.get("status_str") == "success")


def from_event(kind: str, data: Mapping[str, Any]) -> Verdict:
    """The end of a prompt by the last event of its socket."""
    return Verdict(kind == "execution_success", kind == "execution_interrupted", data)
