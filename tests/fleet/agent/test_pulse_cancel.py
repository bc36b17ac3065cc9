"""An agent that drains tells so at once and then ends its heartbeats: neither may get lost when they meet."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.agent.pulse import Pulse


class Control:
    last_success = 0.0

    def __init__(self) -> None:
        self.beats = 0

    async def heartbeat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.beats += 1
        return {}


def test_heartbeats_end_though_something_moves_at_that_very_moment(monkeypatch) -> None:
    monkeypatch.setattr("fleet.agent.pulse.LIVE_S", 0.0)

    async def story() -> bool:
        control = Control()
        pulse = Pulse(
            control,  # type: ignore[arg-type]
            heartbeat_s=30.0,
            silence_s=1e12,
            state=dict,
            on_answer=lambda answer: None,
            on_retired=lambda: None,
            on_silence=lambda silent_s: None,
        )
        beating = asyncio.create_task(pulse.beat())
        for _ in range(50):  # until it waits for something to move
            await asyncio.sleep(0)
        assert control.beats == 1
        pulse.move()
        await asyncio.sleep(0)  # what it waits for is there, but it has not been told
        beating.cancel()
        done, _ = await asyncio.wait({beating}, timeout=2.0)
        beating.cancel()
        return bool(done) and beating.cancelled()

    assert asyncio.run(story())
