"""What the store's processes know in common, in SQLite: files, promises, pins, who lives, what was counted.

WAL, so that readers (heartbeats, status) never wait; every write is one short IMMEDIATE transaction.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.agent.store.eviction import Kept
from fleet.agent.store.failures import Misconfigured, NoRoom, StoreError
from fleet.agent.store.ranges import Spans, tidied

BUSY_S = 30.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS file (
  sha256 TEXT PRIMARY KEY, whole INTEGER NOT NULL, size_bytes INTEGER NOT NULL, room_bytes INTEGER NOT NULL,
  turn INTEGER NOT NULL, used_at REAL NOT NULL, added_at REAL NOT NULL, kept INTEGER NOT NULL DEFAULT 0,
  name TEXT NOT NULL DEFAULT '', mark TEXT NOT NULL DEFAULT '', validator TEXT NOT NULL DEFAULT '', done TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS pin (sha256 TEXT NOT NULL, holder TEXT NOT NULL, job TEXT NOT NULL, PRIMARY KEY (sha256, holder, job));
CREATE TABLE IF NOT EXISTS failure (sha256 TEXT PRIMARY KEY, turn INTEGER NOT NULL, at REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS other (mark TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS warm (key TEXT NOT NULL, sha256 TEXT NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (key, sha256));
"""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file of the store. `done` are the spans of a partial one that are here."""

    sha256: str
    whole: bool
    size_bytes: int
    room_bytes: int
    turn: int
    used_at: float
    kept: bool
    name: str
    mark: str
    validator: str
    done: Spans


_COLUMNS = "sha256, whole, size_bytes, room_bytes, turn, used_at, kept, name, mark, validator, done"


def _row(values: tuple[Any, ...]) -> FileRow:
    sha256, whole, size, room, turn, used_at, kept, name, mark, validator, done = values
    return FileRow(sha256, bool(whole), size, room, turn, used_at, bool(kept), name, mark, validator, tidied(json.loads(done), size))


class Ledger:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=64")  # a quarter of a MiB: the log needs room too when the disk is full
            self._db.executescript(SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (uuid.uuid4().hex[:12],))
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('turn', '0')")
            self.id = str(self._db.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise Misconfigured(
                f"The store's ledger {path.name} cannot be used: {error}.",
                "Stop the workers of this host and move ledger.sqlite3 and its -wal and -shm files away; the models are found again.",
            ) from error

    def cap(self, told: int, default: int) -> int:
        """The cap that counts: the one told now, which is kept, else the one kept, else the default. So a look at the store by hand removes nothing."""
        with self.writing() as db:
            if told:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('cap', ?)", (str(told),))
            rows = db.execute("SELECT value FROM meta WHERE name = 'cap'").fetchall()
        return int(rows[0][0]) if rows else default

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that excludes all other writers of the host."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    full = "full" in str(error)
                    kind, said = (NoRoom, "The disk of the store is full") if full else (StoreError, "The store's ledger failed")
                    raise kind(f"{said}: {error}.") from error
                raise

    def ask(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def file(self, sha256: str) -> FileRow | None:
        rows = self.ask(f"SELECT {_COLUMNS} FROM file WHERE sha256 = ?", (sha256,))  # noqa: S608 - constants
        return _row(rows[0]) if rows else None

    def files(self) -> list[FileRow]:
        return [_row(values) for values in self.ask(f"SELECT {_COLUMNS} FROM file ORDER BY turn DESC")]  # noqa: S608 - constants

    def turn(self) -> int:
        """Now, as the ledger counts: grows with every use of a file."""
        return int(self.ask("SELECT value FROM meta WHERE name = 'turn'")[0][0])

    def next_turn(self) -> int:
        """Inside `writing`."""
        self._db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'turn'")
        return self.turn()

    def kept(self) -> list[Kept]:
        """All files as the eviction policy sees them."""
        rows = self.ask("SELECT sha256, room_bytes, turn, kept OR EXISTS (SELECT 1 FROM pin WHERE pin.sha256 = file.sha256) FROM file")
        return [Kept(sha256, room, turn, bool(pinned)) for sha256, room, turn, pinned in rows]

    def note_progress(self, sha256: str, *, done: Spans, mark: str, validator: str) -> None:
        with self.writing() as db:
            db.execute("UPDATE file SET done = ?, mark = ?, validator = ? WHERE sha256 = ? AND NOT whole", (json.dumps(done), mark, validator, sha256))

    def count(self, **amounts: float) -> None:
        """Add to the host's counters."""
        with self.writing():
            self.count_within(amounts)

    def count_within(self, amounts: Mapping[str, float]) -> None:
        """Inside `writing`."""
        for name, value in amounts.items():
            self._db.execute("INSERT INTO tally VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, value))

    def tallies(self) -> dict[str, float]:
        return dict(self.ask("SELECT name, value FROM tally"))  # type: ignore[arg-type]
