"""When a smoke run is due, and whether what came out of one is good. Pure: rows in, words out.

A version is tried once it is kept, once a channel was moved to it, and once a day while production runs it; an image
once it is built. An output is good when it opens, shows something and holds no broken numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

EVERY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Subject:
    """A version that somebody can reach: the newest of its workflow, or one a channel points at."""

    version_id: UUID
    runnable: bool = True
    newest: bool = False
    production: bool = False
    moved_at: datetime | None = None  # the last time a channel was moved to it
    last_at: datetime | None = None  # the last time a run of it was asked for
    open: bool = False


def due(subjects: Iterable[Subject], *, now: datetime) -> list[tuple[UUID, str]]:
    """The versions to run now and the trigger of each: import, deploy or calendar."""
    found = []
    for one in subjects:
        if not one.runnable or one.open:
            continue
        if one.last_at is None:
            found.append((one.version_id, "import" if one.newest or one.moved_at is None else "deploy"))
        elif one.moved_at is not None and one.moved_at > one.last_at:
            found.append((one.version_id, "deploy"))
        elif one.production and now - one.last_at >= EVERY:
            found.append((one.version_id, "calendar"))
    return found


def fault(outputs: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Why these outputs do not pass, as {code, message, suggestion}; None when they do. Each is {name, measurements}."""
    if not outputs:
        return _said("no_outputs", "It ended well but gave no output.", "Check that the graph ends in a node that saves.")
    for one in outputs:
        name, found = str(one.get("name", "the output"))[:120], one.get("measurements") or {}
        if found.get("decodes") is False:
            return _said("output_broken", f"{name} cannot be opened.", "Look at the node that saves it and at its format.")
        if found.get("has_nan") is True:
            return _said("output_not_finite", f"{name} holds values that are no numbers.", "Check precision and VAE of the graph.")
        if found.get("blank") is True:
            return _said("output_blank", f"{name} is blank.", "Open it; when the workflow is right, write inputs that show something.")
    return None


def _said(code: str, message: str, suggestion: str) -> dict[str, str]:
    return {"code": code, "message": message, "suggestion": suggestion}
