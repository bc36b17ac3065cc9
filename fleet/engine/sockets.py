"""The open WebSockets, by client id.

A client id has one socket: a newer one replaces the older, and when any socket
of an id closes, the id is forgotten (so a late close of the old one silences the
new one, as on a real server). Messages leave in the order they were sent, from
any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import Any
from uuid import uuid4

from starlette.websockets import WebSocket, WebSocketDisconnect

from fleet.engine.faults import Faults

FEATURES: dict[str, Any] = {
    "supports_preview_metadata": True,
    "max_upload_size": 100 * 1024 * 1024,
    "extension": {"manager": {"supports_v4": True}},
}
TEXT_EVENT = 3
# A client that does not read for this long loses its socket instead of stopping the others.
SEND_TIMEOUT_S = 10.0

Frame = str | bytes


class Hub:
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.client_id: str | None = None
        self.current_node: str | None = None
        self._sockets: dict[str, WebSocket] = {}
        self._sent: dict[int, int] = {}
        self._outbox: asyncio.Queue[tuple[Frame, str | None]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def send(self, event: str, data: dict[str, Any], client_id: str | None = None) -> None:
        """Send to one client's socket, or to all when `client_id` is None."""
        self._post(json.dumps({"type": event, "data": data}), client_id)

    def send_node_text(self, text: str, node_id: str, client_id: str | None) -> None:
        name = node_id.encode()
        self._post(struct.pack(">II", TEXT_EVENT, len(name)) + name + text.encode(), client_id)

    def _post(self, frame: Frame, client_id: str | None) -> None:
        assert self._loop is not None
        # A loop that is already closed means the process is on its way out.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, (frame, client_id))

    async def publish(self) -> None:
        """Deliver messages for ever."""
        while True:
            frame, client_id = await self._outbox.get()
            if client_id is None:
                targets = list(self._sockets.values())
            else:
                targets = [self._sockets[client_id]] if client_id in self._sockets else []
            for socket in targets:
                await self._deliver(socket, frame)

    async def _deliver(self, socket: WebSocket, frame: Frame) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                if isinstance(frame, bytes):
                    await socket.send_bytes(frame)
                else:
                    await socket.send_text(frame)
            self._sent[id(socket)] = self._sent.get(id(socket), 0) + 1
            if self.faults.drop_socket is not None and self._sent[id(socket)] >= self.faults.drop_socket:
                await socket.close(1011)
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            # The reader side of a broken socket notices by itself and unregisters it.
            with contextlib.suppress(Exception):
                await socket.close(1011)

    async def serve(self, socket: WebSocket, status: dict[str, Any]) -> None:
        """Keep one socket until it closes."""
        client_id = socket.query_params.get("clientId") or uuid4().hex
        await socket.accept()
        self._sockets[client_id] = socket
        try:
            await self._deliver(socket, json.dumps({"type": "status", "data": {**status, "sid": client_id}}))
            if self.client_id == client_id and self.current_node is not None:
                await self._deliver(socket, json.dumps({"type": "executing", "data": {"node": self.current_node}}))
            await self._listen(socket)
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            self._sockets.pop(client_id, None)
            self._sent.pop(id(socket), None)

    async def _listen(self, socket: WebSocket) -> None:
        first = True
        while True:
            received = await socket.receive_text()
            with contextlib.suppress(ValueError, AttributeError):
                message = json.loads(received)
                if first and message.get("type") == "feature_flags":
                    await self._deliver(socket, json.dumps({"type": "feature_flags", "data": FEATURES}))
            first = False
