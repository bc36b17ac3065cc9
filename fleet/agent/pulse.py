"""Heartbeats: on their own task, so that neither a long poll nor a long job silences them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from fleet.agent.control import ControlPlane, Refused, Retired, Stale, Unavailable
from fleet.agent.logs import Log

log = Log(__name__)

LIVE_S = 0.5  # a page that shows progress gets news at most this often


class Pulse:
    """Sends the state every `heartbeat_s`, and early when something moved."""

    def __init__(
        self,
        control: ControlPlane,
        *,
        heartbeat_s: float,
        silence_s: float,
        state: Callable[[], dict[str, Any]],
        on_answer: Callable[[dict[str, Any]], None],
        on_retired: Callable[[], None],
        on_silence: Callable[[float], None],
    ) -> None:
        self._control = control
        self._heartbeat_s, self._silence_s = heartbeat_s, silence_s
        self._state, self._on_answer = state, on_answer
        self._on_retired, self._on_silence = on_retired, on_silence
        self._moved = asyncio.Event()

    def move(self) -> None:
        """Something worth seeing happened."""
        self._moved.set()

    async def beat(self) -> None:
        """Run until cancelled, retired or silent for too long."""
        while True:
            began = time.monotonic()
            self._moved.clear()
            try:
                # Not asyncio.wait_for: it loses a cancellation that comes together with what is waited for (until Python 3.12),
                # and an agent that drains does both at once.
                async with asyncio.timeout(max(self._heartbeat_s * 2, 3.0)):
                    answer = await self._control.heartbeat(self._state())
                self._on_answer(answer)
            except Retired:
                self._on_retired()
                return
            except (Unavailable, TimeoutError) as error:
                log.warning("heartbeat failed", error=str(error))
            except (Refused, Stale) as error:
                log.error("heartbeat refused", error=str(error))
            silent_s = time.monotonic() - self._control.last_success
            if silent_s >= self._silence_s:
                self._on_silence(silent_s)
                return
            spent = time.monotonic() - began
            await asyncio.sleep(max(LIVE_S - spent, 0))
            try:
                async with asyncio.timeout(max(self._heartbeat_s - max(spent, LIVE_S), 0.01)):
                    await self._moved.wait()
            except TimeoutError:
                continue
