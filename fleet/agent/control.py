"""The worker protocol as a client: docs/worker-protocol.md, call by call."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from fleet.agent import backoff
from fleet.agent.logs import Log

log = Log(__name__)

CALL_S = 15.0
REGISTER_PATIENCE_S = 60.0


class Unavailable(Exception):
    """No answer, or a 5xx: try again later."""


class Retired(Exception):
    """The control plane no longer knows this worker's token."""


class Stale(Exception):
    """Another attempt holds the job now; whatever we have is worthless."""


class Refused(Exception):
    """A 4xx that trying again does not change."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code = status, code


class ControlPlane:
    """One persistent client. `last_success` tells when the control plane last answered at all."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/worker/v1",
            timeout=httpx.Timeout(CALL_S, connect=5.0),
            limits=httpx.Limits(max_connections=16, keepalive_expiry=60.0),
        )
        self.last_success = time.monotonic()

    async def close(self) -> None:
        await self._http.aclose()

    async def register(self, pool_token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Become a worker; from here on the worker's own token is used."""
        answer = await self._call("POST", "/register", json=body, headers={"Authorization": f"Bearer {pool_token}"})
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"
        return answer

    async def enrol(self, pool_token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Register, and wait for a control plane that is just coming up."""
        give_up = time.monotonic() + REGISTER_PATIENCE_S
        return await patiently(lambda: self.register(pool_token, body), until=lambda: time.monotonic() < give_up, what="register")

    async def claim(self, *, wait_s: float, warm: list[str], stored: list[str]) -> dict[str, Any]:
        body = {"max_jobs": 1, "wait_s": wait_s, "warm": warm, "stored": stored}
        return await self._call("POST", "/claim", json=body, timeout=httpx.Timeout(wait_s + CALL_S, connect=5.0))

    async def heartbeat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call("POST", "/heartbeat", json=body)

    async def leave(self, reason: str, message: str, engine_log: list[str]) -> None:
        body = {"reason": reason, "message": message} | ({"engine_log": engine_log} if engine_log else {})
        await self._call("POST", "/leave", json=body, timeout=5.0)

    async def input_file(self, job: str, attempt: int, sha256: str, max_bytes: int) -> bytes:
        """The bytes of an input, checked against their hash; raises ValueError when they do not fit."""
        path = f"{_attempt(job, attempt)}/files/{quote(sha256, safe='')}"
        try:
            async with self._http.stream("GET", path, timeout=120.0) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    self._check(reply)
                digest, chunks, size = hashlib.sha256(), [], 0
                async for chunk in reply.aiter_bytes():
                    size += len(chunk)
                    if size > max_bytes:
                        raise ValueError(f"larger than {max_bytes} bytes")
                    digest.update(chunk)
                    chunks.append(chunk)
        except httpx.HTTPError as error:
            raise Unavailable(repr(error)) from error
        self.last_success = time.monotonic()
        if digest.hexdigest() != sha256:
            raise ValueError("the bytes do not have the announced sha256")
        return b"".join(chunks)

    async def put_output(self, job: str, attempt: int, index: int, data: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        return await self._call("PUT", f"{_attempt(job, attempt)}/outputs/{index}", content=data, headers=dict(headers), timeout=300.0)

    async def complete(self, job: str, attempt: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call("POST", f"{_attempt(job, attempt)}/complete", json=body, timeout=30.0)

    async def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            reply = await self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise Unavailable(repr(error)) from error
        self._check(reply)
        try:
            answer = reply.json() if reply.content else {}
        except ValueError as error:
            raise Unavailable(f"{path} did not answer JSON") from error
        self.last_success = time.monotonic()
        return answer if isinstance(answer, dict) else {}

    def _check(self, reply: httpx.Response) -> None:
        """Turn an HTTP status into what it means for the agent."""
        if reply.status_code < 300:
            return
        if reply.status_code >= 500 or reply.status_code in (408, 425, 429):
            raise Unavailable(f"status {reply.status_code}")
        self.last_success = time.monotonic()
        try:
            error = reply.json()["error"]
            code, message = str(error.get("code", "")), str(error.get("message", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            code, message = "", reply.text[:200]
        if reply.status_code == 401:
            raise Retired(message)
        if reply.status_code == 409:
            raise Stale(code)
        raise Refused(reply.status_code, code, message)


async def patiently(call: Any, *, until: Any, what: str) -> dict[str, Any]:
    """Repeat `call()` on Unavailable with jittered back-off while `until()` says so; then raise it."""
    for wait_s in backoff.delays(first_s=0.1, cap_s=5.0):
        try:
            return dict(await call())
        except Unavailable as error:
            if not until():
                raise
            log.warning("trying again", call=what, error=str(error), wait_s=round(wait_s, 3))
            await asyncio.sleep(wait_s)
    raise AssertionError("delays are endless")


def _attempt(job: str, attempt: int) -> str:
    return f"/jobs/{quote(job, safe='')}/attempts/{attempt}"
