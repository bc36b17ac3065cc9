"""Measures as they would be taken: every row checked, none saved. What a preview shows and what is then done come from the same row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from builds.models import Workflow
from controlplane.kernel.errors import Invalid
from fleet import fast_terms
from fleet.models import EmergencyAction, Job, Pool
from fleet.pools import MOST_WORKERS

Kind = EmergencyAction.Kind
LONGEST = timedelta(days=7)
SHORTEST = timedelta(seconds=30)
LONGEST_OVERFLOW_S = 86_400.0
CLASSES = {"normal": Job.Priority.NORMAL, "low": Job.Priority.LOW}
"""Classes that may be paused or shed. High stays, or nothing is left that a person would call urgent."""


def raised(pool: Pool, *, base: int | None, maximum: int | None, expires_at: datetime, now: datetime) -> EmergencyAction:
    """Keep at least `base` workers and allow `maximum`; what is not named stays the pool's own."""
    least, most = pool.base if base is None else base, pool.max if maximum is None else maximum
    if any(type(n) is not int or not 0 <= n <= MOST_WORKERS for n in (least, most)):
        raise Invalid(
            "raise_invalid", f"{least} to {most} workers are not possible.", f"Use whole numbers from 0 to {MOST_WORKERS:,}.", details={"field": "max"}
        )
    if most < least:
        raise Invalid("raise_invalid", f"A maximum of {most} is below {least} workers kept.", "Raise the maximum too, or keep fewer.", details={"field": "max"})
    if least <= pool.base and most <= pool.max:
        raise Invalid(
            "raise_changes_nothing",
            f"{pool.slug} already keeps {pool.base} and may have {pool.max}.",
            "Name a higher number; to lower its size, edit its policy.",
            details={"field": "max"},
        )
    check_end(expires_at, now)
    return EmergencyAction(kind=Kind.RAISE, pool=pool, base=max(least, pool.base), max=max(most, pool.max), starts_at=now, expires_at=expires_at)


def fast(
    workflow: Workflow,
    *,
    version: int | None,
    overrides: Mapping[str, Any] | None,
    force: Collection[str],
    overflow_s: float,
    include_waiting: bool,
    expires_at: datetime,
    now: datetime,
) -> EmergencyAction:
    """Run overflow of `workflow` as `version`, or with these inputs."""
    pool, cheaper, values = fast_terms.checked(workflow, version=version, overrides=overrides or {}, force=force)
    check_overflow(overflow_s)
    check_end(expires_at, now)
    return EmergencyAction(
        kind=Kind.FAST,
        pool=pool,
        workflow=workflow,
        version=cheaper,
        overrides=values,
        terms={"force": sorted(force), "waiting": bool(include_waiting)},
        overflow_s=float(overflow_s),
        starts_at=now,
        expires_at=expires_at,
    )


def paused(pool: Pool, *, priority: str, expires_at: datetime, now: datetime) -> EmergencyAction:
    """Serve no jobs of this class and those behind it."""
    check_end(expires_at, now)
    return EmergencyAction(kind=Kind.PAUSE_CLASS, pool=pool, priority=rank_of(priority), starts_at=now, expires_at=expires_at)


def shedding(pool: Pool, *, priority: str, overflow_s: float, expires_at: datetime, now: datetime) -> EmergencyAction:
    """Turn new jobs of this class and those behind it away while they would wait longer than `overflow_s`."""
    check_overflow(overflow_s)
    check_end(expires_at, now)
    return EmergencyAction(kind=Kind.SHED, pool=pool, priority=rank_of(priority), overflow_s=float(overflow_s), starts_at=now, expires_at=expires_at)


def rank_of(priority: str) -> int:
    """The rank of a class that may be paused or shed; raises Invalid."""
    if priority == "high":
        raise Invalid("class_protected", "Jobs of priority high are always served.", "Choose normal or low.", details={"field": "priority"})
    if priority not in CLASSES:
        raise Invalid("class_unknown", f"There is no class {str(priority)[:40]!r}.", "Choose normal or low.", details={"field": "priority"})
    return int(CLASSES[priority])


def expiry(*, for_s: float | None = None, until: datetime | None = None, now: datetime) -> datetime:
    """The end of a measure said as a length or as a moment; raises Invalid when it is not exactly one of them, or not within seven days."""
    if (for_s is None) == (until is None):
        raise Invalid("expiry_missing", "A measure needs an end.", "Say how long it lasts, or until when; not both.", details={"field": "for_s"})
    if until is None:
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= LONGEST.total_seconds():
            raise _wrong_end()
        until = now + timedelta(seconds=for_s)
    check_end(until, now)
    return until


def check_end(expires_at: datetime, now: datetime) -> None:
    """Raise Invalid unless a measure may end then."""
    if not now + SHORTEST <= expires_at <= now + LONGEST:
        raise _wrong_end()


def _wrong_end() -> Invalid:
    return Invalid(
        "expiry_invalid", "A measure ends in the future, half a minute to seven days from now.", "Choose another end.", details={"field": "expires_at"}
    )


def check_overflow(overflow_s: object) -> None:
    """Raise Invalid for what is no wait."""
    if isinstance(overflow_s, bool) or not isinstance(overflow_s, int | float) or not 1 <= overflow_s <= LONGEST_OVERFLOW_S:
        raise Invalid(
            "overflow_invalid",
            "The wait from which jobs count as overflow lies between 1 and 86,400 seconds.",
            "Ten minutes are 600.",
            details={"field": "overflow_s"},
        )
