"""Models for jobs: have them here, whole and checked, before the job starts. One store per process, shared by its threads."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.agent.logs import Log
from fleet.agent.store import disk, holders, ranges
from fleet.agent.store.arriving import Arriving
from fleet.agent.store.copying import copy
from fleet.agent.store.failures import NoRoom, Refused, Stopped, StoreError, WrongBytes
from fleet.agent.store.fetching import Fetching, Meter, Progress, worst
from fleet.agent.store.keeping import Keeping
from fleet.agent.store.ranges import Spans
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.sources import Source, Sources
from fleet.agent.store.transfer import Transfer
from fleet.agent.store.wanted import Wanted

log = Log(__name__)

MOST_WARM = 5000  # turns a warm key is remembered
LOOK_S = 0.1  # how often a waiter looks whether the other process is through


@dataclass
class Counts:
    """What this process did, for its heartbeat; the ledger has the host's."""

    hits: int = 0
    misses: int = 0
    coalesced: int = 0
    fetched_bytes: int = 0
    fetched_s: float = 0.0
    corrupt: int = 0
    failed: int = 0
    waiting: int = 0


class Store:
    """The models of this host. Safe for several threads; close it, or let the process end."""

    def __init__(self, settings: StoreSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.keeping = Keeping(settings, clock=clock)
        self.settings = self.keeping.settings
        self.sources = Sources(self.settings)
        self.counts = Counts()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything. Once is enough, twice does no harm."""
        if not self._closed:
            self._closed = True
            self.keeping.close()

    def ensure(self, wanted: Sequence[Wanted], *, job: str, stop: threading.Event | None = None, progress: Progress | None = None) -> dict[str, Path]:
        """The paths of all files by hash; they stay here until `release(job)`. `progress` gets bytes here and bytes in all.

        Raises a StoreError and then holds nothing; Stopped when `stop` was set meanwhile.
        """
        stop = stop or threading.Event()
        for one in wanted:
            self.settings.pickles.check_name(one)
        since = self.keeping.ledger.turn()
        missing = self._admitted(wanted, job=job, stop=stop)
        try:
            meter = Meter(missing, progress)
            for one in missing:
                self._obtain(one, job=job, since=since, stop=stop, meter=meter)
            for one in wanted:
                self.settings.pickles.check_file(self.keeping.whole(one.sha256), one)
        except BaseException:
            self.release(job)
            raise
        return {one.sha256: self.keeping.whole(one.sha256) for one in wanted}

    def release(self, job: str) -> None:
        self.keeping.release(job)

    def _admitted(self, wanted: Sequence[Wanted], *, job: str, stop: threading.Event) -> list[Wanted]:
        """What is missing, with room promised for it. Waits a while for others to let go of theirs. Raises NoRoom."""
        give_up = time.monotonic() + self.settings.room_wait_s
        while True:
            try:
                missing, damaged = self.keeping.admit(wanted, job=job)
            except NoRoom as error:
                hopeless = sum({w.sha256: w.size_bytes or 0 for w in wanted}.values()) > self.settings.cap_bytes or error.code != NoRoom.code
                if hopeless or time.monotonic() >= give_up:
                    self._count(failed=1)
                    raise
                self._pause(stop, LOOK_S * 2)
                continue
            hits = len({w.sha256 for w in wanted}) - len(missing)
            self._count(hits=hits, corrupt=damaged)
            return missing

    def _obtain(self, one: Wanted, *, job: str, since: int, stop: threading.Event, meter: Meter) -> None:
        """Fetch it, or wait for whoever does. A failure that ended what we waited for is ours too."""
        waited = False
        try:
            while True:
                with holders.claim(self.keeping.lock(one.sha256)) as mine:
                    row = self.keeping.ledger.file(one.sha256)
                    if row is not None and row.whole:
                        self._count(coalesced=1)
                        self.keeping.ledger.count(coalesced=1)
                        meter.show(one, row.size_bytes, row.size_bytes)
                        return
                    if mine:
                        failed = self.keeping.failure_since(one.sha256, since) if waited else None
                        if failed is not None:
                            self._count(failed=1)
                            raise failed
                        if row is None:
                            self._admitted([one], job=job, stop=stop)
                        self._fetch(one, stop=stop, meter=meter)
                        return
                if not waited:
                    waited = True
                    self._count(waiting=1)
                if row is not None:
                    meter.show(one, ranges.total(row.done), row.size_bytes)
                self._pause(stop, LOOK_S)
        finally:
            if waited:
                self._count(waiting=-1)

    def _pause(self, stop: threading.Event, wait_s: float) -> None:
        if stop.wait(wait_s):
            raise Stopped("The download was stopped.")

    def _fetch(self, one: Wanted, *, stop: threading.Event, meter: Meter) -> None:
        """Sources in order until one gives the right bytes. Wrong ones are thrown away and, after the other sources, fetched once again."""
        self._count(misses=1)
        self.keeping.ledger.count(misses=1)
        problems: list[StoreError] = []
        left = deque([*self.sources.mirrors_of(one.sha256), *one.urls])
        fetched_again = False
        try:
            while left:
                url = left.popleft()
                try:
                    if self._fetched(one, self.sources.of(url), stop=stop, meter=meter):
                        return
                except (Stopped, NoRoom):
                    raise
                except StoreError as error:
                    problems.append(error)
                    log.warning("model source failed", model=one.name, code=error.code, reason=error.message)
                    if isinstance(error, WrongBytes) and not fetched_again:
                        fetched_again = True
                        left.append(url)
            raise worst(one, problems)
        except Stopped:
            raise
        except StoreError as error:
            self._count(failed=1)
            self.keeping.fail(one.sha256, error, drop=isinstance(error, NoRoom | Refused | WrongBytes))
            raise

    def _fetched(self, one: Wanted, source: Source, *, stop: threading.Event, meter: Meter) -> bool:
        """Fetch from one source; True when the file is in the store. Raises WrongBytes with the bytes thrown away."""
        keeping, sha256 = self.keeping, one.sha256
        row = keeping.ledger.file(sha256)
        assert row is not None, "a pinned file stays in the ledger"
        part = keeping.part(sha256)
        done: Spans = row.done if part.exists() else ()
        fd = disk.allocate(part, one.size_bytes or 0)
        began = time.monotonic()
        try:
            fetching = Fetching(keeping, one, row, fd, source, meter, done)
            if done:
                log.info("model download goes on", model=one.name, here_bytes=ranges.total(done))
            into = Arriving(
                fd,
                keeper=fetching,
                shown=source.shown,
                size=one.size_bytes,
                most_bytes=self.settings.largest_bytes,
                done=done if one.size_bytes or row.mark == source.mark else (),
                validator=row.validator if row.mark == source.mark else "",
                stop=stop,
            )
            page = False
            if source.path is not None:
                copy(source, into)
            else:
                transfer = Transfer(source, into, reach=self.sources.reach, settings=self.settings)
                transfer.run()
                page = transfer.page
            digest = into.digest
            size = int(into.size or 0)
            if digest != sha256:
                keeping.begin_anew(sha256)
                self._count(corrupt=1)
                keeping.ledger.count(corrupt=1)
                web = ": it is a web page, the source may want a login." if page else "."
                raise WrongBytes(f"{source.shown} gave bytes with the SHA-256 {digest[:12]}… and not {sha256[:12]}…{web}", url=source.shown, got=digest)
            self.settings.pickles.check_file(part, one)
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        seconds = time.monotonic() - began
        keeping.publish(sha256, size_bytes=size, bytes_fetched=fetching.count, seconds=seconds)
        self._count(fetched_bytes=fetching.count, fetched_s=seconds)
        log.info("model fetched", model=one.name, source=source.shown, size_bytes=size, fetched_bytes=fetching.count, seconds=round(seconds, 3))
        return True

    # Files of others

    def digest_of(self, path: Path) -> str:
        """The SHA-256 of a file that is not the store's, remembered for as long as the file is not touched. Raises StoreError."""
        try:
            facts = path.stat()
            mark = f"{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}"
            known = self.keeping.ledger.ask("SELECT sha256 FROM other WHERE mark = ?", (mark,))
            if known:
                return str(known[0][0])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"{path.name} in the engine's models folder cannot be read: {error.strerror or error}.", code="model_not_readable") from error
        with self.keeping.ledger.writing() as db:
            db.execute("INSERT OR REPLACE INTO other VALUES (?, ?)", (mark, digest))
        return digest

    # Warmth

    def remember_warm(self, key: str, hashes: Sequence[str]) -> None:
        """Which files a warm key stands for. The oldest are forgotten beyond a few hundred."""
        ledger = self.keeping.ledger
        with ledger.writing() as db:
            turn = ledger.next_turn()
            db.execute("DELETE FROM warm WHERE key = ?", (key,))
            db.executemany("INSERT INTO warm VALUES (?, ?, ?)", [(key, sha256, turn) for sha256 in dict.fromkeys(hashes)])
            db.execute("DELETE FROM warm WHERE turn <= ?", (turn - MOST_WARM,))

    def warm_keys(self, most: int) -> list[str]:
        """Keys all of whose files are here, the latest first."""
        query = (
            "SELECT key FROM warm LEFT JOIN file ON file.sha256 = warm.sha256 AND file.whole "
            "GROUP BY key HAVING count(file.sha256) = count(*) ORDER BY max(warm.turn) DESC LIMIT ?"
        )
        return [key for (key,) in self.keeping.ledger.ask(query, (most,))]

    # Figures

    def figures(self) -> dict[str, Any]:
        """For heartbeats: what this process did, and how full the store is. `id` tells stores apart."""
        ledger = self.keeping.ledger
        [(files, used, pinned, partial)] = ledger.ask(
            "SELECT count(*), coalesce(sum(room_bytes), 0), coalesce(sum(CASE WHEN kept OR sha256 IN (SELECT sha256 FROM pin) THEN room_bytes END), 0), "
            "coalesce(sum(CASE WHEN NOT whole THEN room_bytes END), 0) FROM file"
        )
        counts = {**asdict(self.counts), "fetched_s": round(self.counts.fetched_s, 3)}
        keeping = self.keeping
        return {
            "id": ledger.id,
            "cap_bytes": self.settings.cap_bytes,
            "used_bytes": used,
            "pinned_bytes": pinned,
            "partial_bytes": partial,
            "files": files,
            "evictions": keeping.evictions,
            "evicted_bytes": keeping.evicted_bytes,
            **counts,
        }

    def _count(self, **amounts: float) -> None:
        with self._lock:
            for name, value in amounts.items():
                setattr(self.counts, name, getattr(self.counts, name) + value)
