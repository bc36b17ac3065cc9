"""Sizing policies and their knobs in plain words, and what differs between two revisions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.console import numbers
from fleet.models import PolicyRevision, Pool
from fleet.sizing import policies

POLICIES = {
    "wait-target": (
        "Wait target",
        "Measures how long jobs really take and workers take to start, and keeps the fewest workers with which the wait stays within its target.",
    ),
    "request-count": ("Jobs per worker", "So many jobs, waiting or running, for each worker. Simple and steady; knows nothing of how long jobs take."),
    "threshold": ("Threshold", "One worker more while the queue is longer than a share of the workers, one fewer when a worker was idle for long."),
}
KNOBS: dict[str, tuple[str, str]] = {
    # knob: label, hint
    "aim": ("Late jobs to make use of", "Share of the late jobs its target allows. Less is dearer and safer."),
    "spare": ("Spare workers", "Kept beyond what is worked out."),
    "window_s": ("Past arrivals believed, seconds", "60 follows demand closely, 300 is steadier, 3600 hardly moves."),
    "hold_s": ("Lower need before leaving, seconds", "So long fewer must have been enough before workers leave. 0: about what another start would cost."),
    "learn": ("Learn from late jobs", "1: late jobs make it more careful, and their absence less. 0: they do not."),
    "queue_per_worker": ("Waiting jobs per worker", "More than this many orders one more worker."),
    "per_worker": ("Jobs per worker", "Waiting and running jobs that one worker should have."),
    "idle_s": ("Idle before leaving, seconds", "A worker with nothing to do for this long may leave."),
}
TERMS = {
    "base": "Minimum workers",
    "max": "Maximum workers",
    "policy": "Policy",
    "knobs": "Knobs",
    "shadows": "In shadow",
    "target_s": "Wait target",
    "target_share": "Share within the target",
    "forecast_floor": "Forecast moves the floor",
    "forecast_base": "Forecast may lower the minimum to",
    "budget_per_hour_microusd": "Budget an hour",
    "budget_per_day_microusd": "Budget a day",
    "on_demand_share": "On demand above the minimum",
    "price_per_hour_microusd": "Cost of one worker an hour",
    "image": "Image",
    "settings": "Provider settings",
    "start_s": "Startup budget",
}
MONEY = ("budget_per_hour_microusd", "budget_per_day_microusd", "price_per_hour_microusd")
LONGEST_VALUE = 200


def name_of(policy: str) -> str:
    return POLICIES.get(policy, (policy, ""))[0]


def knob_label(knob: str) -> str:
    if knob in KNOBS:
        return KNOBS[knob][0]
    seconds = knob.endswith("_s")
    return (knob[:-2] if seconds else knob).replace("_", " ").capitalize() + (", seconds" if seconds else "")


def knob_hint(knob: str) -> str:
    return KNOBS.get(knob, ("", ""))[1]


@dataclass(frozen=True, slots=True)
class Knob:
    """A knob as a form shows it."""

    name: str
    field: str
    label: str
    hint: str
    usual: float


def knobs_of(policy: str) -> list[Knob]:
    """The knobs of a policy, for its fields. The field's name says the policy too: two may share a knob."""
    found = []
    for knob, usual in policies.defaults(policy).items():
        hint = f"{knob_hint(knob)} Usually {usual:g}.".strip()
        found.append(Knob(knob, f"{policy}.{knob}", knob_label(knob), hint, usual))
    return found


def said(term: str, value: Any, *, money: bool = True) -> str:
    """A term's value in words."""
    if value is None:
        return "none"
    if term in MONEY:
        return numbers.usd(value) if money else "hidden"
    if term in ("target_s", "start_s"):
        return numbers.dur(value)
    if term in ("target_share", "on_demand_share"):
        return f"{value * 100:g}%"
    if term == "policy":
        return name_of(str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if term == "knobs":
        return ", ".join(f"{knob_label(k)} {v:g}" for k, v in value.items()) if isinstance(value, dict) and value else "the usual ones"
    if term == "shadows":
        return ", ".join(name_of(str(s.get("policy"))) for s in value if isinstance(s, dict)) or "none" if isinstance(value, list) else "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in sorted(value.items()))[:LONGEST_VALUE] or "none"
    if isinstance(value, int | float):
        return numbers.count(value)
    return str(value)[:LONGEST_VALUE] or "none"


def card(pool: Pool, *, money: bool) -> list[tuple[str, str]]:
    """The pool's rule, for its card."""
    found = [
        ("Minimum, maximum", f"{pool.base:,}, {pool.max:,}"),
        ("Policy", name_of(pool.policy)),
        ("Wait target", f"{pool.target_share * 100:g}% within {numbers.dur(pool.target_s)}"),
    ]
    usual = policies.defaults(pool.policy) if pool.policy in policies.POLICIES else {}
    given = pool.knobs if isinstance(pool.knobs, dict) else {}
    found += [(knob_label(k), f"{given.get(k, v):g}" + ("" if k not in given else " (own)")) for k, v in usual.items()][:6]
    floor = "follows the forecast" if pool.forecast_floor else "the minimum only"
    if pool.forecast_floor and pool.forecast_base is not None:
        floor += f", down to {pool.forecast_base:,}"
    found.append(("Floor", floor))
    if money:
        budget = [
            f"{numbers.usd(v)} {per}" for v, per in ((pool.budget_per_hour_microusd, "an hour"), (pool.budget_per_day_microusd, "a day")) if v is not None
        ]
        found.append(("Budget", ", ".join(budget) or "no limit"))
    if pool.on_demand_share < 1:
        found.append(("On demand above the minimum", numbers.pct(pool.on_demand_share)))
    if pool.shadows:
        found.append(("In shadow", said("shadows", pool.shadows)))
    found.append(("Workers are", pool.get_provider_display()))
    if pool.image:
        found.append(("Image", pool.image if len(pool.image) <= 48 else f"{pool.image[:20]}…{pool.image[-24:]}"))
    return found


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision and what it changed."""

    row: PolicyRevision
    changes: list[tuple[str, str, str]]
    """(term, before, after)"""
    current: bool = False

    @property
    def at(self) -> datetime:
        return self.row.created_at


def diff(before: Mapping[str, Any], after: Mapping[str, Any], *, money: bool) -> list[tuple[str, str, str]]:
    """Terms that differ, in words. Terms a revision older than they are does not hold are not compared."""
    found = []
    for term, label in TERMS.items():
        if term in before and term in after and before[term] != after[term]:
            found.append((label, said(term, before[term], money=money), said(term, after[term], money=money)))
    return found


def revisions(rows: list[PolicyRevision], *, money: bool) -> list[Revision]:
    """Newest first, each with what it changed against the one before; the last one read has nothing to compare with."""
    found = []
    for i, row in enumerate(rows):
        older = rows[i + 1].terms if i + 1 < len(rows) else {}
        found.append(Revision(row, diff(older, row.terms, money=money), current=i == 0))
    return found
