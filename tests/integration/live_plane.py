"""A whole Comfyplane, started the way a person starts it, in a directory and on a port of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
_NOT_PASSED_ON = ("SECRET_KEY", "DATABASE_URL", "PUBLIC_URL", "AGENT_URL", "PORT", "DEMO", "DATA_DIR", "PYTEST_CURRENT_TEST")


@dataclass
class Plane:
    """`manage.py up` and what it printed."""

    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()

    @property
    def said(self) -> str:
        return (self.data_dir.parent / f"{self.data_dir.name}.out").read_text()

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON and not name.startswith(("PYTEST_", "COMFYUI_"))}
        return kept | {"DATA_DIR": str(self.data_dir), "PORT": str(self.port)} | self.env

    def start(self, *, wait_s: float = 120.0) -> float:
        """Start and wait until it says it is ready; the seconds that took."""
        began = time.monotonic()
        out = (self.data_dir.parent / f"{self.data_dir.name}.out").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
        )
        out.close()
        until(lambda: "Ctrl-C" in self.said or self.process.poll() is not None, seconds=wait_s, what=lambda: self.said)
        assert self.process.poll() is None, self.said
        return time.monotonic() - began

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> int:
        """Stop it like a person does; its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def end(self) -> None:
        """Whatever happened, leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for left in self.processes():
            left.kill()

    def manage(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=check, timeout=240)

    def credentials(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.manage("credentials", "--json").stdout)
        return told

    def client(self) -> httpx.Client:
        """A customer's client."""
        told = self.credentials()
        return httpx.Client(base_url=told["base_url"], headers={"Authorization": f"Bearer {told['api_key']}"}, timeout=60, trust_env=False)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on this directory, ourselves left out."""
        found = []
        mark = str(self.data_dir)
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                if any(mark in word for word in process.cmdline()) or any(mark in value for value in process.environ().values()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted((self.data_dir / "logs").glob("*.log")))


def agents(plane: Plane) -> list[psutil.Process]:
    return _running(plane.processes(), "fleet.agent")


def engines(plane: Plane) -> list[psutil.Process]:
    return _running(plane.processes(), "fleet.engine")


def _running(processes: Iterable[psutil.Process], module: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if module in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(true: Callable[[], object], *, seconds: float, what: Callable[[], str] = lambda: "it did not come true in time", every_s: float = 0.1) -> None:
    """Wait for something the operating system does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(every_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def needs_postgres() -> None:
    """Skip, or fail where a server is promised."""
    if all(shutil.which(name) for name in ("initdb", "pg_ctl", "createdb")):
        return
    reason = "needs PostgreSQL's initdb, pg_ctl and createdb on PATH"
    if os.environ.get("COMFYPLANE_REQUIRE_POSTGRES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
