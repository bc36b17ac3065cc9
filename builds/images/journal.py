"""What a running build writes down: lines and steps, gathered and written a few times a second, and the wish to stop it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from builds.images import building
from builds.images.building import Claim, Lost
from builds.images.progress import Progress, Step, clean
from builds.models import BuildLine, BuildStep

MAX_TEXT = 2000
# BuildKit's own first steps, which say nothing about the image.
_QUIET = ("[internal] load", "copy /context", "transferring")


class Canceled(Exception):
    """Somebody asked for the build to end."""


class Journal:
    """One writer: the process that holds the claim."""

    def __init__(self, held: Claim, *, clock: Callable[[], datetime], follow: Callable[[str], None]) -> None:
        self.held, self.clock, self.follow = held, clock, follow
        self.current = ""
        self.built: list[BuildStep] = []
        self._lines: list[BuildLine] = []
        self._changed: dict[int, BuildStep] = {}
        self._rows: dict[int, BuildStep] = {}
        self._offset = 0
        self._seq = 0
        self._stop = threading.Event()
        self._lost = False

    # -- what is said

    def say(self, text: str, step: int | None = None) -> None:
        """One line of the log."""
        if self._seq >= building.MAX_LINES:
            return
        self._seq += 1
        if self._seq == building.MAX_LINES:
            text = f"The log is cut here, at {building.MAX_LINES:,} lines."
        text = clean(text)[:MAX_TEXT]
        self._lines.append(
            BuildLine(build_id=self.held.build.id, seq=self._seq, step=step if step is not None else self._position(), at=self.clock(), text=text)
        )
        self.follow(text)
        if len(self._lines) >= 500:
            self.flush()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step of ours, before or after BuildKit's."""
        row = self._row(self._offset + 1, name[:300], "")
        self._offset += 1
        self.current = name
        began = time.monotonic()
        self.say(name)
        self.flush()
        try:
            yield
        except Canceled:
            self._settle(row, BuildStep.State.CANCELED, time.monotonic() - began)
            raise
        except Exception:
            self._settle(row, BuildStep.State.FAILED, time.monotonic() - began)
            raise
        self._settle(row, BuildStep.State.DONE, time.monotonic() - began)
        self.flush()

    def take(self, progress: Progress, line: str) -> None:
        """One line of BuildKit."""
        said = progress.feed(line)
        if said is None:
            return
        if said.step is None:
            self.say(said.text)
            return
        step = next(s for s in progress.steps.values() if s.position == said.step)
        row = self._rows.get(self._offset + said.step)
        if row is None or row.name != step.name:
            row = self._row(self._offset + said.step, step.name, step.stage)
            self.built.append(row)
            self.current = step.name
        if row.state != step.state:
            row.state, row.seconds = step.state, step.seconds
            self._changed[row.position] = row
        self.say(said.text, row.position)

    def settle(self, progress: Progress) -> None:
        """After BuildKit's last line: its steps keep their places, ours come after."""
        for step in progress.steps.values():
            row = self._rows[self._offset + step.position]
            if step.state == "running":  # never said to have ended: another step's failure ended it
                row.state = BuildStep.State.CANCELED
                self._changed[row.position] = row
        self._offset += len(progress.steps)

    def measured(self, sizes: Mapping[int, int]) -> None:
        """Bytes of the layers, by position."""
        for position, size in sizes.items():
            self._rows[position].size_bytes = size
            self._changed[position] = self._rows[position]

    def flush(self) -> None:
        """Write what has gathered. Raises Lost."""
        lines, self._lines = self._lines, []
        steps, self._changed = list(self._changed.values()), {}
        if lines or steps:
            building.note(self.held, lines=lines, steps=steps, now=self.clock())

    def _row(self, position: int, name: str, stage: str) -> BuildStep:
        row = BuildStep(build_id=self.held.build.id, position=position, name=name, stage=stage, state=BuildStep.State.RUNNING, started_at=self.clock())
        self._rows[position] = self._changed[position] = row
        return row

    def _settle(self, row: BuildStep, state: str, seconds: float) -> None:
        row.state, row.seconds = state, round(seconds, 3)
        self._changed[row.position] = row

    def _position(self) -> int | None:
        return self._offset if self._offset in self._rows else None

    # -- the wish to stop it

    def ask_to_stop(self, *, lost: bool = False) -> None:
        self._lost = self._lost or lost
        self._stop.set()

    def asked_to_stop(self) -> bool:
        return self._stop.is_set()

    def stop_if_asked(self) -> None:
        """Raises Canceled or Lost."""
        if self._stop.is_set():
            raise Lost if self._lost else Canceled


def is_quiet(step: Step | BuildStep) -> bool:
    """Whether a step says nothing about the image."""
    return step.name.startswith(_QUIET)
