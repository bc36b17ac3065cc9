"""Which figures of growth can be worked with, and which mean nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from controlplane.kernel.errors import Invalid

if TYPE_CHECKING:
    from fleet.planning.growth import Case, Option

MOST_MONTHS = 60


def check(case: Case, options: Sequence[Option]) -> None:
    """Raise Invalid, naming the figure."""
    figures = {
        "workers": (case.workers, 0.01, 1e6),
        "average": (case.average, 0, 10),
        "peak": (case.peak, 0, 100),
        "new_customers": (case.new_customers, -0.99, 100),
        "monthly": (case.monthly, -0.99, 10),
        "jobs_a_month": (case.jobs_a_month, 0, 1e12),
        "job_s": (case.job_s, 0.001, 1e6),
    }
    for name, (value, least, most) in figures.items():
        if not math.isfinite(value) or not least <= value <= most:
            raise Invalid("growth_invalid", f"{name} must lie between {least:g} and {most:g}, not {value:g}.", "Correct the figure.", details={"field": name})
    if case.peak < case.average:
        raise Invalid("growth_invalid", "The peak cannot be below the average.", "Correct one of them.", details={"field": "peak"})
    if not 0 <= case.months <= MOST_MONTHS:
        raise Invalid("growth_invalid", f"A plan looks 0 to {MOST_MONTHS} months ahead.", "Choose fewer months.", details={"field": "months"})
    if case.monthly_microusd < 0:
        raise Invalid("growth_invalid", "The monthly bill cannot be negative.", "Correct the figure.", details={"field": "monthly_microusd"})
    if not options or len(options) > 12:
        raise Invalid("growth_invalid", "A plan compares one to twelve options.", "Name an option.", details={"field": "options"})
    for option in options:
        if not 0.01 <= option.work <= 10 or not 0 <= option.workers <= 1e6 or option.monthly_microusd < 0 or option.once_microusd < 0:
            raise Invalid(
                "growth_invalid",
                f"{option.name or 'An option'} has figures that are not possible.",
                "Workers and money are 0 or more; work is a share of today's.",
                details={"field": "options"},
            )
    if len({option.name for option in options}) != len(options):
        raise Invalid("growth_invalid", "Two options have the same name.", "Name them apart.", details={"field": "options"})
