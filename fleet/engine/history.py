"""What became of the prompts that ended, newest last, bounded."""

from __future__ import annotations

import threading
from typing import Any

LONGEST = 10_000


class History:
    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}

    def put(self, prompt_id: str, entry: dict[str, Any]) -> None:
        """Remember an ended prompt; the same id again replaces the older one."""
        with self._lock:
            while len(self._entries) >= self._longest:
                del self._entries[next(iter(self._entries))]
            self._entries[prompt_id] = entry

    def one(self, prompt_id: str) -> dict[str, dict[str, Any]]:
        with self._lock:
            entry = self._entries.get(prompt_id)
            return {} if entry is None else {prompt_id: entry}

    def page(self, *, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        """Up to `max_items` entries from `offset`; without an offset the newest."""
        with self._lock:
            items = list(self._entries.items())
        if offset < 0:
            offset = len(items) - max_items if max_items is not None else 0
        end = None if max_items is None else max(offset, 0) + max_items
        return dict(items[max(offset, 0) : end])

    def delete(self, prompt_id: str) -> None:
        with self._lock:
            self._entries.pop(prompt_id, None)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
