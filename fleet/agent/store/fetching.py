"""What surrounds one fetch: how far it is, what its transfer asks of the store, and which failure to tell when no source helped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fleet.agent.store import disk, ranges
from fleet.agent.store.failures import Gone, Misconfigured, Refused, StoreError, Unauthorized, Unreachable, WrongBytes
from fleet.agent.store.keeping import Keeping
from fleet.agent.store.ledger import FileRow
from fleet.agent.store.ranges import Spans
from fleet.agent.store.sources import Source
from fleet.agent.store.wanted import Wanted

Progress = Callable[[int, int], None]


class Meter:
    """Bytes of the files a job lacks: how many are here, how many there will be."""

    def __init__(self, missing: Sequence[Wanted], progress: Progress | None) -> None:
        self._progress = progress
        self._sizes = {one.sha256: one.size_bytes or 0 for one in missing}
        self._here = dict.fromkeys(self._sizes, 0)

    def show(self, one: Wanted, here: int, size: int) -> None:
        self._here[one.sha256], self._sizes[one.sha256] = here, max(size, here)
        if self._progress is not None:
            self._progress(sum(self._here.values()), sum(self._sizes.values()))


class Fetching:
    """What a transfer asks of the store (`arriving.Keeper`)."""

    def __init__(self, keeping: Keeping, one: Wanted, row: FileRow, fd: int, source: Source, meter: Meter, done: Spans) -> None:
        self._keeping, self._one, self._fd, self._source, self._meter = keeping, one, fd, source, meter
        self._size = one.size_bytes or row.size_bytes
        self._here = ranges.total(done)
        self._lock = threading.Lock()
        self.count = 0

    def room(self, size_bytes: int) -> None:
        if size_bytes != self._size or not self._one.size_bytes:
            self._keeping.resize(self._one.sha256, size_bytes)
            disk.extend(self._fd, size_bytes)
            self._size = size_bytes

    def note(self, done: Spans, validator: str) -> None:
        self._keeping.ledger.note_progress(self._one.sha256, done=done, mark=self._source.mark, validator=validator)
        self._meter.show(self._one, ranges.total(done), self._size)

    def received(self, count: int) -> None:
        with self._lock:
            self.count += count


_GRAVITY = (Unreachable, Misconfigured, Unauthorized, WrongBytes, Refused, Gone)


def worst(one: Wanted, problems: Sequence[StoreError]) -> StoreError:
    """The failure to report when no source helped: the one that says most about what can be done. Pure."""
    if not problems:
        return Gone(
            f"{one.name} is not in the store, and its lock names no source.", "Give the model a source and lock the version again.", code="model_no_source"
        )
    order = {kind: place for place, kind in enumerate(_GRAVITY)}
    chosen = min(problems, key=lambda error: min((place for kind, place in order.items() if isinstance(error, kind)), default=len(order)))
    tried = list(dict.fromkeys(error.message for error in problems))
    kind = type(chosen)
    return kind(f"{one.name}: {chosen.message}", chosen.suggestion, code=chosen.code, **{**chosen.details, "model": one.name, "tried": tried[:16]})
