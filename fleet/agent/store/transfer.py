"""One file from one source into its partial file: ranges side by side in order of the file, hashed as the gap-free part grows.

What arrived is written down every few megabytes, so that a killed transfer goes on from there. A source that changes under the
transfer, or cannot serve ranges and breaks off, is begun anew; what cannot be told apart that way the hash tells.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Protocol

from fleet.agent.store import answers, ranges
from fleet.agent.store.answers import Again, Changed, Offer
from fleet.agent.store.failures import Gone, NoRoom, Refused, Stopped, StoreError, Unauthorized, Unreachable, WrongBytes
from fleet.agent.store.ranges import Span, Spans
from fleet.agent.store.reach import Reach
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.sources import Source
from fleet.agent.store.wire import BROKEN, Target, Wire

CHUNK = 1024 * 1024
READ = 256 * 1024
GROW = 64 * 1024 * 1024
NOTE_BYTES = 8 * 1024 * 1024
NOTE_S = 0.25
RESTARTS = 3
MAX_WAIT_S = 15.0


class Keeper(Protocol):
    """What a transfer needs of the store. Called from several threads."""

    def room(self, size_bytes: int) -> None:
        """Promise room for the file's size, now that it is known. Raises NoRoom."""

    def note(self, done: Spans, validator: str) -> None:
        """Write down what is here."""

    def received(self, count: int) -> None:
        """Bytes came over the wire."""


@dataclass
class Piece:
    """A range under way: `at` moves on to `end`; an `end` of None is wherever the body ends."""

    at: int
    end: int | None


class Transfer:
    """Used once. `run` gives the SHA-256 and the size of what was fetched."""

    def __init__(
        self,
        fd: int,
        *,
        source: Source,
        reach: Reach,
        settings: StoreSettings,
        keeper: Keeper,
        size: int | None,
        done: Spans,
        validator: str,
        stop: threading.Event,
    ) -> None:
        self._fd, self._source, self._reach, self._settings, self._keeper = fd, source, reach, settings, keeper
        self._size, self._spans, self._validator, self._stop = size, done, validator, stop
        self._known_size = size
        self._change = threading.Condition()
        self._pieces: deque[Span] = deque()
        self._target: Target | None = None
        self._error: BaseException | None = None
        self._over = False
        self._page = False
        self._noted_bytes, self._noted_at = ranges.total(done), time.monotonic()
        self._digest = ""
        self._wires: list[Wire] = []

    def run(self) -> tuple[str, int]:
        """Fetch what is missing. Raises a StoreError; Stopped when `stop` was set."""
        if self._source.path is not None:
            self._attempt(self._copy)
        else:
            restarts = 0
            while True:
                try:
                    self._attempt(self._fetch)
                    break
                except Changed as error:
                    restarts += 1
                    if restarts > RESTARTS:
                        raise WrongBytes(f"{self._source.shown} changes again and again while it is fetched: {error}.", url=self._source.shown) from None
                    self._forget()
        assert self._size is not None
        return self._digest, self._size

    @property
    def page(self) -> bool:
        """Whether the source sent a web page."""
        return self._page

    def _attempt(self, work: Callable[[], None]) -> None:
        self._error, self._over, self._digest = None, False, ""
        try:
            work()
        except OSError as error:
            raise _disk(error) from error
        finally:
            self._note(force=True)

    def _forget(self) -> None:
        """Begin anew: nothing of what is here can be trusted to be of the same file."""
        with self._change:
            self._spans, self._validator, self._target = (), "", None
            self._size = self._known_size
            self._pieces.clear()
        self._note(force=True)

    # HTTP

    def _fetch(self) -> None:
        if self._size is not None and not ranges.missing(self._spans, self._size):
            self._hash_beside(lambda: None)
            return
        with self._wire() as wire:
            answer, piece = self._open(wire)
            if piece.end is not None and self._size is not None:
                self._pieces.extend(p for p in ranges.parts(self._spans, self._size, self._settings.part_bytes) if p[0] != piece.at)
            self._hash_beside(lambda: self._beside(wire, answer, piece))

    def _open(self, wire: Wire) -> tuple[HTTPResponse, Piece]:
        """The first answer, which tells the size, whether there are ranges, and whether what is here still counts."""
        tries = 0
        while True:
            first = self._first()
            headers = {"Range": f"bytes={first[0]}-{first[1] - 1}"}
            if self._spans and self._validator:
                headers["If-Range"] = self._validator
            try:
                answer, offered = self._ask(wire, headers)
            except (Again, *BROKEN) as error:
                tries = self._again(error, tries)
                continue
            return answer, self._begun(offered, first)

    def _first(self) -> Span:
        """The first missing part; its end may lie behind the file's while the size is not known."""
        part = self._settings.part_bytes
        if self._size is not None:
            return ranges.parts(self._spans, self._size, part)[0]
        at = ranges.frontier(self._spans)
        return at, at + part

    def _begun(self, offered: Offer, first: Span) -> Piece:
        self._page = offered.page
        if offered.size is not None and self._known_size is not None and offered.size != self._known_size:
            raise WrongBytes(
                f"{self._source.shown} has {offered.size} bytes and not {self._known_size}" + (": it is a web page." if offered.page else "."),
                "The source may want a login." if offered.page else "",
                url=self._source.shown,
            )
        if offered.ranged and offered.start != first[0]:
            raise Changed("the answer starts at another byte than was asked for")
        if self._spans and (not offered.ranged or (self._validator and offered.validator and offered.validator != self._validator)):
            raise Changed("it has another version than before")
        if offered.size is not None:
            self._bound(offered.size)
            self._keeper.room(offered.size)
        with self._change:
            self._size = offered.size
            self._validator = offered.validator
        if not offered.ranged or offered.size is None:
            return Piece(0, None)
        return Piece(first[0], min(first[1], offered.size))

    def _bound(self, size: int) -> None:
        if size > self._settings.largest_bytes:
            raise Refused(
                f"{self._source.shown} has {size} bytes; the store takes files of up to {self._settings.largest_bytes}.",
                "Raise COMFYPLANE_STORE_MAX_FILE or COMFYPLANE_STORE_CAP.",
                code="model_too_large",
                url=self._source.shown,
            )

    def _ask(self, wire: Wire, headers: dict[str, str]) -> tuple[HTTPResponse, Offer]:
        """One request. A target that was led to by a redirect, or presigned, may expire: then it is asked for anew."""
        self._check()
        assert self._source.target is not None
        held = self._target
        answer, final = wire.get(held or self._source.target(), headers)
        try:
            offered = answers.offer(answer.status, answer.headers, self._source.shown)
        except (Unauthorized, Gone) as error:
            wire.close()
            if held is None:
                raise
            self._target = None
            raise Again(error.message) from error
        except BaseException:
            wire.close()
            raise
        self._target = final
        return answer, offered

    def _beside(self, wire: Wire, answer: HTTPResponse, piece: Piece) -> None:
        """The pieces, on as many connections as are worth it; this thread has the first."""
        helpers = [threading.Thread(target=self._help, daemon=True) for _ in range(min(self._settings.streams - 1, len(self._pieces)))]
        for helper in helpers:
            helper.start()
        try:
            self._work(wire, answer, piece)
        except BaseException as error:
            self._fail(error)
        for helper in helpers:
            helper.join()
        if self._error is not None:
            raise self._error

    def _wire(self) -> Wire:
        wire = Wire(self._reach, timeout_s=self._settings.timeout_s, proxy=self._settings.proxy)
        self._wires.append(wire)
        return wire

    def _help(self) -> None:
        try:
            with self._wire() as wire:
                self._work(wire, None, None)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._change:
            self._error = self._error or error
            self._change.notify_all()

    def _work(self, wire: Wire, answer: HTTPResponse | None, piece: Piece | None) -> None:
        while piece is not None or (piece := self._next()) is not None:
            tries, before = 0, piece.at
            while answer is not None or piece.end is None or piece.at < piece.end:
                try:
                    if answer is None:
                        answer = self._range(wire, piece)
                    self._read(answer, piece)
                except (Again, *BROKEN) as error:
                    if piece.end is None:
                        raise Changed(f"broke off without ranges to go on from: {error}") from error
                    wire.close()
                    answer = None
                    tries = self._again(error, 0 if piece.at > before and not isinstance(error, Slow) else tries)
                    before = piece.at
                    continue
                answer = None
                if piece.end is None:
                    break
            piece = None

    def _next(self) -> Piece | None:
        with self._change:
            self._check()
            return Piece(*self._pieces.popleft()) if self._pieces else None

    def _range(self, wire: Wire, piece: Piece) -> HTTPResponse:
        assert piece.end is not None
        headers = {"Range": f"bytes={piece.at}-{piece.end - 1}", **({"If-Range": self._validator} if self._validator else {})}
        answer, offered = self._ask(wire, headers)
        same = offered.ranged and offered.start == piece.at and offered.size in (None, self._size)
        if not same or (self._validator and offered.validator and offered.validator != self._validator):
            wire.close()
            raise Changed("it changed between two ranges")
        return answer

    def _read(self, answer: HTTPResponse, piece: Piece) -> None:
        """The body, written where it belongs. Raises Again when it ends early or trickles."""
        window_at, window_bytes = time.monotonic(), 0
        while piece.end is None or piece.at < piece.end:
            self._check()
            # What one call to the system gives: a call that fills a buffer would not see that bytes trickle.
            data = answer.read1(READ if piece.end is None else min(READ, piece.end - piece.at))
            if not data:
                break
            count = len(data)
            self._write(memoryview(data), piece.at)
            self._arrived(piece.at, piece.at + count)
            piece.at += count
            self._keeper.received(count)
            window_bytes += count
            passed = time.monotonic() - window_at
            if passed >= self._settings.slow_after_s:
                if window_bytes < self._settings.slow_bytes_per_s * passed:
                    raise Slow(f"only {window_bytes} bytes in {passed:.0f} s")
                window_at, window_bytes = time.monotonic(), 0
        if piece.end is not None and piece.at < piece.end:
            raise Again("the answer ended early")
        if piece.end is None:
            self._ended(piece.at)

    def _ended(self, at: int) -> None:
        if self._size is not None and at != self._size:
            raise Again(f"the answer ended after {at} of {self._size} bytes")
        if self._size is None:
            self._keeper.room(at)
            os.ftruncate(self._fd, at)
            self._size = at

    def _write(self, data: memoryview, at: int) -> None:
        if self._size is None:
            self._bound(at + len(data))
            self._keeper.room((at + len(data) + GROW - 1) // GROW * GROW if at + len(data) > GROW else GROW)
        elif at + len(data) > self._size:
            raise Changed("more bytes came than were announced")
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], at + written)
        except OSError as error:
            raise _disk(error) from error

    def _again(self, error: BaseException, tries: int) -> int:
        """Wait before another try; the number of tries so far. Raises Unreachable when there were enough."""
        tries += 1
        if tries >= self._settings.tries:
            said = str(error) or type(error).__name__
            raise Unreachable(f"{self._source.shown} could not be read after {tries} tries: {said[:200]}.", url=self._source.shown) from error
        usual = min(self._settings.backoff_first_s * 2 ** (tries - 1), MAX_WAIT_S) * random.uniform(0.5, 1.0)
        asked = error.wait_s if isinstance(error, Again) else 0.0
        self._stop.wait(max(usual, asked))
        self._check()
        return tries

    # Local files

    def _copy(self) -> None:
        """A copy, so that whoever owns the file may change it; where the file system can, its blocks are shared."""
        assert self._source.path is not None
        try:
            source = os.open(self._source.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise Gone(f"{self._source.shown} cannot be read: {error.strerror}.", url=self._source.shown) from error
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, source)
            size = os.fstat(source).st_size
            if self._known_size is not None and size != self._known_size:
                raise WrongBytes(f"{self._source.shown} has {size} bytes and not {self._known_size}.", url=self._source.shown)
            self._bound(size)
            self._keeper.room(size)
            with self._change:
                self._size, self._validator = size, ""
            self._hash_beside(lambda: self._copy_spans(source, size))

    def _copy_spans(self, source: int, size: int) -> None:
        for start, end in ranges.parts(self._spans, size, 16 * CHUNK):
            at = start
            while at < end:
                self._check()
                try:
                    count = os.copy_file_range(source, self._fd, end - at, at, at)
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
                        raise
                    data = os.pread(source, min(CHUNK, end - at), at)
                    self._write(memoryview(data), at)
                    count = len(data)
                if not count:
                    raise WrongBytes(f"{self._source.shown} became shorter while it was copied.", url=self._source.shown)
                self._arrived(at, at + count)
                at += count

    # Both

    def _arrived(self, start: int, end: int) -> None:
        with self._change:
            self._spans = ranges.add(self._spans, start, end)
            self._change.notify_all()
        self._note()

    def _note(self, *, force: bool = False) -> None:
        with self._change:
            done = ranges.total(self._spans)
            now = time.monotonic()
            if not force and done - self._noted_bytes < NOTE_BYTES and now - self._noted_at < NOTE_S:
                return
            self._noted_bytes, self._noted_at = done, now
            spans, validator = self._spans, self._validator
        self._keeper.note(spans, validator)

    def _hash_beside(self, work: Callable[[], None]) -> None:
        """Do the work while another thread hashes what is there without a gap."""
        hasher = threading.Thread(target=self._hash, daemon=True)
        hasher.start()
        try:
            work()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            with self._change:
                self._over = True
                self._change.notify_all()
            hasher.join()
        self._check()

    def _hash(self) -> None:
        digest, at, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
        try:
            while True:
                with self._change:
                    while ranges.frontier(self._spans) <= at and not (self._over or self._error or self._stop.is_set()):
                        self._change.wait(0.2)
                    if self._error is not None:
                        return
                    limit, over = ranges.frontier(self._spans), self._over
                if at >= limit and over and not self._stop.is_set():
                    break
                while at < limit and not self._stop.is_set():
                    count = os.preadv(self._fd, [buffer[: min(CHUNK, limit - at)]], at)
                    if not count:
                        raise OSError(errno.EIO, "the partial file is shorter than it should be")
                    digest.update(buffer[:count])
                    at += count
                if self._stop.is_set():
                    for wire in self._wires:
                        wire.hang_up()
                    return
        except BaseException as error:
            self._fail(error)
            return
        self._digest = digest.hexdigest()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped("The download was stopped.")
        if self._error is not None:
            raise self._error


class Slow(Again):
    """Bytes trickle: a new connection may do better, and progress of this kind is none."""


def _disk(error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoRoom(f"The disk of the store is full: {error.strerror}.")
    return StoreError(f"The store's disk failed: {error.strerror or error}.", "Check the disk of this host.", code="store_disk_failed")


def allocate(path: Path, size_bytes: int) -> int:
    """The partial file at its full size, so that a full disk is told before the first byte. The descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        extend(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def extend(fd: int, size_bytes: int) -> None:
    """Take disk space up to `size_bytes`. Raises NoRoom."""
    try:
        if size_bytes and os.fstat(fd).st_size < size_bytes:
            try:
                os.posix_fallocate(fd, 0, size_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise _disk(error) from error
