"""Keeps one engine ready: up, warm, and up again after a crash; gives up after five crashes in a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fleet.agent import backoff, fingerprint, rehearsal, warmup
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import EngineChoice, Patience
from fleet.agent.events import EventSocket, SpareSockets
from fleet.agent.logs import Log
from fleet.agent.order import Classes
from fleet.agent.process import Engine, EngineFailed
from fleet.agent.rehearsal import Rehearsal

log = Log(__name__)

MAX_CRASHES = 5


class Hopeless(Exception):
    """The engine crashed too often."""


class Keeper:
    """The engine with its client, its spare socket and what it knows. `ready` means that the warm-up passed, and the rehearsal where there is one."""

    def __init__(self, choice: EngineChoice, work_dir: Path, patience: Patience) -> None:
        self.engine = Engine(choice, work_dir)
        self.object_info: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.classes = Classes()
        self.ready = False
        self.crashes = 0
        self.rehearsal = Rehearsal()
        self.moved: Callable[[], None] = lambda: None
        self._patience = patience
        self._comfy: Comfy | None = None
        self._spares: SpareSockets | None = None
        self._waits = backoff.delays(first_s=self._patience.restart_s, cap_s=30.0)

    @property
    def comfy(self) -> Comfy:
        assert self._comfy is not None, "the engine was never started"
        return self._comfy

    def socket(self) -> EventSocket:
        """An open socket nobody used; the next one is opened at once."""
        assert self._spares is not None
        taken = self._spares.take()
        self._spares.prepare()
        return taken

    async def start(self) -> None:
        """Bring the server up and ask what it is. Raises Hopeless after repeated failures."""
        while True:
            try:
                await self.engine.start()
                await self._connect()
                if self.rehearsal.state == "passed":
                    self.rehearsal.state = "none"  # this engine has nothing loaded
                return
            except (EngineFailed, EngineUnreachable) as error:
                await self.failed(f"start: {error}")

    async def make_ready(self) -> None:
        """Start what is dead, warm what is cold. Returns with `ready` or raises Hopeless."""
        while not self.ready:
            if self.engine.died.is_set() or self._comfy is None:
                await self.failed(self.engine.death or "not running")
                await self.start()
            reason = await self._unless_it_dies(self._warm_up)
            if reason is None and self.rehearsal.due:
                reason = await self._unless_it_dies(self._rehearse)
                if reason is not None:
                    self.rehearsal.failed(reason, list(self.engine.tail))
                    self.moved()
            if self.engine.died.is_set():
                continue
            if reason is None:
                self.ready = True
                log.info("engine ready", node_classes=len(self.object_info))
            elif self.engine.owned:
                await self.condemn(f"warm-up: {reason}")
            else:
                await self.failed(f"warm-up: {reason}")
                await self.start()

    async def _unless_it_dies(self, work: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
        """What is wrong with the engine, as `work` says; also ends when it dies meanwhile."""
        working = asyncio.create_task(work())
        died = asyncio.create_task(self.engine.died.wait())
        try:
            await asyncio.wait({working, died}, return_when=asyncio.FIRST_COMPLETED)
            return await working if working.done() else "it died"
        finally:
            working.cancel()
            died.cancel()
            await asyncio.gather(working, died, return_exceptions=True)

    async def _warm_up(self) -> str | None:
        socket = self.socket()
        try:
            return await warmup.warm_up(self.comfy, socket, self.object_info, self._patience)
        finally:
            await socket.close()

    async def _rehearse(self) -> str | None:
        work_dir = self.engine.work_dir if self.engine.owned else None
        return await rehearsal.run(
            self.rehearsal, comfy=self.comfy, socket=self.socket, patience=self._patience, classes=self.classes, work_dir=work_dir, moved=self.moved
        )

    def proved(self) -> None:
        """A job went through: earlier crashes no longer count."""
        self.crashes = 0
        self._waits = backoff.delays(first_s=self._patience.restart_s, cap_s=30.0)

    def doubt(self) -> None:
        """Something broke: warm up again before the next job."""
        self.ready = False

    async def condemn(self, reason: str) -> None:
        """End an engine of ours that does not obey or cannot be trusted; `make_ready` starts the next."""
        log.warning("condemning engine", reason=reason)
        self.ready = False
        await self.engine.kill()
        self.engine.death = reason
        self.engine.died.set()

    async def settle(self) -> bool:
        """Whether an engine that is not ours has come to rest."""
        try:
            return await self.comfy.idle()
        except EngineUnreachable:
            return False

    async def close(self) -> None:
        await self._disconnect()
        await self.engine.stop()

    async def failed(self, reason: str) -> None:
        """Count a crash and wait a little; raises Hopeless at the fifth in a row."""
        self.ready = False
        self.crashes += 1
        log.error("engine failed", reason=reason, crashes=self.crashes, tail=self.engine.tail[-5:])
        if self.crashes >= MAX_CRASHES:
            raise Hopeless(reason)
        await asyncio.sleep(next(self._waits))

    async def _connect(self) -> None:
        await self._disconnect()
        self._comfy = Comfy(self.engine.url)
        self.stats, self.object_info = await asyncio.gather(self._comfy.system_stats(), self._comfy.object_info())
        self.classes = fingerprint.classes(self.object_info)
        self._spares = SpareSockets(self._comfy.socket_url)
        self._spares.prepare()

    async def _disconnect(self) -> None:
        if self._spares is not None:
            await self._spares.close()
        if self._comfy is not None:
            await self._comfy.close()
        self._comfy = self._spares = None
