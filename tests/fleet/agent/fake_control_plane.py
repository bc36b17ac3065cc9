"""The control plane's side of docs/worker-protocol.md, small and in memory, with faults on request."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import threading
import time
import uuid
from collections import deque
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

POOL_TOKEN = "pool-secret"


def wait_until(condition: Any, *, timeout_s: float = 15.0, what: str = "") -> Any:
    """Poll until the condition holds; its value. Fails loudly at the deadline."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"timed out: {what or condition}")


class FakeControlPlane:
    """Jobs are put in by `submit`; everything the worker says is kept for assertions."""

    def __init__(self, *, heartbeat_s: float = 0.2, lease_s: float = 5.0, poll_wait_s: float = 5.0, silence_exit_s: float = 30.0) -> None:
        self.settings = {"heartbeat_s": heartbeat_s, "lease_s": lease_s, "poll_wait_s": poll_wait_s, "silence_exit_s": silence_exit_s}
        self.registrations: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []
        self.claimed_at: dict[str, float] = {}
        self.queue: deque[dict[str, Any]] = deque()
        self.files: dict[str, bytes] = {}
        self.outputs: dict[tuple[str, int, int], tuple[dict[str, str], bytes]] = {}
        self.completions: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self.completed_at: dict[str, float] = {}
        self.leaves: list[dict[str, Any]] = []
        self.verdicts: dict[str, str] = {}
        self.drain = False
        self.retired = False
        self.faults: dict[str, deque[int]] = {}  # call -> statuses to answer next; 0 drops the connection
        self.assignments: dict[str, dict[str, Any]] = {}
        self.token = secrets.token_hex(8)
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # For tests

    def submit(self, graph: dict[str, Any], *, attempt: int = 1, **fields: Any) -> str:
        job = str(uuid.uuid4())
        assignment = {
            "job": job,
            "attempt": attempt,
            "workflow": "test",
            "version": 1,
            "graph": graph,
            "files": [],
            "extra_data": {},
            "weights": {},
            "warm_key": "k1",
            "deadline_at": None,
            "timeout_s": 60,
            "stall_s": 30,
            "max_output_bytes": 64 * 1024**2,
            "request_id": "req-1",
            **fields,
        }
        self.assignments[job] = assignment
        self.queue.append(assignment)
        self.wake()
        return job

    def add_file(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.files[sha256] = data
        return sha256

    def completion(self, job: str, *, attempt: int = 1, timeout_s: float = 15.0) -> dict[str, Any]:
        return wait_until(lambda: self.completions.get((job, attempt)), timeout_s=timeout_s, what=f"completion of {job}")[0]

    def output(self, job: str, index: int = 0, attempt: int = 1) -> tuple[dict[str, str], bytes]:
        return self.outputs[(job, attempt, index)]

    def progress_of(self, job: str) -> list[float]:
        return [row["progress"] for beat in list(self.heartbeats) for row in beat["jobs"] if row["job"] == job]

    def running(self, job: str) -> bool:
        return any(row["job"] == job and row["node"] is not None for beat in self.heartbeats[-3:] for row in beat["jobs"])

    def fail_next(self, call: str, *statuses: int) -> None:
        self.faults.setdefault(call, deque()).extend(statuses)

    def wake(self) -> None:
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    # The server

    def __enter__(self) -> FakeControlPlane:
        # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer costs 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        base = "/worker/v1/jobs/{job}/attempts/{attempt:int}"
        app = Starlette(
            routes=[
                Route("/worker/v1/register", self._guard("register", self._register), methods=["POST"]),
                Route("/worker/v1/claim", self._guard("claim", self._claim), methods=["POST"]),
                Route("/worker/v1/heartbeat", self._guard("heartbeat", self._heartbeat), methods=["POST"]),
                Route("/worker/v1/leave", self._guard("leave", self._leave), methods=["POST"]),
                Route(base + "/files/{sha256}", self._guard("file", self._file), methods=["GET"]),
                Route(base + "/outputs/{index:int}", self._guard("output", self._output), methods=["PUT"]),
                Route(base + "/complete", self._guard("complete", self._complete), methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, what="fake control plane")
        return self

    def __exit__(self, *exc: object) -> None:
        self.retired = True
        self.wake()
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()

    def _guard(self, call: str, handler: Any) -> Any:
        async def guarded(request: Request) -> Response:
            if self.faults.get(call):
                status = self.faults[call].popleft()
                if status == 0:
                    await asyncio.sleep(3600)
                return self._error(status, "attempt_stale" if status == 409 else "made_up")
            expected = POOL_TOKEN if call == "register" else self.token
            if request.headers.get("authorization") != f"Bearer {expected}" or (self.retired and call != "register"):
                return self._error(401, "unauthorized")
            return await handler(request)

        return guarded

    @staticmethod
    def _error(status: int, code: str) -> JSONResponse:
        error = {"code": code, "message": code, "suggestion": "", "alternative_endpoint": None, "details": {}, "request_id": "r"}
        return JSONResponse({"error": error}, status)

    async def _register(self, request: Request) -> Response:
        self.registrations.append(await request.json())
        return JSONResponse({"worker": str(uuid.uuid4()), "token": self.token, **self.settings}, 201)

    async def _claim(self, request: Request) -> Response:
        body = await request.json()
        self.claims.append(body)
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        end = time.monotonic() + body["wait_s"]
        while not self.queue and not self.drain and not self.retired and time.monotonic() < end:
            try:
                await asyncio.wait_for(self._wake.wait(), min(end - time.monotonic(), 0.25))
            except TimeoutError:
                continue
            self._wake.clear()
        if self.retired:
            return self._error(401, "unauthorized")
        jobs = [self.queue.popleft()] if self.queue and not self.drain else []
        for job in jobs:
            self.claimed_at[job["job"]] = time.monotonic()
        return JSONResponse({"jobs": jobs, "drain": self.drain})

    async def _heartbeat(self, request: Request) -> Response:
        body = await request.json()
        self.heartbeats.append(body)
        rows = [{"job": r["job"], "attempt": r["attempt"], "verdict": self.verdicts.get(r["job"], "ok")} for r in body["jobs"]]
        return JSONResponse({"drain": self.drain, "jobs": rows})

    async def _leave(self, request: Request) -> Response:
        self.leaves.append(await request.json())
        return JSONResponse({})

    async def _file(self, request: Request) -> Response:
        data = self.files.get(request.path_params["sha256"])
        return Response(data, media_type="application/octet-stream") if data is not None else self._error(404, "not_found")

    async def _output(self, request: Request) -> Response:
        data = await request.body()
        sha256 = hashlib.sha256(data).hexdigest()
        if request.headers["x-content-sha256"] != sha256:
            return self._error(400, "hash_mismatch")
        headers = {k.removeprefix("x-output-"): unquote(v) for k, v in request.headers.items() if k.startswith("x-output-")}
        headers["type"] = request.headers["content-type"]
        path = request.path_params
        self.outputs[(path["job"], path["attempt"], path["index"])] = (headers, data)
        return JSONResponse({"sha256": sha256, "size_bytes": len(data)}, 201)

    async def _complete(self, request: Request) -> Response:
        body, path = await request.json(), request.path_params
        key = (path["job"], path["attempt"])
        for row in body["outputs"]:
            stored = self.outputs.get((*key, row["index"]))
            if stored is None or hashlib.sha256(stored[1]).hexdigest() != row["sha256"]:
                return self._error(422, "output_missing")
        earlier = self.completions.setdefault(key, [])
        earlier.append(body)
        self.completed_at.setdefault(path["job"], time.monotonic())
        return JSONResponse({"accepted": True, **({"duplicate": True} if len(earlier) > 1 else {})})
