"""Wake waiting coroutines when the database says that something changed.

On PostgreSQL one connection LISTENs for pools and passes each topic on, and one looks at the revisions of all watched jobs
at once, ten times a second: a NOTIFY at every change of a job would make the queue's commits wait for each other.
On SQLite `PRAGMA data_version` changes with every commit of another connection: it is read every few milliseconds while somebody waits, and wakes all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from fleet.wake import CHANNEL

log = logging.getLogger(__name__)
JOBS_POLL_S = 0.1
SQLITE_POLL_S = 0.015
SQLITE_IDLE_S = 0.25


async def within(seconds: float, woken: asyncio.Event) -> bool:
    """Wait for `woken`, at most so long; whether it came. Whoever is canceled meanwhile is canceled, also at the very moment it comes.

    (`asyncio.wait_for` of Python 3.11 swallows that cancellation.)
    """
    try:
        async with asyncio.timeout(seconds):
            return await woken.wait()
    except TimeoutError:
        return False


class Waker:
    """Topics to wait on: `pool:<id>`, `job:<id>`."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []

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
        watches = [self._listen, self._watch_jobs] if connection.vendor == "postgresql" else [self._watch_sqlite]
        self._tasks = [asyncio.create_task(watch()) for watch in watches]

    async def stop(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    async def _listen(self) -> None:
        import psycopg

        while True:
            try:
                async with await _connect() as listener:
                    await listener.execute(f"LISTEN {CHANNEL}")
                    self.wake_all()  # whatever was said while nobody listened
                    async for note in listener.notifies():
                        self.wake(note.payload)
            except psycopg.Error as exc:
                log.warning("listener lost, connecting again", extra={"reason": str(exc)[:200]})
            await asyncio.sleep(0.5)

    async def _watch_jobs(self) -> None:
        import psycopg

        seen: dict[str, int] = {}
        while True:
            try:
                async with await _connect() as database:
                    while True:
                        watched = [topic.removeprefix("job:") for topic in self._waiting if topic.startswith("job:")]
                        if watched:
                            rows = await (await database.execute(_REVISIONS, [watched])).fetchall()
                            now = {str(job): revision for job, revision in rows}
                            for job, revision in now.items():
                                if seen.get(job) != revision:
                                    self.wake(f"job:{job}")
                            seen = now
                        await asyncio.sleep(JOBS_POLL_S)
            except psycopg.Error as exc:
                log.warning("watch on jobs lost, connecting again", extra={"reason": str(exc)[:200]})
            await asyncio.sleep(0.5)


_REVISIONS = "SELECT id, revision FROM fleet_job WHERE id = ANY(%s::uuid[])"


async def _connect() -> Any:
    import psycopg

    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port", "sslmode")
    return await psycopg.AsyncConnection.connect(**{k: parameters[k] for k in names if parameters.get(k)}, autocommit=True)
