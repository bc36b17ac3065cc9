"""What a version is made of, apart from who made it and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.exposed import ExposedInput, load_all
from builds.links import Graph


@dataclass(frozen=True)
class Content:
    """`lock` is part of the version; `resolved` is the newest lock document made for it since, where there is one."""

    graph: Graph = field(default_factory=dict)
    inputs: list[ExposedInput] = field(default_factory=list)
    ui_graph: Mapping[str, Any] | None = None
    timeout_s: int = 300
    stall_s: int = 120
    lock: Any = None
    resolved: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, version: Any, *, resolved: Mapping[str, Any] | None = None) -> Content:
        """The content of a version, or of anything with its fields."""
        return cls(
            graph=version.graph,
            inputs=load_all(version.inputs),
            ui_graph=version.ui_graph,
            timeout_s=version.timeout_s,
            stall_s=version.stall_s,
            lock=version.lock,
            resolved=resolved,
        )


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same content: 1 and 1.0 are, 1 and true are not. Does not recurse."""
    pending = [(a, b)]
    while pending:
        a, b = pending.pop()
        if isinstance(a, bool) or isinstance(b, bool):
            if a is not b:
                return False
        elif isinstance(a, Mapping) and isinstance(b, Mapping):
            if a.keys() != b.keys():
                return False
            pending.extend((a[key], b[key]) for key in a)
        elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
            if len(a) != len(b):
                return False
            pending.extend(zip(a, b, strict=True))
        elif a != b:
            return False
    return True
