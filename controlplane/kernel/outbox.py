"""The outbox: what must be told to the outside, written in the transaction that made it true.

A topic and a key name one message, so putting it twice tells it once. Claiming an entry counts an
attempt and hides it for a while: a process that dies in between leaves it to the next one. So every
entry is handled at least once, and its receiver must know it by its id.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count

from controlplane.kernel.models import OutboxEntry

State = OutboxEntry.State


def put(*, topic: str, key: str, payload: dict[str, Any], now: datetime, due_at: datetime | None = None) -> None:
    """Add a message, due now or at `due_at`. When this topic and key were put before, the first message stands."""
    entry = OutboxEntry(topic=topic, key=key, payload=payload, due_at=due_at or now, created_at=now)
    OutboxEntry.objects.bulk_create([entry], ignore_conflicts=True)  # one statement: this is on the path of every finished job


def claim(*, topic: str, limit: int, now: datetime, hold_s: float) -> list[OutboxEntry]:
    """Take up to `limit` due entries, longest due first; nobody else sees them for `hold_s` seconds."""
    with transaction.atomic():
        due = OutboxEntry.objects.filter(topic=topic, state=State.PENDING, due_at__lte=now).order_by("due_at", "id")
        if connection.features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True)
        entries = list(due[:limit])
        for entry in entries:
            entry.attempts += 1
            entry.due_at = now + timedelta(seconds=hold_s)
        OutboxEntry.objects.bulk_update(entries, ["attempts", "due_at"])
    return entries


def done(entry: OutboxEntry, *, now: datetime) -> bool:
    """It was told. False when somebody else claimed or ended it meanwhile."""
    return _settle(entry, state=State.DONE, ended_at=now, last_error="")


def retry(entry: OutboxEntry, *, delay_s: float, error: str, now: datetime) -> bool:
    """It could not be told: try again in `delay_s`. False when somebody else claimed or ended it meanwhile."""
    return _settle(entry, due_at=now + timedelta(seconds=delay_s), last_error=_short(error))


def dead(entry: OutboxEntry, *, error: str, now: datetime) -> bool:
    """It will never be told. False when somebody else claimed or ended it meanwhile."""
    return _settle(entry, state=State.DEAD, ended_at=now, last_error=_short(error))


def again(*, entry_id: UUID, now: datetime) -> bool:
    """Make it due now, whatever became of it; False when there is none. The receiver sees the same id.

    Attempts are not forgotten: their number is what fences a claim. An entry that had used them all up gets one more.
    """
    return OutboxEntry.objects.filter(id=entry_id).update(state=State.PENDING, due_at=now, ended_at=None) == 1


def counts() -> dict[str, dict[str, int]]:
    """Entries by topic and state."""
    found: dict[str, dict[str, int]] = {}
    for topic, state, n in OutboxEntry.objects.order_by().values_list("topic", "state").annotate(n=Count("id")):
        found.setdefault(topic, dict.fromkeys(State.values, 0))[state] = n
    return found


def _settle(entry: OutboxEntry, **values: Any) -> bool:
    """Change the entry if this claim still holds it: the number of the attempt is the fence."""
    held = OutboxEntry.objects.filter(id=entry.id, state=State.PENDING, attempts=entry.attempts)
    if not held.update(**values):
        return False
    for name, value in values.items():
        setattr(entry, name, value)
    return True


def _short(error: str) -> str:
    return error.replace("\0", "").encode("utf-8", "replace").decode()[:500]
