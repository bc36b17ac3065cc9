"""What was asked of the planner, read from the address: growth figures, terms to try, a batch. Says what is wrong beside each field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from builds.models import Channel, Version, Workflow
from controlplane.console import ranges
from controlplane.kernel import money
from fleet.models import Pool
from fleet.planning.growth import Case, Option
from fleet.planning.presets import Preset

LETTER = {"vertical": "v", "horizontal": "h", "hybrid": "y"}
FIELD_OF = {
    "max": "maximum",
    "policy": "policy",
    "base": "base",
    "maximum": "maximum",
    "target_s": "target_s",
    "target_share": "target_share",
    "hours": "hours",
}


@dataclass(slots=True)
class Typed:
    """The query as typed, and what is wrong, by field."""

    query: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, str]:
        return {name: self.text(name) for name in self.query}

    def text(self, name: str) -> str:
        return str(self.query.get(name, "")).replace("\x00", "").strip()[:200]

    def number(self, name: str, default: float, *, least: float = 0.0, most: float = 1e12, whole: bool = False) -> float:
        """The number in a field, or `default` when it is empty or wrong."""
        text = self.text(name).replace(",", "").lstrip("$").rstrip("%").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not least <= value <= most or (whole and not value.is_integer()):
            self.errors[name] = f"{'A whole number' if whole else 'A number'} from {least:g} to {most:g}."
            return default
        return value

    def dollars(self, name: str, default: int | None) -> int | None:
        """Micro-dollars of a field of dollars."""
        text = self.text(name).replace(",", "").lstrip("$")
        if not text:
            return default
        try:
            value = money.from_usd(text)
        except ValueError:
            value = -1
        if not 0 <= value <= 10**15:
            self.errors[name] = "Dollars, such as 800 or 0.15."
            return default
        return value


def growth(typed: Typed, preset: Preset) -> tuple[Case, tuple[Option, ...]]:
    """The preset with what was typed over it."""
    was = preset.case
    case = replace(
        was,
        workers=typed.number("workers", was.workers, least=0.01, most=1e6),
        average=typed.number("average", was.average * 100, most=1000) / 100,
        peak=typed.number("peak", was.peak * 100, most=10_000) / 100,
        new_customers=typed.number("new", was.new_customers * 100, least=-99, most=10_000) / 100,
        monthly=typed.number("monthly", was.monthly * 100, least=-99, most=1000) / 100,
        months=int(typed.number("months", was.months, most=60, whole=True)),
        monthly_microusd=typed.dollars("bill", was.monthly_microusd) or 0,
        jobs_a_month=typed.number("jobs", was.jobs_a_month),
        target_job_microusd=typed.dollars("target", was.target_job_microusd),
    )
    options = []
    for option in preset.options:
        at = LETTER[option.kind]
        options.append(
            replace(
                option,
                monthly_microusd=typed.dollars(f"{at}_usd", option.monthly_microusd) or 0,
                workers=typed.number(f"{at}_workers", option.workers, most=1e6),
                work=1 - typed.number(f"{at}_gain", (1 - option.work) * 100, most=99) / 100,
                once_microusd=typed.dollars(f"{at}_once", option.once_microusd) or 0,
            )
        )
    return case, tuple(options)


def growth_fields(case: Case, options: tuple[Option, ...], typed: Typed) -> dict[str, Any]:
    """What the fields show: as typed, else the figures used."""

    def shown(name: str, value: float | int | None) -> str:
        return typed.text(name) if name in typed.errors else "" if value is None else f"{value:,.6f}".rstrip("0").rstrip(".")

    def usd(name: str, value: int | None) -> str:
        return typed.text(name) if name in typed.errors else "" if value is None else money.to_usd(value)

    return {
        "workers": shown("workers", case.workers),
        "average": shown("average", round(case.average * 100, 2)),
        "peak": shown("peak", round(case.peak * 100, 2)),
        "new": shown("new", round(case.new_customers * 100, 2)),
        "monthly": shown("monthly", round(case.monthly * 100, 2)),
        "months": shown("months", case.months),
        "bill": usd("bill", case.monthly_microusd),
        "jobs": shown("jobs", round(case.jobs_a_month)),
        "target": usd("target", case.target_job_microusd),
        "options": [
            {
                "name": option.name,
                "assumed": option.assumed,
                "letter": (at := LETTER[option.kind]),
                "usd": usd(f"{at}_usd", option.monthly_microusd),
                "workers": shown(f"{at}_workers", round(option.workers, 2)),
                "gain": shown(f"{at}_gain", round((1 - option.work) * 100, 2)),
                "once": usd(f"{at}_once", option.once_microusd),
                "errors": [typed.errors[name] for name in (f"{at}_usd", f"{at}_workers", f"{at}_gain", f"{at}_once") if name in typed.errors],
            }
            for option in options
        ],
    }


def terms(typed: Typed, pool: Pool) -> tuple[dict[str, Any], float]:
    """What is tried on the pool, and over how many hours. What was left empty stays as it is."""
    changes: dict[str, Any] = {}
    for name, term in (("base", "base"), ("maximum", "max")):
        if typed.text(name):
            changes[term] = int(typed.number(name, getattr(pool, term), most=1000, whole=True))
    if typed.text("target_s"):
        changes["target_s"] = typed.number("target_s", pool.target_s, least=1, most=86_400)
    if typed.text("target_share"):
        changes["target_share"] = typed.number("target_share", pool.target_share * 100, least=50, most=99.9) / 100
    if policy := typed.text("policy"):
        changes["policy"] = policy
    knobs: dict[str, float] | None = {} if changes.get("policy", pool.policy) != pool.policy else None
    if text := typed.text("knobs"):
        knobs = {}
        for part in text.replace(";", ",").split(","):
            name, _, value = part.partition("=")
            try:
                knobs[name.strip()] = float(value)
            except ValueError:
                typed.errors["knobs"] = f"“{part.strip()[:40]}” is no knob. Write idle_s=120, and commas between several."
    if knobs is not None:
        changes["knobs"] = knobs
    return changes, typed.number("hours", 24, least=1, most=168)


def terms_fields(pool: Pool, typed: Typed) -> dict[str, Any]:
    """What the fields show."""
    return {
        "policy": typed.text("policy") or pool.policy,
        "base": typed.text("base") or pool.base,
        "maximum": typed.text("maximum") or pool.max,
        "target_s": typed.text("target_s") or f"{pool.target_s:g}",
        "target_share": typed.text("target_share") or f"{pool.target_share * 100:g}",
        "knobs": typed.text("knobs") or (", ".join(f"{k}={v:g}" for k, v in pool.knobs.items()) if not typed.text("policy") else ""),
        "hours": typed.text("hours") or "24",
    }


def batch(typed: Typed, pool: Pool, *, now: datetime) -> tuple[int | None, datetime | None, Workflow | None]:
    """Jobs, start and workflow of a batch that is asked about."""
    jobs = int(typed.number("jobs", 0, least=1, most=100_000, whole=True)) if typed.text("jobs") else None
    if "ask" in typed.query and jobs is None:
        typed.errors.setdefault("jobs", "How many jobs?")
    workflow = None
    if slug := typed.text("workflow"):
        workflow = Workflow.objects.filter(slug=slug, pool_slug=pool.slug).first()
        if workflow is None:
            typed.errors["workflow"] = "This pool serves no such workflow."
    return jobs, moment(typed, "starts_at", now=now), workflow


def moment(typed: Typed, name: str, *, now: datetime) -> datetime | None:
    """A time as people write it; None when nothing was written."""
    text = typed.text(name)
    if not text:
        return None
    found = ranges.moment(text, now=now)
    if found is None:
        typed.errors[name] = "A time such as 2026-11-27 06:00, in UTC."
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def live(workflow: Workflow | None) -> Version | None:
    """The version in production of a workflow that was named."""
    if workflow is None:
        return None
    channel = Channel.objects.select_related("version").filter(workflow=workflow, name=Channel.Name.PRODUCTION).first()
    return channel.version if channel else None
