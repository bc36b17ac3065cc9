"""What keeps a canvas file from being converted exactly, said with node, field and fix.

A conversion collects every problem it meets and raises them as one `Inexact`; nothing is guessed
and nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from controlplane.kernel.errors import Invalid

SHOWN = 50
_TEXT = 160


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be converted exactly. `node` is the id as the API graph would spell it, such as `7:3`."""

    code: str
    message: str
    suggestion: str
    node: str = ""
    field: str = ""
    class_type: str = ""


class Inexact(Invalid):
    """The canvas file cannot be converted exactly; `problems` says why, node by node."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(problems)
        first = found[0]
        more = f" ({len(found) - 1} more like this or other problems.)" if len(found) > 1 else ""
        details: dict[str, Any] = {"node": first.node, "field": first.field, "class_type": first.class_type}
        details["problems"] = [asdict(one) for one in found[:SHOWN]]
        details["problem_count"] = len(found)
        super().__init__(first.code, first.message + more, first.suggestion, details=details)
        self.problems = found


def refuse(code: str, message: str, suggestion: str, *, node: str = "", field: str = "", class_type: str = "") -> Inexact:
    """An error of one problem, for what stops the reading at once."""
    return Inexact([Problem(code, message, suggestion, node=node, field=field, class_type=class_type)])


def short(text: Any, limit: int = _TEXT) -> str:
    """`text` as it may stand in a message: one line, bounded."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
