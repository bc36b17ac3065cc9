"""Server-sent events of one build for the console: its log as it grows, and its state whenever that changes.

`event: lines` carries {"lines": [...]} with the last line's number as the event id, so that a reconnect goes on where it
stopped; `event: state` carries the build as JSON; `event: end` is the last one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from builds.images import building, telling
from builds.models import Build
from controlplane.kernel.errors import LimitExceeded, NotFound
from controlplane.kernel.ids import parse_uuid
from controlplane.stream import operators

LOOK_EVERY_S = 0.5
KEEP_ALIVE_S = 15.0
MAX_STREAM_S = 3600.0
MOST_STREAMS = 8  # of one person

InThread = Callable[..., Awaitable[Any]]
_open: Counter[Any] = Counter()


def route(*, in_thread: InThread, stopping: asyncio.Event) -> Route:
    """The address, for the stream process."""

    async def events(request: Request) -> Response:
        user = await in_thread(operators.signed_in, operators.session_of(request.cookies))
        build_id = parse_uuid(request.path_params["build"])
        if build_id is None:
            raise NotFound("build_not_found", "There is no such build.", "Look at the workflow's builds.")
        await in_thread(building.find, build_id)
        if _open[user.pk] >= MOST_STREAMS:
            said = f"You listen to {MOST_STREAMS} builds already."
            raise LimitExceeded("too_many_streams", said, "Close a page; the others show the log at their next reload.", headers={"Retry-After": "5"})
        told = request.headers.get("last-event-id", "") or request.query_params.get("after", "")
        seen = int(told) if told.isdecimal() and len(told) < 10 else 0
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(user.pk, build_id, seen, in_thread, stopping), media_type="text/event-stream", headers=headers)

    return Route("/ops/builds/{build}/events", events, methods=["GET"])


async def _stream(who: Any, build_id: Any, seen: int, in_thread: InThread, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    _open[who] += 1
    try:
        yield b"retry: 2000\n\n"
        ends = time.monotonic() + MAX_STREAM_S
        said, before = time.monotonic(), ""
        while time.monotonic() < ends and not stopping.is_set():
            lines, state, is_open = await in_thread(_look, build_id, seen)
            if lines:
                seen = lines[-1]["seq"]
                yield _event("lines", {"lines": lines}, seen)
            if state != before:
                before = state
                yield _event("state", json.loads(state))
            if lines or state != before:
                said = time.monotonic()
            elif time.monotonic() - said >= KEEP_ALIVE_S:
                said = time.monotonic()
                yield b": still here\n\n"
            if len(lines) >= telling.LINES_AT_ONCE:
                continue
            if not is_open:
                yield _event("end", {})
                return
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        _open[who] -= 1
        if not _open[who]:
            del _open[who]


def _look(build_id: Any, seen: int) -> tuple[list[dict[str, Any]], str, bool]:
    """New lines, the state as text to compare, and whether there will be more. The state is read first: no line of an ended build is missed."""
    build = building.find(build_id)
    return telling.lines_after(build, seen), json.dumps(telling.one(build)), build.state in Build.OPEN


def _event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
