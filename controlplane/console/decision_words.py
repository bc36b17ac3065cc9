"""How a scaling decision reads: what was done, from which figures, what came of it. Pure.

The figures are a stored `fleet.sizing.seen.Seen`; older rows hold less, and what is not there is not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.console import charts, numbers
from fleet.models import ScalingDecision, Worker

TAGS_SHOWN = 4


def inputs(d: ScalingDecision) -> Mapping[str, Any]:
    return d.inputs if isinstance(d.inputs, dict) else {}


def number(seen: Mapping[str, Any], name: str) -> float | None:
    """A figure, when it is there and is one."""
    value = seen.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def live(seen: Mapping[str, Any]) -> int | None:
    """Workers ready or coming when it was decided."""
    ready = number(seen, "ready")
    if ready is None:
        return None
    return int(ready) + len(listed(seen, "coming_s"))


def seconds(seen: Mapping[str, Any], name: str) -> list[float]:
    """Figures of a list, those that are some."""
    return [float(s) for s in listed(seen, name) if isinstance(s, int | float) and not isinstance(s, bool)]


def listed(seen: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = seen.get(name)
    return value if isinstance(value, list) else []


def title(d: ScalingDecision) -> str:
    """+3 to 13, −1 to 12, Hold at 12, Held back, Limited, Halted."""
    before = live(inputs(d))
    if d.action == "halted":
        return "Halted"
    if d.action == "image":
        return "Image changed"
    if d.applied:
        after = f" to {before + d.applied:,}" if before is not None else f" worker{'' if abs(d.applied) == 1 else 's'}"
        return f"{charts.signed(d.applied)}{after}"
    if d.bound:
        return "Held back"
    return f"Hold at {before:,}" if before is not None else "Hold"


def icon(d: ScalingDecision) -> str:
    """up, down, halted, lock or pause."""
    if d.action in ("up", "down") and d.applied:
        return d.action
    return "halted" if d.action == "halted" else "lock" if d.bound else "pause"


def limit(d: ScalingDecision) -> str:
    """What stood in the way, as a sentence; empty when nothing did."""
    if not d.bound or d.applied == d.wanted:
        return ""
    return f"Wanted {charts.signed(d.wanted)}, held by: {d.bound}."


def tags(d: ScalingDecision) -> list[str]:
    """The figures it rested on, short, the telling ones first."""
    seen, found = inputs(d), []
    queue, ready, busy = (number(seen, name) for name in ("queue", "ready", "busy"))
    if queue is not None:
        found.append(f"queue {queue:,.0f}")
    if ready and busy is not None:
        found.append(f"busy {numbers.pct(busy / ready)}")
    if coming := listed(seen, "coming_s"):
        found.append(f"coming {len(coming)}")
    if d.action == "down" and (idle := listed(seen, "idle_s")):
        found.append(f"idle {len(idle)}")
    work, oldest = offered(seen), number(seen, "oldest_wait_s")
    if oldest and oldest >= 1:
        found.append(f"waits {numbers.dur(oldest)}")
    if work is not None and work >= 0.05:
        found.append(f"work {work:.1f}")
    if isinstance(seen.get("workers"), list):  # rows of the first rule
        states = [w.get("state") for w in seen["workers"] if isinstance(w, dict)]
        found += [f"{name} {states.count(name)}" for name in ("busy", "idle", "starting") if states.count(name)]
    if failures := number(seen, "start_failures"):
        found.append(f"failed starts {failures:.0f}")
    return found[:TAGS_SHOWN]


def offered(seen: Mapping[str, Any]) -> float | None:
    """Workers' worth of work that arrives: jobs a second over five minutes, times what a job takes."""
    rate, job = number(seen, "rate_5m"), seen.get("job")
    mean = number(job, "mean_s") if isinstance(job, dict) else None
    return None if rate is None or mean is None else rate * mean


def effect(d: ScalingDecision) -> tuple[str, str]:
    """What it does to the cost an hour, and how that is coloured."""
    change = d.cost_change_microusd
    if change > 0:
        return f"+{numbers.usd(change)}/h", "muted"
    if change < 0:
        return f"saves {numbers.usd(-change)}/h", "ok"
    seen = inputs(d)
    price = number(seen, "price_per_hour_microusd")
    if d.bound and d.wanted and price:  # what was held back has a price as well
        held = (d.wanted - d.applied) * int(price)
        return (f"avoids {numbers.usd(held)}/h", "muted") if held > 0 else (f"costs {numbers.usd(-held)}/h", "muted")
    return "none", "muted"


def came_of(d: ScalingDecision, workers: Sequence[Worker]) -> str:
    """What the workers of a pool say came of it: ready in so long, left after so long. Empty when they say nothing."""
    if d.action == "up" and d.applied > 0:
        mine = [w for w in workers if w.ordered_at == d.at]
        if not mine:
            return ""
        ready = [(w.ready_at - w.ordered_at).total_seconds() for w in mine if w.ready_at is not None]
        failed = sum(1 for w in mine if w.ready_at is None and w.stopped_at is not None)
        coming = len(mine) - len(ready) - failed
        said = [f"Ready in {numbers.dur(max(ready), tile=True)}"] if ready and not coming and not failed else []
        if ready and not said:
            said.append(f"{len(ready)} ready")
        said += [f"{coming} starting"] if coming else []
        said += [f"{failed} did not start"] if failed else []
        return ", ".join(said)
    if d.action == "down" and d.applied < 0:
        mine = [w for w in workers if w.drain_asked_at == d.at]
        gone = [(w.stopped_at - d.at).total_seconds() for w in mine if w.stopped_at is not None]
        if mine and len(gone) == len(mine):
            return f"Left in {numbers.dur(max(gone), tile=True)}"
        return f"{len(mine) - len(gone)} leaving" if mine else ""
    return ""


@dataclass(frozen=True, slots=True)
class Row:
    """A decision with its words for a table."""

    d: ScalingDecision
    outcome: str = ""
    since: datetime | None = None
    """When the first of several in a row began that held back for the same reason; they are one line."""
    among: int = 1

    @property
    def until(self) -> datetime | None:
        """The end of a stretch, where it is one."""
        return self.d.last_seen_at if self.d.repeats > 1 or self.among > 1 else None

    @property
    def at(self) -> datetime:
        return self.since or self.d.at

    @property
    def words(self) -> str:
        return title(self.d)

    @property
    def icon(self) -> str:
        return icon(self.d)

    @property
    def limit(self) -> str:
        return limit(self.d)

    @property
    def tags(self) -> list[str]:
        return tags(self.d)

    @property
    def effect(self) -> tuple[str, str]:
        return effect(self.d)


def same_stretch(later: ScalingDecision, d: ScalingDecision) -> bool:
    """Whether two neighbours differ only in how much was wanted: a person reads them as one."""
    return bool(d.bound) and not d.applied and not later.applied and (d.action, d.bound, d.policy) == (later.action, later.bound, later.policy)


def row(d: ScalingDecision, workers: Sequence[Worker]) -> Row:
    """Its own words for what came of it, completed by what its workers did since."""
    after = came_of(d, workers)
    said = d.outcome or ("" if after else "No change")
    return Row(d, f"{after}. {said}" if after and d.outcome else after or said)
