"""Workers as processes of this machine, each an agent in a session of its own.

A process is known by its pid and the moment it started, so a pid used again is never signalled. A file per worker under
`DATA_DIR/run/workers` says the same, so that whoever starts next finds every process that was left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from django.conf import settings

from fleet import tokens
from fleet.models import Pool, PoolOffer, Worker
from fleet.providers.base import Instance, Observed, Ref, Refused

KEEP_LOGS = 20
MAX_LOG_BYTES = 5_000_000
CLOCK_SLACK_S = 2.0
_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PASSED_ON_PREFIXES = ("LC_", "COMFYUI_", "COMFYPLANE_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OMP_", "MKL_", "OPENBLAS_")


class Local:
    """Starts `python -m fleet.agent` on this machine."""

    orders = True
    counted = False
    knows = True

    def __init__(self, *, data_dir: Path | None = None, command: tuple[str, ...] | None = None) -> None:
        self.data_dir = data_dir or settings.DATA_DIR
        self.command = command or (sys.executable, "-m", "fleet.agent")
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def observe(self, pool: Pool) -> Observed:
        """Processes written down under DATA_DIR; those of other pools have other names."""
        self._reap()
        return Observed({name: _instance(name, ref) for name, ref in self.known().items() if name.rpartition("-")[0] == pool.slug})

    def launch(self, worker: Worker) -> Ref:
        running = self.known().get(worker.instance)
        if running is not None and process_of(running) is not None:
            return running
        log_path = self._log_path(worker.name)
        work_dir = self._work_dir(worker.instance)
        work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        told = {
            "COMFYPLANE_URL": settings.AGENT_URL,
            "COMFYPLANE_POOL_TOKEN": tokens.pool_token(worker.pool),
            "COMFYPLANE_INSTANCE": worker.instance,
            "COMFYPLANE_WORKER_NAME": worker.name,
            "COMFYPLANE_WORK_DIR": str(work_dir),
            "PYTHONUNBUFFERED": "1",
        }
        try:
            with log_path.open("ab") as log:
                process = subprocess.Popen(
                    self.command,
                    cwd=settings.BASE_DIR,
                    env=environment(os.environ) | told,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise Refused(f"The agent could not be started: {error}.") from error
        self._children[process.pid] = process
        ref: Ref = {"pid": process.pid, "started": _started(process.pid) or time.time(), "log": str(log_path)}
        fresh = self._pid_path(worker.instance).with_suffix(".new")
        fresh.write_text(json.dumps(ref))
        fresh.replace(self._pid_path(worker.instance))
        return ref

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise Refused("Processes are started one by one.")

    def stop(self, ref: Ref, *, force: bool = False) -> None:
        process = process_of(ref)
        if process is not None:
            with contextlib.suppress(psutil.Error):
                if force:
                    kill_tree(process)
                else:
                    process.send_signal(signal.SIGTERM)

    def boot_log(self, ref: Ref, *, lines: int = 40) -> list[str]:
        path = Path(str(ref.get("log") or ""))
        if path.parent != self._logs_dir():
            return []
        with contextlib.suppress(OSError), path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64_000))
            return log.read().decode(errors="replace").splitlines()[-lines:]
        return []

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd if offer is None else offer.price_per_hour_microusd

    def known(self) -> dict[str, Ref]:
        """Instance → reference of everything it started and has not yet forgotten."""
        found: dict[str, Ref] = {}
        for path in self._run_dir().glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                found[path.stem] = json.loads(path.read_text())
        return found

    def forget(self, instance: str, ref: Ref) -> None:
        self._pid_path(instance).unlink(missing_ok=True)
        shutil.rmtree(self._work_dir(instance), ignore_errors=True)

    def cap_logs(self) -> None:
        """Cut logs that grew too long. The agent appends, so it goes on at the new end."""
        for path in self._logs_dir().glob("worker-*.log"):
            if path.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def _log_path(self, name: str) -> Path:
        """The new worker's log; the oldest ones beyond KEEP_LOGS go."""
        logs = sorted(self._logs_dir().glob("worker-*"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in logs[KEEP_LOGS - 1 :]:
            old.unlink(missing_ok=True)
        return self._logs_dir() / f"worker-{name}.log"

    def _reap(self) -> None:
        for pid, process in list(self._children.items()):
            if process.poll() is not None:
                del self._children[pid]

    def _pid_path(self, instance: str) -> Path:
        return self._run_dir() / f"{instance}.json"

    def _run_dir(self) -> Path:
        return _made(self.data_dir / "run" / "workers")

    def _work_dir(self, instance: str) -> Path:
        return self.data_dir / "run" / "work" / instance

    def _logs_dir(self) -> Path:
        return _made(self.data_dir / "logs")


def _instance(name: str, ref: Ref) -> Instance:
    return Instance(name, ref, "running" if process_of(ref) is not None else "ended")


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What an agent may know of ours: where things are, and how to drive ComfyUI. No key, no database."""
    return {name: value for name, value in given.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)}


def process_of(ref: Ref) -> psutil.Process | None:
    """The running process `ref` stands for; None when it ended, even if its pid is in use again."""
    pid = ref.get("pid")
    if not isinstance(pid, int):
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - float(ref.get("started", 0.0))) <= CLOCK_SLACK_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def kill_tree(process: psutil.Process) -> None:
    """End a process and what it started, at once."""
    for victim in [*process.children(recursive=True), process]:
        with contextlib.suppress(psutil.Error):
            victim.kill()


def _started(pid: int) -> float | None:
    with contextlib.suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return None


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
