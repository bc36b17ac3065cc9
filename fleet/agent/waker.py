"""Long waits that a drain or a leave cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Waker:
    """`stopping` tells whether there is still a point in waiting; `wake` makes waiters look again."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def unless_woken(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do it, unless woken first; tell whether it was done. Raises what it raises."""
        self._event.clear()
        if self._stopping():
            work.close()
            return False
        task, woken = asyncio.create_task(work), asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait({task, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            return False
        await task
        return True

    async def nap(self, wait_s: float) -> None:
        await self.unless_woken(asyncio.sleep(wait_s))
