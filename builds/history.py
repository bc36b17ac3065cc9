"""What happened to a workflow's versions: the log, newest first, with parents, branches and moves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from builds import ancestry, branches
from builds.models import Branch, BranchMove, Version, Workflow

LONGEST = 200
_HEAVY = ("graph", "ui_graph", "schema", "lock", "inputs", "findings")


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in the log. `parents` are numbers, the branch's own first; `heads` the branches that stand here."""

    version: Version
    parents: tuple[int, ...]
    heads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Log:
    """`left_out` counts older versions that are not listed."""

    entries: list[Entry]
    branches: list[Branch]
    left_out: int = 0
    numbers: dict[Any, int] = field(default_factory=dict)


def log(workflow: Workflow, *, branch: str = "", limit: int = LONGEST) -> Log:
    """Versions newest first; with `branch`, only what its head descends from."""
    lines = list(branches.listed(workflow))
    rows = list(Version.objects.filter(workflow=workflow).order_by("-number").values_list("id", "number", "parent_id", "merged_from_id"))
    numbers = {pk: number for pk, number, _, _ in rows}
    parents = {pk: tuple(one for one in above if one is not None) for pk, _, *above in rows}
    chosen = next((line for line in lines if line.name == branch), None)
    wanted = ancestry.ancestors(parents, chosen.head_id) if chosen else set(numbers)
    shown = [pk for pk, *_ in rows if pk in wanted][:limit]
    found = Version.objects.filter(pk__in=shown).defer(*_HEAVY).in_bulk()
    standing: dict[Any, list[str]] = defaultdict(list)
    for line in lines:
        standing[line.head_id].append(line.name)
    entries = [Entry(found[pk], tuple(numbers[one] for one in parents[pk]), tuple(standing[pk])) for pk in shown]
    return Log(entries, lines, len(wanted) - len(shown), numbers)


def moves(workflow: Workflow, *, limit: int = 50) -> list[BranchMove]:
    """The latest steps of all branches, newest first."""
    heavy = [f"{side}__{name}" for side in ("before", "after") for name in _HEAVY]
    return list(BranchMove.objects.filter(branch__workflow=workflow).select_related("branch", "before", "after").defer(*heavy)[:limit])
