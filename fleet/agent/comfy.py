"""ComfyUI over HTTP: one persistent connection, the real server's shapes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx


class EngineUnreachable(Exception):
    """No usable answer from ComfyUI: it is dead, starting, or the connection broke."""


class FileGone(Exception):
    """ComfyUI does not serve a file it reported."""


class FileTooLarge(Exception):
    """A file is larger than the job may store."""


class Comfy:
    """One ComfyUI server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(30.0, connect=5.0),
            trust_env=False,
            limits=httpx.Limits(max_connections=16, keepalive_expiry=60.0),
        )

    @property
    def socket_url(self) -> str:
        return "ws" + self.url.removeprefix("http") + "/ws"

    async def close(self) -> None:
        await self._http.aclose()

    async def system_stats(self) -> dict[str, Any]:
        return dict(await self._json("GET", "/system_stats"))

    async def object_info(self) -> dict[str, Any]:
        return dict(await self._json("GET", "/object_info", timeout=120.0))

    async def submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        """POST /prompt: the status and the decoded body, or its text."""
        reply = await self._ask("POST", "/prompt", json=body, timeout=120.0)
        try:
            return reply.status_code, reply.json()
        except ValueError:
            return reply.status_code, reply.text

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The finished entry of a prompt, or None while there is none."""
        entry = (await self._json("GET", f"/history/{quote(prompt_id, safe='')}")).get(prompt_id)
        return entry if isinstance(entry, dict) else None

    async def queued(self, prompt_id: str) -> str | None:
        """`running`, `pending`, or None when the server does not know the prompt."""
        queue = await self._json("GET", "/queue")
        for key, word in (("queue_running", "running"), ("queue_pending", "pending")):
            if any(isinstance(row, list) and len(row) > 1 and row[1] == prompt_id for row in queue.get(key, [])):
                return word
        return None

    async def idle(self) -> bool:
        queue = await self._json("GET", "/queue")
        return not queue.get("queue_running") and not queue.get("queue_pending")

    async def interrupt(self, prompt_id: str) -> None:
        """Stop one prompt, wherever it is. Naming it means no other prompt can be hit."""
        await self._ask("POST", "/queue", json={"delete": [prompt_id]})
        await self._ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def free(self) -> None:
        await self._ask("POST", "/free", json={"unload_models": True, "free_memory": True})

    async def forget(self, prompt_id: str) -> None:
        await self._ask("POST", "/history", json={"delete": [prompt_id]})

    async def upload(self, name: str, data: bytes, media_type: str, subfolder: str = "") -> str:
        """Store an input file; returns the name LoadImage must use, which the server may have changed."""
        fields = {"overwrite": "true", "type": "input", **({"subfolder": subfolder} if subfolder else {})}
        reply = await self._ask("POST", "/upload/image", data=fields, files={"image": (name, data, media_type)}, timeout=300.0)
        if reply.status_code != 200:
            raise EngineUnreachable(f"upload of {name} answered {reply.status_code}")
        stored = reply.json()
        return f"{stored['subfolder']}/{stored['name']}" if stored.get("subfolder") else str(stored["name"])

    async def view(self, filename: str, subfolder: str, location: str, max_bytes: int) -> bytes:
        """The bytes of an output file, never more than `max_bytes` of them."""
        params = {"filename": filename, "subfolder": subfolder, "type": location}
        try:
            async with self._http.stream("GET", "/view", params=params, timeout=300.0) as reply:
                if reply.status_code != 200:
                    raise FileGone(f"ComfyUI answered {reply.status_code} for {filename}")
                if int(reply.headers.get("content-length", 0)) > max_bytes:
                    raise FileTooLarge(filename)
                chunks, size = [], 0
                async for chunk in reply.aiter_bytes():
                    size += len(chunk)
                    if size > max_bytes:
                        raise FileTooLarge(filename)
                    chunks.append(chunk)
                return b"".join(chunks)
        except httpx.HTTPError as error:
            raise EngineUnreachable(f"/view: {error!r}") from error

    async def _json(self, method: str, path: str, **kwargs: Any) -> Any:
        reply = await self._ask(method, path, **kwargs)
        if reply.status_code != 200:
            raise EngineUnreachable(f"{path} answered {reply.status_code}")
        try:
            return reply.json()
        except ValueError as error:
            raise EngineUnreachable(f"{path} did not answer JSON") from error

    async def _ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise EngineUnreachable(f"{path}: {error!r}") from error
