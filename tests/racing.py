"""Threads that meet at one line: each has a database connection of its own, and all start together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection


def race(count: int, call: Callable[[int], Any], *, patience_s: float = 60.0) -> list[Any]:
    """What `call(0) … call(count - 1)` returned or raised, run at once in `count` threads."""
    results: list[Any] = [None] * count
    line = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            connection.ensure_connection()
            line.wait(patience_s)
            results[index] = call(index)
        except BaseException as exc:
            results[index] = exc
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience_s)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results
