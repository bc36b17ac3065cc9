"""The ComfyUI beside the agent: started, watched, stopped, started again. Or only watched, when it is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fleet.agent import modelpaths
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import EngineChoice
from fleet.agent.logs import Log

log = Log(__name__)

STOP_S = 5.0
TAIL_LINES = 40
PR_SET_PDEATHSIG = 1
REPOSITORY = Path(__file__).resolve().parents[2]


class EngineFailed(Exception):
    """ComfyUI did not come up."""


class Engine:
    """One ComfyUI server. `died` is set from its unexpected end until the next start."""

    def __init__(self, choice: EngineChoice, work_dir: Path, *, tail_lines: int = TAIL_LINES) -> None:
        self.choice = choice
        self.work_dir = work_dir
        self.url = choice.url or ""
        self.died = asyncio.Event()
        self.death = ""
        self.on_death: Callable[[str], None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._drains: list[asyncio.Task[None]] = []
        self._tail: deque[str] = deque(maxlen=tail_lines)

    @property
    def owned(self) -> bool:
        return self.choice.url is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def tail(self) -> list[str]:
        """The last lines the engine wrote, for the log after a crash."""
        return list(self._tail)

    async def start(self) -> None:
        """Start it if it is ours, and wait until it answers. Raises EngineFailed."""
        self.died.clear()
        try:
            async with asyncio.timeout(self.choice.start_timeout_s):
                if self.choice.kind == "embedded":
                    await self._spawn(self._embedded_command(), cwd=None)
                    await self._read_port()
                elif self.choice.kind == "comfyui":
                    command = self._comfyui_command()
                    await self._spawn(command, cwd=self.choice.directory)
                    self._drain_stdout()
                await self._answering()
        except TimeoutError as error:
            await self.stop()
            raise EngineFailed(f"no answer within {self.choice.start_timeout_s:g} s") from error
        if self._process is not None:
            self._watch = asyncio.create_task(self._watch_exit(self._process), name="engine-exit")
        log.info("engine answers", kind=self.choice.kind, url=self.url, engine_pid=self.pid)

    async def stop(self) -> None:
        """End it: politely, then not. Does nothing to an engine that is not ours."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        process, self._process = self._process, None
        if process is not None:
            for how in (signal.SIGTERM, signal.SIGKILL):
                if process.returncode is not None:
                    break
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(how)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        self._drains.clear()

    async def kill(self) -> None:
        """End it at once: for an engine that no longer listens."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self.stop()

    async def _spawn(self, command: list[str], cwd: Path | None) -> None:
        self._tail.clear()
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        assert self._process.stderr is not None
        self._drains.append(asyncio.create_task(self._drain(self._process.stderr)))

    def _environment(self) -> dict[str, str]:
        # Nodes are other people's code: what only the agent needs to know stays with the agent.
        env = {k: v for k, v in os.environ.items() if not k.startswith("COMFYPLANE_")}
        if self.choice.kind == "embedded":
            env["PYTHONPATH"] = os.pathsep.join(p for p in (str(REPOSITORY), env.get("PYTHONPATH")) if p)
        return env

    def _embedded_command(self) -> list[str]:
        models = ["--models-directory", str(self.choice.models_dir)] if self.choice.models_dir else []
        return [sys.executable, "-m", "fleet.engine", "--port", "0", *self._directories(), *models, *self.choice.args]

    def _comfyui_command(self) -> list[str]:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        database = self.work_dir / "user" / "comfyui.db"
        return [
            self.choice.python,
            "main.py",
            "--listen",
            "127.0.0.1",
            "--port",
            str(port),
            "--disable-auto-launch",
            "--front-end-root",  # nobody opens this server's page, so its package need not be installed
            str(self._page()),
            *self._directories(),
            *self._model_paths(),
            "--database-url",
            f"sqlite:///{database}",
            *self.choice.args,
        ]

    def _model_paths(self) -> list[str]:
        """A models folder of the worker's own, in front of the tree's: workers that share a tree may need other files of one name."""
        models, tree = self.choice.models_dir, self.choice.directory
        if models is None or tree is None or models.resolve() == (tree / "models").resolve():
            return []
        path = self.work_dir / "extra_model_paths.yaml"
        path.write_text(modelpaths.document(models, tree / "models"), "utf-8")
        return ["--extra-model-paths-config", str(path)]

    def _page(self) -> Path:
        page = self.work_dir / "page"
        page.mkdir(parents=True, exist_ok=True)
        return page

    def _directories(self) -> list[str]:
        # ComfyUI exits when its user directory is missing.
        flags = []
        for name in ("output", "temp", "input", "user"):
            if name == "user" and self.choice.kind == "embedded":
                continue
            path = self.work_dir / name
            path.mkdir(parents=True, exist_ok=True)
            flags += [f"--{name}-directory", str(path)]
        return flags

    async def _read_port(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            try:
                said = json.loads(line)
            except ValueError:
                self._tail.append(line.decode("utf-8", "replace").rstrip())
                continue
            if isinstance(said, dict) and said.get("ready"):
                self.url = f"http://127.0.0.1:{int(said['port'])}"
                self._drain_stdout()
                return
        await self._process.wait()
        raise EngineFailed(f"ended with code {self._process.returncode} before it was ready: {await self._last_words()}")

    def _drain_stdout(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._drains.append(asyncio.create_task(self._drain(self._process.stdout)))

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        """Keep the last lines; a full pipe would stop the engine."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the buffer
                continue
            if not line:
                return
            self._tail.append(line.decode("utf-8", "replace").rstrip()[:500])

    async def _last_words(self) -> str:
        """The end of what it said, read out to where its pipes end; a child that it left may hold them open, so not for long."""
        if self._drains:
            await asyncio.wait(self._drains, timeout=1.0)
        return " | ".join(self.tail[-5:])

    async def _answering(self) -> None:
        comfy = Comfy(self.url)
        try:
            while True:
                if self._process is not None and self._process.returncode is not None:
                    raise EngineFailed(f"ended with code {self._process.returncode} while starting: {await self._last_words()}")
                try:
                    await comfy.system_stats()
                    return
                except EngineUnreachable:
                    await asyncio.sleep(0.1)
        finally:
            await comfy.close()

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.death = f"ComfyUI ended unexpectedly with code {code}."
        log.error("engine died", code=code, tail=self.tail[-10:])
        self.died.set()
        if self.on_death is not None:
            self.on_death(self.death)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Runs in the child: a killed agent must not leave a ComfyUI that holds the GPU."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
