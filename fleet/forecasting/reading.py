"""A demand series from a CSV file: two columns of time and value, a grid of several rates, or one row an event. Gzip or plain, `-` for standard input.

    t_s,value        demand per step at that moment; the step is the usual distance of the rows, missing rows are unknown
    t_s,a,b          likewise, the column is named
    t_s,n            events counted: added up by the step, rows left out are zero
    t_s,service_s,…  one row an event: counted

Times are seconds, or ISO 8601 (UTC unless they say otherwise). What cannot be read raises Invalid with the line and what to do.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from controlplane.kernel.errors import Invalid, NotFound
from fleet.forecasting.series import DAY_S, FINEST_S, MOST_STEPS, Floats, Series, from_events

MAX_ROWS = 5_000_000
TIMES = ("t_s", "time", "timestamp", "at", "ts", "t", "date", "datetime", "ds")
COUNTED = ("n", "count", "jobs", "requests", "arrivals")
PER_EVENT = frozenset({"service_s", "context_tokens", "generated_tokens", "kind", "status"})
HOUR_S = 3600.0
MONDAY_S = 3 * DAY_S
"""The epoch was a Thursday."""


@dataclass(frozen=True, slots=True)
class Read:
    """A series, the column it came from, and where its clock stands: seconds to add for Unix time, None when it is a clock of its own."""

    series: Series
    column: str
    epoch: float | None
    rows: int


def read(name: str, *, column: str = "", step_s: float | None = None, from_s: float | None = None) -> Read:
    """The series in the file. `step_s` is needed where rows are events and an hour is not meant. Raises Invalid or NotFound."""
    if step_s is not None and not (math.isfinite(step_s) and 1.0 <= step_s <= 7 * DAY_S):
        raise Invalid("step_invalid", "The step is from a second to a week.", "Give seconds, for instance 3600.")
    names, rows = _header(_text(name), name)
    at = _time_column(names, name)
    others = [c for i, c in enumerate(names) if i != at]
    events = not column and (not others or bool(PER_EVENT & set(others)))
    picked = "" if events else _column(names, others, column, name)
    times, values, iso = _numbers(rows, at, names.index(picked) if picked else None, names)
    if not len(times):
        raise Invalid("series_empty", f"{_short(name)} has no rows.", "It needs a header and at least one row.")
    if from_s is not None:
        keep = times - (times.min() if iso else 0.0) >= from_s
        times, values = times[keep], values[keep]
        if not len(times):
            raise Invalid("series_empty", f"{_short(name)} has nothing from {from_s:g} s on.", "Check --from.")
    clock = times + MONDAY_S if iso else times
    own = _usual_step(times)
    if events:
        made = from_events(clock, step_s=step_s or HOUR_S)
    elif picked.lower() in COUNTED:
        finest = _finest(times)
        step = step_s or (finest if finest is not None and finest >= FINEST_S else HOUR_S)
        until = float(clock.max()) + (finest if finest is not None and finest >= step else 0.0)
        made = from_events(clock, step_s=step, weights=np.nan_to_num(values), until_s=until)
    else:
        made = _grid(clock, values, own=own, step_s=step_s, name=name)
    if not len(made.values):
        raise Invalid(
            "series_short", f"{_short(name)} covers less than one whole step of {made.step_s:g} s.", "Give a smaller --step; the last step must be over."
        )
    return Read(made, picked or "events", -MONDAY_S if iso else None, len(times))


def _grid(times: Floats, values: Floats, *, own: float | None, step_s: float | None, name: str) -> Series:
    """Values per step: the mean of the rows in it, NaN where there is none."""
    step = step_s or own or HOUR_S
    if step < 1.0:
        raise Invalid("series_step", f"The rows of {_short(name)} are {step:g} s apart.", "Give --step, in seconds, to take them together.")
    start = math.floor(times.min() / step) * step if step_s else float(times.min())
    index = np.floor((times - start) / step + 1e-6).astype(np.int64)
    end = int(index.max()) + 1
    if step_s and own and step_s > own and (float(times.max()) + own - start) / step < end - 1e-6:
        end -= 1  # the last step is not over
    first = max(0, end - MOST_STEPS)
    inside = (index >= first) & (index < end) & np.isfinite(values)
    count = np.bincount(index[inside] - first, minlength=max(0, end - first))
    total = np.bincount(index[inside] - first, weights=values[inside], minlength=max(0, end - first))
    return Series(np.where(count > 0, total / np.maximum(count, 1), np.nan), float(step), start + first * step)


def _usual_step(times: Floats) -> float | None:
    gaps = np.diff(np.unique(times))
    return float(np.median(gaps)) if len(gaps) else None


def _finest(times: Floats) -> float | None:
    gaps = np.diff(np.unique(times))
    return float(gaps.min()) if len(gaps) else None


def _column(names: Sequence[str], others: Sequence[str], column: str, name: str) -> str:
    if column:
        if column not in others:
            raise Invalid("series_column", f"{_short(name)} has no column {column[:60]!r}.", f"Its columns are {_names(names)}.")
        return column
    if len(others) == 1:
        return others[0]
    raise Invalid("series_column", f"{_short(name)} has several columns: {_names(others)}.", "Name one with --column.")


def _time_column(names: Sequence[str], name: str) -> int:
    lower = [c.lower() for c in names]
    for known in TIMES:
        if known in lower:
            return lower.index(known)
    if len(names) == 2:
        return 0
    raise Invalid("series_column", f"{_short(name)} has no column of times.", f"Its columns are {_names(names)}; call the time t_s.")


def _header(lines: Iterator[tuple[int, list[str]]], name: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Column names and the rows; a file of two columns may come without a header."""
    first = next(lines, None)
    if first is None:
        raise Invalid("series_empty", f"{_short(name)} is empty.", "It needs a header such as t_s,value and at least one row.")
    row = [cell.strip() for cell in first[1]]
    if _moment(row[0]) is None:
        return row, lines
    if len(row) != 2:
        raise Invalid("series_column", f"{_short(name)} has no header.", "Begin it with the names of its columns, for instance t_s,value.")

    def again() -> Iterator[tuple[int, list[str]]]:
        yield first
        yield from lines

    return ["t_s", "value"], again()


def _numbers(rows: Iterator[tuple[int, list[str]]], at: int, value: int | None, names: Sequence[str]) -> tuple[Floats, Floats, bool]:
    """Times, values (NaN where the cell is empty or says nan), and whether the times are moments of a calendar."""
    times: list[float] = []
    values: list[float] = []
    iso = False
    for line, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        moment = _moment(row[at].strip()) if at < len(row) else None
        if moment is None:
            raise _wrong(line, row, at, names, "neither seconds nor a date")
        iso = iso or moment[1]
        times.append(moment[0])
        if value is None:
            values.append(1.0)
            continue
        cell = row[value].strip() if value < len(row) else ""
        try:
            number = float(cell) if cell else math.nan
        except ValueError:
            raise _wrong(line, row, value, names, "no number") from None
        if number < 0 or number > 1e15:
            raise _wrong(line, row, value, names, "not from 0 up")
        values.append(number)
    return np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64), iso


def _moment(cell: str) -> tuple[float, bool] | None:
    """Seconds, and whether they are Unix time read from a date."""
    try:
        seconds = float(cell)
        return (seconds, False) if math.isfinite(seconds) and abs(seconds) <= 1e11 else None
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(cell[:64])
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp(), True


def _wrong(line: int, row: Sequence[str], place: int, names: Sequence[str], what: str) -> Invalid:
    said = row[place][:40] if place < len(row) else ""
    return Invalid("series_value", f"Line {line}: {said!r} in column {names[place][:40]} is {what}.", "Correct the line.", details={"line": line})


def _text(name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with their line numbers."""
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as raw:
            whole = io.BufferedReader(raw) if not isinstance(raw, io.BufferedReader) else raw  # type: ignore[type-var]
            packed = whole.peek(2)[:2] == b"\x1f\x8b"
            inner = gzip.GzipFile(fileobj=whole) if packed else whole
            with io.TextIOWrapper(inner, encoding="utf-8-sig", newline="") as text:  # type: ignore[arg-type,type-var]
                for line, row in enumerate(csv.reader(text), start=1):
                    if line > MAX_ROWS:
                        raise Invalid("series_long", f"{_short(name)} has more than {MAX_ROWS:,} rows.", "Cut it, or add it up by the minute.")
                    if row:
                        yield line, row
    except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Invalid("series_unreadable", f"{_short(name)} is not a CSV file: {str(error)[:120]}.", "Plain text or gzip, comma separated, UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_unreadable", f"Cannot read {_short(name)}: {reason[:120]}.", "Check the path.") from None


def _short(name: str) -> str:
    return "standard input" if name == "-" else Path(name).name[:120]


def _names(columns: Sequence[str]) -> str:
    return ", ".join(c[:40] for c in columns[:12]) or "none"
