"""Which bytes of a file are here and which are to be asked for. Pure.

Spans are half-open, sorted and apart: what touches is one span.
"""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]
Spans = tuple[Span, ...]


def add(spans: Spans, start: int, end: int) -> Spans:
    """The spans with `start`..`end` added."""
    if end <= start:
        return spans
    before = [s for s in spans if s[1] < start]
    after = [s for s in spans if s[0] > end]
    touching = spans[len(before) : len(spans) - len(after)]
    low = min((s[0] for s in touching), default=start)
    high = max((s[1] for s in touching), default=end)
    return (*before, (min(low, start), max(high, end)), *after)


def tidied(spans: Iterable[Iterable[int]], size: int) -> Spans:
    """Spans as somebody wrote them down, cut to the file; nonsense is no span."""
    found: Spans = ()
    for span in spans:
        start, end = (int(n) for n in span)
        found = add(found, max(start, 0), min(end, size))
    return found


def total(spans: Spans) -> int:
    return sum(end - start for start, end in spans)


def frontier(spans: Spans) -> int:
    """How many bytes there are without a gap from the start."""
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def missing(spans: Spans, size: int) -> Spans:
    """What `spans` leave open of a file of `size` bytes."""
    gaps, at = [], 0
    for start, end in spans:
        if start > at:
            gaps.append((at, min(start, size)))
        at = max(at, end)
    if at < size:
        gaps.append((at, size))
    return tuple(gap for gap in gaps if gap[0] < gap[1])


def parts(spans: Spans, size: int, part_bytes: int) -> list[Span]:
    """The requests that complete the file, from its start on: the hash follows the download, so the order matters."""
    return [(at, min(at + part_bytes, end)) for start, end in missing(spans, size) for at in range(start, end, part_bytes)]
