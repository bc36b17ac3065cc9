"""Growth cases with a name. The one of month six is told in the seed chapter; what it leaves open is assumed, and said to be. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.planning.growth import Case, Option


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure somebody stated, and the one that follows from the others."""

    what: str
    stated: str
    worked_out: str
    holds: bool | None
    """None: it was not stated."""
    why: str


@dataclass(frozen=True, slots=True)
class Preset:
    """A case, its options, and what is to be said of the figures it came with."""

    name: str
    title: str
    case: Case
    options: tuple[Option, ...]
    assumed: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


_NODES, _NODE_MICROUSD, _JOB_MICROUSD = 8, 300_000_000, 230_000
_BILL = _NODES * _NODE_MICROUSD
_JOBS = _BILL / _JOB_MICROUSD
_BUSINESS_S = 22 * 10 * 3600
"""Working days of ten hours in a month."""

SEED_MONTH_6 = Preset(
    name="seed-month-6",
    title="TechFlow, month 6",
    case=Case(
        workers=_NODES,
        average=0.75,
        peak=0.95,
        monthly_microusd=_BILL,
        jobs_a_month=_JOBS,
        new_customers=0.40,
        monthly=0.15,
        months=3,
        target_job_microusd=150_000,
        job_s=_NODES * 0.75 * _BUSINESS_S / _JOBS,
        cv2=1.0,
        target_s=60.0,
    ),
    options=(
        Option("Vertical", "vertical", 800_000_000, workers=8 / 3, assumed="A third more capacity for a third more money."),
        Option("Horizontal", "horizontal", 1_200_000_000, workers=4, assumed="Four more nodes at $300."),
        Option("Hybrid", "hybrid", 600_000_000, workers=2, work=0.70, assumed="Two more nodes at $300; jobs need 30% less work, as their cost falls by that."),
    ),
    assumed=(
        "Eight nodes, the chapter's maximum; it does not say how many ran.",
        "$300 a node and month: its two further nodes for $600.",
        "So the bill is $2,400 a month, 10,435 workflows at $0.23, and about 7.6 minutes of a node each in 220 business hours.",
    ),
    claims=(
        Claim("Load with the new customers", "not stated", "105%", None, "75% × 1.4: full on the first day, before any growth."),
        Claim(
            "Load projected", "160%", "159.7%", True, "75% × 1.4 × 1.15³: it holds after three months, which the chapter does not say; six make it 242.9%."
        ),
        Claim("Peak with the new customers", "not stated", "133%", None, "95% × 1.4: today's peaks grow as well."),
        Claim("Cost per workflow with −30%", "$0.15 (target)", "$0.161", False, "$0.23 × 0.7; the target takes −34.8%."),
    ),
)  # fmt: skip

PRESETS: dict[str, Preset] = {SEED_MONTH_6.name: SEED_MONTH_6}
