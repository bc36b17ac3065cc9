"""Choose a workflow for a task by what is known of each: measured speed, cost and success, capabilities its graph shows.

Pure and deterministic. A requirement is hard: what was never measured does not meet one, and nothing that misses one is
ever chosen. Requirements only take candidates away, so to loosen one never loses a match. Among those that fit, the
order is the caller's preference; ties end with the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from controlplane.kernel.errors import Invalid

QUALITIES = ("draft", "low", "medium", "standard", "high", "highest")
RELIABLE = 0.95
"""Share of good runs from which a workflow is preferred to every other below it."""
FARTHEST = 10.0
CAPABILITIES = {
    "face_consistency": ("face_consistency", "keeps a face"),
    "lora": ("lora_support", "takes a LoRA"),
    "negative_prompt": ("negative_prompt", "takes a negative prompt"),
    "image_input": ("image_input", "takes a picture"),
    "seed": ("seed", "takes a seed"),
}
NUMBERS = {"max_cost": inf, "max_seconds": inf, "min_success": 1.0}
REQUIREMENTS = (*NUMBERS, "min_quality", *CAPABILITIES)
PREFERENCES = ("quality", "cost", "speed")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a workflow in production. None means not measured, never zero; money is what this caller would pay."""

    workflow: str
    version: int
    task: str
    seconds: float | None = None  # 95% of the runs took at most this
    cost_usd: float | None = None
    success: float | None = None
    quality: str = ""
    capabilities: frozenset[str] = frozenset()
    source: str = ""  # jobs or smoke_runs: what seconds and cost rest on
    runs: int = 0
    accepts: bool = True  # the inputs that were sent, as they are


@dataclass(frozen=True, slots=True)
class Lack:
    """A requirement that is not met, with both figures."""

    requirement: str
    wanted: Any
    has: Any
    message: str
    gap: float = 1.0  # how far off: 0 is nearly there, FARTHEST the most

    def body(self) -> dict[str, Any]:
        return {"requirement": self.requirement, "wanted": self.wanted, "has": self.has, "message": self.message}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate and all it lacks."""

    facts: Facts
    lacks: tuple[Lack, ...]

    @property
    def distance(self) -> tuple[int, float]:
        """How many requirements it misses, then by how much."""
        return len(self.lacks), sum(lack.gap for lack in self.lacks)

    def body(self) -> dict[str, Any]:
        return {"workflow": self.facts.workflow, "version": self.facts.version, "lacks": [lack.body() for lack in self.lacks]}


@dataclass(frozen=True, slots=True)
class Choice:
    """Those that fit, the best first, and the others, the nearest first."""

    matches: tuple[Facts, ...]
    rejected: tuple[Rejected, ...]
    why: tuple[str, ...] = field(default=())

    @property
    def chosen(self) -> Facts | None:
        return self.matches[0] if self.matches else None

    def body(self) -> dict[str, Any]:
        """As customers see it; only with a match."""
        assert self.chosen is not None
        return {
            "workflow": self.chosen.workflow,
            "version": self.chosen.version,
            "why": list(self.why),
            "considered": len(self.matches) + len(self.rejected),
            "rejected": [one.body() for one in self.rejected],
        }


def requirements(given: Any) -> dict[str, Any]:
    """The requirements of a request, checked; raises Invalid naming what is known. A capability that is false is not asked for."""
    if not isinstance(given, Mapping):
        raise _wrong("requirements", "an object")
    wanted: dict[str, Any] = {}
    for name, value in given.items():
        field_name = f"requirements.{str(name)[:60]}"
        if name in NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NUMBERS[name] or value > 1e12:
                raise _wrong(field_name, "a number from 0 to 1" if name == "min_success" else "a number, 0 or more")
            wanted[name] = value
        elif name == "min_quality":
            if value not in QUALITIES:
                raise _wrong(field_name, f"one of {', '.join(QUALITIES)}")
            wanted[name] = value
        elif name in CAPABILITIES:
            if not isinstance(value, bool):
                raise _wrong(field_name, "true or false")
            if value:
                wanted[name] = True
        else:
            raise Invalid(
                "requirement_unknown",
                f"There is no requirement called {str(name)[:60]!r}.",
                f"Known are: {', '.join(REQUIREMENTS)}.",
                details={"field": field_name, "known": list(REQUIREMENTS)},
            )
    return wanted


def choose(candidates: Sequence[Facts], wanted: Mapping[str, Any], *, prefer: str = "quality") -> Choice:
    """The candidates that meet everything in `wanted`, in the order of `prefer`, and what each other one lacks."""
    judged = [(one, lacks(one, wanted)) for one in candidates]
    order = _order(prefer)
    matches = tuple(sorted((one for one, missing in judged if not missing), key=order))
    rejected = tuple(sorted((Rejected(one, tuple(missing)) for one, missing in judged if missing), key=lambda r: (r.distance, r.facts.workflow)))
    return Choice(matches, rejected, tuple(_why(matches, wanted, prefer)) if matches else ())


def lacks(one: Facts, wanted: Mapping[str, Any]) -> list[Lack]:
    """What `one` is missing of `wanted`; empty when it fits."""
    return [lack for name, value in wanted.items() if (lack := _lack(one, name, value)) is not None]


def _lack(one: Facts, name: str, value: Any) -> Lack | None:
    if name in CAPABILITIES:
        capability, words = CAPABILITIES[name]
        return None if capability in one.capabilities else Lack(name, True, False, f"Nothing in it {words}.", 1.0)
    if name == "min_quality":
        has, least = _rank(one.quality), _rank(value)
        if has >= least:
            return None
        said = f"Its quality is rated {one.quality}" if has >= 0 else "Its quality is not rated"
        return Lack(name, value, one.quality or None, f"{said}; {value} was asked for.", (least - has) / len(QUALITIES))
    has_value, unit, worse = {
        "max_cost": (one.cost_usd, _usd, lambda has: has > value),
        "max_seconds": (one.seconds, _s, lambda has: has > value),
        "min_success": (one.success, _share, lambda has: has < value),
    }[name]
    if has_value is None:
        return Lack(name, value, None, f"Its {_OF[name]} has not been measured yet; {unit(value)} was asked for.", FARTHEST)
    if not worse(has_value):
        return None
    said = {"max_cost": f"A job costs {unit(has_value)}", "max_seconds": f"95% of its runs took up to {unit(has_value)}"}.get(
        name, f"{unit(has_value)} of its runs succeeded"
    )
    return Lack(name, value, round(has_value, 6), f"{said}; {unit(value)} was asked for.", min(abs(has_value - value) / max(value, 1e-9), FARTHEST))


_OF = {"max_cost": "cost", "max_seconds": "speed", "min_success": "success"}


def _order(prefer: str) -> Callable[[Facts], tuple[Any, ...]]:
    def key(one: Facts) -> tuple[Any, ...]:
        cost, seconds = (inf if value is None else value for value in (one.cost_usd, one.seconds))
        by = {
            "quality": (-_rank(one.quality), cost, seconds),
            "cost": (cost, seconds, -_rank(one.quality)),
            "speed": (seconds, cost, -_rank(one.quality)),
        }[prefer]
        return (not one.accepts, one.success is None or one.success < RELIABLE, *by, one.workflow)

    return key


def _why(matches: Sequence[Facts], wanted: Mapping[str, Any], prefer: str) -> list[str]:
    one = matches[0]
    said = [f"It does {one.task}, as asked."]
    for name, value in wanted.items():
        if name == "max_cost":
            said.append(f"A job costs {_usd(one.cost_usd)} on your plan, of {_usd(value)} allowed.")
        elif name == "max_seconds":
            said.append(f"95% of its runs took at most {_s(one.seconds)}, of {_s(value)} allowed.")
        elif name == "min_success":
            said.append(f"{_share(one.success)} of its runs succeeded; {_share(value)} was asked for.")
        elif name == "min_quality":
            said.append(f"Its quality is rated {one.quality} by its operator; {value} was asked for.")
        else:
            said.append(f"It {CAPABILITIES[name][1]}.")
    if one.source:
        small = ", which use the smallest inputs" if one.source == "smoke_runs" else ""
        said.append(f"Speed and cost were measured on {one.runs:,} {'of our own test runs' if small else 'jobs'}{small}.")
    else:
        said.append("Its speed and cost have not been measured yet.")
    if len(matches) > 1:
        better = "" if one.accepts == matches[1].accepts else ", as it takes the inputs you sent"
        best = {"quality": "the best rated", "cost": "the cheapest", "speed": "the fastest"}[prefer]
        said.append(f"Of the {len(matches):,} that fit it comes first{better or f': {best} of those that run reliably'}; next is {matches[1].workflow}.")
    return said


def _rank(quality: str) -> int:
    return QUALITIES.index(quality) if quality in QUALITIES else -1


def _usd(value: float | None) -> str:
    return "nothing" if value is None else f"${value:.4f}"


def _s(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3g} s"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value * 100:.4g}%"


def _wrong(name: str, wanted: str) -> Invalid:
    return Invalid("wrong_type", f"{name} must be {wanted}.", f"Send {wanted}, or leave it out.", details={"field": name})
