"""What happened to a workflow's versions: the log, newest first, with parents, branches and moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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


def log(workflow: Workflow, *, branch: str = "", limit: int = LONGEST, versions: Iterable[Version] | None = None) -> Log:
    """Versions newest first; with `branch`, only what its head descends from. `versions` are those of the workflow where they are read already."""
    lines = branches.listed(workflow)
    rows = sorted(Version.objects.filter(workflow=workflow).defer(*_HEAVY) if versions is None else versions, key=lambda version: -version.number)
    numbers = {version.pk: version.number for version in rows}
    parents = {version.pk: tuple(one for one in (version.parent_id, version.merged_from_id) if one in numbers) for version in rows}
    chosen = next((line for line in lines if line.name == branch), None)
    wanted = ancestry.ancestors(parents, chosen.head_id) if chosen else set(numbers)
    shown = [version for version in rows if version.pk in wanted]
    standing: dict[Any, list[str]] = defaultdict(list)
    for line in lines:
        standing[line.head_id].append(line.name)
    entries = [Entry(version, tuple(numbers[one] for one in parents[version.pk]), tuple(standing[version.pk])) for version in shown[:limit]]
    return Log(entries, lines, len(shown) - len(entries), numbers)


def moves(workflow: Workflow, *, limit: int = 50) -> list[BranchMove]:
    """The latest steps of all branches, newest first."""
    heavy = [f"{side}__{name}" for side in ("before", "after") for name in _HEAVY]
    return list(BranchMove.objects.filter(branch__workflow=workflow).select_related("branch", "before", "after").defer(*heavy)[:limit])
