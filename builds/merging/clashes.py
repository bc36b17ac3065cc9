"""What two sides cannot agree on, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builds.comparing.differences import ABSENT
from controlplane.kernel.errors import Invalid

OURS, THEIRS = "ours", "theirs"
# Stand where a field's name would, and where a node's id would.
NODE, INPUTS, VERSION = "@node", "@inputs", "@version"


@dataclass(frozen=True, slots=True)
class Clash:
    """One field of one node, or a whole node (`@node`), an exposed input (`@inputs`) or a limit (`@version`), with all three states.

    A state is `ABSENT` where it is not there. `chosen` is empty until somebody said ours or theirs.
    """

    node: str
    field: str
    base: Any
    ours: Any
    theirs: Any
    why: str
    chosen: str = ""

    @property
    def key(self) -> str:
        """How a choice names it."""
        return f"{self.node}.{self.field}"

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"key": self.key, "node": self.node, "field": self.field, "why": self.why, "chosen": self.chosen or None}
        return said | {side: value for side, value in (("base", self.base), (OURS, self.ours), (THEIRS, self.theirs)) if value is not ABSENT}


class Court:
    """Collects clashes and settles them by the choices given. A choice for what no longer clashes, because another choice settled it, does nothing."""

    def __init__(self, choices: Mapping[str, str]) -> None:
        wrong = {key: value for key, value in choices.items() if value not in (OURS, THEIRS)}
        if wrong:
            key = next(iter(wrong))
            raise Invalid(
                "unknown_choice", f"The choice for {str(key)[:80]} is neither ours nor theirs.", "Say ours or theirs.", details={"key": str(key)[:200]}
            )
        self.choices = choices
        self.clashes: dict[str, Clash] = {}

    def choose(self, node: str, field: str, base: Any, ours: Any, theirs: Any, why: str) -> str:
        """Which side stands: the one chosen, ours until then."""
        clash = Clash(node, field, base, ours, theirs, why)
        chosen = self.choices.get(clash.key, "")
        self.clashes.setdefault(clash.key, Clash(node, field, base, ours, theirs, why, chosen))
        return chosen or OURS
