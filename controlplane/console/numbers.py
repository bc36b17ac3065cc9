"""How numbers and times read on a page: money, percent, durations, counts, sizes, moments.

Pure. A missing value becomes a word, never a zero or a dash; minus is a real minus sign.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from controlplane.kernel import money


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def usd(microusd: int | None, *, tile: bool = False, missing: str = "none") -> str:
    """$12.04, $0.86, $0.0036, and $15,688 in tiles."""
    if microusd is None:
        return missing
    text = money.display(int(microusd), tile=tile)
    return text[:-2] if re.search(r"\.\d\d00$", text) else text


def pct(share: float | None, *, missing: str = "none") -> str:
    """A share of one as percent: two decimals from 99%, else whole, one decimal below 10%. Never rounds up to 100%."""
    if share is None:
        return missing
    value = abs(share) * 100
    sign = "−" if share < 0 and value >= 0.05 else ""
    if 99 <= value < 100:
        return f"{sign}{math.floor(value * 100) / 100:.2f}%"
    if value >= 10 or value == 0:
        return f"{sign}{math.floor(value) if 98 < value < 99 else round(value):,}%"
    return f"{sign}{_trim(f'{value:.1f}')}%" if value >= 0.1 else f"{sign}under 0.1%"


def points(difference: float | None) -> str:
    """A difference of two shares, in percentage points."""
    if difference is None:
        return "none"
    sign = "−" if difference < 0 else "+"
    return f"{sign}{abs(difference) * 100:.2f} pt"


def dur(seconds: float | None, *, tile: bool = False, missing: str = "none") -> str:
    """3.1 s, 98 s (1m 38s in tiles), 4m 10s, 6h 12m, 9 d."""
    if seconds is None:
        return missing
    sign, s = ("−" if seconds < 0 else ""), abs(float(seconds))
    if s == 0:
        return "0 s"
    if s < 0.0995:
        return f"{sign}{max(1, round(s * 1000))} ms"
    if s < 9.95:
        return f"{sign}{s:.1f} s"
    whole = round(s)
    if whole < (60 if tile else 120):
        return f"{sign}{whole} s"
    if whole < 3600:
        return f"{sign}{whole // 60}m {whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{sign}{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{sign}{whole // 86400:,} d"


def count(value: float | None, *, missing: str = "none") -> str:
    """198,896; one decimal only when it is not whole."""
    if value is None:
        return missing
    sign = "−" if value < 0 else ""
    return f"{sign}{abs(value):,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{sign}{abs(value):,.1f}"


def size(size_bytes: float | None, *, missing: str = "none") -> str:
    """Decimal units: 9.34 GB."""
    if size_bytes is None:
        return missing
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{_trim(f'{value:.2f}' if value < 10 else f'{value:.1f}' if value < 100 else f'{value:.0f}')} {unit}"


def ago(moment: datetime, now: datetime) -> str:
    """18m ago, in 9 d; a date beyond seven days back."""
    s = (now - moment).total_seconds()
    past, s = s >= 0, abs(s)
    if s < 1:
        return "now"
    if s < 60:
        text = f"{int(s)} s"
    elif s < 3600:
        text = f"{int(s // 60)}m"
    elif s < 86400:
        text = f"{int(s // 3600)}h"
    elif s <= 7 * 86400 or not past:
        text = f"{int(s // 86400)} d"
    else:
        return f"{moment.astimezone(UTC):%-d %b %Y}"
    return f"{text} ago" if past else f"in {text}"


def stamp(moment: datetime) -> str:
    """The absolute time people see on hover."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def plural(n: float, one: str, many: str = "") -> str:
    """1 job, 2 jobs."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"
