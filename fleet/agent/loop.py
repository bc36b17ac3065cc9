"""The agent's life: register, become ready, claim, run, report, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.agent import backoff, enrolment, health, turn
from fleet.agent.config import Settings
from fleet.agent.control import ControlPlane, Refused, Retired, Stale, Unavailable
from fleet.agent.enrolment import Rhythm
from fleet.agent.keeper import Hopeless, Keeper
from fleet.agent.leaving import Leaving
from fleet.agent.logs import Log, about
from fleet.agent.notice import Notice
from fleet.agent.pulse import Pulse
from fleet.agent.room import Room
from fleet.agent.run import JobRun
from fleet.agent.shelf import Shelf, open_shelf
from fleet.agent.store.failures import StoreError
from fleet.agent.waker import Waker

log = Log(__name__)

WARM_KEYS = 8
SHORT_WAIT_S = 2.0


class Agent:
    """One worker. `run` returns the process's exit code."""

    def __init__(self, settings: Settings, work_dir: Path) -> None:
        if settings.store is not None and settings.engine.kind != "external" and settings.engine.models_dir is None:
            settings = replace(settings, engine=replace(settings.engine, models_dir=work_dir / "models"))
        self.settings, self.work_dir = settings, work_dir
        self.shelf: Shelf | None = None
        self.keeper = Keeper(settings.engine, work_dir, settings.patience)
        self.control = ControlPlane(settings.control_url)
        self.current: JobRun | None = None
        self.leaving: Leaving | None = None
        self.draining = False
        self.notice = Notice(settings.preempt_file, moved=self.moved)
        self.warm: list[str] = []
        self.room = Room(settings, work_dir)
        self.rhythm = Rhythm()
        self.renewed_at = 0.0
        self._pulse: Pulse | None = None
        self._introduced = False
        self.waker = Waker(lambda: self.leaving is not None or self.draining)
        self.background: set[asyncio.Task[None]] = set()
        self.keeper.engine.on_death = self._engine_died

    async def run(self) -> int:
        self._listen_to_signals()
        beating: asyncio.Task[None] | None = None
        path = self.settings.health_file
        telling = asyncio.create_task(health.keep(path, lambda: self.keeper.ready), name="health") if path else None
        try:
            if await self._start():
                beating = asyncio.create_task(self._beat(), name="heartbeat")
                await self._work()
        except Hopeless as error:
            self.leaving = Leaving("crash", f"The engine crashed {self.keeper.crashes} times in a row: {error}", 4)
            if self._pulse is None:
                await self._introduce()
        except Retired:
            self.retired()
        finally:
            if telling is not None:
                telling.cancel()
            await self._goodbye(beating)
        assert self.leaving is not None
        said = log.info if self.leaving.code == 0 else log.warning
        said("left", reason=self.leaving.reason, code=self.leaving.code, why=self.leaving.message[:500])
        return self.leaving.code

    # Start

    async def _start(self) -> bool:
        """Engine up and worker registered; False when told to leave meanwhile."""
        try:
            self.shelf = await asyncio.to_thread(open_shelf, self.settings)
            if self.shelf is not None:
                await self.shelf.look()
        except (StoreError, OSError) as error:
            self.leaving = Leaving("crash", f"The model store cannot be opened: {error}", 4)
            await self._introduce()
            return False
        measuring = asyncio.create_task(enrolment.measure(self.settings))
        if not await self.waker.unless_woken(self.keeper.start()):
            measuring.cancel()
            return False
        measured = await measuring
        return await self.waker.unless_woken(self._register(measured)) and self.leaving is None

    async def _register(self, measured: enrolment.Measured) -> None:
        answer = await enrolment.enrol(self.control, self.settings, self.keeper, measured, self.work_dir)
        if isinstance(answer, Leaving):
            self.leaving = answer
            return
        self.rhythm = answer
        self.keeper.rehearsal.shelf, self.keeper.moved = self.shelf, self.moved
        self._pulse = Pulse(
            self.control,
            heartbeat_s=answer.heartbeat_s,
            silence_s=answer.silence_exit_s,
            state=self._state,
            on_answer=self._answered,
            on_retired=self.retired,
            on_silence=self._silent,
        )

    async def _introduce(self) -> None:
        """Register though nothing came up: a worker nobody knows could not say why it goes."""
        try:
            measured = await enrolment.measure(self.settings)
            answer = await enrolment.enrol(self.control, self.settings, self.keeper, measured, self.work_dir)
        except Exception as error:  # whatever it is, the first failure is the one to report
            log.warning("not introduced", error=str(error))
            return
        self._introduced = not isinstance(answer, Leaving)

    # Work

    async def _work(self) -> None:
        waits = backoff.delays()
        while self.leaving is None:
            if self.draining:
                self.leaving = Leaving("drained", "All work is done.")
                return
            if not self.keeper.ready:
                self.warm.clear()
                await self.waker.unless_woken(self.keeper.make_ready())
                for warm_key in self.keeper.rehearsal.warm:
                    self.remember(warm_key)
                continue
            if self.room.look():
                self.moved()
            if self.room.short or self.notice.given:  # with notice, the control plane says when to leave
                await self.waker.nap(SHORT_WAIT_S)
                continue
            try:
                assignments = await self._claim()
            except (Unavailable, Refused, Stale) as error:
                log.warning("claim failed", error=str(error))
                await self.waker.nap(next(waits))
                continue
            waits = backoff.delays()
            for assignment in assignments:
                with about(job=assignment.get("job"), attempt=assignment.get("attempt"), request_id=assignment.get("request_id")):
                    await turn.run_job(self, assignment)

    async def _claim(self) -> list[dict[str, Any]]:
        """Jobs of one long poll; none when something else needs attention."""
        answer: dict[str, Any] = {}

        async def ask() -> None:
            nonlocal answer
            stored = self.shelf.stored if self.shelf else []
            claim = asyncio.create_task(self.control.claim(wait_s=self.rhythm.poll_wait_s, warm=self.warm, stored=stored))
            died = asyncio.create_task(self.keeper.engine.died.wait())
            try:
                await asyncio.wait({claim, died}, return_when=asyncio.FIRST_COMPLETED)
                if not claim.done():
                    # A poll given up may just have been handed a job, which then waits for its lease to end.
                    await self.keeper.make_ready()
                answer = await claim
            finally:
                claim.cancel()
                died.cancel()
                await asyncio.gather(claim, died, return_exceptions=True)

        if not await self.waker.unless_woken(ask()):
            return []
        if answer.get("drain"):
            self._drain("the control plane asked")
        return list(answer.get("jobs") or [])

    # What others tell us

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.signalled)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGUSR1, self.notice.give)

    def signalled(self) -> None:
        """First signal: finish the job, then leave. Second: leave now."""
        if not self.draining:
            self._drain("signal")
        elif self.current is not None:
            self.current.stop("sigterm")
        if self._pulse is None:
            self.leaving = Leaving("stopped", "Stopped before registration.", tell=False)

    def _drain(self, why: str) -> None:
        if not self.draining:
            log.info("draining", why=why)
            self.draining = True
            self.waker.wake()
            self.moved()

    def _answered(self, answer: Mapping[str, Any]) -> None:
        if answer.get("drain"):
            self._drain("the control plane asked")
        run = self.current
        for row in answer.get("jobs") or []:
            if run is None or row.get("job") != run.job or row.get("attempt") != run.attempt:
                continue
            if row.get("verdict") == "ok":
                self.renewed_at = time.monotonic()
            elif row.get("verdict") in ("cancel", "lost"):
                run.stop(row["verdict"])

    def retired(self) -> None:
        self._leave(Leaving("stopped", "The control plane retired this worker.", 0, tell=False), "retired")

    def _silent(self, silent_s: float) -> None:
        self._leave(Leaving("silence", f"No answer from the control plane for {silent_s:.0f} s.", 3), "silence")

    def _leave(self, leaving: Leaving, stop_reason: str) -> None:
        self.leaving = self.leaving or leaving
        if self.current is not None:
            self.current.stop(stop_reason)
        self.waker.wake()

    def _engine_died(self, message: str) -> None:
        self.keeper.doubt()
        if self.current is not None:
            self.current.engine_died(message)

    # State

    def _state(self) -> dict[str, Any]:
        run = self.current
        state = "draining" if self.draining else "busy" if run else "idle" if self.keeper.ready else "starting"
        return {
            "state": state,
            "jobs": [run.heartbeat()] if run else [],
            "usage": self.room.body() | ({"store": self.shelf.figures | ({"loading": vars(run.loading)} if run and run.loading else {})} if self.shelf else {}),
            **({"preempt_in_s": round(left, 1)} if (left := self.notice.left_s()) is not None else {}),
            **({"warmup": self.keeper.rehearsal.body()} if self.keeper.rehearsal.pieces else {}),
        }

    def remember(self, warm_key: Any) -> None:
        if isinstance(warm_key, str) and warm_key:
            self.warm = [warm_key, *(k for k in self.warm if k != warm_key)][:WARM_KEYS]

    def moved(self) -> None:
        if self._pulse is not None:
            self._pulse.move()

    # Background

    async def _beat(self) -> None:
        assert self._pulse is not None
        watching = [asyncio.create_task(self.room.watch_vram(self.keeper)), asyncio.create_task(self.notice.watch())]
        if self.shelf is not None:
            watching.append(asyncio.create_task(self.shelf.watch()))
        try:
            await self._pulse.beat()
        finally:
            for task in watching:
                task.cancel()

    async def _goodbye(self, beating: asyncio.Task[None] | None) -> None:
        if self.leaving is None:
            self.leaving = Leaving("crash", "The agent failed.", 1)
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        if self.background:
            await asyncio.wait(self.background, timeout=2.0)
        if self.leaving.tell and (self._pulse is not None or self._introduced):
            try:
                boot_log = self.keeper.engine.tail if self.leaving.reason == "crash" else []
                await self.control.leave(self.leaving.reason, self.leaving.message, boot_log)
            except (Unavailable, Retired, Refused, Stale) as error:
                log.warning("leave not heard", error=str(error))
        await self.keeper.close()
        await self.control.close()
        if self.shelf is not None:
            self.shelf.close()
