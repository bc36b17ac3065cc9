"""One file over HTTP into its partial file: ranges side by side, in order of the file so that the hash can follow.

A source that changes under the transfer, or that cannot serve ranges and breaks off, is begun anew; what cannot be told apart
that way the hash tells.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.client import HTTPResponse

from fleet.agent.store import answers, ranges
from fleet.agent.store.answers import Again, Changed, Offer
from fleet.agent.store.arriving import Arriving
from fleet.agent.store.failures import Gone, Unauthorized, Unreachable, WrongBytes
from fleet.agent.store.ranges import Span
from fleet.agent.store.reach import Reach
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.sources import Source
from fleet.agent.store.wire import BROKEN, Target, Wire

READ = 256 * 1024
GROW = 64 * 1024 * 1024
RESTARTS = 3
MAX_WAIT_S = 15.0


class Slow(Again):
    """Bytes trickle: a new connection may do better, and progress of this kind is none."""


@dataclass
class Piece:
    """A range under way: `at` moves on to `end`; an `end` of None is wherever the body ends."""

    at: int
    end: int | None


class Transfer:
    """Used once. `page` tells afterwards whether the source sent a web page."""

    def __init__(self, source: Source, into: Arriving, *, reach: Reach, settings: StoreSettings) -> None:
        assert source.target is not None
        self._shown, self._fresh_target, self._into = source.shown, source.target, into
        self._reach, self._settings = reach, settings
        self._pieces: deque[Span] = deque()
        self._target: Target | None = None
        self._wires: list[Wire] = []
        self.page = False
        into.on_stop = self._hang_up

    def run(self) -> None:
        """Fill the file. Raises a StoreError; Stopped when that was asked for."""
        restarts = 0
        while True:
            self._into.begin()
            try:
                self._fetch()
                return
            except Changed as error:
                restarts += 1
                if restarts > RESTARTS:
                    raise WrongBytes(f"{self._shown} changes again and again while it is fetched: {error}.", url=self._shown) from None
                self._pieces.clear()
                self._target = None
                self._into.forget()
            finally:
                self._into.note(force=True)

    def _fetch(self) -> None:
        into = self._into
        if into.size is not None and not ranges.missing(into.spans, into.size):
            into.hashed_beside(lambda: None)
            return
        with self._wire() as wire:
            answer, piece = self._open(wire)
            if piece.end is not None and into.size is not None:
                self._pieces.extend(p for p in ranges.parts(into.spans, into.size, self._settings.part_bytes) if p[0] != piece.at)
            into.hashed_beside(lambda: self._beside(wire, answer, piece))

    # The first answer

    def _open(self, wire: Wire) -> tuple[HTTPResponse, Piece]:
        """It tells the size, whether there are ranges, and whether what is here still counts."""
        tries = 0
        while True:
            first = self._first()
            headers = {"Range": f"bytes={first[0]}-{first[1] - 1}"}
            if self._into.spans and self._into.validator:
                headers["If-Range"] = self._into.validator
            try:
                answer, offered = self._ask(wire, headers)
            except (Again, *BROKEN) as error:
                tries = self._again(error, tries)
                continue
            return answer, self._begun(offered, first)

    def _first(self) -> Span:
        """The first missing part; its end may lie behind the file's while the size is not known."""
        part = self._settings.part_bytes
        if self._into.size is not None:
            return ranges.parts(self._into.spans, self._into.size, part)[0]
        at = ranges.frontier(self._into.spans)
        return at, at + part

    def _begun(self, offered: Offer, first: Span) -> Piece:
        into = self._into
        self.page = offered.page
        if offered.size is not None and into.known_size is not None and offered.size != into.known_size:
            raise WrongBytes(
                f"{self._shown} has {offered.size} bytes and not {into.known_size}" + (": it is a web page." if offered.page else "."),
                "The source may want a login." if offered.page else "",
                url=self._shown,
            )
        if offered.ranged and offered.start != first[0]:
            raise Changed("the answer starts at another byte than was asked for")
        if into.spans and (not offered.ranged or (into.validator and offered.validator and offered.validator != into.validator)):
            raise Changed("it has another version than before")
        into.size = into.known_size
        if offered.size is not None:
            into.sized(offered.size)
        into.validator = offered.validator
        if not offered.ranged or offered.size is None:
            return Piece(0, None)
        return Piece(first[0], min(first[1], offered.size))

    def _ask(self, wire: Wire, headers: dict[str, str]) -> tuple[HTTPResponse, Offer]:
        """One request. A target that was led to by a redirect, or presigned, may expire: then it is asked for anew."""
        self._into.check()
        held = self._target
        answer, final = wire.get(held or self._fresh_target(), headers)
        try:
            offered = answers.offer(answer.status, answer.headers, self._shown)
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

    # The pieces

    def _beside(self, wire: Wire, answer: HTTPResponse, piece: Piece) -> None:
        """On as many connections as are worth it; this thread has the first piece."""
        helpers = [threading.Thread(target=self._help, daemon=True) for _ in range(min(self._settings.streams - 1, len(self._pieces)))]
        for helper in helpers:
            helper.start()
        try:
            self._work(wire, answer, piece)
        except BaseException as error:
            self._into.fail(error)
        for helper in helpers:
            helper.join()
        if self._into.error is not None:
            raise self._into.error

    def _help(self) -> None:
        try:
            with self._wire() as wire:
                self._work(wire, None, None)
        except BaseException as error:
            self._into.fail(error)

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
        with self._into.change:
            self._into.check()
            return Piece(*self._pieces.popleft()) if self._pieces else None

    def _range(self, wire: Wire, piece: Piece) -> HTTPResponse:
        assert piece.end is not None
        into = self._into
        headers = {"Range": f"bytes={piece.at}-{piece.end - 1}", **({"If-Range": into.validator} if into.validator else {})}
        answer, offered = self._ask(wire, headers)
        same = offered.ranged and offered.start == piece.at and offered.size == into.size
        if not same or (into.validator and offered.validator and offered.validator != into.validator):
            wire.close()
            raise Changed("it changed between two ranges")
        return answer

    def _read(self, answer: HTTPResponse, piece: Piece) -> None:
        """The body, written where it belongs. Raises Again when it ends early or trickles."""
        window_at, window_bytes = time.monotonic(), 0
        while piece.end is None or piece.at < piece.end:
            self._into.check()
            # What one call to the system gives: a call that fills a buffer would not see that bytes trickle.
            data = answer.read1(READ if piece.end is None else min(READ, piece.end - piece.at))
            if not data:
                break
            self._fits(piece.at + len(data))
            self._into.take(data, piece.at)
            self._into.keeper.received(len(data))
            piece.at += len(data)
            window_bytes += len(data)
            passed = time.monotonic() - window_at
            if passed >= self._settings.slow_after_s:
                if window_bytes < self._settings.slow_bytes_per_s * passed:
                    raise Slow(f"only {window_bytes} bytes in {passed:.0f} s")
                window_at, window_bytes = time.monotonic(), 0
        if piece.end is not None and piece.at < piece.end:
            raise Again("the answer ended early")
        if piece.end is None:
            self._ended(piece.at)

    def _fits(self, end: int) -> None:
        """Room for bytes up to `end`: a body of unknown size is given it in steps."""
        into = self._into
        if into.size is None:
            into.bound(end)
            into.keeper.room((end + GROW - 1) // GROW * GROW)
        elif end > into.size:
            raise Changed("more bytes came than were announced")

    def _ended(self, at: int) -> None:
        into = self._into
        if into.size is not None and at != into.size:
            raise Again(f"the answer ended after {at} of {into.size} bytes")
        if into.size is None:
            into.sized(at)
            os.ftruncate(into.fd, at)

    def _again(self, error: BaseException, tries: int) -> int:
        """Wait before another try; the number of tries so far. Raises Unreachable when there were enough."""
        tries += 1
        if tries >= self._settings.tries:
            said = str(error) or type(error).__name__
            raise Unreachable(f"{self._shown} could not be read after {tries} tries: {said[:200]}.", url=self._shown) from error
        usual = min(self._settings.backoff_first_s * 2 ** (tries - 1), MAX_WAIT_S) * random.uniform(0.5, 1.0)
        asked = error.wait_s if isinstance(error, Again) else 0.0
        self._into.stop.wait(max(usual, asked))
        self._into.check()
        return tries

    # Connections

    def _wire(self) -> Wire:
        wire = Wire(self._reach, timeout_s=self._settings.timeout_s, proxy=self._settings.proxy)
        self._wires.append(wire)
        return wire

    def _hang_up(self) -> None:
        for wire in self._wires:
            wire.hang_up()
