"""The fake control plane, and agents in processes of their own against the real embedded engine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def _load(name: str) -> Any:
    # importlib mode puts no test directory on the path.
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


plane_module = _load("fake_control_plane")


class AgentProcess:
    """`python -m fleet.agent` as a provider starts it."""

    def __init__(self, plane: Any, directory: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.log_path = directory / f"agent-{id(self)}.log"
        self._log = self.log_path.open("wb")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMFYPLANE_", "COMFYUI_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet.agent", "--min-free-disk-mib", "1", "--min-free-ram-mib", "1", "--poll-s", "0.3", "--log-level", "debug", *flags],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**clean, "COMFYPLANE_URL": plane.url, "COMFYPLANE_POOL_TOKEN": plane_module.POOL_TOKEN, **(env or {})},
        )

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout_s: float = 15.0) -> int:
        return self.process.wait(timeout_s)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def start(plane: Any, *flags: str, env: dict[str, str] | None = None) -> AgentProcess:
        started.append(AgentProcess(plane, tmp_path, *flags, env=env))
        return started[-1]

    yield start
    for agent in started:
        agent.end()


@pytest.fixture
def plane() -> Iterator[Any]:
    with plane_module.FakeControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def shared_plane() -> Iterator[Any]:
    with plane_module.FakeControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def shared_agent(shared_plane: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent for many jobs: starting one per test would be most of the suite's time."""
    agent = AgentProcess(
        shared_plane, tmp_path_factory.mktemp("agent"), "--interrupt-grace-s", "1.5", "--restart-s", "0.05", env={"COMFYUI_ARGS": "--allow-faults"}
    )
    yield agent
    agent.end()


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return plane_module.wait_until
