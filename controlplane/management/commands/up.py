"""`manage.py up`: everything on one machine. Prepares the database, starts the processes, keeps them up, stops them all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from django.utils import timezone

from controlplane import credentials, installing
from controlplane.kernel.models import LoopLease
from controlplane.supervisor import Supervisor, free_port, port_is_free
from fleet import workers
from fleet.models import Pool, Worker
from fleet.providers.local import Local, process_of

HOST = "127.0.0.1"
READY_S = 60.0
WORKER_S = 20.0
DRAIN_S = 6.0
STOP_S = 3.0
FRONT = ("stream", "web")
BACK = ("controller", "tasks")


class Command(BaseCommand):
    help = (
        "Start Comfyplane on this machine: web, stream, controller and tasks; the controller starts the workers. PORT moves it to another port, DATA_DIR "
        "to another directory, DEMO=0 starts without demo data. Ctrl-C stops every process it started."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8000))
        parser.add_argument("--no-demo", action="store_true", default=os.environ.get("DEMO", "1").lower() in ("0", "no", "false"))

    def handle(self, *args: Any, port: int, no_demo: bool, **options: Any) -> None:
        began = time.monotonic()
        os.umask(0o077)  # what it keeps is its owner's business
        self.stopping = threading.Event()
        self._hear_signals()
        data_dir = Path(settings.DATA_DIR)
        run_dir, logs_dir = data_dir / "run", data_dir / "logs"
        for path in (run_dir, logs_dir):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _only_one(run_dir / "up.lock"):
            supervisor = Supervisor(run_dir=run_dir, logs_dir=logs_dir, cwd=settings.BASE_DIR, say=self._say)
            if left := supervisor.end_left_over():
                self._say(f"ended what an earlier start left running: {', '.join(left)}")
            if not port_is_free(HOST, port):
                raise CommandError(f"Port {port} is in use by another program. Stop it, or choose another one: make up PORT={port + 1}")
            supervisor.adopt_orphans()
            self._end_workers(force=True)
            self.base_url = f"http://{HOST}:{port}"
            settings.PUBLIC_URL = settings.AGENT_URL = self.base_url
            first = installing.prepare(demo=not no_demo, say=self._say, now=timezone.now())
            credentials.keep(base_url=self.base_url)
            self._free_leads()
            try:
                self._start(supervisor, run_dir, port)
                if self._wait_ready(supervisor):
                    self._announce(seconds=time.monotonic() - began, demo=not no_demo)
                    if first and not no_demo:
                        self._make_history()
                while not self.stopping.wait(0.2):
                    supervisor.tend()
            finally:
                self._stop(supervisor)

    def _start(self, supervisor: Supervisor, run_dir: Path, port: int) -> None:
        prometheus = run_dir / "prometheus"
        shutil.rmtree(prometheus, ignore_errors=True)
        prometheus.mkdir(mode=0o700)
        socket_path = run_dir / "web.sock"
        # A socket path may be 107 characters long.
        bind = f"unix:{socket_path}" if len(str(socket_path)) < 100 else f"{HOST}:{free_port(HOST)}"
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "DATA_DIR": str(settings.DATA_DIR),
            "PORT": str(port),
            "PUBLIC_URL": self.base_url,
            "AGENT_URL": self.base_url,
            "PYTHONUNBUFFERED": "1",
        }
        python, manage = sys.executable, str(settings.BASE_DIR / "manage.py")
        supervisor.start(
            "web",
            [python, "-m", "gunicorn", "controlplane.wsgi", "--config", "python:controlplane.gunicorn_conf"],
            env | {"WEB_BIND": bind, "PROMETHEUS_MULTIPROC_DIR": str(prometheus)},
        )
        supervisor.start(
            "stream",
            [
                *(python, "-m", "uvicorn", "controlplane.stream:app", "--host", HOST, "--port", str(port), "--log-level", "warning", "--no-access-log"),
                *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "2", "--ws", "none"),
            ],
            env | {"EDGE_UPSTREAM": bind if bind.startswith("unix:") else f"http://{bind}"},
        )
        supervisor.start("controller", [python, manage, "controller"], env)
        supervisor.start("tasks", [python, manage, "qcluster"], env)

    def _wait_ready(self, supervisor: Supervisor) -> bool:
        """Wait for the web process and the first worker; False when we were asked to stop meanwhile."""
        said, end = "no answer", time.monotonic() + READY_S
        while not self.stopping.wait(0.1):
            supervisor.tend()
            try:
                answer = httpx.get(f"{self.base_url}/readyz", timeout=5, trust_env=False)
                if answer.status_code == 200:
                    break
                said = answer.text[:300]
            except httpx.HTTPError as error:
                said = str(error) or type(error).__name__
            if time.monotonic() > end:
                raise CommandError(f"Not ready after {READY_S:g} s: {said}. The logs are in {supervisor.logs_dir}.")
        end = time.monotonic() + WORKER_S
        wanted = Pool.objects.filter(base__gt=0, provider=Pool.Provider.LOCAL).exists()
        while wanted and time.monotonic() < end and not self.stopping.is_set():
            if Worker.objects.filter(state__in=["idle", "busy"]).exists():
                return True
            supervisor.tend()
            self.stopping.wait(0.1)
        if wanted and not self.stopping.is_set():
            self._say(f"the first worker is still starting; its log is in {supervisor.logs_dir}")
        return not self.stopping.is_set()

    def _announce(self, *, seconds: float, demo: bool) -> None:
        shown = credentials.shown()
        operator, prefix = shown["operator"], _prefix()
        lines = [
            "",
            f"Comfyplane is ready after {seconds:.1f} s.",
            "",
            f"  Console   {self.base_url}/ops/",
            f"  Login     {operator['username']} / {operator['password']}",
        ]
        if demo and shown["api_key"]:
            lines += [
                f"  API key   {shown['api_key']}",
                "",
                "  Make the first picture:",
                "",
                f"    curl -sS -X POST {self.base_url}/v1/workflows/{installing.FIRST_WORKFLOW}/jobs \\",
                f"      -H 'Authorization: Bearer {shown['api_key']}' -H 'Content-Type: application/json' \\",
                "      -H 'Prefer: wait=30' -H 'Accept: image/png' \\",
                "      -d '{\"inputs\": {}}' --output first.png",
            ]
        lines += [
            "",
            f"  API documentation   {self.base_url}/v1/docs/",
            f"  These again         {prefix}.venv/bin/python manage.py credentials",
            "  Ctrl-C stops every process.",
            "",
        ]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()

    def _make_history(self) -> None:
        """A little past for the pages, made by real jobs beside everything else."""
        from controlplane.demo import history

        def run() -> None:
            with contextlib.suppress(OperationalError):
                history.make(stopping=self.stopping)
            connection.close()

        threading.Thread(target=run, name="history", daemon=True).start()

    def _stop(self, supervisor: Supervisor) -> None:
        """Drain and end everything: nothing new is ordered, workers finish or give back, then the front goes."""
        self._say("stopping")
        supervisor.stop(BACK)
        asked_again = False
        end = time.monotonic() + DRAIN_S
        self._end_workers(force=False)
        while (left := self._workers_running()) and time.monotonic() < end:
            if not asked_again and time.monotonic() > end - DRAIN_S / 2:
                asked_again = True
                self._end_workers(force=False)  # the second time it gives its job back
            time.sleep(0.05)
            supervisor.reap_adopted()
        if left:
            self._end_workers(force=True)
        supervisor.wait(BACK, seconds=1.0)
        supervisor.stop(FRONT)
        supervisor.wait([*FRONT, *BACK], seconds=STOP_S)
        supervisor.kill()
        self._write_down_workers()
        supervisor.reap_adopted()
        (supervisor.run_dir / "web.sock").unlink(missing_ok=True)
        self._say("stopped")

    def _free_leads(self) -> None:
        """Leads held by a controller of this machine that is gone: nobody need wait for their end."""
        for lease in LoopLease.objects.exclude(holder=""):
            host, _, rest = lease.holder.partition(":")
            pid = rest.partition(":")[0]
            if host == socket.gethostname()[:60] and pid.isdecimal() and not psutil.pid_exists(int(pid)):
                LoopLease.objects.filter(name=lease.name, epoch=lease.epoch).update(holder="", expires_at=timezone.now())

    def _end_workers(self, *, force: bool) -> None:
        provider = Local()
        for instance, ref in provider.known().items():
            if process_of(ref) is not None:
                provider.stop(ref, force=force)
            elif force:
                provider.forget(instance, ref)

    def _workers_running(self) -> bool:
        return any(process_of(ref) is not None for ref in Local().known().values())

    def _write_down_workers(self) -> None:
        """Rows of workers that were ended the hard way; their jobs go back into the queue."""
        with contextlib.suppress(Exception):  # the database may be gone; the next start finds them
            for _ in range(20):
                if not self._workers_running():
                    break
                time.sleep(0.05)
            for pool in Pool.objects.filter(provider=Pool.Provider.LOCAL):
                workers.look_after(pool, fence=lambda: None, now=timezone.now())

    def _hear_signals(self) -> None:
        def asked(signum: int, frame: FrameType | None) -> None:
            self.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, asked)

    def _say(self, text: str) -> None:
        self.stdout.write(f"up: {text}")
        self.stdout.flush()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the lock of this DATA_DIR; it ends with the process, however that ends."""
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise CommandError(
                f"Comfyplane already runs on {settings.DATA_DIR} (process {holder}). Stop it first, or choose another DATA_DIR and PORT."
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _prefix() -> str:
    """What a command needs in front to reach this installation."""
    return "" if Path(settings.DATA_DIR) == settings.BASE_DIR / "var" else f"DATA_DIR={settings.DATA_DIR} "
