"""What follows when an attempt ends without success. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# Only what is our own doing is tried again; anything else would fail the same way once more.
RETRIED_CLASSES = frozenset({"platform", "capacity"})
OURS = frozenset({"platform", "capacity"})


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that ended, and what is known of its job."""

    failure_class: str
    attempt: int
    max_attempts: int
    cancel_asked: bool
    deadline_at: datetime | None


def next_status(ended: Ended, *, now: datetime) -> str:
    """`queued` to try again, else the terminal status."""
    if ended.deadline_at is not None and ended.deadline_at <= now:
        return "expired"
    if ended.cancel_asked:
        return "canceled"
    if ended.failure_class in RETRIED_CLASSES and ended.attempt < ended.max_attempts:
        return "queued"
    return "failed"
