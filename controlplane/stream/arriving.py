"""A request's body on its way in. A thread of the web process reads it, and threads are few: so its beginning, which is
all of most bodies, is held until it is there, and one that dribbles is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

FIRST_BYTES = 64 * 1024
GRACE_S = 20.0
SLOWEST_BYTES_PER_S = 8_000


class TooSlow(Exception):
    """The caller sends so slowly that it only holds a place."""


async def body(request: Request) -> AsyncIterator[bytes]:
    """The body; nothing before its first `FIRST_BYTES` are there. Raises TooSlow, or Starlette's ClientDisconnect."""
    chunks = _chunks(request)
    first, size = [], 0
    async for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size >= FIRST_BYTES:
            break

    async def both() -> AsyncIterator[bytes]:
        for chunk in first:
            yield chunk
        async for chunk in chunks:
            yield chunk

    return both()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Only the time spent waiting for the caller counts, not what the web process takes."""
    stream = request.stream()
    waited, size = 0.0, 0
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, GRACE_S + size / SLOWEST_BYTES_PER_S - waited)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TooSlow from None
        waited += time.monotonic() - began
        size += len(chunk)
        if chunk:
            yield chunk
