"""Two plays of the same arrivals side by side, and the difference in a sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.kernel import money
from fleet.planning.playing import History, Terms

if TYPE_CHECKING:
    from fleet.simulation import Outcome

UNLIKE = 0.0005
"""Shares nearer than this are the same to a reader."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one play came to. `within` is against the target of the newer terms on both sides."""

    gpu_hours: float
    cost_microusd: int
    within: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    ups: int
    downs: int
    launches: int
    peak: int
    unserved: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: round(value, 4) if isinstance(value := getattr(self, name), float) else value for name in Side.__slots__}


@dataclass(frozen=True, slots=True)
class Replay:
    """The terms in force against changed ones, on the same arrivals."""

    before: Side
    after: Side
    hours: float
    jobs: int
    target_s: float
    target_share: float
    notes: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def saved_microusd(self) -> int:
        """Negative when the change costs more."""
        return self.before.cost_microusd - self.after.cost_microusd

    @property
    def meets_target(self) -> bool:
        return self.after.within >= self.target_share - 1e-9

    def said(self, *, money_shown: bool = True) -> str:
        """The difference in a sentence."""
        if not self.jobs and self.before.cost_microusd == self.after.cost_microusd and _same(self.before.gpu_hours, self.after.gpu_hours):
            return f"No job came in these {self.hours:g} hours, and it would have made no difference."
        if money_shown and (self.before.cost_microusd or self.after.cost_microusd):
            had, would = money.display(self.before.cost_microusd), money.display(self.after.cost_microusd)
            spent = f"Would have cost {would}" + (", the same" if had == would else f" instead of {had}")
        else:
            spent = f"Would have used {self.after.gpu_hours:.1f} worker-hours" + (
                ", the same" if _same(self.before.gpu_hours, self.after.gpu_hours) else f" instead of {self.before.gpu_hours:.1f}"
            )
        if not self.jobs:
            return f"{spent}; no job came."
        same = abs(self.before.within - self.after.within) < UNLIKE
        waits = f"{_pct(self.after.within)} within {self.target_s:g} s" + (" as before" if same else f" instead of {_pct(self.before.within)}")
        lost = f" {self.after.unserved:,} jobs would not have started within a day." if self.after.unserved else ""
        return f"{spent}; {waits}.{lost}"

    def as_json(self, *, money_shown: bool = True) -> dict[str, Any]:
        """{before, after, hours, jobs, target_s, target_share, saved_microusd, meets_target, said, notes, took_s}."""
        sides = {"before": self.before.as_json(), "after": self.after.as_json()}
        if not money_shown:
            for side in sides.values():
                side.pop("cost_microusd")
        return {
            **sides,
            "hours": round(self.hours, 3),
            "jobs": self.jobs,
            "target_s": self.target_s,
            "target_share": self.target_share,
            **({"saved_microusd": self.saved_microusd} if money_shown else {}),
            "meets_target": self.meets_target,
            "said": self.said(money_shown=money_shown),
            "notes": list(self.notes),
            "took_s": round(self.took_s, 3),
        }


def compare(before: Outcome, after: Outcome, *, terms: Terms, history: History, took_s: float = 0.0) -> Replay:
    """`before` and `after` on `history`; `terms` are those of `after`."""
    return Replay(
        before=side(before, target_s=terms.target_s),
        after=side(after, target_s=terms.target_s),
        hours=history.seconds / 3600,
        jobs=history.jobs,
        target_s=terms.target_s,
        target_share=terms.target_share,
        notes=history.notes,
        took_s=took_s,
    )


def side(outcome: Outcome, *, target_s: float) -> Side:
    """The figures of one play."""
    return Side(
        gpu_hours=outcome.gpu_hours,
        cost_microusd=outcome.cost_microusd,
        within=outcome.within_s(target_s),
        wait_p50_s=outcome.wait_p50_s,
        wait_p95_s=outcome.wait_p95_s,
        wait_p99_s=outcome.wait_p99_s,
        ups=outcome.ups,
        downs=outcome.downs,
        launches=outcome.launches,
        peak=outcome.peak,
        unserved=outcome.unserved,
    )


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 0.05


def _pct(share: float) -> str:
    text = f"{share * 100:.1f}"
    if text == "100.0" and share < 1:
        text = "99.9"
    return f"{text.removesuffix('.0')}%"
