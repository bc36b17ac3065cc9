"""A partial file as it fills: which bytes are here, written down every few megabytes, and hashed as the gap-free part grows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from fleet.agent.store import disk, ranges
from fleet.agent.store.failures import Refused, Stopped
from fleet.agent.store.ranges import Spans

CHUNK = 1024 * 1024
NOTE_BYTES = 8 * 1024 * 1024
NOTE_S = 0.25
FLUSH_BYTES = 32 * 1024 * 1024


class Keeper(Protocol):
    """What a transfer needs of the store. Called from several threads."""

    def room(self, size_bytes: int) -> None:
        """Promise room for the file's size, now that it is known. Raises NoRoom."""

    def note(self, done: Spans, validator: str) -> None:
        """Write down what is here."""

    def received(self, count: int) -> None:
        """Bytes came over the wire."""


class Arriving:
    """Shared by the threads that fill it. The first error of any of them, and `stop`, ends all."""

    def __init__(self, fd: int, *, keeper: Keeper, shown: str, size: int | None, most_bytes: int, done: Spans, validator: str, stop: threading.Event) -> None:
        self.fd, self.keeper, self.stop = fd, keeper, stop
        self.shown, self.size, self.known_size, self.validator = shown, size, size, validator
        self.digest = ""
        self.change = threading.Condition()
        self.error: BaseException | None = None
        self.on_stop: Callable[[], None] = lambda: None
        self._spans, self._most_bytes = done, most_bytes
        self._over = False
        self._noted_bytes, self._noted_at = ranges.total(done), time.monotonic()

    @property
    def spans(self) -> Spans:
        return self._spans

    def bound(self, size: int) -> None:
        """Raises Refused for a file that is too large."""
        if size > self._most_bytes:
            raise Refused(
                f"{self.shown} has {size} bytes; the store takes files of up to {self._most_bytes}.",
                "Raise COMFYPLANE_STORE_MAX_FILE or COMFYPLANE_STORE_CAP.",
                code="model_too_large",
                url=self.shown,
            )

    def sized(self, size: int) -> None:
        """The file's size is known now. Raises Refused and NoRoom."""
        self.bound(size)
        self.keeper.room(size)
        self.size = size

    def take(self, data: bytes, at: int) -> None:
        """Bytes for their place. Raises NoRoom."""
        disk.write(self.fd, data, at)
        self.arrived(at, at + len(data))

    def arrived(self, start: int, end: int) -> None:
        with self.change:
            self._spans = ranges.add(self._spans, start, end)
            self.change.notify_all()
        self.note()

    def note(self, *, force: bool = False) -> None:
        """Write down what is here, if that is worth it by now."""
        with self.change:
            done = ranges.total(self._spans)
            now = time.monotonic()
            if not force and done - self._noted_bytes < NOTE_BYTES and now - self._noted_at < NOTE_S:
                return
            self._noted_bytes, self._noted_at = done, now
            spans, validator = self._spans, self.validator
        self.keeper.note(spans, validator)

    def begin(self) -> None:
        """Before every attempt."""
        self.error, self._over, self.digest = None, False, ""

    def forget(self) -> None:
        """Begin anew: nothing of what is here can be trusted to be of the same file."""
        with self.change:
            self._spans, self.validator, self.size = (), "", self.known_size
        self.note(force=True)

    def check(self) -> None:
        """Raises Stopped, or what another thread ran into."""
        if self.stop.is_set():
            raise Stopped("The download was stopped.")
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        with self.change:
            self.error = self.error or error
            self.change.notify_all()

    def hashed_beside(self, work: Callable[[], None]) -> None:
        """Do the work that fills the file while other threads hash what is there without a gap and put it on the disk; `digest` is set when it returns."""
        others = [threading.Thread(target=work, daemon=True) for work in (self._hash, self._flush)]
        for thread in others:
            thread.start()
        try:
            work()
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            with self.change:
                self._over = True
                self.change.notify_all()
            for thread in others:
                thread.join()
        self.check()

    def _flush(self) -> None:
        """Write to the disk as the bytes come, or the sync at the end would wait for gigabytes."""
        flushed = ranges.total(self._spans)
        while True:
            with self.change:
                while ranges.total(self._spans) - flushed < FLUSH_BYTES and not (self._over or self.error):
                    self.change.wait(0.2)
                if self._over or self.error:
                    return
                flushed = ranges.total(self._spans)
            with contextlib.suppress(OSError):  # the sync at the end tells
                os.fdatasync(self.fd)

    def _hash(self) -> None:
        digest, at, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
        try:
            while (limit := self._limit(at)) is not None:
                while at < limit and not self.stop.is_set():
                    count = os.preadv(self.fd, [buffer[: min(CHUNK, limit - at)]], at)
                    if not count:
                        raise OSError(errno.EIO, "the partial file is shorter than it should be")
                    digest.update(buffer[:count])
                    at += count
                if self.stop.is_set():
                    self.on_stop()
                    return
        except BaseException as error:
            self.fail(disk.failure_of(error) if isinstance(error, OSError) else error)
            return
        if self.error is None:
            self.digest = digest.hexdigest()

    def _limit(self, at: int) -> int | None:
        """How far may be hashed, waiting for more than `at`; None when there is no more to come."""
        with self.change:
            while ranges.frontier(self._spans) <= at and not (self._over or self.error or self.stop.is_set()):
                self.change.wait(0.2)
            limit = ranges.frontier(self._spans)
            if self.error is not None or (limit <= at and self._over and not self.stop.is_set()):
                return None
            return limit
