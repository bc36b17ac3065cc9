"""Wake waiting coroutines when the database says that something changed.

On PostgreSQL one connection LISTENs and passes each topic on. On SQLite `PRAGMA data_version` changes with every
commit of another connection: it is read every few milliseconds while somebody waits, and wakes all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection

from fleet.wake import CHANNEL

log = logging.getLogger(__name__)
SQLITE_POLL_S = 0.015
SQLITE_IDLE_S = 0.25


class Waker:
    """Topics to wait on: `pool:<id>`, `job:<id>`."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever `topic` is woken. Clear it before looking at the database, then wait."""
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

    def wake(self, topic: str) -> None:
        """Wake those who wait on one topic."""
        for event in self._waiting.get(topic, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake everybody: nothing is known but that something changed."""
        for events in self._waiting.values():
            for event in events:
                event.set()

    def start(self) -> None:
        """Begin to watch the database."""
        watch = self._watch_postgresql if connection.vendor == "postgresql" else self._watch_sqlite
        self._task = asyncio.create_task(watch())

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch_sqlite(self) -> None:
        path = Path(str(settings.DATABASES["default"]["NAME"]))
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        seen = -1
        try:
            while True:
                (version,) = database.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    self.wake_all()
                await asyncio.sleep(SQLITE_POLL_S if self._waiting else SQLITE_IDLE_S)
        finally:
            database.close()

    async def _watch_postgresql(self) -> None:
        import psycopg

        parameters = connection.get_connection_params()
        names = ("dbname", "user", "password", "host", "port", "sslmode")
        while True:
            try:
                listener = await psycopg.AsyncConnection.connect(**{k: parameters[k] for k in names if parameters.get(k)}, autocommit=True)
                async with listener:
                    await listener.execute(f"LISTEN {CHANNEL}")
                    self.wake_all()  # whatever was said while nobody listened
                    async for note in listener.notifies():
                        self.wake(note.payload)
            except psycopg.Error as exc:
                log.warning("listener lost, connecting again", extra={"reason": str(exc)[:200]})
                await asyncio.sleep(0.5)
