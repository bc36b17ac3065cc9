"""The time range of a page, read from its address: ?from=-24h&to=now. One parser for pages, series and CSV.

Pure. Accepts 2h, -2h, yesterday, 2026-11-18 09:00 and full ISO times; anything else falls back to
the page's default and says so, so that a broken link still shows a page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

QUICK = ("1h", "6h", "24h", "7d", "28d")
MAX_POINTS = 2000
LONGEST = timedelta(days=400)
MOST_AHEAD = timedelta(days=7)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_RELATIVE = re.compile(r"-?\s*(\d{1,6})\s*([smhdw])")
_STEPS_S = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 7 * 86400)


@dataclass(frozen=True)
class Range:
    """From `start` up to `end`; `label` is what the control shows, `given` what the link said."""

    start: datetime
    end: datetime
    label: str
    given: tuple[str, str]
    now: datetime
    error: str = ""
    ahead: str | None = None
    """How far past now the page looks, such as 6h; "0" for not at all, None where a page knows no future."""

    @property
    def ahead_s(self) -> float:
        """Seconds past now; none when the range ends before."""
        found = _RELATIVE.fullmatch(self.ahead or "")
        return min(int(found[1]) * _UNITS[found[2]], MOST_AHEAD.total_seconds()) if found and self.ends_now else 0.0

    @property
    def span(self) -> timedelta:
        return self.end - self.start

    @property
    def seconds(self) -> float:
        return self.span.total_seconds()

    @property
    def ends_now(self) -> bool:
        return self.end >= self.now

    def step_s(self, points: int = 160) -> int:
        """Seconds per point so that about `points` fit."""
        wanted = self.seconds / min(points, MAX_POINTS)
        return next((s for s in _STEPS_S if s >= wanted), _STEPS_S[-1])

    def query(self) -> str:
        """The part of an address that keeps this range as it was given."""
        return urlencode({"from": self.given[0], "to": self.given[1]})

    def fixed(self) -> str:
        """The same range with absolute ends, so that a link keeps its meaning."""
        return _absolute(self.start, self.end) + (f"&ahead={self.ahead}" if self.ahead else "")

    def shifted(self, halves: int) -> str:
        """Moved by half a range, never past now."""
        move = self.span / 2 * halves
        end = min(self.end + move, self.now)
        return _absolute(end - self.span, end)


def _absolute(start: datetime, end: datetime) -> str:
    return urlencode({"from": f"{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", "to": f"{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"})


def moment(text: str, *, now: datetime) -> datetime | None:
    """A point in time from what a person typed, or None."""
    text = text.strip().lower()
    if text in ("now", ""):
        return now
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if text == "today":
        return midnight
    if text == "yesterday":
        return midnight - timedelta(days=1)
    if relative := _RELATIVE.fullmatch(text):
        return now - timedelta(seconds=min(int(relative[1]) * _UNITS[relative[2]], LONGEST.total_seconds()))
    try:
        given = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def with_ahead(span: Range, query: Mapping[str, str], *, default: str) -> Range:
    """The range with how far past now it looks: what the address asks for, else `default`."""
    given = (query.get("ahead") or "").strip().lower()[:12]
    if given in ("0", "none") or (given and not _RELATIVE.fullmatch(given)):
        return replace(span, ahead="0")
    return replace(span, ahead=given.lstrip("- ") or default)


def parse(query: Mapping[str, str], *, now: datetime, default: str = "24h") -> Range:
    """The range the address asks for; the default with an error sentence when it cannot be read."""
    start_text, end_text = (query.get("from") or f"-{default}")[:40], (query.get("to") or "now")[:40]
    start, end, error = moment(start_text, now=now), moment(end_text, now=now), ""
    if start is None or end is None:
        error = f"“{start_text if start is None else end_text}” is not a time. Write 2h, yesterday or 2026-11-18 09:00."
    elif start >= end:
        error = "The start is not before the end."
    elif end > now + timedelta(days=1):
        error = "The end is in the future."
    elif end - start > LONGEST:
        error = "The range is longer than 400 days."
    if error or start is None or end is None:
        start_text, end_text, end = f"-{default}", "now", now
        start = moment(start_text, now=now) or now
    quick = start_text.lstrip("-")
    if end_text == "now" and _RELATIVE.fullmatch(start_text):
        label = f"Last {quick}"
    else:
        label = f"{start.astimezone(UTC):%d %b %H:%M} to {'now' if end_text == 'now' else f'{end.astimezone(UTC):%d %b %H:%M}'}"
    return Range(start=start, end=end, label=label, given=(start_text, end_text), now=now, error=error)
