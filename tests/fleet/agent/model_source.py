"""A place models come from: HTTP on loopback with the habits of real ones, good and bad, that counts what it serves."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK = 1024 * 1024


def cheap_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that are quick to make and equal nowhere near."""
    block = hashlib.shake_256(seed.to_bytes(8, "big")).digest(min(size, 65536)) or b""
    made = bytearray(block * (size // max(len(block), 1) + 1))[:size]
    for at in range(0, size, 65536):
        made[at : at + 8] = at.to_bytes(8, "big")[: len(made[at : at + 8])]
    return bytes(made)


def tensors(size: int, seed: int = 1) -> bytes:
    """A valid safetensors file of `size` bytes, at least 128."""
    body = max(size, 128) - 128
    header = json.dumps({"w": {"dtype": "U8", "shape": [body], "data_offsets": [0, body]}}).encode().ljust(120)
    return len(header).to_bytes(8, "little") + header + cheap_bytes(body, seed)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Served:
    """One file and how it is served."""

    data: bytes
    etag: str | None = None
    modified: str | None = None
    ranges: bool = True
    length: bool = True
    needs: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    statuses: list[int] = field(default_factory=list)  # answered before anything else, one per request
    wrong: list[bytes] = field(default_factory=list)  # bodies served instead, one per request from the start of the file
    cut_after: list[int] = field(default_factory=list)  # the connection breaks after so many bytes, one per request
    bytes_per_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[Served, dict[str, str]], None] | None = None
    retry_after: str | None = None


class ModelSource:
    """Files by path. `requests` has every request's path, query and headers."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[dict[str, Any]] = []
        self.bytes_served = 0
        self.lock = threading.Lock()
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                source._answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                pass

        self._server = Server((host, 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> ModelSource:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, path: str, data: bytes, **habits: Any) -> str:
        """Serve it; its address."""
        habits.setdefault("etag", f'"{sha(data)[:16]}"')
        self.files[path] = Served(data, **habits)
        return self.url + path

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [r for r in self.requests if r["path"] == path]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        headers = {k.lower(): v for k, v in handler.headers.items()}
        with self.lock:
            self.requests.append({"path": path, "query": query, "headers": headers})
        served = self.files.get(path)
        if served is None:
            self._say(handler, 404)
            return
        if served.before is not None:
            served.before(served, headers)
        with self.lock:
            status = served.statuses.pop(0) if served.statuses else 0
        if status:
            self._say(handler, status, {"Retry-After": served.retry_after} if served.retry_after else {})
            return
        if any(headers.get(k) != v for k, v in served.needs.items()):
            self._say(handler, 401)
            return
        if served.redirect is not None:
            self._say(handler, 302, {"Location": served.redirect})
            return
        self._body(handler, served, headers)

    def _say(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _body(self, handler: BaseHTTPRequestHandler, served: Served, headers: dict[str, str]) -> None:
        data = served.data
        first, last, status = 0, len(data) - 1, 200
        asked = headers.get("range", "")
        current = served.etag or served.modified
        if served.ranges and asked.startswith("bytes=") and headers.get("if-range") in (None, current):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, last, status = int(low), min(int(high or last), last), 206
            if first > last:
                self._say(handler, 416, {"Content-Range": f"bytes */{len(data)}"})
                return
        with self.lock:
            cut = served.cut_after.pop(0) if served.cut_after else None
            if served.wrong and first == 0:
                data = served.wrong.pop(0)
        handler.send_response(status)
        if served.etag:
            handler.send_header("ETag", served.etag)
        if served.modified:
            handler.send_header("Last-Modified", served.modified)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        for name, value in served.headers.items():
            handler.send_header(name, value)
        if served.length:
            handler.send_header("Content-Length", str(last + 1 - first))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        view, at, block = memoryview(data), first, BLOCK if not served.bytes_per_s else max(int(served.bytes_per_s / 50), 1)
        while at <= last:
            count = min(block, last + 1 - at)
            if cut is not None:
                count = min(count, cut)
            if count:
                handler.wfile.write(view[at : at + count])
                at += count
                with self.lock:
                    self.bytes_served += count
            if cut is not None:
                cut -= count
                if cut <= 0:
                    handler.wfile.flush()
                    handler.connection.shutdown(2)
                    handler.close_connection = True
                    return
            if served.bytes_per_s:
                time.sleep(count / served.bytes_per_s)
