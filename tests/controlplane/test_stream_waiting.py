"""Waiting to be woken: bounded in time, and a cancellation is never swallowed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane import stream
from controlplane.stream.waking import within


def test_it_ends_when_it_is_woken_and_when_the_time_is_up() -> None:
    async def play() -> tuple[bool, bool, bool]:
        woken = asyncio.Event()
        late = await within(0.001, woken)
        asyncio.get_running_loop().call_soon(woken.set)
        return late, await within(60, woken), await within(60, woken)

    assert asyncio.run(play()) == (False, True, True)


@pytest.mark.parametrize("turns", range(4))
def test_a_waiter_canceled_as_it_is_woken_is_canceled(turns: int) -> None:
    """A client that goes away at the very moment its pool is woken must not be handed a job."""

    async def play() -> bool:
        woken = asyncio.Event()
        waiter = asyncio.create_task(within(60, woken))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        woken.set()
        for _ in range(turns):
            if waiter.done():
                return True  # it went on before it was canceled
            await asyncio.sleep(0)
        if waiter.done():
            return True
        waiter.cancel()
        await asyncio.wait([waiter])
        return waiter.cancelled()

    assert asyncio.run(play())


def test_the_stream_process_uses_no_wait_that_swallows_a_cancellation() -> None:
    folder = Path(str(stream.__file__)).parent
    assert [path.name for path in folder.glob("*.py") if "asyncio.wait_for(" in path.read_text()] == []
