"""The provider's notice that it takes this machine away: a file it writes (or something beside the agent that asks it), or SIGUSR1.

The control plane hears of it at the next heartbeat, sent at once: it gives no more jobs, and takes back what would end too late.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fleet.agent.logs import Log

log = Log(__name__)

USUAL_S = 120.0
"""What providers give who say no more than that they will: two minutes is the longest any promises."""
LOOK_S = 1.0
MOST_CHARACTERS = 100


class Notice:
    """Whether notice was given, and how long is left. `moved` is called when it is."""

    def __init__(self, path: Path | None, *, moved: Callable[[], None]) -> None:
        self._path, self._moved = path, moved
        self._ends: float | None = None

    @property
    def given(self) -> bool:
        return self._ends is not None

    def left_s(self) -> float | None:
        """Seconds until the machine is taken away; None without notice."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def give(self, in_s: float = USUAL_S) -> None:
        """Note that the machine goes in `in_s` seconds. Only an earlier end counts after the first."""
        ends = time.monotonic() + in_s
        if self._ends is None or ends < self._ends - LOOK_S:
            log.warning("this machine will be taken away", in_s=round(in_s, 1))
            self._ends = ends
            self._moved()

    async def watch(self) -> None:
        """Look for the file until canceled."""
        while self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                try:
                    with self._path.open("r", encoding="utf-8", errors="replace") as file:
                        self.give(read(file.read(MOST_CHARACTERS), now=datetime.now(UTC)))
                    return  # what it says is known now
                except FileNotFoundError:
                    raise
                except OSError as error:
                    log.warning("notice cannot be read", path=str(self._path), error=str(error))
            await asyncio.sleep(LOOK_S)


def read(text: str, *, now: datetime) -> float:
    """Seconds left, as the file says: a number of them, or a moment such as 2026-11-21T14:00:00Z. Anything else is USUAL_S."""
    said = text.strip()
    with contextlib.suppress(ValueError):
        seconds = float(said)
        return min(max(seconds, 0.0), 86_400.0) if math.isfinite(seconds) else USUAL_S
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(said)
        return max(0.0, ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now).total_seconds())
    return USUAL_S
