"""Start the processes of one machine, keep them up, and leave nothing behind.

Every child is written down with its pid and start time, so that a start after a hard kill first ends what the killed
one left. Each child has a session of its own: a Ctrl-C reaches only us, and we end them in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SETTLED_S = 10.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
MAX_LOG_BYTES = 10_000_000
CAP_EVERY_S = 30.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass
class Child:
    """One long-running process, started again whenever it ends."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    again_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    restarts: int = 0


@dataclass
class Supervisor:
    """Children by name, in the order they are started."""

    run_dir: Path
    logs_dir: Path
    cwd: Path
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    cap_at: float = 0.0

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a child and keep it from now on."""
        child = Child(name, command, env)
        self.children.append(child)
        self._launch(child)

    def tend(self) -> None:
        """Start again what ended. Call it a few times a second."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now >= child.again_at:
                    self._launch(child)
            elif (code := child.process.poll()) is not None:
                if now - child.started_at > SETTLED_S:
                    child.pause_s = FIRST_PAUSE_S
                child.process, child.again_at = None, now + child.pause_s
                child.restarts += 1
                self.say(f"{child.name} {_ended(code)} and is started again in {child.pause_s:g} s; its log is {self._log(child.name)}")
                child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2)
        self.reap_adopted()
        if now >= self.cap_at:
            self.cap_at = now + CAP_EVERY_S
            self.cap_logs()

    def cap_logs(self) -> None:
        """Cut logs that grew too long; children append, so they go on at the new end."""
        for path in (self._log(child.name) for child in self.children):
            if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def stop(self, names: Sequence[str]) -> None:
        """Ask these children to end; they are not started again."""
        for child in self._named(names):
            child.again_at = float("inf")
            if child.process is not None and child.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.terminate()

    def wait(self, names: Sequence[str], *, seconds: float) -> bool:
        """Whether they all ended within `seconds`."""
        end = time.monotonic() + seconds
        while running := [c for c in self._named(names) if c.process is not None and c.process.poll() is None]:
            if time.monotonic() >= end:
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert running[0].process is not None
                running[0].process.wait(min(0.1, max(0.0, end - time.monotonic())))
        return True

    def kill(self) -> None:
        """End every child and everything it started, now."""
        for child in self.children:
            if child.process is not None and child.process.poll() is None:
                _kill_group(child.process.pid)
                child.process.wait()
            self._note(child.name).unlink(missing_ok=True)

    def end_left_over(self) -> list[str]:
        """End the children of a supervisor that was killed; the names of those found running."""
        found = []
        for path in self.run_dir.glob("process-*.json"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                noted = json.loads(path.read_text())
                process = psutil.Process(noted["pid"])
                if abs(process.create_time() - noted["started"]) < 2.0:
                    found.append(path.stem.removeprefix("process-"))
                    _kill_group(process.pid)
                    process.wait(5)
            path.unlink(missing_ok=True)
        return found

    def adopt_orphans(self) -> None:
        """Become the parent of grandchildren whose parent dies (Linux), so that none is left a zombie."""
        if _libc is not None:
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def reap_adopted(self) -> None:
        """Collect adopted processes that ended."""
        own = {c.process.pid for c in self.children if c.process is not None}
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process().children():
                if process.pid not in own:
                    with contextlib.suppress(psutil.Error, ChildProcessError):
                        if process.status() == psutil.STATUS_ZOMBIE:
                            os.waitpid(process.pid, os.WNOHANG)

    def _launch(self, child: Child) -> None:
        with self._log(child.name).open("ab") as log:
            child.process = subprocess.Popen(
                list(child.command),
                cwd=self.cwd,
                env=dict(child.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent if _libc is not None else None,
            )
        child.started_at = time.monotonic()
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(child.process.pid).create_time()
            self._note(child.name).write_text(json.dumps({"pid": child.process.pid, "started": started}))

    def _named(self, names: Sequence[str]) -> list[Child]:
        return [child for child in self.children if child.name in names]

    def _log(self, name: str) -> Path:
        return self.logs_dir / f"{name}.log"

    def _note(self, name: str) -> Path:
        return self.run_dir / f"process-{name}.json"


def port_is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str) -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _kill_group(pid: int) -> None:
    """Every child leads a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _end_with_parent() -> None:
    """Runs in the child: should we be killed outright, it is asked to end."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
