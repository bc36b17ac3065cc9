"""Fetch a prompt's outputs from ComfyUI, measure them, and store them with the control plane."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fleet.agent import classify, measure, mediatypes
from fleet.agent.classify import Failure
from fleet.agent.comfy import Comfy, EngineUnreachable, FileGone, FileTooLarge
from fleet.agent.control import Refused, Unavailable, patiently
from fleet.agent.outputs import Found

PUT_PATIENCE_S = 20.0
AT_ONCE = 2  # the next file is fetched while one is under way

Put = Callable[[int, bytes, Mapping[str, str]], Awaitable[dict[str, Any]]]


class NotDelivered(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Fetched:
    found: Found
    data: bytes
    media_type: str


async def fetch(found: Found, comfy: Comfy, max_bytes: int) -> Fetched:
    """The bytes of one output. Raises NotDelivered; nothing that a node reported is dropped in silence."""
    data = found.data
    if data is None:
        try:
            data = await comfy.view(found.filename, found.subfolder, found.location, max_bytes)
        except FileTooLarge as error:
            raise NotDelivered(classify.output_too_large(found.name, max_bytes)) from error
        except (FileGone, EngineUnreachable) as error:
            raise NotDelivered(classify.output_not_stored(found.name, str(error))) from error
    elif len(data) > max_bytes:
        raise NotDelivered(classify.output_too_large(found.name, max_bytes))
    # Text from a message is text, also when it looks like JSON.
    media_type = "text/plain" if found.data is not None and found.name.endswith(".txt") else mediatypes.sniff(data)
    return Fetched(found, data, media_type)


async def deliver(founds: Sequence[Found], *, comfy: Comfy, put: Put, max_bytes: int) -> list[dict[str, Any]]:
    """Store all outputs; returns the rows of the completion. Raises NotDelivered, Stale or Retired."""
    gate, left = asyncio.Semaphore(AT_ONCE), max_bytes

    async def one(index: int, found: Found) -> dict[str, Any]:
        nonlocal left
        async with gate:
            fetched = await fetch(found, comfy, left)
            left -= len(fetched.data)
            if left < 0:
                raise NotDelivered(classify.output_too_large(found.name, max_bytes))
            return await _store(index, fetched, put)

    tasks = [asyncio.create_task(one(i, f)) for i, f in enumerate(founds)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _store(index: int, fetched: Fetched, put: Put) -> dict[str, Any]:
    found, data = fetched.found, fetched.data
    sha256, kind = hashlib.sha256(data).hexdigest(), mediatypes.kind(fetched.media_type)
    headers = {
        "Content-Type": fetched.media_type,
        "X-Output-Name": quote(found.name),
        "X-Output-Kind": kind,
        "X-Output-Node": quote(found.node, safe=":."),
        "X-Content-SHA256": sha256,
    }
    measuring = asyncio.create_task(asyncio.to_thread(measure.measure, data, fetched.media_type))
    give_up = time.monotonic() + PUT_PATIENCE_S
    try:
        stored = await patiently(lambda: put(index, data, headers), until=lambda: time.monotonic() < give_up, what="put output")
        measurements = await measuring
    except Unavailable as error:
        raise NotDelivered(classify.output_not_stored(found.name, str(error))) from error
    except Refused as error:
        if error.status == 413:
            raise NotDelivered(classify.output_too_large(found.name, len(data))) from error
        raise NotDelivered(classify.output_not_stored(found.name, str(error))) from error
    finally:
        await asyncio.gather(measuring, return_exceptions=True)
    if stored.get("sha256") not in (None, sha256):
        raise NotDelivered(classify.output_not_stored(found.name, "the stored bytes have another sha256"))
    return {
        "index": index,
        "name": found.name,
        "kind": kind,
        "node": found.node,
        "media_type": fetched.media_type,
        "sha256": sha256,
        "size_bytes": len(data),
        "measurements": measurements,
    }
