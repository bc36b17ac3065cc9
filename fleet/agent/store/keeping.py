"""Room on the disk: who gets it, what goes for it, when a file counts as here. Every change is one transaction of the ledger.

The invariant: bytes on the disk never exceed the sum of the rooms in the ledger, and that sum never exceeds the cap. So rooms are
written before bytes, and bytes are removed before rooms are.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fleet.agent.store import failures, holders
from fleet.agent.store.eviction import room_of, victims
from fleet.agent.store.failures import NoRoom, Refused, StoreError
from fleet.agent.store.ledger import FileRow, Ledger
from fleet.agent.store.settings import CAP, StoreSettings
from fleet.agent.store.wanted import Wanted

FORGOTTEN_S = 7 * 86400.0  # a partial file nobody came back for
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Keeping:
    """The store's directories and its ledger, kept in step. `holder` is this process."""

    def __init__(self, settings: StoreSettings, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.root = settings.root
        for directory in (self.root, self.root / "sha256", self._partial, self._holders):
            directory.mkdir(parents=True, exist_ok=True)
        self.evictions = self.evicted_bytes = 0
        # One at a time: SQLite refuses to be switched to WAL by two at once.
        with holders.alone(self.root / "opening.lock"):
            self.ledger = Ledger(self.root / "ledger.sqlite3")
            self.settings = replace(settings, cap_bytes=self.ledger.cap(settings.cap_bytes, CAP))
            self.holder = holders.Holder(self._holders)
            self._put_right()

    def close(self) -> None:
        with self.ledger.writing() as db:
            db.execute("DELETE FROM pin WHERE holder = ?", (self.holder.id,))
        self.holder.close()
        self.ledger.close()

    # Paths

    @property
    def _partial(self) -> Path:
        return self.root / "partial"

    @property
    def _holders(self) -> Path:
        return self.root / "holders"

    def whole(self, sha256: str) -> Path:
        return self.root / "sha256" / sha256[:2] / sha256

    def part(self, sha256: str) -> Path:
        return self._partial / f"{sha256}.part"

    def lock(self, sha256: str) -> Path:
        return self._partial / f"{sha256}.lock"

    # A job's files

    def admit(self, wanted: Sequence[Wanted], *, job: str) -> tuple[list[Wanted], int]:
        """Pin all of them and promise room for what is missing, or change nothing and raise NoRoom.

        Gives the missing ones, and how many were here but damaged, and are removed.
        """
        missing: list[Wanted] = []
        damaged = 0
        with self.ledger.writing() as db:
            self._bury_dead(db)
            need, fresh = 0, []
            for one in {w.sha256: w for w in wanted}.values():
                db.execute("INSERT OR IGNORE INTO pin VALUES (?, ?, ?)", (one.sha256, self.holder.id, job))
                row = self.ledger.file(one.sha256)
                if row is not None and row.whole and not self._sound(row):
                    self._drop(db, row)
                    row, damaged = None, damaged + 1
                if row is not None:
                    self._used(db, one)
                if row is not None and row.whole:
                    continue
                missing.append(one)
                room = room_of(one.size_bytes or (row.size_bytes if row else 0))
                if (one.size_bytes or 0) > self.settings.largest_bytes:
                    raise _too_large(one, self.settings)
                if row is None:
                    fresh.append((one, room))
                    need += room
            self._make_room(db, need)
            for one, room in fresh:
                db.execute(
                    "INSERT INTO file (sha256, whole, size_bytes, room_bytes, turn, used_at, added_at, name) VALUES (?, 0, ?, ?, ?, ?, ?, ?)",
                    (one.sha256, one.size_bytes or 0, room, self.ledger.next_turn(), self._clock(), self._clock(), one.name),
                )
            hits = len({w.sha256 for w in wanted}) - len(missing)
            self.ledger.count_within({name: value for name, value in (("hits", hits), ("corrupt", damaged)) if value})
        return missing, damaged

    def release(self, job: str) -> None:
        """The job is over: its files may go when room is needed."""
        with self.ledger.writing() as db:
            db.execute("DELETE FROM pin WHERE holder = ? AND job = ?", (self.holder.id, job))

    def resize(self, sha256: str, size_bytes: int) -> None:
        """Promise room for the size that turned out. Raises NoRoom."""
        row = self.ledger.file(sha256)
        if row is not None and row.size_bytes == size_bytes:
            return
        with self.ledger.writing() as db:
            row = self.ledger.file(sha256)
            if row is None:
                raise StoreError("The partial file was removed from the ledger.", "Try again.")
            room = room_of(size_bytes)
            if room > row.room_bytes:
                self._make_room(db, room - row.room_bytes)
            else:
                self._shorten(sha256, size_bytes)
            db.execute("UPDATE file SET size_bytes = ?, room_bytes = ? WHERE sha256 = ?", (size_bytes, room, sha256))

    def publish(self, sha256: str, *, size_bytes: int, bytes_fetched: int, seconds: float) -> None:
        """The partial file, checked and on the disk, becomes a file of the store."""
        path = self.whole(sha256)
        path.parent.mkdir(exist_ok=True)
        with self.ledger.writing() as db:
            self.part(sha256).rename(path)
            turn, now = self.ledger.next_turn(), self._clock()
            db.execute(
                "UPDATE file SET whole = 1, size_bytes = ?, room_bytes = ?, turn = ?, used_at = ?, done = '[]', mark = '', validator = '' WHERE sha256 = ?",
                (size_bytes, room_of(size_bytes), turn, now, sha256),
            )
            db.execute("DELETE FROM failure WHERE sha256 = ?", (sha256,))
            self.ledger.count_within({"fetched": 1, "fetched_bytes": bytes_fetched, "fetched_s": seconds})
        for directory in (path.parent, path.parent.parent, self._partial):
            _sync_directory(directory)

    def begin_anew(self, sha256: str) -> None:
        """Throw the bytes of a partial file away; the promise of its room stays."""
        with self.ledger.writing() as db:
            self.part(sha256).unlink(missing_ok=True)
            db.execute("UPDATE file SET done = '[]', mark = '', validator = '' WHERE sha256 = ?", (sha256,))

    def fail(self, sha256: str, error: StoreError, *, drop: bool) -> None:
        """Tell those who wait for the same file why there is none, and give its room back when nothing of it is worth keeping."""
        with self.ledger.writing() as db:
            row = self.ledger.file(sha256)
            if row is not None and not row.whole and (drop or not row.done):
                self._drop(db, row)
            body = json.dumps({**error.body(), "kind": failures.kind_of(error)})
            db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?)", (sha256, self.ledger.next_turn(), self._clock(), body))
            self.ledger.count_within({"failed": 1})

    def failure_since(self, sha256: str, turn: int) -> StoreError | None:
        rows = self.ledger.ask("SELECT body FROM failure WHERE sha256 = ? AND turn > ?", (sha256, turn))
        return failures.from_body(json.loads(rows[0][0])) if rows else None

    # By hand

    def keep(self, sha256: str, *, kept: bool) -> bool:
        """Pin or unpin by configuration; whether the store knows the file."""
        with self.ledger.writing() as db:
            return db.execute("UPDATE file SET kept = ? WHERE sha256 = ?", (int(kept), sha256)).rowcount == 1

    def evict(self, sha256: str) -> None:
        """Remove one file. Raises Refused when it is in use, pinned or unknown."""
        with self.ledger.writing() as db:
            self._bury_dead(db)
            row = self.ledger.file(sha256)
            if row is None:
                raise Refused(f"The store has no file {sha256[:12]}.", "`status` lists them.", code="model_unknown")
            if any(k.pinned for k in self.ledger.kept() if k.sha256 == sha256):
                raise Refused(f"{row.name or sha256[:12]} is pinned or in use.", "Unpin it, or wait for the job to end.", code="model_in_use")
            self._drop(db, row)
            self._counted(1, row.room_bytes)

    def make_room(self, bytes_: int) -> None:
        """Remove what was used longest ago until so much fits. Raises NoRoom."""
        with self.ledger.writing() as db:
            self._bury_dead(db)
            self._make_room(db, bytes_)

    def drop_damaged(self, sha256: str) -> None:
        """A file was found not to be what its name says."""
        with self.ledger.writing() as db:
            row = self.ledger.file(sha256)
            if row is not None and row.whole:
                self._drop(db, row)
                self.ledger.count_within({"corrupt": 1})

    # Inside a transaction

    def _make_room(self, db: sqlite3.Connection, need: int) -> None:
        kept = self.ledger.kept()
        free = self._disk_free()
        chosen = victims(kept, need_bytes=need, cap_bytes=self.settings.cap_bytes, disk_free_bytes=free)
        if chosen is None:
            pinned = sum(k.room_bytes for k in kept if k.pinned)
            raise NoRoom(
                f"{need} bytes more do not fit: the cap is {self.settings.cap_bytes}, {pinned} bytes are in use or pinned, the disk can give {max(free, 0)}.",
                need_bytes=need,
                cap_bytes=self.settings.cap_bytes,
                used_bytes=sum(k.room_bytes for k in kept),
                pinned_bytes=pinned,
                disk_free_bytes=max(free, 0),
            )
        for sha256 in chosen:
            row = self.ledger.file(sha256)
            assert row is not None
            self._drop(db, row)
            self._counted(1, row.room_bytes)

    def _counted(self, files: int, bytes_: int) -> None:
        self.evictions += files
        self.evicted_bytes += bytes_
        self.ledger.count_within({"evictions": files, "evicted_bytes": bytes_})

    def _drop(self, db: sqlite3.Connection, row: FileRow) -> None:
        """Bytes first, then their room: a crash between the two leaves a room without bytes, which is found at the next look."""
        self.whole(row.sha256).unlink(missing_ok=True)
        self.part(row.sha256).unlink(missing_ok=True)
        db.execute("DELETE FROM file WHERE sha256 = ?", (row.sha256,))
        db.execute("DELETE FROM warm WHERE key IN (SELECT key FROM warm WHERE sha256 = ?)", (row.sha256,))

    def _used(self, db: sqlite3.Connection, one: Wanted) -> None:
        db.execute("UPDATE file SET turn = ?, used_at = ?, name = ? WHERE sha256 = ?", (self.ledger.next_turn(), self._clock(), one.name, one.sha256))

    def _sound(self, row: FileRow) -> bool:
        try:
            return self.whole(row.sha256).stat().st_size == row.size_bytes
        except OSError:
            return False

    def _shorten(self, sha256: str, size_bytes: int) -> None:
        path = self.part(sha256)
        if path.exists() and path.stat().st_size > size_bytes:
            os.truncate(path, size_bytes)

    def _disk_free(self) -> int:
        """What the disk can give beyond what is promised and not yet taken."""
        disk = os.statvfs(self.root)
        promised = 0
        for sha256, room in self.ledger.ask("SELECT sha256, room_bytes FROM file WHERE NOT whole"):
            try:
                taken = self.part(sha256).stat().st_blocks * 512
            except OSError:
                taken = 0
            promised += max(room - taken, 0)
        return disk.f_bavail * disk.f_frsize - promised - self.settings.keep_free_bytes

    def _bury_dead(self, db: sqlite3.Connection) -> None:
        """What dead processes had pinned is free again."""
        for (holder,) in db.execute("SELECT DISTINCT holder FROM pin WHERE holder != ?", (self.holder.id,)).fetchall():
            if not holders.lives(self._holders, holder):
                db.execute("DELETE FROM pin WHERE holder = ?", (holder,))
                holders.bury(self._holders, holder)

    def _put_right(self) -> None:
        """At every start: ledger and disk say the same, whatever was killed in between; a lowered cap counts at once."""
        with self.ledger.writing() as db:
            self._bury_dead(db)
            for path in self._holders.iterdir():
                if path.name != self.holder.id and not holders.lives(self._holders, path.name):
                    holders.bury(self._holders, path.name)
            rows = {row.sha256: row for row in self.ledger.files()}
            here = {p.name: p for p in (self.root / "sha256").glob("??/*") if _SHA256.fullmatch(p.name) and p.parent.name == p.name[:2]}
            for sha256, path in here.items():
                row = rows.get(sha256)
                if row is None or not row.whole:  # its hash was checked before it got this name
                    self._adopt(db, sha256, path.stat().st_size, known=row is not None)
            pinned = {sha256 for (sha256,) in db.execute("SELECT DISTINCT sha256 FROM pin")}
            for sha256, row in rows.items():
                gone = row.whole and sha256 not in here
                partial = not row.whole and sha256 not in here and sha256 not in pinned
                if gone or (partial and (not self.part(sha256).exists() or self._clock() - row.used_at > FORGOTTEN_S)):
                    self._drop(db, row)
            for path in self._partial.glob("*.part"):
                if self.ledger.file(path.stem) is None:
                    path.unlink(missing_ok=True)
            kept = self.ledger.kept()
            for sha256 in victims(kept, need_bytes=0, cap_bytes=self.settings.cap_bytes, disk_free_bytes=0) or [k.sha256 for k in kept if not k.pinned]:
                row = self.ledger.file(sha256)
                if row is not None and sum(k.room_bytes for k in kept) > self.settings.cap_bytes:
                    self._drop(db, row)
                    self._counted(1, row.room_bytes)

    def _adopt(self, db: sqlite3.Connection, sha256: str, size: int, *, known: bool) -> None:
        self.part(sha256).unlink(missing_ok=True)
        if known:
            db.execute("UPDATE file SET whole = 1, size_bytes = ?, room_bytes = ?, done = '[]' WHERE sha256 = ?", (size, room_of(size), sha256))
            return
        values = (sha256, size, room_of(size), self._clock(), self._clock())
        db.execute("INSERT INTO file (sha256, whole, size_bytes, room_bytes, turn, used_at, added_at) VALUES (?, 1, ?, ?, 0, ?, ?)", values)


def _too_large(one: Wanted, settings: StoreSettings) -> StoreError:
    code, said = "model_too_large", f"{one.name} has {one.size_bytes} bytes; the store takes files of up to {settings.largest_bytes}."
    return NoRoom(said, "Raise COMFYPLANE_STORE_CAP or COMFYPLANE_STORE_MAX_FILE.", code=code, model=one.name)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
