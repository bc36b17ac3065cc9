"""The prompts that wait and the one that runs.

Lower numbers go first. All calls come from two threads, the server's and the
worker's, so every change happens under one lock.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class AmbiguousOrder(TypeError):
    """Two waiting prompts have the same number and the same id."""


@dataclass(frozen=True, order=True)
class Queued:
    """One prompt in the queue; ordered by number, then by id."""

    number: float
    prompt_id: str
    prompt: dict[str, Any] = field(compare=False)
    extra_data: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def shown(self) -> list[Any]:
        """As /queue and /history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class Queue:
    def __init__(self, *, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Condition()
        self._waiting: list[Queued] = []
        self._running: Queued | None = None
        self._free_asked = False

    def put(self, item: Queued) -> None:
        """Add a prompt; raises AmbiguousOrder where the order would not be defined."""
        with self._lock:
            if any((other.number, other.prompt_id) == (item.number, item.prompt_id) for other in self._waiting):
                raise AmbiguousOrder(item.prompt_id)
            heapq.heappush(self._waiting, item)
            self._changed()
            self._lock.notify()

    def take(self, timeout_s: float) -> Queued | None:
        """The next prompt, now running; None when there is none or memory is to be freed."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._free_asked, timeout=timeout_s)
            if not self._waiting:
                return None
            self._running = heapq.heappop(self._waiting)
            self._changed()
            return self._running

    def done(self, remember: Callable[[], None]) -> None:
        """The running prompt ended; `remember` makes it history in the same step."""
        with self._lock:
            self._running = None
            remember()
            self._changed()

    def delete(self, prompt_id: str) -> bool:
        with self._lock:
            kept = [item for item in self._waiting if item.prompt_id != prompt_id]
            if len(kept) == len(self._waiting):
                return False
            self._waiting = kept
            heapq.heapify(self._waiting)
            self._changed()
            return True

    def clear(self) -> None:
        with self._lock:
            self._waiting = []
            self._changed()

    def ask_free(self) -> None:
        with self._lock:
            self._free_asked = True
            self._lock.notify()

    def take_free(self) -> bool:
        with self._lock:
            asked, self._free_asked = self._free_asked, False
            return asked

    @property
    def running(self) -> list[Queued]:
        running = self._running
        return [running] if running else []

    @property
    def waiting(self) -> list[Queued]:
        with self._lock:
            return list(self._waiting)

    def remaining(self) -> int:
        with self._lock:
            return len(self._waiting) + (self._running is not None)
