"""ComfyUI's websocket: one socket per client id, reopened with the same id when it breaks.

The server forgets a client id when *any* socket that used it closes, also an older one. So the old
socket is fully closed before the new one opens, and history stays the truth for what was missed.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import websockets

from fleet.agent import backoff
from fleet.agent.logs import Log

log = Log(__name__)

MAX_FRAME_BYTES = 256 * 1024**2
HELLO = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


@dataclass(frozen=True)
class Event:
    """One message. `closed` and `opened` are the socket's own; `frame` is a binary image, `text` a binary text."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    at: float = field(default_factory=time.monotonic)  # arrival: events wait in the queue while the agent waits for HTTP


def parse(message: str | bytes) -> Event | None:
    """One websocket message as an event; None for what cannot be read."""
    if isinstance(message, bytes):
        return _binary(message)
    try:
        decoded = json.loads(message)
    except ValueError:
        return None
    if not isinstance(decoded, dict) or not isinstance(decoded.get("type"), str):
        return None
    data = decoded.get("data")
    return Event(decoded["type"], data if isinstance(data, dict) else {})


def _binary(frame: bytes) -> Event | None:
    if len(frame) < 8:
        return None
    kind, number = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:8], "big")
    if kind == 1:
        return Event("frame", {}, frame[8:])
    if kind == 3:
        return Event("text", {"node": frame[8 : 8 + number].decode("utf-8", "replace")}, frame[8 + number :])
    if kind == 4:
        try:
            metadata = json.loads(frame[8 : 8 + number])
        except ValueError:
            return None
        return Event("frame", {"node": metadata.get("node_id"), "prompt_id": metadata.get("prompt_id")}, frame[8 + number :])
    return Event("unknown")


class EventSocket:
    """A stream of events for one client id that survives broken connections."""

    def __init__(self, url: str, client_id: str | None = None) -> None:
        self.client_id = client_id or uuid.uuid4().hex
        self.queue: asyncio.Queue[Event] = asyncio.Queue()
        self.open = asyncio.Event()
        self._url = f"{url}?clientId={self.client_id}"
        self._socket: websockets.ClientConnection | None = None
        self._task = asyncio.create_task(self._keep(), name=f"events-{self.client_id[:6]}")

    async def ready(self, timeout_s: float) -> bool:
        """Wait for the first connection; False when it did not come. The run goes on either way."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.open.wait()
        except TimeoutError:
            return False
        return True

    async def renew(self) -> None:
        """Drop the connection; the keeper opens the next one after the close is through."""
        if self._socket is not None:
            await self._socket.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        waits = backoff.delays(first_s=0.1, cap_s=2.0)
        while True:
            try:
                async with websockets.connect(
                    self._url, max_size=MAX_FRAME_BYTES, open_timeout=10, close_timeout=1, ping_timeout=60, compression=None, proxy=None
                ) as socket:
                    self._socket = socket
                    waits = backoff.delays(first_s=0.1, cap_s=2.0)
                    await socket.send(HELLO)
                    async for message in socket:
                        self.open.set()
                        event = parse(message)
                        # `status` goes to every socket at every change of the queue and says nothing of a prompt.
                        if event is not None and event.kind not in ("status", "feature_flags"):
                            self.queue.put_nowait(event)
            except (OSError, websockets.WebSocketException, TimeoutError) as error:
                log.debug("socket broke", error=repr(error))
            self._socket = None
            self.open.clear()
            self.queue.put_nowait(Event("closed"))
            await asyncio.sleep(next(waits))


class SpareSockets:
    """Keeps one socket open ahead of the next job, so that a claimed job does not wait for a handshake."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._spare: EventSocket | None = None

    def prepare(self) -> None:
        if self._spare is None:
            self._spare = EventSocket(self._url)

    def take(self) -> EventSocket:
        """A socket with a client id that no prompt has used."""
        spare, self._spare = self._spare, None
        return spare or EventSocket(self._url)

    async def close(self) -> None:
        if self._spare is not None:
            await self._spare.close()
            self._spare = None
