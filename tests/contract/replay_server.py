"""A server that repeats one recorded prompt of a real ComfyUI: its HTTP answers and its socket messages.

It knows nothing of ComfyUI beyond the recording, so the agent meets what the real server said.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import json
import socket
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


def recorded_prompts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The POST /prompt lines in their order."""
    return [line for line in lines if line["kind"] == "http" and line["path"] == "/prompt" and line["method"] == "POST" and "response_json" in line]


def recorded_history(lines: list[dict[str, Any]], prompt_id: str) -> dict[str, Any]:
    """The history entry of a prompt as it was recorded, {} when nobody asked."""
    for line in lines:
        found = line.get("response_json") if line["kind"] == "http" and str(line.get("path", "")).startswith("/history") else None
        if isinstance(found, dict) and isinstance(found.get(prompt_id), dict):
            return found[prompt_id]
    return {}


def recorded_messages(lines: list[dict[str, Any]], prompt_id: str) -> dict[str, list[Any]]:
    """Socket label -> messages while the prompt ran: texts as objects, binaries as bytes of the recorded head."""
    found: dict[str, list[Any]] = {}
    running = False
    for line in lines:
        if line["kind"] != "ws_recv":
            continue
        if line["type"] == "binary":
            if running:
                raw = base64.b64decode(line["base64"]) if line.get("base64") else bytes.fromhex(line["head_hex"])
                found.setdefault(line["ws"], []).append(raw)
            continue
        data = line["data"].get("data", {})
        if data.get("prompt_id") == prompt_id:
            running = not (line["data"]["type"] == "executing" and data["node"] is None)
        elif not (running and "prompt_id" not in data and line["data"]["type"] == "executing"):
            continue
        found.setdefault(line["ws"], []).append(line["data"])
    return found


class Replay:
    """One recorded prompt. The n-th connection gets the n-th of `sessions`; after it the prompt has ended."""

    def __init__(
        self,
        answer: dict[str, Any],
        *,
        status: int = 200,
        sessions: list[list[Any]] | None = None,
        history: dict[str, Any] | None = None,
        late_history_s: float = 0.0,
        forgets: bool = False,
        dies: bool = False,
        until_interrupt: int | None = None,
    ) -> None:
        self.answer, self.status = answer, status
        self.prompt_id = answer.get("prompt_id", "") if isinstance(answer, dict) else ""
        self.sessions = sessions if sessions is not None else [[]]
        self.history, self.late_history_s = history, late_history_s
        self.forgets, self.dies, self.until_interrupt = forgets, dies, until_interrupt
        self.prompts: list[dict[str, Any]] = []
        self.client_ids: list[str] = []
        self.interrupts: list[dict[str, Any]] = []
        self.open_sockets = 0
        self.most_open = 0
        self.asked_history_at: list[float] = []
        self.ended_at: float | None = None
        self._submitted = threading.Event()
        self._interrupted = threading.Event()

    def __enter__(self) -> Replay:
        self._server = Server() if self.dies else Server.shared()
        self._server.current = self
        self.url = self._server.url
        return self

    def __exit__(self, *exc: object) -> None:
        self._submitted.set()
        self._interrupted.set()
        if self.dies:
            self._server.stop()

    async def _prompt(self, request: Request) -> Response:
        self.prompts.append(await request.json())
        self._submitted.set()
        if not any(self.sessions):
            self.ended_at = time.monotonic()
        if isinstance(self.answer, dict):
            return JSONResponse(self.answer, self.status)
        return Response(str(self.answer), self.status)

    def _ended(self) -> bool:
        return self.ended_at is not None and time.monotonic() >= self.ended_at + self.late_history_s

    async def _history(self, request: Request) -> Response:
        self.asked_history_at.append(time.monotonic())
        known = self._ended() and self.history and not self.forgets
        return JSONResponse({self.prompt_id: self.history} if known else {})

    async def _queue(self, request: Request) -> Response:
        gone = self.forgets if self.ended_at is not None else False
        running = [] if gone or (self._ended() and self.history) or not self._submitted.is_set() else [[0, self.prompt_id, {}, {}, []]]
        return JSONResponse({"queue_running": running, "queue_pending": []})

    async def _interrupt(self, request: Request) -> Response:
        self.interrupts.append(await request.json())
        self._interrupted.set()
        return Response()

    async def _socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.client_ids.append(websocket.query_params["clientId"])
        number = len(self.client_ids) - 1
        self.open_sockets += 1
        self.most_open = max(self.most_open, self.open_sockets)
        try:
            await websocket.send_text(json.dumps({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": self.client_ids[-1]}}))
            while not self._submitted.is_set():  # noqa: ASYNC110 - set from a thread
                await asyncio.sleep(0.002)
            if number < len(self.sessions):
                await self._play(websocket, self.sessions[number])
                if number + 1 < len(self.sessions):
                    await websocket.close()
                    return
                self.ended_at = time.monotonic()
                if self.dies:
                    self._server.die()
                if self.dies or self.forgets:
                    await websocket.close(1011)
                    return
            while True:
                await websocket.receive()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self.open_sockets -= 1

    async def _play(self, websocket: WebSocket, messages: list[Any]) -> None:
        for position, message in enumerate(messages):
            if position == self.until_interrupt:
                while not self._interrupted.is_set():  # noqa: ASYNC110 - set from a thread
                    await asyncio.sleep(0.002)
            if isinstance(message, bytes):
                await websocket.send_bytes(message)
            else:
                await websocket.send_text(json.dumps(message))


class Server:
    """One listening server; whoever is `current` answers. Starting one per test would take most of the time."""

    _shared: Server | None = None

    def __init__(self) -> None:
        self.current: Replay | None = None
        # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer costs 40 ms.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        app = Starlette(
            routes=[
                Route("/prompt", self._prompt, methods=["POST"]),
                Route("/history/{prompt_id}", self._history),
                Route("/queue", self._queue, methods=["GET", "POST"]),
                Route("/interrupt", self._interrupt, methods=["POST"]),
                WebSocketRoute("/ws", self._socket),
            ]
        )
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="websockets-sansio")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < end, "the replay server did not start"
            time.sleep(0.002)

    @classmethod
    def shared(cls) -> Server:
        if cls._shared is None:
            cls._shared = cls()
            atexit.register(cls._shared.stop)
        return cls._shared

    def die(self) -> None:
        self._server.should_exit = self._server.force_exit = True

    def stop(self) -> None:
        self.die()
        self._thread.join(5)
        self._listener.close()

    def _now(self) -> Replay:
        assert self.current is not None
        return self.current

    async def _prompt(self, request: Request) -> Response:
        return await self._now()._prompt(request)

    async def _history(self, request: Request) -> Response:
        return await self._now()._history(request)

    async def _queue(self, request: Request) -> Response:
        return await self._now()._queue(request)

    async def _interrupt(self, request: Request) -> Response:
        return await self._now()._interrupt(request)

    async def _socket(self, websocket: WebSocket) -> None:
        await self._now()._socket(websocket)


def of_prompt(lines: list[dict[str, Any]], position: int, **options: Any) -> Replay:
    """The replay of the n-th prompt of a transcript, with one session on its first socket."""
    line = recorded_prompts(lines)[position]
    answer = line["response_json"]
    prompt_id = answer.get("prompt_id", "")
    messages = recorded_messages(lines, prompt_id)
    options.setdefault("sessions", list(messages.values())[:1] or [[]])
    return Replay(answer, status=line["status"], history=recorded_history(lines, prompt_id), **options)
