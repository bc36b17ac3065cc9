"""Faults a test asks for: slow nodes, crashes, hangs, lost sockets, full memory.

None is on by default. The switches come from the command line, the environment,
or, when allowed at start, from POST /_fault.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fleet.engine.memory import refusal

ENVIRONMENT = "FLEET_ENGINE_FAULTS"
CRASH_EXIT_CODE = 70
OOM_BYTES = 1 << 42


class UnknownFault(ValueError):
    """No fault of that name or with that value."""


@dataclass
class Faults:
    """Switches; `*_after` count finished prompts, so 0 hits the next one."""

    slow_s: float | None = None
    crash_after: int | None = None
    hang_after: int | None = None
    oom_after: int | None = None
    drop_socket: int | None = None
    finished: int = field(default=0, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def set(self, values: Mapping[str, Any]) -> None:
        """Set switches by their public names; None or False clears one."""
        with self._changed:
            for name, value in values.items():
                self._set_one(name, value)
            self._changed.notify_all()

    def _set_one(self, name: str, value: Any) -> None:
        name = name.replace("_", "-")
        if value is False:
            value = None
        try:
            if name == "slow":
                self.slow_s = None if value is None else float(value)
            elif name in ("hang", "oom", "crash"):
                setattr(self, f"{name}_after", None if value is None else self.finished)
            elif name in ("crash-after", "hang-after", "oom-after"):
                count = None if value is None else self.finished + int(value)
                setattr(self, name.replace("-", "_"), count)
            elif name == "drop-socket":
                self.drop_socket = None if value is None else int(value)
            else:
                raise UnknownFault(f"no fault named {name}")
        except TypeError as error:
            raise UnknownFault(f"{name}: {error}") from error

    def prompt_finished(self) -> None:
        with self._changed:
            self.finished += 1

    def before_node(self) -> None:
        """Act out the faults that strike while a node runs."""
        if self.slow_s:
            time.sleep(self.slow_s)
        if self._due(self.crash_after):
            # Long enough for the messages already published to leave the process.
            time.sleep(0.05)
            os._exit(CRASH_EXIT_CODE)
        with self._changed:
            # Interrupts act between nodes only, so nothing but a changed switch ends a hang.
            self._changed.wait_for(lambda: not self._due(self.hang_after))
        if self._due(self.oom_after):
            raise refusal(OOM_BYTES)

    def _due(self, after: int | None) -> bool:
        return after is not None and self.finished >= after

    def shown(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("_changed",)}


def parse(words: Iterable[str]) -> dict[str, Any]:
    """`slow=0.2`, `crash-after=3`, `hang`, or several with commas, as switch values."""
    values: dict[str, Any] = {}
    for word in words:
        for part in filter(None, (piece.strip() for piece in word.split(","))):
            name, _, value = part.partition("=")
            values[name.strip()] = value.strip() if value else True
    return values
