"""What an engine is asked and how its answers are read: containers, one container, its last words. Nothing here changes anything."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Any

from fleet.providers.base import Ref

MAX_LOG = 256_000
MAX_LINE = 500
LOG_S = 5.0


def listed(api: Any, *, labels: list[str], whole: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Containers with these labels, running or not. What is no list of containers must not pass for an empty one: it raises."""
    rows = api.containers(all=True, filters={"label": labels})
    if not isinstance(rows, list):
        raise TypeError("the list of containers is no list")
    for row in rows:
        if not (row["Id"] and row["State"] and isinstance(row["Labels"], dict) and all(row["Labels"].get(name) for name in whole)):
            raise ValueError("a container without id, state or label")
    return rows


def inspected(api: Any, *, id_: str) -> dict[str, Any]:
    return dict(api.inspect_container(id_))


def id_of(ref: Ref) -> str:
    return str(ref.get("container") or "")


def seconds(text: str) -> float:
    """Unix time of what an engine calls now, such as 2026-11-21T13:02:41.123456789Z."""
    return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()


def read(api: Any, id_: str, lines: int) -> list[str]:
    """The last lines, bounded in bytes, in time and each in length; only what can be printed."""
    until = time.monotonic() + LOG_S
    kept: deque[bytes] = deque()
    size = 0
    for chunk in api.logs(id_, stdout=True, stderr=True, stream=True, follow=False, tail=max(1, min(lines, 1000))):
        kept.append(chunk)
        size += len(chunk)
        while size > MAX_LOG and len(kept) > 1:
            size -= len(kept.popleft())
        if time.monotonic() > until:
            break
    text = b"".join(kept)[-MAX_LOG:].decode("utf-8", "replace")
    found = ["".join(c for c in line.rstrip() if c.isprintable() or c == "\t")[:MAX_LINE] for line in text.splitlines()]
    return [line for line in found if line][-lines:]
