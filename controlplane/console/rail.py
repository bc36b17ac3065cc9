"""The rail beside a log of versions: which line each stands on, where lines part and where they meet, as small pictures row by row.

Lanes are given as `git log --graph` does: a version takes the leftmost lane that waits for it, hands it to its first parent,
and opens another for what it was merged from. Each row's picture stretches to the height of its row. It is decoration:
the row says its parents in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

STEP, LEFT, MOST_LANES = 14, 12, 9
_COLOURS = ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6")


@dataclass(frozen=True, slots=True)
class Row:
    """`lane` is the version's own; `up` and `down` are (from, to) lanes of the lines above and below its middle."""

    lane: int
    up: tuple[tuple[int, int], ...]
    down: tuple[tuple[int, int], ...]
    merge: bool = False


def rows(entries: Iterable[tuple[int, tuple[int, ...]]]) -> list[Row]:
    """A row for each (number, parents), which come newest first."""
    waiting: list[int | None] = []
    found: list[Row] = []
    for number, parents in entries:
        mine = [lane for lane, wanted in enumerate(waiting) if wanted == number]
        lane = mine[0] if mine else _free(waiting)
        if lane == len(waiting):
            waiting.append(None)
        up = [(at, lane if wanted == number else at) for at, wanted in enumerate(waiting) if wanted is not None]
        for at in mine:
            waiting[at] = None
        down = [(at, at) for at, wanted in enumerate(waiting) if wanted is not None]
        for order, parent in enumerate(parents):
            to = next((at for at, wanted in enumerate(waiting) if wanted == parent), None)
            if to is None or (order == 0 and to > lane):
                to = lane if order == 0 else _free(waiting)
                if to == len(waiting):
                    waiting.append(None)
                waiting[to] = parent
            down.append((lane, to))
        found.append(Row(lane, tuple(up), tuple(down), merge=len(parents) > 1))
        while waiting and waiting[-1] is None:
            waiting.pop()
    return found


def width(found: list[Row]) -> int:
    """How many lanes the rail needs, in pixels."""
    lanes = max((lane for row in found for pair in (*row.up, *row.down, (row.lane, row.lane)) for lane in pair), default=0)
    return 2 * LEFT + min(lanes, MOST_LANES) * STEP


def picture(row: Row, wide: int) -> SafeString:
    """The row's part of the rail. Lines go to percentages, so that it may have any height."""
    lines = [(a, "0", b, "50%") for a, b in row.up] + [(a, "50%", b, "100%") for a, b in row.down]
    drawn = format_html_join(
        "", '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="var({})"/>',
        ((_x(a), top, _x(b), bottom, _COLOURS[(b if bottom == "100%" else a) % len(_COLOURS)]) for a, top, b, bottom in lines),
    )  # fmt: skip
    colour = _COLOURS[row.lane % len(_COLOURS)]
    fill = "--surface" if row.merge else colour
    dot = format_html('<circle cx="{}" cy="50%" r="4.5" fill="var({})" stroke="var({})"/>', _x(row.lane), fill, colour)
    return format_html('<svg class="rail" width="{}" height="100%" aria-hidden="true">{}{}</svg>', wide, drawn, dot)


def _free(waiting: list[int | None]) -> int:
    return next((at for at, wanted in enumerate(waiting) if wanted is None), len(waiting))


def _x(lane: int) -> int:
    return LEFT + min(lane, MOST_LANES) * STEP
