"""Who descends from whom: versions by number of their parents, a commit's one or a merge's two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Parents = Mapping[Any, Iterable[Any]]


def ancestors(parents: Parents, start: Any) -> set[Any]:
    """`start` and everything it came from."""
    seen: set[Any] = set()
    pending = [start]
    while pending:
        one = pending.pop()
        if one not in seen:
            seen.add(one)
            pending.extend(parents.get(one, ()))
    return seen


def nearest(parents: Parents, a: Any, b: Any) -> list[Any]:
    """Common ancestors that no other common ancestor descends from; more than one after crossed merges, none without a common past."""
    common = ancestors(parents, a) & ancestors(parents, b)
    behind: set[Any] = set()
    for one in common:
        for parent in parents.get(one, ()):
            if parent in common and parent not in behind:
                behind |= ancestors(parents, parent)
    return [one for one in common if one not in behind]
