"""The states of a worker and the moves between them. Pure; every write that moves a worker names the states it may come from.

`ordered` was asked of a provider; `starting` has registered, or its ComfyUI comes up again; `loading` runs its warm-up; `idle` and
`busy` take jobs; `draining` finishes and leaves; `faulted` was taken out, and is kept a while to be looked at; `stopped` and `lost` are ends.
"""

from __future__ import annotations

ALLOWED: dict[str, frozenset[str]] = {
    "ordered": frozenset({"starting", "draining", "faulted", "stopped", "lost"}),
    # A claim may be the first word after registration, so a worker can be busy without having been seen idle.
    "starting": frozenset({"loading", "idle", "busy", "draining", "faulted", "stopped", "lost"}),
    "loading": frozenset({"starting", "idle", "busy", "draining", "faulted", "stopped", "lost"}),
    # Back to starting: its ComfyUI died and comes up again.
    "idle": frozenset({"starting", "loading", "busy", "draining", "faulted", "stopped", "lost"}),
    "busy": frozenset({"starting", "loading", "idle", "draining", "faulted", "stopped", "lost"}),
    "draining": frozenset({"stopped", "lost"}),
    "faulted": frozenset({"idle", "draining", "stopped", "lost"}),
    "stopped": frozenset(),
    "lost": frozenset(),
}
TAKES_JOBS = ("starting", "loading", "idle", "busy")
"""States in which a claim may be answered, unless the worker is cordoned or about to be taken away: to claim is to be ready."""
REPORTED = ("starting", "loading", "idle", "busy")
"""What an agent's own word may move it between."""


class IllegalMove(RuntimeError):
    """Code tried to move a worker along an edge that is not in ALLOWED."""


def check(before: str, after: str) -> None:
    """Raise IllegalMove unless `before` → `after` is allowed. Staying is no move."""
    if before != after and after not in ALLOWED[before]:
        raise IllegalMove(f"a worker cannot go from {before} to {after}")


def before(after: str) -> tuple[str, ...]:
    """The states a worker may enter `after` from, in the order of the table."""
    return tuple(state for state, following in ALLOWED.items() if after in following)


def reported(said: str, *, warming: bool, now_is: str) -> str:
    """The state after an agent said `said`; `warming`: its rehearsal runs. What was decided about it here stands."""
    if now_is not in REPORTED and now_is != "ordered":
        return now_is
    if said == "draining":  # told by a signal of its provider: it takes no more, and says when it leaves
        return "draining" if "draining" in ALLOWED[now_is] else now_is
    if said == "starting" and warming:
        said = "loading"
    if said not in REPORTED:
        said = "idle"
    if now_is == "ordered":  # registering comes first
        return now_is
    return said if said == now_is or said in ALLOWED[now_is] else now_is
