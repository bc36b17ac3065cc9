"""A real engine process for tests: started, spoken to, and ended by its own handle."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.contract.transcripts import REPOSITORY

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Return as soon as `condition` holds; fail after the deadline."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)


class Socket:
    """One open WebSocket; its messages pile up in the order they arrive."""

    def __init__(self, url: str) -> None:
        self.messages: list[Any] = []
        self.closed = False
        self._open = contextlib.ExitStack()
        self._connection = self._open.enter_context(connect(url, max_size=None, ping_interval=None))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            for message in self._connection:
                self.messages.append(message if isinstance(message, bytes) else json.loads(message))
        self.closed = True

    def send(self, data: Any) -> None:
        self._connection.send(json.dumps(data))

    def close(self) -> None:
        self._open.close()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message["data"] for message in list(self.messages) if isinstance(message, dict) and message["type"] == kind]


class EngineProcess:
    """`python -m fleet.engine` on a free port of the loopback."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        words = [sys.executable, "-m", "fleet.engine", "--port", "0"]
        for name in ("input", "output", "temp", "models"):
            words += [f"--{name}-directory", str(root / name)]
        self.process = subprocess.Popen([*words, *options], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], DEADLINE_S)[0], "the engine did not say that it is ready"
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_S)

    def socket(self, path: str) -> Socket:
        return Socket(f"ws://127.0.0.1:{self.port}{path}")

    def post(self, prompt: dict[str, Any], **more: Any) -> str:
        """Queue a prompt; its id."""
        answer = self.http.post("/prompt", json={"prompt": prompt, **more})
        assert answer.status_code == 200, answer.text
        prompt_id: str = answer.json()["prompt_id"]
        return prompt_id

    def result(self, prompt_id: str) -> dict[str, Any]:
        """The history entry of a prompt, once it ended."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.http.get(f"/history/{prompt_id}").json())
            return bool(found)

        wait_until(ended, f"the end of prompt {prompt_id}")
        entry: dict[str, Any] = found[prompt_id]
        return entry

    def kill(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def engine(root: Path, *options: str) -> Iterator[EngineProcess]:
    """An engine for the length of a block."""
    process = EngineProcess(root, *options)
    try:
        yield process
    finally:
        process.kill()
