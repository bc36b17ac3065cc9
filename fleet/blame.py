"""Is it the worker or the workflow? Pure: attempts go in, the workers come out that fail what works elsewhere.

Each workflow is a 2x2 table, this worker against the others, failed against succeeded. Given its margins, how many of a workflow's
failures fall on one worker is hypergeometric if workers do not matter (Fisher's exact test); the workflows' tables are independent, so
their sum is their convolution (the exact conditional form of Cochran, Mantel and Haenszel). A workflow that fails everywhere, or that ran
nowhere else, makes a table that can say nothing. So that a workflow that broke just now is not held against a worker that came just now,
the same must show among the attempts after the worker's first failure alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

ALPHA = 1e-4
"""Chance of so many failures on one worker if workers did not matter. Small, as it is looked at again and again for every worker."""
ALPHA_SINCE = 0.05
"""The same among the attempts after the worker's first failure."""
LEAST_FAILED = 3
CLUSTER = 2
"""Failures counted of one customer's jobs of one workflow, while none of theirs is seen to work elsewhere: a burst of bad input is one fact."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One job tried by one worker, and how it ended."""

    worker: Hashable
    workflow: Hashable
    failed: bool
    at: float
    """Seconds since any fixed moment."""
    job: Hashable = None
    customer: Hashable = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A worker (or a workflow) that fails what others do not, in counts, with the chance of that by luck."""

    who: Hashable
    failed: int
    tried: int
    others_failed: int
    others_tried: int
    p: float


_Key = Callable[[Tried], Hashable]


def workers(attempts: Iterable[Tried], *, alpha: float = ALPHA) -> list[Suspect]:
    """Workers to blame, the surest first."""
    return _suspects(_once(attempts), alpha=alpha, of=lambda t: t.worker, among=lambda t: t.workflow)


def workflows(attempts: Iterable[Tried], *, alpha: float = ALPHA) -> list[Suspect]:
    """Workflows to blame: they fail on at least two workers that do other work well."""
    tried = _once(attempts)
    where: dict[Hashable, set[Hashable]] = defaultdict(set)
    for t in tried:
        if t.failed:
            where[t.workflow].add(t.worker)
    found = _suspects(tried, alpha=alpha, of=lambda t: t.workflow, among=lambda t: t.worker)
    return [s for s in found if len(where[s.who]) >= 2]


def chance(tables: Sequence[tuple[int, int, int, int]]) -> float:
    """P(at least so many failures on our side) over tables of (our failed, our tried, all failed, all tried), each with its margins given."""
    seen = sum(ours for ours, _, _, _ in tables)
    spread = [1.0]
    for _, tried, failed, total in tables:
        spread = _convolved(spread, _hypergeometric(tried, failed, total))
    return min(1.0, sum(spread[seen:]))


def _suspects(tried: Sequence[Tried], *, alpha: float, of: _Key, among: _Key) -> list[Suspect]:
    counts: dict[Hashable, int] = defaultdict(int)
    for t in tried:
        counts[of(t)] += t.failed
    found = []
    for who in (w for w, failed in counts.items() if failed >= LEAST_FAILED):
        kept = _clustered(tried, who, of=of)
        p = chance(list(_tables(kept, who, of=of, among=among).values()))
        if p > alpha:
            continue
        first = min(t.at for t in kept if of(t) == who and t.failed)
        since = [t for t in kept if t.at > first]
        if chance(list(_tables(since, who, of=of, among=among).values())) > ALPHA_SINCE:
            continue
        ours = [t for t in kept if of(t) == who]
        shared = {among(t) for t in ours}
        others = [t for t in kept if of(t) != who and among(t) in shared]
        found.append(Suspect(who, sum(t.failed for t in ours), len(ours), sum(t.failed for t in others), len(others), p))
    return sorted(found, key=lambda s: s.p)


def _tables(tried: Sequence[Tried], who: Hashable, *, of: _Key, among: _Key) -> Mapping[Hashable, tuple[int, int, int, int]]:
    counts: dict[Hashable, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for t in tried:
        row, ours = counts[among(t)], of(t) == who
        row[0] += ours and t.failed
        row[1] += ours
        row[2] += t.failed
        row[3] += 1
    return {key: (row[0], row[1], row[2], row[3]) for key, row in counts.items() if row[1] and row[1] < row[3]}


def _once(attempts: Iterable[Tried]) -> list[Tried]:
    """A job counts once on a worker: tried again there, it says nothing new."""
    kept: dict[Hashable, Tried] = {}
    for n, t in enumerate(attempts):
        kept[(t.worker, t.job) if t.job is not None else n] = t
    return list(kept.values())


def _clustered(tried: Sequence[Tried], who: Hashable, *, of: _Key) -> list[Tried]:
    """Without the failures of a customer's burst beyond the first few, unless that customer's jobs of that workflow work elsewhere meanwhile."""
    firsts: dict[tuple[Hashable, Hashable], float] = {}
    for t in tried:
        if of(t) == who and t.failed and t.customer is not None:
            key = (t.customer, t.workflow)
            firsts[key] = min(t.at, firsts.get(key, t.at))
    works = {(t.customer, t.workflow) for t in tried if of(t) != who and not t.failed and t.at > firsts.get((t.customer, t.workflow), math.inf)}
    kept: list[Tried] = []
    seen: dict[Hashable, int] = defaultdict(int)
    for t in sorted(tried, key=lambda t: t.at):
        key = (t.customer, t.workflow)
        if of(t) == who and t.failed and key in firsts and key not in works:
            seen[key] += 1
            if seen[key] > CLUSTER:
                continue
        kept.append(t)
    return kept


def _hypergeometric(tried: int, failed: int, total: int) -> list[float]:
    """Chances of 0, 1, … failures among `tried` drawn from `total` of which `failed` failed."""
    ways = math.comb(total, tried)
    return [math.comb(failed, x) * math.comb(total - failed, tried - x) / ways for x in range(min(tried, failed) + 1)]


def _convolved(one: Sequence[float], other: Sequence[float]) -> list[float]:
    found = [0.0] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            found[i + j] += a * b
    return found
