"""What arrived, from a CSV file: one row a job, jobs counted by the second, or a rate over time. Gzip or plain, `-` for standard input.

    t_s,service_s,...    one row a job with the seconds it occupied a worker
    t_s,...              one row a job whose service time is drawn
    t_s,n                jobs that came in that second, spread evenly over it
    t_s,qps              jobs a second from that moment until the next row, one step at most; jobs are drawn from it (Poisson)

Times are seconds and must not go back. Whatever cannot be read raises Invalid with the line and what to do.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from controlplane.kernel.errors import Invalid, NotFound
from fleet.simulation.outcome import Floats

MAX_ROWS = 5_000_000
MAX_JOBS = 20_000_000
SHAPES = ("requests", "counts", "rates")
PER_JOB = frozenset({"service_s", "context_tokens", "generated_tokens", "kind", "status", "model"})
RATES = ("qps", "rate", "rps")
NEAR = 10
"""A service time is drawn from this many reports on either side of the moment, when the sample says when."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in order of arrival."""

    arrivals: Floats
    service: Floats
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Service times to draw from; with `at`, the moments they were reported, in order."""

    service: Floats
    at: Floats | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How a trace file is to be read. None and empty stand for: see what the file says."""

    shape: str = ""
    column: str = ""
    sample: Sample | None = None
    mean_s: float | None = None
    cv2: float = 1.0
    service_scale: float = 1.0
    rate_scale: float = 1.0
    from_s: float | None = None
    until_s: float | None = None
    seed: int = 0


def read(name: str, how: Reading = Reading()) -> Trace:
    """The jobs of the trace `name`. Raises Invalid or NotFound."""
    columns = _columns(name)
    if "t_s" not in columns:
        raise Invalid("trace_column", f"{_short(name)} has no column t_s.", f"Its columns are {_names(columns)}; the time in seconds must be called t_s.")
    shape, column = _shape(name, columns, how)
    wanted = ["t_s"] if shape == "requests" and "service_s" not in columns else ["t_s", "service_s" if shape == "requests" else column]
    table = _numbers(name, columns, wanted)
    times = table[0]
    _sorted(name, times)
    random = np.random.default_rng(how.seed)
    if shape == "requests":
        arrivals, service = times, table[1] if len(table) > 1 else None
        if how.rate_scale != 1.0:
            raise Invalid("trace_rate_scale", "Single requests cannot be made more or fewer.", "Use --rate-scale with counts or rates only.")
    else:
        if shape == "counts" and how.rate_scale != 1.0:
            raise Invalid("trace_rate_scale", "Counted jobs cannot be made more or fewer.", "Use --rate-scale with rates only.")
        arrivals, service = (_counted(table, random) if shape == "counts" else _rated(table, random, how.rate_scale)), None
    start = how.from_s if how.from_s is not None else float(times[0])
    end = how.until_s if how.until_s is not None else float(times[-1])
    if start >= end:
        start, end = (start, start) if how.from_s is None and how.until_s is None else _empty(start, end)
    kept = (arrivals >= start) & (arrivals <= end if how.until_s is None else arrivals < end)
    if shape != "requests" and how.until_s is None:
        kept = arrivals >= start
    arrivals = arrivals[kept]
    if not len(arrivals):
        raise Invalid("trace_empty", f"{_short(name)} has no job from {start:g} s to {end:g} s.", "Check --from and --until.")
    took = service[kept] if service is not None and how.sample is None and how.mean_s is None else _drawn(arrivals, how, random, shape)
    return Trace(arrivals, took * how.service_scale, start, max(end, float(arrivals[-1])))


def sample(name: str) -> Sample:
    """Service times to draw from: a column service_s, and t_s when they changed with time. Raises Invalid or NotFound."""
    columns = _columns(name)
    if "service_s" not in columns:
        raise Invalid("sample_column", f"{_short(name)} has no column service_s.", f"Its columns are {_names(columns)}.")
    if "t_s" not in columns:
        return Sample(_numbers(name, columns, ["service_s"])[0])
    at, service = _numbers(name, columns, ["t_s", "service_s"])
    _sorted(name, at)
    return Sample(service, at)


def values(name: str, column: str) -> Floats:
    """One column of numbers, none below zero. Raises Invalid or NotFound."""
    columns = _columns(name)
    if column not in columns:
        raise Invalid("sample_column", f"{_short(name)} has no column {column}.", f"Its columns are {_names(columns)}.")
    return _numbers(name, columns, [column])[0]


def _shape(name: str, columns: Sequence[str], how: Reading) -> tuple[str, str]:
    others = [c for c in columns if c != "t_s"]
    if how.column and how.column not in others:
        raise Invalid("trace_column", f"{_short(name)} has no column {how.column[:60]!r}.", f"Its columns are {_names(columns)}.")
    if how.shape == "requests" or (not how.shape and not how.column and (not others or PER_JOB & set(others))):
        return "requests", "service_s"
    if how.column:
        return how.shape or ("counts" if how.column == "n" else "rates"), how.column
    if how.shape != "rates" and "n" in others:
        return "counts", "n"
    rates = [c for c in RATES if c in others] or (others if len(others) == 1 else [])
    if how.shape != "counts" and rates:
        return "rates", rates[0]
    raise Invalid(
        "trace_column",
        f"{_short(name)} does not say what its rows are: the columns are {_names(columns)}.",
        "Name the column of rates or counts with --column, or say --shape requests when each row is one job.",
    )


def _counted(table: Sequence[Floats], random: np.random.Generator) -> Floats:
    times, counts = table
    if np.any(counts != np.floor(counts)):
        row = int(np.argmax(counts != np.floor(counts)))
        raise Invalid("trace_number", f"Line {row + 2}: {counts[row]:g} is no whole number of jobs.", "If the column holds rates, say --shape rates.")
    _few(float(counts.sum()))
    arrivals = np.repeat(times, counts.astype(np.int64))
    return np.sort(arrivals + random.random(len(arrivals)))


def _rated(table: Sequence[Floats], random: np.random.Generator, scale: float) -> Floats:
    times, rates = table
    if len(times) < 2:
        raise Invalid("trace_short", "A trace of rates needs two rows at least.", "Its step is the usual distance of its rows.")
    gaps = np.diff(times)
    step = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.0
    lasts = np.minimum(np.append(gaps, step), step)
    expected = rates * scale * lasts
    _few(float(expected.sum()))
    counts = random.poisson(expected)
    starts, lengths = np.repeat(times, counts), np.repeat(lasts, counts)
    return np.sort(starts + lengths * random.random(len(starts)))


def _drawn(arrivals: Floats, how: Reading, random: np.random.Generator, shape: str) -> Floats:
    """A service time for each arrival."""
    if how.sample is not None:
        pool, at = how.sample.service, how.sample.at
        if at is None:
            return random.choice(pool, len(arrivals))
        near = np.searchsorted(at, arrivals) + random.integers(-NEAR, NEAR + 1, len(arrivals))
        return pool[np.clip(near, 0, len(pool) - 1)]
    if how.mean_s is None:
        raise Invalid("service_unknown", "The trace does not say how long a job takes.", "Give --service-sample FILE or --service-mean SECONDS.")
    if how.cv2 <= 0 or how.mean_s <= 0:
        return np.full(len(arrivals), max(0.0, how.mean_s))
    spread = math.log1p(how.cv2)
    return random.lognormal(math.log(how.mean_s) - spread / 2, math.sqrt(spread), len(arrivals))


def _numbers(name: str, columns: Sequence[str], wanted: Sequence[str]) -> list[Floats]:
    """The wanted columns. Every value is a number not below zero."""
    places = [columns.index(c) for c in wanted]
    found: list[list[float]] = [[] for _ in places]
    with _open(name) as stream:
        rows = _rows(name, stream)
        next(rows)
        line = 1
        for line, row in enumerate(rows, start=2):
            if not row:
                continue
            if line > MAX_ROWS + 1:
                raise Invalid("trace_long", f"{_short(name)} has more than {MAX_ROWS:,} rows.", "Cut it, or count the jobs by the second.")
            try:
                for values, place in zip(found, places, strict=True):
                    values.append(float(row[place]))
            except (ValueError, IndexError):
                said = row[place][:40] if place < len(row) else ""
                raise Invalid(
                    "trace_number", f"Line {line}: {said!r} in column {columns[place]} is no number.", "Every row needs one.", details={"line": line}
                ) from None
    arrays = [np.asarray(values, dtype=np.float64) for values in found]
    if not len(arrays[0]):
        raise Invalid("trace_empty", f"{_short(name)} has no rows.", "It needs a header and at least one row.")
    for column, array in zip(wanted, arrays, strict=True):
        wrong = ~np.isfinite(array) | (array < 0) | (array > 1e12)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise Invalid(
                "trace_number",
                f"Row {first + 1} after the header: {array[first]:g} in column {column} is not a number from 0 up.",
                "Times, counts and rates are never negative.",
                details={"row": first + 1},
            )
    return arrays


def _columns(name: str) -> list[str]:
    with _open(name) as stream:
        header = next(_rows(name, stream), None)
    if not header:
        raise Invalid("trace_empty", f"{_short(name)} is empty.", "It needs a header such as t_s,service_s and at least one row.")
    return [c.strip() for c in header]


def _rows(name: str, stream: io.TextIOBase) -> Iterator[list[str]]:
    try:
        yield from csv.reader(stream)
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise Invalid("trace_unreadable", f"{_short(name)} is not a CSV file: {str(error)[:120]}.", "Plain text or gzip, comma separated, UTF-8.") from None


_piped: bytes | None = None


@contextmanager
def _open(name: str) -> Iterator[io.TextIOBase]:
    """The file as text. Standard input is kept, since a trace is looked at twice."""
    global _piped
    try:
        if name == "-":
            if _piped is None:
                _piped = sys.stdin.buffer.read(MAX_ROWS * 64)
            raw: IO[bytes] = io.BytesIO(_piped)
        else:
            raw = Path(name).open("rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_unreadable", f"Cannot read {_short(name)}: {reason}.", "Check the path.") from None
    try:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        inner: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        with io.TextIOWrapper(inner, encoding="utf-8-sig", newline="") as text:
            yield text
    finally:
        raw.close()


def _sorted(name: str, times: Floats) -> None:
    back = np.diff(times) < 0
    if back.any():
        row = int(np.argmax(back)) + 2
        raise Invalid(
            "trace_unsorted",
            f"{_short(name)}: row {row} is earlier than the row before it ({times[row - 1]:g} s after {times[row - 2]:g} s).",
            "Sort it by t_s.",
            details={"row": row},
        )


def _few(jobs: float) -> None:
    if jobs > MAX_JOBS:
        raise Invalid(
            "trace_long", f"The trace holds about {jobs:,.0f} jobs; {MAX_JOBS:,} are the most.", "Cut it with --from and --until, or use --rate-scale."
        )


def _empty(start: float, end: float) -> tuple[float, float]:
    raise Invalid("trace_empty", f"Nothing lies from {start:g} s to {end:g} s.", "Check --from and --until.")


def _short(name: str) -> str:
    return "standard input" if name == "-" else Path(name).name[:120]


def _names(columns: Sequence[str]) -> str:
    return ", ".join(c[:40] for c in columns[:12]) or "none"
